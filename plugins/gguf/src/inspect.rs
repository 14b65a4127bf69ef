//! What a GGUF file says about its model, and how much memory it will need, without loading it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Error, ErrorKind, ModelInfo, Task};

use crate::backend::gpu_devices;
use crate::ffi;
use crate::gguf_file::{GgufError, GgufFile, Value};
use crate::options::{
    CONTEXT_DEFAULT, CONTEXT_FLOOR, KV_BYTES_DEFAULT_MAX, KvType, Options, Pooling, SplitModeOption,
};

/// Number of the type "control" of a token in GGUF files.
const TOKEN_TYPE_CONTROL: i64 = 3;
/// Longest text that is embedded when `context` is not given.
const EMBED_LEN_DEFAULT: u32 = 2048;

/// A checked model file with its parts.
#[derive(Clone, Debug)]
pub(crate) struct ModelFile {
    /// The first part.
    pub header: GgufFile,
    /// Bytes of the weights of all parts.
    pub weight_bytes: u64,
    /// Parameters of all parts.
    pub parameters: u64,
    architecture: String,
}

impl ModelFile {
    /// Opens a file and checks its header, and those of its other parts.
    ///
    /// # Errors
    /// The file is missing, not GGUF, cut off or damaged; the message names it.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let header = open(path)?;
        let architecture = header
            .text("general.architecture")
            .ok_or_else(|| bad(path, "has no `general.architecture`: it is not a model"))?
            .to_owned();
        if header.text("general.type").is_some_and(|kind| kind != "model") {
            return Err(bad(path, "is not a model but an adapter or another kind of GGUF file"));
        }
        let mut file =
            Self { weight_bytes: header.tensor_bytes, parameters: header.parameters, architecture, header };
        for part in file.other_parts(path)? {
            let other = open(&part)?;
            file.weight_bytes += other.tensor_bytes;
            file.parameters += other.parameters;
        }
        Ok(file)
    }

    /// Paths of the other parts of a model that is split into several files.
    fn other_parts(&self, path: &Path) -> Result<Vec<PathBuf>, Error> {
        let count = self.header.u32("split.count").unwrap_or(0);
        if count <= 1 {
            return Ok(Vec::new());
        }
        let suffix = format!("-00001-of-{count:05}.gguf");
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(stem) = name.strip_suffix(&suffix) else {
            return Err(bad(
                path,
                &format!("is one of {count} parts: name the first, which ends in {suffix}"),
            ));
        };
        Ok((2..=count)
            .map(|part| path.with_file_name(format!("{stem}-{part:05}-of-{count:05}.gguf")))
            .collect())
    }

    fn arch_u32(&self, key: &str) -> Option<u32> {
        self.header.u32(&format!("{}.{key}", self.architecture))
    }

    /// Longest sequence that the model was trained for.
    pub(crate) fn context_trained(&self) -> u32 {
        self.arch_u32("context_length").unwrap_or(CONTEXT_DEFAULT)
    }

    /// Bytes of the key-value cache for one token.
    pub(crate) fn kv_bytes_per_token(&self, (key, value): (KvType, KvType)) -> u64 {
        let layers = self.arch_u32("block_count").unwrap_or(0);
        let width = u64::from(self.arch_u32("embedding_length").unwrap_or(0));
        let heads = u64::from(self.arch_u32("attention.head_count").unwrap_or(1).max(1));
        let head_key = self.arch_u32("attention.key_length").map_or(width / heads, u64::from);
        let head_value = self.arch_u32("attention.value_length").map_or(width / heads, u64::from);
        let kv_key = format!("{}.attention.head_count_kv", self.architecture);
        (0..layers as usize)
            .map(|layer| {
                let heads_kv = match self.header.value(&kv_key) {
                    Some(Value::Ints(list)) => {
                        list.get(layer).and_then(|n| u64::try_from(*n).ok()).unwrap_or(0)
                    }
                    Some(Value::Int(number)) => u64::try_from(*number).unwrap_or(0),
                    _ => heads,
                };
                row_bytes(heads_kv * head_key, key) + row_bytes(heads_kv * head_value, value)
            })
            .sum()
    }

    /// The context for these options: see [`Options::context`].
    pub(crate) fn context(&self, options: &Options, gpu: bool) -> u32 {
        if let Some(context) = options.context {
            return context;
        }
        let per_token = self.kv_bytes_per_token(options.kv_types(gpu));
        let mut context = self.context_trained().min(CONTEXT_DEFAULT);
        while context > CONTEXT_FLOOR
            && per_token * u64::from(context) * u64::from(buffers(options)) > KV_BYTES_DEFAULT_MAX
        {
            context /= 2;
        }
        context
    }

    /// Longest text that is embedded.
    pub(crate) fn embed_len(&self, options: &Options) -> u32 {
        options.context.unwrap_or(EMBED_LEN_DEFAULT).min(self.context_trained())
    }

    /// Estimated bytes once loaded: weights, key-value cache and the buffers of the computation.
    pub(crate) fn estimated_bytes(&self, options: &Options, gpu: bool) -> u64 {
        let cells = match (self.is_embedding_model(), self.is_causal()) {
            (false, _) => u64::from(self.context(options, gpu)) * u64::from(buffers(options)),
            (true, true) => u64::from(self.embed_len(options)),
            (true, false) => 0,
        };
        let kv = cells * self.kv_bytes_per_token(options.kv_types(gpu));
        let width = u64::from(self.arch_u32("embedding_length").unwrap_or(0));
        let inner = u64::from(self.arch_u32("feed_forward_length").unwrap_or(0));
        let vocabulary = u64::from(self.vocab_size().unwrap_or(0));
        // Activations of one layer live at once; logits are kept for one row of each slot, twice.
        let rows = u64::from(options.ubatch) * (4 * width + 2 * inner);
        let logits = 2 * u64::from(options.slots) * vocabulary;
        self.weight_bytes + kv + 4 * (rows + logits)
    }

    /// Whether the model was made for embeddings or scores and generates nothing.
    fn is_embedding_model(&self) -> bool {
        !self.is_causal() || self.arch_u32("pooling_type").is_some_and(|pooling| pooling > 0)
    }

    fn is_causal(&self) -> bool {
        self.header.bool(&format!("{}.attention.causal", self.architecture)).unwrap_or(true)
    }

    /// The pooling of embeddings: what the options say, else what the file says, else the mean.
    ///
    /// # Errors
    /// It is `rank`, but the model has no classifier.
    pub(crate) fn pooling(&self, options: &Options) -> Result<Pooling, Error> {
        let own = self.arch_u32("pooling_type").and_then(Pooling::from_llama_type);
        let pooling = options.pooling.or(own).unwrap_or(Pooling::Mean);
        if pooling == Pooling::Rank && !self.header.classifier {
            return Err(Error::invalid(
                "this model has no classifier: set the option `pooling` to another value than `rank`",
            ));
        }
        Ok(pooling)
    }

    fn vocab_size(&self) -> Option<u32> {
        let tokens = self.header.texts("tokenizer.ggml.tokens").len();
        if tokens > 0 { u32::try_from(tokens).ok() } else { self.arch_u32("vocab_size") }
    }

    /// The tasks that a model of this file offers.
    fn tasks(&self, options: &Options) -> Vec<Task> {
        if ENCODER_DECODERS.contains(&self.architecture.as_str()) {
            return vec![Task::Tokenize];
        }
        let vectors = match self.pooling(options) {
            Ok(Pooling::Rank) => vec![Task::Rerank],
            Ok(_) => vec![Task::Embed],
            Err(_) => vec![],
        };
        let generate = (!self.is_embedding_model()).then_some(Task::Generate);
        generate.into_iter().chain(vectors).chain([Task::Tokenize]).collect()
    }

    /// Everything that `inspect` answers.
    pub(crate) fn info(&self, options: &Options) -> ModelInfo {
        let gpu = uses_gpu(options);
        let tokens = self.header.texts("tokenizer.ggml.tokens");
        let kinds = self.header.ints("tokenizer.ggml.token_type");
        let token = |key: &str| {
            let index = self.header.u32(&format!("tokenizer.ggml.{key}_token_id"))?;
            tokens.get(index as usize).cloned()
        };
        let control = tokens.iter().zip(kinds).filter(|(_, kind)| **kind == TOKEN_TYPE_CONTROL);
        // Of a model that is spread over several GPUs, the first one stands for all.
        let number = if options.split_mode == SplitModeOption::None { options.main_gpu as usize } else { 0 };
        let gpu_device = gpu_devices().into_iter().nth(number).filter(|_| gpu);
        let device = gpu_device.map_or_else(|| "cpu".to_owned(), |gpu| gpu.id);
        let tasks = self.tasks(options);
        ModelInfo {
            format: "gguf".to_owned(),
            architecture: self.architecture.clone(),
            parameters: Some(self.parameters),
            quantization: self.header.u32("general.file_type").and_then(quantization),
            context_length: self.arch_u32("context_length"),
            embedding_length: self.arch_u32("embedding_length"),
            vocab_size: self.vocab_size(),
            chat_template: self.header.text("tokenizer.chat_template").map(str::to_owned),
            bos_token: token("bos"),
            eos_token: token("eos"),
            control_tokens: control.map(|(text, _)| text.clone()).collect(),
            estimated_bytes: BTreeMap::from([(device, self.estimated_bytes(options, gpu))]),
            slots: Some(options.slots),
            tasks,
            ..ModelInfo::default()
        }
    }
}

/// Architectures whose decoder reads an encoder's output; only their tokenizer is offered.
const ENCODER_DECODERS: [&str; 3] = ["t5", "t5encoder", "clip"];

/// Whether layers go to a GPU.
pub(crate) fn uses_gpu(options: &Options) -> bool {
    options.gpu_layers != Some(0) && !gpu_devices().is_empty()
}

/// Buffers of `context` cells.
fn buffers(options: &Options) -> u32 {
    if options.kv_unified { 1 } else { options.slots }
}

fn row_bytes(elements: u64, kind: KvType) -> u64 {
    let (block, bytes) = ffi::type_layout(kind.ggml_type()).unwrap_or((1, 4));
    elements.div_ceil(block) * bytes
}

/// The usual short name, where there is one: llama.cpp's `Q4_K - Medium` is everywhere else `Q4_K_M`.
fn quantization(file_type: u32) -> Option<String> {
    let name = ffi::file_type_name(file_type);
    let (kind, detail) = name.split_once(" - ").unwrap_or((&name, ""));
    match (kind, detail) {
        (unknown, _) if unknown.starts_with("unknown") => None,
        ("all F32", _) => Some("F32".to_owned()),
        (kind, "Small" | "Medium" | "Large") => Some(format!("{kind}_{}", &detail[..1])),
        (kind, _) => kind.split(' ').next().map(str::to_owned),
    }
}

fn open(path: &Path) -> Result<GgufFile, Error> {
    GgufFile::open(path).map_err(|error| match &error {
        GgufError::Io(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, format!("{} does not exist", path.display()))
        }
        GgufError::Io(cause) => {
            Error::new(ErrorKind::NotFound, format!("{} {error}: {cause}", path.display()))
        }
        _ => bad(path, &error.to_string()),
    })
}

fn bad(path: &Path, reason: &str) -> Error {
    Error::bad_model(format!("{} {reason}", path.display()))
}
