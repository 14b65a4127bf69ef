//! API keys, from the command line to the answer.

use serde_json::{Value, json};

use crate::harness::{Host, PATIENCE, Setup};

fn body() -> Value {
    json!({"model": "parrot", "messages": [{"role": "user", "content": "hello"}]})
}

/// Status, error code and `Retry-After` of a request with this key.
async fn ask(host: &Host, path: &str, key: Option<&str>) -> (u16, String, Option<String>) {
    let authorization = key.map(|key| format!("Bearer {key}"));
    let headers: Vec<(&str, &str)> =
        authorization.iter().map(|value| ("authorization", value.as_str())).collect();
    let response = host.post_with(path, &headers, &body()).await;
    let status = response.status().as_u16();
    let retry = response.headers().get("retry-after").map(|value| value.to_str().expect("text").to_owned());
    let body: Value = response.json().await.expect("JSON");
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned(), retry)
}

const CHAT: &str = "/v1/chat/completions";

#[tokio::test(flavor = "multi_thread")]
async fn requests_need_a_key_that_may_make_them() {
    let setup = Setup::echo();
    let (user, operator) = (setup.key(&["user"]), setup.key(&["operator", "--scope", "infer,admin"]));
    let host = setup.start();
    let table = [
        (CHAT, None, 401, "invalid_api_key"),
        (CHAT, Some("pj-guess"), 401, "invalid_api_key"),
        (CHAT, Some(user.as_str()), 200, ""),
        (CHAT, Some(operator.as_str()), 200, ""),
        ("/admin/plugins/echo/reset", Some(user.as_str()), 403, "insufficient_scope"),
        ("/admin/plugins/echo/reset", Some(operator.as_str()), 200, ""),
        ("/admin/plugins/echo/reset", None, 401, "invalid_api_key"),
    ];
    for (path, key, status, code) in table {
        let answer = ask(&host, path, key).await;
        assert_eq!((answer.0, answer.1.as_str()), (status, code), "{path} {key:?}");
    }
    for probe in ["/health", "/live", "/ready"] {
        assert_eq!(host.get(probe).await.status, 200, "{probe}");
    }
    // Neither secret is in the file or in the log.
    let file = std::fs::read_to_string(host.path("keys.toml")).expect("keys");
    for secret in [&user, &operator] {
        assert!(!file.contains(secret.as_str()) && !host.log.text().contains(secret.as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_used_too_much_has_to_wait() {
    let setup = Setup::echo();
    let few = setup.key(&["few", "--requests-per-minute", "2"]);
    let short = setup.key(&["short", "--tokens-per-minute", "1"]);
    let host = setup.start();
    for _ in 0..2 {
        assert_eq!(ask(&host, CHAT, Some(&few)).await.0, 200);
    }
    let refused = ask(&host, CHAT, Some(&few)).await;
    assert_eq!((refused.0, refused.1.as_str()), (429, "rate_limit_exceeded"));
    let seconds: u64 = refused.2.expect("Retry-After").parse().expect("seconds");
    assert!((1..=30).contains(&seconds), "{seconds}");
    // Its two tokens are counted when the first answer has ended.
    assert_eq!(ask(&host, CHAT, Some(&short)).await.0, 200);
    let started = std::time::Instant::now();
    while ask(&host, CHAT, Some(&short)).await.0 != 429 {
        assert!(started.elapsed() < PATIENCE, "never refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_soon_and_the_last_one_does_not_open_the_server() {
    let setup = Setup::echo();
    let key = setup.key(&["user"]);
    let host = setup.start();
    assert_eq!(ask(&host, CHAT, Some(&key)).await.0, 200);
    let listed = host.run(&["keys", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let id = listed["keys"][0]["id"].as_str().expect("id").to_owned();
    assert!(!listed.to_string().contains(&key), "{listed}");
    let revoked = host.run(&["keys", "revoke", &id]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    let started = std::time::Instant::now();
    while ask(&host, CHAT, Some(&key)).await.0 != 401 {
        assert!(started.elapsed() < PATIENCE, "never refused");
    }
    assert_eq!(ask(&host, CHAT, None).await.0, 401);
    let unknown = host.run(&["keys", "revoke", &id]);
    assert_eq!(unknown.code, Some(66), "{unknown:?}");
    assert!(unknown.stderr.contains("there is no key"), "{unknown:?}");
}

#[test]
fn other_machines_are_let_in_with_a_key_only() {
    let setup = Setup::echo();
    let refused = setup.run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(refused.stderr.contains("pajamas-host keys create"), "{refused:?}");
    setup.key(&["user"]);
    // Shows that the configuration is accepted, without serving.
    let listed = setup.run(&["keys", "list", "--listen", "0.0.0.0:0"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
}
