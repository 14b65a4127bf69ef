//! What a YOLO's output means: the three layouts that the families have, and how they are told apart.
//!
//! After `non_max_suppression` of YOLOv5 7.0 and ultralytics 8.3, without their multi-label mode.

use pajamas_plugin_api::Error;
use serde::Deserialize;

use super::nms::Candidate;
use crate::open::Header;
use crate::runner::TensorSpec;

/// The layouts, for the option `head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Family {
    /// `[batch, boxes, 5 + classes]`: centre x, centre y, width, height, objectness, a score for each class.
    /// YOLOv5, YOLOv6 and YOLOv7.
    V5,
    /// `[batch, 4 + classes, boxes]`: centre x, centre y, width, height, a score for each class. YOLOv8, YOLOv9,
    /// YOLO11, YOLO12 and the `u` models of ultralytics.
    V8,
    /// `[batch, boxes, 6]`: left, top, right, bottom, score, class, already without overlaps. YOLOv10, YOLO26 and
    /// exports with `nms=True`.
    V10,
}

/// A layout with its number of classes, which the rows of [`Family::V10`] do not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) family: Family,
    pub(crate) classes: Option<usize>,
}

/// Boxes that a network of the families V5 or V8 proposes for one place of its grids.
fn places(width: u32, height: u32) -> usize {
    [8, 16, 32].iter().map(|stride| (width / stride) as usize * (height / stride) as usize).sum()
}

/// Whether a network that says nothing about itself can only be a YOLO: its one output has exactly the boxes of the
/// three grids of its input.
pub(crate) fn is_unmistakably_yolo(header: &Header) -> bool {
    let ([input], [output]) = (header.inputs.as_slice(), header.outputs.as_slice()) else { return false };
    let &[_, Some(3), Some(height), Some(width)] = input.shape.as_slice() else { return false };
    let (Ok(width), Ok(height)) = (u32::try_from(width), u32::try_from(height)) else { return false };
    let places = places(width, height);
    match *output.shape.as_slice() {
        [_, Some(rows), Some(columns)] => {
            (columns == places && (5..columns).contains(&rows))
                || (rows == 3 * places && (6..rows).contains(&columns))
        }
        _ => false,
    }
}

/// What is known before the network runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// The option `head`.
    pub(crate) family: Option<Family>,
    /// How many classes have names.
    pub(crate) classes: Option<usize>,
    /// Width and height of the input.
    pub(crate) size: (u32, u32),
}

impl Head {
    /// The head whose output this is.
    ///
    /// # Errors
    /// No family has such an output with that many classes, or several have; the message says what to set.
    pub(crate) fn of(output: &TensorSpec, known: Known) -> Result<Self, Error> {
        let &[_, rows, columns] = output.shape.as_slice() else { return Err(misfit(output, known)) };
        let family = match known.family {
            Some(family) => family,
            None => Self::guess(rows, columns, known).ok_or_else(|| misfit(output, known))?,
        };
        let (dim, extra) = match family {
            Family::V5 => (columns, 5),
            Family::V8 => (rows, 4),
            Family::V10 => (columns, 6),
        };
        let declared = match dim {
            Some(dim) => Some(dim.checked_sub(extra).ok_or_else(|| misfit(output, known))?),
            None => None,
        };
        if family == Family::V10 {
            let is_six = declared.is_none_or(|rest| rest == 0);
            return if is_six {
                Ok(Self { family, classes: known.classes })
            } else {
                Err(misfit(output, known))
            };
        }
        match (declared, known.classes) {
            (Some(declared), Some(named)) if declared != named => Err(misfit(output, known)),
            (Some(0), _) => Err(misfit(output, known)),
            (declared, named) => Ok(Self { family, classes: declared.or(named) }),
        }
    }

    fn guess(rows: Option<usize>, columns: Option<usize>, known: Known) -> Option<Family> {
        let places = places(known.size.0, known.size.1);
        if let Some(classes) = known.classes {
            let fits = [
                (Family::V8, rows == Some(classes + 4)),
                (Family::V5, columns == Some(classes + 5)),
                (Family::V10, columns == Some(6) && rows != Some(3 * places)),
            ];
            let mut fitting = fits.into_iter().filter(|(_, fits)| *fits).map(|(family, _)| family);
            return match (fitting.next(), fitting.next()) {
                (Some(only), None) => Some(only),
                // One class: YOLOv5 has 6 columns too, but three boxes for each place.
                (Some(Family::V5), Some(Family::V10)) if rows.is_some() => Some(Family::V10),
                _ => None,
            };
        }
        match (rows, columns) {
            (Some(rows), Some(6)) if rows != 3 * places => Some(Family::V10),
            (Some(rows), Some(columns)) if rows < columns => Some(Family::V8),
            (Some(_), Some(_)) => Some(Family::V5),
            (Some(_), None) => Some(Family::V8),
            _ => None,
        }
    }

    /// The boxes of one picture with more than `confidence_min`, in pixels of the input. `shape` is that of `numbers`,
    /// without the batch.
    ///
    /// # Errors
    /// The output has another shape than the network declared.
    pub(crate) fn candidates(
        &self,
        numbers: &[f32],
        shape: (usize, usize),
        confidence_min: f32,
    ) -> Result<Vec<Candidate>, Error> {
        let (rows, columns) = shape;
        let classes = match self.family {
            Family::V5 => columns.checked_sub(5),
            Family::V8 => rows.checked_sub(4),
            Family::V10 => (columns == 6).then_some(0),
        };
        let fits = match self.family {
            Family::V10 => classes.is_some(),
            _ => {
                classes.is_some_and(|found| found > 0 && self.classes.is_none_or(|classes| classes == found))
            }
        };
        if !fits || numbers.len() != rows * columns {
            return Err(Error::bad_model(format!(
                "the network returned {rows} by {columns} numbers for a picture, which is no output of its head ({:?})",
                self.family
            )));
        }
        let candidates = match self.family {
            Family::V5 => rows_with_objectness(numbers, columns, confidence_min),
            Family::V8 => columns_of_scores(numbers, columns, confidence_min),
            Family::V10 => finished_rows(numbers, confidence_min),
        };
        Ok(candidates.into_iter().filter(|c| c.corners.iter().all(|edge| edge.is_finite())).collect())
    }
}

fn misfit(output: &TensorSpec, known: Known) -> Error {
    let classes = match known.classes {
        Some(classes) => format!("{classes} classes have names"),
        None => "no class has a name".to_owned(),
    };
    let family = match known.family {
        Some(family) => format!("the option `head` says {family:?}"),
        None => "the option `head` says which one is meant".to_owned(),
    };
    Error::bad_model(format!(
        "the network's output {} is not one of a YOLO that detects: v5 has [batch, boxes, 5 + classes], v8 and v11 \
         [batch, 4 + classes, boxes], v10 [batch, boxes, 6]; {classes} (option `labels`), {family}",
        crate::tensors::list(std::slice::from_ref(output))
    ))
}

fn corners(x: f32, y: f32, width: f32, height: f32) -> [f32; 4] {
    [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0]
}

/// The index and value of the greatest, the first of several.
fn greatest(scores: &[f32]) -> (usize, f32) {
    let first = (0, f32::NEG_INFINITY);
    scores
        .iter()
        .enumerate()
        .fold(first, |best, (class, score)| if *score > best.1 { (class, *score) } else { best })
}

fn rows_with_objectness(numbers: &[f32], columns: usize, confidence_min: f32) -> Vec<Candidate> {
    numbers
        .chunks_exact(columns)
        .filter_map(|row| {
            let (&[x, y, width, height, objectness], scores) = row.split_first_chunk::<5>()?;
            let (class, score) = greatest(scores);
            let confidence = objectness * score;
            (objectness > confidence_min && confidence > confidence_min).then(|| Candidate {
                corners: corners(x, y, width, height),
                confidence,
                class,
            })
        })
        .collect()
}

fn columns_of_scores(numbers: &[f32], boxes: usize, confidence_min: f32) -> Vec<Candidate> {
    // Row by row, because the scores of a class lie together.
    let mut best = vec![(0, f32::NEG_INFINITY); boxes];
    for (class, scores) in numbers.chunks_exact(boxes.max(1)).skip(4).enumerate() {
        for (best, score) in best.iter_mut().zip(scores) {
            if *score > best.1 {
                *best = (class, *score);
            }
        }
    }
    let at = |row: usize, index: usize| numbers[row * boxes + index];
    let found = best.into_iter().enumerate().filter(|(_, (_, confidence))| *confidence > confidence_min);
    found
        .map(|(index, (class, confidence))| Candidate {
            corners: corners(at(0, index), at(1, index), at(2, index), at(3, index)),
            confidence,
            class,
        })
        .collect()
}

fn finished_rows(numbers: &[f32], confidence_min: f32) -> Vec<Candidate> {
    let (rows, _) = numbers.as_chunks::<6>();
    rows.iter()
        .filter(|row| row[4] > confidence_min && row[5] >= 0.0)
        .map(|&[left, top, right, bottom, confidence, class]| Candidate {
            corners: [left, top, right, bottom],
            confidence,
            class: class as usize,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::Dtype;
    use proptest::prelude::*;

    use super::*;

    fn spec(shape: &[Option<usize>]) -> TensorSpec {
        TensorSpec { name: "output0".to_owned(), dtype: Dtype::F32, shape: shape.to_vec() }
    }

    #[test]
    fn heads_are_told_by_their_shapes() {
        let (any, size) = (None, (640, 640));
        // dimensions after the batch, classes with names, what it is
        let cases = [
            ((Some(84), Some(8400)), None, Some((Family::V8, Some(80)))),
            ((Some(22), any), Some(18), Some((Family::V8, Some(18)))),
            ((Some(22), any), None, Some((Family::V8, Some(18)))),
            ((Some(25_200), Some(85)), None, Some((Family::V5, Some(80)))),
            ((any, Some(85)), Some(80), Some((Family::V5, Some(80)))),
            ((Some(25_200), Some(6)), Some(1), Some((Family::V5, Some(1)))),
            ((Some(25_200), Some(6)), None, Some((Family::V5, Some(1)))),
            ((Some(300), Some(6)), None, Some((Family::V10, None))),
            ((Some(300), Some(6)), Some(80), Some((Family::V10, Some(80)))),
            ((Some(300), Some(6)), Some(1), Some((Family::V10, Some(1)))),
            ((any, Some(6)), Some(80), Some((Family::V10, Some(80)))),
            // a pose model: one class, but 56 rows
            ((Some(56), Some(8400)), Some(1), None),
            ((Some(84), Some(8400)), Some(79), None),
            ((any, Some(6)), Some(1), None),
            ((any, any), Some(80), None),
        ];
        for ((rows, columns), classes, expected) in cases {
            let known = Known { family: None, classes, size };
            let found = Head::of(&spec(&[Some(1), rows, columns]), known);
            let found = found.ok().map(|head| (head.family, head.classes));
            assert_eq!(found, expected, "{rows:?} {columns:?} with {classes:?} classes");
        }
        let known = Known { family: Some(Family::V5), classes: Some(1), size };
        assert_eq!(Head::of(&spec(&[None, None, Some(6)]), known).unwrap().family, Family::V5);
        let message = Head::of(&spec(&[Some(1), Some(1000)]), Known::default()).unwrap_err().to_string();
        assert!(message.contains("`output0` (f32[1, 1000])"), "{message}");
    }

    #[test]
    fn only_a_yolo_has_the_boxes_of_three_grids() {
        let header = |input: &[usize], output: &[usize]| Header {
            inputs: vec![spec(&input.iter().copied().map(Some).collect::<Vec<_>>())],
            outputs: vec![spec(&output.iter().copied().map(Some).collect::<Vec<_>>())],
            ..Header::default()
        };
        for (input, output, expected) in [
            ([1, 3, 640, 640], [1, 84, 8400].as_slice(), true),
            ([1, 3, 640, 640], &[1, 25_200, 85], true),
            ([1, 3, 320, 640], &[1, 6, 4200], true),
            ([1, 3, 640, 640], &[1, 300, 6], false),
            ([1, 3, 640, 640], &[1, 84, 8401], false),
            ([1, 3, 224, 224], &[1, 1000], false),
            ([1, 1, 640, 640], &[1, 84, 8400], false),
        ] {
            assert_eq!(is_unmistakably_yolo(&header(&input, output)), expected, "{output:?}");
        }
    }

    #[test]
    fn each_family_is_decoded() {
        let expected = [Candidate { corners: [8.0, 16.0, 12.0, 24.0], confidence: 0.5, class: 1 }];
        // one box above 0.25 and one below
        let v5 = [10.0, 20.0, 4.0, 8.0, 1.0, 0.1, 0.5, 10.0, 20.0, 4.0, 8.0, 0.4, 0.5, 0.6];
        let v8 = [10.0, 1.0, 20.0, 1.0, 4.0, 1.0, 8.0, 1.0, 0.1, 0.2, 0.5, 0.1];
        let v10 = [8.0, 16.0, 12.0, 24.0, 0.5, 1.0, 0.0, 0.0, 1.0, 1.0, 0.2, 0.0];
        let cases: [(Family, &[f32], (usize, usize)); 3] =
            [(Family::V5, &v5, (2, 7)), (Family::V8, &v8, (6, 2)), (Family::V10, &v10, (2, 6))];
        for (family, numbers, shape) in cases {
            let classes = (family != Family::V10).then_some(2);
            let head = Head { family, classes };
            assert_eq!(head.candidates(numbers, shape, 0.25).unwrap(), expected, "{family:?}");
            assert!(head.candidates(numbers, (shape.0, shape.1 + 1), 0.25).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_output_is_fatal(
            numbers in prop::collection::vec(prop::num::f32::ANY, 0..64),
            rows in 0usize..9,
            columns in 0usize..9,
            family in prop::sample::select(vec![Family::V5, Family::V8, Family::V10]),
        ) {
            let head = Head { family, classes: None };
            if let Ok(found) = head.candidates(&numbers, (rows, columns), 0.25) {
                prop_assert!(found.iter().all(|c| c.corners.iter().all(|edge| edge.is_finite())));
            }
        }
    }
}
