//! What an instance of a hook may use: its limits, its log, its configuration, and a WASI with nothing in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::random::Deterministic;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::limits::{Grant, HookLimits};

/// Bytes of memory of all instances together; an instance that wants more is refused it.
pub(super) const TOTAL_BYTES_MAX: usize = 4 * 1024 * 1024 * 1024;
/// Bytes of one message of a hook's log; what is longer is cut.
const LOG_LINE_BYTES: usize = 2048;
/// What a line of the log has beside the hook's message: time, level, names, the request.
const LOG_LINE_OVERHEAD_BYTES: usize = 192;
/// Elements of a table.
const TABLE_ELEMENTS_MAX: usize = 100_000;

/// What the store of an instance holds.
pub(super) struct State {
    hook: Arc<str>,
    config: Arc<str>,
    limits: HookLimits,
    grants: Arc<[Grant]>,
    /// Memory of all instances of the process.
    total_bytes: Arc<AtomicUsize>,
    own_bytes: usize,
    /// It was refused memory.
    pub(super) starved: bool,
    /// It was stopped for its processor time.
    pub(super) timed_out: bool,
    /// Bytes that it may still log.
    log_left: usize,
    /// Processor time of the thread at which the running call must have ended.
    ends_at: Duration,
    wasi: Option<Box<WasiCtx>>,
    table: ResourceTable,
}

/// What the states of a hook's instances have in common.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) hook: Arc<str>,
    pub(super) config: Arc<str>,
    pub(super) limits: HookLimits,
    pub(super) grants: Arc<[Grant]>,
    pub(super) total_bytes: Arc<AtomicUsize>,
}

impl State {
    /// A store for a new instance.
    pub(super) fn store(engine: &wasmtime::Engine, surroundings: Surroundings) -> Store<Self> {
        let Surroundings { hook, config, limits, grants, total_bytes } = surroundings;
        let state = Self {
            hook,
            config,
            limits,
            grants,
            total_bytes,
            own_bytes: 0,
            starved: false,
            timed_out: false,
            log_left: limits.log_bytes,
            ends_at: Duration::ZERO,
            wasi: None,
            table: ResourceTable::new(),
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| state);
        store.set_hostcall_fuel(limits.output_bytes);
        store.epoch_deadline_callback(|mut context| {
            let state = context.data_mut();
            if thread_time() < state.ends_at {
                return Ok(UpdateDeadline::Continue(1));
            }
            state.timed_out = true;
            Ok(UpdateDeadline::Interrupt)
        });
        store
    }

    /// Gives the call that begins now its processor time.
    pub(super) fn begin(store: &mut Store<Self>) {
        store.set_epoch_deadline(1);
        let state = store.data_mut();
        state.ends_at = thread_time() + Duration::from_millis(state.limits.cpu_ms);
    }

    pub(super) fn limits(&self) -> HookLimits {
        self.limits
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.own_bytes
    }

    pub(super) fn config(&self) -> &str {
        &self.config
    }

    /// Writes to the host's log, within the bounds of a request.
    pub(super) fn log(&mut self, level: tracing::Level, message: &str) {
        if self.log_left == 0 {
            return;
        }
        let end = message.floor_char_boundary(LOG_LINE_BYTES.min(self.log_left));
        let (message, hook) = (&message[..end], &*self.hook);
        match level {
            tracing::Level::ERROR => tracing::error!(hook, "{message}"),
            tracing::Level::WARN => tracing::warn!(hook, "{message}"),
            tracing::Level::INFO => tracing::info!(hook, "{message}"),
            tracing::Level::DEBUG => tracing::debug!(hook, "{message}"),
            tracing::Level::TRACE => tracing::trace!(hook, "{message}"),
        }
        self.log_left = self.log_left.saturating_sub(end + LOG_LINE_OVERHEAD_BYTES);
        if self.log_left == 0 {
            tracing::warn!(hook, "the hook logs too much: the rest of this request's is dropped");
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.total_bytes.fetch_sub(self.own_bytes, Ordering::Relaxed);
    }
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let total = self.total_bytes.fetch_add(more, Ordering::Relaxed) + more;
        if self.own_bytes + more > self.limits.memory_bytes || total > TOTAL_BYTES_MAX {
            self.total_bytes.fetch_sub(more, Ordering::Relaxed);
            self.starved = true;
            return Ok(false);
        }
        self.own_bytes += more;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let grants = &self.grants;
        let ctx = self.wasi.get_or_insert_with(|| Box::new(wasi(grants)));
        WasiCtxView { ctx, table: &mut self.table }
    }
}

/// A WASI without files, sockets, environment, arguments or streams. Clocks stand still and randomness is a constant, so
/// that what is built on them starts, unless they are granted.
fn wasi(grants: &[Grant]) -> WasiCtx {
    let mut builder = WasiCtxBuilder::new();
    builder.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
    if !grants.contains(&Grant::Clock) {
        builder.wall_clock(Stopped).monotonic_clock(Stopped);
    }
    if !grants.contains(&Grant::Random) {
        builder.secure_random(Deterministic::new(vec![0]));
        builder.insecure_random(Deterministic::new(vec![0]));
        builder.insecure_random_seed(0);
    }
    builder.build()
}

/// A clock that stands still.
struct Stopped;

impl HostWallClock for Stopped {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for Stopped {
    fn resolution(&self) -> u64 {
        1_000_000_000
    }

    fn now(&self) -> u64 {
        0
    }
}

/// Processor time that this thread has used.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
