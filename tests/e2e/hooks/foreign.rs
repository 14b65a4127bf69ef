//! Hooks in Python and JavaScript. `python-rogue` tries to touch the machine, in the way that its configuration names.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{check_error, code, foreign_component, put, says};
use crate::harness::{Answer, Host, PATIENCE, Setup, joined};
use crate::stream::chat;

/// What an interpreter needs on a machine that is busy with other tests.
const CPU_MS: u64 = 2000;

/// A host with `echo` and a hook of another language.
async fn start(name: &str, config: Value) -> Option<Host> {
    let path = foreign_component(name)?;
    let host = Setup::echo().start();
    put_hook(&host, name, json!({"path": path, "config": config})).await;
    Some(host)
}

async fn put_hook(host: &Host, name: &str, mut body: Value) {
    body["limits"] = json!({"cpu_ms": CPU_MS});
    // Compiling takes a while the first time.
    let request = host.client.put(format!("{}/admin/hooks/{name}", host.url)).json(&body);
    let response = request.timeout(PATIENCE * 4).send().await.expect("answer");
    let status = response.status();
    assert!(status.is_success(), "{body}: {:?}", response.text().await);
}

/// What becomes of an attempt.
async fn attempt(host: &Host, name: &str, grants: Value) -> Answer {
    let path = foreign_component("python-rogue").expect("it was there");
    put_hook(host, "python-rogue", json!({"path": path, "config": {"attempt": name}, "grants": grants}))
        .await;
    host.chat("parrot", "hello").await
}

const FILES: [&str; 6] = ["read_file", "write_file", "write_here", "list_dir", "make_dir", "remove_file"];
const NETWORK: [&str; 4] = ["tcp", "tcp_listen", "udp", "dns"];
const PROCESSES: [&str; 2] = ["subprocess", "thread"];

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_in_python_touches_nothing() {
    let Some(host) = start("python-rogue", json!({"attempt": "clock"})).await else { return };
    for name in FILES.iter().chain(&NETWORK).chain(&PROCESSES) {
        let answer = attempt(&host, name, json!([])).await;
        assert!(answer.text().starts_with("denied: "), "{name}: {answer:?}");
    }
    // What it gets is empty or a constant.
    let constants = [
        ("environ", "got: {}"),
        ("clock", "got: 0.0"),
        ("monotonic", "got: 0.0"),
        ("stdout", "got: None"),
        ("stderr", "got: None"),
        ("stdin", "got: ''"),
        ("system_exit", "denied: SystemExit"),
    ];
    for (name, expected) in constants {
        let answer = attempt(&host, name, json!([])).await;
        assert_eq!(answer.text(), expected, "{name}: {answer:?}");
    }
    let argv = attempt(&host, "argv", json!([])).await;
    assert!(!argv.text().contains("pajamas-host"), "{argv:?}");
    for name in ["random", "seeded_random"] {
        let (first, second) = (attempt(&host, name, json!([])).await, attempt(&host, name, json!([])).await);
        assert!(first.text().starts_with("got: "), "{first:?}");
        assert_eq!(first.text(), second.text());
    }
    assert!(!host.log.text().contains("rogue was here"));
    for path in ["/tmp/pajamas-host-rogue", "/tmp/pajamas-host-rogue-dir"] {
        assert!(!std::path::Path::new(path).exists(), "{path}");
    }
    host.get("/admin/hooks").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_in_python_takes_no_more_than_it_may() {
    let Some(host) = start("python-rogue", json!({"attempt": "clock"})).await else { return };
    let table = [("sleep", "did not return within"), ("spin", "processor time"), ("exit", "trapped")];
    for (name, part) in table {
        let begun = Instant::now();
        let answer = attempt(&host, name, json!([])).await;
        check_error(&answer, 500, "hook_failed", &["the hook python-rogue failed", part]);
        assert!(begun.elapsed() < Duration::from_secs(30), "{name}: {:?}", begun.elapsed());
    }
    for name in ["allocate", "recurse"] {
        let answer = attempt(&host, name, json!([])).await;
        let is_bounded = answer.text().starts_with("denied: ") || code(&answer) == "hook_failed";
        assert!(is_bounded, "{name}: {answer:?}");
    }
    assert_eq!(super::delete(&host, "python-rogue").await.status, 200);
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_granted_is_there() {
    let Some(host) = start("python-rogue", json!({"attempt": "clock"})).await else { return };
    let clock = attempt(&host, "clock", json!(["clock"])).await;
    let seconds: f64 = clock.text().trim_start_matches("got: ").parse().expect("seconds");
    assert!(seconds > 1.7e9, "{clock:?}");
    let random = async || attempt(&host, "random", json!(["random"])).await.text().to_owned();
    let (first, second) = (random().await, random().await);
    assert!(first.starts_with("got: ") && first != second, "{first} {second}");
    // One grant is not the other.
    assert_eq!(attempt(&host, "clock", json!(["random"])).await.text(), "got: 0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_glossary_in_python_changes_prompts_and_streams() {
    let terms = json!({"terms": {"ASAP": "soon", "New York": "NY"}});
    let Some(host) = start("glossary", terms).await else { return };
    assert_eq!(says(&host, "come ASAP").await, "come soon");
    let body = json!({"path": foreign_component("glossary"), "phases": ["output"],
                      "config": {"terms": {"New York": "NY"}}});
    put_hook(&host, "glossary", body).await;
    let events = host.stream("/v1/chat/completions", &chat("parrot", "to New York today", json!({}))).await;
    assert_eq!(joined(&events), "to NY today", "{events:?}");
    let wrong = json!({"path": foreign_component("glossary")});
    check_error(&put(&host, "glossary", &wrong).await, 422, "hook_not_loaded", &["`terms` must be a table"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_filter_in_javascript_changes_streams_and_refuses_prompts() {
    let config = json!({"allow": ["example.com"], "max_input_links": 2});
    let Some(host) = start("link-filter", config).await else { return };
    let text = "see https://evil.test/x and https://example.com/y now";
    let events = host.stream("/v1/chat/completions", &chat("parrot", text, json!({}))).await;
    assert_eq!(joined(&events), "see [link removed] and https://example.com/y now", "{events:?}");
    let answer = host.chat("parrot", "http://a.test http://b.test http://c.test").await;
    check_error(&answer, 400, "hook_rejected", &["this request has 3 links, and 2 are allowed"]);
}
