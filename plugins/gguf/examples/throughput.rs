//! Measures generation without host and worker: tokens per second and time to the first token at 1, 4 and 8 streams.
//!
//! `cargo run --release -p pajamas-gguf --example throughput -- MODEL.gguf ['{"slots": 8}' [PROMPT_WORDS]]`
#![expect(clippy::print_stdout, reason = "a command that prints a table")]

use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, atomic::AtomicBool};
use std::time::{Duration, Instant};

use pajamas_gguf::GgufBackend;
use pajamas_plugin_api::{
    Backend, Error, Event, EventSink, Flow, GenerateParams, Job, LoadSpec, Model, Params, Part, Progress,
    Request, Task,
};

const TOKENS: u32 = 96;
const ROUNDS: usize = 3;

enum News {
    Token,
    End,
}

struct Sink(Sender<(Instant, News)>);

impl EventSink for Sink {
    fn push(&self, event: &Event<'_>) -> Flow {
        let news = match event {
            Event::Token { .. } => News::Token,
            event if event.is_terminal() => News::End,
            _ => return Flow::Continue,
        };
        match self.0.send((Instant::now(), news)) {
            Ok(()) => Flow::Continue,
            Err(_) => Flow::Cancelled,
        }
    }

    fn cancelled(&self) -> bool {
        false
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: throughput MODEL.gguf [OPTIONS_JSON [PROMPT_WORDS]]")?.into();
    let options = serde_json::from_str(&arguments.next().unwrap_or_else(|| "{}".to_owned()))?;
    let words: usize = arguments.next().map_or(Ok(20), |words| words.parse())?;
    let spec = LoadSpec { path, options, cache_dir: None };
    let model =
        GgufBackend::init(Path::new("."))?.load(&spec, &Progress::new(Arc::new(Sink(channel().0))))?;
    println!("streams  tokens/s  first token ms");
    for streams in [1, 4, 8] {
        let mut best = (0.0f64, f64::MAX);
        for round in 0..ROUNDS {
            let (rate, first) = measure(&model, streams, round, words)?;
            best = (best.0.max(rate), best.1.min(first));
        }
        println!("{streams:7}  {:8.1}  {:14.0}", best.0, best.1);
    }
    Ok(())
}

/// Tokens per second of all streams together, and their mean time to the first token in milliseconds.
fn measure(model: &impl Model, streams: usize, round: usize, words: usize) -> Result<(f64, f64), Error> {
    let begin = Instant::now();
    let receivers: Vec<_> = (0..streams)
        .map(|stream| {
            let (sender, receiver) = channel();
            let job = Job::new(Arc::new(Sink(sender)), Arc::new(AtomicBool::new(false)));
            model.submit(request(stream, round, words), job);
            receiver
        })
        .collect();
    let (mut tokens, mut first) = (0, Duration::ZERO);
    for receiver in receivers {
        let mut own = 0;
        for (at, news) in receiver {
            match news {
                News::Token if own == 0 => (first, own) = (first + (at - begin), 1),
                News::Token => own += 1,
                News::End => break,
            }
        }
        tokens += own;
    }
    let rate = f64::from(tokens) / begin.elapsed().as_secs_f64();
    Ok((rate, first.as_secs_f64() * 1e3 / streams as f64))
}

/// A prompt of about `words` tokens that shares nothing with those of other streams and rounds.
fn request(stream: usize, round: usize, words: usize) -> Request {
    let params =
        GenerateParams { temperature: 0.0, max_tokens: Some(TOKENS), ignore_eos: true, ..Default::default() };
    let text =
        format!("{round}-{stream}: tell me a story about {}", "the sea and the wind and ".repeat(words / 6));
    let params = Params::new(&params).unwrap_or_default();
    Request { task: Task::Generate, params, parts: vec![Part::text(text)], deadline_ms: None }
}
