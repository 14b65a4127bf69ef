//! The shapes that an engine is built for, where the ONNX file leaves dimensions open.
//!
//! TensorRT wants the smallest, the largest and the most usual dimensions of each such input (an "optimization profile");
//! kernels are chosen for the usual ones, and the largest decide about the working memory.

use std::collections::BTreeMap;

use pajamas_pipelines::TensorSpec;
use pajamas_plugin_api::{Dtype, Error};
use serde_json::Value;

use crate::options::{Options, ProfileOption};

/// Pixels of a side, where neither the file nor an option tells: smallest, usual, largest.
const SIDE: [i64; 3] = [32, 640, 640];
/// Lengths of a text or a sequence: smallest, usual, largest. 512 is what most text encoders can take.
const LENGTH: [i64; 3] = [1, 128, 512];
/// Whisper's windows of sound after its encoder, and its texts.
const WHISPER_WINDOW: i64 = 1500;
const WHISPER_TEXT: i64 = 448;
/// Most dimensions of a tensor of TensorRT's.
const DIMENSIONS_MAX: usize = 8;
/// Largest dimension that is taken.
const DIMENSION_MAX: i64 = 1 << 31;

/// Dimensions that one input may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Smallest.
    pub min: Vec<i64>,
    /// Those that kernels are chosen for.
    pub opt: Vec<i64>,
    /// Largest.
    pub max: Vec<i64>,
}

impl Range {
    /// Whether a shape lies within.
    #[must_use]
    pub fn allows(&self, shape: &[i64]) -> bool {
        shape.len() == self.min.len()
            && shape
                .iter()
                .zip(self.min.iter().zip(&self.max))
                .all(|(dim, (min, max))| (min..=max).contains(&dim))
    }

    fn new(dims: &[[i64; 3]]) -> Self {
        let column = |index: usize| dims.iter().map(|dim| dim[index]).collect();
        Self { min: column(0), opt: column(1), max: column(2) }
    }
}

/// Chooses a range for each input with open dimensions: the option `profiles`, or what is usual for such an input.
///
/// # Errors
/// `profiles` names no input of the network, or dimensions that do not fit it; or an input has too many dimensions.
pub fn choose_ranges(
    inputs: &[TensorSpec],
    metadata: &BTreeMap<String, String>,
    options: &Options,
) -> Result<BTreeMap<String, Range>, Error> {
    if let Some(name) = options.profiles.keys().find(|name| inputs.iter().all(|input| input.name != **name)) {
        let names: Vec<_> = inputs.iter().map(|input| format!("`{}`", input.name)).collect();
        return Err(Error::invalid(format!(
            "option `profiles`: the network has no input `{name}`; it has {}",
            names.join(", ")
        )));
    }
    let usual = Usual::of(inputs, metadata, options);
    let mut ranges = BTreeMap::new();
    for input in inputs {
        if input.shape.len() > DIMENSIONS_MAX {
            return Err(Error::unsupported(format!(
                "input `{}` has {} dimensions, at most {DIMENSIONS_MAX} are supported",
                input.name,
                input.shape.len()
            )));
        }
        if let Some(option) = options.profiles.get(&input.name) {
            ranges.insert(input.name.clone(), asked(input, option)?);
        } else if input.shape.contains(&None) {
            ranges.insert(input.name.clone(), usual.range(input));
        }
    }
    Ok(ranges)
}

/// The range that the user asks for.
fn asked(input: &TensorSpec, option: &ProfileOption) -> Result<Range, Error> {
    let range = Range {
        min: option.min.clone(),
        opt: option.opt.clone().unwrap_or_else(|| option.max.clone()),
        max: option.max.clone(),
    };
    let wrong =
        |problem: String| Err(Error::invalid(format!("option `profiles`: input `{}` {problem}", input.name)));
    for (name, dims) in [("min", &range.min), ("opt", &range.opt), ("max", &range.max)] {
        if dims.len() != input.shape.len() {
            return wrong(format!("has {} dimensions, `{name}` has {}", input.shape.len(), dims.len()));
        }
        let fixed = input.shape.iter().zip(dims).find_map(|(fixed, dim)| {
            let fixed = i64::try_from((*fixed)?).ok()?;
            (fixed != *dim).then_some((fixed, *dim))
        });
        if let Some((fixed, dim)) = fixed {
            return wrong(format!("has a dimension of {fixed} in the file, `{name}` says {dim}"));
        }
    }
    let is_ordered = |(min, (opt, max)): (&i64, (&i64, &i64))| {
        (0..=DIMENSION_MAX).contains(min) && min <= opt && opt <= max && *max <= DIMENSION_MAX
    };
    if !range.min.iter().zip(range.opt.iter().zip(&range.max)).all(is_ordered) {
        return wrong(format!(
            "needs 0 ≤ min ≤ opt ≤ max ≤ {DIMENSION_MAX} in each dimension, and got {:?}, {:?}, {:?}",
            range.min, range.opt, range.max
        ));
    }
    Ok(range)
}

/// How large the runs of a decoder of text become.
#[derive(Clone, Copy, Debug)]
pub struct DecoderSizes {
    /// Sequences of one run.
    pub rows: u32,
    /// Tokens of one sequence in a run.
    pub sequence: u32,
    /// Tokens of a sequence altogether.
    pub context: u32,
}

/// The shapes of a decoder of text with a cache: usually many sequences go on by one token each, behind a quarter of the
/// context. In each of the three, the mask is as long as past and tokens together: the library computes with all three.
#[must_use]
pub fn decoder_profiles(inputs: &[TensorSpec], sizes: DecoderSizes) -> BTreeMap<String, ProfileOption> {
    let [rows, sequence, context] = [sizes.rows, sizes.sequence, sizes.context].map(i64::from);
    let (batch, tokens) = ([1, rows, rows], [1, 1, sequence]);
    let past = [0, context / 4, context];
    let seen = [0, 1, 2].map(|index| past[index] + tokens[index]);
    let profile = |input: &TensorSpec| {
        let dims = input.shape.iter().enumerate().map(|(axis, dim)| match (axis, dim) {
            (_, Some(dim)) => [i64::try_from(*dim).unwrap_or(i64::MAX); 3],
            (0, None) => batch,
            (2, None) => past,
            (_, None) if input.name == "attention_mask" => seen,
            (_, None) => tokens,
        });
        let Range { min, opt, max } = Range::new(&dims.collect::<Vec<_>>());
        (input.name.clone(), ProfileOption { min, opt: Some(opt), max })
    };
    inputs.iter().filter(|input| input.shape.contains(&None)).map(profile).collect()
}

/// What is usual for the inputs of one network.
struct Usual {
    batch: [i64; 3],
    /// Height and width.
    sides: [[i64; 3]; 2],
}

impl Usual {
    fn of(inputs: &[TensorSpec], metadata: &BTreeMap<String, String>, options: &Options) -> Self {
        let rows = i64::from(options.batch_max);
        // A decoder that goes token by token works on one sequence, and a batch of caches is all its memory.
        let goes_by_token = inputs.iter().any(|input| {
            input.name.starts_with("past_key_values") || input.name.starts_with("encoder_hidden_states")
        });
        let batch = if goes_by_token { [1; 3] } else { [1, (rows + 1) / 2, rows] };
        let said = || serde_json::from_str(metadata.get("imgsz")?).ok();
        let size = options.pipeline.get("image_size").cloned().or_else(said);
        let sides = match size.as_ref().and_then(height_and_width) {
            Some(sides) => sides.map(|side| [side; 3]),
            None => [SIDE; 2],
        };
        Self { batch, sides }
    }

    fn range(&self, input: &TensorSpec) -> Range {
        let dims = input.shape.iter().enumerate().map(|(axis, dim)| match dim {
            Some(dim) => [i64::try_from(*dim).unwrap_or(i64::MAX); 3],
            None => self.open(input, axis),
        });
        Range::new(&dims.collect::<Vec<_>>())
    }

    /// The range of an open dimension.
    fn open(&self, input: &TensorSpec, axis: usize) -> [i64; 3] {
        let name = input.name.as_str();
        if axis == 0 {
            return self.batch;
        }
        if name.starts_with("past_key_values") {
            // The first pass of a decoder has no past.
            return if name.contains("encoder") {
                [0, WHISPER_WINDOW, WHISPER_WINDOW]
            } else {
                [0, WHISPER_TEXT / 2, WHISPER_TEXT]
            };
        }
        if name.starts_with("encoder_hidden_states") {
            return [1, WHISPER_WINDOW, WHISPER_WINDOW];
        }
        let is_float = matches!(input.dtype, Dtype::F16 | Dtype::Bf16 | Dtype::F32);
        let is_picture = input.shape.len() == 4 && (is_float || input.dtype == Dtype::U8);
        if !is_picture {
            return LENGTH;
        }
        let channels_are_last = input.shape.get(3) == Some(&Some(3));
        match (axis, channels_are_last) {
            (1, false) => [3; 3],
            (1, true) | (2, false) => self.sides[0],
            _ => self.sides[1],
        }
    }
}

/// A size as Ultralytics writes it: a number of pixels, or height and width.
fn height_and_width(size: &Value) -> Option<[i64; 2]> {
    let side = |value: &Value| value.as_i64().filter(|side| (1..=DIMENSION_MAX).contains(side));
    match size {
        Value::Array(sides) => match sides.as_slice() {
            [height, width] => Some([side(height)?, side(width)?]),
            _ => None,
        },
        side_of_both => side(side_of_both).map(|side| [side; 2]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn input(name: &str, dtype: Dtype, dims: &[i64]) -> TensorSpec {
        let shape = dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
        TensorSpec { name: name.to_owned(), dtype, shape }
    }

    fn options(value: Value) -> Options {
        Options::parse(value.as_object().unwrap()).unwrap()
    }

    #[test]
    fn open_dimensions_get_what_is_usual_for_such_an_input() {
        let imgsz = BTreeMap::from([("imgsz".to_owned(), "[320, 640]".to_owned())]);
        let none = BTreeMap::new();
        // Name, type, dimensions (-1 is open), metadata, options; smallest, usual, largest.
        type Case<'a> = (TensorSpec, &'a BTreeMap<String, String>, Value, [&'a [i64]; 3]);
        let cases: [Case<'_>; 10] = [
            (
                input("images", Dtype::F32, &[-1, 3, -1, -1]),
                &imgsz,
                json!({}),
                [&[1, 3, 320, 640], &[8, 3, 320, 640], &[16, 3, 320, 640]],
            ),
            (
                input("images", Dtype::F32, &[-1, 3, -1, -1]),
                &imgsz,
                json!({"image_size": 416}),
                [&[1, 3, 416, 416], &[8, 3, 416, 416], &[16, 3, 416, 416]],
            ),
            (
                input("images", Dtype::F32, &[-1, -1, -1, -1]),
                &none,
                json!({"batch_max": 128}),
                [&[1, 3, 32, 32], &[64, 3, 640, 640], &[128, 3, 640, 640]],
            ),
            (
                input("images", Dtype::U8, &[-1, -1, -1, 3]),
                &none,
                json!({"batch_max": 1}),
                [&[1, 32, 32, 3], &[1, 640, 640, 3], &[1, 640, 640, 3]],
            ),
            (
                input("images", Dtype::F32, &[-1, 3, 224, 224]),
                &none,
                json!({"batch_max": 5}),
                [&[1, 3, 224, 224], &[3, 3, 224, 224], &[5, 3, 224, 224]],
            ),
            (input("input_ids", Dtype::I64, &[-1, -1]), &none, json!({}), [&[1, 1], &[8, 128], &[16, 512]]),
            (
                input("input_features", Dtype::F32, &[-1, 80, 3000]),
                &none,
                json!({}),
                [&[1, 80, 3000], &[8, 80, 3000], &[16, 80, 3000]],
            ),
            (
                input("encoder_hidden_states", Dtype::F32, &[-1, -1, 384]),
                &none,
                json!({}),
                [&[1, 1, 384], &[1, 1500, 384], &[1, 1500, 384]],
            ),
            (
                input("past_key_values.0.decoder.key", Dtype::F32, &[-1, 6, -1, 64]),
                &none,
                json!({}),
                [&[1, 6, 0, 64], &[1, 6, 224, 64], &[1, 6, 448, 64]],
            ),
            (
                input("past_key_values.0.encoder.key", Dtype::F32, &[-1, 6, -1, 64]),
                &none,
                json!({}),
                [&[1, 6, 0, 64], &[1, 6, 1500, 64], &[1, 6, 1500, 64]],
            ),
        ];
        for (input, metadata, option, [min, opt, max]) in cases {
            let ranges = choose_ranges(std::slice::from_ref(&input), metadata, &options(option)).unwrap();
            let expected = Range { min: min.to_vec(), opt: opt.to_vec(), max: max.to_vec() };
            assert_eq!(ranges[&input.name], expected, "{input:?}");
            assert!(expected.allows(min) && expected.allows(opt) && expected.allows(max));
        }
        let fixed = input("x", Dtype::F32, &[1, 3]);
        assert!(choose_ranges(&[fixed], &none, &Options::default()).unwrap().is_empty(), "nothing is open");
    }

    #[test]
    fn a_decoder_of_text_is_built_for_its_context_and_its_rows() {
        let inputs = [
            input("input_ids", Dtype::I64, &[-1, -1]),
            input("attention_mask", Dtype::I64, &[-1, -1]),
            input("past_key_values.0.key", Dtype::F16, &[-1, 3, -1, 64]),
        ];
        let profiles = decoder_profiles(&inputs, DecoderSizes { rows: 8, sequence: 64, context: 1024 });
        let given = Options { profiles, ..Options::default() };
        let ranges = choose_ranges(&inputs, &BTreeMap::new(), &given).unwrap();
        let expected: [[&[i64]; 3]; 3] = [
            [&[1, 1], &[8, 1], &[8, 64]],
            [&[1, 1], &[8, 257], &[8, 1088]],
            [&[1, 3, 0, 64], &[8, 3, 256, 64], &[8, 3, 1024, 64]],
        ];
        for (input, expected) in inputs.iter().zip(expected) {
            let Range { min, opt, max } = &ranges[&input.name];
            assert_eq!([min.as_slice(), opt.as_slice(), max.as_slice()], expected, "{}", input.name);
        }
    }

    #[test]
    fn shapes_outside_a_range_are_not_allowed() {
        let range = Range { min: vec![1, 3], opt: vec![4, 3], max: vec![8, 3] };
        let table: [(&[i64], bool); 6] = [
            (&[1, 3], true),
            (&[8, 3], true),
            (&[9, 3], false),
            (&[0, 3], false),
            (&[4, 2], false),
            (&[4], false),
        ];
        for (shape, allowed) in table {
            assert_eq!(range.allows(shape), allowed, "{shape:?}");
        }
    }

    #[test]
    fn what_is_asked_for_must_fit_the_network() {
        let inputs = [input("x", Dtype::F32, &[-1, 3])];
        let chosen =
            |profile: Value| choose_ranges(&inputs, &BTreeMap::new(), &options(json!({"profiles": profile})));
        let good = chosen(json!({"x": {"min": [2, 3], "max": [6, 3]}})).unwrap();
        assert_eq!(good["x"], Range { min: vec![2, 3], opt: vec![6, 3], max: vec![6, 3] });
        let cases = [
            (json!({"y": {"min": [1, 3], "max": [2, 3]}}), "the network has no input `y`; it has `x`"),
            (json!({"x": {"min": [1], "max": [2, 3]}}), "input `x` has 2 dimensions, `min` has 1"),
            (
                json!({"x": {"min": [1, 3], "max": [2, 4]}}),
                "input `x` has a dimension of 3 in the file, `opt` says 4",
            ),
            (json!({"x": {"min": [3, 3], "max": [2, 3]}}), "needs 0 ≤ min ≤ opt ≤ max"),
            (json!({"x": {"min": [-1, 3], "max": [2, 3]}}), "needs 0 ≤ min ≤ opt ≤ max"),
            (json!({"x": {"min": [1, 3], "opt": [9, 3], "max": [2, 3]}}), "needs 0 ≤ min ≤ opt ≤ max"),
        ];
        for (profile, expected) in cases {
            let error = chosen(profile).unwrap_err();
            assert!(error.message().starts_with("option `profiles`: "), "{error}");
            assert!(error.message().contains(expected), "{expected}: {error}");
        }
        let deep = [input("x", Dtype::F32, &[-1; 9])];
        assert!(
            choose_ranges(&deep, &BTreeMap::new(), &Options::default())
                .unwrap_err()
                .message()
                .contains("9 dimensions")
        );
    }
}
