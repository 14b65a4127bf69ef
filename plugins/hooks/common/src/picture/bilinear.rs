//! Between the four nearest pixels.

use super::Rgb;

mod columns;

use columns::{Column, MARGIN, blend_columns};

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

/// Scales a picture.
#[must_use]
pub fn scale(picture: Rgb, width: usize, height: usize) -> Vec<u8> {
    let columns: Vec<_> =
        places(picture.width(), width).map(|place| Column::new(place.first, place.weight)).collect();
    let mut blended = vec![0; picture.width() * 3 + MARGIN];
    let mut pixels = vec![0; width * height * 3];
    for (place, row) in places(picture.height(), height).zip(pixels.chunks_exact_mut(width * 3)) {
        // Rows first: that is one pass over contiguous memory, which the compiler makes vectors of.
        let (of_first, of_second) = (ONE - place.weight, place.weight);
        let rows = picture.row(place.first).iter().zip(picture.row(place.second));
        for (blended, (&first, &second)) in blended.iter_mut().zip(rows) {
            // Half of it, which leaves room for a sign: there are no vectors of products without one.
            *blended = ((u16::from(first) * of_first + u16::from(second) * of_second) / 2) as i16;
        }
        blend_columns(&blended, &columns, row);
    }
    pixels
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
    fn scaled(values: &[u8], width: usize) -> Vec<u8> {
        let pixels: Vec<u8> = values.iter().flat_map(|&value| [value; 3]).collect();
        let picture = Rgb::new(u32::try_from(values.len()).unwrap(), 1, &pixels).unwrap();
        scale(picture, width, 1).as_chunks::<3>().0.iter().map(|[red, _, _]| *red).collect()
    }

    #[test]
    fn pixels_are_taken_at_their_centres() {
        assert_eq!(scaled(&[0, 100], 2), [0, 100]);
        assert_eq!(scaled(&[0, 100], 4), [0, 25, 75, 100]);
        assert_eq!(scaled(&[0, 100, 200, 40], 2), [50, 120]);
        assert_eq!(scaled(&[7], 3), [7, 7, 7]);
        assert_eq!(scaled(&[0, 3], 4), [0, 1, 2, 3]);
    }

    #[test]
    fn white_stays_white() {
        assert!(scaled(&[255; 7], 19).iter().all(|&value| value == 255));
    }
}
