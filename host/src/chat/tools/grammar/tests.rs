//! What the grammars allow is what the parser reads.

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::ApproximateTokEnv;
use llguidance::{Matcher, ParserFactory};

use super::*;
use crate::chat::tools::{ToolCallParser, ToolEvent};

const SYNTAXES: [ToolSyntax; 4] =
    [ToolSyntax::Hermes, ToolSyntax::Llama3, ToolSyntax::Mistral, ToolSyntax::Generic];

fn tools() -> Vec<Tool> {
    let weather = json!({"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": false,
        "$defs": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
    }}});
    let now = json!({"type": "function", "function": {"name": "now"}});
    [weather, now].map(|json| Tool::from_json(json).unwrap()).to_vec()
}

fn matcher(grammar: &Grammar) -> Matcher {
    let environment = ApproximateTokEnv::single_byte_env();
    let factory = ParserFactory::new_simple(&environment).unwrap();
    Matcher::new(factory.create_parser(TopLevelGrammar::from_lark(grammar.text.clone())))
}

/// Whether `grammar` accepts `text` as a complete answer.
fn accepts(grammar: &Grammar, text: &str) -> bool {
    let mut matcher = matcher(grammar);
    let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
    let consumed = matcher.try_consume_tokens(&tokens);
    assert!(!matcher.is_error(), "{:?}\n{}", matcher.get_error(), grammar.text);
    consumed.unwrap() == tokens.len() && matcher.is_accepting().unwrap()
}

fn call(syntax: ToolSyntax, name: &str, arguments: &str) -> String {
    let key = syntax.arguments_key();
    let call = format!("{{\"name\": \"{name}\", \"{key}\": {arguments}}}");
    match syntax {
        ToolSyntax::Hermes => format!("<tool_call>\n{call}\n</tool_call>"),
        ToolSyntax::Mistral => format!("[TOOL_CALLS][{call}]"),
        ToolSyntax::Llama3 | ToolSyntax::Generic => call,
    }
}

#[test]
fn a_grammar_accepts_calls_that_match_the_schema_and_nothing_else() {
    for syntax in SYNTAXES {
        let grammar = constraint(syntax, &tools(), &ToolChoice::Required, false).unwrap().unwrap();
        let table = [
            (call(syntax, "weather", "{\"city\": \"Oslo\"}"), true),
            (call(syntax, "weather", "{\"city\": \"Rome\", \"days\": 2}"), true),
            (call(syntax, "now", "{}"), true),
            (call(syntax, "weather", "{\"city\": \"Bonn\"}"), false),
            (call(syntax, "weather", "{}"), false),
            (call(syntax, "now", "{\"x\": 1}"), false),
            (call(syntax, "other", "{}"), false),
            ("Oslo".to_owned(), false),
        ];
        for (text, accepted) in table {
            assert_eq!(accepts(&grammar, &text), accepted, "{syntax:?}: {text}");
        }
    }
}

#[test]
fn what_a_grammar_accepts_is_parsed_as_calls() {
    for syntax in SYNTAXES {
        let text = call(syntax, "weather", "{\"city\": \"Oslo\"}");
        let mut parser = ToolCallParser::new(syntax, &tools(), Box::new(|| "id".to_owned()));
        let mut events = parser.push(&text);
        events.extend(parser.finish());
        let expected = [
            ToolEvent::CallStart { index: 0, id: "id".into(), name: "weather".into() },
            ToolEvent::CallArguments { index: 0, delta: "{\"city\": \"Oslo\"}".into() },
        ];
        assert_eq!(events, expected);
    }
}

#[test]
fn a_named_function_is_the_only_one_that_can_be_called() {
    let choice = ToolChoice::Function("now".into());
    for syntax in SYNTAXES {
        let grammar = constraint(syntax, &tools(), &choice, true).unwrap().unwrap();
        assert!(accepts(&grammar, &call(syntax, "now", "{}")));
        assert!(!accepts(&grammar, &call(syntax, "weather", "{\"city\": \"Oslo\"}")));
    }
}

#[test]
fn parallel_calls_are_possible_where_the_syntax_has_them() {
    let now = |syntax| constraint(syntax, &tools(), &ToolChoice::Required, true).unwrap().unwrap();
    let hermes = call(ToolSyntax::Hermes, "now", "{}");
    assert!(accepts(&now(ToolSyntax::Hermes), &format!("{hermes}\n{hermes}")));
    let twice =
        "[TOOL_CALLS] [{\"name\": \"now\", \"arguments\": {}}, {\"name\": \"now\", \"arguments\": {}}]";
    assert!(accepts(&now(ToolSyntax::Mistral), twice));
    let once = constraint(ToolSyntax::Hermes, &tools(), &ToolChoice::Required, false).unwrap().unwrap();
    assert!(!accepts(&once, &format!("{hermes}\n{hermes}")));
}

#[test]
fn schemas_beyond_what_is_supported_are_refused_for_strict_tools_only() {
    for (strict, compiles) in [(false, true), (true, false)] {
        let tool = Tool::from_json(
            json!({"type": "function", "function": {"name": "f", "strict": strict, "parameters": {
                "type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}},
            }}}),
        );
        let grammar =
            constraint(ToolSyntax::Hermes, &[tool.unwrap()], &ToolChoice::Required, false).unwrap().unwrap();
        assert_eq!(!matcher(&grammar).is_error(), compiles, "{:?}", matcher(&grammar).get_error());
    }
}

#[test]
fn a_choice_that_cannot_be_met_is_refused() {
    let refused = |tools: &[Tool], choice| constraint(ToolSyntax::Hermes, tools, &choice, true).unwrap_err();
    assert_eq!(refused(&[], ToolChoice::Required), ToolError::NoTools);
    let missing = ToolChoice::Function("other".into());
    assert_eq!(refused(&tools(), missing), ToolError::UnknownFunction("other".into()));
    for choice in [ToolChoice::Auto, ToolChoice::None] {
        assert_eq!(constraint(ToolSyntax::Hermes, &tools(), &choice, true).unwrap(), None);
    }
}
