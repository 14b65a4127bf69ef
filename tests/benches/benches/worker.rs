//! The cost of the boundary between host and worker, beside the floor: a bare socket pair.
//!
//! The benchmark is its own worker: started with the argument `worker` it serves like the host's executable.
#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to say")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use pajamas_host::engine::JobEvent;
use pajamas_host::plugins::confine::Confinement;
use pajamas_host::plugins::{ModelHandle, OnEnd, Worker, WorkerOptions};
use pajamas_plugin_api::{LoadSpec, Manifest, Params, Part, Request, Task};
use tokio::runtime::Runtime;

const WAIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        return pajamas_host::plugins::worker::main();
    }
    let mut criterion = Criterion::default().configure_from_args();
    socket_floor(&mut criterion);
    worker(&mut criterion);
    criterion.final_summary();
    ExitCode::SUCCESS
}

/// 64 bytes there and back between two threads.
fn socket_floor(criterion: &mut Criterion) {
    let (mut ours, mut theirs) = UnixStream::pair().expect("socket pair");
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while theirs.read_exact(&mut buffer).is_ok() && theirs.write_all(&buffer).is_ok() {}
    });
    criterion.bench_function("socketpair round trip, 64 B, blocking", |bencher| {
        let mut buffer = [7; 64];
        bencher.iter(|| {
            ours.write_all(&buffer).expect("write");
            ours.read_exact(&mut buffer).expect("read");
        });
    });
}

fn worker(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("runtime");
    let Some(model) = runtime.block_on(load()) else { return };
    criterion.bench_function("worker message round trip", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            model.worker().inspect(&echo_model(), WAIT).await.expect("answer");
        });
    });
    criterion.bench_function("job of one token, submit to done", |bencher| {
        bencher.to_async(&runtime).iter(|| tokens(&model, 1));
    });
    let count = 2_000;
    let mut group = criterion.benchmark_group("token events");
    group.throughput(Throughput::Elements(count as u64)).sample_size(20);
    group.bench_function("2 000 of one job", |bencher| {
        bencher.to_async(&runtime).iter(|| tokens(&model, count));
    });
    group.finish();
}

async fn tokens(model: &ModelHandle, count: usize) {
    let request = Request {
        task: Task::Generate,
        params: Params::default(),
        parts: vec![Part::text("w ".repeat(count))],
        deadline_ms: None,
    };
    let mut job = model.submit(&request).expect("job");
    let mut seen = 0;
    while let Some(event) = job.next().await {
        match event {
            JobEvent::Token { .. } => seen += 1,
            JobEvent::Failed(error) => unreachable!("{error}"),
            _ => {}
        }
    }
    assert!(seen >= count, "{seen} of {count} tokens");
}

fn echo_model() -> PathBuf {
    std::env::temp_dir().join("pajamas-bench.echo")
}

#[expect(clippy::print_stderr, reason = "says why nothing was measured")]
async fn load() -> Option<ModelHandle> {
    let fixtures = std::env::var_os("PAJAMAS_TEST_FIXTURES").map(PathBuf::from);
    let Some(plugin_dir) = fixtures.map(|dir| dir.join("echo")).filter(|dir| dir.is_dir()) else {
        eprintln!(
            "skipped: PAJAMAS_TEST_FIXTURES names no folder with the echo plugin (cargo xtask bench sets it)"
        );
        return None;
    };
    std::fs::write(echo_model(), "").expect("model file");
    let library = Manifest::read(&plugin_dir).expect("manifest").library(&plugin_dir);
    let options = WorkerOptions {
        plugin: "echo".to_owned(),
        plugin_dir: plugin_dir.clone(),
        library,
        environment: BTreeMap::new(),
        executable: PathBuf::from("/proc/self/exe"),
        confinement: Confinement { read: vec![std::env::temp_dir(), plugin_dir], ..Confinement::default() },
        in_process: false,
        log_level: tracing::Level::ERROR,
        start_timeout: WAIT,
        stall_timeout: WAIT,
        hang_timeout: WAIT,
        on_end: OnEnd::default(),
    };
    let worker = Arc::new(Worker::start(options).await.expect("worker"));
    let spec = LoadSpec { path: echo_model(), ..LoadSpec::default() };
    Some(worker.load(&spec, WAIT).await.expect("model"))
}
