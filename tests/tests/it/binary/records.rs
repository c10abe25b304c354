//! A device's TLS: it reads records of 4 KiB and no longer ones.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use unhidra_tests::process::{FREE_PORTS, Place, soon};

use super::peer;

/// A device's receive buffer, header included.
const RECORD_LEN_MAX: usize = 4096;
const HEADER_LEN: usize = 5;
/// Enough of them that their answers fill more than one record.
const PINGS: usize = 4096;

/// A stream that fails at the first record its buffer could not hold.
struct SmallReader {
    stream: TcpStream,
    header: Vec<u8>,
    /// Bytes of the present record that are still to come.
    left: usize,
    longest: usize,
}

impl SmallReader {
    fn new(stream: TcpStream) -> Self {
        Self { stream, header: Vec::new(), left: 0, longest: 0 }
    }

    fn follow(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let [first, rest @ ..] = bytes {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            self.header.push(*first);
            bytes = rest;
            if let [_, _, _, high, low] = self.header[..] {
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.longest = self.longest.max(HEADER_LEN + self.left);
                self.header.clear();
                if self.longest > RECORD_LEN_MAX {
                    return Err(io::Error::other(format!("a record of {} bytes", self.longest)));
                }
            }
        }
        Ok(())
    }
}

impl AsyncRead for SmallReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled()[before..].to_vec();
        Poll::Ready(self.follow(&read))
    }
}

impl AsyncWrite for SmallReader {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[tokio::test]
async fn a_reader_of_4_kib_connects_and_reads_long_answers() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    let folder = place.enroll("pump-7").await;
    let stream = TcpStream::connect(node.mqtt).await.expect("the node listens");
    let mut stream = peer::over(SmallReader::new(stream), &folder, "localhost").await.expect("a handshake");
    assert_eq!(peer::enter(&mut stream).await, 0);

    // Asked in one record, answered in one write: only the node's own bound makes it several records.
    stream.write_all(&[0xc0, 0].repeat(PINGS)).await.expect("the node reads");
    let mut answers = vec![0; 2 * PINGS];
    soon("every PINGRESP", stream.read_exact(&mut answers)).await.expect("no record is too long");
    assert_eq!(answers, [0xd0, 0].repeat(PINGS));
    let longest = stream.get_ref().0.longest;
    assert!((2048..=4000).contains(&longest), "the longest record has {longest} bytes");
    node.stop().await;
}

#[test]
fn the_reader_fails_at_a_longer_record() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("it listens");
        let mut reader = SmallReader::new(stream);
        let record = |len: u16| [&[23, 3, 3], &len.to_be_bytes()[..], &vec![0; usize::from(len)]].concat();
        assert!(reader.follow(&record(4091)).is_ok());
        assert!(reader.follow(&record(4092)).is_err());
    });
}
