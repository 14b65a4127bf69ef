//! Start, shutdown, load and unload, orphans.

use std::time::Duration;

use futures_util::StreamExt as _;
use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Setup, eventually, is_running};

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_loaded_on_demand_and_its_worker_ends_with_it() {
    let host = Setup::echo().start();
    eventually("probes are over", || host.workers().is_empty()).await;
    let state = |body: &serde_json::Value| body["data"][0]["state"].as_str().map(str::to_owned);
    assert_eq!(state(&host.get("/admin/models").await.body).as_deref(), Some("unloaded"));
    host.expect_echo().await;
    assert_eq!(state(&host.get("/admin/models").await.body).as_deref(), Some("ready"));
    assert_eq!(host.workers().len(), 1);
    let unloaded = host.post("/admin/models/parrot/unload", &json!({})).await;
    assert_eq!(unloaded.status, 200, "{unloaded:?}");
    eventually("the worker is gone", || host.workers().is_empty()).await;
    let loaded = host.post("/admin/models/parrot/load", &json!({})).await;
    assert_eq!(loaded.status, 200, "{loaded:?}");
    assert_eq!(host.workers().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_the_same_time_share_one_load() {
    let host = Setup::echo().start();
    let asks = (0..16).map(|_| host.expect_echo());
    futures_util::future::join_all(asks).await;
    assert_eq!(host.workers().len(), 1);
    assert_eq!(host.log.text().matches("loading model").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_in_c_serves_like_one_in_rust() {
    let host = Setup::new().plugin("echo-c").model("parrot.echo", "").start();
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_can_run_inside_the_host() {
    let host = Setup::echo().arg("--in-process").start();
    host.expect_echo().await;
    assert!(host.workers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_a_running_stream_finish_and_refuses_new_requests() {
    let mut host = Setup::new()
        .plugin("echo")
        .model("slow.echo", "")
        .model("slow.toml", "[options]\ndelay_ms = 100\n")
        .start();
    let words = "w ".repeat(20);
    let body = json!({"model": "slow", "stream": true, "messages": [{"role": "user", "content": words}]});
    let response = host
        .client
        .post(format!("{}/v1/chat/completions", host.url))
        .json(&body)
        .send()
        .await
        .expect("stream");
    let mut chunks = response.bytes_stream();
    let mut text = String::from_utf8_lossy(&chunks.next().await.expect("chunk").expect("bytes")).into_owned();
    host.signal(Signal::TERM);
    while let Some(chunk) = chunks.next().await {
        text.push_str(&String::from_utf8_lossy(&chunk.expect("bytes")));
    }
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(host.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_cuts_off_after_the_drain_time() {
    let mut host = Setup::new()
        .plugin("echo")
        .model("slow.echo", "")
        .model("slow.toml", "[options]\ndelay_ms = 60000\n")
        .config("drain_timeout_ms = 300")
        .start();
    let body = json!({"model": "slow", "stream": true, "messages": [{"role": "user", "content": "a b c"}]});
    let request = host.client.post(format!("{}/v1/chat/completions", host.url)).json(&body).send();
    let request = tokio::spawn(request);
    host.until_busy(1).await;
    host.signal(Signal::TERM);
    let status = tokio::task::spawn_blocking(move || host.wait()).await.expect("wait");
    assert_eq!(status.code(), Some(0));
    assert!(request.await.expect("task").is_err(), "the connection is cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_worker_survives_a_killed_host() {
    for hang in ["hang-in-init", "hang-in-load", "hang-in-submit"] {
        let mut host = Setup::echo()
            .plugin("rogue")
            .file("plugins/rogue/rogue.toml", &format!("behaviour = \"{hang}\"\n"))
            .model("bad.rogue", "")
            .start();
        host.expect_echo().await;
        // One worker is idle, the other hangs inside the plugin.
        let hanging = host.chat("bad", "hello");
        let _ = tokio::time::timeout(Duration::from_secs(2), hanging).await;
        eventually("both workers run", || host.workers().len() == 2).await;
        let workers = host.workers();
        host.signal(Signal::KILL);
        host.wait();
        eventually("the workers are gone", || workers.iter().all(|pid| !is_running(*pid))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_what_is_there() {
    let host = Setup::echo().start();
    for path in ["/health", "/live", "/ready"] {
        let answer = host.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    let plugins = host.get("/admin/plugins").await;
    assert_eq!(plugins.body["data"][0]["name"], "echo", "{plugins:?}");
}
