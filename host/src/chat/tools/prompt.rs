//! Tools for models whose template knows none: everything about them is said in ordinary messages, in the format that
//! Hermes made common, which also the parser and the grammar of such models use.

use serde_json::{Value, json};

use super::Tool;
use crate::chat::json::{Style, dumps};
use crate::chat::message::{ChatMessage, Content, ContentPart, Role};

/// `messages` without tool calls and tool results, which become text, and with `tools` described in the system message;
/// a model without a system role finds them before the first words of the user.
pub(in crate::chat) fn describe(
    messages: &[ChatMessage],
    tools: &[Tool],
    system_role: bool,
) -> Vec<ChatMessage> {
    let mut plain: Vec<ChatMessage> = Vec::with_capacity(messages.len() + 1);
    let mut after_result = false;
    for message in messages {
        let is_result = message.role == Role::Tool;
        match plain.last_mut() {
            // Results of parallel calls are one message, because many templates insist on alternating roles.
            Some(last) if is_result && after_result => append(last, "\n", &result_text(message)),
            _ if is_result => plain.push(ChatMessage::new(Role::User, result_text(message))),
            _ => plain.push(with_calls_as_text(message)),
        }
        after_result = is_result;
    }
    if !tools.is_empty() {
        insert_instructions(&mut plain, &instructions(tools), system_role);
    }
    plain
}

/// Whether there is anything that a template without tools could not show.
pub(in crate::chat) fn need_description(messages: &[ChatMessage], tools: &[Tool]) -> bool {
    let about_tools = |message: &ChatMessage| message.role == Role::Tool || !message.tool_calls.is_empty();
    !tools.is_empty() || messages.iter().any(about_tools)
}

fn insert_instructions(messages: &mut Vec<ChatMessage>, instructions: &str, system_role: bool) {
    let host = if system_role {
        messages.first_mut().filter(|first| matches!(first.role, Role::System | Role::Developer))
    } else {
        messages.iter_mut().find(|message| message.role == Role::User)
    };
    match host {
        Some(message) if system_role => append(message, "\n\n", instructions),
        Some(message) => prepend(message, instructions),
        None => messages.insert(0, ChatMessage::new(Role::System, instructions)),
    }
}

fn instructions(tools: &[Tool]) -> String {
    let list: Vec<String> = tools.iter().map(|tool| python_json(tool.json())).collect();
    format!(
        "# Tools\n\nYou can call functions to help the user. Their signatures, one JSON object per line, stand between \
         <tools></tools>:\n<tools>\n{}\n</tools>\n\nTo call a function, write a JSON object with its name and arguments \
         between <tool_call></tool_call>:\n<tool_call>\n{{\"name\": <function name>, \"arguments\": <object with the \
         arguments>}}\n</tool_call>",
        list.join("\n")
    )
}

fn with_calls_as_text(message: &ChatMessage) -> ChatMessage {
    let mut message = message.clone();
    for call in std::mem::take(&mut message.tool_calls) {
        let arguments = serde_json::from_str(&call.arguments).unwrap_or(Value::String(call.arguments));
        let json = python_json(&json!({"name": call.name, "arguments": arguments}));
        append(&mut message, "\n", &format!("<tool_call>\n{json}\n</tool_call>"));
    }
    message
}

fn result_text(message: &ChatMessage) -> String {
    let text = message.content.as_ref().map(Content::text).unwrap_or_default();
    format!("<tool_response>\n{text}\n</tool_response>")
}

/// Puts `text` after what the message says, with `separator` between if it says anything.
fn append(message: &mut ChatMessage, separator: &str, text: &str) {
    match &mut message.content {
        Some(Content::Text(content)) if !content.is_empty() => {
            content.push_str(separator);
            content.push_str(text);
        }
        Some(Content::Parts(parts)) => parts.push(ContentPart::Text(text.to_owned())),
        content => *content = Some(Content::Text(text.to_owned())),
    }
}

fn prepend(message: &mut ChatMessage, text: &str) {
    match &mut message.content {
        Some(Content::Text(content)) => *content = format!("{text}\n\n{content}"),
        Some(Content::Parts(parts)) => parts.insert(0, ContentPart::Text(text.to_owned())),
        content @ None => *content = Some(Content::Text(text.to_owned())),
    }
}

fn python_json(value: &Value) -> String {
    dumps(value, &Style::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::message::ToolCall;

    fn tool() -> Tool {
        Tool::from_json(json!({"type": "function", "function": {"name": "now"}})).unwrap()
    }

    fn texts(messages: &[ChatMessage]) -> Vec<(Role, String)> {
        messages.iter().map(|m| (m.role, m.content.as_ref().map(Content::text).unwrap_or_default())).collect()
    }

    #[test]
    fn tools_are_described_where_the_model_looks_for_instructions() {
        let user = ChatMessage::new(Role::User, "hi");
        let system = ChatMessage::new(Role::System, "Be brief.");
        let listed = "<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"now\"}}\n</tools>";
        let table = [
            (vec![user.clone()], true, (Role::System, "# Tools"), 2),
            (vec![system, user.clone()], true, (Role::System, "Be brief.\n\n# Tools"), 2),
            (vec![user], false, (Role::User, "# Tools"), 1),
        ];
        for (messages, system_role, (role, beginning), count) in table {
            let described = texts(&describe(&messages, &[tool()], system_role));
            assert_eq!((described.len(), described[0].0), (count, role));
            assert!(
                described[0].1.starts_with(beginning) && described[0].1.contains(listed),
                "{described:?}"
            );
        }
        let last_words = &texts(&describe(&[ChatMessage::new(Role::User, "hi")], &[tool()], false))[0].1;
        assert!(last_words.ends_with("</tool_call>\n\nhi"), "{last_words}");
    }

    #[test]
    fn calls_and_results_become_text() {
        let call =
            |id: &str| ToolCall { id: id.into(), name: "now".into(), arguments: "{\"zone\":\"UTC\"}".into() };
        let conversation = [
            ChatMessage {
                content: Some(Content::Text("Let me look.".into())),
                ..ChatMessage::calling(vec![call("1")])
            },
            ChatMessage::calling(vec![call("1"), call("2")]),
            ChatMessage::tool_result("1", "noon"),
            ChatMessage::tool_result("2", "one"),
            ChatMessage::new(Role::Assistant, "It is noon."),
        ];
        let called = "<tool_call>\n{\"name\": \"now\", \"arguments\": {\"zone\": \"UTC\"}}\n</tool_call>";
        let result = |text| format!("<tool_response>\n{text}\n</tool_response>");
        assert_eq!(
            texts(&describe(&conversation, &[], true)),
            [
                (Role::Assistant, format!("Let me look.\n{called}")),
                (Role::Assistant, format!("{called}\n{called}")),
                (Role::User, format!("{}\n{}", result("noon"), result("one"))),
                (Role::Assistant, "It is noon.".into()),
            ]
        );
    }
}
