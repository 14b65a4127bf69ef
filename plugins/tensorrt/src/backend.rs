//! The plugin's backend: finds GPUs, inspects files, loads models.

use std::path::{Path, PathBuf};

use pajamas_decoder::Served;
use pajamas_plugin_api::{Accel, Backend, Device, Error, LoadSpec, ModelInfo, ProbeReport, Progress};

use crate::ffi::cuda::{self, Gpu};
use crate::flavour;
use crate::library::Library;
use crate::model;

/// TensorRT as a backend of pajamas-host.
#[derive(Clone, Debug)]
pub struct TensorRtBackend {
    plugin_dir: PathBuf,
}

impl Backend for TensorRtBackend {
    type Model = Served;

    /// The library is loaded with the first model: a quarter of a gigabyte for a machine without a GPU would be a waste.
    fn init(plugin_dir: &Path) -> Result<Self, Error> {
        Ok(Self { plugin_dir: plugin_dir.to_owned() })
    }

    fn probe(&self) -> Result<ProbeReport, Error> {
        let engine = Some(flavour::full_version());
        let unusable = |reason: String| ProbeReport {
            devices: Vec::new(),
            reason: Some(reason),
            engine: engine.clone(),
        };
        let gpus = match cuda::gpus() {
            Ok(gpus) => gpus,
            Err(reason) => return Ok(unusable(reason)),
        };
        let (devices, reason) = usable(&gpus);
        if devices.is_empty() {
            return Ok(unusable(reason.unwrap_or_default()));
        }
        if let Err(error) = Library::load(&self.plugin_dir) {
            return Ok(unusable(error.message().to_owned()));
        }
        Ok(ProbeReport { devices, reason, engine })
    }

    fn inspect(&self, path: &Path) -> Result<ModelInfo, Error> {
        model::inspect(&self.plugin_dir, path)
    }

    fn load(&self, spec: &LoadSpec, progress: &Progress) -> Result<Served, Error> {
        model::load(&self.plugin_dir, spec, progress)
    }
}

/// The GPUs that will do, as devices, and why the others will not.
fn usable(gpus: &[Gpu]) -> (Vec<Device>, Option<String>) {
    let (mut devices, mut reasons) = (Vec::new(), Vec::new());
    for gpu in gpus {
        match flavour::unsupported_gpu(gpu.compute) {
            None => devices.push(Device {
                id: format!("cuda:{}", gpu.index),
                accel: Accel::Cuda,
                name: format!("{}, compute capability {}", gpu.name, gpu.compute),
                memory_total_bytes: Some(gpu.memory_bytes),
                // To ask would take a context, half a gigabyte.
                memory_free_bytes: None,
            }),
            Some(reason) if gpus.len() == 1 => reasons.push(reason),
            Some(reason) => reasons.push(format!("cuda:{} ({}): {reason}", gpu.index, gpu.name)),
        }
    }
    let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
    (devices, reason)
}

#[cfg(test)]
#[cfg(not(feature = "enterprise"))]
mod tests {
    use pajamas_plugin_api::ComputeCapability;

    use super::*;

    fn gpu(index: u32, name: &str, (major, minor): (u16, u16)) -> Gpu {
        let compute = ComputeCapability { major, minor };
        Gpu { index, name: name.to_owned(), compute, memory_bytes: 24 << 30 }
    }

    #[test]
    fn gpus_are_devices_or_have_a_reason() {
        let (h100, rtx4090) = (gpu(0, "NVIDIA H100", (9, 0)), gpu(1, "NVIDIA GeForce RTX 4090", (8, 9)));
        let only =
            "TensorRT-RTX 1.7 supports compute capability 8.0, 8.6, 8.9, 12.0 and newer; this GPU has 9.0";
        let (devices, reason) = usable(std::slice::from_ref(&h100));
        assert_eq!((devices, reason.as_deref()), (Vec::new(), Some(only)));

        let (devices, reason) = usable(std::slice::from_ref(&rtx4090));
        assert_eq!(reason, None);
        assert_eq!((devices[0].id.as_str(), devices[0].accel), ("cuda:1", Accel::Cuda));
        assert_eq!(devices[0].name, "NVIDIA GeForce RTX 4090, compute capability 8.9");
        assert_eq!(devices[0].memory_total_bytes, Some(24 << 30));

        let (devices, reason) = usable(&[h100, rtx4090]);
        assert_eq!(devices.len(), 1);
        assert_eq!(reason.unwrap(), format!("cuda:0 (NVIDIA H100): {only}"));
    }
}
