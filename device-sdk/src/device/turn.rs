//! One turn over a transport: what has arrived goes in, what is due goes out.

use core::task::{Context, Poll};

use rand_core::CryptoRng;
use unhidra_core::time::Timestamp;

use super::{Device, Fault};
use crate::storage::Storage;
use crate::transport::Transport;

/// How a turn ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    /// Bytes have moved: there may be events, and more to do.
    Moved,
    /// The connection is over: drop the transport and say
    /// [`disconnected`](Device::disconnected).
    Over,
}

impl<S: Storage, R: CryptoRng, const SLOTS: usize, const BODY: usize, const WINDOW: usize, const PACKET: usize>
    Device<S, R, SLOTS, BODY, WINDOW, PACKET>
{
    /// Moves bytes both ways until something has happened. Pending where nothing can move now: the
    /// transport wakes the context, and [`poll_timeout`](Self::poll_timeout) says when to come
    /// back without. Nothing is lost when it is not called again.
    ///
    /// # Errors
    ///
    /// [`Fault`]: the device has stopped.
    pub fn poll_turn<T: Transport>(
        &mut self,
        transport: &mut T,
        buffer: &mut [u8],
        context: &mut Context<'_>,
        now: Timestamp,
    ) -> Poll<Result<Turn, Fault<S::Error>>> {
        let mut moved = false;
        while let Some(bytes) = self.poll_transmit(now)? {
            match transport.poll_send(context, bytes) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    self.transmitted(count, now);
                    moved = true;
                }
                Poll::Ready(_) => return Poll::Ready(Ok(Turn::Over)),
                Poll::Pending => break,
            }
        }
        if self.is_finished() {
            return Poll::Ready(Ok(Turn::Over));
        }
        match transport.poll_receive(context, buffer) {
            Poll::Ready(Ok(count)) if count > 0 => {
                self.handle_bytes(buffer.get(..count).unwrap_or_default(), now)?;
                Poll::Ready(Ok(Turn::Moved))
            }
            Poll::Ready(_) => Poll::Ready(Ok(Turn::Over)),
            Poll::Pending if moved => Poll::Ready(Ok(Turn::Moved)),
            Poll::Pending => Poll::Pending,
        }
    }
}
