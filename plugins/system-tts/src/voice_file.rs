//! `.voice` files: what stands for the system's voices in the host's catalog of models.

use std::fs::File;
use std::io::{ErrorKind as Io, Read as _};
use std::path::Path;

use pajamas_plugin_api::{Error, ErrorKind};
use serde::Deserialize;

/// Longest file that is read; a longer one is refused.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A `.voice` file, in TOML.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VoiceFile {
    /// The voice that speaks where a request names none, such as `en-us` or `de+f3`.
    pub(crate) voice: String,
}

impl VoiceFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It is missing, too long, not TOML, or has other fields than `voice`.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
        read.map_err(|error| {
            let kind = if error.kind() == Io::NotFound { ErrorKind::NotFound } else { ErrorKind::BadModel };
            Error::new(kind, format!("cannot read {}: {error}", path.display()))
        })?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(Error::bad_model(format!(
                "{} is longer than {FILE_BYTES_MAX} bytes: a voice is one line, such as voice = \"en-us\"",
                path.display()
            )));
        }
        Self::parse(&text).map_err(|problem| {
            Error::bad_model(format!(
                "{} is not a voice file: {problem}; one line is enough, such as voice = \"en-us\"",
                path.display()
            ))
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_files_say_what_a_good_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.voice");
        for (text, expected) in [
            ("", "missing field `voice`"),
            ("voice = 3", "invalid type: integer `3`"),
            ("voice = \"de\"\nspeed = 2", "unknown field `speed`, expected `voice`"),
            (&"#".repeat(70_000), "is longer than 65536 bytes"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = VoiceFile::read(&file).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadModel);
            let message = error.message();
            assert!(message.contains(expected) && message.contains("voice = \"en-us\""), "{message}");
        }
        let error = VoiceFile::read(&folder.path().join("y.voice")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,200}") {
            let _ = VoiceFile::parse(&text);
        }
    }
}
