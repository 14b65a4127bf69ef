//! The plugin with a real model; without it each test says that it is skipped.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

use std::path::Path;

use pajamas_generation_tests::support::{fail, generate, greedy, no_progress, run};
use pajamas_mlx::{MlxBackend, MlxModel};
use pajamas_plugin_api::{Backend, ErrorKind, LoadSpec, Model, Params, Part, Request, Task};
use pajamas_test_models::model;
use serde_json::{Value, json};

/// SmolLM2-135M-Instruct in half precision, and in 4 bits.
const WHOLE: &str = "smollm2-mlx";
const PACKED: &str = "smollm2-mlx-4bit";

fn load(name: &str, options: Value) -> Option<MlxModel> {
    let path = model(name)?;
    let backend = MlxBackend::init(Path::new(".")).unwrap();
    let spec = LoadSpec { path, options: options.as_object().unwrap().clone(), cache_dir: None };
    Some(backend.load(&spec, &no_progress()).unwrap())
}

fn load_packed(options: Value) -> Option<Box<dyn Model>> {
    Some(Box::new(load(PACKED, options)?))
}

pajamas_generation_tests::behaviours!(load_packed);

/// What `mlx_lm` computed (`testdata/smollm2.py`).
fn recorded() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/smollm2.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

#[test]
fn greedy_answers_are_those_of_mlx_lm() {
    let recorded = recorded();
    for name in [WHOLE, PACKED] {
        let Some(model) = load(name, json!({"slots": 2})) else { return };
        let cases = recorded[name]["prompts"].as_array().unwrap().iter();
        for (prompt, expected) in cases.zip(recorded[name]["answers"].as_array().unwrap()) {
            let request = Request { parts: vec![Part::Tokens(ids(prompt))], ..generate("", &greedy(24)) };
            assert_eq!(run(&model, request).tokens, ids(expected), "{name}: {prompt}");
        }
    }
}

#[test]
fn texts_become_the_tokens_that_mlx_lm_sees() {
    let recorded = recorded();
    let Some(model) = load(PACKED, json!({"slots": 1, "context": 256})) else { return };
    let template = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
                    <|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n";
    let questions = recorded["questions"].as_array().unwrap().iter();
    for (question, prompt) in questions.zip(recorded[PACKED]["prompts"].as_array().unwrap()) {
        let text = template.replace("{}", question.as_str().unwrap());
        let request = Request {
            task: Task::Tokenize,
            parts: vec![Part::Text { text, trusted: true }],
            ..generate("", &greedy(0))
        };
        let answer = run(&model, Request { params: Params::default(), ..request });
        let tokens: Vec<u32> =
            answer.tensors[0].1.as_chunks::<4>().0.iter().map(|bytes| u32::from_ne_bytes(*bytes)).collect();
        assert_eq!(tokens, ids(prompt), "{question}");
    }
}

#[test]
fn similar_texts_have_similar_embeddings() {
    let Some(model) = load(PACKED, json!({"slots": 1})) else { return };
    let embed = |texts: &[&str]| {
        let parts = texts.iter().map(|text| Part::text(*text)).collect();
        run(&model, Request { task: Task::Embed, params: Params::default(), parts, deadline_ms: None })
            .vectors
    };
    let vectors =
        embed(&["The cat sleeps on the sofa.", "A cat is asleep on a couch.", "Interest rates rose by 2 %."]);
    let cosine =
        |a: usize, b: usize| -> f32 { vectors[a].1.iter().zip(&vectors[b].1).map(|(a, b)| a * b).sum() };
    assert!(vectors.iter().all(|(_, values)| values.len() == 576));
    assert!((cosine(0, 0) - 1.0).abs() < 1e-4, "{}", cosine(0, 0));
    assert!(cosine(0, 1) > cosine(0, 2), "{} {}", cosine(0, 1), cosine(0, 2));
    // A text alone has the vector that it has beside others.
    assert_eq!(embed(&["The cat sleeps on the sofa."])[0].1, vectors[0].1);
    let (kind, message) = fail(&model, Request { task: Task::Rerank, ..generate("", &greedy(1)) });
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(message.contains("rerank") && message.contains("embed"), "{message}");
}

#[test]
fn packed_and_half_precision_weights_are_computed_as_stored_when_asked() {
    // One token: MLX's CPU kernels are slow for these (README.md).
    for name in [WHOLE, PACKED] {
        let Some(stored) = load(name, json!({"slots": 1, "compute": "stored"})) else { return };
        let Some(converted) = load(name, json!({"slots": 1})) else { return };
        let prompt =
            Request { parts: vec![Part::Tokens(vec![1, 504, 3575, 282])], ..generate("", &greedy(1)) };
        assert_eq!(run(&stored, prompt.clone()).tokens, run(&converted, prompt).tokens, "{name}");
        assert!(stored.stats().bytes["cpu"] < converted.stats().bytes["cpu"], "{name}");
    }
}

#[test]
fn a_folder_that_is_no_checkpoint_is_refused_with_the_file_that_is_wrong() {
    let Some(source) = model(PACKED) else { return };
    let backend = MlxBackend::init(Path::new(".")).unwrap();
    let files = ["config.json", "tokenizer.json", "model.safetensors"];
    for (changed, bytes, expected) in [
        ("config.json", &b"{}"[..], "config.json: missing field `model_type`"),
        ("config.json", b"\xff", "config.json is no UTF-8 text"),
        ("tokenizer.json", b"{\"model\": 1}", "tokenizer.json"),
        ("model.safetensors", b"abc", "is shorter than a header"),
        (
            "model.safetensors",
            b"\xff\xff\xff\xff\xff\xff\xff\x7f{}",
            "says that its header has 9223372036854775807 bytes",
        ),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0[]", "is no safetensors file"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0{}abc", "has 13 bytes, and its header speaks of 10"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for file in files.iter().filter(|file| **file != changed) {
            std::os::unix::fs::symlink(source.join(file), folder.path().join(file)).unwrap();
        }
        std::fs::write(folder.path().join(changed), bytes).unwrap();
        let error = backend.inspect(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{changed}: {error}");
    }
    let missing = backend.inspect(Path::new("/nowhere/at/all")).unwrap_err();
    assert!(missing.to_string().contains("/nowhere/at/all does not exist"), "{missing}");
    let info = backend.inspect(&source).unwrap();
    assert_eq!((info.format.as_str(), info.architecture.as_str()), ("mlx", "llama"));
    assert_eq!(info.parameters, Some(134_515_008));
    assert_eq!(info.quantization.as_deref(), Some("4-bit, groups of 64"));
    assert!(info.chat_template.unwrap().contains("im_start"));
}
