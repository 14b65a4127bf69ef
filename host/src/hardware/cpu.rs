//! The processors.

use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, System};

/// The machine's processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Name for people; empty where the system does not tell.
    pub model: String,
    /// Cores of the machine, where the system tells.
    pub cores: Option<usize>,
    /// Threads that this process may use at the same time.
    pub threads: usize,
    /// Instruction sets, as the Rust compiler names them.
    pub features: Vec<String>,
}

impl Cpu {
    /// Those of this machine.
    #[must_use]
    pub fn detect() -> Self {
        Self {
            model: brand(),
            cores: System::physical_core_count().ok(),
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            features: features(),
        }
    }
}

/// Name of the first processor.
fn brand() -> String {
    let Ok(mut system) = System::new() else { return String::new() };
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default()
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<String> {
    macro_rules! present {
        ($($name:tt),*) => {
            [$(($name, std::arch::is_x86_feature_detected!($name))),*]
        };
    }
    named(&present!(
        "sse3",
        "ssse3",
        "popcnt",
        "lzcnt",
        "aes",
        "pclmulqdq",
        "sse4.1",
        "sse4.2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "bmi1",
        "bmi2",
        "avx512f",
        "avx512bw",
        "avx512vl",
        "avx512cd",
        "avx512dq",
        "avx512ifma",
        "avx512vbmi",
        "avx512vnni",
        "avx512bf16",
        "avxvnni"
    ))
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<String> {
    macro_rules! present {
        ($($name:tt),*) => {
            [$(($name, std::arch::is_aarch64_feature_detected!($name))),*]
        };
    }
    named(&present!("neon", "dotprod", "fp16", "i8mm", "bf16", "sve", "sve2"))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<String> {
    Vec::new()
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn named(features: &[(&str, bool)]) -> Vec<String> {
    features.iter().filter(|(_, present)| *present).map(|(name, _)| (*name).to_owned()).collect()
}
