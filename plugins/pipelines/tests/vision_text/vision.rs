//! The tasks `detect`, `classify` and `embed_image`.

use pajamas_pipelines::{Pipeline, open};
use pajamas_plugin_api::{Dtype, ErrorKind, Finish, Part, Task};
use serde_json::{Value, json};

use crate::fake::{FakeNetwork, FakeNetworks, FakeValue, spec};
use crate::support::{ask, ask_cancelled, assert_close, info, object, plain};
use crate::texts::TOKENIZER;

/// A YOLO of two classes that sees one box in the middle of each picture, as sure as the picture's middle is red.
fn yolo(options: Value) -> Box<dyn Pipeline> {
    let folder = tempfile::tempdir().unwrap();
    let network = FakeNetwork::new(
        vec![spec("images", Dtype::F32, &[0, 3, 64, 64])],
        vec![spec("output0", Dtype::F32, &[0, 6, 84])],
        |inputs, _| {
            let images = inputs["images"];
            let count = images.shape[0] as usize;
            let pixels = images.as_f32s();
            let mut numbers = vec![0.0; count * 6 * 84];
            for (pixels, numbers) in pixels.chunks(3 * 64 * 64).zip(numbers.chunks_mut(6 * 84)) {
                let red = pixels[32 * 64 + 32];
                for (row, number) in [32.0, 32.0, 16.0, 8.0, 0.0, red].into_iter().enumerate() {
                    // two places see the same
                    numbers[row * 84..row * 84 + 2].fill(number);
                }
            }
            FakeValue::f32s(&[count as i64, 6, 84], &numbers)
        },
    );
    let networks = FakeNetworks::new(folder.path(), &[("y.onnx", network)]);
    open(&folder.path().join("y.onnx"), &object(options), &networks).unwrap()
}

#[test]
fn boxes_are_in_pixels_of_each_picture() {
    let yolo = yolo(json!({ "labels": ["cat", "dog"] }));
    assert_eq!(info(&*yolo).labels, ["cat", "dog"]);
    let red = |width, height| plain(width, height, [255, 0, 0]);
    // More than one batch, so that indexes go on.
    let mut parts = vec![red(64, 64), red(128, 64), red(32, 64), plain(64, 64, [0, 255, 0])];
    parts.extend((0..6).map(|_| red(64, 64)));
    let answer = ask(&*yolo, Task::Detect, json!({}), parts).unwrap();
    let found = |x: f32, y: f32, width: f32, height: f32| json!([{ "x": x, "y": y, "width": width, "height": height, "confidence": 1.0, "class_id": 1, "class_name": "dog" }]);
    let expected =
        [found(24.0, 28.0, 16.0, 8.0), found(48.0, 24.0, 32.0, 16.0), found(8.0, 28.0, 16.0, 8.0), json!([])];
    assert_eq!(answer.documents.len(), 10);
    for (index, document) in answer.documents.iter().enumerate() {
        assert_eq!(document["index"], index);
        let expected = expected.get(index).unwrap_or(&expected[0]);
        assert_eq!(document["detections"], *expected, "picture {index}");
    }
    assert_eq!(answer.finish, Finish::Stop);
}

#[test]
fn the_parameters_of_detect_are_honoured() {
    let yolo = yolo(json!({}));
    assert_eq!(info(&*yolo).labels, ["class_0", "class_1"]);
    let half = || vec![plain(64, 64, [128, 0, 0])];
    let count = |params: Value| {
        let answer = ask(&*yolo, Task::Detect, params, half()).unwrap();
        answer.documents[0]["detections"].as_array().unwrap().len()
    };
    for (params, expected) in [
        (json!({}), 1),
        (json!({ "confidence_min": 0.6 }), 0),
        (json!({ "overlap_max": 1 }), 2),
        (json!({ "overlap_max": 1, "detections_max": 1 }), 1),
        (json!({ "detections_max": 0 }), 0),
    ] {
        assert_eq!(count(params.clone()), expected, "{params}");
    }
    let cancelled = ask_cancelled(&*yolo, Task::Detect, half());
    assert_eq!((cancelled.finish, cancelled.documents.len()), (Finish::Cancelled, 0));
    for (params, parts, expected) in [
        (json!({ "confidence_min": 2 }), half(), "confidence_min is 2, and 0 to 1 is possible"),
        (json!({ "detections_max": -1 }), half(), "parameters of detect"),
        (json!({}), vec![], "detect needs a picture"),
        (json!({}), vec![Part::text("cat")], "detect takes pictures, and part 0 is another thing"),
        (
            json!({}),
            vec![Part::Rgb8 { width: 2, height: 2, data: vec![0; 11] }],
            "11 bytes are no 2 by 2 pixels",
        ),
        (json!({}), vec![Part::Rgb8 { width: 0, height: 0, data: vec![] }], "0 bytes are no 0 by 0 pixels"),
    ] {
        let error = ask(&*yolo, Task::Detect, params, parts).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains(expected), "{error}");
    }
}

/// A network that takes bytes scales them itself, whatever the pipeline would do to numbers.
#[test]
fn an_input_of_bytes_gets_the_pixels_as_they_are() {
    for (layout, expected) in [
        (&[0, 2, 2, 3][..], [10, 20, 30, 10, 20, 30, 10, 20, 30, 10, 20, 30]),
        (&[0, 3, 2, 2], [10, 10, 10, 10, 20, 20, 20, 20, 30, 30, 30, 30]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let network = FakeNetwork::new(
            vec![spec("image", Dtype::U8, layout)],
            vec![spec("p", Dtype::F32, &[0, 2])],
            move |inputs, _| {
                let seen = inputs["image"].as_u8s() == expected;
                FakeValue::f32s(&[1, 2], if seen { &[0.0, 1.0] } else { &[1.0, 0.0] })
            },
        );
        let networks =
            FakeNetworks::new(folder.path(), &[("c.onnx", network.with_metadata(&[("task", "classify")]))]);
        let pipeline = open(&folder.path().join("c.onnx"), &object(json!({})), &networks).unwrap();
        let answer = ask(&*pipeline, Task::Classify, json!({}), vec![plain(2, 2, [10, 20, 30])]).unwrap();
        assert_eq!(answer.documents[0]["classes"][0]["class_id"], 1, "{layout:?}");
    }
}

/// A classifier whose logits are the mean of each channel; `layout` is its input's dimensions.
fn classifier(layout: &[usize], files: &[(&str, Value)], options: Value) -> Box<dyn Pipeline> {
    let folder = tempfile::tempdir().unwrap();
    for (name, json) in files {
        std::fs::write(folder.path().join(name), json.to_string()).unwrap();
    }
    let has_channels_first = layout[1] == 3;
    let network = FakeNetwork::new(
        vec![spec("pixel_values", Dtype::F32, layout)],
        vec![spec("logits", Dtype::F32, &[0, 3])],
        move |inputs, _| {
            let images = inputs["pixel_values"];
            let count = images.shape[0] as usize;
            let pixels = images.as_f32s();
            let each = pixels.len() / count;
            let mean = |image: &[f32], channel: usize| {
                let numbers: Vec<f32> = if has_channels_first {
                    image[channel * each / 3..(channel + 1) * each / 3].to_vec()
                } else {
                    image.iter().copied().skip(channel).step_by(3).collect()
                };
                numbers.iter().sum::<f32>() / numbers.len() as f32
            };
            let logits: Vec<f32> = pixels
                .chunks(each)
                .flat_map(|image| [mean(image, 0), mean(image, 1), mean(image, 2)])
                .collect();
            FakeValue::f32s(&[count as i64, 3], &logits)
        },
    );
    let networks = FakeNetworks::new(folder.path(), &[("model.onnx", network)]);
    open(folder.path(), &object(options), &networks).unwrap()
}

#[test]
fn classes_are_sorted_and_named() {
    let config = json!({
        "architectures": ["ViTForImageClassification"],
        "id2label": { "0": "red", "1": "green", "2": "blue" },
    });
    let preprocessor = json!({ "size": { "height": 8, "width": 8 }, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5] });
    let files = [("config.json", config), ("preprocessor_config.json", preprocessor)];
    // 255 becomes 1 and 0 becomes -1: softmax of (-1, 1, -1)
    let (high, low) = (0.786_986, 0.106_507);
    for layout in [[0, 3, 8, 8], [0, 8, 8, 3], [2, 3, 8, 8]] {
        let model = classifier(&layout, &files, json!({}));
        assert_eq!(info(&*model).labels, ["red", "green", "blue"]);
        let parts = vec![plain(20, 10, [0, 255, 0]), plain(5, 5, [0, 0, 255]), plain(1, 1, [0, 255, 0])];
        let answer = ask(&*model, Task::Classify, json!({}), parts).unwrap();
        let indexes: Vec<_> = answer.documents.iter().map(|document| document["index"].as_u64()).collect();
        assert_eq!(indexes, [Some(0), Some(1), Some(2)], "{layout:?}");
        for (document, best) in answer.documents.iter().zip(["green", "blue", "green"]) {
            let classes = document["classes"].as_array().unwrap();
            assert_eq!(classes[0]["class_name"], best);
            let scores: Vec<f32> =
                classes.iter().map(|class| class["score"].as_f64().unwrap() as f32).collect();
            assert_close(&scores, &[high, low, low], 1e-5, best);
        }
        let one =
            ask(&*model, Task::Classify, json!({ "classes_max": 1 }), vec![plain(8, 8, [9, 9, 9])]).unwrap();
        assert_eq!(one.documents[0]["classes"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn a_bare_classifier_is_told_what_it_needs_by_options() {
    let options = json!({
        "pipeline": "classify",
        "labels": ["a", "b", "c"],
        "activation": "none",
        "preprocess": { "size": 8, "do_center_crop": false, "do_normalize": false },
    });
    let model = classifier(&[0, 3, 8, 8], &[], options);
    let answer = ask(&*model, Task::Classify, json!({}), vec![plain(8, 8, [0, 51, 255])]).unwrap();
    let classes = answer.documents[0]["classes"].as_array().unwrap();
    for (class, (name, score)) in classes.iter().zip([("c", 1.0), ("b", 0.2), ("a", 0.0)]) {
        assert_eq!(class["class_name"], name);
        assert_close(&[class["score"].as_f64().unwrap() as f32], &[score], 1e-6, name);
    }
    assert_eq!(classes.len(), 3);
}

/// A CLIP of vectors of two numbers: a picture's are its red and green, a text's are 1 and its number of tokens.
fn clip(is_one_network: bool) -> Box<dyn Pipeline> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        (
            "config.json",
            r#"{"model_type": "clip", "text_config": {"max_position_embeddings": 6}, "projection_dim": 2}"#,
        ),
        ("tokenizer.json", TOKENIZER),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let compute = |inputs: &std::collections::BTreeMap<&str, &FakeValue>, output: &str| {
        let numbers: Vec<f32> = if output == "image_embeds" {
            let images = inputs["pixel_values"].as_f32s();
            images.chunks(3 * 4 * 4).flat_map(|image| [image[0], image[16]]).collect()
        } else {
            let ids = inputs["input_ids"];
            let rows = ids.as_i64s();
            let used = |row: &[i64]| row.iter().filter(|id| **id != 0).count() as f32;
            rows.chunks(ids.shape[1] as usize).flat_map(|row| [1.0, used(row)]).collect()
        };
        FakeValue::f32s(&[numbers.len() as i64 / 2, 2], &numbers)
    };
    let text = || vec![spec("input_ids", Dtype::I64, &[0, 0])];
    let vision = || vec![spec("pixel_values", Dtype::F32, &[0, 3, 4, 4])];
    let output = |name: &str| spec(name, Dtype::F32, &[0, 2]);
    let networks = if is_one_network {
        let inputs = [text(), vision()].concat();
        let both = FakeNetwork::new(inputs, vec![output("text_embeds"), output("image_embeds")], compute);
        FakeNetworks::new(folder.path(), &[("model.onnx", both)])
    } else {
        let vision = FakeNetwork::new(vision(), vec![output("image_embeds")], compute);
        let text = FakeNetwork::new(text(), vec![output("text_embeds")], compute);
        FakeNetworks::new(folder.path(), &[("vision_model.onnx", vision), ("text_model.onnx", text)])
    };
    let options = json!({ "preprocess": { "image_mean": [0, 0, 0], "image_std": [1, 1, 1] } });
    open(folder.path(), &object(options), &networks).unwrap()
}

#[test]
fn pictures_and_texts_have_vectors_of_one_space() {
    for is_one_network in [false, true] {
        let clip = clip(is_one_network);
        let described = info(&*clip);
        assert_eq!(described.tasks, [Task::EmbedImage, Task::Embed, Task::Tokenize]);
        assert_eq!((described.embedding_length, described.context_length), (Some(2), Some(6)));
        let parts = vec![plain(9, 4, [255, 0, 0]), plain(4, 9, [255, 255, 0])];
        let answer = ask(&*clip, Task::EmbedImage, json!({ "normalize": false }), parts.clone()).unwrap();
        assert_eq!(answer.vectors, [(0, vec![1.0, 0.0]), (1, vec![1.0, 1.0])]);
        let answer = ask(&*clip, Task::EmbedImage, json!({}), parts).unwrap();
        assert_close(&answer.vectors[1].1, &[0.5f32.sqrt(); 2], 1e-6, "length 1");
        let answer =
            ask(&*clip, Task::Embed, json!({ "normalize": false }), vec![Part::text("a cat")]).unwrap();
        assert_eq!(answer.vectors, [(0, vec![1.0, 4.0])]);
        let error = ask(&*clip, Task::Embed, json!({}), vec![Part::text("a a a a a")]).unwrap_err();
        assert!(error.message().contains("input 0 has 7 tokens and this model takes 6"), "{error}");
    }
}
