//! The options of a model, as written in `model.toml` or given at load.

use std::path::PathBuf;

use pajamas_plugin_api::{Error, options};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ffi::SplitMode;

/// Slots when none are asked for.
pub const SLOTS_DEFAULT: u32 = 8;
/// Most slots: llama.cpp's limit of sequences in one context.
pub const SLOTS_MAX: u32 = 256;
/// Longest sequence when none is asked for, if the model was trained for it.
pub const CONTEXT_DEFAULT: u32 = 4096;
/// Prompt tokens of one step on the CPU while several requests run.
pub const PREFILL_CHUNK_CPU: u32 = 64;
/// The default context is halved until the key-value cache fits this many bytes, but not below [`CONTEXT_FLOOR`].
pub const KV_BYTES_DEFAULT_MAX: u64 = 2 << 30;
/// Smallest context that the default chooses.
pub const CONTEXT_FLOOR: u32 = 1024;

/// Options of one model. Every field has a default; an unknown field is an error that names it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Longest sequence (prompt and output) of one request, in tokens. With `kv_unified` it is also the sum over all
    /// requests. Default: the smaller of 4096 and what the model was trained for, halved until the key-value cache of
    /// all slots fits 2 GiB.
    pub context: Option<u32>,
    /// Requests that are computed at the same time, 1 to 256.
    pub slots: u32,
    /// Requests that may wait for a slot; one more is refused as overloaded.
    pub queue: u32,
    /// Most tokens of one step, all requests together.
    pub batch: u32,
    /// Most tokens computed at once inside a step.
    pub ubatch: u32,
    /// While several requests run, a step begins no further prompt after so many tokens of prompts, and reads no more
    /// of one prompt; a request that is alone reads `batch` at once.
    /// Default: 64 on the CPU, `batch` on a GPU.
    pub prefill_chunk: Option<u32>,
    /// Threads while every request adds one token; default: the physical cores.
    pub threads: Option<u32>,
    /// Threads while prompts are read; default: as `threads`.
    pub threads_batch: Option<u32>,
    /// Element type of the cached keys. Default: `bf16` on the CPU, `f16` on a GPU.
    pub kv_type_k: Option<KvType>,
    /// Element type of the cached values. Default: as `kv_type_k`.
    pub kv_type_v: Option<KvType>,
    /// Share one buffer of `context` cells between all slots, instead of `context` cells for each.
    pub kv_unified: bool,
    /// Flash attention.
    pub flash_attention: Switch,
    /// Layers on the GPU; default: all that llama.cpp can place.
    pub gpu_layers: Option<u32>,
    /// GPU that holds the model when it is not split.
    pub main_gpu: u32,
    /// How the model is spread over several GPUs.
    pub split_mode: SplitModeOption,
    /// Share of each GPU, in their order; default: as much as each has free memory.
    pub tensor_split: Vec<f32>,
    /// Map the file into memory instead of reading it.
    pub mmap: bool,
    /// Lock the weights in memory.
    pub mlock: bool,
    /// Rearrange weights for the CPU's matrix kernels.
    pub repack: bool,
    /// Adapters that are applied to every request.
    pub lora: Vec<Lora>,
    /// Pooling of embeddings; default: what the model says, else `mean`.
    pub pooling: Option<Pooling>,
    /// Base frequency of RoPE; default: the model's.
    pub rope_freq_base: Option<f32>,
    /// Frequency scale of RoPE; default: the model's.
    pub rope_freq_scale: Option<f32>,
    /// Refuse to load when the estimate is above this.
    pub memory_limit_bytes: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            context: None,
            slots: SLOTS_DEFAULT,
            queue: 256,
            batch: 512,
            ubatch: 512,
            prefill_chunk: None,
            threads: None,
            threads_batch: None,
            kv_type_k: None,
            kv_type_v: None,
            kv_unified: false,
            flash_attention: Switch::Auto,
            gpu_layers: None,
            main_gpu: 0,
            split_mode: SplitModeOption::Layer,
            tensor_split: Vec::new(),
            mmap: true,
            mlock: false,
            repack: true,
            lora: Vec::new(),
            pooling: None,
            rope_freq_base: None,
            rope_freq_scale: None,
            memory_limit_bytes: None,
        }
    }
}

/// A choice that may be left to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// The engine decides.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Element type of the key-value cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are those of the types")]
pub enum KvType {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q5_1,
    Q5_0,
    Q4_1,
    Q4_0,
}

impl KvType {
    /// ggml's number of the type.
    #[must_use]
    pub fn ggml_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Bf16 => 30,
        }
    }
}

/// How several GPUs share a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitModeOption {
    /// One GPU holds all.
    None,
    /// Each GPU holds some layers.
    Layer,
    /// Each GPU holds rows of every matrix.
    Row,
    /// Each GPU computes a part of every layer, its cache included. Not for every architecture.
    Tensor,
}

impl From<SplitModeOption> for SplitMode {
    fn from(option: SplitModeOption) -> Self {
        match option {
            SplitModeOption::None => Self::None,
            SplitModeOption::Layer => Self::Layer,
            SplitModeOption::Row => Self::Row,
            SplitModeOption::Tensor => Self::Tensor,
        }
    }
}

/// How the token embeddings of a text become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first one.
    Cls,
    /// The last one.
    Last,
    /// A score from the model's classifier.
    Rank,
}

impl Pooling {
    /// The pooling of llama.cpp's number, as in model files.
    #[must_use]
    pub fn from_llama_type(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Mean),
            2 => Some(Self::Cls),
            3 => Some(Self::Last),
            4 => Some(Self::Rank),
            _ => None,
        }
    }

    /// llama.cpp's number.
    #[must_use]
    pub fn llama_type(self) -> i32 {
        match self {
            Self::Mean => 1,
            Self::Cls => 2,
            Self::Last => 3,
            Self::Rank => 4,
        }
    }
}

/// A LoRA adapter.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// The adapter's GGUF file.
    pub path: PathBuf,
    /// Strength; 1 is as trained.
    #[serde(default = "one")]
    pub scale: f32,
}

fn one() -> f32 {
    1.0
}

impl Options {
    /// Reads options and checks their ranges.
    ///
    /// # Errors
    /// An option is unknown, has a wrong type or is out of range; the message names it and what is allowed.
    pub fn parse(map: &Map<String, Value>) -> Result<Self, Error> {
        let options: Self = options::parse(map)?;
        options.check()?;
        Ok(options)
    }

    fn check(&self) -> Result<(), Error> {
        options::check_ranges([
            ("slots", Some(self.slots), 1..=SLOTS_MAX),
            ("queue", Some(self.queue), 0..=65_536),
            ("batch", Some(self.batch), 1..=65_536),
            ("ubatch", Some(self.ubatch), 1..=65_536),
            ("prefill_chunk", self.prefill_chunk, 1..=65_536),
            ("context", self.context, 16..=1 << 24),
            ("threads", self.threads, 1..=1024),
            ("threads_batch", self.threads_batch, 1..=1024),
        ])?;
        if self.ubatch > self.batch {
            return Err(Error::invalid(format!(
                "option `ubatch` is {}, expected at most `batch`, which is {}",
                self.ubatch, self.batch
            )));
        }
        if self.batch < self.slots {
            return Err(Error::invalid(format!(
                "option `batch` is {}, expected at least `slots`, which is {}",
                self.batch, self.slots
            )));
        }
        let is_share = |share: &f32| share.is_finite() && *share >= 0.0;
        if let Some(share) = self.tensor_split.iter().find(|share| !is_share(share)) {
            return Err(Error::invalid(format!(
                "option `tensor_split` holds {share}, expected a share of 0 or more for each GPU, such as [3, 1]"
            )));
        }
        let quantized = |kind: Option<KvType>| {
            kind.is_some_and(|k| !matches!(k, KvType::F32 | KvType::F16 | KvType::Bf16))
        };
        if self.flash_attention == Switch::Off && self.split_mode == SplitModeOption::Tensor {
            return Err(Error::invalid(
                "option `split_mode` is \"tensor\", which needs `flash_attention`: set it to \"auto\" or \"on\"",
            ));
        }
        if self.flash_attention == Switch::Off && quantized(self.kv_type_v.or(self.kv_type_k)) {
            return Err(Error::invalid(
                "option `kv_type_v` is quantised, which needs `flash_attention`: set it to \"auto\" or \"on\"",
            ));
        }
        Ok(())
    }

    /// Tokens of prompts after which a step begins no further prompt; `gpu` tells whether layers are computed on a GPU.
    #[must_use]
    pub fn prefill_chunk(&self, gpu: bool) -> u32 {
        // A CPU takes as long for twice the rows from a few dozen on, so a longer step only makes all wait for it.
        self.prefill_chunk.unwrap_or(if gpu { self.batch } else { PREFILL_CHUNK_CPU }).min(self.batch)
    }

    /// Element types of keys and values; `gpu` tells whether layers are computed on a GPU.
    #[must_use]
    pub fn kv_types(&self, gpu: bool) -> (KvType, KvType) {
        // On the CPU, attention over bf16 is computed row by row whatever the shape of the batch, which makes a
        // stream independent of what runs beside it; f16 takes three different paths.
        let key = self.kv_type_k.unwrap_or(if gpu { KvType::F16 } else { KvType::Bf16 });
        (key, self.kv_type_v.unwrap_or(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: Value) -> Result<Options, String> {
        Options::parse(value.as_object().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_valid() {
        let options = parse(serde_json::json!({})).unwrap();
        assert_eq!(options, Options::default());
        assert_eq!(options.kv_types(false), (KvType::Bf16, KvType::Bf16));
        assert_eq!(options.kv_types(true), (KvType::F16, KvType::F16));
        assert_eq!((options.prefill_chunk(false), options.prefill_chunk(true)), (64, 512));
    }

    #[test]
    fn wrong_options_are_named_with_what_is_allowed() {
        let cases = [
            (serde_json::json!({"slotz": 1}), vec!["`slotz`", "`slots`"]),
            (serde_json::json!({"slots": "many"}), vec!["`slots`", "u32"]),
            (serde_json::json!({"slots": 0}), vec!["`slots`", "1 to 256"]),
            (serde_json::json!({"slots": 257}), vec!["`slots`", "1 to 256"]),
            (serde_json::json!({"flash_attention": "maybe"}), vec!["`flash_attention`", "`auto`", "`off`"]),
            (serde_json::json!({"kv_type_k": "q9"}), vec!["`kv_type_k`", "`bf16`"]),
            (serde_json::json!({"lora": [{"path": "/x", "scal": 1}]}), vec!["`lora[0].scal`", "`scale`"]),
            (serde_json::json!({"split_mode": "rows"}), vec!["`split_mode`", "`row`", "`tensor`"]),
            (serde_json::json!({"split_mode": "tensor", "flash_attention": "off"}), vec!["`split_mode`"]),
            (serde_json::json!({"tensor_split": [1, -1]}), vec!["`tensor_split`", "-1"]),
            (serde_json::json!({"ubatch": 1024}), vec!["`ubatch`", "`batch`"]),
            (serde_json::json!({"flash_attention": "off", "kv_type_k": "q8_0"}), vec!["`kv_type_v`"]),
        ];
        for (json, wanted) in cases {
            let message = parse(json.clone()).unwrap_err();
            for word in wanted {
                assert!(message.contains(word), "{json}: {message}");
            }
        }
    }

    #[test]
    fn kv_types_have_ggmls_numbers() {
        for (kind, layout) in [
            (KvType::F32, (1, 4)),
            (KvType::F16, (1, 2)),
            (KvType::Bf16, (1, 2)),
            (KvType::Q8_0, (32, 34)),
            (KvType::Q5_1, (32, 24)),
            (KvType::Q5_0, (32, 22)),
            (KvType::Q4_1, (32, 20)),
            (KvType::Q4_0, (32, 18)),
        ] {
            assert_eq!(crate::ffi::type_layout(kind.ggml_type()), Some(layout), "{kind:?}");
        }
    }
}
