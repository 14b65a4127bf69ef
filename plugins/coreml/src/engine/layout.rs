//! How CoreML lays out tensors and pictures in memory: rows may be apart, and pixels are blue first.

/// Copies row-major elements of `size` bytes to where the strides, counted in elements, put them. `None` if a place lies
/// outside of `target`, or the elements do not fill the shape.
pub(super) fn scatter(
    data: &[u8],
    target: &mut [u8],
    shape: &[usize],
    strides: &[usize],
    size: usize,
) -> Option<()> {
    let mut elements = data.chunks_exact(size);
    each_place(shape, strides, |place| {
        let start = place.checked_mul(size)?;
        target.get_mut(start..start.checked_add(size)?)?.copy_from_slice(elements.next()?);
        Some(())
    })?;
    elements.next().is_none().then_some(())
}

/// The elements of `size` bytes in row-major order, from where the strides, counted in elements, have put them. `None` if a
/// place lies outside of `source`.
pub(super) fn gather(source: &[u8], shape: &[usize], strides: &[usize], size: usize) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    each_place(shape, strides, |place| {
        let start = place.checked_mul(size)?;
        data.extend_from_slice(source.get(start..start.checked_add(size)?)?);
        Some(())
    })?;
    Some(data)
}

/// Visits the place of each element in row-major order.
fn each_place(shape: &[usize], strides: &[usize], mut visit: impl FnMut(usize) -> Option<()>) -> Option<()> {
    if shape.len() != strides.len() {
        return None;
    }
    if shape.contains(&0) {
        return Some(());
    }
    let mut index = vec![0; shape.len()];
    loop {
        let place = index.iter().zip(strides).try_fold(0_usize, |place, (index, stride)| {
            place.checked_add(usize::checked_mul(*index, *stride)?)
        })?;
        visit(place)?;
        // The next index, the last dimension first.
        let mut dim = shape.len();
        loop {
            let Some(next) = dim.checked_sub(1) else { return Some(()) };
            dim = next;
            index[dim] += 1;
            if index[dim] < shape[dim] {
                break;
            }
            index[dim] = 0;
        }
    }
}

/// Bytes of a pixel in memory, for a tensor of so many bytes a pixel: colours get a fourth byte.
pub(super) fn pixel_bytes(tensor_bytes: usize) -> usize {
    if tensor_bytes == 3 { 4 } else { tensor_bytes }
}

/// Copies one row of pixels, of 3 bytes red first or of another number, to what CoreML wants: blue first with an opaque
/// fourth byte, or the same bytes.
pub(super) fn write_row(row: &[u8], target: &mut [u8], tensor_bytes: usize) -> Option<()> {
    if tensor_bytes != 3 {
        target.get_mut(..row.len())?.copy_from_slice(row);
        return Some(());
    }
    let (pixels, rest) = row.as_chunks::<3>();
    let (places, _) = target.as_chunks_mut::<4>();
    if places.len() < pixels.len() || !rest.is_empty() {
        return None;
    }
    for ([red, green, blue], place) in pixels.iter().zip(places) {
        *place = [*blue, *green, *red, 255];
    }
    Some(())
}

/// The opposite of [`write_row`], for `width` pixels.
pub(super) fn read_row(source: &[u8], width: usize, tensor_bytes: usize, row: &mut Vec<u8>) -> Option<()> {
    let source = source.get(..width.checked_mul(pixel_bytes(tensor_bytes))?)?;
    if tensor_bytes != 3 {
        row.extend_from_slice(source);
        return Some(());
    }
    let (pixels, _) = source.as_chunks::<4>();
    row.extend(pixels.iter().flat_map(|[blue, green, red, _]| [*red, *green, *blue]));
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_may_be_apart_and_dimensions_may_change_places() {
        // 2 x 3 elements in rows of 4.
        let source: Vec<u8> = (0..8).collect();
        assert_eq!(gather(&source, &[2, 3], &[4, 1], 1).unwrap(), [0, 1, 2, 4, 5, 6]);
        assert_eq!(gather(&source, &[3, 2], &[1, 4], 1).unwrap(), [0, 4, 1, 5, 2, 6]);
        assert_eq!(gather(&source, &[], &[], 2).unwrap(), [0, 1], "a scalar");
        assert!(gather(&source, &[0, 3], &[3, 1], 1).unwrap().is_empty());
        for (shape, strides) in [(&[3, 3][..], &[4, 1][..]), (&[2], &[usize::MAX]), (&[2, 2], &[1])] {
            assert_eq!(gather(&source, shape, strides, 1), None, "{shape:?} {strides:?}");
        }
        assert_eq!(scatter(&[1, 2], &mut [0; 4], &[3], &[1], 1), None, "too few elements");
        assert_eq!(scatter(&[1, 2], &mut [0; 4], &[1], &[1], 1), None, "too many");
    }

    #[test]
    fn colours_are_turned_round_and_back() {
        let mut target = [0; 8];
        write_row(&[1, 2, 3, 4, 5, 6], &mut target, 3).unwrap();
        assert_eq!(target, [3, 2, 1, 255, 6, 5, 4, 255]);
        let mut row = Vec::new();
        read_row(&target, 2, 3, &mut row).unwrap();
        assert_eq!(row, [1, 2, 3, 4, 5, 6]);
        write_row(&[7, 8], &mut target, 1).unwrap();
        assert_eq!(target[..2], [7, 8]);
        assert_eq!(write_row(&[0; 9], &mut target, 3), None, "three pixels in the place of two");
        assert_eq!(read_row(&target, 3, 3, &mut row), None);
    }

    proptest! {
        #[test]
        fn what_is_scattered_is_gathered(
            shape in prop::collection::vec(1_usize..4, 0..4),
            gap in 0_usize..3,
            size in prop::sample::select(vec![1_usize, 2, 4]),
        ) {
            let mut strides = vec![1; shape.len()];
            for dim in (0..shape.len().saturating_sub(1)).rev() {
                strides[dim] = strides[dim + 1] * shape[dim + 1] + gap;
            }
            let count: usize = shape.iter().product();
            let data: Vec<u8> = (0..count * size).map(|index| index as u8).collect();
            let mut memory = vec![0; 4096];
            prop_assert_eq!(scatter(&data, &mut memory, &shape, &strides, size), Some(()));
            prop_assert_eq!(gather(&memory, &shape, &strides, size), Some(data));
        }
    }
}
