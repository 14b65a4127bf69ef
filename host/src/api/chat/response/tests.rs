//! Streams of events become exactly these documents and chunks.

use pajamas_plugin_api::{Error as PluginError, Finish, Usage};
use serde_json::{Value, json};

use super::*;
use crate::api::decoder::{Decoder, ToolCalls};
use crate::api::testing::{done, events, meta, plain, respond, token};
use crate::chat::{Tool, ToolCallParser, ToolSyntax};
use crate::engine::{EngineError, JobEvent};
use crate::text::StopMatcher;

const USAGE: Option<Streaming> = Some(Streaming { include_usage: true });
const NO_USAGE: Option<Streaming> = Some(Streaming { include_usage: false });

fn format(streaming: Option<Streaming>, n: u32, logprobs: bool) -> ChatFormat {
    ChatFormat::new(meta(), streaming, n, logprobs)
}

fn hello() -> Vec<JobEvent> {
    vec![token("He"), token("llo"), done(Finish::Stop, 2)]
}

fn calling() -> Decoder {
    let tool = Tool::from_json(json!({"type": "function", "function": {"name": "f"}})).unwrap();
    let parser = ToolCallParser::new(ToolSyntax::Hermes, &[tool], Box::new(|| "call_1".into()));
    let tools = ToolCalls { parser, parallel: true };
    Decoder::new(StopMatcher::new::<&str>(&[]).unwrap(), Some(tools), false)
}

/// What differs between the chunks of a stream.
fn choices(stream: &str) -> Vec<Value> {
    let chunks = events(stream).into_iter().filter(|event| *event != "[DONE]");
    chunks.map(|event| serde_json::from_str::<Value>(event).unwrap()["choices"][0].take()).collect()
}

#[test]
fn a_document_has_all_fields() {
    let body = respond(vec![(hello(), plain(false))], false, format(None, 1, false)).unwrap();
    let expected = concat!(
        r#"{"id":"id","object":"chat.completion","created":7,"model":"m","system_fingerprint":"pajamas-p-1.0.0","#,
        r#""choices":[{"index":0,"message":{"role":"assistant","content":"Hello","refusal":null},"logprobs":null,"#,
        r#""finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"#,
        r#""prompt_tokens_details":{"cached_tokens":1}}}"#,
    );
    assert_eq!(body, expected);
}

#[test]
fn a_stream_tells_role_text_end_and_usage() {
    let body = respond(vec![(hello(), plain(false))], true, format(USAGE, 1, false)).unwrap();
    let chunk = |choices: &str, usage: &str| {
        format!(
            "{{\"id\":\"id\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\",\
             \"system_fingerprint\":\"pajamas-p-1.0.0\",\"choices\":[{choices}],\"usage\":{usage}}}"
        )
    };
    let delta = |delta: &str, reason: &str| {
        let choice =
            format!("{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{reason}}}");
        chunk(&choice, "null")
    };
    let expected = [
        delta(r#"{"role":"assistant","content":""}"#, "null"),
        delta(r#"{"content":"He"}"#, "null"),
        delta(r#"{"content":"llo"}"#, "null"),
        delta("{}", "\"stop\""),
        chunk(
            "",
            r#"{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}"#,
        ),
        "[DONE]".to_owned(),
    ];
    assert_eq!(events(&body), expected);
}

#[test]
fn usage_is_absent_unless_asked_for() {
    let body = respond(vec![(hello(), plain(false))], true, format(NO_USAGE, 1, false)).unwrap();
    assert!(!body.contains("usage"), "{body}");
    assert_eq!(events(&body).len(), 5);
}

#[test]
fn several_answers_have_their_own_numbers_and_one_prompt() {
    let jobs = || vec![(hello(), plain(false)), (vec![token("Hi"), done(Finish::Length, 1)], plain(false))];
    let body: Value = serde_json::from_str(&respond(jobs(), false, format(None, 2, false)).unwrap()).unwrap();
    let answers: Vec<Value> = body["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| json!([c["index"], c["message"]["content"], c["finish_reason"]]))
        .collect();
    assert_eq!(answers, [json!([0, "Hello", "stop"]), json!([1, "Hi", "length"])]);
    assert_eq!(body["usage"]["prompt_tokens"], 3);
    assert_eq!(body["usage"]["completion_tokens"], 3);

    let streamed = choices(&respond(jobs(), true, format(NO_USAGE, 2, false)).unwrap());
    for (index, text, chunks) in [(0, "Hello", 4), (1, "Hi", 3)] {
        let own: Vec<&Value> = streamed.iter().filter(|choice| choice["index"] == index).collect();
        assert_eq!(own.len(), chunks);
        assert_eq!(own[0]["delta"]["role"], "assistant");
        let said: String = own.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(said, text);
    }
}

#[test]
fn tokens_are_reported_with_their_text() {
    let body = respond(vec![(hello(), plain(true))], false, format(None, 1, true)).unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    let token = json!({
        "token": "He", "logprob": -0.5, "bytes": [72, 101],
        "top_logprobs": [{"token": "x", "logprob": -1.5, "bytes": [120]}]
    });
    assert_eq!(body["choices"][0]["logprobs"]["content"][0], token);
    assert_eq!(body["choices"][0]["logprobs"]["content"].as_array().unwrap().len(), 2);

    let streamed = choices(&respond(vec![(hello(), plain(true))], true, format(NO_USAGE, 1, true)).unwrap());
    assert_eq!(streamed[1]["logprobs"]["content"], json!([token]));
    assert_eq!(streamed[3]["logprobs"], Value::Null);
}

#[test]
fn tool_calls_are_deltas_in_streams_and_whole_in_documents() {
    let job = || {
        let events = vec![
            token("<tool_call>{\"name\": \"f\", \"arguments\": {\"x\""),
            token(": 1}}</tool_call>"),
            done(Finish::Stop, 2),
        ];
        vec![(events, calling())]
    };
    let body: Value = serde_json::from_str(&respond(job(), false, format(None, 1, false)).unwrap()).unwrap();
    let function = json!({"name": "f", "arguments": "{\"x\": 1}"});
    let calls = json!([{"id": "call_1", "type": "function", "function": function}]);
    let message = json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": calls});
    assert_eq!(body["choices"][0]["message"], message);
    assert_eq!(body["choices"][0]["finish_reason"], "tool_calls");

    let streamed = choices(&respond(job(), true, format(NO_USAGE, 1, false)).unwrap());
    let deltas: Vec<&Value> = streamed.iter().map(|choice| &choice["delta"]).collect();
    let begin = json!([{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"x\""}}]);
    let more = json!([{"index": 0, "function": {"arguments": ": 1}"}}]);
    let expected = [
        json!({"role": "assistant", "content": ""}),
        json!({ "tool_calls": begin }),
        json!({ "tool_calls": more }),
        json!({}),
    ];
    assert_eq!(deltas, expected.iter().collect::<Vec<_>>());
    assert_eq!(streamed[3]["finish_reason"], "tool_calls");
}

fn failed() -> JobEvent {
    JobEvent::Failed(EngineError::Plugin(PluginError::invalid("the prompt is too long")))
}

#[test]
fn a_failure_before_the_first_update_is_told_by_the_status() {
    for stream in [false, true] {
        let events = vec![JobEvent::Usage(Usage::default()), failed()];
        let error = respond(vec![(events, plain(false))], stream, format(NO_USAGE, 1, false)).unwrap_err();
        assert_eq!(error.status(), 400);
    }
}

#[test]
fn a_failure_after_the_first_update_is_the_last_event() {
    let body =
        respond(vec![(vec![token("He"), failed()], plain(false))], true, format(NO_USAGE, 1, false)).unwrap();
    let last: Value = serde_json::from_str(events(&body).last().unwrap()).unwrap();
    assert_eq!(last["error"]["message"], "the prompt is too long");
}

#[test]
fn a_job_that_ends_without_a_word_is_a_failure() {
    let error = respond(vec![(vec![], plain(false))], false, format(None, 1, false)).unwrap_err();
    assert_eq!(error.code(), "plugin_failed");
}
