//! The voices of espeak-ng: what there are, and what a user's name means.

use std::ffi::CString;

use pajamas_plugin_api::Error;

use super::ffi::ListedVoice;

/// How many voices an error names.
const EXAMPLES: usize = 12;

/// One voice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voice {
    /// What a user calls it: its language, such as `en-us`.
    pub id: String,
    /// Name for people, such as `English (America)`.
    pub name: String,
    /// All its languages, its own first.
    pub languages: Vec<String>,
    /// What the library calls it, such as `gmw/en-US`.
    identifier: String,
}

/// The voices of an installation, and the variants that any of them can be spoken with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Voices {
    list: Vec<Voice>,
    variants: Vec<String>,
}

impl Voices {
    pub(super) fn new(voices: Vec<ListedVoice>, variants: Vec<ListedVoice>) -> Self {
        let mut list: Vec<Voice> = Vec::new();
        for voice in voices {
            // Some languages have several voices; the first is the one that the library takes for the language.
            let language = voice.languages.first().filter(|id| !list.iter().any(|known| known.id == **id));
            let id = language.unwrap_or(&voice.identifier).clone();
            let (name, languages, identifier) = (voice.name, voice.languages, voice.identifier);
            list.push(Voice { id, name, languages, identifier });
        }
        list.sort_by(|a, b| a.id.cmp(&b.id));
        let bare = |voice: ListedVoice| voice.identifier.rsplit('/').next().map(str::to_owned);
        Self { list, variants: variants.into_iter().filter_map(bare).collect() }
    }

    /// The voices, sorted by id.
    #[must_use]
    pub fn list(&self) -> &[Voice] {
        &self.list
    }

    /// The variants, such as `f3`, to be written `en-us+f3`.
    #[must_use]
    pub fn variants(&self) -> &[String] {
        &self.variants
    }

    /// Checks the name of a voice.
    ///
    /// # Errors
    /// There is no such voice or variant; the message has some that there are.
    pub fn check(&self, name: &str) -> Result<(), Error> {
        self.resolve(name).map(drop)
    }

    /// What the library calls a voice. `name` is an id, a language, a name for people or an identifier in any case, then
    /// perhaps `+` and a variant. Nothing else reaches the library, which would take it for a path.
    pub(super) fn resolve(&self, name: &str) -> Result<CString, Error> {
        let (base, variant) = match name.split_once('+') {
            Some((base, variant)) => (base, Some(variant)),
            None => (name, None),
        };
        let is = |text: &str| text.eq_ignore_ascii_case(base);
        let by_id = self.list.iter().find(|voice| is(&voice.id));
        let by_name = || self.list.iter().find(|voice| is(&voice.name) || is(&voice.identifier));
        let by_language = || self.list.iter().find(|voice| voice.languages.iter().any(|text| is(text)));
        let Some(voice) = by_id.or_else(by_name).or_else(by_language) else {
            let names: Vec<&str> = self.list.iter().map(|voice| voice.id.as_str()).collect();
            return Err(unknown("voice", name, &names));
        };
        let full = match variant {
            None => voice.identifier.clone(),
            Some(variant) => match self.variants.iter().find(|known| known.eq_ignore_ascii_case(variant)) {
                Some(variant) => format!("{}+{variant}", voice.identifier),
                None => {
                    let names: Vec<&str> = self.variants.iter().map(String::as_str).collect();
                    return Err(unknown("variant", variant, &names));
                }
            },
        };
        CString::new(full).map_err(|_| Error::internal("espeak-ng lists a voice with a zero in its name"))
    }
}

fn unknown(what: &str, name: &str, known: &[&str]) -> Error {
    let step = known.len().div_ceil(EXAMPLES).max(1);
    let examples: Vec<&str> = known.iter().copied().step_by(step).collect();
    Error::invalid(format!(
        "{what} \"{}\" is not one of the {} of espeak-ng, such as {}",
        name.escape_debug(),
        known.len(),
        examples.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, languages: &[&str], identifier: &str) -> ListedVoice {
        ListedVoice {
            name: name.to_owned(),
            languages: languages.iter().map(|text| (*text).to_owned()).collect(),
            identifier: identifier.to_owned(),
        }
    }

    fn voices() -> Voices {
        Voices::new(
            vec![
                listed("English (America)", &["en-us", "en"], "gmw/en-US"),
                listed("Norwegian Bokmål", &["nb", "no"], "gmq/nb"),
                listed("German", &["de"], "gmw/de"),
                listed("German, again", &["de"], "gmw/de2"),
            ],
            vec![listed("female3", &["variant"], "!v/f3")],
        )
    }

    #[test]
    fn a_voice_has_several_names() {
        for (name, expected) in [
            ("en-us", "gmw/en-US"),
            ("EN-US", "gmw/en-US"),
            ("en", "gmw/en-US"),
            ("no", "gmq/nb"),
            ("norwegian bokmål", "gmq/nb"),
            ("gmw/de2", "gmw/de2"),
            ("de", "gmw/de"),
            ("de+F3", "gmw/de+f3"),
        ] {
            assert_eq!(voices().resolve(name).unwrap().to_str().unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn an_unknown_voice_is_refused_with_some_that_exist() {
        for (name, expected) in [
            ("klingon", "voice \"klingon\" is not one of the 4 of espeak-ng, such as de, en-us"),
            ("../../etc/passwd", "voice \"../../etc/passwd\""),
            ("", "voice \"\""),
            ("de+f4", "variant \"f4\" is not one of the 1 of espeak-ng, such as f3"),
        ] {
            let message = voices().check(name).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
