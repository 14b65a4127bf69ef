//! Addresses of e-mail, as people write them: no quotes, no comments, only ASCII.

use super::{Byte, Finding, Place, Tail, is_word};

/// What the standards allow in front of the `@`.
const LOCAL_MAX: usize = 64;
/// And behind it.
const DOMAIN_MAX: usize = 255;
pub(super) const LEN_MAX: usize = LOCAL_MAX + 1 + DOMAIN_MAX;

pub(super) fn find(place: Place) -> Finding {
    if !place.rest().first().copied().is_some_and(is_word) {
        return Finding::No;
    }
    let is_local = |byte| is_word(byte) || matches!(byte, b'.' | b'%' | b'+' | b'-');
    let local = place.run(0, LOCAL_MAX + 1, is_local);
    if local > LOCAL_MAX {
        return Finding::No;
    }
    match place.byte(local) {
        Byte::Is(b'@') => {}
        Byte::Unknown => return Finding::More,
        _ => return Finding::No,
    }
    let begin = local + 1;
    let len =
        place.run(begin, DOMAIN_MAX + 1, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    if len > DOMAIN_MAX {
        return Finding::No;
    }
    if place.may_go_on(begin + len) {
        return Finding::More;
    }
    match domain_len(&place.rest()[begin..begin + len]) {
        0 => Finding::No,
        len => Finding::Found(begin + len, Tail::None),
    }
}

/// How much of this is the name of a domain that could be in the world: some labels, and letters last.
fn domain_len(run: &[u8]) -> usize {
    let (mut len, mut at) = (0, 0);
    for (number, label) in run.split(|&byte| byte == b'.').enumerate() {
        let label_len = label.iter().rposition(|&byte| byte != b'-').map_or(0, |last| last + 1);
        if label_len == 0 || label[0] == b'-' {
            break;
        }
        let is_top = |label: &[u8]| {
            label.len() >= 2 && label.iter().all(u8::is_ascii_alphabetic) || label.starts_with(b"xn--")
        };
        if number > 0 && is_top(&label[..label_len]) {
            len = at + label_len;
        }
        if label_len < label.len() {
            break;
        }
        at += label.len() + 1;
    }
    len
}
