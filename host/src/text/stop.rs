//! Stop strings: found across the borders of text pieces, and never emitted.

/// The most stop strings one request may have; OpenAI allows four.
pub const STOPS_MAX: usize = 16;
/// The longest stop string, in bytes.
pub const STOP_BYTES_MAX: usize = 1024;

/// Watches a stream of text for stop strings.
///
/// The first stop string to be *completed* ends the text, so the outcome does not depend on how the text was cut into
/// pieces; of several that are completed by the same character the longest, which begins leftmost, wins. The text
/// before it is emitted, nothing of it or after it is. Held back between calls is only the longest end of the text that
/// is a beginning of a stop string: less than [`STOP_BYTES_MAX`] bytes.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<Automaton>,
    held: String,
    stopped: Option<usize>,
}

/// What one piece of text led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopOutcome {
    /// Text that is now known to come before any stop string.
    pub emit: String,
    /// The position, in the list given to [`StopMatcher::new`], of the stop string that ended the text.
    pub stopped: Option<usize>,
}

/// Why a list of stop strings was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// More than [`STOPS_MAX`] stop strings.
    #[error("at most {STOPS_MAX} stop strings are allowed, {count} were given")]
    TooMany {
        /// How many were given.
        count: usize,
    },
    /// A stop string without characters, which would end every text at once.
    #[error("stop[{index}] is empty; a stop string needs at least one character")]
    Empty {
        /// Its position in the list.
        index: usize,
    },
    /// A stop string longer than [`STOP_BYTES_MAX`].
    #[error("stop[{index}] has {len} bytes, at most {STOP_BYTES_MAX} are allowed")]
    TooLong {
        /// Its position in the list.
        index: usize,
        /// Its length in bytes.
        len: usize,
    },
}

impl StopMatcher {
    /// A matcher for `stops`; an empty list lets all text through.
    ///
    /// # Errors
    /// When there are too many stop strings, or one of them is empty or too long.
    pub fn new<S: AsRef<str>>(stops: &[S]) -> Result<Self, StopError> {
        if stops.len() > STOPS_MAX {
            return Err(StopError::TooMany { count: stops.len() });
        }
        let stops = stops.iter().enumerate().map(|(index, stop)| match stop.as_ref().len() {
            0 => Err(StopError::Empty { index }),
            len if len > STOP_BYTES_MAX => Err(StopError::TooLong { index, len }),
            _ => Ok(Automaton::new(stop.as_ref())),
        });
        Ok(Self { stops: stops.collect::<Result<_, _>>()?, held: String::new(), stopped: None })
    }

    /// Takes the next piece of text. After a stop string was found every further piece is dropped.
    pub fn push(&mut self, piece: &str) -> StopOutcome {
        if self.stopped.is_some() {
            return StopOutcome { emit: String::new(), stopped: self.stopped };
        }
        let already_held = self.held.len();
        self.held.push_str(piece);
        for (offset, byte) in piece.bytes().enumerate() {
            if let Some((index, stop_len)) = self.advance(byte) {
                self.held.truncate(already_held + offset + 1 - stop_len);
                self.stopped = Some(index);
                return StopOutcome { emit: std::mem::take(&mut self.held), stopped: self.stopped };
            }
        }
        // A stop string begins on a code point border, and so does the end of the text that equals its beginning.
        let hold = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - hold);
        StopOutcome { emit: std::mem::replace(&mut self.held, rest), stopped: None }
    }

    /// Ends the text and returns what was held back; empty after a stop string was found.
    pub fn finish(&mut self) -> String {
        for stop in &mut self.stops {
            stop.matched = 0;
        }
        std::mem::take(&mut self.held)
    }

    /// Feeds one byte to every stop string; the completed one, if any, with its length in bytes.
    fn advance(&mut self, byte: u8) -> Option<(usize, usize)> {
        let mut completed: Option<(usize, usize)> = None;
        for (index, stop) in self.stops.iter_mut().enumerate() {
            let len = stop.bytes.len();
            if stop.advance(byte) && completed.is_none_or(|(_, longest)| len > longest) {
                completed = Some((index, len));
            }
        }
        completed
    }
}

/// Knuth, Morris and Pratt's matcher for one stop string: its state is how much of the string the text ends with.
#[derive(Debug, Clone)]
struct Automaton {
    bytes: Vec<u8>,
    /// For each length of a matched beginning, the longest shorter beginning that it also ends with.
    fallback: Vec<usize>,
    matched: usize,
}

impl Automaton {
    fn new(stop: &str) -> Self {
        let bytes = stop.as_bytes().to_vec();
        let mut fallback = vec![0; bytes.len() + 1];
        let mut len = 0;
        for end in 1..bytes.len() {
            while len > 0 && bytes[end] != bytes[len] {
                len = fallback[len];
            }
            len += usize::from(bytes[end] == bytes[len]);
            fallback[end + 1] = len;
        }
        Self { bytes, fallback, matched: 0 }
    }

    /// Whether `byte` completes the stop string.
    fn advance(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes.get(self.matched) != Some(&byte) {
            self.matched = self.fallback[self.matched];
        }
        self.matched += usize::from(self.bytes.get(self.matched) == Some(&byte));
        self.matched == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Stop strings, pieces of text, what each piece and then `finish` emits, and the stop string that is found.
    type Case = (&'static [&'static str], &'static [&'static str], &'static [&'static str], Option<usize>);

    /// What each piece emits, then what `finish` does, and which stop string was found.
    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, Option<usize>) {
        let mut matcher = StopMatcher::new(stops).unwrap();
        let mut stopped = None;
        let mut emitted = Vec::new();
        for piece in pieces {
            let outcome = matcher.push(piece);
            emitted.push(outcome.emit);
            stopped = outcome.stopped;
        }
        emitted.push(matcher.finish());
        (emitted, stopped)
    }

    #[test]
    fn streams_are_cut_at_stop_strings() {
        let table: &[Case] = &[
            (&[], &["a", "b"], &["a", "b", ""], None),
            (&["END"], &["one E", "ND two", "three"], &["one ", "", "", ""], Some(0)),
            (&["END"], &["EN", "E", "ND"], &["", "EN", "", ""], Some(0)),
            (&["END"], &["the EN"], &["the ", "EN"], None),
            // The one completed first wins, although another begins further left.
            (&["abcd", "bc"], &["abcd"], &["a", ""], Some(1)),
            // Completed by the same character: the one that begins leftmost wins.
            (&["cd", "bcd"], &["abcd"], &["a", ""], Some(1)),
            (&["aab"], &["aaa", "ab"], &["a", "a", ""], Some(0)),
            (&["\u{20ac}!"], &["1\u{20ac}", "2\u{20ac}", "!"], &["1", "\u{20ac}2", "", ""], Some(0)),
            (&["\n\n"], &["a\n", "b\n", "\nc"], &["a", "\nb", "", ""], Some(0)),
        ];
        for (stops, pieces, emitted, stopped) in table {
            let (found, at) = run(stops, pieces);
            assert_eq!(found, *emitted, "{stops:?} in {pieces:?}");
            assert_eq!(at, *stopped, "{stops:?} in {pieces:?}");
        }
    }

    #[test]
    fn unusable_lists_are_refused() {
        let long = "x".repeat(STOP_BYTES_MAX + 1);
        assert_eq!(StopMatcher::new(&["a"; 17]).unwrap_err(), StopError::TooMany { count: 17 });
        assert_eq!(StopMatcher::new(&["a", ""]).unwrap_err(), StopError::Empty { index: 1 });
        assert_eq!(
            StopMatcher::new(&[long]).unwrap_err(),
            StopError::TooLong { index: 0, len: STOP_BYTES_MAX + 1 }
        );
    }

    /// The text before the stop string that is completed first, found the slow way.
    fn reference(text: &str, stops: &[String]) -> String {
        let ends = text.char_indices().map(|(start, c)| start + c.len_utf8());
        for end in ends {
            let longest = stops.iter().filter(|stop| text[..end].ends_with(*stop)).map(String::len).max();
            if let Some(len) = longest {
                return text[..end - len].to_owned();
            }
        }
        text.to_owned()
    }

    proptest! {
        #[test]
        fn output_is_the_text_before_the_first_match_for_any_chunking(
            text in "[ab\u{e9}\u{20ac}]{0,40}",
            stops in proptest::collection::vec("[ab\u{e9}\u{20ac}]{1,5}", 0..5),
            piece_len in 1_usize..6,
        ) {
            let chars: Vec<char> = text.chars().collect();
            let mut matcher = StopMatcher::new(&stops).unwrap();
            let mut output = String::new();
            for piece in chars.chunks(piece_len) {
                output += &matcher.push(&piece.iter().collect::<String>()).emit;
            }
            output += &matcher.finish();
            prop_assert_eq!(output, reference(&text, &stops));
        }
    }
}
