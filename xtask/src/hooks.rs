//! `cargo xtask hooks`: compiles the hooks that ship with the host, and the one that tests use, to components.
//!
//! The components lie beside their sources in the repository, so that building the host needs no compiler for
//! WebAssembly. `plugins/hooks/hashes.toml` says which sources each one was made of; a test compares.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use wit_component::ComponentEncoder;

use crate::foreign_hooks;
use crate::process;
use crate::setup;
use crate::toolchain::{Target, Toolchain};
use crate::workspace::Workspace;

mod record;

use record::{Hashes, Record};

const TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "hook";

/// What several hooks are made of, beside their own sources.
const SHARED: [&str; 3] =
    ["plugins/hooks/common/Cargo.toml", "plugins/hooks/common/src", "plugin-api/wit/since_v0.1.0"];

/// Memory at the start that is enough for texts: growing it costs as much as starting an instance.
const FOR_TEXTS: u32 = 1 << 20;
/// The same for pictures and sound: a model's input of 640 by 640 pixels takes 5 MB.
const FOR_MEDIA: u32 = 16 << 20;

const HOOKS: &[Hook] = &[
    Hook { name: "auto-orient-resize", parent: "plugins/hooks", memory_bytes: FOR_MEDIA },
    Hook { name: "letterbox", parent: "plugins/hooks", memory_bytes: FOR_MEDIA },
    Hook { name: "prompt-guard", parent: "plugins/hooks", memory_bytes: FOR_TEXTS },
    Hook { name: "redact", parent: "plugins/hooks", memory_bytes: FOR_TEXTS },
    Hook { name: "system-prompt", parent: "plugins/hooks", memory_bytes: FOR_TEXTS },
    Hook { name: "trim-silence", parent: "plugins/hooks", memory_bytes: FOR_MEDIA },
    Hook { name: "rogue", parent: "tests/fixtures/hooks", memory_bytes: FOR_TEXTS },
];

struct Hook {
    /// Of the folder; the package has `hook-` in front.
    name: &'static str,
    parent: &'static str,
    /// What an instance has from its start; of what it does not touch, nothing is taken from the system.
    memory_bytes: u32,
}

impl Hook {
    fn folder(&self, root: &Path) -> PathBuf {
        root.join(self.parent).join(self.name)
    }

    fn component(&self, root: &Path) -> PathBuf {
        self.folder(root).join(self.name).with_extension("wasm")
    }

    /// The hash of all that the component is made of.
    fn sources_hash(&self, root: &Path) -> Result<String> {
        let own = ["Cargo.toml", "src"].map(|name| format!("{}/{}/{name}", self.parent, self.name));
        record::hash_of_sources(root, own.iter().map(String::as_str).chain(SHARED))
    }
}

#[derive(Args)]
pub(crate) struct HooksArgs {
    /// Only those in Python and JavaScript, which are built into the cache folder
    #[arg(long)]
    foreign: bool,
}

pub(crate) fn run(workspace: &Workspace, args: &HooksArgs) -> Result<()> {
    if !args.foreign {
        compile_all(workspace)?;
    }
    foreign_hooks::run(workspace)
}

fn compile_all(workspace: &Workspace) -> Result<()> {
    let Some(toolchain) = Toolchain::find(workspace, Target { name: TARGET, links: true })? else {
        println!(
            "There is no compiler for {TARGET}, and `rustup target add {TARGET}` would get one. \
             The components in the repository stay as they are."
        );
        return Ok(());
    };
    let modules = compile(workspace, &toolchain)?;
    let root = workspace.root();
    let mut record = Record::new(toolchain.version()?);
    for hook in HOOKS {
        let module = modules.join(format!("hook_{}.wasm", hook.name.replace('-', "_")));
        let component = to_component(&module)?;
        forbid_paths(&component, &[root, &workspace.hooks()], hook.name)?;
        let path = hook.component(root);
        fs::write(&path, &component).with_context(|| format!("could not write {}", path.display()))?;
        println!("{}: {} kB", path.display(), component.len().div_ceil(1000));
        record.insert(hook.name, Hashes::new(hook.sources_hash(root)?, &path)?);
    }
    record.write(root)
}

/// Compiles all hooks. Returns the folder of the modules.
fn compile(workspace: &Workspace, toolchain: &Toolchain) -> Result<PathBuf> {
    let target = workspace.hooks().join("target");
    let flags = rust_flags(workspace, toolchain)?.join("\x1f");
    for hook in HOOKS {
        let mut cargo = setup::cargo(workspace.root());
        toolchain.apply(&mut cargo);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", &flags);
        cargo.args(["rustc", "--locked", "--lib", "--profile", PROFILE, "--target", TARGET, "--target-dir"]);
        cargo.arg(&target).args(["--package", &format!("hook-{}", hook.name)]);
        // For this crate alone: all else is compiled once.
        cargo.args(["--", &format!("-Clink-arg=--initial-memory={}", hook.memory_bytes)]);
        process::run(&mut cargo)?;
    }
    Ok(target.join(TARGET).join(PROFILE))
}

/// Panics carry the names of source files: what they say must not depend on the machine.
fn rust_flags(workspace: &Workspace, toolchain: &Toolchain) -> Result<Vec<String>> {
    // A small stack: when an instance ends, the pages of all its memory are looked at.
    let mut flags = vec!["-Ctarget-feature=+simd128".to_owned(), "-Clink-arg=-zstack-size=131072".to_owned()];
    let root = workspace.root().to_owned();
    for (from, to) in
        [(root, "/pajamas-host"), (setup::cargo_home()?, "/cargo"), (toolchain.sysroot()?, "/rust")]
    {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    Ok(flags)
}

fn to_component(module: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(module).with_context(|| format!("could not read {}", module.display()))?;
    ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|encoder| encoder.encode())
        .with_context(|| format!("could not make a component of {}", module.display()))
}

fn forbid_paths(component: &[u8], folders: &[&Path], name: &str) -> Result<()> {
    for folder in folders {
        let text = folder.as_os_str().as_encoded_bytes();
        if component.windows(text.len()).any(|part| part == text) {
            bail!("the component {name} names a folder of this machine, {}", folder.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_components_in_the_repository_are_made_of_the_sources_beside_them() {
        let workspace = Workspace::locate().unwrap();
        let root = workspace.root();
        let record = Record::read(root).unwrap();
        for hook in HOOKS {
            let present = Hashes::new(hook.sources_hash(root).unwrap(), &hook.component(root)).unwrap();
            let name = hook.name;
            assert_eq!(record.get(name), Some(&present), "{name} has changed: run `cargo xtask hooks`");
        }
        assert_eq!(record.len(), HOOKS.len(), "the record has hooks that are gone: run `cargo xtask hooks`");
    }

    #[test]
    fn every_hook_of_the_repository_is_built() {
        let workspace = Workspace::locate().unwrap();
        for parent in ["plugins/hooks", "tests/fixtures/hooks"] {
            for entry in fs::read_dir(workspace.root().join(parent)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                if path.join("src/lib.rs").is_file() && name != "common" {
                    assert!(HOOKS.iter().any(|hook| hook.name == name && hook.parent == parent), "{name}");
                }
            }
        }
    }

    #[test]
    fn a_path_of_this_machine_is_found() {
        let folders = [Path::new("/home/me")];
        assert!(forbid_paths(b"\0asm /home/me/x", &folders, "x").is_err());
        assert!(forbid_paths(b"\0asm /pajamas-host/x", &folders, "x").is_ok());
    }
}
