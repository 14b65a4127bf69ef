//! What an operator allows a hook.

use serde::{Deserialize, Serialize};

use super::runtime::MEMORY_BYTES_MAX;

/// Bounds of one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HookLimits {
    /// Processor time of one call, in milliseconds.
    pub cpu_ms: u64,
    /// Memory of one instance.
    pub memory_bytes: usize,
    /// What one call may return.
    pub output_bytes: usize,
    /// What is logged for one request.
    pub log_bytes: usize,
}

impl Default for HookLimits {
    fn default() -> Self {
        Self {
            cpu_ms: 50,
            memory_bytes: 64 * 1024 * 1024,
            output_bytes: 32 * 1024 * 1024,
            log_bytes: 16 * 1024,
        }
    }
}

impl HookLimits {
    /// The longest `cpu_ms`.
    pub const CPU_MS_MAX: u64 = 60_000;

    /// # Errors
    /// A limit that cannot be kept, with its name.
    pub fn check(&self) -> Result<(), String> {
        if self.cpu_ms == 0 || self.cpu_ms > Self::CPU_MS_MAX {
            return Err(format!("limits.cpu_ms: expected 1 to {}, got {}", Self::CPU_MS_MAX, self.cpu_ms));
        }
        for (name, bytes) in [("memory_bytes", self.memory_bytes), ("output_bytes", self.output_bytes)] {
            if bytes == 0 || bytes > MEMORY_BYTES_MAX {
                return Err(format!("limits.{name}: expected 1 to {MEMORY_BYTES_MAX}, got {bytes}"));
            }
        }
        Ok(())
    }
}

/// What a hook may have that it has not by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// The time.
    Clock,
    /// Random numbers.
    Random,
}
