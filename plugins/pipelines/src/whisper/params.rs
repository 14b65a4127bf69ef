//! The parameters of `transcribe`, and what a segment says.

use pajamas_plugin_api::{Error, Part, Request};
use serde::{Deserialize, Serialize};

use super::mel::SAMPLE_RATE_HZ;
use super::vocabulary::Vocabulary;

/// Longest sound: 6 hours, whose spectrogram takes 0.7 GB (1.1 GB with 128 rows).
const SOUND_SAMPLES_MAX: usize = 6 * 3600 * SAMPLE_RATE_HZ;

/// Schema `transcribe` of the plugin contract.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Params {
    pub(super) language: Option<String>,
    pub(super) translate: bool,
    pub(super) word_times: bool,
    pub(super) prompt: Option<String>,
    pub(super) temperature: f32,
    pub(super) seed: u64,
}

/// Schema `transcribe_result` of the plugin contract.
#[derive(Debug, Serialize)]
pub(super) struct Segment<'a> {
    pub(super) start_s: f64,
    pub(super) end_s: f64,
    pub(super) text: &'a str,
    pub(super) language: &'a str,
    pub(super) tokens: &'a [u32],
    pub(super) avg_logprob: f32,
    pub(super) no_speech_probability: f32,
    pub(super) compression_ratio: f32,
    pub(super) temperature: f32,
    pub(super) seek: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) words: Option<Vec<Word<'a>>>,
}

/// One of `words`.
#[derive(Debug, Serialize)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    pub(super) start_s: f64,
    pub(super) end_s: f64,
    pub(super) probability: f32,
}

impl Params {
    /// Reads and checks a request; returns its sound, too.
    pub(super) fn of<'a>(request: &'a Request, vocabulary: &Vocabulary) -> Result<(Self, &'a [f32]), Error> {
        let params: Self = request.params()?;
        params.check(&vocabulary.languages)?;
        match request.parts.as_slice() {
            [Part::Pcm(samples)] if samples.len() > SOUND_SAMPLES_MAX => Err(Error::invalid(format!(
                "the sound is {} s long, at most {} s are transcribed at once; send it in parts",
                samples.len() / SAMPLE_RATE_HZ,
                SOUND_SAMPLES_MAX / SAMPLE_RATE_HZ
            ))),
            [Part::Pcm(samples)] => Ok((params, samples)),
            parts => {
                let count = parts.len();
                Err(Error::invalid(format!(
                    "transcribe takes one sound (PCM_F32), {count} parts of any kind came"
                )))
            }
        }
    }

    fn check(&self, languages: &[String]) -> Result<(), Error> {
        if !(0.0..=2.0).contains(&self.temperature) {
            return Err(Error::invalid(format!("temperature is {}, expected 0 to 2", self.temperature)));
        }
        if languages.is_empty() && self.translate {
            return Err(Error::unsupported(
                "translate: this model knows English only, it does not translate",
            ));
        }
        match self.language.as_deref() {
            None => Ok(()),
            Some(code) if languages.is_empty() => {
                let message = format!(
                    "language: this model knows English only; expected `en` or nothing, found `{code}`"
                );
                code.eq_ignore_ascii_case("en").then_some(()).ok_or_else(|| Error::unsupported(message))
            }
            Some(code) if languages.iter().any(|known| known.eq_ignore_ascii_case(code)) => Ok(()),
            Some(code) => Err(Error::invalid(format!(
                "language: `{code}` is not one of this model's languages, which are {}",
                languages.join(", ")
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::ErrorKind;

    use super::*;

    #[test]
    fn languages_are_checked_against_the_model() {
        let german = || Some("de".to_owned());
        let all: &[String] = &["en".to_owned(), "de".to_owned()];
        let cases = [
            (Params { language: german(), ..Params::default() }, all, Ok(())),
            (Params { language: Some("EN".to_owned()), ..Params::default() }, &[], Ok(())),
            (Params { translate: true, ..Params::default() }, all, Ok(())),
            (
                Params { language: german(), ..Params::default() },
                &[],
                Err((ErrorKind::Unsupported, "language: ")),
            ),
            (
                Params { translate: true, ..Params::default() },
                &[],
                Err((ErrorKind::Unsupported, "translate: ")),
            ),
            (
                Params { language: Some("xx".to_owned()), ..Params::default() },
                all,
                Err((ErrorKind::Invalid, "`xx` is not one of this model's languages, which are en, de")),
            ),
            (
                Params { temperature: f32::NAN, ..Params::default() },
                all,
                Err((ErrorKind::Invalid, "temperature is NaN")),
            ),
        ];
        for (params, languages, expected) in cases {
            match (params.check(languages), expected) {
                (Ok(()), Ok(())) => {}
                (Err(error), Err((kind, message))) => {
                    assert_eq!(error.kind(), kind);
                    assert!(error.message().contains(message), "{error}");
                }
                (found, expected) => panic!("{params:?}: {found:?}, expected {expected:?}"),
            }
        }
    }
}
