//! The PROXY protocol, version 2: who a connection comes from, as its load balancer says.
//!
//! ```text
//! 12 B  signature   0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A
//!  1 B  version 2 in the upper half, command in the lower: 0 LOCAL, 1 PROXY
//!  1 B  family in the upper half: 0 none, 1 IPv4, 2 IPv6, 3 Unix; transport in the lower: 1 stream
//!  2 B  length of what follows
//!       addresses and ports: 4 + 4 + 2 + 2 B, 16 + 16 + 2 + 2 B, or 108 + 108 B
//!       type, length and value of whatever else there is
//! ```
//!
//! The header is read to its last byte and not beyond it, so that what follows is the peer's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The most bytes behind the first 16 that are taken: addresses, and what load balancers add of
/// TLS and names. The protocol allows 65 535.
const LEN_MAX: usize = 4_096;

/// The type of the value that holds a CRC32c over the whole header.
const TYPE_CRC32C: u8 = 0x03;

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(super) enum ProxyError {
    /// The stream ended within it, or failed.
    #[error("the stream ended within the PROXY header")]
    Ended,
    /// It begins otherwise.
    #[error("no PROXY header of version 2")]
    Signature,
    /// It is of version 1, as text.
    #[error("a PROXY header of version 1; version 2 is taken alone")]
    VersionOne,
    /// Its version is another one.
    #[error("a PROXY header of version {found}, not 2")]
    Version {
        /// Which.
        found: u8,
    },
    /// Its command is neither LOCAL nor PROXY.
    #[error("the PROXY command {found}; 0 and 1 are known")]
    Command {
        /// Which.
        found: u8,
    },
    /// It is longer than is taken.
    #[error("a PROXY header of {len} bytes behind the first 16; at most {LEN_MAX} are taken")]
    TooLong {
        /// How long.
        len: usize,
    },
    /// The connection it speaks of is none of TCP over IP.
    #[error("the PROXY family and transport {found:#04x}; 0x11 and 0x21 are known")]
    Family {
        /// The byte.
        found: u8,
    },
    /// It ends within the addresses or within a value.
    #[error("the PROXY header is cut short")]
    Short,
    /// Its checksum is not that of its bytes.
    #[error("the PROXY header's CRC32c is wrong")]
    Checksum,
}

/// Who a connection comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// From the proxy itself: it asks whether we live.
    Local,
    /// From there.
    At(SocketAddr),
}

/// Reads a header off a stream.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Source, ProxyError> {
    let mut fixed = [0; 16];
    let mut filled = 0;
    while let Some(empty) = fixed.get_mut(filled..).filter(|empty| !empty.is_empty()) {
        filled += match stream.read(empty).await {
            Ok(0) | Err(_) => return Err(ProxyError::Ended),
            Ok(count) => count,
        };
        // Whoever begins otherwise is not waited for.
        check_signature(fixed.get(..filled).unwrap_or_default())?;
    }
    let [.., high, low] = fixed;
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > LEN_MAX {
        return Err(ProxyError::TooLong { len });
    }
    let mut header = vec![0; fixed.len() + len];
    let (head, rest) = header.split_at_mut(fixed.len());
    head.copy_from_slice(&fixed);
    stream.read_exact(rest).await.map_err(|_| ProxyError::Ended)?;
    parse(&header)
}

fn check_signature(begin: &[u8]) -> Result<(), ProxyError> {
    if begin.iter().zip(&SIGNATURE).all(|(found, expected)| found == expected) {
        return Ok(());
    }
    Err(if begin.first() == Some(&b'P') { ProxyError::VersionOne } else { ProxyError::Signature })
}

/// Reads a whole header.
fn parse(header: &[u8]) -> Result<Source, ProxyError> {
    let (fixed, rest) = header.split_first_chunk::<16>().ok_or(ProxyError::Short)?;
    let [signature @ .., version, family, _, _] = fixed;
    check_signature(signature)?;
    if version >> 4 != 2 {
        return Err(ProxyError::Version { found: version >> 4 });
    }
    let (source, values) = match (version & 0x0f, family) {
        // Whatever a LOCAL header holds besides is to be skipped.
        (0, _) => return Ok(Source::Local),
        (1, 0x11) => {
            let ([a, b, c, d, _, _, _, _, high, low, _, _], values) =
                rest.split_first_chunk::<12>().ok_or(ProxyError::Short)?;
            let address = IpAddr::V4(Ipv4Addr::new(*a, *b, *c, *d));
            (SocketAddr::new(address, u16::from_be_bytes([*high, *low])), values)
        }
        (1, 0x21) => {
            let (address, rest) = rest.split_first_chunk::<16>().ok_or(ProxyError::Short)?;
            let (_, rest) = rest.split_first_chunk::<16>().ok_or(ProxyError::Short)?;
            let (ports, values) = rest.split_first_chunk::<4>().ok_or(ProxyError::Short)?;
            let [high, low, _, _] = ports;
            let address = IpAddr::V6(Ipv6Addr::from(*address)).to_canonical();
            (SocketAddr::new(address, u16::from_be_bytes([*high, *low])), values)
        }
        (1, family) => return Err(ProxyError::Family { found: *family }),
        (command, _) => return Err(ProxyError::Command { found: command }),
    };
    check_values(header, values)?;
    Ok(Source::At(source))
}

/// Walks over the values, and checks the checksum if one of them is it.
fn check_values(header: &[u8], mut values: &[u8]) -> Result<(), ProxyError> {
    while let Some((kind, rest)) = values.split_first() {
        let ([high, low], rest) = rest.split_first_chunk::<2>().ok_or(ProxyError::Short)?;
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(len).ok_or(ProxyError::Short)?;
        if *kind == TYPE_CRC32C {
            let expected = u32::from_be_bytes(value.try_into().map_err(|_| ProxyError::Checksum)?);
            let at = header.len() - rest.len() - value.len();
            // The checksum is of the header with zeros in its own place.
            let zeroed = header.iter().enumerate().map(|(i, byte)| if (at..at + 4).contains(&i) { 0 } else { *byte });
            if crc32c(zeroed) != expected {
                return Err(ProxyError::Checksum);
            }
        }
        values = rest;
    }
    Ok(())
}

/// CRC-32C (RFC 3720 appendix B.4), bit by bit: a header is short and comes once a connection.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(version: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([version, family]);
        header.extend(u16::try_from(rest.len()).expect("short").to_be_bytes());
        header.extend_from_slice(rest);
        header
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0x22, 0xb3];

    fn v4(values: &[u8]) -> Vec<u8> {
        header(0x21, 0x11, &[&V4[..], values].concat())
    }

    fn with_checksum(flip: u8) -> Vec<u8> {
        let mut bytes = v4(&[0x04, 0, 2, 9, 9, TYPE_CRC32C, 0, 4, 0, 0, 0, 0, 0x04, 0, 0]);
        let at = bytes.len() - 7;
        let crc = crc32c(bytes.iter().copied());
        bytes[at..at + 4].copy_from_slice(&crc.to_be_bytes());
        bytes[at] ^= flip;
        bytes
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
    }

    #[test]
    fn a_header_says_who_it_is_or_why_not() {
        let v6 = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5], [0; 16]].concat();
        let v6 = [&v6[..], &[0x30, 0x39, 0, 0]].concat();
        let at = |text: &str| Ok(Source::At(text.parse().expect("an address")));
        for (case, bytes, expected) in [
            ("IPv4", v4(&[]), at("192.0.2.7:12345")),
            ("IPv6", header(0x21, 0x21, &v6), at("[2001:db8::5]:12345")),
            ("values skipped", v4(&[0x01, 0, 1, b'h', 0xea, 0, 0]), at("192.0.2.7:12345")),
            ("checksum", with_checksum(0), at("192.0.2.7:12345")),
            ("local", header(0x20, 0, &[]), Ok(Source::Local)),
            ("local with addresses", header(0x20, 0x11, &V4), Ok(Source::Local)),
            ("wrong checksum", with_checksum(1), Err(ProxyError::Checksum)),
            ("checksum of 3 bytes", v4(&[TYPE_CRC32C, 0, 3, 1, 2, 3]), Err(ProxyError::Checksum)),
            ("version 1 in binary", header(0x11, 0x11, &V4), Err(ProxyError::Version { found: 1 })),
            ("another command", header(0x22, 0x11, &V4), Err(ProxyError::Command { found: 2 })),
            ("UDP", header(0x21, 0x12, &V4), Err(ProxyError::Family { found: 0x12 })),
            ("Unix", header(0x21, 0x31, &[0; 216]), Err(ProxyError::Family { found: 0x31 })),
            ("unspecified", header(0x21, 0x00, &[]), Err(ProxyError::Family { found: 0 })),
            ("short IPv4", header(0x21, 0x11, &V4[..11]), Err(ProxyError::Short)),
            ("short IPv6", header(0x21, 0x21, &v6[..35]), Err(ProxyError::Short)),
            ("value without length", v4(&[4]), Err(ProxyError::Short)),
            ("value cut", v4(&[4, 0, 2, 1]), Err(ProxyError::Short)),
        ] {
            assert_eq!(parse(&bytes), expected, "{case}");
        }
    }

    #[tokio::test]
    async fn nothing_behind_the_header_is_read_and_little_of_what_is_none() {
        let bytes = [&with_checksum(0)[..], b"\x10rest"].concat();
        let mut stream = &bytes[..];
        assert!(read(&mut stream).await.is_ok());
        assert_eq!(stream, b"\x10rest");
        for (bytes, error) in [
            (&b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n"[..], ProxyError::VersionOne),
            (b"\x10\x0c\x00\x04MQTT", ProxyError::Signature),
            (b"\r\n\r\n\0\r\nQUIT", ProxyError::Ended),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", ProxyError::TooLong { len: 65_535 }),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c1234", ProxyError::Ended),
        ] {
            assert_eq!(read(&mut &bytes[..]).await, Err(error), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_an_error(version in any::<u8>(), family in any::<u8>(), rest in any::<Vec<u8>>()) {
            let _ = parse(&header(version, family, &rest));
            let _ = parse(&rest);
        }
    }
}
