//! Element types by the protocol's names, and elements as JSON numbers.

use std::fmt;

use pajamas_plugin_api::Dtype;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::api::error::ApiError;

// The protocol's bytes are little-endian, those of tensors native.
const _: () =
    assert!(cfg!(target_endian = "little"), "binary tensors need their bytes swapped on this machine");

const NAMES: [(&str, Dtype); 13] = [
    ("BOOL", Dtype::Bool),
    ("UINT8", Dtype::U8),
    ("UINT16", Dtype::U16),
    ("UINT32", Dtype::U32),
    ("UINT64", Dtype::U64),
    ("INT8", Dtype::I8),
    ("INT16", Dtype::I16),
    ("INT32", Dtype::I32),
    ("INT64", Dtype::I64),
    ("FP16", Dtype::F16),
    ("FP32", Dtype::F32),
    ("FP64", Dtype::F64),
    ("BF16", Dtype::Bf16),
];

/// The protocol's name of a type.
pub(super) fn name(dtype: Dtype) -> &'static str {
    NAMES.iter().find(|(_, known)| *known == dtype).map_or("", |(name, _)| *name)
}

/// The type of this name; `place` is what has it.
///
/// # Errors
/// There is no such type here.
pub(super) fn from_name(name: &str, place: &str) -> Result<Dtype, ApiError> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, dtype)| *dtype).ok_or_else(|| {
        let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        ApiError::invalid(place, format_args!("datatype: expected one of {}", names.join(", ")))
    })
}

/// The name of tensors of strings, which are files here.
pub(super) const BYTES: &str = "BYTES";

/// Whether elements of the type may stand in JSON; half-precision numbers may not, by the protocol.
pub(super) fn has_json_form(dtype: Dtype) -> bool {
    !matches!(dtype, Dtype::F16 | Dtype::Bf16)
}

/// The elements in `json`, an array of them or an array of arrays at any depth, row by row.
///
/// # Errors
/// In words: an element of another type, or more or fewer than `count`.
pub(super) fn elements(dtype: Dtype, json: &RawValue, count: usize) -> Result<Vec<u8>, String> {
    let text = json.get();
    // An element takes two characters at least, so that a small body cannot ask for much memory.
    let mut bytes = Vec::with_capacity(count.min(text.len() / 2 + 1) * dtype.size_bytes());
    let mut left = count;
    let read = Elements { dtype, bytes: &mut bytes, left: &mut left, depth: 0 }
        .deserialize(&mut serde_json::Deserializer::from_str(text));
    match read {
        Err(error) => {
            let text = error.to_string();
            Err(text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what).to_owned())
        }
        Ok(()) if left > 0 => Err(format!("expected {count} elements, got {}", count - left)),
        Ok(()) => Ok(bytes),
    }
}

/// Reads an element, or all of an array.
struct Elements<'a> {
    dtype: Dtype,
    bytes: &'a mut Vec<u8>,
    left: &'a mut usize,
    depth: usize,
}

impl Elements<'_> {
    fn push<E: serde::de::Error, const N: usize>(self, element: Option<[u8; N]>) -> Result<(), E> {
        let element = element.ok_or_else(|| E::custom(format_args!("expected {}", Expected(self.dtype))))?;
        if self.depth == 0 {
            return Err(E::custom("expected an array"));
        }
        *self.left =
            self.left.checked_sub(1).ok_or_else(|| E::custom("it has more elements than its shape"))?;
        self.bytes.extend_from_slice(&element);
        Ok(())
    }

    fn wrong<T, E: serde::de::Error>(&self) -> Result<T, E> {
        Err(E::custom(format_args!("expected {}", Expected(self.dtype))))
    }

    fn integer<E: serde::de::Error>(self, number: i128) -> Result<(), E> {
        match self.dtype {
            Dtype::I8 => self.push(i8::try_from(number).ok().map(i8::to_ne_bytes)),
            Dtype::I16 => self.push(i16::try_from(number).ok().map(i16::to_ne_bytes)),
            Dtype::I32 => self.push(i32::try_from(number).ok().map(i32::to_ne_bytes)),
            Dtype::I64 => self.push(i64::try_from(number).ok().map(i64::to_ne_bytes)),
            Dtype::U8 => self.push(u8::try_from(number).ok().map(u8::to_ne_bytes)),
            Dtype::U16 => self.push(u16::try_from(number).ok().map(u16::to_ne_bytes)),
            Dtype::U32 => self.push(u32::try_from(number).ok().map(u32::to_ne_bytes)),
            Dtype::U64 => self.push(u64::try_from(number).ok().map(u64::to_ne_bytes)),
            Dtype::F32 => self.push(Some((number as f32).to_ne_bytes())),
            Dtype::F64 => self.push(Some((number as f64).to_ne_bytes())),
            Dtype::Bool | Dtype::F16 | Dtype::Bf16 => self.wrong(),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Expected(self.dtype))
    }

    fn visit_bool<E: serde::de::Error>(self, element: bool) -> Result<(), E> {
        if self.dtype == Dtype::Bool { self.push(Some([u8::from(element)])) } else { self.wrong() }
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.integer(number.into())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.integer(number.into())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        #[expect(clippy::cast_possible_truncation, reason = "the nearest single is what the client means")]
        let single = number as f32;
        match self.dtype {
            Dtype::F32 => self.push(single.is_finite().then(|| single.to_ne_bytes())),
            Dtype::F64 => self.push(Some(number.to_ne_bytes())),
            _ => self.wrong(),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { dtype, bytes, left, depth } = self;
        loop {
            let element = Elements { dtype, bytes: &mut *bytes, left: &mut *left, depth: depth + 1 };
            if seq.next_element_seed(element)?.is_none() {
                return Ok(());
            }
        }
    }
}

/// What an element of a type is, in words.
struct Expected(Dtype);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = match self.0 {
            Dtype::Bool => return f.write_str("true or false"),
            Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64 => {
                return write!(f, "numbers within {}", name(self.0));
            }
            Dtype::I8 => (i8::MIN.into(), i8::MAX.into()),
            Dtype::I16 => (i16::MIN.into(), i16::MAX.into()),
            Dtype::I32 => (i32::MIN.into(), i32::MAX.into()),
            Dtype::I64 => (i64::MIN.into(), i64::MAX.into()),
            Dtype::U8 => (0, u8::MAX.into()),
            Dtype::U16 => (0, u16::MAX.into()),
            Dtype::U32 => (0, u32::MAX.into()),
            Dtype::U64 => (0_i128, i128::from(u64::MAX)),
        };
        write!(f, "whole numbers from {low} to {high}")
    }
}

/// Elements as a JSON array; [`fit_json`] tells whether they have that form.
pub(super) struct JsonElements<'a>(pub(super) Dtype, pub(super) &'a [u8]);

/// Whether every element has a form in JSON: numbers that are not finite have none.
pub(super) fn fit_json(dtype: Dtype, bytes: &[u8]) -> bool {
    match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().all(|element| f32::from_ne_bytes(*element).is_finite()),
        Dtype::F64 => bytes.as_chunks().0.iter().all(|element| f64::from_ne_bytes(*element).is_finite()),
        _ => has_json_form(dtype),
    }
}

impl Serialize for JsonElements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.1;
        match self.0 {
            Dtype::Bool => serializer.collect_seq(bytes.iter().map(|element| *element != 0)),
            Dtype::U8 => serializer.collect_seq(bytes),
            Dtype::U16 => serializer.collect_seq(numbers(bytes, u16::from_ne_bytes)),
            Dtype::U32 => serializer.collect_seq(numbers(bytes, u32::from_ne_bytes)),
            Dtype::U64 => serializer.collect_seq(numbers(bytes, u64::from_ne_bytes)),
            Dtype::I8 => serializer.collect_seq(numbers(bytes, i8::from_ne_bytes)),
            Dtype::I16 => serializer.collect_seq(numbers(bytes, i16::from_ne_bytes)),
            Dtype::I32 => serializer.collect_seq(numbers(bytes, i32::from_ne_bytes)),
            Dtype::I64 => serializer.collect_seq(numbers(bytes, i64::from_ne_bytes)),
            Dtype::F32 => serializer.collect_seq(numbers(bytes, f32::from_ne_bytes)),
            Dtype::F64 => serializer.collect_seq(numbers(bytes, f64::from_ne_bytes)),
            Dtype::F16 | Dtype::Bf16 => {
                Err(serde::ser::Error::custom("half-precision numbers have no JSON form"))
            }
        }
    }
}

fn numbers<T, const N: usize>(bytes: &[u8], read: fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    bytes.as_chunks().0.iter().map(move |element| read(*element))
}
