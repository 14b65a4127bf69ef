//! Jobs that outlive their worker: when it ends, they go on in the next one.
//!
//! The host keeps each job's request and the tokens that it delivered. A `generate` job goes on after them (`resume`;
//! a draw depends on seed and position alone, so the rest is what it would have been). Another job starts again unless
//! it has delivered something already.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream};
use pajamas_plugin_api::{Error, ErrorKind, GenerateParams, Params, Part, Request, Task};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Shared;
use super::admission::{Caller, Entry, Permit, Place};
use super::error::{EngineError, FailureCause, WorkerFailure};
use super::job::JobEvent;
use super::lifecycle::{self, ModelEntry};
use super::loaded::Loaded;
use crate::metrics::METRICS;
use crate::plugins::JobReceiver;

/// Recoveries of a job into workers that end without a token for anybody; the next failure is the client's to know.
const RECOVERIES_IN_VAIN_MAX: u32 = 2;
/// Recoveries of a job, whatever came of them.
const RECOVERIES_MAX: u32 = 100;
/// Crashes that a request may be present at. The last time it runs without other suspects, so the fault is its own.
pub(super) const CRASHES_MAX: u32 = 3;
/// Requests that are remembered as poison; the oldest is forgotten first.
const POISON_MAX: usize = 256;

/// The events of a running job. Dropping it before the terminal event cancels the job at once.
pub struct JobStream {
    state: State,
    journal: Journal,
    shared: Arc<Shared>,
    /// Shutdown waits for it.
    _token: TaskTrackerToken,
}

enum State {
    /// It is not its turn yet.
    Queued(BoxFuture<'static, Result<Permit, EngineError>>),
    /// A worker has the job; the model stays loaded meanwhile.
    Running(Running),
    /// The worker has failed; why is not known yet.
    Lost {
        failure: BoxFuture<'static, Arc<WorkerFailure>>,
        was_useful: bool,
    },
    /// On the way into another worker.
    Moving(BoxFuture<'static, Result<Running, EngineError>>),
    Ended,
}

impl State {
    fn lost(model: &Loaded) -> Self {
        let failure = model.handle.worker().ended().boxed();
        Self::Lost { failure, was_useful: model.is_useful.load(Ordering::Relaxed) }
    }
}

/// A job that has arrived in a worker.
struct Running {
    receiver: JobReceiver,
    model: Arc<Loaded>,
    /// Held by a job that is under suspicion: no other suspect runs beside it.
    _alone: Option<OwnedMutexGuard<()>>,
    /// A swap waits for it.
    _token: TaskTrackerToken,
}

impl Running {
    fn start(
        model: &Arc<Loaded>,
        request: &Request,
        alone: Option<OwnedMutexGuard<()>>,
    ) -> Result<Self, EngineError> {
        let token = model.jobs.token();
        let receiver = model.handle.submit(request)?;
        Ok(Self { receiver, model: Arc::clone(model), _alone: alone, _token: token })
    }
}

/// What is needed to go on elsewhere, and what has happened so far.
struct Journal {
    request: Arc<Request>,
    entry: Arc<ModelEntry>,
    started: Instant,
    /// Tokens that were delivered.
    tokens: Vec<u32>,
    /// Something was delivered that cannot be delivered again.
    is_spent: bool,
    recoveries: u32,
    in_vain: u32,
    crashes: u32,
    /// When the worker failed, until the next token.
    failed_at: Option<Instant>,
    last_token_at: Option<Instant>,
    /// The right to run.
    permit: Option<Permit>,
    /// Tokens that the job has cost so far, as the plugin counts them; 0 while nothing is known.
    spent_tokens: u32,
}

/// Tokens of an answer whose length nobody has bounded.
const ANSWER_TOKENS: u32 = 256;
/// Tokens that a picture is taken for.
const PICTURE_TOKENS: u32 = 256;
/// Samples of sound that are taken for a token: Whisper computes 50 positions a second.
const SAMPLES_PER_TOKEN: usize = 320;
/// Bytes of text that are taken for a token.
const BYTES_PER_TOKEN: usize = 4;

/// About how much work a request is, in tokens; at least 1.
fn expected_tokens(request: &Request) -> u32 {
    #[derive(serde::Deserialize)]
    struct Bound {
        max_tokens: Option<u32>,
    }
    let of_part = |part: &Part| match part {
        Part::Text { text, .. } => text.len() / BYTES_PER_TOKEN,
        Part::Tokens(tokens) => tokens.len(),
        Part::Rgb8 { .. } => PICTURE_TOKENS as usize,
        Part::Pcm(samples) => samples.len() / SAMPLES_PER_TOKEN,
        Part::Tensor(tensor) => tensor.data.len() / 1024,
        Part::Bytes(bytes) => bytes.len() / 1024,
    };
    let input = request.parts.iter().map(of_part).sum::<usize>();
    let bound = request.params::<Bound>().ok().and_then(|bound| bound.max_tokens);
    let answer = if request.task == Task::Generate { bound.unwrap_or(ANSWER_TOKENS) } else { 0 };
    u32::try_from(input).unwrap_or(u32::MAX).saturating_add(answer).max(1)
}

impl std::fmt::Debug for JobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobStream")
            .field("model", &self.journal.entry.spec().id)
            .field("tokens", &self.journal.tokens.len())
            .finish_non_exhaustive()
    }
}

/// Starts a job in a loaded model.
///
/// # Errors
/// The request is poison, or the worker cannot take it.
pub(super) fn start(
    shared: &Arc<Shared>,
    entry: &Arc<ModelEntry>,
    model: &Arc<Loaded>,
    request: Request,
    caller: Caller<'_>,
) -> Result<JobStream, EngineError> {
    if let Some(failure) = shared.poison.find(&entry.spec().id, &request) {
        return Err(EngineError::Poison(failure));
    }
    let (state, permit) = match entry.admission().enter(caller, expected_tokens(&request)) {
        Entry::Full(waiting) => {
            return Err(EngineError::QueueFull { model: entry.spec().id.clone(), waiting });
        }
        Entry::Later(place) => (State::Queued(turn(place, request.deadline_ms).boxed()), None),
        Entry::Now(permit) => {
            METRICS.queued(&entry.spec().id, Duration::ZERO);
            match Running::start(model, &request, None) {
                Ok(running) => (State::Running(running), Some(permit)),
                Err(EngineError::Worker(_)) => (State::lost(model), Some(permit)),
                Err(error) => return Err(error),
            }
        }
    };
    let journal = Journal {
        request: Arc::new(request),
        entry: Arc::clone(entry),
        started: Instant::now(),
        tokens: Vec::new(),
        is_spent: false,
        recoveries: 0,
        in_vain: 0,
        crashes: 0,
        failed_at: None,
        last_token_at: None,
        permit,
        spent_tokens: 0,
    };
    Ok(JobStream { state, journal, shared: Arc::clone(shared), _token: shared.jobs.token() })
}

/// Waits for the job's turn, as long as its answer is of use.
async fn turn(place: Place, deadline_ms: Option<u64>) -> Result<Permit, EngineError> {
    let patience = Duration::from_millis(deadline_ms.unwrap_or(u64::MAX));
    match tokio::time::timeout(patience, place).await {
        Ok(permit) => permit.map_err(|_| EngineError::ShuttingDown),
        Err(_) => {
            let message = "the deadline of the request has passed while it waited for its turn";
            Err(EngineError::Plugin(Error::new(ErrorKind::Deadline, message)))
        }
    }
}

impl JobStream {
    /// The next event; `None` after the terminal one.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<JobEvent> {
        std::future::poll_fn(|context| self.poll_event(context)).await
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<JobEvent>> {
        loop {
            match &mut self.state {
                State::Ended => return Poll::Ready(None),
                State::Queued(turn) => match ready!(turn.poll_unpin(context)) {
                    Ok(permit) => {
                        METRICS.queued(&self.journal.entry.spec().id, self.journal.started.elapsed());
                        self.journal.permit = Some(permit);
                        match self.journal.rest() {
                            // The model may have been replaced or unloaded meanwhile.
                            Ok(request) => {
                                self.state = State::Moving(self.journal.go(&self.shared, request, None));
                            }
                            Err(error) => return Poll::Ready(Some(self.end_with(JobEvent::Failed(error)))),
                        }
                    }
                    Err(error) => return Poll::Ready(Some(self.end_with(JobEvent::Failed(error)))),
                },
                State::Running(running) => match ready!(running.receiver.poll_next(context)) {
                    Some(JobEvent::Failed(EngineError::Worker(_))) => {
                        self.state = State::lost(&running.model);
                    }
                    Some(event) => {
                        running.model.note(&event);
                        self.journal.note(&event);
                        return Poll::Ready(Some(self.end_with(event)));
                    }
                    None => return Poll::Ready(None),
                },
                State::Lost { failure, was_useful } => {
                    let failure = ready!(failure.poll_unpin(context));
                    let is_new = self.shared.pool.is_on_probation(&failure.plugin);
                    self.journal.count(&failure, *was_useful, is_new);
                    self.state = match self.journal.recover(&self.shared, &failure) {
                        Ok(moving) => State::Moving(moving),
                        Err(error) => return Poll::Ready(Some(self.end_with(JobEvent::Failed(error)))),
                    };
                }
                State::Moving(moving) => match ready!(moving.poll_unpin(context)) {
                    Ok(running) => self.state = State::Running(running),
                    Err(EngineError::Worker(failure)) => {
                        let failure = std::future::ready(failure).boxed();
                        self.state = State::Lost { failure, was_useful: false };
                    }
                    Err(error) => return Poll::Ready(Some(self.end_with(JobEvent::Failed(error)))),
                },
            }
        }
    }

    /// Lets go of everything after the terminal event, and logs a failure that is the server's.
    fn end_with(&mut self, event: JobEvent) -> JobEvent {
        if event.is_terminal() {
            self.state = State::Ended;
            self.journal.settle();
            self.journal.entry.touch();
            self.shared.budget.look_again();
        }
        if let JobEvent::Failed(error) = &event
            && !matches!(
                error.kind(),
                Some(ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::Cancelled)
            )
        {
            tracing::warn!(model = self.journal.entry.spec().id, "job failed: {error}");
        }
        event
    }
}

impl Drop for JobStream {
    fn drop(&mut self) {
        self.state = State::Ended;
        self.journal.settle();
        self.journal.entry.touch();
        self.shared.budget.look_again();
    }
}

impl Stream for JobStream {
    type Item = JobEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<JobEvent>> {
        self.poll_event(context)
    }
}

impl Journal {
    fn note(&mut self, event: &JobEvent) {
        match event {
            JobEvent::Token { token, .. } => {
                if let Some(failed_at) = self.failed_at.take() {
                    let pause_ms = failed_at.elapsed().as_millis() as u64;
                    tracing::info!(model = self.entry.spec().id, pause_ms, "a stream goes on");
                }
                let (model, now) = (&self.entry.spec().id, Instant::now());
                match self.last_token_at.replace(now) {
                    None => METRICS.first_token(model, now.duration_since(self.started)),
                    Some(last) => METRICS.inter_token(model, now.duration_since(last)),
                }
                self.tokens.push(token.token);
                self.spent_tokens = self.spent_tokens.saturating_add(1);
            }
            JobEvent::Usage(usage) => {
                self.spent_tokens = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
            }
            JobEvent::Progress { .. } | JobEvent::Done { .. } | JobEvent::Failed(_) => {}
            _ => self.is_spent = true,
        }
    }

    /// Gives the right to run back, and pays for what was computed.
    fn settle(&mut self) {
        if let Some(mut permit) = self.permit.take()
            && self.spent_tokens > 0
        {
            permit.settle(self.spent_tokens);
        }
    }

    fn count(&mut self, failure: &WorkerFailure, was_useful: bool, is_new: bool) {
        self.recoveries += 1;
        // A crash of a version that got the route a moment ago is held against the version.
        self.crashes += u32::from(failure.cause == FailureCause::Plugin && !is_new);
        match failure.cause {
            FailureCause::Host => {}
            FailureCause::Plugin | FailureCause::Outside if was_useful => self.in_vain = 0,
            FailureCause::Plugin | FailureCause::Outside => self.in_vain += 1,
        }
    }

    /// Decides what becomes of a job whose worker has ended.
    fn recover(
        &mut self,
        shared: &Arc<Shared>,
        failure: &Arc<WorkerFailure>,
    ) -> Result<BoxFuture<'static, Result<Running, EngineError>>, EngineError> {
        let lost = || EngineError::Worker(Arc::clone(failure));
        if self.crashes >= CRASHES_MAX {
            shared.poison.remember(&self.entry.spec().id, &self.request, failure);
            shared.pool.forgive(&failure.plugin);
            METRICS.recovered(&self.entry.spec().id, "poison");
            return Err(EngineError::Poison(Arc::clone(failure)));
        }
        let can_resume = self.request.task == Task::Generate || self.tokens.is_empty();
        if self.is_spent
            || !can_resume
            || self.in_vain > RECOVERIES_IN_VAIN_MAX
            || self.recoveries > RECOVERIES_MAX
            || shared.closing.load(Ordering::Acquire)
        {
            METRICS.recovered(&self.entry.spec().id, "lost");
            return Err(lost());
        }
        METRICS.recovered(&self.entry.spec().id, "moved");
        self.failed_at.get_or_insert_with(Instant::now);
        Ok(self.go(shared, self.rest()?, Some(failure)))
    }

    /// The way of `request` into a worker, after `failure` of the one before.
    fn go(
        &self,
        shared: &Arc<Shared>,
        request: Request,
        failure: Option<&Arc<WorkerFailure>>,
    ) -> BoxFuture<'static, Result<Running, EngineError>> {
        let (shared, entry) = (Arc::clone(shared), Arc::clone(&self.entry));
        let plugin = failure.map(|failure| failure.plugin.clone());
        let is_suspect = self.crashes + 1 == CRASHES_MAX;
        async move {
            let alone = if is_suspect { Some(entry.isolation().lock_owned().await) } else { None };
            if let Some(plugin) = plugin {
                // A version that is being rolled back is not tried again.
                shared.pool.settled(&plugin).await;
            }
            let model = lifecycle::acquire(&shared, &entry).await?;
            Running::start(&model, &request, alone)
        }
        .boxed()
    }

    /// The request for what is still to come.
    fn rest(&self) -> Result<Request, EngineError> {
        let mut request = Request::clone(&self.request);
        if let Some(deadline_ms) = &mut request.deadline_ms {
            let spent_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            *deadline_ms =
                deadline_ms.checked_sub(spent_ms).filter(|left_ms| *left_ms > 0).ok_or_else(|| {
                    let message = "the deadline of the request has passed while its worker was replaced";
                    EngineError::Plugin(Error::new(ErrorKind::Deadline, message))
                })?;
        }
        if !self.tokens.is_empty() {
            let mut params: GenerateParams = request.params().map_err(EngineError::Plugin)?;
            params.resume.extend_from_slice(&self.tokens);
            request.params = Params::new(&params).map_err(EngineError::Plugin)?;
        }
        Ok(request)
    }
}

/// Requests that ended their worker each time; sent again, they are refused. Only inputs count: a client that repeats a
/// request gets another seed.
#[derive(Debug, Default)]
pub(super) struct PoisonList {
    known: Mutex<VecDeque<(u64, Arc<WorkerFailure>)>>,
    keys: RandomState,
}

impl PoisonList {
    fn find(&self, model: &str, request: &Request) -> Option<Arc<WorkerFailure>> {
        let known = self.known.lock();
        if known.is_empty() {
            return None;
        }
        let wanted = self.fingerprint(model, request);
        known.iter().find(|(hash, _)| *hash == wanted).map(|(_, failure)| Arc::clone(failure))
    }

    fn remember(&self, model: &str, request: &Request, failure: &Arc<WorkerFailure>) {
        let hash = self.fingerprint(model, request);
        let mut known = self.known.lock();
        if known.len() >= POISON_MAX {
            known.pop_front();
        }
        known.push_back((hash, Arc::clone(failure)));
    }

    fn fingerprint(&self, model: &str, request: &Request) -> u64 {
        let mut hasher = self.keys.build_hasher();
        (model, request.task.name()).hash(&mut hasher);
        for part in &request.parts {
            std::mem::discriminant(part).hash(&mut hasher);
            match part {
                Part::Text { text, trusted } => (text, trusted).hash(&mut hasher),
                Part::Tokens(tokens) => tokens.hash(&mut hasher),
                Part::Rgb8 { width, height, data } => (width, height, data).hash(&mut hasher),
                Part::Pcm(samples) => samples.iter().for_each(|sample| sample.to_bits().hash(&mut hasher)),
                Part::Tensor(tensor) => (&tensor.name, &tensor.shape, &tensor.data).hash(&mut hasher),
                Part::Bytes(bytes) => bytes.hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}
