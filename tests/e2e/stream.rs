//! Streams of chats, read event by event.

use futures_util::StreamExt as _;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::Host;

/// A stream that is read event by event.
pub struct Reading {
    bytes: Box<dyn futures_util::Stream<Item = Vec<u8>> + Send + Unpin>,
    buffer: Vec<u8>,
}

impl Reading {
    pub async fn open(client: &reqwest::Client, url: &str, body: &Value) -> Self {
        let response =
            client.post(format!("{url}/v1/chat/completions")).json(body).send().await.expect("answer");
        assert_eq!(response.status(), 200);
        let bytes = response.bytes_stream().map(|chunk| chunk.expect("the connection holds").to_vec());
        Self { bytes: Box::new(bytes), buffer: Vec::new() }
    }

    /// The data of the next event, comments passed over; `None` at the end.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let event = String::from_utf8(event).expect("UTF-8");
                if event.starts_with(':') {
                    continue;
                }
                return Some(event.trim().strip_prefix("data: ").expect("an event with data").to_owned());
            }
            self.buffer.extend(self.bytes.next().await?);
        }
    }

    /// All text; `seen` is told of each piece.
    pub async fn text(mut self, mut seen: impl FnMut()) -> Result<String, String> {
        let mut text = String::new();
        while let Some(event) = self.next().await {
            if event == "[DONE]" {
                return Ok(text);
            }
            let event: Value = serde_json::from_str(&event).expect("JSON");
            if let Some(message) = event["error"]["message"].as_str() {
                return Err(message.to_owned());
            }
            if let Some(piece) = event["choices"][0]["delta"]["content"].as_str() {
                text += piece;
                seen();
            }
        }
        Err("the stream ended without [DONE]".to_owned())
    }
}

/// Body of a streamed chat.
pub fn chat(model: &str, text: &str, extra: Value) -> Value {
    let mut body = json!({"model": model, "stream": true, "messages": [{"role": "user", "content": text}]});
    for (key, value) in extra.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    body
}

/// Sends a signal to a process that may have ended by itself.
pub fn kill(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("pid");
    let _ = rustix::process::kill_process(pid, signal);
}

/// Chats with the real model, greedy and sampled in turns, each with the text that it gives undisturbed.
pub async fn with_expected_texts(host: &Host, count: usize, tokens: u32) -> Vec<(Value, String)> {
    let mut chats = Vec::new();
    for i in 0..count {
        let sampling =
            if i % 2 == 0 { json!({"temperature": 0}) } else { json!({"temperature": 0.9, "seed": i}) };
        let mut body = chat("smollm2", &format!("Write about the number {i}."), sampling);
        (body["max_tokens"], body["ignore_eos"]) = (json!(tokens), json!(true));
        let text = Reading::open(&host.client, &host.url, &body).await.text(|| {}).await;
        chats.push((body, text.expect("an undisturbed answer")));
    }
    chats
}
