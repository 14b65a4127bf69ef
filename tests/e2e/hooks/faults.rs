//! Every fault of the hook `rogue`: what the client sees, and that nobody else sees anything.

use std::pin::pin;
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::media::{transcribe, wav};
use super::{check_error, component, put, says, start, table};
use crate::harness::{Answer, Host, PATIENCE, Setup, resident_kb};

const MIB: usize = 1024 * 1024;

/// Puts a `rogue` that commits a fault.
async fn order(host: &Host, config: Value, on_error: &str) {
    // More time than the default, so that a busy machine changes nothing but the fault `loop`.
    let limits = json!({"cpu_ms": 500});
    let body = json!({"path": component("rogue"), "config": config, "on_error": on_error, "limits": limits});
    let answer = put(host, "rogue", &body).await;
    assert_eq!(answer.status, 200, "{body}: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_in_text_refuse_the_request_or_are_passed_over() {
    let host = Setup::echo().start();
    let table: [(Value, &[&str]); 8] = [
        (json!({"fault": "loop"}), &["used more than 500 ms of processor time"]),
        (json!({"fault": "recurse"}), &["it trapped"]),
        (json!({"fault": "grow"}), &["needs more than 67108864 bytes of memory"]),
        (json!({"fault": "huge_output"}), &["needs more than 67108864 bytes of memory"]),
        (json!({"fault": "huge_output", "bytes": 40_000_000}), &["returned more than 33554432 bytes"]),
        (json!({"fault": "trap"}), &["it trapped", "unreachable"]),
        (json!({"fault": "panic"}), &["it trapped", "unreachable"]),
        (json!({"fault": "bad_source", "in": "input"}), &["malformed", "4294967295"]),
    ];
    for (config, parts) in table {
        for direction in ["input", "output"] {
            let mut config = config.clone();
            if config["fault"] == "bad_source" && direction == "output" {
                continue;
            }
            config["in"] = json!(direction);
            order(&host, config.clone(), "reject").await;
            let answer = host.chat("parrot", "one two three").await;
            check_error(&answer, 500, "hook_failed", parts);
            assert!(answer.error().starts_with("the hook rogue failed: "), "{answer:?}");
            order(&host, config.clone(), "pass").await;
            assert_eq!(says(&host, "one two three").await, "one two three", "{config}");
            let body = json!({"model": "parrot", "prompt": "one two three", "stream": true});
            let events = host.stream("/v1/completions", &body).await;
            assert_eq!(crate::harness::joined(&events), "one two three", "{config}");
        }
    }
    let log = host.log.text();
    assert!(log.contains("a hook failed") && !log.contains("panicked at"), "{log}");
}

/// Sends a picture to be looked at, and as an input of raw inference.
async fn picture(host: &Host) -> [Answer; 2] {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../host/src/media/testdata");
    let file = BASE64_STANDARD.encode(std::fs::read(folder.join("square.png")).expect("picture"));
    let tensors = json!({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": [file]}]});
    let detect = host.post("/v1/images/detect", &json!({"model": "parrot", "image": file})).await;
    [detect, host.post("/v2/models/parrot/infer", &tensors).await]
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_in_pictures_and_tensors_do_too() {
    let host = Setup::echo().start();
    let table = [
        ("loop", "processor time"),
        ("grow", "memory"),
        ("trap", "trapped"),
        ("bad_shape", "malformed"),
        ("huge_output", "memory"),
    ];
    for (fault, part) in table {
        order(&host, json!({"fault": fault}), "reject").await;
        let [detect, infer] = picture(&host).await;
        check_error(&detect, 500, "hook_failed", &["the hook rogue failed", part]);
        let error = infer.body["error"].as_str().unwrap_or_default();
        assert!(infer.status == 500 && error.contains(part), "{fault}: {infer:?}");
        order(&host, json!({"fault": fault}), "pass").await;
        let [detect, infer] = picture(&host).await;
        assert_eq!(detect.body["data"][0]["detections"][0]["x"], 10.0, "{fault}: {detect:?}");
        // Without the hook nothing makes tensors of a file.
        assert_eq!(infer.status, 400, "{fault}: {infer:?}");
    }
    order(&host, json!({"fault": "reject"}), "reject").await;
    let [detect, infer] = picture(&host).await;
    check_error(&detect, 400, "hook_rejected", &["refused by rogue"]);
    assert!(infer.status == 400 && infer.body.to_string().contains("refused by rogue"), "{infer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_in_sound_do_too() {
    let host = Setup::echo().start();
    let sound = wav(0.0, 1.0);
    let table = [
        ("loop", "processor time"),
        ("recurse", "trapped"),
        ("grow", "memory"),
        ("trap", "trapped"),
        ("panic", "trapped"),
        ("bad_shape", "malformed"),
        ("huge_output", "memory"),
    ];
    for (fault, part) in table {
        order(&host, json!({"fault": fault}), "reject").await;
        let refused = transcribe(&host, &sound).await;
        assert_eq!(refused["error"]["code"], "hook_failed", "{fault}: {refused}");
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        assert!(
            message.starts_with("the hook rogue failed: ") && message.contains(part),
            "{fault}: {message}"
        );
        order(&host, json!({"fault": fault}), "pass").await;
        assert_eq!(transcribe(&host, &sound).await["text"], "Second 1.", "{fault}");
    }
    order(&host, json!({"fault": "reject"}), "reject").await;
    let refused = transcribe(&host, &sound).await;
    assert_eq!(refused["error"]["code"], "hook_rejected", "{refused}");
    assert_eq!(refused["error"]["message"], "refused by rogue", "{refused}");
}

/// There may be 64 hooks and 1000 instances: fifteen requests with all hooks leave no place for one more.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_place_for_its_instances_waits_and_is_refused() {
    let tables: Vec<String> =
        (0..64).map(|index| table(&format!("noop{index}"), "rogue", "routes = [\"busy\"]")).collect();
    let host = Setup::echo()
        .model("busy.echo", "")
        .model("busy.toml", "[options]\ndelay_ms = 600_000\n")
        .config(&tables.concat())
        .start();
    let mut waiting = Box::pin(join_all((0..15).map(|_| host.chat("busy", "one two"))));
    tokio::select! {
        _ = &mut waiting => panic!("a request that takes minutes has an answer"),
        () = host.until_busy(15) => {}
    }
    let refused = tokio::select! {
        _ = &mut waiting => panic!("a request that takes minutes has an answer"),
        refused = host.chat("busy", "three") => refused,
    };
    check_error(&refused, 503, "hooks_busy", &["hooks"]);
    // Who needs no hook is served.
    host.expect_echo().await;
    // Clients that go away give their places back.
    drop(waiting);
    host.until_busy(0).await;
    let mut next = Box::pin(host.chat("busy", "three"));
    tokio::select! {
        answer = &mut next => panic!("a request that takes minutes has an answer: {answer:?}"),
        () = host.until_busy(1) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_keeps_everything_leaves_an_empty_answer() {
    let host = start(&[table("rogue", "rogue", "config = { fault = \"hold\" }")]);
    let answer = host.chat("parrot", "one two three").await;
    assert_eq!((answer.status, answer.text()), (200, ""), "{answer:?}");
    assert_eq!(answer.body["choices"][0]["finish_reason"], "stop", "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_not_flooded() {
    let host = start(&[table(
        "rogue",
        "rogue",
        "limits = { cpu_ms = 5000 }\nconfig = { fault = \"oversized_log\" }",
    )]);
    let before = host.log.text().len();
    assert_eq!(says(&host, "hello").await, "hello");
    let log = host.log.text();
    assert!(log.contains("the hook logs too much"), "{log}");
    // Each line has its time, its request and its hook beside what the hook says.
    assert!(log.len() - before < 64 * 1024, "{} bytes for one request", log.len() - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_cannot_say_what_it_is_is_not_loaded() {
    let host = Setup::echo().start();
    let cases = [
        ("refuse", "the hook refuses its configuration: refused by rogue"),
        ("trap_describe", "the hook failed when it was asked what it is: it trapped"),
        ("loop_describe", "it used more than 50 ms"),
        ("no_such_fault", "`fault` is \"no_such_fault\""),
    ];
    for (fault, part) in cases {
        let body = json!({"path": component("rogue"), "config": {"fault": fault}});
        let answer = put(&host, "rogue", &body).await;
        check_error(&answer, 422, "hook_not_loaded", &["hook rogue", part, "; nothing has changed"]);
        let config = table("rogue", "rogue", &format!("config = {{ fault = \"{fault}\" }}"));
        let finished = Setup::echo().config(&config).run(&["serve", "--listen", "127.0.0.1:0"]);
        assert_eq!(finished.code, Some(64), "{fault}: {finished:?}");
        assert!(finished.stderr.contains(part) && finished.stderr.contains("hook rogue"), "{finished:?}");
    }
    assert_eq!(host.get("/admin/hooks").await.body["data"], json!([]));
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_hooks_harm_no_request_beside_them() {
    let host = Setup::echo().model("victim.echo", "").start();
    host.expect_echo().await;
    let before_kb = resident_kb(host.pid());
    for fault in ["loop", "grow", "recurse", "huge_output"] {
        let limits = json!({"cpu_ms": 200});
        let body = json!({"path": component("rogue"), "routes": ["victim"], "limits": limits,
                          "config": {"fault": fault}});
        assert_eq!(put(&host, "rogue", &body).await.status, 200);
        let begun = Instant::now();
        let mut hostile = pin!(join_all((0..16).map(|_| host.chat("victim", "hello"))));
        let (mut answered, mut peak_kb) = (0, 0);
        let answers = loop {
            tokio::select! {
                answers = &mut hostile => break answers,
                () = host.expect_echo() => answered += 1,
            }
            peak_kb = resident_kb(host.pid()).max(peak_kb);
        };
        for answer in &answers {
            check_error(answer, 500, "hook_failed", &["the hook rogue failed"]);
        }
        assert!(begun.elapsed() < PATIENCE && (answered > 0 || fault != "loop"), "{fault}: {answered}");
        // As many hooks run at once as there are cores, each with its 64 MiB.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let allowed_kb = before_kb + ((cores * 64 + 256) * MIB / 1024) as u64;
        assert!(peak_kb < allowed_kb, "{fault}: {before_kb} kB before, {peak_kb} kB at most");
    }
    let noop = json!({"path": component("rogue"), "routes": ["victim"]});
    assert_eq!(put(&host, "rogue", &noop).await.status, 200);
    assert_eq!(host.chat("victim", "hello").await.text(), "hello");
    host.expect_echo().await;
}
