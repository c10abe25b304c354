//! Sockets that accept, and go on accepting.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Sleep, sleep};
use tracing::warn;

/// How long accepting rests after an error. It fails where the process has no file descriptor
/// left, at once and until a connection ends: asking on would only spin.
const PAUSE: Duration = Duration::from_millis(100);

/// How many connections the kernel keeps for us until they are accepted.
const BACKLOG: u32 = 1024;

/// A TCP listener that survives errors of accept.
pub(super) struct Accepting {
    socket: TcpListener,
    /// Kept over a cancelled call, so that the pause is.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Accepting {
    /// Listens. An IPv6 address takes IPv6 alone, whatever the system's default is: whoever wants
    /// both names both.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => {
                let socket = TcpSocket::new_v6()?;
                set_ipv6_v6only(&socket, true)?;
                socket
            }
        };
        // A port whose last connections still wait for their end is ours all the same.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { socket: socket.listen(BACKLOG)?, pause: None })
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
