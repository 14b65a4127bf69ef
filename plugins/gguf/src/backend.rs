//! The plugin's backend: finds devices, inspects files, loads models.

use std::path::Path;
use std::sync::OnceLock;

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::{LlamaBackendDeviceType, list_llama_ggml_backend_devices};
use pajamas_plugin_api::{Accel, Backend, Device, Error, LoadSpec, ModelInfo, ProbeReport, Progress};

use crate::ffi;
use crate::inspect::ModelFile;
use crate::model::GgufModel;
use crate::options::Options;

/// llama.cpp as a backend of pajamas-host.
#[derive(Debug)]
pub struct GgufBackend;

/// llama.cpp's global state; lives as long as the process.
static LLAMA: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();

impl Backend for GgufBackend {
    type Model = GgufModel;

    fn init(plugin_dir: &Path) -> Result<Self, Error> {
        let llama = LLAMA.get_or_init(|| {
            ffi::install_log();
            load_dynamic_backends(plugin_dir);
            LlamaBackend::init().map_err(|error| error.to_string())
        });
        match llama {
            Ok(_) => Ok(Self),
            Err(reason) => Err(Error::internal(format!("llama.cpp cannot start: {reason}"))),
        }
    }

    fn probe(&self) -> Result<ProbeReport, Error> {
        let engine = Some(format!("llama.cpp {}", ffi::version()));
        if let Some(reason) = UNUSABLE.get() {
            return Ok(ProbeReport { devices: Vec::new(), reason: Some(reason.clone()), engine });
        }
        let devices = devices();
        let reason = devices.is_empty().then(|| {
            "llama.cpp found no device: the libraries of its backends are missing from the plugin's folder `lib`".to_owned()
        });
        tracing::debug!(features = ffi::system_info(), "probed llama.cpp");
        Ok(ProbeReport { devices, reason, engine })
    }

    fn inspect(&self, path: &Path) -> Result<ModelInfo, Error> {
        Ok(ModelFile::open(path)?.info(&Options::default()))
    }

    fn load(&self, spec: &LoadSpec, progress: &Progress) -> Result<GgufModel, Error> {
        GgufModel::load(spec, progress)
    }
}

/// Why the GPUs that this package is for cannot be used. A plugin that was installed for a GPU says so instead of computing
/// on the processor, many times slower, without a word.
static UNUSABLE: OnceLock<String> = OnceLock::new();

/// The backend for NVIDIA GPUs, where the package has it.
#[cfg(feature = "dynamic-backends")]
const CUDA_LIBRARY: &str = "libggml-cuda.so";

/// Loads the variant of each backend that fits this machine best, from the plugin's `lib` folder.
#[cfg(feature = "dynamic-backends")]
fn load_dynamic_backends(plugin_dir: &Path) {
    let lib = plugin_dir.join("lib");
    llama_cpp_2::llama_backend::load_backends_from_path(&lib);
    let cuda = lib.join(CUDA_LIBRARY);
    if !cuda.is_file() || gpu_devices().iter().any(|device| device.accel == Accel::Cuda) {
        return;
    }
    // llama.cpp does not say why it left a backend out; when it is asked for that one, it does.
    let reason = match ffi::load_backend(&cuda) {
        Ok(()) => {
            "CUDA finds no GPU that it may use; see what nvidia-smi says, and CUDA_VISIBLE_DEVICES".to_owned()
        }
        Err(reason) => format!(
            "{reason}; it needs NVIDIA's driver and the libraries libcudart, libcublas and libcublasLt of CUDA: install them where the \
             system's linker finds them"
        ),
    };
    UNUSABLE.get_or_init(|| reason);
}

/// The one CPU backend is linked into this library.
#[cfg(not(feature = "dynamic-backends"))]
fn load_dynamic_backends(_plugin_dir: &Path) {}

/// All devices, GPUs first.
pub(crate) fn devices() -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    for found in list_llama_ggml_backend_devices() {
        let accel = match (found.device_type, found.backend.as_str()) {
            (LlamaBackendDeviceType::Cpu, _) => Accel::Cpu,
            (LlamaBackendDeviceType::Gpu | LlamaBackendDeviceType::IntegratedGpu, backend) => accel(backend),
            // Libraries such as BLAS that help the CPU are no devices of their own.
            _ => continue,
        };
        let number = devices.iter().filter(|device| device.accel == accel).count();
        let bytes = |bytes: usize| u64::try_from(bytes).ok().filter(|bytes| *bytes > 0);
        devices.push(Device {
            id: if accel == Accel::Cpu {
                "cpu".to_owned()
            } else {
                format!("{}:{number}", accel_name(accel))
            },
            accel,
            name: found.description,
            memory_total_bytes: bytes(found.memory_total),
            memory_free_bytes: bytes(found.memory_free),
        });
    }
    devices.sort_by_key(|device| device.accel == Accel::Cpu);
    devices
}

/// The GPUs.
pub(crate) fn gpu_devices() -> Vec<Device> {
    devices().into_iter().filter(|device| device.accel != Accel::Cpu).collect()
}

fn accel(backend: &str) -> Accel {
    match backend {
        "CUDA" => Accel::Cuda,
        "ROCm" | "HIP" => Accel::Rocm,
        "Metal" | "MTL" => Accel::Metal,
        "Vulkan" => Accel::Vulkan,
        _ => Accel::Other,
    }
}

fn accel_name(accel: Accel) -> &'static str {
    match accel {
        Accel::Cpu => "cpu",
        Accel::Cuda => "cuda",
        Accel::Metal => "metal",
        Accel::Coreml => "coreml",
        Accel::Vulkan => "vulkan",
        Accel::Rocm => "rocm",
        Accel::Other => "gpu",
    }
}
