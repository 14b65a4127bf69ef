//! `check-case`, hidden: one conformance case in this process, which `plugins check` started for it.

use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(super) struct CheckCaseArgs {
    /// The case's name
    case: String,
}

/// The plugin may take this process down at any time; that is what the process is for.
pub(super) fn run(args: &CheckCaseArgs) -> ExitCode {
    pajamas_conformance::run_case_here(&args.case)
}
