//! How pictures are turned and shrunk.

use std::borrow::Cow;

use hook_common::config::Fields;
use hook_common::picture::{Rgb, scale, shrink};

/// A longer side is not to be expected.
const SIDE_MAX: u32 = 65_535;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Orient {
    Keep,
    Landscape,
    Portrait,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Filter {
    Area,
    Bilinear,
}

/// What the operator wants.
#[derive(Debug)]
pub struct Rules {
    orient: Orient,
    /// Limits of the longer and shorter side, and of width and height.
    side_max: Option<u32>,
    short_side_max: Option<u32>,
    width: Option<u32>,
    height: Option<u32>,
    filter: Filter,
}

/// A picture that is turned or shrunk.
#[derive(Debug, PartialEq)]
pub struct Changed {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Red, green and blue, row by row.
    pub pixels: Vec<u8>,
    /// How much of the old picture a pixel of the new one covers: along the old width, and along the old height.
    pub scale: (f64, f64),
    /// Whether the picture was turned by a quarter, clockwise, after shrinking.
    pub is_turned: bool,
}

impl Rules {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When something is wrong in it; the message says what.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut fields = Fields::parse(json)?;
        let orient = fields.choice(
            "orient",
            &[("keep", Orient::Keep), ("landscape", Orient::Landscape), ("portrait", Orient::Portrait)],
        )?;
        let side_max = fields.whole("side_max", 1..=SIDE_MAX)?;
        let short_side_max = fields.whole("short_side_max", 1..=SIDE_MAX)?;
        let width = fields.whole("width", 1..=SIDE_MAX)?;
        let height = fields.whole("height", 1..=SIDE_MAX)?;
        let filter = fields.choice("filter", &[("area", Filter::Area), ("bilinear", Filter::Bilinear)])?;
        fields.finish()?;
        let (orient, filter) = (orient.unwrap_or(Orient::Keep), filter.unwrap_or(Filter::Area));
        let limits = [side_max, short_side_max, width, height];
        if orient == Orient::Keep && limits.iter().all(Option::is_none) {
            return Err(
                "nothing to do; set `orient`, `side_max`, `short_side_max`, `width` or `height`".to_owned()
            );
        }
        Ok(Self { orient, side_max, short_side_max, width, height, filter })
    }

    /// Turns and shrinks a picture; `None` when it is as it should be.
    #[must_use]
    pub fn apply(&self, picture: Rgb) -> Option<Changed> {
        let (old_width, old_height) = (picture.width(), picture.height());
        let is_turned = match self.orient {
            Orient::Keep => false,
            Orient::Landscape => old_height > old_width,
            Orient::Portrait => old_width > old_height,
        };
        let factor = self.factor(old_width, old_height, is_turned);
        let side = |old: usize| ((old as f64 * factor).round() as usize).max(1);
        // Before turning, because that is less to turn.
        let (width, height) = (side(old_width), side(old_height));
        if (width, height) == (old_width, old_height) && !is_turned {
            return None;
        }
        let shrunk = match self.filter {
            _ if (width, height) == (old_width, old_height) => Cow::Borrowed(picture.pixels()),
            Filter::Area => Cow::Owned(shrink(picture, width, height)),
            Filter::Bilinear => Cow::Owned(scale(picture, width, height)),
        };
        let pixels = if is_turned { turned(&shrunk, width, height) } else { shrunk.into_owned() };
        let (new_width, new_height) = if is_turned { (height, width) } else { (width, height) };
        Some(Changed {
            width: u32::try_from(new_width).ok()?,
            height: u32::try_from(new_height).ok()?,
            pixels,
            scale: (old_width as f64 / width as f64, old_height as f64 / height as f64),
            is_turned,
        })
    }

    /// By how much both sides are multiplied; never more than 1.
    fn factor(&self, old_width: usize, old_height: usize, is_turned: bool) -> f64 {
        let (width, height) = if is_turned { (old_height, old_width) } else { (old_width, old_height) };
        [
            (self.side_max, width.max(height)),
            (self.short_side_max, width.min(height)),
            (self.width, width),
            (self.height, height),
        ]
        .into_iter()
        .filter_map(|(limit, side)| limit.map(|limit| f64::from(limit) / side as f64))
        .fold(1.0, f64::min)
    }
}

impl Changed {
    /// Where the point `(x, y)` of the new picture lies in the old one: `xx`, `xy`, `x0` and `yx`, `yy`, `y0` of
    /// `(xx * x + xy * y + x0, yx * x + yy * y + y0)`.
    #[must_use]
    pub fn placement(&self) -> ([f64; 3], [f64; 3]) {
        let (across, down) = self.scale;
        if self.is_turned {
            // The new top is the old left side, and the new left side the old bottom.
            ([0.0, across, 0.0], [-down, 0.0, down * f64::from(self.width)])
        } else {
            ([across, 0.0, 0.0], [0.0, down, 0.0])
        }
    }
}

/// By a quarter, clockwise: the rows of the result are the columns of the picture, read from the bottom.
fn turned(pixels: &[u8], width: usize, height: usize) -> Vec<u8> {
    let (pixels, _) = pixels.as_chunks::<3>();
    let mut out = Vec::with_capacity(pixels.len());
    for x in 0..width {
        out.extend((0..height).rev().map(|y| pixels[y * width + x]));
    }
    out.into_flattened()
}
