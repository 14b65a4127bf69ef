//! The average of what an output pixel covers.

use super::Rgb;

/// What one output row or column covers: whole pixels but for the first and last.
struct Cover {
    first: usize,
    weights: Vec<f32>,
}

/// Shrinks a picture. The output is not larger than the picture in either direction.
#[must_use]
pub fn shrink(picture: Rgb, width: usize, height: usize) -> Vec<u8> {
    let columns: Vec<_> = covers(picture.width(), width).collect();
    let mut sum = vec![0.0; picture.width() * 3];
    let mut pixels = Vec::with_capacity(width * height * 3);
    for rows in covers(picture.height(), height) {
        sum.fill(0.0);
        for (offset, &weight) in rows.weights.iter().enumerate() {
            let row = picture.row(rows.first + offset);
            sum.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f32::from(value) * weight);
        }
        for column in &columns {
            let mut mean = [0.5; 3];
            for (pixel, &weight) in sum[column.first * 3..].chunks_exact(3).zip(&column.weights) {
                mean.iter_mut().zip(pixel).for_each(|(mean, &value)| *mean += value * weight);
            }
            pixels.extend(mean.map(|mean| mean as u8));
        }
    }
    pixels
}

fn covers(old: usize, new: usize) -> impl Iterator<Item = Cover> {
    let scale = old as f64 / new as f64;
    (0..new).map(move |index| {
        let (begin, end) = (index as f64 * scale, ((index + 1) as f64 * scale).min(old as f64));
        let first = begin as usize;
        // Rounding must not add a pixel beyond the last one.
        let last = (end.ceil() as usize).clamp(first + 1, old);
        let covered = |pixel: usize| (end.min((pixel + 1) as f64) - begin.max(pixel as f64)).max(0.0);
        let weights = (first..last).map(|pixel| (covered(pixel) / scale) as f32).collect();
        Cover { first, weights }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shrunk(values: &[u8], width: usize) -> Vec<u8> {
        let pixels: Vec<u8> = values.iter().flat_map(|&value| [value; 3]).collect();
        let picture = Rgb::new(u32::try_from(values.len()).unwrap(), 1, &pixels).unwrap();
        shrink(picture, width, 1).chunks(3).map(|pixel| pixel[0]).collect()
    }

    #[test]
    fn what_a_pixel_covers_counts_by_its_share() {
        assert_eq!(shrunk(&[10, 20, 30], 3), [10, 20, 30]);
        assert_eq!(shrunk(&[10, 20, 30, 40], 2), [15, 35]);
        assert_eq!(shrunk(&[0, 90, 180], 2), [30, 150]);
        assert_eq!(shrunk(&[0, 0, 255], 1), [85]);
    }

    #[test]
    fn white_stays_white_at_every_size() {
        for width in 1..=97 {
            assert!(shrunk(&[255; 97], width).iter().all(|&value| value == 255), "{width}");
        }
    }
}
