//! The plugin with real models; without them each test says that it is skipped.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod generation;
mod made;
mod models;
mod support;
