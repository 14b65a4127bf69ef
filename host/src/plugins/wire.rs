//! Frames: a length, a number of attached file descriptors, a postcard body; large buffers travel as memfds.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;

use bytes::{Buf as _, Bytes, BytesMut};
use pajamas_plugin_api::{Error, Event, Params, Part, Request, Task, Tensor};
use rustix::fs::{MemfdFlags, SealFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::protocol::{WireEvent, WirePart, WireRequest, WireTensor};
use crate::engine::{JobEvent, OutputTensor, TokenLogprob};

/// Buffers of more bytes than this travel as memfds.
pub(crate) const INLINE_BYTES_MAX: usize = 256 * 1024;
/// Largest body of a frame; a larger one is refused at the sender, and ends the connection at the receiver.
pub(crate) const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most memfds of one frame (the kernel's limit is 253); further buffers stay inline.
pub(crate) const ATTACHMENTS_MAX: usize = 128;
/// Largest attachment; a larger one is refused at both ends.
pub(crate) const ATTACHMENT_BYTES_MAX: u64 = 4 << 30;
/// Length and number of attachments, both u32 in little-endian order.
const HEADER_BYTES: usize = 8;

/// Why a frame cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The body does not decode.
    #[error("malformed frame")]
    Body(#[from] postcard::Error),
    /// Beyond a bound.
    #[error("a frame of {0} bytes is beyond the limit of {FRAME_BYTES_MAX}")]
    TooLarge(usize),
    /// An attachment is missing or has another length than announced.
    #[error("attachment {0} is missing or damaged")]
    Attachment(usize),
    /// The system refuses.
    #[error("cannot move an attachment")]
    Io(#[from] std::io::Error),
}

/// A buffer inside a message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Blob {
    /// In the frame itself.
    Inline(Bytes),
    /// In the frame's attachment `index`.
    Attached { index: u32, len: u64 },
}

/// Attachments of a frame that is being written.
#[derive(Debug, Default)]
pub(crate) struct Attachments {
    fds: Vec<OwnedFd>,
}

impl Attachments {
    /// Puts a buffer where it belongs by its size.
    pub(crate) fn put(&mut self, data: &[u8]) -> Result<Blob, WireError> {
        if data.len() <= INLINE_BYTES_MAX || self.fds.len() >= ATTACHMENTS_MAX {
            return Ok(Blob::Inline(Bytes::copy_from_slice(data)));
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create("pajamas", flags).map_err(std::io::Error::from)?);
        file.write_all(data)?;
        file.rewind()?;
        // The receiver must not see the buffer shrink while it reads.
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)
            .map_err(std::io::Error::from)?;
        let index = self.fds.len() as u32;
        self.fds.push(file.into());
        Ok(Blob::Attached { index, len: data.len() as u64 })
    }

    fn put_floats(&mut self, values: &[f32]) -> Result<Blob, WireError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
        self.put(&bytes)
    }
}

/// Attachments of a frame that was read.
#[derive(Debug, Default)]
pub(crate) struct Received {
    fds: Vec<Option<OwnedFd>>,
}

impl Received {
    /// The buffer behind a blob.
    pub(crate) fn take(&mut self, blob: Blob) -> Result<Bytes, WireError> {
        let (index, len) = match blob {
            Blob::Inline(bytes) => return Ok(bytes),
            Blob::Attached { index, len } => (index as usize, len),
        };
        let missing = || WireError::Attachment(index);
        let fd = self.fds.get_mut(index).and_then(Option::take).ok_or_else(missing)?;
        let file = File::from(fd);
        if len > ATTACHMENT_BYTES_MAX || file.metadata()?.len() != len {
            return Err(missing());
        }
        let mut data = Vec::with_capacity(len as usize);
        (&file).take(len).read_to_end(&mut data)?;
        if data.len() as u64 == len { Ok(Bytes::from(data)) } else { Err(missing()) }
    }

    fn take_floats(&mut self, blob: Blob) -> Result<Vec<f32>, WireError> {
        let bytes = self.take(blob)?;
        let (chunks, _) = bytes.as_chunks::<4>();
        Ok(chunks.iter().map(|chunk| f32::from_ne_bytes(*chunk)).collect())
    }
}

/// An encoded frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Encodes a message.
pub(crate) fn encode<M: Serialize>(message: &M, attachments: Attachments) -> Result<Frame, WireError> {
    let mut bytes = postcard::to_extend(message, vec![0; HEADER_BYTES])?;
    let body = bytes.len() - HEADER_BYTES;
    if body > FRAME_BYTES_MAX {
        return Err(WireError::TooLarge(body));
    }
    bytes[..4].copy_from_slice(&(body as u32).to_le_bytes());
    bytes[4..HEADER_BYTES].copy_from_slice(&(attachments.fds.len() as u32).to_le_bytes());
    Ok(Frame { bytes, fds: attachments.fds })
}

/// Cuts frames out of a stream of bytes and descriptors.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    pub(crate) bytes: BytesMut,
    pub(crate) fds: std::collections::VecDeque<OwnedFd>,
    /// Where the system puts what it read; kept, because a new one would have to be cleared each time.
    pub(crate) scratch: Vec<u8>,
}

impl Decoder {
    /// The next complete message, or `None` when more bytes are needed.
    pub(crate) fn next<M: DeserializeOwned>(&mut self) -> Result<Option<(M, Received)>, WireError> {
        let Some((header, _)) = self.bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [a, b, c, d, e, f, g, h] = *header;
        let body = u32::from_le_bytes([a, b, c, d]) as usize;
        let attached = u32::from_le_bytes([e, f, g, h]) as usize;
        if body > FRAME_BYTES_MAX || attached > ATTACHMENTS_MAX {
            return Err(WireError::TooLarge(body));
        }
        if self.bytes.len() < HEADER_BYTES + body {
            self.bytes.reserve(HEADER_BYTES + body - self.bytes.len());
            return Ok(None);
        }
        if self.fds.len() < attached {
            return Err(WireError::Attachment(self.fds.len()));
        }
        self.bytes.advance(HEADER_BYTES);
        let frame = self.bytes.split_to(body);
        let message = postcard::from_bytes(&frame)?;
        Ok(Some((message, Received { fds: self.fds.drain(..attached).map(Some).collect() })))
    }
}

/// A request as it travels.
pub(crate) fn request_to_wire(request: &Request, to: &mut Attachments) -> Result<WireRequest, WireError> {
    let parts = request.parts.iter().map(|part| {
        Ok(match part {
            Part::Text { text, trusted } => WirePart::Text { text: text.clone(), trusted: *trusted },
            Part::Tokens(ids) => WirePart::Tokens(ids.clone()),
            Part::Rgb8 { width, height, data } => {
                WirePart::Rgb8 { width: *width, height: *height, data: to.put(data)? }
            }
            Part::Pcm(samples) => WirePart::Pcm(to.put_floats(samples)?),
            Part::Tensor(t) => WirePart::Tensor {
                name: t.name.clone(),
                dtype: t.dtype,
                shape: t.shape.clone(),
                data: to.put(&t.data)?,
            },
            Part::Bytes(data) => WirePart::Bytes(to.put(data)?),
        })
    });
    Ok(WireRequest {
        task: request.task.name().to_owned(),
        params_json: request.params.as_json().to_owned(),
        parts: parts.collect::<Result<_, WireError>>()?,
        deadline_ms: request.deadline_ms,
    })
}

/// A request as the worker hands it to the plugin.
pub(crate) fn request_from_wire(request: WireRequest, from: &mut Received) -> Result<Request, Error> {
    let broken =
        |e: WireError| Error::internal(format!("the request was damaged on its way to the worker: {e}"));
    let parts = request.parts.into_iter().map(|part| {
        Ok(match part {
            WirePart::Text { text, trusted } => Part::Text { text, trusted },
            WirePart::Tokens(ids) => Part::Tokens(ids),
            WirePart::Rgb8 { width, height, data } => {
                Part::Rgb8 { width, height, data: from.take(data).map_err(broken)?.into() }
            }
            WirePart::Pcm(samples) => Part::Pcm(from.take_floats(samples).map_err(broken)?),
            WirePart::Tensor { name, dtype, shape, data } => {
                Part::Tensor(Tensor { name, dtype, shape, data: from.take(data).map_err(broken)?.into() })
            }
            WirePart::Bytes(data) => Part::Bytes(from.take(data).map_err(broken)?.into()),
        })
    });
    Ok(Request {
        task: Task::from_name(&request.task),
        params: Params::from_json(request.params_json)?,
        parts: parts.collect::<Result<_, Error>>()?,
        deadline_ms: request.deadline_ms,
    })
}

/// An event as it travels; `None` for kinds that this version does not know.
pub(crate) fn event_to_wire(event: &Event<'_>, to: &mut Attachments) -> Result<Option<WireEvent>, WireError> {
    Ok(Some(match event {
        Event::Token { token, text, logprob, top } => WireEvent::Token {
            token: token_logprob(*token, *logprob, text),
            top: top.iter().map(|t| token_logprob(t.token, t.logprob, t.text)).collect(),
        },
        Event::Segment { json } => WireEvent::Segment((*json).to_owned()),
        Event::Audio { samples, sample_rate_hz, channels } => WireEvent::Audio {
            samples: to.put_floats(samples)?,
            sample_rate_hz: *sample_rate_hz,
            channels: *channels,
        },
        Event::Detections { json } => WireEvent::Detections((*json).to_owned()),
        Event::Vector { index, values } => {
            WireEvent::Vector { index: *index, values: to.put_floats(values)? }
        }
        Event::Tensors(tensors) => {
            let tensors = tensors.iter().map(|t| {
                let data = to.put(t.data)?;
                Ok(WireTensor { name: t.name.to_owned(), dtype: t.dtype, shape: t.shape.to_vec(), data })
            });
            WireEvent::Tensors(tensors.collect::<Result<_, WireError>>()?)
        }
        Event::Progress { fraction, text } => {
            WireEvent::Progress { fraction: *fraction, text: (*text).to_owned() }
        }
        Event::Usage(usage) => WireEvent::Usage(*usage),
        Event::Result { index, json } => WireEvent::Result { index: *index, json: (*json).to_owned() },
        Event::Done { finish, usage } => WireEvent::Done { finish: *finish, usage: *usage },
        Event::Error { kind, message } => WireEvent::Error { kind: *kind, message: (*message).to_owned() },
        Event::Other { .. } => return Ok(None),
    }))
}

fn token_logprob(token: u32, logprob: f32, text: &[u8]) -> TokenLogprob {
    TokenLogprob { token, logprob, text: Bytes::copy_from_slice(text) }
}

/// An event as the host uses it.
pub(crate) fn event_from_wire(event: WireEvent, from: &mut Received) -> Result<JobEvent, WireError> {
    Ok(match event {
        WireEvent::Token { token, top } => JobEvent::Token { token, top },
        WireEvent::Segment(json) => JobEvent::Segment(json),
        WireEvent::Audio { samples, sample_rate_hz, channels } => {
            JobEvent::Audio { samples: from.take_floats(samples)?, sample_rate_hz, channels }
        }
        WireEvent::Detections(json) => JobEvent::Detections(json),
        WireEvent::Vector { index, values } => JobEvent::Vector { index, values: from.take_floats(values)? },
        WireEvent::Tensors(tensors) => {
            let tensors = tensors.into_iter().map(|t| {
                Ok(OutputTensor { name: t.name, dtype: t.dtype, shape: t.shape, data: from.take(t.data)? })
            });
            JobEvent::Tensors(tensors.collect::<Result<_, WireError>>()?)
        }
        WireEvent::Progress { fraction, text } => JobEvent::Progress { fraction, text },
        WireEvent::Usage(usage) => JobEvent::Usage(usage),
        WireEvent::Result { index, json } => JobEvent::Result { index, json },
        WireEvent::Done { finish, usage } => JobEvent::Done { finish, usage },
        WireEvent::Error { kind, message } => {
            JobEvent::Failed(crate::engine::EngineError::Plugin(Error::new(kind, message)))
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(decoder: &mut Decoder, frame: Frame) {
        decoder.bytes.extend_from_slice(&frame.bytes);
        decoder.fds.extend(frame.fds);
    }

    #[test]
    fn large_buffers_travel_as_attachments_and_small_ones_inline() {
        for len in [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 3_000_000] {
            let data = vec![7; len];
            let mut attachments = Attachments::default();
            let blob = attachments.put(&data).unwrap();
            let frame = encode(&blob, attachments).unwrap();
            assert_eq!(frame.fds.len(), usize::from(len > INLINE_BYTES_MAX));
            let mut decoder = Decoder::default();
            feed(&mut decoder, frame);
            let (blob, mut received) = decoder.next::<Blob>().unwrap().unwrap();
            assert_eq!(received.take(blob).unwrap(), data);
        }
    }

    #[test]
    fn an_attachment_of_another_length_is_refused() {
        let mut attachments = Attachments::default();
        attachments.put(&vec![1; INLINE_BYTES_MAX + 1]).unwrap();
        let lie = Blob::Attached { index: 0, len: 5 };
        let mut decoder = Decoder::default();
        feed(&mut decoder, encode(&lie, attachments).unwrap());
        let (blob, mut received) = decoder.next::<Blob>().unwrap().unwrap();
        assert!(matches!(received.take(blob), Err(WireError::Attachment(0))));
    }

    #[test]
    fn an_oversized_frame_is_refused_before_it_is_read() {
        let mut decoder = Decoder::default();
        decoder.bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        decoder.bytes.extend_from_slice(&0u32.to_le_bytes());
        assert!(matches!(decoder.next::<String>(), Err(WireError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn frames_survive_any_chunking(texts in prop::collection::vec(".{0,40}", 0..8), cut in 1usize..9) {
            let mut stream = Vec::new();
            for text in &texts {
                stream.extend(encode(text, Attachments::default()).unwrap().bytes);
            }
            let (mut decoder, mut read) = (Decoder::default(), Vec::new());
            for chunk in stream.chunks(cut) {
                decoder.bytes.extend_from_slice(chunk);
                while let Some((text, _)) = decoder.next::<String>().unwrap() {
                    read.push(text);
                }
            }
            prop_assert_eq!(read, texts);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.bytes.extend_from_slice(&bytes);
            while let Ok(Some(_)) = decoder.next::<super::super::protocol::FromWorker>() {}
        }
    }
}
