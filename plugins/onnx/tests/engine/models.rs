//! Real networks, and the plugin's face on them.

use std::path::Path;
use std::sync::{Arc, Barrier};

use pajamas_decoder::Served;
use pajamas_onnx::{OnnxBackend, OnnxSession};
use pajamas_pipelines::{BatchCounts, BatchLimits, Batcher, TensorRunner};
use pajamas_plugin_api::{Backend, Error, ErrorKind, Event, EventSink, Flow, LoadSpec, Model, Progress};

use crate::onnx_writer::{bytes, int, tensor_info};
use pajamas_test_models::model;

use crate::support::{floats, library, node, open, options, value};

/// A picture that is different for each seed.
fn picture(seed: usize) -> Vec<f32> {
    (0..3 * 320 * 320).map(|index| ((index * (seed + 3)) % 255) as f32 / 255.0).collect()
}

#[test]
fn a_batch_of_pictures_gives_what_each_gives_alone() {
    let Some(file) = model("nudenet/320n.onnx") else { return };
    let Some(session) = open(&file, &options()) else { return };
    let session = session.unwrap();
    let shape = [1, 3, 320, 320];
    let pictures: Vec<_> = (0..4).map(|seed| value(&session, &shape, &picture(seed))).collect();
    let output = session.outputs()[0].name.clone();
    let alone: Vec<_> = pictures
        .iter()
        .map(|picture| floats(&session.run(&[("images", picture)], &[&output]).unwrap()[0]))
        .collect();

    let counts: Arc<BatchCounts> = Arc::default();
    let limits = BatchLimits { rows_max: 8, delay: std::time::Duration::ZERO };
    let batcher: Batcher<OnnxSession> = Batcher::new(session, limits, Arc::clone(&counts));
    batcher.rows_are_independent();
    let start = Barrier::new(pictures.len());
    std::thread::scope(|scope| {
        for (picture, alone) in pictures.iter().zip(&alone) {
            let (batcher, start, output) = (&batcher, &start, &output);
            scope.spawn(move || {
                start.wait();
                for _ in 0..3 {
                    let together = floats(&batcher.run(&[("images", picture)], &[output]).unwrap()[0]);
                    assert_eq!(together.len(), alone.len());
                    let worst = together.iter().zip(alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    // Boxes are in pixels; kernels for several rows add up in another order.
                    assert!(worst < 0.01, "{worst}");
                }
            });
        }
    });
    let counts = counts.named();
    assert!(counts["batched_calls"] > 0.0 && counts["runs"] < 12.0, "{counts:?}");
}

/// Keeps nothing.
struct Silent;

impl EventSink for Silent {
    fn push(&self, _: &Event<'_>) -> Flow {
        Flow::Continue
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// The backend with the engine of the tests.
pub(crate) fn backend() -> Option<OnnxBackend> {
    library()?;
    // The process has its library already, wherever that lies.
    Some(OnnxBackend::init(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap())
}

pub(crate) fn load(path: &Path, options: serde_json::Value) -> Option<Result<Served, Error>> {
    let options = options.as_object().unwrap().clone();
    let spec = LoadSpec { path: path.to_owned(), options, cache_dir: None };
    Some(backend()?.load(&spec, &Progress::new(Arc::new(Silent))))
}

#[test]
fn wrong_options_and_files_are_refused_with_a_reason() {
    let Some(file) = model("nudenet/320n.onnx") else { return };
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.onnx");
    let content = std::fs::read(&file).unwrap();
    std::fs::write(&cut, &content[..content.len() / 2]).unwrap();
    let external = folder.path().join("external.onnx");
    let place: Vec<u8> = bytes(13, [bytes(1, "location"), bytes(2, "weights.data")].concat());
    let weights = [int(1, 3), int(2, 1), bytes(8, "w"), place, int(14, 1)].concat();
    let graph = [
        bytes(1, node("Add", &["x", "w"], "y", &[])),
        bytes(5, weights),
        bytes(11, tensor_info("x", 1, &[-1, 3])),
        bytes(12, tensor_info("y", 1, &[-1, 3])),
    ];
    std::fs::write(&external, crate::onnx_writer::model(&graph)).unwrap();
    let cases = [
        (file.as_path(), serde_json::json!({"pipeline": "no-such-thing"}), vec!["pipeline"]),
        (&file, serde_json::json!({"no_such_option": 1}), vec!["no_such_option"]),
        (&file, serde_json::json!({"threads": "many"}), vec!["`threads`", "u32"]),
        (
            &file,
            serde_json::json!({"execution_providers": ["gpu"]}),
            vec!["`execution_providers[0]`", "`cuda`"],
        ),
        (&cut, serde_json::json!({}), vec!["cut.onnx", "is cut off or damaged"]),
        (&external, serde_json::json!({}), vec!["external.onnx", "weights.data, which cannot be read"]),
        (Path::new("/nowhere/x.onnx"), serde_json::json!({}), vec!["/nowhere/x.onnx"]),
    ];
    for (path, options, wanted) in cases {
        let Some(loaded) = load(path, options.clone()) else { return };
        let error = loaded.err().unwrap_or_else(|| panic!("{options} was taken"));
        for word in wanted {
            assert!(error.message().contains(word), "{word}: {error}");
        }
    }
    let Some(backend) = backend() else { return };
    assert_eq!(backend.inspect(&cut).unwrap_err().kind(), ErrorKind::BadModel);
}

#[test]
fn what_inspect_says_is_what_load_says() {
    for name in [
        "nudenet/320n.onnx",
        "minilm-onnx",
        "efficientnet-lite0",
        "piper-joe",
        "whisper-tiny-en",
        "whisper-tiny-en-int8",
    ] {
        let (Some(path), Some(backend)) = (model(name), backend()) else { continue };
        let inspected = match backend.inspect(&path) {
            Ok(inspected) => inspected,
            Err(error) => {
                eprintln!("skipped: {name}: {error}");
                continue;
            }
        };
        let loaded = load(&path, serde_json::json!({"threads": 2})).unwrap().unwrap();
        assert_eq!(loaded.info(), inspected, "{name}");
        let (estimated, measured) = (inspected.estimated_bytes["cpu"], loaded.stats().bytes["cpu"]);
        eprintln!("{name}: estimated {estimated}, measured {measured} bytes");
    }
}
