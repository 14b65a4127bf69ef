//! Pictures as requests carry them, and their scaling.

use fast_image_resize as fir;
use fir::images::{CroppedImageMut, Image, ImageRef};
use pajamas_plugin_api::{Error, Part, Request};

/// Most pixels of a scaled picture, 192 MiB of them; a request for more is refused. Only a picture of an extreme shape
/// gets there, when its shorter side is scaled up to what a model wants.
const SCALED_PIXELS_MAX: u64 = 1 << 26;

/// A picture: RGB, 8 bits each, row by row, at least one pixel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Picture<'a> {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pixels: &'a [u8],
}

/// A picture of one's own.
#[derive(Clone, Debug)]
pub(crate) struct Canvas {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pixels: Vec<u8>,
}

/// How a picture is scaled.
///
/// [`Filter::OpenCvLinear`] reads the four nearest pixels, whatever the scale, as OpenCV's `INTER_LINEAR` does, which
/// YOLOs are trained with. The others widen with the scale when a picture is made smaller, as Pillow does, which
/// Hugging Face's preprocessors are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    OpenCvLinear,
    Nearest,
    Box,
    Bilinear,
    Hamming,
    Bicubic,
    Lanczos,
}

impl Filter {
    /// Whether a scaled picture may be brighter or darker than every pixel of the picture.
    fn overshoots(self) -> bool {
        matches!(self, Self::Bicubic | Self::Lanczos)
    }

    fn algorithm(self) -> fir::ResizeAlg {
        use fir::{FilterType, ResizeAlg};
        match self {
            Self::OpenCvLinear => ResizeAlg::Interpolation(FilterType::Bilinear),
            Self::Nearest => ResizeAlg::Nearest,
            Self::Box => ResizeAlg::Convolution(FilterType::Box),
            Self::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Self::Hamming => ResizeAlg::Convolution(FilterType::Hamming),
            Self::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
            Self::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
        }
    }
}

/// The pictures of a request, each of which must be one.
///
/// # Errors
/// A part is no picture, a picture is empty or its pixels do not fill it, or there is none.
pub(crate) fn pictures(request: &Request) -> Result<Vec<Picture<'_>>, Error> {
    let pictures: Vec<_> = request
        .parts
        .iter()
        .enumerate()
        .map(|(index, part)| match part {
            Part::Rgb8 { width, height, data } => Picture::new(*width, *height, data).ok_or_else(|| {
                Error::invalid(format!(
                    "picture {index}: {} bytes are no {width} by {height} pixels",
                    data.len()
                ))
            }),
            _ => Err(Error::invalid(format!(
                "{} takes pictures, and part {index} is another thing",
                request.task
            ))),
        })
        .collect::<Result<_, _>>()?;
    if pictures.is_empty() {
        return Err(Error::invalid(format!("{} needs a picture, and none was sent", request.task)));
    }
    Ok(pictures)
}

impl<'a> Picture<'a> {
    /// The picture of these pixels; `None` if they do not fill it, or it has none.
    pub(crate) fn new(width: u32, height: u32, pixels: &'a [u8]) -> Option<Self> {
        let bytes = u64::from(width).checked_mul(u64::from(height))?.checked_mul(3)?;
        (bytes > 0 && bytes == pixels.len() as u64).then_some(Self { width, height, pixels })
    }

    /// The picture scaled to `width` by `height`.
    ///
    /// # Errors
    /// The result has more than 2^26 pixels.
    pub(crate) fn scaled(&self, width: u32, height: u32, filter: Filter) -> Result<Canvas, Error> {
        let mut canvas = Canvas::filled(width, height, 0)?;
        self.draw(&mut canvas, Area { left: 0, top: 0, width, height }, filter)?;
        Ok(canvas)
    }

    /// Draws the picture, scaled, into an area of a canvas.
    ///
    /// # Errors
    /// The area leaves the canvas, or the picture scaled in one direction has more than 2^26 pixels.
    pub(crate) fn draw(&self, canvas: &mut Canvas, area: Area, filter: Filter) -> Result<(), Error> {
        if filter.overshoots() && area.width != self.width && area.height != self.height {
            // The result depends on the direction that comes first, because colours are clipped in between. Pillow
            // begins with the rows.
            let rows = self.scaled(area.width, self.height, filter)?;
            return rows.picture().draw(canvas, area, filter);
        }
        let failed =
            |error: &dyn std::fmt::Display| Error::internal(format!("cannot scale a picture: {error}"));
        let source = ImageRef::new(self.width, self.height, self.pixels, fir::PixelType::U8x3)
            .map_err(|error| failed(&error))?;
        let mut target =
            Image::from_slice_u8(canvas.width, canvas.height, &mut canvas.pixels, fir::PixelType::U8x3)
                .map_err(|error| failed(&error))?;
        let mut target = CroppedImageMut::new(&mut target, area.left, area.top, area.width, area.height)
            .map_err(|error| failed(&error))?;
        let options = fir::ResizeOptions::new().resize_alg(filter.algorithm()).use_alpha(false);
        fir::Resizer::new().resize(&source, &mut target, &options).map_err(|error| failed(&error))
    }
}

/// A part of a canvas, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) left: u32,
    pub(crate) top: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Canvas {
    /// A canvas of one brightness.
    ///
    /// # Errors
    /// It has no pixel, or more than 2^26.
    pub(crate) fn filled(width: u32, height: u32, brightness: u8) -> Result<Self, Error> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 || pixels > SCALED_PIXELS_MAX {
            return Err(Error::invalid(format!(
                "a picture would have to be scaled to {width} by {height} pixels, and at most {SCALED_PIXELS_MAX} pixels \
                 are possible; send one that is less long and narrow"
            )));
        }
        let bytes =
            usize::try_from(pixels * 3).map_err(|_| Error::internal("a picture exceeds the memory"))?;
        Ok(Self { width, height, pixels: vec![brightness; bytes] })
    }

    /// The canvas as a picture.
    fn picture(&self) -> Picture<'_> {
        Picture { width: self.width, height: self.height, pixels: &self.pixels }
    }

    /// The middle `width` by `height` pixels. Where the canvas is smaller there is black around it, as in `center_crop`
    /// of Hugging Face's `image_transforms`.
    ///
    /// # Errors
    /// The result has no pixel, or more than 2^26.
    pub(crate) fn center_crop(&self, width: u32, height: u32) -> Result<Self, Error> {
        if (width, height) == (self.width, self.height) {
            return Ok(self.clone());
        }
        let mut cropped = Self::filled(width, height, 0)?;
        let x = Overlap::centered(self.width, width);
        let y = Overlap::centered(self.height, height);
        for row in 0..y.len {
            let from = ((y.from + row) * self.width as usize + x.from) * 3;
            let to = ((y.to + row) * width as usize + x.to) * 3;
            cropped.pixels[to..to + x.len * 3].copy_from_slice(&self.pixels[from..from + x.len * 3]);
        }
        Ok(cropped)
    }
}

/// What of a line of pixels goes where in another one.
struct Overlap {
    from: usize,
    to: usize,
    len: usize,
}

impl Overlap {
    /// The middle of both lines is the same; half a pixel more is cut at the end, and added at the beginning.
    fn centered(source: u32, target: u32) -> Self {
        let (source, target) = (source as usize, target as usize);
        if source >= target {
            Self { from: (source - target) / 2, to: 0, len: target }
        } else {
            Self { from: 0, to: (target - source).div_ceil(2), len: source }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        source: (u32, u32),
        target: (u32, u32),
        filter: String,
        pixels: Vec<u8>,
    }

    /// The picture of `testdata/vision_references.py`.
    fn sample(width: u32, height: u32) -> Vec<u8> {
        let pixel = |x: u32, y: u32, c: u32| ((x * 7 + y * 13 + c * 29 + (x * y) % 31 * 5) % 256) as u8;
        (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| pixel(x, y, c)))).collect()
    }

    #[test]
    fn scaling_is_that_of_opencv_and_pillow() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../testdata/resized.json")).unwrap();
        assert_eq!(cases.len(), 28);
        let mut failures = Vec::new();
        for case in cases {
            let filter = match case.filter.as_str() {
                "opencv_linear" => Filter::OpenCvLinear,
                "nearest" => Filter::Nearest,
                "box" => Filter::Box,
                "bilinear" => Filter::Bilinear,
                "hamming" => Filter::Hamming,
                "bicubic" => Filter::Bicubic,
                _ => Filter::Lanczos,
            };
            let pixels = sample(case.source.0, case.source.1);
            let picture = Picture::new(case.source.0, case.source.1, &pixels).unwrap();
            let scaled = picture.scaled(case.target.0, case.target.1, filter).unwrap();
            let differences = scaled.pixels.iter().zip(&case.pixels).map(|(a, b)| a.abs_diff(*b));
            let greatest = differences.max().unwrap();
            if greatest > 1 || scaled.pixels.len() != case.pixels.len() {
                failures
                    .push(format!("{:?} to {:?} by {}: {greatest}", case.source, case.target, case.filter));
            }
        }
        assert!(failures.is_empty(), "{failures:#?}");
    }

    #[test]
    fn the_middle_is_cut_out_and_what_is_missing_is_black() {
        let canvas = Canvas { width: 3, height: 1, pixels: (1..=9).collect() };
        let cut = |width, height| canvas.center_crop(width, height).unwrap().pixels;
        assert_eq!(cut(1, 1), [4, 5, 6]);
        assert_eq!(cut(2, 1), [1, 2, 3, 4, 5, 6]);
        assert_eq!(cut(4, 1), [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(cut(1, 2), [0, 0, 0, 4, 5, 6]);
    }
}
