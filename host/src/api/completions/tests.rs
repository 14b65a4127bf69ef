//! Legacy completions: requests, refusals and answers.

use pajamas_plugin_api::Finish;
use serde_json::{Value, json};

use super::*;
use crate::api::testing::{done, events, meta, plain, respond, token};

fn read(mut options: Value) -> Result<CompletionSpec, ApiError> {
    let body = options.as_object_mut().unwrap();
    body.entry("model").or_insert("m".into());
    body.entry("prompt").or_insert("hi".into());
    CompletionSpec::read(&options.into())
}

/// The answer to `options` when each job says "He", "llo".
fn answer(options: Value) -> String {
    let spec = read(options).unwrap();
    let format = CompletionFormat::new(meta(), &spec);
    let job = || (vec![token("He"), token("llo"), done(Finish::Length, 2)], plain(format.logprobs));
    let jobs = format.echoes.iter().map(|_| job()).collect();
    respond(jobs, spec.generate.stream.is_some(), format).unwrap()
}

fn choices(body: &str) -> Value {
    serde_json::from_str::<Value>(body).unwrap()["choices"].take()
}

#[test]
fn a_document_has_all_fields() {
    let expected = concat!(
        r#"{"id":"id","object":"text_completion","created":7,"model":"m","system_fingerprint":"pajamas-p-1.0.0","#,
        r#""choices":[{"index":0,"text":"Hello","logprobs":null,"finish_reason":"length"}],"#,
        r#""usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}"#,
    );
    assert_eq!(answer(json!({})), expected);
}

#[test]
fn a_stream_tells_text_end_and_usage() {
    let body = answer(json!({"stream": true, "echo": true, "stream_options": {"include_usage": true}}));
    let events = events(&body);
    let choice = |text: &str, reason: Value| json!([{"index": 0, "text": text, "logprobs": null, "finish_reason": reason}]);
    let expected =
        [choice("hiHe", Value::Null), choice("llo", Value::Null), choice("", json!("length")), json!([])];
    for (event, expected) in events.iter().zip(expected) {
        assert_eq!(choices(event), expected);
    }
    assert!(events[0].ends_with(r#""usage":null}"#));
    assert!(events[3].contains(r#""total_tokens":5"#));
    assert_eq!(events[4..], ["[DONE]"]);
}

#[test]
fn each_prompt_has_its_answers_and_counts_once() {
    let body = answer(json!({"prompt": ["a", "b"], "n": 2, "echo": true}));
    let choices = choices(&body);
    let texts: Vec<&Value> = choices.as_array().unwrap().iter().map(|choice| &choice["text"]).collect();
    assert_eq!(texts, ["aHello", "aHello", "bHello", "bHello"]);
    let usage = serde_json::from_str::<Value>(&body).unwrap()["usage"].take();
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(6), &json!(8)));
}

#[test]
fn tokens_are_reported() {
    let logprobs = choices(&answer(json!({"logprobs": 1})))[0]["logprobs"].take();
    let expected = json!({
        "tokens": ["He", "llo"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{"x": -1.5, "He": -0.5}, {"x": -1.5, "llo": -0.5}],
        "text_offset": [0, 2],
    });
    assert_eq!(logprobs, expected);
}

#[test]
fn defaults_are_those_of_openai() {
    let spec = read(json!({"best_of": 1})).unwrap();
    assert_eq!(spec.generate.params.max_tokens, Some(16));
    assert_eq!(spec.generate.params.top_logprobs, None);
    assert_eq!(read(json!({"logprobs": 0})).unwrap().generate.params.top_logprobs, Some(0));
}

#[test]
fn wrong_fields_are_named() {
    let table = [
        (json!({"prompt": null}), "prompt", "missing"),
        (json!({"prompt": [""]}), "prompt", "must not be empty"),
        (json!({"prompt": vec!["a"; 129]}), "prompt", "got 129"),
        (json!({"prompt": vec!["a"; 17], "n": 8}), "n", "at most 128"),
        (json!({"suffix": "x"}), "suffix", "not supported"),
        (json!({"best_of": 2}), "best_of", "value of n"),
        (json!({"logprobs": 21}), "logprobs", "from 0 to 20"),
        (json!({"logprobs": true}), "logprobs", "a whole number"),
        (json!({"echo": true, "logprobs": 1}), "echo", "leave one out"),
        (json!({"echo": true, "prompt": [1, 2]}), "echo", "only prompts that are text"),
        (json!({"n": 9}), "n", "from 1 to 8"),
    ];
    for (options, param, message) in table {
        let error = read(options.clone()).unwrap_err();
        assert_eq!(error.param(), Some(param), "{options}: {error}");
        assert!(error.to_string().contains(message), "{options}: {error}");
    }
}
