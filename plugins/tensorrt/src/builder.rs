//! Building an engine from an ONNX file. It needs the library but no GPU.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use pajamas_plugin_api::{ComputeCapability, Error, ErrorKind, Progress};
use parking_lot::{Condvar, Mutex};
use trtx::interfaces::MonitorProgress;
use trtx::trtx_sys::Dims64;
use trtx::{Builder, BuilderConfig, MemoryPoolType, OnnxParser, OptProfileSelector};

use crate::flavour;
use crate::library::{Library, engine_error, listen};
use crate::profile::Range;

/// How often a build is looked at: for its progress, and whether it is cancelled.
const POLL: Duration = Duration::from_millis(50);
/// The steps of a build after which half of the bar is full; how many there will be nobody knows.
const STEPS_HALF: f32 = 40.0;

/// What an engine is built from and for.
#[derive(Clone, Debug)]
pub struct BuildRequest<'a> {
    /// The ONNX file.
    pub file: &'a Path,
    /// The files beside it that it keeps weights in.
    pub weight_files: Vec<PathBuf>,
    /// The dimensions of each input that leaves some open.
    pub ranges: BTreeMap<String, Range>,
    /// The GPU; without it, an engine for all that the library supports (TensorRT-RTX) or for the GPU at hand.
    pub compute: Option<ComputeCapability>,
    /// How long the library looks for faster kernels, 0 to 5.
    pub optimization_level: Option<u32>,
    /// Most device memory that one layer may use while it works, in MiB.
    pub workspace_max_mb: Option<u32>,
}

/// Builds an engine; blocks, reports the library's phases as progress, and gives up when the load is cancelled.
///
/// # Errors
/// The file is no ONNX model, has operators that the library lacks, does not fit the dimensions, or the load was cancelled.
pub fn build_engine(
    library: &'static Library,
    request: &BuildRequest<'_>,
    progress: &Progress,
) -> Result<Vec<u8>, Error> {
    let watched = Arc::new(Watched::default());
    let built = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let _done = Done(&watched);
            build(library, request, &watched)
        });
        watched.watch(request.file, progress);
        thread
            .join()
            .map_err(|_| Error::new(ErrorKind::Panic, "the plugin panicked while it built an engine"))
    });
    if watched.is_cancelled.load(Ordering::Relaxed) {
        return Err(Error::new(ErrorKind::Cancelled, "the load was cancelled"));
    }
    built?
}

fn build(
    library: &'static Library,
    request: &BuildRequest<'_>,
    watched: &Arc<Watched>,
) -> Result<Vec<u8>, Error> {
    let file = request.file.display();
    let path = request.file.to_str().ok_or_else(|| {
        Error::invalid(format!("the name of {file} is not UTF-8, which {} cannot open", flavour::NAME))
    })?;
    let failed = |doing: &str, error: trtx::Error| engine_error(&format!("cannot {doing} {file}"), &error);
    // Whatever is wrong with the file, it is the file.
    let bad = |doing: &str, error: trtx::Error| {
        let error = failed(doing, error);
        if error.kind() == ErrorKind::Internal { Error::bad_model(error.message()) } else { error }
    };
    listen();
    let mut builder = Builder::new(library.logger()).map_err(|error| failed("make a builder for", error))?;
    let network = builder.create_network(0).map_err(|error| failed("make a network for", error))?;
    let mut parser =
        OnnxParser::new(network, library.logger()).map_err(|error| failed("make a parser for", error))?;
    // The second number is how much the parser logs: errors and warnings.
    parser.parse_from_file(path, 2).map_err(|error| bad("read", error))?;
    let mut config = builder.create_config().map_err(|error| failed("configure the build of", error))?;
    configure(&mut config, request, watched).map_err(|error| failed("configure the build of", error))?;
    if !request.ranges.is_empty() {
        let mut profile =
            builder.creata_optimization_profile().map_err(|error| failed("make a profile for", error))?;
        for (name, range) in &request.ranges {
            for (select, dims) in [
                (OptProfileSelector::kMIN, &range.min),
                (OptProfileSelector::kOPT, &range.opt),
                (OptProfileSelector::kMAX, &range.max),
            ] {
                profile.set_dimensions(name, select, &Dims64::from_slice(dims)).map_err(|error| {
                    bad(&format!("take the dimensions {dims:?} of input `{name}` for"), error)
                })?;
            }
        }
        config.add_optimization_profile(&mut profile).map_err(|error| bad("take the profile for", error))?;
    }
    let engine = builder.build_serialized_network(parser.network_mut(), &mut config);
    Ok(engine.map_err(|error| bad("build an engine from", error))?.to_vec())
}

fn configure(
    config: &mut BuilderConfig<'_>,
    request: &BuildRequest<'_>,
    watched: &Arc<Watched>,
) -> trtx::Result<()> {
    config.set_progress_monitor(Box::new(Monitor(Arc::clone(watched))))?;
    if let Some(level) = request.optimization_level {
        config.set_builder_optimization_level(i32::try_from(level).unwrap_or(i32::MAX));
    }
    if let Some(workspace_mb) = request.workspace_max_mb {
        let bytes = usize::try_from(u64::from(workspace_mb) << 20).unwrap_or(usize::MAX);
        config.set_memory_pool_limit(MemoryPoolType::kWORKSPACE, bytes);
    }
    #[cfg(not(feature = "enterprise"))]
    if let Some(capability) = request.compute.and_then(known) {
        config.set_nb_compute_capabilities(1)?;
        config.set_compute_capability(capability, 0)?;
    }
    Ok(())
}

/// A compute capability that the library has a name for; an engine for a newer GPU is one for all.
#[cfg(not(feature = "enterprise"))]
fn known(compute: ComputeCapability) -> Option<trtx::ComputeCapability> {
    use trtx::ComputeCapability as Known;
    Some(match (compute.major, compute.minor) {
        (8, 0) => Known::kSM80,
        (8, 6) => Known::kSM86,
        (8, 9) => Known::kSM89,
        (12, 0) => Known::kSM120,
        (12, 1) => Known::kSM121,
        _ => return None,
    })
}

/// A build, as seen from the thread that waits for it.
#[derive(Default)]
struct Watched {
    is_cancelled: AtomicBool,
    steps: AtomicU32,
    phase: Mutex<String>,
    is_done: Mutex<bool>,
    done: Condvar,
}

impl Watched {
    /// Reports until the build is done.
    fn watch(&self, file: &Path, progress: &Progress) {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let mut reported = None;
        let mut is_done = self.is_done.lock();
        while !*is_done {
            if progress.is_cancelled() {
                self.is_cancelled.store(true, Ordering::Relaxed);
            }
            let steps = self.steps.load(Ordering::Relaxed);
            if reported.replace(steps) != Some(steps) {
                let phase = self.phase.lock().clone();
                let text = if phase.is_empty() {
                    format!("building the engine of {name}")
                } else {
                    format!("building the engine of {name}: {}", phase.to_lowercase())
                };
                let steps = steps as f32;
                progress.report(steps / (steps + STEPS_HALF), &text);
            }
            self.done.wait_for(&mut is_done, POLL);
        }
    }
}

/// Ends the watch, also when the build panics.
struct Done<'a>(&'a Watched);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        *self.0.is_done.lock() = true;
        self.0.done.notify_all();
    }
}

/// The library's view of the one who watches.
struct Monitor(Arc<Watched>);

impl MonitorProgress for Monitor {
    fn phase_start(&self, phase_name: &str, _: Option<&str>, _: i32) {
        phase_name.clone_into(&mut self.0.phase.lock());
    }

    fn step_complete(&self, _: &str, _: i32) -> ControlFlow<()> {
        self.0.steps.fetch_add(1, Ordering::Relaxed);
        if self.0.is_cancelled.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn phase_finish(&self, _: &str) {}
}
