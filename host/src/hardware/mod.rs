//! What the machine is made of, and what its devices are doing. No plugin code runs here.
//!
//! [`Hardware::detect`] looks once and may take long (NVIDIA's driver wakes up its GPUs), so it belongs on a blocking
//! thread; [`read_gpus`] reads what changes. NVIDIA's GPUs are seen through NVML, which is loaded only where the system shows
//! signs of one; other GPUs as far as the system itself tells, without loading vendors' libraries.

mod cpu;
mod gpu;
mod libc_version;
mod nvidia;
mod pci;
mod release;

use std::path::Path;

use pajamas_plugin_api::Accel;
use serde::{Deserialize, Serialize};

pub use cpu::Cpu;
pub use gpu::{Gpu, GpuReading, Vendor, cuda_version};
pub use release::is_at_least;

/// Files that are there when NVIDIA's driver is although no GPU is listed on the PCI bus: in some containers, and in Linux
/// under Windows.
const NVIDIA_FILES: [&str; 2] = ["/dev/nvidiactl", "/dev/dxg"];

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hardware {
    /// As in `std::env::consts::OS`.
    pub os: String,
    /// Its version, such as `12` or `15.1`, where the system tells.
    pub os_version: Option<String>,
    /// Version of glibc, where the program runs on it: `2.36`.
    pub glibc: Option<String>,
    /// As in `std::env::consts::ARCH`.
    pub arch: String,
    /// The processors.
    pub cpu: Cpu,
    /// Memory of the machine.
    pub memory: Memory,
    /// Graphics processors and other accelerators.
    pub gpus: Vec<Gpu>,
    /// What could not be looked at, and why.
    pub problems: Vec<String>,
}

/// Memory of a machine, in bytes; `None` where the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub total_bytes: Option<u64>,
    /// What new processes could have.
    pub available_bytes: Option<u64>,
}

impl Hardware {
    /// This machine. Blocks, for a second or more where a driver has to wake up.
    #[must_use]
    pub fn detect() -> Self {
        let mut hardware = Self::without_gpus(Vec::new());
        hardware.gpus = pci::gpus();
        let is_listed = hardware.gpus.iter().any(|gpu| gpu.vendor == Vendor::Nvidia);
        if is_listed || NVIDIA_FILES.iter().any(|file| Path::new(file).exists()) {
            match nvidia::gpus() {
                Ok(found) => {
                    hardware.gpus.retain(|gpu| gpu.vendor != Vendor::Nvidia);
                    hardware.gpus.splice(0..0, found);
                }
                Err(problem) if is_listed => hardware.problems.push(problem),
                // Windows' GPU need not be one of NVIDIA's.
                Err(problem) => tracing::debug!("{problem}"),
            }
        }
        hardware.gpus.extend(gpu::apple(&hardware.cpu.model, hardware.memory.total_bytes));
        hardware
    }

    /// This machine as far as the operating system alone tells.
    #[must_use]
    pub fn without_gpus(problems: Vec<String>) -> Self {
        Self {
            os: std::env::consts::OS.to_owned(),
            os_version: sysinfo::System::os_version().ok(),
            glibc: libc_version::glibc(),
            arch: std::env::consts::ARCH.to_owned(),
            cpu: Cpu::detect(),
            memory: Memory::now(),
            gpus: Vec::new(),
            problems,
        }
    }

    /// The GPUs that a plugin for `api` could use, going by their vendor; all for an interface that the host does not know.
    pub fn gpus_for(&self, api: Accel) -> impl Iterator<Item = &Gpu> {
        self.gpus.iter().filter(move |gpu| gpu.offers(api))
    }
}

impl Memory {
    /// As the system tells now.
    #[must_use]
    pub fn now() -> Self {
        let Ok(mut system) = sysinfo::System::new() else { return Self::default() };
        system.refresh_memory_specifics(sysinfo::MemoryRefreshKind::nothing().with_ram());
        let known = |bytes: u64| (bytes > 0).then_some(bytes);
        Self { total_bytes: known(system.total_memory()), available_bytes: known(system.available_memory()) }
    }
}

/// What the GPUs that can be asked are doing now. Blocks for some milliseconds; longer where a driver hangs.
#[must_use]
pub fn read_gpus() -> Vec<GpuReading> {
    nvidia::read()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_processors_and_memory() {
        let hardware = Hardware::detect();
        assert_eq!(hardware.arch, std::env::consts::ARCH);
        assert!(hardware.cpu.threads >= 1, "{hardware:?}");
        let memory = hardware.memory;
        assert!(
            memory.total_bytes.is_some_and(|total| memory.available_bytes.is_some_and(|free| free <= total))
        );
        #[cfg(target_env = "gnu")]
        assert!(hardware.glibc.as_deref().is_some_and(|glibc| is_at_least(glibc, "2.17")), "{hardware:?}");
    }

    #[test]
    fn a_machine_survives_json() {
        let hardware = Hardware::detect();
        let text = serde_json::to_string(&hardware).unwrap();
        assert_eq!(serde_json::from_str::<Hardware>(&text).unwrap(), hardware);
    }
}
