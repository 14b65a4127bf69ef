//! One colour of each pixel.

/// Takes a colour (0 to 2) out of pixels, as many as there is room for.
pub fn channel(pixels: &[u8], channel: usize, values: &mut [u8]) {
    #[cfg(target_feature = "simd128")]
    let (pixels, values) = simd::channel_of_most(pixels, channel, values);
    let (pixels, _) = pixels.as_chunks::<3>();
    for (value, pixel) in values.iter_mut().zip(pixels) {
        *value = pixel[channel];
    }
}

/// The same sixteen pixels at a time: no compiler finds vectors in steps of three.
#[cfg(target_feature = "simd128")]
mod simd {
    use std::arch::wasm32::{i8x16_shuffle as shuffle, u64x2, u64x2_extract_lane, v128};

    /// Pixels at a time, and so bytes of a vector.
    const LANES: usize = 16;

    /// Returns what is left to do.
    pub(super) fn channel_of_most<'a, 'b>(
        pixels: &'a [u8],
        channel: usize,
        values: &'b mut [u8],
    ) -> (&'a [u8], &'b mut [u8]) {
        let (triples, _) = pixels.as_chunks::<{ LANES * 3 }>();
        let (chunks, _) = values.as_chunks_mut::<LANES>();
        let done = chunks.len().min(triples.len()) * LANES;
        let pairs = triples.iter().zip(chunks);
        // Shuffles know their places when they are compiled: those of two vectors first, and then with the third.
        match channel {
            0 => pairs.for_each(|(triple, values)| {
                let [a, b, c] = load(triple);
                let ab = shuffle::<0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0, 0, 0, 0, 0>(a, b);
                *values = store(shuffle::<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 23, 26, 29>(ab, c));
            }),
            1 => pairs.for_each(|(triple, values)| {
                let [a, b, c] = load(triple);
                let ab = shuffle::<1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 0, 0, 0, 0, 0>(a, b);
                *values = store(shuffle::<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 21, 24, 27, 30>(ab, c));
            }),
            _ => pairs.for_each(|(triple, values)| {
                let [a, b, c] = load(triple);
                let ab = shuffle::<2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 0, 0, 0, 0, 0, 0>(a, b);
                *values = store(shuffle::<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19, 22, 25, 28, 31>(ab, c));
            }),
        }
        (&pixels[done * 3..], &mut values[done..])
    }

    fn load(bytes: &[u8; LANES * 3]) -> [v128; 3] {
        let (words, _) = bytes.as_chunks::<8>();
        [0, 2, 4].map(|word| u64x2(u64::from_le_bytes(words[word]), u64::from_le_bytes(words[word + 1])))
    }

    fn store(vector: v128) -> [u8; LANES] {
        let mut bytes = [0; LANES];
        bytes[..8].copy_from_slice(&u64x2_extract_lane::<0>(vector).to_le_bytes());
        bytes[8..].copy_from_slice(&u64x2_extract_lane::<1>(vector).to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_third_byte_is_of_a_channel() {
        let pixels: Vec<u8> = (0..3 * 37).collect();
        for start in 0..3 {
            let mut values = [0; 37];
            channel(&pixels, start, &mut values);
            assert!(values.iter().enumerate().all(|(pixel, &value)| usize::from(value) == pixel * 3 + start));
        }
    }
}
