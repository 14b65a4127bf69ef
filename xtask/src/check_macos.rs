//! `cargo xtask check-macos`: type-checks what only compiles for macOS, on any platform.
//!
//! Nothing is linked, so that no SDK of Apple's is needed. A crate whose build script compiles C for the target cannot be
//! checked this way: such crates must stay out of the trees of these plugins.

use anyhow::{Context, Result};

use crate::process;
use crate::setup;
use crate::toolchain::{Target, Toolchain};
use crate::workspace::Workspace;

const TARGET: Target = Target { name: "aarch64-apple-darwin", links: false };

/// The packages with parts for macOS, which are checked with their tests.
const PACKAGES: [&str; 2] = ["pajamas-coreml", "pajamas-system-tts"];

/// Checks. Returns a line to repeat at the end if there is no compiler for it, which is no failure: a contributor without
/// one, or without a network, can still run the tests.
pub(crate) fn run(workspace: &Workspace) -> Result<Option<String>> {
    let reason = match Toolchain::find(workspace, TARGET) {
        Ok(Some(toolchain)) => return check(workspace, &toolchain).map(|()| None),
        Ok(None) => format!("`rustup target add {}` would get one", TARGET.name),
        Err(error) => format!("{error:#}"),
    };
    let message = format!(
        "skipped: there is no compiler for {}, so that nothing was checked for it: {reason}",
        TARGET.name
    );
    eprintln!("{message}");
    Ok(Some(message))
}

fn check(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    let mut cargo = setup::cargo(workspace.root());
    let command = if toolchain.has_clippy() { "clippy" } else { "check" };
    cargo.arg(command);
    toolchain.apply(&mut cargo);
    cargo.args(["--locked", "--all-targets", "--target", TARGET.name]);
    // A folder of its own: it must not wait for the build of this platform, nor that for it.
    cargo.arg("--target-dir").arg(workspace.macos().join("target"));
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    // Of dependencies cargo shows no warnings.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Dwarnings");
    process::run(&mut cargo).with_context(|| format!("the check for {} failed", TARGET.name))?;
    println!("{} are well-typed for {}", PACKAGES.join(" and "), TARGET.name);
    Ok(())
}
