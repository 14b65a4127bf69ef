//! `/admin/hooks` while the host runs.

use serde_json::{Value, json};

use super::{check_error, component, delete, put, reload, says, send};
use crate::harness::Setup;

#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_listed_with_what_they_are() {
    let host = Setup::echo()
        .copy(&component("redact"), "plugins/hooks/redact/redact.wasm")
        .config("[[hooks]]\nhook = \"redact\"\nphases = [\"input\"]\ngrants = [\"clock\"]\n")
        .start();
    let answer = host.get("/admin/hooks").await;
    let hook = &answer.body["data"][0];
    let expected = json!({
        "name": "redact", "hook": "redact", "routes": [], "tasks": [], "phases": ["input"], "order": 0,
        "config": {}, "grants": ["clock"], "on_error": "reject",
        "limits": {"cpu_ms": 50, "memory_bytes": 67_108_864, "output_bytes": 33_554_432, "log_bytes": 16_384},
    });
    for (field, value) in expected.as_object().expect("object") {
        assert_eq!(&hook[field], value, "{field}: {answer:?}");
    }
    let facts = &hook["component"];
    assert_eq!(facts["describes_itself_as"], "redact", "{answer:?}");
    assert!(facts["path"].as_str().is_some_and(|path| path.ends_with("redact.wasm")), "{answer:?}");
    assert!(facts["sha256"].as_str().is_some_and(|hash| hash.len() == 64), "{answer:?}");
    assert!(facts["size_bytes"].as_u64() > Some(10_000) && facts["version"].is_string(), "{answer:?}");
    assert!(facts["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{answer:?}");
    assert!(facts["imports"].to_string().contains("pajamas:hook/config@0.1.0"), "{answer:?}");
    assert!(facts["exports"].to_string().contains("pajamas:hook/text@0.1.0"), "{answer:?}");
    assert!(hook.get("problem").is_none(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_added_changed_and_removed() {
    let host = Setup::echo().start();
    let path = component("redact");
    assert_eq!(host.get("/admin/hooks").await.body["data"], json!([]));
    let mail = "mail a@example.com";
    // The name in the path wins.
    let added = put(&host, "mine", &json!({"path": path, "name": "other"})).await;
    assert_eq!((added.status, &added.body["name"]), (200, &json!("mine")), "{added:?}");
    assert_eq!(says(&host, mail).await, "mail [EMAIL]");
    let config = json!({"replacements": {"email": "[X]"}});
    let changed = put(&host, "mine", &json!({"path": path, "config": config})).await;
    assert_eq!((changed.status, &changed.body["config"]), (200, &config), "{changed:?}");
    assert_eq!(says(&host, mail).await, "mail [X]");
    assert_eq!(reload(&host, "mine").await.status, 200);
    let listed = host.get("/admin/hooks").await;
    assert_eq!(listed.body["data"].as_array().map(Vec::len), Some(1), "{listed:?}");
    let removed = delete(&host, "mine").await;
    assert_eq!((removed.status, &removed.body), (200, &json!({"name": "mine", "removed": true})));
    assert_eq!(says(&host, mail).await, mail);
    for answer in [delete(&host, "mine").await, reload(&host, "mine").await] {
        check_error(&answer, 404, "hook_not_found", &["there is no hook \"mine\""]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_hooks_change_nothing() {
    let host = Setup::echo().start();
    let path = component("redact");
    assert_eq!(put(&host, "mine", &json!({"path": path})).await.status, 200);
    let table: [(&str, Value, u16, &str); 9] = [
        ("mine", json!([]), 400, "body"),
        ("mine", json!({}), 400, "either `path` or `hook`"),
        ("mine", json!({"path": path, "hook": "redact"}), 400, "either `path` or `hook`"),
        ("mine", json!({"path": path, "colour": "red"}), 400, "colour"),
        ("mine", json!({"path": path, "limits": {"cpu_ms": 0}}), 400, "limits.cpu_ms"),
        ("Bad_Name", json!({"path": path}), 400, "`name` is"),
        ("mine", json!({"hook": "ghost"}), 422, "there is no hook \"ghost\""),
        ("mine", json!({"path": "/nowhere/x.wasm"}), 422, "/nowhere/x.wasm"),
        ("mine", json!({"path": path, "config": {"kinds": ["mood"]}}), 422, "refuses its configuration"),
    ];
    for (name, body, status, part) in table {
        let answer = put(&host, name, &body).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.error().contains(part), "{body}: {answer:?}");
        assert_eq!(says(&host, "mail a@example.com").await, "mail [EMAIL]");
    }
    // Web pages of others are refused.
    let url = format!("{}/admin/hooks/mine", host.url);
    let requests = [
        host.client.put(&url).json(&json!({"path": path})),
        host.client.delete(&url),
        host.client.post(format!("{url}/reload")),
    ];
    for request in requests {
        let answer = send(&host, request.header("origin", "http://evil.example"), "origin").await;
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    assert_eq!(host.get("/admin/hooks").await.body["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_sixty_four_hooks_at_most() {
    let host = Setup::echo().start();
    let body = json!({"path": component("system-prompt"), "config": {"text": "Be brief."}});
    for number in 0..64 {
        assert_eq!(put(&host, &format!("hook-{number}"), &body).await.status, 200);
    }
    let answer = put(&host, "one-more", &body).await;
    assert!(answer.status == 400 && answer.error().contains("64 hooks already"), "{answer:?}");
    host.expect_echo().await;
    assert_eq!(delete(&host, "hook-7").await.status, 200);
    assert_eq!(put(&host, "one-more", &body).await.status, 200);
}
