//! The letterbox of YOLOs: the picture is scaled to fit, centred, and the rest is grey.
//!
//! After `LetterBox` and `scale_boxes` of ultralytics 8.3 with `auto=False`, which is what its exported networks get.

use pajamas_plugin_api::Error;

use super::picture::{Area, Canvas, Filter, Picture};

/// Brightness of the border.
const BORDER: u8 = 114;

/// Where a picture lies in the network's input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letterbox {
    /// Pixels of the input for one of the picture.
    scale: f64,
    area: Area,
    source: (u32, u32),
    target: (u32, u32),
}

impl Letterbox {
    /// The letterbox of a picture of `source` (width, height) in an input of `target` (width, height), both in pixels.
    pub(crate) fn new(source: (u32, u32), target: (u32, u32)) -> Self {
        let ratio = |source: u32, target: u32| f64::from(target) / f64::from(source);
        let scale = ratio(source.0, target.0).min(ratio(source.1, target.1));
        // Python rounds half to even. Ultralytics fails where a side becomes 0; here it is 1.
        let side = |source: u32, target: u32| {
            ((f64::from(source) * scale).round_ties_even() as u32).clamp(1, target)
        };
        let (width, height) = (side(source.0, target.0), side(source.1, target.1));
        let before =
            |inner: u32, outer: u32| (f64::from(outer - inner) / 2.0 - 0.1).round_ties_even().max(0.0) as u32;
        let area = Area { left: before(width, target.0), top: before(height, target.1), width, height };
        Self { scale, area, source, target }
    }

    /// The input of the network, 8 bits each.
    ///
    /// # Errors
    /// The input has more than 2^26 pixels.
    pub(crate) fn draw(&self, picture: &Picture<'_>) -> Result<Canvas, Error> {
        let mut canvas = Canvas::filled(self.target.0, self.target.1, BORDER)?;
        picture.draw(&mut canvas, self.area, Filter::OpenCvLinear)?;
        Ok(canvas)
    }

    /// A box of the input (left, top, right, bottom) in pixels of the picture, clipped to it.
    pub(crate) fn picture_box(&self, corners: [f32; 4]) -> [f32; 4] {
        let [left, top, right, bottom] = corners.map(f64::from);
        let x = |x: f64| self.coordinate(x, self.area.left, self.source.0);
        let y = |y: f64| self.coordinate(y, self.area.top, self.source.1);
        [x(left), y(top), x(right), y(bottom)]
    }

    fn coordinate(&self, inside: f64, border: u32, source: u32) -> f32 {
        ((inside - f64::from(border)) / self.scale).clamp(0.0, f64::from(source)) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_lie_where_ultralytics_puts_them() {
        // source, target, (left, top, width, height): from LetterBox(auto=False) of ultralytics 8.3
        let cases = [
            ((512, 512), (320, 320), (0, 0, 320, 320)),
            ((451, 300), (320, 320), (0, 53, 320, 213)),
            ((1280, 720), (640, 640), (0, 140, 640, 360)),
            ((333, 500), (640, 640), (107, 0, 426, 640)),
            ((64, 48), (320, 320), (0, 40, 320, 240)),
            ((1, 100_000), (320, 320), (159, 0, 1, 320)),
            ((100, 50), (640, 320), (0, 0, 640, 320)),
        ];
        for (source, target, (left, top, width, height)) in cases {
            let letterbox = Letterbox::new(source, target);
            assert_eq!(letterbox.area, Area { left, top, width, height }, "{source:?} in {target:?}");
        }
    }

    #[test]
    fn boxes_come_back_into_the_picture() {
        let letterbox = Letterbox::new((1280, 720), (640, 640));
        assert_eq!(letterbox.picture_box([10.0, 150.0, 110.0, 250.0]), [20.0, 20.0, 220.0, 220.0]);
        assert_eq!(letterbox.picture_box([-5.0, 0.0, 900.0, 900.0]), [0.0, 0.0, 1280.0, 720.0]);
    }

    #[test]
    fn the_border_is_grey_and_the_picture_is_in_the_middle() {
        let white = [255; 4 * 2 * 3];
        let picture = Picture::new(4, 2, &white).unwrap();
        let canvas = Letterbox::new((4, 2), (4, 4)).draw(&picture).unwrap();
        let rows: Vec<u8> = canvas.pixels.chunks(12).map(|row| row[0]).collect();
        assert_eq!(rows, [BORDER, 255, 255, BORDER]);
    }
}
