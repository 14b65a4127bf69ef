//! Cancellation, both ways: the host calls `cancel`, or its sink says so.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pajamas_plugin_api::Finish;

use crate::bench::{Bench, Checked, Loaded, Recording, ensure, fail, finish, run};
use crate::raw::{Job, Recorder, Seen, Submitted};

/// Longest time from a cancellation to the terminal event.
const STOP_TIME_MAX: Duration = Duration::from_secs(5);
/// Jobs of which every other one is cancelled.
const JOBS: usize = 8;

pub(super) fn at_once(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let job = start(&loaded, Arc::default())?;
    job.cancel()?;
    stops(job)?;
    still_works(&loaded)
}

pub(super) fn midway(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let job = start(&loaded, Arc::default())?;
    job.recorder.wait_for_event(bench.limits().job());
    job.cancel()?;
    job.cancel()?;
    stops(job)?;
    still_works(&loaded)
}

pub(super) fn after_the_end(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let Submitted::Job(job) = loaded.model.submit(&loaded.any_request()?)? else {
        return fail("submit refused a good request".to_owned());
    };
    job.wait()?;
    job.cancel()?;
    job.cancel()?;
    finish(Submitted::Job(job))?.done()?;
    still_works(&loaded)
}

pub(super) fn by_push(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let recorder = Arc::new(Recorder::default());
    recorder.refuses_events.store(true, Ordering::Relaxed);
    let recording = stops(start(&loaded, recorder)?)?;
    let more = recording.events.iter().filter(|event| !event.is_terminal()).count();
    // A step that was under way when the first answer came may bring one more.
    ensure!(more <= 2, "the job sent {more} events although push answered PJ_CANCELLED to the first");
    still_works(&loaded)
}

pub(super) fn by_sink(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let recorder = Arc::new(Recorder::default());
    let job = start(&loaded, Arc::clone(&recorder))?;
    recorder.is_cancelled.store(true, Ordering::Relaxed);
    stops(job)?;
    still_works(&loaded)
}

pub(super) fn among_others(bench: &Bench<'_>) -> Checked {
    let loaded = bench.load()?;
    let request = loaded.any_request()?;
    let expected = run(&loaded.model, &request)?.tokens();
    let jobs: Vec<_> = (0..JOBS).map(|_| loaded.model.submit(&request)).collect::<Result<_, _>>()?;
    for submitted in jobs.iter().step_by(2) {
        if let Submitted::Job(job) = submitted {
            job.cancel()?;
        }
    }
    for (i, submitted) in jobs.into_iter().enumerate() {
        let recording = finish(submitted)?;
        if i % 2 == 1 {
            let (finish, _) = recording.done()?;
            ensure!(finish != Finish::Cancelled, "a job that nobody cancelled ended as cancelled");
            ensure!(
                recording.tokens() == expected,
                "cancelling other jobs changed the tokens of one from {expected:?} to {:?}",
                recording.tokens()
            );
        }
    }
    Ok(())
}

fn start(loaded: &Loaded, recorder: Arc<Recorder>) -> Checked<Job> {
    match loaded.model.submit_to(&loaded.long_request()?, recorder)? {
        Submitted::Job(job) => Ok(job),
        Submitted::Refused(answer) => {
            answer.success()?;
            fail("submit refused a good request".to_owned())
        }
    }
}

/// The end of a cancelled job: soon, and well, unless it was over before.
fn stops(job: Job) -> Checked<Recording> {
    let cancelled_at = Instant::now();
    let limit = STOP_TIME_MAX.min(job.limit());
    ensure!(
        job.recorder.wait_for_end(limit),
        "a cancelled job sent no terminal event within {} ms",
        limit.as_millis()
    );
    let elapsed_ms = cancelled_at.elapsed().as_millis();
    let recording = finish(Submitted::Job(job))?;
    match recording.events.last() {
        Some(Seen::Done(..) | Seen::Error(pajamas_plugin_api::ErrorKind::Cancelled, _)) => Ok(recording),
        other => fail(format!("a cancelled job ended after {elapsed_ms} ms with {other:?}")),
    }
}

fn still_works(loaded: &Loaded) -> Checked {
    run(&loaded.model, &loaded.any_request()?)?.done().map(drop)
}
