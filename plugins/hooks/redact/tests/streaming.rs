//! A text in pieces comes out as it would in one, and waits no longer than it must.

use hook_redact::{HELD_BYTES_MAX, Redactor, Rules, redact};
use proptest::prelude::*;

const PATTERNS: &str = r#"{"patterns": ["secret", {"regex": "EMP-\\d{2,6}\\b", "replacement": "[STAFF]"},
    {"text": "grün", "ignore_case": true}]}"#;

/// Parts of texts that are of a kind, are almost, or are something else.
fn part() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "bob@example.com",
        "4111 1111 1111 1111",
        "4111111111111111",
        "DE89 3704 0044 0532 0130 00",
        "+49 30 1234567",
        "(555) 234-5678",
        "030/1234567",
        "sk-abc123abc123abc123abc123abc123abc123",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_",
        "aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3",
        "AIza",
        "eyJhbGciOiJIUzI1NiJ9",
        ".eyJzdWIiOiIxMjM0In0",
        ".dozjgNryP4J3jVm",
        "-----BEGIN RSA PRIVATE KEY-----\n",
        "\n-----END RSA PRIVATE KEY-----",
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC",
        "secret",
        "EMP-123",
        "GRÜN",
        "secr",
        "EMP-",
        " ",
        ".",
        "-",
        "@",
        "+",
        "\n",
        "12",
        "0",
        "a",
        "é",
        "_",
        "/",
        "(",
        ")",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => "\\PC{0,5}", 1 => "[a-zA-Z0-9._-]{1,400}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn pieces_come_out_as_the_whole(
        parts in prop::collection::vec(part(), 0..12), lens in prop::collection::vec(1_usize..20, 1..30)
    ) {
        let rules = Rules::parse(PATTERNS).unwrap();
        let text = parts.concat();
        let whole = redact(&rules, &text);

        let (mut redactor, mut out, mut rest) = (Redactor::default(), String::new(), text.as_str());
        for len in lens.iter().cycle() {
            let (piece, others) = rest.split_at(rest.ceil_char_boundary((*len).min(rest.len())));
            rest = others;
            out += &redactor.push(&rules, piece, rest.is_empty());
            prop_assert!(redactor.held() <= HELD_BYTES_MAX);
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(redactor.held(), 0);
        prop_assert_eq!(out, whole);
    }
}

#[test]
fn text_waits_only_while_it_may_become_a_match() {
    let rules = Rules::parse("{}").unwrap();
    let mut redactor = Redactor::default();
    for (piece, out) in [
        ("Write ", "Write "),
        ("to bob", "to "),
        ("@exa", ""),
        ("mple.com", ""),
        (", or", "[EMAIL], "),
        (" not. ", "or not. "),
        ("sk-abc123abc123abc123", ""),
        ("abc123abc123", ""),
        ("abc123abc123", "[KEY]"),
        ("abc end", " "),
    ] {
        assert_eq!(redactor.push(&rules, piece, false), out, "{piece}");
    }
    assert_eq!(redactor.push(&rules, "", true), "end");
}

#[test]
fn kinds_replacements_and_patterns_are_the_operators() {
    let all = "bob@example.com 4111111111111111 secret EMP-123 Grün";
    for (json, expected) in [
        (r#"{"kinds": ["card"]}"#, "bob@example.com [CARD] secret EMP-123 Grün"),
        (
            r#"{"kinds": [], "patterns": ["secret"]}"#,
            "bob@example.com 4111111111111111 [REDACTED] EMP-123 Grün",
        ),
        (r#"{"replacements": {"email": "<mail>", "card": ""}}"#, "<mail>  secret EMP-123 Grün"),
        (PATTERNS, "[EMAIL] [CARD] [REDACTED] [STAFF] [REDACTED]"),
    ] {
        assert_eq!(redact(&Rules::parse(json).unwrap(), all), expected, "{json}");
    }
}

#[test]
fn a_wrong_configuration_says_what_is_wrong() {
    for (json, error) in [
        (
            r#"{"kinds": ["mail"]}"#,
            "`kinds` is [\"mail\"]; expected a list of `email`, `phone`, `card`, `iban`, `key`",
        ),
        (
            r#"{"replacements": {"mail": "x"}}"#,
            "unknown field `replacements.mail`; expected one of `email`, `phone`, `card`, `iban`, `key`",
        ),
        (r#"{"patterns": [{"regex": "("}]}"#, "`patterns[0].regex` is wrong: `(` without `)`"),
        (r#"{"patterns": ["x", {}]}"#, "`patterns[1]` needs either `text` or `regex`"),
        (r#"{"patterns": [""]}"#, "a text in `patterns` is empty"),
    ] {
        assert_eq!(Rules::parse(json).unwrap_err(), error, "{json}");
    }
}
