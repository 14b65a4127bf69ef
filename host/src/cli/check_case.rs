//! `check-case`, hidden: one conformance case in this process, which `plugins check` or an installation started for it.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::plugins::confine::{self, Confinement};

#[derive(Debug, clap::Args)]
pub(super) struct CheckCaseArgs {
    /// The case's name
    case: String,
    /// Keep the plugin from everything but what the following flags name, and temporary files
    #[arg(long)]
    confined: bool,
    /// What it may read
    #[arg(long)]
    read: Vec<PathBuf>,
    /// What it may write
    #[arg(long)]
    write: Vec<PathBuf>,
    /// Let it connect to other machines
    #[arg(long)]
    network: bool,
}

/// The plugin may take this process down at any time; that is what the process is for.
pub(super) fn run(args: &CheckCaseArgs) -> ExitCode {
    if args.confined {
        let temporary = std::env::temp_dir();
        let write = args.write.iter().cloned().chain([temporary]).collect();
        confine::apply(&Confinement { read: args.read.clone(), write, network: args.network });
    }
    pajamas_conformance::run_case_here(&args.case)
}
