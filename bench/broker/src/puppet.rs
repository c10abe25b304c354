//! One connection of an attacker: it keeps to no rule.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// How long an attacker waits for a connection before it gives up on it.
const PATIENCE: Duration = Duration::from_millis(200);

/// A connection, and what it still has to say.
#[derive(Debug)]
pub(crate) struct Puppet {
    stream: TcpStream,
    out: Vec<u8>,
    reads: bool,
}

impl Puppet {
    /// Connects from one of the attackers' ten addresses. `reads` says whether it takes what the
    /// broker sends; one that does not has a small buffer besides.
    pub(crate) fn dial(number: u64, to: SocketAddr, reads: bool, out: Vec<u8>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2 + (number % 10) as u8));
        socket.bind(&SocketAddr::new(from, 0).into())?;
        if !reads {
            socket.set_recv_buffer_size(4096)?;
        }
        socket.connect_timeout(&to.into(), PATIENCE)?;
        socket.set_nonblocking(true)?;
        let mut puppet = Self { stream: socket.into(), out, reads };
        puppet.move_on()?;
        Ok(puppet)
    }

    /// Has something more to say, unless much is unsaid.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        if self.out.len() < 256 * 1024 {
            self.out.extend_from_slice(bytes);
        }
    }

    /// Writes and reads as far as goes.
    ///
    /// # Errors
    ///
    /// The connection is no more.
    pub(crate) fn move_on(&mut self) -> io::Result<()> {
        let mut scratch = [0; 16 * 1024];
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        while self.reads {
            match self.stream.read(&mut scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends with a reset.
    pub(crate) fn slam(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}
