//! The parameters of `transcribe`, checked against the model.

use pajamas_plugin_api::{Error, Part, Request, TranscribeParams};

use super::mel::SAMPLE_RATE_HZ;
use super::vocabulary::Vocabulary;

/// Longest sound: 6 hours, whose spectrogram takes 0.7 GB (1.1 GB with 128 rows).
const SOUND_SAMPLES_MAX: usize = 6 * 3600 * SAMPLE_RATE_HZ;

/// Reads and checks a request; returns its sound, too.
pub(super) fn read<'a>(
    request: &'a Request,
    vocabulary: &Vocabulary,
) -> Result<(TranscribeParams, &'a [f32]), Error> {
    let params: TranscribeParams = request.params()?;
    check(&params, &vocabulary.languages)?;
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

fn check(params: &TranscribeParams, languages: &[String]) -> Result<(), Error> {
    if !(0.0..=2.0).contains(&params.temperature) {
        return Err(Error::invalid(format!("temperature is {}, expected 0 to 2", params.temperature)));
    }
    if languages.is_empty() && params.translate {
        return Err(Error::unsupported("translate: this model knows English only, it does not translate"));
    }
    match params.language.as_deref() {
        None => Ok(()),
        Some(code) if languages.is_empty() => {
            let message =
                format!("language: this model knows English only; expected `en` or nothing, found `{code}`");
            code.eq_ignore_ascii_case("en").then_some(()).ok_or_else(|| Error::unsupported(message))
        }
        Some(code) if languages.iter().any(|known| known.eq_ignore_ascii_case(code)) => Ok(()),
        Some(code) => Err(Error::invalid(format!(
            "language: `{code}` is not one of this model's languages, which are {}",
            languages.join(", ")
        ))),
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
            (TranscribeParams { language: german(), ..TranscribeParams::default() }, all, Ok(())),
            (
                TranscribeParams { language: Some("EN".to_owned()), ..TranscribeParams::default() },
                &[],
                Ok(()),
            ),
            (TranscribeParams { translate: true, ..TranscribeParams::default() }, all, Ok(())),
            (
                TranscribeParams { language: german(), ..TranscribeParams::default() },
                &[],
                Err((ErrorKind::Unsupported, "language: ")),
            ),
            (
                TranscribeParams { translate: true, ..TranscribeParams::default() },
                &[],
                Err((ErrorKind::Unsupported, "translate: ")),
            ),
            (
                TranscribeParams { language: Some("xx".to_owned()), ..TranscribeParams::default() },
                all,
                Err((ErrorKind::Invalid, "`xx` is not one of this model's languages, which are en, de")),
            ),
            (
                TranscribeParams { temperature: f32::NAN, ..TranscribeParams::default() },
                all,
                Err((ErrorKind::Invalid, "temperature is NaN")),
            ),
        ];
        for (params, languages, expected) in cases {
            match (check(&params, languages), expected) {
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
