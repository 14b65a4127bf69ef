//! FLAC (RFC 9639), frame by frame.

use flacenc::bitsink::ByteSink;
use flacenc::component::{BitRepr, Stream, StreamInfo};
use flacenc::config::Encoder;
use flacenc::encode_fixed_size_frame;
use flacenc::error::{Verified, Verify};
use flacenc::source::{Fill, FrameBuf};

use super::to_i16;
use crate::media::MediaError;

/// Samples of a frame: the size that the reference encoder uses.
const BLOCK_SAMPLES: usize = 4096;
/// The encoder makes no shorter frame; a shorter end is filled up with silence.
const BLOCK_SAMPLES_MIN: usize = 32;

/// A file that is being written. Its header leaves the length open, for it is not known yet.
pub(super) struct Flac {
    config: Verified<Encoder>,
    info: StreamInfo,
    /// Samples that do not fill a frame yet.
    block: Vec<i32>,
    frames: usize,
    begun: bool,
}

impl Flac {
    pub(super) fn new(sample_rate_hz: u32) -> Result<Self, MediaError> {
        let config = Encoder::default().into_verified().map_err(|(_, error)| failed(error))?;
        let mut info = StreamInfo::new(sample_rate_hz as usize, 1, 16).map_err(failed)?;
        info.set_block_sizes(BLOCK_SAMPLES, BLOCK_SAMPLES).map_err(failed)?;
        Ok(Self { config, info, block: Vec::with_capacity(BLOCK_SAMPLES), frames: 0, begun: false })
    }

    pub(super) fn push(&mut self, samples: &[f32]) -> Result<Vec<u8>, MediaError> {
        let mut sink = ByteSink::new();
        if !self.begun {
            self.begun = true;
            Stream::with_stream_info(self.info.clone()).write(&mut sink).map_err(failed)?;
        }
        for sample in samples {
            self.block.push(to_i16(*sample).into());
            if self.block.len() == BLOCK_SAMPLES {
                self.write_frame(&mut sink)?;
            }
        }
        Ok(sink.into_inner())
    }

    pub(super) fn finish(mut self) -> Result<Vec<u8>, MediaError> {
        let mut sink = ByteSink::new();
        if !self.block.is_empty() {
            self.block.resize(self.block.len().max(BLOCK_SAMPLES_MIN), 0);
            self.write_frame(&mut sink)?;
        }
        Ok(sink.into_inner())
    }

    fn write_frame(&mut self, sink: &mut ByteSink) -> Result<(), MediaError> {
        let mut frame = FrameBuf::with_size(1, self.block.len()).map_err(failed)?;
        frame.fill_interleaved(&self.block).map_err(failed)?;
        let frame = encode_fixed_size_frame(&self.config, &frame, self.frames, &self.info).map_err(failed)?;
        frame.write(sink).map_err(failed)?;
        self.frames += 1;
        self.block.clear();
        Ok(())
    }
}

fn failed(error: impl std::fmt::Display) -> MediaError {
    MediaError::Encode { problem: error.to_string() }
}
