//! Boxes and labels, drawn into a picture for people to look at.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use super::Picture;

/// Rows of a letter before it is scaled.
const LETTER_ROWS: u32 = 16;
/// A picture whose shorter side is this long has lines and letters of their plain size, a larger one in proportion larger
/// ones.
const SIDE_PIXELS: u32 = 640;
/// Colours that are told apart easily and are all dark enough for white writing: Okabe and Ito's, darkened.
const COLOURS: [[u8; 3]; 7] =
    [[200, 70, 0], [0, 95, 150], [0, 120, 90], [150, 60, 110], [170, 110, 0], [40, 110, 160], [90, 90, 90]];
const WHITE: [u8; 3] = [255; 3];

/// A box to draw, in pixels; what lies outside the picture is left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Left side.
    pub x: f32,
    /// Upper side.
    pub y: f32,
    /// Width.
    pub width: f32,
    /// Height.
    pub height: f32,
    /// What is written on it; letters other than ASCII become `?`.
    pub label: String,
    /// Marks of the same group have the same colour.
    pub group: usize,
}

/// Draws each mark, the last one on top.
pub fn draw_boxes(picture: &mut Picture, marks: &[Mark]) {
    let scale = (picture.width.min(picture.height) / SIDE_PIXELS).max(1);
    marks.iter().for_each(|mark| draw_box(picture, mark, i64::from(scale)));
}

fn draw_box(picture: &mut Picture, mark: &Mark, scale: i64) {
    let colour = COLOURS[mark.group % COLOURS.len()];
    #[expect(
        clippy::cast_possible_truncation,
        reason = "casting to an integer saturates, and makes 0 of NaN"
    )]
    let pixel = |position: f32| position.round() as i64;
    let (left, top) = (pixel(mark.x), pixel(mark.y));
    let (right, bottom) = (pixel(mark.x + mark.width), pixel(mark.y + mark.height));
    let line = 2 * scale;
    fill(picture, [left, top, right, top.saturating_add(line)], colour);
    fill(picture, [left, bottom.saturating_sub(line), right, bottom], colour);
    fill(picture, [left, top, left.saturating_add(line), bottom], colour);
    fill(picture, [right.saturating_sub(line), top, right, bottom], colour);
    if mark.label.is_empty() {
        return;
    }
    // Above the box, or inside where there is no room above.
    let rows = i64::from(LETTER_ROWS) * scale;
    let y = if top >= rows { top - rows } else { top.max(0) };
    let letter_width = get_raster_width(FontWeight::Regular, RasterHeight::Size16) as i64 * scale;
    let mut x = left.max(0);
    for letter in mark.label.chars() {
        if x >= i64::from(picture.width) {
            break;
        }
        fill(picture, [x, y, x + letter_width, y + rows], colour);
        draw_letter(picture, letter, [x, y], scale);
        x += letter_width;
    }
}

fn draw_letter(picture: &mut Picture, letter: char, [x, y]: [i64; 2], scale: i64) {
    let raster = |letter| get_raster(letter, FontWeight::Regular, RasterHeight::Size16);
    let Some(letter) = raster(letter).or_else(|| raster('?')) else { return };
    for (row, pixels) in letter.rows().enumerate() {
        for (column, ink) in pixels.iter().enumerate().filter(|(_, ink)| **ink > 0) {
            let (x, y) = (x + column as i64 * scale, y + row as i64 * scale);
            blend(picture, [x, y, x + scale, y + scale], WHITE, *ink);
        }
    }
}

fn fill(picture: &mut Picture, area: [i64; 4], colour: [u8; 3]) {
    blend(picture, area, colour, u8::MAX);
}

/// Covers the part of an area (left, top, right, bottom) that is in the picture with a colour, 255 being opaque.
fn blend(picture: &mut Picture, [left, top, right, bottom]: [i64; 4], colour: [u8; 3], opacity: u8) {
    let clip = |position: i64, max: u32| usize::try_from(position.clamp(0, max.into())).unwrap_or_default();
    let (left, right) = (clip(left, picture.width), clip(right, picture.width));
    let rows = clip(top, picture.height)..clip(bottom, picture.height);
    let row_bytes = picture.width as usize * 3;
    for row in rows {
        let start = row * row_bytes;
        let pixels = picture.data.get_mut(start + left * 3..start + right.max(left) * 3).unwrap_or_default();
        for (index, value) in pixels.iter_mut().enumerate() {
            let (new, opacity) = (u32::from(colour[index % 3]), u32::from(opacity));
            #[expect(clippy::cast_possible_truncation, reason = "a mean of two bytes is a byte")]
            {
                *value = ((u32::from(*value) * (255 - opacity) + new * opacity + 127) / 255) as u8;
            }
        }
    }
}
