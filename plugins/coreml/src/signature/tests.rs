//! Functions as tensors.

use super::*;
use crate::spec::{Array, Image};

fn feature(name: &str, kind: FeatureKind) -> Feature {
    Feature { name: name.to_owned(), kind: Some(kind), ..Feature::default() }
}

fn array(name: &str, shape: &[Option<usize>]) -> Feature {
    feature(name, FeatureKind::Array(Array { dtype: Dtype::F32, shape: shape.to_vec() }))
}

fn picture(name: &str) -> Feature {
    let image = Image { width: Some(32), height: Some(16), color: Color::Rgb };
    feature(name, FeatureKind::Image(image))
}

fn shapes(ports: &[Port]) -> Vec<Vec<Option<usize>>> {
    ports.iter().map(|port| port.spec.shape.clone()).collect()
}

fn function(inputs: Vec<Feature>, outputs: Vec<Feature>) -> Function {
    Function { inputs, outputs, ..Function::default() }
}

#[test]
fn pictures_and_probabilities_have_as_many_rows_as_a_run_wants() {
    let mut function = function(
        vec![picture("image")],
        vec![
            feature("label", FeatureKind::Text),
            feature("p", FeatureKind::Dictionary),
            array("v", &[Some(1), Some(8)]),
        ],
    );
    let labels = ["a".to_owned(), "b".to_owned()];
    let signature = Signature::of(&function, &labels).unwrap();
    assert!(signature.has_rows);
    assert_eq!(shapes(&signature.inputs), [[None, Some(16), Some(32), Some(3)]]);
    assert_eq!(signature.inputs[0].spec.dtype, Dtype::U8);
    assert_eq!(shapes(&signature.outputs), [[None, Some(2)], [None, Some(8)]], "a text is no tensor");

    let mut unknown = Signature::of(&function, &[]).unwrap();
    assert_eq!(unknown.outputs[0].spec.shape, [None, None]);
    unknown.name_classes(&labels);
    assert_eq!(unknown.outputs, signature.outputs);

    function.states = vec![array("kv", &[Some(1), Some(8)])];
    let signature = Signature::of(&function, &labels).unwrap();
    assert!(!signature.has_rows, "runs share a state");
    assert_eq!(signature.inputs[0].spec.shape[0], Some(1));
}

#[test]
fn a_first_dimension_that_is_no_row_stays() {
    for (inputs, outputs) in [
        (vec![array("x", &[Some(1)])], vec![array("y", &[Some(1), Some(2)])]),
        (vec![array("x", &[Some(1), Some(3)])], vec![array("y", &[Some(4), Some(2)])]),
        (vec![array("x", &[None, Some(3)])], vec![array("y", &[None, Some(2)])]),
        (
            vec![array("x", &[Some(1), Some(3)]), feature("n", FeatureKind::Int64)],
            vec![array("y", &[Some(1), Some(2)])],
        ),
    ] {
        let expected = [&inputs, &outputs].into_iter().flatten().map(|feature| match &feature.kind {
            Some(FeatureKind::Array(array)) => array.shape.clone(),
            _ => Vec::new(),
        });
        let expected: Vec<_> = expected.collect();
        let signature = Signature::of(&function(inputs, outputs), &[]).unwrap();
        assert!(!signature.has_rows);
        assert_eq!([shapes(&signature.inputs), shapes(&signature.outputs)].concat(), expected);
    }
}

#[test]
fn inputs_that_are_no_numbers_are_refused_unless_they_may_be_left_out() {
    for kind in [FeatureKind::Text, FeatureKind::Dictionary, FeatureKind::Sequence] {
        let mut text = feature("words", kind);
        let message = Signature::of(&function(vec![text.clone()], Vec::new()), &[]).unwrap_err();
        assert!(message.contains("`words`"), "{message}");
        text.is_optional = true;
        assert_eq!(Signature::of(&function(vec![text], Vec::new()), &[]).unwrap().inputs, []);
    }
}
