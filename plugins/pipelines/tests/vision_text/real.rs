//! Real networks against references: those of `testdata/vision_references.py` and of `xtask/python/reference`.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use pajamas_pipelines::open;
use pajamas_plugin_api::{Part, Task};
use serde::Deserialize;
use serde_json::json;

use crate::ort::OrtNetworks;
use pajamas_test_models::model;

use crate::support::{ask, assert_close, info, object};

#[derive(Deserialize)]
struct Case {
    /// Left, top, width, height.
    part: [usize; 4],
    confidence_min: f32,
    detections: Vec<Detection>,
}

#[derive(Debug, Deserialize)]
struct Detection {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
    confidence: f32,
    class_id: usize,
}

/// A picture in a PNG file, or the part of it that has this left, top, width and height.
fn picture(file: &Path, part: Option<[usize; 4]>) -> Part {
    let mut reader = png::Decoder::new(BufReader::new(File::open(file).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((frame.color_type, frame.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    let [left, top, width, height] = part.unwrap_or([0, 0, frame.width as usize, frame.height as usize]);
    let rows = pixels.chunks(frame.line_size).skip(top).take(height);
    let data = rows.flat_map(|row| row[left * 3..(left + width) * 3].to_vec()).collect();
    Part::Rgb8 { width: width as u32, height: height as u32, data }
}

#[test]
fn a_yolo_sees_what_its_makers_software_sees() {
    let (Some(networks), Some(yolo), Some(astronaut)) =
        (OrtNetworks::from_environment(), model("nudenet/320n.onnx"), model("samples/astronaut.png"))
    else {
        return;
    };
    let yolo = open(&yolo, &object(json!({})), networks).unwrap();
    let described = info(&*yolo);
    assert_eq!((described.architecture.as_str(), described.labels.len()), ("yolo", 18));
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../testdata/yolo_nudenet.json")).unwrap();
    for case in cases {
        let params = json!({ "confidence_min": case.confidence_min });
        let answer = ask(&*yolo, Task::Detect, params, vec![picture(&astronaut, Some(case.part))]).unwrap();
        let found: Vec<Detection> =
            serde_json::from_value(answer.documents[0]["detections"].clone()).unwrap();
        assert_eq!(found.len(), case.detections.len(), "{found:?} instead of {:?}", case.detections);
        for (found, expected) in found.iter().zip(&case.detections) {
            assert_eq!(found.class_id, expected.class_id);
            // Scaling differs from OpenCV's in the last bit of some pixels.
            let numbers = |d: &Detection| [d.x, d.y, d.width, d.height];
            assert_close(&numbers(found), &numbers(expected), 0.5, "box in pixels");
            assert_close(&[found.confidence], &[expected.confidence], 0.02, "confidence");
        }
        assert_eq!(answer.documents[0]["detections"][0]["class_name"], "FACE_FEMALE");
    }
}

#[derive(Deserialize)]
struct Sentences {
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    text: String,
    tokens: Vec<u32>,
    embedding: Vec<f32>,
}

#[test]
fn texts_have_the_tokens_and_vectors_of_the_reference() {
    let (Some(networks), Some(minilm)) = (OrtNetworks::from_environment(), model("minilm-onnx")) else {
        return;
    };
    let minilm = open(&minilm, &object(json!({})), networks).unwrap();
    let described = info(&*minilm);
    assert_eq!((described.context_length, described.embedding_length), (Some(256), Some(384)));
    let reference: Sentences =
        serde_json::from_str(include_str!("../../testdata/minilm_embeddings.json")).unwrap();
    let texts: Vec<_> = reference.sentences.iter().map(|sentence| Part::text(&*sentence.text)).collect();
    let answer = ask(&*minilm, Task::Embed, json!({}), texts).unwrap();
    let tokens: usize = reference.sentences.iter().map(|sentence| sentence.tokens.len()).sum();
    assert_eq!(answer.usage.prompt_tokens as usize, tokens);
    for (index, vector) in &answer.vectors {
        let sentence = &reference.sentences[*index as usize];
        // The reference has 64 bits, the network 32, and the batch pads.
        assert_close(vector, &sentence.embedding, 1e-5, &sentence.text);
        let params = json!({ "add_special": true });
        let answer = ask(&*minilm, Task::Tokenize, params, vec![Part::text(&*sentence.text)]).unwrap();
        let ids = answer.tensors[0].data.as_chunks().0;
        let ids: Vec<u32> = ids.iter().map(|id| u32::from_ne_bytes(*id)).collect();
        assert_eq!(ids, sentence.tokens, "{}", sentence.text);
    }
    assert_eq!(answer.vectors.len(), reference.sentences.len());
}

#[derive(Debug, Deserialize)]
struct Class {
    class_id: usize,
    score: f32,
}

#[test]
fn a_picture_has_the_classes_of_the_reference() {
    let (Some(networks), Some(efficientnet), Some(chelsea)) =
        (OrtNetworks::from_environment(), model("efficientnet-lite0"), model("samples/chelsea.png"))
    else {
        return;
    };
    let efficientnet = open(&efficientnet, &object(json!({})), networks).unwrap();
    assert_eq!(info(&*efficientnet).labels.len(), 1000);
    let reference: Vec<Class> =
        serde_json::from_str(include_str!("../../testdata/efficientnet_classes.json")).unwrap();
    let answer = ask(&*efficientnet, Task::Classify, json!({}), vec![picture(&chelsea, None)]).unwrap();
    assert_eq!(answer.documents[0]["classes"][0]["class_name"], "tiger cat");
    let found: Vec<Class> = serde_json::from_value(answer.documents[0]["classes"].clone()).unwrap();
    let ids = |classes: &[Class]| classes.iter().map(|class| class.class_id).collect::<Vec<_>>();
    assert_eq!(ids(&found), ids(&reference));
    let scores = |classes: &[Class]| classes.iter().map(|class| class.score).collect::<Vec<_>>();
    // Scaling differs from Pillow's in the last bit of some pixels.
    assert_close(&scores(&found), &scores(&reference), 0.01, "scores");
}
