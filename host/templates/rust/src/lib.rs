//! A plugin for pajamas-host that repeats its prompt, one word for one token.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pajamas_plugin_api::{
    Accel, Backend, Device, Error, ErrorKind, Event, Finish, Flow, GenerateParams, Job, LoadSpec, Model, ModelInfo,
    ModelStats, ProbeReport, Progress, Request, Task, Usage, thread,
};

pajamas_plugin_api::export_plugin!(Plugin, id = "{name}", version = env!("CARGO_PKG_VERSION"));

/// Tokens that a prompt and its answer may have together.
const CONTEXT_LENGTH: u32 = 4096;
/// Largest model file, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

struct Plugin;

impl Backend for Plugin {
    type Model = LoadedModel;

    fn init(_plugin_dir: &Path) -> Result<Self, Error> {
        Ok(Self)
    }

    fn probe(&self) -> Result<ProbeReport, Error> {
        let cpu = Device {
            id: "cpu".to_owned(),
            accel: Accel::Cpu,
            name: "CPU".to_owned(),
            memory_total_bytes: None,
            memory_free_bytes: None,
        };
        Ok(ProbeReport { devices: vec![cpu], reason: None, engine: Some("{name}".to_owned()) })
    }

    fn inspect(&self, path: &Path) -> Result<ModelInfo, Error> {
        read(path).map(info)
    }

    fn load(&self, spec: &LoadSpec, progress: &Progress) -> Result<LoadedModel, Error> {
        if let Some(option) = spec.options.keys().next() {
            return Err(Error::invalid(format!("there is no option \"{option}\"")));
        }
        let bytes = read(&spec.path)?;
        if progress.report(1.0, "reading the model") == Flow::Cancelled {
            return Err(Error::new(ErrorKind::Cancelled, "the load was cancelled"));
        }
        Ok(LoadedModel { bytes, busy: Arc::default(), threads: thread::Pool::new("{name}") })
    }
}

/// Size of the model's file, which is all that this plugin wants to know of it.
fn read(path: &Path) -> Result<u64, Error> {
    let error = |error: std::io::Error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let kind = if missing { ErrorKind::NotFound } else { ErrorKind::BadModel };
        Error::new(kind, format!("cannot read {}: {error}", path.display()))
    };
    let bytes = std::fs::metadata(path).map_err(error)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(Error::bad_model(format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display())));
    }
    std::fs::read_to_string(path).map_err(error)?;
    Ok(bytes)
}

fn info(bytes: u64) -> ModelInfo {
    ModelInfo {
        format: "{name}".to_owned(),
        architecture: "{name}".to_owned(),
        tasks: vec![Task::Generate],
        context_length: Some(CONTEXT_LENGTH),
        // Jinja; the host renders it, and this plugin gets a finished prompt.
        chat_template: Some("{{ messages[-1]['content'] }}".to_owned()),
        estimated_bytes: BTreeMap::from([("cpu".to_owned(), bytes)]),
        ..ModelInfo::default()
    }
}

struct LoadedModel {
    bytes: u64,
    busy: Arc<AtomicU32>,
    threads: thread::Pool,
}

impl Model for LoadedModel {
    fn info(&self) -> ModelInfo {
        info(self.bytes)
    }

    /// Returns at once: the work is done on another thread.
    fn submit(&self, request: Request, job: Job) {
        let busy = Arc::clone(&self.busy);
        busy.fetch_add(1, Ordering::Relaxed);
        let work = move || {
            let outcome = generate(&request, &job);
            busy.fetch_sub(1, Ordering::Relaxed);
            match outcome {
                Ok((finish, usage)) => job.done(finish, usage),
                Err(error) => job.fail(&error),
            }
        };
        // A thread that cannot start drops the job, which tells the client.
        if self.threads.run(work).is_err() {
            self.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn stats(&self) -> ModelStats {
        ModelStats {
            bytes: BTreeMap::from([("cpu".to_owned(), self.bytes + 1)]),
            slots_busy: self.busy.load(Ordering::Relaxed),
            ..ModelStats::default()
        }
    }
}

fn generate(request: &Request, job: &Job) -> Result<(Finish, Usage), Error> {
    if request.task != Task::Generate {
        return Err(Error::unsupported(format!("there is no task {}", request.task)));
    }
    let params: GenerateParams = request.params()?;
    if params.grammar.is_some() {
        return Err(Error::unsupported("this model cannot follow a grammar: leave out response_format"));
    }
    let prompt: String = request.texts().collect();
    let words: Vec<&str> = prompt.split_inclusive(char::is_whitespace).collect();
    let prompt_tokens = words.len() as u32;
    let room = CONTEXT_LENGTH
        .checked_sub(prompt_tokens)
        .ok_or_else(|| Error::invalid(format!("the prompt has {prompt_tokens} tokens, {CONTEXT_LENGTH} fit")))?;
    let wanted = params.max_tokens.unwrap_or(u32::MAX).min(room);
    let total = if params.ignore_eos && prompt_tokens > 0 { wanted } else { wanted.min(prompt_tokens) };
    // Tokens that a worker has sent before it died: the answer goes on behind them.
    let done = params.resume.len() as u32;
    let mut usage = Usage { prompt_tokens, cached_tokens: 0, completion_tokens: done };
    // The host counts the prompt before the first token comes.
    job.push(&Event::Usage(usage));
    for index in done..total {
        let word = words[index as usize % words.len()];
        let token = Event::Token { token: index, text: word.as_bytes(), logprob: 0.0, top: &[] };
        if job.is_cancelled() || job.push(&token) == Flow::Cancelled {
            return Ok((Finish::Cancelled, usage));
        }
        usage.completion_tokens += 1;
    }
    Ok((if usage.completion_tokens < wanted { Finish::Stop } else { Finish::Length }, usage))
}
