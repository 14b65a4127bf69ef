//! Pictures: from files to RGB pixels, and to PNG.

use std::io::Cursor;

use image::codecs::png::PngEncoder;
use image::metadata::Orientation;
use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageError, ImageFormat, ImageReader, Limits,
};

use super::{MediaError, MediaLimits};

/// The kinds that are read.
const EXPECTED: &str = "JPEG, PNG, WebP, BMP or GIF";
/// What a decoder may take for one pixel: four channels of 16 bits.
const DECODER_BYTES_PER_PIXEL: u64 = 8;
/// What a decoder may take besides, for tables, rows and metadata.
const DECODER_BYTES: u64 = 32 << 20;

/// A picture: RGB, 8 bits each, row by row from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `width * height * 3` bytes.
    pub data: Vec<u8>,
}

/// Whether a file begins like a picture of a format that is known here.
#[must_use]
pub fn is_image(file: &[u8]) -> bool {
    image::guess_format(file).is_ok()
}

/// Decodes a JPEG, PNG, WebP, BMP or GIF file, of an animation its first picture.
///
/// The picture comes as a viewer would show it on a white page: turned as its EXIF orientation says, and with what is
/// transparent on white. The colours stored under transparent pixels are arbitrary, most often black, so that dropping
/// the alpha channel instead would turn black writing on nothing into black on black. 16-bit channels are scaled to 8 bits,
/// grey and palettes become RGB, colour profiles are not applied.
///
/// # Errors
/// See [`MediaError`]; the size is checked before the pixels are decoded.
pub fn decode_image(bytes: &[u8], limits: &MediaLimits) -> Result<Picture, MediaError> {
    let (format, kind) = detect(bytes)?;
    let corrupt = |problem: String| MediaError::Corrupt { kind, problem };
    let pixels_max = limits.image_pixels;
    let failed = |error: ImageError| match error {
        ImageError::Limits(_) => MediaError::TooMuchMemory { kind, pixels_max },
        ImageError::Unsupported(error) => MediaError::Unsupported { kind, problem: error.to_string() },
        error => corrupt(error.to_string()),
    };
    if format == ImageFormat::Jpeg && !has_end_of_image(bytes) {
        // The decoder would fill what is missing with grey.
        return Err(corrupt("it has no end marker".to_owned()));
    }
    let mut allowed = Limits::no_limits();
    allowed.max_alloc =
        Some(pixels_max.saturating_mul(DECODER_BYTES_PER_PIXEL).saturating_add(DECODER_BYTES));
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(allowed);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > pixels_max {
        return Err(MediaError::TooManyPixels { width, height, pixels_max });
    }
    if width == 0 || height == 0 {
        return Err(corrupt("it has no pixels".to_owned()));
    }
    // A picture with broken metadata is shown as it is stored, as viewers do.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    Ok(Picture { width, height, data: over_white(image) })
}

/// The picture as a PNG file.
///
/// # Errors
/// When `data` has another length than `width` and `height` say.
pub fn encode_png(picture: &Picture) -> Result<Vec<u8>, MediaError> {
    let mut file = Vec::new();
    let Picture { width, height, data } = picture;
    let expected = u64::from(*width) * u64::from(*height) * 3;
    if expected != data.len() as u64 {
        let problem = format!("{} bytes are not {width} × {height} pixels", data.len());
        return Err(MediaError::Encode { problem });
    }
    PngEncoder::new(&mut file)
        .write_image(data, *width, *height, ExtendedColorType::Rgb8)
        .map_err(|error| MediaError::Encode { problem: error.to_string() })?;
    Ok(file)
}

/// What the first bytes say that the file is, and its name for people.
fn detect(bytes: &[u8]) -> Result<(ImageFormat, &'static str), MediaError> {
    if bytes.is_empty() {
        return Err(MediaError::Empty);
    }
    match image::guess_format(bytes) {
        Ok(format @ ImageFormat::Jpeg) => Ok((format, "JPEG")),
        Ok(format @ ImageFormat::Png) => Ok((format, "PNG")),
        Ok(format @ ImageFormat::WebP) => Ok((format, "WebP")),
        Ok(format @ ImageFormat::Bmp) => Ok((format, "BMP")),
        Ok(format @ ImageFormat::Gif) => Ok((format, "GIF")),
        _ => Err(MediaError::UnknownKind { expected: EXPECTED }),
    }
}

/// Whether the marker that ends a JPEG file, `FF D9`, comes after the one that begins its pixels, `FF DA` (ITU-T T.81,
/// B.1.1). Inside the pixels `FF` is always followed by something else, and what comes before them, such as a small
/// picture in the metadata, is skipped by the lengths of its segments.
fn has_end_of_image(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        rest = match rest {
            [0xff, 0xda, pixels @ ..] => return pixels.windows(2).any(|marker| marker == [0xff, 0xd9]),
            // Any number of `FF` may fill the space before a marker.
            [0xff, fill @ ..] if fill.first() == Some(&0xff) => fill,
            [0xff, _, high, low, ..] => {
                rest.get(2 + usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default()
            }
            // Not at a marker: the decoder knows better what is wrong.
            _ => return !rest.is_empty(),
        };
    }
}

/// The pixels of the picture on white, as RGB.
fn over_white(image: DynamicImage) -> Vec<u8> {
    if !image.color().has_alpha() {
        return image.into_rgb8().into_raw();
    }
    let mut pixels = image.into_rgba8().into_raw();
    let mut end = 0;
    for start in (0..pixels.len()).step_by(4) {
        let alpha = u32::from(pixels[start + 3]);
        for channel in 0..3 {
            let mixed = u32::from(pixels[start + channel]) * alpha + 255 * (255 - alpha);
            #[expect(clippy::cast_possible_truncation, reason = "a mean of two bytes is a byte")]
            {
                pixels[end + channel] = ((mixed + 127) / 255) as u8;
            }
        }
        end += 3;
    }
    pixels.truncate(end);
    pixels
}
