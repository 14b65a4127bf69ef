//! Whether models fit a second time beside themselves, as a swap side by side needs.

use std::sync::Arc;
use std::time::Duration;

use super::budget::{CPU, DeviceBytes};
use super::loaded::Loaded;
use super::machine::Machine;
use crate::hardware::Memory;

/// Share of the free memory that stays free.
const HEADROOM: f64 = 0.1;
/// How long a plugin may take to measure its models.
const STATS_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether these models fit a second time beside themselves. On a device that does not tell what it has they are taken to fit,
/// because the plugin refuses them otherwise.
pub(super) async fn fits_twice(machine: &Machine, models: impl Iterator<Item = &Arc<Loaded>>) -> bool {
    let mut needed = DeviceBytes::new();
    for model in models {
        for (device, bytes) in bytes(model).await {
            *needed.entry(device).or_default() += bytes;
        }
    }
    let free = free_bytes(machine).await;
    needed.iter().all(|(device, needed)| {
        free.get(device).is_none_or(|free| *needed as f64 <= *free as f64 * (1.0 - HEADROOM))
    })
}

/// Bytes of memory that a model takes: measured, else estimated.
async fn bytes(model: &Loaded) -> DeviceBytes {
    let measured = model.handle.stats(STATS_TIMEOUT).await.ok().flatten().map(|stats| stats.bytes);
    measured.filter(|bytes| !bytes.is_empty()).unwrap_or_else(|| model.info.estimated_bytes.clone())
}

/// What is free now, of the devices that tell it.
async fn free_bytes(machine: &Machine) -> DeviceBytes {
    let hardware = machine.hardware().await;
    let used = machine.gpu_readings().await;
    let of_gpu = |gpu: &crate::hardware::Gpu| {
        let used = used.iter().find(|reading| reading.id == gpu.id)?.memory_used_bytes?;
        Some((gpu.id.clone(), gpu.memory_total_bytes?.saturating_sub(used)))
    };
    let cpu = Memory::now().available_bytes.map(|bytes| (CPU.to_owned(), bytes));
    hardware.gpus.iter().filter_map(of_gpu).chain(cpu).collect()
}
