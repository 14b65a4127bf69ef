//! One job on its thread: its turn, its deadline, its end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use pajamas_plugin_api::{Error, ErrorKind, Event, EventSink, Finish, Flow, Job, Request, Usage};

use super::slots::Place;
use crate::pipeline::Pipeline;

/// A job that is over, for the pipeline, when its deadline has passed.
struct Limited {
    job: Job,
    deadline: Option<Instant>,
}

impl Limited {
    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

impl EventSink for Limited {
    fn push(&self, event: &Event<'_>) -> Flow {
        // The pipeline's job ends with the function that made it; the job itself ends below.
        if event.is_terminal() {
            return Flow::Continue;
        }
        if self.is_late() { Flow::Cancelled } else { self.job.push(event) }
    }

    fn cancelled(&self) -> bool {
        self.is_late() || self.job.is_cancelled()
    }
}

/// Does one request on the calling thread, once `place` is a slot. Frees the slot and the pipeline before the job ends,
/// so that whoever sees the end finds them free.
pub(super) fn work(pipeline: Arc<dyn Pipeline>, request: &Request, job: Job, mut place: Place) {
    let deadline = request.deadline_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
    let limited = Arc::new(Limited { job, deadline });
    let inner = Job::new(Arc::<Limited>::clone(&limited), Arc::new(AtomicBool::new(false)));
    let outcome = if place.wait(|| !inner.is_cancelled()) {
        pipeline.run(request, &inner)
    } else {
        Ok((Finish::Cancelled, Usage::default()))
    };
    drop((inner, place, pipeline));
    let Some(Limited { job, deadline }) = Arc::into_inner(limited) else {
        // Nobody else has it: its only other holder was `inner`.
        return;
    };
    match outcome {
        Ok((Finish::Cancelled, _)) if deadline.is_some() && !job.is_cancelled() => {
            job.fail(&Error::new(ErrorKind::Deadline, "the deadline of this request has passed"));
        }
        Ok((finish, usage)) => job.done(finish, usage),
        Err(error) => job.fail(&error),
    }
}
