//! The input of a network that takes pictures.

use pajamas_plugin_api::{Dtype, Error, TensorView};

use super::picture::Canvas;
use crate::numbers;
use crate::open::Kind;
use crate::runner::{TensorRunner, TensorSpec};
use crate::tensors;

/// Pictures of one run, where the network takes any number: more would take more memory than they save time.
const BATCH_MAX: usize = 8;

/// Order of a picture's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Batch, channel, row, column.
    Nchw,
    /// Batch, row, column, channel.
    Nhwc,
}

/// An input of a network for pictures of three channels.
#[derive(Clone, Debug)]
pub(crate) struct ImageInput {
    spec: TensorSpec,
    layout: Layout,
    batch: Option<usize>,
    /// Width and height in pixels, where the network fixes them.
    pub(crate) width: Option<u32>,
    pub(crate) height: Option<u32>,
}

impl ImageInput {
    /// The only input of four dimensions, of which one is for three channels.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub(crate) fn find(inputs: &[TensorSpec], kind: Kind) -> Result<Self, Error> {
        let mut candidates = inputs.iter().filter_map(Self::of);
        match (candidates.next(), candidates.next()) {
            (Some(input), None) => Ok(input),
            _ => Err(Error::bad_model(format!(
                "the {kind} pipeline needs a network with one input of pictures (batch, 3, height, width), and this one \
                 takes {}; `pipeline = \"tensors\"` runs any network",
                tensors::list(inputs)
            ))),
        }
    }

    fn of(spec: &TensorSpec) -> Option<Self> {
        let &[batch, a, b, c] = spec.shape.as_slice() else { return None };
        let (layout, height, width) = match (a, c) {
            (Some(3), _) => (Layout::Nchw, b, c),
            (_, Some(3)) => (Layout::Nhwc, a, b),
            // Exports with every dimension left open have the channels first.
            (None, _) => (Layout::Nchw, b, c),
            _ => return None,
        };
        let pixels = |dim: Option<usize>| dim.and_then(|dim| u32::try_from(dim).ok());
        Some(Self { spec: spec.clone(), layout, batch, width: pixels(width), height: pixels(height) })
    }

    /// The input's name.
    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    /// Pictures of one run.
    pub(crate) fn batch_len(&self) -> usize {
        self.batch.unwrap_or(BATCH_MAX).max(1)
    }

    /// The tensor of at most [`ImageInput::batch_len`] pictures of one size. What a network of a fixed batch has too much
    /// is zero.
    ///
    /// # Errors
    /// The pictures have several sizes, the input takes neither floating point numbers nor bytes, or memory does not suffice.
    pub(crate) fn tensor<R: TensorRunner>(
        &self,
        network: &R,
        pictures: &[Canvas],
        norm: &Normalization,
    ) -> Result<R::Value, Error> {
        let Some(first) = pictures.first() else { return Err(Error::internal("a batch has no picture")) };
        let (width, height) = (first.width, first.height);
        if pictures.iter().any(|picture| (picture.width, picture.height) != (width, height)) {
            return Err(Error::internal("the pictures of one batch have several sizes"));
        }
        let count = self.batch.unwrap_or(pictures.len());
        if self.spec.dtype == Dtype::U8 {
            return self.bytes(network, pictures, count);
        }
        let mut numbers = vec![0.0; first.pixels.len() * count];
        for (picture, numbers) in pictures.iter().zip(numbers.chunks_mut(first.pixels.len())) {
            norm.write(&picture.pixels, numbers, self.layout);
        }
        numbers::from_f32s(network, &self.spec, &self.shape(count, (width, height)), &numbers)
    }

    /// The pixels as they are: a network that takes bytes knows itself what to make of them.
    fn bytes<R: TensorRunner>(
        &self,
        network: &R,
        pictures: &[Canvas],
        count: usize,
    ) -> Result<R::Value, Error> {
        let Some(first) = pictures.first() else { return Err(Error::internal("a batch has no picture")) };
        let mut data = vec![0; first.pixels.len() * count];
        for (picture, data) in pictures.iter().zip(data.chunks_mut(first.pixels.len())) {
            match self.layout {
                Layout::Nhwc => data.copy_from_slice(&picture.pixels),
                Layout::Nchw => {
                    let (pixels, _) = picture.pixels.as_chunks::<3>();
                    for (channel, plane) in data.chunks_mut(pixels.len()).enumerate() {
                        for (pixel, byte) in pixels.iter().zip(plane) {
                            *byte = pixel[channel];
                        }
                    }
                }
            }
        }
        let shape = self.shape(count, (first.width, first.height));
        let dtype = Dtype::U8;
        network.value(&TensorView { name: &self.spec.name, dtype, shape: &shape, data: &data })
    }

    /// The tensor of one picture of zeros.
    ///
    /// # Errors
    /// The input takes no floating point numbers, or memory does not suffice.
    pub(crate) fn empty<R: TensorRunner>(&self, network: &R, size: (u32, u32)) -> Result<R::Value, Error> {
        let shape = self.shape(1, size);
        let len: usize = shape.iter().map(|dim| *dim as usize).product();
        if self.spec.dtype == Dtype::U8 {
            let (name, data) = (self.spec.name.as_str(), vec![0; len]);
            return network.value(&TensorView { name, dtype: Dtype::U8, shape: &shape, data: &data });
        }
        let numbers = vec![0.0; len];
        numbers::from_f32s(network, &self.spec, &shape, &numbers)
    }

    /// Dimensions of so many pictures of one width and height.
    fn shape(&self, count: usize, (width, height): (u32, u32)) -> [i64; 4] {
        let (count, width, height) = (count as i64, i64::from(width), i64::from(height));
        match self.layout {
            Layout::Nchw => [count, 3, height, width],
            Layout::Nhwc => [count, height, width, 3],
        }
    }
}

/// What a network wants to see for each brightness of each channel.
#[derive(Clone, Debug)]
pub(crate) struct Normalization([[f32; 256]; 3]);

impl Normalization {
    /// `(brightness * factor + offset - mean) / std`.
    pub(crate) fn new(factor: f64, offset: f64, mean: [f64; 3], std: [f64; 3]) -> Self {
        let channel = |mean: f64, std: f64| {
            std::array::from_fn(|brightness| ((brightness as f64 * factor + offset - mean) / std) as f32)
        };
        Self([channel(mean[0], std[0]), channel(mean[1], std[1]), channel(mean[2], std[2])])
    }

    /// 0 to 1.
    pub(crate) fn unit() -> Self {
        Self::new(1.0 / 255.0, 0.0, [0.0; 3], [1.0; 3])
    }

    fn write(&self, pixels: &[u8], numbers: &mut [f32], layout: Layout) {
        let (pixels, _) = pixels.as_chunks::<3>();
        match layout {
            Layout::Nhwc => {
                let (numbers, _) = numbers.as_chunks_mut::<3>();
                for (pixel, numbers) in pixels.iter().zip(numbers) {
                    *numbers = std::array::from_fn(|channel| self.0[channel][usize::from(pixel[channel])]);
                }
            }
            Layout::Nchw => {
                let planes = numbers.chunks_mut(pixels.len());
                for ((channel, table), plane) in self.0.iter().enumerate().zip(planes) {
                    for (pixel, number) in pixels.iter().zip(plane) {
                        *number = table[usize::from(pixel[channel])];
                    }
                }
            }
        }
    }
}
