//! Between the four nearest pixels.

use super::Rgb;

/// Weights are parts of this.
const ONE: u16 = 256;

/// Where an output row or column lies between two of the input.
#[derive(Clone, Copy)]
struct Place {
    first: usize,
    second: usize,
    /// What the second one counts, of [`ONE`].
    weight: u16,
}

/// Scales a picture row by row, so that the caller writes each value once, in the form that it needs.
pub struct Bilinear<'a> {
    picture: Rgb<'a>,
    rows: Vec<Place>,
    /// In bytes of a row.
    columns: Vec<Place>,
    blended: Vec<u16>,
}

/// The output values are [`Bilinear::UNIT`] times those of the picture.
impl<'a> Bilinear<'a> {
    /// How much finer the output is than the picture's 8 bits.
    pub const UNIT: u32 = ONE as u32 * ONE as u32;

    /// For an output of this size.
    #[must_use]
    pub fn new(picture: Rgb<'a>, width: usize, height: usize) -> Self {
        let columns = places(picture.width(), width)
            .map(|place| Place { first: place.first * 3, second: place.second * 3, ..place })
            .collect();
        let rows = places(picture.height(), height).collect();
        Self { picture, rows, columns, blended: vec![0; picture.width() * 3] }
    }

    /// The pixels of output row `y`, from the left.
    pub fn row(&mut self, y: usize) -> impl Iterator<Item = [u32; 3]> {
        let place = self.rows[y];
        // Rows first: that is one pass over contiguous memory, which the compiler makes vectors of.
        let (first, second) = (self.picture.row(place.first), self.picture.row(place.second));
        let (of_first, of_second) = (ONE - place.weight, place.weight);
        for ((blended, &a), &b) in self.blended.iter_mut().zip(first).zip(second) {
            *blended = u16::from(a) * of_first + u16::from(b) * of_second;
        }
        let blended = self.blended.as_slice();
        self.columns.iter().map(move |place| {
            let (of_first, of_second) = (u32::from(ONE - place.weight), u32::from(place.weight));
            let (a, b) = (&blended[place.first..][..3], &blended[place.second..][..3]);
            [0, 1, 2].map(|channel| u32::from(a[channel]) * of_first + u32::from(b[channel]) * of_second)
        })
    }
}

/// Where `new` pixels lie among `old` ones, centre by centre; the outermost ones are repeated beyond the edge.
fn places(old: usize, new: usize) -> impl Iterator<Item = Place> {
    let scale = old as f64 / new as f64;
    (0..new).map(move |index| {
        let at = ((index as f64 + 0.5) * scale - 0.5).clamp(0.0, (old - 1) as f64);
        let first = at as usize;
        let weight = ((at - first as f64) * f64::from(ONE)).round() as u16;
        Place { first, second: (first + 1).min(old - 1), weight }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row of grey, scaled to another width.
    fn scaled(values: &[u8], width: usize) -> Vec<f64> {
        let pixels: Vec<u8> = values.iter().flat_map(|&value| [value; 3]).collect();
        let picture = Rgb::new(u32::try_from(values.len()).unwrap(), 1, &pixels).unwrap();
        let mut bilinear = Bilinear::new(picture, width, 1);
        bilinear.row(0).map(|[red, _, _]| f64::from(red) / f64::from(Bilinear::UNIT)).collect()
    }

    #[test]
    fn pixels_are_taken_at_their_centres() {
        assert_eq!(scaled(&[0, 100], 2), [0.0, 100.0]);
        assert_eq!(scaled(&[0, 100], 4), [0.0, 25.0, 75.0, 100.0]);
        assert_eq!(scaled(&[0, 100, 200, 40], 2), [50.0, 120.0]);
        assert_eq!(scaled(&[7], 3), [7.0, 7.0, 7.0]);
    }

    #[test]
    fn white_stays_white() {
        assert!(scaled(&[255; 7], 19).iter().all(|&value| value == 255.0));
    }
}
