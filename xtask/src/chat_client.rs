//! A chat client just large enough to show that the host answers: one question, streamed.
//!
//! It speaks HTTP/1.0 on purpose: a server then sends the plain bytes of the stream and closes, so that no chunk
//! decoding is needed, and the program needs no HTTP library.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// No token and no header for this long means that the host is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// No answer to these small questions is longer; what follows is not read.
const RESPONSE_LEN_MAX: u64 = 16 << 20;

/// How an answer went. Times count from the request.
pub(crate) struct Timing {
    /// The completion tokens that the host counted.
    pub(crate) tokens: u64,
    pub(crate) first_token: Duration,
    pub(crate) last_token: Duration,
}

impl Timing {
    /// Tokens per second of decoding, the first one left out because it waits for the prompt.
    pub(crate) fn tokens_per_second(&self) -> f64 {
        let decoding = self.last_token.saturating_sub(self.first_token).as_secs_f64();
        if self.tokens < 2 || decoding <= 0.0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "no answer has 2^53 tokens")]
        let decoded = (self.tokens - 1) as f64;
        decoded / decoding
    }
}

/// Asks one question and hands each piece of the answer's text to `on_text` as it arrives.
pub(crate) fn ask(address: &str, model: &str, question: &str, on_text: impl FnMut(&str)) -> Result<Timing> {
    let request = json!({
        "model": model,
        "messages": [{ "role": "user", "content": question }],
        "temperature": 0,
        "max_tokens": 128,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    let started = Instant::now();
    let response = send(address, "POST /v1/chat/completions", &request.to_string())?;
    if response.status != 200 {
        let status = response.status;
        bail!("the host answered {status}: {}", error_message(&response.text()?));
    }
    read_stream(response.body, started, on_text)
}

/// Whether the host says that it is ready; a connection that fails counts as not yet.
pub(crate) fn is_ready(address: &str) -> bool {
    send(address, "GET /ready", "").is_ok_and(|response| response.status == 200)
}

/// The same question in the words of llama-server.
pub(crate) fn is_healthy(address: &str) -> bool {
    send(address, "GET /health", "").is_ok_and(|response| response.status == 200)
}

struct Response {
    status: u16,
    body: BufReader<std::io::Take<TcpStream>>,
}

impl Response {
    fn text(mut self) -> Result<String> {
        let mut text = String::new();
        self.body.read_to_string(&mut text).context("could not read the host's answer")?;
        Ok(text)
    }
}

fn send(address: &str, method_and_path: &str, body: &str) -> Result<Response> {
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("could not connect to the host at {address}"))?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    let head = format!(
        "{method_and_path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()))?;
    read_head(BufReader::new(stream.take(RESPONSE_LEN_MAX)))
}

fn read_head(mut body: BufReader<std::io::Take<TcpStream>>) -> Result<Response> {
    let mut line = String::new();
    body.read_line(&mut line).context("the host closed the connection without an answer")?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("expected an HTTP status line, found {line:?}"))?;
    loop {
        line.clear();
        let len = body.read_line(&mut line).context("could not read the answer's headers")?;
        if len == 0 || line.trim_end().is_empty() {
            return Ok(Response { status, body });
        }
    }
}

/// Reads server-sent events up to `[DONE]`.
fn read_stream(body: impl BufRead, started: Instant, mut on_text: impl FnMut(&str)) -> Result<Timing> {
    let mut timing = Timing { tokens: 0, first_token: Duration::ZERO, last_token: Duration::ZERO };
    for line in body.lines() {
        let line = line.context("the answer broke off")?;
        let Some(data) = line.strip_prefix("data:").map(str::trim_start) else {
            continue;
        };
        if data == "[DONE]" {
            return Ok(timing);
        }
        let event: Value = serde_json::from_str(data).with_context(|| format!("not a JSON event: {data}"))?;
        if event.get("error").is_some() {
            bail!("the host reported an error: {}", error_message(data));
        }
        if let Some(tokens) = event["usage"]["completion_tokens"].as_u64() {
            timing.tokens = tokens;
        }
        let Some(text) = event["choices"][0]["delta"]["content"].as_str().filter(|text| !text.is_empty())
        else {
            continue;
        };
        timing.last_token = started.elapsed();
        if timing.first_token.is_zero() {
            timing.first_token = timing.last_token;
        }
        on_text(text);
    }
    bail!("the answer ended without [DONE]");
}

/// The message of an error in OpenAI's shape, or the whole text if it has none.
fn error_message(body: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(body).ok();
    let message = parsed.as_ref().and_then(|value| value["error"]["message"].as_str());
    message.unwrap_or(body).to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Serves one canned response, then asks a question of it.
    fn ask_canned(response: &'static str) -> Result<(String, Timing)> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut request = BufReader::new(stream);
            let mut line = String::new();
            let mut content_len = 0;
            while request.read_line(&mut line).unwrap() > 2 {
                if let Some(len) = line.strip_prefix("Content-Length: ") {
                    content_len = len.trim().parse().unwrap();
                }
                line.clear();
            }
            request.read_exact(&mut vec![0; content_len]).unwrap();
            request.get_mut().write_all(response.as_bytes()).unwrap();
        });
        let mut text = String::new();
        let result = ask(&address, "m", "q", |piece| text.push_str(piece));
        server.join().unwrap();
        result.map(|timing| (text, timing))
    }

    #[test]
    fn pieces_are_joined_and_usage_is_counted() {
        let (text, timing) = ask_canned(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\
             data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
             : keep-alive\n\n\
             data: {\"choices\":[{\"delta\":{\"content\":\"Par\"}}]}\n\n\
             data: {\"choices\":[{\"delta\":{\"content\":\"is.\"}}]}\n\n\
             data: {\"choices\":[],\"usage\":{\"completion_tokens\":2}}\n\n\
             data: [DONE]\n\n",
        )
        .unwrap();
        assert_eq!((text.as_str(), timing.tokens), ("Paris.", 2));
        assert!(timing.first_token <= timing.last_token);
    }

    #[test]
    fn failures_say_what_the_host_said() {
        for (response, message) in [
            (
                "HTTP/1.1 404 Not Found\r\n\r\n{\"error\":{\"message\":\"no model m\"}}",
                "the host answered 404: no model m",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\ndata: {\"error\":{\"message\":\"the worker died\"}}\n\n",
                "the host reported an error: the worker died",
            ),
            ("HTTP/1.1 200 OK\r\n\r\ndata: {}\n\n", "the answer ended without [DONE]"),
            ("nonsense\r\n\r\n", "expected an HTTP status line, found \"nonsense\\r\\n\""),
        ] {
            let error = ask_canned(response).err().unwrap();
            assert_eq!(error.to_string(), message);
        }
    }
}
