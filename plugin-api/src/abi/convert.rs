//! Conversions between the C structs and safe Rust values, for both sides of the boundary.
//!
//! Reading copies the prefix that the writer declared in `struct_size` into a zeroed struct of our own size, so
//! that older and newer structs read alike: fields that the writer does not have are zero, which means absent.
#![expect(unsafe_code, reason = "this file and export.rs are the boundary to C")]

use std::ffi::{c_char, c_void};
use std::mem::{MaybeUninit, align_of, offset_of, size_of};
use std::slice;

use super::{
    PJ_EVENT_AUDIO, PJ_EVENT_DETECTIONS, PJ_EVENT_DONE, PJ_EVENT_ERROR, PJ_EVENT_PROGRESS, PJ_EVENT_RESULT,
    PJ_EVENT_SEGMENT, PJ_EVENT_TENSORS, PJ_EVENT_TOKEN, PJ_EVENT_USAGE, PJ_EVENT_VECTOR, PJ_FINISH_CANCELLED,
    PJ_FINISH_LENGTH, PJ_FINISH_STOP, PjEvent, PjHost, PjPart, PjPlugin, PjRequest, PjSink, PjStr, PjTensor,
    PjTopLogprob,
};
use crate::error::ErrorKind;
use crate::event::{Event, Finish, TopLogprob, Usage};
use crate::tensor::{Dtype, TensorView, shape_bytes};

pub mod request;

/// Longest string or buffer that is read from the other side, in bytes (1 GiB). More is a broken writer.
pub const BUFFER_BYTES_MAX: u64 = 1 << 30;
/// Most entries in an array that is read from the other side.
pub const ARRAY_LEN_MAX: u32 = 1 << 16;
/// Most dimensions of a tensor.
pub const RANK_MAX: u32 = 16;

/// What is wrong with a struct that the other side wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A required pointer is `NULL`.
    #[error("{0} is NULL")]
    Null(&'static str),
    /// A pointer does not have the alignment of what it points to.
    #[error("{0} is misaligned")]
    Misaligned(&'static str),
    /// `struct_size`, or the size of an array's entries, is too small for the fields that are required.
    #[error("{what} is truncated: its size is {found}, at least {needed} bytes are needed")]
    Truncated {
        /// Which struct.
        what: &'static str,
        /// Size as declared.
        found: u32,
        /// Size that is needed.
        needed: usize,
    },
    /// A length is beyond its bound.
    #[error("{what} is too long: {len}")]
    TooLong {
        /// Which field.
        what: &'static str,
        /// The length as declared.
        len: u64,
    },
    /// Text is not UTF-8.
    #[error("{0} is not UTF-8")]
    NotUtf8(&'static str),
    /// A payload's length does not fit its shape or element type.
    #[error("{what}: {detail}")]
    Shape {
        /// Which tensor or field.
        what: String,
        /// What does not fit.
        detail: String,
    },
}

/// A struct of the ABI that begins with `struct_size` and for which all zeros is a valid value ("all absent").
///
/// # Safety
/// The type is `repr(C)`, begins with a `u32` size, and is valid when all of its bytes are zero.
pub unsafe trait SizedStruct: Copy {
    /// Name for messages.
    const NAME: &'static str;
    /// Size up to the end of the fields that every version has.
    const REQUIRED: usize;
}

macro_rules! sized_struct {
    ($type:ty, $name:literal, $after:ident) => {
        // SAFETY: repr(C), `struct_size: u32` is its first field, and integers, pointers and optional function
        // pointers are valid when zero.
        unsafe impl SizedStruct for $type {
            const NAME: &'static str = $name;
            const REQUIRED: usize = offset_of!($type, $after);
        }
    };
}

sized_struct!(PjHost, "pj_host", get_extension);
sized_struct!(PjSink, "pj_sink", cancelled);
sized_struct!(PjEvent, "pj_event", text);
sized_struct!(PjPart, "pj_part", name);
sized_struct!(PjTensor, "pj_tensor", name);
sized_struct!(PjRequest, "pj_request", deadline_ms);
sized_struct!(PjPlugin, "pj_plugin", init);

/// Reads a growable struct of any minor version.
///
/// # Errors
/// The pointer is `NULL` or misaligned, or the struct lacks fields that every version has.
///
/// # Safety
/// A pointer that is not `NULL` points to at least 4 readable bytes, and to as many as they declare.
pub unsafe fn read_sized<T: SizedStruct>(ptr: *const T) -> Result<T, Malformed> {
    // SAFETY: forwarded.
    unsafe { read_within(ptr, u32::MAX) }
}

/// As [`read_sized`], for a struct that occupies at most `bytes_max`, whatever it declares.
///
/// # Safety
/// A pointer that is not `NULL` points to at least 4 readable bytes, and to as many as they declare up to `bytes_max`.
unsafe fn read_within<T: SizedStruct>(ptr: *const T, bytes_max: u32) -> Result<T, Malformed> {
    if ptr.is_null() {
        return Err(Malformed::Null(T::NAME));
    }
    if !ptr.is_aligned() {
        return Err(Malformed::Misaligned(T::NAME));
    }
    // SAFETY: not NULL, aligned, and the caller guarantees 4 readable bytes.
    let declared = unsafe { *ptr.cast::<u32>() }.min(bytes_max);
    if (declared as usize) < T::REQUIRED {
        return Err(Malformed::Truncated { what: T::NAME, found: declared, needed: T::REQUIRED });
    }
    let mut value = MaybeUninit::<T>::zeroed();
    let readable = whole_fields::<T>((declared as usize).min(size_of::<T>()));
    // SAFETY: `readable` bytes are declared by the writer and fit into `value`; zeroed bytes are a valid `T`.
    unsafe {
        std::ptr::copy_nonoverlapping(ptr.cast::<u8>(), value.as_mut_ptr().cast::<u8>(), readable);
        Ok(value.assume_init())
    }
}

/// How many of so many bytes hold whole fields: half of a pointer must not be taken for one. Behind the required fields all
/// others are as long as the struct's alignment, or a multiple of it.
fn whole_fields<T: SizedStruct>(bytes: usize) -> usize {
    (bytes - bytes % align_of::<T>()).max(T::REQUIRED)
}

impl PjStr {
    /// A view of `text`; valid as long as `text` is.
    #[must_use]
    pub const fn new(text: &str) -> Self {
        Self { ptr: text.as_ptr().cast::<c_char>(), len: text.len() as u64 }
    }

    /// A view of bytes that may end inside a code point.
    #[must_use]
    pub const fn from_bytes(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr().cast::<c_char>(), len: bytes.len() as u64 }
    }

    /// No text.
    pub const EMPTY: Self = Self { ptr: std::ptr::null(), len: 0 };

    /// The bytes.
    ///
    /// # Errors
    /// The pointer is `NULL` with a length, or the length is beyond [`BUFFER_BYTES_MAX`].
    ///
    /// # Safety
    /// `ptr` points to `len` bytes that are readable and unchanged for `'a`.
    pub unsafe fn bytes<'a>(self, what: &'static str) -> Result<&'a [u8], Malformed> {
        // SAFETY: forwarded.
        unsafe { read_slice(self.ptr.cast::<u8>(), self.len, what) }
    }

    /// The text.
    ///
    /// # Errors
    /// As [`PjStr::bytes`], or the bytes are not UTF-8.
    ///
    /// # Safety
    /// As [`PjStr::bytes`].
    pub unsafe fn text<'a>(self, what: &'static str) -> Result<&'a str, Malformed> {
        // SAFETY: forwarded.
        let bytes = unsafe { self.bytes(what)? };
        std::str::from_utf8(bytes).map_err(|_| Malformed::NotUtf8(what))
    }
}

/// A slice of `len` elements; empty for a length of 0.
///
/// # Errors
/// The pointer is `NULL` with a length, misaligned, or the slice is beyond [`BUFFER_BYTES_MAX`].
///
/// # Safety
/// `ptr` points to `len` elements that are readable and unchanged for `'a`, and any bytes are a valid `T`.
pub(crate) unsafe fn read_slice<'a, T>(
    ptr: *const T,
    len: u64,
    what: &'static str,
) -> Result<&'a [T], Malformed> {
    if len == 0 {
        return Ok(&[]);
    }
    if ptr.is_null() {
        return Err(Malformed::Null(what));
    }
    if !ptr.is_aligned() {
        return Err(Malformed::Misaligned(what));
    }
    if len.saturating_mul(size_of::<T>() as u64) > BUFFER_BYTES_MAX {
        return Err(Malformed::TooLong { what, len });
    }
    // SAFETY: not NULL, aligned, bounded, and readable by the caller's guarantee.
    Ok(unsafe { slice::from_raw_parts(ptr, len as usize) })
}

/// The f32 payload of an event or part whose length is given in bytes.
///
/// # Safety
/// As [`read_slice`].
pub(crate) unsafe fn read_f32<'a>(
    data: *const c_void,
    len_bytes: u64,
    what: &'static str,
) -> Result<&'a [f32], Malformed> {
    if !len_bytes.is_multiple_of(4) {
        return Err(Malformed::Shape {
            what: what.to_owned(),
            detail: format!("{len_bytes} bytes are not a whole number of 32-bit floats"),
        });
    }
    // SAFETY: forwarded; any bits are an f32.
    unsafe { read_slice(data.cast::<f32>(), len_bytes / 4, what) }
}

/// Shape and payload of a tensor, checked against each other.
///
/// # Safety
/// As [`read_slice`], for `shape` and `data`.
pub(crate) unsafe fn read_tensor<'a>(raw: &PjTensor) -> Result<TensorView<'a>, Malformed> {
    if raw.rank > RANK_MAX {
        return Err(Malformed::TooLong { what: "tensor rank", len: u64::from(raw.rank) });
    }
    // SAFETY: forwarded.
    let (name, shape, data) = unsafe {
        (
            raw.name.text("tensor name")?,
            read_slice(raw.shape, u64::from(raw.rank), "tensor shape")?,
            read_slice(raw.data.cast::<u8>(), raw.data_len, "tensor data")?,
        )
    };
    let shape_error = |detail: String| Malformed::Shape { what: format!("tensor \"{name}\""), detail };
    let dtype = Dtype::from_abi(raw.dtype)
        .ok_or_else(|| shape_error(format!("element type {:?} is unknown", raw.dtype)))?;
    let needed = shape_bytes(dtype, shape)
        .ok_or_else(|| shape_error(format!("shape {shape:?} is negative or too large")))?;
    if needed != data.len() {
        return Err(shape_error(format!(
            "shape {shape:?} of {dtype:?} needs {needed} bytes, the payload has {}",
            data.len()
        )));
    }
    Ok(TensorView { name, dtype, shape, data })
}

/// Entry `i` of an array whose entries are `stride` bytes apart and may be shorter or longer than ours.
///
/// # Safety
/// `base` points to more than `i` entries of `stride` bytes.
unsafe fn array_entry<T>(base: *const T, stride: u32, i: u32) -> *const T {
    // SAFETY: in bounds by the caller's guarantee.
    unsafe { base.byte_add(stride as usize * i as usize) }
}

/// Entry `i` of an array of growable structs: it ends where it says, and in any case where the next one begins.
///
/// # Safety
/// `base` points to more than `i` entries of `stride` bytes.
unsafe fn read_entry<T: SizedStruct>(base: *const T, stride: u32, i: u32) -> Result<T, Malformed> {
    if (stride as usize) < T::REQUIRED {
        return Err(Malformed::Truncated { what: T::NAME, found: stride, needed: T::REQUIRED });
    }
    // SAFETY: forwarded; the entry has `stride` bytes.
    unsafe { read_within(array_entry(base, stride, i), stride) }
}

/// Checks the declared shape of an array before its entries are read.
fn check_array<T>(base: *const T, len: u32, stride: u32, what: &'static str) -> Result<(), Malformed> {
    if len > ARRAY_LEN_MAX {
        return Err(Malformed::TooLong { what, len: u64::from(len) });
    }
    if len > 0 && base.is_null() {
        return Err(Malformed::Null(what));
    }
    if len > 0 && !(stride as usize).is_multiple_of(align_of::<T>()) {
        return Err(Malformed::Misaligned(what));
    }
    Ok(())
}

/// Reads an event and hands it to `f`.
///
/// # Errors
/// The event is malformed; `f` was not called.
///
/// # Safety
/// `ptr` and all pointers in the event are valid for the length of the call.
pub unsafe fn with_event<R>(ptr: *const PjEvent, f: impl FnOnce(&Event<'_>) -> R) -> Result<R, Malformed> {
    // SAFETY: forwarded to each read.
    unsafe {
        let raw = read_sized(ptr)?;
        let json = |what| raw.json.text(what);
        let usage = Usage {
            prompt_tokens: raw.prompt_tokens,
            cached_tokens: raw.cached_tokens,
            completion_tokens: raw.completion_tokens,
        };
        let event = match raw.kind {
            PJ_EVENT_TOKEN => {
                let top = read_top(&raw)?;
                return Ok(f(&Event::Token {
                    token: raw.token,
                    text: raw.text.bytes("token text")?,
                    logprob: raw.logprob,
                    top: &top,
                }));
            }
            PJ_EVENT_SEGMENT => Event::Segment { json: json("segment json")? },
            PJ_EVENT_AUDIO => Event::Audio {
                samples: read_f32(raw.data, raw.data_len, "audio")?,
                sample_rate_hz: raw.sample_rate_hz,
                channels: raw.channels,
            },
            PJ_EVENT_DETECTIONS => Event::Detections { json: json("detections json")? },
            PJ_EVENT_VECTOR => {
                Event::Vector { index: raw.index, values: read_f32(raw.data, raw.data_len, "vector")? }
            }
            PJ_EVENT_TENSORS => Event::Tensors(read_tensors(&raw)?),
            PJ_EVENT_PROGRESS => {
                Event::Progress { fraction: raw.fraction, text: raw.text.text("progress text")? }
            }
            PJ_EVENT_USAGE => Event::Usage(usage),
            PJ_EVENT_RESULT => Event::Result { index: raw.index, json: json("result json")? },
            PJ_EVENT_DONE => Event::Done { finish: finish_from(raw.code), usage },
            PJ_EVENT_ERROR => Event::Error {
                kind: ErrorKind::from_status(raw.code),
                message: raw.text.text("error message")?,
            },
            kind => Event::Other { kind },
        };
        Ok(f(&event))
    }
}

fn finish_from(code: i32) -> Finish {
    match code {
        PJ_FINISH_LENGTH => Finish::Length,
        PJ_FINISH_CANCELLED => Finish::Cancelled,
        _ => Finish::Stop,
    }
}

fn finish_code(finish: Finish) -> i32 {
    match finish {
        Finish::Stop => PJ_FINISH_STOP,
        Finish::Length => PJ_FINISH_LENGTH,
        Finish::Cancelled => PJ_FINISH_CANCELLED,
    }
}

/// # Safety
/// As [`with_event`].
unsafe fn read_top<'a>(raw: &PjEvent) -> Result<Vec<TopLogprob<'a>>, Malformed> {
    check_array(raw.top, raw.top_len, raw.top_size, "top")?;
    if raw.top_len > 0 && (raw.top_size as usize) < size_of::<PjTopLogprob>() {
        let needed = size_of::<PjTopLogprob>();
        return Err(Malformed::Truncated { what: "pj_top_logprob", found: raw.top_size, needed });
    }
    (0..raw.top_len)
        .map(|i| {
            // SAFETY: `top_len` entries of `top_size` bytes, each at least as large as our struct.
            let entry = unsafe { *array_entry(raw.top, raw.top_size, i) };
            // SAFETY: forwarded.
            let text = unsafe { entry.text.bytes("top text")? };
            Ok(TopLogprob { token: entry.token, logprob: entry.logprob, text })
        })
        .collect()
}

/// # Safety
/// As [`with_event`].
unsafe fn read_tensors<'a>(raw: &PjEvent) -> Result<Vec<TensorView<'a>>, Malformed> {
    check_array(raw.tensors, raw.tensors_len, raw.tensor_size, "tensors")?;
    (0..raw.tensors_len)
        .map(|i| {
            // SAFETY: `tensors_len` entries of `tensor_size` bytes; each declares its own size.
            unsafe { read_tensor(&read_entry(raw.tensors, raw.tensor_size, i)?) }
        })
        .collect()
}

/// An event with everything absent, of our own size.
fn blank_event(kind: u32) -> PjEvent {
    // SAFETY: integers and pointers are valid when zero.
    let mut event: PjEvent = unsafe { MaybeUninit::zeroed().assume_init() };
    event.struct_size = size_of::<PjEvent>() as u32;
    event.kind = kind;
    event.top_size = size_of::<PjTopLogprob>() as u32;
    event.tensor_size = size_of::<PjTensor>() as u32;
    event
}

fn floats(values: &[f32]) -> (*const c_void, u64) {
    (values.as_ptr().cast::<c_void>(), size_of_val(values) as u64)
}

/// Writes an event as a C struct and hands it to `f`; the struct is valid for the length of the call.
pub fn with_raw_event<R>(event: &Event<'_>, f: impl FnOnce(&PjEvent) -> R) -> R {
    let mut raw = blank_event(0);
    let mut top_entries = Vec::new();
    let mut tensor_entries = Vec::new();
    match event {
        Event::Token { token, text, logprob, top } => {
            raw.kind = PJ_EVENT_TOKEN;
            (raw.token, raw.logprob, raw.text) = (*token, *logprob, PjStr::from_bytes(text));
            top_entries.extend(top.iter().map(|t| PjTopLogprob {
                token: t.token,
                logprob: t.logprob,
                text: PjStr::from_bytes(t.text),
            }));
        }
        Event::Segment { json } => (raw.kind, raw.json) = (PJ_EVENT_SEGMENT, PjStr::new(json)),
        Event::Audio { samples, sample_rate_hz, channels } => {
            raw.kind = PJ_EVENT_AUDIO;
            (raw.sample_rate_hz, raw.channels) = (*sample_rate_hz, *channels);
            (raw.data, raw.data_len) = floats(samples);
        }
        Event::Detections { json } => (raw.kind, raw.json) = (PJ_EVENT_DETECTIONS, PjStr::new(json)),
        Event::Vector { index, values } => {
            (raw.kind, raw.index) = (PJ_EVENT_VECTOR, *index);
            (raw.data, raw.data_len) = floats(values);
        }
        Event::Tensors(tensors) => {
            raw.kind = PJ_EVENT_TENSORS;
            tensor_entries.extend(tensors.iter().map(raw_tensor));
        }
        Event::Progress { fraction, text } => {
            (raw.kind, raw.fraction, raw.text) = (PJ_EVENT_PROGRESS, *fraction, PjStr::new(text));
        }
        Event::Usage(usage) => {
            raw.kind = PJ_EVENT_USAGE;
            set_usage(&mut raw, *usage);
        }
        Event::Result { index, json } => {
            (raw.kind, raw.index, raw.json) = (PJ_EVENT_RESULT, *index, PjStr::new(json));
        }
        Event::Done { finish, usage } => {
            (raw.kind, raw.code) = (PJ_EVENT_DONE, finish_code(*finish));
            set_usage(&mut raw, *usage);
        }
        Event::Error { kind, message } => {
            (raw.kind, raw.code, raw.text) = (PJ_EVENT_ERROR, kind.status(), PjStr::new(message));
        }
        Event::Other { kind } => raw.kind = *kind,
    }
    (raw.top, raw.top_len) = (top_entries.as_ptr(), top_entries.len() as u32);
    (raw.tensors, raw.tensors_len) = (tensor_entries.as_ptr(), tensor_entries.len() as u32);
    f(&raw)
}

fn set_usage(raw: &mut PjEvent, usage: Usage) {
    raw.prompt_tokens = usage.prompt_tokens;
    raw.cached_tokens = usage.cached_tokens;
    raw.completion_tokens = usage.completion_tokens;
}

fn raw_tensor(tensor: &TensorView<'_>) -> PjTensor {
    PjTensor {
        struct_size: size_of::<PjTensor>() as u32,
        dtype: tensor.dtype.to_abi(),
        rank: tensor.shape.len() as u32,
        reserved: 0,
        name: PjStr::new(tensor.name),
        shape: tensor.shape.as_ptr(),
        data: tensor.data.as_ptr().cast::<c_void>(),
        data_len: tensor.data.len() as u64,
    }
}
