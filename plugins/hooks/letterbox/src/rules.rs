//! The tensor that an operator wants.

use hook_common::config::Fields;
use hook_common::picture::{Rgb, scale};

use crate::canvas::{Canvas, Layout};

/// A side longer than this is a mistake: the tensor would take gigabytes.
const SIDE_MAX: u32 = 8192;

/// The elements of the tensor.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Element {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Bytes.
    U8,
}

/// What the operator wants.
#[derive(Debug)]
pub struct Rules {
    width: u32,
    height: u32,
    layout: Layout,
    element: Element,
    /// Of padding, as a pixel of the picture would have it.
    pad: [u8; 3],
    /// An element is `value * factor + offset`, by channel.
    factor: [f32; 3],
    offset: [f32; 3],
    name: Option<String>,
}

impl Rules {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When something is wrong in it; the message says what.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut fields = Fields::parse(json)?;
        let width = fields.whole("width", 1..=SIDE_MAX)?.unwrap_or(640);
        let height = fields.whole("height", 1..=SIDE_MAX)?.unwrap_or(640);
        let pad = fields.three("pad", 0.0..=255.0)?.unwrap_or([114.0; 3]).map(|value| value.round() as u8);
        let scale = fields.number("scale", 0.0..=1000.0)?;
        let mean = fields.three("mean", -1000.0..=1000.0)?;
        let std = fields.three("std", 1e-6..=1000.0)?;
        let layout = fields.choice("layout", &[("nchw", Layout::Nchw), ("nhwc", Layout::Nhwc)])?;
        let element =
            fields.choice("dtype", &[("f32", Element::F32), ("f16", Element::F16), ("u8", Element::U8)])?;
        let name = fields.text("name")?;
        fields.finish()?;
        let element = element.unwrap_or(Element::F32);
        if element == Element::U8 && (scale.is_some() || mean.is_some() || std.is_some()) {
            return Err(
                "`scale`, `mean` and `std` are for floats; with `dtype` u8 the values stay as they are"
                    .to_owned(),
            );
        }
        let scale = scale.unwrap_or(1.0 / 255.0);
        let (mean, std) = (mean.unwrap_or([0.0; 3]), std.unwrap_or([1.0; 3]));
        Ok(Self {
            width,
            height,
            layout: layout.unwrap_or(Layout::Nchw),
            element,
            pad,
            factor: std.map(|std| (scale / std) as f32),
            offset: std::array::from_fn(|channel| (-mean[channel] / std[channel]) as f32),
            name,
        })
    }

    /// The name of the model's input, where the operator set one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What the tensor consists of.
    #[must_use]
    pub fn element(&self) -> Element {
        self.element
    }

    /// The tensor's shape.
    #[must_use]
    pub fn shape(&self) -> Vec<u64> {
        let (height, width) = (u64::from(self.height), u64::from(self.width));
        match self.layout {
            Layout::Nchw => vec![1, 3, height, width],
            Layout::Nhwc => vec![1, height, width, 3],
        }
    }

    /// The tensor's bytes: the picture in the middle, as large as it fits.
    ///
    /// # Errors
    /// When the picture's size and its bytes do not fit.
    pub fn tensor(&self, width: u32, height: u32, pixels: Vec<u8>) -> Result<Vec<u8>, String> {
        let picture = Rgb::new(width, height, &pixels)?;
        let factor =
            (f64::from(self.width) / f64::from(width)).min(f64::from(self.height) / f64::from(height));
        let side = |old: u32, max: u32| ((f64::from(old) * factor).round() as u32).clamp(1, max) as usize;
        let (drawn_width, drawn_height) = (side(width, self.width), side(height, self.height));
        // The picture is gone before the tensor is made, so that the tensor takes its memory: new memory costs more.
        let pixels = if (drawn_width, drawn_height) == (picture.width(), picture.height()) {
            pixels
        } else {
            let scaled = scale(picture, drawn_width, drawn_height);
            drop(pixels);
            scaled
        };
        let (width, height) = (self.width as usize, self.height as usize);
        Ok(self.elements(&Canvas {
            pixels,
            drawn_width,
            left: (width - drawn_width) / 2,
            top: (height - drawn_height) / 2,
            width,
            height,
            pad: self.pad,
        }))
    }

    fn elements(&self, canvas: &Canvas) -> Vec<u8> {
        let floats = [0, 1, 2].map(|channel| {
            let (factor, offset) = (self.factor[channel], self.offset[channel]);
            move |value: u8| f32::from(value) * factor + offset
        });
        match self.element {
            Element::F32 => {
                let encoders = floats.map(|float| move |value: u8| float(value).to_le_bytes());
                canvas.elements(self.layout, encoders)
            }
            Element::F16 => {
                // There are 256 of them, and making one takes some steps.
                let tables = floats.map(|float| {
                    std::array::from_fn::<_, 256, _>(|value| {
                        half::f16::from_f32(float(value as u8)).to_le_bytes()
                    })
                });
                canvas.elements(self.layout, tables.map(|table| move |value: u8| table[usize::from(value)]))
            }
            Element::U8 => canvas.elements(self.layout, [|value| [value]; 3]),
        }
    }
}
