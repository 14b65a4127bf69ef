//! The header of a WAV file whose length is not known yet.

/// Bytes of [`header`].
pub(super) const HEADER_BYTES: usize = 44;

/// The header (RIFF WAVE, 16-bit PCM, one channel) of a file that is streamed: both lengths are `0xFFFFFFFF`, which
/// players take for "until it ends", as OpenAI and ffmpeg write it.
pub(super) fn header(sample_rate_hz: u32) -> [u8; HEADER_BYTES] {
    const BYTES_PER_SAMPLE: u32 = 2;
    const UNKNOWN: [u8; 4] = [0xff; 4];
    let mut header = [0; HEADER_BYTES];
    let mut fields = header.iter_mut();
    let parts: [&[u8]; 13] = [
        b"RIFF",
        &UNKNOWN,
        b"WAVE",
        b"fmt ",
        &16_u32.to_le_bytes(),
        // Format PCM, one channel.
        &1_u16.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &sample_rate_hz.to_le_bytes(),
        &(sample_rate_hz * BYTES_PER_SAMPLE).to_le_bytes(),
        // Bytes of a frame, bits of a sample.
        &2_u16.to_le_bytes(),
        &16_u16.to_le_bytes(),
        b"data",
        &UNKNOWN,
    ];
    for (field, byte) in fields.by_ref().zip(parts.concat()) {
        *field = byte;
    }
    header
}

/// Writes the lengths into the header of a complete file; one of 4 GiB or more keeps its header.
pub(super) fn set_length(file: &mut [u8]) {
    let Ok(bytes) = u32::try_from(file.len()) else { return };
    for (place, before) in [(4, 8), (HEADER_BYTES - 4, HEADER_BYTES as u32)] {
        if let (Some(field), Some(length)) = (file.get_mut(place..place + 4), bytes.checked_sub(before)) {
            field.copy_from_slice(&length.to_le_bytes());
        }
    }
}
