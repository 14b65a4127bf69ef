//! Pictures and sound: from what clients send to what plugins take, and back.
//!
//! A plugin gets RGB pixels and mono samples, never a file: files are decoded here, once for all plugins, by libraries
//! without C. Each file is untrusted. Its kind is told by its first bytes, never by a name or a content type; its
//! dimensions are checked before its pixels are decoded; its length is checked while it is decoded. [`MediaDecoder`] is
//! for async code: it bounds how many files are decoded at the same time, and with that the memory they take.

mod audio;
mod draw;
mod encode;
mod image;
mod opus;
mod resample;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

pub use audio::{SAMPLE_RATE_HZ, Sound, decode_audio};
pub use draw::{Mark, draw_boxes};
pub use encode::{AudioEncoder, AudioFormat, PCM_RATE_HZ};
pub use image::{Picture, decode_image, encode_png, is_image};

/// Bounds on decoded media; the operator sets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaLimits {
    /// The most pixels of one picture. While it is decoded, a picture takes up to 11 bytes a pixel.
    pub image_pixels: u64,
    /// The longest sound, in seconds. A second takes 64 000 bytes.
    pub audio_seconds: u32,
}

impl Default for MediaLimits {
    /// 50 million pixels, which is what the cameras of good phones make, and two hours.
    fn default() -> Self {
        Self { image_pixels: 50_000_000, audio_seconds: 7_200 }
    }
}

/// Why a file could not be decoded, or pixels or samples not be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// There are no bytes.
    #[error("the file is empty")]
    Empty,
    /// The first bytes are of no kind that is read.
    #[error("the file is of no known kind, expected {expected}")]
    UnknownKind {
        /// The kinds that are read.
        expected: &'static str,
    },
    /// The file breaks the rules of its kind.
    #[error("the {kind} file is damaged or ends too early: {problem}")]
    Corrupt {
        /// What the first bytes say that it is.
        kind: &'static str,
        /// What the decoder stumbled on.
        problem: String,
    },
    /// The file is right, but uses what the decoder cannot do.
    #[error("the {kind} file cannot be read by this server: {problem}")]
    Unsupported {
        /// What the first bytes say that it is.
        kind: &'static str,
        /// What the decoder lacks.
        problem: String,
    },
    /// The picture is larger than [`MediaLimits::image_pixels`].
    #[error("the picture has {width} × {height} pixels, at most {pixels_max} pixels are allowed")]
    TooManyPixels {
        /// Pixels per row.
        width: u32,
        /// Rows.
        height: u32,
        /// The bound.
        pixels_max: u64,
    },
    /// Decoding the picture takes more memory than one of [`MediaLimits::image_pixels`] may.
    #[error(
        "the {kind} file takes more memory than a picture of {pixels_max} pixels, the most that are allowed"
    )]
    TooMuchMemory {
        /// What the first bytes say that it is.
        kind: &'static str,
        /// The bound.
        pixels_max: u64,
    },
    /// The sound is longer than [`MediaLimits::audio_seconds`].
    #[error("the sound is longer than {seconds_max} seconds, the most that is allowed")]
    TooLong {
        /// The bound.
        seconds_max: u32,
    },
    /// The file has no sound in it, or less than a sample of it.
    #[error("the {kind} file has no sound in it")]
    NoSound {
        /// What the first bytes say that it is.
        kind: &'static str,
    },
    /// Sound in this format is not made here.
    #[error("expected one of {expected}, got \"{name}\"")]
    UnknownFormat {
        /// What was asked for.
        name: String,
        /// The formats that are made.
        expected: String,
    },
    /// The encoder refused.
    #[error("cannot encode: {problem}")]
    Encode {
        /// The encoder's reason.
        problem: String,
    },
    /// The decoder panicked; the process goes on.
    #[error("the decoder failed on this file")]
    Failed,
}

/// Decodes files outside the threads that serve requests, a bounded number at the same time. Clones share the bound.
#[derive(Clone, Debug)]
pub struct MediaDecoder {
    limits: MediaLimits,
    permits: Arc<Semaphore>,
}

impl MediaDecoder {
    /// A decoder with these bounds, for half of the machine's cores: the engines need the others.
    #[must_use]
    pub fn new(limits: MediaLimits) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { limits, permits: Arc::new(Semaphore::new(cores.div_ceil(2))) }
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> MediaLimits {
        self.limits
    }

    /// As [`decode_image`], with a bound on the pixels that may be lower than the operator's.
    ///
    /// # Errors
    /// See [`MediaError`].
    ///
    /// # Cancellation
    /// A file whose turn has come is decoded to its end, and the result is thrown away.
    pub async fn image(&self, bytes: Bytes, pixels_max: u64) -> Result<Picture, MediaError> {
        let image_pixels = self.limits.image_pixels.min(pixels_max);
        let limits = MediaLimits { image_pixels, ..self.limits };
        self.run(move || decode_image(&bytes, &limits)).await
    }

    /// As [`decode_audio`].
    ///
    /// # Errors
    /// See [`MediaError`].
    ///
    /// # Cancellation
    /// A file whose turn has come is decoded to its end, and the result is thrown away.
    pub async fn audio(&self, bytes: Bytes) -> Result<Sound, MediaError> {
        let limits = self.limits;
        self.run(move || decode_audio(&bytes, &limits)).await
    }

    async fn run<T, F>(&self, decode: F) -> Result<T, MediaError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, MediaError> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| MediaError::Failed)?;
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            decode()
        });
        // A decoder that panics on a file is a defect of the library; it costs this request only.
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a decoder panicked");
            Err(MediaError::Failed)
        })
    }
}

#[cfg(test)]
mod tests;
