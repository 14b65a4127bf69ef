//! The variables that a template sees. Every string of the request passes the [`Marker`] here.

use std::time::SystemTime;

use minijinja::Value;
use serde_json::{Number, Value as Json};

use super::clock;
use super::probe::Abilities;
use super::{RenderInput, SpecialTokens};
use crate::chat::message::{ChatMessage, Content, ContentPart, Role, ToolCall};
use crate::chat::tools::Tool;
use crate::chat::trust::Marker;

/// The length of the identifiers that Mistral's templates insist on.
const SHORT_ID_CHARS: usize = 9;

/// What the variables of all requests to one model have in common.
pub(super) struct Context<'a> {
    pub(super) marker: &'a Marker,
    pub(super) tokens: &'a SpecialTokens,
    pub(super) abilities: &'a Abilities,
}

impl Context<'_> {
    /// The variables for one rendering. Later entries win over earlier ones.
    pub(super) fn build(&self, input: &RenderInput<'_>) -> Value {
        let tools = match input.tools {
            [] => Value::from(()),
            tools => tools.iter().map(|tool| self.json(Tool::json(tool))).collect(),
        };
        let tokens = [
            ("bos_token", &self.tokens.bos_token),
            ("eos_token", &self.tokens.eos_token),
            ("unk_token", &self.tokens.unk_token),
            ("pad_token", &self.tokens.pad_token),
        ];
        let mut variables = vec![("documents".to_owned(), Value::from(()))];
        variables.extend(input.extra.iter().map(|(name, value)| (name.clone(), self.json(value))));
        variables.extend(
            tokens.iter().filter_map(|(name, token)| Some(((*name).to_owned(), token.as_ref()?.into()))),
        );
        variables.extend([
            ("messages".to_owned(), input.messages.iter().map(|message| self.message(message)).collect()),
            ("tools".to_owned(), tools),
            ("add_generation_prompt".to_owned(), input.add_generation_prompt.into()),
            ("strftime_now".to_owned(), strftime_now(input.now)),
        ]);
        Value::from_pairs(variables)
    }

    fn message(&self, message: &ChatMessage) -> Value {
        let role = match message.role {
            Role::Developer if !self.abilities.developer_role => Role::System,
            role => role,
        };
        let mut fields = vec![("role", Value::from(role.as_str())), ("content", self.content(message))];
        if let Some(reasoning) = &message.reasoning {
            fields.push(("reasoning_content", self.text(reasoning)));
        }
        if let Some(name) = &message.name {
            fields.push(("name", self.text(name)));
        }
        if !message.tool_calls.is_empty() {
            fields.push(("tool_calls", message.tool_calls.iter().map(|call| self.tool_call(call)).collect()));
        }
        if let Some(id) = &message.tool_call_id {
            fields.push(("tool_call_id", self.call_id(id)));
        }
        Value::from_pairs(fields)
    }

    /// The content in the form that the template handles: text, or parts.
    fn content(&self, message: &ChatMessage) -> Value {
        match &message.content {
            None if message.tool_calls.is_empty() => Value::from(""),
            None => Value::from(()),
            Some(Content::Text(text)) if self.abilities.text_content => self.text(text),
            Some(Content::Text(text)) => Value::from(vec![self.text_part(text)]),
            Some(content @ Content::Parts(_)) if !self.abilities.part_content => self.text(&content.text()),
            Some(Content::Parts(parts)) => parts.iter().map(|part| self.part(part)).collect(),
        }
    }

    fn part(&self, part: &ContentPart) -> Value {
        match part {
            ContentPart::Text(text) => self.text_part(text),
            ContentPart::Image => Value::from_pairs([("type", "image")]),
        }
    }

    fn text_part(&self, text: &str) -> Value {
        Value::from_pairs([("type", Value::from("text")), ("text", self.text(text))])
    }

    fn tool_call(&self, call: &ToolCall) -> Value {
        let function = [("name", self.text(&call.name)), ("arguments", self.arguments(&call.arguments))];
        Value::from_pairs([
            ("id", self.call_id(&call.id)),
            ("type", Value::from("function")),
            ("function", Value::from_pairs(function)),
        ])
    }

    /// OpenAI sends arguments as a JSON text, templates expect an object. What is no object stays a text.
    fn arguments(&self, arguments: &str) -> Value {
        match serde_json::from_str::<Json>(arguments) {
            Ok(object @ Json::Object(_)) if !self.abilities.arguments_as_text => self.json(&object),
            _ => self.text(arguments),
        }
    }

    fn call_id(&self, id: &str) -> Value {
        if !self.abilities.short_call_ids {
            return self.text(id);
        }
        // The end of an identifier is its random part; calls and their answers are shortened alike.
        let chars: Vec<char> = id.chars().filter(char::is_ascii_alphanumeric).collect();
        let end: String = chars.iter().skip(chars.len().saturating_sub(SHORT_ID_CHARS)).collect();
        self.text(&format!("{end:0>SHORT_ID_CHARS$}"))
    }

    fn json(&self, value: &Json) -> Value {
        match value {
            Json::Null => Value::from(()),
            Json::Bool(value) => Value::from(*value),
            Json::Number(number) => number_value(number),
            Json::String(text) => self.text(text),
            Json::Array(items) => items.iter().map(|item| self.json(item)).collect(),
            Json::Object(members) => {
                Value::from_pairs(members.iter().map(|(key, value)| (self.text(key), self.json(value))))
            }
        }
    }

    fn text(&self, text: &str) -> Value {
        Value::from(self.marker.mark(text))
    }
}

fn number_value(number: &Number) -> Value {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(value), _, _) => Value::from(value),
        (_, Some(value), _) => Value::from(value),
        (_, _, value) => Value::from(value),
    }
}

fn strftime_now(now: SystemTime) -> Value {
    Value::from_function(move |format: String| clock::strftime(now, &format))
}
