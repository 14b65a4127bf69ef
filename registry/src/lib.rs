//! The registry of plugins: finds, fetches, verifies, stores, packs and signs them. It never loads or runs anything.
//!
//! [`Registry`] reads one from a folder or a web server and trusts nothing that its root key has not signed for;
//! [`package`] makes archives and takes them apart; [`Store`] keeps what is installed; [`Repository`] publishes.
//! `registry/README.md` describes the files and the chain of trust.

#![forbid(unsafe_code)]

mod files;
mod format;
mod hash;
mod key;
mod lock;
pub mod package;
mod release;
pub mod source;
mod step;
mod time;

pub use files::FileError;
pub use format::{BlobRef, FormatError, Keys, Publisher, Snapshot};
pub use hash::{Hash, HashError};
pub use key::{KeyError, PublicKey, SecretKey};
pub use lock::LockError;
pub use release::Release;
pub use step::{Progress, Step};
pub use time::{Timestamp, TimestampError};
