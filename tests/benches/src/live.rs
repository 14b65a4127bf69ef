//! What clients notice of a swap and of a worker's death: gaps between tokens of running streams.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Tokens as they come: when, and how long after the one before in the same stream.
#[derive(Default)]
struct Seen(Mutex<Vec<(Instant, Duration)>>);

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
    std::thread::scope(|scope| {
        let streams: Vec<_> = (0..args.streams)
            .map(|stream| {
                let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
                scope.spawn(move || keep_streaming(&args.url, stream, &seen, &stop))
            })
            .collect();
        let measured = measure(args, &seen);
        stop.store(true, Ordering::Relaxed);
        for stream in streams {
            match stream.join() {
                Ok(outcome) => outcome.context("a stream failed")?,
                Err(_) => bail!("a client panicked"),
            }
        }
        measured
    })
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn measure(args: &Args, seen: &Seen) -> anyhow::Result<()> {
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
    let (mut pauses, mut detections) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let deaths = deaths(&args.url)?;
        let killed_at = Instant::now();
        kill_workers(args.pid)?;
        while self::deaths(&args.url)? == deaths {}
        detections.push(killed_at.elapsed());
        std::thread::sleep(WATCH);
        pauses.extend(seen.gaps(killed_at, Instant::now()).last().copied());
    }
    row(&format!("{} deaths by SIGKILL", args.rounds), &seen.gaps(begin, Instant::now()));
    load_ms.sort_unstable();
    println!(
        "\nrecovery pause: median {} ms; loading the model takes {} ms beside the running one",
        median(&mut pauses).as_millis(),
        load_ms.get(load_ms.len() / 2).copied().unwrap_or_default()
    );
    println!(
        "a death is noticed after {} µs (median, `pkill` and a request included)",
        median(&mut detections).as_micros()
    );
    Ok(())
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

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
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
fn keep_streaming(url: &str, stream: usize, seen: &Seen, stop: &AtomicBool) -> anyhow::Result<()> {
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
        while answer.chunk(&mut buffer)? {
            if String::from_utf8_lossy(&buffer).contains("\"error\"") {
                bail!("the stream ended with {}", String::from_utf8_lossy(&buffer));
            }
            buffer.clear();
            let now = Instant::now();
            if let Some(last) = last.replace(now) {
                seen.0.lock().unwrap_or_else(PoisonError::into_inner).push((now, now.duration_since(last)));
            }
        }
    }
    Ok(())
}
