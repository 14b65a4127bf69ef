//! Which files of a repository make a model.

use super::error::PullError;
use super::listing::{Checksum, HubFile, ModelRef};
use crate::models::format::{CONFIG_FILE, ONNX_FOLDER, Part};

/// Most files of one model. Of a folder with more the hub does not list all of them in one answer.
const FILES_MAX: usize = 1000;
/// Ends of the names of files that no engine of this host needs: weights for other software, pictures and texts for people.
/// A `model.toml` is the operator's word about a model, and nobody else's.
const NOT_NEEDED: [&str; 13] = [
    ".bin",
    ".pt",
    ".pth",
    ".h5",
    ".msgpack",
    ".ot",
    ".md",
    ".png",
    ".jpg",
    ".gif",
    ".pdf",
    ".toml",
    ".gitattributes",
];
/// Ends of the names of weights in the form that they were trained in. Where networks were exported from them, these are the
/// model.
const SOURCES: [&str; 1] = [".safetensors"];
/// What the networks of a model are called that exporters make of it. A variant has its name added: `model_quantized.onnx`.
const NETWORKS: [&str; 6] =
    ["model", "encoder_model", "decoder_model", "decoder_with_past_model", "text_model", "vision_model"];
/// End of the names of packages, which are folders.
const PACKAGE: &str = ".mlpackage/";
/// Ends of the names of files that tell engines something about weights, however long they are.
const TEXTS: [&str; 4] = [".json", ".jinja", ".txt", ".model"];

/// The files that are meant: the named one with all that belongs to it, else the only GGUF file, else what an engine reads.
/// `files` are those of the model's folder `base`, which ends in a `/` or is empty, and of the named file's folder.
pub(super) fn choose(model: &ModelRef, base: &str, files: Vec<HubFile>) -> Result<Vec<HubFile>, PullError> {
    let from = Choice { model, base };
    match &model.file {
        Some(wanted) => from.around(wanted, files),
        None => from.whole(files),
    }
}

struct Choice<'a> {
    model: &'a ModelRef,
    base: &'a str,
}

impl Choice<'_> {
    fn problem<T>(&self, problem: &str, files: &[HubFile]) -> Result<T, PullError> {
        let files = files.iter().map(|file| file.path.clone()).collect();
        Err(PullError::Choose { model: self.model.to_string(), problem: problem.to_owned(), files })
    }

    /// A file: all parts of it, and unless it is a GGUF file, the networks of its variant and what the folder says about it.
    fn around(&self, wanted: &str, files: Vec<HubFile>) -> Result<Vec<HubFile>, PullError> {
        let parts = parts_of(wanted);
        let package = format!("{wanted}/");
        let is_there = |part: &String| files.iter().any(|file| file.path == *part);
        let is_package = files.iter().any(|file| file.path.starts_with(&package));
        if !is_package && !parts.iter().all(is_there) {
            return self.problem("does not have that file, or not all of its parts", &files);
        }
        if wanted.ends_with(".gguf") {
            return Ok(files.into_iter().filter(|file| parts.contains(&file.path)).collect());
        }
        let together = variant_of(wanted);
        let belongs = |file: &HubFile| {
            let path = file.path.as_str();
            let is_part = |whole: &String| path == whole || beside(path, whole);
            let is_text = matches!(file.checksum, Checksum::Git(_)) || ends_in(path, &TEXTS);
            path.starts_with(&package)
                || parts.iter().chain(&together).any(is_part)
                || is_text && self.is_near(path) && is_needed(path)
        };
        Ok(files.into_iter().filter(belongs).collect())
    }

    /// A model of which no file was named.
    fn whole(&self, files: Vec<HubFile>) -> Result<Vec<HubFile>, PullError> {
        let ggufs: Vec<_> = files.iter().filter(|file| file.path.ends_with(".gguf")).cloned().collect();
        if let Some(first) = ggufs.first() {
            if parts_of(&first.path).len() == ggufs.len() {
                return Ok(ggufs);
            }
            return self.problem("has several GGUF files, name one: hf:ORG/REPO:FILE", &ggufs);
        }
        if files.len() >= FILES_MAX {
            return self.problem("has too many files, name one: hf:ORG/REPO:FILE", &files);
        }
        let is_network = |file: &&HubFile| is_network(&file.path);
        let networks: Vec<_> = files.iter().filter(is_network).cloned().collect();
        let plain = networks.iter().filter(|file| networks.len() == 1 || is_plain(&file.path));
        let plain: Vec<_> = plain.map(|file| file.path.clone()).collect();
        if plain.is_empty() && !networks.is_empty() {
            return self.problem("has several networks, name one: hf:ORG/REPO:FILE", &networks);
        }
        let is_exported = !plain.is_empty() || files.iter().any(|file| file.path.contains(PACKAGE));
        let belongs = |file: &HubFile| {
            let path = file.path.as_str();
            if path.contains(PACKAGE) {
                return plain.is_empty();
            }
            if plain.iter().any(|network| path == network || beside(path, network)) {
                return true;
            }
            let is_other = is_network_or_its_weights(path) || is_exported && ends_in(path, &SOURCES);
            self.is_near(path) && is_needed(path) && !is_other
        };
        let needed: Vec<_> = files.iter().filter(|file| belongs(file)).cloned().collect();
        // Weights are never among the files that git itself keeps.
        let is_large = |file: &HubFile| matches!(file.checksum, Checksum::Sha256(_));
        let has_weights = needed.iter().any(|file| is_large(file) && !ends_in(&file.path, &TEXTS));
        if !has_weights {
            let problem = "has no weights that an engine could read beside its other files; of a folder in it, name a file: \
                           hf:ORG/REPO:FOLDER/FILE";
            return self.problem(problem, &files);
        }
        Ok(needed)
    }

    /// Whether a file lies right in the model's folder, or is one of those in its subfolders that say more about it, such as
    /// how a text encoder's outputs are pooled. The others there are exports for other software.
    fn is_near(&self, path: &str) -> bool {
        path.strip_prefix(self.base).is_some_and(|rest| match rest.split_once('/') {
            None => true,
            Some((_, file)) => file == CONFIG_FILE,
        })
    }
}

fn ends_in(path: &str, ends: &[&str]) -> bool {
    ends.iter().any(|end| path.ends_with(end))
}

fn is_needed(path: &str) -> bool {
    !ends_in(path, &NOT_NEEDED)
}

/// Whether a file belongs to the one that its name begins with: weights of a network that are kept apart from it, and what
/// is said about it.
fn beside(path: &str, network: &str) -> bool {
    path.strip_prefix(network).is_some_and(|rest| rest.starts_with(['.', '_']))
}

fn is_network_or_its_weights(path: &str) -> bool {
    path.ends_with(".onnx") || path.contains(".onnx_data") || path.contains(".onnx.data")
}

/// Whether a file is a network where an engine looks for it.
fn is_network(path: &str) -> bool {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    path.ends_with(".onnx") && (folder.is_empty() || folder == ONNX_FOLDER)
}

/// A network's folder with the `/`, and its name without the extension.
fn split(path: &str) -> (&str, &str) {
    let at = path.rfind('/').map_or(0, |at| at + 1);
    let (folder, name) = path.split_at(at);
    (folder, name.strip_suffix(".onnx").unwrap_or(name))
}

/// Whether a network is no variant of another one.
fn is_plain(path: &str) -> bool {
    NETWORKS.contains(&split(path).1)
}

/// The networks that make one model with this one: those of its folder and variant.
fn variant_of(path: &str) -> Vec<String> {
    let (folder, stem) = split(path);
    // `decoder_model_q4` is a variant of `decoder_model`, which no shorter name begins.
    let known = NETWORKS.iter().filter_map(|network| stem.strip_prefix(network));
    let variant = known.min_by_key(|variant| variant.len());
    let Some(variant) = variant.filter(|variant| variant.is_empty() || variant.starts_with('_')) else {
        return Vec::new();
    };
    NETWORKS.iter().map(|network| format!("{folder}{network}{variant}.onnx")).collect()
}

/// The names of all parts of a file, which the name of each tells.
fn parts_of(path: &str) -> Vec<String> {
    let split = || {
        let (stem, extension) = path.rsplit_once('.')?;
        let part = Part::of(stem).filter(|part| part.count as usize <= FILES_MAX)?;
        Some((1..=part.count).map(|number| part.file_name(number, extension)).collect())
    };
    split().unwrap_or_else(|| vec![path.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is chosen of files below `base`, of which those for people and machines to read are git's own.
    fn chosen_in(base: &str, reference: &str, files: &[&str]) -> Result<Vec<String>, String> {
        let file = |path: &&str| {
            let is_text = [".json", ".md", ".toml"].iter().any(|end| path.ends_with(end));
            let checksum = if is_text { Checksum::Git } else { Checksum::Sha256 };
            HubFile { path: (*path).to_owned(), base_len: 0, len: 1, checksum: checksum(String::new()) }
        };
        let chosen = choose(&reference.parse().unwrap(), base, files.iter().map(file).collect());
        chosen
            .map(|files| files.into_iter().map(|file| file.path).collect())
            .map_err(|error| error.to_string())
    }

    fn chosen(reference: &str, files: &[&str]) -> Result<Vec<String>, String> {
        chosen_in("", reference, files)
    }

    #[test]
    fn the_files_that_make_a_model_are_chosen() {
        let parts = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
        assert_eq!(chosen("hf:o/r", &["README.md", "m.gguf"]).unwrap(), ["m.gguf"]);
        assert_eq!(chosen("hf:o/r", &parts).unwrap(), parts);
        assert_eq!(chosen("hf:o/r:m-00001-of-00002.gguf", &[parts[0], parts[1], "n.gguf"]).unwrap(), parts);
        assert_eq!(chosen("hf:o/r:n.gguf", &["m.gguf", "n.gguf"]).unwrap(), ["n.gguf"]);
        let error = chosen("hf:o/r", &["a.gguf", "b.gguf"]).unwrap_err();
        assert!(error.ends_with("name one: hf:ORG/REPO:FILE; there are: a.gguf, b.gguf"), "{error}");
        assert!(
            chosen("hf:o/r:m-00001-of-00002.gguf", &[parts[0]]).unwrap_err().contains("not all of its parts")
        );
        let folder = [
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "README.md",
            "tokenizer.json",
            "model.toml",
        ];
        assert_eq!(
            chosen("hf:o/r", &folder).unwrap(),
            ["config.json", "model.safetensors", "tokenizer.json"]
        );
        for without in [&["README.md"][..], &["config.json"], &["config.json", "pytorch_model.bin"]] {
            assert!(chosen("hf:o/r", without).unwrap_err().contains("no weights"), "{without:?}");
        }
    }

    #[test]
    fn of_exported_networks_one_variant_is_chosen_with_all_that_belongs_to_it() {
        let encoder = [
            "1_Pooling/config.json",
            "config.json",
            "model.safetensors",
            "onnx/model.onnx",
            "onnx/model_q4.onnx",
            "onnx/model_q4.onnx_data",
            "openvino/model.json",
            "tokenizer.json",
        ];
        let whisper = [
            "config.json",
            "onnx/decoder_model.onnx",
            "onnx/decoder_model_merged_q4.onnx",
            "onnx/decoder_model_q4.onnx",
            "onnx/decoder_with_past_model.onnx",
            "onnx/decoder_with_past_model_q4.onnx",
            "onnx/encoder_model.onnx",
            "onnx/encoder_model_q4.onnx",
        ];
        let clip = ["config.json", "net.mlpackage/Manifest.json", "net.mlpackage/weight", "net.safetensors"];
        let shards =
            ["config.json", "m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors", "n.onnx"];
        let table: [(&str, &[&str], &[usize]); 9] = [
            ("hf:o/r", &encoder, &[0, 1, 3, 7]),
            ("hf:o/r:onnx/model_q4.onnx", &encoder, &[0, 1, 4, 5, 7]),
            ("hf:o/r:model.safetensors", &encoder, &[0, 1, 2, 7]),
            ("hf:o/r", &whisper, &[0, 1, 4, 6]),
            ("hf:o/r:onnx/encoder_model_q4.onnx", &whisper, &[0, 3, 5, 7]),
            ("hf:o/r", &clip, &[0, 1, 2]),
            ("hf:o/r:net.mlpackage", &clip, &[0, 1, 2]),
            ("hf:o/r", &shards, &[0, 3]),
            ("hf:o/r:m-00001-of-00002.safetensors", &shards, &[0, 1, 2]),
        ];
        for (reference, files, expected) in table {
            let expected: Vec<_> = expected.iter().map(|at| files[*at]).collect();
            assert_eq!(chosen(reference, files).unwrap(), expected, "{reference} of {files:?}");
        }
        // A voice, and not the other one.
        let voices = ["en/joe/joe.onnx", "en/joe/joe.onnx.json", "en/joe/jim.onnx", "en/joe/README.md"];
        assert_eq!(chosen_in("en/joe/", "hf:o/r:en/joe/joe.onnx", &voices).unwrap(), voices[..2]);
        let error = chosen("hf:o/r", &["a.onnx", "b.onnx", "config.json"]).unwrap_err();
        assert!(error.contains("several networks, name one"), "{error}");
    }
}
