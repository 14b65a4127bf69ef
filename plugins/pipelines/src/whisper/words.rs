//! Times of words.
//!
//! Source: openai/whisper, `timing.py` (`find_alignment`, `merge_punctuations`, `add_word_timestamps`) and
//! `tokenizer.py` (`split_to_word_tokens`).

use pajamas_plugin_api::Error;

use super::Model;
use super::align::Heads;
use super::config::FRAMES_PER_POSITION;
use super::mel::{FRAMES_PER_S, WINDOW_FRAMES};
use super::network::Attended;
use super::numeric::probability;
use crate::numbers::to_f32s;
use crate::runner::{TensorRunner, Value};

/// Goes to the word behind it.
const PREPENDED: &str = "\"'“¿([{-";
/// Goes to the word before it.
const APPENDED: &str = "\"'.。,，!！?？:：”)]}、";
const SENTENCE_ENDS: &str = ".。!！?？";
/// Positions of the encoder per second.
const POSITIONS_PER_S: f64 = (FRAMES_PER_S / FRAMES_PER_POSITION) as f64;
/// The median length of a word counts as at most this.
const MEDIAN_MAX_S: f64 = 0.7;

/// A word, or what is left of it after its text went to a neighbour.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Word {
    /// As the model writes it: most begin with a space.
    pub(super) text: String,
    /// Number of its tokens.
    pub(super) tokens: usize,
    /// Seconds.
    pub(super) start_s: f64,
    /// Seconds.
    pub(super) end_s: f64,
    /// Mean probability of its tokens.
    pub(super) probability: f32,
}

/// The segment that words are put into.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TimedSegment {
    /// Seconds; corrected by the words.
    pub(super) start_s: f64,
    /// Seconds; corrected by the words.
    pub(super) end_s: f64,
    /// Number of its text tokens.
    pub(super) text_tokens: usize,
    /// Its words.
    pub(super) words: Vec<Word>,
}

/// What is known of the window that words are looked for in.
pub(super) struct Window<'a, V> {
    /// The encoded sound.
    pub(super) audio: &'a V,
    /// The tokens that begin a transcript.
    pub(super) start: &'a [u32],
    /// Language of the text.
    pub(super) language: &'a str,
    /// Frames of sound.
    pub(super) frames: usize,
}

/// The words of `text_tokens`, in seconds from the beginning of the window, by one pass over all tokens at once.
pub(super) fn find_words<R: TensorRunner>(
    model: &Model<R>,
    window: &Window<'_, R::Value>,
    text_tokens: &[u32],
) -> Result<Vec<Word>, Error> {
    let columns = window.frames.min(WINDOW_FRAMES) / FRAMES_PER_POSITION;
    if text_tokens.is_empty() || columns == 0 {
        return Ok(Vec::new());
    }
    let specials = model.vocabulary.specials;
    let tokens = [window.start, &[specials.no_timestamps], text_tokens, &[specials.eot]].concat();
    let mut layers: Vec<usize> = model.config.alignment_heads.iter().map(|(layer, _)| *layer).collect();
    layers.sort_unstable();
    layers.dedup();
    let Attended { logits, attentions } = model.network.attend(&tokens, window.audio, &layers)?;

    let mut heads = Heads::new(tokens.len(), columns);
    for (layer, attention) in layers.iter().zip(&attentions) {
        let stride = WINDOW_FRAMES / FRAMES_PER_POSITION;
        let weights = to_f32s(attention)?;
        let of_layer = model.config.alignment_heads.iter().filter(|(of, _)| of == layer);
        for (_, head) in of_layer {
            let size = tokens.len() * stride;
            let weights = weights.get(head * size..(head + 1) * size).ok_or_else(|| {
                let shape = attention.shape();
                Error::bad_model(format!(
                    "`cross_attentions.{layer}` has the shape {shape:?}, expected [1, heads, {}, {stride}] with head {head}",
                    tokens.len()
                ))
            })?;
            heads.add(weights, stride);
        }
    }
    let begins = heads.begins(window.start.len());

    let mut row = Vec::new();
    let mut probabilities = Vec::with_capacity(text_tokens.len());
    for (i, token) in text_tokens.iter().enumerate() {
        logits.copy_row(window.start.len() + i, &mut row)?;
        probabilities.push(probability(&row[..specials.eot as usize], *token as usize));
    }
    let mut words = Vec::new();
    let mut first = 0;
    for (text, tokens) in split_words(model, text_tokens, window.language)? {
        let behind = first + tokens;
        words.push(Word {
            text,
            tokens,
            start_s: begins[first] as f64 / POSITIONS_PER_S,
            end_s: begins[behind] as f64 / POSITIONS_PER_S,
            probability: probabilities[first..behind].iter().sum::<f32>() / tokens as f32,
        });
        first = behind;
    }
    Ok(words)
}

/// Splits text tokens into words, with the number of tokens of each; all tokens belong to one.
fn split_words<R: TensorRunner>(
    model: &Model<R>,
    tokens: &[u32],
    language: &str,
) -> Result<Vec<(String, usize)>, Error> {
    let pieces = split_pieces(tokens, |tokens| model.vocabulary.decode(tokens))?;
    // These languages write no spaces: whatever is whole characters is a word.
    if ["zh", "ja", "th", "lo", "my", "yue"].contains(&language) {
        return Ok(pieces);
    }
    Ok(join_pieces(pieces))
}

/// Splits tokens wherever the text is whole characters.
fn split_pieces(
    tokens: &[u32],
    decode: impl Fn(&[u32]) -> Result<String, Error>,
) -> Result<Vec<(String, usize)>, Error> {
    const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;
    let full: Vec<char> = decode(tokens)?.chars().collect();
    let (mut pieces, mut first, mut offset) = (Vec::new(), 0, 0);
    for end in 1..=tokens.len() {
        let piece = decode(&tokens[first..end])?;
        let broken = piece.chars().position(|c| c == REPLACEMENT);
        // A replacement character may also be what the tokens mean.
        let is_whole = broken.is_none_or(|at| full.get(offset + at) == Some(&REPLACEMENT));
        if is_whole || end == tokens.len() {
            offset += piece.chars().count();
            pieces.push((piece, end - first));
            first = end;
        }
    }
    Ok(pieces)
}

/// Joins pieces to words: a word begins with a space or is punctuation.
fn join_pieces(pieces: Vec<(String, usize)>) -> Vec<(String, usize)> {
    // Python's `string.punctuation`; as there, any part of it counts, also nothing.
    const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
    let mut words: Vec<(String, usize)> = Vec::new();
    for (text, tokens) in pieces {
        match words.last_mut() {
            Some(word) if !text.starts_with(' ') && !PUNCTUATION.contains(text.trim()) => {
                word.0.push_str(&text);
                word.1 += tokens;
            }
            _ => words.push((text, tokens)),
        }
    }
    words
}

/// Puts `words`, whose times count from `offset_s`, into the segments of a window. Returns the end of the last speech,
/// which was at `last_speech_s` before.
pub(super) fn add_words(
    segments: &mut [TimedSegment],
    mut words: Vec<Word>,
    offset_s: f64,
    last_speech_s: f64,
) -> f64 {
    let median_s = median_duration(&words);
    shorten_at_sentence_ends(&mut words, 2.0 * median_s);
    merge_punctuation(&mut words);
    let mut words = words.into_iter().peekable();
    let mut last_speech_s = last_speech_s;
    for segment in segments {
        let mut tokens = 0;
        while tokens < segment.text_tokens
            && let Some(word) = words.next()
        {
            tokens += word.tokens;
            if !word.text.is_empty() {
                let time = |s: f64| ((offset_s + s) * 100.0).round() / 100.0;
                segment.words.push(Word { start_s: time(word.start_s), end_s: time(word.end_s), ..word });
            }
        }
        if !segment.words.is_empty() {
            agree(segment, median_s, last_speech_s);
            last_speech_s = segment.end_s;
        }
    }
    last_speech_s
}

/// The median length of the words that have one, at most 0.7 s.
fn median_duration(words: &[Word]) -> f64 {
    let mut durations: Vec<f64> =
        words.iter().map(|word| word.end_s - word.start_s).filter(|s| *s != 0.0).collect();
    durations.sort_unstable_by(f64::total_cmp);
    let half = durations.len() / 2;
    let median = match durations.len() {
        0 => 0.0,
        len if len.is_multiple_of(2) => (durations[half - 1] + durations[half]) / 2.0,
        _ => durations[half],
    };
    median.min(MEDIAN_MAX_S)
}

/// A pause at the end of a sentence is no part of a word.
fn shorten_at_sentence_ends(words: &mut [Word], duration_max_s: f64) {
    if duration_max_s == 0.0 {
        return;
    }
    for i in 1..words.len() {
        if words[i].end_s - words[i].start_s <= duration_max_s {
            continue;
        }
        if SENTENCE_ENDS.contains(&words[i].text) {
            words[i].end_s = words[i].start_s + duration_max_s;
        } else if SENTENCE_ENDS.contains(&words[i - 1].text) {
            words[i].start_s = words[i].end_s - duration_max_s;
        }
    }
}

/// Gives the text and the tokens of punctuation to the word that it belongs to; an empty word stays.
fn merge_punctuation(words: &mut [Word]) {
    let mut following = words.len().saturating_sub(1);
    for i in (0..following).rev() {
        let previous = &words[i];
        if previous.text.starts_with(' ') && PREPENDED.contains(previous.text.trim()) {
            let previous = std::mem::take(&mut words[i]);
            let word = &mut words[following];
            word.text.insert_str(0, &previous.text);
            word.tokens += previous.tokens;
        } else {
            following = i;
        }
    }
    let mut previous = 0;
    for i in 1..words.len() {
        if !words[previous].text.ends_with(' ') && APPENDED.contains(&words[i].text) {
            let word = std::mem::take(&mut words[i]);
            words[previous].text.push_str(&word.text);
            words[previous].tokens += word.tokens;
        } else {
            previous = i;
        }
    }
}

/// Shortens words at the borders of a segment that are longer than likely, and makes the segment's times those of its
/// words, unless its own are likelier.
fn agree(segment: &mut TimedSegment, median_s: f64, last_speech_s: f64) {
    let duration_max_s = 2.0 * median_s;
    let words = &mut segment.words;
    let begin_s = words[0].start_s;
    let follows_pause = words[0].end_s - last_speech_s > 4.0 * median_s;
    let second_end_s = words.get(1).map(|word| word.end_s);
    let is_long = words[0].end_s - begin_s > duration_max_s
        || second_end_s.is_some_and(|end_s| end_s - begin_s > 2.0 * duration_max_s);
    if follows_pause && is_long {
        if let [first, second, ..] = words.as_mut_slice()
            && second.end_s - second.start_s > duration_max_s
        {
            let border_s = (second.end_s / 2.0).max(second.end_s - duration_max_s);
            first.end_s = border_s;
            second.start_s = border_s;
        }
        words[0].start_s = (words[0].end_s - duration_max_s).max(0.0);
    }
    let first = &mut words[0];
    if segment.start_s < first.end_s && segment.start_s - 0.5 > first.start_s {
        first.start_s = (first.end_s - median_s).min(segment.start_s).max(0.0);
    } else {
        segment.start_s = first.start_s;
    }
    let Some(last) = words.last_mut() else { return };
    if segment.end_s > last.start_s && segment.end_s + 0.5 < last.end_s {
        last.end_s = (last.start_s + median_s).max(segment.end_s);
    } else {
        segment.end_s = last.end_s;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str, start_s: f64, end_s: f64) -> Word {
        Word { text: text.to_owned(), tokens: 1, start_s, end_s, probability: 1.0 }
    }

    fn texts(words: &[Word]) -> Vec<(&str, usize)> {
        words.iter().map(|word| (word.text.as_str(), word.tokens)).collect()
    }

    #[test]
    fn pieces_become_words() {
        let pieces = [" It", " was", " un", "believ", "able", ",", " \"", "no", "\"", "."];
        let words = join_pieces(pieces.iter().map(|piece| ((*piece).to_owned(), 1)).collect());
        let words: Vec<_> = words.iter().map(|(text, tokens)| (text.as_str(), *tokens)).collect();
        let expected =
            [(" It", 1), (" was", 1), (" unbelievable", 3), (",", 1), (" \"no", 2), ("\"", 1), (".", 1)];
        assert_eq!(words, expected);
    }

    /// Tokens, and the pieces that they are split into.
    type Case = (&'static [u32], &'static [(&'static str, usize)]);

    #[test]
    fn characters_of_several_tokens_stay_whole() {
        // Tokens are bytes here: é is two of them, and a lone 0xFF is a replacement character even at the end.
        let decode = |tokens: &[u32]| {
            let bytes: Vec<u8> = tokens.iter().map(|token| *token as u8).collect();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let cases: [Case; 3] = [
            (&[0x61, 0xC3, 0xA9, 0x62], &[("a", 1), ("é", 2), ("b", 1)]),
            (&[0x61, 0xFF, 0x62], &[("a", 1), ("\u{FFFD}", 1), ("b", 1)]),
            (&[0x61, 0xC3], &[("a", 1), ("\u{FFFD}", 1)]),
        ];
        for (tokens, expected) in cases {
            let pieces = split_pieces(tokens, decode).unwrap();
            let pieces: Vec<_> = pieces.iter().map(|(text, tokens)| (text.as_str(), *tokens)).collect();
            assert_eq!(pieces, expected, "{tokens:x?}");
        }
    }

    #[test]
    fn punctuation_goes_to_its_word() {
        let words = [" (", "yes", "!", ")", " no", "."];
        let mut words: Vec<Word> = words.iter().map(|text| word(text, 0.0, 1.0)).collect();
        merge_punctuation(&mut words);
        let expected = [("", 0), (" (yes!)", 4), ("", 0), ("", 0), (" no.", 2), ("", 0)];
        assert_eq!(texts(&words), expected);
        merge_punctuation(&mut []);
    }

    #[test]
    fn words_are_dealt_to_segments_and_correct_their_times() {
        let segment =
            |start_s, end_s, text_tokens| TimedSegment { start_s, end_s, text_tokens, words: vec![] };
        let mut segments = [segment(10.0, 12.0, 3), segment(12.0, 14.0, 1)];
        let words = vec![
            word(" Good", 0.2, 0.6),
            word(" day", 0.6, 1.0),
            word(".", 1.0, 1.4),
            word(" Yes", 2.2, 2.6),
        ];
        let last_speech_s = add_words(&mut segments, words, 10.0, 10.0);
        assert_eq!(texts(&segments[0].words), [(" Good", 1), (" day.", 2)]);
        assert_eq!((segments[0].start_s, segments[0].end_s), (10.2, 11.0));
        assert_eq!((segments[1].start_s, segments[1].end_s), (12.2, 12.6));
        assert_eq!(last_speech_s, 12.6);
    }

    #[test]
    fn a_word_after_a_pause_is_not_longer_than_likely() {
        let mut segments = [TimedSegment { start_s: 3.7, end_s: 5.0, text_tokens: 3, words: vec![] }];
        let words = vec![word(" So", 0.0, 4.2), word(" it", 4.2, 4.6), word(" is", 4.6, 5.0)];
        add_words(&mut segments, words, 0.0, 0.0);
        // The median is 0.4 s; twice that is left of the first word.
        assert!((segments[0].words[0].start_s - 3.4).abs() < 1e-9, "{:?}", segments[0].words[0]);
    }
}
