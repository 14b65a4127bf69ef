//! One method of a program, loaded.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pajamas_pipelines::{TensorRunner, TensorSpec, Value, check_inputs, check_outputs};
use pajamas_plugin_api::{Error, ErrorKind, TensorView, shape_bytes};
use parking_lot::{Condvar, Mutex};

use crate::ffi::{Method, Results, Status, Tensor};
use crate::library::{Lease, Library, engine_error, listen};
use crate::options::Options;
use crate::program::{Port, Program, code_of, dtype_of};
use crate::signature::Signature;
use crate::tensor::{HostTensor, from_order, is_row_major, to_order};

/// A method that is ready to run.
///
/// ExecuTorch runs a loaded method on one thread at a time. So there are as many copies of it as the option `streams` says,
/// each with its own memory; a run waits until one is free.
pub struct ExecuTorchNetwork {
    // Dropped before the lease: delegates point into the pool of threads.
    streams: Mutex<Vec<Method>>,
    freed: Condvar,
    signature: Signature,
    metadata: BTreeMap<String, String>,
    _lease: Lease,
}

impl ExecuTorchNetwork {
    /// Loads the method of a program that the options choose.
    ///
    /// # Errors
    /// The program needs a delegate or an operator that is not there, is damaged, or memory does not suffice.
    pub fn open(library: &'static Library, program: &Program, options: &Options) -> Result<Self, Error> {
        let signature = Signature::of(program, options)?;
        check_delegates(library, program, options)?;
        let method = program.method(options.method.as_deref())?;
        if method.has_state {
            tracing::warn!(
                "{} keeps what its method `{}` writes into its buffers from run to run, so that requests change one \
                 another's results",
                program.path.display(),
                method.name
            );
        }
        let lease = library.lease(options.threads())?;
        let streams = load(library, &program.path, &method.name, options.streams)?;
        let network = Self {
            streams: Mutex::new(streams),
            freed: Condvar::new(),
            metadata: program.metadata(),
            signature,
            _lease: lease,
        };
        if options.warm_up && !method.has_state {
            network.warm_up();
        }
        Ok(network)
    }

    /// Most rows that a run has room for; `None` where there are no rows.
    pub(crate) fn rows_max(&self) -> Option<usize> {
        self.signature.rows_max()
    }

    /// Runs once with zeros of the largest shapes. What the first run allocates is then there, and measured, before the first
    /// request comes.
    fn warm_up(&self) {
        let zeros = |(spec, port): (&TensorSpec, &Port)| {
            let shape = port.sizes.iter().map(|size| i64::try_from(*size)).collect::<Result<Vec<_>, _>>();
            let shape = shape.ok()?;
            let data = vec![0; shape_bytes(spec.dtype, &shape)?];
            HostTensor::new(spec.dtype, shape, &data).ok()
        };
        let ports = self.signature.input_specs.iter().zip(&self.signature.inputs);
        let Some(values) = ports.map(zeros).collect::<Option<Vec<_>>>() else { return };
        let inputs: Vec<_> = self.inputs().iter().map(|spec| spec.name.as_str()).zip(&values).collect();
        let outputs: Vec<_> = self.outputs().iter().map(|spec| spec.name.as_str()).collect();
        if let Err(error) = self.run(&inputs, &outputs) {
            tracing::debug!("no warm-up: {error}");
        }
    }

    /// Does something with a copy of the method, when one is free.
    fn with_method<T>(&self, work: impl FnOnce(&mut Method) -> T) -> T {
        let mut streams = self.streams.lock();
        let mut method = loop {
            match streams.pop() {
                Some(method) => break method,
                None => self.freed.wait(&mut streams),
            }
        };
        drop(streams);
        let result = work(&mut method);
        self.streams.lock().push(method);
        self.freed.notify_one();
        result
    }

    /// The inputs as the method wants them, in its order.
    fn given(&self, inputs: &[(&str, &HostTensor)]) -> Result<Vec<Given>, Error> {
        let ports = self.signature.inputs.iter().zip(&self.signature.input_specs).enumerate();
        ports
            .map(|(index, (port, spec))| {
                let (_, value) = inputs
                    .iter()
                    .find(|(name, _)| *name == spec.name)
                    .ok_or_else(|| Error::internal("an input is missing"))?;
                self.signature.check_bounds(index, value.shape())?;
                Given::new(value, &port.dim_order)
            })
            .collect()
    }
}

impl TensorRunner for ExecuTorchNetwork {
    type Value = HostTensor;

    fn inputs(&self) -> &[TensorSpec] {
        &self.signature.input_specs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.signature.output_specs
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn value(&self, tensor: &TensorView<'_>) -> Result<HostTensor, Error> {
        HostTensor::copy_of(tensor)
    }

    fn run(&self, inputs: &[(&str, &HostTensor)], outputs: &[&str]) -> Result<Vec<HostTensor>, Error> {
        check_inputs(&self.signature.input_specs, inputs)?;
        check_outputs(&self.signature.output_specs, outputs)?;
        if outputs.is_empty() {
            return Ok(Vec::new());
        }
        let given = self.given(inputs)?;
        let tensors: Vec<_> = given.iter().map(Given::tensor).collect();
        let position = |name: &&str| self.signature.output_specs.iter().position(|spec| spec.name == **name);
        let wanted: Vec<_> = outputs
            .iter()
            .filter_map(|name| self.signature.output_indices.get(position(name)?).copied())
            .collect();
        listen();
        let results = self.with_method(|method| {
            method.run(&tensors, |results| {
                wanted.iter().map(|index| result(results, *index)).collect::<Result<Vec<_>, _>>()
            })
        });
        results.map_err(|status| engine_error("cannot run the method", &status))?
    }
}

/// A value in the order in memory that an input wants. Most want it as it is.
struct Given {
    value: HostTensor,
    sizes: Vec<i32>,
    order: Vec<u8>,
    scalar_type: u8,
}

impl Given {
    fn new(value: &HostTensor, order: &[u8]) -> Result<Self, Error> {
        let scalar_type = code_of(value.dtype()).ok_or_else(|| Error::internal("a type has no code"))?;
        let sizes: Result<Vec<_>, _> = value.shape().iter().map(|dim| i32::try_from(*dim)).collect();
        let sizes = sizes.map_err(|_| Error::invalid("a dimension is too large for executorch"))?;
        let value = if is_row_major(order) {
            value.clone()
        } else {
            let dims: Vec<_> = sizes.iter().map(|size| size.unsigned_abs() as usize).collect();
            let data = to_order(value.data(), value.dtype().size_bytes(), &dims, order);
            HostTensor::new(value.dtype(), value.shape().to_vec(), &data)?
        };
        Ok(Self { value, sizes, order: order.to_vec(), scalar_type })
    }

    fn tensor(&self) -> Tensor<'_> {
        Tensor {
            scalar_type: self.scalar_type,
            sizes: &self.sizes,
            dim_order: &self.order,
            data: self.value.data(),
        }
    }
}

/// Copies a result.
fn result(results: &Results<'_>, index: usize) -> Result<HostTensor, Error> {
    let copied = results.get(index, |tensor| {
        let dtype = dtype_of(tensor.scalar_type).ok_or_else(|| {
            Error::unsupported(format!("output {index} has numbers of a type that cannot be sent"))
        })?;
        let shape = tensor.sizes.iter().map(|size| i64::from(*size)).collect();
        if is_row_major(tensor.dim_order) {
            return HostTensor::new(dtype, shape, tensor.data);
        }
        let dims: Vec<_> = tensor.sizes.iter().map(|size| size.unsigned_abs() as usize).collect();
        let data = from_order(tensor.data, dtype.size_bytes(), &dims, tensor.dim_order);
        HostTensor::new(dtype, shape, &data)
    });
    copied.map_err(|status| engine_error(&format!("cannot return output {index}"), &status))?
}

/// Maps the program and loads its method as often as there are streams.
fn load(library: &'static Library, path: &Path, method: &str, streams: u32) -> Result<Vec<Method>, Error> {
    let zero = |what: &str| Error::invalid(format!("{what} has a zero in it"));
    let file = CString::new(path.as_os_str().as_bytes()).map_err(|_| zero("the path of a model"))?;
    let name = CString::new(method).map_err(|_| zero("option `method`"))?;
    let failed = |doing: String, status: &Status| {
        let error = engine_error(&doing, status);
        match error.kind() {
            ErrorKind::OutOfMemory | ErrorKind::Unsupported => error,
            // Whatever is wrong at this point, most likely it is the file.
            _ => Error::bad_model(error.message()),
        }
    };
    listen();
    let program = library
        .runtime()
        .open_program(&file)
        .map_err(|status| failed(format!("cannot load {}", path.display()), &status))?;
    let open = |_| {
        listen();
        program
            .open_method(&name)
            .map_err(|status| failed(format!("cannot load method `{method}` of {}", path.display()), &status))
    };
    (0..streams).map(open).collect()
}

fn check_delegates(library: &Library, program: &Program, options: &Options) -> Result<(), Error> {
    let method = program.method(options.method.as_deref())?;
    let Some(missing) = method.delegates.iter().find(|name| !library.backends().contains(name)) else {
        return Ok(());
    };
    let there: Vec<_> = library.backends().iter().map(|name| format!("`{name}`")).collect();
    Err(Error::unsupported(format!(
        "{} was compiled for the backend `{missing}`, and the libraries in this plugin's folder have {}: export it for one \
         of these, or put the backend's library (libexecutorch_backend_*) there",
        program.path.display(),
        if there.is_empty() { "none".to_owned() } else { there.join(", ") }
    )))
}
