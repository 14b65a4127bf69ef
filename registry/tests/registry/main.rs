//! The registry from end to end, on folders and loopback servers of its own; time is set, nothing is waited for.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

/// Making packages and taking them apart.
mod package;
/// What the tests share.
mod support;
/// Archives that were made to do harm.
mod hostile_archives;
