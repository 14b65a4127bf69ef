//! The private protocol between the host and its workers: the same binary at both ends, so it carries no versions
//! but a build id in the first frame, and a worker of another build is refused.

use std::path::PathBuf;

use pajamas_plugin_api::native::Handshake;
use pajamas_plugin_api::{Dtype, Error, ErrorKind, Finish, Usage};
use serde::{Deserialize, Serialize};

use super::confine::Confinement;
use super::wire::Blob;
use crate::engine::TokenLogprob;

/// Number of a call; answers carry it.
pub(crate) type CallId = u32;
/// Number of a job, never used twice in one worker.
pub(crate) type JobId = u64;
/// Number of a loaded model, never used twice in one worker.
pub(crate) type ModelId = u32;

/// First frame to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Identity of the host's executable.
    pub(crate) build_id: String,
    /// Name of the plugin, for log targets.
    pub(crate) plugin: String,
    /// Folder with `plugin.toml`.
    pub(crate) plugin_dir: PathBuf,
    /// The library to load.
    pub(crate) library: PathBuf,
    /// What the process may touch; `None` when the worker runs inside the host.
    pub(crate) confinement: Option<Confinement>,
    /// Highest log level that the host keeps, as in the ABI.
    pub(crate) log_level: u32,
}

/// Frames to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// The first frame.
    Hello(Hello),
    /// Look at the devices.
    Probe { call: CallId },
    /// Read a model's metadata.
    Inspect { call: CallId, path: PathBuf },
    /// Load a model. `spec_json` is a `LoadSpec`.
    Load { call: CallId, model: ModelId, spec_json: String },
    /// Give up a load.
    CancelLoad { model: ModelId },
    /// Measure a model.
    Stats { call: CallId, model: ModelId },
    /// Drop a model once its jobs have ended.
    Unload { model: ModelId },
    /// Start a job.
    Submit { job: JobId, model: ModelId, request: WireRequest },
    /// Stop a job; nothing more of it is wanted.
    Cancel { job: JobId },
}

/// Frames from a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// Answer to the first frame.
    Hello { build_id: String, outcome: Result<Handshake, String>, confined: String },
    /// Answer of a call: JSON, or `null` where the plugin does not offer it.
    Answer { call: CallId, outcome: Result<String, Error> },
    /// Progress of a load.
    Progress { call: CallId, fraction: f32, text: String },
    /// The plugin's `submit` has not returned for so long.
    SubmitHangs { ms: u64 },
    /// The plugin has freed a model that was to be unloaded.
    Unloaded,
    /// An event of a job.
    Event { job: JobId, event: WireEvent },
    /// A message of the plugin.
    Log { level: u32, target: String, message: String, fields_json: String },
}

/// A request with its bulk data moved to attachments.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireRequest {
    pub(crate) task: String,
    pub(crate) params_json: String,
    pub(crate) parts: Vec<WirePart>,
    pub(crate) deadline_ms: Option<u64>,
}

/// One input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum WirePart {
    Text { text: String, trusted: bool },
    Tokens(Vec<u32>),
    Rgb8 { width: u32, height: u32, data: Blob },
    Pcm(Blob),
    Tensor { name: String, dtype: Dtype, shape: Vec<i64>, data: Blob },
    Bytes(Blob),
}

/// One event with its bulk data moved to attachments.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum WireEvent {
    Token { token: TokenLogprob, top: Vec<TokenLogprob> },
    Segment(String),
    Audio { samples: Blob, sample_rate_hz: u32, channels: u32 },
    Detections(String),
    Vector { index: u32, values: Blob },
    Tensors(Vec<WireTensor>),
    Progress { fraction: f32, text: String },
    Usage(Usage),
    Result { index: u32, json: String },
    Done { finish: Finish, usage: Usage },
    Error { kind: ErrorKind, message: String },
}

impl WireEvent {
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Error { .. })
    }
}

/// A named output tensor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<i64>,
    pub(crate) data: Blob,
}

/// Identity of an executable: its version, length and time of change. A worker of another build would read frames
/// wrongly, for example after the host's file was replaced while it ran.
pub(crate) fn build_id(executable: &std::path::Path) -> std::io::Result<String> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(executable)?;
    Ok(format!("{}+{}.{}.{}", env!("CARGO_PKG_VERSION"), meta.len(), meta.mtime(), meta.mtime_nsec()))
}
