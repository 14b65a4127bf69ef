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
        let devices = devices();
        let reason = devices.is_empty().then(|| {
            "llama.cpp found no device: the libraries of its backends are missing from the plugin's folder `lib`".to_owned()
        });
        tracing::debug!(features = ffi::system_info(), "probed llama.cpp");
        Ok(ProbeReport { devices, reason, engine: Some(format!("llama.cpp {}", ffi::version())) })
    }

    fn inspect(&self, path: &Path) -> Result<ModelInfo, Error> {
        Ok(ModelFile::open(path)?.info(&Options::default()))
    }

    fn load(&self, spec: &LoadSpec, progress: &Progress) -> Result<GgufModel, Error> {
        GgufModel::load(spec, progress)
    }
}

/// Loads the variant of each backend that fits this machine best, from the plugin's `lib` folder.
#[cfg(feature = "dynamic-backends")]
fn load_dynamic_backends(plugin_dir: &Path) {
    llama_cpp_2::llama_backend::load_backends_from_path(&plugin_dir.join("lib"));
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
