//! What memory there is, and what models take.

use std::sync::Arc;
use std::time::Duration;

use super::loaded::Loaded;
use crate::procfs;

/// Where the system tells how much memory it has.
const MEMINFO: &str = "/proc/meminfo";
/// Share of the free memory that stays free.
const HEADROOM: f64 = 0.1;
/// How long a plugin may take to measure its models.
const STATS_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether these models fit a second time beside themselves. Only the machine's own memory is known to the host; a model on
/// another device is taken to fit, because the plugin refuses it otherwise.
pub(super) async fn fits_twice(models: impl Iterator<Item = &Arc<Loaded>>) -> bool {
    let mut needed = 0;
    for model in models {
        needed += cpu_bytes(model).await;
    }
    let Some(free) = available_bytes() else { return true };
    needed as f64 <= free as f64 * (1.0 - HEADROOM)
}

/// Bytes of the machine's memory that a model takes: measured, else estimated.
async fn cpu_bytes(model: &Loaded) -> u64 {
    let measured = model.handle.stats(STATS_TIMEOUT).await.ok().flatten().map(|stats| stats.bytes);
    let bytes = measured.as_ref().filter(|bytes| !bytes.is_empty()).unwrap_or(&model.info.estimated_bytes);
    bytes.get("cpu").copied().unwrap_or_default()
}

/// Nine tenths of the machine's memory: what models may take when the operator does not say.
pub(super) fn nine_tenths() -> Option<u64> {
    procfs::bytes(MEMINFO, "MemTotal:").map(|total| total / 10 * 9)
}

/// What the system says it could give to new processes; `None` where it does not say.
fn available_bytes() -> Option<u64> {
    procfs::bytes(MEMINFO, "MemAvailable:")
}
