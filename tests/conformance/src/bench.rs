//! What cases share: the plugin at hand, requests to try it with, and the check of a whole job.

use std::path::Path;
use std::time::Duration;

use pajamas_plugin_api::abi::PJ_ABI_MINOR;
use pajamas_plugin_api::native::Library;
use pajamas_plugin_api::{
    ErrorKind, Finish, GenerateParams, LoadSpec, ModelInfo, Part, Request, Task, Usage,
};
use serde_json::{Value, json};

use crate::raw::{self, Model, Plugin, Seen, Shape, Submitted};
use crate::subject::{Limits, Subject};

/// Time in which a plugin that sends too much is caught at it.
const GRACE: Duration = Duration::from_millis(30);

/// Why a case ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A rule is broken.
    Fail(String),
    /// The case does not apply.
    Skip(String),
}

/// The result of a step of a case.
pub(crate) type Checked<T = ()> = Result<T, Stop>;

pub(crate) fn fail<T>(message: String) -> Checked<T> {
    Err(Stop::Fail(message))
}

pub(crate) fn skip<T>(reason: impl Into<String>) -> Checked<T> {
    Err(Stop::Skip(reason.into()))
}

/// Fails with the message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        // Not `if !$condition`: with floats, the negation of a comparison reads as another one.
        if $condition {
        } else {
            return Err($crate::bench::Stop::Fail(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;

/// What `None` means for an optional function.
pub(crate) fn offered<T>(answer: Option<T>, function: &str) -> Checked<T> {
    answer.ok_or_else(|| Stop::Skip(format!("the plugin does not offer {function}")))
}

/// A few events for a message.
pub(crate) fn describe(events: &[Seen]) -> String {
    let shown: Vec<String> = events.iter().take(4).map(|event| format!("{event:?}")).collect();
    let rest = events.len().saturating_sub(shown.len());
    format!("{} events: {}{}", events.len(), shown.join(", "), if rest > 0 { ", …" } else { "" })
}

/// The plugin at hand.
pub(crate) struct Bench<'a> {
    pub(crate) subject: &'a Subject,
    scratch: tempfile::TempDir,
}

/// A plugin with a loaded model.
pub(crate) struct Loaded {
    pub(crate) plugin: Plugin,
    pub(crate) model: Model,
    pub(crate) info: ModelInfo,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(subject: &'a Subject) -> Checked<Self> {
        let scratch = tempfile::tempdir().map_err(|e| Stop::Fail(format!("no temporary folder: {e}")))?;
        Ok(Self { subject, scratch })
    }

    /// A folder for this case's files.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn limits(&self) -> Limits {
        self.subject.limits
    }

    pub(crate) fn open(&self) -> Checked<Library> {
        raw::open(&self.subject.library, PJ_ABI_MINOR, self.limits().call())
    }

    pub(crate) fn init(&self) -> Checked<Plugin> {
        self.init_as(Shape::Exact)
    }

    pub(crate) fn init_as(&self, shape: Shape) -> Checked<Plugin> {
        Plugin::init(&self.open()?, &self.subject.plugin_dir, shape, self.limits())
    }

    /// The model's path; the case is skipped without one.
    pub(crate) fn model_path(&self) -> Checked<&'a Path> {
        match &self.subject.model {
            Some(path) => Ok(path),
            None => skip("no model was given"),
        }
    }

    /// How the model is loaded.
    pub(crate) fn spec(&self) -> Checked<LoadSpec> {
        let path = std::path::absolute(self.model_path()?).map_err(|e| Stop::Fail(e.to_string()))?;
        let cache_dir = Some(self.scratch().to_owned());
        Ok(LoadSpec { path, options: self.subject.load_options.clone(), cache_dir })
    }

    pub(crate) fn load(&self) -> Checked<Loaded> {
        self.load_as(Shape::Exact)
    }

    pub(crate) fn load_as(&self, shape: Shape) -> Checked<Loaded> {
        let spec = self.spec()?;
        let plugin = self.init_as(shape)?;
        let (answer, model) = plugin.load(&spec)?;
        let info = answer.result()?;
        let Some(model) = model else { return fail("load succeeded without a model".to_owned()) };
        Ok(Loaded { plugin, model, info })
    }

    /// A loaded model that offers `task`; else the case is skipped.
    pub(crate) fn load_for(&self, task: &Task) -> Checked<Loaded> {
        let loaded = self.load()?;
        if loaded.info.tasks.contains(task) {
            return Ok(loaded);
        }
        skip(format!("the model does not offer {task}"))
    }
}

impl Loaded {
    /// A request for any task that the model offers and that can be tried without knowing the model.
    pub(crate) fn any_request(&self) -> Checked<Request> {
        match self.info.tasks.iter().find_map(sample_request) {
            Some(request) => Ok(request),
            None => skip("the model has no task that can be tried without knowing it"),
        }
    }

    /// A request whose job lasts for a while, if the model has one.
    pub(crate) fn long_request(&self) -> Checked<Request> {
        if self.info.tasks.contains(&Task::Generate) {
            let params = GenerateParams { max_tokens: Some(2000), ignore_eos: true, ..greedy() };
            return Ok(generate(&"count to a thousand ".repeat(4), &params));
        }
        self.any_request()
    }
}

/// Everything about a finished job that kept the rules of streams.
pub(crate) struct Recording {
    pub(crate) events: Vec<Seen>,
}

/// Runs a job to its end and checks what holds for all jobs.
pub(crate) fn run(model: &Model, request: &Request) -> Checked<Recording> {
    finish(model.submit(request)?)
}

/// Waits for the end of a job, releases it, and checks its stream.
pub(crate) fn finish(submitted: Submitted) -> Checked<Recording> {
    match submitted {
        Submitted::Job(job) => {
            job.wait()?;
            // Whoever sends too much does so soon.
            std::thread::sleep(GRACE);
            let recorder = job.recorder.clone();
            job.release()?;
            let events = recorder.events();
            check_stream(&events)?;
            ensure!(!recorder.has_overlap(), "two events of one job were pushed at the same time");
            std::thread::sleep(GRACE);
            ensure!(recorder.late() == 0, "{} events came after release_job had returned", recorder.late());
            ensure!(
                recorder.dropped() == 0,
                "the job went on for {} events after push had answered \
                PJ_CANCELLED",
                recorder.dropped()
            );
            Ok(Recording { events })
        }
        Submitted::Refused(answer) => {
            let (kind, message) = answer.error()?;
            ensure!(
                answer.events.len() == 1,
                "a refused submit may send its ERROR event only: {}",
                describe(&answer.events)
            );
            Ok(Recording { events: vec![Seen::Error(kind, message)] })
        }
    }
}

fn check_stream(events: &[Seen]) -> Checked {
    if let Some(Seen::Malformed(problem)) = events.iter().find(|event| matches!(event, Seen::Malformed(_))) {
        return fail(format!("the plugin sent a malformed event: {problem}"));
    }
    let terminal = events.iter().filter(|event| event.is_terminal()).count();
    ensure!(
        terminal == 1,
        "{terminal} terminal events came, exactly one must: {}",
        describe(&events[events.len().saturating_sub(3)..])
    );
    ensure!(
        events.last().is_some_and(Seen::is_terminal),
        "events came after the terminal one: {}",
        describe(&events[events.iter().position(Seen::is_terminal).unwrap_or(0)..])
    );
    Ok(())
}

impl Recording {
    /// The end of a job that succeeded.
    pub(crate) fn done(&self) -> Checked<(Finish, Usage)> {
        match self.events.last() {
            Some(Seen::Done(finish, usage)) => Ok((*finish, *usage)),
            Some(Seen::Error(kind, message)) => fail(format!("the job failed ({kind:?}): {message}")),
            other => fail(format!("the job ended with {other:?}")),
        }
    }

    /// The reason of a job that failed.
    pub(crate) fn error(&self) -> Checked<(ErrorKind, &str)> {
        match self.events.last() {
            Some(Seen::Error(kind, message)) if !message.trim().is_empty() => Ok((*kind, message)),
            Some(Seen::Error(..)) => fail("the ERROR event has no message".to_owned()),
            _ => fail("the job succeeded where it must fail".to_owned()),
        }
    }

    /// Ids of the generated tokens.
    pub(crate) fn tokens(&self) -> Vec<u32> {
        let tokens = self.events.iter().filter_map(|event| match event {
            Seen::Token { token, .. } => Some(*token),
            _ => None,
        });
        tokens.collect()
    }
}

/// Parameters without chance.
pub(crate) fn greedy() -> GenerateParams {
    GenerateParams { temperature: 0.0, max_tokens: Some(8), ..GenerateParams::default() }
}

/// A request to continue `prompt`.
pub(crate) fn generate(prompt: &str, params: &GenerateParams) -> Request {
    request(Task::Generate, json!(params), vec![Part::text(prompt)])
}

pub(crate) fn request(task: Task, params: Value, parts: Vec<Part>) -> Request {
    Request { task, params: params.into(), parts, deadline_ms: None }
}

/// A prompt that every model answers with at least one token.
pub(crate) const PROMPT: &str = "One two three four five six seven eight nine ten eleven twelve";

/// A small request for `task`; `None` for tasks whose inputs depend on the model.
pub(crate) fn sample_request(task: &Task) -> Option<Request> {
    let picture =
        || Part::Rgb8 { width: 64, height: 48, data: (0..64 * 48 * 3).map(|i| (i % 251) as u8).collect() };
    let (params, parts) = match task {
        Task::Generate => (json!(greedy()), vec![Part::text(PROMPT)]),
        Task::Embed => (json!({}), vec![Part::text("a cat sat on the mat"), Part::text("rain is expected")]),
        Task::Rerank => {
            let documents = ["bread is baked in an oven", "the capital of France is Paris"];
            let query = Part::text("what is the capital of France");
            (json!({}), std::iter::once(query).chain(documents.map(Part::text)).collect())
        }
        Task::Tokenize => (json!({}), vec![Part::text(PROMPT)]),
        Task::Detect | Task::Classify | Task::EmbedImage => (json!({}), vec![picture()]),
        Task::Transcribe => (json!({}), vec![Part::Pcm(tone())]),
        Task::Speak => (json!({}), vec![Part::text("hello")]),
        Task::Infer | Task::Other(_) => return None,
    };
    Some(request(task.clone(), params, parts))
}

/// One second of 440 Hz at 16 kHz.
fn tone() -> Vec<f32> {
    (0..16_000).map(|i| 0.2 * (i as f32 * 440.0 * std::f32::consts::TAU / 16_000.0).sin()).collect()
}
