//! The `main` of a plugin's own conformance test.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::{Arc, LazyLock};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::cases::cases;
use crate::report::Outcome;
use crate::runner::{run_case_here, run_one};
use crate::subject::Subject;

/// Makes a program run one case: `--conformance-case NAME`.
const CASE_ARGUMENT: &str = "--conformance-case";

/// Runs the cases as tests: the `main` of a test with `harness = false`. Understands the arguments of `cargo test` and
/// of nextest. Each test starts this program again for its case; `subject` is called for the first test that runs.
pub fn main<E: std::fmt::Display>(subject: impl FnOnce() -> Result<Subject, E> + Send + 'static) -> ExitCode {
    if let Some(exit_code) = case_process() {
        return exit_code;
    }
    let arguments = Arguments::from_args();
    let subject = Arc::new(LazyLock::new(move || subject().map_err(|problem| problem.to_string())));
    let trials = cases().iter().map(|case| {
        let subject = Arc::clone(&subject);
        Trial::ignorable_test(case.name, move || {
            let subject = Result::as_ref(&subject)?;
            let report = run_one(start_this_program(case.name), subject, case);
            match &report.outcome {
                Outcome::Passed => Ok(Completion::Completed),
                Outcome::Skipped(reason) => Ok(Completion::ignored_with(reason)),
                Outcome::Failed(_) | Outcome::Crashed(_) => Err(Failed::from(format!(
                    "{}\nrules: {}\nchecks: {}\nlast output:\n{}",
                    report.outcome,
                    report.rules.join(", "),
                    case.description,
                    report.output.join("\n")
                ))),
            }
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Runs the case that [`start_this_program`] started this process for; `None` if that is not so. To be called first
/// in `main`.
#[must_use]
pub fn case_process() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some(CASE_ARGUMENT), Some(name)) => Some(run_case_here(&name)),
        _ => None,
    }
}

/// A command that runs a case in a new process of this program, whose `main` begins with [`case_process`].
#[must_use]
pub fn start_this_program(case: &str) -> Command {
    // Without a path to itself the program cannot be started, and the case's report says so.
    let mut command = Command::new(std::env::current_exe().unwrap_or_default());
    command.args([CASE_ARGUMENT, case]);
    command
}

/// The dynamic library `name` that cargo built together with the running test. The plugin's package must build it as
/// `crate-type = ["cdylib", "rlib"]`, because cargo builds a test's package anew only for what the test can link.
#[must_use]
pub fn library_of_this_test(name: &str) -> PathBuf {
    let file = format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let folder =
        std::env::current_exe().ok().and_then(|exe| exe.parent().map(PathBuf::from)).unwrap_or_default();
    let beside = folder.join(&file);
    if beside.exists() { beside } else { folder.with_file_name(file) }
}
