//! What a plugin says about a model: metadata before loading, measurements after.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::task::Task;
use crate::tensor::Dtype;

/// An input or output of `infer`, as the model declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions; -1 for one that each request chooses.
    pub shape: Vec<i64>,
}

/// Answer of `inspect` and of `load`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelInfo {
    /// File format, such as `gguf`.
    pub format: String,
    /// Architecture, such as `llama`.
    pub architecture: String,
    /// What the model can do.
    pub tasks: Vec<Task>,
    /// Number of parameters.
    pub parameters: Option<u64>,
    /// Name of the quantisation, such as `Q4_1`.
    pub quantization: Option<String>,
    /// Longest sequence that the model was trained for, or that was configured at load, in tokens.
    pub context_length: Option<u32>,
    /// Length of an embedding.
    pub embedding_length: Option<u32>,
    /// Size of the vocabulary.
    pub vocab_size: Option<u32>,
    /// The model's own chat template (Jinja), if it has one.
    pub chat_template: Option<String>,
    /// Text of the token that begins a sequence, if the plugin adds or the template names one.
    pub bos_token: Option<String>,
    /// Text of the token that ends a sequence.
    pub eos_token: Option<String>,
    /// Texts of all control tokens: inside a user's text they are not interpreted.
    pub control_tokens: Vec<String>,
    /// Class names, by class id.
    pub labels: Vec<String>,
    /// Voices that `speak` takes, the one of a request that names none first.
    pub voices: Vec<String>,
    /// Inputs of `infer`; empty where the plugin does not tell.
    pub inputs: Vec<TensorInfo>,
    /// Outputs of `infer`; empty where the plugin does not tell.
    pub outputs: Vec<TensorInfo>,
    /// Estimated bytes by device (`cpu`, `cuda:0`) once loaded.
    pub estimated_bytes: BTreeMap<String, u64>,
    /// Requests that are served at the same time.
    pub slots: Option<u32>,
    /// What the file says about itself and about its format, such as `author` and `license`.
    pub metadata: BTreeMap<String, String>,
}

/// Answer of `stats`: measured, not estimated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelStats {
    /// Bytes in use by device (`cpu`, `cuda:0`).
    pub bytes: BTreeMap<String, u64>,
    /// Requests that are served at the same time.
    pub slots_total: u32,
    /// Slots in use.
    pub slots_busy: u32,
    /// Jobs that wait for a slot.
    pub jobs_waiting: u32,
    /// Further counters of the plugin's own.
    pub counters: BTreeMap<String, f64>,
}

/// How a model is to be loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadSpec {
    /// Absolute path of the model's file or folder.
    pub path: std::path::PathBuf,
    /// The plugin's own options; an unknown one is an error that names it.
    pub options: serde_json::Map<String, serde_json::Value>,
    /// Folder for files that speed up the next load; the only one that the plugin may write to.
    pub cache_dir: Option<std::path::PathBuf>,
}
