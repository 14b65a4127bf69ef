//! What the other side writes is read or refused, whatever it is; what this side writes is read back unchanged.
#![expect(unsafe_code, reason = "hands hostile C structs to the functions that read them")]

use std::ffi::c_void;

use pajamas_plugin_api::abi::convert::request::{read_request, with_raw_request};
use pajamas_plugin_api::abi::convert::{with_event, with_raw_event};
use pajamas_plugin_api::abi::{PjDtype, PjEvent, PjPart, PjRequest, PjStr};
use pajamas_plugin_api::{Dtype, Event, Finish, Part, Request, Task, Tensor, TensorView, TopLogprob, Usage};
use proptest::collection::vec;
use proptest::prelude::*;

/// Bytes that pointers point to.
const BUFFER_BYTES: usize = 512;
/// As a pointer, never to be followed; as a length, beyond every bound; its lower half, as a size, plausible.
const TRAP: u64 = (1 << 40) | 80;

/// Memory that the structs point into. `words` hold traps and zeros only: whoever takes one for a pointer and follows
/// it crashes.
#[derive(Debug)]
struct Memory {
    bytes: Vec<u64>,
    words: Vec<u64>,
}

fn memory() -> impl Strategy<Value = Memory> {
    let words = vec(prop_oneof![Just(0), Just(TRAP)], BUFFER_BYTES / 8);
    (vec(any::<u64>(), BUFFER_BYTES / 8), words).prop_map(|(bytes, words)| Memory { bytes, words })
}

/// A pointer and a length as a plugin may send them: `NULL` with any length, or bytes that exist, aligned or not.
#[derive(Clone, Copy, Debug)]
struct Span {
    is_null: bool,
    offset: usize,
    len: u64,
}

fn span() -> impl Strategy<Value = Span> {
    let lens = prop_oneof![0..=(BUFFER_BYTES as u64 / 2), Just(TRAP), Just(u64::MAX)];
    (any::<bool>(), 0..BUFFER_BYTES / 2, lens).prop_map(|(is_null, offset, len)| Span {
        is_null,
        offset,
        len,
    })
}

impl Span {
    fn ptr<T>(self, memory: &Memory) -> *const T {
        if self.is_null {
            std::ptr::null()
        } else {
            memory.bytes.as_ptr().wrapping_byte_add(self.offset).cast()
        }
    }

    fn text(self, memory: &Memory) -> PjStr {
        PjStr { ptr: self.ptr(memory), len: self.len }
    }
}

/// Small numbers, which are kinds and sizes, and any others.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![0..16u32, 0..256u32, any::<u32>()]
}

proptest! {
    #[test]
    fn any_event_is_read_or_refused(
        memory in memory(),
        struct_size in 0..=size_of::<PjEvent>() as u32,
        numbers in vec(number(), 13),
        spans in vec(span(), 3),
        (top_len, tensors_len) in (0..8u32, 0..8u32),
        (top_size, tensor_size) in (0..=64u32, 0..=64u32),
    ) {
        let event = PjEvent {
            struct_size,
            kind: numbers[0],
            code: numbers[1].cast_signed(),
            flags: numbers[2],
            token: numbers[3],
            logprob: f32::from_bits(numbers[4]),
            index: numbers[5],
            fraction: f32::from_bits(numbers[6]),
            sample_rate_hz: numbers[7],
            channels: numbers[8],
            prompt_tokens: numbers[9],
            cached_tokens: numbers[10],
            completion_tokens: numbers[11],
            top_len,
            top_size,
            tensors_len,
            tensor_size,
            reserved: numbers[12],
            text: spans[0].text(&memory),
            json: spans[1].text(&memory),
            data: spans[2].ptr::<c_void>(&memory),
            data_len: spans[2].len,
            top: memory.words.as_ptr().cast(),
            tensors: memory.words.as_ptr().cast(),
        };
        // SAFETY: all pointers are NULL, point to as many bytes as they say, or come with lengths beyond the bound.
        let read = unsafe { with_event(&raw const event, |event| event.is_terminal()) };
        if let Ok(is_terminal) = read {
            prop_assert_eq!(is_terminal, matches!(event.kind, 9 | 10));
        }
    }

    #[test]
    fn half_a_pointer_is_none(cut in 1..size_of::<PjEvent>() as u32) {
        let text = TopLogprob { token: 1, logprob: 0.0, text: b"x" };
        let token = Event::Token { token: 1, text: b"x", logprob: 0.0, top: &[text] };
        let read = with_raw_event(&token, |raw| {
            let mut raw = *raw;
            raw.struct_size -= cut;
            // SAFETY: all pointers come from an event that is whole.
            unsafe { with_event(&raw const raw, |_| ()) }
        });
        // Its alternatives are the last but one pointer.
        prop_assert_eq!(read.is_ok(), cut <= 8);
    }

    #[test]
    fn any_request_is_read_or_refused(
        memory in memory(),
        struct_size in 0..=size_of::<PjRequest>() as u32,
        texts in vec(span(), 2),
        parts in vec((number(), number(), number(), any::<[u8; 2]>(), vec(span(), 4)), 0..6),
        part_size in prop_oneof![Just(size_of::<PjPart>() as u32), 0..8u32],
        deadline_ms in any::<u64>(),
    ) {
        let parts: Vec<PjPart> = parts.iter().map(|(kind, size, rank, [code, bits], spans)| PjPart {
            struct_size: if *kind % 3 == 0 { *size % 100 } else { size_of::<PjPart>() as u32 },
            kind: *kind,
            flags: *size,
            dtype: PjDtype { code: *code % 8, bits: *bits & 0x78, lanes: 1 },
            rank: *rank,
            reserved: 0,
            name: spans[0].text(&memory),
            meta_json: spans[1].text(&memory),
            // As many dimensions as may be read are there.
            shape: if spans[2].is_null { std::ptr::null() } else { memory.bytes.as_ptr().cast() },
            data: spans[3].ptr::<c_void>(&memory),
            data_len: spans[3].len,
        }).collect();
        let request = PjRequest {
            struct_size,
            parts_len: parts.len() as u32,
            part_size,
            reserved: 0,
            task: texts[0].text(&memory),
            params_json: texts[1].text(&memory),
            parts: parts.as_ptr(),
            deadline_ms,
        };
        // SAFETY: as above.
        let _ = unsafe { read_request(&raw const request) };
    }

    #[test]
    fn requests_are_read_back_unchanged(
        task in "[a-z_.]{1,20}",
        texts in vec((".{0,40}", any::<bool>()), 0..4),
        tokens in vec(any::<u32>(), 0..20),
        samples in vec(-1.0f32..1.0, 0..20),
        (width, height) in (0..5u32, 0..5u32),
        deadline_ms in proptest::option::of(1..u64::MAX),
    ) {
        let mut parts: Vec<Part> = texts.into_iter().map(|(text, trusted)| Part::Text { text, trusted }).collect();
        parts.push(Part::Tokens(tokens.clone()));
        parts.push(Part::Pcm(samples));
        parts.push(Part::Rgb8 { width, height, data: vec![7; (width * height * 3) as usize] });
        parts.push(Part::Bytes(vec![1, 2, 3]));
        parts.push(Part::Tensor(Tensor {
            name: task.clone(),
            dtype: Dtype::U32,
            shape: vec![1, tokens.len() as i64],
            data: tokens.iter().flat_map(|token| token.to_ne_bytes()).collect(),
        }));
        let params = serde_json::json!({ "task": task }).into();
        let request = Request { task: Task::from_name(&task), params, parts, deadline_ms };
        // SAFETY: the struct is valid in the closure.
        let read = with_raw_request(&request, |raw| unsafe { read_request(raw) });
        prop_assert_eq!(read.unwrap(), request);
    }

    #[test]
    fn events_are_read_back_unchanged(
        bytes in vec(any::<u8>(), 0..20),
        text in ".{0,20}",
        number in any::<u32>(),
        values in vec(-1.0f32..1.0, 0..8),
    ) {
        let top = [TopLogprob { token: number, logprob: -0.5, text: &bytes }; 3];
        let usage = Usage { prompt_tokens: number, cached_tokens: 1, completion_tokens: 2 };
        let (kind, data) = (pajamas_plugin_api::ErrorKind::Device, values.as_slice());
        let shape = [bytes.len() as i64];
        let tensor = TensorView { name: &text, dtype: Dtype::U8, shape: &shape, data: &bytes };
        let events = [
            Event::Token { token: number, text: &bytes, logprob: -1.0, top: &top },
            Event::Segment { json: &text },
            Event::Audio { samples: data, sample_rate_hz: 16_000, channels: 1 },
            Event::Detections { json: &text },
            Event::Vector { index: number, values: data },
            Event::Tensors(vec![tensor, tensor]),
            Event::Progress { fraction: 0.5, text: &text },
            Event::Usage(usage),
            Event::Result { index: number, json: &text },
            Event::Done { finish: Finish::Length, usage },
            Event::Error { kind, message: &text },
        ];
        for event in &events {
            // SAFETY: the struct is valid in the closure.
            let is_same = with_raw_event(event, |raw| unsafe { with_event(raw, |read| read == event) });
            prop_assert_eq!(is_same, Ok(true), "{:?}", event);
        }
    }
}
