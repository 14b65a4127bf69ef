//! Grammars that force a model to call a tool.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{CALLS_MAX, Tool, ToolChoice, ToolError, ToolSyntax};

/// A grammar for constrained decoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grammar {
    /// The language of the grammar: always `lark`, in the dialect of llguidance.
    pub kind: &'static str,
    /// The grammar.
    pub text: String,
}

/// The grammar which makes sure that an answer consists of calls in `syntax` that `choice` demands; none where the
/// model is free to say something else. With `parallel` a required call may be followed by more.
///
/// What such a grammar accepts, a [`super::ToolCallParser`] of the same syntax and tools reports as calls. Each
/// function's arguments follow its own JSON Schema, which stands alone in the grammar so that references within it hold.
///
/// # Errors
/// When a call is demanded of a tool that is not there.
pub fn constraint(
    syntax: ToolSyntax,
    tools: &[Tool],
    choice: &ToolChoice,
    parallel: bool,
) -> Result<Option<Grammar>, ToolError> {
    let (callable, parallel) = match choice {
        ToolChoice::None | ToolChoice::Auto => return Ok(None),
        ToolChoice::Required if tools.is_empty() => return Err(ToolError::NoTools),
        ToolChoice::Required => (tools, parallel),
        ToolChoice::Function(name) => {
            let tool = tools.iter().find(|tool| tool.name() == name);
            (std::slice::from_ref(tool.ok_or_else(|| ToolError::UnknownFunction(name.clone()))?), false)
        }
    };
    Ok(Some(Grammar { kind: "lark", text: lark(syntax, callable, parallel) }))
}

fn lark(syntax: ToolSyntax, tools: &[Tool], parallel: bool) -> String {
    let more = CALLS_MAX - 1;
    let mut text = match (syntax, parallel) {
        (ToolSyntax::Hermes, true) => format!("start: call (\"\\n\" call){{0,{more}}}\n"),
        (ToolSyntax::Mistral, true) => {
            format!("start: \"[TOOL_CALLS]\" \" \"? \"[\" call (\", \" call){{0,{more}}} \"]\"\n")
        }
        (ToolSyntax::Mistral, false) => "start: \"[TOOL_CALLS]\" \" \"? \"[\" call \"]\"\n".to_owned(),
        // Llama and unknown templates were made for one call an answer.
        _ => "start: call\n".to_owned(),
    };
    let rules: Vec<String> = (0..tools.len()).map(|index| format!("call_{index}")).collect();
    let mut rule = |line: std::fmt::Arguments<'_>| text.write_fmt(line).unwrap_or_default();
    rule(format_args!("call: {}\n", rules.join(" | ")));
    let (before, after) = match syntax {
        ToolSyntax::Hermes => ("<tool_call>\n", "}\n</tool_call>"),
        _ => ("", "}"),
    };
    for (index, tool) in tools.iter().enumerate() {
        let key = syntax.arguments_key();
        let begin = literal(&format!("{before}{{\"name\": {}, \"{key}\": ", literal(tool.name())));
        rule(format_args!("call_{index}: {begin} args_{index} {}\n", literal(after)));
        rule(format_args!("args_{index}: %json {}\n", schema(tool)));
    }
    text
}

/// A string of Lark; its notation is that of JSON.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// The JSON Schema of a tool's arguments, with llguidance's options: JSON is written as models were shown it, and only
/// a strict tool is refused for a schema that uses what llguidance does not support.
fn schema(tool: &Tool) -> Value {
    let no_arguments = || {
        let members =
            [("properties".to_owned(), json!({})), ("additionalProperties".to_owned(), false.into())];
        Map::from_iter(members)
    };
    let mut schema = tool.parameters().cloned().unwrap_or_else(no_arguments);
    let defines_itself = ["$ref", "anyOf", "oneOf", "allOf"].iter().any(|key| schema.contains_key(*key));
    if !defines_itself {
        schema.insert("type".to_owned(), "object".into());
    }
    let options = json!({
        "whitespace_flexible": false,
        "item_separator": ", ",
        "key_separator": ": ",
        "lenient": !tool.is_strict(),
    });
    schema.insert("x-guidance".to_owned(), options);
    Value::Object(schema)
}

#[cfg(test)]
mod tests;
