//! Opus in Ogg (RFC 7845), at least one page for each piece that has enough samples for it.

use ogg::{PacketWriteEndInfo, PacketWriter};
use ropus::{Application, Bitrate, Channels, Encoder, Signal};
use uuid::Uuid;

use crate::media::MediaError;
use crate::media::opus::OPUS_RATE_HZ;

/// The rates that Opus is made from, in samples a second.
const RATES_HZ: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];
/// Packets a second: each has 20 ms, which Opus is made for.
const PACKETS_PER_SECOND: u32 = 50;
/// More than enough for speech.
const BITS_PER_SECOND: u32 = 48_000;
/// The largest packet, in bytes (RFC 6716, 3.4).
const PACKET_BYTES_MAX: usize = 1275;
/// Ticks of the container's clock in one packet; the clock runs at 48 kHz, whatever the rate is.
const TICKS_PER_PACKET: u64 = (OPUS_RATE_HZ / PACKETS_PER_SECOND) as u64;

/// The lowest rate of Opus that loses nothing of sound at `sample_rate_hz`.
pub(super) fn rate_for(sample_rate_hz: u32) -> u32 {
    RATES_HZ.into_iter().find(|rate| *rate >= sample_rate_hz).unwrap_or(OPUS_RATE_HZ)
}

/// A file that is being written.
pub(super) struct OggOpus {
    encoder: Encoder,
    pages: PacketWriter<'static, Vec<u8>>,
    serial: u32,
    /// The identification header, until it is written.
    head: Option<Vec<u8>>,
    /// Ticks by which the decoder's output is late.
    pre_skip: u16,
    /// Samples that do not fill a packet yet.
    block: Vec<f32>,
    block_len: usize,
    /// Packets that are not written yet. The last one is held back until the next piece: whether it is the last of the
    /// file shows only then.
    packets: Vec<Vec<u8>>,
    written: u64,
    samples: u64,
    rate_hz: u32,
}

impl OggOpus {
    /// A file of samples at `rate_hz`, one of Opus's rates; they were made from `source_rate_hz`.
    pub(super) fn new(rate_hz: u32, source_rate_hz: u32) -> Result<Self, MediaError> {
        let encoder = Encoder::builder(rate_hz, Channels::Mono, Application::Audio)
            .signal(Signal::Voice)
            .bitrate(Bitrate::Bits(BITS_PER_SECOND))
            .build()
            .map_err(failed)?;
        // In samples at `rate_hz`; the container wants it in ticks.
        let lookahead = encoder.lookahead() * (OPUS_RATE_HZ / rate_hz);
        let pre_skip = u16::try_from(lookahead).map_err(failed)?;
        let block_len = (rate_hz / PACKETS_PER_SECOND) as usize;
        Ok(Self {
            encoder,
            pages: PacketWriter::new(Vec::new()),
            serial: Uuid::new_v4().as_fields().0,
            head: Some(identification(pre_skip, source_rate_hz)),
            pre_skip,
            block: Vec::with_capacity(block_len),
            block_len,
            packets: Vec::new(),
            written: 0,
            samples: 0,
            rate_hz,
        })
    }

    pub(super) fn push(&mut self, samples: &[f32]) -> Result<Vec<u8>, MediaError> {
        if let Some(head) = self.head.take() {
            self.write(head, PacketWriteEndInfo::EndPage, 0)?;
            self.write(comments(), PacketWriteEndInfo::EndPage, 0)?;
        }
        self.samples += samples.len() as u64;
        for sample in samples {
            self.block.push(*sample);
            if self.block.len() == self.block_len {
                self.encode_block()?;
            }
        }
        let ready = self.packets.len().saturating_sub(1);
        let ready: Vec<_> = self.packets.drain(..ready).collect();
        let last = ready.len().saturating_sub(1);
        for (number, packet) in ready.into_iter().enumerate() {
            self.written += 1;
            // The last one ends its page, so that no sound waits for a page to become full.
            let end =
                if number == last { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
            self.write(packet, end, self.written * TICKS_PER_PACKET)?;
        }
        Ok(std::mem::take(self.pages.inner_mut()))
    }

    pub(super) fn finish(mut self) -> Result<Vec<u8>, MediaError> {
        // The time of the last page tells where the sound ends; the decoder drops what comes after.
        let end = u64::from(self.pre_skip) + self.samples * u64::from(OPUS_RATE_HZ / self.rate_hz);
        while (self.written + self.packets.len() as u64) * TICKS_PER_PACKET < end {
            self.block.resize(self.block_len, 0.0);
            self.encode_block()?;
        }
        let last = self.packets.pop().unwrap_or_default();
        for packet in std::mem::take(&mut self.packets) {
            self.written += 1;
            self.write(packet, PacketWriteEndInfo::NormalPacket, self.written * TICKS_PER_PACKET)?;
        }
        self.write(last, PacketWriteEndInfo::EndStream, end)?;
        Ok(std::mem::take(self.pages.inner_mut()))
    }

    fn encode_block(&mut self) -> Result<(), MediaError> {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        let len = self.encoder.encode_float(&self.block, &mut packet).map_err(failed)?;
        packet.truncate(len);
        self.packets.push(packet);
        self.block.clear();
        Ok(())
    }

    fn write(&mut self, packet: Vec<u8>, end: PacketWriteEndInfo, ticks: u64) -> Result<(), MediaError> {
        self.pages.write_packet(packet, self.serial, end, ticks).map_err(failed)
    }
}

/// The identification header (RFC 7845, 5.1) of one channel.
fn identification(pre_skip: u16, source_rate_hz: u32) -> Vec<u8> {
    let (version, channels, gain, mapping_family) = ([1], [1], [0, 0], [0]);
    let (pre_skip, rate) = (pre_skip.to_le_bytes(), source_rate_hz.to_le_bytes());
    [b"OpusHead", &version[..], &channels, &pre_skip, &rate, &gain, &mapping_family].concat()
}

/// The comment header (RFC 7845, 5.2): the encoder's name and no comments.
fn comments() -> Vec<u8> {
    let vendor = b"pajamas-host";
    let len = u32::try_from(vendor.len()).unwrap_or_default().to_le_bytes();
    [b"OpusTags", &len[..], vendor, &0_u32.to_le_bytes()].concat()
}

fn failed(error: impl std::fmt::Display) -> MediaError {
    MediaError::Encode { problem: error.to_string() }
}
