//! Learns what a template can handle by rendering small conversations, as no template says so.

use std::time::UNIX_EPOCH;

use serde_json::Map;

use super::{ChatTemplate, RenderInput, TEMPLATE_NAME};
use crate::chat::message::{ChatMessage, Content, ContentPart, Role, ToolCall};

/// A word that no template contains of itself.
const NEEDLE: &str = "pjneedle";

/// What a template can handle.
#[derive(Debug, Clone)]
pub(super) struct Abilities {
    /// Content that is a string appears in the prompt.
    pub(super) text_content: bool,
    /// The text within a list of content parts appears in the prompt, without Python's notation of a dictionary.
    pub(super) part_content: bool,
    /// A system message appears in the prompt.
    pub(super) system_role: bool,
    /// The template knows the role `developer`.
    pub(super) developer_role: bool,
    /// The template reads `tools`.
    pub(super) tools: bool,
    /// Arguments of calls are wanted as JSON text, not as an object.
    pub(super) arguments_as_text: bool,
    /// Identifiers of calls must have nine characters, as Mistral's must.
    pub(super) short_call_ids: bool,
}

impl Default for Abilities {
    /// What most templates can, and what the probes start from.
    fn default() -> Self {
        Self {
            text_content: true,
            part_content: true,
            system_role: true,
            developer_role: true,
            tools: true,
            arguments_as_text: false,
            short_call_ids: false,
        }
    }
}

/// Probes `template`, whose source is `source`.
pub(super) fn probe(template: &ChatTemplate, source: &str) -> Abilities {
    let mut abilities = Abilities {
        developer_role: source.contains("developer"),
        short_call_ids: demands_short_call_ids(source),
        tools: reads_tools(template),
        ..Abilities::default()
    };
    let parts = Content::Parts(vec![ContentPart::Text(NEEDLE.to_owned())]);
    let said_in_parts = ChatMessage { content: Some(parts), ..ChatMessage::new(Role::User, "") };
    abilities.part_content =
        show(template, &abilities, &[said_in_parts]).is_some_and(|prompt| !prompt.contains("'type'"));
    // Where neither appears, nothing is known, and strings are what everybody understands.
    let said = ChatMessage::new(Role::User, NEEDLE);
    abilities.text_content = show(template, &abilities, &[said]).is_some() || !abilities.part_content;
    let instructed = [ChatMessage::new(Role::System, NEEDLE), ChatMessage::new(Role::User, "hello")];
    abilities.system_role = show(template, &abilities, &instructed).is_some();
    if abilities.tools {
        let call = ToolCall {
            id: "call00000".to_owned(),
            name: "look".to_owned(),
            arguments: format!("{{\"key\":\"{NEEDLE}\"}}"),
        };
        let called = [ChatMessage::new(Role::User, "hello"), ChatMessage::calling(vec![call])];
        let as_text = Abilities { arguments_as_text: true, ..abilities.clone() };
        abilities.arguments_as_text =
            show(template, &abilities, &called).is_none() && show(template, &as_text, &called).is_some();
    }
    abilities
}

/// The prompt for `messages` when it is one and has the [`NEEDLE`] in it.
fn show(template: &ChatTemplate, abilities: &Abilities, messages: &[ChatMessage]) -> Option<String> {
    let input = RenderInput {
        messages,
        tools: &[],
        add_generation_prompt: false,
        extra: &Map::new(),
        now: UNIX_EPOCH,
    };
    let prompt = super::run(&template.quick, template.context(&input, abilities)).ok()?;
    prompt.contains(NEEDLE).then_some(prompt)
}

fn reads_tools(template: &ChatTemplate) -> bool {
    let compiled = template.quick.get_template(TEMPLATE_NAME);
    compiled.is_ok_and(|compiled| compiled.undeclared_variables(false).contains("tools"))
}

/// Mistral's templates raise an exception unless `tool_call.id|length` is 9.
fn demands_short_call_ids(source: &str) -> bool {
    let source: String = source.split_whitespace().collect();
    source.contains("id|length!=9") || source.contains("id|length==9")
}
