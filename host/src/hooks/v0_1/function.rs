//! The functions of the package's interfaces.

use super::{AUDIO, IMAGE, INFO, TENSOR, TEXT};

/// The functions that a hook may export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hooks) enum Function {
    Describe,
    TextInput,
    TextOutput,
    ImageInput,
    AudioInput,
    TensorConvert,
}

impl Function {
    pub(in crate::hooks) const ALL: [Self; 6] = [
        Self::Describe,
        Self::TextInput,
        Self::TextOutput,
        Self::ImageInput,
        Self::AudioInput,
        Self::TensorConvert,
    ];

    /// Its interface and its name there.
    pub(in crate::hooks) fn path(self) -> (&'static str, &'static str) {
        match self {
            Self::Describe => (INFO, "describe"),
            Self::TextInput => (TEXT, "input"),
            Self::TextOutput => (TEXT, "output"),
            Self::ImageInput => (IMAGE, "input"),
            Self::AudioInput => (AUDIO, "input"),
            Self::TensorConvert => (TENSOR, "convert"),
        }
    }
}
