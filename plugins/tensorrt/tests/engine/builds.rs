//! Engines that are built without a GPU.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use pajamas_pipelines::onnx_file::OnnxFile;
use pajamas_plugin_api::{ComputeCapability, ErrorKind, Progress};
use pajamas_tensorrt::options::Options;
use pajamas_tensorrt::{
    BuildRequest, DecoderSizes, EngineCache, EngineKey, Plan, build_engine, decoder_profiles,
};
use serde_json::json;

use crate::onnx_writer::{bytes, model as onnx, tensor_info, weights};
use pajamas_test_models::model;

use crate::support::{Written, attribute, library, node, options, request, silent};

/// A file with this content; the folder must outlive it.
fn file(folder: &tempfile::TempDir, content: &[u8]) -> PathBuf {
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, content).unwrap();
    path
}

/// `y = x · w` for rows of two numbers, of an element type.
fn product(kind: u64, element: &[u8]) -> Vec<u8> {
    onnx(&[
        bytes(1, node("MatMul", &["x", "w"], "y", &[])),
        bytes(5, weights("w", kind, &[2, 2], &element.repeat(4))),
        bytes(11, tensor_info("x", kind, &[-1, 2])),
        bytes(12, tensor_info("y", kind, &[-1, 2])),
    ])
}

/// The same with numbers of eight bits inside, as quantisers write it: QuantizeLinear, DequantizeLinear.
fn quantized_product() -> Vec<u8> {
    let scale = 0.5_f32.to_le_bytes();
    onnx(&[
        bytes(1, node("QuantizeLinear", &["x", "scale", "zero"], "xq", &[])),
        bytes(1, node("DequantizeLinear", &["xq", "scale", "zero"], "xd", &[])),
        bytes(1, node("DequantizeLinear", &["wq", "scale", "zero"], "wd", &[])),
        bytes(1, node("MatMul", &["xd", "wd"], "y", &[])),
        bytes(5, weights("scale", 1, &[], &scale)),
        bytes(5, weights("zero", 3, &[], &[0])),
        bytes(5, weights("wq", 3, &[32, 32], &[1; 1024])),
        bytes(11, tensor_info("x", 1, &[-1, 32])),
        bytes(12, tensor_info("y", 1, &[-1, 32])),
    ])
}

#[test]
fn the_detector_becomes_an_engine_with_progress_and_the_engine_is_kept() {
    let (Some(library), Some(file)) = (library(), model("nudenet/320n.onnx")) else { return };
    let request = request(&file, &options(&json!({"batch_max": 32})));
    let images = &request.ranges["images"];
    assert_eq!(
        (images.min.as_slice(), images.opt.as_slice(), images.max.as_slice()),
        (&[1, 3, 320, 320][..], &[16, 3, 320, 320][..], &[32, 3, 320, 320][..])
    );
    let written = Arc::new(Written::default());
    let start = Instant::now();
    let engine = build_engine(library, &request, &Progress::new(Arc::clone(&written) as _)).unwrap();
    eprintln!("built in {:?}, {} bytes", start.elapsed(), engine.len());
    let plan = Plan::parse(engine.clone()).unwrap();
    assert_eq!(plan.bytes, engine);
    assert!(plan.metadata.is_empty());
    // The weights are 12 MB.
    assert!((12_000_000..64_000_000).contains(&engine.len()), "{}", engine.len());

    let reports = written.reports.lock().unwrap();
    assert!(
        reports.iter().all(|(fraction, text)| (0.0..1.0).contains(fraction) && text.contains("320n.onnx")),
        "{reports:?}"
    );
    assert!(reports.is_sorted_by(|a, b| a.0 <= b.0), "{reports:?}");
    assert!(reports.iter().any(|(fraction, _)| *fraction > 0.0), "{reports:?}");

    let folder = tempfile::tempdir().unwrap();
    let cache = EngineCache::new(folder.path(), 1 << 30);
    let key = EngineKey::of(&request).unwrap();
    cache.keep_engine(&key, &engine);
    assert_eq!(cache.engine(&key), Some(engine));
}

#[test]
fn a_build_that_is_not_wanted_is_given_up() {
    let (Some(library), Some(file)) = (library(), model("nudenet/320n.onnx")) else { return };
    let written = Arc::new(Written { cancel_after: Some(1), ..Written::default() });
    let error =
        build_engine(library, &request(&file, &Options::default()), &Progress::new(written)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
}

#[test]
fn networks_of_sixteen_and_of_eight_bits_become_engines() {
    let Some(library) = library() else { return };
    let cases = [
        ("F32", product(1, &1.0_f32.to_le_bytes())),
        ("F16", product(10, &[0, 0x3c])),
        ("BF16", product(16, &[0x80, 0x3f])),
        ("INT8 by QDQ", quantized_product()),
    ];
    for (name, content) in cases {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder, &content);
        let engine = build_engine(library, &request(&file, &Options::default()), &silent());
        let engine = engine.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(Plan::parse(engine).is_ok(), "{name}");
    }
}

#[test]
fn each_gpu_gets_an_engine_of_its_own() {
    let Some(library) = library() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = file(&folder, &product(1, &1.0_f32.to_le_bytes()));
    let request = request(&file, &options(&json!({"optimization_level": 2, "workspace_max_mb": 64})));
    let mut keys = vec![EngineKey::of(&request).unwrap()];
    // The last is newer than the library, which then builds for all.
    for (major, minor) in [(8, 0), (8, 6), (8, 9), (12, 0), (12, 1), (13, 5)] {
        let request = BuildRequest { compute: Some(ComputeCapability { major, minor }), ..request.clone() };
        let engine = build_engine(library, &request, &silent());
        let engine = engine.unwrap_or_else(|error| panic!("{major}.{minor}: {error}"));
        assert!(Plan::parse(engine).is_ok(), "{major}.{minor}");
        keys.push(EngineKey::of(&request).unwrap());
    }
    keys.dedup();
    assert_eq!(keys.len(), 7);
}

#[test]
fn files_and_shapes_that_make_no_engine_are_refused_by_name() {
    let Some(library) = library() else { return };
    let folder = tempfile::tempdir().unwrap();
    let unknown = onnx(&[
        bytes(1, node("NoSuchOperator", &["x"], "y", &[attribute("axis", 0)])),
        bytes(11, tensor_info("x", 1, &[1])),
        bytes(12, tensor_info("y", 1, &[1])),
    ]);
    let file = file(&folder, &unknown);
    let error = build_engine(library, &request(&file, &Options::default()), &silent()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadModel);
    assert!(error.message().contains("model.onnx") && error.message().contains("NoSuchOperator"), "{error}");

    std::fs::write(&file, product(1, &1.0_f32.to_le_bytes())).unwrap();
    let mut request = request(&file, &Options::default());
    request.ranges.clear();
    let error = build_engine(library, &request, &silent()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadModel, "open dimensions need a profile");
    assert!(error.message().contains("model.onnx"), "{error}");
}

#[test]
fn the_networks_of_real_models_become_engines() {
    let Some(library) = library() else { return };
    let folders = ["efficientnet-lite0", "minilm-onnx", "whisper-tiny-en"];
    for file in folders.iter().filter_map(|name| model(name)).flat_map(|folder| onnx_files(&folder)) {
        let start = Instant::now();
        let is_detector_of_speech = file.ends_with("silero_vad.onnx");
        match build_engine(library, &request(&file, &Options::default()), &silent()) {
            // Then Whisper need not do without it: `open_pipeline` switches it off.
            Ok(_) if is_detector_of_speech => panic!("{} becomes an engine", file.display()),
            Err(error) if is_detector_of_speech => {
                assert!(error.message().contains("cannot build an engine"), "{error}")
            }
            Ok(engine) => eprintln!("{}: {:?}, {} bytes", file.display(), start.elapsed(), engine.len()),
            Err(error) => panic!("{}: {error}", file.display()),
        }
    }
}

#[test]
fn a_decoder_of_text_becomes_an_engine_for_its_context() {
    let (Some(library), Some(folder)) = (library(), model("smollm2-onnx")) else { return };
    let file = folder.join("model.onnx");
    let inputs = OnnxFile::open(&file).unwrap().inputs;
    let sizes = DecoderSizes { rows: 8, sequence: 64, context: 1024 };
    let options = Options { profiles: decoder_profiles(&inputs, sizes), ..Options::default() };
    let request = request(&file, &options);
    // Tokens, mask, positions, and keys and values of 30 layers: all leave dimensions open.
    assert_eq!(request.ranges.len(), 63);
    let start = Instant::now();
    let engine = build_engine(library, &request, &silent()).unwrap();
    eprintln!("built in {:?}, {} bytes", start.elapsed(), engine.len());
    Plan::parse(engine).unwrap();
}

/// All ONNX files of a model's folder.
fn onnx_files(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(onnx_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "onnx") {
            found.push(path);
        }
    }
    found.sort();
    found
}
