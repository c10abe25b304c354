//! MQTT over WebSocket (section 6 of the standard): a stream of bytes in binary frames.
//!
//! It holds no buffer of its own. What is read is taken apart where the caller wanted it; what is
//! written goes out as one frame for each write of the caller, head and bytes in one call.

mod frame;
mod upgrade;

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::port::Failed;
use crate::gate::Refusal;
use frame::{Asked, Decoder};

/// The largest frame taken. Frames are not kept, so this bounds nothing but what one may announce.
const FRAME_MAX: u64 = 16 * 1024 * 1024;

/// The most pieces of one write that go out at once.
const SLICES_MAX: usize = 64;

/// A stream in binary frames.
pub(super) struct WebSocket<S> {
    stream: S,
    decoder: Decoder,
    /// What was read behind the request, until it is taken.
    ahead: Vec<u8>,
    /// What of a control frame is still to be written. Goes out between two frames of data.
    control: Vec<u8>,
    frame: Open,
    end: End,
}

/// The frame that is being written.
#[derive(Debug, Default)]
struct Open {
    head: [u8; 10],
    /// Which bytes of the head are still to be written.
    from: usize,
    to: usize,
    /// How many bytes of data the head has announced and the caller has yet to give.
    remaining: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// Neither side has closed.
    None,
    /// A close of ours is written, or on its way.
    Closed,
}

/// Opens a WebSocket on a stream.
pub(super) async fn accept<S>(mut stream: S, origins: &[String]) -> Result<WebSocket<S>, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let ahead = upgrade::upgrade(&mut stream, origins).await;
    let ahead = ahead.map_err(|error| Failed::new(Refusal::WebSocket, &error))?;
    let (decoder, control) = (Decoder::new(FRAME_MAX), Vec::new());
    Ok(WebSocket { stream, decoder, ahead, control, frame: Open::default(), end: End::None })
}

impl Open {
    const fn is_none(&self) -> bool {
        self.remaining == 0 && self.from == self.to
    }

    fn begin(&mut self, len: u64) {
        let (head, to) = frame::binary_head(len);
        *self = Self { head, from: 0, to, remaining: len };
    }

    /// So many bytes are out. Says how many of them were data.
    fn advance(&mut self, written: usize) -> usize {
        let of_head = written.min(self.to - self.from);
        self.from += of_head;
        let data = written - of_head;
        self.remaining = self.remaining.saturating_sub(data as u64);
        data
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Writes a control frame, unless one of data is half written.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.frame.is_none() {
            return Poll::Ready(Ok(()));
        }
        while !self.control.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.control))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.control.drain(..written.min(self.control.len()));
            if self.control.is_empty() {
                self.control = Vec::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn close(&mut self, code: u16) {
        if self.end == End::None {
            self.end = End::Closed;
            self.control.extend(frame::control_frame(&Asked::Close(code)));
        }
    }

    fn answer(&mut self, asked: Asked, cx: &mut Context<'_>) {
        match asked {
            Asked::Close(code) => self.close(code),
            // One pong at a time: where the peer takes none, it is told of its first ping alone.
            Asked::Pong(_) if !self.control.is_empty() || self.end == End::Closed => {}
            asked @ Asked::Pong(_) => self.control = frame::control_frame(&asked),
        }
        self.push(cx);
    }

    /// Writes what can be written of control frames now; the rest goes with the next write.
    fn push(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(Ok(())) = self.poll_control(cx) {
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let len: usize = data.iter().map(|slice| slice.len()).sum();
        if len == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.frame.is_none() {
            ready!(self.poll_control(cx))?;
            if self.end == End::Closed {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            self.frame.begin(len as u64);
        }
        loop {
            let head = self.frame.head;
            let head = head.get(self.frame.from..self.frame.to).unwrap_or_default();
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut room = usize::try_from(self.frame.remaining).unwrap_or(usize::MAX);
            let pieces = std::iter::once(head).chain(data.iter().map_while(|slice| {
                let piece = slice.get(..room.min(slice.len())).unwrap_or_default();
                room -= piece.len();
                (!piece.is_empty() || slice.is_empty()).then_some(piece)
            }));
            let pieces = pieces.filter(|piece| !piece.is_empty());
            let used = slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            let slices = slices.get(..used).unwrap_or_default();
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            match self.frame.advance(written) {
                0 => {}
                data => return Poll::Ready(Ok(data)),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let before = buf.filled().len();
            if this.ahead.is_empty() {
                ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            } else {
                let count = this.ahead.len().min(buf.remaining());
                buf.put_slice(this.ahead.get(..count).unwrap_or_default());
                this.ahead = this.ahead.split_off(count);
            }
            let arrived = buf.filled_mut().get_mut(before..).unwrap_or_default();
            if arrived.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let decoded = this.decoder.decode(arrived);
            buf.set_filled(before + *decoded.as_ref().unwrap_or(&0));
            if let Err(error) = decoded {
                this.close(error.code());
                this.push(cx);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
            let asked = this.decoder.take_asked();
            let closed = matches!(asked, Some(Asked::Close(_)));
            if let Some(asked) = asked {
                this.answer(asked, cx);
            }
            if closed || buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_data(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_data(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_control(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.close(frame::NORMAL);
        ready!(this.poll_control(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

impl<S> fmt::Debug for WebSocket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("frame", &self.frame).field("end", &self.end).finish_non_exhaustive()
    }
}
