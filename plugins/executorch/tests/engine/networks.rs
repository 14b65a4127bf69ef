//! One method at a time: numbers, types, shapes, methods, names, errors.

use pajamas_executorch::options::{DynamicDims, Options};
use pajamas_executorch::{Program, Slot};
use pajamas_pipelines::{TensorRunner, Value};
use pajamas_plugin_api::{Dtype, ErrorKind, TensorView};

use crate::support::{Numbers, cases, check, file, floats, library, open, options, patched, run, value};

#[test]
fn programs_compute_what_pytorch_does() {
    let names = ["add_mul", "conv_xnnpack", "conv_portable", "types", "methods", "colours", "channels_last"];
    for name in names {
        let Some(network) = open(&file(&format!("{name}.pte")), &options()) else { return };
        check(&network.unwrap(), &format!("{name}.json"));
    }
}

#[test]
fn a_description_is_read_without_the_engine() {
    let program = Program::open(&file("conv_xnnpack.pte")).unwrap();
    let method = program.method(None).unwrap();
    assert_eq!(method.name, "forward");
    assert_eq!(method.delegates.iter().collect::<Vec<_>>(), ["XnnpackBackend"]);
    let [Slot::Tensor(port)] = method.inputs.as_slice() else { panic!("{method:?}") };
    assert_eq!((port.dtype, port.sizes.as_slice(), port.is_dynamic), (Dtype::F32, &[8, 3, 8, 8][..], true));
    let portable = Program::open(&file("conv_portable.pte")).unwrap();
    let method = portable.method(None).unwrap();
    assert!(method.delegates.is_empty());
    assert!(method.operators.iter().any(|name| name.starts_with("aten::convolution")), "{method:?}");
    assert_eq!(method.parameters, 3 * 4 * 9 + 4 + 4 * 5 + 5);
    assert!(Program::open(&file("counter.pte")).unwrap().method(None).unwrap().has_state);
    assert!(!method.has_state);
    let facts = Program::open(&file("colours.pte")).unwrap().metadata();
    assert_eq!(facts.get("task").map(String::as_str), Some("classify"));
}

#[test]
fn methods_are_chosen_by_name_and_the_others_listed() {
    let path = file("methods.pte");
    let negate = Options { method: Some("negate".to_owned()), ..options() };
    let Some(network) = open(&path, &negate) else { return };
    let input = &cases("methods.json")[0].inputs;
    let results = run(&network.unwrap(), input).unwrap();
    let negated: Vec<f32> = floats(&input[0].data).iter().map(|number| -number).collect();
    assert_eq!(floats(&results[0].bytes().unwrap()), negated);

    let unknown = Options { method: Some("encode".to_owned()), ..options() };
    let error = open(&path, &unknown).unwrap().err().unwrap();
    for word in ["`method`", "`encode`", "`forward`", "`negate`"] {
        assert!(error.message().contains(word), "{word}: {error}");
    }
}

#[test]
fn names_come_from_options_the_program_or_numbers() {
    let Some(plain) = open(&file("add_mul.pte"), &options()) else { return };
    let plain = plain.unwrap();
    let names = |specs: &[pajamas_pipelines::TensorSpec]| {
        specs.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(plain.inputs()), ["input_0", "input_1"]);
    assert_eq!(names(plain.outputs()), ["output_0", "output_1"]);
    let named = open(&file("colours.pte"), &options()).unwrap().unwrap();
    assert_eq!(
        (names(named.inputs()), names(named.outputs())),
        (vec!["images".into()], vec!["scores".into()])
    );
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let given = Options { input_names: list(&["a", "b"]), ..options() };
    assert_eq!(names(open(&file("add_mul.pte"), &given).unwrap().unwrap().inputs()), ["a", "b"]);
    for (wrong, word) in [(list(&["a"]), "1 names"), (list(&["a", "a"]), "`a` twice")] {
        let given = Options { input_names: wrong, ..options() };
        let error = open(&file("add_mul.pte"), &given).unwrap().err().unwrap();
        assert!(error.message().contains(word) && error.message().contains("`input_names`"), "{error}");
    }
}

#[test]
fn dynamic_dimensions_are_open_and_bounded() {
    let all = Options { dynamic_dims: DynamicDims::All, ..options() };
    let Some(network) = open(&file("conv_xnnpack.pte"), &all) else { return };
    let network = network.unwrap();
    assert_eq!(network.inputs()[0].shape, [None, Some(3), None, None]);
    let rows = open(&file("conv_xnnpack.pte"), &options()).unwrap().unwrap();
    assert_eq!(rows.inputs()[0].shape, [None, Some(3), Some(8), Some(8)]);
    assert_eq!(rows.outputs()[0].shape, [None, Some(5)]);

    let many = Numbers { dtype: Dtype::F32, shape: vec![9, 3, 8, 8], data: vec![0; 9 * 3 * 64 * 4] };
    for network in [&network, &rows] {
        let error = run(network, std::slice::from_ref(&many)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        for word in ["`input_0`", "at most 8", "dimension 0", "upper bound"] {
            assert!(error.message().contains(word), "{word}: {error}");
        }
        // It goes on working.
        check(network, "conv_xnnpack.json");
    }
}

#[test]
fn a_batch_gives_each_row_what_it_gets_alone() {
    let Some(network) = open(&file("conv_xnnpack.pte"), &options()) else { return };
    let network = network.unwrap();
    let batch = &cases("conv_xnnpack.json")[2].inputs[0];
    let together = floats(&run(&network, std::slice::from_ref(batch)).unwrap()[0].bytes().unwrap());
    for (row, data) in batch.data.chunks(3 * 64 * 4).enumerate() {
        let one = Numbers { dtype: Dtype::F32, shape: vec![1, 3, 8, 8], data: data.to_vec() };
        let alone = floats(&run(&network, &[one]).unwrap()[0].bytes().unwrap());
        for (a, b) in alone.iter().zip(&together[row * 5..]) {
            assert!((a - b).abs() < 1e-5, "row {row}: {a}, {b}");
        }
    }
}

#[test]
fn tensors_that_do_not_fit_are_named_with_what_is_expected() {
    let Some(network) = open(&file("add_mul.pte"), &options()) else { return };
    let network = network.unwrap();
    let tensor = |dtype, shape: &[i64], bytes| {
        value(&network, &Numbers { dtype, shape: shape.to_vec(), data: vec![0; bytes] })
    };
    let good = tensor(Dtype::F32, &[2, 3], 24);
    let (wide, whole) = (tensor(Dtype::F32, &[2, 4], 32), tensor(Dtype::I32, &[2, 3], 24));
    let cases = [
        (vec![("input_0", &good)], vec!["output_0"], "input `input_1` is missing"),
        (vec![("input_0", &good), ("x", &good)], vec!["output_0"], "no input `x`"),
        (vec![("input_0", &good), ("input_1", &wide)], vec!["output_0"], "expected [2, 3]"),
        (vec![("input_0", &good), ("input_1", &whole)], vec!["output_0"], "has the type I32, expected F32"),
        (vec![("input_0", &good), ("input_1", &good)], vec!["y"], "no output `y`"),
    ];
    for (inputs, outputs, expected) in cases {
        let error = network.run(&inputs, &outputs).unwrap_err();
        assert!(error.message().contains(expected), "{error}");
    }
    let results =
        network.run(&[("input_1", &good), ("input_0", &good)], &["output_1", "output_0", "output_1"]);
    assert_eq!(results.unwrap().len(), 3, "in the order that was asked for, and as often");
    assert!(network.run(&[("input_0", &good), ("input_1", &good)], &[]).unwrap().is_empty());
    let short = TensorView { name: "", dtype: Dtype::F32, shape: &[2, 3], data: &[0; 4] };
    assert!(network.value(&short).is_err());
}

#[test]
fn what_the_libraries_lack_is_named() {
    if library().is_none() {
        return;
    }
    let (_folder, path) = patched("conv_xnnpack.pte", "XnnpackBackend", "NovelChipEngin");
    let error = open(&path, &options()).unwrap().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for word in ["`NovelChipEngin`", "`XnnpackBackend`", "libexecutorch_backend_"] {
        assert!(error.message().contains(word), "{word}: {error}");
    }
    let (_folder, path) = patched("add_mul.pte", "aten::mul", "aten::lum");
    let error = open(&path, &options()).unwrap().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::BadModel);
    for word in ["OperatorMissing", "aten::lum"] {
        assert!(error.message().contains(word), "{word}: {error}");
    }
    let error = open(&file("scalar.pte"), &options()).map(|opened| opened.err());
    if let Some(Some(error)) = error {
        assert!(error.message().contains("only tensors can be sent"), "{error}");
    }
}

#[test]
fn runs_of_several_threads_share_the_copies_of_a_method() {
    for streams in [1, 3] {
        let Some(network) = open(&file("conv_xnnpack.pte"), &Options { streams, ..options() }) else {
            return;
        };
        let network = network.unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..20).for_each(|_| check(&network, "conv_xnnpack.json")));
            }
        });
    }
}
