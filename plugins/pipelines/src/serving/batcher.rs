//! Dynamic batching: runs of several callers that come at the same time become one.
//!
//! There is no thread and no clock of its own. Whoever finds the network idle runs at once, alone. Whoever comes during
//! that run (or, where several are allowed at once, during the last of them) waits; when it ends, the caller who has waited longest runs everything that waits and fits, and hands out the
//! results. So batches are as large as the load makes them, and a lone caller never waits.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pajamas_plugin_api::{Error, ErrorKind, TensorView};
use parking_lot::{Condvar, Mutex};

use crate::runner::{TensorRunner, TensorSpec, Value};

/// How large batches become and how long they are waited for.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Most rows of one run; 1 runs every call alone.
    pub rows_max: usize,
    /// How long a call that has waited for another's run waits on, counted from its arrival, for more to come.
    pub delay: Duration,
}

/// A network that is run in batches, once it is known that its rows are independent of each other: see
/// [`TensorRunner::rows_are_independent`]. Until then every call runs alone.
///
/// Calls are put together that want the same outputs and whose inputs differ in the number of rows only. If such a run
/// fails, each of its calls runs alone, so that a call fails for its own reasons only. A call whose inputs or outputs
/// have a fixed first dimension always runs alone.
pub struct Batcher<R: TensorRunner> {
    runner: R,
    limits: BatchLimits,
    /// Runs at the same time.
    runs_max: usize,
    /// Set by [`TensorRunner::rows_are_independent`], and no longer once an output has turned out not to have one row for
    /// each row of the inputs.
    may_batch: AtomicBool,
    queue: Mutex<Queue<R::Value>>,
    changed: Condvar,
    counts: Arc<BatchCounts>,
}

/// What batchers have done; those of one model share it.
#[derive(Debug, Default)]
pub struct BatchCounts {
    runs: AtomicU64,
    batches: AtomicU64,
    batched_calls: AtomicU64,
}

impl BatchCounts {
    /// The counters by name: `runs` of networks, `batches` among them, and the `batched_calls` that these were made of.
    #[must_use]
    pub fn named(&self) -> BTreeMap<String, f64> {
        [("runs", &self.runs), ("batches", &self.batches), ("batched_calls", &self.batched_calls)]
            .into_iter()
            .map(|(name, count)| (name.to_owned(), count.load(Ordering::Relaxed) as f64))
            .collect()
    }
}

struct Queue<V> {
    /// How many run the network, or wait for their batch to fill.
    busy: usize,
    waiting: VecDeque<Call<V>>,
    /// Results of calls that another caller has run.
    results: HashMap<u64, Result<Vec<V>, Error>>,
    next_ticket: u64,
}

/// A call that waits.
struct Call<V> {
    ticket: u64,
    inputs: Vec<(String, V)>,
    outputs: Vec<String>,
    rows: usize,
    arrived: Instant,
}

impl<R: TensorRunner> Batcher<R> {
    /// Runs `runner` in batches, and counts them in `counts`.
    pub fn new(runner: R, limits: BatchLimits, counts: Arc<BatchCounts>) -> Self {
        let queue = Queue { busy: 0, waiting: VecDeque::new(), results: HashMap::new(), next_ticket: 0 };
        Self {
            runner,
            limits,
            runs_max: 1,
            may_batch: AtomicBool::new(false),
            queue: Mutex::new(queue),
            changed: Condvar::new(),
            counts,
        }
    }

    /// Lets so many runs be made at the same time, for engines that gain by it; one by default.
    #[must_use]
    pub fn runs_at_once(mut self, runs_max: usize) -> Self {
        self.runs_max = runs_max.max(1);
        self
    }

    /// The rows of a call that may be part of a batch.
    fn rows(&self, inputs: &[(&str, &R::Value)], outputs: &[&str]) -> Option<usize> {
        if !self.may_batch.load(Ordering::Relaxed) {
            return None;
        }
        let of_value = |value: &R::Value| usize::try_from(*value.shape().first()?).ok();
        let rows = of_value(inputs.first()?.1)?;
        let is_wanted = |spec: &&TensorSpec| outputs.contains(&spec.name.as_str());
        let fits = (1..self.limits.rows_max).contains(&rows)
            && inputs.iter().all(|(_, value)| of_value(value) == Some(rows))
            && self.runner.outputs().iter().filter(is_wanted).all(has_rows);
        fits.then_some(rows)
    }

    fn run_alone(&self, inputs: &[(&str, &R::Value)], outputs: &[&str]) -> Result<Vec<R::Value>, Error> {
        self.counts.runs.fetch_add(1, Ordering::Relaxed);
        self.runner.run(inputs, outputs)
    }

    /// Waits for a result from another caller, or for the turn to run a batch.
    fn wait(&self, call: Call<R::Value>) -> Result<Vec<R::Value>, Error> {
        let ticket = call.ticket;
        let mut queue = self.queue.lock();
        queue.waiting.push_back(call);
        if !self.limits.delay.is_zero() {
            // Somebody may be waiting for the batch to fill.
            self.changed.notify_all();
        }
        loop {
            if let Some(result) = queue.results.remove(&ticket) {
                return result;
            }
            let is_first = queue.waiting.front().is_some_and(|call| call.ticket == ticket);
            if is_first && queue.busy < self.runs_max {
                break;
            }
            self.changed.wait(&mut queue);
        }
        queue.busy += 1;
        let until = queue.waiting.front().map(|call| call.arrived + self.limits.delay);
        while let Some(until) =
            until.filter(|_| queue.rows_ready(self.limits.rows_max) < self.limits.rows_max)
        {
            if self.changed.wait_until(&mut queue, until).timed_out() {
                break;
            }
        }
        let batch = queue.take(self.limits.rows_max);
        if queue.busy < self.runs_max && !queue.waiting.is_empty() {
            // What did not fit runs beside this batch.
            self.changed.notify_all();
        }
        drop(queue);
        self.lead(ticket, &batch)
    }

    /// Runs a batch, hands out its results, and returns that of the call `ticket`.
    fn lead(&self, ticket: u64, batch: &[Call<R::Value>]) -> Result<Vec<R::Value>, Error> {
        let others = batch.iter().map(|call| call.ticket).filter(|other| *other != ticket).collect();
        let mut turn = Turn { batcher: self, others };
        let mut own = None;
        let results = self.run_batch(batch);
        let mut queue = self.queue.lock();
        for (call, result) in batch.iter().zip(results) {
            if call.ticket == ticket {
                own = Some(result);
            } else {
                queue.results.insert(call.ticket, result);
            }
        }
        turn.others.clear();
        drop(queue);
        drop(turn);
        own.unwrap_or_else(|| Err(Error::internal("a batch ran without the call that led it")))
    }

    /// The results of the calls, in their order.
    fn run_batch(&self, batch: &[Call<R::Value>]) -> Vec<Result<Vec<R::Value>, Error>> {
        if batch.len() > 1 {
            match self.run_together(batch) {
                Ok(results) => return results.into_iter().map(Ok).collect(),
                Err(error) => tracing::debug!("a batch of {} calls runs one by one: {error}", batch.len()),
            }
        }
        let alone = |call: &Call<R::Value>| {
            let inputs: Vec<_> = call.inputs.iter().map(|(name, value)| (name.as_str(), value)).collect();
            let outputs: Vec<_> = call.outputs.iter().map(String::as_str).collect();
            self.run_alone(&inputs, &outputs)
        };
        batch.iter().map(alone).collect()
    }

    fn run_together(&self, batch: &[Call<R::Value>]) -> Result<Vec<Vec<R::Value>>, Error> {
        let Some(first) = batch.first() else {
            return Ok(Vec::new());
        };
        let rows: usize = batch.iter().map(|call| call.rows).sum();
        let joined = (0..first.inputs.len()).map(|index| self.join(batch, index, rows));
        let joined = joined.collect::<Result<Vec<_>, Error>>()?;
        let inputs: Vec<_> = first.inputs.iter().map(|(name, _)| name.as_str()).zip(&joined).collect();
        let outputs: Vec<_> = first.outputs.iter().map(String::as_str).collect();
        let results = self.run_alone(&inputs, &outputs)?;
        let mut split: Vec<Vec<R::Value>> = batch.iter().map(|_| Vec::new()).collect();
        for (name, result) in outputs.iter().zip(&results) {
            for (call, part) in split.iter_mut().zip(self.split(name, result, batch, rows)?) {
                call.push(part);
            }
        }
        self.counts.batches.fetch_add(1, Ordering::Relaxed);
        self.counts.batched_calls.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(split)
    }

    /// One input of all calls, below each other.
    fn join(&self, batch: &[Call<R::Value>], index: usize, rows: usize) -> Result<R::Value, Error> {
        let values = || batch.iter().filter_map(|call| call.inputs.get(index));
        let (name, first) = values().next().ok_or_else(|| Error::internal("a call has no inputs"))?;
        let mut shape = first.shape().to_vec();
        if let Some(dim) = shape.first_mut() {
            *dim = i64::try_from(rows).unwrap_or(i64::MAX);
        }
        let mut data = Vec::new();
        for (_, value) in values() {
            data.extend_from_slice(&value.bytes()?);
        }
        self.runner.value(&TensorView { name, dtype: first.dtype(), shape: &shape, data: &data })
    }

    /// Each call's rows of an output.
    fn split(
        &self,
        name: &str,
        output: &R::Value,
        batch: &[Call<R::Value>],
        rows: usize,
    ) -> Result<Vec<R::Value>, Error> {
        let mut shape = output.shape().to_vec();
        if shape.first().is_none_or(|dim| usize::try_from(*dim) != Ok(rows)) {
            self.may_batch.store(false, Ordering::Relaxed);
            tracing::warn!(
                "output `{name}` has the shape {shape:?} for {rows} rows of inputs: this network runs without batches \
                 from now on"
            );
            return Err(Error::internal(format!(
                "output `{name}` does not have a row for each row of the inputs"
            )));
        }
        let bytes = output.bytes()?;
        let mut rest = bytes.as_ref();
        let row_bytes = bytes.len() / rows;
        let mut parts = Vec::with_capacity(batch.len());
        for call in batch {
            let (data, next) = rest.split_at_checked(row_bytes * call.rows).unwrap_or((rest, &[]));
            rest = next;
            if let Some(dim) = shape.first_mut() {
                *dim = i64::try_from(call.rows).unwrap_or(i64::MAX);
            }
            parts.push(self.runner.value(&TensorView {
                name,
                dtype: output.dtype(),
                shape: &shape,
                data,
            })?);
        }
        Ok(parts)
    }
}

impl<R: TensorRunner> TensorRunner for Batcher<R> {
    type Value = R::Value;

    fn inputs(&self) -> &[TensorSpec] {
        self.runner.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.runner.outputs()
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        self.runner.metadata()
    }

    fn value(&self, tensor: &TensorView<'_>) -> Result<R::Value, Error> {
        self.runner.value(tensor)
    }

    fn rows_are_independent(&self) {
        let may_batch = self.limits.rows_max > 1 && self.runner.inputs().iter().all(has_rows);
        self.may_batch.store(may_batch, Ordering::Relaxed);
    }

    fn run(&self, inputs: &[(&str, &R::Value)], outputs: &[&str]) -> Result<Vec<R::Value>, Error> {
        let Some(rows) = self.rows(inputs, outputs) else {
            return self.run_alone(inputs, outputs);
        };
        let mut queue = self.queue.lock();
        if queue.busy < self.runs_max && queue.waiting.is_empty() {
            queue.busy += 1;
            drop(queue);
            let _turn = Turn { batcher: self, others: Vec::new() };
            return self.run_alone(inputs, outputs);
        }
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        drop(queue);
        let owned = |(name, value): &(&str, &R::Value)| ((*name).to_owned(), (*value).clone());
        self.wait(Call {
            ticket,
            inputs: inputs.iter().map(owned).collect(),
            outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
            rows,
            arrived: Instant::now(),
        })
    }
}

/// The right to run the network. Gives it back in any case, and a panic must leave nobody waiting for a result.
struct Turn<'a, R: TensorRunner> {
    batcher: &'a Batcher<R>,
    /// Calls that have no result yet.
    others: Vec<u64>,
}

impl<R: TensorRunner> Drop for Turn<'_, R> {
    fn drop(&mut self) {
        let mut queue = self.batcher.queue.lock();
        for ticket in self.others.drain(..) {
            let error =
                Error::new(ErrorKind::Panic, "the plugin panicked while it ran the batch of this request");
            queue.results.insert(ticket, Err(error));
        }
        queue.busy -= 1;
        drop(queue);
        self.batcher.changed.notify_all();
    }
}

impl<V: Value> Queue<V> {
    /// The calls that can run with the first one, as indices, with the first one.
    fn ready(&self, rows_max: usize) -> Vec<usize> {
        let Some(first) = self.waiting.front() else {
            return Vec::new();
        };
        let mut rows = 0;
        let mut ready = Vec::new();
        for (index, call) in self.waiting.iter().enumerate() {
            if first.goes_with(call) && rows + call.rows <= rows_max {
                rows += call.rows;
                ready.push(index);
            }
        }
        ready
    }

    fn rows_ready(&self, rows_max: usize) -> usize {
        self.ready(rows_max).iter().filter_map(|index| self.waiting.get(*index)).map(|call| call.rows).sum()
    }

    fn take(&mut self, rows_max: usize) -> Vec<Call<V>> {
        let ready = self.ready(rows_max);
        // From the back, so that the indices before stay right.
        let mut batch: Vec<_> = ready.iter().rev().filter_map(|index| self.waiting.remove(*index)).collect();
        batch.reverse();
        batch
    }
}

impl<V: Value> Call<V> {
    /// Whether both can be rows of one run.
    fn goes_with(&self, other: &Self) -> bool {
        let same = |(a, b): (&(String, V), &(String, V))| {
            a.0 == b.0 && a.1.dtype() == b.1.dtype() && a.1.shape().get(1..) == b.1.shape().get(1..)
        };
        self.outputs == other.outputs
            && self.inputs.len() == other.inputs.len()
            && self.inputs.iter().zip(&other.inputs).all(same)
    }
}

/// Whether the first dimension is the number of rows.
fn has_rows(spec: &TensorSpec) -> bool {
    spec.shape.first() == Some(&None)
}

#[cfg(test)]
#[path = "batcher/tests.rs"]
mod tests;
