//! Requests across the boundary: written by the host for the length of `submit`, copied by the plugin.
#![expect(unsafe_code, reason = "reads and writes the C structs of a request")]

use std::ffi::c_void;
use std::mem::{MaybeUninit, size_of};

use super::{Malformed, RANK_MAX, check_array, read_entry, read_f32, read_sized, read_slice, read_tensor};
use crate::abi::{
    PJ_PART_BYTES, PJ_PART_PCM_F32, PJ_PART_RGB8, PJ_PART_TENSOR, PJ_PART_TEXT, PJ_PART_TOKENS,
    PJ_PART_TRUSTED, PjDtype, PjPart, PjRequest, PjStr, PjTensor,
};
use crate::error::Error;
use crate::task::{Params, Part, Request, Task};
use crate::tensor::{Dtype, Tensor};

/// Writes a request as a C struct and hands it to `f`; the struct is valid for the length of the call.
pub fn with_raw_request<R>(request: &Request, f: impl FnOnce(&PjRequest) -> R) -> R {
    // Shapes live here while the parts point to them.
    let shapes: Vec<Vec<i64>> = request.parts.iter().map(part_shape).collect();
    let parts: Vec<PjPart> =
        request.parts.iter().zip(&shapes).map(|(part, shape)| raw_part(part, shape)).collect();
    f(&PjRequest {
        struct_size: size_of::<PjRequest>() as u32,
        parts_len: parts.len() as u32,
        part_size: size_of::<PjPart>() as u32,
        reserved: 0,
        task: PjStr::new(request.task.name()),
        params_json: PjStr::new(request.params.as_json()),
        parts: parts.as_ptr(),
        deadline_ms: request.deadline_ms.unwrap_or(0),
    })
}

fn part_shape(part: &Part) -> Vec<i64> {
    match part {
        Part::Text { .. } | Part::Bytes(_) => Vec::new(),
        Part::Tokens(tokens) => vec![tokens.len() as i64],
        Part::Rgb8 { width, height, .. } => vec![i64::from(*height), i64::from(*width), 3],
        Part::Pcm(samples) => vec![samples.len() as i64],
        Part::Tensor(tensor) => tensor.shape.clone(),
    }
}

fn raw_part(part: &Part, shape: &[i64]) -> PjPart {
    let (kind, dtype, ptr, len) = match part {
        Part::Text { text, .. } => (PJ_PART_TEXT, Dtype::U8, text.as_ptr(), text.len()),
        Part::Tokens(ids) => (PJ_PART_TOKENS, Dtype::U32, ids.as_ptr().cast::<u8>(), ids.len() * 4),
        Part::Rgb8 { data, .. } => (PJ_PART_RGB8, Dtype::U8, data.as_ptr(), data.len()),
        Part::Pcm(pcm) => (PJ_PART_PCM_F32, Dtype::F32, pcm.as_ptr().cast::<u8>(), pcm.len() * 4),
        Part::Tensor(t) => (PJ_PART_TENSOR, t.dtype, t.data.as_ptr(), t.data.len()),
        Part::Bytes(bytes) => (PJ_PART_BYTES, Dtype::U8, bytes.as_ptr(), bytes.len()),
    };
    PjPart {
        struct_size: size_of::<PjPart>() as u32,
        kind,
        flags: if matches!(part, Part::Text { trusted: true, .. }) { PJ_PART_TRUSTED } else { 0 },
        dtype: dtype.to_abi(),
        rank: shape.len() as u32,
        reserved: 0,
        name: if let Part::Tensor(tensor) = part { PjStr::new(&tensor.name) } else { PjStr::EMPTY },
        meta_json: PjStr::EMPTY,
        shape: shape.as_ptr(),
        data: ptr.cast::<c_void>(),
        data_len: len as u64,
    }
}

/// Copies a request out of its C struct.
///
/// # Errors
/// The struct is malformed or the parameters are not a JSON object: [`crate::ErrorKind::Invalid`].
///
/// # Safety
/// `ptr` and all pointers in the request are valid for the length of the call.
pub unsafe fn read_request(ptr: *const PjRequest) -> Result<Request, Error> {
    let invalid = |e: Malformed| Error::invalid(format!("malformed request: {e}"));
    // SAFETY: forwarded to each read.
    unsafe {
        let raw = read_sized(ptr).map_err(invalid)?;
        let task = Task::from_name(raw.task.text("task").map_err(invalid)?);
        let params_json = raw.params_json.text("params_json").map_err(invalid)?;
        let params = if params_json.is_empty() { Params::default() } else { Params::from_json(params_json)? };
        check_array(raw.parts, raw.parts_len, raw.part_size, "parts").map_err(invalid)?;
        let parts = (0..raw.parts_len)
            .filter_map(|i| {
                read_entry(raw.parts, raw.part_size, i).and_then(|part| read_part(&part)).transpose()
            })
            .collect::<Result<_, _>>()
            .map_err(invalid)?;
        Ok(Request { task, params, parts, deadline_ms: (raw.deadline_ms != 0).then_some(raw.deadline_ms) })
    }
}

/// One part, or `None` for a kind of a newer minor.
///
/// # Safety
/// As [`read_request`].
unsafe fn read_part(raw: &PjPart) -> Result<Option<Part>, Malformed> {
    // SAFETY: forwarded to each read.
    unsafe {
        let bytes = || read_slice(raw.data.cast::<u8>(), raw.data_len, "part data");
        Ok(Some(match raw.kind {
            PJ_PART_TEXT => {
                let text = std::str::from_utf8(bytes()?).map_err(|_| Malformed::NotUtf8("text part"))?;
                Part::Text { text: text.to_owned(), trusted: raw.flags & PJ_PART_TRUSTED != 0 }
            }
            PJ_PART_TOKENS => Part::Tokens(read_tokens(raw)?),
            PJ_PART_RGB8 => read_picture(raw)?,
            PJ_PART_PCM_F32 => Part::Pcm(read_f32(raw.data, raw.data_len, "sound")?.to_vec()),
            PJ_PART_TENSOR => {
                let view = read_tensor(&tensor_of_part(raw))?;
                Part::Tensor(Tensor {
                    name: view.name.to_owned(),
                    dtype: view.dtype,
                    shape: view.shape.to_vec(),
                    data: view.data.to_vec(),
                })
            }
            PJ_PART_BYTES => Part::Bytes(bytes()?.to_vec()),
            _ => return Ok(None),
        }))
    }
}

/// # Safety
/// As [`read_request`].
unsafe fn read_tokens(raw: &PjPart) -> Result<Vec<u32>, Malformed> {
    if !raw.data_len.is_multiple_of(4) {
        let detail = format!("{} bytes are not a whole number of 32-bit token ids", raw.data_len);
        return Err(Malformed::Shape { what: "tokens".to_owned(), detail });
    }
    // SAFETY: forwarded; any bits are a u32.
    Ok(unsafe { read_slice(raw.data.cast::<u32>(), raw.data_len / 4, "tokens")? }.to_vec())
}

fn tensor_of_part(part: &PjPart) -> PjTensor {
    PjTensor {
        struct_size: size_of::<PjTensor>() as u32,
        dtype: part.dtype,
        rank: part.rank,
        reserved: 0,
        name: part.name,
        shape: part.shape,
        data: part.data,
        data_len: part.data_len,
    }
}

/// # Safety
/// As [`read_request`].
unsafe fn read_picture(raw: &PjPart) -> Result<Part, Malformed> {
    let mut tensor = tensor_of_part(raw);
    tensor.dtype = PjDtype { code: crate::abi::PJ_DTYPE_UINT, bits: 8, lanes: 1 };
    tensor.rank = tensor.rank.min(RANK_MAX);
    // SAFETY: forwarded.
    let view = unsafe { read_tensor(&tensor)? };
    let side = |dim: i64| u32::try_from(dim).ok();
    match view.shape {
        [height, width, 3] if side(*height).is_some() && side(*width).is_some() => Ok(Part::Rgb8 {
            width: side(*width).unwrap_or_default(),
            height: side(*height).unwrap_or_default(),
            data: view.data.to_vec(),
        }),
        shape => Err(Malformed::Shape {
            what: "picture".to_owned(),
            detail: format!("shape {shape:?} is not height, width, 3"),
        }),
    }
}

/// A plugin table with everything absent, of our own size; the SDK fills it in.
#[must_use]
pub fn blank_plugin() -> crate::abi::PjPlugin {
    // SAFETY: integers, pointers and optional function pointers are valid when zero.
    let mut table: crate::abi::PjPlugin = unsafe { MaybeUninit::zeroed().assume_init() };
    table.struct_size = size_of::<crate::abi::PjPlugin>() as u32;
    table
}
