//! Versions of plugins that are replaced under live traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::harness::{
    Answer, Host, PATIENCE, Setup, descriptors, eventually, fixture, real_model, resident_kb, threads,
};
use crate::stream::{Reading, chat, with_expected_texts};

fn two_echoes() -> Setup {
    Setup::new().versions("echo", &fixture("echo"), &["1.0.0", "1.1.0"]).model("parrot.echo", "")
}

async fn swap(host: &Host, plugin: &str, body: Value) -> Answer {
    host.post(&format!("/admin/plugins/{plugin}/swap"), &body).await
}

async fn version(host: &Host, plugin: &str) -> String {
    let plugins = host.get("/admin/plugins").await;
    let plugins = plugins.body["data"].as_array().expect("plugins").clone();
    let found = plugins.iter().find(|entry| entry["name"] == plugin).expect("the plugin");
    found["version"].as_str().expect("version").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_in_the_old_version_or_move_to_the_new_one() {
    // The time that they get, and how many of the two streams move.
    for (drain_timeout_ms, mode, migrated) in [
        (60_000, "side_by_side", 0),
        (50, "side_by_side", 2),
        (50, "drain_first", 2),
        (60_000, "drain_first", 0),
    ] {
        let host = two_echoes().model("parrot.toml", "[options]\ndelay_ms = 10\n").start();
        let text: String = (0..60).map(|i| format!("word{i} ")).collect();
        let (tokens, mut seen) = watch::channel(0u64);
        let streams = (0..2).map(|_| {
            let (client, url, body) =
                (host.client.clone(), host.url.clone(), chat("parrot", &text, json!({})));
            let tokens = tokens.clone();
            tokio::spawn(async move {
                Reading::open(&client, &url, &body)
                    .await
                    .text(|| tokens.send_modify(|count| *count += 1))
                    .await
            })
        });
        let streams: Vec<_> = streams.collect();
        seen.wait_for(|count| *count >= 10).await.expect("the streams run");
        let body = json!({"version": "1.1.0", "mode": mode, "drain_timeout_ms": drain_timeout_ms});
        let report = swap(&host, "echo", body).await;
        assert_eq!(report.status, 200, "{report:?}");
        let summary = [
            &report.body["from"],
            &report.body["to"],
            &report.body["mode"],
            &report.body["streams_migrated"],
        ];
        assert_eq!(summary, [&json!("1.0.0"), &json!("1.1.0"), &json!(mode), &json!(migrated)], "{report:?}");
        assert_eq!(report.body["streams_drained"], 2 - migrated, "{report:?}");
        for stream in join_all(streams).await {
            assert_eq!(stream.expect("task").as_deref(), Ok(text.as_str()), "{mode} {drain_timeout_ms}");
        }
        assert_eq!(version(&host, "echo").await, "1.1.0");
        host.expect_echo().await;
        eventually("one worker is left", || host.workers().len() == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_both_versions_do_not_fit_the_old_one_is_drained_first() {
    // More than any machine has, and within the budget, so that it fits once.
    let host = Setup::new()
        .versions("echo", &fixture("echo"), &["1.0.0", "1.1.0"])
        .config("[memory]\nbudget_bytes = 9000000000000000")
        .model("parrot.echo", "[claimed_bytes]\ncpu = 8000000000000000\n")
        .start();
    host.expect_echo().await;
    let report = swap(&host, "echo", json!({"version": "1.1.0"})).await;
    assert_eq!((report.status, &report.body["mode"]), (200, &json!("drain_first")), "{report:?}");
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_swaps_say_what_is_wrong() {
    let host = two_echoes().start();
    let cases = [
        ("nobody", json!({}), 404, "plugin_not_found", "echo"),
        ("echo", json!({"version": "9.9.9"}), 404, "version_not_found", "1.0.0, 1.1.0"),
        ("echo", json!({"versoin": "1.1.0"}), 400, "invalid_value", "versoin"),
        ("echo", json!({"mode": "fast"}), 400, "invalid_value", "side_by_side"),
    ];
    for (plugin, body, status, code, part) in cases {
        let answer = swap(&host, plugin, body.clone()).await;
        assert_eq!(
            (answer.status, answer.body["error"]["code"].as_str()),
            (status, Some(code)),
            "{body}: {answer:?}"
        );
        assert!(answer.error().contains(part), "{body}: {answer:?}");
    }
    assert_eq!(version(&host, "echo").await, "1.0.0");
    host.expect_echo().await;
}

/// A rogue that behaves in version 1 and does something wrong in version 2.
fn bad_version(behaviour: &str) -> Host {
    let setup =
        Setup::echo().versions("rogue", &fixture("rogue"), &["1.0.0", "2.0.0"]).model("good.rogue", "");
    setup.file("plugins/rogue/2.0.0/rogue.toml", &format!("behaviour = \"{behaviour}\"\n")).start()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_version_does_not_get_the_route() {
    let table = [
        ("refuse-handshake", "refuses this host"),
        ("major-99", "ABI 99"),
        ("panic-in-init", "panic in init"),
        ("panic-in-probe", "panic in probe"),
        ("panic-in-load", "panic in load"),
    ];
    for (behaviour, part) in table {
        for mode in ["side_by_side", "drain_first"] {
            let host = bad_version(behaviour);
            assert_eq!(host.chat("good", "hello").await.text(), "hello");
            let answer = swap(&host, "rogue", json!({"version": "2.0.0", "mode": mode})).await;
            assert_eq!(answer.body["error"]["code"], "swap_failed", "{behaviour}: {answer:?}");
            assert!(answer.error().contains(part), "{behaviour}: {answer:?}");
            assert_eq!(version(&host, "rogue").await, "1.0.0", "{behaviour}");
            assert_eq!(host.chat("good", "hello").await.text(), "hello", "{behaviour} {mode}");
            host.expect_echo().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_its_golden_test_does_not_get_the_route() {
    let golden = "[[golden]]\ntask = \"generate\"\ninput = \"say cheese\"\ncontains = \"butter\"\n";
    let host = two_echoes().model("parrot.toml", golden).start();
    host.expect_echo().await;
    let answer = swap(&host, "echo", json!({"version": "1.1.0"})).await;
    assert_eq!(answer.body["error"]["code"], "swap_failed", "{answer:?}");
    for part in ["self-test", "\"say cheese\"", "\"butter\"", "parrot"] {
        assert!(answer.error().contains(part), "{part}: {answer:?}");
    }
    assert_eq!(version(&host, "echo").await, "1.0.0");
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_crashes_after_the_flip_is_rolled_back_and_its_request_is_answered() {
    let host = bad_version("abort");
    // A version whose tests do not find the fault.
    let manifest = host.path("plugins/rogue/2.0.0/plugin.toml");
    let text = std::fs::read_to_string(&manifest).expect("manifest");
    std::fs::write(&manifest, text.split("[[self_test]]").next().expect("text")).expect("manifest");
    assert_eq!(host.chat("good", "hello").await.text(), "hello");
    let report = swap(&host, "rogue", json!({"version": "2.0.0"})).await;
    assert_eq!(report.status, 200, "{report:?}");
    // It dies at each first token; twice is enough.
    let answer = host.chat("good", "hello").await;
    assert_eq!((answer.status, answer.text()), (200, "hello"), "{answer:?}");
    assert!(host.log.text().contains("rolling back"), "{}", host.log.text());
    let started = Instant::now();
    while version(&host, "rogue").await != "1.0.0" {
        assert!(started.elapsed() < PATIENCE, "never rolled back");
    }
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_swaps_leave_nothing_behind() {
    let host = two_echoes().start();
    host.expect_echo().await;
    let turn = async |i: usize| {
        let version = ["1.1.0", "1.0.0"][i % 2];
        let report = swap(&host, "echo", json!({ "version": version })).await;
        assert_eq!(report.status, 200, "{report:?}");
    };
    for i in 0..20 {
        turn(i).await;
    }
    let (fds, memory, threads) = (descriptors(host.pid()), resident_kb(host.pid()), threads(host.pid()));
    for i in 20..1000 {
        turn(i).await;
    }
    host.expect_echo().await;
    eventually("one worker is left", || host.workers().len() == 1).await;
    assert!(descriptors(host.pid()) <= fds + 4, "{fds} descriptors became {}", descriptors(host.pid()));
    assert!(
        crate::harness::threads(host.pid()) <= threads + 2,
        "{threads} threads became {}",
        crate::harness::threads(host.pid())
    );
    let grown = resident_kb(host.pid()).saturating_sub(memory);
    assert!(grown < 8 * 1024, "memory grew from {memory} kB by {grown} kB");
}

/// Swaps of the gguf plugin in the test below.
const SWAPS: usize = 20;
/// Streams at the same time.
const STREAMS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn twenty_swaps_of_the_real_engine_under_eight_streams_cost_no_request_and_no_token() {
    let Some((plugins, model)) = real_model("smollm2") else { return };
    let setup = Setup::new().versions("gguf", &plugins.join("gguf"), &["1.0.0", "1.1.0"]).model_dir(&model);
    let host = Arc::new(setup.start());
    let chats = with_expected_texts(&host, STREAMS, 64).await;
    let done = Arc::new(AtomicBool::new(false));
    let streams: Vec<_> = chats
        .into_iter()
        .map(|(body, expected)| {
            let (host, done) = (Arc::clone(&host), Arc::clone(&done));
            tokio::spawn(async move {
                let (mut gaps, mut complete) = (Vec::new(), 0);
                while !done.load(Ordering::Relaxed) {
                    let stream = Reading::open(&host.client, &host.url, &body).await;
                    let mut last = None;
                    let text = stream.text(|| {
                        let now = Instant::now();
                        gaps.extend(last.replace(now).map(|last| now - last));
                    });
                    assert_eq!(text.await.as_deref(), Ok(expected.as_str()));
                    complete += 1;
                }
                (gaps, complete)
            })
        })
        .collect();
    for i in 0..SWAPS {
        // Some streams may finish, others move.
        let version = ["1.1.0", "1.0.0"][i % 2];
        let body = json!({"version": version, "drain_timeout_ms": 100 * (i % 4)});
        let report = swap(&host, "gguf", body).await;
        assert_eq!((report.status, &report.body["mode"]), (200, &json!("side_by_side")), "{report:?}");
    }
    done.store(true, Ordering::Relaxed);
    let (mut gaps, mut complete) = (Vec::new(), 0);
    for stream in streams {
        let (own, count) = stream.await.expect("no stream failed");
        gaps.extend(own);
        complete += count;
    }
    gaps.sort();
    let at = |quantile: f64| gaps[((gaps.len() - 1) as f64 * quantile) as usize];
    let longest = gaps.last().copied().unwrap_or(Duration::ZERO);
    eprintln!(
        "{SWAPS} swaps, {complete} streams: gap between tokens p50 {:?}, p99 {:?}, max {longest:?}",
        at(0.5),
        at(0.99)
    );
    eventually("one worker is left", || host.workers().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_swaps_resets_and_shows_what_is_loaded() {
    let host = two_echoes().start();
    host.expect_echo().await;
    let run = async |args: &[&str]| {
        let mut command = std::process::Command::new(crate::harness::host_bin());
        command.args(args).args(["--url", &host.url]);
        let output =
            tokio::task::spawn_blocking(move || command.output().expect("runs")).await.expect("task");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = run(&["plugins", "swap", "echo", "1.1.0", "--mode", "drain-first"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("version 1.1.0 serves instead of 1.0.0 (drain first)"), "{out}");
    assert!(out.contains("start and probe") && out.contains("drain"), "{out}");
    let (code, out, err) = run(&["ps"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.lines().any(|line| line.starts_with("parrot") && line.contains("ready")), "{out}");
    let (code, out, _) = run(&["plugins", "reset", "echo"]).await;
    assert_eq!((code, out.trim()), (Some(0), "it was not in quarantine"));
    let (code, _, err) = run(&["plugins", "swap", "echo", "7.0.0"]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("has no version \"7.0.0\"") && err.contains("still serves"), "{err}");
    let mut nobody = std::process::Command::new(crate::harness::host_bin());
    let output = nobody.args(["ps", "--url", "http://127.0.0.1:1"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no host answers at http://127.0.0.1:1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_has_happened() {
    let host = two_echoes().model("parrot.toml", "[options]\ndelay_ms = 5\n").start();
    host.expect_echo().await;
    let long = chat("parrot", &"word ".repeat(400), json!({}));
    drop(
        host.client
            .post(format!("{}/v1/chat/completions", host.url))
            .json(&long)
            .send()
            .await
            .expect("answer"),
    );
    assert_eq!(swap(&host, "echo", json!({"version": "1.1.0"})).await.status, 200);
    assert_eq!(swap(&host, "echo", json!({"version": "9"})).await.status, 404);
    host.get("/nothing").await;
    let wanted = [
        "pajamas_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 2",
        "pajamas_requests_total{route=\"/admin/plugins/{name}/swap\",status=\"200\"} 1",
        "pajamas_requests_total{route=\"other\",status=\"404\"} 1",
        "pajamas_queue_seconds_count{model=\"parrot\"} 2",
        "pajamas_time_to_first_token_seconds_count{model=\"parrot\"} 2",
        "pajamas_cancels_total 1",
        "pajamas_cancel_stop_seconds_count 1",
        "pajamas_swaps_total{plugin=\"echo\",outcome=\"done\"} 1",
        "pajamas_worker_ends_total{plugin=\"echo\",outcome=\"retired\"}",
        "pajamas_memory_bytes{device=\"cpu\"}",
    ];
    let started = Instant::now();
    loop {
        let response = host.client.get(format!("{}/metrics", host.url)).send().await.expect("answer");
        let text = response.text().await.expect("text");
        let missing: Vec<&str> = wanted.iter().copied().filter(|line| !text.contains(line)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{missing:?} are missing in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_on_disk_is_swapped_when_it_is_watched() {
    let host = two_echoes().arg("--watch").start();
    host.expect_echo().await;
    let model = async || host.get("/admin/models").await.body["data"][0].clone();
    assert_eq!(model().await["info"]["context_length"], 4096);
    // As an installation does it: the whole file, in one step.
    let replace = |path: &str, text: &str| {
        let (target, draft) = (host.path(path), host.path("draft"));
        std::fs::write(&draft, text).expect("draft");
        std::fs::rename(draft, target).expect("rename");
    };
    replace("models/parrot.echo", "context_length = 77\n");
    let started = Instant::now();
    while model().await["info"]["context_length"] != 77 {
        assert!(started.elapsed() < PATIENCE, "the model was never swapped: {}", host.log.text());
    }
    host.expect_echo().await;
    replace("plugins/echo/active", "1.1.0");
    let started = Instant::now();
    while version(&host, "echo").await != "1.1.0" {
        assert!(started.elapsed() < PATIENCE, "the plugin was never swapped: {}", host.log.text());
    }
    host.expect_echo().await;
    // A model that is broken does not take the place of one that is not.
    replace("models/parrot.echo", "no such field");
    eventually("the failure is in the log", || host.log.text().contains("the swap failed")).await;
    host.expect_echo().await;
}
