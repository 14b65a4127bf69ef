//! The registry of plugins: finds, fetches, verifies, stores, packs and signs them. It never loads or runs anything.
//!
//! [`Registry`] reads one from a folder or a web server and trusts nothing that its root key has not signed for;
//! `registry/README.md` describes the files and the chain of trust.

#![forbid(unsafe_code)]

mod access;
mod client;
mod files;
mod format;
mod hash;
mod key;
mod lock;
pub mod package;
mod publish;
mod release;
pub mod source;
mod step;
mod store;
mod system;
mod time;

pub use access::AccessError;
pub use client::{Catalog, Index, Registry, RegistryConfig, RegistryError, Rejected};
pub use files::FileError;
pub use format::{BlobRef, FormatError, Keys, Publisher, Snapshot};
pub use hash::{Hash, HashError};
pub use key::{KeyError, PublicKey, SecretKey};
pub use lock::LockError;
pub use publish::{PublishError, Repository, Signer, sign_handover};
pub use release::{Release, title};
pub use step::{Progress, Step};
pub use store::{Installed, Lease, Listing, LockedStore, Origin, Staged, Store, StoreError};
pub use system::{SpaceError, System};
pub use time::{Timestamp, TimestampError};
