//! One call, `{"name": …, "arguments": …}`, read character by character.

use super::scanner::{Scan, Scanner};

/// The most bytes of a call that are kept until it is certain to be one; a longer beginning is no call.
const HELD_BYTES_MAX: usize = 64 << 10;

/// Reads one call. Members may come in any order, and unknown ones are skipped.
#[derive(Debug)]
pub(super) struct CallReader {
    at: At,
    /// The function's name, once it was read.
    name: Option<String>,
    /// The arguments, from their first character until the call is [`Step::Started`].
    arguments: String,
    started: bool,
    /// Bytes read so far.
    len: usize,
}

/// What a character meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing that can be told yet.
    Pending,
    /// It is certain to be a call, and this is what is known of it.
    Started(Start),
    /// One more character of the arguments of a call that has started.
    Argument(char),
    /// The call is complete; when it had not started, it does so now.
    Finished(Option<Start>),
    /// It is no call, or no longer one.
    Invalid,
}

/// The beginning of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// The function's name, one of those on offer.
    pub(super) name: String,
    /// What there is of the arguments, as JSON text.
    pub(super) arguments: String,
}

#[derive(Debug)]
enum At {
    Opening,
    KeyOrEnd,
    Key,
    KeyText(Text),
    Colon(Member),
    Value(Member),
    Name(Text),
    Arguments(Scanner),
    /// Arguments that are written as a string which contains JSON.
    ArgumentsText(Text),
    Skipped(Scanner),
    CommaOrEnd,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Name,
    Arguments,
    Other,
}

/// A JSON string that is being read.
#[derive(Debug)]
struct Text {
    raw: String,
    scanner: Scanner,
}

impl CallReader {
    pub(super) fn new() -> Self {
        Self { at: At::Opening, name: None, arguments: String::new(), started: false, len: 0 }
    }

    /// Whether the call has started, so that what was read of it is no longer the caller's to give back.
    pub(super) fn has_started(&self) -> bool {
        self.started
    }

    /// Takes the next character of a call whose function must be one of `names`. Not to be called again after
    /// [`Step::Finished`] or [`Step::Invalid`].
    pub(super) fn push(&mut self, c: char, names: &[String]) -> Step {
        self.len += c.len_utf8();
        if !self.started && self.len > HELD_BYTES_MAX {
            return Step::Invalid;
        }
        self.advance(c, names).unwrap_or(Step::Invalid)
    }

    /// `None` means that the text is no call.
    fn advance(&mut self, c: char, names: &[String]) -> Option<Step> {
        match &mut self.at {
            At::KeyText(text) => {
                let Some(key) = text.push(c)? else { return Some(Step::Pending) };
                self.then(At::Colon(self.member(&key)?))
            }
            At::Name(text) => {
                let Some(name) = text.push(c)? else { return Some(Step::Pending) };
                let name = names.iter().find(|known| **known == name)?;
                self.name = Some(name.clone());
                self.at = At::CommaOrEnd;
                Some(self.start())
            }
            At::ArgumentsText(text) => {
                let Some(arguments) = text.push(c)? else { return Some(Step::Pending) };
                serde_json::from_str::<serde_json::Map<_, _>>(&arguments).ok()?;
                self.arguments = arguments;
                self.at = At::CommaOrEnd;
                Some(self.start())
            }
            At::Arguments(scanner) => {
                match scanner.push(c) {
                    Scan::More => {}
                    Scan::Complete => self.at = At::CommaOrEnd,
                    Scan::CompleteBefore | Scan::Invalid => return None,
                }
                Some(self.argument(c))
            }
            At::Skipped(scanner) => match scanner.push(c) {
                Scan::More => Some(Step::Pending),
                Scan::Complete => self.then(At::CommaOrEnd),
                Scan::CompleteBefore => {
                    self.at = At::CommaOrEnd;
                    self.advance(c, names)
                }
                Scan::Invalid => None,
            },
            _ if matches!(c, ' ' | '\t' | '\n' | '\r') => Some(Step::Pending),
            _ => self.between_tokens(c),
        }
    }

    fn between_tokens(&mut self, c: char) -> Option<Step> {
        match (&self.at, c) {
            (At::Opening, '{') => self.then(At::KeyOrEnd),
            (At::KeyOrEnd | At::Key, '"') => self.then(At::KeyText(Text::new())),
            (At::Colon(member), ':') => self.then(At::Value(*member)),
            (At::Value(member), _) => self.begin_value(*member, c),
            (At::CommaOrEnd, ',') => self.then(At::Key),
            (At::CommaOrEnd, '}') => self.end(),
            _ => None,
        }
    }

    fn begin_value(&mut self, member: Member, c: char) -> Option<Step> {
        match (member, c) {
            (Member::Name, '"') => self.then(At::Name(Text::new())),
            (Member::Arguments, '"') => self.then(At::ArgumentsText(Text::new())),
            (Member::Arguments, '{') => {
                let mut scanner = Scanner::new();
                scanner.push(c);
                self.at = At::Arguments(scanner);
                self.arguments.push(c);
                Some(self.start())
            }
            (Member::Other, _) => {
                self.at = At::Skipped(Scanner::new());
                self.advance(c, &[])
            }
            _ => None,
        }
    }

    fn end(&mut self) -> Option<Step> {
        self.at = At::End;
        if self.started {
            return Some(Step::Finished(None));
        }
        // Models leave out the arguments of a function that takes none.
        let name = self.name.take()?;
        self.started = true;
        Some(Step::Finished(Some(Start { name, arguments: "{}".to_owned() })))
    }

    /// The call starts as soon as both its name and the beginning of its arguments are known.
    fn start(&mut self) -> Step {
        if self.arguments.is_empty() {
            return Step::Pending;
        }
        let Some(name) = &self.name else { return Step::Pending };
        self.started = true;
        Step::Started(Start { name: name.clone(), arguments: std::mem::take(&mut self.arguments) })
    }

    fn argument(&mut self, c: char) -> Step {
        if self.started {
            return Step::Argument(c);
        }
        self.arguments.push(c);
        Step::Pending
    }

    /// Which member `key` is; `None` when that member was there before.
    fn member(&self, key: &str) -> Option<Member> {
        match key {
            "name" => self.name.is_none().then_some(Member::Name),
            "arguments" | "parameters" => {
                (!self.started && self.arguments.is_empty()).then_some(Member::Arguments)
            }
            _ => Some(Member::Other),
        }
    }

    fn then(&mut self, at: At) -> Option<Step> {
        self.at = at;
        Some(Step::Pending)
    }
}

impl Text {
    /// A string whose opening quote was just read.
    fn new() -> Self {
        let mut scanner = Scanner::new();
        scanner.push('"');
        Self { raw: "\"".to_owned(), scanner }
    }

    /// The decoded string when `c` ends it; `None` when it is not valid.
    fn push(&mut self, c: char) -> Option<Option<String>> {
        self.raw.push(c);
        match self.scanner.push(c) {
            Scan::More => Some(None),
            Scan::Complete => serde_json::from_str(&self.raw).ok().map(Some),
            Scan::CompleteBefore | Scan::Invalid => None,
        }
    }
}
