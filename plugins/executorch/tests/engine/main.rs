//! Programs of `testdata`, run by ExecuTorch and compared with what PyTorch computed for them. Without the libraries that
//! `cargo xtask build` places the tests are skipped, and said.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

mod damage;
mod networks;
mod pipelines;
mod support;
