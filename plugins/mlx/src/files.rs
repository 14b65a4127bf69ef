//! A checkpoint's folder: which files there are, and their headers, read before MLX reads anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use pajamas_generation::checkpoint::{TextFiles, read_text};
use pajamas_plugin_api::{Error, ErrorKind};
use safetensors::tensor::Metadata;

use crate::config::Config;

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
    /// What is said about its texts.
    pub texts: TextFiles,
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
        let config = Config::parse(&read_text(&folder.join("config.json"))?)?;
        let weights = weight_files(folder)?;
        let (mut weight_bytes, mut parameters) = (0, 0);
        for file in &weights {
            let (bytes, elements) = header(file, &config)?;
            weight_bytes += bytes;
            parameters += elements;
        }
        let texts = TextFiles::open(folder, &config.eos)?;
        Ok(Self { folder: folder.to_owned(), config, weights, weight_bytes, parameters, texts })
    }
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
