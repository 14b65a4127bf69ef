//! Numbers of payment cards and telephones: digits, in groups.

use super::{Byte, Finding, Place, Tail, is_word};

/// More digits than any of them has.
const DIGITS_MAX: usize = 20;
/// What the international plan allows.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 8..=15;
/// More than a telephone number takes, with all that may be between its digits.
const PHONE_LEN_MAX: usize = 32;

/// How cards are grouped. Longer ones first, so that a number is not cut where it goes on.
#[rustfmt::skip]
const CARD_GROUPS: &[&[usize]] = &[
    &[4, 4, 4, 4, 3], &[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4],
    &[19], &[18], &[17], &[16], &[15], &[14], &[13],
];

/// A piece of digits without anything between them.
#[derive(Clone, Copy, Default)]
struct Group {
    size: usize,
    /// Where it ends, seen from the beginning of the number.
    end: usize,
}

/// Digits in groups, as far as they are known.
#[derive(Default)]
struct Groups {
    groups: Vec<Group>,
    digits: Vec<u8>,
    /// Whether the last group may grow.
    is_open: bool,
    /// Whether another group may follow.
    may_go_on: bool,
}

/// Whether a number may begin here: not within a chain of digits as versions, dates and serial numbers have them.
fn is_begin(place: Place) -> bool {
    let joins = |byte| matches!(byte, b'-' | b'.' | b'/' | b':' | b',');
    let is_in_chain =
        place.before(1).is_some_and(joins) && place.before(2).is_some_and(|byte: u8| byte.is_ascii_digit());
    !is_in_chain
}

/// Reads digits from `offset` on; between two groups there are one to `gap_max` bytes of those that `is_gap` accepts.
fn read(place: Place, offset: usize, gap_max: usize, is_gap: impl Fn(u8) -> bool) -> Groups {
    let mut read = Groups::default();
    let mut at = offset;
    loop {
        let room = DIGITS_MAX - read.digits.len();
        let size = place.run(at, room, |byte| byte.is_ascii_digit());
        read.digits.extend(&place.rest()[at..at + size]);
        at += size;
        read.groups.push(Group { size, end: at });
        if read.digits.len() == DIGITS_MAX {
            return read;
        }
        if place.may_go_on(at) {
            (read.is_open, read.may_go_on) = (true, true);
            return read;
        }
        let gap = place.run(at, gap_max, &is_gap);
        match place.byte(at + gap) {
            Byte::Is(byte) if byte.is_ascii_digit() && is_joint(&place.rest()[at..at + gap]) => at += gap,
            Byte::Unknown => {
                read.may_go_on = true;
                return read;
            }
            _ => return read,
        }
    }
}

/// What may be between two groups of one number: a sentence that ends in one and goes on with another is no joint.
fn is_joint(gap: &[u8]) -> bool {
    gap.len() == 1 || gap.iter().any(|byte| matches!(byte, b'(' | b')'))
}

/// Numbers whose last digit is the right one, grouped as on cards.
pub(super) fn card(place: Place) -> Finding {
    // The first digit tells the kind of issuer; banks and travel have 2 to 6.
    if !place.rest().first().is_some_and(|byte| (b'2'..=b'6').contains(byte)) || !is_begin(place) {
        return Finding::No;
    }
    let read = read(place, 0, 1, |byte| matches!(byte, b' ' | b'-'));
    for pattern in CARD_GROUPS {
        match read.fits(place, pattern) {
            Some(true) => {
                let count = pattern.iter().sum();
                if is_luhn(&read.digits[..count]) {
                    return Finding::Found(read.groups[pattern.len() - 1].end, Tail::None);
                }
            }
            Some(false) => {}
            None => return Finding::More,
        }
    }
    Finding::No
}

impl Groups {
    /// Whether these groups begin with a pattern and the number ends there; `None` when it cannot be told yet.
    fn fits(&self, place: Place, pattern: &[usize]) -> Option<bool> {
        for (number, (group, &size)) in self.groups.iter().zip(pattern).enumerate() {
            let may_grow = self.is_open && number + 1 == self.groups.len();
            if group.size > size || group.size < size && !may_grow {
                return Some(false);
            }
            if may_grow {
                return None;
            }
        }
        if self.groups.len() <= pattern.len() && self.may_go_on {
            return None;
        }
        match pattern.len().checked_sub(1).and_then(|last| self.groups.get(last)) {
            None => Some(false),
            Some(group) => Some(self.ends_at(place, group.end, pattern.len())),
        }
    }

    /// Whether a number may end at a group's end: no word goes on, and further groups are apart by a space only.
    fn ends_at(&self, place: Place, end: usize, count: usize) -> bool {
        match place.byte(end) {
            Byte::Is(byte) if is_word(byte) => false,
            Byte::Is(byte) => count >= self.groups.len() || byte == b' ',
            _ => true,
        }
    }
}

/// The check digit of cards (ISO/IEC 7812).
fn is_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| {
            let digit = u32::from(digit - b'0');
            match digit * 2 {
                _ if place % 2 == 0 => digit,
                double @ ..10 => double,
                double => double - 9,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Telephone numbers: international ones, and national ones that look like nothing else.
pub(super) fn phone(place: Place) -> Finding {
    let prefix = place.run(0, 2, |byte| matches!(byte, b'+' | b'('));
    let Byte::Is(first) = place.byte(prefix) else {
        return if place.may_go_on(prefix) { Finding::More } else { Finding::No };
    };
    if !first.is_ascii_digit() || !is_begin(place) || place.before(1) == Some(b'+') {
        return Finding::No;
    }
    // More groups of a longer number, which is none of these.
    let is_in_row =
        place.before(1) == Some(b' ') && place.before(2).is_some_and(|byte| byte.is_ascii_digit());
    if is_in_row && first == b'0' {
        return Finding::No;
    }
    let is_gap = |byte| matches!(byte, b' ' | b'-' | b'.' | b'/' | b'(' | b')');
    let read = read(place, prefix, 3, is_gap);
    if (read.is_open || read.may_go_on) && read.digits.len() <= *PHONE_DIGITS.end() {
        return Finding::More;
    }
    let is_international = place.rest()[..prefix].contains(&b'+');
    let has_bracket = place.rest()[..prefix].contains(&b'(');
    for count in (1..=read.groups.len()).rev() {
        let (groups, end) = (&read.groups[..count], read.groups[count - 1].end);
        let digits = &read.digits[..groups.iter().map(|group| group.size).sum()];
        let is_closed = !has_bracket || place.rest()[..end].contains(&b')');
        if end > PHONE_LEN_MAX || !is_closed || !read.ends_at(place, end, count) {
            continue;
        }
        let sizes: Vec<usize> = groups.iter().map(|group| group.size).collect();
        let has_dots = place.rest()[..end].contains(&b'.');
        let is_phone = if is_international {
            PHONE_DIGITS.contains(&digits.len()) && digits[0] != b'0'
        } else {
            is_national(&sizes, digits, has_dots)
        };
        if is_phone {
            return Finding::Found(end, Tail::None);
        }
    }
    Finding::No
}

fn is_national(sizes: &[usize], digits: &[u8], has_dots: bool) -> bool {
    let is_north_american = |digits: &[u8]| digits[0] >= b'2' && digits[3] >= b'2';
    match (sizes, digits) {
        ([3, 3, 4], digits) => is_north_american(digits),
        ([1, 3, 3, 4], [b'1', digits @ ..]) => is_north_american(digits),
        // The prefix of international calls.
        (_, [b'0', b'0', country, ..]) => *country != b'0' && (10..=15).contains(&digits.len()) && !has_dots,
        // The prefix of national calls, as most of the world has it.
        ([_], [b'0', area, ..]) => *area != b'0' && (10..=11).contains(&digits.len()),
        ([2, 2, 2, 2, 2], [b'0', area, ..]) => *area != b'0',
        ([2, 2, 4, ..], _) => false,
        ([area, rest @ ..], [b'0', second, ..]) => {
            *second != b'0'
                && !has_dots
                && (9..=12).contains(&digits.len())
                && (2..=6).contains(area)
                && rest.iter().all(|&size| size >= 2)
        }
        _ => false,
    }
}
