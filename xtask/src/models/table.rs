//! The models: which packages carry each, and the hash of every file that is used.

use crate::python::Package;

mod entries;
mod inputs;

pub(super) use entries::MODELS;

/// One model.
#[derive(Clone, Copy)]
pub(super) struct Model {
    /// Its name for users, and its folder's name.
    pub(super) name: &'static str,
    /// Whether this repository's tests need it.
    pub(super) used_by_tests: bool,
    /// What it is made of.
    pub(super) inputs: &'static [Input],
    /// How the inputs' files become the model.
    pub(super) source: Source,
    /// The text of the `model.toml` beside it, if it needs one.
    pub(super) model_toml: Option<&'static str>,
}

/// Files out of one package.
#[derive(Clone, Copy)]
pub(super) struct Input {
    /// The package.
    pub(super) package: Package,
    /// Its wheel. The name's last three parts say for which Python and machine it is, and any other gets it too.
    pub(super) wheel: File,
    /// The folder inside the wheel that the paths of `files` are relative to.
    pub(super) folder_in_wheel: &'static str,
    /// The files of the wheel that are used. Their paths differ from those of the model's other inputs.
    pub(super) files: &'static [File],
}

/// A file with what proves that it is the right one.
#[derive(Clone, Copy)]
pub(crate) struct File {
    /// Relative, with `/` between folder and file.
    pub(crate) path: &'static str,
    /// In bytes.
    pub(crate) len: u64,
    /// In lowercase hexadecimal.
    pub(crate) sha256: &'static str,
}

/// Short for a line of a table.
pub(crate) const fn pinned(path: &'static str, len: u64, sha256: &'static str) -> File {
    File { path, len, sha256 }
}

/// How the files of packages become a model.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// They are the model.
    Packed,
    /// A script of `xtask/python` makes it: `SCRIPT FOLDER OUTPUT ARGUMENTS`, where FOLDER holds the files of all inputs
    /// and OUTPUT is a folder for the results.
    Converted {
        script: &'static str,
        arguments: &'static [&'static str],
        packages: &'static [Package],
        outputs: &'static [File],
    },
}

impl Model {
    /// The verified files of the finished model.
    pub(super) fn installed_files(&self) -> Vec<&File> {
        match &self.source {
            Source::Packed => self.inputs.iter().flat_map(|input| input.files).collect(),
            Source::Converted { outputs, .. } => outputs.iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_hashes_well_formed() {
        let names: HashSet<_> = MODELS.iter().map(|model| model.name).collect();
        assert_eq!(names.len(), MODELS.len());
        for model in MODELS {
            let inputs = model.inputs.iter().flat_map(|input| input.files.iter().chain([&input.wheel]));
            for file in inputs.chain(model.installed_files()) {
                let is_hex = file.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                assert!(file.sha256.len() == 64 && is_hex, "{}: {}", model.name, file.path);
            }
        }
    }
}
