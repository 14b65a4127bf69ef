//! Separates words from calls in what a model generates.

use uuid::Uuid;

use super::call::{CallReader, Start, Step};
use super::{CALLS_MAX, Tool, ToolSyntax};

/// The most white space that is held back because a call might follow it, in bytes.
const SPACE_HELD_BYTES_MAX: usize = 256;

/// Makes the identifiers of calls, such as [`random_call_id`].
pub type IdGenerator = Box<dyn FnMut() -> String + Send>;

/// A piece of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolEvent {
    /// More of the answer's words.
    Content(String),
    /// A call begins. `index` counts the calls of the answer from 0.
    CallStart {
        /// The call's place among the calls of this answer.
        index: usize,
        /// Its identifier.
        id: String,
        /// The function's name, one of those on offer.
        name: String,
    },
    /// More of the arguments of a call, as JSON text exactly as the model wrote it.
    CallArguments {
        /// The call's place among the calls of this answer.
        index: usize,
        /// The text that follows what was reported before.
        delta: String,
    },
}

/// Finds calls in the text that a model generates, piece by piece as it comes.
///
/// Markers, and text that may still become one, are never content; text that merely began like a marker is released as
/// soon as it cannot be one. White space around calls belongs to the markers. What turns out not to be a call — it is
/// not JSON, or names a function that is not on offer — is content, marker included. A call is reported when its name
/// and the beginning of its arguments are known; if it breaks off after that, the text from the first wrong character
/// on is content. After 64 calls everything is content.
///
/// How the text was cut into pieces has no influence on what is reported, except on the size of the deltas.
pub struct ToolCallParser {
    syntax: ToolSyntax,
    names: Vec<String>,
    ids: IdGenerator,
    state: State,
    /// Text that is not decided: white space, the beginning of a marker, or of a call that has not started.
    held: String,
    /// Calls reported so far.
    calls: usize,
    /// Whether nothing but white space came so far.
    at_beginning: bool,
    events: Vec<ToolEvent>,
}

enum State {
    Content,
    /// After a marker that a list of calls follows.
    ListStart,
    /// After a call in a list.
    ListNext,
    Call(CallReader),
    /// After a call whose syntax has a closing marker.
    Closer,
    /// After a call that is followed by another one, if not by content.
    NextBare,
}

/// An identifier like OpenAI's: `call_` and 24 random letters and digits.
#[must_use]
pub fn random_call_id() -> String {
    format!("call_{:.24}", Uuid::new_v4().simple().to_string())
}

impl ToolCallParser {
    /// A parser for one answer of a model that writes calls in `syntax` and was offered `tools`.
    #[must_use]
    pub fn new(syntax: ToolSyntax, tools: &[Tool], ids: IdGenerator) -> Self {
        Self {
            syntax,
            names: tools.iter().map(|tool| tool.name().to_owned()).collect(),
            ids,
            state: State::Content,
            held: String::new(),
            calls: 0,
            at_beginning: true,
            events: Vec::new(),
        }
    }

    /// Takes the next piece of generated text and returns what is certain now, in order.
    pub fn push(&mut self, text: &str) -> Vec<ToolEvent> {
        text.chars().for_each(|c| self.advance(c));
        std::mem::take(&mut self.events)
    }

    /// Ends the answer: what was held back is content after all, unless it is white space after a call. A call that was
    /// cut short keeps the arguments reported so far.
    pub fn finish(&mut self) -> Vec<ToolEvent> {
        let held = std::mem::take(&mut self.held);
        let state = std::mem::replace(&mut self.state, State::Content);
        let after_call = match state {
            State::Content => self.calls > 0 && held.trim().is_empty(),
            // All that is held in these states belongs to the markers.
            State::Closer | State::ListNext | State::NextBare => true,
            State::ListStart | State::Call(_) => false,
        };
        if !after_call {
            self.content(&held);
        }
        std::mem::take(&mut self.events)
    }

    /// How many calls were reported so far. An answer with any ends for the reason `tool_calls`.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls
    }

    fn advance(&mut self, c: char) {
        match &mut self.state {
            State::Content => self.in_content(c),
            State::ListStart => self.in_list(c, '['),
            State::ListNext => self.in_list(c, ','),
            State::Call(reader) => {
                let step = reader.push(c, &self.names);
                self.in_call(c, step);
            }
            State::Closer => self.in_closer(c),
            State::NextBare => self.after_bare(c),
        }
    }

    fn in_content(&mut self, c: char) {
        if self.calls >= CALLS_MAX {
            return self.release(c);
        }
        if self.at_beginning && c == '{' && self.syntax.is_bare() {
            return self.begin_call(Some(c));
        }
        self.held.push(c);
        let opener = self.syntax.opener().unwrap_or_default();
        if !opener.is_empty() && self.held.trim_start() == opener {
            match self.syntax {
                ToolSyntax::Mistral => self.state = State::ListStart,
                _ => self.begin_call(None),
            }
            return;
        }
        let undecided = undecided_from(&self.held, opener);
        let mut held = std::mem::take(&mut self.held);
        self.content(&held[..undecided]);
        held.drain(..undecided);
        self.held = held;
    }

    /// Before the bracket that opens a list of calls, or the comma before the next call.
    fn in_list(&mut self, c: char, wanted: char) {
        if c.is_whitespace() && self.held.len() < SPACE_HELD_BYTES_MAX {
            self.held.push(c);
        } else if c == wanted {
            self.held.push(c);
            self.begin_call(None);
        } else if c == ']' && wanted == ',' {
            self.held.clear();
            self.state = State::Content;
        } else {
            self.give_up(c);
        }
    }

    fn in_call(&mut self, c: char, step: Step) {
        match step {
            Step::Pending => {
                if !self.call_has_started() {
                    self.held.push(c);
                }
            }
            Step::Started(start) => self.start_call(start),
            Step::Argument(c) => self.argument(c),
            Step::Finished(start) => {
                if let Some(start) = start {
                    self.start_call(start);
                }
                self.state = match self.syntax {
                    ToolSyntax::Hermes => State::Closer,
                    ToolSyntax::Mistral => State::ListNext,
                    ToolSyntax::Llama3 | ToolSyntax::Generic => State::NextBare,
                };
            }
            Step::Invalid => self.give_up(c),
        }
    }

    /// After a call: its closing marker, or anything else if the model forgot it.
    fn in_closer(&mut self, c: char) {
        let closer = self.syntax.closer().unwrap_or_default();
        self.held.push(c);
        let marker = self.held.trim_start();
        if marker == closer {
            self.held.clear();
            self.state = State::Content;
        } else if !closer.starts_with(marker) || self.held.len() > SPACE_HELD_BYTES_MAX {
            self.state = State::Content;
            let held = std::mem::take(&mut self.held);
            held.chars().for_each(|c| self.in_content(c));
        }
    }

    /// After a call without a closing marker: the next one, with or without something between.
    fn after_bare(&mut self, c: char) {
        if c == '{' && self.calls < CALLS_MAX {
            return self.begin_call(Some(c));
        }
        let goes_on = c.is_whitespace() || (is_separator(c) && !self.held.contains(is_separator));
        if goes_on && self.held.len() < SPACE_HELD_BYTES_MAX {
            return self.held.push(c);
        }
        self.state = State::Content;
        if self.held.contains(is_separator) {
            let held = std::mem::take(&mut self.held);
            self.content(&held);
        }
        self.in_content(c);
    }

    /// Begins to read a call; `first` is its first character where that has been read.
    fn begin_call(&mut self, first: Option<char>) {
        self.state = State::Call(CallReader::new());
        if let Some(c) = first {
            self.advance(c);
        }
    }

    fn start_call(&mut self, start: Start) {
        self.held.clear();
        self.at_beginning = false;
        let index = self.calls;
        self.calls += 1;
        self.events.push(ToolEvent::CallStart { index, id: (self.ids)(), name: start.name });
        self.events.push(ToolEvent::CallArguments { index, delta: start.arguments });
    }

    fn argument(&mut self, c: char) {
        match self.events.last_mut() {
            Some(ToolEvent::CallArguments { delta, .. }) => delta.push(c),
            _ => self.events.push(ToolEvent::CallArguments { index: self.calls - 1, delta: c.into() }),
        }
    }

    /// What was held is no call. It is content, and `c` may begin something new.
    fn give_up(&mut self, c: char) {
        self.state = State::Content;
        let held = std::mem::take(&mut self.held);
        self.content(&held);
        self.at_beginning = false;
        self.in_content(c);
    }

    fn release(&mut self, c: char) {
        let mut held = std::mem::take(&mut self.held);
        held.push(c);
        self.content(&held);
    }

    fn content(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.at_beginning &= text.trim().is_empty();
        match self.events.last_mut() {
            Some(ToolEvent::Content(content)) => content.push_str(text),
            _ => self.events.push(ToolEvent::Content(text.to_owned())),
        }
    }

    fn call_has_started(&self) -> bool {
        matches!(&self.state, State::Call(reader) if reader.has_started())
    }
}

/// What models put between calls that have no markers.
fn is_separator(c: char) -> bool {
    matches!(c, ';' | ',')
}

/// Where the end of `text` begins that may still become white space and `opener`.
fn undecided_from(text: &str, opener: &str) -> usize {
    let marker = (1..opener.len()).rev().find_map(|len| {
        let beginning = opener.get(..len)?;
        text.ends_with(beginning).then(|| text.len() - len)
    });
    let marker = marker.unwrap_or(text.len());
    let space = text[..marker].trim_end().len();
    // Endless white space is released, but for what may be a marker.
    if text.len() - space > SPACE_HELD_BYTES_MAX { marker } else { space }
}

#[cfg(test)]
mod tests;
