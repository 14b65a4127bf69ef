//! Pictures through the `echo` plugin, which finds the one thing that differs from the background.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::harness::{Answer, Host, Setup, joined};

/// One of the pictures that the host's own tests decode.
fn picture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../host/src/media/testdata");
    std::fs::read(folder.join(name)).expect("picture")
}

/// 64 by 48 black pixels with a red square of 20 at (10, 20).
fn square() -> Vec<u8> {
    picture("square.png")
}

fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

async fn send_form(host: &Host, path: &str, fields: &[(&str, &[u8])]) -> Answer {
    let response = host.form(path, fields).await;
    let status = response.status().as_u16();
    Answer { status, body: response.json().await.expect("json") }
}

fn expected_box(class_name: &str) -> Value {
    json!([{
        "x": 10.0, "y": 20.0, "width": 20.0, "height": 20.0, "confidence": 0.9, "class_id": 0,
        "class_name": class_name,
    }])
}

/// As `json!` writes single-precision numbers of an answer: rounded.
fn rounded(mut detections: Value) -> Value {
    for detection in detections.as_array_mut().into_iter().flatten() {
        let confidence = detection["confidence"].as_f64().expect("number");
        detection["confidence"] = json!((confidence * 1000.0).round() / 1000.0);
    }
    detections
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_found_in_files_and_in_base64() {
    let host = Setup::echo().start();
    let (square, plain) = (square(), picture("grey.png"));
    let one: [(&str, &[u8]); 2] = [("model", b"parrot"), ("image", &square)];
    let two: [(&str, &[u8]); 4] =
        [("file", &square), ("file", &square), ("model", b"parrot"), ("iou", b"0.5")];
    let from_json = host
        .post("/v1/images/detect", &json!({"model": "parrot", "image": base64(&square), "confidence": 0.9}))
        .await;
    let data_url = format!("data:image/png;base64,{}", base64(&square));
    let from_urls =
        host.post("/v1/detection", &json!({"model": "parrot", "images": [data_url, base64(&square)]})).await;
    let answers = [
        (send_form(&host, "/v1/images/detect", &one).await, 1),
        (send_form(&host, "/v1/detection", &two).await, 2),
        (from_json, 1),
        (from_urls, 2),
    ];
    for (answer, count) in answers {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!((&answer.body["object"], &answer.body["model"]), (&json!("list"), &json!("parrot")));
        assert_eq!(answer.body["usage"]["images"], count);
        assert!(answer.body["timing"]["inference_ms"].as_f64() > Some(0.0), "{answer:?}");
        let data = answer.body["data"].as_array().expect("data");
        assert_eq!(data.len(), count, "{answer:?}");
        for (index, item) in data.iter().enumerate() {
            assert_eq!(
                (&item["index"], &item["width"], &item["height"]),
                (&json!(index), &json!(64), &json!(48))
            );
            assert_eq!(rounded(item["detections"].clone()), expected_box("red"), "{answer:?}");
        }
    }
    let strict = json!({"model": "parrot", "image": base64(&square), "confidence_min": 0.95});
    assert_eq!(host.post("/v1/images/detect", &strict).await.body["data"][0]["detections"], json!([]));
    let upright = json!({"model": "parrot", "image": base64(&picture("orientation6.jpg"))});
    let item = host.post("/v1/images/detect", &upright).await.body["data"][0].take();
    assert_eq!((&item["width"], &item["height"]), (&json!(24), &json!(16)), "{item}");
    let other = json!({"model": "parrot", "images": [base64(&plain), base64(&picture("lossy.webp"))]});
    assert_eq!(host.post("/v1/images/detect", &other).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_labels_win() {
    let host = Setup::echo().model("parrot.toml", "labels = ['rouge', 'vert']").start();
    let body = json!({"model": "parrot", "image": base64(&square())});
    let found = host.post("/v1/images/detect", &body).await;
    assert_eq!(rounded(found.body["data"][0]["detections"].clone()), expected_box("rouge"), "{found:?}");
    let classes = host.post("/v1/images/classify", &body).await;
    let names = classes.body["data"][0]["classes"].as_array().expect("classes").iter();
    let names: Vec<_> = names.map(|class| class["class_name"].as_str().expect("name")).collect();
    assert_eq!(names, ["rouge", "vert", "blue"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_are_classified_and_embedded() {
    let host = Setup::echo().start();
    let square = square();
    let form: [(&str, &[u8]); 3] = [("model", b"parrot"), ("image", &square), ("top_k", b"2")];
    let answer = send_form(&host, "/v1/images/classify", &form).await;
    let classes = answer.body["data"][0]["classes"].as_array().expect("classes");
    assert_eq!(classes.len(), 2, "{answer:?}");
    assert_eq!((&classes[0]["class_name"], &classes[0]["class_id"]), (&json!("red"), &json!(0)));
    assert!(classes[0]["score"].as_f64() > Some(0.9), "{answer:?}");

    let embed = async |extra: Value| {
        let mut body = json!({"model": "parrot", "images": [base64(&square), base64(&square)]});
        for (name, value) in extra.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        host.post("/v1/images/embeddings", &body).await
    };
    let answer = embed(json!({})).await;
    assert_eq!((answer.status, &answer.body["object"]), (200, &json!("list")), "{answer:?}");
    let vector = &answer.body["data"][1]["embedding"];
    assert_eq!((vector.as_array().map(Vec::len), &answer.body["data"][1]["index"]), (Some(8), &json!(1)));
    assert_eq!(*vector, answer.body["data"][0]["embedding"]);
    let answer = embed(json!({"encoding_format": "base64", "dimensions": 3})).await;
    assert_eq!(answer.body["data"][0]["embedding"].as_str().map(str::len), Some(16), "{answer:?}");
    let answer = embed(json!({"dimensions": 9})).await;
    assert_eq!((answer.status, &answer.body["error"]["param"]), (400, &json!("dimensions")), "{answer:?}");
}

/// A PNG file that claims these dimensions and has no pixels.
fn claim(width: u32, height: u32) -> Vec<u8> {
    let mut png = square();
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = png[12..29].iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    });
    png[29..33].copy_from_slice(&(!crc).to_be_bytes());
    png
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_pictures_are_refused_while_another_request_goes_on() {
    let host = Setup::echo()
        .model("slow.echo", "")
        .model("slow.toml", "[options]\ndelay_ms = 5\n")
        .model("mute.echo", "")
        .model("mute.toml", "tasks = ['generate']\n")
        .config("[limits]\nimage_pixels = 5000\nbody_bytes = 100000\n")
        .start();
    let text = "word ".repeat(400);
    let chat = json!({"model": "slow", "stream": true, "messages": [{"role": "user", "content": text}]});
    let other = host.stream("/v1/chat/completions", &chat);
    let wrong = async {
        let square = square();
        let cut = |name: &str| {
            let bytes = picture(name);
            bytes[..bytes.len() * 2 / 3].to_vec()
        };
        let mut flipped = square.clone();
        flipped[60] ^= 0xff;
        let files: Vec<(Vec<u8>, &str)> = vec![
            (vec![], "the file is empty"),
            (b"hello".to_vec(), "expected JPEG, PNG, WebP, BMP or GIF"),
            (picture("pcm_16.wav"), "expected JPEG, PNG, WebP, BMP or GIF"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(), "expected JPEG, PNG, WebP, BMP or GIF"),
            (flipped, "the PNG file is damaged"),
            (cut("rgb.png"), "the PNG file is damaged"),
            (cut("baseline.jpg"), "the JPEG file is damaged"),
            (cut("rgb.gif"), "the GIF file is damaged"),
            (cut("lossy.webp"), "the WebP file is damaged"),
            (cut("rgb.bmp"), "the BMP file is damaged"),
            (claim(71, 71), "the picture has 71 × 71 pixels, at most 5000 pixels are allowed"),
            (claim(60_000, 60_000), "the picture has 60000 × 60000 pixels, at most 5000"),
        ];
        for (file, expected) in &files {
            let form: [(&str, &[u8]); 2] = [("image", file), ("model", b"parrot")];
            let by_form = send_form(&host, "/v1/images/detect", &form).await;
            let body = json!({"model": "parrot", "image": base64(file)});
            for answer in [by_form, host.post("/v1/images/classify", &body).await] {
                check_refusal(&answer, 400, "image", expected);
            }
        }
        let good = base64(&square);
        let bodies = [
            (json!({"image": good}), 400, "model", "missing"),
            (json!({"model": "parrot"}), 400, "image", "missing"),
            (json!({"model": "ghost", "image": good}), 404, "model", "ghost"),
            (json!({"model": "mute", "image": good}), 400, "model", "generate"),
            (json!({"model": "parrot", "image": "%%"}), 400, "image", "base64"),
            (json!({"model": "parrot", "image": "http://127.0.0.1/x.png"}), 400, "image", "fetches no URLs"),
            (json!({"model": "parrot", "image": 7}), 400, "image", "expected base64"),
            (json!({"model": "parrot", "image": good, "iou": 2}), 400, "overlap_max", "0 to 1"),
            // Together they are too large.
            (json!({"model": "parrot", "images": [good, good]}), 400, "images[1]", "at most 1928 pixels"),
        ];
        for path in ["/v1/images/detect", "/v1/detection", "/v1/images/classify", "/v1/images/embeddings"] {
            for (body, status, param, expected) in &bodies {
                check_refusal(&host.post(path, body).await, *status, param, expected);
            }
            let request = host.client.post(format!("{}{path}", host.url)).body(vec![0; 200_000]);
            let form = "multipart/form-data; boundary=border";
            // The connection is closed after the answer, which a client that is still sending may notice first.
            if let Ok(answer) = request.header("content-type", form).send().await {
                assert_eq!(answer.status().as_u16(), 413);
            }
            let request = host.client.post(format!("{}{path}", host.url)).body("x");
            let typeless = request.send().await.expect("answer");
            assert_eq!(typeless.status().as_u16(), 415);
        }
    };
    let (events, ()) = tokio::join!(other, wrong);
    assert_eq!(joined(&events), text);
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    host.expect_echo().await;
}

fn check_refusal(answer: &Answer, status: u16, param: &str, expected: &str) {
    assert_eq!(answer.status, status, "{param}, {expected}: {answer:?}");
    let error = &answer.body["error"];
    assert_eq!(error["param"], param, "{answer:?}");
    assert!(answer.error().contains(expected), "expected {expected}: {answer:?}");
    assert!(error["type"].is_string() && error["code"].is_string(), "{answer:?}");
}
