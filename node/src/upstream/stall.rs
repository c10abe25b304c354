//! A stream whose far side may not leave untaken for ever what is said to it.
//!
//! The library looks at the clock between two packets only: while it writes one, it waits. A broker that is gone, or
//! takes nothing any more, would hold it there, and with it the devices behind that broker.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::dial::Wire;

/// A stream that fails once nothing of what is to be written has been taken for so long.
pub(super) struct Unstalled {
    stream: Box<dyn Wire>,
    patience: Duration,
    /// While something is to be written and nothing is taken.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Unstalled {
    pub(super) fn new(stream: Box<dyn Wire>, patience: Duration) -> Self {
        Self { stream, patience, stalled: None }
    }

    /// What came of a write: where it waits, for how long it may.
    fn written<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        let text = format!("it has taken nothing for {} s of what the node has to say", patience.as_secs());
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl AsyncRead for Unstalled {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Unstalled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.written(shut, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_far_side_that_takes_nothing_is_given_up_after_a_while() {
        let (ours, _theirs) = duplex(10);
        let mut stream = Unstalled::new(Box::new(ours), PATIENCE);
        let began = Instant::now();
        let error = stream.write_all(&[0; 100]).await.expect_err("nobody takes it");
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, PATIENCE));
        assert!(error.to_string().contains("nothing for 30 s"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_a_little_at_a_time_is_waited_for() {
        let (ours, mut theirs) = duplex(10);
        let mut stream = Unstalled::new(Box::new(ours), PATIENCE);
        let takes = async {
            let mut taken = [0; 100];
            for part in taken.chunks_mut(10) {
                sleep(PATIENCE - Duration::from_secs(1)).await;
                theirs.read_exact(part).await.expect("it is written");
            }
            taken
        };
        let (written, taken) = tokio::join!(stream.write_all(&[7; 100]), takes);
        assert_eq!((written.map_err(|error| error.kind()), taken), (Ok(()), [7; 100]));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_of_both_sides_is_no_fault() {
        let (ours, _theirs) = duplex(10);
        let mut stream = Unstalled::new(Box::new(ours), PATIENCE);
        stream.write_all(b"hello").await.expect("there is room");
        let nothing = tokio::time::timeout(PATIENCE * 10, stream.read_u8()).await;
        assert!(nothing.is_err(), "it waits on");
    }
}
