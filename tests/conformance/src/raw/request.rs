//! Requests in memory that can be overwritten as soon as `submit` has returned.
#![expect(unsafe_code, reason = "copies what the C structs point to")]

use std::mem::offset_of;
use std::slice;

use pajamas_plugin_api::Request;
use pajamas_plugin_api::abi::convert::request::with_raw_request;
use pajamas_plugin_api::abi::{PjPart, PjRequest, PjStr};

use super::block::{Block, Buffer, Shape};

/// A request and everything that it points to.
pub(crate) struct RequestBlock {
    request: Block,
    parts: Block,
    buffers: Vec<Buffer>,
}

impl RequestBlock {
    /// Copies a request. `params` replaces its parameters, to send some that are not JSON.
    pub(crate) fn new(request: &Request, params: Option<&str>, shape: Shape) -> Self {
        with_raw_request(request, |raw| {
            let mut buffers = Vec::new();
            // SAFETY: `with_raw_request` makes as many parts as it says.
            let parts = unsafe { entries(raw) };
            let parts: Vec<PjPart> = parts.iter().map(|part| own_part(part, &mut buffers)).collect();
            let parts = Block::new(&parts, size_of::<PjPart>(), shape);
            let request = PjRequest {
                part_size: parts.stride() as u32,
                parts: parts.as_ptr(),
                task: own_text(raw.task, &mut buffers),
                params_json: own_text(params.map_or(raw.params_json, PjStr::new), &mut buffers),
                ..*raw
            };
            let size = if shape == Shape::Smaller {
                offset_of!(PjRequest, deadline_ms)
            } else {
                size_of::<PjRequest>()
            };
            Self { request: Block::new(&[request], size, shape), parts, buffers }
        })
    }

    pub(crate) fn as_ptr(&self) -> *const PjRequest {
        self.request.as_ptr()
    }

    /// Overwrites the request and all that it points to.
    pub(crate) fn poison(&mut self) {
        self.request.poison();
        self.parts.poison();
        self.buffers.iter_mut().for_each(Buffer::poison);
    }
}

/// # Safety
/// `request` points to as many parts as it says, of this library's size.
unsafe fn entries(request: &PjRequest) -> &[PjPart] {
    if request.parts_len == 0 {
        return &[];
    }
    // SAFETY: forwarded.
    unsafe { slice::from_raw_parts(request.parts, request.parts_len as usize) }
}

fn own(ptr: *const u8, len: u64, buffers: &mut Vec<Buffer>) -> *const u8 {
    // SAFETY: all pointers come from `with_raw_request` and are valid in its closure.
    let bytes = if len == 0 { &[] } else { unsafe { slice::from_raw_parts(ptr, len as usize) } };
    let buffer = Buffer::new(bytes);
    let copy = buffer.as_ptr();
    buffers.push(buffer);
    copy
}

fn own_text(text: PjStr, buffers: &mut Vec<Buffer>) -> PjStr {
    PjStr { ptr: own(text.ptr.cast(), text.len, buffers).cast(), len: text.len }
}

fn own_part(part: &PjPart, buffers: &mut Vec<Buffer>) -> PjPart {
    PjPart {
        name: own_text(part.name, buffers),
        meta_json: own_text(part.meta_json, buffers),
        shape: own(part.shape.cast(), u64::from(part.rank) * 8, buffers).cast(),
        data: own(part.data.cast(), part.data_len, buffers).cast(),
        ..*part
    }
}
