//! Bytes in, text out: code points that arrive in pieces are assembled before anybody sees them.

/// Turns byte pieces, which may end anywhere, into text pieces that end on code point borders.
///
/// The concatenation of everything returned equals [`String::from_utf8_lossy`] of the concatenated input, however
/// the input was cut. At most three bytes are held back between calls.
#[derive(Debug, Clone, Default)]
pub struct Utf8Assembler {
    /// The beginning of a code point whose end has not arrived; at most three bytes.
    pending: Vec<u8>,
}

impl Utf8Assembler {
    /// An assembler with nothing pending.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and returns the text that is now complete; invalid bytes become U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        if self.pending.is_empty() {
            return self.assemble(bytes);
        }
        let mut joined = std::mem::take(&mut self.pending);
        joined.extend_from_slice(bytes);
        self.assemble(&joined)
    }

    /// Ends the text: a code point that never got its end becomes one U+FFFD.
    pub fn finish(&mut self) -> String {
        let cut_short = !std::mem::take(&mut self.pending).is_empty();
        if cut_short { char::REPLACEMENT_CHARACTER.to_string() } else { String::new() }
    }

    fn assemble(&mut self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len());
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && may_still_complete(invalid) {
                self.pending = invalid.to_vec();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }
}

/// Whether `bytes` are the beginning of a code point, as opposed to bytes that no continuation can repair.
fn may_still_complete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assemble(pieces: &[&[u8]]) -> Vec<String> {
        let mut assembler = Utf8Assembler::new();
        let mut texts: Vec<_> = pieces.iter().map(|piece| assembler.push(piece)).collect();
        texts.push(assembler.finish());
        texts
    }

    #[test]
    fn a_code_point_is_held_until_its_last_byte() {
        assert_eq!(assemble(&[b"a\xe2", b"\x82", b"\xacb"]), ["a", "", "\u{20ac}b", ""]);
    }

    #[test]
    fn an_unfinished_code_point_becomes_one_replacement_character() {
        assert_eq!(assemble(&[b"a\xf0\x9f", b"\x98"]), ["a", "", "\u{fffd}"]);
    }

    #[test]
    fn bytes_that_nothing_can_repair_are_replaced_at_once() {
        assert_eq!(assemble(&[b"\xff", b"\xe2\x28"]), ["\u{fffd}", "\u{fffd}(", ""]);
    }

    /// Bytes that are likely to contain code points, torn ones and garbage.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<char>().prop_map(|c| c.to_string().into_bytes()),
            any::<char>().prop_map(|c| c.to_string().into_bytes()[..1].to_vec()),
            proptest::collection::vec(any::<u8>(), 0..4),
        ];
        proptest::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_chunking_gives_what_a_lossy_conversion_of_the_whole_gives(bytes in bytes(), piece_len in 1_usize..8) {
            let pieces: Vec<_> = bytes.chunks(piece_len).collect();
            prop_assert_eq!(assemble(&pieces).concat(), String::from_utf8_lossy(&bytes));
        }
    }
}
