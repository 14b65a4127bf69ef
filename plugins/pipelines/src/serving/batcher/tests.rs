//! Batches of a network that is written here: its output row is twice the input row, summed up in one number more.

use std::borrow::Cow;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

use pajamas_plugin_api::Dtype;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq)]
struct Floats {
    shape: Vec<i64>,
    data: Vec<u8>,
}

impl Value for Floats {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[i64] {
        &self.shape
    }

    fn bytes(&self) -> Result<Cow<'_, [u8]>, Error> {
        Ok(Cow::Borrowed(&self.data))
    }
}

impl Floats {
    fn new(shape: &[i64], values: &[f32]) -> Self {
        let data = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        Self { shape: shape.to_vec(), data }
    }

    fn values(&self) -> Vec<f32> {
        self.data.chunks_exact(4).map(|bytes| f32::from_ne_bytes(bytes.try_into().unwrap())).collect()
    }
}

/// How the network behaves.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Good,
    /// A row that begins with a negative number makes the run fail.
    Picky,
    /// The output has one row, whatever the input has.
    OneRow,
    /// Panics when it runs more than one row.
    Afraid,
}

struct Network {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    metadata: BTreeMap<String, String>,
    mood: Mood,
    /// Rows of each run.
    runs: Mutex<Vec<usize>>,
    /// The first run says that it has begun, and goes on when it is told so.
    gate: Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>,
    running: AtomicUsize,
    /// Runs that are allowed at the same time.
    runs_max: usize,
}

impl Network {
    fn new(mood: Mood) -> Self {
        let spec = |name: &str, shape: &[Option<usize>]| TensorSpec {
            name: name.to_owned(),
            dtype: Dtype::F32,
            shape: shape.to_vec(),
        };
        Self {
            inputs: vec![spec("a", &[None, None]), spec("b", &[None, Some(1)])],
            outputs: vec![spec("double", &[None, None]), spec("sum", &[None])],
            metadata: BTreeMap::new(),
            mood,
            runs: Mutex::default(),
            gate: Mutex::default(),
            running: AtomicUsize::new(0),
            runs_max: 1,
        }
    }
}

impl TensorRunner for Network {
    type Value = Floats;

    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn value(&self, tensor: &TensorView<'_>) -> Result<Floats, Error> {
        Ok(Floats { shape: tensor.shape.to_vec(), data: tensor.data.to_vec() })
    }

    fn run(&self, inputs: &[(&str, &Floats)], outputs: &[&str]) -> Result<Vec<Floats>, Error> {
        assert!(self.running.fetch_add(1, Ordering::SeqCst) < self.runs_max, "runs take turns");
        // Not in the condition, where it would be locked for the whole run.
        let gate = self.gate.lock().take();
        if let Some((begun, go_on)) = gate {
            begun.send(()).unwrap();
            go_on.recv().unwrap();
        }
        let result = self.compute(inputs, outputs);
        self.running.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

impl Network {
    fn compute(&self, inputs: &[(&str, &Floats)], outputs: &[&str]) -> Result<Vec<Floats>, Error> {
        let by_name = |name: &str| inputs.iter().find(|(given, _)| *given == name).unwrap().1;
        let (a, b) = (by_name("a"), by_name("b"));
        let (rows, width) = (a.shape[0] as usize, a.shape[1] as usize);
        self.runs.lock().push(rows);
        assert!(self.mood != Mood::Afraid || rows == 1, "too many rows");
        if self.mood == Mood::Picky && a.values().chunks(width).any(|row| row[0] < 0.0) {
            return Err(Error::invalid(format!("one of {rows} rows is negative")));
        }
        let double: Vec<f32> = a.values().iter().map(|value| value * 2.0).collect();
        let rows_of_a = a.values();
        let sums = rows_of_a.chunks(width).zip(b.values()).map(|(row, b)| row.iter().sum::<f32>() + b);
        let sums: Vec<f32> = if self.mood == Mood::OneRow { vec![sums.sum()] } else { sums.collect() };
        let results = outputs.iter().map(|name| match *name {
            "double" => Floats::new(&a.shape, &double),
            _ => Floats::new(&[sums.len() as i64], &sums),
        });
        Ok(results.collect())
    }
}

fn batched(network: Network, limits: BatchLimits) -> Batcher<Network> {
    let batcher = Batcher::new(network, limits, Arc::default());
    batcher.rows_are_independent();
    batcher
}

fn limits(rows_max: usize) -> BatchLimits {
    BatchLimits { rows_max, delay: Duration::ZERO }
}

/// One caller's inputs, `a` and `b`.
type Rows = (Floats, Floats);

/// One caller's rows.
fn call(rows: usize, width: usize, first: f32) -> Rows {
    let values: Vec<f32> = (0..rows * width).map(|index| first + index as f32).collect();
    let b: Vec<f32> = (0..rows).map(|row| first * 10.0 + row as f32).collect();
    (Floats::new(&[rows as i64, width as i64], &values), Floats::new(&[rows as i64, 1], &b))
}

fn run<R: TensorRunner<Value = Floats>>(runner: &R, call: &Rows) -> Result<Vec<Floats>, Error> {
    runner.run(&[("a", &call.0), ("b", &call.1)], &["sum", "double"])
}

/// Runs the calls so that all but the first come during the first one's run.
fn run_together(
    mood: Mood,
    limits: BatchLimits,
    calls: &[Rows],
) -> (Vec<Result<Vec<Floats>, Error>>, Vec<usize>) {
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let network = Network { gate: Mutex::new(Some((begun, may_go_on))), ..Network::new(mood) };
    let batcher = &batched(network, limits);
    let results = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (index, call) in calls.iter().enumerate() {
            threads.push(scope.spawn(move || run(batcher, call)));
            if index == 0 {
                has_begun.recv().unwrap();
            }
            // One after the other, so that the order is known.
            while batcher.queue.lock().waiting.len() < index {
                std::thread::yield_now();
            }
        }
        go_on.send(()).unwrap();
        let panicked = |_| Err(Error::new(ErrorKind::Panic, "the caller panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    let queue = batcher.queue.lock();
    assert!(
        queue.busy == 0 && queue.waiting.is_empty() && queue.results.is_empty(),
        "at rest, nothing is left"
    );
    drop(queue);
    (results, batcher.runner.runs.lock().clone())
}

#[test]
fn what_comes_during_a_run_becomes_one_batch() {
    let calls: Vec<_> = (0..6).map(|index| call(1, 3, index as f32)).collect();
    let (results, runs) = run_together(Mood::Good, limits(4), &calls);
    assert_eq!(runs, [1, 4, 1], "at most four rows");
    for (result, call) in results.iter().zip(&calls) {
        assert_eq!(result.as_ref().unwrap(), &run(&Network::new(Mood::Good), call).unwrap());
    }
}

#[test]
fn calls_that_do_not_go_together_run_apart() {
    let good = |index: usize| call(1, 3, index as f32);
    // Most rows of a run, the calls, and the rows of each run.
    let cases: [(usize, Vec<Rows>, &[usize]); 4] = [
        (8, vec![good(0), good(1), call(1, 2, 5.0), good(2)], &[1, 2, 1]),
        (8, vec![good(0), call(3, 3, 1.0), call(4, 3, 2.0), call(2, 3, 3.0)], &[1, 7, 2]),
        (1, vec![good(0)], &[1]),
        // Nothing goes with a full batch.
        (4, vec![call(4, 3, 1.0)], &[4]),
    ];
    for (rows_max, calls, expected) in cases {
        let (results, runs) = run_together(Mood::Good, limits(rows_max), &calls);
        assert_eq!(runs, expected);
        assert!(results.iter().all(Result::is_ok));
    }
}

#[test]
fn a_lone_call_does_not_wait() {
    let delay = Duration::from_secs(3600);
    let batcher = batched(Network::new(Mood::Good), BatchLimits { rows_max: 8, delay });
    for index in 0..3 {
        run(&batcher, &call(1, 2, index as f32)).unwrap();
    }
    assert_eq!(batcher.runner.runs.lock().as_slice(), [1, 1, 1]);
}

#[test]
fn a_batch_is_waited_for_until_it_is_full() {
    let delay = Duration::from_secs(3600);
    let calls: Vec<_> = (0..5).map(|index| call(1, 2, index as f32)).collect();
    let (_, runs) = run_together(Mood::Good, BatchLimits { rows_max: 4, delay }, &calls);
    assert_eq!(runs, [1, 4], "had it not been full, the test would last an hour");
}

#[test]
fn where_several_runs_are_allowed_nobody_waits_for_the_first() {
    let (begun, has_begun) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let gate = Mutex::new(Some((begun, may_go_on)));
    let network = Network { gate, runs_max: 2, ..Network::new(Mood::Good) };
    let batcher = &Batcher::new(network, limits(4), Arc::default()).runs_at_once(2);
    batcher.rows_are_independent();
    let calls = &[0.0, 1.0, 2.0].map(|first| call(1, 2, first));
    std::thread::scope(|scope| {
        let first = scope.spawn(move || run(batcher, &calls[0]));
        has_begun.recv().unwrap();
        // They would wait for ever, did they wait for the first.
        let others = scope.spawn(move || calls[1..].iter().all(|call| run(batcher, call).is_ok())).join();
        let busy = batcher.queue.lock().busy;
        go_on.send(()).unwrap();
        assert!(others.unwrap());
        assert_eq!(busy, 1);
        assert!(first.join().unwrap().is_ok());
    });
    assert_eq!(batcher.queue.lock().busy, 0);
}

#[test]
fn a_call_fails_for_its_own_reasons_only() {
    let calls = [call(1, 2, 0.0), call(1, 2, 1.0), call(1, 2, -5.0), call(1, 2, 2.0)];
    let (results, runs) = run_together(Mood::Picky, limits(8), &calls);
    assert_eq!(runs, [1, 3, 1, 1, 1]);
    let is_ok: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(is_ok, [true, true, false, true]);
    assert_eq!(results[2].as_ref().unwrap_err().message(), "one of 1 rows is negative");
}

#[test]
fn a_network_whose_outputs_have_other_rows_is_not_batched_again() {
    let calls: Vec<_> = (0..3).map(|index| call(1, 2, index as f32)).collect();
    let (results, runs) = run_together(Mood::OneRow, limits(8), &calls);
    assert_eq!(runs, [1, 2, 1, 1]);
    for (result, call) in results.iter().zip(&calls) {
        assert_eq!(result.as_ref().unwrap(), &run(&Network::new(Mood::OneRow), call).unwrap());
    }
}

#[test]
fn a_panic_leaves_nobody_waiting() {
    let calls: Vec<_> = (0..4).map(|index| call(1, 2, index as f32)).collect();
    let (results, _) = run_together(Mood::Afraid, limits(8), &calls);
    assert!(results[0].is_ok());
    for result in &results[1..] {
        assert_eq!(result.as_ref().unwrap_err().kind(), ErrorKind::Panic);
    }
}

#[test]
fn networks_whose_rows_are_not_independent_are_not_batched() {
    let calls: Vec<_> = (0..3).map(|index| call(1, 2, index as f32)).collect();
    let mut network = Network::new(Mood::Good);
    network.inputs[1].shape[0] = Some(1);
    let batcher = batched(network, limits(8));
    let inputs = [("a", &calls[0].0), ("b", &calls[0].1)];
    assert_eq!(batcher.rows(&inputs, &["double"]), None);
    // Only wanted outputs count.
    let mut network = Network::new(Mood::Good);
    network.outputs[1].shape = vec![Some(1)];
    let batcher = Batcher::new(network, limits(8), Arc::default());
    assert_eq!(batcher.rows(&inputs, &["double"]), None, "nobody said that its rows are independent");
    batcher.rows_are_independent();
    assert_eq!(batcher.rows(&inputs, &["double"]), Some(1));
    assert_eq!(batcher.rows(&inputs, &["double", "sum"]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_batch_gives_the_same_as_each_call_alone(
        calls in proptest::collection::vec((1_usize..5, 1_usize..4, -50_f32..50.0), 1..8),
        rows_max in 5_usize..12,
    ) {
        let calls: Vec<_> = calls.into_iter().map(|(rows, width, first)| call(rows, width, first)).collect();
        let alone: Vec<_> = calls.iter().map(|call| run(&Network::new(Mood::Picky), call).ok()).collect();
        let (results, runs) = run_together(Mood::Picky, limits(rows_max), &calls);
        let together: Vec<_> = results.into_iter().map(Result::ok).collect();
        prop_assert_eq!(together, alone);
        prop_assert!(runs.iter().all(|rows| *rows <= rows_max));
    }
}
