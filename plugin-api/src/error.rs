//! The error type that crosses the plugin boundary: a status code and a message for the user.

use crate::abi;

/// What kind of failure it was; the C ABI's status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Cancelled by the host; not a failure.
    Cancelled,
    /// The request is not valid.
    Invalid,
    /// The plugin does not support what was asked.
    Unsupported,
    /// A file or object does not exist.
    NotFound,
    /// Host or device memory does not suffice.
    OutOfMemory,
    /// The model file is corrupt or of an unknown kind.
    BadModel,
    /// All queues are full.
    Overloaded,
    /// The deadline has passed.
    Deadline,
    /// A device failed or is missing.
    Device,
    /// Any other failure inside the plugin; also any status of a newer minor.
    Internal,
    /// Plugin code panicked.
    Panic,
}

impl ErrorKind {
    /// The status code of the C ABI.
    #[must_use]
    pub fn status(self) -> i32 {
        match self {
            Self::Cancelled => abi::PJ_CANCELLED,
            Self::Invalid => abi::PJ_ERR_INVALID,
            Self::Unsupported => abi::PJ_ERR_UNSUPPORTED,
            Self::NotFound => abi::PJ_ERR_NOT_FOUND,
            Self::OutOfMemory => abi::PJ_ERR_OUT_OF_MEMORY,
            Self::BadModel => abi::PJ_ERR_BAD_MODEL,
            Self::Overloaded => abi::PJ_ERR_OVERLOADED,
            Self::Deadline => abi::PJ_ERR_DEADLINE,
            Self::Device => abi::PJ_ERR_DEVICE,
            Self::Internal => abi::PJ_ERR_INTERNAL,
            Self::Panic => abi::PJ_ERR_PANIC,
        }
    }

    /// The kind of a status code other than `PJ_OK`; unknown ones are [`ErrorKind::Internal`].
    #[must_use]
    pub fn from_status(status: i32) -> Self {
        match status {
            abi::PJ_CANCELLED => Self::Cancelled,
            abi::PJ_ERR_INVALID => Self::Invalid,
            abi::PJ_ERR_UNSUPPORTED => Self::Unsupported,
            abi::PJ_ERR_NOT_FOUND => Self::NotFound,
            abi::PJ_ERR_OUT_OF_MEMORY => Self::OutOfMemory,
            abi::PJ_ERR_BAD_MODEL => Self::BadModel,
            abi::PJ_ERR_OVERLOADED => Self::Overloaded,
            abi::PJ_ERR_DEADLINE => Self::Deadline,
            abi::PJ_ERR_DEVICE => Self::Device,
            abi::PJ_ERR_PANIC => Self::Panic,
            _ => Self::Internal,
        }
    }
}

/// A failure with a message for the person who sent the request or installed the plugin:
/// lowercase, no full stop, and it says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The request is not valid.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The plugin does not support what was asked.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// The model file is corrupt or of an unknown kind.
    pub fn bad_model(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadModel, message)
    }

    /// Any other failure.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message for the user.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_its_status_code() {
        for status in 1..=11 {
            assert_eq!(ErrorKind::from_status(status).status(), status);
        }
        assert_eq!(ErrorKind::from_status(999), ErrorKind::Internal);
    }
}
