//! Opus (RFC 6716) in the containers of RFC 7845: the codec that `symphonia` lacks.

use ropus::{Channels, DecodeMode, Decoder};

/// Opus is always decoded at this rate, whatever it was made from.
pub(super) const OPUS_RATE_HZ: u32 = 48_000;
/// The most samples of one channel in a packet: 120 ms.
const PACKET_SAMPLES_MAX: usize = 5760;

/// A stream that is being decoded.
pub(super) struct OpusDecoder {
    decoder: Decoder,
    channels: usize,
    buffer: Vec<f32>,
    /// Samples of each channel at the beginning that only set the decoder up.
    skip: usize,
}

impl OpusDecoder {
    /// Reads the identification header (RFC 7845, 5.1); `Err` tells what is wrong with it or not supported.
    pub(super) fn new(head: &[u8]) -> Result<Self, String> {
        // "OpusHead", version, channels, pre-skip, rate of the source, gain, mapping family
        let [
            b'O',
            b'p',
            b'u',
            b's',
            b'H',
            b'e',
            b'a',
            b'd',
            _,
            channels,
            skip0,
            skip1,
            _,
            _,
            _,
            _,
            gain0,
            gain1,
            ..,
        ] = *head
        else {
            return Err("it has no Opus header".to_owned());
        };
        let layout = match channels {
            1 => Channels::Mono,
            2 => Channels::Stereo,
            more => return Err(format!("Opus with {more} channels, expected 1 or 2")),
        };
        let mut decoder = Decoder::new(OPUS_RATE_HZ, layout).map_err(|error| error.to_string())?;
        let gain = i16::from_le_bytes([gain0, gain1]);
        decoder.set_gain(gain.into()).map_err(|error| error.to_string())?;
        let channels = usize::from(channels);
        Ok(Self {
            decoder,
            channels,
            buffer: vec![0.0; PACKET_SAMPLES_MAX * channels],
            skip: u16::from_le_bytes([skip0, skip1]).into(),
        })
    }

    /// How many channels are interleaved in what [`Self::decode`] returns.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// The interleaved samples of a packet, without `trim_end` samples of each channel at its end; `Err` when it cannot be
    /// decoded.
    pub(super) fn decode(&mut self, packet: &[u8], trim_end: usize) -> Result<&[f32], String> {
        // To the decoder, an empty packet is a lost one, whose sound it would guess.
        if packet.is_empty() {
            return Err("an empty packet".to_owned());
        }
        let decoded = self.decoder.decode_float(packet, &mut self.buffer, DecodeMode::Normal);
        let samples = decoded.map_err(|error| error.to_string())?;
        let start = self.skip.min(samples);
        self.skip -= start;
        let end = samples.saturating_sub(trim_end).max(start);
        Ok(&self.buffer[start * self.channels..end * self.channels])
    }
}
