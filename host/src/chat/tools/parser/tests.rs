//! Tool calls in every syntax, in any chunking.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// What an answer consisted of: its words, and its calls with name and arguments.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    content: String,
    calls: Vec<(String, String)>,
}

fn tools() -> Vec<Tool> {
    ["weather", "now"]
        .map(|name| Tool::from_json(json!({"type": "function", "function": {"name": name}})).unwrap())
        .to_vec()
}

fn parser(syntax: ToolSyntax) -> ToolCallParser {
    let mut next = 0;
    let ids = move || {
        next += 1;
        format!("call_{next}")
    };
    ToolCallParser::new(syntax, &tools(), Box::new(ids))
}

fn parse<'a>(syntax: ToolSyntax, pieces: impl IntoIterator<Item = &'a str>) -> Answer {
    let mut parser = parser(syntax);
    let mut events: Vec<ToolEvent> = pieces.into_iter().flat_map(|piece| parser.push(piece)).collect();
    events.extend(parser.finish());
    let mut answer = Answer::default();
    for event in events {
        match event {
            ToolEvent::Content(text) => answer.content += &text,
            ToolEvent::CallStart { index, id, name } => {
                assert_eq!((index, id), (answer.calls.len(), format!("call_{}", index + 1)));
                answer.calls.push((name, String::new()));
            }
            ToolEvent::CallArguments { index, delta } => answer.calls[index].1 += &delta,
        }
    }
    assert_eq!(parser.calls(), answer.calls.len());
    answer
}

/// What a model wrote, the content in it, and the calls in it with their arguments.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// Parses `text` as a whole and character by character, which must not differ.
fn check(syntax: ToolSyntax, text: &str, content: &str, calls: &[(&str, &str)]) {
    let calls = calls.iter().map(|(name, arguments)| ((*name).to_owned(), (*arguments).to_owned()));
    let expected = Answer { content: content.to_owned(), calls: calls.collect() };
    assert_eq!(parse(syntax, [text]), expected, "{syntax:?}: {text}");
    let chars: Vec<String> = text.chars().map(String::from).collect();
    assert_eq!(parse(syntax, chars.iter().map(String::as_str)), expected, "{syntax:?}: {text}");
}

const OSLO: (&str, &str) = ("weather", "{\"city\": \"Oslo\"}");
const NOW: (&str, &str) = ("now", "{}");

#[test]
fn hermes_calls_are_found() {
    let table: &[Case<'_>] = &[
        ("Just words, a < b.", "Just words, a < b.", &[]),
        (
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>",
            "",
            &[OSLO],
        ),
        (
            "Let me see.\n<tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call>\n\
             <tool_call>\n{\"arguments\": {\"city\": \"Oslo\"}, \"id\": 7, \"name\": \"weather\"}\n</tool_call>\n",
            "Let me see.",
            &[NOW, OSLO],
        ),
        // The arguments may be missing, or be JSON in a string.
        ("<tool_call>{\"name\": \"now\"}</tool_call>", "", &[NOW]),
        (
            "<tool_call>{\"name\": \"weather\", \"arguments\": \"{\\\"city\\\": \\\"Oslo\\\"}\"}</tool_call>",
            "",
            &[OSLO],
        ),
        // The closing marker may be missing.
        ("<tool_call>{\"name\": \"now\", \"arguments\": {}}", "", &[NOW]),
        ("<tool_call>{\"name\": \"now\", \"arguments\": {}}\n</tool", "", &[NOW]),
        (
            "<tool_call>{\"name\": \"now\", \"arguments\": {}}<tool_call>{\"name\": \"now\", \"arguments\": {}} Done.",
            " Done.",
            &[NOW, NOW],
        ),
        // Words after a call.
        ("<tool_call>{\"name\": \"now\"}</tool_call>\nDone.", "\nDone.", &[NOW]),
    ];
    for (text, content, calls) in table {
        check(ToolSyntax::Hermes, text, content, calls);
    }
}

#[test]
fn what_is_no_call_is_content() {
    let table: &[Case<'_>] = &[
        ("a <tool_box>", "a <tool_box>", &[]),
        ("a <tool_", "a <tool_", &[]),
        ("<<tool_call>{\"name\": \"now\"}</tool_call>", "<", &[NOW]),
        ("  \n", "  \n", &[]),
        ("<tool_call>not JSON</tool_call>", "<tool_call>not JSON</tool_call>", &[]),
        (
            "<tool_call>{\"name\": \"other\", \"arguments\": {}}",
            "<tool_call>{\"name\": \"other\", \"arguments\": {}}",
            &[],
        ),
        (
            "<tool_call>{\"name\": \"now\", \"arguments\": 7}",
            "<tool_call>{\"name\": \"now\", \"arguments\": 7}",
            &[],
        ),
        (
            "<tool_call>{\"name\": \"now\", \"arguments\": \"x\"}",
            "<tool_call>{\"name\": \"now\", \"arguments\": \"x\"}",
            &[],
        ),
        ("<tool_call>{\"arguments\": {}}", "<tool_call>{\"arguments\": {}}", &[]),
        ("<tool_call>{\"name\": \"no", "<tool_call>{\"name\": \"no", &[]),
        ("<tool_call>[<tool_call>{\"name\": \"now\"}</tool_call>", "<tool_call>[", &[NOW]),
        // A call that has started is reported; the rest of it is content.
        ("<tool_call>{\"name\": \"now\", \"arguments\": {oops}}", "oops}}", &[("now", "{")]),
        ("<tool_call>{\"name\": \"now\", \"arguments\": {\"a\": 1", "", &[("now", "{\"a\": 1")]),
    ];
    for (text, content, calls) in table {
        check(ToolSyntax::Hermes, text, content, calls);
    }
}

#[test]
fn llama_calls_are_found() {
    let call = "{\"name\": \"weather\", \"parameters\": {\"city\": \"Oslo\"}}";
    let table: &[Case<'_>] = &[
        (call, "", &[OSLO]),
        (&format!("\n <|python_tag|>{call}\n"), "", &[OSLO]),
        (&format!("I look. <|python_tag|>{call}"), "I look.", &[OSLO]),
        (&format!("{call}; {call}\n{call}"), "", &[OSLO, OSLO, OSLO]),
        (&format!("{call}; and so on"), "; and so on", &[OSLO]),
        (&format!("{call} and so on"), " and so on", &[OSLO]),
        (&format!("As JSON: {call}"), &format!("As JSON: {call}"), &[]),
        ("{\"temperature\": 3}", "{\"temperature\": 3}", &[]),
        ("<|python_tag|>print(1)", "<|python_tag|>print(1)", &[]),
    ];
    for (text, content, calls) in table {
        check(ToolSyntax::Llama3, text, content, calls);
    }
}

#[test]
fn mistral_calls_are_found() {
    let call = "{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}, \"id\": \"abcdefghi\"}";
    let table: &[Case<'_>] = &[
        (&format!("[TOOL_CALLS] [{call}]"), "", &[OSLO]),
        (&format!("[TOOL_CALLS][{call}, {call}]\n"), "", &[OSLO, OSLO]),
        (&format!("See: [TOOL_CALLS][{call}] Done."), "See: Done.", &[OSLO]),
        (&format!("[TOOL_CALLS][{call}, "), ", ", &[OSLO]),
        (&format!("[TOOL_CALLS][{call} oops"), " oops", &[OSLO]),
        ("[TOOL_CALLS] none", "[TOOL_CALLS] none", &[]),
        ("[1, 2]", "[1, 2]", &[]),
    ];
    for (text, content, calls) in table {
        check(ToolSyntax::Mistral, text, content, calls);
    }
}

#[test]
fn generic_calls_are_found() {
    check(ToolSyntax::Generic, " {\"name\": \"now\", \"arguments\": {}}\n", "", &[NOW]);
    check(ToolSyntax::Generic, "<tool_call>{}", "<tool_call>{}", &[]);
}

#[test]
fn arguments_stream_while_they_are_generated() {
    let mut parser = parser(ToolSyntax::Hermes);
    let content = |text: &str| ToolEvent::Content(text.into());
    let arguments = |delta: &str| ToolEvent::CallArguments { index: 0, delta: delta.into() };
    let start = ToolEvent::CallStart { index: 0, id: "call_1".into(), name: "weather".into() };
    let table = [
        ("So", vec![content("So")]),
        (" <", vec![]),
        ("br> <tool", vec![content(" <br>")]),
        ("_call>{\"name\": \"weather\"", vec![]),
        (", \"arguments\": ", vec![]),
        ("{\"ci", vec![start, arguments("{\"ci")]),
        ("ty\"", vec![arguments("ty\"")]),
        (": \"Oslo\"}", vec![arguments(": \"Oslo\"}")]),
        ("}</tool_call>", vec![]),
    ];
    for (piece, expected) in table {
        assert_eq!(parser.push(piece), expected, "{piece}");
    }
    assert_eq!(parser.finish(), []);
}

#[test]
fn everything_is_bounded() {
    let call = "<tool_call>{\"name\": \"now\"}</tool_call>";
    let answer = parse(ToolSyntax::Hermes, [call.repeat(CALLS_MAX + 1).as_str()]);
    assert_eq!((answer.calls.len(), answer.content.as_str()), (CALLS_MAX, call));
    let endless = format!("<tool_call>{{\"x\": \"{}", "y".repeat(70_000));
    let mut held = parser(ToolSyntax::Hermes);
    assert!(matches!(held.push(&endless).as_slice(), [ToolEvent::Content(text)] if *text == endless));
    let spaces = " ".repeat(SPACE_HELD_BYTES_MAX + 1);
    assert!(matches!(parser(ToolSyntax::Hermes).push(&spaces).as_slice(), [ToolEvent::Content(_)]));
}

#[test]
fn identifiers_look_like_those_of_openai() {
    let id = random_call_id();
    let random = id.strip_prefix("call_").unwrap();
    assert!(random.len() == 24 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
    assert_ne!(id, random_call_id());
}

fn answers() -> impl Strategy<Value = (ToolSyntax, String)> {
    let syntaxes = [ToolSyntax::Hermes, ToolSyntax::Llama3, ToolSyntax::Mistral, ToolSyntax::Generic];
    let pieces = prop_oneof![
        Just("<tool_call>"),
        Just("</tool_call>"),
        Just("[TOOL_CALLS]"),
        Just("<|python_tag|>"),
        Just("["),
        Just("]"),
        Just("{\"name\": \"now\", \"arguments\": {\"a\": [1, \"\u{e9}}\"]}}"),
        Just("{\"name\": \"now\"}"),
        Just("{\"name\": \"now\", \"arguments\": {\"a\": x}}"),
        Just("{\"name\": "),
        Just("{\"parameters\": {"),
        Just(" "),
        Just("\n"),
        Just(","),
        Just(";"),
        Just("<"),
        Just("<tool"),
        Just("word"),
        Just("\u{20ac}"),
    ];
    let text = proptest::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat());
    (proptest::sample::select(syntaxes.to_vec()), text)
}

proptest! {
    #[test]
    fn cutting_an_answer_into_pieces_changes_nothing((syntax, text) in answers(), piece_len in 1_usize..9) {
        let chars: Vec<char> = text.chars().collect();
        let pieces: Vec<String> = chars.chunks(piece_len).map(|piece| piece.iter().collect()).collect();
        prop_assert_eq!(parse(syntax, pieces.iter().map(String::as_str)), parse(syntax, [text.as_str()]));
    }

    #[test]
    fn text_without_markers_comes_through_unchanged(text in "[^{<\\[]{0,40}", syntax in 0_usize..4) {
        let syntaxes = [ToolSyntax::Hermes, ToolSyntax::Llama3, ToolSyntax::Mistral, ToolSyntax::Generic];
        prop_assert_eq!(parse(syntaxes[syntax], [text.as_str()]).content, text);
    }
}
