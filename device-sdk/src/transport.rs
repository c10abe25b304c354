//! Bytes to and from the radio.

use core::task::{Context, Poll};

/// A connection that is up: mutual TLS over TCP in the field, a pair of buffers in tests.
///
/// Poll style, so that an executor and a plain loop can both drive it: where nothing can be done
/// now it says [`Poll::Pending`] and wakes the context when it can. A plain loop hands in
/// [`Waker::noop`](core::task::Waker::noop).
pub trait Transport {
    /// Why bytes no longer flow.
    type Error;

    /// Takes bytes off what has arrived, into the front of `buffer`; 0 means that the other side
    /// has closed.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    fn poll_receive(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, Self::Error>>;

    /// Sends bytes off the front of `bytes`, at least one, and says how many.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Self::Error>>;
}
