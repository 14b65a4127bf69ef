//! Resampling of pictures: RGB, 8 bits, row by row without gaps.
//!
//! Coordinates are those of edges: 0 is the left edge of the first pixel, and the width is the right edge of the last
//! one, so a pixel's centre is at a half. A size is changed about that: no picture moves by half a pixel.

mod area;
mod bilinear;
mod channel;

pub use area::shrink;
pub use bilinear::scale;
pub use channel::channel;

/// A picture that somebody else keeps.
#[derive(Clone, Copy)]
pub struct Rgb<'a> {
    width: usize,
    height: usize,
    pixels: &'a [u8],
}

impl<'a> Rgb<'a> {
    /// Takes a picture apart.
    ///
    /// # Errors
    /// When its size and its bytes do not fit.
    pub fn new(width: u32, height: u32, pixels: &'a [u8]) -> Result<Self, String> {
        let len = u64::from(width) * u64::from(height);
        if len == 0 || len.checked_mul(3) != Some(pixels.len() as u64) {
            return Err("the picture has another size than it says".to_owned());
        }
        Ok(Self { width: width as usize, height: height as usize, pixels })
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
