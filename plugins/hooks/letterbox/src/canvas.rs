//! A picture in its frame, as the elements of a tensor in either layout.
//!
//! Elements are appended one after another, plane by plane where the layout has planes: filling the memory first, to write
//! anywhere in it, would cost as much as the elements.

use std::iter::repeat_n;

use hook_common::picture;

/// The order of a tensor's dimensions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Layout {
    /// A plane for each colour.
    Nchw,
    /// Three values for each pixel.
    Nhwc,
}

/// Elements at a time, of as many bytes as a vector has.
const CHUNK: usize = 16;

/// A picture with padding around it.
pub(crate) struct Canvas {
    /// The picture's, row by row.
    pub(crate) pixels: Vec<u8>,
    /// Of the picture.
    pub(crate) drawn_width: usize,
    /// Where the picture's upper left corner is.
    pub(crate) left: usize,
    pub(crate) top: usize,
    /// Of the whole.
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) pad: [u8; 3],
}

impl Canvas {
    /// The bytes of all elements, each made of a value by its channel's function.
    pub(crate) fn elements<const N: usize, E: Fn(u8) -> [u8; N]>(
        &self,
        layout: Layout,
        encoders: [E; 3],
    ) -> Vec<u8> {
        match layout {
            Layout::Nchw => self.planes(encoders),
            Layout::Nhwc => self.interleaved(encoders),
        }
    }

    fn planes<const N: usize, E: Fn(u8) -> [u8; N]>(&self, encoders: [E; 3]) -> Vec<u8> {
        let mut elements = Vec::with_capacity(self.width * self.height * 3);
        let mut row = vec![0; self.width];
        for (channel, encode) in encoders.into_iter().enumerate() {
            row.fill(self.pad[channel]);
            for pixels in self.rows() {
                match pixels {
                    Some(pixels) => {
                        picture::channel(pixels, channel, &mut row[self.left..][..self.drawn_width]);
                    }
                    None => row.fill(self.pad[channel]),
                }
                let (chunks, rest) = row.as_chunks::<CHUNK>();
                for chunk in chunks {
                    elements.extend_from_slice(&chunk.map(&encode));
                }
                elements.extend(rest.iter().map(|&value| encode(value)));
            }
        }
        elements.into_flattened()
    }

    fn interleaved<const N: usize, E: Fn(u8) -> [u8; N]>(&self, encoders: [E; 3]) -> Vec<u8> {
        let mut elements = Vec::with_capacity(self.width * self.height);
        let mut row = vec![self.pad; self.width];
        for pixels in self.rows() {
            match pixels {
                Some(pixels) => row[self.left..][..self.drawn_width].copy_from_slice(pixels.as_chunks().0),
                None => row.fill(self.pad),
            }
            let [red, green, blue] = &encoders;
            elements.extend(row.iter().map(|pixel| [red(pixel[0]), green(pixel[1]), blue(pixel[2])]));
        }
        elements.into_flattened().into_flattened()
    }

    /// What is drawn in each row of the whole.
    fn rows(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let drawn = self.pixels.chunks_exact(self.drawn_width * 3);
        let below = self.height - self.top - drawn.len();
        repeat_n(None, self.top).chain(drawn.map(Some)).chain(repeat_n(None, below))
    }
}
