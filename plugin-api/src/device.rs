//! Devices, as a plugin's probe reports them.

use serde::{Deserialize, Serialize};

/// The interface through which a device computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// The CPU.
    Cpu,
    /// NVIDIA CUDA.
    Cuda,
    /// Apple Metal.
    Metal,
    /// Apple CoreML.
    Coreml,
    /// Vulkan.
    Vulkan,
    /// AMD ROCm.
    Rocm,
    /// Any other.
    #[serde(other)]
    Other,
}

/// One device that a plugin can use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Identifier used in options and statistics: `cpu`, `cuda:0`.
    pub id: String,
    /// Interface.
    pub accel: Accel,
    /// Name for people.
    pub name: String,
    /// Memory, if known.
    #[serde(default)]
    pub memory_total_bytes: Option<u64>,
    /// Free memory at the time of the probe, if known.
    #[serde(default)]
    pub memory_free_bytes: Option<u64>,
}

/// Answer of `probe`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeReport {
    /// The devices, best first. Empty means that the plugin cannot run here.
    pub devices: Vec<Device>,
    /// Why the plugin cannot run here, or what it misses.
    pub reason: Option<String>,
    /// Name and version of the engine inside, such as `llama.cpp b7123`.
    pub engine: Option<String>,
}
