//! Files of built engines, `.engine` and `.plan`: what can be told of them without a GPU.
//!
//! The makers do not document the format. What is read here was seen in engines of TensorRT-RTX 1.4, 1.5, 1.6 and 1.7, whose
//! first 64 bytes are in the tests: `vtrt`, the length of the file in bytes 16 to 23 (little-endian), and the version's major,
//! minor, patch and build number in bytes 24 to 27. Ultralytics puts a length of four bytes and that much JSON before it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use pajamas_plugin_api::{Error, ErrorKind};
use serde_json::{Map, Value};

use crate::flavour;

/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 30;
/// Longest JSON of Ultralytics'.
const METADATA_BYTES_MAX: usize = 4 << 20;

/// Begins every engine of TensorRT-RTX.
const MAGIC: &[u8] = b"vtrt";
const LENGTH_AT: usize = 16;
const VERSION_AT: usize = 24;
/// The bytes that [`check`] looks at.
const HEADER_BYTES: usize = 64;

/// A built engine, not yet given to the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What the library takes.
    pub bytes: Vec<u8>,
    /// What the file's maker wrote before it, such as `names` and `stride` of a YOLO.
    pub metadata: BTreeMap<String, String>,
}

impl Plan {
    /// Whether a file is an engine, by its name.
    #[must_use]
    pub fn is_named_like_one(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == "engine" || extension == "plan")
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is no engine, is cut off, or is of another version of the library; the message names the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let unreadable = |error: std::io::Error| {
            Error::new(ErrorKind::NotFound, format!("{} cannot be read: {error}", path.display()))
        };
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(bad(path, "is not a file"));
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(bad(
                path,
                &format!("has {} bytes, at most {FILE_BYTES_MAX} are allowed", metadata.len()),
            ));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
        Self::parse(bytes).map_err(|problem| bad(path, &problem))
    }

    /// Takes a file's content apart and checks it.
    ///
    /// # Errors
    /// What is wrong with the file, to be said after its name.
    pub fn parse(mut bytes: Vec<u8>) -> Result<Self, String> {
        let metadata = match ultralytics(&bytes) {
            Some((metadata, len)) => {
                bytes.drain(..len);
                metadata
            }
            None => BTreeMap::new(),
        };
        check(&bytes)?;
        Ok(Self { bytes, metadata })
    }
}

fn bad(path: &Path, problem: &str) -> Error {
    Error::bad_model(format!("{} {problem}", path.display()))
}

/// What Ultralytics writes before the engine, and how long it is.
fn ultralytics(bytes: &[u8]) -> Option<(BTreeMap<String, String>, usize)> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok().filter(|len| *len <= METADATA_BYTES_MAX)?;
    let json = rest.get(..len).filter(|json| json.first() == Some(&b'{'))?;
    let map: Map<String, Value> = serde_json::from_slice(json).ok()?;
    let text = |(name, value): (String, Value)| (name.clone(), as_in_onnx(&name, value));
    Some((map.into_iter().map(text).collect(), len + 4))
}

/// A value as Ultralytics' ONNX files have it, which is what pipelines read: the text of a Python value. JSON has only texts
/// as keys, so `names` are `{"0": "cat"}` here and `{0: 'cat'}` there.
fn as_in_onnx(name: &str, value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Object(names) if name == "names" => {
            let pairs = names.iter().filter_map(|(id, name)| {
                let id: u32 = id.parse().ok()?;
                // JSON's escapes are Python's, but for those above the first 65536 characters, which become two.
                Some(format!("{id}: {}", Value::String(name.as_str()?.to_owned())))
            });
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Refuses what the library would refuse with fewer words.
fn check(plan: &[u8]) -> Result<(), String> {
    let not_one = || Err(format!("is not an engine of {}", flavour::NAME));
    if plan.len() < HEADER_BYTES {
        return not_one();
    }
    if cfg!(feature = "enterprise") {
        // The library itself checks the rest: this one's format was not looked at.
        return if plan.starts_with(MAGIC) {
            Err("is an engine of TensorRT-RTX, not of TensorRT".to_owned())
        } else {
            Ok(())
        };
    }
    if !plan.starts_with(MAGIC) {
        return not_one();
    }
    let length =
        plan.get(LENGTH_AT..).and_then(<[u8]>::first_chunk::<8>).map(|bytes| u64::from_le_bytes(*bytes));
    let version = plan.get(VERSION_AT..).and_then(<[u8]>::first_chunk::<3>);
    let (Some(length), Some(version)) = (length, version) else { return not_one() };
    if *version != flavour::VERSION {
        let [major, minor, patch] = version;
        return Err(format!(
            "was built by {} {major}.{minor}.{patch}, and this plugin has {}: build it again with that version, or load the \
             ONNX file that it was built from",
            flavour::NAME,
            flavour::full_version()
        ));
    }
    if (plan.len() as u64) < length {
        return Err(format!("is cut off: {} bytes of {length}", plan.len()));
    }
    Ok(())
}

#[cfg(test)]
#[cfg(not(feature = "enterprise"))]
#[path = "plan/tests.rs"]
mod tests;
