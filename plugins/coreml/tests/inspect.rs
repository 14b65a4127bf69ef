//! What the plugin says of packages without CoreML, on every platform: the same as a load says.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

use std::path::{Path, PathBuf};

use pajamas_coreml::CoremlBackend;
use pajamas_plugin_api::{Backend, Dtype, Task};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

fn backend() -> CoremlBackend {
    CoremlBackend::init(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn a_classifier_of_pictures_classifies_and_has_names() {
    let info = backend().inspect(&testdata("classifier.mlpackage")).unwrap();
    assert_eq!((info.format.as_str(), info.architecture.as_str()), ("coreml", "classify"));
    assert_eq!(info.tasks, [Task::Classify, Task::Infer]);
    assert_eq!(info.labels, ["red", "green", "blue", "it's none"]);
    assert_eq!(info.inputs.len(), 1);
    assert_eq!((info.inputs[0].dtype, info.inputs[0].shape.as_slice()), (Dtype::U8, &[-1, 16, 16, 3][..]));
    assert_eq!(info.outputs[0].shape, [-1, 4]);
    for (name, text) in [
        ("author", "pajamas-host"),
        ("license", "MIT"),
        ("trained_on", "nothing"),
        ("coreml.kind", "mlProgram"),
        ("coreml.specification_version", "7"),
        ("coreml.inputs", "image: image 16 x 16"),
    ] {
        assert_eq!(info.metadata[name], text);
    }
    assert!(info.estimated_bytes["cpu"] > 0);
}

#[test]
fn other_networks_answer_infer() {
    let encoder = backend().inspect(&testdata("encoder.mlpackage")).unwrap();
    assert_eq!(encoder.tasks, [Task::Infer]);
    assert_eq!(encoder.inputs[0].shape, [-1, -1], "any number of rows, of any length");
    assert_eq!(
        (encoder.outputs[0].dtype, encoder.outputs[0].shape.as_slice()),
        (Dtype::F32, &[-1, -1, 4][..])
    );
    let counter = backend().inspect(&testdata("counter.mlpackage")).unwrap();
    assert_eq!(counter.inputs[0].shape, [1, 4], "a network with states has no rows");
    assert_eq!(counter.outputs[0].dtype, Dtype::F16);
    assert_eq!(counter.metadata["coreml.states"], "total: f16 [1, 4]");
    let functions = backend().inspect(&testdata("functions.mlpackage")).unwrap();
    assert_eq!(functions.metadata["coreml.other_functions"], "double");
    for name in ["network.mlmodel", "pipeline.mlmodel"] {
        let info = backend().inspect(&testdata(name)).unwrap();
        assert_eq!(info.inputs[0].shape, [3], "{name}");
    }
}

#[test]
fn a_folder_of_a_text_encoder_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("model.mlpackage/Data/com.apple.CoreML");
    std::fs::create_dir_all(package.join("weights")).unwrap();
    for file in
        ["Manifest.json", "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"]
    {
        let to = folder.path().join("model.mlpackage").join(file);
        std::fs::copy(testdata("encoder.mlpackage").join(file), to).unwrap();
    }
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    let error = backend().inspect(folder.path()).unwrap_err();
    assert!(error.message().contains("tokenizer.json"), "found to be a text encoder: {error}");
}

#[cfg(not(target_vendor = "apple"))]
#[test]
fn elsewhere_the_plugin_says_why_it_cannot_run() {
    use std::sync::Arc;

    use pajamas_plugin_api::{Event, EventSink, Flow, LoadSpec, Progress};

    struct Silent;

    impl EventSink for Silent {
        fn push(&self, _: &Event<'_>) -> Flow {
            Flow::Continue
        }

        fn cancelled(&self) -> bool {
            false
        }
    }

    let report = backend().probe().unwrap();
    let reason = report.reason.unwrap();
    assert!(report.devices.is_empty());
    assert!(reason.starts_with("CoreML exists on macOS 13 and newer only"), "{reason}");
    let load = |path: PathBuf, options: serde_json::Value| {
        let options = options.as_object().unwrap().clone();
        let spec = LoadSpec { path, options, cache_dir: None };
        backend().load(&spec, &Progress::new(Arc::new(Silent))).err().unwrap().to_string()
    };
    assert!(load(testdata("encoder.mlpackage"), serde_json::json!({})).contains(&reason));
    // What is wrong with the model or the options is said first.
    assert!(load(testdata("none.mlpackage"), serde_json::json!({})).contains("none.mlpackage"));
    let message = load(testdata("functions.mlpackage"), serde_json::json!({"function": "half"}));
    assert!(message.contains("`half`") && message.contains("`double`, `triple`"), "{message}");
}
