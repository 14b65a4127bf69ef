//! Sinks as the plugin sees them, and jobs.
//!
//! What the plugin holds as `ctx` is a number, not an address: a plugin that pushes after `release_job` finds no
//! entry and is told that it is cancelled, instead of touching freed memory.
#![expect(unsafe_code, reason = "functions that the plugin calls, and calls into the plugin")]

use std::collections::HashMap;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use super::{NativeModel, is_ok, status_error};
use crate::abi::convert::request::with_raw_request;
use crate::abi::convert::with_event;
use crate::abi::{PJ_CANCELLED, PJ_OK, PjEvent, PjJob, PjSink};
use crate::error::ErrorKind;
use crate::event::{Event, EventSink, Flow};
use crate::task::Request;

type Entries = RwLock<HashMap<usize, Arc<dyn EventSink>>>;

static ENTRIES: LazyLock<Entries> = LazyLock::new(Entries::default);
static NEXT_KEY: AtomicUsize = AtomicUsize::new(1);

fn lookup(ctx: *mut c_void) -> Option<Arc<dyn EventSink>> {
    ENTRIES.read().unwrap_or_else(PoisonError::into_inner).get(&ctx.addr()).cloned()
}

unsafe extern "C" fn push(ctx: *mut c_void, event: *const PjEvent) -> i32 {
    let Some(sink) = lookup(ctx) else { return PJ_CANCELLED };
    let pushed = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: SPEC E-1: the event and its pointers are valid for the call.
        unsafe { with_event(event, |event| sink.push(event)) }.unwrap_or_else(|malformed| {
            let message = format!("the plugin sent a malformed event: {malformed}");
            sink.push(&Event::Error { kind: ErrorKind::Internal, message: &message });
            Flow::Cancelled
        })
    }));
    match pushed {
        Ok(Flow::Continue) => PJ_OK,
        Ok(Flow::Cancelled) | Err(_) => PJ_CANCELLED,
    }
}

unsafe extern "C" fn cancelled(ctx: *mut c_void) -> u8 {
    u8::from(lookup(ctx).is_none_or(|sink| sink.cancelled()))
}

/// A sink that is registered for as long as the handle lives.
#[derive(Debug)]
pub(super) struct SinkHandle {
    key: usize,
    raw: Box<PjSink>,
}

// SAFETY: `ctx` is a number; the functions are callable from any thread.
unsafe impl Send for SinkHandle {}
// SAFETY: as above.
unsafe impl Sync for SinkHandle {}

impl SinkHandle {
    pub(super) fn register(sink: Arc<dyn EventSink>) -> Self {
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        ENTRIES.write().unwrap_or_else(PoisonError::into_inner).insert(key, sink);
        let raw = PjSink {
            struct_size: size_of::<PjSink>() as u32,
            reserved: 0,
            ctx: std::ptr::without_provenance_mut(key),
            push: Some(push),
            cancelled: Some(cancelled),
        };
        Self { key, raw: Box::new(raw) }
    }

    pub(super) fn raw(&self) -> *const PjSink {
        &raw const *self.raw
    }
}

impl Drop for SinkHandle {
    fn drop(&mut self) {
        ENTRIES.write().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Lets a well-formed stream through: one terminal event, nothing after it.
struct Guard {
    sink: Arc<dyn EventSink>,
    /// A terminal event reached `sink`.
    ended: AtomicBool,
    cancel: AtomicBool,
}

impl EventSink for Guard {
    fn push(&self, event: &Event<'_>) -> Flow {
        if matches!(event, Event::Other { .. }) {
            return self.flow();
        }
        if event.is_terminal() {
            if self.ended.swap(true, Ordering::AcqRel) {
                tracing::warn!(?event, "the plugin sent a second terminal event");
                return Flow::Cancelled;
            }
        } else if self.ended.load(Ordering::Acquire) {
            tracing::warn!("the plugin sent an event after the terminal one");
            return Flow::Cancelled;
        }
        match self.sink.push(event) {
            Flow::Continue => self.flow(),
            Flow::Cancelled => Flow::Cancelled,
        }
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed) || self.ended.load(Ordering::Relaxed) || self.sink.cancelled()
    }
}

impl Guard {
    fn flow(&self) -> Flow {
        if self.cancel.load(Ordering::Relaxed) { Flow::Cancelled } else { Flow::Continue }
    }
}

/// A running job. Drop it after the terminal event, and not from within the event's delivery: dropping releases the
/// job in the plugin. Dropped earlier, it is cancelled and its handle leaks, because the plugin still uses it.
#[derive(Debug)]
pub struct NativeJob {
    model: Arc<NativeModel>,
    raw: *mut PjJob,
    guard: Arc<Guard>,
    handle: Option<SinkHandle>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("ended", &self.ended).finish_non_exhaustive()
    }
}

// SAFETY: SPEC T-1: `cancel` and `release_job` are callable from any thread.
unsafe impl Send for NativeJob {}
// SAFETY: as above.
unsafe impl Sync for NativeJob {}

impl NativeJob {
    /// Asks the job to stop; any thread, any number of times.
    pub fn cancel(&self) {
        self.guard.cancel.store(true, Ordering::Relaxed);
        if let Some(cancel) = self.model.shared.table.cancel {
            // SAFETY: SPEC J-5: the handle is valid until `release_job`.
            unsafe { cancel(self.raw) }
        }
    }

    /// Whether the terminal event was delivered.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.guard.ended.load(Ordering::Acquire)
    }
}

impl Drop for NativeJob {
    fn drop(&mut self) {
        if !self.is_ended() {
            self.cancel();
            std::mem::forget(self.handle.take());
            std::mem::forget(Arc::clone(&self.model));
            return;
        }
        if let Some(release) = self.model.shared.table.release_job {
            // SAFETY: SPEC J-6: the terminal event was delivered, and the job is released once.
            unsafe { release(self.raw) }
        }
    }
}

/// See [`NativeModel::submit`].
pub(super) fn submit(
    model: &Arc<NativeModel>,
    request: &Request,
    sink: Arc<dyn EventSink>,
) -> Option<NativeJob> {
    let guard = Arc::new(Guard { sink, ended: AtomicBool::new(false), cancel: AtomicBool::new(false) });
    let handle = SinkHandle::register(Arc::<Guard>::clone(&guard));
    let submit = model.shared.table.submit?;
    let mut raw = std::ptr::null_mut();
    let status = with_raw_request(request, |request| {
        // SAFETY: SPEC J-1: the model is loaded; the request lives for the call, the sink until `release_job`.
        unsafe { submit(model.raw, request, handle.raw(), &raw mut raw) }
    });
    if !is_ok(status) || raw.is_null() {
        if !guard.ended.load(Ordering::Acquire) {
            let error = if is_ok(status) {
                crate::error::Error::internal("the plugin's submit succeeded without a job")
            } else {
                status_error("submit", status)
            };
            guard.push(&Event::Error { kind: error.kind(), message: error.message() });
        }
        return None;
    }
    Some(NativeJob { model: Arc::clone(model), raw, guard, handle: Some(handle) })
}
