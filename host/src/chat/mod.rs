//! From a conversation to a prompt, and from a model's words back to tool calls.
//!
//! A model's own chat template (the Jinja of `apply_chat_template`) turns [`ChatMessage`]s into [`Segment`]s: text that
//! the template wrote, and text that came with the request and in which control tokens mean nothing. What the model
//! answers passes through [`ToolCallParser`], which separates words from calls while they stream.

mod json;
mod message;
mod template;
mod tools;
mod trust;

pub use message::{ChatMessage, Content, ContentPart, Role, ToolCall};
pub use template::{
    CHATML, ChatTemplate, FUEL, OUTPUT_BYTES_MAX, RenderInput, SOURCE_BYTES_MAX, SpecialTokens, TemplateError,
};
pub use tools::{
    Grammar, IdGenerator, Tool, ToolCallParser, ToolChoice, ToolError, ToolEvent, ToolSyntax, constraint,
    random_call_id,
};
pub use trust::Segment;
