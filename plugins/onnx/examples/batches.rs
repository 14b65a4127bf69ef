//! Measures one network without host, worker and pipeline: the time of a lone run, and rows per second when several
//! callers run it at the same time, each alone or in batches.
//!
//! `cargo run --release -p pajamas-onnx --example batches -- LIBRARY MODEL.onnx ['{"threads": 2}' [SIZE]]`
//!
//! `SIZE` stands for every unknown dimension but the first of an input, which is 1; its default is 320.
#![expect(clippy::print_stdout, reason = "a command that prints a table")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pajamas_onnx::options::Options;
use pajamas_onnx::{Library, OnnxSession, OnnxValue};
use pajamas_pipelines::{BatchCounts, BatchLimits, Batcher, TensorRunner};
use pajamas_plugin_api::{Error, TensorView, shape_bytes};

/// How long each measurement lasts.
const TIME: Duration = Duration::from_secs(4);
const WARM_UP_RUNS: usize = 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: batches LIBRARY MODEL.onnx [OPTIONS_JSON [SIZE]]";
    let library = Library::load(Path::new(&arguments.next().ok_or(usage)?))?;
    let file = arguments.next().ok_or(usage)?;
    let options = serde_json::from_str(&arguments.next().unwrap_or_else(|| "{}".to_owned()))?;
    let size: usize = arguments.next().map_or(Ok(320), |size| size.parse())?;
    let options = Options::parse(&options)?;
    let open = |rows_max: usize| {
        let session = OnnxSession::open(library, Path::new(&file), &options, || false)?;
        let limits = BatchLimits { rows_max, delay: options.batch_delay() };
        let counts: Arc<BatchCounts> = Arc::default();
        let batcher = Batcher::new(session, limits, Arc::clone(&counts));
        batcher.rows_are_independent();
        Ok::<_, Error>((batcher, counts))
    };
    let (alone, _) = open(1)?;
    let mut times = lone_runs(&alone, size)?;
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    println!("alone: median {:.2} ms, 90 % {:.2} ms, best {:.2} ms", at(50), at(90), at(0));
    println!("callers  batch  rows/s  rows/run");
    for callers in [2, 4, 8] {
        for rows_max in [1, callers] {
            let (batcher, counts) = open(rows_max)?;
            let rows = together(&batcher, callers, size)?;
            let per_run = rows / counts.named().get("runs").copied().unwrap_or(1.0);
            println!("{callers:7}  {rows_max:5}  {:6.1}  {per_run:8.2}", rows / TIME.as_secs_f64());
        }
    }
    Ok(())
}

/// One row of zeros for each input.
fn row(
    runner: &impl TensorRunner<Value = OnnxValue>,
    size: usize,
) -> Result<Vec<(String, OnnxValue)>, Error> {
    let value = |spec: &pajamas_pipelines::TensorSpec| {
        let dims = spec.shape.iter().enumerate();
        let shape: Vec<i64> =
            dims.map(|(index, dim)| dim.unwrap_or(if index == 0 { 1 } else { size }) as i64).collect();
        let data = vec![0; shape_bytes(spec.dtype, &shape).unwrap_or(0)];
        let tensor = TensorView { name: &spec.name, dtype: spec.dtype, shape: &shape, data: &data };
        Ok((spec.name.clone(), runner.value(&tensor)?))
    };
    runner.inputs().iter().map(value).collect()
}

fn lone_runs(runner: &Batcher<OnnxSession>, size: usize) -> Result<Vec<Duration>, Error> {
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < TIME || times.len() < 2 * WARM_UP_RUNS {
        let begin = Instant::now();
        run(runner, size)?;
        times.push(begin.elapsed());
    }
    times.drain(..WARM_UP_RUNS);
    Ok(times)
}

/// The rows that `callers` get done in [`TIME`].
fn together(runner: &Batcher<OnnxSession>, callers: usize, size: usize) -> Result<f64, Error> {
    let start = Instant::now();
    let work = || {
        let mut rows = 0.0;
        while start.elapsed() < TIME {
            run(runner, size)?;
            rows += 1.0;
        }
        Ok::<f64, Error>(rows)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|_| scope.spawn(work)).collect();
        let panicked = |_| Err(Error::internal("a caller panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).sum()
    })
}

fn run(runner: &Batcher<OnnxSession>, size: usize) -> Result<(), Error> {
    let row = row(runner, size)?;
    let inputs: Vec<_> = row.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let outputs: Vec<_> = runner.outputs().iter().map(|spec| spec.name.as_str()).collect();
    runner.run(&inputs, &outputs).map(drop)
}
