//! `plugins/hooks/hashes.toml`: what the components in the repository were made of.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files;

const PLACE: &str = "plugins/hooks/hashes.toml";
const HEAD: &str =
    "# Written by `cargo xtask hooks`: SHA-256 of each hook's sources and of the component made of them.\n";

/// The whole file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// For people: another compiler makes other bytes of the same sources.
    rustc: String,
    hooks: BTreeMap<String, Hashes>,
}

/// One hook's entry.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hashes {
    sources: String,
    component: String,
}

impl Hashes {
    pub(super) fn new(sources: String, component: &Path) -> Result<Self> {
        Ok(Self { sources, component: files::sha256_hex(component)? })
    }
}

impl Record {
    pub(super) fn new(rustc: String) -> Self {
        Self { rustc, hooks: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, name: &str, hashes: Hashes) {
        self.hooks.insert(name.to_owned(), hashes);
    }

    pub(super) fn write(&self, root: &Path) -> Result<()> {
        let path = root.join(PLACE);
        let text = format!("{HEAD}{}", toml::to_string(self)?);
        fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))
    }
}

#[cfg(test)]
impl Record {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let path = root.join(PLACE);
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is wrong", path.display()))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Hashes> {
        self.hooks.get(name)
    }

    pub(super) fn len(&self) -> usize {
        self.hooks.len()
    }
}

/// The hash of files and of all files in folders, with their places in the repository.
pub(super) fn hash_of_sources<'a>(root: &Path, places: impl Iterator<Item = &'a str>) -> Result<String> {
    let mut all = Vec::new();
    let mut open: Vec<PathBuf> = places.map(PathBuf::from).collect();
    while let Some(place) = open.pop() {
        let path = root.join(&place);
        let describe = || format!("could not read {}", path.display());
        if path.is_dir() {
            for entry in fs::read_dir(&path).with_context(describe)? {
                open.push(place.join(entry.with_context(describe)?.file_name()));
            }
        } else {
            all.push(place);
        }
    }
    all.sort();
    let mut hasher = Sha256::new();
    for place in all {
        // Names and lengths keep two sets of files apart whose contents are the same one after another.
        let file = files::sha256_hex(&root.join(&place))?;
        hasher.update(format!("{file} {}\n", place.display()));
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_changes_with_names_and_contents_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("src")).unwrap();
        fs::write(root.join("src/a"), "1").unwrap();
        fs::write(root.join("b"), "2").unwrap();
        let hash = || hash_of_sources(root, ["src", "b"].into_iter()).unwrap();
        let first = hash();
        assert_eq!(hash(), first);
        fs::write(root.join("src/a"), "3").unwrap();
        let changed = hash();
        assert_ne!(changed, first);
        fs::rename(root.join("src/a"), root.join("src/c")).unwrap();
        assert_ne!(hash(), changed);
    }
}
