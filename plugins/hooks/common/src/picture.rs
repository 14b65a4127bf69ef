//! Resampling of pictures: RGB, 8 bits, row by row without gaps.
//!
//! Coordinates are those of edges: 0 is the left edge of the first pixel, and the width is the right edge of the last
//! one, so a pixel's centre is at a half. A size is changed about that: no picture moves by half a pixel.

mod area;
mod bilinear;

pub use area::shrink;
pub use bilinear::Bilinear;

/// A picture that somebody else keeps.
#[derive(Clone, Copy)]
pub struct Rgb<'a> {
    width: usize,
    height: usize,
    pixels: &'a [u8],
}

impl<'a> Rgb<'a> {
    /// Takes a picture apart; `None` when its size and its bytes do not fit.
    #[must_use]
    pub fn new(width: u32, height: u32, pixels: &'a [u8]) -> Option<Self> {
        let (width, height) = (usize::try_from(width).ok()?, usize::try_from(height).ok()?);
        let len = width.checked_mul(height)?.checked_mul(3)?;
        (len > 0 && len == pixels.len()).then_some(Self { width, height, pixels })
    }

    /// In pixels.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// In pixels.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// All bytes.
    #[must_use]
    pub fn pixels(&self) -> &'a [u8] {
        self.pixels
    }

    /// The bytes of one row.
    #[must_use]
    pub fn row(&self, y: usize) -> &'a [u8] {
        &self.pixels[y * self.width * 3..][..self.width * 3]
    }
}
