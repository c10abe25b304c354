//! A byte stream to a broker, plain or TLS, that never blocks.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use socket2::{Domain, Protocol, Socket, Type};

/// How much one read takes at most off the socket.
pub(crate) const READ_BYTES: usize = 256 * 1024;

/// How much it brings at most: the read before may have left a TLS record without its end.
pub(crate) const READ_BYTES_MAX: usize = READ_BYTES + 18 * 1024;

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// What is to be written, in the clear.
    pub(crate) out: Vec<u8>,
    /// What is to be written as it goes over the wire, and how much of it has.
    wire: Vec<u8>,
    written: usize,
    writable: bool,
    /// The last read took all the socket had.
    drained: bool,
}

/// What a read brought.
pub(crate) enum Got {
    /// So many bytes; there may be more.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The peer closed it.
    End,
}

impl Link {
    /// Begins a connection from an address of this machine.
    pub(crate) fn dial(from: IpAddr, to: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Where the system takes the same address by itself, it is left to: a bound socket needs a port that is
        // free to everybody, and to look for one beside thousands takes milliseconds of a core.
        if from != IpAddr::V4(Ipv4Addr::LOCALHOST) {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() == Some(115) || error.kind() == io::ErrorKind::WouldBlock => {}
            other => other?,
        }
        let tls = match tls {
            Some(config) => {
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                let mut tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
                tls.set_buffer_limit(None);
                Some(Box::new(tls))
            }
            None => None,
        };
        let stream = TcpStream::from_std(socket.into());
        Ok(Self { stream, tls, out: Vec::new(), wire: Vec::new(), written: 0, writable: false, drained: false })
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Closes with a reset, so that the port is free at once.
    pub(crate) fn reset(&self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
    }

    /// Whether the last handshake was shortened by an earlier one.
    pub(crate) fn resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// The socket takes bytes, as far as is known.
    pub(crate) fn set_writable(&mut self) {
        self.writable = true;
    }

    /// Whether anything waits to be written.
    pub(crate) fn is_behind(&self) -> bool {
        !self.out.is_empty() || self.written < self.wire.len()
    }

    /// Reads once into `into`, which is [`READ_BYTES_MAX`] long. Bytes of TLS land in `raw` first, which
    /// is [`READ_BYTES`] long.
    pub(crate) fn read(&mut self, into: &mut [u8], raw: &mut [u8]) -> io::Result<Got> {
        let Some(tls) = &mut self.tls else {
            // Edge-triggered: what comes later is told of again.
            if std::mem::take(&mut self.drained) {
                return Ok(Got::Nothing);
            }
            return match self.stream.read(into) {
                Ok(0) => Ok(Got::End),
                Ok(count) => {
                    self.drained = count < into.len();
                    Ok(Got::Bytes(count))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Got::Nothing),
                Err(error) => Err(error),
            };
        };
        if std::mem::take(&mut self.drained) {
            return Ok(Got::Nothing);
        }
        let count = match self.stream.read(raw) {
            Ok(0) => return Ok(Got::End),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Got::Nothing),
            Err(error) => return Err(error),
        };
        self.drained = count < raw.len();
        let (mut left, mut filled) = (&raw[..count], 0);
        while !left.is_empty() {
            tls.read_tls(&mut left)?;
            tls.process_new_packets().map_err(io::Error::other)?;
            // What is decrypted is taken at once: rustls holds little, and `into` all of it.
            loop {
                match tls.reader().read(&mut into[filled..]) {
                    Ok(0) => return Ok(Got::End),
                    Ok(more) => filled += more,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        if tls.wants_write() {
            self.flush()?;
        }
        Ok(Got::Bytes(filled))
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            if !self.out.is_empty() {
                tls.writer().write_all(&self.out)?;
                self.out.clear();
            }
            while tls.wants_write() {
                tls.write_tls(&mut self.wire)?;
            }
        } else if self.wire.is_empty() {
            std::mem::swap(&mut self.wire, &mut self.out);
        } else {
            self.wire.append(&mut self.out);
        }
        while self.writable && self.written < self.wire.len() {
            match self.stream.write(&self.wire[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => self.writable = false,
                Err(error) => return Err(error),
            }
        }
        if self.written == self.wire.len() {
            self.wire.clear();
            self.written = 0;
        }
        Ok(())
    }
}
