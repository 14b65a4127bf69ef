//! What clients notice of a swap and of a worker's death: gaps between tokens of running streams.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::client::Connection;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The host, whose plugin gguf is there in two versions.
    #[arg(long)]
    url: String,
    /// The host's process, whose workers are killed.
    #[arg(long)]
    pid: u32,
    /// The versions.
    #[arg(long, value_delimiter = ',', default_values_t = ["1.0.0".to_owned(), "1.1.0".to_owned()])]
    versions: Vec<String>,
    /// Streams at the same time.
    #[arg(long, default_value_t = 4)]
    streams: usize,
    /// Swaps, and deaths.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// How long the steady state is measured, and how long streams are watched after each event.
const WATCH: Duration = Duration::from_secs(4);

/// Tokens of a stream's prompt, the template's included: what a new worker has to compute again before its first token.
const PROMPT_TOKENS: usize = 45;
/// Ids of ordinary words of the model's vocabulary, for prompts that no cache has seen.
const WORDS: std::ops::Range<usize> = 1000..40_000;

/// Tokens as they come: when, and how long after the one before in the same stream.
#[derive(Default)]
struct Seen(Mutex<Vec<(Instant, Duration)>>);

/// How many tokens the answer of each stream has.
type Lengths = [AtomicUsize];

impl Seen {
    /// Gaps of tokens that came in this time, sorted.
    fn gaps(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gaps: Vec<Duration> =
            seen.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, gap)| *gap).collect();
        gaps.sort();
        gaps
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let lengths: Vec<AtomicUsize> = (0..args.streams).map(|_| AtomicUsize::new(0)).collect();
    let mut deaths = std::thread::scope(|scope| {
        let streams: Vec<_> = (0..args.streams)
            .map(|stream| {
                let (seen, stop, length) = (Arc::clone(&seen), Arc::clone(&stop), &lengths[stream]);
                scope.spawn(move || keep_streaming(&args.url, stream, (&seen, length), &stop))
            })
            .collect();
        let measured = measure(args, &seen, &lengths);
        stop.store(true, Ordering::Relaxed);
        for stream in streams {
            match stream.join() {
                Ok(outcome) => outcome.context("a stream failed")?,
                Err(_) => bail!("a client panicked"),
            }
        }
        measured
    })?;
    for death in &mut deaths {
        death.replay = replay(&args.url, &death.lengths)?;
    }
    report(&mut deaths);
    Ok(())
}

/// What a death of a worker cost.
struct Death {
    /// The longest pause of a stream.
    pause: Duration,
    /// Loading the model again.
    load: Duration,
    /// Tokens of each stream that had to be computed again.
    lengths: Vec<usize>,
    /// Computing as many tokens in as many requests, without a death.
    replay: Duration,
    /// Until the host had noticed.
    noticed: Duration,
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn report(deaths: &mut [Death]) {
    let median = |of: fn(&Death) -> Duration, deaths: &[Death]| {
        let mut times: Vec<Duration> = deaths.iter().map(of).collect();
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    };
    let tokens =
        deaths.iter().map(|death| death.lengths.iter().sum::<usize>()).sum::<usize>() / deaths.len().max(1);
    println!(
        "\nmedians of {} deaths: the longest pause {} ms; loading the model {} ms; computing {tokens} tokens (mean) again {} ms; \
         the pause less both {} ms",
        deaths.len(),
        median(|death| death.pause, deaths).as_millis(),
        median(|death| death.load, deaths).as_millis(),
        median(|death| death.replay, deaths).as_millis(),
        median(|death| death.pause.saturating_sub(death.load + death.replay), deaths).as_millis()
    );
    println!(
        "a death is noticed after {} µs (`pkill` and a request included)",
        median(|death| death.noticed, deaths).as_micros()
    );
}

/// How long it takes until as many requests with prompts of these lengths, which no cache knows, have their first tokens.
fn replay(url: &str, lengths: &[usize]) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let ask = |length: usize| {
            let prompt: Vec<usize> = (0..length).map(|_| fastrand::usize(WORDS)).collect();
            let body = json!({"model": "smollm2", "prompt": prompt, "max_tokens": 1, "ignore_eos": true});
            let mut connection = Connection::open(url)?;
            let request = connection.request("/v1/completions", &body.to_string());
            connection.send(&request)?.read().map(drop)
        };
        let asked: Vec<_> = lengths.iter().map(|length| scope.spawn(move || ask(*length))).collect();
        asked.into_iter().try_for_each(|asked| match asked.join() {
            Ok(answered) => answered,
            Err(_) => bail!("a client panicked"),
        })
    })?;
    Ok(begun.elapsed())
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn measure(args: &Args, seen: &Seen, lengths: &Lengths) -> anyhow::Result<Vec<Death>> {
    // The first answers load the model.
    std::thread::sleep(WATCH);
    let begin = Instant::now();
    std::thread::sleep(WATCH * 2);
    println!(
        "| {} streams | gap p50, ms | gap p99, ms | longest, ms |\n| --- | --- | --- | --- |",
        args.streams
    );
    row("steady", &seen.gaps(begin, Instant::now()));
    let mut load_ms = Vec::new();
    let begin = Instant::now();
    for round in 0..args.rounds {
        let version = &args.versions[(round + 1) % args.versions.len()];
        let report = swap(&args.url, version)?;
        let steps = report["steps"].as_array().into_iter().flatten();
        load_ms.extend(
            steps.filter(|step| step["step"] == "load").filter_map(|step| step["elapsed_ms"].as_u64()),
        );
        std::thread::sleep(WATCH);
    }
    row(&format!("{} swaps, side by side", args.rounds), &seen.gaps(begin, Instant::now()));
    let begin = Instant::now();
    let load = Duration::from_millis(median(&mut load_ms));
    let mut measured = Vec::new();
    for _ in 0..args.rounds {
        let count = deaths(&args.url)?;
        let lengths = lengths.iter().map(|length| PROMPT_TOKENS + length.load(Ordering::Relaxed)).collect();
        let killed_at = Instant::now();
        kill_workers(args.pid)?;
        while deaths(&args.url)? == count {}
        let noticed = killed_at.elapsed();
        std::thread::sleep(WATCH);
        let pause = seen.gaps(killed_at, Instant::now()).last().copied().unwrap_or_default();
        measured.push(Death { pause, load, lengths, replay: Duration::ZERO, noticed });
    }
    row(&format!("{} deaths by SIGKILL", args.rounds), &seen.gaps(begin, Instant::now()));
    Ok(measured)
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn row(name: &str, sorted: &[Duration]) {
    let at = |quantile: f64| {
        let index = (sorted.len().saturating_sub(1) as f64 * quantile) as usize;
        sorted.get(index).map_or(0, Duration::as_millis)
    };
    println!("| {name} | {} | {} | {} |", at(0.5), at(0.99), at(1.0));
}

fn swap(url: &str, version: &str) -> anyhow::Result<Value> {
    let mut connection = Connection::open(url)?;
    let body = json!({ "version": version }).to_string();
    let request = connection.request("/admin/plugins/gguf/swap", &body);
    Ok(serde_json::from_slice(&connection.send(&request)?.read()?)?)
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// How many workers have ended, as the host counts them.
fn deaths(url: &str) -> anyhow::Result<u64> {
    let mut connection = Connection::open(url)?;
    let request = connection.get("/metrics");
    let text = String::from_utf8(connection.send(&request)?.read()?)?;
    let counts = text.lines().filter(|line| line.starts_with("pajamas_worker_ends_total{"));
    Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

fn kill_workers(pid: u32) -> anyhow::Result<()> {
    let status = Command::new("pkill").args(["-KILL", "-P", &pid.to_string()]).status();
    // It says 1 when there was none to kill.
    status.map(drop).context("could not run pkill")
}

/// Streams one answer after the other; each gap between two tokens of one answer is noted.
fn keep_streaming(
    url: &str,
    stream: usize,
    (seen, length): (&Seen, &AtomicUsize),
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let mut connection = Connection::open(url)?;
        let body = json!({
            "model": "smollm2", "stream": true, "temperature": 0, "max_tokens": 200, "ignore_eos": true,
            "messages": [{"role": "user", "content": format!("{stream}.{number}: tell me something.")}],
        });
        let request = connection.request("/v1/chat/completions", &body.to_string());
        let mut answer = connection.send(&request)?;
        let (mut buffer, mut last) = (Vec::new(), None);
        length.store(0, Ordering::Relaxed);
        while answer.chunk(&mut buffer)? {
            if String::from_utf8_lossy(&buffer).contains("\"error\"") {
                bail!("the stream ended with {}", String::from_utf8_lossy(&buffer));
            }
            buffer.clear();
            length.fetch_add(1, Ordering::Relaxed);
            let now = Instant::now();
            if let Some(last) = last.replace(now) {
                seen.0.lock().unwrap_or_else(PoisonError::into_inner).push((now, now.duration_since(last)));
            }
        }
    }
    Ok(())
}
