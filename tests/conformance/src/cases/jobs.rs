//! Jobs, but for their cancellation.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pajamas_plugin_api::{ErrorKind, Part, Request, Task};
use serde_json::json;

use super::lifecycle::is_known;
use crate::bench::{Bench, Checked, Stop, ensure, fail, finish, request, run, sample_request, skip};
use crate::raw::{Seen, Submitted};

/// Longest time for `submit`; the work itself takes longer with most models.
const SUBMIT_TIME_MAX: Duration = Duration::from_secs(1);
/// Jobs at the same time.
const CONCURRENT_JOBS: usize = 16;
/// Jobs that are released as soon as their end is known.
const HASTY_JOBS: usize = 20;
/// Deadline of a job that would last longer.
const DEADLINE_MS: u64 = 20;

pub(super) fn unknown_task(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let task = Task::Other("no_such_task_of_any_plugin".to_owned());
    let recording = finish(loaded.model.submit(&request(task, json!({}), vec![Part::text("hello")]))?)?;
    let (kind, message) = recording.error()?;
    ensure!(
        matches!(kind, ErrorKind::Unsupported | ErrorKind::Invalid),
        "the error of an unknown task is {kind:?}, not Unsupported: {message}"
    );
    Ok(())
}

pub(super) fn malformed_params(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let request = loaded.any_request()?;
    let mut cases = vec!["{", "[1]", "7"];
    if request.task == Task::Generate {
        cases.push("{\"max_tokens\":\"many\"}");
    }
    for params in cases {
        let recording = finish(loaded.model.submit_with_params(&request, params)?)?;
        let Ok((kind, message)) = recording.error() else {
            return fail(format!("the parameters {params} are accepted"));
        };
        ensure!(
            kind == ErrorKind::Invalid,
            "the error of the parameters {params} is {kind:?}, not Invalid: {message}"
        );
    }
    run(&loaded.model, &request)?.done()?;
    Ok(())
}

pub(super) fn returns_at_once(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let request = loaded.long_request()?;
    let started = Instant::now();
    let submitted = loaded.model.submit(&request)?;
    let elapsed = started.elapsed();
    ensure!(
        elapsed < SUBMIT_TIME_MAX,
        "submit took {} ms: it must not wait for the work",
        elapsed.as_millis()
    );
    if let Submitted::Job(job) = &submitted {
        job.cancel()?;
    }
    finish(submitted).map(drop)
}

pub(super) fn one_terminal(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let mut tried = 0;
    for request in loaded.info.tasks.iter().filter_map(sample_request) {
        run(&loaded.model, &request)?;
        // A request that fails ends once, too.
        finish(loaded.model.submit(&Request { parts: Vec::new(), ..request })?)?;
        tried += 1;
    }
    if tried == 0 { skip("the model has no task that can be tried without knowing it") } else { Ok(()) }
}

pub(super) fn events_fit(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let mut tried = 0;
    for request in loaded.info.tasks.iter().filter(|task| is_known(task)).filter_map(sample_request) {
        let recording = run(&loaded.model, &request)?;
        recording.done()?;
        if let Some(event) = recording.events.iter().find(|event| !fits(&request.task, event)) {
            return fail(format!(
                "a job of {} sent {event:?}, which is not an event of that task",
                request.task
            ));
        }
        tried += 1;
    }
    if tried == 0 { skip("the model has no task that can be tried without knowing it") } else { Ok(()) }
}

fn fits(task: &Task, event: &Seen) -> bool {
    match event {
        Seen::Progress(_) | Seen::Usage(_) | Seen::Done(..) | Seen::Error(..) | Seen::Other(_) => true,
        Seen::Token { .. } => *task == Task::Generate,
        Seen::Segment(_) => *task == Task::Transcribe,
        Seen::Audio { .. } => *task == Task::Speak,
        Seen::Detections(_) => *task == Task::Detect,
        Seen::Vector { .. } => matches!(task, Task::Embed | Task::EmbedImage),
        Seen::Tensors(_) => matches!(task, Task::Infer | Task::Tokenize),
        Seen::Result { .. } => matches!(task, Task::Rerank | Task::Classify),
        Seen::Malformed(_) => false,
    }
}

pub(super) fn request_is_copied(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let request = loaded.any_request()?;
    // Every submit here overwrites the request's memory as soon as it has returned. While another job keeps the plugin
    // busy, a request that was not copied is still to be read then.
    let busy = loaded.model.submit(&loaded.long_request()?)?;
    let queued = loaded.model.submit(&request)?;
    if let Submitted::Job(job) = &busy {
        job.cancel()?;
    }
    let queued = finish(queued)?;
    queued.done()?;
    finish(busy)?;
    let alone = run(&loaded.model, &request)?;
    alone.done()?;
    ensure!(
        queued.tokens() == alone.tokens(),
        "a request gives {:?} alone, {:?} while another runs: is its memory read after submit?",
        alone.tokens(),
        queued.tokens()
    );
    Ok(())
}

pub(super) fn concurrent(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let request = loaded.any_request()?;
    let submitted: Vec<_> =
        (0..CONCURRENT_JOBS).map(|_| loaded.model.submit(&request)).collect::<Result<_, _>>()?;
    let mut outputs = BTreeSet::new();
    for submitted in submitted {
        let recording = finish(submitted)?;
        match recording.done() {
            Ok(_) => drop(outputs.insert(recording.tokens())),
            Err(Stop::Fail(_)) if recording.error().is_ok_and(|(kind, _)| kind == ErrorKind::Overloaded) => {}
            Err(stop) => return Err(stop),
        }
    }
    ensure!(!outputs.is_empty(), "all of {CONCURRENT_JOBS} jobs were refused as too many");
    Ok(())
}

pub(super) fn release_at_once(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let request = loaded.any_request()?;
    for _ in 0..HASTY_JOBS {
        match loaded.model.submit(&request)? {
            Submitted::Job(job) => {
                job.wait()?;
                job.release()?;
            }
            Submitted::Refused(answer) => answer.success()?,
        }
    }
    loaded.model.unload()?;
    loaded.plugin.shutdown()
}

pub(super) fn deadline(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let request = Request { deadline_ms: Some(DEADLINE_MS), ..loaded.long_request()? };
    let recording = finish(loaded.model.submit(&request)?)?;
    // A fast plugin is done before its deadline.
    match recording.events.last() {
        Some(Seen::Done(..) | Seen::Error(ErrorKind::Deadline, _)) => Ok(()),
        other => {
            fail(format!("a job with a deadline of {DEADLINE_MS} ms ended with {other:?}, not with Deadline"))
        }
    }
}
