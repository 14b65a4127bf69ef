//! The machine under the engine: looked at once, in the background, and read again whenever somebody asks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;

use crate::hardware::{GpuReading, Hardware, read_gpus};

/// How long the drivers may take to tell which GPUs there are; then the machine is taken to have none.
const DETECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long they may take to tell what the GPUs do; then nothing is told.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// This machine.
#[derive(Debug, Default)]
pub(super) struct Machine {
    hardware: OnceCell<Arc<Hardware>>,
    /// One reading at a time, so that a driver that hangs holds one thread and not one for each that asks.
    reading: Arc<Mutex<()>>,
}

impl Machine {
    /// What it is made of. The first who asks looks, and all others wait for that.
    pub(super) async fn hardware(&self) -> Arc<Hardware> {
        let detect = async || {
            let hardware = match timeout(DETECT_TIMEOUT, tokio::task::spawn_blocking(Hardware::detect)).await
            {
                Ok(Ok(hardware)) => hardware,
                // Only a panic ends the task early, and only a driver takes so long.
                Ok(Err(_)) | Err(_) => {
                    let seconds = DETECT_TIMEOUT.as_secs();
                    Hardware::without_gpus(vec![format!(
                        "the drivers did not tell within {seconds} s which GPUs there are"
                    )])
                }
            };
            hardware.problems.iter().for_each(|problem| tracing::warn!("{problem}"));
            Arc::new(hardware)
        };
        Arc::clone(self.hardware.get_or_init(detect).await)
    }

    /// What its GPUs are doing.
    pub(super) async fn gpu_readings(&self) -> Vec<GpuReading> {
        let lock = Arc::clone(&self.reading);
        let read = async {
            let guard = lock.lock_owned().await;
            let read = tokio::task::spawn_blocking(move || (read_gpus(), guard)).await;
            read.map(|(readings, _)| readings).unwrap_or_default()
        };
        timeout(READ_TIMEOUT, read).await.unwrap_or_default()
    }
}
