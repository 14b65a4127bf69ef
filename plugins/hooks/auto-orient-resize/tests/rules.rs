//! What becomes of pictures, and where their points were before.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

use hook_auto_orient_resize::{Changed, Rules};
use hook_common::picture::Rgb;
use proptest::prelude::*;

fn grey(values: &[u8]) -> Vec<u8> {
    values.iter().flat_map(|&value| [value; 3]).collect()
}

fn apply(json: &str, width: u32, height: u32, values: &[u8]) -> Option<Changed> {
    Rules::parse(json).unwrap().apply(Rgb::new(width, height, &grey(values)).unwrap())
}

/// Where a point of the new picture was.
fn old_point(changed: &Changed, x: f64, y: f64) -> (f64, f64) {
    let ([xx, xy, x0], [yx, yy, y0]) = changed.placement();
    (xx * x + xy * y + x0, yx * x + yy * y + y0)
}

#[test]
fn a_quarter_turn_is_clockwise() {
    let changed = apply(r#"{"orient": "portrait"}"#, 3, 2, &[1, 2, 3, 4, 5, 6]).unwrap();
    assert_eq!((changed.width, changed.height), (2, 3));
    assert_eq!(changed.pixels, grey(&[4, 1, 5, 2, 6, 3]));
    // The new picture's top left corner is the old one's bottom left.
    assert_eq!(old_point(&changed, 0.0, 0.0), (0.0, 2.0));
    assert_eq!(old_point(&changed, 2.0, 0.0), (0.0, 0.0));
    assert_eq!(old_point(&changed, 2.0, 3.0), (3.0, 0.0));
    assert_eq!(apply(r#"{"orient": "landscape"}"#, 3, 2, &[0; 6]), None);
    assert_eq!(apply(r#"{"orient": "landscape"}"#, 2, 2, &[0; 4]), None);
}

#[test]
fn sides_are_limited_and_nothing_is_enlarged() {
    for (json, expected) in [
        (r#"{"side_max": 4}"#, Some((4, 2))),
        (r#"{"short_side_max": 1}"#, Some((2, 1))),
        (r#"{"width": 4, "height": 1}"#, Some((2, 1))),
        (r#"{"width": 6}"#, Some((6, 3))),
        (r#"{"height": 9}"#, None),
        (r#"{"side_max": 8}"#, None),
        (r#"{"orient": "portrait", "width": 2}"#, Some((2, 4))),
        (r#"{"orient": "portrait", "height": 100}"#, Some((4, 8))),
        (r#"{"side_max": 1, "filter": "bilinear"}"#, Some((1, 1))),
    ] {
        let size = apply(json, 8, 4, &[9; 32]).map(|changed| {
            assert!(changed.pixels.iter().all(|&value| value == 9), "{json}");
            (changed.width, changed.height)
        });
        assert_eq!(size, expected, "{json}");
    }
}

#[test]
fn the_corners_of_a_shrunk_picture_are_those_of_the_old_one() {
    let changed = apply(r#"{"side_max": 3}"#, 8, 4, &[0; 32]).unwrap();
    assert_eq!((changed.width, changed.height), (3, 2));
    assert_eq!(old_point(&changed, 0.0, 0.0), (0.0, 0.0));
    assert_eq!(old_point(&changed, 3.0, 2.0), (8.0, 4.0));
}

#[test]
fn a_wrong_configuration_says_what_is_wrong() {
    for (json, error) in [
        ("{}", "nothing to do; set `orient`, `side_max`, `short_side_max`, `width` or `height`"),
        (r#"{"orient": "up"}"#, "`orient` is \"up\"; expected one of `keep`, `landscape`, `portrait`"),
        (r#"{"side_max": -1}"#, "`side_max` is -1; expected a whole number from 1 to 65535"),
    ] {
        assert_eq!(Rules::parse(json).unwrap_err(), error, "{json}");
    }
}

proptest! {
    /// A bright spot is found again where the placement says that it was.
    #[test]
    fn placement_leads_back(width in 8_u32..40, height in 8_u32..40, x in 0_u32..40, y in 0_u32..40, turn: bool, half: bool) {
        let (x, y) = (x % width, y % height);
        let mut values = vec![0; (width * height) as usize];
        values[(y * width + x) as usize] = 255;
        let orient = if turn { if width > height { "portrait" } else { "landscape" } } else { "keep" };
        let side_max = if half { width.max(height) / 2 } else { 99 };
        let json = format!(r#"{{"orient": "{orient}", "side_max": {side_max}}}"#);
        let Some(changed) = apply(&json, width, height, &values) else { return Ok(()) };
        let brightest = (0..changed.pixels.len() / 3).max_by_key(|&index| changed.pixels[index * 3]).unwrap() as u32;
        let (new_x, new_y) = (brightest % changed.width, brightest / changed.width);
        let (old_x, old_y) = old_point(&changed, f64::from(new_x) + 0.5, f64::from(new_y) + 0.5);
        let reach = |scale: f64| scale / 2.0 + 0.5;
        prop_assert!((old_x - f64::from(x) - 0.5).abs() <= reach(changed.scale.0), "{} for {}", old_x, x);
        prop_assert!((old_y - f64::from(y) - 0.5).abs() <= reach(changed.scale.1), "{} for {}", old_y, y);
    }
}
