//! The registry from end to end, on folders and loopback servers of its own; time is set, nothing is waited for.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

/// Attacks on what a client trusts: changed, old, expired, revoked and wrongly signed files.
mod attacks;
/// Disks that are full.
mod full_disk;
/// Archives that were made to do harm.
mod hostile_archives;
/// Web servers: resuming, and servers that send too much, too little, too slowly or something else.
mod http;
/// Making packages and taking them apart.
mod package;
/// Processes that end in the middle of an installation.
mod power_cut;
/// A registry's keys and publishers, as its operator changes them.
mod publish;
/// The plugins folder.
mod store;
/// What the tests share.
mod support;
