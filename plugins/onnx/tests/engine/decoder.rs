//! SmolLM2 as an ONNX decoder: what it generates, alone and beside others.

use std::path::Path;

use pajamas_decoder::Served;
use pajamas_generation_tests::support::{fail, generate, greedy, run};
use pajamas_plugin_api::{ErrorKind, Model, Part, Request, Task};
use pajamas_test_models::model;
use serde_json::{Value, json};

use crate::models;

/// SmolLM2-135M-Instruct, with weights of 16 bits that are computed in 32.
const MODEL: &str = "smollm2-onnx";

fn load(options: Value) -> Option<Served> {
    let path = model(MODEL)?;
    let mut options = options;
    options["threads"] = 2.into();
    Some(models::load(&path, options)?.unwrap())
}

fn load_boxed(options: Value) -> Option<Box<dyn Model>> {
    Some(Box::new(load(options)?))
}

pajamas_generation_tests::behaviours!(load_boxed);

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// What `mlx_lm` computed with the same weights in half precision.
fn recorded() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mlx/testdata/smollm2.json");
    let recorded: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    recorded["smollm2-mlx"].clone()
}

#[test]
fn greedy_answers_are_those_of_mlx_lm() {
    let recorded = recorded();
    let Some(model) = load(json!({"slots": 2})) else { return };
    let cases = recorded["prompts"].as_array().unwrap().iter();
    for (prompt, expected) in cases.zip(recorded["answers"].as_array().unwrap()) {
        let request = Request { parts: vec![Part::Tokens(ids(prompt))], ..generate("", &greedy(24)) };
        assert_eq!(run(&model, request).tokens, ids(expected), "{prompt}");
    }
}

#[test]
fn what_a_decoder_cannot_do_is_refused_with_what_it_can() {
    let Some(model) = load(json!({"slots": 1, "context": 64})) else { return };
    for task in [Task::Embed, Task::Infer] {
        let (kind, message) = fail(&model, Request { task, ..generate("", &greedy(1)) });
        assert_eq!(kind, ErrorKind::Unsupported);
        assert!(message.ends_with("it offers generate, tokenize"), "{message}");
    }
}

#[test]
fn a_decoder_says_what_it_is_before_it_is_loaded() {
    let (Some(path), Some(backend)) = (model(MODEL), models::backend()) else { return };
    let info = pajamas_plugin_api::Backend::inspect(&backend, &path).unwrap();
    assert_eq!((info.format.as_str(), info.architecture.as_str()), ("onnx", "llama"));
    assert_eq!(info.tasks, [Task::Generate, Task::Tokenize]);
    assert_eq!((info.context_length, info.vocab_size), (Some(8192), Some(49_152)));
    assert_eq!(info.quantization.as_deref(), Some("F16"));
    assert!(info.parameters.is_some_and(|count| (134_515_008..134_600_000).contains(&count)), "{info:?}");
    assert!(info.chat_template.unwrap().contains("im_start"));
    // Cells of 30 layers, each 2 × 3 heads × 64 × 4 bytes, for 8 sequences of 4096 tokens.
    let cells = 8 * 4096 * 30 * 2 * 3 * 64 * 4;
    let weights = info.estimated_bytes["cpu"] - cells;
    assert!((540_000_000..640_000_000).contains(&weights), "{weights}");
}

#[test]
fn files_that_make_no_decoder_are_refused_by_name() {
    let (Some(source), Some(backend)) = (model(MODEL), models::backend()) else { return };
    let files = ["config.json", "tokenizer.json", "model.onnx", "model.onnx_data"];
    let causal = r#"{"architectures": ["LlamaForCausalLM"]}"#;
    for (changed, content, expected) in [
        ("config.json", Some(causal), "config.json has no `vocab_size`"),
        ("tokenizer.json", Some("{}"), "tokenizer.json: "),
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("model.onnx_data", None, "model.onnx_data, which cannot be read"),
        ("model.onnx", None, "has no model.onnx"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for file in files.iter().filter(|file| **file != changed) {
            std::os::unix::fs::symlink(source.join(file), folder.path().join(file)).unwrap();
        }
        if let Some(content) = content {
            std::fs::write(folder.path().join(changed), content).unwrap();
        }
        let error = pajamas_plugin_api::Backend::inspect(&backend, folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{changed}: {error}");
    }
    // A network without a cache, in a folder that says that it is a decoder.
    let Some(minilm) = model("minilm-onnx") else { return };
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(minilm.join("model.onnx"), folder.path().join("model.onnx")).unwrap();
    std::os::unix::fs::symlink(minilm.join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let config = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 30522}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let error = pajamas_plugin_api::Backend::inspect(&backend, folder.path()).unwrap_err().to_string();
    assert!(error.contains("model.onnx: the network is no decoder with a cache"), "{error}");
    assert!(error.contains("`token_type_ids`") && error.contains("text-generation-with-past"), "{error}");
}

#[test]
fn options_of_generation_are_checked_by_name() {
    let Some(path) = model(MODEL) else { return };
    for (options, expected) in [
        (json!({"pooling": "mean"}), "`pooling`"),
        (json!({"context": 0}), "option `context` is 0, expected 1 to 16777216"),
        (json!({"slots": 300}), "option `batch` is 256, expected at least `slots`, which is 300"),
        (json!({"pipeline": "generates"}), "`generate`"),
    ] {
        let Some(loaded) = models::load(&path, options.clone()) else { return };
        let error = loaded.err().unwrap_or_else(|| panic!("{options} was taken")).to_string();
        assert!(error.contains(expected), "{options}: {error}");
    }
}
