//! A generating model: a thread that prepares requests and a thread that computes them all together.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Instant;

use pajamas_plugin_api::{Error, ErrorKind, Job, Request, thread};

use crate::counters::{Counters, Ticket};
use crate::prepare::{Preparer, Submission};
use crate::queue::Queue;
use crate::runner::LmRunner;
use crate::scheduler::{Scheduler, Setup};
use crate::stream::Stream;
use crate::tokenizer::Tokenizer;

/// The two threads of a generating model. Dropping it fails what still runs and joins them.
#[derive(Debug)]
pub struct Engine {
    submissions: Arc<Queue<Submission>>,
    streams: Arc<Queue<Stream>>,
    counters: Arc<Counters>,
    jobs_max: u32,
    threads: Vec<JoinHandle<()>>,
}

/// Sizes of an engine.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Requests at the same time.
    pub slots: u32,
    /// Most tokens of one step.
    pub batch: u32,
    /// Prompt tokens after which a step begins no further prompt, while several streams run.
    pub prefill_chunk: u32,
    /// Requests that may wait.
    pub queue: u32,
}

impl Engine {
    /// Starts the threads, named after `name`, and waits until the weights have been read once. `runner` becomes the
    /// engine's own; its sequences are the slots.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(
        name: &str,
        runner: Box<dyn LmRunner>,
        tokenizer: &Arc<Tokenizer>,
        sizes: Sizes,
        counters: &Arc<Counters>,
    ) -> Result<Self, Error> {
        let submissions = Arc::new(Queue::new());
        let streams = Arc::new(Queue::new());
        let mut preparer = Preparer {
            tokenizer: Arc::clone(tokenizer),
            context_len: runner.sequence_len_max(),
            submissions: Arc::clone(&submissions),
            streams: Arc::clone(&streams),
            grammars: None,
        };
        let mut scheduler = Scheduler::new(Setup {
            runner,
            slots: sizes.slots as usize,
            batch: sizes.batch as usize,
            prefill_chunk: sizes.prefill_chunk as usize,
            tokenizer: Arc::clone(tokenizer),
            queue: Arc::clone(&streams),
            counters: Arc::clone(counters),
        });
        let mut engine = Self {
            submissions: Arc::clone(&submissions),
            streams: Arc::clone(&streams),
            counters: Arc::clone(counters),
            jobs_max: sizes.slots + sizes.queue,
            threads: Vec::new(),
        };
        // After a panic nothing is accepted any more; what the thread held has already failed.
        let stop = move || {
            submissions.close();
            streams.close();
        };
        let stop_too = stop.clone();
        engine.threads.push(thread::spawn(
            &format!("{name}-prepare"),
            move || preparer.run(),
            move |_| stop(),
        )?);
        let (warm, is_warm) = sync_channel(1);
        let token = tokenizer.vocabulary().begin().unwrap_or(0);
        let run = move || {
            // Not on the thread that loads: OpenMP would keep a second team of threads for it, find more threads than
            // cores, and let all of them sleep at each barrier (at one stream 86 instead of 102 tokens/s).
            scheduler.warm_up(token);
            // Fails only when the load was given up.
            let _ = warm.send(());
            scheduler.run();
        };
        engine.threads.push(thread::spawn(&format!("{name}-engine"), run, move |_| stop_too())?);
        // An error means that the thread has panicked, which every request will be told.
        let _ = is_warm.recv();
        Ok(engine)
    }

    /// Starts a job of `generate` or `tokenize`.
    pub fn submit(&self, request: Request, job: Job) {
        let Some(ticket) = Ticket::take(&self.counters, self.jobs_max) else {
            return job.fail(&overloaded());
        };
        let submission = Submission { request, job, ticket, at: Instant::now() };
        if let Err(submission) = self.submissions.push(submission) {
            submission.job.fail(&stopped());
        }
    }
}

/// The answer when the queue is full.
pub(crate) fn overloaded() -> Error {
    Error::new(ErrorKind::Overloaded, "the model's queue is full: try again later")
}

/// The answer after a thread has panicked.
pub(crate) fn stopped() -> Error {
    Error::internal("the engine has stopped after an internal error: load the model again")
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.submissions.close();
        self.streams.close();
        for thread in self.threads.drain(..) {
            // A panic was logged and reported when it happened.
            let _ = thread.join();
        }
    }
}
