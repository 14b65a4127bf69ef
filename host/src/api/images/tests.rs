//! What bodies with pictures may say, and what becomes of a plugin's answers.

use serde_json::{Value, json};

use super::input::{Fields, read_here};
use super::*;
use crate::api::limits::{FINDINGS_MAX, IMAGES_MAX};
use crate::api::multipart::{Body, Form};

fn read_json(body: Value) -> Result<(Fields, Input), ApiError> {
    read_here(&Body::Json(body.into()))
}

fn read_form(fields: &[(&str, &[u8])]) -> Result<(Fields, Input), ApiError> {
    read_here(&Body::Form(Form::of(fields)))
}

fn images(input: &Input) -> Vec<(&str, &[u8])> {
    input.images.iter().map(|(place, bytes)| (place.as_str(), &bytes[..])).collect()
}

#[test]
fn pictures_come_in_several_ways() {
    let table = [
        (json!("aGVsbG8="), vec!["image"]),
        (json!("aGVsbG8"), vec!["image"]),
        (json!("aGVs\r\n bG8=\n"), vec!["image"]),
        (json!("data:image/png;base64,aGVsbG8="), vec!["image"]),
        (json!("DATA:;BASE64,aGVsbG8="), vec!["image"]),
        (json!(["aGVsbG8="]), vec!["image"]),
        (json!(["aGVsbG8=", "data:text/plain;base64,aGVsbG8="]), vec!["image[0]", "image[1]"]),
    ];
    for (image, places) in table {
        let (_, input) = read_json(json!({"model": "m", "image": image})).unwrap();
        let expected: Vec<(&str, &[u8])> = places.into_iter().map(|place| (place, &b"hello"[..])).collect();
        assert_eq!(images(&input), expected, "{image}");
    }
    let (_, input) = read_json(json!({"model": "m", "image": "aGVsbG8=", "images": ["aQ=="]})).unwrap();
    assert_eq!(images(&input), [("image", &b"hello"[..]), ("images[0]", b"i")]);
    let form: [(&str, &[u8]); 3] = [("image[]", b"\x89PNG"), ("model", b"m"), ("file", b"x")];
    let (_, input) = read_form(&form).unwrap();
    assert_eq!(images(&input), [("image", &b"\x89PNG"[..]), ("file[1]", b"x")]);
    assert_eq!(input.model, "m");
}

#[test]
fn options_have_their_own_names_and_those_of_others() {
    for body in [
        json!({"confidence_min": 0.5, "overlap_max": 0.25, "detections_max": 7, "classes_max": 3}),
        json!({"confidence": 0.5, "iou": 0.25, "max_detections": 7, "top_k": 3}),
    ] {
        let mut form: Vec<(String, Vec<u8>)> =
            vec![("model".into(), b"m".to_vec()), ("image".into(), b"x".to_vec())];
        form.extend(
            body.as_object().unwrap().iter().map(|(name, value)| (name.clone(), value.to_string().into())),
        );
        let form: Vec<_> = form.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
        let mut json = body.clone();
        (json["model"], json["image"]) = (json!("m"), json!("aQ=="));
        for fields in [read_form(&form).unwrap().0, read_json(json).unwrap().0] {
            assert_eq!((fields.confidence_min, fields.overlap_max), (Some(0.5), Some(0.25)));
            assert_eq!((fields.detections_max, fields.classes_max), (Some(7), Some(3)));
        }
    }
}

#[test]
fn wrong_fields_are_named() {
    let with = |name: &str, value: Value| {
        let mut body = json!({"model": "m", "image": "aQ=="});
        body[name] = value;
        body
    };
    let table: [(Value, &str, &str); 16] = [
        (json!({"image": "aQ=="}), "model", "missing"),
        (json!({"model": "m"}), "image", "missing, expected a picture as a file, or in JSON as base64"),
        (json!({"model": "m", "images": []}), "image", "missing"),
        (with("image", json!(7)), "image", "expected base64, a data URL, or an array of them"),
        (with("image", json!("not base64!")), "image", "is not valid base64"),
        (with("image", json!(["aQ==", "*"])), "image[1]", "is not valid base64"),
        (with("image", json!("https://example.org/x.png")), "image", "this server fetches no URLs"),
        (with("image", json!("HTTP://example.org/x.png")), "image", "this server fetches no URLs"),
        (with("image", json!("file:///etc/passwd")), "image", "this server fetches no URLs"),
        (with("image", json!("data:image/png,aQ==")), "image", "expected a data URL with base64"),
        (with("image", json!("ssh://x")), "image", "expected base64 or a data URL"),
        (with("image", json!(vec!["aQ=="; IMAGES_MAX + 1])), "image", "expected at most 64 pictures, got 65"),
        (with("confidence", json!(1.5)), "confidence_min", "expected a number from 0 to 1, got 1.5"),
        (with("iou", json!(-0.5)), "overlap_max", "expected a number from 0 to 1, got -0.5"),
        (
            with("detections_max", json!(FINDINGS_MAX + 1)),
            "detections_max",
            "expected a whole number from 1 to 1000",
        ),
        (with("top_k", json!(0)), "classes_max", "expected a whole number from 1 to 1000, got 0"),
    ];
    for (body, param, problem) in table {
        let error = read_json(body).unwrap_err();
        assert_eq!(error.param(), Some(param), "{error}");
        assert!(error.to_string().contains(problem), "{error}");
        assert_eq!(error.status().as_u16(), 400);
    }
    let form: [(&str, &[u8]); 3] = [("model", b"m"), ("image", b"x"), ("iou", b"half")];
    assert_eq!(read_form(&form).unwrap_err().to_string(), "iou: expected a number from 0 to 1, got \"half\"");
    let form: [(&str, &[u8]); 3] = [("model", b"m"), ("image", b"x"), ("confidence", b"nan")];
    assert_eq!(read_form(&form).unwrap_err().param(), Some("confidence_min"));
}

#[test]
fn answers_come_to_their_pictures() {
    let mut found: Vec<Option<Value>> = vec![None, None];
    take(&mut found, 1, r#"{"classes": []}"#).unwrap();
    take(&mut found, 9, r#"{"classes": []}"#).unwrap();
    assert_eq!(found, [None, Some(json!({"classes": []}))]);
    assert_eq!(take(&mut found, 0, "{").unwrap_err().code(), "plugin_failed");
    assert_eq!(index_in(r#"{"index": 3, "detections": []}"#).unwrap(), 3);
    assert_eq!(index_in(r#"{"detections": []}"#).unwrap(), 0);
    let timing = || Timing { decode_ms: 1.5, inference_ms: 2.0 };
    let usage = Usage { prompt_tokens: 4, ..Usage::default() };
    let missing = Document::new("m".into(), &[[1, 2], [3, 4]], found, usage, timing());
    assert_eq!(missing.unwrap_err().code(), "plugin_failed");
    let document =
        Document::new("m".into(), &[[3, 4]], vec![Some(json!({"classes": []}))], usage, timing()).unwrap();
    let expected = json!({
        "object": "list", "model": "m",
        "data": [{"index": 0, "width": 3, "height": 4, "classes": []}],
        "usage": {"images": 1, "prompt_tokens": 4, "total_tokens": 4},
        "timing": {"decode_ms": 1.5, "inference_ms": 2.0},
    });
    assert_eq!(serde_json::to_value(document).unwrap(), expected);
}
