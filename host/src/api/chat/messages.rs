//! The messages of a chat request, checked role by role.

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use crate::api::error::ApiError;
use crate::api::json::{Object, Present};
use crate::api::limits::{MESSAGES_MAX, PARTS_MAX, TOOLS_MAX};
use crate::chat::{ChatMessage, Content, ContentPart, Role, ToolCall};

/// A message as it stands in the body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct MessageBody {
    role: Option<String>,
    content: Option<ContentBody>,
    name: Option<String>,
    tool_calls: Option<Vec<Object<ToolCallBody>>>,
    tool_call_id: Option<String>,
    refusal: Option<String>,
    reasoning_content: Option<String>,
    function_call: Option<Present>,
    audio: Option<Present>,
}

#[derive(Debug)]
enum ContentBody {
    Text(String),
    Parts(Vec<Object<PartBody>>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PartBody {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
    refusal: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolCallBody {
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    function: Option<Object<FunctionBody>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FunctionBody {
    name: Option<String>,
    arguments: Option<String>,
}

/// The conversation: at least one message, at most [`MESSAGES_MAX`].
///
/// # Errors
/// With the path of the field at fault.
pub(super) fn messages(messages: Option<Vec<Object<MessageBody>>>) -> Result<Vec<ChatMessage>, ApiError> {
    let messages = messages.ok_or_else(|| ApiError::missing("messages", "an array of messages"))?;
    if messages.is_empty() || messages.len() > MESSAGES_MAX {
        let problem =
            format_args!("expected at least one message and at most {MESSAGES_MAX}, got {}", messages.len());
        return Err(ApiError::invalid("messages", problem));
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(index, body)| body.0.check(&format!("messages[{index}]")))
        .collect()
}

impl MessageBody {
    fn check(self, path: &str) -> Result<ChatMessage, ApiError> {
        let role = role(self.role.as_deref(), path)?;
        if self.function_call.is_some() {
            return Err(ApiError::unsupported(format!("{path}.function_call"), "use tool_calls instead"));
        }
        if self.audio.is_some() {
            return Err(ApiError::unsupported(
                format!("{path}.audio"),
                "send the text of the answer instead",
            ));
        }
        let calls = match self.tool_calls {
            Some(calls) if role == Role::Assistant => tool_calls(calls, path)?,
            Some(calls) if !calls.is_empty() => {
                let problem = "only allowed in messages of the role \"assistant\"";
                return Err(ApiError::invalid(format!("{path}.tool_calls"), problem));
            }
            _ => Vec::new(),
        };
        if role == Role::Tool && self.tool_call_id.is_none() {
            let expected = "the id of the call that this message answers";
            return Err(ApiError::missing(&format!("{path}.tool_call_id"), expected));
        }
        let content = self.content.map(|content| content.check(path)).transpose()?;
        // A refusal is what the assistant said instead of an answer.
        let content = content.or_else(|| self.refusal.map(Content::Text));
        if content.is_none() && (role != Role::Assistant || calls.is_empty()) {
            return Err(ApiError::missing(&format!("{path}.content"), "a string or an array of parts"));
        }
        Ok(ChatMessage {
            role,
            content,
            name: self.name,
            tool_calls: calls,
            tool_call_id: self.tool_call_id.filter(|_| role == Role::Tool),
            reasoning: self.reasoning_content.filter(|_| role == Role::Assistant),
        })
    }
}

fn role(role: Option<&str>, path: &str) -> Result<Role, ApiError> {
    const ROLES: &str = "\"system\", \"developer\", \"user\", \"assistant\" or \"tool\"";
    let param = format!("{path}.role");
    match role {
        Some("function") => Err(ApiError::unsupported(param, "use the role \"tool\" instead")),
        Some(name) => Role::from_name(name)
            .ok_or_else(|| ApiError::invalid(param, format_args!("expected {ROLES}, got \"{name:.40}\""))),
        None => Err(ApiError::missing(&param, ROLES)),
    }
}

fn tool_calls(calls: Vec<Object<ToolCallBody>>, path: &str) -> Result<Vec<ToolCall>, ApiError> {
    if calls.len() > TOOLS_MAX {
        let problem = format_args!("at most {TOOLS_MAX} calls are allowed, got {}", calls.len());
        return Err(ApiError::invalid(format!("{path}.tool_calls"), problem));
    }
    let check = |(index, Object(call)): (usize, Object<ToolCallBody>)| {
        let path = format!("{path}.tool_calls[{index}]");
        if !matches!(call.kind.as_deref(), None | Some("function")) {
            return Err(ApiError::unsupported(format!("{path}.type"), "only \"function\" is known"));
        }
        let missing = |field: &str, expected| ApiError::missing(&format!("{path}.{field}"), expected);
        let Object(function) =
            call.function.ok_or_else(|| missing("function", "an object with name and arguments"))?;
        Ok(ToolCall {
            id: call.id.ok_or_else(|| missing("id", "a string"))?,
            name: function.name.ok_or_else(|| missing("function.name", "a string"))?,
            arguments: function.arguments.ok_or_else(|| missing("function.arguments", "a string of JSON"))?,
        })
    };
    calls.into_iter().enumerate().map(check).collect()
}

impl ContentBody {
    fn check(self, path: &str) -> Result<Content, ApiError> {
        let parts = match self {
            Self::Text(text) => return Ok(Content::Text(text)),
            Self::Parts(parts) => parts,
        };
        if parts.is_empty() || parts.len() > PARTS_MAX {
            let problem =
                format_args!("expected at least one part and at most {PARTS_MAX}, got {}", parts.len());
            return Err(ApiError::invalid(format!("{path}.content"), problem));
        }
        let parts = parts.into_iter().enumerate();
        let parts = parts.map(|(index, part)| part.0.check(&format!("{path}.content[{index}]")));
        parts.collect::<Result<_, _>>().map(Content::Parts)
    }
}

impl PartBody {
    fn check(self, path: &str) -> Result<ContentPart, ApiError> {
        let text = match self.kind.as_deref() {
            Some("text") => {
                self.text.ok_or_else(|| ApiError::missing(&format!("{path}.text"), "a string"))?
            }
            Some("refusal") => {
                self.refusal.ok_or_else(|| ApiError::missing(&format!("{path}.refusal"), "a string"))?
            }
            Some("image_url") => {
                return Err(ApiError::invalid(path, "the model takes no images, remove this part"));
            }
            Some("input_audio") => {
                return Err(ApiError::invalid(path, "the model takes no sound, remove this part"));
            }
            Some("file") => {
                return Err(ApiError::invalid(path, "the model takes no files, send their text instead"));
            }
            Some(other) => {
                let problem = format_args!("expected a part of type \"text\", got \"{other:.40}\"");
                return Err(ApiError::invalid(format!("{path}.type"), problem));
            }
            None => return Err(ApiError::missing(&format!("{path}.type"), "\"text\"")),
        };
        Ok(ContentPart::Text(text))
    }
}

impl<'de> Deserialize<'de> for ContentBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = ContentBody;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string or an array of parts")
    }

    fn visit_str<E>(self, text: &str) -> Result<ContentBody, E> {
        Ok(ContentBody::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ContentBody, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = seq.next_element()? {
            parts.push(part);
        }
        Ok(ContentBody::Parts(parts))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::json::JsonBody;

    #[derive(Debug, Deserialize)]
    struct Sample {
        messages: Option<Vec<Object<MessageBody>>>,
    }

    fn check(message: &Value) -> Result<ChatMessage, ApiError> {
        let sample = JsonBody::from(json!({"messages": [message]})).read::<Sample>()?;
        messages(sample.messages).map(|mut messages| messages.remove(0))
    }

    #[test]
    fn every_role_is_read() {
        let call = ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into() };
        let call_json = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let table = [
            (json!({"role": "system", "content": "a"}), ChatMessage::new(Role::System, "a")),
            (json!({"role": "developer", "content": "a"}), ChatMessage::new(Role::Developer, "a")),
            (
                json!({"role": "user", "content": "a", "name": "Ann"}),
                ChatMessage { name: Some("Ann".into()), ..ChatMessage::new(Role::User, "a") },
            ),
            (
                json!({"role": "user", "content": parts}),
                ChatMessage {
                    content: Some(Content::Parts(vec![
                        ContentPart::Text("a".into()),
                        ContentPart::Text("b".into()),
                    ])),
                    ..ChatMessage::new(Role::User, "")
                },
            ),
            (
                json!({"role": "assistant", "content": null, "tool_calls": [call_json]}),
                ChatMessage::calling(vec![call]),
            ),
            (json!({"role": "assistant", "refusal": "no"}), ChatMessage::new(Role::Assistant, "no")),
            (
                json!({"role": "assistant", "content": "a", "reasoning_content": "r"}),
                ChatMessage { reasoning: Some("r".into()), ..ChatMessage::new(Role::Assistant, "a") },
            ),
            (
                json!({"role": "tool", "content": "a", "tool_call_id": "c"}),
                ChatMessage::tool_result("c", "a"),
            ),
        ];
        for (message, expected) in table {
            assert_eq!(check(&message).unwrap(), expected);
        }
    }

    #[test]
    fn wrong_messages_are_named() {
        let call = |call: Value| json!({"role": "assistant", "tool_calls": [call]});
        let part = |part: Value| json!({"role": "user", "content": [part]});
        let table = [
            (json!("hi"), "messages[0]", "expected an object"),
            (json!({"content": "a"}), "messages[0].role", "missing"),
            (json!({"role": "bot", "content": "a"}), "messages[0].role", "got \"bot\""),
            (json!({"role": "function", "content": "a"}), "messages[0].role", "\"tool\" instead"),
            (json!({"role": "user"}), "messages[0].content", "missing"),
            (json!({"role": "user", "content": 1}), "messages[0].content", "expected a string or an array"),
            (json!({"role": "user", "content": []}), "messages[0].content", "at least one part"),
            (part(json!({"text": "a"})), "messages[0].content[0].type", "missing"),
            (part(json!({"type": "text"})), "messages[0].content[0].text", "missing"),
            (part(json!({"type": "text", "text": 1})), "messages[0].content[0].text", "expected a string"),
            (part(json!({"type": "video"})), "messages[0].content[0].type", "got \"video\""),
            (
                part(json!({"type": "image_url", "image_url": {"url": "x"}})),
                "messages[0].content[0]",
                "no images",
            ),
            (part(json!({"type": "input_audio"})), "messages[0].content[0]", "no sound"),
            (json!({"role": "assistant"}), "messages[0].content", "missing"),
            (json!({"role": "assistant", "tool_calls": []}), "messages[0].content", "missing"),
            (
                json!({"role": "assistant", "function_call": {}}),
                "messages[0].function_call",
                "tool_calls instead",
            ),
            (
                json!({"role": "user", "content": "a", "tool_calls": [{}]}),
                "messages[0].tool_calls",
                "only allowed",
            ),
            (json!({"role": "tool", "content": "a"}), "messages[0].tool_call_id", "missing"),
            (call(json!({"id": "c"})), "messages[0].tool_calls[0].function", "missing"),
            (
                call(json!({"function": {"name": "f", "arguments": ""}})),
                "messages[0].tool_calls[0].id",
                "missing",
            ),
            (call(json!({"id": "c", "type": "custom"})), "messages[0].tool_calls[0].type", "\"function\""),
            (
                call(json!({"id": "c", "function": {"name": "f", "arguments": {}}})),
                "messages[0].tool_calls[0].function.arguments",
                "expected a string, got an object",
            ),
        ];
        for (message, param, text) in table {
            let error = check(&message).unwrap_err();
            assert_eq!(error.param(), Some(param), "{message}: {error}");
            assert!(error.to_string().contains(text), "{message}: {error}");
        }
    }

    #[test]
    fn a_conversation_is_bounded() {
        let bodies = (0..=MESSAGES_MAX).map(|_| Object::default()).collect();
        assert_eq!(messages(Some(bodies)).unwrap_err().param(), Some("messages"));
    }
}
