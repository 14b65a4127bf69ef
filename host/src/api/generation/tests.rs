//! Answers in one piece and as a stream, failures before and after the first byte.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use futures_util::FutureExt as _;
use pajamas_plugin_api::Finish;

use super::*;
use crate::api::sse::Events;
use crate::api::testing::{done, plain, token};
use crate::text::StopMatcher;

/// A job that counts how many of its kind still run.
struct Job {
    events: std::vec::IntoIter<JobEvent>,
    /// Whether it goes on for ever after its events.
    endless: bool,
    running: Arc<AtomicUsize>,
}

impl Job {
    fn new(events: Vec<JobEvent>, endless: bool, running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::Relaxed);
        Self { events: events.into_iter(), endless, running: running.clone() }
    }
}

impl Stream for Job {
    type Item = JobEvent;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<JobEvent>> {
        match self.events.next() {
            None if self.endless => Poll::Pending,
            event => Poll::Ready(event),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Writes only the texts.
struct Texts;

impl WriteEvents<Update> for Texts {
    fn update(&mut self, update: Update, events: &mut Events) {
        events.push(&update.text);
    }

    fn end(&mut self, _: &mut Events) {}
}

impl Format for Texts {
    type Document = Vec<String>;

    fn document(self, answers: Vec<Answer>) -> Vec<String> {
        answers.into_iter().map(|answer| answer.text).collect()
    }
}

fn generation(jobs: Vec<(Job, Decoder)>) -> Generation<Job> {
    Generation::new(jobs, Arc::new(AccessRecord::new(tracing::Span::none(), false)))
}

/// The next piece of a body, if it is there.
fn piece(body: &mut (impl Stream<Item = Result<bytes::Bytes, axum::Error>> + Unpin)) -> Option<String> {
    let piece = body.next().now_or_never()?.unwrap().unwrap();
    Some(String::from_utf8(piece.to_vec()).unwrap())
}

#[tokio::test]
async fn leaving_cancels_jobs_before_and_after_the_first_token() {
    let running = Arc::new(AtomicUsize::new(0));
    let waiting = generation(vec![(Job::new(vec![], true, &running), plain(false))]);
    for stream in [false, true] {
        let job = Job::new(vec![], true, &running);
        assert!(
            generation(vec![(job, plain(false))])
                .respond(stream, Texts, HookChain::default())
                .now_or_never()
                .is_none()
        );
        assert_eq!(running.load(Ordering::Relaxed), 1, "only the one outside is left");
    }
    drop(waiting);

    let job = Job::new(vec![token("a")], true, &running);
    let response = generation(vec![(job, plain(false))])
        .respond(true, Texts, HookChain::default())
        .now_or_never()
        .unwrap()
        .unwrap();
    let mut body = Body::into_data_stream(response.into_body());
    assert_eq!(piece(&mut body).unwrap(), "data: \"a\"\n\n");
    assert!(piece(&mut body).is_none());
    assert_eq!(running.load(Ordering::Relaxed), 1);
    drop(body);
    assert_eq!(running.load(Ordering::Relaxed), 0);
}

#[test]
fn an_answer_that_reached_its_stop_string_cancels_its_own_job_only() {
    let running = Arc::new(AtomicUsize::new(0));
    let stops = StopMatcher::new(&["END"]).unwrap();
    let jobs = vec![
        (Job::new(vec![token("a END")], true, &running), Decoder::new(stops, None, false)),
        (Job::new(vec![token("b")], true, &running), plain(false)),
    ];
    let mut generation = generation(jobs);
    let mut updates: Vec<Update> = Vec::new();
    while let Some(Some(update)) = generation.next().now_or_never() {
        updates.push(update.unwrap());
    }
    updates.sort_by_key(|update| update.index);
    assert_eq!((&*updates[0].text, &*updates[1].text), ("a ", "b"));
    assert!(updates[0].end.is_some() && updates[1].end.is_none());
    assert_eq!(running.load(Ordering::Relaxed), 1);
}

#[test]
fn a_failure_of_one_answer_cancels_the_others() {
    let running = Arc::new(AtomicUsize::new(0));
    let failed = JobEvent::Failed(crate::engine::EngineError::ShuttingDown);
    let jobs = vec![
        (Job::new(vec![token("a")], true, &running), plain(false)),
        (Job::new(vec![failed], true, &running), plain(false)),
    ];
    let mut generation = generation(jobs);
    let results: Vec<_> = generation.by_ref().collect::<Vec<_>>().now_or_never().unwrap();
    assert_eq!(results.last().unwrap().as_ref().unwrap_err().code(), "shutting_down");
    assert_eq!(running.load(Ordering::Relaxed), 0);
}

#[test]
fn a_document_waits_for_all_answers() {
    let running = Arc::new(AtomicUsize::new(0));
    let job = |text| (Job::new(vec![token(text), done(Finish::Stop, 1)], false, &running), plain(false));
    let response = generation(vec![job("a"), job("b")])
        .respond(false, Texts, HookChain::default())
        .now_or_never()
        .unwrap()
        .unwrap();
    assert_eq!(crate::api::testing::text(response), r#"["a","b"]"#);
}
