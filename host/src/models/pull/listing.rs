//! Which files of a repository make a model.

use std::fmt;
use std::str::FromStr;

use pajamas_registry::source::Source;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::PullError;

/// Largest answer of the hub's interface that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Most files of one model.
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

/// `hf:ORG/REPO[:FILE][@REVISION]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRef {
    organisation: String,
    name: String,
    file: Option<String>,
    revision: String,
}

/// A model of a hub, at one commit.
#[derive(Clone, Debug)]
pub struct Listing {
    /// What was asked for.
    pub model: ModelRef,
    /// The commit.
    pub commit: String,
    /// Its files; there is at least one.
    pub files: Vec<HubFile>,
}

/// A file of a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// Its path in the repository.
    pub path: String,
    /// Length in bytes.
    pub len: u64,
    pub(super) checksum: Checksum,
}

/// What a file's content is checked by, in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// SHA-256 of the content.
    Sha256(String),
    /// Git's name of the content.
    Git(String),
}

impl FromStr for ModelRef {
    type Err = PullError;

    fn from_str(text: &str) -> Result<Self, PullError> {
        let error = || PullError::Reference { text: text.to_owned() };
        let rest = text.strip_prefix("hf:").ok_or_else(error)?;
        let (rest, revision) = rest.rsplit_once('@').unwrap_or((rest, "main"));
        let (repository, file) = match rest.split_once(':') {
            Some((repository, file)) => (repository, Some(file.to_owned())),
            None => (rest, None),
        };
        let (organisation, name) = repository.split_once('/').ok_or_else(error)?;
        let plain = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed)
        };
        let path = |path: &str| path.split('/').all(plain);
        if !plain(organisation) || !plain(name) || !path(revision) || !file.as_deref().is_none_or(path) {
            return Err(error());
        }
        let (organisation, name, revision) = (organisation.to_owned(), name.to_owned(), revision.to_owned());
        Ok(Self { organisation, name, file, revision })
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "hf:{}", self.repository())?;
        self.file.iter().try_for_each(|file| write!(formatter, ":{file}"))?;
        if self.revision == "main" { Ok(()) } else { write!(formatter, "@{}", self.revision) }
    }
}

impl ModelRef {
    /// `ORG/REPO`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.organisation, self.name)
    }
}

impl Listing {
    /// Whether it is a folder of files, and not one file, in one or several parts.
    #[must_use]
    pub fn is_folder(&self) -> bool {
        !self.files.iter().all(|file| file.is_single())
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }
}

impl HubFile {
    /// The last part of its path.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Whether the file is a whole model, or a part of one.
    fn is_single(&self) -> bool {
        self.path.ends_with(".gguf")
    }
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    oid: String,
    #[serde(default)]
    size: u64,
    path: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// Asks the hub.
pub(super) fn find(source: &dyn Source, model: &ModelRef) -> Result<Listing, PullError> {
    let repository = model.repository();
    let Revision { sha: commit } =
        ask(source, &format!("api/models/{repository}/revision/{}", model.revision))?;
    // Files in a folder of the repository are listed by themselves.
    let folder = model.file.as_deref().and_then(|file| file.rsplit_once('/')).map(|(folder, _)| folder);
    let below = folder.map(|folder| format!("/{folder}")).unwrap_or_default();
    let entries: Vec<Entry> = ask(source, &format!("api/models/{repository}/tree/{commit}{below}"))?;
    let files: Vec<HubFile> = entries.into_iter().filter(|entry| entry.kind == "file").map(file).collect();
    let files = choose(model, files)?;
    Ok(Listing { model: model.clone(), commit, files })
}

fn ask<T: DeserializeOwned>(source: &dyn Source, path: &str) -> Result<T, PullError> {
    let answer = source.get(path, ANSWER_BYTES_MAX)?;
    serde_json::from_slice(&answer).map_err(|source| PullError::Answer { path: path.to_owned(), source })
}

fn file(entry: Entry) -> HubFile {
    let (len, checksum) = match entry.lfs {
        Some(lfs) => (lfs.size, Checksum::Sha256(lfs.oid)),
        None => (entry.size, Checksum::Git(entry.oid)),
    };
    HubFile { path: entry.path, len, checksum }
}

/// The files that are meant: the named one with all parts of it, else the only GGUF file, else what an engine reads.
fn choose(model: &ModelRef, files: Vec<HubFile>) -> Result<Vec<HubFile>, PullError> {
    let names = |files: &[HubFile]| files.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
    let choose = |problem: &str, files: Vec<String>| {
        Err(PullError::Choose { model: model.to_string(), problem: problem.to_owned(), files })
    };
    if let Some(wanted) = &model.file {
        let parts = parts_of(wanted);
        let chosen: Vec<_> = files.iter().filter(|file| parts.contains(&file.path)).cloned().collect();
        if chosen.len() != parts.len() {
            return choose("does not have that file, or not all of its parts", names(&files));
        }
        return Ok(chosen);
    }
    let ggufs: Vec<_> = files.iter().filter(|file| file.path.ends_with(".gguf")).cloned().collect();
    if let Some(first) = ggufs.first() {
        if parts_of(&first.path).len() == ggufs.len() {
            return Ok(ggufs);
        }
        return choose("has several GGUF files, name one: hf:ORG/REPO:FILE", names(&ggufs));
    }
    let needed: Vec<_> =
        files.iter().filter(|file| !NOT_NEEDED.iter().any(|end| file.path.ends_with(end))).cloned().collect();
    // Weights are never among the files that git itself keeps.
    let has_weights = needed.iter().any(|file| matches!(file.checksum, Checksum::Sha256(_)));
    if !has_weights || needed.len() > FILES_MAX {
        let problem = "has no weights that an engine could read beside its other files; of a folder in it, name a file: \
                       hf:ORG/REPO:FOLDER/FILE";
        return choose(problem, names(&files));
    }
    Ok(needed)
}

/// The names of all parts of a file, which the name of each tells: `…-00001-of-00003.gguf`.
fn parts_of(path: &str) -> Vec<String> {
    let split = || {
        let stem = path.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (begin, number) = rest.rsplit_once('-')?;
        let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        let total: usize = count.parse().ok().filter(|total| (1..=FILES_MAX).contains(total))?;
        (is_number(number) && is_number(count))
            .then(|| (1..=total).map(|part| format!("{begin}-{part:05}-of-{count}.gguf")).collect())
    };
    split().unwrap_or_else(|| vec![path.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written() {
        for text in ["hf:org/repo", "hf:org/repo:q4/model.gguf", "hf:o-1/r.2@refs/pr/3", "hf:a/b:c.gguf@v1.0"]
        {
            assert_eq!(text.parse::<ModelRef>().unwrap().to_string(), text);
        }
        for text in [
            "org/repo",
            "hf:repo",
            "hf:org/",
            "hf:../x",
            "hf:org/repo:../../etc",
            "hf:org/repo:/x",
            "hf:o/r@",
        ] {
            let error = text.parse::<ModelRef>().unwrap_err().to_string();
            assert!(error.contains("expected hf:ORG/REPO"), "{text}: {error}");
        }
    }

    /// What is chosen of files, of which those for people and machines to read are git's own.
    fn chosen(reference: &str, files: &[&str]) -> Result<Vec<String>, String> {
        let file = |path: &&str| {
            let is_text = [".json", ".md", ".toml"].iter().any(|end| path.ends_with(end));
            let checksum = if is_text { Checksum::Git } else { Checksum::Sha256 };
            HubFile { path: (*path).to_owned(), len: 1, checksum: checksum(String::new()) }
        };
        let chosen = choose(&reference.parse().unwrap(), files.iter().map(file).collect());
        chosen
            .map(|files| files.into_iter().map(|file| file.path).collect())
            .map_err(|error| error.to_string())
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

    proptest::proptest! {
        #[test]
        fn any_text_is_a_reference_or_refused(text in "(hf:)?[a-z./:@-]{0,40}") {
            if let Ok(reference) = text.parse::<ModelRef>() {
                proptest::prop_assert!(!reference.to_string().contains(".."));
            }
        }
    }
}
