//! The tasks but `generate`: what comes out of one small request each.

use std::collections::BTreeMap;

use pajamas_plugin_api::{Dtype, ErrorKind, Part, Task};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::bench::{Bench, Checked, Loaded, Stop, ensure, fail, request, run, sample_request, skip};
use crate::raw::Seen;

/// Largest distance of a vector's length from 1.
const LENGTH_TOLERANCE: f32 = 1e-2;

/// Runs the sample of a task; the request's number of inputs and the events.
fn run_sample(bench: &Bench<'_>, task: &Task) -> Checked<(Loaded, Vec<Seen>)> {
    let loaded = bench.load_for(task)?;
    let Some(request) = sample_request(task) else {
        return skip("the task cannot be tried without knowing the model");
    };
    let recording = run(&loaded.model, &request)?;
    recording.done()?;
    Ok((loaded, recording.events))
}

fn parse<T: DeserializeOwned>(task: &Task, json: &str) -> Checked<T> {
    serde_json::from_str(json)
        .map_err(|e| Stop::Fail(format!("{task} answered with JSON of another schema: {e}: {json}")))
}

/// Vectors by input, each sent once.
fn vectors(events: Vec<Seen>) -> Checked<BTreeMap<u32, Vec<f32>>> {
    let mut vectors = BTreeMap::new();
    for event in events {
        let Seen::Vector { index, values } = event else { continue };
        ensure!(
            values.iter().all(|v| v.is_finite()),
            "the vector of input {index} has components that are not finite"
        );
        let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        ensure!(
            (length - 1.0).abs() <= LENGTH_TOLERANCE,
            "the vector of input {index} has length {length}, 1 was asked for"
        );
        ensure!(vectors.insert(index, values).is_none(), "input {index} has two vectors");
    }
    Ok(vectors)
}

fn expect_inputs(found: impl Iterator<Item = u32>, inputs: u32, what: &str) -> Checked {
    let found: Vec<u32> = found.collect();
    let expected: Vec<u32> = (0..inputs).collect();
    ensure!(found == expected, "{what} came for the inputs {found:?}, expected are {expected:?}");
    Ok(())
}

pub(super) fn embed(bench: &Bench<'_>) -> Checked {
    let (loaded, events) = run_sample(bench, &Task::Embed)?;
    let vectors = vectors(events)?;
    expect_inputs(vectors.keys().copied(), 2, "vectors")?;
    for values in vectors.values() {
        let expected = loaded.info.embedding_length;
        ensure!(
            expected.is_none_or(|length| length as usize == values.len()),
            "a vector has {} components, the model's info says {expected:?}",
            values.len()
        );
    }
    ensure!(vectors.get(&0) != vectors.get(&1), "different texts have the same vector");
    Ok(())
}

pub(super) fn embed_image(bench: &Bench<'_>) -> Checked {
    let (_, events) = run_sample(bench, &Task::EmbedImage)?;
    expect_inputs(vectors(events)?.into_keys(), 1, "vectors")
}

pub(super) fn rerank(bench: &Bench<'_>) -> Checked {
    #[derive(Deserialize)]
    struct Score {
        index: u32,
        score: f32,
    }
    let (_, events) = run_sample(bench, &Task::Rerank)?;
    let mut scores = BTreeMap::new();
    for event in &events {
        let Seen::Result { index, json } = event else { continue };
        let score: Score = parse(&Task::Rerank, json)?;
        ensure!(score.index == *index, "the event's index is {index}, the JSON's {}", score.index);
        ensure!(score.score.is_finite(), "the score of document {index} is {}", score.score);
        ensure!(scores.insert(*index, score.score).is_none(), "document {index} has two scores");
    }
    expect_inputs(scores.keys().copied(), 2, "scores")?;
    let (unrelated, answer) = (scores.get(&0), scores.get(&1));
    ensure!(
        answer > unrelated,
        "the document that answers the query scores {answer:?}, an unrelated one {unrelated:?}"
    );
    Ok(())
}

pub(super) fn tokenize(bench: &Bench<'_>) -> Checked {
    let (_, events) = run_sample(bench, &Task::Tokenize)?;
    let tensors: Vec<_> =
        events.iter().filter_map(|e| if let Seen::Tensors(t) = e { Some(t) } else { None }).collect();
    match tensors.as_slice() {
        [tensors] => match tensors.as_slice() {
            [(name, Dtype::I32 | Dtype::U32, shape)]
                if name == "tokens" && shape.len() == 1 && shape[0] > 0 =>
            {
                Ok(())
            }
            other => fail(format!(
                "one tensor \"tokens\" of 32-bit integers in one dimension is needed: {other:?}"
            )),
        },
        other => fail(format!("{} TENSORS events came, one is needed", other.len())),
    }
}

pub(super) fn detect(bench: &Bench<'_>) -> Checked {
    #[derive(Deserialize)]
    struct Found {
        detections: Vec<Detection>,
    }
    #[derive(Debug, Deserialize)]
    struct Detection {
        x: f32,
        y: f32,
        width: f32,
        height: f32,
        confidence: f32,
        #[serde(rename = "class_id")]
        _class_id: u32,
        #[serde(rename = "class_name")]
        _class_name: String,
    }
    let (_, events) = run_sample(bench, &Task::Detect)?;
    let documents: Vec<_> =
        events.iter().filter_map(|e| if let Seen::Detections(j) = e { Some(j) } else { None }).collect();
    ensure!(documents.len() == 1, "{} DETECTIONS events came for one picture", documents.len());
    for json in documents {
        let found: Found = parse(&Task::Detect, json)?;
        // The picture of the sample is 64 by 48 pixels.
        let is_inside = |d: &Detection| {
            d.x >= 0.0
                && d.y >= 0.0
                && d.x + d.width <= 64.5
                && d.y + d.height <= 48.5
                && (0.0..=1.0).contains(&d.confidence)
        };
        if let Some(outside) = found.detections.iter().find(|detection| !is_inside(detection)) {
            return fail(format!(
                "a box leaves the picture of 64 by 48 pixels, or its confidence 0 to 1: {outside:?}"
            ));
        }
    }
    Ok(())
}

pub(super) fn classify(bench: &Bench<'_>) -> Checked {
    #[derive(Deserialize)]
    struct Classes {
        classes: Vec<Class>,
    }
    #[derive(Deserialize)]
    struct Class {
        score: f32,
        #[serde(rename = "class_id")]
        _class_id: u32,
        #[serde(rename = "class_name")]
        _class_name: String,
    }
    let (_, events) = run_sample(bench, &Task::Classify)?;
    let documents: Vec<_> = events
        .iter()
        .filter_map(|e| if let Seen::Result { json, .. } = e { Some(json) } else { None })
        .collect();
    ensure!(documents.len() == 1, "{} RESULT events came for one picture", documents.len());
    for json in documents {
        let classes = parse::<Classes>(&Task::Classify, json)?.classes;
        ensure!(!classes.is_empty(), "the picture has no class");
        ensure!(classes.is_sorted_by(|a, b| a.score >= b.score), "the classes are not sorted, best first");
    }
    Ok(())
}

pub(super) fn transcribe(bench: &Bench<'_>) -> Checked {
    #[derive(Deserialize)]
    struct Segment {
        start_s: f32,
        end_s: f32,
        #[serde(rename = "text")]
        _text: String,
    }
    let (_, events) = run_sample(bench, &Task::Transcribe)?;
    let mut last_s = 0.0;
    for event in &events {
        let Seen::Segment(json) = event else { continue };
        let segment: Segment = parse(&Task::Transcribe, json)?;
        ensure!(
            segment.start_s >= last_s && segment.end_s >= segment.start_s,
            "a segment from {} s to {} s follows one that begins at {last_s} s",
            segment.start_s,
            segment.end_s
        );
        last_s = segment.start_s;
    }
    Ok(())
}

pub(super) fn speak(bench: &Bench<'_>) -> Checked {
    let (loaded, events) = run_sample(bench, &Task::Speak)?;
    let mut format = None;
    let mut total = 0;
    for event in &events {
        let Seen::Audio { samples, sample_rate_hz, channels } = event else { continue };
        ensure!((8_000..=192_000).contains(sample_rate_hz), "sound has {sample_rate_hz} frames per second");
        ensure!((1..=2).contains(channels), "sound has {channels} channels");
        ensure!(
            samples.is_multiple_of(*channels as usize),
            "a chunk of {samples} samples has a part of a frame"
        );
        let first = *format.get_or_insert((*sample_rate_hz, *channels));
        ensure!(first == (*sample_rate_hz, *channels), "the format of the sound changes within a job");
        total += samples;
    }
    ensure!(total > 0, "no sound came");
    let voice = "no voice of any model has this name";
    let refused = request(Task::Speak, json!({ "voice": voice }), vec![Part::text("hello")]);
    let recording = run(&loaded.model, &refused)?;
    let (kind, message) = recording.error()?;
    ensure!(kind == ErrorKind::Invalid, "an unknown voice is {kind:?}: {message}");
    Ok(())
}
