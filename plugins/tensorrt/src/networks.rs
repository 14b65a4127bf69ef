//! A model's networks: as sessions when it is loaded, as headers of files when it is only looked at.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cudarc::driver::CudaContext;
use pajamas_pipelines::onnx_file::OnnxFile;
use pajamas_pipelines::{BatchCounts, BatchLimits, Batcher, HeaderRunner, Networks};
use pajamas_plugin_api::{Error, ErrorKind, Progress};
use parking_lot::Mutex;

use crate::builder::{BuildRequest, build_engine};
use crate::cache::{EngineCache, EngineKey};
use crate::engine::{Engine, Opening};
use crate::ffi::cuda::Gpu;
use crate::library::Library;
use crate::options::Options;
use crate::plan::Plan;
use crate::profile::{Range, choose_ranges};
use crate::session::Session;

/// What is known of a network's file without its GPU.
#[derive(Clone, Debug, Default)]
pub(crate) struct NetworkFile {
    pub(crate) parameters: Option<u64>,
    pub(crate) weight_type: Option<&'static str>,
    pub(crate) bytes: u64,
}

impl NetworkFile {
    pub(crate) fn of_onnx(file: &OnnxFile) -> Self {
        Self { parameters: Some(file.parameters), weight_type: file.weight_type, bytes: file.bytes }
    }
}

/// Opens files as sessions.
pub(crate) struct Sessions<'a> {
    pub(crate) library: &'static Library,
    pub(crate) gpu: &'a Gpu,
    pub(crate) cuda: &'a Arc<CudaContext>,
    pub(crate) options: &'a Options,
    pub(crate) cache: Option<EngineCache>,
    pub(crate) progress: &'a Progress,
    pub(crate) counts: Arc<BatchCounts>,
    pub(crate) opened: Mutex<Vec<NetworkFile>>,
}

/// An engine that was found or built, with what is known of it.
struct Found {
    plan: Vec<u8>,
    metadata: BTreeMap<String, String>,
    ranges: BTreeMap<String, Range>,
    file: NetworkFile,
    /// Of an engine that was built here.
    #[cfg_attr(
        feature = "enterprise",
        expect(dead_code, reason = "TensorRT compiles nothing at the first run")
    )]
    key: Option<EngineKey>,
    /// Rows may be run together.
    may_batch: bool,
}

impl Sessions<'_> {
    /// The engine of a file of either kind.
    fn find(&self, file: &Path) -> Result<Found, Error> {
        if Plan::is_named_like_one(file) {
            let plan = Plan::open(file)?;
            let known = NetworkFile { bytes: plan.bytes.len() as u64, ..NetworkFile::default() };
            return Ok(Found {
                plan: plan.bytes,
                metadata: plan.metadata,
                ranges: BTreeMap::new(),
                file: known,
                key: None,
                may_batch: true,
            });
        }
        // Damage is found here with a better reason than the library has.
        let header = OnnxFile::open(file)?;
        let ranges = choose_ranges(&header.inputs, &header.metadata, self.options)?;
        let request = BuildRequest {
            file,
            weight_files: header.weight_files.clone(),
            ranges,
            compute: Some(self.gpu.compute),
            optimization_level: self.options.optimization_level,
            workspace_max_mb: self.options.workspace_max_mb,
        };
        let (key, plan) = self.built(&request)?;
        Ok(Found {
            plan,
            file: NetworkFile::of_onnx(&header),
            metadata: header.metadata,
            ranges: request.ranges,
            key,
            may_batch: !header.has_dynamic_ranges,
        })
    }

    /// The engine of a request, out of the cache or built now.
    fn built(&self, request: &BuildRequest<'_>) -> Result<(Option<EngineKey>, Vec<u8>), Error> {
        let Some(cache) = &self.cache else {
            return Ok((None, build_engine(self.library, request, self.progress)?));
        };
        let key = EngineKey::of(request)?;
        if let Some(engine) = cache.engine(&key) {
            return Ok((Some(key), engine));
        }
        let engine = build_engine(self.library, request, self.progress)?;
        cache.keep_engine(&key, &engine);
        Ok((Some(key), engine))
    }

    /// Name of the GPU for what was compiled for it.
    #[cfg(not(feature = "enterprise"))]
    fn gpu_name(&self) -> String {
        format!("{}-{}", self.gpu.name, self.gpu.compute)
    }

    fn session(&self, file: &Path, found: Found) -> Result<Session, Error> {
        #[cfg(not(feature = "enterprise"))]
        let place = self.cache.as_ref().zip(found.key.as_ref());
        let opening = Opening {
            library: self.library,
            cuda: self.cuda,
            options: self.options,
            #[cfg(not(feature = "enterprise"))]
            kernels: place.and_then(|(cache, key)| cache.kernels(key, &self.gpu_name())),
        };
        let engine = Engine::open(&found.plan, &opening)
            .map_err(|error| Error::new(error.kind(), format!("{}: {}", file.display(), error.message())))?;
        let session = Session::new(engine, found.metadata, found.ranges);
        if self.options.warm_up {
            session.warm_up();
            #[cfg(not(feature = "enterprise"))]
            if opening.kernels.is_none()
                && let Some((cache, key)) = place
                && let Some(kernels) = session.engine().compiled_kernels()
            {
                cache.keep_kernels(key, &self.gpu_name(), &kernels);
            }
        }
        Ok(session)
    }
}

impl Networks for Sessions<'_> {
    type Runner = Batcher<Session>;

    fn open(&self, file: &Path) -> Result<Self::Runner, Error> {
        let cancelled = || {
            let is_cancelled = self.progress.is_cancelled();
            if is_cancelled {
                Err(Error::new(ErrorKind::Cancelled, "the load was cancelled"))
            } else {
                Ok(())
            }
        };
        cancelled()?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let found = self.find(file)?;
        cancelled()?;
        self.progress.report(1.0, &format!("loading the engine of {name}"));
        let (known, may_batch) = (found.file.clone(), found.may_batch);
        let session = self.session(file, found)?;
        self.opened.lock().push(known);
        let rows_max = if may_batch { self.options.rows_max() } else { 1 };
        let limits = BatchLimits { rows_max, delay: self.options.batch_delay() };
        let streams = usize::try_from(self.options.streams).unwrap_or(1);
        Ok(Batcher::new(session, limits, Arc::clone(&self.counts)).runs_at_once(streams))
    }
}

/// Opens ONNX files as headers: enough for a pipeline to say what the model is, without the engine.
#[derive(Default)]
pub(crate) struct Headers {
    pub(crate) opened: Mutex<Vec<NetworkFile>>,
}

impl Networks for Headers {
    type Runner = HeaderRunner;

    fn open(&self, file: &Path) -> Result<HeaderRunner, Error> {
        let file = OnnxFile::open(file)?;
        self.opened.lock().push(NetworkFile::of_onnx(&file));
        Ok(HeaderRunner::new(file.header()))
    }
}
