//! Makes requests and collects the events of jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pajamas_plugin_api::{
    ErrorKind, Event, EventSink, Finish, Flow, GenerateParams, Job, Model, Params, Part, Progress, Request,
    Task, Usage,
};
use parking_lot::{Condvar, Mutex};

/// A question in SmolLM2's chat format, with the user's text untrusted.
#[must_use]
pub fn chat(user: &str) -> Vec<Part> {
    let trusted = |text: &str| Part::Text { text: text.to_owned(), trusted: true };
    vec![
        trusted("<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n<|im_start|>user\n"),
        Part::text(user),
        trusted("<|im_end|>\n<|im_start|>assistant\n"),
    ]
}

/// A `generate` request for a chat.
#[must_use]
pub fn generate(user: &str, params: &GenerateParams) -> Request {
    let params = Params::new(params).unwrap();
    Request { task: Task::Generate, params, parts: chat(user), deadline_ms: None }
}

/// Greedy parameters.
#[must_use]
pub fn greedy(max_tokens: u32) -> GenerateParams {
    GenerateParams { temperature: 0.0, max_tokens: Some(max_tokens), ..Default::default() }
}

/// Progress of a load that nobody watches or gives up.
#[must_use]
pub fn no_progress() -> Progress {
    Progress::new(Arc::new(Collector::default()))
}

/// Starts a job.
#[must_use]
pub fn start(model: &dyn Model, request: Request) -> Running {
    let collector = Arc::new(Collector::default());
    let cancel = Arc::new(AtomicBool::new(false));
    model.submit(request, Job::new(Arc::clone(&collector) as Arc<dyn EventSink>, Arc::clone(&cancel)));
    Running { collector, cancel }
}

/// Runs a job to its end, which must be a good one.
#[must_use]
pub fn run(model: &dyn Model, request: Request) -> Answer {
    let answer = start(model, request).wait();
    assert_eq!(answer.error, None);
    answer
}

/// Runs a job that must fail.
#[must_use]
pub fn fail(model: &dyn Model, request: Request) -> (ErrorKind, String) {
    start(model, request).wait().error.unwrap()
}

/// A job and what it sent so far.
pub struct Running {
    collector: Arc<Collector>,
    cancel: Arc<AtomicBool>,
}

impl Running {
    /// Cancels it.
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// Waits until it has sent this many tokens, or its end.
    pub fn wait_tokens(&self, count: usize) {
        let mut answer = self.collector.answer.lock();
        while answer.tokens.len() < count && answer.terminals == 0 {
            self.collector.changed.wait(&mut answer);
        }
    }

    /// Waits for the terminal event.
    #[must_use]
    pub fn wait(self) -> Answer {
        let mut answer = self.collector.answer.lock();
        while answer.terminals == 0 {
            self.collector.changed.wait(&mut answer);
        }
        answer.clone()
    }
}

/// Everything that a job sent.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Of `Token` events.
    pub tokens: Vec<u32>,
    /// Their texts, joined.
    pub bytes: Vec<u8>,
    /// Their log-probabilities, with those of the alternatives.
    pub logprobs: Vec<(f32, Vec<(u32, f32)>)>,
    /// By index.
    pub vectors: Vec<(u32, Vec<f32>)>,
    /// As JSON.
    pub results: Vec<serde_json::Value>,
    /// Names and bytes.
    pub tensors: Vec<(String, Vec<u8>)>,
    /// How it ended, if it ended well.
    pub finish: Option<Finish>,
    /// The last counts.
    pub usage: Usage,
    /// How it ended, if it failed.
    pub error: Option<(ErrorKind, String)>,
    /// Events that ended it: one.
    pub terminals: usize,
}

impl Answer {
    /// The text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

#[derive(Default)]
struct Collector {
    answer: Mutex<Answer>,
    changed: Condvar,
}

impl EventSink for Collector {
    fn push(&self, event: &Event<'_>) -> Flow {
        let mut answer = self.answer.lock();
        match event {
            Event::Token { token, text, logprob, top } => {
                answer.tokens.push(*token);
                answer.bytes.extend_from_slice(text);
                answer.logprobs.push((*logprob, top.iter().map(|t| (t.token, t.logprob)).collect()));
            }
            Event::Vector { index, values } => answer.vectors.push((*index, values.to_vec())),
            Event::Result { json, .. } => answer.results.push(serde_json::from_str(json).unwrap()),
            Event::Tensors(tensors) => {
                answer.tensors.extend(tensors.iter().map(|t| (t.name.to_owned(), t.data.to_vec())));
            }
            Event::Done { finish, usage } => {
                answer.finish = Some(*finish);
                answer.usage = *usage;
                answer.terminals += 1;
            }
            Event::Error { kind, message } => {
                answer.error = Some((*kind, (*message).to_owned()));
                answer.terminals += 1;
            }
            _ => {}
        }
        self.changed.notify_all();
        Flow::Continue
    }

    fn cancelled(&self) -> bool {
        false
    }
}
