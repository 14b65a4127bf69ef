//! Which pipeline a model gets, and what is said when it is the wrong one.

use std::path::Path;

use pajamas_pipelines::{Detected, Header, Kind, NetworkFiles, detect, network_file, open};
use pajamas_plugin_api::{Dtype, ErrorKind, Task};
use serde_json::json;

use crate::fake::{FakeNetwork, FakeNetworks, spec};
use crate::support::{info, object};

/// Names and contents.
type Files = &'static [(&'static str, &'static str)];

/// A folder with these files.
fn folder(files: Files) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    folder
}

#[test]
fn files_tell_the_pipeline() {
    let cases: [(Files, Option<(Kind, &str)>); 15] = [
        (&[("config.json", r#"{"model_type": "whisper"}"#)], Some((Kind::Whisper, "whisper"))),
        (&[("config.json", r#"{"model_type": "clip"}"#)], Some((Kind::Clip, "clip"))),
        (&[("config.json", r#"{"model_type": "bert"}"#)], Some((Kind::TextEmbed, "bert"))),
        (
            &[("config.json", r#"{"model_type": "qwen3"}"#), ("modules.json", "[]")],
            Some((Kind::TextEmbed, "qwen3")),
        ),
        (&[("config.json", r#"{"model_type": "qwen3"}"#)], Some((Kind::Tensors, "qwen3"))),
        (
            &[("config.json", r#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}"#)],
            Some((Kind::Generate, "llama")),
        ),
        (
            &[("config.json", r#"{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}"#)],
            Some((Kind::Generate, "gpt2")),
        ),
        (&[("config.json", r#"{"model_type": "vit"}"#)], Some((Kind::Classify, "vit"))),
        (
            &[("config.json", r#"{"architectures": ["FooForImageClassification"]}"#)],
            Some((Kind::Classify, "classify")),
        ),
        (
            &[(
                "config.json",
                r#"{"model_type": "bert", "architectures": ["BertForSequenceClassification"], "id2label": {"0": "x"}}"#,
            )],
            Some((Kind::Rerank, "bert")),
        ),
        (
            &[(
                "config.json",
                r#"{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}"#,
            )],
            Some((Kind::Tensors, "bert")),
        ),
        (&[("config.json", "{}")], Some((Kind::Tensors, "tensors"))),
        (&[("voice.onnx", ""), ("voice.onnx.json", "{}")], Some((Kind::Piper, "piper"))),
        (&[("voice.onnx", "")], None),
        (&[("onnx/model.onnx", ""), ("onnx/model_quantized.onnx", "")], None),
    ];
    for (files, expected) in cases {
        let found = detect(folder(files).path(), NetworkFiles::ONNX).unwrap();
        let found = found.as_ref().map(|found| (found.kind, found.architecture.as_str()));
        assert_eq!(found, expected, "{files:?}");
    }
}

#[test]
fn what_is_no_model_is_said() {
    let cases: [(Files, ErrorKind, &str); 4] = [
        (&[], ErrorKind::NotFound, "it has no .onnx file"),
        (&[("a.onnx", ""), ("b.onnx", "")], ErrorKind::NotFound, "it has a.onnx, b.onnx"),
        (&[("config.json", "{")], ErrorKind::BadModel, "config.json"),
        (&[("config.json", r#"{"model_type": 3}"#)], ErrorKind::BadModel, "model_type: invalid type"),
    ];
    for (files, kind, expected) in cases {
        let error = detect(folder(files).path(), NetworkFiles::ONNX).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(expected), "{error}");
    }
    let error = detect(Path::new("missing.onnx"), NetworkFiles::ONNX).unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::NotFound, "there is no file or folder missing.onnx")
    );
}

#[test]
fn of_several_networks_the_plain_one_is_taken_or_the_only_variant_or_the_one_that_was_asked_for() {
    let table: [(&[&str], Option<&str>, Option<&str>); 6] = [
        (&["onnx/model.onnx", "onnx/model_q4.onnx"], None, Some("onnx/model.onnx")),
        (&["onnx/model.onnx", "onnx/model_q4.onnx"], Some("q4"), Some("onnx/model_q4.onnx")),
        (&["onnx/model_q4.onnx", "other.onnx"], None, Some("onnx/model_q4.onnx")),
        (&["onnx/model_q4.onnx", "onnx/model_fp16.onnx"], None, None),
        (&["onnx/model.onnx"], Some("q4"), None),
        (&["a.onnx"], None, Some("a.onnx")),
    ];
    for (files, variant, expected) in table {
        let folder = folder(&[]);
        std::fs::create_dir(folder.path().join("onnx")).unwrap();
        files.iter().for_each(|file| std::fs::write(folder.path().join(file), "").unwrap());
        let options = variant.map_or_else(|| json!({}), |variant| json!({"variant": variant}));
        let found = network_file(folder.path(), &object(options), NetworkFiles::ONNX);
        let expected = expected.map(|file| folder.path().join(file));
        assert_eq!(found.ok(), expected, "{files:?} {variant:?}");
    }
}

fn yolo() -> FakeNetwork {
    FakeNetwork::idle(
        vec![spec("images", Dtype::F32, &[1, 3, 640, 640])],
        vec![spec("output0", Dtype::F32, &[1, 84, 8400])],
    )
}

fn other() -> FakeNetwork {
    FakeNetwork::idle(vec![spec("x", Dtype::F32, &[1, 7])], vec![spec("y", Dtype::F32, &[1, 7])])
}

#[test]
fn networks_tell_the_pipeline() {
    let cases = [
        (yolo(), Kind::Yolo),
        (yolo().with_metadata(&[("task", "detect")]), Kind::Yolo),
        (yolo().with_metadata(&[("task", "classify")]), Kind::Classify),
        (yolo().with_metadata(&[("task", "segment")]), Kind::Tensors),
        (other(), Kind::Tensors),
        (other().with_metadata(&[("stride", "32"), ("names", "{}")]), Kind::Yolo),
    ];
    for (network, expected) in cases {
        let header = Header::of(&network);
        assert_eq!(Detected::of_network(&header).kind, expected, "{:?}", header.metadata);
    }
}

#[test]
fn a_wrong_pipeline_or_option_is_an_error_that_says_what_is_there() {
    let folder = folder(&[]);
    let networks = FakeNetworks::new(
        folder.path(),
        &[
            ("yolo.onnx", yolo()),
            ("pose.onnx", yolo().with_metadata(&[("task", "pose")])),
            ("named.onnx", yolo().with_metadata(&[("task", "detect"), ("names", "{0: 'a'}")])),
            ("other.onnx", other()),
        ],
    );
    let cases = [
        ("other.onnx", json!({ "pipeline": "yolo" }), ErrorKind::BadModel, "takes `x` (f32[1, 7])"),
        ("other.onnx", json!({ "pipeline": "classify" }), ErrorKind::BadModel, "takes `x` (f32[1, 7])"),
        (
            "yolo.onnx",
            json!({ "pipeline": "classify" }),
            ErrorKind::BadModel,
            "has `output0` (f32[1, 84, 8400])",
        ),
        ("pose.onnx", json!({ "pipeline": "yolo" }), ErrorKind::BadModel, "exported for the task `pose`"),
        ("named.onnx", json!({}), ErrorKind::BadModel, "1 classes have names"),
        (
            "yolo.onnx",
            json!({ "pipeline": "text-embed" }),
            ErrorKind::Invalid,
            "needs a folder with config.json",
        ),
        (
            "yolo.onnx",
            json!({ "pipeline": "yola" }),
            ErrorKind::Invalid,
            "option `pipeline`: unknown variant `yola`",
        ),
        (
            "yolo.onnx",
            json!({ "lables": [] }),
            ErrorKind::Invalid,
            "unknown field `lables`, expected one of `labels`",
        ),
        ("yolo.onnx", json!({ "labels": ["a"] }), ErrorKind::BadModel, "(option `labels`)"),
        (
            "yolo.onnx",
            json!({ "image_size": 320 }),
            ErrorKind::Invalid,
            "takes 640 by 640 pixels only, not 320 by 320",
        ),
        (
            "yolo.onnx",
            json!({ "image_size": "a" }),
            ErrorKind::Invalid,
            "option `image_size` of the yolo pipeline",
        ),
        (
            "other.onnx",
            json!({ "labels": [] }),
            ErrorKind::Invalid,
            "option `labels` of the tensors pipeline: unknown field",
        ),
        ("missing.onnx", json!({}), ErrorKind::NotFound, "there is no file or folder"),
        ("missing.onnx", json!({ "pipeline": "yolo" }), ErrorKind::NotFound, "there is no file or folder"),
    ];
    for (file, options, kind, expected) in cases {
        let result = open(&folder.path().join(file), &object(options.clone()), &networks);
        let error = result.err().unwrap_or_else(|| panic!("{file} with {options} was opened"));
        assert!(error.message().contains(expected), "{file} with {options}: {error}");
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[test]
fn what_is_said_after_opening_is_what_was_said_before() {
    let folder = folder(&[]);
    let networks = FakeNetworks::new(folder.path(), &[("yolo.onnx", yolo()), ("other.onnx", other())]);
    for (file, architecture, tasks) in
        [("yolo.onnx", "yolo", vec![Task::Detect, Task::Infer]), ("other.onnx", "tensors", vec![Task::Infer])]
    {
        let info = info(&*open(&folder.path().join(file), &object(json!({})), &networks).unwrap());
        assert_eq!((info.architecture.as_str(), info.tasks), (architecture, tasks));
    }
}
