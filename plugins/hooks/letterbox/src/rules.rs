//! The tensor that an operator wants.

use hook_common::config::Fields;
use hook_common::picture::{Bilinear, Rgb};

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

    /// The tensor's bytes.
    #[must_use]
    pub fn tensor(&self, picture: Rgb) -> Vec<u8> {
        let unit = Bilinear::UNIT as f32;
        let factor = self.factor.map(|factor| factor / unit);
        let float = |channel: usize, value: u32| value as f32 * factor[channel] + self.offset[channel];
        match self.element {
            Element::F32 => self.draw(picture, |channel, value| float(channel, value).to_le_bytes()),
            Element::F16 => {
                self.draw(picture, |channel, value| half::f16::from_f32(float(channel, value)).to_le_bytes())
            }
            Element::U8 => {
                self.draw(picture, |_, value| [((value + Bilinear::UNIT / 2) / Bilinear::UNIT) as u8])
            }
        }
    }

    /// Draws the picture into the middle, as large as it fits.
    fn draw<const N: usize>(&self, picture: Rgb, encode: impl Fn(usize, u32) -> [u8; N]) -> Vec<u8> {
        let (width, height) = (self.width as usize, self.height as usize);
        let scale = (f64::from(self.width) / picture.width() as f64)
            .min(f64::from(self.height) / picture.height() as f64);
        let side = |old: usize, max: usize| ((old as f64 * scale).round() as usize).clamp(1, max);
        let (drawn_width, drawn_height) = (side(picture.width(), width), side(picture.height(), height));
        let (left, top) = ((width - drawn_width) / 2, (height - drawn_height) / 2);

        let widened = |value: u8| u32::from(value) * Bilinear::UNIT;
        let pad = std::array::from_fn(|channel| encode(channel, widened(self.pad[channel])));
        let mut canvas = Canvas::new(self.layout, width, height, pad);
        if (drawn_width, drawn_height) == (picture.width(), picture.height()) {
            for y in 0..drawn_height {
                let (pixels, _) = picture.row(y).as_chunks::<3>();
                canvas.put(top + y, left, pixels.iter().map(|pixel| pixel.map(widened)), &encode);
            }
        } else {
            let mut bilinear = Bilinear::new(picture, drawn_width, drawn_height);
            for y in 0..drawn_height {
                canvas.put(top + y, left, bilinear.row(y), &encode);
            }
        }
        canvas.into_bytes()
    }
}
