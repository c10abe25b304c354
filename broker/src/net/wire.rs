//! A stream with what was read of it and what is to be written to it.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use unhidra_core::time::Timestamp;

use super::output::{Output, PIECES_MAX};
use crate::doors::Stream;

/// How much one read takes at most: what a TLS record or four hold, and a batch of a fast client.
const READ_BYTES: usize = 64 * 1024;

/// How many buffers a thread keeps for the next connection that needs one.
const SPARE_MAX: usize = 4;

/// The largest of them. A larger one is given back to the system.
const SPARE_BYTES_MAX: usize = 4 * READ_BYTES;

thread_local! {
    /// Where every read of this thread lands, so that an idle connection holds no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
    /// Buffers of connections that came to rest on this thread: what is busy needs no allocator.
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// A stream and its two buffers, both empty and without memory while nothing is under way.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    pub(super) input: BytesMut,
    pub(super) output: Output,
    flush: Flush,
    /// Since when the peer has taken nothing of what waits for it.
    stalled_since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flush {
    Done,
    Due,
    /// The peer is gone: nothing more is written.
    Abandoned,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Read {
    /// Bytes, now in `input`.
    Bytes(usize),
    /// The peer writes no more.
    End,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, input: BytesMut::new(), output: Output::default(), flush: Flush::Done, stalled_since: None }
    }

    /// Whether something waits to be written.
    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty() || self.flush == Flush::Due
    }

    /// Since when the peer has taken nothing.
    pub(super) const fn stalled_since(&self) -> Option<Timestamp> {
        self.stalled_since
    }

    /// The peer is gone, or as good as gone: nothing more is written.
    pub(super) fn abandon(&mut self) {
        self.output = Output::default();
        self.flush = Flush::Abandoned;
    }

    /// Whether nothing more is written.
    pub(super) fn is_abandoned(&self) -> bool {
        self.flush == Flush::Abandoned
    }

    /// Before the session is fed and drained: a buffer for what it says.
    pub(super) fn wake(&mut self) {
        let own = self.output.own();
        if own.capacity() == 0 {
            *own = spare();
        }
    }

    /// Gives back the memory of empty buffers.
    pub(super) fn rest(&mut self) {
        self.output.rest();
        for buffer in [&mut self.input, self.output.own()] {
            if buffer.is_empty() {
                keep_spare(mem::take(buffer));
            }
        }
    }

    /// Reads once.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Read>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let found = buffer.filled();
            if self.input.capacity() == 0 {
                self.input = spare();
            }
            // What was read before and is done with gives its place back here.
            self.input.reserve(found.len());
            self.input.extend_from_slice(found);
            Poll::Ready(Ok(if found.is_empty() { Read::End } else { Read::Bytes(found.len()) }))
        })
    }

    /// Writes until nothing is left or the peer takes no more. Gives the bytes written.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, now: Timestamp) -> Poll<io::Result<usize>> {
        let mut written = 0;
        let stalled = loop {
            if self.output.is_empty() {
                break self.flush == Flush::Due && {
                    let poll = Pin::new(&mut self.stream).poll_flush(cx)?;
                    self.flush = if poll.is_ready() { Flush::Done } else { Flush::Due };
                    poll.is_pending()
                };
            }
            let stream = Pin::new(&mut self.stream);
            let poll = match self.output.only() {
                Some(bytes) => stream.poll_write(cx, bytes),
                None => {
                    let mut slices = [IoSlice::new(&[]); PIECES_MAX];
                    let used = self.output.slices(&mut slices);
                    stream.poll_write_vectored(cx, slices.get(..used).unwrap_or_default())
                }
            };
            match poll? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => {
                    self.output.advance(count);
                    self.flush = Flush::Due;
                    self.stalled_since = None;
                    written += count;
                }
                Poll::Pending => break true,
            }
        };
        match (stalled, self.stalled_since) {
            (false, _) => self.stalled_since = None,
            (true, None) => self.stalled_since = Some(now),
            (true, Some(_)) => {}
        }
        if stalled && written == 0 { Poll::Pending } else { Poll::Ready(Ok(written)) }
    }

    /// Tells the peer that nothing more comes.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Reads what the peer still sends, and forgets it, until it ends.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.poll_read(cx)) {
                Ok(Read::Bytes(_)) => self.input = BytesMut::new(),
                Ok(Read::End) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

fn spare() -> BytesMut {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Keeps an empty buffer for another connection, or lets it go: one that has no memory, and one
/// whose memory somebody still reads.
fn keep_spare(mut buffer: BytesMut) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX && buffer.try_reclaim(1) && buffer.capacity() <= SPARE_BYTES_MAX {
            spare.push(buffer);
        }
    });
}
