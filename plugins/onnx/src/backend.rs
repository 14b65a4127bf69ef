//! The plugin's backend: finds devices, inspects files, loads models.

use std::path::Path;

use pajamas_decoder::Served;
use pajamas_pipelines::espeak;
use pajamas_plugin_api::{Accel, Backend, Device, Error, LoadSpec, ModelInfo, ProbeReport, Progress};

use crate::library::Library;
use crate::model;
use crate::options::Options;
use crate::provider::Provider;

/// ONNX Runtime as a backend of pajamas-host.
#[derive(Clone, Copy, Debug)]
pub struct OnnxBackend {
    library: &'static Library,
}

impl Backend for OnnxBackend {
    type Model = Served;

    fn init(plugin_dir: &Path) -> Result<Self, Error> {
        // Where `cargo xtask build` puts it, for voices that need it.
        espeak::search_in(&plugin_dir.join("lib/espeak-ng"));
        Ok(Self { library: Library::load(&Library::path_in(plugin_dir))? })
    }

    fn probe(&self) -> Result<ProbeReport, Error> {
        let devices = self.library.providers().iter().map(|provider| device(*provider)).collect();
        let engine = Some(format!("ONNX Runtime {}", self.library.version()));
        Ok(ProbeReport { devices, reason: None, engine })
    }

    fn inspect(&self, path: &Path) -> Result<ModelInfo, Error> {
        model::inspect(path)
    }

    fn load(&self, spec: &LoadSpec, progress: &Progress) -> Result<Served, Error> {
        model::load(self.library, spec, progress)
    }
}

/// A provider as a device: ONNX Runtime does not say what hardware is behind it before a session uses it.
fn device(provider: Provider) -> Device {
    let accel = provider.accel();
    let name = if accel == Accel::Cpu {
        format!("CPU, {} threads{}", Options::default().threads(), instruction_sets())
    } else {
        format!("{} of ONNX Runtime", provider.name())
    };
    Device { id: provider.name().to_owned(), accel, name, memory_total_bytes: None, memory_free_bytes: None }
}

/// The instruction sets that decide how fast ONNX Runtime's kernels are here.
#[cfg(target_arch = "x86_64")]
fn instruction_sets() -> String {
    let all = [
        ("AVX2", std::arch::is_x86_feature_detected!("avx2")),
        ("AVX-512", std::arch::is_x86_feature_detected!("avx512f")),
        ("VNNI", std::arch::is_x86_feature_detected!("avx512vnni")),
    ];
    all.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| format!(", {name}")).collect()
}

/// On other architectures the library chooses by itself.
#[cfg(not(target_arch = "x86_64"))]
fn instruction_sets() -> String {
    String::new()
}
