//! Sentences of a text that comes in pieces, so that the first can be spoken while the rest is still being written.

/// The longest sentence, in bytes; a longer one is cut, if possible after a comma, else after a word.
pub const SENTENCE_BYTES_MAX: usize = 400;
/// Words that end in a full stop without ending a sentence, in lower case.
const ABBREVIATIONS: [&str; 21] = [
    "mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "e.g", "i.e", "cf", "fig", "al", "approx",
    "inc", "ltd", "co", "z.b", "bzw", "ca",
];

/// Takes a text piece by piece and gives it back sentence by sentence. The pieces' borders make no difference.
///
/// A sentence ends after `.`, `!`, `?` or `…`, with the quotation marks and brackets that follow, before white space and
/// something other than a lower-case letter; after the marks of Chinese and Japanese; and at the end of a line. A full stop
/// after an abbreviation, a single letter or the number that begins a line (`1. First`) ends none.
#[derive(Debug, Default)]
pub struct SentenceSplitter {
    /// What has come since the last sentence; without white space at its beginning.
    rest: String,
    /// How much of `rest` holds no end.
    searched: usize,
}

impl SentenceSplitter {
    /// A splitter that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece; returns the sentences that are complete now, without the white space around them.
    pub fn push(&mut self, piece: &str) -> Vec<String> {
        self.rest.push_str(piece);
        let mut sentences = Vec::new();
        loop {
            self.trim_start();
            let end = match self.find_end() {
                Some(end) => end,
                None if self.rest.len() > SENTENCE_BYTES_MAX => cut(&self.rest),
                None => return sentences,
            };
            let rest = self.rest.split_off(end);
            let sentence = std::mem::replace(&mut self.rest, rest);
            self.searched = 0;
            sentences.push(sentence.trim_end().to_owned());
        }
    }

    /// What is left at the end of the text.
    #[must_use]
    pub fn finish(mut self) -> Option<String> {
        self.trim_start();
        let rest = self.rest.trim_end();
        (!rest.is_empty()).then(|| rest.to_owned())
    }

    fn trim_start(&mut self) {
        let blank = self.rest.len() - self.rest.trim_start().len();
        if blank > 0 {
            self.rest.drain(..blank);
            self.searched = 0;
        }
    }

    /// Where the first sentence ends, if the first [`SENTENCE_BYTES_MAX`] bytes tell.
    fn find_end(&mut self) -> Option<usize> {
        let window = &self.rest[..self.rest.floor_char_boundary(SENTENCE_BYTES_MAX)];
        for (at, mark) in window[self.searched..].char_indices() {
            let at = self.searched + at;
            match end_at(window, at, mark) {
                End::Here(end) => return Some(end),
                End::Unknown => {
                    self.searched = at;
                    return None;
                }
                End::No => {}
            }
        }
        self.searched = window.len();
        None
    }
}

/// Whether a sentence ends at a character.
enum End {
    No,
    /// Up to here it is the sentence.
    Here(usize),
    /// That depends on what comes.
    Unknown,
}

fn end_at(text: &str, at: usize, mark: char) -> End {
    let after = at + mark.len_utf8();
    match mark {
        '\n' => End::Here(at),
        '。' | '！' | '？' => after_closing(text, after).map_or(End::Unknown, End::Here),
        '.' | '!' | '?' | '…' => {
            let Some(end) = after_closing(text, after) else { return End::Unknown };
            let next = text[end..].trim_start_matches([' ', '\t', '\r']);
            match next.chars().next() {
                None => End::Unknown,
                Some('\n') => End::Here(end),
                Some(_) if next.len() == text.len() - end => End::No,
                Some(letter) if letter.is_lowercase() => End::No,
                Some(_) if mark == '.' && is_part_of_word(&text[..at]) => End::No,
                Some(_) => End::Here(end),
            }
        }
        _ => End::No,
    }
}

/// The place behind further marks, quotation marks and brackets; `None` while more of them may come.
fn after_closing(text: &str, from: usize) -> Option<usize> {
    let is_closing = |c: char| {
        matches!(
            c,
            '.' | '!'
                | '?'
                | '…'
                | '。'
                | '！'
                | '？'
                | '"'
                | '\''
                | '”'
                | '’'
                | '»'
                | ')'
                | ']'
                | '」'
                | '』'
                | '*'
        )
    };
    text[from..].find(|c| !is_closing(c)).map(|length| from + length)
}

/// Whether a full stop behind `before` belongs to its last word.
fn is_part_of_word(before: &str) -> bool {
    let word =
        before.rsplit(|c: char| c.is_whitespace() || matches!(c, '(' | '"' | '“')).next().unwrap_or(before);
    let mut letters = word.chars();
    let is_letter = matches!((letters.next(), letters.next()), (Some(c), None) if c.is_alphabetic());
    // Only at the beginning: "It happened in 1999." is a sentence.
    let is_item = !word.is_empty() && word.len() == before.len() && word.chars().all(|c| c.is_ascii_digit());
    is_letter || is_item || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

/// Where a text that is too long is cut: within [`SENTENCE_BYTES_MAX`], behind a comma, a word or, at worst, a character.
fn cut(text: &str) -> usize {
    let limit = text.floor_char_boundary(SENTENCE_BYTES_MAX);
    let head = &text[..limit];
    // The first half is left whole, lest a comma near its beginning makes a sentence of one word.
    let behind =
        |found: Option<(usize, char)>| found.map(|(at, c)| at + c.len_utf8()).filter(|end| *end > limit / 2);
    let last = |is_wanted: fn(char) -> bool| behind(head.char_indices().rev().find(|(_, c)| is_wanted(*c)));
    last(|c| matches!(c, ',' | ';' | ':' | '，' | '、' | '；' | '–'))
        .or_else(|| last(char::is_whitespace))
        .unwrap_or(limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(pieces: &[&str]) -> Vec<String> {
        let mut splitter = SentenceSplitter::new();
        let mut sentences: Vec<String> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
        sentences.extend(splitter.finish());
        sentences
    }

    #[test]
    fn sentences_end_where_a_reader_would_pause() {
        let table: [(&str, &[&str]); 14] = [
            ("", &[]),
            (" \n ", &[]),
            ("Hello", &["Hello"]),
            ("Hello. How are you? Fine!", &["Hello.", "How are you?", "Fine!"]),
            ("It costs 3.50 euros. Cheap.", &["It costs 3.50 euros.", "Cheap."]),
            (
                "Mr. Smith met Dr. Who, e.g. in London. Yes.",
                &["Mr. Smith met Dr. Who, e.g. in London.", "Yes."],
            ),
            ("J. R. Tolkien wrote it. Read it.", &["J. R. Tolkien wrote it.", "Read it."]),
            ("She said \"no.\" Then she left.", &["She said \"no.\"", "Then she left."]),
            ("Wait... what? Really?! (Yes.) Ok.", &["Wait... what?", "Really?!", "(Yes.)", "Ok."]),
            ("1. First\n2. Second", &["1. First", "2. Second"]),
            ("In 1999. Later", &["In 1999.", "Later"]),
            ("A list:\n- one\n- two\n", &["A list:", "- one", "- two"]),
            ("你好。今天怎么样？很好", &["你好。", "今天怎么样？", "很好"]),
            ("see example.com/a.b for more. Bye", &["see example.com/a.b for more.", "Bye"]),
        ];
        for (text, sentences) in table {
            assert_eq!(split(&[text]), sentences, "{text}");
        }
    }

    #[test]
    fn a_sentence_is_given_as_soon_as_it_is_certain() {
        let mut splitter = SentenceSplitter::new();
        assert!(splitter.push("Hello there.").is_empty());
        assert!(splitter.push(" ").is_empty());
        assert_eq!(splitter.push("H"), ["Hello there."]);
        assert_eq!(splitter.push("ow\n"), ["How"]);
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn what_never_ends_is_cut() {
        let words = "word ".repeat(200);
        let with_comma = format!("{}, {}", "a ".repeat(150).trim(), "b ".repeat(150));
        for text in [words.as_str(), &with_comma, &"x".repeat(2000), &"…".repeat(999), &"名".repeat(999)] {
            let sentences = split(&[text]);
            assert!(sentences.len() > 1, "{text}");
            assert!(sentences.iter().all(|sentence| sentence.len() <= SENTENCE_BYTES_MAX), "{sentences:?}");
        }
        assert!(split(&[&with_comma])[0].ends_with(','));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_borders_of_pieces_make_no_difference(
            pieces in prop::collection::vec("[aB1 .?!,\n\"。…é]{0,30}", 0..60)
        ) {
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let whole = pieces.concat();
            let sentences = split(&pieces);
            prop_assert_eq!(&sentences, &split(&[&whole]));
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(letters(&sentences.concat()), letters(&whole));
            for sentence in &sentences {
                prop_assert!(!sentence.is_empty() && sentence.len() <= SENTENCE_BYTES_MAX);
                prop_assert_eq!(sentence.trim(), sentence.as_str());
            }
        }
    }
}
