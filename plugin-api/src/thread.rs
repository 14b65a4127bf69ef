//! Threads of a plugin whose panics stay inside the plugin.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::error::{Error, ErrorKind};

/// Starts a named thread. A panic in `body` is caught and logged with its message; [`crate::Job`]s that `body` owned
/// end with an error while it unwinds, and `on_panic` runs last, to mark whatever the thread served as dead.
///
/// # Errors
/// The system refuses another thread.
pub fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
    on_panic: impl FnOnce(&Error) + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let label = name.to_owned();
    Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Err(error) = guarded(&label, body) {
                on_panic(&error);
            }
        })
        .map_err(|e| Error::internal(format!("cannot start thread {name}: {e}")))
}

/// Runs `body`; its panic is logged.
fn guarded(label: &str, body: impl FnOnce()) -> Result<(), Error> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let error = panic_error(&format!("thread {label}"), payload.as_ref());
        tracing::error!(thread = label, "{error}");
        error
    })
}

/// Threads that are kept for the next piece of work: waking one takes a tenth of the time of starting one.
///
/// Every piece runs at once: where no thread is idle, one is started. Dropping the pool lets its idle threads end, and
/// the busy ones when they are done; it waits for none.
#[derive(Debug)]
pub struct Pool {
    name: &'static str,
    shared: Arc<Shared>,
}

/// Threads that a pool keeps; further ones end with their work.
const IDLE_THREADS_MAX: usize = 8;

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work_arrived: Condvar,
}

#[derive(Default)]
struct State {
    /// Work that idle threads are waking up for; never longer than `idle`.
    queue: VecDeque<Work>,
    idle: usize,
    closed: bool,
}

impl Pool {
    /// A pool without threads. They get this name.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, shared: Arc::default() }
    }

    /// Runs `body` on a thread of the pool. A panic in it is caught and logged with its message; [`crate::Job`]s that it
    /// owned end with an error.
    ///
    /// # Errors
    /// The system refuses another thread. The body is dropped.
    pub fn run(&self, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let mut state = self.shared.lock();
        if state.idle > state.queue.len() {
            state.queue.push_back(Box::new(body));
            drop(state);
            self.shared.work_arrived.notify_one();
            return Ok(());
        }
        drop(state);
        let (shared, name) = (Arc::clone(&self.shared), self.name);
        let first = move || {
            // Logged; the thread serves on.
            let _ = guarded(name, body);
            shared.serve(name);
        };
        spawn(name, first, |_| {}).map(drop)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, name: &str) {
        while let Some(work) = self.next() {
            let _ = guarded(name, work);
        }
    }

    /// Waits for work; `None` when the thread is not needed any more.
    fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        if state.idle >= IDLE_THREADS_MAX {
            return None;
        }
        state.idle += 1;
        let mut state = self
            .work_arrived
            .wait_while(state, |state| state.queue.is_empty() && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
        state.queue.pop_front()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work_arrived.notify_all();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("idle", &self.lock().idle).finish_non_exhaustive()
    }
}

/// The error of a caught panic: where it happened and what it said.
pub(crate) fn panic_error(place: &str, payload: &(dyn std::any::Any + Send)) -> Error {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is not text");
    Error::new(ErrorKind::Panic, format!("panic in {place}: {text}"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_pool_runs_all_work_at_once_and_keeps_few_threads() {
        let pool = Pool::new("pool-test");
        let (arrived, arrivals) = channel();
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        for _ in 0..IDLE_THREADS_MAX * 3 {
            let (arrived, gate) = (arrived.clone(), Arc::clone(&gate));
            pool.run(move || {
                arrived.send(()).unwrap();
                drop(gate.1.wait_while(gate.0.lock().unwrap(), |open| !*open));
            })
            .unwrap();
        }
        // All run: none waits for another.
        (0..IDLE_THREADS_MAX * 3).for_each(|_| arrivals.recv().unwrap());
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        for round in 0..50 {
            let arrived = arrived.clone();
            pool.run(move || {
                arrived.send(()).unwrap();
                assert!(round % 2 == 0, "a panic takes no thread away");
            })
            .unwrap();
            arrivals.recv().unwrap();
        }
        let idle = pool.shared.lock().idle;
        assert!(idle <= IDLE_THREADS_MAX, "{idle}");
        let shared = Arc::downgrade(&pool.shared);
        drop((pool, arrived));
        // Every thread lets go of the pool.
        while shared.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}
