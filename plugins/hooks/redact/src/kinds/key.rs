//! Keys of programs: what their makers gave a sign to be known by.
//!
//! Such a key may be long, so it is replaced as soon as enough of it is seen, and its tail is swallowed as it comes.

use super::{Byte, Finding, Place, is_word};

/// What belongs to a key behind what was needed to know it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Tail {
    None,
    /// More of the same word.
    Word,
    /// More words, joined by dots.
    DottedWords,
    /// All up to the line that ends a block of PEM.
    Pem,
}

/// A kind of key.
struct Sign {
    prefix: &'static [u8],
    /// How much must follow the prefix, at least.
    min: usize,
    /// Whether that must look random, because the prefix alone may begin ordinary words.
    is_random: bool,
    is_part: fn(u8) -> bool,
}

const fn sign(prefix: &'static str, min: usize, is_random: bool, is_part: fn(u8) -> bool) -> Sign {
    Sign { prefix: prefix.as_bytes(), min, is_random, is_part }
}

const SIGNS: &[Sign] = &[
    sign("sk-", 20, true, is_token),
    sign("sk_live_", 16, false, is_token),
    sign("sk_test_", 16, false, is_token),
    sign("rk_live_", 16, false, is_token),
    sign("ghp_", 30, false, is_letter_or_digit),
    sign("gho_", 30, false, is_letter_or_digit),
    sign("ghu_", 30, false, is_letter_or_digit),
    sign("ghs_", 30, false, is_letter_or_digit),
    sign("ghr_", 30, false, is_letter_or_digit),
    sign("github_pat_", 22, false, is_token),
    sign("glpat-", 20, false, is_token),
    sign("hf_", 30, false, is_letter_or_digit),
    sign("AIza", 35, false, is_token),
    sign("xoxb-", 10, true, is_token),
    sign("xoxp-", 10, true, is_token),
    sign("xoxa-", 10, true, is_token),
    sign("xoxr-", 10, true, is_token),
    sign("xoxs-", 10, true, is_token),
    sign("AKIA", AWS_LEN, false, is_upper_or_digit),
    sign("ASIA", AWS_LEN, false, is_upper_or_digit),
];

/// Behind the prefix of Amazon's keys are exactly as many signs.
const AWS_LEN: usize = 16;
/// As much of a key is looked at to see whether it is random.
const LOOK_MAX: usize = 32;
/// The longest header of a JSON web token that is waited for.
const JWT_HEADER_MAX: usize = 300;
/// Within so many bytes behind the first line of a PEM block, its content must begin.
const PEM_HEADERS_MAX: usize = 200;
/// So many base64 characters in one piece are content.
const PEM_RUN: usize = 16;
const PEM_LABEL_MAX: usize = 40;
const DASHES: &[u8] = b"-----";
const PEM_BEGIN: &[u8] = b"-----BEGIN ";
const PEM_END: &[u8] = b"-----END ";

fn is_token(byte: u8) -> bool {
    is_word(byte) || byte == b'-'
}

fn is_letter_or_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn is_upper_or_digit(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

pub(super) fn find(place: Place) -> Finding {
    match place.rest().first() {
        Some(b'-') => pem(place),
        Some(b'e') => json_web_token(place),
        Some(first) => {
            let candidates = SIGNS.iter().filter(|sign| sign.prefix[0] == *first);
            let mut findings = candidates.map(|sign| sign.find(place));
            findings.find(|finding| *finding != Finding::No).unwrap_or(Finding::No)
        }
        None => Finding::No,
    }
}

/// Whether a text stands at a distance from the place; `None` when it cannot be told yet.
fn stands(place: Place, offset: usize, text: &[u8]) -> Option<bool> {
    let rest = place.rest().get(offset..).unwrap_or_default();
    if rest.starts_with(text) {
        return Some(true);
    }
    let may_come = !place.end && text.starts_with(rest);
    if may_come { None } else { Some(false) }
}

impl Sign {
    fn find(&self, place: Place) -> Finding {
        match stands(place, 0, self.prefix) {
            Some(true) => {}
            Some(false) => return Finding::No,
            None => return Finding::More,
        }
        let begin = self.prefix.len();
        let is_aws = std::ptr::fn_addr_eq(self.is_part, is_upper_or_digit as fn(u8) -> bool);
        let len_max = if is_aws { AWS_LEN + 1 } else { self.min.max(LOOK_MAX) };
        let len = place.run(begin, len_max, self.is_part);
        if len < len_max && place.may_go_on(begin + len) && (is_aws || self.is_random || len < self.min) {
            return Finding::More;
        }
        let seen = &place.rest()[begin..begin + len];
        let goes_on = matches!(place.byte(begin + len), Byte::Is(byte) if is_word(byte));
        match () {
            () if len < self.min || self.is_random && !looks_random(seen) => Finding::No,
            () if is_aws && (len > AWS_LEN || goes_on) => Finding::No,
            () => Finding::Found(begin + len, Tail::Word),
        }
    }
}

/// Words have letters of one case; of random signs, hardly any run does without the others.
fn looks_random(text: &[u8]) -> bool {
    let has = |is: fn(&u8) -> bool| u8::from(text.iter().any(is));
    has(u8::is_ascii_digit) + has(u8::is_ascii_uppercase) + has(u8::is_ascii_lowercase) >= 2
}

/// Three parts in base64; the first two are JSON objects, which always begin with the same signs.
fn json_web_token(place: Place) -> Finding {
    match stands(place, 0, b"eyJ") {
        Some(true) => {}
        Some(false) => return Finding::No,
        None => return Finding::More,
    }
    let len = place.run(0, JWT_HEADER_MAX + 1, is_token);
    if !(10..=JWT_HEADER_MAX).contains(&len) && !place.may_go_on(len) || len > JWT_HEADER_MAX {
        return Finding::No;
    }
    match stands(place, len, b".eyJ") {
        Some(true) => Finding::Found(len + 4, Tail::DottedWords),
        Some(false) => Finding::No,
        None => Finding::More,
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// Line breaks may be written as `\n`, as in JSON.
fn is_pem(byte: u8) -> bool {
    is_base64(byte) || byte.is_ascii_whitespace() || matches!(byte, b'\\' | b':' | b',' | b'-')
}

/// A private key between its two lines. Only the first line with some of the content is needed to know it.
fn pem(place: Place) -> Finding {
    match stands(place, 0, PEM_BEGIN) {
        Some(true) => {}
        Some(false) => return Finding::No,
        None => return Finding::More,
    }
    let label_begin = PEM_BEGIN.len();
    let len = place.run(label_begin, PEM_LABEL_MAX, |byte| byte.is_ascii_uppercase() || byte == b' ');
    let label_end = label_begin + len;
    match stands(place, label_end, DASHES) {
        Some(true) => {}
        Some(false) => return Finding::No,
        None => return Finding::More,
    }
    let label = &place.rest()[label_begin..label_end];
    if !label.windows(11).any(|part| part == b"PRIVATE KEY") {
        return Finding::No;
    }
    let begin = label_end + DASHES.len();
    let mut run = 0;
    for offset in begin..begin + PEM_HEADERS_MAX {
        match place.byte(offset) {
            Byte::Is(byte) if is_base64(byte) => run += 1,
            Byte::Is(byte) if is_pem(byte) || matches!(byte, b'.' | b'(' | b')') => run = 0,
            Byte::Unknown => return Finding::More,
            _ => return Finding::No,
        }
        if run == PEM_RUN {
            return Finding::Found(offset + 1, Tail::Pem);
        }
    }
    Finding::No
}

impl Tail {
    /// How much of the text from a place on belongs to the tail, and whether that was all of it.
    pub(crate) fn swallow(self, text: &[u8], at: usize, end: bool) -> (usize, bool) {
        let place = Place { text, at, end };
        match self {
            Self::None => (0, true),
            Self::Word => {
                let len = place.run(0, usize::MAX, is_token);
                (len, !place.may_go_on(len))
            }
            Self::DottedWords => dotted_words(place),
            Self::Pem => pem_tail(place),
        }
    }
}

fn dotted_words(place: Place) -> (usize, bool) {
    let mut len = 0;
    loop {
        len += place.run(len, usize::MAX, is_token);
        match (place.byte(len), place.byte(len + 1)) {
            // A dot that ends a sentence is not swallowed.
            (Byte::Is(b'.'), Byte::Is(next)) if is_token(next) => len += 1,
            (Byte::Unknown, _) | (Byte::Is(b'.'), Byte::Unknown) => return (len, false),
            _ => return (len, true),
        }
    }
}

fn pem_tail(place: Place) -> (usize, bool) {
    let mut len = 0;
    loop {
        len += place.run(len, usize::MAX, |byte| is_pem(byte) && byte != b'-');
        match place.byte(len) {
            Byte::Is(b'-') => {}
            Byte::Unknown => return (len, false),
            _ => return (len, true),
        }
        match stands(place, len, PEM_END) {
            None => return (len, false),
            Some(false) => len += 1,
            Some(true) => {
                let label_begin = len + PEM_END.len();
                let label = |byte: u8| byte.is_ascii_uppercase() || byte == b' ';
                let label_end = label_begin + place.run(label_begin, PEM_LABEL_MAX, label);
                match stands(place, label_end, DASHES) {
                    None => return (len, false),
                    Some(true) => return (label_end + DASHES.len(), true),
                    Some(false) => return (label_end, true),
                }
            }
        }
    }
}
