//! The plugin with real models; without them each test says that it is skipped.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

mod generation;
mod made;
mod models;
mod support;
