//! Which part of a sound is kept.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

use hook_trim_silence::{Cut, Rules, keep};
use proptest::prelude::*;

const RATE: u32 = 1000;

/// Milliseconds of sound at each level; a sample is a millisecond.
fn sound(parts: &[(usize, f32)]) -> Vec<u8> {
    let part = |&(len, level): &(usize, f32)| std::iter::repeat_n(level, len);
    parts.iter().flat_map(part).flat_map(f32::to_le_bytes).collect()
}

fn cut(json: &str, parts: &[(usize, f32)]) -> Cut {
    Rules::parse(json).unwrap().cut(RATE, &sound(parts))
}

#[test]
fn silence_at_both_ends_is_cut_and_padding_stays() {
    let json = r#"{"padding_ms": 50, "kept_ms_min": 0}"#;
    for (parts, expected) in [
        (&[(1000, 0.0), (1000, 0.5), (1000, 0.0)][..], Cut::Keep(950..2050)),
        (&[(1000, 0.5), (1000, 0.0)], Cut::Keep(0..1050)),
        (&[(1000, 0.0), (1000, -0.5)], Cut::Keep(950..2000)),
        (&[(1000, 0.5), (1000, 0.0), (1000, 0.5)], Cut::Pass),
        (&[(40, 0.0), (1000, 0.5)], Cut::Pass),
        (&[(1000, 0.001), (1000, 0.5)], Cut::Keep(950..2000)),
        (&[(1000, 0.0)], Cut::Pass),
        (&[], Cut::Pass),
    ] {
        assert_eq!(cut(json, parts), expected, "{parts:?}");
    }
}

#[test]
fn a_short_sound_keeps_some_of_its_silence() {
    let json = r#"{"padding_ms": 0, "kept_ms_min": 400}"#;
    assert_eq!(cut(json, &[(1000, 0.0), (100, 0.5), (1000, 0.0)]), Cut::Keep(850..1250));
    assert_eq!(cut(json, &[(100, 0.0), (100, 0.5), (100, 0.0)]), Cut::Pass);
}

#[test]
fn silence_alone_is_refused_only_where_the_operator_says_so() {
    let parts = [(1000, 0.001)];
    assert_eq!(cut(r#"{"all_silent": "reject"}"#, &parts), Cut::Reject("the sound is silent".to_owned()));
    assert_eq!(cut("{}", &parts), Cut::Pass);
    assert_eq!(cut(r#"{"threshold_dbfs": -70, "all_silent": "reject"}"#, &parts), Cut::Pass);
}

#[test]
fn only_the_kept_samples_are_left() {
    let mut bytes = sound(&[(2, 0.0), (2, 0.5), (1, 0.25)]);
    keep(&mut bytes, 1..4);
    assert_eq!(bytes, sound(&[(1, 0.0), (2, 0.5)]));
}

proptest! {
    #[test]
    fn what_is_loud_is_kept(before in 0_usize..3000, loud in 10_usize..500, after in 0_usize..3000, rate in 1_u32..48_000) {
        let bytes = sound(&[(before, 0.0), (loud, 0.5), (after, 0.0)]);
        match Rules::parse("{}").unwrap().cut(rate, &bytes) {
            Cut::Pass => {}
            Cut::Keep(range) => {
                prop_assert!(range.start <= before && range.end >= before + loud);
                prop_assert!(range.end <= bytes.len() / 4);
            }
            // A piece that is long and hardly loud counts as silent.
            Cut::Reject(_) => prop_assert!(false),
        }
    }
}
