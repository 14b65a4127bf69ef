//! The registry from end to end, on folders and loopback servers of its own; time is set, nothing is waited for.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod attacks;
mod full_disk;
mod hostile_archives;
mod http;
mod package;
mod power_cut;
mod publish;
mod store;
mod support;
