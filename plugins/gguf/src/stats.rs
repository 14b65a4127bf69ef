//! The measured memory of a loaded model.

use std::collections::BTreeMap;

use pajamas_plugin_api::resident_bytes;

/// Bytes in use by device at one moment: resident memory of the process for the CPU, used memory of the card for GPUs.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryReading(BTreeMap<String, u64>);

impl MemoryReading {
    /// Reads now.
    pub(crate) fn now() -> Self {
        let mut bytes = BTreeMap::new();
        if let Some(resident) = resident_bytes() {
            bytes.insert("cpu".to_owned(), resident);
        }
        for device in crate::backend::gpu_devices() {
            if let (Some(total), Some(free)) = (device.memory_total_bytes, device.memory_free_bytes) {
                bytes.insert(device.id, total.saturating_sub(free));
            }
        }
        Self(bytes)
    }

    /// What was added since `before`. With several models loading at once in one process the sum would be right, but not
    /// its parts: the caller loads in turn.
    pub(crate) fn since(&self, before: &Self) -> BTreeMap<String, u64> {
        self.0
            .iter()
            .map(|(device, bytes)| {
                (device.clone(), bytes.saturating_sub(before.0.get(device).copied().unwrap_or(0)))
            })
            .filter(|(device, bytes)| *bytes > 0 || device == "cpu")
            .collect()
    }
}
