//! Conformance cases for plugins of pajamas-host: one suite for all runtimes, in Rust, C or anything else.
//!
//! Each case checks rules of the plugin API's `SPEC.md` through the raw C ABI and runs in a process of its own, so that
//! a plugin which crashes or hangs fails one case and not the run. A plugin's own test is this file and
//! `harness = false`:
//!
//! ```no_run
//! use std::path::Path;
//! use std::process::ExitCode;
//! use pajamas_conformance::{Subject, library_of_this_test};
//! use pajamas_plugin_api::manifest::ManifestError;
//!
//! fn main() -> ExitCode {
//!     pajamas_conformance::main(|| {
//!         let subject = Subject::read(Path::new(env!("CARGO_MANIFEST_DIR")))?;
//!         Ok::<_, ManifestError>(subject.with_library(library_of_this_test("my_plugin")).with_model("tiny.model"))
//!     })
//! }
//! ```
//!
//! Other programs call [`run_in`] with a way to start themselves, and [`run_case_here`] in the process so started.

mod bench;
mod cases;
mod harness;
mod raw;
mod report;
mod runner;
mod subject;

pub use cases::{Case, cases, find_case};
pub use harness::{case_process, library_of_this_test, main, start_this_program};
pub use report::{Outcome, Report};
pub use runner::{run_case_here, run_in, run_one};
pub use subject::{Limits, Subject};
