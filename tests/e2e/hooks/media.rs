//! Hooks that see pictures, sound and files of raw inference.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{replace, start, table};
use crate::harness::{Host, Setup};

/// 64 by 48 black pixels with a red square of 20 at (10, 20).
fn square() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../host/src/media/testdata");
    BASE64_STANDARD.encode(std::fs::read(folder.join("square.png")).expect("picture"))
}

#[tokio::test(flavor = "multi_thread")]
async fn boxes_come_back_in_pixels_of_the_clients_picture() {
    for config in [
        "side_max = 32",
        "orient = \"portrait\"",
        "orient = \"portrait\", side_max = 32",
        "orient = \"landscape\"",
    ] {
        let settings = format!("config = {{ {config} }}");
        let host = start(&[table("resize", "auto-orient-resize", &settings)]);
        let body = json!({"model": "parrot", "images": [square(), square()]});
        let answer = host.post("/v1/images/detect", &body).await;
        assert_eq!(answer.status, 200, "{config}: {answer:?}");
        for item in answer.body["data"].as_array().expect("data") {
            assert_eq!((&item["width"], &item["height"]), (&json!(64), &json!(48)), "{config}: {item}");
            let found = &item["detections"][0];
            let sides =
                ["x", "y", "width", "height"].map(|side| found[side].as_f64().expect("number").round());
            assert_eq!(sides, [10.0, 20.0, 20.0, 20.0], "{config}: {found}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_changed_before_they_are_classified_and_embedded() {
    // One pixel is the mean of all.
    let settings = "config = { side_max = 1 }";
    let host = start(&[table("resize", "auto-orient-resize", settings)]);
    let body = json!({"model": "parrot", "image": square()});
    let detect = host.post("/v1/images/detect", &body).await;
    assert_eq!(detect.body["data"][0]["detections"], json!([]), "{detect:?}");
    let classes = host.post("/v1/images/classify", &body).await;
    assert_eq!(classes.body["data"][0]["classes"][0]["class_name"], "red", "{classes:?}");
    let embedded = host.post("/v1/images/embeddings", &body).await;
    assert_eq!(embedded.status, 200, "{embedded:?}");
}

/// Sends the picture as the input `x` of raw inference.
async fn infer(host: &Host, model: &str) -> (u16, Value) {
    let body = json!({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": [square()]}]});
    let answer = host.post(&format!("/v2/models/{model}/infer"), &body).await;
    (answer.status, answer.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_become_the_tensors_of_a_model() {
    let inputs = |side: u32| {
        format!("[[inputs]]\nname = \"images\"\ndtype = \"f32\"\nshape = [1, 3, {side}, {side}]\n")
    };
    let small = "routes = [\"small\"]\nconfig = { width = 64, height = 64, name = \"images\" }";
    let host = Setup::echo()
        .model("small.echo", &inputs(64))
        .model("large.echo", &inputs(640))
        .config(&table("small", "letterbox", small))
        .config(&table("large", "letterbox", "routes = [\"large\"]\nconfig = { name = \"images\" }"))
        .start();
    let (status, answer) = infer(&host, "small").await;
    assert_eq!(status, 200, "{answer}");
    let output = &answer["outputs"][0];
    assert_eq!((&output["name"], &output["datatype"]), (&json!("images"), &json!("FP32")));
    assert_eq!(output["shape"], json!([1, 3, 64, 64]));
    // The picture has 48 rows, so that 8 above and 8 below it are padding.
    let value = |channel: usize, x: usize, y: usize| {
        output["data"][(channel * 64 + y) * 64 + x].as_f64().expect("number")
    };
    let (grey, red) = (114.0 / 255.0, 200.0 / 255.0);
    for (channel, x, y, expected) in [
        (0, 0, 0, grey),
        (2, 63, 63, grey),
        (0, 0, 8, 0.0),
        (0, 10, 28, red),
        (1, 10, 28, 20.0 / 255.0),
        (0, 29, 47, red),
        (0, 30, 47, 0.0),
    ] {
        let got = value(channel, x, y);
        assert!((got - expected).abs() < 1e-5, "{channel} {x} {y}: {got} instead of {expected}");
    }
    let (status, answer) = infer(&host, "large").await;
    assert_eq!(status, 200);
    assert_eq!(answer["outputs"][0]["shape"], json!([1, 3, 640, 640]));
    let (status, answer) = infer(&host, "parrot").await;
    assert_eq!(status, 400, "{answer}");
    assert!(
        answer["error"].as_str().is_some_and(|error| error.contains("no hook makes tensors")),
        "{answer}"
    );
}

/// A WAV file: silence, sound and silence of these seconds, 16-bit mono at 16 kHz.
pub(super) fn wav(silent: f32, loud: f32) -> Vec<u8> {
    let count = |seconds: f32| (seconds * 16_000.0) as usize;
    let silence = std::iter::repeat_n(0_i16, count(silent));
    let sound = (0..count(loud)).map(|i| (i % 80) as i16 * 300 - 12_000);
    let samples: Vec<u8> = silence.clone().chain(sound).chain(silence).flat_map(i16::to_le_bytes).collect();
    let len = samples.len() as u32;
    let mut file = Vec::new();
    file.extend(b"RIFF");
    file.extend((36 + len).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16_u32.to_le_bytes());
    file.extend([1_u16, 1].map(u16::to_le_bytes).concat());
    file.extend([16_000_u32, 32_000].map(u32::to_le_bytes).concat());
    file.extend([2_u16, 16].map(u16::to_le_bytes).concat());
    file.extend(b"data");
    file.extend(len.to_le_bytes());
    file.extend(samples);
    file
}

pub(super) async fn transcribe(host: &Host, file: &[u8]) -> Value {
    let fields: [(&str, &[u8]); 5] = [
        ("model", b"parrot"),
        ("response_format", b"verbose_json"),
        ("timestamp_granularities[]", b"word"),
        ("timestamp_granularities[]", b"segment"),
        ("file", file),
    ];
    let response = host.form("/v1/audio/transcriptions", &fields).await;
    response.json().await.expect("json")
}

#[tokio::test(flavor = "multi_thread")]
async fn times_of_a_transcript_are_those_of_the_clients_sound() {
    let host = start(&[table(
        "trim",
        "trim-silence",
        "tasks = [\"transcribe\"]\nconfig = { all_silent = \"reject\" }",
    )]);
    let answer = transcribe(&host, &wav(1.0, 1.5)).await;
    // A tenth of a second of silence is left at each end.
    let expected = [(0.9, 1.9), (1.9, 2.6)];
    let segments = answer["segments"].as_array().unwrap_or_else(|| panic!("no segments: {answer}"));
    assert_eq!(segments.len(), 2, "{answer}");
    for (segment, (start, end)) in segments.iter().zip(expected) {
        let near = |value: &Value, expected: f64| value.as_f64().is_some_and(|v| (v - expected).abs() < 0.02);
        assert!(near(&segment["start"], start) && near(&segment["end"], end), "{answer}");
    }
    let word = answer["words"][0]["start"].as_f64().expect("number");
    assert!((word - 0.9).abs() < 0.02, "{answer}");
    let silent = transcribe(&host, &wav(1.0, 0.0)).await;
    assert_eq!(silent["error"]["code"], "hook_rejected", "{silent}");
    assert_eq!(silent["error"]["message"], "the sound is silent", "{silent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_is_shown_to_hooks_of_text() {
    let host = start(&[replace("units", "Second", "Minute", "")]);
    let answer = transcribe(&host, &wav(0.0, 1.5)).await;
    assert_eq!(answer["text"], "Minute 1. Minute 2.", "{answer}");
    let fields: [(&str, &[u8]); 6] = [
        ("transcription_model", b"parrot"),
        ("model", b"parrot"),
        ("speech_model", b"parrot"),
        ("stream_format", b"sse"),
        ("response_format", b"pcm"),
        ("file", &wav(0.0, 1.0)),
    ];
    let text = host.form("/v1/audio/chat", &fields).await.text().await.expect("text");
    assert!(text.contains("Minute 1.") && !text.contains("Second"), "{text}");
    assert!(text.contains("response.done"), "{text}");
}
