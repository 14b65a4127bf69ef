//! Requests that are read, and requests that are refused with the tensor's name.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn read(body: &Value) -> Result<InferSpec, ApiError> {
    InferSpec::read(&HeaderMap::new(), &body.to_string().into())
}

fn read_binary(body: &Value, binary: &[u8]) -> Result<InferSpec, ApiError> {
    let json = body.to_string();
    let headers = HeaderMap::from_iter([(JSON_LENGTH, json.len().into())]);
    InferSpec::read(&headers, &[json.as_bytes(), binary].concat().into())
}

fn input(datatype: &str, shape: Value, data: Value) -> Value {
    json!({"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data}]})
}

#[test]
fn elements_of_every_type_are_read_flat_and_nested() {
    let table: [(&str, Value, Vec<u8>); 12] = [
        ("BOOL", json!([true, false]), vec![1, 0]),
        ("INT8", json!([-128, 127]), vec![128, 127]),
        ("INT16", json!([-2, 1]), [-2_i16, 1].map(i16::to_ne_bytes).concat()),
        ("INT32", json!([[-2], [1]]), [-2_i32, 1].map(i32::to_ne_bytes).concat()),
        ("INT64", json!([i64::MIN, i64::MAX]), [i64::MIN, i64::MAX].map(i64::to_ne_bytes).concat()),
        ("UINT8", json!([0, 255]), vec![0, 255]),
        ("UINT16", json!([0, 65535]), [0_u16, 65535].map(u16::to_ne_bytes).concat()),
        ("UINT32", json!([[0, 1]]), [0_u32, 1].map(u32::to_ne_bytes).concat()),
        ("UINT64", json!([0, u64::MAX]), [0, u64::MAX].map(u64::to_ne_bytes).concat()),
        ("FP32", json!([0.1, 3]), [0.1_f32, 3.0].map(f32::to_ne_bytes).concat()),
        ("FP64", json!([[[0.1], [-3]]]), [0.1_f64, -3.0].map(f64::to_ne_bytes).concat()),
        ("FP32", json!([-0.5, 1e-45]), [-0.5_f32, 1e-45].map(f32::to_ne_bytes).concat()),
    ];
    for (datatype, data, bytes) in table {
        let spec = read(&input(datatype, json!([2, 1]), data)).unwrap();
        assert_eq!(spec.inputs[0].data, bytes, "{datatype}");
        assert_eq!(datatype::name(spec.inputs[0].dtype), datatype);
        assert_eq!(spec.inputs[0].shape, [2, 1]);
    }
    assert!(read(&input("FP32", json!([0, 4]), json!([]))).unwrap().inputs[0].data.is_empty());
    assert_eq!(read(&input("INT8", json!([]), json!([7]))).unwrap().inputs[0].data, [7]);
}

#[test]
fn what_does_not_fit_is_refused_with_the_tensors_name() {
    let table = [
        (json!({}), "inputs: missing"),
        (json!({"inputs": []}), "inputs: missing"),
        (json!({"inputs": [{"datatype": "FP32"}]}), "inputs[0].name: missing"),
        (json!({"inputs": [{"name": "x"}]}), "input \"x\": missing, expected a datatype"),
        (json!({"inputs": [{"name": "x", "datatype": "INT8"}]}), "input \"x\": missing, expected a shape"),
        (json!({"inputs": [{"name": "x", "datatype": "INT8", "shape": [1]}]}), "input \"x\": expected data"),
        (input("BYTES", json!([1]), json!(["a"])), "input \"x\": is not base64"),
        (input("float", json!([1]), json!([1])), "input \"x\": datatype: expected one of BOOL,"),
        (
            input("FP16", json!([1]), json!([1])),
            "input \"x\": FP16 has no form in JSON: send it as binary data",
        ),
        (input("BF16", json!([1]), json!([1])), "input \"x\": BF16 has no form in JSON"),
        (input("FP32", json!([-1]), json!([1])), "input \"x\": shape: expected up to 16 lengths from 0"),
        (input("FP32", json!([i64::MAX, 4]), json!([1])), "input \"x\": shape: expected"),
        (input("FP32", json!(vec![1; 17]), json!([1])), "input \"x\": shape: expected up to 16"),
        (
            input("FP32", json!([2, 3]), json!([1, 2])),
            "input \"x\": data of shape [2, 3]: expected 6 elements, got 2",
        ),
        (input("FP32", json!([1]), json!([1, 2])), "input \"x\": data of shape [1]: it has more elements"),
        (input("FP32", json!([1]), json!(1)), "input \"x\": data of shape [1]: expected an array"),
        (input("FP32", json!([1]), json!([1e39])), "expected numbers within FP32"),
        (input("FP32", json!([1]), json!(["1"])), "expected numbers within FP32"),
        (input("FP32", json!([1]), json!([true])), "expected numbers within FP32"),
        (input("FP32", json!([1]), json!([null])), "expected numbers within FP32"),
        (input("INT8", json!([1]), json!([128])), "expected whole numbers from -128 to 127"),
        (input("INT8", json!([1]), json!([0.5])), "expected whole numbers from -128 to 127"),
        (input("UINT64", json!([1]), json!([-1])), "expected whole numbers from 0 to 18446744073709551615"),
        (input("BOOL", json!([1]), json!([1])), "expected true or false"),
        (json!({"inputs": [{"name": "x", "shape": "wide"}]}), "inputs[0].shape: expected an array"),
        (json!({"inputs": vec![json!({}); 200]}), "inputs: expected up to"),
    ];
    for (body, message) in table {
        let error = read(&body).unwrap_err();
        assert!(error.to_string().contains(message), "{body}: {error}");
        assert_eq!(error.status(), 400, "{body}");
    }
}

#[test]
fn options_that_nobody_here_has_are_refused() {
    let with = |field: &str, value: Value| {
        let mut body = input("INT8", json!([1]), json!([1]));
        body[field] = value;
        body
    };
    let output = |parameters| with("outputs", json!([{"name": "y", "parameters": parameters}]));
    let mut shared = input("INT8", json!([1]), json!([1]));
    shared["inputs"][0]["parameters"] = json!({"shared_memory_region": "r"});
    let table = [
        (with("parameters", json!({"sequence_id": 3})), "sequence_id: not supported"),
        (with("parameters", json!({"timeout": 3})), "x-request-timeout"),
        (with("parameters", json!({"priority": 3})), "x-priority"),
        (output(json!({"classification": 3})), "output \"y\": not supported"),
        (output(json!({"shared_memory_region": "r"})), "output \"y\": not supported"),
        (with("outputs", json!([{}])), "outputs[0].name: missing"),
        (shared, "input \"x\": not supported"),
    ];
    for (body, message) in table {
        let error = read(&body).unwrap_err();
        assert!(error.to_string().contains(message), "{body}: {error}");
    }
    read(&output(json!({"classification": 0}))).unwrap();
}

fn binary_input(name: &str, datatype: &str, shape: &[i64], size: usize) -> Value {
    json!({"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}})
}

#[test]
fn binary_data_go_to_their_inputs_in_order() {
    let body = json!({
        "id": "7",
        "inputs": [
            binary_input("a", "FP16", &[2], 4),
            {"name": "b", "datatype": "INT8", "shape": [1], "data": [5]},
            binary_input("c", "BOOL", &[1, 2], 2),
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": false}}, {"name": "z"}],
        "parameters": {"binary_data_output": true},
    });
    let spec = read_binary(&body, &[1, 2, 3, 4, 1, 0]).unwrap();
    let data: Vec<&[u8]> = spec.inputs.iter().map(|input| input.data.as_slice()).collect();
    assert_eq!(data, [&[1, 2, 3, 4][..], &[5], &[1, 0]]);
    assert_eq!((spec.id.as_deref(), spec.is_binary), (Some("7"), true));
    assert_eq!(spec.wanted.iter().map(|wanted| wanted.is_binary).collect::<Vec<_>>(), [Some(false), None]);
}

#[test]
fn binary_data_that_do_not_fit_are_refused() {
    let one = |input: Value| json!({ "inputs": [input] });
    let mut both = binary_input("x", "INT8", &[1], 1);
    both["data"] = json!([1]);
    let two = json!({"inputs": [binary_input("x", "INT8", &[1], 1), binary_input("x", "INT8", &[1], 1)]});
    let table: [(Value, &[u8], &str); 7] = [
        (one(binary_input("x", "FP32", &[2], 4)), &[0; 4], "its shape takes 8 bytes, binary_data_size is 4"),
        (one(binary_input("x", "FP32", &[1], 4)), &[0; 3], "expected 4 bytes of binary data, 3 are left"),
        (one(binary_input("x", "FP32", &[1], 4)), &[0; 5], "1 bytes of binary data belong to no input"),
        (one(binary_input("x", "BOOL", &[1], 1)), &[2], "expected bytes of 0 or 1"),
        (one(binary_input("x", "BYTES", &[1], 4)), &[9, 0, 0, 0], "expected the file's length in four bytes"),
        (one(both), &[1], "exclude each other"),
        (two, &[1, 1], "input \"x\": it is there twice"),
    ];
    for (body, binary, message) in table {
        let error = read_binary(&body, binary).unwrap_err();
        assert!(error.to_string().contains(message), "{body}: {error}");
    }
    let body = one(binary_input("x", "INT8", &[1], 1)).to_string();
    for length in ["-1", "x", "100000"] {
        let headers = HeaderMap::from_iter([(JSON_LENGTH, length.parse().unwrap())]);
        let error = InferSpec::read(&headers, &Bytes::from(body.clone())).unwrap_err();
        assert!(error.to_string().contains("inference-header-content-length: expected"), "{error}");
    }
    let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, "gzip".parse().unwrap())]);
    assert_eq!(InferSpec::read(&headers, &Bytes::new()).unwrap_err().status(), 415);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200), length in 0_usize..300) {
        let headers = HeaderMap::from_iter([(JSON_LENGTH, length.into())]);
        let _ = InferSpec::read(&headers, &Bytes::from(body));
    }

    #[test]
    fn any_json_at_all_places_is_read_or_refused(data in "[\\[\\]0-9.,truefalsn\"e-]{0,60}") {
        let body = format!(r#"{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": [2], "data": {data}}}]}}"#);
        let _ = InferSpec::read(&HeaderMap::new(), &Bytes::from(body));
    }

    #[test]
    fn numbers_survive_both_ways(numbers in prop::collection::vec(-1e38_f32..1e38, 1..20)) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        let written = serde_json::to_value(datatype::JsonElements(Dtype::F32, &bytes)).unwrap();
        let spec = read(&input("FP32", json!([numbers.len()]), written)).unwrap();
        prop_assert_eq!(&spec.inputs[0].data, &bytes);
    }
}
