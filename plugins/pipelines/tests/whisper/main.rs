//! Whisper tiny.en on 44 s of read speech, compared with the text and with what faster-whisper makes of it
//! (`xtask/python/reference/whisper.py`).
#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "skipped tests say so loudly")]

#[path = "../ort/mod.rs"]
mod ort;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ort::{OrtNetwork, OrtNetworks};
use pajamas_pipelines::Pipeline;
use pajamas_pipelines::whisper::{self, WhisperPipeline};
use pajamas_plugin_api::{
    Error, ErrorKind, Event, EventSink, Finish, Flow, Job, ModelInfo, Params, Part, Request, Task, Usage,
};
use pajamas_test_models::model;
use serde::Deserialize;
use serde_json::{Value, json};

const MODEL: &str = "whisper-tiny-en";
const SOUND: &str = "samples/two_cities.wav";

/// Charles Dickens, A Tale of Two Cities, 1859: what is read.
const TEXT: &str = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of \
    foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of light, it was the \
    season of darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had \
    nothing before us, we were all going direct to heaven, we were all going direct the other way. In short, the period \
    was so far like the present period, that some of its noisiest authorities insisted on its being received, for good \
    or for evil, in the superlative degree of comparison only.";

/// A time and text from the reference: begin, end, text.
type Timed = (f64, f64, String);

#[derive(Deserialize)]
struct Reference {
    segments: Vec<Timed>,
    words: Vec<Timed>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../../testdata/whisper_two_cities.json")).unwrap()
}

fn open(options: Value) -> Option<Result<WhisperPipeline<OrtNetwork>, Error>> {
    let (folder, networks) = (model(MODEL)?, OrtNetworks::from_environment()?);
    Some(whisper::open(&folder, options.as_object().unwrap(), networks))
}

/// Mono sound at 16 kHz from a WAV file of 16 bits at 48 kHz: every third sample behind a low pass of 7.5 kHz.
fn sound() -> Option<Vec<f32>> {
    const TAPS: isize = 48;
    let file = std::fs::read(model(SOUND)?).unwrap();
    let data = file.windows(4).position(|word| word == b"data").unwrap() + 8;
    assert_eq!(&file[22..28], [1, 0, 0x80, 0xBB, 0, 0], "mono at 48 kHz");
    let samples: Vec<f64> =
        file[data..].as_chunks().0.iter().map(|s| f64::from(i16::from_le_bytes(*s)) / 32768.0).collect();
    // A sinc under a Hann window.
    let cutoff = 7_500.0 / 24_000.0;
    let tap = |i: isize| {
        let x = std::f64::consts::PI * i as f64;
        let sinc = if i == 0 { cutoff } else { (cutoff * x).sin() / x };
        sinc * (0.5 + 0.5 * (x / (TAPS + 1) as f64).cos())
    };
    let taps: Vec<f64> = (-TAPS..=TAPS).map(tap).collect();
    let at = |i: isize| usize::try_from(i).ok().and_then(|i| samples.get(i)).copied().unwrap_or(0.0);
    let filtered = (0..samples.len() as isize)
        .step_by(3)
        .map(|centre| taps.iter().zip(centre - TAPS..).map(|(tap, i)| tap * at(i)).sum::<f64>() as f32);
    Some(filtered.collect())
}

#[derive(Default)]
struct Sink {
    segments: Mutex<Vec<Value>>,
    /// Cancels after so many segments; 0: never.
    segments_max: usize,
    polls: AtomicUsize,
}

impl EventSink for Sink {
    fn push(&self, event: &Event<'_>) -> Flow {
        if let Event::Segment { json } = event {
            self.segments.lock().unwrap().push(serde_json::from_str(json).unwrap());
        }
        Flow::Continue
    }

    fn cancelled(&self) -> bool {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.segments_max > 0 && self.segments.lock().unwrap().len() >= self.segments_max
    }
}

fn run(
    model: &WhisperPipeline<OrtNetwork>,
    sound: &[f32],
    params: Value,
    sink: Sink,
) -> Result<(Finish, Usage, Vec<Value>), Error> {
    let sink = Arc::new(sink);
    let job = Job::new(Arc::clone(&sink) as Arc<dyn EventSink>, Arc::new(AtomicBool::new(false)));
    let request = Request {
        task: Task::Transcribe,
        params: Params::from(params),
        parts: vec![Part::Pcm(sound.to_vec())],
        deadline_ms: None,
    };
    let result = model.run(&request, &job);
    job.done(Finish::Stop, Usage::default());
    let segments = std::mem::take(&mut *sink.segments.lock().unwrap());
    result.map(|(finish, usage)| (finish, usage, segments))
}

fn words_of(text: &str) -> Vec<String> {
    let words = text.split_whitespace().map(|word| word.to_lowercase());
    words
        .map(|word| word.chars().filter(|c| c.is_alphanumeric()).collect())
        .filter(|w: &String| !w.is_empty())
        .collect()
}

/// Insertions, deletions and replacements by the number of words of `expected`.
fn word_error_rate(found: &str, expected: &str) -> f64 {
    let (found, expected) = (words_of(found), words_of(expected));
    let mut above: Vec<usize> = (0..=expected.len()).collect();
    for (i, word) in found.iter().enumerate() {
        let mut here = vec![i + 1];
        for (j, other) in expected.iter().enumerate() {
            here.push((above[j] + usize::from(word != other)).min(above[j + 1] + 1).min(here[j] + 1));
        }
        above = here;
    }
    above[expected.len()] as f64 / expected.len() as f64
}

fn text_of(segments: &[Value]) -> String {
    segments.iter().map(|segment| segment["text"].as_str().unwrap()).collect()
}

fn times(value: &Value) -> (f64, f64) {
    (value["start_s"].as_f64().unwrap(), value["end_s"].as_f64().unwrap())
}

#[test]
fn segments_are_those_of_the_reference() {
    let (Some(model), Some(sound)) = (open(json!({"vad": false})), sound()) else { return };
    let model = model.unwrap();
    let (finish, usage, segments) = run(&model, &sound, json!({}), Sink::default()).unwrap();
    segments.iter().for_each(|segment| eprintln!("{segment}"));
    assert_eq!(finish, Finish::Stop);
    assert!(usage.completion_tokens > 100, "{usage:?}");
    let rate = word_error_rate(&text_of(&segments), TEXT);
    eprintln!("word error rate {rate:.3}");
    assert!(rate <= 0.1, "word error rate {rate}");
    let expected = reference().segments;
    assert_eq!(segments.len(), expected.len());
    for (segment, (start_s, end_s, text)) in segments.iter().zip(&expected) {
        let (start, end) = times(segment);
        assert!(
            (start - start_s).abs() <= 0.3 && (end - end_s).abs() <= 0.3,
            "{segment} is not {start_s}..{end_s}"
        );
        assert!(word_error_rate(segment["text"].as_str().unwrap(), text) < 0.1, "{segment} is not {text}");
        assert_eq!(segment["language"], "en");
        assert!(segment.get("words").is_none());
    }
}

#[test]
fn words_are_where_the_reference_hears_them() {
    let (Some(model), Some(sound)) = (open(json!({"vad": false})), sound()) else { return };
    let (_, _, segments) =
        run(&model.unwrap(), &sound, json!({"word_times": true, "language": "en"}), Sink::default()).unwrap();
    let words: Vec<Value> = segments.iter().flat_map(|s| s["words"].as_array().unwrap().clone()).collect();
    let expected = reference().words;
    let mut differences: Vec<f64> = Vec::new();
    let mut rest = expected.iter();
    for word in &words {
        // Both heard nearly the same words; one that only one heard is skipped.
        let mut ahead = rest.clone().take(4);
        let Some(skipped) =
            ahead.position(|(_, _, text)| words_of(text) == words_of(word["text"].as_str().unwrap()))
        else {
            continue;
        };
        let (start_s, end_s, _) = rest.nth(skipped).unwrap();
        let (start, end) = times(word);
        assert!(start <= end, "{word}");
        differences.extend([(start - start_s).abs(), (end - end_s).abs()]);
    }
    assert!(
        differences.len() > 2 * expected.len() * 9 / 10,
        "{} of {} words",
        differences.len() / 2,
        expected.len()
    );
    differences.sort_by(f64::total_cmp);
    let (median, most) = (differences[differences.len() / 2], differences[differences.len() * 95 / 100]);
    eprintln!("times of words differ by {median:.2} s, 95 % of them by at most {most:.2} s");
    assert!(median < 0.2, "{median}");
}

#[test]
fn speech_is_found_between_silence() {
    let (Some(model), Some(sound)) = (open(json!({})), sound()) else { return };
    let model = model.unwrap();
    let silence = vec![0.0; 20 * 16_000];
    let sounds = [silence.as_slice(), &sound, &silence, &sound[..5 * 16_000]].concat();
    let (_, _, segments) = run(&model, &sounds, json!({"word_times": true}), Sink::default()).unwrap();
    segments.iter().for_each(|segment| eprintln!("{segment}"));
    let rate = word_error_rate(
        &text_of(&segments),
        &format!("{TEXT} It was the best of times, it was the worst of times."),
    );
    eprintln!("word error rate {rate:.3}");
    assert!(rate <= 0.1, "word error rate {rate}");
    // The first word is spoken at 0.8 s, after 20 s of silence; the last part begins after 84.4 s.
    assert!((times(&segments[0]).0 - 20.8).abs() < 0.3, "{}", segments[0]);
    assert!((times(segments.last().unwrap()).0 - 85.2).abs() < 0.5, "{}", segments.last().unwrap());
    assert!(segments.is_sorted_by(|a, b| times(a).0 <= times(b).0));

    let (_, usage, segments) = run(&model, &[0.0; 40 * 16_000], json!({}), Sink::default()).unwrap();
    assert!(segments.is_empty() && usage.completion_tokens == 0, "silence is left out: {segments:?}");
}

#[test]
fn draws_are_repeatable_and_prompts_are_counted() {
    let (Some(model), Some(sound)) = (open(json!({})), sound()) else { return };
    let (model, sound) = (model.unwrap(), &sound[..8 * 16_000]);
    let hot = |seed: u64| {
        let params = json!({"temperature": 0.9, "seed": seed, "prompt": "Charles Dickens <|endoftext|>"});
        run(&model, sound, params, Sink::default()).unwrap()
    };
    let (_, usage, first) = hot(1);
    assert_eq!(first, hot(1).2);
    assert!(usage.prompt_tokens >= 2, "{usage:?}");
    assert!(first.iter().all(|segment| segment["temperature"].as_f64().unwrap() > 0.89), "{first:?}");
}

#[test]
fn a_cancelled_job_ends_within_a_token() {
    let (Some(model), Some(sound)) = (open(json!({"vad": false})), sound()) else { return };
    let model = model.unwrap();
    let sink = Sink { segments_max: 1, ..Sink::default() };
    let (finish, usage, segments) = run(&model, &sound, json!({}), sink).unwrap();
    assert_eq!(finish, Finish::Cancelled);
    assert!(usage.completion_tokens > 0 && !segments.is_empty());
}

#[test]
fn what_the_model_cannot_do_is_said() {
    let Some(model) = open(json!({})) else { return };
    let model = model.unwrap();
    let mut info = ModelInfo::default();
    model.describe(&mut info);
    assert_eq!(
        (info.architecture.as_str(), info.tasks.as_slice()),
        ("whisper", [Task::Transcribe].as_slice())
    );
    assert_eq!((info.context_length, info.vocab_size), (Some(448), Some(51_864)));
    let cases = [
        (json!({"language": "de"}), ErrorKind::Unsupported, "language: "),
        (json!({"translate": true}), ErrorKind::Unsupported, "translate: "),
        (json!({"temperature": -1}), ErrorKind::Invalid, "temperature is -1"),
        (json!({"temperature": "hot"}), ErrorKind::Invalid, "parameters of transcribe: "),
    ];
    for (params, kind, message) in cases {
        let error = run(&model, &[0.0; 16_000], params, Sink::default()).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.message().starts_with(message), "{error}");
    }
    // Nothing to hear.
    for samples in [0, 1, 159, 160] {
        let (_, _, segments) = run(&model, &vec![0.0; samples], json!({}), Sink::default()).unwrap();
        assert!(segments.is_empty(), "{samples} samples: {segments:?}");
    }
}

#[test]
fn options_are_checked() {
    let cases = [
        (json!({"vat": true}), ErrorKind::Invalid, "unknown field `vat`"),
        (json!({"vad": 3}), ErrorKind::Invalid, "expected true, false or the path of silero_vad.onnx"),
        (json!({"vad": "nowhere.onnx"}), ErrorKind::NotFound, "there is no file nowhere.onnx"),
        (json!({"variant": "tiny"}), ErrorKind::NotFound, "_tiny.onnx"),
    ];
    for (options, kind, message) in cases {
        let Some(model) = open(options) else { return };
        let error = model.err().unwrap();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(message), "{error}");
    }
}
