//! Workers that die under their jobs: the streams go on, and what cannot go on is told clearly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::json;
use tokio::sync::watch;

use crate::faults::rogue;
use crate::harness::{Host, PATIENCE, Setup, eventually};
use crate::stream::{Reading, chat, kill, with_expected_texts};

fn slow_echo(config: &str) -> Host {
    Setup::echo().model("parrot.toml", "[options]\ndelay_ms = 10\n").config(config).start()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_after_its_worker_died() {
    let host = slow_echo("");
    let text: String = (0..40).map(|i| format!("word{i} ")).collect();
    for signal in [Signal::KILL, Signal::SEGV, Signal::ABORT] {
        let stream = Reading::open(&host.client, &host.url, &chat("parrot", &text, json!({}))).await;
        let mut pieces = 0;
        let read = stream.text(|| {
            pieces += 1;
            if pieces == 7 {
                host.workers().into_iter().for_each(|pid| kill(pid, signal));
            }
        });
        assert_eq!(read.await.as_deref(), Ok(text.as_str()), "{signal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_hangs_is_replaced_and_its_stream_goes_on() {
    let host = slow_echo("[worker]\nhang_timeout_ms = 700\n");
    let text: String = (0..30).map(|i| format!("word{i} ")).collect();
    let stream = Reading::open(&host.client, &host.url, &chat("parrot", &text, json!({}))).await;
    let mut pieces = 0;
    let read = stream.text(|| {
        pieces += 1;
        if pieces == 5 {
            host.workers().into_iter().for_each(|pid| kill(pid, Signal::STOP));
        }
    });
    assert_eq!(read.await.as_deref(), Ok(text.as_str()));
    assert!(host.log.text().contains("sent nothing for 700 ms"), "{}", host.log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_delivered_nothing_starts_again() {
    let host = Setup::echo().model("parrot.toml", "[options]\ndelay_ms = 1500\n").start();
    let body = chat("parrot", "one", json!({}));
    let ask = async { Reading::open(&host.client, &host.url, &body).await.text(|| {}).await };
    let kill_it = async {
        host.until_busy(1).await;
        host.workers().into_iter().for_each(|pid| kill(pid, Signal::KILL));
    };
    let (answer, ()) = tokio::join!(ask, kill_it);
    assert_eq!(answer.as_deref(), Ok("one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_always_kills_is_refused_at_once_the_next_time() {
    let host = rogue("abort");
    let deaths = || host.log.text().matches("was killed by SIGABRT").count();
    let answer = host.chat("bad", "die").await;
    assert_eq!(
        (answer.status, answer.body["error"]["code"].as_str()),
        (400, Some("poison_request")),
        "{answer:?}"
    );
    assert!(answer.error().contains("ended the plugin's process 3 times"), "{answer:?}");
    let before = deaths();
    let again = host.chat("bad", "die").await;
    assert_eq!(again.body["error"]["code"], "poison_request", "{again:?}");
    assert_eq!(deaths(), before, "it was not tried again");
    // The request was to blame, so the plugin is not in quarantine.
    let plugins = host.get("/admin/plugins").await;
    assert_ne!(plugins.body["data"][1]["state"], "quarantined", "{plugins:?}");
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_crashes_three_times_is_quarantined_until_it_is_reset() {
    // Its process dies when a job is cancelled, so no request is left to blame.
    let host = rogue("panic-in-cancel");
    let crash = async |deaths: usize| {
        let body = chat("bad", &"word ".repeat(500), json!({}));
        drop(
            host.client
                .post(format!("{}/v1/chat/completions", host.url))
                .json(&body)
                .send()
                .await
                .expect("answer"),
        );
        let seen = || host.log.text().matches("worker of plugin rogue was killed by SIGABRT").count();
        eventually("the death is in the log", || seen() >= deaths).await;
    };
    for deaths in 1..=3 {
        crash(deaths).await;
    }
    eventually("quarantine is in the log", || host.log.text().contains("plugin quarantined")).await;
    let answer = host.chat("bad", "hello").await;
    let code = answer.body["error"]["code"].as_str();
    assert_eq!((answer.status, code), (503, Some("plugin_quarantined")), "{answer:?}");
    let plugins = host.get("/admin/plugins").await;
    let rogue = &plugins.body["data"][1];
    assert_eq!((&rogue["name"], &rogue["state"]), (&json!("rogue"), &json!("quarantined")), "{plugins:?}");
    assert!(rogue["reason"].as_str().is_some_and(|why| why.contains("3 times in 60 s")), "{rogue}");
    let reset = host.post("/admin/plugins/rogue/reset", &json!({})).await;
    assert_eq!((reset.status, &reset.body["changed"]), (200, &json!(true)), "{reset:?}");
    assert_eq!(host.chat("bad", "hello again").await.text(), "hello again");
    let unknown = host.post("/admin/plugins/nobody/reset", &json!({})).await;
    assert_eq!((unknown.status, unknown.body["error"]["code"].as_str()), (404, Some("plugin_not_found")));
}

/// Deaths of the worker in the test below.
const KILLS: u64 = 50;
/// Streams at the same time.
const STREAMS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_real_model_survive_fifty_kills_token_by_token() {
    let Some(setup) = Setup::real("smollm2") else { return };
    let host = Arc::new(setup.start());
    let chats = with_expected_texts(&host, STREAMS, 40).await;
    let (tokens, done) = (watch::Sender::new(0u64), Arc::new(AtomicBool::new(false)));
    let mut seen = tokens.subscribe();
    let streams: Vec<_> = chats
        .into_iter()
        .map(|(body, expected)| {
            let (host, tokens, done) = (Arc::clone(&host), tokens.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut complete = 0;
                while !done.load(Ordering::Relaxed) {
                    let stream = Reading::open(&host.client, &host.url, &body).await;
                    let text = stream.text(|| tokens.send_modify(|count| *count += 1));
                    assert_eq!(text.await.as_deref(), Ok(expected.as_str()));
                    complete += 1;
                }
                complete
            })
        })
        .collect();
    for kills in 0..KILLS {
        // At least one token of progress, then a moment that differs from kill to kill.
        let target = *seen.borrow() + 1 + kills * 7 % 23;
        let progress = tokio::time::timeout(PATIENCE, seen.wait_for(|count| *count >= target)).await;
        progress.expect("the streams go on").expect("the sender is here");
        host.workers().into_iter().for_each(|pid| kill(pid, Signal::KILL));
    }
    done.store(true, Ordering::Relaxed);
    let mut complete = 0;
    for stream in streams {
        complete += stream.await.expect("no stream failed");
    }
    assert!(complete >= STREAMS, "{complete} streams were completed");
}
