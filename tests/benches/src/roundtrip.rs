//! What the host adds to a request: chat completions of one word through the echo plugin, in turns with a bare handler.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use axum::Json;
use axum::routing::post;
use serde_json::{Value, json};

use crate::client::Connection;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The host, which serves the model `parrot` of the echo plugin.
    #[arg(long)]
    url: String,
    /// Requests to each server.
    #[arg(long, default_value_t = 5000)]
    requests: usize,
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let bare = bare_server()?;
    println!("| round trip | p50 µs | p99 µs |\n| --- | --- | --- |");
    measure(args, &bare, "")?;
    match Awake::start() {
        Ok(_awake) => measure(args, &bare, ", processors kept awake"),
        Err(error) => {
            println!("skipped: with processors kept awake: cannot start `chrt`: {error}");
            Ok(())
        }
    }
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn measure(args: &Args, bare: &str, how: &str) -> anyhow::Result<()> {
    let body = json!({"model": "parrot", "messages": [{"role": "user", "content": "hello"}]}).to_string();
    let mut host = Connection::open(&args.url)?;
    let mut floor = Connection::open(bare)?;
    let request = host.request("/v1/chat/completions", &body);
    let bare_request = floor.request("/v1/chat/completions", &body);
    let (mut host_times, mut floor_times) = (Vec::new(), Vec::new());
    for i in 0..args.requests + args.requests / 10 {
        let host_time = time(&mut host, &request)?;
        let floor_time = time(&mut floor, &bare_request)?;
        // The first tenth warms up.
        if i >= args.requests / 10 {
            host_times.push(host_time);
            floor_times.push(floor_time);
        }
    }
    for (name, times) in
        [("bare axum handler", &mut floor_times), ("pajamas-host, echo plugin", &mut host_times)]
    {
        times.sort();
        println!("| {name}{how} | {:.0} | {:.0} |", micros(times, 0.5), micros(times, 0.99));
    }
    println!("| difference{how} | {:.0} | |", micros(&host_times, 0.5) - micros(&floor_times, 0.5));
    Ok(())
}

/// A program for each processor that runs only where nothing else does: a processor of a virtual machine that went to sleep takes
/// tens of microseconds to wake, and a request that crosses processes waits for that several times.
struct Awake(Vec<Child>);

impl Awake {
    fn start() -> std::io::Result<Self> {
        let processors = std::thread::available_parallelism()?.get();
        let mut awake = Self(Vec::new());
        for _ in 0..processors {
            let mut idle = Command::new("chrt");
            awake.0.push(idle.args(["--idle", "0", "sh", "-c", "while :; do :; done"]).spawn()?);
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Both fail only when it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn time(connection: &mut Connection, request: &[u8]) -> anyhow::Result<Duration> {
    let started = Instant::now();
    connection.send(request)?.read()?;
    Ok(started.elapsed())
}

fn micros(sorted: &[Duration], quantile: f64) -> f64 {
    let index = ((sorted.len() - 1) as f64 * quantile) as usize;
    sorted[index].as_secs_f64() * 1e6
}

/// A server whose handler parses the same request and writes the same answer.
fn bare_server() -> anyhow::Result<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || -> anyhow::Result<()> {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
            let app = axum::Router::new().route("/v1/chat/completions", post(answer));
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            sender.send(listener.local_addr()?)?;
            axum::serve(listener, app).await?;
            Ok(())
        })
    });
    Ok(format!("http://{}", receiver.recv()?))
}

async fn answer(Json(request): Json<Value>) -> Json<Value> {
    let content = &request["messages"][0]["content"];
    Json(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": request["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }))
}
