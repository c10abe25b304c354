//! The host's transport: TLS 1.3 over TCP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use unhidra_device_sdk::transport::Transport;

/// A connection whose other side has proven that it is the device's node.
pub(super) struct Tls {
    stream: TlsStream<TcpStream>,
    /// Whether bytes may lie in the TLS session that the socket has not taken.
    unflushed: bool,
}

impl Tls {
    /// Dials `server`, `localhost:8883` for instance.
    pub(super) async fn dial(server: &str, tls: Arc<ClientConfig>) -> io::Result<Self> {
        let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(tls).connect(name, stream).await?;
        Ok(Self { stream, unflushed: false })
    }

    fn flush(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(context)
        {
            self.unflushed = false;
            return flushed;
        }
        Ok(())
    }
}

impl Transport for Tls {
    type Error = io::Error;

    fn poll_receive(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        // What was sent in this turn leaves now, in as few records as may be.
        self.flush(context)?;
        let mut buffer = ReadBuf::new(buffer);
        Pin::new(&mut self.stream).poll_read(context, &mut buffer).map_ok(|()| buffer.filled().len())
    }

    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unflushed |= matches!(sent, Poll::Ready(Ok(_)));
        sent
    }
}
