//! The tools of a chat request and the choice among them.

use serde_json::Value;

use crate::api::error::ApiError;
use crate::api::limits::TOOLS_MAX;
use crate::chat::{Tool, ToolChoice, ToolError};

/// The tools on offer, at most [`TOOLS_MAX`], each name once.
///
/// # Errors
/// With the tool's place in the request.
pub(super) fn tools(tools: Vec<Value>) -> Result<Vec<Tool>, ApiError> {
    if tools.len() > TOOLS_MAX {
        let problem = format_args!("at most {TOOLS_MAX} tools are allowed, got {}", tools.len());
        return Err(ApiError::invalid("tools", problem));
    }
    let mut checked: Vec<Tool> = Vec::with_capacity(tools.len());
    for (index, json) in tools.into_iter().enumerate() {
        let tool = Tool::from_json(json).map_err(|error| tool_error(&error, index))?;
        if checked.iter().any(|other| other.name() == tool.name()) {
            let problem = format_args!("another tool is also named \"{}\"", tool.name());
            return Err(ApiError::invalid(format!("tools[{index}].function.name"), problem));
        }
        checked.push(tool);
    }
    Ok(checked)
}

/// Whether the tools may be used: by default if there are any.
///
/// # Errors
/// When the choice is unknown or cannot be kept.
pub(super) fn choice(choice: Option<&Value>, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    const EXPECTED: &str = "expected \"none\", \"auto\", \"required\" or \
         {\"type\": \"function\", \"function\": {\"name\": …}}";
    let invalid = |problem: &dyn std::fmt::Display| ApiError::invalid("tool_choice", problem);
    let choice = match choice {
        None | Some(Value::Null) => ToolChoice::Auto,
        Some(Value::String(word)) => match word.as_str() {
            "none" => ToolChoice::None,
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            _ => return Err(invalid(&EXPECTED)),
        },
        Some(json) => match json.get("type").and_then(Value::as_str) {
            Some("function") => {
                let name = json.pointer("/function/name").and_then(Value::as_str);
                ToolChoice::Function(name.ok_or_else(|| invalid(&EXPECTED))?.to_owned())
            }
            Some("allowed_tools" | "custom") => {
                return Err(ApiError::unsupported("tool_choice", "offer only the tools that may be called"));
            }
            _ => return Err(invalid(&EXPECTED)),
        },
    };
    match &choice {
        ToolChoice::Required if tools.is_empty() => Err(invalid(&ToolError::NoTools)),
        ToolChoice::Function(name) if tools.iter().all(|tool| tool.name() != name) => {
            Err(invalid(&ToolError::UnknownFunction(name.clone())))
        }
        _ => Ok(choice),
    }
}

fn tool_error(error: &ToolError, index: usize) -> ApiError {
    let path = format!("tools[{index}]");
    match error {
        ToolError::NotAFunction => ApiError::unsupported(format!("{path}.type"), error),
        _ => ApiError::invalid(path, error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name}})
    }

    #[test]
    fn choices_are_read() {
        let table = [
            (json!(null), ToolChoice::Auto),
            (json!("none"), ToolChoice::None),
            (json!("auto"), ToolChoice::Auto),
            (json!("required"), ToolChoice::Required),
            (tool("f"), ToolChoice::Function("f".into())),
        ];
        let tools = tools(vec![tool("f")]).unwrap();
        for (json, expected) in table {
            assert_eq!(choice(Some(&json), &tools).unwrap(), expected);
        }
    }

    #[test]
    fn wrong_choices_and_tools_are_named() {
        let offered = tools(vec![tool("f")]).unwrap();
        for (json, offered, message) in [
            (json!("any"), &*offered, "expected \"none\""),
            (json!(1), &*offered, "expected \"none\""),
            (json!({"type": "function"}), &*offered, "expected \"none\""),
            (json!({"type": "allowed_tools"}), &*offered, "not supported"),
            (tool("g"), &*offered, "the function \"g\""),
            (json!("required"), &[], "there are no tools"),
        ] {
            let error = choice(Some(&json), offered).unwrap_err();
            assert_eq!(error.param(), Some("tool_choice"));
            assert!(error.to_string().contains(message), "{json}: {error}");
        }
        for (json, param) in [
            (vec![tool("f"), json!({"type": "web_search"})], "tools[1].type"),
            (vec![tool("a b")], "tools[0]"),
            (vec![tool("f"), tool("f")], "tools[1].function.name"),
            ((0..129).map(|n| tool(&format!("f{n}"))).collect(), "tools"),
        ] {
            assert_eq!(tools(json).unwrap_err().param(), Some(param));
        }
    }
}
