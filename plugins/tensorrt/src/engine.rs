//! An engine on its GPU: what it takes and gives, and the lanes in which it runs.

use std::sync::Arc;

use cudarc::driver::CudaContext;
use pajamas_pipelines::TensorSpec;
use pajamas_plugin_api::{Dtype, Error};
use parking_lot::{Condvar, Mutex};
use trtx::{CudaEngine, DataType, ExecutionContext, Runtime, TensorIOMode, TensorLocation};

use crate::ffi::cuda::driver_error;
use crate::ffi::lane::{Foundation, Lane, Port};
use crate::library::{Library, engine_error, listen};
use crate::options::Options;
use crate::value::HostValue;

/// An engine that the GPU has loaded. Any thread may run it; runs share its lanes.
pub(crate) struct Engine {
    pub(crate) inputs: Vec<TensorSpec>,
    pub(crate) outputs: Vec<TensorSpec>,
    input_ports: Vec<Port>,
    output_ports: Vec<Port>,
    // Shared by the lanes, whose last one takes the engine with it.
    #[cfg(not(feature = "enterprise"))]
    kernels: Arc<trtx::RuntimeCache>,
    lanes: Mutex<Vec<Lane>>,
    freed: Condvar,
}

/// What [`Engine::open`] needs beside the engine's bytes.
pub(crate) struct Opening<'a> {
    pub(crate) library: &'static Library,
    pub(crate) cuda: &'a Arc<CudaContext>,
    pub(crate) options: &'a Options,
    /// What the library compiled for this GPU when the engine last ran on it.
    #[cfg(not(feature = "enterprise"))]
    pub(crate) kernels: Option<Vec<u8>>,
}

impl Engine {
    /// Gives an engine to the library.
    ///
    /// # Errors
    /// It is damaged or for another GPU, has tensors of a type that this API lacks, or memory does not suffice.
    pub(crate) fn open(plan: &[u8], opening: &Opening<'_>) -> Result<Self, Error> {
        opening.cuda.bind_to_thread().map_err(|error| driver_error("use the GPU", error))?;
        listen();
        let failed = |doing: &'static str| move |error: trtx::Error| engine_error(doing, &error);
        let mut runtime =
            Runtime::new(opening.library.logger()).map_err(failed("cannot start on this GPU"))?;
        #[cfg(not(feature = "enterprise"))]
        check_validity(&runtime, plan)?;
        let mut engine = runtime.deserialize_cuda_engine(plan).map_err(failed("cannot load the engine"))?;
        let (inputs, input_ports) = tensors(&engine, TensorIOMode::kINPUT)?;
        let (outputs, output_ports) = tensors(&engine, TensorIOMode::kOUTPUT)?;
        #[cfg(not(feature = "enterprise"))]
        let kernels = kernels(&mut engine, opening).map_err(failed("cannot make a cache of kernels"))?;
        let mut contexts = Vec::new();
        for _ in 0..opening.options.streams {
            #[cfg(not(feature = "enterprise"))]
            let context = context(&mut engine, opening.options, &kernels);
            #[cfg(feature = "enterprise")]
            let context = engine.create_execution_context();
            contexts.push(context.map_err(failed("cannot make an execution context"))?);
        }
        let foundation = Arc::new(Foundation::new(engine, runtime, Arc::clone(opening.cuda)));
        let lane = |context: ExecutionContext<'static>| Lane::new(context, Arc::clone(&foundation));
        let lanes = contexts.into_iter().map(lane).collect::<Result<Vec<_>, Error>>()?;
        Ok(Self {
            inputs,
            outputs,
            input_ports,
            output_ports,
            lanes: Mutex::new(lanes),
            freed: Condvar::new(),
            #[cfg(not(feature = "enterprise"))]
            kernels,
        })
    }

    /// Runs once, in the next free lane. The inputs are complete and of the right types.
    ///
    /// # Errors
    /// The library or the GPU failed, or does not take these shapes.
    pub(crate) fn run(
        &self,
        inputs: &[(&str, &HostValue)],
        wanted: &[&str],
    ) -> Result<Vec<HostValue>, Error> {
        let mut with_ports = Vec::with_capacity(inputs.len());
        for (name, value) in inputs {
            let port = self.input_ports.iter().find(|port| port.name == *name);
            let port = port.ok_or_else(|| Error::internal(format!("input `{name}` has no port")))?;
            with_ports.push((port, *value));
        }
        self.lane().run(&with_ports, &self.output_ports, wanted)
    }

    fn lane(&self) -> Taken<'_> {
        let mut lanes = self.lanes.lock();
        loop {
            if let Some(lane) = lanes.pop() {
                return Taken { engine: self, lane: Some(lane) };
            }
            self.freed.wait(&mut lanes);
        }
    }

    /// What the library has compiled for this GPU up to now.
    #[cfg(not(feature = "enterprise"))]
    pub(crate) fn compiled_kernels(&self) -> Option<Vec<u8>> {
        self.kernels.serialize().ok().map(|kernels| kernels.to_vec()).filter(|kernels| !kernels.is_empty())
    }
}

/// A lane that is given back whatever happens.
struct Taken<'a> {
    engine: &'a Engine,
    /// Always there until the drop.
    lane: Option<Lane>,
}

impl Taken<'_> {
    fn run(
        &mut self,
        inputs: &[(&Port, &HostValue)],
        outputs: &[Port],
        wanted: &[&str],
    ) -> Result<Vec<HostValue>, Error> {
        let lane = self.lane.as_mut().ok_or_else(|| Error::internal("a lane was given back too early"))?;
        lane.run(inputs, outputs, wanted)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.engine.lanes.lock().extend(self.lane.take());
        self.engine.freed.notify_one();
    }
}

/// What the library says about an engine before it loads it, in the user's words.
#[cfg(not(feature = "enterprise"))]
fn check_validity(runtime: &Runtime<'_>, plan: &[u8]) -> Result<(), Error> {
    use trtx::{EngineInvalidityDiagnostics as Reason, EngineValidity};
    let (validity, reasons) =
        runtime.engine_validity(plan).map_err(|error| engine_error("cannot check the engine", &error))?;
    match validity {
        EngineValidity::kVALID => return Ok(()),
        EngineValidity::kSUBOPTIMAL => {
            tracing::warn!(
                "this engine was built for another GPU or driver and is slower here than a new one"
            );
            return Ok(());
        }
        EngineValidity::kINVALID => {}
    }
    let words = [
        (Reason::VERSION_MISMATCH, "it was built by another version of TensorRT-RTX"),
        (Reason::UNSUPPORTED_CC, "it was built for GPUs of other compute capabilities"),
        (Reason::OLD_CUDA_DRIVER, "it needs a newer NVIDIA driver"),
        (Reason::OLD_CUDA_RUNTIME, "it needs a newer CUDA runtime"),
        (Reason::INSUFFICIENT_GPU_MEMORY, "its weights do not fit into the memory of this GPU"),
        (Reason::MALFORMED_ENGINE, "it is damaged"),
        (Reason::CUDA_ERROR, "the NVIDIA driver does not work"),
    ];
    let said: Vec<_> =
        words.iter().filter(|(reason, _)| reasons.contains(*reason)).map(|(_, words)| *words).collect();
    let said = if said.is_empty() {
        engine_error("gives no reason", &"engine not valid").message().to_owned()
    } else {
        said.join(", and ")
    };
    let message = format!("the engine cannot be used here: {said}");
    Err(if reasons.contains(Reason::INSUFFICIENT_GPU_MEMORY) {
        Error::new(pajamas_plugin_api::ErrorKind::OutOfMemory, message)
    } else {
        Error::bad_model(message)
    })
}

/// The cache of kernels of all contexts of an engine, with what is known already.
#[cfg(not(feature = "enterprise"))]
fn kernels(engine: &mut CudaEngine<'static>, opening: &Opening<'_>) -> trtx::Result<Arc<trtx::RuntimeCache>> {
    let cache = engine.create_runtime_config()?.create_runtime_cache()?;
    if let Some(known) = &opening.kernels
        && let Err(error) = cache.deserialize(known)
    {
        tracing::info!("kept kernels are of no use and are compiled again: {error}");
    }
    Ok(Arc::new(cache))
}

/// An execution context. Each has a configuration of its own: it may move to another thread.
#[cfg(not(feature = "enterprise"))]
fn context(
    engine: &mut CudaEngine<'static>,
    options: &Options,
    kernels: &Arc<trtx::RuntimeCache>,
) -> trtx::Result<ExecutionContext<'static>> {
    let mut config = engine.create_runtime_config()?;
    config.set_runtime_cache(Arc::clone(kernels))?;
    if options.cuda_graphs {
        config.set_cuda_graph_strategy(trtx::CudaGraphStrategy::kWHOLE_GRAPH_CAPTURE)?;
    }
    engine.create_execution_context_with_config(std::rc::Rc::new(config))
}

/// The inputs or the outputs of an engine.
fn tensors(engine: &CudaEngine<'_>, mode: TensorIOMode) -> Result<(Vec<TensorSpec>, Vec<Port>), Error> {
    let failed = |error: trtx::Error| engine_error("cannot list the tensors of the engine", &error);
    let mut found = (Vec::new(), Vec::new());
    for index in 0..engine.nb_io_tensors().map_err(failed)? {
        let name = engine.io_tensor_name(index).map_err(failed)?;
        if engine.tensor_io_mode(&name).map_err(failed)? != mode {
            continue;
        }
        let kind = engine.tensor_data_type(&name).map_err(failed)?;
        let dtype = dtype(&kind).ok_or_else(|| {
            Error::unsupported(format!(
                "tensor `{name}` of the engine is of the type {kind:?}, which this API lacks"
            ))
        })?;
        // An open dimension is -1.
        let shape = engine.tensor_shape(&name).map_err(failed)?;
        let shape = shape.into_iter().map(|dim| usize::try_from(dim).ok()).collect();
        let is_on_host = engine.tensor_location(&name).map_err(failed)? == TensorLocation::kHOST;
        found.0.push(TensorSpec { name: name.clone(), dtype, shape });
        found.1.push(Port { name, dtype, is_on_host });
    }
    Ok(found)
}

fn dtype(kind: &DataType) -> Option<Dtype> {
    Some(match kind {
        DataType::kFLOAT => Dtype::F32,
        DataType::kHALF => Dtype::F16,
        DataType::kBF16 => Dtype::Bf16,
        DataType::kINT8 => Dtype::I8,
        DataType::kUINT8 => Dtype::U8,
        DataType::kINT32 => Dtype::I32,
        DataType::kINT64 => Dtype::I64,
        DataType::kBOOL => Dtype::Bool,
        _ => return None,
    })
}
