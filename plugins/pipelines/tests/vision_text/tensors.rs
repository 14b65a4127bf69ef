//! The task `infer`.

use pajamas_pipelines::{Pipeline, open};
use pajamas_plugin_api::{Dtype, ErrorKind, Part, Task, Tensor};
use serde_json::json;

use crate::fake::{FakeNetwork, FakeNetworks, FakeValue, spec};
use crate::support::{ask, ask_cancelled, object};

/// `sum` is a + b, `twice` is a + a.
fn adder() -> Box<dyn Pipeline> {
    let folder = tempfile::tempdir().unwrap();
    let network = FakeNetwork::new(
        vec![spec("a", Dtype::F32, &[0, 2]), spec("b", Dtype::F32, &[0, 2])],
        vec![spec("sum", Dtype::F32, &[0, 2]), spec("twice", Dtype::F32, &[0, 2])],
        |inputs, output| {
            let a = inputs["a"].as_f32s();
            let b = if output == "sum" { inputs["b"].as_f32s() } else { a.clone() };
            let sum: Vec<f32> = a.iter().zip(b).map(|(a, b)| a + b).collect();
            FakeValue::f32s(&inputs["a"].shape, &sum)
        },
    );
    let networks = FakeNetworks::new(folder.path(), &[("adder.onnx", network)]);
    open(&folder.path().join("adder.onnx"), &object(json!({})), &networks).unwrap()
}

fn tensor(name: &str, shape: &[i64], numbers: &[f32]) -> Part {
    let data = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
    Part::Tensor(Tensor { name: name.to_owned(), dtype: Dtype::F32, shape: shape.to_vec(), data })
}

#[test]
fn outputs_come_in_the_order_that_was_asked_for() {
    let parts = || vec![tensor("b", &[1, 2], &[10.0, 20.0]), tensor("a", &[1, 2], &[1.0, 2.0])];
    let cases: [(serde_json::Value, &[(&str, f32)]); 3] = [
        (json!({}), &[("sum", 11.0), ("twice", 2.0)]),
        (json!({ "outputs": ["twice", "sum"] }), &[("twice", 2.0), ("sum", 11.0)]),
        (json!({ "outputs": ["sum"] }), &[("sum", 11.0)]),
    ];
    for (params, expected) in cases {
        let answer = ask(&*adder(), Task::Infer, params, parts()).unwrap();
        let found: Vec<_> = answer
            .tensors
            .iter()
            .map(|tensor| (tensor.name.as_str(), f32::from_ne_bytes(tensor.data[..4].try_into().unwrap())))
            .collect();
        assert_eq!(found, expected);
        assert!(answer.tensors.iter().all(|tensor| tensor.shape == [1, 2] && tensor.dtype == Dtype::F32));
    }
    assert!(ask_cancelled(&*adder(), Task::Infer, parts()).tensors.is_empty());
}

#[test]
fn tensors_that_do_not_fit_are_named_with_what_does() {
    let a = || tensor("a", &[1, 2], &[1.0, 2.0]);
    let b = || tensor("b", &[1, 2], &[1.0, 2.0]);
    let ids = Part::Tensor(Tensor {
        name: "b".to_owned(),
        dtype: Dtype::I64,
        shape: vec![1, 2],
        data: vec![0; 16],
    });
    let cases = [
        (vec![a()], json!({}), "the input `b` is missing: f32[?, 2]"),
        (vec![a(), b(), b()], json!({}), "the input `b` was sent twice"),
        (
            vec![a(), tensor("c", &[1], &[0.0])],
            json!({}),
            "no input `c`; the network has `a` (f32[?, 2]), `b`",
        ),
        (
            vec![a(), tensor("b", &[1, 3], &[0.0; 3])],
            json!({}),
            "`b` was sent as f32[1, 3], and the network takes f32[?, 2]",
        ),
        (vec![a(), tensor("b", &[2], &[0.0; 2])], json!({}), "`b` was sent as f32[2]"),
        (vec![a(), tensor("b", &[-1, 2], &[])], json!({}), "`b` was sent as f32[-1, 2]"),
        (vec![a(), ids], json!({}), "`b` was sent as i64[1, 2]"),
        (vec![a(), b()], json!({ "outputs": ["product"] }), "no output `product`; the network has `sum`"),
        (vec![a(), Part::text("b")], json!({}), "infer takes tensors"),
        (vec![a(), b()], json!({ "outputs": "sum" }), "parameters of infer"),
    ];
    for (parts, params, expected) in cases {
        let error = ask(&*adder(), Task::Infer, params, parts).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.message().contains(expected), "{error}");
    }
    let error = ask(&*adder(), Task::Detect, json!({}), vec![a()]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.message(), "this model does not offer the task detect; it offers infer");
}
