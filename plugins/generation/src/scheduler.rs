//! The engine's loop: continuous batching over slots. Each step computes one token of every running stream and, in
//! the same call, the next piece of the prompts that are still being read. Between two steps tokens are chosen; they are sent
//! at once, or where another device computes, during the next step if that is like the one before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pajamas_plugin_api::{Error, Event, Finish};

use crate::cache::{self, SlotView};
use crate::choosing::{Chooser, Turn};
use crate::counters::{Counters, add};
use crate::queue::Queue;
use crate::runner::{Batch, DecodeError, LmRunner};
use crate::stream::{Next, Stream};
use crate::tokenizer::Tokenizer;

/// What a scheduler works with.
pub(crate) struct Setup {
    /// Computes; its sequences are the slots.
    pub runner: Box<dyn LmRunner>,
    /// Slots.
    pub slots: usize,
    /// Most tokens of one step.
    pub batch: usize,
    /// Prompt tokens after which a step begins no further prompt, and most of one prompt, while several streams run.
    pub prefill_chunk: usize,
    /// Turns tokens into text.
    pub tokenizer: Arc<Tokenizer>,
    /// Where prepared streams come from.
    pub queue: Arc<Queue<Stream>>,
    /// Where the work is counted.
    pub counters: Arc<Counters>,
}

/// The state of the loop; owned by the engine's thread.
pub(crate) struct Scheduler {
    setup: Setup,
    slots: Vec<Slot>,
    waiting: VecDeque<Stream>,
    batch: Batch,
    chooser: Chooser,
    /// The text of a token.
    text: Vec<u8>,
    /// Rows of the last step.
    rows: usize,
    step: u64,
    /// Set when a stream gave up its cells: nothing is admitted until another stream has ended.
    full: bool,
}

/// One sequence of the context.
#[derive(Debug, Default)]
struct Slot {
    stream: Option<Stream>,
    /// Tokens whose cells the sequence holds.
    cells: Vec<i32>,
    last_used: u64,
    /// Tokens of this step.
    planned: usize,
    /// Row of this step whose logits decide the next token.
    row: Option<usize>,
}

impl Slot {
    /// Tokens that are known but not computed.
    fn pending(&self) -> usize {
        self.stream.as_ref().map_or(0, |stream| stream.tokens.len() - self.cells.len())
    }
}

impl Scheduler {
    /// A scheduler with empty slots.
    pub(crate) fn new(setup: Setup) -> Self {
        let slots = (0..setup.slots).map(|_| Slot::default()).collect();
        let chooser = Chooser::new(setup.runner.computes_elsewhere());
        Self {
            setup,
            slots,
            waiting: VecDeque::new(),
            batch: Batch::default(),
            chooser,
            text: Vec::new(),
            rows: 0,
            step: 0,
            full: false,
        }
    }

    /// Computes one token, so that the first request does not pay for reading the weights from the disk.
    pub(crate) fn warm_up(&mut self, token: i32) {
        self.batch.clear();
        self.batch.push(token, 0, 0, true);
        if let Err(error) = self.setup.runner.decode(&mut self.batch, &|| false) {
            tracing::warn!("the first computation of the model failed: {error}");
        }
        self.setup.runner.remove(0, 0);
    }

    /// Runs until the queue is closed; streams that still run then are failed.
    pub(crate) fn run(&mut self) {
        while self.has_work() {
            self.step();
        }
        let unloaded = || Next::Fail(Error::internal("the model was unloaded"));
        for index in 0..self.slots.len() {
            self.end(index, unloaded());
        }
        self.waiting.drain(..).for_each(|stream| stream.finish(unloaded()));
    }

    fn step(&mut self) {
        self.end_interrupted();
        self.admit();
        self.plan();
        if !self.batch.is_empty() {
            self.compute();
        }
    }

    /// Takes new streams, waiting for one when there is nothing else to do. False when the engine is to stop.
    fn has_work(&mut self) -> bool {
        let queue = &self.setup.queue;
        if self.waiting.is_empty() && self.slots.iter().all(|slot| slot.stream.is_none()) && !queue.wait() {
            return false;
        }
        queue.take_all(&mut self.waiting);
        !queue.is_closed()
    }

    fn end_interrupted(&mut self) {
        let now = Instant::now();
        for index in 0..self.slots.len() {
            if let Some(how) = self.slots[index].stream.as_ref().and_then(|stream| stream.interrupted(now)) {
                self.end(index, how);
            }
        }
        for _ in 0..self.waiting.len() {
            let Some(stream) = self.waiting.pop_front() else { break };
            match stream.interrupted(now) {
                Some(how) => stream.finish(how),
                None => self.waiting.push_back(stream),
            }
        }
    }

    /// Gives slots to waiting streams, in order.
    fn admit(&mut self) {
        while !self.full
            && let Some(stream) = self.waiting.front()
        {
            let views: Vec<SlotView<'_>> = self
                .slots
                .iter()
                .map(|slot| SlotView {
                    cached: &slot.cells,
                    busy: slot.stream.is_some(),
                    last_used: slot.last_used,
                })
                .collect();
            let Some(placement) = cache::place(&stream.tokens, &views, stream.reuse) else { break };
            let Some(mut stream) = self.waiting.pop_front() else { break };
            let reused = self.prepare_cells(placement);
            if stream.started.replace(self.step).is_none() {
                // Not after a preemption: what was computed twice is not "cached" to the client.
                stream.cached = reused.min(stream.prompt_len);
                add(&self.setup.counters.cached_tokens, stream.cached);
            }
            self.slots[placement.slot].stream = Some(stream);
            self.setup.counters.busy.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Leaves exactly the reusable prefix in the slot's sequence; returns its length.
    fn prepare_cells(&mut self, placement: cache::Placement) -> usize {
        let cache::Placement { slot, reused, copy_from } = placement;
        if let Some(donor) = copy_from {
            self.setup.runner.remove(slot, 0);
            self.setup.runner.copy(donor, slot);
            self.slots[slot].cells = self.slots[donor].cells.clone();
        }
        self.trim(slot, reused);
        self.slots[slot].cells.len()
    }

    /// Removes the cells from `len` on; all of them when the kind of memory cannot remove a part (recurrent models).
    fn trim(&mut self, index: usize, len: usize) {
        let cells = &mut self.slots[index].cells;
        if self.setup.runner.remove(index, len) {
            cells.truncate(len);
        } else {
            self.setup.runner.remove(index, 0);
            cells.clear();
        }
    }

    /// Fills the batch: one token of each running stream, then prompts in order of arrival, up to the batch size, or
    /// until `prefill_chunk` is reached when others would wait for a long step. The rows are in order of sequences, which lets
    /// an engine compute neighbours at once.
    fn plan(&mut self) {
        self.batch.clear();
        let mut budget = self.setup.batch;
        let mut reading = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.row = None;
            slot.planned = usize::from(slot.pending() == 1);
            budget -= slot.planned.min(budget);
            if slot.pending() > 1 {
                reading.push((slot.stream.as_ref().and_then(|stream| stream.started), index));
            }
        }
        reading.sort_unstable();
        let alone = self.slots.iter().filter(|slot| slot.stream.is_some()).count() == 1;
        let chunk = if alone { self.setup.batch } else { self.setup.prefill_chunk };
        let mut read = 0;
        for (_, index) in reading {
            if read >= chunk {
                break;
            }
            // The last prompt of a step may go beyond the chunk: short ones are not cut, because llama.cpp computes rows
            // together only where all sequences have equally many.
            let slot = &mut self.slots[index];
            slot.planned = slot.pending().min(chunk).min(budget);
            budget -= slot.planned;
            read += slot.planned;
        }
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(stream) = &slot.stream else { continue };
            let begin = slot.cells.len();
            let end = begin + slot.planned;
            for (position, &token) in (begin..end).zip(&stream.tokens[begin..end]) {
                let output = position + 1 == stream.tokens.len();
                let row = self.batch.push(token, position, index, output);
                slot.row = output.then_some(row);
            }
        }
    }

    fn compute(&mut self) {
        let rows = self.batch.len();
        if std::mem::replace(&mut self.rows, rows) != rows {
            // To begin a step of another shape takes the CPU milliseconds: nothing that is chosen waits for that.
            self.say();
        }
        let planned = self.slots.iter().filter(|slot| slot.planned > 0);
        let jobs: Vec<_> =
            planned.filter_map(|slot| slot.stream.as_ref().map(|stream| &stream.job)).collect();
        // A step is abandoned only when nobody waits for it any more; otherwise a cancelled stream ends after it.
        let abandoned = || jobs.iter().all(|job| job.is_cancelled());
        let outcome = self.setup.runner.decode(&mut self.batch, &abandoned);
        // What the step before has left to do, while another device computes.
        self.say();
        match outcome {
            Ok(()) => self.take_results(),
            Err(DecodeError::NoCells) => self.make_room(),
            Err(DecodeError::Aborted) => self.forget_step(),
            Err(error @ DecodeError::Failed(_)) => {
                self.forget_step();
                for index in 0..self.slots.len() {
                    if self.slots[index].planned > 0 {
                        self.end(index, Next::Fail(Error::internal(error.to_string())));
                    }
                }
            }
        }
    }

    /// Sends the tokens that were chosen and not yet sent.
    fn say(&mut self) {
        let vocabulary = self.setup.tokenizer.vocabulary();
        for stream in self.slots.iter_mut().filter_map(|slot| slot.stream.as_mut()) {
            stream.say(vocabulary, &mut self.text);
        }
    }

    fn take_results(&mut self) {
        self.step += 1;
        add(&self.setup.counters.steps, 1);
        for slot in &mut self.slots {
            let (Some(stream), 1..) = (&slot.stream, slot.planned) else { continue };
            let begin = slot.cells.len();
            slot.cells.extend_from_slice(&stream.tokens[begin..begin + slot.planned]);
            slot.last_used = self.step;
            if slot.planned > 1 || begin < stream.prompt_len {
                add(&self.setup.counters.prompt_tokens, slot.planned);
            }
            if slot.row.is_none() {
                // Shows the host that the engine is not hanging.
                let fraction = slot.cells.len() as f32 / stream.tokens.len() as f32;
                stream.job.push(&Event::Progress { fraction, text: "reading the prompt" });
            }
        }
        let ended = self.choose();
        if !self.setup.runner.computes_elsewhere() {
            self.say();
        }
        for (index, next) in ended {
            self.end(index, next);
        }
    }

    /// Lets the streams choose whose logits the step has; what becomes of those that do not go on.
    fn choose(&mut self) -> Vec<(usize, Next)> {
        let Self { setup, slots, chooser, .. } = self;
        let context_len = setup.runner.sequence_len_max();
        let rows: Vec<usize> = slots.iter().filter_map(|slot| slot.row).collect();
        let chosen = slots.iter_mut().enumerate().filter(|(_, slot)| slot.row.is_some());
        let mut turns: Vec<Turn<'_>> = chosen
            .zip(setup.runner.logits(&rows))
            .filter_map(|((index, Slot { stream, cells, .. }), logits)| {
                let room = context_len.saturating_sub(cells.len());
                Some(Turn { slot: index, stream: stream.as_mut()?, logits, room, next: Next::Continue })
            })
            .collect();
        chooser.choose(&mut turns, setup.tokenizer.vocabulary());
        let chosen = turns.iter().filter(|turn| turn.stream.unsaid.is_some()).count();
        add(&setup.counters.generated_tokens, chosen);
        let ended = turns.into_iter().filter(|turn| !matches!(turn.next, Next::Continue));
        ended.map(|turn| (turn.slot, turn.next)).collect()
    }

    /// Restores the sequences to what they were before a step that did not complete.
    fn forget_step(&mut self) {
        for index in 0..self.slots.len() {
            if self.slots[index].planned > 0 {
                self.trim(index, self.slots[index].cells.len());
            }
        }
    }

    /// Frees cells after a step did not find enough: an idle slot's, the least recently used first, then those of the
    /// stream that started last, which waits and is computed again. A stream that is alone has filled the context.
    fn make_room(&mut self) {
        let idle = (0..self.slots.len())
            .filter(|&index| self.slots[index].stream.is_none() && !self.slots[index].cells.is_empty())
            .min_by_key(|&index| self.slots[index].last_used);
        if let Some(index) = idle {
            self.trim(index, 0);
            return;
        }
        let busy: Vec<usize> =
            (0..self.slots.len()).filter(|&index| self.slots[index].stream.is_some()).collect();
        let newest = busy.iter().copied().max_by_key(|&index| {
            (self.slots[index].stream.as_ref().and_then(|stream| stream.started), index)
        });
        match (newest, busy.len()) {
            (Some(index), 1) => self.end(index, Next::Finish(Finish::Length)),
            (Some(index), _) => {
                if let Some(stream) = self.slots[index].stream.take() {
                    self.setup.counters.busy.fetch_sub(1, Ordering::Relaxed);
                    add(&self.setup.counters.preemptions, 1);
                    self.waiting.push_front(stream);
                    self.full = true;
                }
                self.trim(index, 0);
            }
            (None, _) => {}
        }
    }

    fn end(&mut self, index: usize, how: Next) {
        if let Some(mut stream) = self.slots[index].stream.take() {
            self.setup.counters.busy.fetch_sub(1, Ordering::Relaxed);
            self.full = false;
            stream.say(self.setup.tokenizer.vocabulary(), &mut self.text);
            stream.finish(how);
        }
    }
}

#[cfg(test)]
mod tests;
