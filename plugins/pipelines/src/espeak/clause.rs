//! How a clause ended, told from the text that espeak-ng consumed for it.
//!
//! Piper's phonemes keep the punctuation that ended each clause, which it gets from a function that no release of
//! espeak-ng up to 1.52 has. All releases tell how far they read, though, and what they take for the end of a clause is
//! fixed: `ReadClause` in espeak-ng's `src/libespeak-ng/readclause.c`, and for the characters the clause properties in
//! `src/ucd-tools/src/proplist.c`. `docs/decisions.md` says how these rules were compared with Piper's own.

/// One clause, as Piper takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// IPA, as espeak-ng writes it, with the marks of words in another language such as `(en)` left out.
    pub phonemes: String,
    /// One of `.` `,` `?` `!` `:` `;`, if the clause ended with such a mark.
    pub terminator: Option<char>,
    /// Whether a sentence ends here.
    pub ends_sentence: bool,
}

/// How a clause ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) terminator: Option<char>,
    pub(super) ends_sentence: bool,
}

/// What a character at the end of a clause means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// The terminator that Piper writes for it.
    Spoken(char),
    /// It ends a sentence, but Piper writes nothing: marks that need no space after them.
    SilentStop,
    /// It ends a clause, and Piper writes nothing.
    SilentPause,
}

/// Splits a text's consumption into clauses' endings; remembers the character that was read ahead.
#[derive(Debug, Default)]
pub(super) struct Reader {
    read_ahead: Option<char>,
}

impl Reader {
    /// The ending of a clause that took `consumed` from the text. `is_last` says that nothing of the text is left, not
    /// even a character that was read ahead.
    pub(super) fn ending(&mut self, consumed: &str, is_last: bool) -> Ending {
        let mut clause: String = self.read_ahead.take().into_iter().chain(consumed.chars()).collect();
        if !is_last {
            // The library looks at the first character behind the clause, and gives it to the next one.
            self.read_ahead = clause.pop();
        }
        ending(&clause, is_last)
    }
}

fn ending(clause: &str, is_last: bool) -> Ending {
    let text = clause.trim_end();
    let space = &clause[text.len()..];
    if space.matches('\n').count() >= 2 {
        // A paragraph, which Piper marks by nothing but a new sentence.
        return Ending { terminator: None, ends_sentence: true };
    }
    // Of several marks in a row the first decides.
    let marks_start = text.char_indices().rev().take_while(|(_, c)| mark(*c).is_some()).last();
    let first = marks_start.and_then(|(start, c)| Some((start, mark(c)?)));
    let has_word = clause.contains(char::is_alphanumeric);
    match first {
        Some((start, found)) if has_word => {
            let is_ellipsis = text[start..].starts_with("...");
            match found {
                Mark::Spoken(_) if is_ellipsis => Ending { terminator: None, ends_sentence: false },
                Mark::Spoken(c) => {
                    Ending { terminator: Some(c), ends_sentence: matches!(c, '.' | '?' | '!') }
                }
                Mark::SilentStop => Ending { terminator: None, ends_sentence: true },
                Mark::SilentPause => Ending { terminator: None, ends_sentence: false },
            }
        }
        // The end of the text, or of the library's buffer for one clause.
        _ => Ending { terminator: None, ends_sentence: is_last },
    }
}

/// The characters with a clause property in espeak-ng's Unicode data.
fn mark(c: char) -> Option<Mark> {
    const FULL_STOPS: &str = ".\u{6d4}\u{701}\u{704}\u{1362}\u{166e}\u{1803}\u{1809}\u{2cf9}\u{2cfe}\u{2e33}\
                              \u{2e3c}\u{a4ff}\u{a60e}\u{a6f3}\u{fe12}\u{fe52}\u{ff61}";
    const COMMAS: &str = ",\u{55d}\u{60c}\u{702}\u{7f8}\u{f14}\u{1363}\u{1802}\u{1808}\u{2e32}\u{2e34}\u{2e41}\
                          \u{a4fe}\u{a60d}\u{a6f5}\u{fe10}\u{fe11}\u{fe50}\u{fe51}\u{ff64}";
    const QUESTIONS: &str = "?\u{37e}\u{61f}\u{709}\u{1367}\u{1945}\u{2047}\u{2753}\u{2754}\u{2cfa}\u{2cfb}\
                             \u{a60f}\u{a6f7}\u{fe16}\u{fe56}";
    const EXCLAMATIONS: &str =
        "!\u{703}\u{7f9}\u{1944}\u{203c}\u{2755}\u{2757}\u{2762}\u{2763}\u{fe15}\u{fe57}";
    const COLONS: &str = ":\u{706}\u{707}\u{1365}\u{1366}\u{1804}\u{2982}\u{a6f4}\u{fe13}\u{fe55}";
    // Dashes are among them.
    const SEMICOLONS: &str = ";\u{387}\u{61b}\u{708}\u{1364}\u{2013}\u{2014}\u{204f}\u{2e35}\u{2e3a}\u{2e3b}\
                              \u{a6f6}\u{fe14}\u{fe31}\u{fe32}\u{fe54}";
    const SILENT_STOPS: &str = "\u{589}\u{700}\u{964}\u{965}\u{df4}\u{f0d}\u{f0e}\u{10fb}\u{1368}\u{2029}\u{3002}\
                                \u{ff01}\u{ff0e}\u{ff1f}";
    const SILENT_PAUSES: &str = "\u{a1}\u{bf}\u{1801}\u{2026}\u{22ee}\u{22ef}\u{22f0}\u{22f1}\u{3001}\u{fe19}\
                                 \u{ff0c}\u{ff1a}\u{ff1b}";
    let table = [
        (FULL_STOPS, Mark::Spoken('.')),
        (COMMAS, Mark::Spoken(',')),
        (QUESTIONS, Mark::Spoken('?')),
        (EXCLAMATIONS, Mark::Spoken('!')),
        (COLONS, Mark::Spoken(':')),
        (SEMICOLONS, Mark::Spoken(';')),
        (SILENT_STOPS, Mark::SilentStop),
        (SILENT_PAUSES, Mark::SilentPause),
    ];
    table.into_iter().find_map(|(characters, mark)| characters.contains(c).then_some(mark))
}

/// The phonemes without the marks of a change of language, such as `(en)`.
pub(super) fn without_language_marks(phonemes: &str) -> String {
    let mut rest = phonemes;
    let mut kept = String::with_capacity(phonemes.len());
    while let Some((before, inside)) = rest.split_once('(') {
        kept.push_str(before);
        match inside.split_once(')') {
            Some((mark, after)) if !mark.is_empty() => rest = after,
            _ => {
                kept.push('(');
                rest = inside;
            }
        }
    }
    kept.push_str(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_is_what_the_library_took_it_for() {
        let cases = [
            // The consumed text has one character more, read ahead, unless nothing is left.
            ("Hello world. T", false, Some('.'), true),
            ("his is a test, a", false, Some(','), false),
            ("s it? Y", false, Some('?'), true),
            ("Wow!!! T", false, Some('!'), true),
            ("what?!", true, Some('?'), true),
            ("es: i", false, Some(':'), false),
            ("t is; r", false, Some(';'), false),
            ("this – a", false, Some(';'), false),
            ("Wait... w", false, None, false),
            ("Wait… w", false, None, false),
            ("No,... W", false, Some(','), false),
            ("He said \"Hi.\"", false, Some('.'), true),
            ("one\n\nT", false, None, true),
            ("one.\n\nT", false, None, true),
            ("日本語。は", false, None, true),
            ("no end", true, None, true),
            ("a clause longer than the buffer o", false, None, false),
            ("...", true, None, true),
            ("", true, None, true),
        ];
        for (consumed, is_last, terminator, ends_sentence) in cases {
            let found = Reader::default().ending(consumed, is_last);
            assert_eq!(found, Ending { terminator, ends_sentence }, "{consumed:?}");
        }
    }

    #[test]
    fn the_character_read_ahead_belongs_to_the_next_clause() {
        let mut reader = Reader::default();
        reader.ending("Mr. X", false);
        // Without the X, the dot would follow no word and mean nothing.
        assert_eq!(reader.ending(". Y", false).terminator, Some('.'));
    }

    #[test]
    fn marks_of_languages_are_left_out() {
        for (given, expected) in [
            ("(en)wˈɜːld(fr) ʃa", "wˈɜːld ʃa"),
            ("plain", "plain"),
            ("a () b", "a () b"),
            ("open (", "open ("),
            ("a(b", "a(b"),
        ] {
            assert_eq!(without_language_marks(given), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_an_ending(texts in proptest::collection::vec(".{0,20}", 0..6)) {
            let mut reader = Reader::default();
            for text in texts {
                reader.ending(&text, false);
                without_language_marks(&text);
            }
        }
    }
}
