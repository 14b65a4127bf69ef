//! The files of a model: a folder as Hugging Face lays it out, or a single network.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Error, ErrorKind};
use serde::de::DeserializeOwned;

use crate::pipeline::NetworkFiles;

/// Longest JSON file that is read; a longer one is refused. Vocabularies of 250 000 words take 17 MB.
const JSON_BYTES_MAX: u64 = 64 << 20;

/// Most entries of a folder that are looked at; more is refused.
const ENTRIES_MAX: usize = 4096;

/// How the name of a network goes on that is no variant of the one it begins with, but does the work of two:
/// `decoder_model_merged`.
const MERGED: &str = "merged";

/// A model's folder, as `optimum` and `transformers.js` export it: JSON files, and the networks beside them or in
/// a subfolder such as `onnx`.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    variant: Option<String>,
    files: NetworkFiles,
}

impl Folder {
    /// The folder `path` of networks as `files` says. `variant` chooses among exports of one network by the end of their
    /// names: `quantized` means `model_quantized.onnx`.
    pub(crate) fn new(path: &Path, variant: Option<String>, files: NetworkFiles) -> Self {
        Self { path: path.to_owned(), variant, files }
    }

    /// The folder's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the folder has this file.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.path.join(name).is_file()
    }

    /// A JSON file of the folder; `None` if it is not there.
    ///
    /// # Errors
    /// The file cannot be read, is longer than 64 MiB, or has other content than `T`.
    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let file = self.path.join(name);
        if file.is_file() { read_json(&file).map(Some) } else { Ok(None) }
    }

    /// The file of the network that is called `stem`, of the folder's variant; where none is asked for and the plain one is
    /// not there, the only variant that is.
    ///
    /// # Errors
    /// There is no such file, or there are several; the message has the networks that are there.
    pub(crate) fn network(&self, stem: &str) -> Result<PathBuf, Error> {
        match self.exactly(stem) {
            Err(missing) if self.variant.is_none() => self.only_variant(stem)?.ok_or(missing),
            found => found,
        }
    }

    /// The variant of a network, if there is exactly one.
    fn only_variant(&self, stem: &str) -> Result<Option<PathBuf>, Error> {
        let begin = format!("{stem}_");
        let is_variant = |file: &PathBuf| {
            let name = file.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.strip_prefix(&begin)).is_some_and(|end| !end.starts_with(MERGED))
        };
        let mut variants = self.networks()?;
        variants.retain(is_variant);
        Ok(if variants.len() == 1 { variants.pop() } else { None })
    }

    fn exactly(&self, stem: &str) -> Result<PathBuf, Error> {
        let stem = match &self.variant {
            Some(variant) => format!("{stem}_{variant}"),
            None => stem.to_owned(),
        };
        let names = || self.files.extensions.iter().map(|extension| format!("{stem}.{extension}"));
        let places =
            names().flat_map(|name| [self.path.join(&name), self.path.join(self.files.folder).join(&name)]);
        match places.into_iter().find(|file| self.is_network(file)) {
            Some(file) => Ok(file),
            None => {
                let wanted = names().collect::<Vec<_>>().join(" or ");
                Err(self.missing(&format!("no {wanted}"), &self.networks()?))
            }
        }
    }

    /// Whether there is a network: a file, or a folder where those of its extension are.
    fn is_network(&self, path: &Path) -> bool {
        self.files.fits(path) && path.exists()
    }

    /// The file of the only network of a model: `model.onnx` of the folder's variant, or else the one that is there.
    ///
    /// # Errors
    /// There is none, or several of other names.
    pub(crate) fn only_network(&self) -> Result<PathBuf, Error> {
        let missing = match self.network("model") {
            Ok(file) => return Ok(file),
            Err(error) => error,
        };
        match self.networks()?.as_slice() {
            [only] if self.variant.is_none() => Ok(only.clone()),
            _ => Err(missing),
        }
    }

    /// All networks of the folder and of its subfolder for them, sorted by path.
    ///
    /// # Errors
    /// The folder cannot be read or has more than 4096 entries.
    pub(crate) fn networks(&self) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        let subfolder = self.path.join(self.files.folder);
        for folder in [Some(&self.path), subfolder.is_dir().then_some(&subfolder)].into_iter().flatten() {
            let entries = fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
            for (index, entry) in entries.enumerate() {
                if index == ENTRIES_MAX {
                    return Err(Error::bad_model(format!(
                        "{} has more than {ENTRIES_MAX} entries and is no model's folder",
                        folder.display()
                    )));
                }
                let path = entry.map_err(|error| unreadable(folder, &error))?.path();
                if self.is_network(&path) {
                    found.push(path);
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn missing(&self, what: &str, networks: &[PathBuf]) -> Error {
        let names: Vec<_> = networks
            .iter()
            .map(|file| file.strip_prefix(&self.path).unwrap_or(file).display().to_string())
            .collect();
        let there = if names.is_empty() {
            let kinds: Vec<_> =
                self.files.extensions.iter().map(|extension| format!(".{extension}")).collect();
            format!("it has no {} file", kinds.join(" or "))
        } else {
            format!("it has {}", names.join(", "))
        };
        let example = self.files.extensions.first().unwrap_or(&"onnx");
        let hint = format!(
            "; the option `variant` chooses by the end of the name (`quantized` means model_quantized.{example})"
        );
        let (path, folder) = (self.path.display(), self.files.folder);
        Error::new(
            ErrorKind::NotFound,
            format!("{path} has {what} beside its JSON files or in {folder}/: {there}{hint}"),
        )
    }
}

/// A JSON file's content.
///
/// # Errors
/// The file cannot be read, is longer than 64 MiB, or has other content than `T`; the message names the file and the
/// field.
pub(crate) fn read_json<T: DeserializeOwned>(file: &Path) -> Result<T, Error> {
    let text = read_bounded(file)?;
    let mut reader = serde_json::Deserializer::from_slice(&text);
    serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| Error::bad_model(format!("{}: {error}", file.display())))
}

/// The bytes of a file of at most 64 MiB.
///
/// # Errors
/// The file cannot be read or is longer.
pub(crate) fn read_bounded(file: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let open = fs::File::open(file).map_err(|error| unreadable(file, &error))?;
    open.take(JSON_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unreadable(file, &error))?;
    if bytes.len() as u64 > JSON_BYTES_MAX {
        return Err(Error::bad_model(format!("{} is longer than {JSON_BYTES_MAX} bytes", file.display())));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::BadModel,
    };
    Error::new(kind, format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_without_a_variant_is_the_plain_one_or_the_only_other() {
        let cases: [(&[&str], Option<&str>); 5] = [
            (&["decoder_model.onnx", "decoder_model_int8.onnx"], Some("decoder_model.onnx")),
            (&["decoder_model_int8.onnx", "decoder_model_merged.onnx"], Some("decoder_model_int8.onnx")),
            (&["decoder_model_int8.onnx", "decoder_model_fp16.onnx"], None),
            (&["decoder_model_merged.onnx"], None),
            (&["decoder_with_past_model.onnx"], None),
        ];
        for (files, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            for file in files {
                fs::write(folder.path().join(file), "").unwrap();
            }
            let found = Folder::new(folder.path(), None, NetworkFiles::ONNX).network("decoder_model").ok();
            assert_eq!(found, expected.map(|name| folder.path().join(name)), "{files:?}");
        }
    }
}
