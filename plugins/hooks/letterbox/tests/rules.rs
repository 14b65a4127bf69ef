//! The tensors that come of pictures.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

use hook_letterbox::Rules;
use proptest::prelude::*;

fn bytes(json: &str, width: u32, height: u32, pixels: &[u8]) -> Vec<u8> {
    Rules::parse(json).unwrap().tensor(width, height, pixels.to_vec()).unwrap()
}

fn floats(json: &str, width: u32, height: u32, pixels: &[u8]) -> Vec<f32> {
    bytes(json, width, height, pixels).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn layouts_and_padding_are_what_models_expect() {
    let pixels = [10, 20, 30, 40, 50, 60];
    let config = |layout| {
        format!(r#"{{"width": 2, "height": 3, "layout": "{layout}", "dtype": "u8", "pad": [1, 2, 3]}}"#)
    };
    assert_eq!(
        bytes(&config("nchw"), 2, 1, &pixels),
        [1, 1, 10, 40, 1, 1, 2, 2, 20, 50, 2, 2, 3, 3, 30, 60, 3, 3]
    );
    assert_eq!(
        bytes(&config("nhwc"), 2, 1, &pixels),
        [1, 2, 3, 1, 2, 3, 10, 20, 30, 40, 50, 60, 1, 2, 3, 1, 2, 3]
    );
    assert_eq!(Rules::parse(&config("nchw")).unwrap().shape(), [1, 3, 3, 2]);
    assert_eq!(Rules::parse(&config("nhwc")).unwrap().shape(), [1, 3, 2, 3]);
}

#[test]
fn values_are_scaled_and_normalized() {
    let size = r#""width": 1, "height": 1"#;
    for (config, pixel, expected) in [
        (format!("{{{size}}}"), [0, 51, 255], [0.0, 0.2, 1.0]),
        (format!(r#"{{{size}, "mean": [0.5, 0.2, 0], "std": 0.5}}"#), [255, 51, 255], [1.0, 0.0, 2.0]),
    ] {
        let values = floats(&config, 1, 1, &pixel);
        let is_near = |(value, expected): (&f32, f32)| (value - expected).abs() < 1e-6;
        assert!(values.iter().zip(expected).all(is_near), "{values:?}");
    }
    assert_eq!(floats(&format!(r#"{{{size}, "scale": 1}}"#), 1, 1, &[1, 2, 3]), [1.0, 2.0, 3.0]);
    let halves = bytes(&format!(r#"{{{size}, "dtype": "f16"}}"#), 1, 1, &[0, 255, 255]);
    assert_eq!(halves, [0, 0, 0, 0x3c, 0, 0x3c]);
}

#[test]
fn the_picture_keeps_its_aspect_in_the_middle() {
    let values = floats(r#"{"width": 4, "height": 4, "pad": 0}"#, 8, 4, &[255; 96]);
    let plane = [[0.0; 4], [1.0; 4], [1.0; 4], [0.0; 4]].concat();
    assert_eq!(values, plane.repeat(3));
    let default = Rules::parse("{}").unwrap();
    assert_eq!(default.shape(), [1, 3, 640, 640]);
    assert_eq!(default.name(), None);
}

#[test]
fn a_wrong_configuration_says_what_is_wrong() {
    for (json, error) in [
        (r#"{"width": 0}"#, "`width` is 0; expected a whole number from 1 to 8192"),
        (r#"{"layout": "chw"}"#, "`layout` is \"chw\"; expected one of `nchw`, `nhwc`"),
        (r#"{"std": 0}"#, "`std` is 0; expected a number from 0.000001 to 1000, or a list of three"),
        (
            r#"{"dtype": "u8", "scale": 1}"#,
            "`scale`, `mean` and `std` are for floats; with `dtype` u8 the values stay as they are",
        ),
    ] {
        assert_eq!(Rules::parse(json).unwrap_err(), error, "{json}");
    }
}

proptest! {
    /// One colour stays that colour, whatever the sizes.
    #[test]
    fn a_plain_picture_stays_plain(
        width in 1_u32..40, height in 1_u32..40, to_width in 1_u32..40, to_height in 1_u32..40, value: u8
    ) {
        let json = format!(r#"{{"width": {to_width}, "height": {to_height}, "pad": {value}, "dtype": "u8"}}"#);
        let pixels = vec![value; (width * height * 3) as usize];
        let tensor = bytes(&json, width, height, &pixels);
        prop_assert_eq!(tensor, vec![value; (to_width * to_height * 3) as usize]);
    }
}
