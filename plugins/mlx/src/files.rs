//! A checkpoint's folder: which files there are, and their headers, read before MLX reads anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{Error, ErrorKind};
use safetensors::tensor::Metadata;
use serde::Deserialize;
use serde_json::Value;

use crate::config::{Config, Ids};

/// Largest file of metadata or tokens; a larger one is refused.
const TEXT_BYTES_MAX: u64 = 256 << 20;
/// Largest header of weights: the limit of the format's own library.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Most files of weights.
const FILES_MAX: usize = 1024;

/// What a folder holds.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub folder: PathBuf,
    pub config: Config,
    /// The files of weights, in order of their names.
    pub weights: Vec<PathBuf>,
    /// Bytes of all weights.
    pub weight_bytes: u64,
    /// Parameters: elements of all arrays, as they were before they were packed.
    pub parameters: u64,
    pub chat_template: Option<String>,
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    /// Tokens that end a text.
    pub ends: Vec<u32>,
}

impl Checkpoint {
    /// Opens the folder, or the folder of the file that `path` names.
    ///
    /// # Errors
    /// A file is missing, too large, or damaged; the message names it.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
        if !folder.is_dir() {
            return Err(Error::new(ErrorKind::NotFound, format!("{} does not exist", path.display())));
        }
        let config = Config::parse(&text(&folder.join("config.json"))?)?;
        let weights = weight_files(folder)?;
        let (mut weight_bytes, mut parameters) = (0, 0);
        for file in &weights {
            let (bytes, elements) = header(file, &config)?;
            weight_bytes += bytes;
            parameters += elements;
        }
        let tokenizer: TokenizerConfig = optional(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let generation: GenerationConfig =
            optional(&folder.join("generation_config.json"))?.unwrap_or_default();
        let template_file = folder.join("chat_template.jinja");
        let chat_template = if template_file.is_file() {
            Some(text(&template_file)?)
        } else {
            tokenizer.chat_template.and_then(ChatTemplate::text)
        };
        let mut ends = config.eos.clone();
        ends.extend(generation.eos_token_id.list());
        Ok(Self {
            folder: folder.to_owned(),
            config,
            weights,
            weight_bytes,
            parameters,
            chat_template,
            bos_token: tokenizer.bos_token.and_then(token_text),
            eos_token: tokenizer.eos_token.and_then(token_text),
            ends,
        })
    }
}

/// The fields of `tokenizer_config.json` that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    chat_template: Option<ChatTemplate>,
    bos_token: Option<Value>,
    eos_token: Option<Value>,
}

/// The fields of `generation_config.json` that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GenerationConfig {
    eos_token_id: Ids,
}

/// One template, or several with names.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ChatTemplate {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl ChatTemplate {
    fn text(self) -> Option<String> {
        match self {
            Self::One(text) => Some(text),
            Self::Named(list) => {
                list.into_iter().find(|entry| entry.name == "default").map(|entry| entry.template)
            }
        }
    }
}

/// A token is a text, or an object with its text.
fn token_text(token: Value) -> Option<String> {
    let text = token.get("content").unwrap_or(&token);
    text.as_str().map(str::to_owned)
}

/// Reads a file of bounded size.
///
/// # Errors
/// It is missing or too large.
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, Error> {
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, format!("{} does not exist", path.display()))
        }
        _ => Error::bad_model(format!("could not read {}: {error}", path.display())),
    };
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(Error::bad_model(format!("{} is larger than {TEXT_BYTES_MAX} bytes", path.display())));
    }
    Ok(bytes)
}

fn text(path: &Path) -> Result<String, Error> {
    String::from_utf8(read_bounded(path)?)
        .map_err(|_| Error::bad_model(format!("{} is no UTF-8 text", path.display())))
}

/// Reads a JSON file that need not be there.
fn optional<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, Error> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = text(path)?;
    let mut reader = serde_json::Deserializer::from_str(&text);
    let value = serde_path_to_error::deserialize(&mut reader);
    value.map(Some).map_err(|error| Error::bad_model(format!("{}: {error}", path.display())))
}

fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let cannot = |error| Error::bad_model(format!("could not read {}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in folder.read_dir().map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // As `mlx_lm` does: a folder may hold other safetensors, such as adapters.
        if name.starts_with("model") && name.ends_with(".safetensors") {
            files.push(path);
        }
    }
    files.sort();
    match files.len() {
        0 => Err(Error::bad_model(format!("{} has no file model*.safetensors", folder.display()))),
        1..=FILES_MAX => Ok(files),
        count => Err(Error::bad_model(format!(
            "{} has {count} files of weights, at most {FILES_MAX}",
            folder.display()
        ))),
    }
}

/// Bytes and parameters of a file of weights, told by its header, which is checked against the file's length.
fn header(path: &Path, config: &Config) -> Result<(u64, u64), Error> {
    let bad = |reason: String| Error::bad_model(format!("{}: {reason}", path.display()));
    let cannot = |error: std::io::Error| bad(format!("cannot be read: {error}"));
    let mut file = File::open(path).map_err(cannot)?;
    let file_len = file.metadata().map_err(cannot)?.len();
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).map_err(|_| bad("is shorter than a header".to_owned()))?;
    let header_len = u64::from_le_bytes(prefix);
    if header_len > HEADER_BYTES_MAX || header_len > file_len.saturating_sub(8) {
        return Err(bad(format!("says that its header has {header_len} bytes, and the file has {file_len}")));
    }
    let mut bytes = Vec::new();
    file.take(header_len).read_to_end(&mut bytes).map_err(cannot)?;
    // Reading it also checks that the arrays lie one after the other, each as long as its shape says.
    let metadata: Metadata =
        serde_json::from_slice(&bytes).map_err(|error| bad(format!("is no safetensors file: {error}")))?;
    let data_len = metadata.data_len() as u64;
    if 8 + header_len + data_len != file_len {
        return Err(bad(format!(
            "has {file_len} bytes, and its header speaks of {}; it may have been cut off",
            8 + header_len + data_len
        )));
    }
    let tensors: BTreeMap<_, _> = metadata.tensors().into_iter().collect();
    let parameters = tensors
        .iter()
        .map(|(name, info)| {
            let elements: u64 = info.shape.iter().map(|dim| *dim as u64).product();
            let matrix = name.strip_suffix(".weight").unwrap_or(name);
            let is_part = name.ends_with(".scales") || name.ends_with(".biases");
            let is_packed = tensors.contains_key(&format!("{matrix}.scales"));
            match config.quantization_of(matrix).filter(|_| is_packed) {
                _ if is_part => 0,
                Some(packed) => elements * 32 / u64::from(packed.bits.unsigned_abs().max(1)),
                None => elements,
            }
        })
        .sum();
    Ok((data_len, parameters))
}
