//! The tasks `embed`, `rerank` and `tokenize`.

use pajamas_pipelines::{Pipeline, open};
use pajamas_plugin_api::{Dtype, ErrorKind, Part, Task};
use serde_json::{Value, json};

use crate::fake::{FakeNetwork, FakeNetworks, FakeValue, spec};
use crate::support::{Answer, ask, ask_cancelled, assert_close, info, object};

/// A tokenizer of words, with the settings for length that whoever saved it had.
pub(crate) const TOKENIZER: &str = r#"{
  "version": "1.0",
  "truncation": { "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0 },
  "padding": { "strategy": { "Fixed": 16 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
    "pad_type_id": 0, "pad_token": "[PAD]" },
  "added_tokens": [
    { "id": 0, "content": "[PAD]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true },
    { "id": 2, "content": "[CLS]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true },
    { "id": 3, "content": "[SEP]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true }
  ],
  "normalizer": null,
  "pre_tokenizer": { "type": "Whitespace" },
  "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] },
  "decoder": null,
  "model": { "type": "WordLevel", "unk_token": "[UNK]",
    "vocab": { "[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "a": 4, "cat": 5, "dog": 6, "the": 7 } }
}"#;

/// The inputs of a BERT.
fn inputs() -> Vec<pajamas_pipelines::TensorSpec> {
    ["input_ids", "attention_mask", "token_type_ids"].map(|name| spec(name, Dtype::I64, &[0, 0])).to_vec()
}

fn model(files: &[(&str, &str)], network: FakeNetwork, options: Value) -> Box<dyn Pipeline> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    std::fs::write(folder.path().join("tokenizer.json"), TOKENIZER).unwrap();
    let networks = FakeNetworks::new(folder.path(), &[("model.onnx", network)]);
    open(folder.path(), &object(options), &networks).unwrap()
}

/// An encoder whose vector of a token is its id and its mask; padding shows as soon as it is counted.
fn encoder(pooling: &str) -> Box<dyn Pipeline> {
    let network =
        FakeNetwork::new(inputs(), vec![spec("last_hidden_state", Dtype::F32, &[0, 0, 2])], |inputs, _| {
            let ids = inputs["input_ids"];
            let masks = inputs["attention_mask"].as_i64s();
            let numbers: Vec<f32> = ids
                .as_i64s()
                .iter()
                .zip(masks)
                .flat_map(|(id, mask)| if mask == 1 { [*id as f32, 1.0] } else { [1000.0, 1000.0] })
                .collect();
            FakeValue::f32s(&[ids.shape[0], ids.shape[1], 2], &numbers)
        });
    let config = r#"{"model_type": "bert", "max_position_embeddings": 8, "hidden_size": 2}"#;
    model(&[("config.json", config), ("1_Pooling/config.json", pooling)], network, json!({}))
}

fn by_index(mut answer: Answer) -> Vec<Vec<f32>> {
    answer.vectors.sort_by_key(|(index, _)| *index);
    answer.vectors.into_iter().map(|(_, values)| values).collect()
}

#[test]
fn texts_of_any_length_have_the_vector_that_they_have_alone() {
    let raw = || json!({ "normalize": false });
    for (pooling, expected) in [
        (r#"{"pooling_mode_mean_tokens": true}"#, [[3.0, 1.0], [3.75, 1.0], [2.5, 1.0]]),
        (r#"{"pooling_mode_cls_token": true}"#, [[2.0, 1.0]; 3]),
        (r#"{"pooling_mode_lasttoken": true}"#, [[3.0, 1.0]; 3]),
    ] {
        let model = encoder(pooling);
        let texts = || vec![Part::text("a"), Part::text("a dog"), Part::text("")];
        let answer = ask(&*model, Task::Embed, raw(), texts()).unwrap();
        assert_eq!(answer.usage.prompt_tokens, 3 + 4 + 2);
        assert_eq!(by_index(answer), expected, "{pooling}");
        for (part, expected) in texts().into_iter().zip(expected) {
            assert_eq!(by_index(ask(&*model, Task::Embed, raw(), vec![part]).unwrap()), [expected]);
        }
    }
}

#[test]
fn many_texts_go_through_several_batches() {
    let model = encoder(r#"{"pooling_mode_mean_tokens": true}"#);
    let text = |count: usize| Part::text(vec!["cat"; count].join(" "));
    let parts: Vec<_> = (0..100).map(|index| text(index % 7)).collect();
    let vectors = by_index(ask(&*model, Task::Embed, json!({ "normalize": false }), parts).unwrap());
    assert_eq!(vectors.len(), 100);
    for (index, vector) in vectors.iter().enumerate() {
        let words = (index % 7) as f32;
        assert_close(
            vector,
            &[(2.0 + 3.0 + 5.0 * words) / (2.0 + words), 1.0],
            1e-6,
            &format!("text {index}"),
        );
    }
}

#[test]
fn long_texts_are_refused_or_cut() {
    let model = encoder(r#"{"pooling_mode_mean_tokens": true}"#);
    assert_eq!(info(&*model).context_length, Some(8));
    assert_eq!((info(&*model).embedding_length, info(&*model).vocab_size), (Some(2), Some(8)));
    let long = || vec![Part::text("a"), Part::text("dog dog dog dog dog dog dog")];
    let error = ask(&*model, Task::Embed, json!({}), long()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("input 1 has 9 tokens and this model takes 8"), "{error}");
    let answer = ask(&*model, Task::Embed, json!({ "truncate": true, "normalize": false }), long()).unwrap();
    assert_eq!(answer.usage.prompt_tokens, 3 + 8);
    // six dogs are left, and the tokens around them
    assert_eq!(by_index(answer)[1], [41.0 / 8.0, 1.0]);
}

#[test]
fn token_ids_get_what_they_lack() {
    let model = encoder(r#"{"pooling_mode_mean_tokens": true}"#);
    let parts = vec![Part::text("a dog"), Part::Tokens(vec![4, 6]), Part::Tokens(vec![2, 4, 6, 3])];
    let vectors = by_index(ask(&*model, Task::Embed, json!({}), parts).unwrap());
    assert_eq!(vectors[0], vectors[1]);
    assert_eq!(vectors[0], vectors[2]);
    assert_close(&[vectors[0].iter().map(|n| n * n).sum::<f32>()], &[1.0], 1e-6, "length");
    for (parts, expected) in [
        (vec![Part::Tokens(vec![8])], "there is no token 8; the vocabulary has 8"),
        (vec![Part::Pcm(vec![])], "embed takes texts and token ids"),
        (vec![], "embed needs a text"),
    ] {
        let error = ask(&*model, Task::Embed, json!({}), parts).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains(expected), "{error}");
    }
    assert!(ask_cancelled(&*model, Task::Embed, vec![Part::text("a")]).vectors.is_empty());
}

#[test]
fn control_tokens_in_a_text_are_text() {
    let model = encoder(r#"{"pooling_mode_mean_tokens": true}"#);
    for (text, params, expected) in [
        ("the dog", json!({}), vec![7u32, 6]),
        ("the dog", json!({ "add_special": true }), vec![2, 7, 6, 3]),
        // `[`, `SEP` and `]` are words that the vocabulary lacks
        ("[SEP]", json!({}), vec![1, 1, 1]),
    ] {
        let answer = ask(&*model, Task::Tokenize, params, vec![Part::text(text)]).unwrap();
        let tokens = &answer.tensors[0];
        let ids: Vec<u32> = tokens.data.as_chunks().0.iter().map(|id| u32::from_ne_bytes(*id)).collect();
        assert_eq!((tokens.name.as_str(), &ids), ("tokens", &expected), "{text}");
        assert_eq!(tokens.shape, [expected.len() as i64]);
    }
}

/// A cross-encoder that counts the words of the document that are in the query.
fn reranker() -> Box<dyn Pipeline> {
    let network = FakeNetwork::new(inputs(), vec![spec("logits", Dtype::F32, &[0, 1])], |inputs, _| {
        let ids = inputs["input_ids"];
        let len = ids.shape[1] as usize;
        let (ids, types) = (ids.as_i64s(), inputs["token_type_ids"].as_i64s());
        let score = |(ids, types): (&[i64], &[i64])| {
            let of =
                |wanted: i64| ids.iter().zip(types).filter(move |(id, kind)| **id > 3 && **kind == wanted);
            of(1).filter(|(id, _)| of(0).any(|(other, _)| other == *id)).count() as f32 - 1.0
        };
        let scores: Vec<f32> = ids.chunks(len).zip(types.chunks(len)).map(score).collect();
        FakeValue::f32s(&[scores.len() as i64, 1], &scores)
    });
    let config = r#"{"model_type": "bert", "architectures": ["BertForSequenceClassification"],
        "id2label": {"0": "LABEL_0"}, "max_position_embeddings": 8}"#;
    model(&[("config.json", config)], network, json!({}))
}

#[test]
fn documents_are_scored_by_what_they_share_with_the_query() {
    let model = reranker();
    let parts = vec![Part::text("the cat"), Part::text("a dog"), Part::text("the cat"), Part::text("cat")];
    let mut answer = ask(&*model, Task::Rerank, json!({}), parts).unwrap();
    answer.documents.sort_by_key(|document| document["index"].as_u64());
    let scores: Vec<f32> =
        answer.documents.iter().map(|document| document["score"].as_f64().unwrap() as f32).collect();
    assert_close(&scores, &[0.268_941, 0.731_059, 0.5], 1e-5, "scores");
    assert_eq!(answer.usage.prompt_tokens, 7 + 7 + 6);
    for (parts, expected) in [
        (vec![], "the first part must be the query"),
        (vec![Part::text("a")], "the parts after the query must be the documents"),
        (vec![Part::text("a"), Part::Tokens(vec![4])], "the parts after the query must be the documents"),
        (
            vec![Part::text("a a a"), Part::text("a"), Part::text("a a a")],
            "query and document 1 have 9 tokens together and this model takes 8",
        ),
    ] {
        let error = ask(&*model, Task::Rerank, json!({}), parts).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains(expected), "{error}");
    }
}
