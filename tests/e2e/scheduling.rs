//! More requests than a model can do at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Host, Setup, resident_kb};
use crate::stream::chat;

/// A host with two slots, a short queue and these keys.
fn two_slots(queue: usize, keys: &[&str]) -> Option<(Host, Vec<String>)> {
    let setup = Setup::real("smollm2")?
        .config("[plugins.gguf.options]\nslots = 2\ncontext = 512\n")
        .config(&format!("[limits]\nqueue = {queue}\n"));
    let keys = keys.iter().map(|name| setup.key(&[*name])).collect();
    Some((setup.start(), keys))
}

fn short(text: &str, tokens: u32) -> Value {
    let mut body = chat("smollm2", text, json!({"temperature": 0, "max_tokens": tokens, "ignore_eos": true}));
    body["stream"] = json!(false);
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_one_request_is_not_starved_by_one_with_thirty_two() {
    let Some((host, keys)) = two_slots(256, &["heavy", "light"]) else { return };
    let host = Arc::new(host);
    let done = Arc::new(AtomicUsize::new(0));
    let ask = |key: &str, text: String| {
        let (host, key) = (Arc::clone(&host), format!("Bearer {key}"));
        async move { host.post_with("/v1/chat/completions", &[("authorization", &key)], &short(&text, 16)).await }
    };
    // The model is loaded before the race begins.
    assert_eq!(ask(&keys[0], "warm up".to_owned()).await.status(), 200);
    let heavy: Vec<_> = (0..32)
        .map(|i| {
            let (answer, done) = (ask(&keys[0], format!("Tell me about {i}.")), Arc::clone(&done));
            tokio::spawn(async move {
                assert_eq!(answer.await.status(), 200);
                done.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    while done.load(Ordering::Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
    let before = done.load(Ordering::Relaxed);
    assert_eq!(ask(&keys[1], "Tell me about the sea.".to_owned()).await.status(), 200);
    let meanwhile = done.load(Ordering::Relaxed) - before;
    // Those that run already may end, and one or two that were next.
    assert!(meanwhile <= 6, "{meanwhile} of the heavy client's requests went first");
    for outcome in join_all(heavy).await {
        outcome.expect("answered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_priority_is_a_wish_that_the_key_limits() {
    let setup = Setup::echo();
    let key = format!("Bearer {}", setup.key(&["user", "--priority", "low"]));
    let host = setup.start();
    let body = json!({"model": "parrot", "messages": [{"role": "user", "content": "hello"}]});
    for (priority, status) in [("low", 200), ("high", 200), ("urgent", 400)] {
        let headers = [("authorization", key.as_str()), ("x-priority", priority)];
        let answer = host.post_with("/v1/chat/completions", &headers, &body).await;
        assert_eq!(answer.status().as_u16(), status, "{priority}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_counts_the_wait() {
    let Some((host, _)) = two_slots(16, &[]) else { return };
    let host = Arc::new(host);
    assert_eq!(host.post("/v1/chat/completions", &short("warm up", 1)).await.status, 200);
    let long: Vec<_> = (0..2)
        .map(|i| {
            let host = Arc::clone(&host);
            tokio::spawn(async move {
                host.post("/v1/chat/completions", &short(&format!("Story {i}."), 300)).await
            })
        })
        .collect();
    host.until_busy(2).await;
    let hurry =
        host.post_with("/v1/chat/completions", &[("x-request-timeout", "0.2")], &short("Quick.", 4)).await;
    assert_eq!(hurry.status(), 504);
    let body: Value = hurry.json().await.expect("JSON");
    assert_eq!(body["error"]["code"], "deadline_exceeded", "{body}");
    let wrong =
        host.post_with("/v1/chat/completions", &[("x-request-timeout", "soon")], &short("Quick.", 4)).await;
    assert_eq!(wrong.status(), 400);
    for answer in join_all(long).await {
        assert_eq!(answer.expect("task").status, 200);
    }
}

/// How long the overload lasts.
const OVERLOAD: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn four_times_the_capacity_for_a_minute_gets_answers_or_clear_refusals() {
    let Some((host, _)) = two_slots(2, &[]) else { return };
    let host = Arc::new(host);
    assert_eq!(host.post("/v1/chat/completions", &short("warm up", 1)).await.status, 200);
    let before = resident_kb(host.pid());
    let end = Instant::now() + OVERLOAD;
    // Two slots and two places in the queue; sixteen clients.
    let clients: Vec<_> = (0..16)
        .map(|client| {
            let host = Arc::clone(&host);
            tokio::spawn(async move {
                let (mut served, mut refused) = (0u32, 0u32);
                while Instant::now() < end {
                    let body = short(&format!("Client {client}, request {}.", served + refused), 8);
                    let answer = host.post_with("/v1/chat/completions", &[], &body).await;
                    match answer.status().as_u16() {
                        200 => served += 1,
                        503 => {
                            refused += 1;
                            assert!(answer.headers().contains_key("retry-after"));
                            // As a client would that was told to come back later.
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        other => panic!("status {other}"),
                    }
                }
                (served, refused)
            })
        })
        .collect();
    let (mut served, mut refused) = (0, 0);
    for client in join_all(clients).await {
        let (own_served, own_refused) = client.expect("no client failed");
        served += own_served;
        refused += own_refused;
    }
    eprintln!("{served} answers, {refused} refusals");
    assert!(served > 20 && refused > 20, "{served} answers, {refused} refusals");
    let grown = resident_kb(host.pid()).saturating_sub(before);
    assert!(grown < 64 * 1024, "memory grew from {before} kB by {grown} kB");
}
