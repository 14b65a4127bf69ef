//! What a hub says about a model: its commit, and its files.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use pajamas_registry::source::Source;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::choose::choose;
use super::error::PullError;
use crate::models::format::CONFIG_FILE;

/// Largest answer of the hub's interface that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Most folders of one repository that are looked into.
const FOLDERS_MAX: usize = 64;

/// `hf:ORG/REPO[:FILE][@REVISION]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRef {
    organisation: String,
    name: String,
    pub(super) file: Option<String>,
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
    /// How much of it is the folder of the model.
    pub(super) base_len: usize,
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

    /// Where it belongs, below the folder that the model is pulled into.
    #[must_use]
    pub fn local_path(&self) -> &str {
        if self.is_single() { self.file_name() } else { self.path.get(self.base_len..).unwrap_or(&self.path) }
    }

    /// Whether the file is a whole model, or a part of one.
    pub(super) fn is_single(&self) -> bool {
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
    let tree = Tree { source, model, path: format!("api/models/{repository}/tree/{commit}") };
    let (base, files) = match &model.file {
        None => (String::new(), tree.all("")?),
        Some(file) => tree.around(file)?,
    };
    let mut files = choose(model, &base, files)?;
    for file in &mut files {
        file.base_len = base.len();
    }
    Ok(Listing { model: model.clone(), commit, files })
}

/// The files of a repository at one commit.
struct Tree<'a> {
    source: &'a dyn Source,
    model: &'a ModelRef,
    path: String,
}

/// What lies right in a folder.
#[derive(Default)]
struct Folder {
    files: Vec<HubFile>,
    /// Paths with a `/` at the end.
    folders: Vec<String>,
}

impl Tree<'_> {
    /// What lies in a folder, which is named with a `/` at its end; the repository's own folder is empty.
    fn folder(&self, folder: &str) -> Result<Folder, PullError> {
        let below = folder.strip_suffix('/').map(|folder| format!("/{folder}")).unwrap_or_default();
        let entries: Vec<Entry> = ask(self.source, &format!("{}{below}", self.path))?;
        let mut found = Folder::default();
        for entry in entries {
            let name = entry.path.strip_prefix(folder).unwrap_or_default();
            if matches!(name, "" | "." | "..") || name.contains(['/', '\\', '\0']) {
                return Err(PullError::Outside { path: entry.path });
            }
            match entry.kind.as_str() {
                "file" => found.files.push(file(entry)),
                "directory" => found.folders.push(format!("{}/", entry.path)),
                _ => {}
            }
        }
        Ok(found)
    }

    /// All files in a folder and below it.
    fn all(&self, folder: &str) -> Result<Vec<HubFile>, PullError> {
        let mut open = VecDeque::from([folder.to_owned()]);
        let mut files = Vec::new();
        for _ in 0..FOLDERS_MAX {
            let Some(folder) = open.pop_front() else { return Ok(files) };
            let found = self.folder(&folder)?;
            files.extend(found.files);
            open.extend(found.folders);
        }
        let problem = "has too many folders, name a file: hf:ORG/REPO:FOLDER/FILE".to_owned();
        let files = files.into_iter().map(|file| file.path).collect();
        Err(PullError::Choose { model: self.model.to_string(), problem, files })
    }

    /// The folder of the model that a file or package belongs to, and what lies there and beside the file: the closest
    /// folder above it that has a `config.json`, or else its own.
    fn around(&self, file: &str) -> Result<(String, Vec<HubFile>), PullError> {
        let own = file.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let Folder { files: mut found, mut folders } = self.folder(&own)?;
        let package = format!("{file}/");
        if folders.contains(&package) {
            found.extend(self.all(&package)?);
        }
        if found.iter().any(|found| found.path == file && found.is_single()) {
            return Ok((own, found));
        }
        let mut base = own.as_str();
        loop {
            let config = format!("{base}{CONFIG_FILE}");
            if found.iter().any(|file| file.path == config) {
                // What is said about the model may lie one level below.
                for folder in
                    folders.iter().filter(|folder| **folder != own && **folder != package).take(FOLDERS_MAX)
                {
                    found.extend(self.folder(folder)?.files);
                }
                return Ok((base.to_owned(), found));
            }
            let Some(folder) = base.strip_suffix('/') else { return Ok((own, found)) };
            base = folder.rfind('/').map_or("", |at| &folder[..=at]);
            let above = self.folder(base)?;
            found.extend(above.files);
            folders = above.folders;
        }
    }
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
    HubFile { path: entry.path, base_len: 0, len, checksum }
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

    proptest::proptest! {
        #[test]
        fn any_text_is_a_reference_or_refused(text in "(hf:)?[a-z./:@-]{0,40}") {
            if let Ok(reference) = text.parse::<ModelRef>() {
                proptest::prop_assert!(!reference.to_string().contains(".."));
            }
        }
    }
}
