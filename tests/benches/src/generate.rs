//! Throughput and time to first token at several numbers of streams, servers in turns.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::client::Connection;

/// Before each measurement: threads of the server that had its turn before wait for more in a busy loop, OpenMP's for
/// milliseconds, which this one would pay for.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A server, as `NAME=http://HOST:PORT`; give two or more. The first is the one whose ratio to the second is shown.
    #[arg(long = "server", required = true)]
    servers: Vec<String>,
    /// Model name in the request.
    #[arg(long, default_value = "smollm2")]
    model: String,
    /// Numbers of streams.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 8])]
    streams: Vec<usize>,
    /// Tokens of each answer.
    #[arg(long, default_value_t = 96)]
    tokens: u32,
    /// Measurements of each; the median is shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// One server's figures of one round.
#[derive(Clone, Copy)]
struct Figures {
    tokens_per_s: f64,
    first_token_ms: f64,
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let servers: Vec<(&str, &str)> = args
        .servers
        .iter()
        .map(|server| server.split_once('=').context("a server is given as NAME=URL"))
        .collect::<anyhow::Result<_>>()?;
    println!("| streams | server | tokens/s | time to first token, ms |\n| --- | --- | --- | --- |");
    for streams in &args.streams {
        let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); servers.len()];
        // The round before the first one warms up.
        for round in 0..=args.rounds {
            for (figures, (_, url)) in rounds.iter_mut().zip(&servers) {
                let measured = measure(url, args, *streams, round)?;
                if round > 0 {
                    figures.push(measured);
                }
            }
        }
        let medians: Vec<Figures> = rounds.iter().map(|figures| median(figures)).collect();
        for ((name, _), figures) in servers.iter().zip(&medians) {
            println!("| {streams} | {name} | {:.0} | {:.0} |", figures.tokens_per_s, figures.first_token_ms);
        }
        if let [ours, rival, ..] = medians[..] {
            println!(
                "| {streams} | ratio | {:.2}× | {:.2}× |",
                ours.tokens_per_s / rival.tokens_per_s,
                ours.first_token_ms / rival.first_token_ms
            );
        }
    }
    Ok(())
}

fn median(figures: &[Figures]) -> Figures {
    let middle = |value: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures { tokens_per_s: middle(|f| f.tokens_per_s), first_token_ms: middle(|f| f.first_token_ms) }
}

fn measure(url: &str, args: &Args, streams: usize, round: usize) -> anyhow::Result<Figures> {
    std::thread::sleep(PAUSE);
    let started = Instant::now();
    let outcomes: Vec<anyhow::Result<(u64, Duration)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..streams)
            .map(|stream| {
                scope.spawn(move || {
                    // No two prompts are the same, so that no server has an answer's cells from before. What a server
                    // makes of the template's common beginning is its own affair.
                    let number = (streams * 100 + round) * 100 + stream;
                    let prompt = format!("{number} is a number: tell me something about {number}.");
                    one_stream(url, args, &prompt)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client thread panicked"))))
            .collect()
    });
    let elapsed = started.elapsed().as_secs_f64();
    let (mut tokens, mut first) = (0, Vec::new());
    for outcome in outcomes {
        let (count, first_token) = outcome?;
        tokens += count;
        first.push(first_token.as_secs_f64() * 1000.0);
    }
    let first_token_ms = first.iter().sum::<f64>() / first.len() as f64;
    Ok(Figures { tokens_per_s: tokens as f64 / elapsed, first_token_ms })
}

/// Tokens of one answer, and the time to its first one.
fn one_stream(url: &str, args: &Args, prompt: &str) -> anyhow::Result<(u64, Duration)> {
    let mut connection = Connection::open(url)?;
    let body = json!({
        "model": args.model, "stream": true, "stream_options": {"include_usage": true}, "temperature": 0,
        "max_tokens": args.tokens, "ignore_eos": true, "messages": [{"role": "user", "content": prompt}],
    });
    let request = connection.request("/v1/chat/completions", &body.to_string());
    let started = Instant::now();
    let mut answer = connection.send(&request)?;
    let (mut buffer, mut first, mut tokens) = (Vec::new(), None, 0);
    while answer.chunk(&mut buffer)? {
        let text = String::from_utf8_lossy(&buffer);
        let complete = text.rfind("\n\n").map_or(0, |end| end + 2);
        for event in text[..complete].split("\n\n").filter_map(|event| event.strip_prefix("data: ")) {
            let Ok(event) = serde_json::from_str::<Value>(event) else { continue };
            let content = event["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
            if first.is_none() && !content.is_empty() {
                first = Some(started.elapsed());
            }
            tokens = event["usage"]["completion_tokens"].as_u64().unwrap_or(tokens);
        }
        buffer.drain(..complete);
    }
    Ok((tokens, first.context("the answer had no text")?))
}
