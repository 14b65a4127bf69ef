//! Why a model was not pulled.

use std::io;
use std::path::PathBuf;

use pajamas_registry::source::SourceError;

/// Why a model was not pulled. What has arrived stays for the next time.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Not a reference to a model.
    #[error(
        "\"{text}\" names no model of a hub: expected hf:ORG/REPO, with :FILE for one of its files and @REVISION for one of its versions"
    )]
    Reference {
        /// What was typed.
        text: String,
    },
    /// The hub cannot be asked.
    #[error(transparent)]
    Source(SourceError),
    /// It is not public.
    #[error(
        "the hub does not give {path} to everybody: put a token that may read it into HF_TOKEN, and accept the model's terms on its page"
    )]
    Private {
        /// What was asked for.
        path: String,
    },
    /// The hub answered with something else than was expected.
    #[error("the hub's answer to {path} cannot be read")]
    Answer {
        /// What was asked for.
        path: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The hub lists a path that leads out of the repository.
    #[error("the hub lists the file {path:?}, which lies outside of the repository: it is not to be trusted")]
    Outside {
        /// The path.
        path: String,
    },
    /// There is no such file, or there are several.
    #[error("{model} {problem}; there are: {}", .files.join(", "))]
    Choose {
        /// The model.
        model: String,
        /// What is wrong.
        problem: String,
        /// Files of which one can be named.
        files: Vec<String>,
    },
    /// The disk is too full.
    #[error("the disk of {} is too full: {bytes_needed} bytes are to be fetched, and {bytes_free} are free", .path.display())]
    Full {
        /// Where it was to be written.
        path: PathBuf,
        /// Bytes that are to be fetched.
        bytes_needed: u64,
        /// Bytes that are free.
        bytes_free: u64,
    },
    /// Another pull writes the file.
    #[error("another pull writes {}: wait until it is done", .path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Another file has its name.
    #[error("{} is there already, and is another file: remove it, or pull into another folder with --to", .path.display())]
    Occupied {
        /// The file.
        path: PathBuf,
    },
    /// What arrived is not what the hub lists.
    #[error("{path} of {model} is not the file that the hub lists: it was changed on its way, pull it again")]
    Content {
        /// The file.
        path: String,
        /// The model.
        model: String,
    },
    /// A file cannot be read or written.
    #[error("cannot write {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}
