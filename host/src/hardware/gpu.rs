//! Graphics processors.

use pajamas_plugin_api::{Accel, ComputeCapability};
use serde::{Deserialize, Serialize};

/// A GPU, or another accelerator that the system lists as a display or 3D controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// `cuda:0` (in the order of the PCI bus), `metal:0`, or `pci:` and the address of one that no interface is known for.
    pub id: String,
    /// Who made it.
    pub vendor: Vendor,
    /// Name for people.
    pub name: String,
    /// Address on the PCI bus, such as `0000:01:00.0`.
    pub pci: Option<String>,
    /// Its memory in bytes, where that is known. That of an Apple GPU is the machine's own.
    pub memory_total_bytes: Option<u64>,
    /// Version of the driver, such as `580.82.07`.
    pub driver: Option<String>,
    /// The newest CUDA that the driver serves, as an integer: 13000 is CUDA 13.0.
    pub cuda_driver: Option<u32>,
    /// What it can execute, for NVIDIA's.
    pub compute: Option<ComputeCapability>,
    /// Whether it is divided into instances (MIG), which are then what programs see.
    pub mig: Option<bool>,
}

/// Who made a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vendor {
    /// AMD.
    Amd,
    /// Apple.
    Apple,
    /// Intel.
    Intel,
    /// NVIDIA.
    Nvidia,
    /// Another one.
    Other,
}

/// What a GPU is doing. What it does not tell is `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GpuReading {
    /// As in [`Gpu::id`].
    pub id: String,
    /// Memory that is taken, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Share of the last moments in which it computed, from 0 to 1.
    pub utilization: Option<f64>,
    /// Temperature of the chip.
    pub temperature_celsius: Option<f64>,
    /// What it draws.
    pub power_watts: Option<f64>,
}

impl Gpu {
    /// Whether a plugin that computes through `api` could use it, going by who made it.
    #[must_use]
    pub fn offers(&self, api: Accel) -> bool {
        match api {
            Accel::Cpu => false,
            Accel::Cuda => self.vendor == Vendor::Nvidia,
            Accel::Metal | Accel::Coreml => self.vendor == Vendor::Apple,
            Accel::Rocm => self.vendor == Vendor::Amd,
            Accel::Vulkan => matches!(self.vendor, Vendor::Amd | Vendor::Intel | Vendor::Nvidia),
            Accel::Other => true,
        }
    }
}

/// A version of CUDA for people: 12040 is `12.4`.
#[must_use]
pub fn cuda_version(number: u32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

/// The GPU that is part of Apple's own processors, whose memory is the machine's.
pub(super) fn apple(cpu: &str, memory_total_bytes: Option<u64>) -> Option<Gpu> {
    let is_apple = cfg!(all(target_os = "macos", target_arch = "aarch64"));
    is_apple.then(|| Gpu {
        id: "metal:0".to_owned(),
        vendor: Vendor::Apple,
        name: cpu.to_owned(),
        pci: None,
        memory_total_bytes,
        driver: None,
        cuda_driver: None,
        compute: None,
        mig: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_cuda_are_readable() {
        for (number, expected) in [(13000, "13.0"), (12040, "12.4"), (12080, "12.8")] {
            assert_eq!(cuda_version(number), expected);
        }
    }
}
