//! Speech to text, text to speech and spoken answers through the `echo` plugin, which hears a sentence in each second and
//! speaks a tone for each word.

use std::time::Instant;

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::harness::{Answer, Host, PATIENCE, Setup};

/// A WAV file of this many seconds, 16-bit mono at 16 kHz.
fn wav(seconds: f32) -> Vec<u8> {
    let samples = (seconds * 16_000.0) as u32;
    let mut file = Vec::new();
    file.extend(b"RIFF");
    file.extend((36 + samples * 2).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16_u32.to_le_bytes());
    file.extend([1_u16, 1].map(u16::to_le_bytes).concat());
    file.extend([16_000_u32, 32_000].map(u32::to_le_bytes).concat());
    file.extend([2_u16, 16].map(u16::to_le_bytes).concat());
    file.extend(b"data");
    file.extend((samples * 2).to_le_bytes());
    file.extend((0..samples).flat_map(|i| ((i % 80) as i16 * 100).to_le_bytes()));
    file
}

/// What a form holds besides its file.
type Fields<'a> = &'a [(&'a str, &'a str)];

async fn send(host: &Host, path: &str, file: &[u8], fields: Fields<'_>) -> reqwest::Response {
    let texts = fields.iter().map(|(name, text)| (*name, text.as_bytes()));
    host.form(path, &texts.chain([("file", file)]).collect::<Vec<_>>()).await
}

async fn transcribe(host: &Host, seconds: f32, fields: Fields<'_>) -> (u16, String) {
    let fields = [&[("model", "parrot")], fields].concat();
    let response = send(host, "/v1/audio/transcriptions", &wav(seconds), &fields).await;
    (response.status().as_u16(), response.text().await.expect("text"))
}

/// The data of each server-sent event.
fn events(text: &str) -> Vec<Value> {
    let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).expect("json")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_is_written_in_every_format() {
    let host = Setup::echo().start();
    let (status, text) = transcribe(&host, 1.5, &[]).await;
    let expected = json!({"text": "Second 1. Second 2.", "usage": {"type": "duration", "seconds": 2}});
    assert_eq!((status, serde_json::from_str::<Value>(&text).expect("json")), (200, expected));
    let subtitles =
        "1\n00:00:00,000 --> 00:00:01,000\nSecond 1.\n\n2\n00:00:01,000 --> 00:00:01,500\nSecond 2.\n\n";
    let vtt =
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nSecond 1.\n\n00:00:01.000 --> 00:00:01.500\nSecond 2.\n\n";
    for (format, expected) in [("text", "Second 1. Second 2.\n"), ("srt", subtitles), ("vtt", vtt)] {
        assert_eq!(transcribe(&host, 1.5, &[("response_format", format)]).await, (200, expected.to_owned()));
    }
    let fields = [
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
        ("language", "de"),
    ];
    let verbose: Value = serde_json::from_str(&transcribe(&host, 1.5, &fields).await.1).expect("json");
    assert_eq!((&verbose["language"], &verbose["duration"]), (&json!("de"), &json!(1.5)), "{verbose}");
    assert_eq!(verbose["segments"][1]["start"], 1.0, "{verbose}");
    assert_eq!(verbose["words"][3], json!({"word": "2", "start": 1.25, "end": 1.5}), "{verbose}");
}

#[tokio::test(flavor = "multi_thread")]
async fn transcripts_are_streamed_and_translated() {
    let host = Setup::echo().start();
    let (status, text) = transcribe(&host, 2.0, &[("stream", "true")]).await;
    assert!(status == 200 && text.ends_with("data: [DONE]\n\n"), "{text}");
    let expected = [
        json!({"type": "transcript.text.delta", "delta": "Second 1."}),
        json!({"type": "transcript.text.delta", "delta": " Second 2."}),
        json!({"type": "transcript.text.done", "text": "Second 1. Second 2.", "usage": {"type": "duration", "seconds": 2}}),
    ];
    assert_eq!(events(&text), expected);
    let fields = [("model", "parrot"), ("response_format", "verbose_json")];
    let response = send(&host, "/v1/audio/translations", &wav(1.0), &fields).await;
    let answer: Value = response.json().await.expect("json");
    assert_eq!((&answer["task"], &answer["text"]), (&json!("translate"), &json!("Second 1.")), "{answer}");
}

async fn speak(host: &Host, body: Value) -> reqwest::Response {
    host.post_with("/v1/audio/speech", &[], &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_comes_in_every_format() {
    let host = Setup::echo().start();
    // Three words of a tenth of a second, at 16 kHz; PCM is at 24 kHz.
    let table = [
        ("wav", "audio/wav", b"RIFF".as_slice(), Some(44 + 3 * 1600 * 2)),
        ("pcm", "audio/pcm", b"", Some(3 * 2400 * 2)),
        ("flac", "audio/flac", b"fLaC", None),
        ("opus", "audio/ogg", b"OggS", None),
    ];
    for (format, content_type, magic, length) in table {
        let body =
            json!({"model": "parrot", "input": "one two three", "voice": "high", "response_format": format});
        let response = speak(&host, body).await;
        assert_eq!(response.headers()["content-type"], content_type);
        let sound = response.bytes().await.expect("bytes");
        assert!(sound.starts_with(magic), "{format}");
        assert!(length.is_none_or(|length| length == sound.len()), "{format}: {}", sound.len());
    }
    let fast =
        speak(&host, json!({"model": "parrot", "input": "one two", "speed": 2, "response_format": "wav"}))
            .await;
    assert_eq!(fast.bytes().await.expect("bytes").len(), 44 + 2 * 800 * 2);
    let body =
        json!({"model": "parrot", "input": "one two", "response_format": "pcm", "stream_format": "sse"});
    let text = speak(&host, body).await.text().await.expect("text");
    let events = events(&text);
    assert_eq!(events.last().expect("event")["type"], "speech.audio.done", "{text}");
    assert!(events.len() >= 3 && events[0]["type"] == "speech.audio.delta", "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_of_the_first_words_comes_before_the_last_are_spoken() {
    let host = Setup::new()
        .plugin("echo")
        .model("slow.echo", "")
        .model("slow.toml", "[options]\ndelay_ms = 20\n")
        .start();
    let body = json!({"model": "slow", "input": "word ".repeat(1000)});
    let mut chunks = speak(&host, body).await.bytes_stream();
    assert!(chunks.next().await.expect("chunk").expect("bytes").starts_with(b"RIFF"));
    host.until_busy(1).await;
    // A client that goes away ends the job.
    drop(chunks);
    host.until_busy(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_speech_requests_name_the_field() {
    let host = Setup::echo().model("mute.echo", "").model("mute.toml", "tasks = [\"generate\"]\n").start();
    let table = [
        (json!({"model": "parrot", "input": "x", "voice": "alloy"}), 400, "there are: low, high"),
        (json!({"model": "parrot", "input": "x", "response_format": "mp3"}), 400, "opus, flac, wav, pcm"),
        (json!({"model": "parrot", "input": "x", "speed": 5}), 400, "speed"),
        (json!({"model": "parrot", "input": "x", "instructions": "sing"}), 400, "instructions"),
        (json!({"model": "parrot", "input": ""}), 400, "input"),
        (json!({"model": "parrot"}), 400, "input"),
        (json!({"input": "x"}), 400, "model"),
        (json!({"model": "ghost", "input": "x"}), 404, "ghost"),
        (json!({"model": "mute", "input": "x"}), 400, "speak"),
    ];
    for (body, status, named) in table {
        let response = speak(&host, body.clone()).await;
        let answer =
            Answer { status: response.status().as_u16(), body: response.json().await.expect("json") };
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.error().contains(named), "{body}: {answer:?}");
    }
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_sound_is_the_clients_mistake_and_nobody_elses() {
    let host = Setup::echo().config("[limits]\naudio_seconds = 3\nbody_bytes = 200000\n");
    let host = host.model("deaf.echo", "").model("deaf.toml", "tasks = [\"generate\"]\n").start();
    let good = wav(1.0);
    let noise: Vec<u8> = (0_u32..5000).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (long, large) = (wav(3.5), wav(10.0));
    let parrot = ("model", "parrot");
    let table: [(&str, &[u8], Fields<'_>, u16, &str); 11] = [
        ("empty", b"", &[parrot], 400, "file"),
        ("no sound", b"hello, this is a text and no sound at all", &[parrot], 400, "file"),
        ("noise", &noise, &[parrot], 400, "file"),
        ("half a head", &good[..30], &[parrot], 400, "file"),
        ("a head alone", &good[..44], &[parrot], 400, "file"),
        ("too long", &long, &[parrot], 400, "3 seconds"),
        ("too large", &large, &[parrot], 413, "larger"),
        ("no such model", &good, &[("model", "ghost")], 404, "ghost"),
        ("no model", &good, &[], 400, "model"),
        ("wrong task", &good, &[("model", "deaf")], 400, "transcribe"),
        ("wrong field", &good, &[parrot, ("temperature", "hot")], 400, "temperature"),
    ];
    for (what, file, fields, status, named) in table {
        let response = send(&host, "/v1/audio/transcriptions", file, fields).await;
        let answer =
            Answer { status: response.status().as_u16(), body: response.json().await.expect("json") };
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert!(answer.error().contains(named), "{what}: {answer:?}");
        assert!(answer.body["error"]["code"].is_string(), "{what}: {answer:?}");
        assert_eq!(
            transcribe(&host, 1.0, &[("response_format", "text")]).await,
            (200, "Second 1.\n".to_owned())
        );
    }
    let answer = host.post("/v1/audio/transcriptions", &json!({"model": "parrot"})).await;
    assert_eq!(answer.status, 415, "{answer:?}");
    assert_eq!(host.log.text().matches("panicked").count(), 0);
    host.expect_echo().await;
}

/// A host whose models take their time, and the fields that name them.
fn slow_voices() -> (Host, Vec<(&'static str, &'static str)>) {
    let mut setup = Setup::new().plugin("echo");
    for (file, settings) in [("stt", 1), ("llm", 30), ("tts", 20)] {
        let settings = format!("[options]\ndelay_ms = {settings}\n");
        setup = setup.model(&format!("{file}.echo"), "").model(&format!("{file}.toml"), &settings);
    }
    let fields = vec![("transcription_model", "stt"), ("model", "llm"), ("speech_model", "tts")];
    (setup.start(), fields)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoken_answer_begins_while_it_is_still_written() {
    let (host, mut fields) = slow_voices();
    fields.extend([("stream_format", "sse"), ("response_format", "pcm"), ("voice", "high")]);
    let response = send(&host, "/v1/audio/chat", &wav(12.0), &fields).await;
    let text = response.text().await.expect("text");
    let events = events(&text);
    let transcript = (1..=12).map(|second| format!("Second {second}.")).collect::<Vec<_>>().join(" ");
    assert_eq!(events[0], json!({"type": "transcript.text.done", "text": transcript, "language": "en"}));
    let positions = |kind: &str| {
        let matching = events.iter().enumerate().filter(|(_, event)| event["type"] == kind);
        matching.map(|(position, _)| position).collect::<Vec<_>>()
    };
    let (texts, sounds) = (positions("response.text.delta"), positions("response.audio.delta"));
    assert!(sounds.first() < texts.last() && texts.first() < sounds.first(), "{texts:?} {sounds:?}");
    let done = events.last().expect("event");
    assert_eq!((&done["type"], &done["text"]), (&json!("response.done"), &json!(transcript)), "{done}");
    assert_eq!(
        (&done["finish_reason"], &done["usage"]["completion_tokens"]),
        (&json!("stop"), &json!(24)),
        "{done}"
    );
    let ms = |name: &str| done["timings"][name].as_u64().expect("milliseconds");
    assert!(ms("stt_ms") >= 12 && ms("llm_first_token_ms") >= 30, "{done}");
    assert!(ms("first_audio_ms") >= ms("stt_ms") + 30 + 20 && ms("total_ms") >= 24 * 30, "{done}");
    assert!(ms("first_audio_ms") < ms("total_ms"), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoken_answer_is_one_file_of_sound() {
    let (host, mut fields) = slow_voices();
    let messages = r#"[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]"#;
    fields.extend([("instructions", "Be brief."), ("messages", messages), ("max_tokens", "4")]);
    let response = send(&host, "/v1/audio/chat", &wav(3.0), &fields).await;
    assert_eq!(response.headers()["content-type"], "audio/wav");
    let timings = response.headers()["server-timing"].to_str().expect("text").to_owned();
    assert!(timings.contains("stt;dur=") && timings.contains("first-audio;dur="), "{timings}");
    let sound = response.bytes().await.expect("bytes");
    // Four words.
    assert!(sound.starts_with(b"RIFF") && sound.len() == 44 + 4 * 1600 * 2, "{}", sound.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_spoken_requests_name_the_field() {
    let (host, fields) = slow_voices();
    let with = |field| [fields.as_slice(), &[field]].concat();
    let good = wav(1.0);
    let table: [(_, &[u8], u16, &str); 6] = [
        (fields[1..].to_vec(), &good, 400, "transcription_model"),
        (with(("model", "ghost")), &good, 404, "ghost"),
        (with(("voice", "nobody")), &good, 400, "there are: low, high"),
        (with(("messages", "{")), &good, 400, "messages"),
        (with(("temperature", "9")), &good, 400, "temperature"),
        (fields.clone(), b"RIFF", 400, "file"),
    ];
    for (fields, file, status, named) in table {
        let response = send(&host, "/v1/audio/chat", file, &fields).await;
        let answer =
            Answer { status: response.status().as_u16(), body: response.json().await.expect("json") };
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.error().contains(named), "{answer:?}");
    }
}

/// Waits until no slot of any model is busy.
async fn until_all_idle(host: &Host) {
    let started = Instant::now();
    loop {
        let answer = host.get("/admin/models").await;
        let models = answer.body["data"].as_array().expect("data");
        if models
            .iter()
            .all(|model| model["running"] == 0 && model["stats"]["slots_busy"].as_u64().unwrap_or(0) == 0)
        {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "never idle: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_stops_all_models() {
    let (host, fields) = slow_voices();
    for format in ["audio", "sse"] {
        let fields = [fields.as_slice(), &[("stream_format", format)]].concat();
        let mut chunks = send(&host, "/v1/audio/chat", &wav(60.0), &fields).await.bytes_stream();
        chunks.next().await.expect("chunk").expect("bytes");
        drop(chunks);
        until_all_idle(&host).await;
    }
}
