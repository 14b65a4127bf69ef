//! What is looked for. Each kind says of a place in a text whether something of it begins there.
//!
//! A text may be incomplete. So a kind may ask for more text before it decides, and what it has decided, more text must
//! not change: then a text in pieces comes out as it would in one.

mod email;
mod iban;
mod key;
mod numbers;

pub(crate) use key::Tail;

/// The longest that a kind makes text wait, in bytes.
pub(crate) const LEN_MAX: usize = email::LEN_MAX;

/// A kind of private data.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// Addresses of e-mail.
    Email,
    /// Telephone numbers.
    Phone,
    /// Numbers of payment cards.
    Card,
    /// Numbers of bank accounts.
    Iban,
    /// Keys, tokens and other secrets of programs.
    Key,
}

impl Kind {
    /// All of them, with their names in a configuration.
    pub const ALL: [(&'static str, Self); 5] = [
        ("email", Self::Email),
        ("phone", Self::Phone),
        ("card", Self::Card),
        ("iban", Self::Iban),
        ("key", Self::Key),
    ];

    /// In this order they are asked about a place.
    pub(crate) const ASKED: [Self; 5] = [Self::Key, Self::Iban, Self::Email, Self::Card, Self::Phone];

    /// What stands at byte `at` of a text. With `end` the text is complete.
    pub(crate) fn at(self, text: &[u8], at: usize, end: bool) -> Finding {
        let place = Place { text, at, end };
        match self {
            Self::Email => email::find(place),
            Self::Phone => numbers::phone(place),
            Self::Card => numbers::card(place),
            Self::Iban => iban::find(place),
            Self::Key => key::find(place),
        }
    }
}

/// What a kind says of a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Finding {
    /// Nothing of it begins here.
    No,
    /// The text ends too early to tell.
    More,
    /// These bytes are of it, and so is what follows as far as the tail says.
    Found(usize, Tail),
}

/// A place in a text that may be incomplete.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    text: &'a [u8],
    at: usize,
    end: bool,
}

/// What is at some distance from a place.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Byte {
    Is(u8),
    /// Behind the end of the text.
    None,
    Unknown,
}

impl<'a> Place<'a> {
    fn byte(self, offset: usize) -> Byte {
        match self.text.get(self.at + offset) {
            Some(&byte) => Byte::Is(byte),
            None if self.end => Byte::None,
            None => Byte::Unknown,
        }
    }

    fn rest(self) -> &'a [u8] {
        &self.text[self.at..]
    }

    /// The byte this far in front.
    fn before(self, distance: usize) -> Option<u8> {
        self.at.checked_sub(distance).map(|at| self.text[at])
    }

    /// Whether the text may go on behind these bytes.
    fn may_go_on(self, len: usize) -> bool {
        self.byte(len) == Byte::Unknown
    }

    /// How many bytes from `offset` on are of a class; at most `max`.
    fn run(self, offset: usize, max: usize, is: impl Fn(u8) -> bool) -> usize {
        let rest = self.rest().get(offset..).unwrap_or_default();
        rest.iter().take(max).take_while(|&&byte| is(byte)).count()
    }
}

/// Whether words go on at this byte.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether something may begin at this place: nothing begins within a word, and most characters begin nothing.
pub(crate) fn may_begin(text: &[u8], at: usize) -> bool {
    let byte = text[at];
    (is_word(byte) || matches!(byte, b'+' | b'(' | b'-')) && (at == 0 || !is_word(text[at - 1]))
}
