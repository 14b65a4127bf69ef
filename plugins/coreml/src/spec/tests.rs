//! Specifications that coremltools wrote (`testdata/make_packages.py`), whole and damaged.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

fn file(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    if path.is_dir() { path.join("Data/com.apple.CoreML/model.mlmodel") } else { path }
}

fn read(bytes: &[u8]) -> Result<Spec, String> {
    Spec::read(Cursor::new(bytes), bytes.len() as u64).map_err(|error| error.to_string())
}

fn spec(name: &str) -> Spec {
    read(&std::fs::read(file(name)).unwrap()).unwrap()
}

fn array(name: &str, dtype: Dtype, shape: &[Option<usize>]) -> Feature {
    let kind = Some(FeatureKind::Array(Array { dtype, shape: shape.to_vec() }));
    Feature { name: name.to_owned(), kind, ..Feature::default() }
}

#[test]
fn a_classifier_of_pictures_tells_its_picture_and_its_classes() {
    let spec = spec("classifier.mlpackage");
    assert_eq!((spec.version, spec.kind), (7, "mlProgram"));
    let image = Image { width: Some(16), height: Some(16), color: Color::Rgb };
    assert_eq!(spec.main.inputs.len(), 1);
    assert_eq!(spec.main.inputs[0].kind, Some(FeatureKind::Image(image)));
    let kinds: Vec<_> = spec.main.outputs.iter().map(|output| output.kind.clone()).collect();
    assert_eq!(kinds, [Some(FeatureKind::Text), Some(FeatureKind::Dictionary)]);
    assert_eq!(spec.main.predicted, "classLabel");
    assert_eq!(spec.main.probabilities, "classLabel_probs");
    assert_eq!(spec.labels, ["red", "green", "blue", "it's none"]);
    for (name, text) in [
        ("author", "pajamas-host"),
        ("license", "MIT"),
        ("version", "2.1"),
        ("description", "Which colour a picture has most of."),
        ("trained_on", "nothing"),
    ] {
        assert_eq!(spec.metadata[name], text);
    }
}

#[test]
fn flexible_shapes_are_told_and_shapes_of_outputs_come_from_the_program() {
    let spec = spec("encoder.mlpackage");
    assert_eq!(spec.main.inputs, [array("input_ids", Dtype::I32, &[Some(1), None])]);
    assert_eq!(
        spec.main.outputs,
        [
            array("last_hidden_state", Dtype::F32, &[Some(1), None, Some(4)]),
            array("pooled", Dtype::F32, &[Some(1), Some(4)])
        ]
    );
}

#[test]
fn states_and_functions_are_told() {
    let counter = spec("counter.mlpackage");
    assert_eq!(counter.version, 9);
    assert_eq!(counter.main.states, [array("total", Dtype::F16, &[Some(1), Some(4)])]);
    assert_eq!(counter.function(None), Some(&counter.main));
    assert_eq!(counter.function(Some("main")), None);

    let functions = spec("functions.mlpackage");
    assert_eq!(functions.main.name, "triple");
    let double = functions.function(Some("double")).unwrap();
    assert_eq!(double.outputs, [array("y", Dtype::F32, &[Some(1), Some(4)])]);
    assert_eq!(functions.functions, std::slice::from_ref(double));
    assert_eq!(functions.function(Some("triple")), Some(&functions.main));
}

#[test]
fn networks_before_programs_are_told_alone_and_in_a_pipeline() {
    for (name, kind) in
        [("network.mlmodel", "neuralNetworkClassifier"), ("pipeline.mlmodel", "pipelineClassifier")]
    {
        let spec = spec(name);
        assert_eq!(spec.kind, kind);
        assert_eq!(spec.main.inputs, [array("x", Dtype::F64, &[Some(3)])], "{name}");
        assert_eq!(spec.labels, ["7", "9"], "{name}");
        assert_eq!(spec.main.predicted, "best", "{name}");
    }
}

#[test]
fn what_is_no_specification_is_refused_with_a_reason() {
    let good = std::fs::read(file("encoder.mlpackage")).unwrap();
    let mut nested = vec![8, 7, 4 << 3 | 2, 0];
    for _ in 0..12 {
        // Field 202 of a model, field 1 of a pipeline.
        let inner = [&[1 << 3 | 2][..], &varint(nested.len()), &nested].concat();
        nested = [&[8, 7, 0xd2, 0x0c][..], &varint(inner.len()), &inner].concat();
    }
    let cases: [(&[u8], &str); 6] = [
        (b"", "is not a CoreML model"),
        (b"{\"json\": 1}", "no protobuf message"),
        (&[8, 7], "is not a CoreML model"),
        (&good[..good.len() - 1], "is cut off or damaged"),
        (&good[..40], "is cut off or damaged"),
        (&nested, "more than 8 models inside one another"),
    ];
    for (bytes, expected) in cases {
        let message = read(bytes).unwrap_err();
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 & 0x7f | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[test]
fn lists_have_an_end() {
    // Field 1 of the description, as often as is allowed and once more.
    let description = [10, 0].repeat(ENTRIES_MAX + 1);
    let bytes = [&[8, 7, 2 << 3 | 2][..], &varint(description.len()), &description].concat();
    let message = read(&bytes).unwrap_err();
    assert!(message.contains("more than 4096 entries"), "{message}");
}

const NAMES: [&str; 6] = [
    "classifier.mlpackage",
    "encoder.mlpackage",
    "counter.mlpackage",
    "functions.mlpackage",
    "network.mlmodel",
    "pipeline.mlmodel",
];

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
    }

    #[test]
    fn a_specification_with_flipped_bytes_is_read_or_refused(
        name in prop::sample::select(&NAMES[..]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = std::fs::read(file(name)).unwrap();
        for (index, value) in flips {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        let _ = read(&bytes);
        let _ = read(&bytes[..cut.index(bytes.len())]);
    }
}
