//! Bytes and descriptors over the socket between host and worker.
//!
//! Sending never blocks: a frame goes out at once when the socket takes it, and waits in the outbox otherwise, until
//! the owner of the outbox flushes it (a task in the host, a thread in the worker).

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use parking_lot::{Condvar, Mutex};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use super::wire::{ATTACHMENTS_MAX, Decoder, Frame};

/// Most bytes that wait in an outbox; further frames are refused.
pub(crate) const OUTBOX_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Small frames are joined up to this size, so that one system call sends many.
const CHUNK_BYTES: usize = 64 * 1024;

/// Why a frame was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError {
    /// The other end is gone.
    #[error("the connection is closed")]
    Closed,
    /// [`OUTBOX_BYTES_MAX`] bytes are waiting.
    #[error("the connection is congested")]
    Full,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    closed: bool,
    /// The socket is full; only `flush` may send.
    blocked: bool,
}

#[derive(Debug)]
struct Chunk {
    frame: Frame,
    sent: usize,
}

/// The sending end.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    blocked: Condvar,
}

impl Outbox {
    /// Queues a frame that is no hurry: it goes with the next one that is sent.
    pub(crate) fn put(&self, frame: Frame) -> Result<(), SendError> {
        let mut queue = self.queue.lock();
        queue.accept(frame)
    }

    /// Sends a frame or queues it. Returns whether a flush is needed.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>, frame: Frame) -> Result<bool, SendError> {
        let mut queue = self.queue.lock();
        queue.accept(frame)?;
        if queue.blocked {
            return Ok(false);
        }
        queue.pump(socket);
        if queue.closed {
            return Err(SendError::Closed);
        }
        if queue.blocked {
            self.blocked.notify_all();
        }
        Ok(queue.blocked)
    }

    /// Sends what waits, as far as the socket takes it. Returns whether more is waiting.
    pub(crate) fn flush(&self, socket: BorrowedFd<'_>) -> Result<bool, SendError> {
        let mut queue = self.queue.lock();
        queue.blocked = false;
        queue.pump(socket);
        if queue.closed { Err(SendError::Closed) } else { Ok(queue.blocked) }
    }

    /// Waits until `send` has met a full socket, or the outbox is closed (`false`). For a flushing thread.
    pub(crate) fn wait_blocked(&self) -> bool {
        let mut queue = self.queue.lock();
        while !queue.blocked && !queue.closed {
            self.blocked.wait(&mut queue);
        }
        !queue.closed
    }

    /// Refuses all further frames.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.blocked.notify_all();
    }
}

impl Queue {
    fn accept(&mut self, frame: Frame) -> Result<(), SendError> {
        if self.closed {
            return Err(SendError::Closed);
        }
        if self.bytes + frame.bytes.len() > OUTBOX_BYTES_MAX {
            return Err(SendError::Full);
        }
        self.append(frame);
        Ok(())
    }

    fn append(&mut self, frame: Frame) {
        self.bytes += frame.bytes.len();
        match self.chunks.back_mut() {
            Some(last)
                if frame.fds.is_empty()
                    && last.frame.fds.is_empty()
                    && last.frame.bytes.len() + frame.bytes.len() <= CHUNK_BYTES =>
            {
                last.frame.bytes.extend_from_slice(&frame.bytes);
            }
            _ => self.chunks.push_back(Chunk { frame, sent: 0 }),
        }
    }

    fn pump(&mut self, socket: BorrowedFd<'_>) {
        while let Some(chunk) = self.chunks.front_mut() {
            match send_chunk(socket, chunk) {
                Ok(sent) => {
                    chunk.sent += sent;
                    self.bytes -= sent;
                    // The descriptors went with the first byte.
                    chunk.frame.fds.clear();
                    if chunk.sent == chunk.frame.bytes.len() {
                        self.chunks.pop_front();
                    }
                }
                Err(rustix::io::Errno::AGAIN) => {
                    self.blocked = true;
                    return;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }
}

fn send_chunk(socket: BorrowedFd<'_>, chunk: &Chunk) -> rustix::io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let bytes = &chunk.frame.bytes[chunk.sent..];
    if chunk.frame.fds.is_empty() {
        return rustix::net::send(socket, bytes, flags);
    }
    let fds: Vec<BorrowedFd<'_>> = chunk.frame.fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ATTACHMENTS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(rustix::io::Errno::NOBUFS);
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)
}

/// What one read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    /// 0 means that the other end is closed.
    pub(crate) bytes: usize,
    /// The socket may hold more: the buffer is full, or descriptors came, after which the kernel ends a read.
    pub(crate) may_go_on: bool,
}

/// Reads what is there into the decoder, without waiting.
pub(crate) fn receive(socket: BorrowedFd<'_>, decoder: &mut Decoder) -> rustix::io::Result<Read> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(ATTACHMENTS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    decoder.scratch.resize(READ_BYTES, 0);
    let mut buffers = [IoSliceMut::new(&mut decoder.scratch)];
    let received = rustix::net::recvmsg(
        socket,
        &mut buffers,
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    );
    let bytes = received.as_ref().map_or(0, |message| message.bytes);
    decoder.bytes.extend_from_slice(&decoder.scratch[..bytes]);
    let fds_before = decoder.fds.len();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            decoder.fds.extend(fds);
        }
    }
    let may_go_on = bytes == READ_BYTES || decoder.fds.len() > fds_before;
    received.map(|_| Read { bytes, may_go_on })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::super::wire::{Attachments, Blob, INLINE_BYTES_MAX, encode};
    use super::*;

    #[test]
    fn frames_with_and_without_attachments_arrive_in_order() {
        let (a, b) = UnixStream::pair().unwrap();
        let outbox = Outbox::default();
        for len in [3, INLINE_BYTES_MAX + 1, 5, INLINE_BYTES_MAX + 2, 7] {
            let mut attachments = Attachments::default();
            let blob = attachments.put(&vec![1; len]).unwrap();
            outbox.send(a.as_fd(), encode(&blob, attachments).unwrap()).unwrap();
        }
        let mut decoder = Decoder::default();
        let mut lens = Vec::new();
        // All were sent, so a read after which there is no more to read must have been the last.
        while receive(b.as_fd(), &mut decoder).unwrap().may_go_on {}
        while let Some((blob, mut received)) = decoder.next::<Blob>().unwrap() {
            lens.push(received.take(blob).unwrap().len());
        }
        assert_eq!(lens, [3, INLINE_BYTES_MAX + 1, 5, INLINE_BYTES_MAX + 2, 7]);
    }

    #[test]
    fn a_full_socket_never_blocks_the_sender_and_the_outbox_is_bounded() {
        let (a, b) = UnixStream::pair().unwrap();
        let outbox = Outbox::default();
        let text = "x".repeat(1 << 20);
        let mut accepted = 0;
        let refused = loop {
            match outbox.send(a.as_fd(), encode(&text, Attachments::default()).unwrap()) {
                Ok(_) => accepted += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused, SendError::Full);
        let (mut decoder, mut arrived) = (Decoder::default(), 0);
        while arrived < accepted {
            outbox.flush(a.as_fd()).unwrap();
            receive(b.as_fd(), &mut decoder).unwrap();
            while let Some((read, _)) = decoder.next::<String>().unwrap() {
                assert_eq!(read.len(), text.len());
                arrived += 1;
            }
        }
        drop(b);
        assert_eq!(
            outbox.send(a.as_fd(), encode(&1u8, Attachments::default()).unwrap()),
            Err(SendError::Closed)
        );
    }
}
