//! Every fault of the `rogue` plugin: the right message, and proof that another model still answers.

use futures_util::StreamExt as _;
use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Answer, Host, Setup, eventually};

/// A host with `echo` and a `rogue` that was told what to do.
pub fn rogue(behaviour: &str) -> Host {
    Setup::echo()
        .plugin("rogue")
        .file("plugins/rogue/rogue.toml", &format!("behaviour = \"{behaviour}\"\n"))
        .model("bad.rogue", "")
        .model("bad.toml", "[options]\ndelay_ms = 1\n")
        .config("[worker]\nload_timeout_ms = 1500\nprobe_timeout_ms = 1500\nstart_timeout_ms = 5000\n")
        .start()
}

async fn ask(host: &Host) -> Answer {
    host.chat("bad", "one two three").await
}

/// The request fails with a message that contains all of `parts`, and `echo` answers before and after.
async fn fails(behaviour: &str, parts: &[&str]) {
    let host = rogue(behaviour);
    host.expect_echo().await;
    let answer = ask(&host).await;
    assert!(answer.status >= 400, "{behaviour}: {answer:?}");
    for part in parts {
        assert!(answer.error().contains(part), "{behaviour}: \"{part}\" is not in {answer:?}");
    }
    host.expect_echo().await;
}

/// The request succeeds all the same.
async fn answers(behaviour: &str) {
    let host = rogue(behaviour);
    let answer = ask(&host).await;
    assert_eq!((answer.status, answer.text()), (200, "one two three"), "{behaviour}: {answer:?}");
    host.expect_echo().await;
}

macro_rules! failing {
    ($($name:ident: $behaviour:literal => [$($part:literal),+];)+) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                fails($behaviour, &[$($part),+]).await;
            }
        )+
    };
}

failing! {
    refuses_the_handshake: "refuse-handshake" => ["rogue", "refuses this host"];
    claims_another_major: "major-99" => ["rogue", "ABI 99", "ABI 1"];
    truncates_the_table: "truncated-struct" => ["rogue", "table"];
    leaves_functions_null: "null-functions" => ["rogue", "lacks the required function"];
    exits_in_a_constructor: "exit-in-constructor" => ["rogue", "exited"];
    fails_in_init: "init-error" => ["rogue", "told to fail in init"];
    panics_in_init: "panic-in-init" => ["rogue", "panic in init"];
    hangs_in_init: "hang-in-init" => ["rogue", "did not start within 5000 ms"];
    panics_in_probe: "panic-in-probe" => ["rogue", "panic in probe"];
    hangs_in_probe: "hang-in-probe" => ["rogue", "did not return from probe within 1500 ms"];
    panics_in_load: "panic-in-load" => ["rogue", "panic in load"];
    hangs_in_load: "hang-in-load" => ["rogue", "did not return from load within 1500 ms"];
    loads_nothing: "null-model" => ["rogue", "returned no model"];
    panics_in_submit: "panic-in-submit" => ["panic"];
    hangs_in_submit: "hang-in-submit" => ["rogue", "did not return from submit within 10000 ms"];
    panics_on_its_thread: "panic-on-thread" => ["panic"];
    aborts: "abort" => ["rogue", "SIGABRT"];
    violates_memory: "segv" => ["rogue", "SIGSEGV"];
    sends_a_null_event: "null-event" => ["malformed event"];
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_after_the_end() {
    for behaviour in ["event-after-terminal", "two-terminals", "push-after-release", "leak"] {
        answers(behaviour).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_standard_output() {
    let host = rogue("flood-stdout");
    let answer = ask(&host).await;
    assert_eq!(answer.text(), "one two three", "{answer:?}");
    host.expect_echo().await;
    assert!(host.log.text().len() < 1 << 20, "the log was flooded");
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_the_sink() {
    let host = rogue("flood-sink");
    let flood = ask(&host);
    let (flood, ()) = tokio::join!(flood, host.expect_echo());
    assert!(flood.status == 200 || !flood.error().is_empty(), "{flood:?}");
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_a_vector_of_a_wrong_shape() {
    let host = rogue("wrong-shape");
    let answer = host.post("/v1/embeddings", &json!({"model": "bad", "input": "one"})).await;
    assert!(answer.error().contains("malformed event"), "{answer:?}");
    assert!(answer.error().contains("6 bytes"), "{answer:?}");
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_text_that_is_not_utf8() {
    let host = rogue("bad-utf8");
    let answer = ask(&host).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.text().contains('\u{fffd}'), "{answer:?}");
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn never_ends_its_job() {
    let host = rogue("never-terminal");
    let body = json!({"model": "bad", "stream": true, "messages": [{"role": "user", "content": "one"}]});
    let response = host
        .client
        .post(format!("{}/v1/chat/completions", host.url))
        .json(&body)
        .send()
        .await
        .expect("answer");
    let mut chunks = response.bytes_stream();
    let first = chunks.next().await.expect("a chunk").expect("readable");
    assert!(first.starts_with(b"data: "));
    drop(chunks);
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dies_when_cancelled() {
    let host = rogue("panic-in-cancel");
    for deaths in 1..=2 {
        let text = "word ".repeat(500);
        let body = json!({"model": "bad", "stream": true, "messages": [{"role": "user", "content": text}]});
        let response = host.client.post(format!("{}/v1/chat/completions", host.url)).json(&body).send().await;
        drop(response.expect("answer"));
        let seen = || host.log.text().matches("worker of plugin rogue was killed by SIGABRT").count();
        eventually("the death is in the log", || seen() >= deaths).await;
        host.expect_echo().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_named_and_replaced() {
    let host = rogue("none");
    host.expect_echo().await;
    assert_eq!(ask(&host).await.text(), "one two three");
    let before = host.workers();
    assert_eq!(before.len(), 2, "one worker for each plugin");
    for pid in &before {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("pid");
        rustix::process::kill_process(pid, Signal::KILL).expect("kill");
    }
    eventually("the workers are gone", || before.iter().all(|pid| !host.workers().contains(pid))).await;
    // The death is noticed without a request; the next one loads the model again.
    let mut answer = ask(&host).await;
    if answer.status != 200 {
        assert!(answer.error().contains("SIGKILL"), "{answer:?}");
        answer = ask(&host).await;
    }
    assert_eq!(answer.text(), "one two three");
    host.expect_echo().await;
}
