//! The OpenAI API through the `echo` plugin.

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::harness::{Host, Setup, joined};

fn chat(text: &str, extra: &Value) -> Value {
    let mut body = json!({"model": "parrot", "messages": [{"role": "user", "content": text}]});
    for (key, value) in extra.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

async fn post(host: &Host, text: &str, extra: Value) -> crate::harness::Answer {
    host.post("/v1/chat/completions", &chat(text, &extra)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_one_piece_and_as_a_stream() {
    let host = Setup::echo().start();
    let whole = post(&host, "grüße an alle 🦜", json!({})).await;
    assert_eq!((whole.status, whole.text()), (200, "grüße an alle 🦜"));
    assert_eq!(whole.body["object"], "chat.completion");
    assert_eq!(whole.body["choices"][0]["finish_reason"], "stop");
    assert!(whole.body["usage"]["completion_tokens"].as_u64() > Some(0));
    let extra = json!({"stream": true, "stream_options": {"include_usage": true}});
    let events = host.stream("/v1/chat/completions", &chat("grüße an alle 🦜", &extra)).await;
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    assert_eq!(joined(&events), "grüße an alle 🦜");
    let first: Value = serde_json::from_str(&events[0]).expect("json");
    assert_eq!(first["choices"][0]["delta"]["role"], "assistant");
    let last: Value = serde_json::from_str(&events[events.len() - 2]).expect("json");
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"], whole.body["usage"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_strings_end_the_answer_across_token_borders() {
    let host = Setup::echo().start();
    for (stop, expected) in [("two thr", "one "), ("e", "on"), ("never", "one two three"), ("one", "")] {
        let answer = post(&host, "one two three", json!({"stop": stop})).await;
        assert_eq!(answer.text(), expected, "{stop}");
        assert_eq!(answer.body["choices"][0]["finish_reason"], "stop");
        let body = chat("one two three", &json!({"stop": [stop], "stream": true}));
        let events = host.stream("/v1/chat/completions", &body).await;
        assert_eq!(joined(&events), expected, "{stop}, streamed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn max_tokens_and_n_are_kept() {
    let host = Setup::echo().start();
    let answer = post(&host, "one two three", json!({"max_tokens": 1, "n": 3})).await;
    let choices = answer.body["choices"].as_array().expect("choices");
    assert_eq!(choices.len(), 3);
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], index);
        assert_eq!(choice["finish_reason"], "length", "{answer:?}");
        assert_eq!(choice["message"]["content"].as_str().map(str::trim), Some("one"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_name_the_field() {
    let host = Setup::echo().start();
    let cases = [
        (json!({"temperature": "hot"}), 400, "temperature"),
        (json!({"temperature": 9}), 400, "temperature"),
        (json!({"n": 0}), 400, "n"),
        (json!({"top_p": -1}), 400, "top_p"),
        (json!({"stop": 5}), 400, "stop"),
        (json!({"messages": []}), 400, "messages"),
        (json!({"messages": [{"role": "pope", "content": "x"}]}), 400, "messages"),
        (json!({"functions": [{"name": "f"}]}), 400, "functions"),
        (json!({"response_format": {"type": "json_schema"}}), 400, "response_format"),
        (json!({"model": "ghost"}), 404, "ghost"),
        (json!({"audio": {"voice": "x"}, "modalities": ["audio"]}), 400, "audio"),
    ];
    for (extra, status, named) in cases {
        let answer = post(&host, "x", extra.clone()).await;
        assert_eq!(answer.status, status, "{extra}: {answer:?}");
        let error = &answer.body["error"];
        for field in ["message", "type", "code", "param"] {
            assert!(error.get(field).is_some(), "{extra}: {field} is missing in {answer:?}");
        }
        let text = format!("{} {}", error["message"], error["param"]);
        assert!(text.contains(named), "{extra}: {answer:?}");
    }
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bodies_and_routes_have_the_shape_of_openai_too() {
    let host = Setup::echo().config("[limits]\nbody_bytes = 10000\n").start();
    let url = format!("{}/v1/chat/completions", host.url);
    let json_type = ("content-type", "application/json");
    let send = async |body: String, header: (&str, &str)| {
        let response =
            host.client.post(&url).header(header.0, header.1).body(body).send().await.expect("answer");
        (response.status().as_u16(), response.json::<Value>().await.expect("json"))
    };
    let (status, body) = send("{\"model\": ".to_owned(), json_type).await;
    assert_eq!(status, 400, "{body}");
    let (status, body) = send("{}".to_owned(), ("content-type", "text/plain")).await;
    assert_eq!(status, 415, "{body}");
    let (status, body) = send("x".repeat(20_000), json_type).await;
    assert_eq!(status, 413, "{body}");
    assert!(body["error"]["message"].is_string());
    for (path, status) in [("/nowhere", 404), ("/v1/chat/completions", 405), ("/v1/models/ghost", 404)] {
        let answer = host.get(path).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(!answer.error().is_empty(), "{answer:?}");
    }
    host.expect_echo().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_and_its_log_line_carry_a_request_id() {
    let host = Setup::echo().start();
    let response =
        host.client.get(format!("{}/v1/models", host.url)).header("x-request-id", "abc-123").send().await;
    assert_eq!(response.expect("answer").headers()["x-request-id"], "abc-123");
    let response = host.client.get(format!("{}/nowhere", host.url)).send().await.expect("answer");
    let id = response.headers()["x-request-id"].to_str().expect("text").to_owned();
    assert!(id.len() > 20, "{id}");
    crate::harness::eventually("both ids are logged", || {
        let log = host.log.text();
        log.contains("abc-123") && log.contains(&id)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_stops_the_work() {
    let host = Setup::new()
        .plugin("echo")
        .model("slow.echo", "")
        .model("slow.toml", "[options]\ndelay_ms = 20\n")
        .start();
    let text = "word ".repeat(1000);
    for stream in [true, false] {
        let body =
            json!({"model": "slow", "stream": stream, "messages": [{"role": "user", "content": text}]});
        let request = host.client.post(format!("{}/v1/chat/completions", host.url)).json(&body);
        if stream {
            let mut chunks = request.send().await.expect("stream").bytes_stream();
            chunks.next().await.expect("chunk").expect("bytes");
        } else {
            let patience = std::time::Duration::from_millis(300);
            assert!(request.timeout(patience).send().await.is_err());
        }
        host.until_busy(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_rerank_and_models() {
    let host = Setup::echo().start();
    let answer = host.post("/v1/embeddings", &json!({"model": "parrot", "input": ["one", "two"]})).await;
    let data = answer.body["data"].as_array().expect("data");
    assert_eq!(data.len(), 2, "{answer:?}");
    for (index, item) in data.iter().enumerate() {
        assert_eq!(item["index"], index);
        let norm: f64 = item["embedding"]
            .as_array()
            .expect("vector")
            .iter()
            .filter_map(Value::as_f64)
            .map(|x| x * x)
            .sum();
        assert!((norm - 1.0).abs() < 1e-3, "{item}");
    }
    let body = json!({"model": "parrot", "query": "red apple", "documents": ["green tree", "a red apple"], "top_n": 1});
    let answer = host.post("/v1/rerank", &body).await;
    assert_eq!(answer.body["results"][0]["index"], 1, "{answer:?}");
    assert_eq!(answer.body["results"].as_array().map(Vec::len), Some(1));
    let models = host.get("/v1/models").await;
    assert_eq!(models.body["data"][0]["id"], "parrot", "{models:?}");
    assert_eq!(host.get("/v1/models/parrot").await.body["id"], "parrot");
}
