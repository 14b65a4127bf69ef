//! From the tokens of one window to segments, and to where the next window begins.
//!
//! Source: the main loop of `transcribe` in openai/whisper, `transcribe.py`.

use std::ops::Range;

use super::config::FRAMES_PER_POSITION;
use super::mel::FRAMES_PER_S;
use super::vocabulary::Specials;

/// Frames of one step of the times: 0.02 s.
const FRAMES_PER_TIMESTAMP: usize = FRAMES_PER_POSITION;

/// Part of a window.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slice {
    /// Its tokens among those of the window, times included.
    pub(super) tokens: Range<usize>,
    /// Frames from the beginning of the window.
    pub(super) begin: usize,
    /// Frames from the beginning of the window.
    pub(super) end: usize,
}

/// A window cut into segments.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sliced {
    /// The segments, in order.
    pub(super) slices: Vec<Slice>,
    /// Frames to the next window.
    pub(super) advance: usize,
    /// The last time is the end of the last segment, and nothing follows in the window.
    pub(super) is_finished: bool,
}

/// Cuts a window of `frames` frames. A segment that the window's end cut short is left to the next window, which begins
/// where the last whole segment ends.
pub(super) fn slice(tokens: &[u32], frames: usize, specials: Specials) -> Sliced {
    let is_timestamp = |token: u32| specials.is_timestamp(token);
    let frame = |token: u32| token.saturating_sub(specials.timestamp_begin) as usize * FRAMES_PER_TIMESTAMP;
    let is_finished = match tokens {
        [.., last_but_one, last] => !is_timestamp(*last_but_one) && is_timestamp(*last),
        _ => false,
    };
    let pairs =
        tokens.windows(2).enumerate().filter(|(_, pair)| pair.iter().all(|token| is_timestamp(*token)));
    let mut cuts: Vec<usize> = pairs.map(|(i, _)| i + 1).collect();
    if cuts.is_empty() {
        let last = tokens.iter().rev().find(|token| is_timestamp(**token)).map(|token| frame(*token));
        let end = last.filter(|frame| *frame > 0).unwrap_or(frames);
        let slices = vec![Slice { tokens: 0..tokens.len(), begin: 0, end }];
        return Sliced { slices, advance: frames, is_finished };
    }
    if is_finished {
        cuts.push(tokens.len());
    }
    let begins = [0].into_iter().chain(cuts.iter().copied());
    let slices: Vec<Slice> = begins
        .zip(&cuts)
        .map(|(begin, end)| Slice {
            tokens: begin..*end,
            begin: frame(tokens[begin]),
            end: frame(tokens[end - 1]),
        })
        .collect();
    let last_end = slices.last().map_or(0, |slice| slice.end);
    Sliced { slices, advance: if is_finished { frames } else { last_end }, is_finished }
}

/// Seconds of a number of frames.
pub(super) fn seconds(frames: usize) -> f64 {
    frames as f64 / FRAMES_PER_S as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIALS: Specials = Specials {
        eot: 4,
        sot: 5,
        translate: 6,
        transcribe: 7,
        sot_lm: 8,
        sot_prev: 9,
        no_speech: 10,
        no_timestamps: 11,
        timestamp_begin: 12,
    };

    fn at(seconds: f64) -> u32 {
        12 + (seconds * 50.0).round() as u32
    }

    /// Segments as (first token, tokens behind it, begin, end in frames), the advance, and whether it is finished.
    type Cut = (Vec<(usize, usize, usize, usize)>, usize, bool);

    fn cut(tokens: &[u32]) -> Cut {
        let Sliced { slices, advance, is_finished } = slice(tokens, 3000, SPECIALS);
        let slices = slices.into_iter().map(|s| (s.tokens.start, s.tokens.end, s.begin, s.end)).collect();
        (slices, advance, is_finished)
    }

    #[test]
    fn where_a_window_is_cut_and_the_next_one_begins() {
        let cases: [(&str, Vec<u32>, Cut); 7] = [
            ("nothing", vec![], (vec![(0, 0, 0, 3000)], 3000, false)),
            ("text without times", vec![1, 2], (vec![(0, 2, 0, 3000)], 3000, false)),
            ("one segment, then silence", vec![at(0.0), 1, at(4.0)], (vec![(0, 3, 0, 400)], 3000, true)),
            ("a time of 0 only", vec![at(0.0), 1], (vec![(0, 2, 0, 3000)], 3000, false)),
            (
                "two segments, then silence",
                vec![at(1.0), 1, at(4.0), at(5.0), 2, at(9.0)],
                (vec![(0, 3, 100, 400), (3, 6, 500, 900)], 3000, true),
            ),
            (
                "the last segment is cut short",
                vec![at(0.0), 1, at(4.0), at(5.0), 2],
                (vec![(0, 3, 0, 400)], 400, false),
            ),
            (
                "the end of the window is the end of a segment",
                vec![at(0.0), 1, at(4.0), at(4.0), 2, at(28.0), at(28.0)],
                (vec![(0, 3, 0, 400), (3, 6, 400, 2800)], 2800, false),
            ),
        ];
        for (name, tokens, expected) in cases {
            assert_eq!(cut(&tokens), expected, "{name}");
        }
    }
}
