//! Which system message a chat gets.

use hook_common::config::Fields;

/// What is between an operator's text and a client's.
const SEPARATOR: &str = "\n\n";

/// A message, as far as it matters here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// Number of the client's message that this one is.
    pub source: Option<u32>,
    /// Who speaks.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    fn is_system(&self) -> bool {
        matches!(self.role.as_str(), "system" | "developer")
    }
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    /// Only where the client has none.
    Insert,
    /// In front of the client's.
    Prepend,
    /// Behind the client's.
    Append,
    /// Instead of all of the client's.
    Override,
}

/// What the operator wants.
#[derive(Debug)]
pub struct Rules {
    text: Option<String>,
    by_model: Vec<(String, String)>,
    mode: Mode,
}

impl Rules {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When something is wrong in it; the message says what.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut fields = Fields::parse(json)?;
        let text = fields.text("text")?;
        let mode = fields.choice(
            "mode",
            &[
                ("insert", Mode::Insert),
                ("prepend", Mode::Prepend),
                ("append", Mode::Append),
                ("override", Mode::Override),
            ],
        )?;
        let by_model = fields.table("by_model")?.map_or(Ok(Vec::new()), Fields::into_texts)?;
        fields.finish()?;
        if text.is_none() && by_model.is_empty() {
            return Err("nothing to say; set `text`, `by_model` or both".to_owned());
        }
        Ok(Self { text, by_model, mode: mode.unwrap_or(Mode::Insert) })
    }

    /// The messages of a request with the system message that it shall have; `None` when all stays as it is.
    #[must_use]
    pub fn apply(&self, task: &str, model: &str, messages: Vec<Message>) -> Option<Vec<Message>> {
        let is_chat = !messages.is_empty() && messages.iter().all(|message| message.role != "prompt");
        if task != "generate" || !is_chat {
            return None;
        }
        let own = self.by_model.iter().find(|(name, _)| name == model).map(|(_, text)| text);
        let text = own.or(self.text.as_ref()).filter(|text| !text.is_empty())?;
        let mut messages = messages;
        let theirs = messages.iter_mut().find(|message| message.is_system());
        match (self.mode, theirs) {
            (Mode::Insert, Some(_)) => return None,
            (Mode::Prepend, Some(theirs)) => theirs.content = [text, theirs.content.as_str()].join(SEPARATOR),
            (Mode::Append, Some(theirs)) => theirs.content = [theirs.content.as_str(), text].join(SEPARATOR),
            (Mode::Override, Some(_)) => {
                messages.retain(|message| !message.is_system());
                messages.insert(0, system(text));
            }
            (_, None) => messages.insert(0, system(text)),
        }
        Some(messages)
    }
}

fn system(text: &str) -> Message {
    Message { source: None, role: "system".to_owned(), content: text.to_owned() }
}
