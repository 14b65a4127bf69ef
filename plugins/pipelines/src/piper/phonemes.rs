//! Text to sentences of phonemes, and phonemes to the network's ids.
//!
//! Source: `piper/phonemize_espeak.py` and `piper/phoneme_ids.py` of piper-tts 1.8.0.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization as _;

use super::config::{BOS, EOS, PAD};
use crate::espeak::Clause;

/// Most phonemes of one run of the network; a longer sentence is cut at its last space before that. About a minute of
/// speech; the memory of a run grows with the square of its length.
pub(super) const PHONEMES_MAX: usize = 1000;

/// One sentence: code points of IPA, or clusters of them.
pub(super) type Sentence = Vec<String>;

/// The sentences that espeak-ng's clauses make up.
pub(super) fn sentences(clauses: &[Clause], vowel_clusters: &[Vec<String>]) -> Vec<Sentence> {
    let (mut sentences, mut sentence) = (Vec::new(), Vec::new());
    for clause in clauses {
        sentence.extend(code_points(&clause.phonemes));
        if let Some(mark) = clause.terminator {
            sentence.push(mark.to_string());
            if matches!(mark, ',' | ':' | ';') {
                sentence.push(" ".to_owned());
            }
        }
        if clause.ends_sentence {
            sentences.push(std::mem::take(&mut sentence));
        }
    }
    sentences.push(sentence);
    let merged = sentences.into_iter().map(|sentence| merge(sentence, vowel_clusters));
    merged.filter(|sentence| !sentence.is_empty()).flat_map(cut).collect()
}

/// The sentence of a voice whose phonemes are the text's own characters.
pub(super) fn characters(text: &str) -> Vec<Sentence> {
    cut(code_points(text).collect())
}

fn code_points(text: &str) -> impl Iterator<Item = String> {
    text.nfd().map(String::from)
}

/// Joins phonemes that follow each other and are one to the network; the longest cluster wins.
fn merge(sentence: Sentence, clusters: &[Vec<String>]) -> Sentence {
    let len_max = clusters.iter().map(Vec::len).max().unwrap_or(0);
    let mut merged = Vec::with_capacity(sentence.len());
    let mut rest = sentence.as_slice();
    while let Some(first) = rest.first() {
        let found =
            (2..=len_max.min(rest.len())).rev().find(|len| clusters.iter().any(|c| c == &rest[..*len]));
        merged.push(found.map_or_else(|| first.clone(), |len| rest[..len].concat()));
        rest = &rest[found.unwrap_or(1)..];
    }
    merged
}

/// Cuts a sentence that is too long for one run.
fn cut(sentence: Sentence) -> Vec<Sentence> {
    let mut pieces = Vec::new();
    let mut rest = sentence.as_slice();
    while rest.len() > PHONEMES_MAX {
        let space = rest[..PHONEMES_MAX].iter().rposition(|phoneme| phoneme == " ");
        let (piece, others) = rest.split_at(space.map_or(PHONEMES_MAX, |space| space + 1));
        pieces.push(piece.to_vec());
        rest = others;
    }
    if !rest.is_empty() {
        pieces.push(rest.to_vec());
    }
    pieces
}

/// The ids of a sentence: begin, then each phoneme with padding behind it, then end. Phonemes that the network does not
/// know are left out, as Piper does.
pub(super) fn ids(sentence: &[String], map: &HashMap<String, Vec<i64>>) -> Vec<i64> {
    let of = |phoneme: &str| map.get(phoneme).map(Vec::as_slice).unwrap_or_default();
    let mut ids = [of(BOS), of(PAD)].concat();
    for phoneme in sentence {
        if map.contains_key(phoneme) {
            ids.extend(of(phoneme));
            ids.extend(of(PAD));
        } else {
            tracing::debug!("the voice has no phoneme {phoneme:?}");
        }
    }
    ids.extend(of(EOS));
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clause(phonemes: &str, terminator: Option<char>, ends_sentence: bool) -> Clause {
        Clause { phonemes: phonemes.to_owned(), terminator, ends_sentence }
    }

    fn joined(sentences: &[Sentence]) -> Vec<String> {
        sentences.iter().map(|sentence| sentence.join("|")).collect()
    }

    #[test]
    fn clauses_become_sentences_with_their_marks() {
        let clauses = [
            clause("jˈɛs", Some(','), false),
            clause("nˈoʊ", Some('.'), true),
            clause("", None, true),
            // Composed letters are taken apart.
            clause("ç", None, false),
        ];
        assert_eq!(joined(&sentences(&clauses, &[])), ["j|ˈ|ɛ|s|,| |n|ˈ|o|ʊ|.", "c|\u{327}"]);
        let clusters = [vec!["o".to_owned(), "ʊ".to_owned()]];
        assert_eq!(joined(&sentences(&clauses[1..2], &clusters)), ["n|ˈ|oʊ|."]);
    }

    #[test]
    fn a_long_sentence_is_cut_at_a_space() {
        let text = "abcd ".repeat(PHONEMES_MAX);
        let pieces = characters(&text);
        assert!(pieces.iter().all(|piece| piece.len() <= PHONEMES_MAX && piece.last().unwrap() == " "));
        assert_eq!(pieces.concat().concat(), text);
        let unbroken = characters(&"a".repeat(2 * PHONEMES_MAX + 1));
        assert_eq!(unbroken.iter().map(Vec::len).collect::<Vec<_>>(), [PHONEMES_MAX, PHONEMES_MAX, 1]);
        assert!(characters("").is_empty());
    }

    #[test]
    fn ids_are_padded_and_unknown_phonemes_left_out() {
        let map = [("^", vec![1]), ("_", vec![0]), ("$", vec![2]), ("a", vec![14]), ("b", vec![15, 16])];
        let map = map.into_iter().map(|(phoneme, ids)| (phoneme.to_owned(), ids)).collect();
        let sentence = ["a", "?", "b"].map(str::to_owned);
        assert_eq!(ids(&sentence, &map), [1, 0, 14, 0, 15, 16, 0, 2]);
        assert_eq!(ids(&[], &map), [1, 0, 2]);
    }
}
