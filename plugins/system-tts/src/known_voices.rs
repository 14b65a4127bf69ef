//! The voices of macOS by name: how they are called here, and which one a request means.

use pajamas_plugin_api::Error;

/// Voices that an error lists.
const EXAMPLES_MAX: usize = 12;

/// A voice that is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownVoice {
    /// Apple's identifier, such as `com.apple.voice.premium.en-US.Ava`.
    pub(crate) identifier: String,
    /// Its language and region, such as `en-US`.
    pub(crate) language: String,
    /// Its name, such as `Ava`.
    pub(crate) name: String,
    /// How good it sounds.
    pub(crate) quality: Quality,
}

/// How good a voice sounds, in Apple's words; better is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Quality {
    Default,
    Enhanced,
    Premium,
}

impl Quality {
    fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Enhanced => "enhanced",
            Self::Premium => "premium",
        }
    }
}

impl KnownVoice {
    /// Language, name and quality: what lists have.
    pub(crate) fn listed(&self) -> String {
        format!("{}/{}/{}", self.language, self.name, self.quality.name())
    }

    /// How well it fits what a request wants: greater is better, `None` not at all.
    fn fit(&self, wanted: &str) -> Option<u32> {
        let is = |text: &str| text.eq_ignore_ascii_case(wanted);
        let language = self.language.split('-').next().unwrap_or_default();
        if is(&self.identifier) || is(&self.listed()) {
            Some(3)
        } else if is(&self.name) || is(&format!("{}/{}", self.language, self.name)) {
            Some(2)
        } else if is(&self.language) {
            Some(1)
        } else {
            // `en` means any English.
            is(language).then_some(0)
        }
    }
}

/// The voice that `wanted` means: an identifier, an entry of the list with or without its quality, a name, or a language.
/// Among several the best, and then the first.
///
/// # Errors
/// There is none; the message has some that there are.
pub(crate) fn find<'a>(voices: &'a [KnownVoice], wanted: &str) -> Result<&'a KnownVoice, Error> {
    let fits = voices.iter().rev().filter_map(|voice| Some(((voice.fit(wanted)?, voice.quality), voice)));
    // The last of several that are alike, which is the first of the list.
    match fits.max_by_key(|(rank, _)| *rank) {
        Some((_, voice)) => Ok(voice),
        None => {
            let examples: Vec<_> = voices.iter().take(EXAMPLES_MAX).map(KnownVoice::listed).collect();
            Err(Error::invalid(format!(
                "there is no voice `{wanted}` on this machine; there are {} ({}); more are in System Settings, Accessibility, \
                 Spoken Content",
                voices.len(),
                examples.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn voices() -> Vec<KnownVoice> {
        [
            ("a", "en-GB", "Daniel", Quality::Default),
            ("b", "en-US", "Samantha", Quality::Default),
            ("c", "en-US", "Ava", Quality::Enhanced),
            ("d", "en-US", "Ava", Quality::Premium),
            ("e", "de-DE", "Anna", Quality::Default),
            ("f", "de-DE", "Petra", Quality::Default),
        ]
        .map(|(identifier, language, name, quality)| KnownVoice {
            identifier: format!("com.apple.{identifier}"),
            language: language.to_owned(),
            name: name.to_owned(),
            quality,
        })
        .to_vec()
    }

    #[test]
    fn voices_are_found_by_identifier_list_entry_name_and_language() {
        let voices = voices();
        for (wanted, expected) in [
            ("com.apple.b", "en-US/Samantha/default"),
            ("en-US/Ava/enhanced", "en-US/Ava/enhanced"),
            ("ava", "en-US/Ava/premium"),
            ("en-us/ava", "en-US/Ava/premium"),
            ("en-us", "en-US/Ava/premium"),
            ("en", "en-US/Ava/premium"),
            ("en-GB", "en-GB/Daniel/default"),
            ("de", "de-DE/Anna/default"),
        ] {
            assert_eq!(find(&voices, wanted).unwrap().listed(), expected, "{wanted}");
        }
    }

    #[test]
    fn a_voice_that_is_not_there_is_answered_with_some_that_are() {
        let message = find(&voices(), "fr").unwrap_err().to_string();
        assert!(message.contains("`fr`") && message.contains("de-DE/Anna/default"), "{message}");
    }

    proptest! {
        #[test]
        fn every_voice_is_found_by_its_entry(index in 0_usize..6) {
            let voices = voices();
            prop_assert_eq!(find(&voices, &voices[index].listed()).unwrap(), &voices[index]);
        }
    }
}
