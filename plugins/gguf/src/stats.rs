//! Counters of a loaded model and its measured memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pajamas_plugin_api::resident_bytes;

/// What the engine has done so far; written by its threads, read by `stats`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Jobs that run or wait.
    pub jobs: AtomicU32,
    /// Slots in use.
    pub busy: AtomicU32,
    /// Prompt tokens that were computed.
    pub prompt_tokens: AtomicU64,
    /// Prompt tokens whose computation was reused.
    pub cached_tokens: AtomicU64,
    /// Generated tokens.
    pub generated_tokens: AtomicU64,
    /// Steps of the engine.
    pub steps: AtomicU64,
    /// Streams that gave up their cells to others and were computed again later.
    pub preemptions: AtomicU64,
    /// Texts that were embedded or scored.
    pub embedded_texts: AtomicU64,
}

impl Counters {
    /// The counters by name.
    pub(crate) fn named(&self) -> BTreeMap<String, f64> {
        [
            ("prompt_tokens", &self.prompt_tokens),
            ("cached_tokens", &self.cached_tokens),
            ("generated_tokens", &self.generated_tokens),
            ("steps", &self.steps),
            ("preemptions", &self.preemptions),
            ("embedded_texts", &self.embedded_texts),
        ]
        .into_iter()
        .map(|(name, counter)| (name.to_owned(), counter.load(Ordering::Relaxed) as f64))
        .collect()
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, amount: usize) {
    counter.fetch_add(amount as u64, Ordering::Relaxed);
}

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
