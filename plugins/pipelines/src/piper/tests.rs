//! The pipeline with a network that only counts: what reaches it, and what becomes of its sound.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use pajamas_plugin_api::{ErrorKind, EventSink, Params, Part};
use serde_json::json;

use super::*;

/// A tensor in memory.
#[derive(Clone)]
struct Memory(Dtype, Vec<i64>, Vec<u8>);

impl Value for Memory {
    fn dtype(&self) -> Dtype {
        self.0
    }

    fn shape(&self) -> &[i64] {
        &self.1
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        Ok(Cow::Borrowed(&self.2))
    }
}

/// Says half of -1 for every id, and remembers its inputs.
#[derive(Clone)]
struct Counter {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    metadata: BTreeMap<String, String>,
    seen: Arc<Mutex<Vec<BTreeMap<String, Memory>>>>,
}

impl TensorRunner for Counter {
    type Value = Memory;

    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn value(&self, tensor: &TensorView<'_>) -> Result<Memory, Error> {
        Ok(Memory(tensor.dtype, tensor.shape.to_vec(), tensor.data.to_vec()))
    }

    fn run(&self, inputs: &[(&str, &Memory)], outputs: &[&str]) -> Result<Vec<Memory>, Error> {
        assert_eq!(outputs, ["output"]);
        let inputs: BTreeMap<_, _> =
            inputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).clone())).collect();
        let len = inputs["input"].1[1];
        self.seen.lock().unwrap().push(inputs);
        Ok(vec![Memory(Dtype::F32, vec![1, 1, 1, len], (-0.5_f32).to_ne_bytes().repeat(len as usize))])
    }
}

impl Networks for Counter {
    type Runner = Self;

    fn open(&self, _file: &Path) -> Result<Self, Error> {
        Ok(self.clone())
    }
}

fn counter(inputs: &[(&str, Dtype)]) -> Counter {
    let spec =
        |(name, dtype): &(&str, Dtype)| TensorSpec { name: (*name).to_owned(), dtype: *dtype, shape: vec![] };
    Counter {
        inputs: inputs.iter().map(spec).collect(),
        outputs: vec![spec(&("output", Dtype::F32))],
        metadata: BTreeMap::new(),
        seen: Arc::default(),
    }
}

/// A voice with two speakers whose phonemes are letters, in a folder of its own.
fn voice() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "audio": { "sample_rate": 16000 }, "phoneme_type": "text", "num_speakers": 2,
        "speaker_id_map": { "amy": 0, "joe": 1 }, "default_speaker_id": 1,
        "phoneme_id_map": { "^": [1], "_": [0], "$": [2], "a": [7], "b": [8], " ": [3] }
    });
    std::fs::write(folder.path().join("x.onnx.json"), config.to_string()).unwrap();
    folder
}

const ALL_INPUTS: [(&str, Dtype); 4] = [INPUTS[0], INPUTS[1], INPUTS[2], (SPEAKER_INPUT, Dtype::I64)];

#[derive(Default)]
struct Recorder {
    chunks: Mutex<Vec<Vec<f32>>>,
    chunks_max: Option<usize>,
}

impl EventSink for Recorder {
    fn push(&self, event: &Event<'_>) -> Flow {
        let mut chunks = self.chunks.lock().unwrap();
        if let Event::Audio { samples, sample_rate_hz: 16000, channels: 1 } = event {
            chunks.push(samples.to_vec());
        }
        if self.chunks_max == Some(chunks.len()) { Flow::Cancelled } else { Flow::Continue }
    }

    fn cancelled(&self) -> bool {
        false
    }
}

type Said = Result<(Finish, Vec<Vec<f32>>), Error>;

fn say(pipeline: &impl Pipeline, text: &str, params: &str, recorder: Recorder) -> Said {
    let request = Request {
        task: Task::Speak,
        params: Params::from_json(params).unwrap(),
        parts: vec![Part::text(text)],
        deadline_ms: None,
    };
    let recorder = Arc::new(recorder);
    let cancel = Arc::new(AtomicBool::new(false));
    let job = Job::new(Arc::clone(&recorder) as Arc<dyn EventSink>, Arc::clone(&cancel));
    let result = pipeline.run(&request, &job);
    cancel.store(true, Ordering::Relaxed);
    job.done(Finish::Stop, Usage::default());
    let chunks = std::mem::take(&mut *recorder.chunks.lock().unwrap());
    result.map(|(finish, _)| (finish, chunks))
}

fn i64s(value: &Memory) -> Vec<i64> {
    value.2.as_chunks::<8>().0.iter().map(|bytes| i64::from_ne_bytes(*bytes)).collect()
}

#[test]
fn the_network_gets_ids_scales_and_speaker() {
    let folder = voice();
    let network = counter(&ALL_INPUTS);
    let options = json!({ "noise_scale": 0.5, "noise_w": 0, "length_scale": 3 });
    let pipeline = open(&folder.path().join("x.onnx"), options.as_object().unwrap(), &network).unwrap();
    let (finish, chunks) =
        say(&pipeline, "ab?", r#"{"voice": "amy", "speed": 2}"#, Recorder::default()).unwrap();
    assert_eq!((finish, chunks), (Finish::Stop, vec![vec![-1.0; 7]]), "as loud as can be");
    let seen = network.seen.lock().unwrap();
    let inputs = &seen[0];
    assert_eq!((i64s(&inputs["input"]), &inputs["input"].1[..]), (vec![1, 0, 7, 0, 8, 0, 2], &[1, 7][..]));
    assert_eq!((i64s(&inputs["input_lengths"]), i64s(&inputs["sid"])), (vec![7], vec![0]));
    assert_eq!(inputs["scales"].2, bytes(&[0.5_f32, 1.5, 0.0], f32::to_ne_bytes));
}

#[test]
fn each_sentence_is_a_chunk_with_silence_before_it() {
    let folder = voice();
    let network = counter(&ALL_INPUTS);
    let options = json!({ "sentence_silence_ms": 10 });
    let pipeline = open(&folder.path().join("x.onnx"), options.as_object().unwrap(), &network).unwrap();
    let long = "a".repeat(phonemes::PHONEMES_MAX + 1);
    let (_, chunks) = say(&pipeline, &long, "{}", Recorder::default()).unwrap();
    assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [2 * phonemes::PHONEMES_MAX + 3, 160 + 5]);
    assert_eq!(chunks[1][..160], [0.0; 160]);
    assert_eq!(i64s(&network.seen.lock().unwrap()[0]["sid"]), [1], "the default speaker");

    network.seen.lock().unwrap().clear();
    let recorder = Recorder { chunks_max: Some(1), ..Recorder::default() };
    let (finish, chunks) = say(&pipeline, &long, "{}", recorder).unwrap();
    assert_eq!((finish, chunks.len(), network.seen.lock().unwrap().len()), (Finish::Cancelled, 1, 1));
}

#[test]
fn a_voice_tells_its_speakers() {
    let folder = voice();
    let pipeline = open(&folder.path().join("x.onnx"), &Map::new(), &counter(&ALL_INPUTS)).unwrap();
    let mut info = ModelInfo::default();
    pipeline.describe(&mut info);
    assert_eq!((info.architecture.as_str(), info.tasks), ("piper", vec![Task::Speak]));
    assert_eq!(info.voices, ["joe", "amy"]);
}

#[test]
fn what_cannot_be_spoken_is_refused() {
    let folder = voice();
    let pipeline = open(&folder.path().join("x.onnx"), &Map::new(), &counter(&ALL_INPUTS)).unwrap();
    for (text, params, expected) in [
        (
            "a",
            r#"{"voice": "alloy"}"#,
            "parameter \"voice\" is \"alloy\"; this model has joe, amy (2 in all)",
        ),
        ("a", r#"{"speed": 9}"#, "parameter \"speed\" is 9, expected 0.25 to 4"),
        ("  ", "{}", "the text to speak is empty"),
    ] {
        let error = say(&pipeline, text, params, Recorder::default()).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Invalid, expected));
    }
}

#[test]
fn another_network_is_no_voice() {
    let folder = voice();
    for (inputs, expected) in [
        (&ALL_INPUTS[1..], "has no input `input` of type I64"),
        (&ALL_INPUTS[..3], "has no input `sid` of type I64"),
    ] {
        let error = open(&folder.path().join("x.onnx"), &Map::new(), &counter(inputs)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::BadModel);
        assert!(error.message().ends_with(expected), "{error}");
    }
}

#[test]
fn sound_that_is_silent_or_no_sound_does_not_become_noise() {
    let mut samples = vec![0.25];
    append_normalized(&bytes(&[1e-9_f32, -1e-9], f32::to_ne_bytes), &mut samples).unwrap();
    assert_eq!(samples, [0.25, 0.0, 0.0]);
    assert!(append_normalized(&f32::NAN.to_ne_bytes(), &mut samples).is_err());
}
