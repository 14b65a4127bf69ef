//! One session at a time: types, shapes, caches, errors, cancellation.

use pajamas_onnx::options::Options;
use pajamas_onnx::{OnnxSession, Provider};
use pajamas_pipelines::{TensorRunner, Value};
use pajamas_plugin_api::{Dtype, ErrorKind, TensorView, shape_bytes};

use crate::onnx_writer::{bytes, model, tensor_info, weights};
use crate::support::{attribute, floats, library, node, open, options, session, value};

/// `TensorProto.DataType` of each type that this API has.
const TYPES: [(u64, Dtype); 13] = [
    (1, Dtype::F32),
    (2, Dtype::U8),
    (3, Dtype::I8),
    (4, Dtype::U16),
    (5, Dtype::I16),
    (6, Dtype::I32),
    (7, Dtype::I64),
    (9, Dtype::Bool),
    (10, Dtype::F16),
    (11, Dtype::F64),
    (12, Dtype::U32),
    (13, Dtype::U64),
    (16, Dtype::Bf16),
];

fn identity(kind: u64) -> Vec<u8> {
    model(&[
        bytes(1, node("Identity", &["x"], "y", &[])),
        bytes(11, tensor_info("x", kind, &[-1, 3])),
        bytes(12, tensor_info("y", kind, &[-1, 3])),
    ])
}

/// A cache that grows: the past, and below it the new rows.
fn cache() -> Vec<u8> {
    model(&[
        bytes(1, node("Concat", &["past", "new"], "present", &[attribute("axis", 0)])),
        bytes(11, tensor_info("past", 1, &[-1, 2])),
        bytes(11, tensor_info("new", 1, &[-2, 2])),
        bytes(12, tensor_info("present", 1, &[-3, 2])),
    ])
}

#[test]
fn every_type_goes_in_and_comes_out() {
    for (kind, dtype) in TYPES {
        let Some(session) = session(&identity(kind)) else { return };
        let session = session.unwrap();
        assert_eq!(
            (session.inputs()[0].dtype, session.inputs()[0].shape.as_slice()),
            (dtype, &[None, Some(3)][..])
        );
        assert_eq!(session.metadata().get("task").map(String::as_str), Some("none"));
        for rows in [0_i64, 1, 5] {
            let len = shape_bytes(dtype, &[rows, 3]).unwrap();
            let data: Vec<u8> =
                (0..len).map(|index| if dtype == Dtype::Bool { index % 2 } else { index } as u8).collect();
            let x = session.value(&TensorView { name: "x", dtype, shape: &[rows, 3], data: &data }).unwrap();
            let y = session.run(&[("x", &x)], &["y", "y"]).unwrap();
            assert_eq!(y.len(), 2, "in the order that was asked for, and as often");
            assert_eq!(
                (y[1].dtype(), y[1].shape(), y[1].bytes().unwrap().as_ref()),
                (dtype, &[rows, 3][..], data.as_slice())
            );
        }
    }
}

#[test]
fn a_cache_goes_from_run_to_run() {
    let Some(session) = session(&cache()) else { return };
    let session = session.unwrap();
    let mut past = value(&session, &[0, 2], &[]);
    for step in 1..=4 {
        let new = value(&session, &[1, 2], &[step as f32, -(step as f32)]);
        past = session.run(&[("new", &new), ("past", &past)], &["present"]).unwrap().remove(0);
        assert_eq!(past.shape(), [i64::from(step), 2]);
    }
    assert_eq!(floats(&past), [1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 4.0, -4.0]);
    // A clone is the same memory.
    assert_eq!(past.clone().bytes().unwrap().as_ptr(), past.bytes().unwrap().as_ptr());
}

#[test]
fn integers_of_eight_bits_are_multiplied() {
    let file = model(&[
        bytes(1, node("MatMulInteger", &["x", "w"], "y", &[])),
        bytes(5, weights("w", 3, &[2, 2], &[1, 2, 3, 0xff])),
        bytes(11, tensor_info("x", 2, &[-1, 2])),
        bytes(12, tensor_info("y", 6, &[-1, 2])),
    ]);
    let Some(session) = session(&file) else { return };
    let session = session.unwrap();
    let x = TensorView { name: "x", dtype: Dtype::U8, shape: &[1, 2], data: &[10, 200] };
    let x = session.value(&x).unwrap();
    let y = session.run(&[("x", &x)], &["y"]).unwrap();
    let expected: Vec<u8> = [610_i32, -180].iter().flat_map(|number| number.to_ne_bytes()).collect();
    assert_eq!((y[0].dtype(), y[0].bytes().unwrap().as_ref()), (Dtype::I32, expected.as_slice()));
}

#[test]
fn tensors_that_do_not_fit_are_named_with_what_is_expected() {
    let Some(session) = session(&cache()) else { return };
    let session = session.unwrap();
    let good = value(&session, &[1, 2], &[1.0, 2.0]);
    let wide = value(&session, &[1, 3], &[1.0, 2.0, 3.0]);
    let flat = value(&session, &[2], &[1.0, 2.0]);
    let ints = TensorView { name: "", dtype: Dtype::I32, shape: &[0, 2], data: &[] };
    let ints = session.value(&ints).unwrap();
    let cases = [
        (
            vec![("past", &good)],
            vec!["present"],
            "input `new` is missing, a tensor of type F32 and shape [?, 2]",
        ),
        (vec![("past", &good), ("now", &good)], vec!["present"], "no input `now`; it has `past`, `new`"),
        (vec![("new", &good), ("new", &good)], vec!["present"], "input `new` is given twice"),
        (
            vec![("past", &wide), ("new", &good)],
            vec!["present"],
            "input `past` has the shape [1, 3], expected [?, 2]",
        ),
        (
            vec![("past", &flat), ("new", &good)],
            vec!["present"],
            "input `past` has the shape [2], expected [?, 2]",
        ),
        (
            vec![("past", &good), ("new", &ints)],
            vec!["present"],
            "input `new` has the type I32, expected F32",
        ),
        (vec![("past", &good), ("new", &good)], vec!["future"], "no output `future`; it has `present`"),
    ];
    for (inputs, outputs, expected) in cases {
        let error = session.run(&inputs, &outputs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains(expected), "{expected}: {error}");
    }
    for (shape, data) in [(&[2_i64, 2][..], &[0; 15][..]), (&[-1, 2], &[]), (&[i64::MAX, 2], &[])] {
        let error = session.value(&TensorView { name: "", dtype: Dtype::F32, shape, data }).unwrap_err();
        assert!(error.message().contains("a tensor of shape"), "{error}");
    }
    let bad = TensorView { name: "", dtype: Dtype::Bool, shape: &[1], data: &[2] };
    assert!(session.value(&bad).unwrap_err().message().contains("other than 0 and 1"));
}

#[test]
fn files_that_are_no_models_are_refused_by_name() {
    let unknown = model(&[
        bytes(1, node("NoSuchOperator", &["x"], "y", &[])),
        bytes(11, tensor_info("x", 1, &[1])),
        bytes(12, tensor_info("y", 1, &[1])),
    ]);
    let whole = identity(1);
    for content in [&unknown[..], &whole[..whole.len() / 2], b"", b"garbage garbage garbage"] {
        let Some(session) = session(content) else { return };
        let error = session.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadModel, "{error}");
        assert!(error.message().contains("model.onnx"), "{error}");
    }
    let error = open(std::path::Path::new("/nowhere/model.onnx"), &options()).unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotFound | ErrorKind::BadModel), "{error}");
}

#[test]
fn a_provider_that_the_library_lacks_is_named_with_those_that_it_has() {
    let missing = Options { execution_providers: vec![Provider::Cuda, Provider::Cpu], ..options() };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    std::fs::write(&file, identity(1)).unwrap();
    match open(&file, &missing) {
        // Where a library with CUDA was put, its driver decides.
        None | Some(Ok(_)) => {}
        Some(Err(error)) => {
            let message = error.message();
            assert!(message.contains("`execution_providers`"), "{message}");
            assert!(error.kind() != ErrorKind::Invalid || message.contains("`cpu`"), "{message}");
        }
    }
}

#[test]
fn every_option_of_the_engine_makes_a_working_session() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    std::fs::write(&file, identity(1)).unwrap();
    let base = options();
    let with = |change: &dyn Fn(&mut Options)| {
        let mut options = base.clone();
        change(&mut options);
        options
    };
    let cases = [
        with(&|options| options.inter_threads = 2),
        with(&|options| options.spin_us = Some(0)),
        with(&|options| options.memory_arena = !options.memory_arena),
        with(&|options| options.memory_pattern = !options.memory_pattern),
        with(&|options| options.warm_up = !options.warm_up),
        with(&|options| options.threads = None),
    ];
    let levels = ["none", "basic", "extended", "all"].map(|level| {
        let options = serde_json::json!({"graph_optimization": level, "execution_providers": ["cpu"]});
        Options::parse(options.as_object().unwrap()).unwrap()
    });
    for options in cases.iter().chain(&levels) {
        let Some(session) = open(&file, options) else { return };
        let session = session.unwrap();
        let x = value(&session, &[1, 3], &[1.0, 2.0, 3.0]);
        assert_eq!(floats(&session.run(&[("x", &x)], &["y"]).unwrap()[0]), [1.0, 2.0, 3.0], "{options:?}");
    }
}

#[test]
fn a_load_that_is_not_wanted_is_given_up() {
    let Some(library) = library() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    std::fs::write(&file, identity(1)).unwrap();
    // It may have been done before anybody looked.
    if let Err(error) = OnnxSession::open(library, &file, &options(), || true) {
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    }
}
