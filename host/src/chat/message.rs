//! The messages of a conversation, as templates are given them.

/// One message. Which fields a role uses is the API's to check; a field that is empty is not shown to the template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What was said; absent in an assistant's message that only calls tools.
    pub content: Option<Content>,
    /// The participant's name, or the tool's.
    pub name: Option<String>,
    /// The calls that the assistant made.
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool's message answers.
    pub tool_call_id: Option<String>,
    /// What a reasoning model thought before it spoke; templates know it as `reasoning_content`.
    pub reasoning: Option<String>,
}

/// Who speaks. Roles are not free text because templates build control tokens out of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions that hold for the conversation.
    System,
    /// OpenAI's newer name for [`Role::System`]; shown as such to templates that do not know it.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool.
    Tool,
}

/// The content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Text and images in order.
    Parts(Vec<ContentPart>),
}

/// One part of a [`Content::Parts`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentPart {
    /// Text.
    Text(String),
    /// The place of an image. Its pixels stay with the caller: the n-th such part is the n-th image of the request.
    Image,
}

/// A call that the assistant made earlier in the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The identifier that the tool's answer refers to.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments as a JSON text, as OpenAI sends them.
    pub arguments: String,
}

impl ChatMessage {
    /// A message of nothing but text.
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Self { content: Some(Content::Text(text.into())), ..Self::empty(role) }
    }

    /// A message that calls tools and says nothing.
    #[must_use]
    pub fn calling(tool_calls: Vec<ToolCall>) -> Self {
        Self { tool_calls, ..Self::empty(Role::Assistant) }
    }

    /// What the tool answered to the call `id`.
    pub fn tool_result(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self { tool_call_id: Some(id.into()), ..Self::new(Role::Tool, text) }
    }

    fn empty(role: Role) -> Self {
        Self { role, content: None, name: None, tool_calls: Vec::new(), tool_call_id: None, reasoning: None }
    }
}

impl Role {
    /// The role's name in OpenAI's API and in templates.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let roles = [Self::System, Self::Developer, Self::User, Self::Assistant, Self::Tool];
        roles.into_iter().find(|role| role.as_str() == name)
    }
}

impl Content {
    /// The text alone, parts joined by line breaks as other servers join them; images are left out.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Parts(parts) => {
                let texts: Vec<&str> = parts.iter().filter_map(ContentPart::as_text).collect();
                texts.join("\n")
            }
        }
    }

    /// Whether an image is among the parts.
    #[must_use]
    pub fn has_image(&self) -> bool {
        matches!(self, Self::Parts(parts) if parts.contains(&ContentPart::Image))
    }
}

impl ContentPart {
    fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Image => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_parts_is_joined_by_line_breaks_without_images() {
        let parts = [ContentPart::Text("a".into()), ContentPart::Image, ContentPart::Text("b".into())];
        let content = Content::Parts(parts.to_vec());
        assert_eq!(content.text(), "a\nb");
        assert!(content.has_image());
    }
}
