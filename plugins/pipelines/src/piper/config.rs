//! `X.onnx.json`, which lies beside each Piper voice `X.onnx`.
//!
//! Source of the format: `piper/config.py` of piper-tts 1.8.0.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::Error;
use serde::Deserialize;

/// Longest file that is read; a longer one is refused. Real ones have 5 kB, and 100 kB with a thousand speakers.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Rates that speech has.
const SAMPLE_RATES_HZ: std::ops::RangeInclusive<u32> = 8_000..=192_000;
/// Speakers of one voice; the largest data sets have a few thousand.
const SPEAKERS_MAX: u32 = 65_536;
/// Ids of one phoneme.
const IDS_PER_PHONEME_MAX: usize = 16;

/// The phoneme that begins a sentence, the one between all others, and the one that ends it.
pub(super) const BOS: &str = "^";
pub(super) const PAD: &str = "_";
pub(super) const EOS: &str = "$";

/// What a voice's file says.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Config {
    audio: Audio,
    #[serde(default)]
    espeak: EspeakVoice,
    #[serde(default)]
    pub(super) phoneme_type: PhonemeType,
    /// Ids of the network for each phoneme.
    pub(super) phoneme_id_map: HashMap<String, Vec<i64>>,
    #[serde(default)]
    pub(super) inference: Inference,
    #[serde(default = "one")]
    pub(super) num_speakers: u32,
    #[serde(default)]
    speaker_id_map: BTreeMap<String, u32>,
    #[serde(default)]
    pub(super) default_speaker_id: u32,
    /// Vowels that are one phoneme when they follow each other, such as `a` `ɪ`.
    #[serde(default)]
    pub(super) vowel_clusters: Vec<Vec<String>>,
    dataset: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Audio {
    sample_rate: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct EspeakVoice {
    voice: Option<String>,
}

/// How a text becomes phonemes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PhonemeType {
    /// IPA from espeak-ng.
    #[default]
    Espeak,
    /// The text's own code points.
    Text,
    /// Any other: needs dictionaries or networks that are not part of a voice.
    #[serde(other)]
    Other,
}

/// The network's settings. The defaults are Piper's.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Inference {
    pub(super) noise_scale: f32,
    pub(super) length_scale: f32,
    pub(super) noise_w: f32,
}

impl Default for Inference {
    fn default() -> Self {
        Self { noise_scale: 0.667, length_scale: 1.0, noise_w: 0.8 }
    }
}

fn one() -> u32 {
    1
}

/// The configuration's file of a network's file.
pub(super) fn file_of(network: &Path) -> PathBuf {
    let mut name = network.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

impl Config {
    /// Reads and checks the file beside `network`.
    ///
    /// # Errors
    /// It is missing, too long, not JSON, lacks a field or has a value that cannot be; the message names both.
    pub(super) fn read(network: &Path) -> Result<Self, Error> {
        let file = file_of(network);
        let mut text = String::new();
        let read = File::open(&file).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
        read.map_err(|error| {
            Error::bad_model(format!(
                "cannot read {}, which a Piper voice needs beside its network: {error}",
                file.display()
            ))
        })?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(Error::bad_model(format!(
                "{} is longer than {FILE_BYTES_MAX} bytes, which no voice needs",
                file.display()
            )));
        }
        Self::parse(&text).map_err(|problem| Error::bad_model(format!("{}: {problem}", file.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut json = serde_json::Deserializer::from_str(text);
        let config: Self =
            serde_path_to_error::deserialize(&mut json).map_err(|error| match error.path().to_string() {
                path if path == "." => error.into_inner().to_string(),
                path => format!("field `{path}`: {}", error.into_inner()),
            })?;
        json.end().map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if !SAMPLE_RATES_HZ.contains(&self.audio.sample_rate) {
            return Err(format!(
                "field `audio.sample_rate` is {}, expected 8000 to 192000",
                self.audio.sample_rate
            ));
        }
        if self.phoneme_type == PhonemeType::Espeak && self.espeak.voice.is_none() {
            return Err("field `espeak.voice` is missing".to_owned());
        }
        for phoneme in [BOS, PAD, EOS] {
            if !self.phoneme_id_map.contains_key(phoneme) {
                return Err(format!("field `phoneme_id_map` lacks \"{phoneme}\""));
            }
        }
        if let Some((phoneme, ids)) =
            self.phoneme_id_map.iter().find(|(_, ids)| ids.len() > IDS_PER_PHONEME_MAX)
        {
            let len = ids.len();
            return Err(format!(
                "field `phoneme_id_map` has {len} ids for \"{phoneme}\", at most {IDS_PER_PHONEME_MAX} are read"
            ));
        }
        if self.num_speakers > SPEAKERS_MAX {
            return Err(format!(
                "field `num_speakers` is {}, at most {SPEAKERS_MAX} are read",
                self.num_speakers
            ));
        }
        let speakers = 0..self.num_speakers.max(1);
        if let Some((name, id)) = self.speaker_id_map.iter().find(|(_, id)| !speakers.contains(id)) {
            let count = self.num_speakers;
            return Err(format!(
                "field `speaker_id_map` has id {id} for \"{name}\", `num_speakers` is {count}"
            ));
        }
        if !speakers.contains(&self.default_speaker_id) {
            return Err(format!(
                "field `default_speaker_id` is {}, beyond `num_speakers`",
                self.default_speaker_id
            ));
        }
        let Inference { noise_scale, length_scale, noise_w } = self.inference;
        let is_scale = |scale: f32| scale.is_finite() && scale >= 0.0;
        if !(is_scale(noise_scale) && is_scale(noise_w) && is_scale(length_scale) && length_scale > 0.0) {
            return Err("field `inference` has a scale that is negative, or a `length_scale` of 0".to_owned());
        }
        Ok(())
    }

    pub(super) fn sample_rate_hz(&self) -> u32 {
        self.audio.sample_rate
    }

    /// The voice of espeak-ng that makes the phonemes.
    pub(super) fn espeak_voice(&self) -> &str {
        self.espeak.voice.as_deref().unwrap_or_default()
    }

    /// The names of the speakers with their ids, the default one first and then by id. A voice with one speaker has the
    /// name of its data set, or of its file.
    pub(super) fn speakers(&self, network: &Path) -> Vec<(String, u32)> {
        if self.num_speakers <= 1 {
            let stem = || network.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let name = self.dataset.clone().filter(|name| !name.is_empty());
            return vec![(name.unwrap_or_else(stem), 0)];
        }
        let names: HashMap<u32, &String> = self.speaker_id_map.iter().map(|(name, id)| (*id, name)).collect();
        let name = |id: u32| names.get(&id).map_or_else(|| id.to_string(), |name| (*name).clone());
        let default = self.default_speaker_id;
        let others = (0..self.num_speakers).filter(|id| *id != default);
        std::iter::once(default).chain(others).map(|id| (name(id), id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"audio": {"sample_rate": 22050}, "espeak": {"voice": "en-us"}, "num_speakers": 3,
        "default_speaker_id": 1, "speaker_id_map": {"amy": 0, "joe": 2},
        "phoneme_id_map": {"_": [0], "^": [1], "$": [2], "a": [14]}}"#;

    #[test]
    fn a_good_file_has_pipers_defaults() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(config.inference, Inference { noise_scale: 0.667, length_scale: 1.0, noise_w: 0.8 });
        assert_eq!((config.phoneme_type, config.espeak_voice()), (PhonemeType::Espeak, "en-us"));
        let speakers = config.speakers(Path::new("x.onnx"));
        assert_eq!(speakers, [("1".to_owned(), 1), ("amy".to_owned(), 0), ("joe".to_owned(), 2)]);
        let single = Config { num_speakers: 1, ..config };
        assert_eq!(single.speakers(Path::new("/m/en_US-x.onnx")), [("en_US-x".to_owned(), 0)]);
    }

    #[test]
    fn wrong_files_name_the_field() {
        let cases = [
            ("22050", "\"fast\"", "field `audio.sample_rate`: invalid type"),
            ("22050", "10", "field `audio.sample_rate` is 10"),
            ("\"voice\"", "\"vice\"", "field `espeak.voice` is missing"),
            ("\"^\"", "\"x\"", "field `phoneme_id_map` lacks \"^\""),
            ("[14]", "[14.5]", "field `phoneme_id_map.a"),
            ("\"joe\": 2", "\"joe\": 3", "id 3 for \"joe\""),
            ("\"default_speaker_id\": 1", "\"default_speaker_id\": 9", "`default_speaker_id` is 9"),
            ("\"audio\"", "\"sound\"", "missing field `audio`"),
            ("{\"audio\"", "[\"audio\"", "field `[0]`: invalid type"),
            ("[14]}", "[14]}} {", "trailing characters"),
        ];
        for (from, to, expected) in cases {
            let message = Config::parse(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(message.contains(expected), "{to}: {message}");
        }
        let message = Config::read(Path::new("/no/such/x.onnx")).unwrap_err().to_string();
        assert!(message.contains("/no/such/x.onnx.json, which a Piper voice needs"), "{message}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,200}", at in 0..GOOD.len()) {
            let _ = Config::parse(&text);
            let _ = Config::parse(&format!("{}{text}", &GOOD[..at]));
        }
    }
}
