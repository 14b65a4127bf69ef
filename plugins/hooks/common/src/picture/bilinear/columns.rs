//! From a row of the input to one of the output.

use super::ONE;

/// Elements that a row needs beyond its last pixel, because columns are read by whole windows.
pub(super) const MARGIN: usize = WINDOW - 3;
/// A pixel, the next one and two more elements: a vector.
const WINDOW: usize = 8;
/// What a row's value of 1 becomes: half of a row's weights, times a column's.
const UNIT: i32 = (ONE as i32 / 2) * ONE as i32;

/// Where an output column lies between two of the input.
#[derive(Clone, Copy)]
pub(super) struct Column {
    /// Element of the first one.
    at: usize,
    /// What the first and the next one count, of [`ONE`], in the lower and the upper half. At the right edge there is no
    /// next one, and it counts nothing.
    weights: i32,
}

impl Column {
    /// At pixel `first` or beyond it: the next one counts `weight`.
    pub(super) fn new(first: usize, weight: u16) -> Self {
        Self { at: first * 3, weights: i32::from(ONE - weight) | i32::from(weight) << 16 }
    }
}

/// Fills a row of pixels. `blended` has the values of the input's row, times half of [`ONE`], and [`MARGIN`] more.
pub(super) fn blend_columns(blended: &[i16], columns: &[Column], row: &mut [u8]) {
    #[cfg(target_feature = "simd128")]
    let (columns, row) = simd::blend_most(blended, columns, row);
    let (pixels, _) = row.as_chunks_mut::<3>();
    for (pixel, column) in pixels.iter_mut().zip(columns) {
        let window = &blended[column.at..][..6];
        let (of_first, of_second) = (column.weights & 0xffff, column.weights >> 16);
        *pixel = [0, 1, 2].map(|channel| {
            let value = i32::from(window[channel]) * of_first + i32::from(window[channel + 3]) * of_second;
            ((value + UNIT / 2) / UNIT) as u8
        });
    }
}

/// The same four columns at a time: no compiler finds vectors in steps of three.
#[cfg(target_feature = "simd128")]
mod simd {
    use std::arch::wasm32::{
        i8x16_shuffle, i16x8, i16x8_shuffle, i32x4_add, i32x4_dot_i16x8, i32x4_extract_lane, i32x4_splat,
        i64x2_extract_lane, u32x4_shr, v128,
    };

    use super::{Column, UNIT, WINDOW};

    /// Returns what is left to do.
    pub(super) fn blend_most<'a, 'b>(
        blended: &[i16],
        columns: &'a [Column],
        row: &'b mut [u8],
    ) -> (&'a [Column], &'b mut [u8]) {
        let (fours, columns) = columns.as_chunks::<4>();
        let (pixels, row) = row.split_at_mut(fours.len() * 12);
        let (pixels, _) = pixels.as_chunks_mut::<12>();
        for (pixels, four) in pixels.iter_mut().zip(fours) {
            // By reference: a copy of all four would wait for its own way through memory.
            let [a, b, c, d] = four.each_ref().map(|column| blend(blended, column));
            // The lowest byte of three values of each pixel.
            let ab = i8x16_shuffle::<0, 4, 8, 16, 20, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>(a, b);
            let cd = i8x16_shuffle::<0, 4, 8, 16, 20, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0>(c, d);
            let bytes = i8x16_shuffle::<0, 1, 2, 3, 4, 5, 16, 17, 18, 19, 20, 21, 0, 0, 0, 0>(ab, cd);
            pixels[..8].copy_from_slice(&i64x2_extract_lane::<0>(bytes).to_le_bytes());
            pixels[8..].copy_from_slice(&i32x4_extract_lane::<2>(bytes).to_le_bytes());
        }
        (columns, row)
    }

    /// Red, green, blue and something.
    fn blend(blended: &[i16], column: &Column) -> v128 {
        let (windows, _) = blended[column.at..column.at + WINDOW].as_chunks::<WINDOW>();
        let [a, b, c, d, e, f, g, h] = windows[0];
        let window = i16x8(a, b, c, d, e, f, g, h);
        let pairs = i16x8_shuffle::<0, 3, 1, 4, 2, 5, 6, 7>(window, window);
        let sums = i32x4_dot_i16x8(pairs, i32x4_splat(column.weights));
        u32x4_shr(i32x4_add(sums, i32x4_splat(UNIT / 2)), UNIT.trailing_zeros())
    }
}
