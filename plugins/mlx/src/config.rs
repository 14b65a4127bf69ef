//! `config.json`, as `transformers` and `mlx_lm` write it, and what it means for the network.

use std::collections::BTreeMap;

use pajamas_generation::checkpoint::Ids;
use pajamas_plugin_api::Error;
use serde::Deserialize;

/// What a decoder's layers are made of. The values are those of `mlx_lm`'s model files of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Llama, and Mistral, which differs in its sliding window only.
    Llama,
    /// Qwen2: biases on queries, keys and values.
    Qwen2,
    /// Qwen3: queries and keys are normalised.
    Qwen3,
    /// Gemma: scaled embeddings, norms around one, GELU.
    Gemma,
    /// Gemma 2: norms after each half too, soft caps.
    Gemma2,
    /// Gemma 3 (text): as Gemma 2 without caps, with normalised queries and keys, most layers local.
    Gemma3,
}

/// The file's fields that this plugin reads; others are ignored, as there are hundreds.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ConfigFile {
    model_type: String,
    hidden_size: u32,
    num_hidden_layers: u32,
    intermediate_size: u32,
    num_attention_heads: u32,
    vocab_size: u32,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    rms_norm_eps: Option<f32>,
    max_position_embeddings: Option<u32>,
    rope_theta: Option<f32>,
    #[serde(default)]
    rope_traditional: bool,
    rope_scaling: Option<RopeScaling>,
    /// Newer files have base and scaling here.
    rope_parameters: Option<RopeScaling>,
    rope_local_base_freq: Option<f32>,
    tie_word_embeddings: Option<bool>,
    sliding_window: Option<u32>,
    sliding_window_pattern: Option<u32>,
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    query_pre_attn_scalar: Option<f32>,
    attn_logit_softcapping: Option<f32>,
    final_logit_softcapping: Option<f32>,
    quantization: Option<QuantizationFile>,
    #[serde(default)]
    eos_token_id: Ids,
}

/// How the frequencies of RoPE are changed for long contexts.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct RopeScaling {
    #[serde(alias = "rope_type", rename = "type")]
    pub kind: Option<String>,
    pub rope_theta: Option<f32>,
    pub factor: Option<f32>,
    pub low_freq_factor: Option<f32>,
    pub high_freq_factor: Option<f32>,
    pub original_max_position_embeddings: Option<f32>,
    pub beta_fast: Option<f32>,
    pub beta_slow: Option<f32>,
    pub mscale: Option<f32>,
    pub mscale_all_dim: Option<f32>,
}

/// Bits and group size of all matrices, and of single ones that differ.
#[derive(Clone, Debug, Deserialize)]
struct QuantizationFile {
    group_size: i32,
    bits: i32,
    #[serde(default = "affine")]
    mode: String,
    #[serde(flatten)]
    overrides: BTreeMap<String, serde_json::Value>,
}

fn affine() -> String {
    "affine".to_owned()
}

/// How a matrix is quantised: groups of `group_size` elements of a row share a scale and a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Quantization {
    pub group_size: i32,
    pub bits: i32,
}

/// A network's shape, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub family: Family,
    /// The file's own name of the architecture.
    pub model_type: String,
    pub hidden: i32,
    pub inner: i32,
    pub layers: usize,
    pub heads: i32,
    pub kv_heads: i32,
    pub head_dim: i32,
    pub vocab_size: i32,
    pub norm_eps: f32,
    /// Longest sequence that the model was trained for.
    pub context_len: u32,
    pub rope_base: f32,
    pub rope_traditional: bool,
    pub rope_scaling: Option<RopeScaling>,
    /// RoPE base of local layers, where it differs.
    pub rope_base_local: Option<f32>,
    /// Cells that a local layer sees, its own included.
    pub window: Option<i32>,
    /// Which layers are local.
    pub is_local: Vec<bool>,
    /// Factor of the attention scores.
    pub attention_scale: f32,
    /// Scores are squeezed between plus and minus this.
    pub attention_cap: Option<f32>,
    /// Logits are squeezed between plus and minus this.
    pub logits_cap: Option<f32>,
    /// The embedding matrix is also the output matrix. Gemma does not say: it is where no other one is stored.
    pub tied: Option<bool>,
    pub eos: Ids,
    quantization: Option<QuantizationFile>,
}

/// Bounds of a plausible network: a file beyond them is damaged.
const SIZE_MAX: u32 = 1 << 20;
const LAYERS_MAX: u32 = 1024;
const VOCAB_MAX: u32 = 1 << 22;

impl Config {
    /// Reads the text of `config.json`.
    ///
    /// # Errors
    /// It is no JSON object of this kind, names an architecture or a RoPE that is not supported, or has impossible sizes.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let file: ConfigFile = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| Error::bad_model(format!("config.json: {error}")))?;
        let family = family(&file.model_type)?;
        check_sizes(&file)?;
        let heads = file.num_attention_heads;
        let head_dim = file.head_dim.unwrap_or(file.hidden_size / heads);
        let is_gemma = matches!(family, Family::Gemma | Family::Gemma2 | Family::Gemma3);
        let (window, is_local) = local_layers(&file, family);
        let default_base = match family {
            Family::Qwen2 | Family::Qwen3 | Family::Gemma3 => 1_000_000.0,
            _ => 10_000.0,
        };
        let nested = file.rope_parameters.as_ref();
        let rope_base = file.rope_theta.or(nested.and_then(|rope| rope.rope_theta)).unwrap_or(default_base);
        let caps = family == Family::Gemma2;
        let attention_scalar =
            if caps || family == Family::Gemma3 { file.query_pre_attn_scalar } else { None };
        let tied =
            if is_gemma { file.tie_word_embeddings.filter(|tied| *tied) } else { file.tie_word_embeddings };
        Ok(Self {
            family,
            hidden: int(file.hidden_size),
            inner: int(file.intermediate_size),
            layers: file.num_hidden_layers as usize,
            heads: int(heads),
            kv_heads: int(file.num_key_value_heads.unwrap_or(heads)),
            head_dim: int(head_dim),
            vocab_size: int(file.vocab_size),
            norm_eps: file.rms_norm_eps.unwrap_or(1e-6),
            context_len: file.max_position_embeddings.unwrap_or(2048),
            rope_base,
            rope_traditional: file.rope_traditional,
            rope_scaling: file.rope_scaling.clone().or_else(|| nested.cloned()),
            rope_base_local: (family == Family::Gemma3)
                .then(|| file.rope_local_base_freq.unwrap_or(10_000.0)),
            window,
            is_local,
            attention_scale: attention_scalar.unwrap_or(head_dim as f32).powf(-0.5),
            attention_cap: if caps { file.attn_logit_softcapping.or(Some(50.0)) } else { None },
            logits_cap: if caps { file.final_logit_softcapping.or(Some(30.0)) } else { None },
            tied,
            eos: file.eos_token_id,
            quantization: quantization(file.quantization)?,
            model_type: file.model_type,
        })
    }

    /// How the matrix of this name is stored, if its scales are there.
    pub(crate) fn quantization_of(&self, name: &str) -> Option<Quantization> {
        let file = self.quantization.as_ref()?;
        let own = file.overrides.get(name).and_then(|value| serde_json::from_value(value.clone()).ok());
        Some(own.unwrap_or(Quantization { group_size: file.group_size, bits: file.bits }))
    }

    /// The quantisation of most matrices.
    pub(crate) fn quantization(&self) -> Option<Quantization> {
        self.quantization.as_ref().map(|file| Quantization { group_size: file.group_size, bits: file.bits })
    }

    /// Whether the norms' weights are stored as differences from one.
    pub(crate) fn is_gemma(&self) -> bool {
        matches!(self.family, Family::Gemma | Family::Gemma2 | Family::Gemma3)
    }

    /// Bytes of keys and values for one token, at 2 bytes an element.
    pub(crate) fn kv_bytes_per_token(&self) -> u64 {
        let width = u64::from(self.kv_heads.unsigned_abs()) * u64::from(self.head_dim.unsigned_abs());
        4 * self.layers as u64 * width
    }
}

fn family(model_type: &str) -> Result<Family, Error> {
    Ok(match model_type {
        "llama" | "mistral" => Family::Llama,
        "qwen2" => Family::Qwen2,
        "qwen3" => Family::Qwen3,
        "gemma" => Family::Gemma,
        "gemma2" => Family::Gemma2,
        "gemma3_text" => Family::Gemma3,
        other => {
            return Err(Error::bad_model(format!(
                "config.json: `model_type` is {other}; this plugin knows llama, mistral, qwen2, qwen3, gemma, gemma2 \
                 and gemma3_text"
            )));
        }
    })
}

fn check_sizes(file: &ConfigFile) -> Result<(), Error> {
    let heads_kv = file.num_key_value_heads.unwrap_or(file.num_attention_heads);
    let sizes = [
        ("hidden_size", file.hidden_size, SIZE_MAX),
        ("num_hidden_layers", file.num_hidden_layers, LAYERS_MAX),
        ("intermediate_size", file.intermediate_size, SIZE_MAX),
        ("num_attention_heads", file.num_attention_heads, SIZE_MAX),
        ("num_key_value_heads", heads_kv, SIZE_MAX),
        ("vocab_size", file.vocab_size, VOCAB_MAX),
        ("head_dim", file.head_dim.unwrap_or(file.hidden_size / file.num_attention_heads.max(1)), SIZE_MAX),
        ("max_position_embeddings", file.max_position_embeddings.unwrap_or(1), u32::MAX),
    ];
    if let Some((name, value, max)) = sizes.into_iter().find(|(_, value, max)| *value == 0 || value > max) {
        return Err(Error::bad_model(format!("config.json: `{name}` is {value}, expected 1 to {max}")));
    }
    if !file.num_attention_heads.is_multiple_of(heads_kv) {
        return Err(Error::bad_model(format!(
            "config.json: `num_attention_heads` is {}, which is no multiple of the {heads_kv} of `num_key_value_heads`",
            file.num_attention_heads
        )));
    }
    Ok(())
}

/// The window, and which layers have it.
fn local_layers(file: &ConfigFile, family: Family) -> (Option<i32>, Vec<bool>) {
    let layers = file.num_hidden_layers as usize;
    let window = file.sliding_window.filter(|window| *window > 0).map(int);
    let is_local: Vec<bool> = match (&file.layer_types, family) {
        (Some(types), Family::Llama | Family::Gemma3) if types.len() == layers => {
            types.iter().map(|kind| kind == "sliding_attention").collect()
        }
        // The last layer of each group sees everything.
        (_, Family::Gemma3) => {
            let pattern = file.sliding_window_pattern.unwrap_or(6).max(1) as usize;
            (0..layers).map(|layer| (layer + 1) % pattern != 0).collect()
        }
        (_, Family::Llama) if file.model_type == "mistral" && file.use_sliding_window != Some(false) => {
            vec![window.is_some(); layers]
        }
        _ => vec![false; layers],
    };
    let window = window.or((family == Family::Gemma3).then_some(512));
    (window.filter(|_| is_local.contains(&true)), is_local)
}

fn quantization(file: Option<QuantizationFile>) -> Result<Option<QuantizationFile>, Error> {
    let Some(file) = file else { return Ok(None) };
    if file.mode != "affine"
        || !matches!(file.bits, 2 | 3 | 4 | 5 | 6 | 8)
        || !matches!(file.group_size, 32 | 64 | 128)
    {
        return Err(Error::bad_model(format!(
            "config.json: `quantization` is {} with {} bits in groups of {}; supported are affine with 2, 3, 4, 5, 6 or 8 \
             bits in groups of 32, 64 or 128",
            file.mode, file.bits, file.group_size
        )));
    }
    Ok(Some(file))
}

fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
