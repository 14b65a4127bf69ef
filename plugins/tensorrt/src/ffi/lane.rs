//! One stream of work on the GPU: an execution context of the library's with the memory that its tensors go through.
#![expect(unsafe_code, reason = "memory of the GPU, and what TensorRT does with its addresses")]

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};
use pajamas_pipelines::Value;
use pajamas_plugin_api::{Dtype, Error, shape_bytes};
use trtx::trtx_sys::Dims64;
use trtx::{CudaEngine, ExecutionContext, Runtime};

use crate::ffi::cuda::driver_error;
use crate::library::{engine_error, listen};
use crate::value::HostValue;

/// Least bytes of a buffer: the library wants an address even for a tensor without elements.
const BUFFER_BYTES_MIN: usize = 256;

/// A tensor that goes into an engine or comes out of it.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    /// The engine wants it in host memory: it says something about shapes.
    pub(crate) is_on_host: bool,
}

/// What must outlive all lanes of an engine, and is not touched again.
pub(crate) struct Foundation {
    // Dropped in this order.
    _engine: CudaEngine<'static>,
    _runtime: Runtime<'static>,
    cuda: Arc<CudaContext>,
}

// SAFETY: the engine and the runtime are only kept, and dropped once; TensorRT lets any thread destroy its objects, and
// `drop` makes the GPU's context the current one of that thread first.
unsafe impl Send for Foundation {}
// SAFETY: nothing can be done with a reference to it but asking for the context, which is `Sync` itself.
unsafe impl Sync for Foundation {}

impl Foundation {
    pub(crate) fn new(
        engine: CudaEngine<'static>,
        runtime: Runtime<'static>,
        cuda: Arc<CudaContext>,
    ) -> Self {
        Self { _engine: engine, _runtime: runtime, cuda }
    }

    pub(crate) fn cuda(&self) -> &Arc<CudaContext> {
        &self.cuda
    }
}

impl Drop for Foundation {
    fn drop(&mut self) {
        if let Err(error) = self.cuda.bind_to_thread() {
            tracing::warn!("an engine is freed without its GPU: {error}");
        }
    }
}

/// A stream with an execution context: one run at a time.
pub(crate) struct Lane {
    // Dropped in this order: the context may still use the buffers until its stream is idle, which `drop` waits for.
    context: ExecutionContext<'static>,
    buffers: HashMap<String, Buffer>,
    stream: Arc<CudaStream>,
    // The engine outlives its contexts.
    _foundation: Arc<Foundation>,
}

// SAFETY: an execution context may be used by any thread as long as it is one at a time, which `&mut` sees to; its
// configuration is shared with no other lane. Every method makes the GPU's context the current one of its thread first.
unsafe impl Send for Lane {}

impl Lane {
    pub(crate) fn new(
        context: ExecutionContext<'static>,
        foundation: Arc<Foundation>,
    ) -> Result<Self, Error> {
        let stream = foundation.cuda().new_stream().map_err(|error| driver_error("make a stream", error))?;
        let mut lane = Self { context, buffers: HashMap::new(), stream, _foundation: foundation };
        // The first context of an engine has its profile; others may have none.
        if lane.context.optimization_profile() != 0 {
            // SAFETY: the stream belongs to the lane and outlives the context's use of it.
            let is_set =
                unsafe { lane.context.set_optimization_profile_async(0, lane.stream.cu_stream().cast()) };
            if !is_set {
                return Err(engine_error("cannot run in several streams", &"the profile is taken"));
            }
            lane.stream.synchronize().map_err(|error| driver_error("wait for the GPU", error))?;
        }
        Ok(lane)
    }

    /// Runs the engine once. `outputs` are all of the engine's, `wanted` those whose elements come back, in its order.
    pub(crate) fn run(
        &mut self,
        inputs: &[(&Port, &HostValue)],
        outputs: &[Port],
        wanted: &[&str],
    ) -> Result<Vec<HostValue>, Error> {
        self.stream.context().bind_to_thread().map_err(|error| driver_error("use the GPU", error))?;
        listen();
        let result = self.run_on_stream(inputs, outputs, wanted);
        if result.is_err() {
            // Nothing may still be copying when the buffers are used for something else.
            let _ = self.stream.synchronize();
        }
        result
    }

    fn run_on_stream(
        &mut self,
        inputs: &[(&Port, &HostValue)],
        outputs: &[Port],
        wanted: &[&str],
    ) -> Result<Vec<HostValue>, Error> {
        for (port, value) in inputs {
            self.put(port, value)?;
        }
        let mut shapes = Vec::with_capacity(outputs.len());
        for port in outputs {
            shapes.push(self.place(port)?);
        }
        // SAFETY: each input and output has the address of a buffer that is large enough for its shape (`put`, `place`) and
        // stays where it is until the stream has been waited for, below or in `run`.
        unsafe { self.context.enqueue_v3(self.stream.cu_stream().cast()) }
            .map_err(|error| engine_error("cannot run the engine", &error))?;
        let mut taken = Vec::with_capacity(wanted.len());
        for (port, shape) in outputs.iter().zip(shapes) {
            if wanted.contains(&port.name.as_str()) {
                let len = shape_bytes(port.dtype, &shape).unwrap_or_default();
                self.fetch(port, len)?;
                taken.push((port, shape, len));
            }
        }
        self.stream.synchronize().map_err(|error| driver_error("run the engine", error))?;
        let mut values = HashMap::new();
        for (port, shape, len) in taken {
            let buffer = self.buffers.get(&port.name).ok_or_else(|| no_buffer(port))?;
            let bytes = buffer.host.bytes().get(..len).unwrap_or_default();
            values.insert(port.name.as_str(), HostValue::new(port.dtype, shape, Arc::from(bytes))?);
        }
        let value = |name: &&str| {
            values
                .get(name)
                .cloned()
                .ok_or_else(|| Error::internal(format!("output `{name}` did not come back")))
        };
        wanted.iter().map(value).collect()
    }

    /// Starts the copy of an input to the GPU, and tells the library its shape and its place.
    fn put(&mut self, port: &Port, value: &HostValue) -> Result<(), Error> {
        let data = value.data();
        let stream = self.stream.cu_stream();
        let buffer = self.buffer(port, data.len())?;
        if let Some(place) = buffer.host.bytes_mut().get_mut(..data.len()) {
            place.copy_from_slice(data);
        }
        let filled = buffer.host.bytes().get(..data.len()).unwrap_or_default();
        if let Some(device) = &buffer.device {
            // SAFETY: the device memory has at least as many bytes, and the pinned memory is neither written nor freed
            // before the stream has been waited for.
            unsafe { result::memcpy_htod_async(device.address, filled, stream) }
                .map_err(|error| driver_error(&format!("copy input `{}` to the GPU", port.name), error))?;
        }
        let address = buffer.address();
        let shape = Dims64::from_slice(value.shape());
        let set = self.context.set_input_shape(&port.name, &shape).and_then(|()| {
            // SAFETY: the buffer belongs to this lane and is as large as the shape says; see `run_on_stream`.
            unsafe { self.context.set_tensor_address(&port.name, address) }
        });
        set.map_err(|error| {
            let doing = format!("cannot take input `{}` of the shape {:?}", port.name, value.shape());
            Error::invalid(engine_error(&doing, &error).message())
        })
    }

    /// Makes place for an output whose shape follows from the inputs'. Returns the shape.
    fn place(&mut self, port: &Port) -> Result<Vec<i64>, Error> {
        let dims = self
            .context
            .tensor_shape(&port.name)
            .map_err(|error| engine_error("cannot tell shapes", &error))?;
        let count = usize::try_from(dims.nbDims).ok();
        let shape = count.and_then(|count| dims.d.get(..count)).map(<[i64]>::to_vec);
        let known = shape.and_then(|shape| Some((shape_bytes(port.dtype, &shape)?, shape)));
        let Some((len, shape)) = known else {
            return Err(Error::unsupported(format!(
                "the shape of output `{}` depends on what the inputs contain; such networks are not supported",
                port.name
            )));
        };
        let address = self.buffer(port, len)?.address();
        // SAFETY: the buffer belongs to this lane and is as large as the shape says; see `run_on_stream`.
        unsafe { self.context.set_tensor_address(&port.name, address) }
            .map_err(|error| engine_error(&format!("cannot place output `{}`", port.name), &error))?;
        Ok(shape)
    }

    /// Starts the copy of an output to host memory.
    fn fetch(&mut self, port: &Port, len: usize) -> Result<(), Error> {
        let stream = self.stream.cu_stream();
        let buffer = self.buffers.get_mut(&port.name).ok_or_else(|| no_buffer(port))?;
        let Some(device) = &buffer.device else { return Ok(()) };
        let place = buffer.host.bytes_mut().get_mut(..len).unwrap_or_default();
        // SAFETY: both have at least `len` bytes, and nothing reads the pinned memory before the stream has been waited for.
        unsafe { result::memcpy_dtoh_async(place, device.address, stream) }
            .map_err(|error| driver_error(&format!("copy output `{}` from the GPU", port.name), error))
    }

    /// The buffer of a tensor, made anew where it has less than `len` bytes. No run is under way.
    fn buffer(&mut self, port: &Port, len: usize) -> Result<&mut Buffer, Error> {
        let too_small = self.buffers.get(&port.name).is_none_or(|buffer| buffer.host.len < len);
        if too_small {
            // First the old one goes: both together may not fit.
            self.buffers.remove(&port.name);
            let doing = || format!("get {len} bytes for tensor `{}`", port.name);
            let buffer = Buffer::new(&self.stream, len, port.is_on_host)
                .map_err(|error| driver_error(&doing(), error))?;
            self.buffers.insert(port.name.clone(), buffer);
        }
        self.buffers.get_mut(&port.name).ok_or_else(|| no_buffer(port))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let idle = self.stream.context().bind_to_thread().and_then(|()| self.stream.synchronize());
        if let Err(error) = idle {
            tracing::warn!("a stream is freed while it may be busy: {error}");
        }
    }
}

fn no_buffer(port: &Port) -> Error {
    Error::internal(format!("tensor `{}` has no buffer", port.name))
}

/// The memory of one tensor: pinned host memory, which the GPU copies without help of the processor, and its own.
struct Buffer {
    host: Pinned,
    /// `None` where the engine wants the tensor in host memory.
    device: Option<OnDevice>,
}

impl Buffer {
    fn new(stream: &Arc<CudaStream>, len: usize, is_on_host: bool) -> Result<Self, DriverError> {
        let len = len.max(BUFFER_BYTES_MIN);
        let cuda = stream.context();
        let device = if is_on_host { None } else { Some(OnDevice::new(cuda, len)?) };
        Ok(Self { host: Pinned::new(cuda, len)?, device })
    }

    /// Where the engine finds the tensor.
    fn address(&mut self) -> *mut c_void {
        match &self.device {
            Some(device) => device.address as *mut c_void,
            None => self.host.start.cast(),
        }
    }
}

/// Pinned host memory.
struct Pinned {
    start: *mut u8,
    len: usize,
    cuda: Arc<CudaContext>,
}

impl Pinned {
    fn new(cuda: &Arc<CudaContext>, len: usize) -> Result<Self, DriverError> {
        cuda.bind_to_thread()?;
        // SAFETY: the memory is initialised before anyone can see it.
        let start = unsafe { result::malloc_host(len, 0) }?.cast::<u8>();
        let pinned = Self { start, len, cuda: Arc::clone(cuda) };
        // SAFETY: the driver has just given these bytes.
        unsafe { start.write_bytes(0, len) };
        Ok(pinned)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes that belong to this value; the GPU writes them only between `fetch` and the end
        // of the wait for the stream, when nothing holds this slice.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`, and `&mut self` makes it the only slice.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the driver gave this memory, and no copy is under way: `Lane` waits for its stream first.
        let freed = self.cuda.bind_to_thread().and_then(|()| unsafe { result::free_host(self.start.cast()) });
        if let Err(error) = freed {
            tracing::warn!("pinned memory cannot be freed: {error}");
        }
    }
}

/// Memory of the GPU.
struct OnDevice {
    address: sys::CUdeviceptr,
    cuda: Arc<CudaContext>,
}

impl OnDevice {
    fn new(cuda: &Arc<CudaContext>, len: usize) -> Result<Self, DriverError> {
        cuda.bind_to_thread()?;
        // SAFETY: nothing reads it before it is written: inputs are copied into it, outputs computed.
        let address = unsafe { result::malloc_sync(len) }?;
        Ok(Self { address, cuda: Arc::clone(cuda) })
    }
}

impl Drop for OnDevice {
    fn drop(&mut self) {
        // SAFETY: the driver gave this memory, and no run is under way: `Lane` waits for its stream first.
        let freed = self.cuda.bind_to_thread().and_then(|()| unsafe { result::free_sync(self.address) });
        if let Err(error) = freed {
            tracing::warn!("memory of the GPU cannot be freed: {error}");
        }
    }
}
