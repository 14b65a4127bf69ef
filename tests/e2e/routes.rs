//! Public names that share their requests among models.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Host, PATIENCE, Setup};
use crate::stream::chat;

/// A host with the models a, b and c, and this file.
fn host(config: &str) -> Host {
    let setup = Setup::new().plugin("echo").plugin("rogue").config(config);
    let setup =
        setup.file("plugins/rogue/rogue.toml", "behaviour = \"panic-in-load\"\n").model("broken.rogue", "");
    ["a", "b", "c"].iter().fold(setup, |setup, name| setup.model(&format!("{name}.echo"), "")).start()
}

/// Which model answers a request for `name`.
async fn answered_by(host: &Host, name: &str) -> String {
    let response =
        host.post_with("/v1/chat/completions", &[], &chat(name, "hello", json!({"stream": false}))).await;
    assert_eq!(response.status(), 200);
    let id = response.headers()["x-model-id"].to_str().expect("id").to_owned();
    let body: Value = response.json().await.expect("json");
    assert_eq!(
        (body["model"].as_str(), body["choices"][0]["message"]["content"].as_str()),
        (Some(name), Some("hello"))
    );
    id
}

async fn shares(host: &Host, name: &str, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(answered_by(host, name).await).or_default() += 1;
    }
    counts
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_shared_by_weight_and_routes_change_live() {
    let config = "[routes.chat]\ntargets = [{ model = \"a\", weight = 3 }, { model = \"b\" }]\n";
    let host = host(config);
    assert_eq!(shares(&host, "chat", 20).await, counts([("a", 15), ("b", 5)]));

    let listed = host.get("/v1/models").await.body;
    let names: Vec<_> = listed["data"].as_array().expect("list").iter().map(|model| &model["id"]).collect();
    assert_eq!(names, ["a", "b", "broken", "c", "chat"]);
    let route = host.get("/v1/models/chat").await.body;
    assert_eq!(route["targets"][0], json!({"model": "a", "weight": 3}));

    // A stream goes on in its model while the route turns to another one.
    let mut stream =
        crate::stream::Reading::open(&host.client, &host.url, &chat("chat", &"word ".repeat(50), json!({})))
            .await;
    stream.next().await.expect("a first event");
    let put = async |path: &str, body: Value| {
        let response =
            host.client.put(format!("{}{path}", host.url)).json(&body).send().await.expect("answer");
        (response.status().as_u16(), response.json::<Value>().await.expect("json"))
    };
    let (status, body) = put("/admin/routes/chat", json!({"targets": [{"model": "c"}]})).await;
    assert_eq!((status, &body["name"], &body["targets"][0]["weight"]), (200, &json!("chat"), &json!(1)));
    assert_eq!(shares(&host, "chat", 3).await, counts([("c", 3)]));
    stream.text(|| {}).await.expect("the stream ends well");

    // A route may take a model's own name.
    assert_eq!(put("/admin/routes/a", json!({"targets": [{"model": "a"}, {"model": "b"}]})).await.0, 200);
    assert_eq!(shares(&host, "a", 4).await, counts([("a", 2), ("b", 2)]));
    let routes = host.get("/admin/routes").await.body;
    assert_eq!(routes["data"].as_array().map(Vec::len), Some(2));

    let delete = async |path: &str| {
        host.client.delete(format!("{}{path}", host.url)).send().await.expect("answer").status().as_u16()
    };
    assert_eq!((delete("/admin/routes/a").await, delete("/admin/routes/a").await), (200, 404));
    assert_eq!(shares(&host, "a", 2).await, counts([("a", 2)]));
    assert_eq!(delete("/admin/routes/chat").await, 200);
    assert_eq!(host.chat("chat", "hello").await.status, 404);

    for (body, status, message) in [
        (json!({"targets": []}), 400, "name at least one model"),
        (json!({"targets": [{"model": "a", "weight": 0}]}), 400, "every weight is 0"),
        (json!({"targets": [{"model": "z"}]}), 404, "no model \"z\""),
        (json!([]), 400, "body"),
    ] {
        let (answered, error) = put("/admin/routes/x", body).await;
        let text = error["error"]["message"].as_str().expect("an error");
        assert!(answered == status && text.contains(message), "{answered} {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_be_loaded_is_stood_in_for() {
    let config = "[routes.chat]\ntargets = [{ model = \"broken\" }, { model = \"b\", weight = 0 }]\n\
                  [routes.lost]\ntargets = [{ model = \"broken\" }, { model = \"gone\" }]\n";
    let host = host(config);
    assert_eq!(shares(&host, "chat", 4).await, counts([("b", 4)]));
    assert!(host.log.text().contains("names the model gone, which does not exist"), "{}", host.log.text());
    let answer = host.chat("lost", "hello").await;
    assert!(answer.status >= 500 && answer.error().contains("broken"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shadows_get_copies_and_harm_nobody() {
    let config = "[routes.chat]\ntargets = [{ model = \"a\" }]\n\
                  shadows = [{ model = \"b\", percent = 50 }, { model = \"broken\" }]\n";
    let host = host(config);
    assert_eq!(shares(&host, "chat", 8).await, counts([("a", 8)]));
    let started = std::time::Instant::now();
    loop {
        let metrics = host.client.get(format!("{}/metrics", host.url)).send().await.expect("answer");
        let metrics = metrics.text().await.expect("text");
        let has = |line: &str| metrics.lines().any(|l| l == line);
        if has("pajamas_shadows_total{model=\"b\",outcome=\"answered\"} 4")
            && has("pajamas_shadows_total{model=\"broken\",outcome=\"failed\"} 8")
        {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{metrics}");
    }
}
