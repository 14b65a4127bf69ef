//! Numbers of bank accounts: the country says how long they are, and two digits check the rest.

use super::{Byte, Finding, Place, Tail};

/// How many letters and digits an IBAN has, by country (SWIFT's registry).
#[rustfmt::skip]
const LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24), (b"AE", 23), (b"AL", 28), (b"AT", 20), (b"AZ", 28), (b"BA", 20), (b"BE", 16), (b"BG", 22),
    (b"BH", 22), (b"BI", 27), (b"BR", 29), (b"BY", 28), (b"CH", 21), (b"CR", 22), (b"CY", 28), (b"CZ", 24),
    (b"DE", 22), (b"DJ", 27), (b"DK", 18), (b"DO", 28), (b"EE", 20), (b"EG", 29), (b"ES", 24), (b"FI", 18),
    (b"FK", 18), (b"FO", 18), (b"FR", 27), (b"GB", 22), (b"GE", 22), (b"GI", 23), (b"GL", 18), (b"GR", 27),
    (b"GT", 28), (b"HN", 28), (b"HR", 21), (b"HU", 28), (b"IE", 22), (b"IL", 23), (b"IQ", 23), (b"IS", 26),
    (b"IT", 27), (b"JO", 30), (b"KW", 30), (b"KZ", 20), (b"LB", 28), (b"LC", 32), (b"LI", 21), (b"LT", 20),
    (b"LU", 20), (b"LV", 21), (b"LY", 25), (b"MC", 27), (b"MD", 24), (b"ME", 22), (b"MK", 19), (b"MN", 20),
    (b"MR", 27), (b"MT", 31), (b"MU", 30), (b"NI", 28), (b"NL", 18), (b"NO", 15), (b"OM", 23), (b"PK", 24),
    (b"PL", 28), (b"PS", 29), (b"PT", 25), (b"QA", 29), (b"RO", 24), (b"RS", 22), (b"RU", 33), (b"SA", 24),
    (b"SC", 31), (b"SD", 18), (b"SE", 24), (b"SI", 19), (b"SK", 24), (b"SM", 27), (b"SO", 23), (b"ST", 25),
    (b"SV", 28), (b"TL", 23), (b"TN", 24), (b"TR", 26), (b"UA", 29), (b"VA", 22), (b"VG", 24), (b"XK", 20),
    (b"YE", 30),
];

pub(super) fn find(place: Place) -> Finding {
    let mut signs = [0; 34];
    let (mut count, mut offset, mut len_of_country) = (0, 0, signs.len());
    while count < len_of_country {
        let byte = match place.byte(offset) {
            Byte::Is(byte) => byte.to_ascii_uppercase(),
            Byte::Unknown => return Finding::More,
            Byte::None => return Finding::No,
        };
        offset += 1;
        if count > 0 && count % 4 == 0 && byte == b' ' && place.rest()[offset - 2] != b' ' {
            continue;
        }
        let fits = match count {
            0 | 1 => byte.is_ascii_uppercase(),
            2 | 3 => byte.is_ascii_digit(),
            _ => byte.is_ascii_alphanumeric(),
        };
        if !fits {
            return Finding::No;
        }
        signs[count] = byte;
        count += 1;
        if count == 2 {
            match LENGTHS.iter().find(|(country, _)| country[..] == signs[..2]) {
                Some((_, len)) => len_of_country = *len,
                None => return Finding::No,
            }
        }
    }
    match place.byte(offset) {
        Byte::Unknown => Finding::More,
        Byte::Is(byte) if byte.is_ascii_alphanumeric() => Finding::No,
        _ if is_valid(&signs[..count]) => Finding::Found(offset, Tail::None),
        _ => Finding::No,
    }
}

/// ISO 7064: with the first four signs last and letters from A = 10 on, the number leaves 1 when divided by 97.
fn is_valid(signs: &[u8]) -> bool {
    let (head, tail) = signs.split_at(4);
    let rest = tail.iter().chain(head).fold(0, |rest, &sign| match sign {
        b'0'..=b'9' => (rest * 10 + u32::from(sign - b'0')) % 97,
        _ => (rest * 100 + u32::from(sign - b'A') + 10) % 97,
    });
    rest == 1
}
