//! What is refused.

use hook_common::config::{Entry, Fields};
use hook_common::pattern::{Outcome, Pattern};

/// Longer matches of what is allowed are not looked for, in bytes.
const ALLOWED_LEN_MAX: usize = 256;
const MESSAGE: &str = "the prompt was refused by the rules of this server";

/// Sentences that try to talk a model out of its instructions.
const INJECTIONS: &[&str] = &[
    r"(ignore|disregard|forget)( all)?( of)?( the| your| my)? (previous|prior|above|earlier) (instructions|prompts|rules)",
    r"(ignore|disregard|forget) (all|everything) (above|before|you were told)",
    r"(reveal|print|show|repeat)( me)? your (system|initial|hidden) (prompt|instructions)",
    r"you are now (in )?(dan|developer mode|jailbroken)",
    r"<\|(im_start|im_end|system|endoftext|eot_id|start_header_id)\|>",
];

/// A message, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Who speaks, or what the text is for.
    pub role: &'a str,
    /// The text.
    pub content: &'a str,
}

impl Message<'_> {
    /// Whether a client's user may have written it: what an operator or a model wrote is not searched for words.
    fn is_of_users(self) -> bool {
        !matches!(self.role, "system" | "developer" | "assistant")
    }
}

/// Why a prompt is refused.
#[derive(Debug, Eq, PartialEq)]
pub struct Refusal {
    /// For the client.
    pub message: String,
    /// For the log.
    pub reason: String,
}

/// What the operator wants.
#[derive(Debug)]
pub struct Rules {
    /// Each with its text in the configuration.
    deny: Vec<(Pattern, String)>,
    allow: Vec<(Pattern, String)>,
    message: Option<String>,
    chars_max: usize,
    message_chars_max: usize,
    messages_max: usize,
}

impl Rules {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When something is wrong in it; the message says what.
    pub fn parse(json: &str) -> Result<Self, String> {
        let mut fields = Fields::parse(json)?;
        let mut deny = patterns(fields.entries("deny")?, "deny")?;
        let allow = patterns(fields.entries("allow")?, "allow")?;
        if fields.flag("injections")?.unwrap_or(true) {
            for text in INJECTIONS {
                deny.push((Pattern::regex(text, true)?, (*text).to_owned()));
            }
        }
        let message = fields.text("message")?;
        let mut limit = |name, default: u32| -> Result<usize, String> {
            let limit = fields.whole(name, 1..=u32::MAX)?.unwrap_or(default);
            Ok(usize::try_from(limit).unwrap_or(usize::MAX))
        };
        let chars_max = limit("chars_max", 1_000_000)?;
        let message_chars_max = limit("message_chars_max", 500_000)?;
        let messages_max = limit("messages_max", 1000)?;
        fields.finish()?;
        Ok(Self { deny, allow, message, chars_max, message_chars_max, messages_max })
    }

    /// Says why a prompt is refused, if it is.
    #[must_use]
    pub fn check(&self, messages: &[Message]) -> Option<Refusal> {
        if let Some(reason) = self.too_much(messages) {
            let message = self.message.clone().unwrap_or_else(|| reason.clone());
            return Some(Refusal { message, reason });
        }
        for (number, message) in messages.iter().enumerate().filter(|(_, message)| message.is_of_users()) {
            if let Some(text) = self.denied(message.content) {
                return Some(Refusal {
                    message: self.message.clone().unwrap_or_else(|| MESSAGE.to_owned()),
                    reason: format!("message {number} has `{text}`"),
                });
            }
        }
        None
    }

    fn too_much(&self, messages: &[Message]) -> Option<String> {
        let max = self.messages_max;
        if messages.len() > max {
            return Some(format!("the prompt has {} messages; at most {max} are allowed", messages.len()));
        }
        let mut sum = 0;
        for (number, message) in messages.iter().enumerate() {
            let chars = message.content.chars().count();
            let max = self.message_chars_max;
            if chars > max {
                return Some(format!("message {number} has {chars} characters; at most {max} are allowed"));
            }
            sum += chars;
        }
        let max = self.chars_max;
        (sum > max).then(|| format!("the prompt has {sum} characters; at most {max} are allowed"))
    }

    /// What is denied in a text.
    fn denied(&self, text: &str) -> Option<&str> {
        let find = |text: &str| self.deny.iter().find(|(pattern, _)| pattern.is_in(text));
        let (_, name) = find(text)?;
        if self.allow.is_empty() {
            return Some(name);
        }
        find(&self.without_allowed(text)).map(|(_, name)| name.as_str())
    }

    /// The text with a line break for each allowed part.
    fn without_allowed(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        while let Some(c) = text[at..].chars().next() {
            let allowed = self.allow.iter().find_map(|(pattern, _)| {
                if !pattern.may_begin_with(text.as_bytes()[at]) {
                    return None;
                }
                match pattern.longest_at(text, at, ALLOWED_LEN_MAX, true) {
                    Outcome::Found(len) => Some(len),
                    _ => None,
                }
            });
            out.push(if allowed.is_some() { '\n' } else { c });
            at += allowed.unwrap_or(c.len_utf8());
        }
        out
    }
}

/// Texts as they stand, and tables with `regex`; case does not matter.
fn patterns(entries: Option<Vec<Entry>>, name: &str) -> Result<Vec<(Pattern, String)>, String> {
    let mut patterns = Vec::new();
    for entry in entries.unwrap_or_default() {
        patterns.push(match entry {
            Entry::Text(text) if text.is_empty() => return Err(format!("a text in `{name}` is empty")),
            Entry::Text(text) => (Pattern::literal(&text, true), text),
            Entry::Table(mut table) => {
                let place = table.place("regex");
                let regex = table.text("regex")?.ok_or_else(|| format!("`{place}` is missing"))?;
                table.finish()?;
                let pattern = Pattern::regex(&regex, true);
                (pattern.map_err(|error| format!("`{place}` is wrong: {error}"))?, regex)
            }
        });
    }
    Ok(patterns)
}
