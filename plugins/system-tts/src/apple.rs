//! The voices of macOS, through AVSpeechSynthesizer. It hands buffers of sound to a block on a thread of its own; whoever
//! speaks waits for them here, and lets the run loop of its thread do what the framework may have left for it.
#![expect(
    unsafe_code,
    reason = "the framework's methods are declared in Objective-C, and Rust cannot check them"
)]

use std::ptr::NonNull;
use std::slice;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use block2::RcBlock;
use objc2::rc::{Retained, autoreleasepool};
use objc2_avf_audio::{
    AVAudioBuffer, AVAudioPCMBuffer, AVSpeechBoundary, AVSpeechSynthesisVoice, AVSpeechSynthesisVoiceQuality,
    AVSpeechSynthesizer, AVSpeechUtterance,
};
use objc2_foundation::{NSDate, NSDefaultRunLoopMode, NSProcessInfo, NSRunLoop, NSString};
use pajamas_plugin_api::Error;

use crate::known_voices::{self, KnownVoice, Quality};

/// The oldest macOS whose AVSpeechSynthesizer writes to buffers reliably.
const MACOS_MIN: isize = 13;
/// Buffers that wait; the framework's thread waits with the next one.
const BUFFERS: usize = 64;
/// How often is looked at cancellation and deadline while no sound comes.
const POLL: Duration = Duration::from_millis(20);
/// How long the framework may take for the next buffer.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Speeds that are allowed.
const SPEED_MIN: f32 = 0.25;
const SPEED_MAX: f32 = 2.0;
/// The scale of `AVSpeechUtterance.rate`: from 0 to 1, of which 0.5 is the voice's own.
const RATE_OF_VOICE: f32 = 0.5;
/// Longest text, as for espeak-ng.
const TEXT_BYTES_MAX: usize = 256 * 1024;

/// The voices that are installed.
#[derive(Debug)]
pub(crate) struct AppleVoices {
    voices: Vec<KnownVoice>,
}

/// What the framework's thread hands over.
enum Sound {
    Chunk {
        samples: Vec<f32>,
        sample_rate_hz: u32,
    },
    End,
    /// A buffer of a kind that this module does not know.
    Unknown,
}

impl AppleVoices {
    /// Looks which voices there are.
    pub(crate) fn list() -> Result<Self, Error> {
        let version = NSProcessInfo::processInfo().operatingSystemVersion();
        if version.majorVersion < MACOS_MIN {
            return Err(Error::unsupported(format!(
                "the voices of macOS need macOS {MACOS_MIN} or newer, and this is {}.{}; install espeak-ng and set the option \
                 `engine` to `espeak-ng`",
                version.majorVersion, version.minorVersion
            )));
        }
        let voices = autoreleasepool(|_| {
            // SAFETY: a class method without arguments.
            unsafe { AVSpeechSynthesisVoice::speechVoices() }.iter().map(|voice| known(&voice)).collect()
        });
        Ok(Self { voices })
    }

    pub(crate) fn engine_name(&self) -> String {
        let version = NSProcessInfo::processInfo().operatingSystemVersion();
        format!("AVSpeechSynthesizer of macOS {}.{}", version.majorVersion, version.minorVersion)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.voices.iter().map(KnownVoice::listed).collect()
    }

    pub(crate) fn check(&self, voice: &str) -> Result<(), Error> {
        known_voices::find(&self.voices, voice).map(|_| ())
    }

    pub(crate) fn speak(
        &self,
        voice: &str,
        speed: f32,
        text: &str,
        sink: &mut dyn FnMut(&[f32], u32) -> bool,
    ) -> Result<(), Error> {
        let voice = known_voices::find(&self.voices, voice)?;
        if !(SPEED_MIN..=SPEED_MAX).contains(&speed) {
            return Err(Error::invalid(format!(
                "parameter \"speed\" is {speed}, and the voices of macOS do {SPEED_MIN} to {SPEED_MAX}"
            )));
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the text has {} bytes, at most {TEXT_BYTES_MAX} can be spoken at once",
                text.len()
            )));
        }
        autoreleasepool(|_| {
            let utterance = utterance(voice, speed, text)?;
            let (sender, sounds) = sync_channel(BUFFERS);
            let block = RcBlock::new(move |buffer: NonNull<AVAudioBuffer>| {
                // SAFETY: the framework lends a buffer for the call.
                hand_over(unsafe { buffer.as_ref() }, &sender);
            });
            // SAFETY: an object without arguments; the method copies the block, which is `Send` in all that it holds.
            let synthesizer = unsafe {
                let synthesizer = AVSpeechSynthesizer::new();
                synthesizer.writeUtterance_toBufferCallback(&utterance, RcBlock::as_ptr(&block));
                synthesizer
            };
            drop(block);
            let result = receive(&sounds, sink);
            // The framework's thread must not wait for a place among the buffers.
            drop(sounds);
            // SAFETY: any thread may stop a synthesizer; one that has ended takes no notice.
            let _ = unsafe { synthesizer.stopSpeakingAtBoundary(AVSpeechBoundary::Immediate) };
            result
        })
    }
}

fn known(voice: &AVSpeechSynthesisVoice) -> KnownVoice {
    // SAFETY: properties without arguments.
    let (identifier, language, name, quality) =
        unsafe { (voice.identifier(), voice.language(), voice.name(), voice.quality()) };
    let quality = match quality {
        AVSpeechSynthesisVoiceQuality::Premium => Quality::Premium,
        AVSpeechSynthesisVoiceQuality::Enhanced => Quality::Enhanced,
        _ => Quality::Default,
    };
    KnownVoice {
        identifier: identifier.to_string(),
        language: language.to_string(),
        name: name.to_string(),
        quality,
    }
}

fn utterance(voice: &KnownVoice, speed: f32, text: &str) -> Result<Retained<AVSpeechUtterance>, Error> {
    // SAFETY: all arguments are texts and numbers that are alive.
    unsafe {
        let found = AVSpeechSynthesisVoice::voiceWithIdentifier(&NSString::from_str(&voice.identifier));
        let found = found.ok_or_else(|| {
            Error::invalid(format!("the voice {} is not on this machine any more", voice.listed()))
        })?;
        let utterance = AVSpeechUtterance::speechUtteranceWithString(&NSString::from_str(text));
        utterance.setVoice(Some(&found));
        utterance.setRate((RATE_OF_VOICE * speed).min(1.0));
        Ok(utterance)
    }
}

/// Copies a buffer's sound to whoever waits for it. An empty buffer is the last.
fn hand_over(buffer: &AVAudioBuffer, sounds: &SyncSender<Sound>) {
    let sound = match buffer.downcast_ref::<AVAudioPCMBuffer>() {
        Some(buffer) => sound(buffer),
        None => Sound::Unknown,
    };
    // Nobody waits any more when the request has ended.
    let _ = sounds.send(sound);
}

fn sound(buffer: &AVAudioPCMBuffer) -> Sound {
    // SAFETY: properties without arguments. The first channel has `len` samples in one of the two types, `stride` apart,
    // and is the framework's until this returns; the pointer of the other type is null.
    unsafe {
        let len = usize::try_from(buffer.frameLength()).unwrap_or_default();
        if len == 0 {
            return Sound::End;
        }
        let sample_rate_hz = buffer.format().sampleRate().round() as u32;
        let stride = buffer.stride().max(1);
        let span = (len - 1) * stride + 1;
        let (floats, integers) = (buffer.floatChannelData(), buffer.int16ChannelData());
        let samples = if !floats.is_null() {
            slice::from_raw_parts((*floats).as_ptr(), span).iter().step_by(stride).copied().collect()
        } else if !integers.is_null() {
            let integers = slice::from_raw_parts((*integers).as_ptr(), span).iter().step_by(stride);
            integers.map(|sample| f32::from(*sample) / 32_768.0).collect()
        } else {
            return Sound::Unknown;
        };
        Sound::Chunk { samples, sample_rate_hz }
    }
}

/// Passes sound on until the last buffer, or until nobody wants it.
fn receive(sounds: &Receiver<Sound>, sink: &mut dyn FnMut(&[f32], u32) -> bool) -> Result<(), Error> {
    let mut heard = Instant::now();
    loop {
        match sounds.recv_timeout(POLL) {
            Ok(Sound::Chunk { samples, sample_rate_hz }) => {
                heard = Instant::now();
                if !sink(&samples, sample_rate_hz) {
                    return Ok(());
                }
            }
            Ok(Sound::End) => return Ok(()),
            Ok(Sound::Unknown) => {
                return Err(Error::internal("the voice gives sound in a format that is not known here"));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::internal("the voice ended before its last sound"));
            }
            Err(RecvTimeoutError::Timeout) => {
                if !sink(&[], 0) {
                    return Ok(());
                }
                if heard.elapsed() > SILENCE_MAX {
                    return Err(Error::internal(format!(
                        "the voice gave no sound for {} s",
                        SILENCE_MAX.as_secs()
                    )));
                }
                // SAFETY: a constant of the framework.
                let mode = unsafe { NSDefaultRunLoopMode };
                NSRunLoop::currentRunLoop().runMode_beforeDate(mode, &NSDate::now());
            }
        }
    }
}
