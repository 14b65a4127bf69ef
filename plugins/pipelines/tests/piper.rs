//! Piper's phonemes, ids and sound, compared with those of its own Python (`testdata/piper.json`).
//!
//! espeak-ng is taken from beside the plugin `system-tts`, or from the system; the voice `piper-joe` from
//! `PAJAMAS_TEST_MODELS` or the cache folder; ONNX Runtime's library from `PAJAMAS_TEST_ONNXRUNTIME`. Without one of them
//! its tests say that they were skipped.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests, outside of test functions"
)]
#![expect(clippy::print_stderr, reason = "a skipped test must be seen")]

#[path = "piper/recorded.rs"]
mod recorded;

mod ort;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ort::OrtNetworks;
use pajamas_pipelines::espeak::{self, Clause, Espeak};
use pajamas_pipelines::{Pipeline, piper};
use pajamas_plugin_api::{Event, EventSink, Finish, Flow, Job, Part, Request, Task, Usage};
use recorded::RecordedNetworks;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Reference {
    step: usize,
    texts: Vec<Phonemized>,
    spoken: Vec<Spoken>,
}

#[derive(Deserialize)]
struct Phonemized {
    voice: String,
    text: String,
    sentences: Vec<String>,
}

#[derive(Deserialize)]
struct Spoken {
    text: String,
    speed: f32,
    ids: Vec<Vec<i64>>,
    lengths: Vec<usize>,
    samples: Vec<Vec<f32>>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../testdata/piper.json")).unwrap()
}

fn espeak() -> Option<Espeak> {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../system-tts/lib/espeak-ng");
    espeak::search_in(&plugins);
    match Espeak::open(None) {
        Ok(espeak) => Some(espeak),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// The sentences as piper-tts joins clauses, without what only its own build of espeak-ng writes: that one is newer than
/// any release and marks a glide, as in `hiːʲ ɪz`, which the voices were not trained with.
fn sentences(clauses: &[Clause]) -> Vec<String> {
    let mut sentences = vec![String::new()];
    for clause in clauses {
        let sentence = sentences.last_mut().unwrap();
        sentence.push_str(&clause.phonemes);
        if let Some(mark) = clause.terminator {
            sentence.push(mark);
            if ",:;".contains(mark) {
                sentence.push(' ');
            }
        }
        if clause.ends_sentence {
            sentences.push(String::new());
        }
    }
    if sentences.last().is_some_and(String::is_empty) {
        sentences.pop();
    }
    sentences
}

#[test]
fn phonemes_are_those_of_pipers_own_phonemizer() {
    use unicode_normalization::UnicodeNormalization as _;
    let Some(espeak) = espeak() else { return };
    let plain = |text: &str| text.nfd().collect::<String>().replace('ʲ', "");
    for Phonemized { voice, text, sentences: expected } in reference().texts {
        let clauses = espeak.clauses(&voice, &text).unwrap();
        let found: Vec<_> = sentences(&clauses).iter().map(|sentence| plain(sentence)).collect();
        let expected: Vec<_> = expected.iter().map(|sentence| plain(sentence)).collect();
        assert_eq!(found, expected, "{voice}: {text}");
    }
}

#[test]
fn texts_do_not_change_each_others_phonemes() {
    let Some(espeak) = espeak() else { return };
    let texts = ["Hello.", "no end", "What? ", "a, ", "x.\n\n", "\u{1}V de", ""];
    let alone: Vec<_> = texts.map(|text| espeak.clauses("en-us", text).unwrap()).into();
    std::thread::scope(|scope| {
        for voice in ["en-us", "de"] {
            let (texts, alone) = (&texts, &alone);
            scope.spawn(move || {
                for (text, expected) in texts.iter().zip(alone).cycle().take(200) {
                    let found = espeak.clauses(voice, text).unwrap();
                    if voice == "en-us" {
                        assert_eq!(&found, expected, "{text:?}");
                    }
                }
            });
        }
    });
}

#[test]
fn the_synthesizer_speaks_and_stops_when_told() {
    let Some(espeak) = espeak() else { return };
    let speak = |speed| {
        let mut sound = Vec::new();
        let mut sink = |samples: &[i16]| {
            sound.extend_from_slice(samples);
            true
        };
        espeak.speak("en-us+f3", speed, "Hello there, how are you?", &mut sink).unwrap();
        sound
    };
    let (first, again, fast) = (speak(1.0), speak(1.0), speak(2.0));
    assert!(first.len() > 22_050 && first.iter().any(|sample| sample.abs() > 1000), "{}", first.len());
    // The library's oscillators go on where they were, so that no two are quite alike.
    let is_alike = |other: &Vec<i16>| other.len().abs_diff(first.len()) < 200;
    assert!(is_alike(&again), "{} and {}", again.len(), first.len());
    assert!(fast.len() * 3 < first.len() * 2, "{} and {}", fast.len(), first.len());

    let mut chunks = 0;
    let mut one = |_: &[i16]| {
        chunks += 1;
        false
    };
    espeak.speak("en-us", 1.0, &"many words ".repeat(1000), &mut one).unwrap();
    assert_eq!(chunks, 1);
    assert!(is_alike(&speak(1.0)), "nothing is left of one that was ended");
}

#[test]
fn voices_are_listed_and_others_refused() {
    let Some(espeak) = espeak() else { return };
    let voices = espeak.voices();
    assert!(voices.list().len() > 80, "{}", voices.list().len());
    for name in ["en-us", "en-gb-x-rp", "es-419", "pt-br", "cmn", "no", "English (America)", "de+m3"] {
        voices.check(name).unwrap();
    }
    for voice in voices.list() {
        espeak.clauses(&voice.id, "1 2 3").unwrap();
    }
    for name in ["", "no-such-voice", "../../../etc/passwd", "en-us\0", "+f3"] {
        let message = espeak.clauses(name, "x").unwrap_err().to_string();
        assert!(message.contains("of espeak-ng, such as"), "{message}");
    }
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Vec<f32>>>);

impl EventSink for Recorder {
    fn push(&self, event: &Event<'_>) -> Flow {
        if let Event::Audio { samples, .. } = event {
            self.0.lock().unwrap().push(samples.to_vec());
        }
        Flow::Continue
    }

    fn cancelled(&self) -> bool {
        false
    }
}

fn say(pipeline: &impl Pipeline, text: &str, speed: f32) -> Vec<Vec<f32>> {
    let request = Request {
        task: Task::Speak,
        params: json!({ "speed": speed }).into(),
        parts: vec![Part::text(text)],
        deadline_ms: None,
    };
    let recorder = Arc::new(Recorder::default());
    let job = Job::new(Arc::clone(&recorder) as Arc<dyn EventSink>, Arc::new(AtomicBool::new(false)));
    assert_eq!(pipeline.run(&request, &job).unwrap(), (Finish::Stop, Usage::default()));
    job.done(Finish::Stop, Usage::default());
    std::mem::take(&mut recorder.0.lock().unwrap())
}

#[test]
fn sound_is_that_of_pipers_own_python() {
    let (Some(file), Some(_)) = (pajamas_test_models::model("piper-joe/en_US-joe-medium.onnx"), espeak())
    else {
        return;
    };
    let Some(networks) = OrtNetworks::from_environment() else { return };
    let options = json!({ "noise_scale": 0, "noise_w": 0, "sentence_silence_ms": 0 });
    let networks = RecordedNetworks::new(networks);
    let pipeline = piper::open(&file, options.as_object().unwrap(), &networks).unwrap();
    let reference = reference();
    for Spoken { text, speed, ids, lengths, samples } in &reference.spoken {
        let started = Instant::now();
        let chunks = say(&pipeline, text, *speed);
        let elapsed_s = started.elapsed().as_secs_f64();
        let sound_s = chunks.iter().map(Vec::len).sum::<usize>() as f64 / 22_050.0;
        eprintln!(
            "{text:?} at {speed}: {sound_s:.2} s of sound, real-time factor {:.3}",
            elapsed_s / sound_s
        );
        assert_eq!(&networks.take_ids(), ids, "{text}");
        assert_eq!(&chunks.iter().map(Vec::len).collect::<Vec<_>>(), lengths, "{text}");
        for (chunk, expected) in chunks.iter().zip(samples) {
            let kept = chunk.iter().step_by(reference.step);
            let worst = kept.zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-3, "{text}: a sample differs by {worst}");
        }
    }
}
