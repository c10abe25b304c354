//! The plain listener: anybody's streams.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tracing::warn;

use crate::doors::{Accepted, BoxFuture, Identity, Listener};

/// How long accepting rests after an error. It fails where the process has no file descriptor
/// left, at once and until a connection ends: asking on would only spin.
const PAUSE: Duration = Duration::from_millis(100);

/// A TCP listener that survives errors of accept.
pub(super) struct Accepting {
    socket: tokio::net::TcpListener,
    /// Kept over a cancelled call, so that the pause is.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Accepting {
    pub(super) async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: tokio::net::TcpListener::bind(address).await?, pause: None })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next stream. Cancel-safe.
    pub(super) async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            if let Some(pause) = &mut self.pause {
                pause.await;
                self.pause = None;
            }
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    // PUBACKs are small and somebody waits for each. Where this fails the stream
                    // is broken, and the first read says so.
                    let _ = stream.set_nodelay(true);
                    return (stream, peer);
                }
                Err(error) => {
                    warn!(%error, "accepting a connection failed; trying again");
                    self.pause = Some(Box::pin(sleep(PAUSE)));
                }
            }
        }
    }
}

/// Plain MQTT. Its peers are [`Identity::Anonymous`].
pub struct TcpListener {
    accepting: Accepting,
}

impl TcpListener {
    /// Listens at an address.
    ///
    /// # Errors
    ///
    /// The system's, where the address is in use or not ours.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { accepting: Accepting::bind(address).await? })
    }

    /// Where it listens, with the port the system chose.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.accepting.local_addr()
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async {
            let (stream, peer) = self.accepting.accept().await;
            Ok(Accepted { stream: Box::new(stream), identity: Identity::Anonymous, peer: peer.to_string() })
        })
    }
}
