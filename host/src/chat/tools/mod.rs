//! Tools: how they are offered to a model, and how its calls are recognised.

mod call;
mod grammar;
mod parser;
mod prompt;
mod scanner;

use serde_json::Value;

pub use grammar::{Grammar, constraint};
pub use parser::{IdGenerator, ToolCallParser, ToolEvent, random_call_id};
pub(super) use prompt::{describe, need_description};

/// The longest function name, in characters, as OpenAI has it.
const NAME_CHARS_MAX: usize = 64;
/// The most calls one answer may have; whatever follows them is content.
const CALLS_MAX: usize = 64;

/// How a model writes its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ToolSyntax {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`: Hermes, Qwen, and templates that know no tools.
    Hermes,
    /// `{"name": …, "parameters": …}` as the whole answer or after `<|python_tag|>`: Llama 3.
    Llama3,
    /// `[TOOL_CALLS] [{"name": …, "arguments": …}, …]`: Mistral.
    Mistral,
    /// `{"name": …, "arguments": …}` as the whole answer: a template whose own syntax is not known.
    Generic,
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    name: String,
    json: Value,
}

/// Whether the model must, may or must not call a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// It must not. The caller offers no tools to the template and makes no parser.
    None,
    /// It may.
    Auto,
    /// It must call at least one.
    Required,
    /// It must call the one of this name.
    Function(String),
}

/// Why a tool, or a choice of one, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// Something other than a function.
    #[error("type must be \"function\", other kinds of tools are not supported")]
    NotAFunction,
    /// The member `function` is missing or no object.
    #[error("function must be an object with a name and its parameters")]
    NoFunction,
    /// The name is missing or has other characters than OpenAI allows.
    #[error("function.name must be 1 to {NAME_CHARS_MAX} letters, digits, underscores and dashes")]
    Name,
    /// The description is no text.
    #[error("function.description must be a string")]
    Description,
    /// The parameters are no JSON Schema of an object.
    #[error("function.parameters must be a JSON Schema of type \"object\"")]
    Parameters,
    /// The choice names a function that is not on offer.
    #[error("tool_choice names the function \"{0}\", which is not among the tools")]
    UnknownFunction(String),
    /// A call is required, but there is nothing to call.
    #[error("tool_choice is \"required\", but there are no tools")]
    NoTools,
}

impl ToolSyntax {
    /// The syntax that a template teaches, told by the marks in its source.
    #[must_use]
    pub fn detect(source: &str) -> Self {
        if source.contains("[TOOL_CALLS]") {
            Self::Mistral
        } else if source.contains("<tool_call>") {
            Self::Hermes
        } else if source.contains("<|python_tag|>")
            || (source.contains("<|start_header_id|>") && source.contains("\"parameters\""))
        {
            Self::Llama3
        } else {
            Self::Generic
        }
    }

    /// What comes before a call, where anything does. A model may have it as a control token, whose text the engine
    /// must then report like that of any other token.
    #[must_use]
    pub fn opener(self) -> Option<&'static str> {
        match self {
            Self::Hermes => Some("<tool_call>"),
            Self::Llama3 => Some("<|python_tag|>"),
            Self::Mistral => Some("[TOOL_CALLS]"),
            Self::Generic => None,
        }
    }

    /// What comes after a call, where anything does.
    fn closer(self) -> Option<&'static str> {
        match self {
            Self::Hermes => Some("</tool_call>"),
            _ => None,
        }
    }

    /// Whether an answer that begins with a brace may be a call.
    fn is_bare(self) -> bool {
        matches!(self, Self::Llama3 | Self::Generic)
    }

    /// The key under which the arguments stand.
    fn arguments_key(self) -> &'static str {
        match self {
            Self::Llama3 => "parameters",
            _ => "arguments",
        }
    }
}

impl Tool {
    /// A tool as OpenAI's API describes it: `{"type": "function", "function": {"name": …, "parameters": …}}`.
    ///
    /// # Errors
    /// When it is anything else; the message names the member, without the tool's place in the request.
    pub fn from_json(json: Value) -> Result<Self, ToolError> {
        if json.get("type").and_then(Value::as_str) != Some("function") {
            return Err(ToolError::NotAFunction);
        }
        let function = json.get("function").and_then(Value::as_object).ok_or(ToolError::NoFunction)?;
        let name = function.get("name").and_then(Value::as_str).filter(|name| is_name(name));
        let name = name.ok_or(ToolError::Name)?.to_owned();
        if !matches!(function.get("description"), None | Some(Value::Null | Value::String(_))) {
            return Err(ToolError::Description);
        }
        match function.get("parameters") {
            None | Some(Value::Null) => {}
            Some(Value::Object(schema)) if schema.get("type").is_none_or(|kind| kind == "object") => {}
            Some(_) => return Err(ToolError::Parameters),
        }
        Ok(Self { name, json })
    }

    /// The function's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The description as it was given; templates show it to the model word for word.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// The JSON Schema of the arguments, if there is one.
    fn parameters(&self) -> Option<&serde_json::Map<String, Value>> {
        self.json.pointer("/function/parameters").and_then(Value::as_object)
    }

    /// Whether the client insists on arguments that match the schema in every respect.
    fn is_strict(&self) -> bool {
        self.json.pointer("/function/strict").and_then(Value::as_bool).unwrap_or(false)
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tool_is_checked_and_kept_word_for_word() {
        let json =
            json!({"type": "function", "function": {"name": "get-it_1", "extra": 1, "parameters": {"z": 1}}});
        let tool = Tool::from_json(json.clone()).unwrap();
        assert_eq!((tool.name(), tool.json()), ("get-it_1", &json));
        let table = [
            (json!({"type": "web_search"}), ToolError::NotAFunction),
            (json!("tool"), ToolError::NotAFunction),
            (json!({"type": "function", "name": "f"}), ToolError::NoFunction),
            (json!({"type": "function", "function": {}}), ToolError::Name),
            (json!({"type": "function", "function": {"name": "a b"}}), ToolError::Name),
            (json!({"type": "function", "function": {"name": "a".repeat(65)}}), ToolError::Name),
            (
                json!({"type": "function", "function": {"name": "f", "description": 1}}),
                ToolError::Description,
            ),
            (json!({"type": "function", "function": {"name": "f", "parameters": []}}), ToolError::Parameters),
            (
                json!({"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}),
                ToolError::Parameters,
            ),
        ];
        for (json, expected) in table {
            assert_eq!(Tool::from_json(json.clone()).unwrap_err(), expected, "{json}");
        }
    }

    #[test]
    fn the_syntax_is_told_by_the_template() {
        let table = [
            ("{{ '[TOOL_CALLS] [' }}", ToolSyntax::Mistral),
            ("<tool_call>\\n", ToolSyntax::Hermes),
            ("{{ '<|python_tag|>' }}", ToolSyntax::Llama3),
            ("<|start_header_id|> {{ '\"parameters\": ' }}", ToolSyntax::Llama3),
            ("{{ tools | tojson }}", ToolSyntax::Generic),
        ];
        for (source, expected) in table {
            assert_eq!(ToolSyntax::detect(source), expected, "{source}");
        }
    }
}
