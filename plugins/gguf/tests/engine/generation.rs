//! Generation: what any engine does, and what only llama.cpp's shared cache does.

use pajamas_generation_tests::support::{Running, generate, greedy, start};
use pajamas_plugin_api::{Finish, GenerateParams, Model};
use serde_json::json;

use crate::support::{SMOLLM2, load, load_smollm2};

pajamas_generation_tests::behaviours!(load_smollm2);

#[test]
fn a_shared_cache_that_fills_up_makes_streams_wait_and_then_continue() {
    let Some(model) = load(SMOLLM2, json!({"slots": 4, "kv_unified": true, "context": 512})) else { return };
    let endless = GenerateParams { ignore_eos: true, ..greedy(200) };
    let running: Vec<_> = (0..4).map(|i| start(&model, generate(&format!("Story {i}"), &endless))).collect();
    let answers = running.into_iter().map(Running::wait);
    for answer in answers {
        assert_eq!((answer.error, answer.finish, answer.tokens.len()), (None, Some(Finish::Length), 200));
    }
    assert!(model.stats().counters["preemptions"] > 0.0);
}
