//! The memory of a tensor, written row by row in either layout.

/// The order of a tensor's dimensions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Layout {
    /// A plane for each colour.
    Nchw,
    /// Three values for each pixel.
    Nhwc,
}

/// A tensor whose elements have `N` bytes.
pub(crate) struct Canvas<const N: usize> {
    layout: Layout,
    width: usize,
    elements: Vec<[u8; N]>,
}

impl<const N: usize> Canvas<N> {
    /// Nothing but padding.
    pub(crate) fn new(layout: Layout, width: usize, height: usize, pad: [[u8; N]; 3]) -> Self {
        let mut elements = vec![pad[0]; width * height * 3];
        if pad != [pad[0]; 3] {
            match layout {
                Layout::Nchw => {
                    let planes = elements.chunks_exact_mut(width * height).zip(pad);
                    planes.for_each(|(plane, pad)| plane.fill(pad));
                }
                Layout::Nhwc => elements.as_chunks_mut().0.fill(pad),
            }
        }
        Self { layout, width, elements }
    }

    /// Writes a row of pixels.
    pub(crate) fn put(
        &mut self,
        y: usize,
        left: usize,
        pixels: impl Iterator<Item = [u32; 3]>,
        encode: impl Fn(usize, u32) -> [u8; N],
    ) {
        let begin = y * self.width + left;
        match self.layout {
            Layout::Nchw => {
                let plane = self.elements.len() / 3;
                let (red, others) = self.elements.split_at_mut(plane);
                let (green, blue) = others.split_at_mut(plane);
                let planes = red[begin..].iter_mut().zip(&mut green[begin..]).zip(&mut blue[begin..]);
                for (((red, green), blue), pixel) in planes.zip(pixels) {
                    *red = encode(0, pixel[0]);
                    *green = encode(1, pixel[1]);
                    *blue = encode(2, pixel[2]);
                }
            }
            Layout::Nhwc => {
                let (places, _) = self.elements.as_chunks_mut::<3>();
                for (place, pixel) in places[begin..].iter_mut().zip(pixels) {
                    *place = [encode(0, pixel[0]), encode(1, pixel[1]), encode(2, pixel[2])];
                }
            }
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.elements.into_flattened()
    }
}
