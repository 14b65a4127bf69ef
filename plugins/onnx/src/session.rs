//! One network that ONNX Runtime has loaded.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ort::session::builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder};
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::Outlet;
use pajamas_pipelines::{TensorRunner, TensorSpec, check_inputs, check_outputs};
use pajamas_plugin_api::{Dtype, Error, ErrorKind, TensorView, shape_bytes};
use parking_lot::{Condvar, Mutex};

use crate::library::{Library, engine_error};
use crate::options::{GraphOptimization, Options};
use crate::provider::Provider;
use crate::value::{OnnxValue, dtype_of};

/// How often a load looks whether it is cancelled.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// A network that is ready to run.
///
/// Runs take turns. ONNX Runtime promises more, but its allocators and profilers have been caught racing, which is why
/// `ort` wants `&mut`. A second session would hold the weights twice and, because one run uses all threads of the
/// session already, would gain little: requests that come together are better run as one batch ([`pajamas_pipelines::Batcher`]).
///
/// No I/O binding: on the CPU a run reads its inputs where they are and hands its outputs over, so binding would save no
/// copy.
#[derive(Debug)]
pub struct OnnxSession {
    session: Mutex<Session>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    metadata: BTreeMap<String, String>,
}

impl OnnxSession {
    /// Loads a network. `is_cancelled` is asked every 50 ms, from another thread.
    ///
    /// # Errors
    /// The file is no good model, a provider is not there, memory does not suffice, or the load was cancelled.
    pub fn open(
        library: &Library,
        file: &Path,
        options: &Options,
        is_cancelled: impl Fn() -> bool + Sync,
    ) -> Result<Self, Error> {
        check_providers(library, options)?;
        let failed = |error: ort::Error| {
            let error = engine_error(&format!("cannot load {}", file.display()), &error);
            match error.kind() {
                // Whatever is wrong at this point, most likely it is the file.
                ErrorKind::Internal | ErrorKind::Invalid => Error::bad_model(error.message()),
                _ => error,
            }
        };
        let mut builder = builder(library, options)?;
        let session = with_cancellation(&mut builder, is_cancelled, |builder| builder.commit_from_file(file));
        let session = session.map_err(failed)?;
        let loaded = Self {
            inputs: specs(session.inputs()),
            outputs: specs(session.outputs()),
            metadata: metadata(&session).map_err(failed)?,
            session: Mutex::new(session),
        };
        if options.warm_up {
            loaded.warm_up();
        }
        Ok(loaded)
    }

    /// Runs once with zeros if all shapes are known, an unknown first dimension taken as 1. What the first run allocates
    /// is then there, and measured, before the first request comes.
    fn warm_up(&self) {
        let zeros = |spec: &TensorSpec| {
            let mut dims = spec.shape.iter().enumerate();
            let shape: Option<Vec<i64>> = dims.try_fold(Vec::new(), |mut shape, (index, dim)| {
                let dim = dim.or((index == 0).then_some(1))?;
                shape.push(i64::try_from(dim).ok()?);
                Some(shape)
            });
            let shape = shape.filter(|shape| !shape.is_empty())?;
            let data = vec![0; shape_bytes(spec.dtype, &shape)?];
            self.value(&TensorView { name: &spec.name, dtype: spec.dtype, shape: &shape, data: &data }).ok()
        };
        let Some(values) = self.inputs.iter().map(zeros).collect::<Option<Vec<_>>>() else {
            return;
        };
        let inputs: Vec<_> = self.inputs.iter().map(|spec| spec.name.as_str()).zip(&values).collect();
        let outputs: Vec<_> = self.outputs.iter().map(|spec| spec.name.as_str()).collect();
        if let Err(error) = self.run(&inputs, &outputs) {
            tracing::debug!("no warm-up: {error}");
        }
    }
}

impl TensorRunner for OnnxSession {
    type Value = OnnxValue;

    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn value(&self, tensor: &TensorView<'_>) -> Result<OnnxValue, Error> {
        OnnxValue::copy_of(tensor)
    }

    fn run(&self, inputs: &[(&str, &OnnxValue)], outputs: &[&str]) -> Result<Vec<OnnxValue>, Error> {
        check_inputs(&self.inputs, inputs)?;
        check_outputs(&self.outputs, outputs)?;
        if outputs.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |error: ort::Error| engine_error("cannot run the network", &error);
        let wanted = outputs.iter().fold(OutputSelector::no_default(), |wanted, name| wanted.with(*name));
        let run_options = RunOptions::new().map_err(failed)?.with_outputs(wanted);
        let values: Vec<(&str, SessionInputValue<'_>)> =
            inputs.iter().map(|(name, value)| (*name, value.engine_value().into())).collect();
        let mut session = self.session.lock();
        let results = session.run_with_options(values, &run_options).map_err(failed)?;
        results.into_iter().map(|(name, value)| OnnxValue::of_run(name, value)).collect()
    }
}

fn check_providers(library: &Library, options: &Options) -> Result<(), Error> {
    let names = |providers: &[Provider]| {
        providers.iter().map(|provider| format!("`{}`", provider.name())).collect::<Vec<_>>().join(", ")
    };
    match options.execution_providers.iter().find(|wanted| !library.providers().contains(wanted)) {
        None => Ok(()),
        Some(missing) => Err(Error::invalid(format!(
            "option `execution_providers`: the library of ONNX Runtime {} in this plugin's folder has no `{}`, only {}: \
             leave it out, or put a library there that has it",
            library.version(),
            missing.name(),
            names(library.providers())
        ))),
    }
}

fn builder(library: &Library, options: &Options) -> Result<SessionBuilder, Error> {
    let level = match options.graph_optimization {
        GraphOptimization::None => GraphOptimizationLevel::Disable,
        GraphOptimization::Basic => GraphOptimizationLevel::Level1,
        GraphOptimization::Extended => GraphOptimizationLevel::Level2,
        GraphOptimization::All => GraphOptimizationLevel::All,
    };
    let inter_threads = usize::try_from(options.inter_threads).unwrap_or(usize::MAX);
    // That of a voice was set where its kind was found out.
    let spin_us = options.spin_us(false);
    let build = || {
        let builder = Session::builder(library.environment())?
            .with_optimization_level(level)?
            .with_intra_threads(options.threads())?
            .with_inter_threads(inter_threads)?
            .with_parallel_execution(inter_threads > 1)?
            .with_memory_pattern(options.memory_pattern)?
            .with_intra_op_spinning(spin_us > 0)?
            .with_inter_op_spinning(spin_us > 0)?
            .with_config_entry("session.intra_op.spin_duration_us", spin_us.to_string())?
            .with_config_entry("session.inter_op.spin_duration_us", spin_us.to_string())?
            // Between runs the cores belong to others.
            .with_config_entry("session.force_spinning_stop", "1")?
            // Of itself the library would look for the most economical device.
            .with_auto_device(AutoDevicePolicy::PreferCPU)?;
        Ok(builder)
    };
    let builder = build().map_err(|error: ort::Error| engine_error("cannot make a session", &error))?;
    let mut providers = options.execution_providers.clone();
    if !providers.contains(&Provider::Cpu) {
        providers.push(Provider::Cpu);
    }
    let providers: Vec<_> =
        providers.iter().map(|provider| provider.dispatch(options.memory_arena)).collect();
    builder.with_execution_providers(providers).map_err(|error| {
        let doing = "cannot start one of `execution_providers`; is its driver installed";
        Error::new(ErrorKind::Device, engine_error(doing, &error).message())
    })
}

/// Runs `load`, which blocks, while another thread looks whether it is still wanted.
fn with_cancellation<T>(
    builder: &mut SessionBuilder,
    is_cancelled: impl Fn() -> bool + Sync,
    load: impl FnOnce(&mut SessionBuilder) -> ort::Result<T>,
) -> ort::Result<T> {
    let canceler = builder.canceler();
    let (is_done, done) = (Mutex::new(false), Condvar::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut is_done = is_done.lock();
            while !*is_done {
                if is_cancelled() {
                    // The load notices at its next operator.
                    let _ = canceler.cancel();
                    return;
                }
                done.wait_for(&mut is_done, CANCEL_POLL);
            }
        });
        let result = load(builder);
        *is_done.lock() = true;
        done.notify_all();
        result
    })
}

/// The tensors among the inputs or outputs.
fn specs(outlets: &[Outlet]) -> Vec<TensorSpec> {
    let spec = |outlet: &Outlet| {
        let dtype: Dtype = outlet.dtype().tensor_type().and_then(dtype_of)?;
        let dims = outlet.dtype().tensor_shape()?;
        // An unknown dimension is -1.
        let shape = dims.iter().map(|dim| usize::try_from(*dim).ok()).collect();
        Some(TensorSpec { name: outlet.name().to_owned(), dtype, shape })
    };
    outlets.iter().filter_map(spec).collect()
}

fn metadata(session: &Session) -> ort::Result<BTreeMap<String, String>> {
    let metadata = session.metadata()?;
    let keys = metadata.custom_keys()?;
    Ok(keys.into_iter().filter_map(|key| metadata.custom(&key).map(|value| (key, value))).collect())
}
