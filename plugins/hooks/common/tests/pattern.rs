//! What patterns find, and that pieces of a text lead to the same as all of it.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

use hook_common::pattern::{Outcome, Pattern};
use proptest::prelude::*;

fn is_in(regex: &str, text: &str) -> bool {
    Pattern::regex(regex, false).unwrap().is_in(text)
}

#[test]
fn patterns_are_found_where_they_are() {
    for (regex, yes, no) in [
        ("abc", "xxabcx", "ab c"),
        ("^abc", "abcx", "xabc"),
        ("abc$", "xabc", "abcx"),
        ("a.c", "aéc", "a\nc"),
        ("[a-c]x", "bx", "dx"),
        ("[^a-c]x", "dx", "bx"),
        ("[]-]x", "]x", "ax"),
        ("[a\\-z]x", "-x", "bx"),
        ("a|bc|d", "zbcz", "b c"),
        ("(ab)+c", "ababc", "aac"),
        ("ab?c", "ac", "abbc"),
        ("a{2}b", "aab", "ab"),
        ("xa{2,3}b", "xaaab", "xaaaab"),
        ("xa{2,}b", "xaaaaab", "xab"),
        ("\\bend\\b", "the end.", "bending"),
        ("\\Bend", "bend", "end"),
        ("EMP-\\d{3}", "EMP-123", "EMP-12"),
        ("(?i)grüße", "GRÜSSE GRÜßE", "gruesse"),
        ("\\(\\w+\\)", "(word)", "(two words)"),
        ("(a*)*b", "aaab", "aaac"),
        ("()*(){256}x", "x", "y"),
    ] {
        assert!(is_in(regex, yes), "{regex} in {yes}");
        assert!(!is_in(regex, no), "{regex} in {no}");
    }
}

#[test]
fn a_wrong_pattern_says_why() {
    for (regex, error) in [
        ("(a", "`(` without `)`"),
        ("a)", "`)` without `(`"),
        ("[a", "`[` without `]`"),
        ("*a", "`*` repeats nothing"),
        ("a+?", "`?` after a repetition is not known: the longest match is taken"),
        ("a{3,2}", "`{3,2}` is no repetition; expected `{2}`, `{2,}` or `{2,5}`"),
        ("(?=a)", "of groups with `(?`, only `(?:` is known, and `(?i)` at the beginning"),
        ("\\p", "`\\p` is not known"),
        ("a\\", "nothing follows the last `\\`"),
        ("[z-a]", "`z-a` is an empty range"),
        ("(a{200}){200}", "it has more than 2000 steps; repeat less"),
    ] {
        assert_eq!(Pattern::regex(regex, false).unwrap_err(), error, "{regex}");
    }
}

#[test]
fn the_longest_match_is_taken_once_it_is_certain() {
    let number = Pattern::regex("\\d+", false).unwrap();
    assert_eq!(number.longest_at("12x", 0, 99, false), Outcome::Found(2));
    assert_eq!(number.longest_at("12", 0, 99, false), Outcome::More);
    assert_eq!(number.longest_at("12", 0, 99, true), Outcome::Found(2));
    assert_eq!(number.longest_at("x", 0, 99, false), Outcome::No);
    assert_eq!(number.longest_at("123456", 0, 5, false), Outcome::Found(4));
    let word = Pattern::literal("word", true);
    assert_eq!(word.longest_at("WORD", 0, 99, false), Outcome::Found(4));
    assert_eq!(word.longest_at("wo", 0, 99, false), Outcome::More);
}

proptest! {
    /// What is said of a text's beginning must hold for all of it, or streaming would differ from reading at once.
    #[test]
    fn more_text_never_contradicts(
        regex in "[ab.]{1,3}[+*?]?(b|\\\\b|[ab]{1,2})[+*]?\\$?", text in "[ab .]{0,12}", cut in 0_usize..12
    ) {
        let Ok(pattern) = Pattern::regex(&regex, false) else { return Ok(()) };
        let cut = cut.min(text.len());
        let early = pattern.longest_at(&text[..cut], 0, 8, false);
        if early != Outcome::More {
            prop_assert_eq!(early, pattern.longest_at(&text, 0, 8, true));
        }
    }

    /// Searching everywhere at once agrees with trying each place.
    #[test]
    fn searching_agrees_with_trying(regex in "[ab]{1,3}[+*?]?(b|\\\\b|[ab.]{1,2})[+*]?", text in "[abé .]{0,12}") {
        let pattern = Pattern::regex(&regex, false).unwrap();
        let found = text.char_indices().any(|(at, _)| {
            matches!(pattern.longest_at(&text, at, 999, true), Outcome::Found(_))
        });
        prop_assert!(pattern.is_in(&text) || !found);
    }

    #[test]
    fn no_text_makes_the_parser_panic(regex in "\\PC{0,20}") {
        let _ = Pattern::regex(&regex, true).map(|pattern| pattern.is_in("any text"));
    }
}
