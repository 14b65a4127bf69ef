//! The plugin's face: probe, inspect, and what load says where there is no GPU.

use std::path::Path;

use pajamas_decoder::Served;
use pajamas_plugin_api::manifest::Manifest;
use pajamas_plugin_api::{Backend, Error, ErrorKind, LoadSpec, Task};
use pajamas_tensorrt::TensorRtBackend;
use serde_json::json;

use pajamas_test_models::model;

use crate::support::{plugin_dir, silent};

fn backend() -> TensorRtBackend {
    TensorRtBackend::init(plugin_dir()).unwrap()
}

fn has_driver() -> bool {
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/lib/wsl/lib"]
        .iter()
        .any(|folder| Path::new(folder).join("libcuda.so.1").exists())
}

#[test]
fn without_a_driver_the_probe_says_so() {
    if has_driver() {
        eprintln!("skipped: this machine has an NVIDIA driver");
        return;
    }
    let report = backend().probe().unwrap();
    assert_eq!(report.devices, []);
    assert_eq!(report.reason.as_deref(), Some("no NVIDIA driver: libcuda.so.1 is not there"));
    assert!(report.engine.unwrap().starts_with("TensorRT"));
}

#[cfg(not(feature = "enterprise"))]
#[test]
fn the_manifest_asks_for_the_gpus_that_the_probe_takes() {
    use pajamas_tensorrt::{SUPPORTED, unsupported_gpu};
    let manifest = Manifest::read(plugin_dir()).unwrap();
    assert_eq!(manifest.accel.unwrap().compute, SUPPORTED);
    let table = [
        ("7.5", false),
        ("8.0", true),
        ("8.6", true),
        ("8.7", false),
        ("8.9", true),
        ("9.0", false),
        ("10.0", false),
        ("12.0", true),
        ("12.1", true),
        ("13.0", true),
    ];
    for (capability, is_supported) in table {
        let reason = unsupported_gpu(capability.parse().unwrap());
        assert_eq!(reason.is_none(), is_supported, "{capability}");
        if let Some(reason) = reason {
            let expected =
                "TensorRT-RTX 1.7 supports compute capability 8.0, 8.6, 8.9, 12.0 and newer; this GPU has ";
            assert_eq!(reason, format!("{expected}{capability}"));
        }
    }
}

#[test]
fn inspect_says_what_a_model_is_without_a_gpu() {
    let Some(path) = model("nudenet/320n.onnx") else { return };
    let info = backend().inspect(&path).unwrap();
    assert_eq!((info.format.as_str(), info.architecture.as_str()), ("onnx", "yolo"));
    assert_eq!(info.tasks, [Task::Detect, Task::Infer]);
    assert_eq!((info.slots, info.quantization.as_deref()), (Some(32), Some("F32")));
    assert!(info.parameters.unwrap() > 3_000_000);
    assert!(info.estimated_bytes["cuda:0"] > 512 << 20);
}

#[test]
fn every_task_of_a_model_is_one_that_the_manifest_lists() {
    let manifest = Manifest::read(plugin_dir()).unwrap();
    for name in ["nudenet/320n.onnx", "efficientnet-lite0", "minilm-onnx", "whisper-tiny-en", "smollm2-onnx"]
    {
        let Some(path) = model(name) else { continue };
        let tasks = backend().inspect(&path).unwrap().tasks;
        assert!(tasks.iter().all(|task| manifest.tasks.contains(task)), "{name}: {tasks:?}");
    }
}

#[test]
fn a_voice_is_left_to_the_plugin_that_speaks() {
    let Some(path) = model("piper-joe") else { return };
    let error = backend().inspect(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error.message().ends_with("is a voice, which this plugin does not offer; the plugin onnx does"),
        "{error}"
    );
}

fn load(path: &Path, options: &serde_json::Value) -> Result<Served, Error> {
    let options = options.as_object().unwrap().clone();
    backend().load(&LoadSpec { path: path.to_owned(), options, cache_dir: None }, &silent())
}

#[test]
fn a_load_fails_first_for_its_options_and_then_for_the_missing_gpu() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.onnx");
    std::fs::write(&path, "no model").unwrap();
    let error = load(&path, &json!({"streams": 99})).err().unwrap();
    assert!(error.message().contains("`streams`"), "{error}");
    if has_driver() {
        eprintln!("skipped: this machine has an NVIDIA driver");
        return;
    }
    let error = load(&path, &json!({})).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Device);
    assert_eq!(error.message(), "no NVIDIA driver: libcuda.so.1 is not there");
}

#[test]
fn a_decoder_is_inspected_and_its_options_are_read_without_a_gpu() {
    let Some(path) = model("smollm2-onnx") else { return };
    let info = backend().inspect(&path).unwrap();
    assert_eq!((info.format.as_str(), info.architecture.as_str()), ("onnx", "llama"));
    assert_eq!(info.tasks, [Task::Generate, Task::Tokenize]);
    assert_eq!((info.context_length, info.vocab_size), (Some(8192), Some(49_152)));
    for (options, expected) in [
        (json!({"pooling": "mean"}), "`pooling`"),
        (json!({"batch": 16}), "option `batch` is 16, expected at least `slots`, which is 32"),
        (json!({"variant": "none"}), "has no model_none.onnx"),
    ] {
        let error = load(&path, &options).err().unwrap();
        assert!(error.message().contains(expected), "{options}: {error}");
    }
    if !has_driver() {
        assert_eq!(load(&path, &json!({})).err().unwrap().kind(), ErrorKind::Device);
    }
}

#[test]
fn files_are_checked_before_the_gpu_is_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("cut.onnx", "no model", "cut.onnx is"),
        ("x.engine", "no engine", "x.engine is not an engine of TensorRT"),
        (
            "x.plan",
            "no engine either, but one that is longer than the header of those that are",
            "x.plan is not an engine",
        ),
    ];
    for (name, content, expected) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = backend().inspect(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadModel, "{error}");
        assert!(error.message().contains(expected), "{expected}: {error}");
    }
    let error = backend().inspect(&folder.path().join("none.onnx")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
