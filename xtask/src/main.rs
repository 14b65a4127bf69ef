//! `cargo xtask`: everything that a contributor does with this repository, as one program without a shell script.
//!
//! Each command lives in a file of its own. All of them keep what they download or install in one cache folder
//! (`$XDG_CACHE_HOME/pajamas-host`, else `~/.cache/pajamas-host`) and never touch the system outside it, except that
//! `setup` may ask apt-get for Python's venv module when it runs as root on Debian.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program talks to its user")]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod workspace;

mod bench;
mod build;
mod check_macos;
mod dist;
mod espeak;
mod executorch;
mod foreign_hooks;
mod hooks;
mod mlx;
mod models;
mod onnxruntime;
mod serve;
mod setup;
mod tensorrt;
mod test;

mod chat_client;
mod cuda;
mod files;
mod host_process;
mod process;
mod python;
mod toolchain;

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    about = "Builds, runs and checks pajamas-host from its sources"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put the build tools (cmake, libclang) into a private folder; does nothing when they are there
    Setup(setup::SetupArgs),
    /// Download the models that tests and examples use, check their hashes, and print their folders
    Models(models::ModelsArgs),
    /// Build the host and the plugins of this platform, and put each plugin's library where the host finds it
    Build(build::BuildArgs),
    /// Make what users get: an archive of the host, and a registry with the plugins
    Dist(dist::DistArgs),
    /// Compile the hooks to the components that lie beside their sources
    Hooks(hooks::HooksArgs),
    /// Build everything, start the host with a small model, ask it a question and keep serving
    Serve(serve::ServeArgs),
    /// Type-check the plugins for macOS, on any platform
    CheckMacos,
    /// Run the checks and all tests
    Test(test::TestArgs),
    /// Measure the host, beside llama-server where one is given
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let workspace = Workspace::locate()?;
    match cli.command {
        Command::Setup(args) => setup::run(&workspace, &args),
        Command::Models(args) => models::run(&workspace, &args),
        Command::Build(args) => build::run(&workspace, &args),
        Command::Dist(args) => dist::run(&workspace, &args),
        Command::Hooks(args) => hooks::run(&workspace, &args),
        Command::Serve(args) => serve::run(&workspace, &args),
        Command::CheckMacos => check_macos::run(&workspace).map(drop),
        Command::Test(args) => test::run(&workspace, &args),
        Command::Bench(args) => bench::run(&workspace, &args),
    }
}
