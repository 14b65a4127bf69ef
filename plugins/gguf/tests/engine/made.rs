//! Models and adapters that the tests make out of real ones, because no small ones are to be had ready-made.
//!
//! GGUF, version 3 (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>): magic, version, tensor count, entry
//! count; the entries (key, type, value); the tensors (name, rank, dimensions, type, offset); then, aligned, the data.

use std::path::{Path, PathBuf};

const ALIGNMENT: usize = 32;
const U32: u32 = 4;
const F32: u32 = 6;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
/// The numbers of llama.cpp's ways of pooling.
pub(crate) const POOLING_RANK: u32 = 4;

/// A tensor of 32-bit floats; dimensions with the fastest first, as GGUF has them.
pub(crate) struct Weights {
    pub(crate) name: String,
    pub(crate) dims: Vec<u64>,
    pub(crate) values: Vec<f32>,
}

/// A copy of the model at `source` with more tensors and another way of pooling.
pub(crate) fn with_head(source: &Path, to: PathBuf, pooling: u32, head: &[Weights]) -> PathBuf {
    let whole = std::fs::read(source).unwrap();
    let mut reader = Reader { bytes: &whole, at: 8 };
    let (tensors, entries) = (reader.u64(), reader.u64());
    let mut pooling_at = None;
    for _ in 0..entries {
        let key = reader.string();
        let kind = reader.u32();
        if key.ends_with(b".pooling_type") {
            pooling_at = Some(reader.at);
        }
        reader.skip(kind);
    }
    let mut data_end = 0;
    for _ in 0..tensors {
        reader.string();
        let rank = reader.u32();
        reader.at += rank as usize * 8 + 4;
        data_end = data_end.max(reader.u64());
    }
    let (header, data) = (&whole[..reader.at], &whole[reader.at.next_multiple_of(ALIGNMENT)..]);
    assert!(data_end < data.len() as u64);
    let mut made = header.to_vec();
    made[8..16].copy_from_slice(&(tensors + head.len() as u64).to_le_bytes());
    let pooling_at = pooling_at.unwrap();
    made[pooling_at..pooling_at + 4].copy_from_slice(&pooling.to_le_bytes());
    append(&mut made, data, head);
    std::fs::write(&to, made).unwrap();
    to
}

/// A LoRA adapter for a model of this architecture.
pub(crate) fn lora(to: PathBuf, architecture: &str, alpha: f32, pairs: &[Weights]) -> PathBuf {
    let mut made = b"GGUF".to_vec();
    made.extend(3u32.to_le_bytes());
    made.extend((pairs.len() as u64).to_le_bytes());
    made.extend(4u64.to_le_bytes());
    for (key, value) in
        [("general.type", "adapter"), ("general.architecture", architecture), ("adapter.type", "lora")]
    {
        string(&mut made, key);
        made.extend(STRING.to_le_bytes());
        string(&mut made, value);
    }
    string(&mut made, "adapter.lora.alpha");
    made.extend(F32.to_le_bytes());
    made.extend(alpha.to_le_bytes());
    append(&mut made, &[], pairs);
    std::fs::write(&to, made).unwrap();
    to
}

/// Ends the table of tensors and adds the data: first what is there, then the new tensors.
fn append(made: &mut Vec<u8>, data: &[u8], tensors: &[Weights]) {
    let mut data = data.to_vec();
    for tensor in tensors {
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        string(made, &tensor.name);
        made.extend((tensor.dims.len() as u32).to_le_bytes());
        tensor.dims.iter().for_each(|dim| made.extend(dim.to_le_bytes()));
        made.extend(0u32.to_le_bytes());
        made.extend((data.len() as u64).to_le_bytes());
        tensor.values.iter().for_each(|value| data.extend(value.to_le_bytes()));
    }
    made.resize(made.len().next_multiple_of(ALIGNMENT), 0);
    made.extend(data);
}

fn string(made: &mut Vec<u8>, text: &str) {
    made.extend((text.len() as u64).to_le_bytes());
    made.extend(text.as_bytes());
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn u32(&mut self) -> u32 {
        self.at += 4;
        u32::from_le_bytes(self.bytes[self.at - 4..self.at].try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        self.at += 8;
        u64::from_le_bytes(self.bytes[self.at - 8..self.at].try_into().unwrap())
    }

    fn string(&mut self) -> &'a [u8] {
        let length = self.u64() as usize;
        self.at += length;
        &self.bytes[self.at - length..self.at]
    }

    /// Goes past a value of this type.
    fn skip(&mut self, kind: u32) {
        match kind {
            0 | 1 | 7 => self.at += 1,
            2 | 3 => self.at += 2,
            U32 | 5 | F32 => self.at += 4,
            STRING => {
                self.string();
            }
            ARRAY => {
                let kind = self.u32();
                for _ in 0..self.u64() {
                    self.skip(kind);
                }
            }
            _ => self.at += 8,
        }
    }
}
