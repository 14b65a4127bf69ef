//! What speaks: espeak-ng, or the voices of macOS.

use pajamas_pipelines::espeak::Espeak;
use pajamas_plugin_api::Error;

#[cfg(target_vendor = "apple")]
use crate::apple::AppleVoices;
use crate::options::{Engine, Options};

/// A synthesizer that is ready to speak.
#[derive(Debug)]
pub(crate) enum Synthesizer {
    /// espeak-ng.
    Espeak(Espeak),
    /// AVSpeechSynthesizer.
    #[cfg(target_vendor = "apple")]
    Apple(AppleVoices),
}

impl Synthesizer {
    /// The one that the options name.
    ///
    /// # Errors
    /// It is not there, with what to do about it.
    pub(crate) fn open(options: &Options) -> Result<Self, Error> {
        let is_apple = cfg!(target_vendor = "apple");
        // Whoever names a library wants espeak-ng.
        let wants_espeak = !is_apple || options.espeak_library.is_some();
        match options.engine {
            Engine::EspeakNg => Self::espeak(options),
            Engine::Auto if wants_espeak => Self::espeak(options),
            Engine::Auto | Engine::Macos => Self::macos(),
        }
    }

    fn espeak(options: &Options) -> Result<Self, Error> {
        Ok(Self::Espeak(Espeak::open(options.espeak_library.as_deref())?))
    }

    #[cfg(target_vendor = "apple")]
    fn macos() -> Result<Self, Error> {
        Ok(Self::Apple(AppleVoices::list()?))
    }

    #[cfg(not(target_vendor = "apple"))]
    fn macos() -> Result<Self, Error> {
        Err(Error::unsupported(format!(
            "option `engine`: the voices `macos` are those of macOS, and this machine runs {}; `espeak-ng` runs here",
            std::env::consts::OS
        )))
    }

    /// Its name and version, for people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Espeak(espeak) => format!("espeak-ng {}", espeak.version()),
            #[cfg(target_vendor = "apple")]
            Self::Apple(voices) => voices.engine_name(),
        }
    }

    /// What it is, for `ModelInfo::architecture`.
    pub(crate) fn architecture(&self) -> &'static str {
        match self {
            Self::Espeak(_) => "espeak-ng",
            #[cfg(target_vendor = "apple")]
            Self::Apple(_) => "avspeechsynthesizer",
        }
    }

    /// The names of all voices.
    pub(crate) fn voices(&self) -> Vec<String> {
        match self {
            Self::Espeak(espeak) => espeak.voices().list().iter().map(|voice| voice.id.clone()).collect(),
            #[cfg(target_vendor = "apple")]
            Self::Apple(voices) => voices.names(),
        }
    }

    /// Looks whether there is such a voice.
    ///
    /// # Errors
    /// There is none; the message has some that there are.
    pub(crate) fn check(&self, voice: &str) -> Result<(), Error> {
        match self {
            Self::Espeak(espeak) => espeak.voices().check(voice),
            #[cfg(target_vendor = "apple")]
            Self::Apple(voices) => voices.check(voice),
        }
    }

    /// Speaks `text`, `speed` times as fast as the voice does of itself. `sink` gets sound of one channel and its frames per
    /// second, as it is made; nothing for a sign of life. It answers whether to go on.
    ///
    /// # Errors
    /// There is no such voice, the speed is beyond what the engine can do, or the engine failed.
    pub(crate) fn speak(
        &self,
        voice: &str,
        speed: f32,
        text: &str,
        sink: &mut dyn FnMut(&[f32], u32) -> bool,
    ) -> Result<(), Error> {
        match self {
            Self::Espeak(espeak) => {
                let sample_rate_hz = espeak.sample_rate_hz();
                let mut samples = Vec::new();
                espeak.speak(voice, speed, text, &mut |chunk| {
                    samples.clear();
                    samples.extend(chunk.iter().map(|sample| f32::from(*sample) / 32_768.0));
                    sink(&samples, sample_rate_hz)
                })
            }
            #[cfg(target_vendor = "apple")]
            Self::Apple(voices) => voices.speak(voice, speed, text, sink),
        }
    }
}
