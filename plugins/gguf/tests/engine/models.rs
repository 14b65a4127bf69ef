//! Everything around generation: loading, inspecting, tokenising and embedding.

use crate::made::{self, Weights};
use pajamas_generation_tests::support::{fail, generate, greedy, run};
use pajamas_gguf::GgufModel;
use pajamas_plugin_api::{Backend, ErrorKind, Model, Params, Part, Request, Task};
use pajamas_test_models::model;
use serde_json::json;

use crate::support::{MINILM, SMOLLM2, backend, load, try_load};

fn embed(model: &GgufModel, texts: &[&str], params: serde_json::Value) -> Vec<Vec<f32>> {
    let parts = texts.iter().map(|text| Part::text(*text)).collect();
    let mut vectors =
        run(model, Request { task: Task::Embed, params: params.into(), parts, deadline_ms: None }).vectors;
    vectors.sort_by_key(|(index, _)| *index);
    assert_eq!(
        vectors.iter().map(|(index, _)| *index as usize).collect::<Vec<_>>(),
        (0..texts.len()).collect::<Vec<_>>()
    );
    vectors.into_iter().map(|(_, values)| values).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn an_embedding_model_places_like_beside_like() {
    let Some(model) = load(MINILM, json!({})) else { return };
    assert_eq!(model.info().tasks, [Task::Embed, Task::Tokenize]);
    let texts = ["A cat sits on the mat.", "There is a kitten on the rug.", "The stock market fell today."];
    let vectors = embed(&model, &texts, json!({}));
    assert_eq!(vectors[0].len(), 384);
    assert!(vectors.iter().all(|vector| (cosine(vector, vector) - 1.0).abs() < 1e-5));
    assert!((vectors[0].iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-4);
    assert!(cosine(&vectors[0], &vectors[1]) > cosine(&vectors[0], &vectors[2]) + 0.3);
    // A text gives the same vector in any company.
    for (text, together) in texts.iter().zip(&vectors) {
        assert!(cosine(&embed(&model, &[text], json!({}))[0], together) > 0.999);
    }
    let many: Vec<String> =
        (0..100).map(|i| format!("Sentence number {i}. {}", "word ".repeat(i % 40))).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(embed(&model, &many, json!({"normalize": false})).len(), 100);
}

#[test]
fn a_text_that_is_too_long_is_refused_or_cut() {
    let Some(model) = load(MINILM, json!({})) else { return };
    let long = "word ".repeat(600);
    let request = |params: serde_json::Value| Request {
        task: Task::Embed,
        params: params.into(),
        parts: vec![Part::text(long.as_str())],
        deadline_ms: None,
    };
    let (kind, message) = fail(&model, request(json!({})));
    assert_eq!(kind, ErrorKind::Invalid);
    assert!(message.contains("602 tokens") && message.contains("512"), "{message}");
    let cut = run(&model, request(json!({"truncate": true})));
    assert_eq!((cut.vectors.len(), cut.usage.prompt_tokens), (1, 512));
    assert_eq!(
        fail(&model, Request { task: Task::Generate, ..request(json!({})) }).0,
        ErrorKind::Unsupported
    );
}

#[test]
fn a_generative_model_embeds_too() {
    let Some(model) = load(SMOLLM2, json!({"slots": 1, "context": 512})) else { return };
    let vectors = embed(&model, &["a small cat", "a little cat", "quarterly revenue"], json!({}));
    assert_eq!(vectors[0].len(), 576);
    assert!(cosine(&vectors[0], &vectors[1]) > cosine(&vectors[0], &vectors[2]));
}

#[test]
fn inspecting_tells_what_the_file_says() {
    let (Some(chat), Some(embedding)) = (model(SMOLLM2), model(MINILM)) else { return };
    let info = backend().inspect(&chat).unwrap();
    assert_eq!((info.format.as_str(), info.architecture.as_str()), ("gguf", "llama"));
    assert_eq!(info.quantization.as_deref(), Some("Q4_1"));
    assert_eq!((info.vocab_size, info.embedding_length), (Some(49152), Some(576)));
    assert!(info.parameters.unwrap() > 130_000_000 && info.chat_template.unwrap().contains("<|im_start|>"));
    assert_eq!(info.eos_token.as_deref(), Some("<|im_end|>"));
    assert!(info.control_tokens.iter().any(|text| text == "<|im_start|>"));
    assert_eq!(info.tasks, [Task::Generate, Task::Embed, Task::Tokenize]);
    let info = backend().inspect(&embedding).unwrap();
    assert_eq!((info.architecture.as_str(), info.quantization.as_deref()), ("bert", Some("F16")));
    let loaded = try_load(chat, json!({"slots": 2, "context": 1024})).unwrap();
    let (estimated, measured) = (loaded.info().estimated_bytes["cpu"], loaded.stats().bytes["cpu"]);
    assert!(
        measured > estimated / 2 && measured < estimated * 2,
        "estimated {estimated}, measured {measured}"
    );
}

#[test]
fn files_and_options_that_cannot_work_are_refused_with_the_reason() {
    let Some(path) = model(SMOLLM2) else { return };
    let dir = std::env::temp_dir().join(format!("pajamas-gguf-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    for (bytes, word) in [
        (&whole[..whole.len() / 2], "cut off"),
        (&whole[..1000], "cut off"),
        (b"PK\x03\x04zip", "not a GGUF"),
    ] {
        let path = write("bad.gguf", bytes);
        for error in [backend().inspect(&path).unwrap_err(), try_load(path.clone(), json!({})).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::BadModel);
            assert!(error.message().contains(word) && error.message().contains("bad.gguf"), "{error}");
        }
    }
    // The header is sound, but llama.cpp does not know the architecture.
    let mut unknown = whole.clone();
    let at = whole.windows(5).position(|window| window == b"llama").unwrap();
    unknown[at..at + 5].copy_from_slice(b"lhama");
    let error = try_load(write("unknown.gguf", &unknown), json!({})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadModel);
    assert!(error.message().contains("lhama"), "{error}");
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(backend().inspect(&dir.join("none.gguf")).unwrap_err().kind(), ErrorKind::NotFound);
    let error = try_load(path.clone(), json!({"memory_limit_bytes": 1000})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.message().contains("1000 bytes"), "{error}");
    let error = try_load(path.clone(), json!({"lora": [{"path": "/nowhere.gguf"}]})).unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.message().contains("/nowhere.gguf"), "{error}");
    assert_eq!(try_load(path, json!({"contxt": 1})).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn damaged_headers_never_end_the_process() {
    let Some(path) = model(SMOLLM2) else { return };
    let whole = std::fs::read(&path).unwrap();
    let file = std::env::temp_dir().join(format!("pajamas-gguf-damaged-{}.gguf", std::process::id()));
    // A fixed sequence of positions in the first part of the header, where lengths and types are.
    let mut state = 12345u32;
    for _ in 0..40 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut bytes = whole[..2 << 20].to_vec();
        let at = (state >> 8) as usize % 2000;
        bytes[at] ^= (state >> 24) as u8 | 1;
        std::fs::write(&file, &bytes).unwrap();
        assert!(backend().inspect(&file).is_err());
    }
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn the_probe_names_engine_and_devices() {
    let report = backend().probe().unwrap();
    assert!(report.engine.unwrap().starts_with("llama.cpp "));
    assert!(report.devices.iter().any(|device| device.id == "cpu" && device.memory_total_bytes.is_some()));
    assert_eq!(report.reason, None);
}

#[test]
fn tokenising_answers_with_one_tensor() {
    let Some(model) = load(SMOLLM2, json!({"slots": 1, "context": 256})) else { return };
    let answer = run(
        &model,
        Request {
            task: Task::Tokenize,
            params: Params::default(),
            parts: vec![Part::text("Hello world")],
            deadline_ms: None,
        },
    );
    assert_eq!(answer.tensors.len(), 1);
    assert_eq!((answer.tensors[0].0.as_str(), answer.tensors[0].1.len()), ("tokens", 8));
    assert_eq!(answer.usage.prompt_tokens, 2);
}

#[test]
fn tokens_around_a_text_are_added_when_asked_for() {
    let Some(model) = load(MINILM, json!({})) else { return };
    let ids = |params: serde_json::Value| {
        let parts = vec![Part::text("a cat")];
        let request = Request { task: Task::Tokenize, params: params.into(), parts, deadline_ms: None };
        let tensors = run(&model, request).tensors;
        let ids = tensors[0].1.chunks_exact(4).map(|id| u32::from_ne_bytes(id.try_into().unwrap()));
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(json!({})), [1037, 4937]);
    assert_eq!(ids(json!({"add_special": true})), [101, 1037, 4937, 102]);
}

#[test]
fn pooling_by_rank_needs_a_classifier() {
    let Some(path) = model(MINILM) else { return };
    let error = try_load(path.clone(), json!({"pooling": "rank"})).unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.message().contains("`pooling`"), "{error}");
    let model = try_load(path, json!({"pooling": "cls"})).unwrap();
    let request = Request { task: Task::Rerank, params: Params::default(), parts: vec![], deadline_ms: None };
    assert_eq!(fail(&model, request).0, ErrorKind::Unsupported);
    assert_eq!(embed(&model, &["a cat"], json!({})).len(), 1);
}

/// MiniLM with a classifier on top: the answer must be what the classifier makes of the vector of the first token.
#[test]
fn a_reranking_model_scores_each_document_with_the_query() {
    const LENGTH: usize = 384;
    let Some(path) = model(MINILM) else { return };
    let dir = tempfile::tempdir().unwrap();
    let dense: Vec<f32> =
        (0..LENGTH * LENGTH).map(|i| ((i * 7919) % 1009) as f32 / 1009.0 - 0.5).map(|x| x / 8.0).collect();
    let output: Vec<f32> = (0..LENGTH).map(|i| ((i * 37) % 11) as f32 / 10.0 - 0.5).collect();
    let head = [
        Weights {
            name: "cls.weight".into(),
            dims: vec![LENGTH as u64, LENGTH as u64],
            values: dense.clone(),
        },
        Weights { name: "cls.output.weight".into(), dims: vec![LENGTH as u64, 1], values: output.clone() },
    ];
    let made = made::with_head(&path, dir.path().join("reranker.gguf"), made::POOLING_RANK, &head);
    assert!(backend().inspect(&made).unwrap().tasks.contains(&Task::Rerank));
    let reranker = try_load(made, json!({})).unwrap();
    assert_eq!(reranker.info().tasks, [Task::Rerank, Task::Tokenize]);

    let documents = ["Paris is the capital of France.", "Cats sleep for most of the day.", "no"];
    let parts = ["What is the capital of France?"].iter().chain(&documents).map(|text| Part::text(*text));
    let request =
        Request { task: Task::Rerank, params: Params::default(), parts: parts.collect(), deadline_ms: None };
    let mut results = run(&reranker, request).results;
    results.sort_by_key(|result| result["index"].as_u64());
    assert_eq!(results.len(), documents.len());

    let plain = try_load(path, json!({"pooling": "cls"})).unwrap();
    let ids = |text: &str| {
        let request = Request {
            task: Task::Tokenize,
            params: Params::default(),
            parts: vec![Part::text(text)],
            deadline_ms: None,
        };
        let tensors = run(&plain, request).tensors;
        let ids = tensors[0].1.chunks_exact(4).map(|id| u32::from_ne_bytes(id.try_into().unwrap()));
        ids.collect::<Vec<_>>()
    };
    let query = ids("What is the capital of France?");
    for (document, result) in documents.iter().zip(&results) {
        // BERT's form of a pair: [CLS] query [SEP] document [SEP].
        let pair = [&[101], query.as_slice(), &[102], &ids(document), &[102]].concat();
        let request = Request {
            task: Task::Embed,
            params: json!({"normalize": false}).into(),
            parts: vec![Part::Tokens(pair)],
            deadline_ms: None,
        };
        let first = &run(&plain, request).vectors[0].1;
        let hidden = dense
            .chunks_exact(LENGTH)
            .map(|row| row.iter().zip(first).map(|(w, x)| w * x).sum::<f32>().tanh());
        let expected: f32 = hidden.zip(&output).map(|(h, w)| h * w).sum();
        let score = result["score"].as_f64().unwrap() as f32;
        assert!((score - expected).abs() < 0.02, "{document}: {score}, expected {expected}");
    }
}

#[test]
fn an_adapter_changes_what_the_model_says() {
    let Some(path) = model(SMOLLM2) else { return };
    let dir = tempfile::tempdir().unwrap();
    let pair = |rows: u64| {
        let fill = |name: &str, dims: [u64; 2]| Weights {
            name: format!("blk.0.attn_output.weight.{name}"),
            dims: dims.to_vec(),
            values: (0..dims[0] * dims[1]).map(|i| ((i * 31) % 17) as f32 / 17.0 - 0.5).collect(),
        };
        [fill("lora_a", [576, 4]), fill("lora_b", [4, rows])]
    };
    let adapter = made::lora(dir.path().join("a.gguf"), "llama", 4.0, &pair(576));
    let says = |options: serde_json::Value| {
        let model = try_load(path.clone(), options).unwrap();
        run(&model, generate("Name the capital of France.", &greedy(12))).text()
    };
    let small = |lora: serde_json::Value| json!({"slots": 1, "context": 256, "lora": lora});
    let plain = says(small(json!([])));
    assert_eq!(says(small(json!([{"path": adapter, "scale": 0.0}]))), plain);
    assert_ne!(says(small(json!([{"path": adapter, "scale": 2.0}]))), plain);

    let of_another = made::lora(dir.path().join("b.gguf"), "bert", 4.0, &pair(576));
    let of_another_size = made::lora(dir.path().join("c.gguf"), "llama", 4.0, &pair(500));
    for wrong in [of_another, of_another_size, path.clone()] {
        let error = try_load(path.clone(), small(json!([{"path": wrong}]))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("does not fit the model"), "{error}");
    }
}
