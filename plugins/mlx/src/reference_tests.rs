//! The network against `mlx_lm`: the checkpoints of `testdata`, whose logits `testdata/make.py` recorded.

use std::path::{Path, PathBuf};

use mlx_rs::Array;
use mlx_rs::transforms::eval;
use pajamas_generation::checkpoint::CheckpointVocabulary;
use pajamas_generation::{Batch, LmRunner, Vocabulary};

use crate::config::Config;
use crate::device::Place;
use crate::files::Checkpoint;
use crate::network::Network;
use crate::runner::MlxRunner;
use crate::streams;
use crate::weights::Weights;

/// Largest difference of a logit. The logits' own spread is about 1 to 10, the weights are float32.
const TOLERANCE: f32 = 2e-4;

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<_> = testdata()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("expected.safetensors").exists())
        .collect();
    cases.sort();
    cases
}

fn runner(folder: &Path, float32: bool) -> MlxRunner {
    let config = Config::parse(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
    let network = streams::run(Place::Cpu, || {
        let mut weights = Weights::open(&[folder.join("model.safetensors")], &config, float32).unwrap();
        let network = Network::build(&config, &mut weights).unwrap();
        eval(network.arrays()).unwrap();
        network
    });
    MlxRunner::new(network, 3, 64, Place::Cpu)
}

fn expected(folder: &Path) -> (Vec<i32>, Vec<Vec<f32>>) {
    streams::run(Place::Cpu, || {
        let mut arrays = Array::load_safetensors(folder.join("expected.safetensors")).unwrap();
        let tokens = arrays.remove("tokens").unwrap();
        let logits = arrays.remove("logits").unwrap();
        let columns = logits.dim(1) as usize;
        let rows = logits.as_slice::<f32>().chunks(columns).map(<[f32]>::to_vec).collect();
        (tokens.as_slice::<i32>().to_vec(), rows)
    })
}

/// Computes one step and compares the logits of every row: (sequence, position of its first row, tokens).
fn step(runner: &mut MlxRunner, parts: &[(usize, usize, &[i32])], expected: &[Vec<f32>], what: &str) {
    let mut batch = Batch::default();
    let mut rows = Vec::new();
    for (sequence, first, tokens) in parts {
        for (position, token) in (*first..).zip(*tokens) {
            rows.push((batch.push(*token, position, *sequence, true), position));
        }
    }
    runner.decode(&mut batch, &|| false).unwrap();
    for (row, position) in rows {
        let logits = runner.logits(&[row])[0].unwrap();
        let difference =
            logits.iter().zip(&expected[position]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(logits.len() == expected[position].len(), "{what}: {} logits", logits.len());
        assert!(difference <= TOLERANCE, "{what}: position {position} differs by {difference}");
    }
}

#[test]
fn every_family_computes_what_mlx_lm_does() {
    let cases = cases();
    assert!(cases.len() >= 13, "{} cases", cases.len());
    for folder in cases {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let (tokens, logits) = expected(&folder);
        // Unpacked, a packed matrix has the same values, so the result is the same.
        let mut unpacked = runner(&folder, true);
        step(&mut unpacked, &[(0, 0, &tokens)], &logits, &format!("{name}, unpacked"));
        let mut runner = runner(&folder, false);
        // The whole prompt at once.
        step(&mut runner, &[(0, 0, &tokens)], &logits, &format!("{name}, at once"));
        // A prompt, then token by token, beside another sequence that reads its prompt in two parts.
        step(&mut runner, &[(1, 0, &tokens[..5])], &logits, &format!("{name}, prompt"));
        for position in 5..tokens.len() {
            let one = &tokens[position..=position];
            let what = format!("{name}, token {position}");
            match position {
                6 => step(&mut runner, &[(1, position, one), (2, 0, &tokens[..4])], &logits, &what),
                7 => step(&mut runner, &[(1, position, one), (2, 4, &tokens[4..9])], &logits, &what),
                8.. if position + 1 < tokens.len() => {
                    let other = &tokens[position + 1..position + 2];
                    step(&mut runner, &[(1, position, one), (2, position + 1, other)], &logits, &what);
                }
                _ => step(&mut runner, &[(1, position, one)], &logits, &what),
            }
        }
        // A copy goes on by itself, and what was removed is computed again.
        runner.remove(0, 0);
        runner.copy(1, 0);
        assert!(runner.remove(0, 6));
        step(&mut runner, &[(0, 6, &tokens[6..])], &logits, &format!("{name}, copied"));
        assert!(runner.remove(1, 9));
        step(&mut runner, &[(1, 9, &tokens[9..])], &logits, &format!("{name}, removed"));
    }
}

#[test]
fn a_step_is_abandoned_when_nobody_waits() {
    let folder = testdata().join("llama");
    let (tokens, logits) = expected(&folder);
    let mut runner = runner(&folder, false);
    step(&mut runner, &[(0, 0, &tokens[..4])], &logits, "before");
    let mut batch = Batch::default();
    (0..40).for_each(|position| {
        batch.push(1, 4 + position, 0, position == 39);
    });
    let result = runner.decode(&mut batch, &|| true);
    assert_eq!(result, Err(pajamas_generation::DecodeError::Aborted));
    // What the step wrote is not part of the sequence.
    assert!(runner.remove(0, 4));
    step(&mut runner, &[(0, 4, &tokens[4..])], &logits, "after");
}

#[test]
fn a_damaged_checkpoint_is_refused_with_the_name_of_what_is_wrong() {
    let folder = testdata().join("qwen3");
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let build = |text: &str| {
        let config = Config::parse(text)?;
        let mut weights = Weights::open(&[folder.join("model.safetensors")], &config, false)?;
        Network::build(&config, &mut weights).map(|_| ())
    };
    for (from, to, expected) in [
        ("\"hidden_size\": 32", "\"hidden_size\": 64", "`model.embed_tokens.weight` is of shape [40, 32]"),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            "has no `model.layers.2.input_layernorm.weight`",
        ),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 0",
            "`num_hidden_layers` is 0, expected 1 to 1024",
        ),
        ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "which is no multiple of the 3"),
        ("\"qwen3\"", "\"qwen9\"", "`model_type` is qwen9"),
        ("\"vocab_size\": 40", "\"vocab_size\": \"many\"", "vocab_size: invalid type"),
        ("\"rope_theta\"", "\"rope_scaling\": {\"type\": \"magic\"}, \"rope_theta\"", "of type magic"),
    ] {
        assert!(text.contains(from), "{from} is not in {text}");
        let error = build(&text.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
    build(&text).unwrap();
}

#[test]
fn the_perplexity_of_a_text_is_that_of_mlx_lm() {
    let path = testdata().join("smollm2.json");
    let recorded: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let text = recorded["text"].as_str().unwrap();
    let mut found = Vec::new();
    for name in ["smollm2-mlx", "smollm2-mlx-4bit"] {
        let Some(folder) = pajamas_test_models::model(name) else { return };
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let vocabulary = CheckpointVocabulary::open(&folder, 49_152, &checkpoint.texts).unwrap();
        let mut tokens = Vec::new();
        vocabulary.encode(text, &mut tokens);
        let network = streams::run(Place::Cpu, || {
            let mut weights = Weights::open(&checkpoint.weights, &checkpoint.config, true).unwrap();
            let network = Network::build(&checkpoint.config, &mut weights).unwrap();
            eval(network.arrays()).unwrap();
            network
        });
        let mut runner = MlxRunner::new(network, 1, 512, Place::Cpu);
        let mut batch = Batch::default();
        for (position, token) in tokens.iter().enumerate() {
            batch.push(*token, position, 0, true);
        }
        runner.decode(&mut batch, &|| false).unwrap();
        let mut surprise = |(row, next): (usize, &i32)| {
            let logits = runner.logits(&[row])[0].unwrap();
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
            sum.ln() - f64::from(logits[usize::try_from(*next).unwrap()] - max)
        };
        let total: f64 = tokens[1..].iter().enumerate().map(&mut surprise).sum();
        let perplexity = (total / (tokens.len() - 1) as f64).exp();
        let expected = recorded[name]["perplexity"].as_f64().unwrap();
        assert!((perplexity / expected - 1.0).abs() < 1e-3, "{name}: {perplexity}, mlx_lm {expected}");
        found.push(perplexity);
    }
    // A small model loses more than a large one when it is packed.
    assert!(found[1] > found[0] && found[1] < 1.35 * found[0], "{found:?}");
}
