//! The options of a model, as written in the host's configuration, in `model.toml`, or given at load.

use std::path::PathBuf;

use pajamas_plugin_api::{Error, options};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Every field has a default; an unknown field is an error that names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Options {
    /// What speaks.
    pub(crate) engine: Engine,
    /// The library of espeak-ng. Default: the plugin's own, else the system's.
    pub(crate) espeak_library: Option<PathBuf>,
}

/// What speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Engine {
    /// The system's own voices on macOS, unless `espeak_library` is given; espeak-ng elsewhere.
    #[default]
    Auto,
    /// espeak-ng.
    EspeakNg,
    /// The voices of macOS.
    Macos,
}

impl Options {
    /// Reads options.
    ///
    /// # Errors
    /// An option is unknown or has a wrong type; the message names it and what is allowed.
    pub(crate) fn parse(map: &Map<String, Value>) -> Result<Self, Error> {
        options::parse(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_options_are_named_with_what_is_allowed() {
        for (options, expected) in [
            (r#"{"voice": "de"}"#, "unknown field `voice`, expected `engine` or `espeak_library`"),
            (
                r#"{"engine": "festival"}"#,
                "option `engine`: unknown variant `festival`, expected one of `auto`",
            ),
            (r#"{"espeak_library": 3}"#, "option `espeak_library`: invalid type: integer"),
        ] {
            let message = Options::parse(&serde_json::from_str(options).unwrap()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
