//! Pictures, sound, speech and vectors by real models: what a user of each endpoint gets.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::harness::{Host, Setup, check_with_python, real_model};

const EARS: &str = "whisper-tiny.en";
const MOUTH: &str = "piper-joe";
/// Share of wrong words that is allowed.
const WORD_ERRORS_MAX: f64 = 0.1;

/// A host with these models of `cargo xtask models`.
fn host(models: &[&str]) -> Option<Host> {
    Some(Setup::real_models(models)?.start())
}

fn sample(name: &str) -> Option<Vec<u8>> {
    let path = real_model("samples")?.1.join(name);
    Some(std::fs::read(path).expect("a sample"))
}

fn reference(name: &str) -> Value {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../plugins/pipelines/testdata");
    serde_json::from_slice(&std::fs::read(folder.join(name)).expect("a reference")).expect("JSON")
}

/// Words as they sound: no case, no punctuation.
fn words(text: &str) -> Vec<String> {
    let plain = text.to_lowercase().replace(|c: char| !c.is_alphanumeric() && c != '\'' && c != ' ', " ");
    plain.split_whitespace().map(str::to_owned).collect()
}

/// Word error rate: insertions, deletions and substitutions for each word of what was said (Levenshtein's distance).
fn word_errors(said: &str, heard: &str) -> f64 {
    let (said, heard) = (words(said), words(heard));
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (i, word) in said.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for j in 0..heard.len() {
            let substituted = diagonal + usize::from(*word != heard[j]);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[heard.len()] as f64 / said.len() as f64
}

#[test]
fn word_errors_are_counted() {
    for (said, heard, expected) in [
        ("It was the best of times.", "it was the best of times", 0.0),
        ("one two three four", "one two four", 0.25),
        ("one two three four", "one too three four", 0.25),
        ("one two", "one new two", 0.5),
        ("one two", "", 1.0),
    ] {
        assert_eq!(word_errors(said, heard), expected, "{heard}");
    }
}

async fn look(host: &Host, path: &str, model: &str, picture: &[u8]) -> Value {
    let answer = host.post(path, &json!({"model": model, "image": BASE64_STANDARD.encode(picture)})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body["data"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_face_is_found_where_the_reference_finds_it() {
    let (Some(host), Some(astronaut)) = (host(&["nudenet"]), sample("astronaut.png")) else { return };
    let found = look(&host, "/v1/images/detect", "nudenet", &astronaut).await;
    let face = found["detections"].as_array().expect("boxes").iter();
    let face = face.clone().find(|found| found["class_name"] == "FACE_FEMALE").expect("a face");
    let expected = reference("nudenet_boxes.json")["boxes"][0]["box"].clone();
    for (at, field) in ["x", "y", "width", "height"].into_iter().enumerate() {
        let (found, wanted) = (face[field].as_f64().expect(field), expected[at].as_f64().expect(field));
        assert!((found - wanted).abs() < 8.0, "{field}: {found}, expected {wanted}");
    }
    let same = look(&host, "/v1/detection", "yolov8n-nudenet", &astronaut).await;
    assert_eq!(same["detections"], found["detections"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cat_is_a_cat() {
    let (Some(host), Some(chelsea)) = (host(&["efficientnet-lite0"]), sample("chelsea.png")) else { return };
    let found = look(&host, "/v1/images/classify", "efficientnet-lite0", &chelsea).await;
    let best = &found["classes"][0];
    let name = best["class_name"].as_str().expect("a name").to_lowercase();
    assert!(["cat", "tabby"].iter().any(|word| name.contains(word)), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_those_of_the_reference() {
    let Some(host) = host(&["minilm-onnx"]) else { return };
    for sentence in reference("minilm_embeddings.json")["sentences"].as_array().expect("sentences") {
        let body = json!({"model": "minilm-onnx", "input": sentence["text"]});
        let answer = host.post("/v1/embeddings", &body).await;
        let numbers = |value: &Value| -> Vec<f64> {
            value.as_array().expect("numbers").iter().filter_map(Value::as_f64).collect()
        };
        let ours = numbers(&answer.body["data"][0]["embedding"]);
        let theirs = numbers(&sentence["embedding"]);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let cosine = dot(&ours, &theirs) / (dot(&ours, &ours) * dot(&theirs, &theirs)).sqrt();
        assert!(ours.len() == 384 && cosine >= 0.999, "{cosine} {}", sentence["text"]);
    }
}

/// What the model hears.
async fn hear(host: &Host, sound: &[u8], fields: &[(&str, &str)]) -> Value {
    let mut form: Vec<(&str, &[u8])> = vec![("model", EARS.as_bytes()), ("file", sound)];
    form.extend(fields.iter().map(|(name, value)| (*name, value.as_bytes())));
    let response = host.form("/v1/audio/transcriptions", &form).await;
    assert_eq!(response.status(), 200);
    response.json().await.expect("JSON")
}

async fn speak(host: &Host, text: &str) -> Vec<u8> {
    let body = json!({"model": MOUTH, "input": text, "response_format": "wav"});
    let response = host.post_with("/v1/audio/speech", &[], &body).await;
    assert_eq!(response.status(), 200);
    response.bytes().await.expect("sound").to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_novel_read_aloud_is_written_down() {
    let (Some(host), Some(sound)) = (host(&["whisper-tiny-en"]), sample("two_cities.wav")) else { return };
    let text = include_str!("data/two_cities.txt");
    let fields = [("response_format", "verbose_json"), ("timestamp_granularities[]", "word")];
    let heard = hear(&host, &sound, &fields).await;
    let rate = word_errors(text, heard["text"].as_str().expect("text"));
    assert!(rate <= WORD_ERRORS_MAX, "{rate}: {heard}");
    let words = heard["words"].as_array().expect("words");
    assert!(words.len() > 80, "{}", words.len());
    let begins: Vec<f64> = words.iter().filter_map(|word| word["start"].as_f64()).collect();
    assert!(begins.windows(2).all(|pair| pair[0] <= pair[1]), "{begins:?}");
    assert!((44.0..45.0).contains(&heard["duration"].as_f64().expect("seconds")), "{}", heard["duration"]);
}

/// What people say to each other.
const SENTENCES: [&str; 20] = [
    "The train to the city leaves at seven in the morning.",
    "Please close the window before you go to bed.",
    "My sister works at a hospital near the river.",
    "We had dinner at a small restaurant last night.",
    "The weather will be warm and sunny this weekend.",
    "He forgot his keys on the kitchen table again.",
    "Can you tell me the way to the library?",
    "The children are playing football in the park.",
    "She bought a new coat because it was very cold.",
    "I will call you when I get home from work.",
    "The museum is closed on Mondays in the winter.",
    "There is a bottle of milk in the refrigerator.",
    "They moved to a bigger house three years ago.",
    "The doctor told him to drink more water.",
    "This book is about the history of music.",
    "Our teacher gave us a lot of homework today.",
    "The dog was sleeping in front of the door.",
    "You should turn left at the next traffic light.",
    "The meeting has been moved to Thursday afternoon.",
    "Everyone enjoyed the concert in the old church.",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spoken_is_understood() {
    let Some(host) = host(&["whisper-tiny-en", "piper-joe"]) else { return };
    let (mut said, mut heard) = (String::new(), String::new());
    for sentence in SENTENCES {
        let answer = hear(&host, &speak(&host, sentence).await, &[]).await;
        said.extend([sentence, " "]);
        heard.extend([answer["text"].as_str().expect("text"), " "]);
    }
    let rate = word_errors(&said, &heard);
    assert!(rate <= WORD_ERRORS_MAX, "{rate}: {heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_is_answered_with_speech() {
    let Some(host) = host(&["whisper-tiny-en", "piper-joe", "smollm2"]) else { return };
    let question = speak(&host, "Name the capital of France.").await;
    let form: [(&str, &[u8]); 7] = [
        ("transcription_model", EARS.as_bytes()),
        ("model", b"smollm2"),
        ("speech_model", MOUTH.as_bytes()),
        ("temperature", b"0"),
        ("response_format", b"wav"),
        ("stream_format", b"sse"),
        ("file", &question),
    ];
    let response = host.form("/v1/audio/chat", &form).await;
    assert_eq!(response.status(), 200);
    let body = response.text().await.expect("events");
    let events: Vec<Value> = body
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect();
    let of_kind = |kind: &str| events.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    let transcript = of_kind("transcript.text.done")[0]["text"].as_str().expect("text");
    assert!(word_errors("Name the capital of France.", transcript) <= 0.2, "{transcript}");
    let done = of_kind("response.done")[0];
    assert!(done["text"].as_str().expect("text").contains("Paris"), "{done}");
    let timings = &done["timings"];
    let (first, total) = (timings["first_audio_ms"].as_f64(), timings["total_ms"].as_f64());
    assert!(first.zip(total).is_some_and(|(first, total)| 0.0 < first && first <= total), "{timings}");
    // The spoken answer, understood again, names the city.
    let sound: Vec<u8> = of_kind("response.audio.delta")
        .iter()
        .flat_map(|event| BASE64_STANDARD.decode(event["delta"].as_str().expect("base64")).expect("base64"))
        .collect();
    let heard = hear(&host, &sound, &[]).await;
    assert!(heard["text"].as_str().expect("text").contains("Paris"), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_speech_begins_before_it_is_all_made() {
    let Some(host) = host(&["piper-joe"]) else { return };
    speak(&host, "Warm up.").await;
    let input = SENTENCES.join(" ");
    let body = json!({"model": MOUTH, "input": input, "response_format": "pcm"});
    let started = std::time::Instant::now();
    let mut response = host.post_with("/v1/audio/speech", &[], &body).await;
    let mut first: Option<Duration> = None;
    let mut bytes = 0;
    while let Some(chunk) = response.chunk().await.expect("sound") {
        first.get_or_insert(started.elapsed());
        bytes += chunk.len();
    }
    let (first, whole) = (first.expect("a chunk"), started.elapsed());
    // Twenty sentences: the first is there long before the last.
    assert!(first * 3 < whole, "{first:?} of {whole:?}");
    // 16-bit mono at 24 kHz, and some forty seconds of it.
    assert!((25..90).contains(&(bytes / 48_000)), "{bytes} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_tensors_go_in_and_out_of_a_detector() {
    let Some(host) = host(&["nudenet"]) else { return };
    let metadata = host.get("/v2/models/nudenet").await.body;
    let input = metadata["inputs"][0]["name"].as_str().expect("an input").to_owned();
    let zeros = vec![0.0; 3 * 320 * 320];
    let body =
        json!({"inputs": [{"name": input, "datatype": "FP32", "shape": [1, 3, 320, 320], "data": zeros}]});
    let answer = host.post("/v2/models/nudenet/infer", &body).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body["error"]);
    assert_eq!(answer.body["outputs"][0]["shape"], json!([1, 22, 2100]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_systems_own_voice_speaks() {
    let Some((plugins, _)) = real_model("samples") else { return };
    let setup = Setup::new().plugins(&plugins).model("robot.voice", "voice = \"en-us\"\n");
    let host = setup.start();
    let body = json!({"model": "robot", "input": "Good morning.", "response_format": "wav"});
    let response = host.post_with("/v1/audio/speech", &[], &body).await;
    assert_eq!(response.status(), 200);
    let sound = response.bytes().await.expect("sound");
    assert!(sound.starts_with(b"RIFF") && sound.len() > 20_000, "{} bytes", sound.len());
    let unknown = json!({"model": "robot", "input": "Good morning.", "voice": "nobody"});
    let answer = host.post("/v1/audio/speech", &unknown).await;
    assert!(answer.status == 400 && answer.error().contains("nobody"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_hears_and_speaks() {
    let Some(host) = host(&["whisper-tiny-en", "piper-joe"]) else { return };
    check_with_python("openai_audio.py", &host.url);
}
