//! Events become updates: text, stops, tool calls, log-probabilities, counts.

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::chat::{Tool, ToolSyntax};

fn decoder(stops: &[&str]) -> Decoder {
    Decoder::new(StopMatcher::new(stops).unwrap(), None, false)
}

fn calling(parallel: bool) -> Decoder {
    let tool = |name: &str| {
        let json = json!({"type": "function", "function": {"name": name}});
        Tool::from_json(json).unwrap()
    };
    let mut next = 0;
    let ids = Box::new(move || {
        next += 1;
        format!("call_{next}")
    });
    let parser = ToolCallParser::new(ToolSyntax::Hermes, &[tool("f"), tool("g")], ids);
    Decoder::new(StopMatcher::new::<&str>(&[]).unwrap(), Some(ToolCalls { parser, parallel }), true)
}

fn token(text: &[u8]) -> JobEvent {
    let token = TokenLogprob { token: 1, logprob: -0.5, text: Bytes::copy_from_slice(text) };
    JobEvent::Token { token, top: vec![] }
}

fn done(finish: Finish, completion_tokens: u32) -> JobEvent {
    JobEvent::Done { finish, usage: Usage { prompt_tokens: 3, cached_tokens: 1, completion_tokens } }
}

/// All updates up to the first with an ending.
fn updates(mut decoder: Decoder, events: Vec<JobEvent>) -> Vec<Update> {
    let mut updates = Vec::new();
    for event in events {
        updates.extend(decoder.event(event).unwrap());
        if updates.last().is_some_and(|update| update.end.is_some()) {
            break;
        }
    }
    updates
}

fn texts(updates: &[Update]) -> Vec<&str> {
    updates.iter().map(|update| &*update.text).collect()
}

fn ending(updates: &[Update]) -> (FinishReason, u32, u32) {
    let end = updates.last().unwrap().end.unwrap();
    (end.reason, end.usage.prompt_tokens, end.usage.completion_tokens)
}

#[test]
fn text_comes_token_by_token() {
    let updates = updates(decoder(&[]), vec![token(b"a"), token(b"b"), done(Finish::Stop, 2)]);
    assert_eq!(texts(&updates), ["a", "b", ""]);
    assert_eq!(ending(&updates), (FinishReason::Stop, 3, 2));
    assert_eq!(updates.iter().map(|update| update.token_count).sum::<u32>(), 2);
}

#[test]
fn code_points_are_never_split() {
    let events = vec![token(b"\xf0\x9f"), token(b"\x98"), token(b"\x80!\xe2"), done(Finish::Length, 3)];
    let updates = updates(decoder(&[]), events);
    assert_eq!(texts(&updates), ["\u{1f600}!", "\u{fffd}"]);
    assert_eq!(updates[0].token_count, 3);
    assert_eq!(ending(&updates), (FinishReason::Length, 3, 3));
}

#[test]
fn a_stop_string_across_tokens_ends_the_answer_with_the_hosts_own_count() {
    let usage = Usage { prompt_tokens: 9, cached_tokens: 2, completion_tokens: 0 };
    let events = vec![JobEvent::Usage(usage), token(b"one E"), token(b"N"), token(b"D two"), token(b"never")];
    let updates = updates(decoder(&["END"]), events);
    assert_eq!(texts(&updates), ["one ", ""]);
    assert_eq!(ending(&updates), (FinishReason::Stop, 9, 3));
}

#[test]
fn what_only_began_like_a_stop_string_is_sent_at_the_end() {
    let updates = updates(decoder(&["END"]), vec![token(b"one EN"), done(Finish::Stop, 1)]);
    assert_eq!(texts(&updates), ["one ", "EN"]);
}

#[test]
fn failures_and_cancellation_are_errors() {
    let failed = JobEvent::Failed(EngineError::ShuttingDown);
    assert_eq!(decoder(&[]).event(failed).unwrap_err().code(), "shutting_down");
    assert_eq!(decoder(&[]).event(done(Finish::Cancelled, 0)).unwrap_err().code(), "cancelled");
}

#[test]
fn tokens_come_with_their_text() {
    let decoder = Decoder::new(StopMatcher::new(&["END"]).unwrap(), None, true);
    let events = vec![token(b"a"), token(b"b E"), token(b"x"), token(b" E"), token(b"ND"), token(b"never")];
    let updates = updates(decoder, events);
    assert_eq!(texts(&updates), ["a", "b ", "Ex", " ", ""]);
    let counts: Vec<usize> = updates.iter().map(|update| update.tokens.len()).collect();
    // "b E" waits for its last letter; " E" was sent in part, "ND" not at all.
    assert_eq!(counts, [1, 0, 2, 0, 1]);
}

fn call(index: usize, start: Option<(&str, &str)>, arguments: &str) -> CallDelta {
    let start = start.map(|(id, name)| (id.to_owned(), name.to_owned()));
    CallDelta { index, start, arguments: arguments.to_owned() }
}

#[test]
fn tool_calls_stream() {
    let events = vec![
        token(b"Let me see.\n<tool"),
        token(b"_call>\n{\"name\": \"f\", \"arguments\": {\"x\""),
        token(b": 1}"),
        token(b"}\n</tool_call>"),
        done(Finish::Stop, 4),
    ];
    let updates = updates(calling(true), events);
    assert_eq!(texts(&updates).concat(), "Let me see.");
    let calls: Vec<&CallDelta> = updates.iter().flat_map(|update| &update.calls).collect();
    assert_eq!(calls, [&call(0, Some(("call_1", "f")), "{\"x\""), &call(0, None, ": 1}")]);
    assert_eq!(ending(&updates), (FinishReason::ToolCalls, 3, 4));
    // The only token with text that was sent is the first, and only a part of it was.
    assert_eq!(updates.iter().map(|update| update.tokens.len()).sum::<usize>(), 1);
}

const TWO_CALLS: &[u8] = b"<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>\n\
    <tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>";

#[test]
fn parallel_calls_are_all_reported() {
    let updates = updates(calling(true), vec![token(TWO_CALLS), done(Finish::Stop, 1)]);
    assert_eq!(
        updates[0].calls,
        [call(0, Some(("call_1", "f")), "{}"), call(1, Some(("call_2", "g")), "{}")]
    );
}

#[test]
fn a_second_call_ends_the_answer_when_calls_must_not_be_parallel() {
    let updates = updates(calling(false), vec![token(TWO_CALLS), token(b"never"), done(Finish::Stop, 2)]);
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].calls, [call(0, Some(("call_1", "f")), "{}")]);
    assert_eq!(ending(&updates), (FinishReason::ToolCalls, 0, 1));
}

#[test]
fn an_answer_cut_off_inside_a_call_ends_for_length() {
    let events = vec![token(b"<tool_call>{\"name\": \"f\", \"arguments\": {\"x"), done(Finish::Length, 1)];
    let updates = updates(calling(true), events);
    assert_eq!(ending(&updates).0, FinishReason::Length);
    assert_eq!(updates[0].calls, [call(0, Some(("call_1", "f")), "{\"x")]);
}

#[test]
fn text_that_turns_out_to_be_no_call_is_sent() {
    let events = vec![token(b"<tool_call>{\"name\": \"h\""), token(b"}"), done(Finish::Stop, 2)];
    let updates = updates(calling(true), events);
    assert_eq!(texts(&updates).concat(), "<tool_call>{\"name\": \"h\"}");
    assert_eq!(ending(&updates).0, FinishReason::Stop);
    assert_eq!(updates.iter().map(|update| update.tokens.len()).sum::<usize>(), 2);
}
