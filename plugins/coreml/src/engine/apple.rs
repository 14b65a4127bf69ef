//! CoreML itself: probe, compile, load, predict. Everything that it is told and tells is converted in `features.rs`.
//!
//! Methods that came later than macOS 13 are called only where the version of the system has them.
#![expect(
    unsafe_code,
    reason = "the framework's methods are declared in Objective-C, and Rust cannot check them"
)]

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use objc2::AllocAnyThread;
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::{AnyObject, ProtocolObject};
use objc2_core_ml::{
    MLArrayBatchProvider, MLBatchProvider, MLComputeUnits, MLFeatureProvider, MLGPUComputeDevice, MLModel,
    MLModelConfiguration, MLNeuralEngineComputeDevice, MLState,
};
use objc2_foundation::{NSArray, NSError, NSProcessInfo, NSString, NSURL};
use pajamas_plugin_api::{Accel, Device, Error, ErrorKind, ProbeReport};

use crate::options::{ComputeUnits, Options, StatePolicy};
use crate::rows::Given;
use crate::signature::Port;
use crate::tensor::HostTensor;

mod features;

/// The oldest macOS that this plugin is for.
const MACOS_MIN: isize = 13;
/// The first that lists its units.
const MACOS_WITH_UNITS: isize = 14;
/// The first with states and several functions.
const MACOS_WITH_STATES: isize = 15;

type Provider = Retained<ProtocolObject<dyn MLFeatureProvider>>;

fn macos_major() -> isize {
    NSProcessInfo::processInfo().operatingSystemVersion().majorVersion
}

/// The version of the system, which a compiled model is good for.
pub(crate) fn system_version() -> String {
    let version = NSProcessInfo::processInfo().operatingSystemVersion();
    format!("macos-{}.{}.{}", version.majorVersion, version.minorVersion, version.patchVersion)
}

/// The units that CoreML computes with here.
pub(crate) fn probe() -> ProbeReport {
    let engine = Some(format!("CoreML of {}", system_version().replace('-', " ")));
    if macos_major() < MACOS_MIN {
        let reason =
            format!("CoreML models need macOS {MACOS_MIN} or newer, and this is {}", system_version());
        return ProbeReport { devices: Vec::new(), reason: Some(reason), engine };
    }
    let memory = NSProcessInfo::processInfo().physicalMemory();
    let threads = available_parallelism().map_or(1, usize::from);
    let (neural_engine, gpu) = units();
    let units = [
        ("ane", Accel::Coreml, neural_engine),
        ("gpu", Accel::Coreml, gpu),
        ("cpu", Accel::Cpu, Some(format!("CPU, {threads} threads"))),
    ];
    let device = |(id, accel, name): (&str, Accel, Option<String>)| {
        Some(Device {
            id: id.to_owned(),
            accel,
            name: name?,
            memory_total_bytes: Some(memory),
            memory_free_bytes: None,
        })
    };
    ProbeReport { devices: units.into_iter().filter_map(device).collect(), reason: None, engine }
}

/// The names of the Neural Engine and of the GPU, where they are there.
fn units() -> (Option<String>, Option<String>) {
    let is_apple_silicon = cfg!(target_arch = "aarch64");
    if macos_major() < MACOS_WITH_UNITS {
        // Every Mac with Apple's processor has both.
        let name = |name: &str| is_apple_silicon.then(|| name.to_owned());
        return (name("Apple Neural Engine"), name("Apple GPU"));
    }
    let (mut neural_engine, mut gpu) = (None, None);
    autoreleasepool(|_| {
        // SAFETY: a class method without arguments, which this version of the system has.
        for unit in unsafe { MLModel::availableComputeDevices() }.iter() {
            let object: &AnyObject = (*unit).as_ref();
            if let Some(unit) = object.downcast_ref::<MLNeuralEngineComputeDevice>() {
                // SAFETY: a property without arguments.
                let cores = unsafe { unit.totalCoreCount() };
                neural_engine = Some(format!("Apple Neural Engine, {cores} cores"));
            } else if object.downcast_ref::<MLGPUComputeDevice>().is_some() {
                gpu = Some("GPU of Metal".to_owned());
            }
        }
    });
    (neural_engine, gpu)
}

/// Compiles a package or a specification. Returns where the result lies, among the system's temporary files.
pub(crate) fn compile(package: &Path) -> Result<PathBuf, Error> {
    autoreleasepool(|_| {
        let url = url(package)?;
        // SAFETY: `url` is a URL of a file, and the method blocks until it has its result. Its successor differs in calling
        // back, for which there is nobody to wait.
        #[expect(deprecated, reason = "the method that replaces it calls back")]
        let compiled = unsafe { MLModel::compileModelAtURL_error(&url) };
        let compiled = compiled.map_err(|error| bad_model("cannot compile", package, &error))?;
        let path = compiled.path().map(|path| PathBuf::from(path.to_string()));
        path.ok_or_else(|| Error::internal("CoreML compiled the model to a place that is no file"))
    })
}

/// A network that CoreML has loaded.
#[derive(Debug)]
pub(crate) struct Network {
    model: Retained<MLModel>,
    /// The state of all runs, where they share one.
    state: Option<Retained<MLState>>,
    has_states: bool,
}

// SAFETY: Apple allows any thread to use a model, one at a time; who owns this calls it behind a lock. The same is true of
// a state.
unsafe impl Send for Network {}

impl Network {
    /// Loads a compiled model.
    pub(crate) fn open(compiled: &Path, options: &Options, has_states: bool) -> Result<Self, Error> {
        if has_states && macos_major() < MACOS_WITH_STATES {
            return Err(too_old("a network with states"));
        }
        autoreleasepool(|_| {
            let configuration = configuration(options)?;
            let url = url(compiled)?;
            // SAFETY: both arguments are alive, and the method blocks until it has its result.
            let model = unsafe { MLModel::modelWithContentsOfURL_configuration_error(&url, &configuration) };
            let model = model.map_err(|error| bad_model("cannot load", compiled, &error))?;
            let keeps_state = has_states && options.state == StatePolicy::Kept;
            // SAFETY: the model has states, and this version of the system too.
            let state = keeps_state.then(|| unsafe { model.newState() });
            Ok(Self { model, state, has_states })
        })
    }

    /// The names of the classes, if it is a classifier.
    pub(crate) fn labels(&self) -> Vec<String> {
        // SAFETY: properties without arguments.
        let labels = unsafe { self.model.modelDescription().classLabels() };
        labels
            .map(|labels| labels.iter().filter_map(|label| features::label(&label)).collect())
            .unwrap_or_default()
    }

    /// Makes predictions, of which each gives the same outputs.
    pub(crate) fn predict(
        &self,
        rows: &[Vec<Given<'_>>],
        outputs: &[&Port],
    ) -> Result<Vec<Vec<HostTensor>>, Error> {
        autoreleasepool(|_| {
            let inputs = rows.iter().map(|row| features::provider(row)).collect::<Result<Vec<_>, _>>()?;
            let results = self.results(&inputs)?;
            let read = |result: &Provider| {
                outputs.iter().map(|output| features::read(result, output)).collect::<Result<Vec<_>, _>>()
            };
            results.iter().map(read).collect()
        })
    }

    fn results(&self, inputs: &[Provider]) -> Result<Vec<Provider>, Error> {
        let failed = |error: Retained<NSError>| {
            Error::new(ErrorKind::Device, format!("cannot run the network: {}", error.localizedDescription()))
        };
        if self.has_states {
            let run = |input: &Provider| {
                let state = match &self.state {
                    Some(state) => state.clone(),
                    // SAFETY: the model has states, and this version of the system too: `open` looked.
                    None => unsafe { self.model.newState() },
                };
                // SAFETY: the arguments are alive, the state is this model's, and nobody else uses either now.
                let result = unsafe { self.model.predictionFromFeatures_usingState_error(input, &state) };
                result.map_err(failed)
            };
            return inputs.iter().map(run).collect();
        }
        if let [input] = inputs {
            // SAFETY: the argument is alive, and nobody else uses the model now.
            let result = unsafe { self.model.predictionFromFeatures_error(input) };
            return Ok(vec![result.map_err(failed)?]);
        }
        let array = NSArray::from_retained_slice(inputs);
        // SAFETY: the array has feature providers, as its type says.
        let batch = unsafe {
            MLArrayBatchProvider::initWithFeatureProviderArray(MLArrayBatchProvider::alloc(), &array)
        };
        // SAFETY: the argument is alive, and nobody else uses the model now.
        let results = unsafe { self.model.predictionsFromBatch_error(ProtocolObject::from_ref(&*batch)) };
        let results = results.map_err(failed)?;
        // SAFETY: a property without arguments.
        if usize::try_from(unsafe { results.count() }) != Ok(inputs.len()) {
            return Err(Error::internal("CoreML gave another number of results than it got rows"));
        }
        // SAFETY: the index is below the count.
        Ok((0..inputs.len()).map(|index| unsafe { results.featuresAtIndex(index.cast_signed()) }).collect())
    }
}

fn configuration(options: &Options) -> Result<Retained<MLModelConfiguration>, Error> {
    let units = match options.compute_units {
        ComputeUnits::All => MLComputeUnits::All,
        ComputeUnits::CpuAndNe => MLComputeUnits::CPUAndNeuralEngine,
        ComputeUnits::CpuAndGpu => MLComputeUnits::CPUAndGPU,
        ComputeUnits::Cpu => MLComputeUnits::CPUOnly,
    };
    if options.function.is_some() && macos_major() < MACOS_WITH_STATES {
        return Err(too_old("the option `function`"));
    }
    // SAFETY: an object without arguments, and properties of their types. The name of a function is set only where this
    // version of the system has the property.
    unsafe {
        let configuration = MLModelConfiguration::new();
        configuration.setComputeUnits(units);
        configuration.setAllowLowPrecisionAccumulationOnGPU(options.low_precision_on_gpu);
        if let Some(function) = &options.function {
            configuration.setFunctionName(Some(&NSString::from_str(function)));
        }
        Ok(configuration)
    }
}

fn url(path: &Path) -> Result<Retained<NSURL>, Error> {
    let text = path.to_str().ok_or_else(|| {
        Error::invalid(format!("the path {} is not UTF-8, which CoreML needs", path.display()))
    })?;
    Ok(NSURL::fileURLWithPath(&NSString::from_str(text)))
}

fn too_old(what: &str) -> Error {
    Error::unsupported(format!(
        "{what} needs macOS {MACOS_WITH_STATES} or newer, and this is {}",
        system_version()
    ))
}

fn bad_model(doing: &str, path: &Path, error: &NSError) -> Error {
    // Whatever is wrong at this point, most likely it is the model.
    Error::bad_model(format!("{doing} {}: {}", path.display(), error.localizedDescription()))
}
