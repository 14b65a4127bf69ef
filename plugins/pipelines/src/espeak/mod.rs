//! espeak-ng: text to phonemes for neural voices, and a synthesiser with a hundred languages of its own.
//!
//! The library is found and loaded at run time: it is under GPL-3.0-or-later, so that whoever wants it installs it, and
//! nothing of it is linked. It keeps one state for the whole process; [`Espeak`] puts one lock around it.

mod clause;
mod ffi;
mod find;
mod voices;

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pajamas_plugin_api::{Error, ErrorKind};
use parking_lot::{Mutex, MutexGuard};

pub use clause::Clause;
pub use find::search_in;
pub use voices::{Voice, Voices};

/// Longest text of one call, in bytes; a longer one is refused. It is a short book, of which speech takes hours.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;
/// The library's own limits of its speed, in words per minute, and what it takes for 1.
const RATES_WORDS_PER_MINUTE: std::ops::RangeInclusive<f32> = 80.0..=450.0;
const RATE_DEFAULT_WORDS_PER_MINUTE: f32 = 175.0;
/// The oldest version whose interface this is.
const VERSION_MIN: (u32, u32) = (1, 50);
/// How often a call that waits for its turn asks whether it is still wanted.
const TURN_POLL: Duration = Duration::from_millis(50);

/// The library of this process. Copies share it.
#[derive(Clone, Copy, Debug)]
pub struct Espeak(&'static Loaded);

#[derive(Debug)]
struct Loaded {
    file: PathBuf,
    version: String,
    sample_rate_hz: u32,
    voices: Voices,
    engine: Mutex<Engine>,
}

#[derive(Debug)]
struct Engine {
    library: ffi::Library,
    /// The current voice, in the library's words.
    voice: Option<CString>,
}

/// The library that was loaded first; also the lock that makes it one.
static LOADED: Mutex<Option<Espeak>> = Mutex::new(None);

impl Espeak {
    /// Loads espeak-ng, or takes the one that this process has: `library` if it is given, else the one in the folder of
    /// [`search_in`], else the system's. Its data are those in `espeak-ng-data` beside it, else the system's.
    ///
    /// Sets the process's `LC_CTYPE`, which is the library's doing. Takes some tens of milliseconds.
    ///
    /// # Errors
    /// There is no espeak-ng (the message says what to install), it is older than 1.50, it has no data, or another one is
    /// loaded already.
    pub fn open(library: Option<&Path>) -> Result<Self, Error> {
        let mut loaded = LOADED.lock();
        if let Some(espeak) = *loaded {
            return match library {
                Some(file) if file != espeak.0.file => Err(Error::invalid(format!(
                    "option `espeak_library`: this process has loaded {} already, and can have only one",
                    espeak.0.file.display()
                ))),
                _ => Ok(espeak),
            };
        }
        let mut reasons = Vec::new();
        for place in find::places(library)? {
            match ffi::Library::load(&place.file) {
                Ok(library) => {
                    let espeak = Self(Box::leak(Box::new(Loaded::start(library, place)?)));
                    *loaded = Some(espeak);
                    return Ok(espeak);
                }
                Err(error) => reasons.push(format!("{}: {error}", place.file.display())),
            }
        }
        tracing::debug!("no espeak-ng: {}", reasons.join("; "));
        let reason = reasons.first().map_or("", String::as_str);
        Err(Error::new(ErrorKind::NotFound, format!("espeak-ng was not found: {}; {reason}", find::HELP)))
    }

    /// The library's version, such as `1.52.0`.
    #[must_use]
    pub fn version(&self) -> &'static str {
        &self.0.version
    }

    /// The voices.
    #[must_use]
    pub fn voices(&self) -> &'static Voices {
        &self.0.voices
    }

    /// Frames per second of [`Espeak::speak`].
    #[must_use]
    pub fn sample_rate_hz(&self) -> u32 {
        self.0.sample_rate_hz
    }

    /// The phonemes of a text, clause by clause, as Piper's own phonemiser gives them.
    ///
    /// Waits for its turn; a text of [`TEXT_BYTES_MAX`] takes about a second.
    ///
    /// # Errors
    /// There is no such voice, or the text is too long.
    pub fn clauses(&self, voice: &str, text: &str) -> Result<Vec<Clause>, Error> {
        let text = checked(text)?;
        let text_utf8 = text.to_str().unwrap_or_default();
        let mut engine = self.0.engine.lock();
        engine.set_voice(&self.0.voices, voice)?;
        let (mut reader, mut clauses) = (clause::Reader::default(), Vec::new());
        engine.library.phonemes(&text, |phonemes, consumed, is_last| {
            let ending = reader.ending(text_utf8.get(consumed).unwrap_or_default(), is_last);
            clauses.push(Clause {
                phonemes: clause::without_language_marks(phonemes),
                terminator: ending.terminator,
                ends_sentence: ending.ends_sentence,
            });
        });
        Ok(clauses)
    }

    /// Speaks a text. `sink` gets mono sound of [`Espeak::sample_rate_hz`], 60 ms at a time as it is made, and answers
    /// whether to go on; while the call waits for its turn, it gets an empty chunk 20 times a second.
    ///
    /// `speed` is a multiple of the voice's own.
    ///
    /// # Errors
    /// There is no such voice, the library cannot speak at this speed, the text is too long, or the library failed.
    pub fn speak(
        &self,
        voice: &str,
        speed: f32,
        text: &str,
        sink: &mut dyn FnMut(&[i16]) -> bool,
    ) -> Result<(), Error> {
        let rate = words_per_minute(speed)?;
        let text = checked(text)?;
        let Some(mut engine) = self.turn(&mut || sink(&[])) else { return Ok(()) };
        engine.set_voice(&self.0.voices, voice)?;
        engine.library.set_rate(rate);
        engine
            .library
            .speak(&text, sink)
            .map_err(|status| Error::internal(format!("espeak-ng cannot speak: it returned status {status}")))
    }

    /// The engine, unless `is_wanted` says no before its turn comes.
    fn turn(&self, is_wanted: &mut dyn FnMut() -> bool) -> Option<MutexGuard<'static, Engine>> {
        let loaded = self.0;
        loop {
            if let Some(engine) = loaded.engine.try_lock_for(TURN_POLL) {
                return Some(engine);
            }
            if !is_wanted() {
                return None;
            }
        }
    }
}

impl Loaded {
    fn start(mut library: ffi::Library, place: find::Place) -> Result<Self, Error> {
        let (version, _) = library.info();
        check_version(&version, &place.file)?;
        let parent = match &place.data_parent {
            Some(parent) => {
                Some(parent.to_str().and_then(|text| CString::new(text).ok()).ok_or_else(|| {
                    Error::invalid(format!(
                        "the path of espeak-ng's data, {}, is not UTF-8",
                        parent.display()
                    ))
                })?)
            }
            None => None,
        };
        let no_data = |what: &str| Error::internal(format!("espeak-ng in {} {what}", place.file.display()));
        let sample_rate_hz = library.initialize(parent.as_deref()).map_err(|_| {
            no_data(
                "does not find its data: install them (Debian and Ubuntu: apt-get install espeak-ng-data), or put the \
                 folder `espeak-ng-data` of the same version beside the library",
            )
        })?;
        let (_, data) = library.info();
        // The library falls back to the system's data silently, whose version may be another.
        if let Some(parent) = &place.data_parent
            && !Path::new(&data).starts_with(parent)
        {
            return Err(no_data(&format!(
                "took the data in {data} instead of those beside it: its path may be too long, 140 bytes are safe"
            )));
        }
        let voices = Voices::new(library.voices(false), library.voices(true));
        tracing::debug!(version, data, voices = voices.list().len(), "loaded espeak-ng");
        let engine = Mutex::new(Engine { library, voice: None });
        Ok(Self { file: place.file, version, sample_rate_hz, voices, engine })
    }
}

impl Engine {
    fn set_voice(&mut self, voices: &Voices, name: &str) -> Result<(), Error> {
        let wanted = voices.resolve(name)?;
        if self.voice.as_ref() == Some(&wanted) {
            return Ok(());
        }
        self.voice = None;
        self.library.set_voice(&wanted).map_err(|status| {
            Error::internal(format!("espeak-ng cannot use its voice \"{name}\": it returned status {status}"))
        })?;
        self.voice = Some(wanted);
        Ok(())
    }
}

fn checked(text: &str) -> Result<CString, Error> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the text has {} bytes, at most {TEXT_BYTES_MAX} can be spoken at once: send it in parts",
            text.len()
        )));
    }
    Ok(ffi::c_text(text))
}

fn words_per_minute(speed: f32) -> Result<i32, Error> {
    let rate = speed * RATE_DEFAULT_WORDS_PER_MINUTE;
    if !RATES_WORDS_PER_MINUTE.contains(&rate) {
        return Err(Error::unsupported(format!(
            "parameter \"speed\" is {speed}: espeak-ng speaks at {:.2} to {:.2} times its own speed",
            RATES_WORDS_PER_MINUTE.start() / RATE_DEFAULT_WORDS_PER_MINUTE,
            RATES_WORDS_PER_MINUTE.end() / RATE_DEFAULT_WORDS_PER_MINUTE
        )));
    }
    Ok(rate.round() as i32)
}

fn check_version(version: &str, file: &Path) -> Result<(), Error> {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
    let found = (parts.next().flatten(), parts.next().flatten());
    match found {
        (Some(major), Some(minor)) if (major, minor) >= VERSION_MIN => Ok(()),
        _ => Err(Error::unsupported(format!(
            "espeak-ng in {} has version {version}, {}.{} or newer is needed",
            file.display(),
            VERSION_MIN.0,
            VERSION_MIN.1
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_before_the_interface_are_refused() {
        let file = Path::new("libespeak-ng.so.1");
        for version in ["1.50", "1.51", "1.52.0", "1.52-dev", "2.0"] {
            check_version(version, file).unwrap();
        }
        for version in ["1.49.2", "", "one"] {
            let message = check_version(version, file).unwrap_err().to_string();
            assert!(message.ends_with("1.50 or newer is needed"), "{message}");
        }
    }

    #[test]
    fn a_speed_is_a_rate_within_the_librarys_limits() {
        assert_eq!(words_per_minute(1.0), Ok(175));
        assert_eq!(words_per_minute(2.0), Ok(350));
        for speed in [0.25, 4.0, f32::NAN, -1.0] {
            let message = words_per_minute(speed).unwrap_err().to_string();
            assert!(message.contains("parameter \"speed\"") && message.contains("0.46 to 2.57"), "{message}");
        }
    }
}
