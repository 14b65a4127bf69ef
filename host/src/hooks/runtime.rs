//! The engine that runs hooks: one for the process, made when the first hook is loaded.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::component::Linker;
use wasmtime::{
    Cache, CacheConfig, Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy,
    PoolingAllocationConfig,
};

use super::error::LoadError;
use super::state::State;
use super::v0_1;

/// Instances at the same time; a request that needs one more waits [`INSTANCE_TIMEOUT`] and is refused with status 503.
pub(super) const INSTANCES_MAX: usize = 1000;
/// How long a request waits for an instance.
pub(super) const INSTANCE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most memory that an operator may grant one instance.
pub const MEMORY_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes of an ended instance that stay in memory for the next one; pages beyond go back to the system. Fresh pages are
/// most of what a large picture would cost otherwise.
const KEPT_BYTES: usize = 32 * 1024 * 1024;
/// The same of each table. All but the largest fit; giving a page back interrupts the threads on all other cores.
const KEPT_TABLE_BYTES: usize = 64 * 1024;
/// Ended instances whose memory stays.
const KEPT_INSTANCES: u32 = 16;
/// Stack of a guest; deeper recursion traps.
const STACK_BYTES: usize = 512 * 1024;
/// How often running guests are looked at.
const TICK: Duration = Duration::from_millis(2);
/// Ticks without a running guest after which the clock sleeps.
const IDLE_TICKS: u32 = 500;

/// The engine, and what bounds its use.
pub(super) struct Runtime {
    pub(super) engine: Engine,
    /// For components without WASI.
    pub(super) plain: Linker<State>,
    /// For components that import WASI.
    pub(super) wasi: Linker<State>,
    pub(super) instances: Arc<Semaphore>,
    /// Calls at the same time: as many as there are cores.
    pub(super) calls: Arc<Semaphore>,
    clock: Arc<Clock>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}

impl Runtime {
    /// Makes the engine; compiled components are kept in `cache_dir`, by their hash, wasmtime's version, its settings and
    /// the CPU's features.
    ///
    /// # Errors
    /// The machine cannot run the engine.
    pub(super) fn new(cache_dir: &Path) -> Result<Self, LoadError> {
        let engine = Engine::new(&config(cache_dir)).map_err(LoadError::Engine)?;
        let mut plain = Linker::new(&engine);
        v0_1::add_to_linker(&mut plain).map_err(LoadError::Engine)?;
        let mut wasi = plain.clone();
        wasmtime_wasi::p2::add_to_linker_async(&mut wasi).map_err(LoadError::Engine)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let clock = Arc::new(Clock::default());
        clock.start(engine.weak()).map_err(LoadError::Thread)?;
        Ok(Self {
            engine,
            plain,
            wasi,
            instances: Arc::new(Semaphore::new(INSTANCES_MAX)),
            calls: Arc::new(Semaphore::new(cores)),
            clock,
        })
    }

    /// Says that a guest runs; its processor time is looked at until the answer is dropped.
    pub(super) fn running(&self) -> Running<'_> {
        self.clock.guests.fetch_add(1, Ordering::SeqCst);
        if self.clock.sleeps.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.clock.thread.get()
        {
            thread.unpark();
        }
        Running(&self.clock)
    }
}

fn config(cache_dir: &Path) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    let instances = u32::try_from(INSTANCES_MAX).unwrap_or(u32::MAX);
    pool.total_component_instances(instances)
        // A component in Python has 14 core modules and 66 instances of them.
        .total_core_instances(instances * 16)
        .max_component_instance_size(4 * 1024 * 1024)
        .max_core_instances_per_component(256)
        .total_memories(instances)
        .max_memories_per_component(1)
        .total_tables(instances * 4)
        .max_tables_per_component(16)
        .total_stacks(instances)
        .max_memory_size(MEMORY_BYTES_MAX)
        .linear_memory_keep_resident(KEPT_BYTES)
        .table_keep_resident(KEPT_TABLE_BYTES)
        // Only the pages that a guest wrote are cleaned, where the kernel can tell them.
        .pagemap_scan(Enabled::Auto)
        .max_unused_warm_slots(KEPT_INSTANCES);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        .cache(cache(cache_dir));
    config
}

/// Without a cache, hooks are compiled at each start: slower, not wrong.
fn cache(dir: &Path) -> Option<Cache> {
    let mut config = CacheConfig::new();
    config.with_directory(dir);
    Cache::new(config).inspect_err(|error| tracing::warn!("compiled hooks are not kept: {error:#}")).ok()
}

/// Makes running guests look at their processor time; sleeps while there are none.
#[derive(Debug, Default)]
struct Clock {
    guests: AtomicUsize,
    sleeps: AtomicBool,
    thread: std::sync::OnceLock<std::thread::Thread>,
}

impl Clock {
    fn start(self: &Arc<Self>, engine: EngineWeak) -> std::io::Result<()> {
        let clock = Arc::downgrade(self);
        let tick = move || {
            let mut idle = 0;
            while let (Some(clock), Some(engine)) = (clock.upgrade(), engine.upgrade()) {
                if clock.guests.load(Ordering::SeqCst) > 0 {
                    idle = 0;
                    engine.increment_epoch();
                } else {
                    idle += 1;
                }
                let park = idle >= IDLE_TICKS;
                if park {
                    idle = 0;
                    clock.sleeps.store(true, Ordering::SeqCst);
                    // A guest that has begun in between has not seen that the clock sleeps.
                    if clock.guests.load(Ordering::SeqCst) > 0 {
                        clock.sleeps.store(false, Ordering::SeqCst);
                        continue;
                    }
                }
                // Nothing is held while the thread waits, so that the engine can go.
                drop((clock, engine));
                if park {
                    std::thread::park_timeout(Duration::from_secs(60))
                } else {
                    std::thread::sleep(TICK)
                }
            }
        };
        let thread = std::thread::Builder::new().name("hook-clock".to_owned()).spawn(tick)?;
        self.thread.get_or_init(|| thread.thread().clone());
        Ok(())
    }
}

/// A guest runs.
pub(super) struct Running<'a>(&'a Clock);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.guests.fetch_sub(1, Ordering::SeqCst);
    }
}
