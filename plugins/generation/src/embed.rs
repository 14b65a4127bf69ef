//! Embeddings and reranking: a thread with a runner of its own that packs texts of all waiting jobs into one batch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pajamas_plugin_api::{
    EmbedParams, Error, ErrorKind, Event, Finish, Job, Part, Request, Task, Usage, thread,
};
use serde::Deserialize;

use crate::counters::{Counters, Ticket, add};
use crate::engine::{overloaded, stopped};
use crate::queue::Queue;
use crate::runner::{AbortCheck, DecodeError};
use crate::tokenizer::{TEXT_BYTES_MAX, Tokenizer, too_long};

/// Most texts of one job.
const TEXTS_MAX: usize = 8192;

/// Computes a vector, or a score, for each text. The embedding thread is the only one that calls it.
pub trait EmbedRunner: Send {
    /// The vectors of these texts, in order; for reranking, vectors whose first element is the score.
    ///
    /// # Errors
    /// `abort` said so, or the computation failed.
    fn embed(&mut self, texts: &[&[i32]], abort: AbortCheck<'_>) -> Result<Vec<Vec<f32>>, DecodeError>;
}

/// Makes the runner, when the first job comes.
pub type StartEmbedRunner = Box<dyn Fn() -> Result<Box<dyn EmbedRunner>, Error> + Send>;

/// Which tokens a text to embed is.
pub trait EmbedTexts: Send {
    /// The tokens of a text of at most [`TEXT_BYTES_MAX`], with what the model wants around it.
    fn whole(&self, text: &str) -> Vec<i32>;

    /// The tokens of each pair of a `rerank` request: its first text is the query, each other one a document.
    ///
    /// # Errors
    /// There is no document, a part is not text, or a pair has more than `len_max` tokens.
    fn pairs(&self, request: &Request, len_max: usize) -> Result<Vec<Vec<i32>>, Error>;
}

/// Sizes of an embedder.
#[derive(Clone, Copy, Debug)]
pub struct EmbedSizes {
    /// Most tokens of one text, and of all texts of one batch.
    pub tokens_max: usize,
    /// Most texts of one batch.
    pub texts_at_once: usize,
    /// Jobs that may run or wait.
    pub jobs_max: u32,
}

/// Parameters of `rerank`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RerankParams {
    /// Report the best this many only.
    top_n: Option<u32>,
}

/// What the thread needs.
pub struct EmbedSetup {
    /// Makes the runner.
    pub start: StartEmbedRunner,
    /// Turns texts into tokens.
    pub texts: Box<dyn EmbedTexts>,
    /// Answers `tokenize` and checks token ids.
    pub tokenizer: Arc<Tokenizer>,
    /// Sizes.
    pub sizes: EmbedSizes,
    /// Where the work is counted.
    pub counters: Arc<Counters>,
}

/// The embedding thread. Dropping it fails what still waits and joins it.
#[derive(Debug)]
pub struct Embedder {
    queue: Arc<Queue<Submission>>,
    counters: Arc<Counters>,
    jobs_max: u32,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Submission {
    request: Request,
    job: Job,
    ticket: Ticket,
    at: Instant,
}

impl Embedder {
    /// Starts the thread, named after `name`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(name: &str, setup: EmbedSetup) -> Result<Self, Error> {
        let queue = Arc::new(Queue::new());
        let (counters, jobs_max) = (Arc::clone(&setup.counters), setup.sizes.jobs_max);
        let on_panic = Arc::clone(&queue);
        let mut worker = Worker {
            setup,
            queue: Arc::clone(&queue),
            runner: None,
            running: Vec::new(),
            texts: VecDeque::new(),
        };
        let thread =
            thread::spawn(&format!("{name}-embed"), move || worker.run(), move |_| on_panic.close())?;
        Ok(Self { queue, counters, jobs_max, thread: Some(thread) })
    }

    /// Starts a job of `embed`, `rerank` or `tokenize`.
    pub fn submit(&self, request: Request, job: Job) {
        let Some(ticket) = Ticket::take(&self.counters, self.jobs_max) else {
            return job.fail(&overloaded());
        };
        let submission = Submission { request, job, ticket, at: Instant::now() };
        if let Err(submission) = self.queue.push(submission) {
            submission.job.fail(&stopped());
        }
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("sizes", &self.setup.sizes).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for EmbedSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbedSetup").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // A panic was logged and reported when it happened.
            let _ = thread.join();
        }
    }
}

/// The thread's state.
struct Worker {
    setup: EmbedSetup,
    queue: Arc<Queue<Submission>>,
    runner: Option<Box<dyn EmbedRunner>>,
    /// Jobs by number; a job that ended leaves `None`.
    running: Vec<Option<Running>>,
    texts: VecDeque<Text>,
}

/// A job in work.
#[derive(Debug)]
struct Running {
    job: Job,
    output: Output,
    deadline: Option<Instant>,
    left: usize,
    tokens: usize,
    ticket: Ticket,
}

/// What becomes of the results.
#[derive(Debug)]
enum Output {
    Vectors { normalize: bool },
    Scores { top: usize, scores: Vec<(u32, f32)> },
}

/// One text of a job.
#[derive(Debug)]
struct Text {
    job: usize,
    index: u32,
    tokens: Vec<i32>,
}

impl Worker {
    fn run(&mut self) {
        while self.take_jobs() {
            while !self.texts.is_empty() && !self.queue.is_closed() {
                self.compute();
                self.end_interrupted();
            }
            if self.queue.is_closed() {
                self.fail_all(&Error::internal("the model was unloaded"));
            }
            self.running.clear();
        }
    }

    /// Waits for jobs and takes all that are there. False when the queue is closed and empty.
    fn take_jobs(&mut self) -> bool {
        if !self.queue.wait() {
            return false;
        }
        let mut submissions = VecDeque::new();
        self.queue.take_all(&mut submissions);
        for submission in submissions {
            self.start(submission);
        }
        true
    }

    fn start(&mut self, submission: Submission) {
        let Submission { request, job, ticket, at } = submission;
        if request.task == Task::Tokenize {
            return self.setup.tokenizer.answer(&request, job);
        }
        let (output, texts) = match self.read(&request) {
            Ok(work) => work,
            Err(error) => return job.fail(&error),
        };
        let number = self.running.len();
        let deadline = request.deadline_ms.and_then(|ms| at.checked_add(Duration::from_millis(ms)));
        let tokens = texts.iter().map(Vec::len).sum();
        self.running.push(Some(Running { job, output, deadline, left: texts.len(), tokens, ticket }));
        self.texts.extend((0u32..).zip(texts).map(|(index, tokens)| Text { job: number, index, tokens }));
    }

    fn read(&mut self, request: &Request) -> Result<(Output, Vec<Vec<i32>>), Error> {
        if self.runner.is_none() {
            self.runner = Some((self.setup.start)()?);
        }
        let len_max = self.setup.sizes.tokens_max;
        if request.parts.len() > TEXTS_MAX {
            return Err(Error::invalid(format!(
                "{} texts in one request, at most {TEXTS_MAX}",
                request.parts.len()
            )));
        }
        if request.task == Task::Rerank {
            let params: RerankParams = request.params()?;
            let texts = self.setup.texts.pairs(request, len_max)?;
            let top = params.top_n.map_or(texts.len(), |top| top as usize);
            return Ok((Output::Scores { top, scores: Vec::new() }, texts));
        }
        let params: EmbedParams = request.params()?;
        let texts = request
            .parts
            .iter()
            .enumerate()
            .map(|(index, part)| fit(self.tokens(part)?, index, len_max, params.truncate))
            .collect::<Result<Vec<_>, _>>()?;
        if texts.is_empty() {
            return Err(Error::invalid("there is no text to embed"));
        }
        Ok((Output::Vectors { normalize: params.normalize }, texts))
    }

    fn tokens(&self, part: &Part) -> Result<Vec<i32>, Error> {
        match part {
            Part::Text { text, .. } if text.len() > TEXT_BYTES_MAX => Err(too_long()),
            Part::Text { text, .. } => Ok(self.setup.texts.whole(text)),
            tokens @ Part::Tokens(_) => self.setup.tokenizer.prompt(std::slice::from_ref(tokens)),
            _ => Err(Error::invalid("only text and token ids can be embedded")),
        }
    }

    /// Computes as many texts as fit one batch.
    fn compute(&mut self) {
        let EmbedSizes { tokens_max, texts_at_once, .. } = self.setup.sizes;
        let (mut texts, mut tokens) = (Vec::new(), 0);
        while texts.len() < texts_at_once
            && let Some(text) = self.texts.front()
            && (texts.is_empty() || tokens + text.tokens.len() <= tokens_max)
        {
            let Some(text) = self.texts.pop_front() else { break };
            tokens += text.tokens.len();
            texts.push(text);
        }
        let Some(runner) = &mut self.runner else { return };
        let jobs: Vec<&Job> =
            texts.iter().filter_map(|text| self.running[text.job].as_ref()).map(|r| &r.job).collect();
        let abandoned = || jobs.iter().all(|job| job.is_cancelled());
        let rows: Vec<&[i32]> = texts.iter().map(|text| text.tokens.as_slice()).collect();
        let result = runner.embed(&rows, &abandoned);
        add(&self.setup.counters.embedded_texts, texts.len());
        let mut vectors = result.map(Vec::into_iter);
        for text in &texts {
            let missing = || DecodeError::Failed("a vector is missing".to_owned());
            let vector = vectors.as_mut().map_err(|error| error.clone());
            self.deliver(text, vector.and_then(|vectors| vectors.next().ok_or_else(missing)));
        }
    }

    fn deliver(&mut self, text: &Text, result: Result<Vec<f32>, DecodeError>) {
        let slot = &mut self.running[text.job];
        let Some(running) = slot else { return };
        match result {
            Ok(values) => {
                if running.take(text.index, values)
                    && let Some(running) = slot.take()
                {
                    running.finish();
                }
            }
            // All jobs of the batch are cancelled and end next.
            Err(DecodeError::Aborted) => {}
            Err(error) => {
                if let Some(running) = slot.take() {
                    running.job.fail(&Error::internal(error.to_string()));
                }
            }
        }
    }

    fn end_interrupted(&mut self) {
        let now = Instant::now();
        for slot in &mut self.running {
            let Some(running) = slot else { continue };
            let late = running.deadline.is_some_and(|deadline| now >= deadline);
            if !late && !running.job.is_cancelled() {
                continue;
            }
            let Some(running) = slot.take() else { continue };
            if late {
                running.job.fail(&Error::new(ErrorKind::Deadline, "the deadline of the request has passed"));
            } else {
                running.job.done(Finish::Cancelled, Usage::default());
            }
        }
        self.texts.retain(|text| self.running[text.job].is_some());
    }

    fn fail_all(&mut self, error: &Error) {
        self.texts.clear();
        for running in self.running.drain(..).flatten() {
            running.job.fail(error);
        }
    }
}

impl Running {
    /// Takes the result of one text; true when it was the last.
    fn take(&mut self, index: u32, mut values: Vec<f32>) -> bool {
        self.left -= 1;
        match &mut self.output {
            Output::Vectors { normalize } => {
                if *normalize {
                    scale_to_length_one(&mut values);
                }
                self.job.push(&Event::Vector { index, values: &values });
            }
            Output::Scores { scores, .. } => {
                scores.push((index, values.first().copied().unwrap_or(f32::NAN)))
            }
        }
        self.left == 0
    }

    fn finish(self) {
        if let Output::Scores { top, mut scores } = self.output {
            scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            for (index, score) in scores.into_iter().take(top) {
                let json = serde_json::json!({"index": index, "score": score}).to_string();
                self.job.push(&Event::Result { index, json: &json });
            }
        }
        let prompt_tokens = u32::try_from(self.tokens).unwrap_or(u32::MAX);
        // Whoever sees the end finds the place free.
        drop(self.ticket);
        self.job.done(Finish::Stop, Usage { prompt_tokens, ..Usage::default() });
    }
}

/// Checks the length of a text; cuts it, keeping the token that ends it, when that is allowed.
fn fit(mut tokens: Vec<i32>, index: usize, len_max: usize, truncate: bool) -> Result<Vec<i32>, Error> {
    if tokens.is_empty() {
        return Err(Error::invalid(format!("input {index} is empty")));
    }
    if tokens.len() > len_max {
        if !truncate {
            return Err(Error::invalid(format!(
                "input {index} has {} tokens and this model takes {len_max}: shorten it or set `truncate`",
                tokens.len()
            )));
        }
        let last = tokens.pop();
        tokens.truncate(len_max - 1);
        tokens.extend(last);
    }
    Ok(tokens)
}

fn scale_to_length_one(values: &mut [f32]) {
    let length = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        values.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_refused_or_cut_with_their_last_token_kept() {
        assert_eq!(fit(vec![1, 2, 3], 0, 3, false).unwrap(), [1, 2, 3]);
        assert_eq!(fit(vec![1, 2, 3, 4, 9], 0, 3, true).unwrap(), [1, 2, 9]);
        let error = fit(vec![1, 2, 3, 4], 7, 3, false).unwrap_err().to_string();
        assert!(
            error.contains("input 7") && error.contains("4 tokens") && error.contains("takes 3"),
            "{error}"
        );
        assert!(fit(vec![], 0, 3, true).is_err());
    }

    #[test]
    fn vectors_get_length_one_and_zero_stays_zero() {
        let mut values = [3.0, 4.0];
        scale_to_length_one(&mut values);
        assert_eq!(values, [0.6, 0.8]);
        let mut zero = [0.0; 3];
        scale_to_length_one(&mut zero);
        assert_eq!(zero, [0.0; 3]);
    }
}
