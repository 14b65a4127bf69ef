//! `cargo xtask dist`: what is given to users: an archive with the host, and a registry with a package of each plugin.
//!
//! The packages are made, signed and listed by the host that was just built, with the commands that everybody uses.

use std::env::consts::{ARCH, OS};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use pajamas_plugin_api::manifest::{MANIFEST_FILE, Manifest};

use crate::build::{self, Built, llama};
use crate::cuda::{self, Architecture};
use crate::files;
use crate::process;
use crate::setup::{self, Tools};
use crate::workspace::Workspace;

/// What belongs to everything that is given away.
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];
/// What the host's archive should not be larger than.
const HOST_BYTES_GOAL: u64 = 25 * 1024 * 1024;
/// Folders of a plugin that it needs to run, where it has them.
const PLUGIN_FOLDERS: [&str; 2] = ["lib", build::VOICES];
/// The publisher in the manifests of this repository's plugins.
const PUBLISHER: &str = "pajamas-host";

#[derive(Args)]
pub(crate) struct DistArgs {
    /// Where to put the archive and the registry [default: the target folder's `packages`]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Folder with the secret keys `root.key` and `publisher.key` [default: keys that are made for this one time]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// Make the package of gguf for NVIDIA GPUs too. Needs nvcc, or this backend of llama.cpp, compiled elsewhere with
    /// the command that is printed without it
    #[arg(long, value_name = "LIBRARY", num_args = 0..=1)]
    cuda: Option<Option<PathBuf>>,
    /// GPUs that the backend is compiled for, as CMake names them: 89 is Ada, 90 Hopper, 120 Blackwell. A library that is
    /// given does not say it [default where it is compiled here: 89,90]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cuda_architectures: Vec<Architecture>,
}

pub(crate) fn run(workspace: &Workspace, args: &DistArgs) -> Result<()> {
    let tools = Tools::ensure(workspace)?;
    // Before everything else, because only some machines can.
    let named = Some(args.cuda_architectures.clone()).filter(|named| !named.is_empty());
    let cuda = match (&args.cuda, named) {
        (None, _) => None,
        (Some(Some(library)), Some(named)) => Some((library.clone(), named)),
        (Some(Some(library)), None) => {
            bail!("say with --cuda-architectures for which GPUs {} was compiled", library.display())
        }
        (Some(None), named) => {
            let architectures = named.unwrap_or_else(|| cuda::architectures().to_vec());
            Some((cuda::build(&tools, &architectures)?, architectures))
        }
    };
    let built = build::for_users(workspace, &tools)?;
    if let Some((library, architectures)) = cuda {
        cuda::place(&library, &architectures, &built.plugins)?;
    }
    let out = args.out.clone().unwrap_or_else(|| built.packages());
    package(workspace, &built, &out, args.keys.as_deref())
}

/// Makes the archive and the registry of what was built.
pub(crate) fn package(workspace: &Workspace, built: &Built, out: &Path, keys: Option<&Path>) -> Result<()> {
    let is_ours =
        out.join("registry").is_dir() || fs::read_dir(out).map_or(true, |mut list| list.next().is_none());
    if !is_ours || keys.is_some_and(|keys| keys.starts_with(out)) {
        bail!("{} holds something else, or the keys: name an empty folder with --out", out.display());
    }
    files::remove_folder(out)?;
    fs::create_dir_all(out).with_context(|| format!("could not create {}", out.display()))?;
    let archive = host_archive(workspace, &built.host, out)?;
    let bytes = size_of_file(&archive)?;
    let verdict = if bytes <= HOST_BYTES_GOAL { "within" } else { "above" };
    println!(
        "host: {} ({:.1} MB, {verdict} the goal of {} MB)",
        archive.display(),
        bytes as f64 / 1e6,
        HOST_BYTES_GOAL / (1024 * 1024)
    );
    let made;
    let keys = match keys {
        Some(keys) => keys,
        None => {
            made = out.join("throw-away-keys");
            fs::create_dir(&made).with_context(|| format!("could not create {}", made.display()))?;
            for key in ["root.key", "publisher.key"] {
                host(built, &["registry", "keygen"], &[&made.join(key)])?;
            }
            &made
        }
    };
    let registry = out.join("registry");
    let root_key = keys.join("root.key");
    let signed = |command: &[&str], paths: &[&Path]| {
        host(built, command, &[paths, &[Path::new("--key"), &root_key]].concat())
    };
    signed(&["registry", "init"], &[&registry])?;
    signed(&["registry", "publisher"], &[&registry, Path::new(PUBLISHER), &keys.join("publisher.key.pub")])?;
    let folders =
        built.plugin_names.iter().copied().chain([cuda::FOLDER]).map(|name| built.plugins.join(name));
    for plugin in folders.filter(|plugin| plugin.join(MANIFEST_FILE).is_file()) {
        let folder = plugin_folder(workspace, &plugin, out)?;
        let package = folder.with_extension("tar.zst");
        host(built, &["plugins", "pack"], &[&folder, Path::new("--output"), &package])?;
        let bytes = size_of_file(&package)?;
        println!(
            "plugin: {} ({:.1} MB)",
            plugin.file_name().unwrap_or_default().display(),
            bytes as f64 / 1e6
        );
        let publisher_key = keys.join("publisher.key");
        host(
            built,
            &["registry", "add"],
            &[&registry, &package, Path::new("--publisher-key"), &publisher_key],
        )?;
        // The registry has it now.
        fs::remove_file(&package).with_context(|| format!("could not remove {}", package.display()))?;
        files::remove_folder(&folder)?;
    }
    signed(&["registry", "sign"], &[&registry])
}

/// The host without its symbols, with what users read, as one archive.
fn host_archive(workspace: &Workspace, program: &Path, out: &Path) -> Result<PathBuf> {
    let name = format!("pajamas-host-{}-{ARCH}-{OS}", env!("CARGO_PKG_VERSION"));
    let folder = out.join(&name);
    let host = folder.join("pajamas-host");
    files::install(program, &host)?;
    process::run(Command::new("strip").arg(&host))?;
    for file in LICENCES.into_iter().chain(["README.md"]) {
        files::install(&workspace.root().join(file), &folder.join(file))?;
    }
    let documents = workspace.root().join("docs");
    let list = fs::read_dir(&documents).with_context(|| format!("could not read {}", documents.display()))?;
    for entry in list {
        let path = entry.with_context(|| format!("could not read {}", documents.display()))?.path();
        files::install(&path, &folder.join("docs").join(path.file_name().unwrap_or_default()))?;
    }
    let archive = out.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-czf"]);
    process::run(tar.arg(&archive).arg("-C").arg(out).arg(&name))?;
    files::remove_folder(&folder)?;
    Ok(archive)
}

/// What is published of a plugin: its manifest for this platform, its libraries and what users read.
fn plugin_folder(workspace: &Workspace, plugin: &Path, out: &Path) -> Result<PathBuf> {
    let mut manifest = Manifest::read(plugin)?;
    // Built here, it runs on this system's glibc and newer ones, and on these processors.
    manifest.target.os = vec![OS.to_owned()];
    manifest.target.arch = vec![ARCH.to_owned()];
    manifest.target.glibc_min = setup::glibc();
    manifest.variant = manifest.variant.or_else(|| manifest.accel.as_ref().map(|_| "cpu".to_owned()));
    let folder = out.join(plugin.file_name().unwrap_or_default());
    for name in PLUGIN_FOLDERS.into_iter().filter(|name| plugin.join(name).is_dir()) {
        files::copy_folder(&plugin.join(name), &folder.join(name))?;
    }
    for (from, to) in LICENCES.map(|file| (workspace.root().join(file), file)) {
        files::install(&from, &folder.join(to))?;
    }
    files::install(&plugin.join("README.md"), &folder.join("README.md"))?;
    llama::write_manifest(&manifest, &folder)?;
    Ok(folder)
}

fn size_of_file(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).with_context(|| format!("could not read {}", path.display()))?.len())
}

fn host(built: &Built, command: &[&str], paths: &[&Path]) -> Result<()> {
    process::run(Command::new(&built.host).args(command).args(paths))
}
