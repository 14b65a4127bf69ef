//! Which models are in memory: a budget in bytes, eviction of idle ones, pins, preloading, idle time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Host, PATIENCE, Setup, eventually, real_model, resident_kb};
use crate::stream::{Reading, chat};

/// Bytes of each model below.
const MODEL_BYTES: usize = 50_000;
/// Two of them fit, three do not.
const BUDGET_BYTES: u64 = 130_000;

/// A host with the models a, b and c, of which two fit. `settings` are those of each.
fn three_models(settings: [&str; 3], config: &str) -> Host {
    // The model file is a comment of that length.
    let content = format!("#{}\n", "x".repeat(MODEL_BYTES - 2));
    let names = ["a", "b", "c"];
    let setup =
        Setup::new().plugin("echo").config(&format!("[memory]\nbudget_bytes = {BUDGET_BYTES}\n{config}"));
    let setup = names.iter().fold(setup, |setup, name| setup.model(&format!("{name}.echo"), &content));
    let with = names.iter().zip(settings);
    with.fold(setup, |setup, (name, settings)| setup.model(&format!("{name}.toml"), settings)).start()
}

async fn models(host: &Host) -> Vec<Value> {
    host.get("/admin/models").await.body["data"].as_array().expect("models").clone()
}

async fn states(host: &Host) -> Vec<String> {
    models(host).await.iter().map(|model| model["state"].as_str().expect("state").to_owned()).collect()
}

async fn wait_for_states(host: &Host, wanted: [&str; 3]) {
    let started = Instant::now();
    while states(host).await != wanted {
        assert!(started.elapsed() < PATIENCE, "never {wanted:?}: {:?}", states(host).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_models_share_memory_for_two_under_mixed_traffic() {
    let host = Arc::new(three_models(["", "", ""], ""));
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let host = Arc::clone(&host);
            tokio::spawn(async move {
                for request in 0..40 {
                    let model = ["a", "b", "c"][(client + request * (client + 1)) % 3];
                    let answer = host.chat(model, "hello").await;
                    assert_eq!((answer.status, answer.text()), (200, "hello"), "{model}: {answer:?}");
                }
            })
        })
        .collect();
    let watcher = {
        let (host, done) = (Arc::clone(&host), Arc::clone(&done));
        tokio::spawn(async move {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                let loaded = models(&host).await;
                let bytes =
                    loaded.iter().filter_map(|model| model["stats"]["bytes"]["cpu"].as_u64()).sum::<u64>();
                assert!(bytes <= BUDGET_BYTES, "{bytes} bytes: {loaded:?}");
                most = most.max(bytes);
            }
            most
        })
    };
    for client in join_all(clients).await {
        client.expect("no request failed");
    }
    done.store(true, Ordering::Relaxed);
    let most = watcher.await.expect("never over budget");
    assert!(most > MODEL_BYTES as u64, "two models were never loaded together: {most} bytes");
    assert!(host.log.text().contains("unloading an idle model to make room"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_model_stays_and_one_that_is_wanted_waits_for_it() {
    let slow = "[options]\ndelay_ms = 20\n";
    let host = three_models([slow, slow, ""], "");
    let text: String = (0..40).map(|i| format!("word{i} ")).collect();
    let stream = async |model: &str| {
        Reading::open(&host.client, &host.url, &chat(model, &text, json!({}))).await.text(|| {}).await
    };
    // c has to wait until one of the two streams has ended.
    let ask_c = async {
        let started = Instant::now();
        while states(&host).await[..2] != ["ready", "ready"] {
            assert!(started.elapsed() < PATIENCE, "the streams never ran");
        }
        host.chat("c", "at last").await
    };
    let (a, b, c) = tokio::join!(stream("a"), stream("b"), ask_c);
    assert_eq!((a.as_deref(), b.as_deref()), (Ok(text.as_str()), Ok(text.as_str())));
    assert_eq!((c.status, c.text()), (200, "at last"), "{c:?}");
    let states = states(&host).await;
    assert_eq!(states.iter().filter(|state| *state == "ready").count(), 2, "{states:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_models_stay_and_what_does_not_fit_is_refused() {
    let host = three_models(["pin = true", "pin = true", ""], "[worker]\nload_timeout_ms = 1000\n");
    for model in ["a", "b"] {
        assert_eq!(host.chat(model, "hello").await.text(), "hello");
    }
    let answer = host.chat("c", "hello").await;
    assert_eq!(
        (answer.status, answer.body["error"]["code"].as_str()),
        (503, Some("out_of_memory")),
        "{answer:?}"
    );
    for part in ["\"c\"", "50000", "130000", "memory.budget_bytes"] {
        assert!(answer.error().contains(part), "{part}: {answer:?}");
    }
    // An operator may unload it all the same, and then there is room.
    assert_eq!(host.post("/admin/models/a/unload", &json!({})).await.status, 200);
    assert_eq!(host.chat("c", "hello").await.text(), "hello");
    assert_eq!(states(&host).await, ["unloaded", "ready", "ready"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_device_has_its_own_budget() {
    let model = |device: &str, bytes: u32| format!("[claimed_bytes]\n\"{device}\" = {bytes}\n");
    let host = Setup::new()
        .plugin("echo")
        .config("[memory]\ndevice_budget_bytes = { \"cuda:0\" = 100, \"cuda:1\" = 100 }\n")
        .model("a.echo", &model("cuda:0", 60))
        .model("b.echo", &model("cuda:1", 60))
        .model("c.echo", &model("cuda:0", 70))
        .model("d.echo", &model("cuda:1", 101))
        .start();
    let ask = async |name| host.chat(name, "hello").await;
    for name in ["a", "b", "c"] {
        assert_eq!(ask(name).await.text(), "hello", "{name}");
    }
    // The one on the same device has made room, although the one on the other was used longer ago than the last.
    assert_eq!(states(&host).await, ["unloaded", "ready", "ready", "unloaded"]);
    let answer = ask("d").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    for part in ["101 bytes of cuda:1", "100", "memory.device_budget_bytes"] {
        assert!(answer.error().contains(part), "{part}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_preloaded_and_leave_when_nobody_uses_them() {
    let host = three_models(["preload = true\nidle_timeout_ms = 300", "preload = true\npin = true", ""], "");
    wait_for_states(&host, ["unloaded", "ready", "unloaded"]).await;
    assert!(host.log.text().contains("unloading a model that nobody uses"), "{}", host.log.text());
    let text: String = (0..10).map(|i| format!("word{i} ")).collect();
    assert_eq!(host.chat("a", &text).await.text(), text);
    wait_for_states(&host, ["unloaded", "ready", "unloaded"]).await;
    // The last model of a worker takes the process with it.
    assert_eq!(host.post("/admin/models/b/unload", &json!({})).await.status, 200);
    eventually("no worker is left", || host.workers().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_loaded_is_not_tried_again_at_once() {
    let host = three_models(["[options]\nno_such_option = 1\n", "", ""], "");
    let failed = host.chat("a", "hello").await;
    assert_eq!(failed.body["error"]["code"], "load_failed", "{failed:?}");
    let again = host.post_with("/v1/chat/completions", &[], &chat("a", "hello", json!({}))).await;
    assert_eq!(again.status(), 503);
    let seconds: u64 = again.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((1..=2).contains(&seconds), "{seconds}");
    let again: Value = again.json().await.expect("JSON");
    assert_eq!(again["error"]["code"], "cooling_down", "{again}");
    assert!(
        again["error"]["message"].as_str().is_some_and(|text| text.contains("no_such_option")),
        "{again}"
    );
    // An operator need not wait, and others are not affected.
    let by_operator = host.post("/admin/models/a/load", &json!({})).await;
    assert_eq!(by_operator.body["error"]["code"], "load_failed", "{by_operator:?}");
    assert_eq!(host.chat("b", "hello").await.text(), "hello");
    let started = Instant::now();
    while host.chat("a", "hello").await.body["error"]["code"] != "load_failed" {
        assert!(started.elapsed() < PATIENCE, "never tried again");
    }
}

/// Three copies of a real model, and a host that may use so many bytes for them.
fn three_real_models(budget_bytes: Option<u64>) -> Option<Host> {
    let (plugins, model) = real_model("smollm2")?;
    let mut files = std::fs::read_dir(model).expect("the model's folder").filter_map(Result::ok);
    let gguf = files.find(|file| file.path().extension().is_some_and(|e| e == "gguf")).expect("a GGUF file");
    let setup = Setup::new().plugins(&plugins).config("[plugins.gguf.options]\nslots = 2\ncontext = 256\n");
    for name in ["a", "b", "c"] {
        std::fs::copy(gguf.path(), setup.model_path(&format!("{name}.gguf"))).expect("copied");
    }
    let setup = match budget_bytes {
        Some(bytes) => setup.config(&format!("[memory]\nbudget_bytes = {bytes}\n")),
        None => setup,
    };
    Some(setup.start())
}

async fn measured_bytes(host: &Host) -> u64 {
    models(host).await.iter().filter_map(|model| model["stats"]["bytes"]["cpu"].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_real_models_share_memory_for_two() {
    let Some(host) = three_real_models(None) else { return };
    assert_eq!(host.post("/admin/models/a/load", &json!({})).await.status, 200);
    let one = measured_bytes(&host).await;
    assert!(one > 50_000_000, "{one} bytes");
    drop(host);

    let budget_bytes = one * 5 / 2;
    let Some(host) = three_real_models(Some(budget_bytes)) else { return };
    let ask = async |model: &str, number: usize| {
        let body = chat(model, "Name the capital of France.", json!({"temperature": 0, "max_tokens": 12}));
        let text = Reading::open(&host.client, &host.url, &body).await.text(|| {}).await;
        assert_eq!(text.as_deref(), Ok("The capital of France is Paris."), "{model} {number}");
        let bytes = measured_bytes(&host).await;
        assert!(bytes <= budget_bytes, "{bytes} bytes of {budget_bytes}");
    };
    let client = async |client: usize| {
        for number in 0..6 {
            ask(["a", "b", "c"][(client + number * (client + 1)) % 3], number).await;
        }
    };
    tokio::join!(client(0), client(1), client(2));
    let log = host.log.text();
    // One of them had to go and come again, at the least.
    assert!(log.matches("model loaded").count() > 3, "{log}");
    // The process keeps what the models that are loaded take, and no more.
    let resident: u64 = host.workers().iter().map(|pid| resident_kb(*pid) * 1024).sum();
    assert!(resident < budget_bytes + 200_000_000, "{resident} bytes");
}
