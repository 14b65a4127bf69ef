//! A bounded reader of GGUF headers. llama.cpp trusts a file more than we may: it allocates what a header asks for and
//! ends the process on some inconsistencies. So each file passes here first, and metadata is read from here.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::ffi::type_layout;

/// Most key-value pairs; models have about 50.
const PAIRS_MAX: u64 = 65_536;
/// Most tensors; the largest known models have about 100 000.
const TENSORS_MAX: u64 = 1 << 20;
/// Longest key, as the format says.
const KEY_BYTES_MAX: u64 = 65_535;
/// Longest string value; the longest chat templates have some 10 KiB.
const STRING_BYTES_MAX: u64 = 16 << 20;
/// Most elements of an array; the largest vocabularies have 300 000 tokens and twice as many merges.
const ARRAY_LEN_MAX: u64 = 1 << 24;
/// Longest tensor name in bytes, one less than ggml's buffer.
const NAME_BYTES_MAX: u64 = 63;
/// Most dimensions of a tensor in ggml.
const DIMENSIONS_MAX: u32 = 4;
const ALIGNMENT_DEFAULT: u64 = 32;

/// Why a file is not a usable GGUF model. The messages fit after the file's name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GgufError {
    /// Reading failed.
    #[error("cannot be read")]
    Io(#[source] io::Error),
    /// Other magic number.
    #[error("is not a GGUF file (it begins with {0:?} instead of \"GGUF\")")]
    Magic(String),
    /// A version that llama.cpp does not read.
    #[error("has GGUF version {0}; versions 2 and 3 can be read")]
    Version(u32),
    /// Written on a machine of the other byte order.
    #[error("has the byte order of another kind of machine")]
    ByteOrder,
    /// Ends too early.
    #[error("is cut off: {0}")]
    Truncated(String),
    /// A number that cannot be right.
    #[error("is damaged: {0}")]
    Damaged(String),
}

/// A value of the metadata. Arrays of floats and of numbers that nobody needs are kept as their length.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Any integer.
    Int(i64),
    /// Any float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string; invalid UTF-8 is replaced.
    Text(String),
    /// An array of integers.
    Ints(Vec<i64>),
    /// An array of strings.
    Texts(Vec<String>),
    /// Another array, by its length.
    Other(u64),
}

/// What a file says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GgufFile {
    /// The metadata.
    pub values: HashMap<String, Value>,
    /// Number of tensors.
    pub tensors: u64,
    /// Number of parameters.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// There is a classifier on top, which reranking needs.
    pub classifier: bool,
}

impl GgufFile {
    /// Reads and checks the header of a file, without its weights.
    pub(crate) fn open(path: &Path) -> Result<Self, GgufError> {
        let file = File::open(path).map_err(GgufError::Io)?;
        let len = file.metadata().map_err(GgufError::Io)?.len();
        Self::read(BufReader::with_capacity(1 << 20, file), len)
    }

    /// Reads from a source of `len` bytes.
    pub(crate) fn read(source: impl Read, len: u64) -> Result<Self, GgufError> {
        let mut reader = Reader { source, position: 0, len };
        let (tensors, pairs) = reader.header()?;
        let mut file = Self { tensors, ..Self::default() };
        for _ in 0..pairs {
            let key = reader.string(KEY_BYTES_MAX, "a key")?;
            let kind = reader.u32()?;
            let value = reader.value(&key, kind)?;
            if file.values.insert(key.clone(), value).is_some() {
                return Err(GgufError::Damaged(format!("the key `{key}` occurs twice")));
            }
        }
        file.read_tensors(&mut reader)?;
        Ok(file)
    }

    fn read_tensors(&mut self, reader: &mut Reader<impl Read>) -> Result<(), GgufError> {
        let alignment = match self.int("general.alignment") {
            None => ALIGNMENT_DEFAULT,
            Some(alignment) => u64::try_from(alignment)
                .ok()
                .filter(|alignment| alignment.is_power_of_two() && *alignment <= 1 << 20)
                .ok_or_else(|| GgufError::Damaged(format!("`general.alignment` is {alignment}")))?,
        };
        let (mut expected, mut end) = (0u64, 0u64);
        let mut last_name = String::new();
        for _ in 0..self.tensors {
            let tensor = reader.tensor()?;
            if tensor.offset != expected {
                return Err(GgufError::Damaged(format!(
                    "tensor `{}` is at offset {}, expected {expected}",
                    tensor.name, tensor.offset
                )));
            }
            let next =
                expected.checked_add(tensor.bytes).and_then(|end| end.checked_next_multiple_of(alignment));
            expected = next.ok_or_else(|| {
                GgufError::Damaged(format!("tensor `{}` has an impossible size", tensor.name))
            })?;
            // The last tensor may lack its padding.
            end = tensor.offset + tensor.bytes;
            self.parameters = self.parameters.saturating_add(tensor.elements);
            self.tensor_bytes += tensor.bytes;
            self.classifier |= tensor.name.starts_with("cls.");
            last_name = tensor.name;
        }
        let end = reader.position.next_multiple_of(alignment).saturating_add(end);
        if self.tensors > 0 && end > reader.len {
            return Err(GgufError::Truncated(format!(
                "it has {} bytes and its tensors, up to `{last_name}`, need {end}",
                reader.len
            )));
        }
        Ok(())
    }

    /// The value of a key.
    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// An integer.
    pub(crate) fn int(&self, key: &str) -> Option<i64> {
        match self.value(key)? {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// An integer that is not negative and fits.
    pub(crate) fn u32(&self, key: &str) -> Option<u32> {
        self.int(key).and_then(|number| u32::try_from(number).ok())
    }

    /// A boolean.
    pub(crate) fn bool(&self, key: &str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A string.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.value(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An array of strings.
    pub(crate) fn texts(&self, key: &str) -> &[String] {
        match self.value(key) {
            Some(Value::Texts(texts)) => texts,
            _ => &[],
        }
    }

    /// An array of integers.
    pub(crate) fn ints(&self, key: &str) -> &[i64] {
        match self.value(key) {
            Some(Value::Ints(numbers)) => numbers,
            _ => &[],
        }
    }
}

struct Tensor {
    name: String,
    elements: u64,
    bytes: u64,
    offset: u64,
}

struct Reader<R> {
    source: R,
    position: u64,
    len: u64,
}

impl<R: Read> Reader<R> {
    fn header(&mut self) -> Result<(u64, u64), GgufError> {
        let magic: [u8; 4] = self.bytes()?;
        if &magic != b"GGUF" {
            return Err(GgufError::Magic(magic.escape_ascii().to_string()));
        }
        let version = self.u32()?;
        match version {
            2 | 3 => {}
            other if other & 0xffff == 0 => return Err(GgufError::ByteOrder),
            other => return Err(GgufError::Version(other)),
        }
        let tensors = self.count(TENSORS_MAX, "tensors")?;
        let pairs = self.count(PAIRS_MAX, "key-value pairs")?;
        Ok((tensors, pairs))
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value, GgufError> {
        const STRING: u32 = 8;
        const ARRAY: u32 = 9;
        match kind {
            STRING => self.string(STRING_BYTES_MAX, key).map(Value::Text),
            ARRAY => self.array(key),
            _ => self.scalar(key, kind),
        }
    }

    fn scalar(&mut self, key: &str, kind: u32) -> Result<Value, GgufError> {
        Ok(match kind {
            0 => Value::Int(i64::from(u8::from_le_bytes(self.bytes()?))),
            1 => Value::Int(i64::from(i8::from_le_bytes(self.bytes()?))),
            2 => Value::Int(i64::from(u16::from_le_bytes(self.bytes()?))),
            3 => Value::Int(i64::from(i16::from_le_bytes(self.bytes()?))),
            4 => Value::Int(i64::from(self.u32()?)),
            5 => Value::Int(i64::from(i32::from_le_bytes(self.bytes()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.bytes()?))),
            7 => match u8::from_le_bytes(self.bytes()?) {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(GgufError::Damaged(format!("the boolean `{key}` is {other}"))),
            },
            10 => Value::Int(i64::try_from(self.u64()?).unwrap_or(i64::MAX)),
            11 => Value::Int(i64::from_le_bytes(self.bytes()?)),
            12 => Value::Float(f64::from_le_bytes(self.bytes()?)),
            other => {
                return Err(GgufError::Damaged(format!(
                    "the key `{key}` has a value of unknown type {other}"
                )));
            }
        })
    }

    fn array(&mut self, key: &str) -> Result<Value, GgufError> {
        let kind = self.u32()?;
        let len = self.count(ARRAY_LEN_MAX, key)?;
        let element_bytes = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            other => {
                return Err(GgufError::Damaged(format!(
                    "the array `{key}` has elements of unknown type {other}"
                )));
            }
        };
        self.expect_bytes(len * element_bytes, key)?;
        match kind {
            8 if wanted(key) => (0..len)
                .map(|_| self.string(STRING_BYTES_MAX, key))
                .collect::<Result<_, _>>()
                .map(Value::Texts),
            8 => {
                for _ in 0..len {
                    let bytes = self.count(STRING_BYTES_MAX, key)?;
                    self.skip(bytes, key)?;
                }
                Ok(Value::Other(len))
            }
            6 | 7 | 12 => self.skip(len * element_bytes, key).map(|()| Value::Other(len)),
            _ => {
                let mut numbers = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
                for _ in 0..len {
                    if let Value::Int(number) = self.scalar(key, kind)? {
                        numbers.push(number);
                    }
                }
                Ok(Value::Ints(numbers))
            }
        }
    }

    fn tensor(&mut self) -> Result<Tensor, GgufError> {
        let name = self.string(NAME_BYTES_MAX, "a tensor's name")?;
        let dimensions = self.u32()?;
        if dimensions > DIMENSIONS_MAX {
            return Err(GgufError::Damaged(format!("tensor `{name}` has {dimensions} dimensions")));
        }
        let mut elements: u64 = 1;
        let mut row = 1;
        for index in 0..dimensions {
            let dimension = self.u64()?;
            row = if index == 0 { dimension } else { row };
            elements = elements
                .checked_mul(dimension)
                .filter(|elements| i64::try_from(*elements).is_ok())
                .ok_or_else(|| GgufError::Damaged(format!("tensor `{name}` has an impossible size")))?;
        }
        let kind = self.u32()?;
        let offset = self.u64()?;
        let (block, block_bytes) = type_layout(kind)
            .ok_or_else(|| GgufError::Damaged(format!("tensor `{name}` has the unknown type {kind}")))?;
        if row % block != 0 {
            return Err(GgufError::Damaged(format!(
                "tensor `{name}` has rows of {row}, not a multiple of {block}"
            )));
        }
        let bytes = (elements / block)
            .checked_mul(block_bytes)
            .ok_or_else(|| GgufError::Damaged(format!("tensor `{name}` has an impossible size")))?;
        Ok(Tensor { name, elements, bytes, offset })
    }

    fn count(&mut self, max: u64, what: &str) -> Result<u64, GgufError> {
        let count = self.u64()?;
        if count > max {
            return Err(GgufError::Damaged(format!(
                "`{what}`: a length of {count} is above the limit of {max}"
            )));
        }
        Ok(count)
    }

    fn string(&mut self, max: u64, what: &str) -> Result<String, GgufError> {
        let len = self.count(max, what)?;
        self.expect_bytes(len, what)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.fill(&mut bytes)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), GgufError> {
        self.source.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                GgufError::Truncated(format!("its header does not end within {} bytes", self.len))
            }
            _ => GgufError::Io(error),
        })?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn skip(&mut self, len: u64, what: &str) -> Result<(), GgufError> {
        self.expect_bytes(len, what)?;
        let skipped =
            io::copy(&mut self.source.by_ref().take(len), &mut io::sink()).map_err(GgufError::Io)?;
        self.position += skipped;
        if skipped < len {
            return Err(GgufError::Truncated(format!("its header does not end within {} bytes", self.len)));
        }
        Ok(())
    }

    /// Refuses a length before memory is reserved for it.
    fn expect_bytes(&self, len: u64, what: &str) -> Result<(), GgufError> {
        if len > self.len.saturating_sub(self.position) {
            return Err(GgufError::Truncated(format!("`{what}` needs {len} bytes more than there are")));
        }
        Ok(())
    }
}

/// Arrays of strings that somebody reads; merges and scores are large and stay in the file.
fn wanted(key: &str) -> bool {
    key == "tokenizer.ggml.tokens"
}

#[cfg(test)]
mod tests;
