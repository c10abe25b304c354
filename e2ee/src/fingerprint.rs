//! Safety numbers: what two people read to each other, or one scans, to know that nobody stands
//! between a device and its node (PROTOCOL.md section 14).
//!
//! ```text
//! half    SHA-256("unhidra/fingerprint/v1" || 0x01 || len(device_id)(1) || device_id || IK)   device
//!         SHA-256("unhidra/fingerprint/v1" || 0x02 || IK)                                     node
//! digits  of each half, the device's first: its first 30 bytes as six numbers of 5 bytes, each
//!         modulo 100 000, in 5 digits
//! code    "UNHIDRA:1:" half ":" half      in upper-case hexadecimal, 139 characters
//! ```

use core::fmt;

use sha2::{Digest, Sha256};
use thiserror::Error;
use unhidra_core::ids::DeviceId;

use crate::identity::{IdentityKey, put_device};
use crate::wire::{Reader, Writer, join};

/// Digits of a group.
pub const GROUP_LEN: usize = 5;
/// Groups of a fingerprint: six of the device, then six of the node.
pub const GROUPS: usize = 12;
/// Groups in a line of [`Fingerprint::text`].
pub const GROUPS_A_LINE: usize = 4;
/// Bytes of [`Fingerprint::text`]: the digits, and one separator between two groups.
pub const TEXT_LEN: usize = GROUPS * (GROUP_LEN + 1) - 1;
/// Bytes of [`Fingerprint::code`], all of them in the alphanumeric mode of a QR code.
pub const CODE_LEN: usize = PREFIX.len() + 1 + 1 + HEX_LEN + 1 + HEX_LEN;

const LABEL: &[u8] = b"unhidra/fingerprint/v1";
const DEVICE: u8 = 0x01;
const NODE: u8 = 0x02;
const PREFIX: &[u8] = b"UNHIDRA:";
const VERSION: u8 = b'1';
/// The most digits a version is read with.
const VERSION_LEN_MAX: usize = 3;
const HEX_LEN: usize = 64;

/// What names the pair of a device and its node. Both sides compute the same one from what each
/// believes the two identity keys to be. It is public.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fingerprint {
    device: [u8; 32],
    node: [u8; 32],
}

/// What comparing with a scanned code says.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Comparison {
    /// The code is that of the same two keys.
    Same,
    /// The node is the same, the device is not: the code is another device's, or somebody holds
    /// another identity key for this one.
    DifferentDevice,
    /// The device is the same, the node is not: one of the two trusts another node.
    DifferentNode,
    /// Neither is the same: the code of another pair, or somebody in between.
    DifferentBoth,
}

/// Why bytes are no code to compare with.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum CodeError {
    /// They are something else, or damaged.
    #[error("not the code of a fingerprint, which is UNHIDRA:1: and two times 64 hexadecimal digits")]
    NotACode,
    /// It is of another version.
    #[error("the code of a fingerprint of version {found}; 1 is compared")]
    OtherVersion {
        /// The version found, 0 to 999.
        found: u16,
    },
}

impl Fingerprint {
    /// The fingerprint of a device and its node.
    #[must_use]
    pub fn of(device: &DeviceId, device_key: &IdentityKey, node_key: &IdentityKey) -> Self {
        let mut named = [0; 65];
        let mut writer = Writer::new(&mut named);
        put_device(&mut writer, device);
        let len = writer.finish().unwrap_or_default();
        let named = named.get(..len).unwrap_or_default();
        Self { device: half(DEVICE, named, device_key), node: half(NODE, &[], node_key) }
    }

    /// The digits, in the order in which they are read out.
    #[must_use]
    pub fn groups(&self) -> [[u8; GROUP_LEN]; GROUPS] {
        let mut groups = [[b'0'; GROUP_LEN]; GROUPS];
        let numbers = numbers(&self.device).chain(numbers(&self.node));
        for (group, number) in groups.iter_mut().zip(numbers) {
            *group = decimal(number);
        }
        groups
    }

    /// The digits as a display shows them: three lines of four groups, in ASCII, groups apart by a
    /// space and lines by a line feed.
    #[must_use]
    pub fn text(&self) -> [u8; TEXT_LEN] {
        let mut text = [0; TEXT_LEN];
        let mut writer = Writer::new(&mut text);
        for (at, group) in (0_usize..).zip(self.groups()) {
            match at {
                0 => {}
                _ if at % GROUPS_A_LINE == 0 => writer.put(b"\n"),
                _ => writer.put(b" "),
            }
            writer.put(&group);
        }
        debug_assert_eq!(writer.finish(), Ok(TEXT_LEN));
        text
    }

    /// What a QR code carries: upper-case ASCII, which every scanner shows as it is.
    #[must_use]
    pub fn code(&self) -> [u8; CODE_LEN] {
        join(&[PREFIX, &[VERSION], b":", &hex(&self.device), b":", &hex(&self.node)])
    }

    /// Compares with a code that was scanned from the other side.
    ///
    /// # Errors
    ///
    /// [`CodeError`] where it is no code of this version: nothing is known then, and nothing is
    /// the same.
    pub fn compare(&self, code: &[u8]) -> Result<Comparison, CodeError> {
        let other = Self::from_code(code)?;
        Ok(match (self.device == other.device, self.node == other.node) {
            (true, true) => Comparison::Same,
            (false, true) => Comparison::DifferentDevice,
            (true, false) => Comparison::DifferentNode,
            (false, false) => Comparison::DifferentBoth,
        })
    }

    fn from_code(code: &[u8]) -> Result<Self, CodeError> {
        let rest = code.strip_prefix(PREFIX).ok_or(CodeError::NotACode)?;
        let end = rest.iter().position(|byte| *byte == b':').ok_or(CodeError::NotACode)?;
        let (version, rest) = rest.split_at_checked(end).ok_or(CodeError::NotACode)?;
        match version {
            [VERSION] => {}
            _ => return Err(CodeError::OtherVersion { found: number(version).ok_or(CodeError::NotACode)? }),
        }
        let mut reader = Reader::new(rest);
        let mut half = || {
            let [colon] = *reader.take().ok()?;
            let digits = reader.take().ok()?;
            (colon == b':').then(|| unhex(digits)).flatten()
        };
        let (device, node) = (half().ok_or(CodeError::NotACode)?, half().ok_or(CodeError::NotACode)?);
        if reader.rest().is_empty() { Ok(Self { device, node }) } else { Err(CodeError::NotACode) }
    }
}

impl fmt::Display for Fingerprint {
    /// As [`text`](Self::text).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

fn half(side: u8, named: &[u8], key: &IdentityKey) -> [u8; 32] {
    Sha256::new()
        .chain_update(LABEL)
        .chain_update([side])
        .chain_update(named)
        .chain_update(key.as_bytes())
        .finalize()
        .into()
}

/// Six numbers below 100 000. What 2^40 leaves over makes none of them likelier than another by
/// more than one in ten million.
fn numbers(half: &[u8; 32]) -> impl Iterator<Item = u32> {
    let (pieces, _) = half.as_chunks::<5>();
    pieces.iter().map(|&[a, b, c, d, e]| {
        let number = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]) % 100_000;
        u32::try_from(number).unwrap_or_default()
    })
}

fn decimal(number: u32) -> [u8; GROUP_LEN] {
    let mut digits = [b'0'; GROUP_LEN];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        let [low, ..] = (rest % 10).to_le_bytes();
        *digit = b'0' | low;
        rest /= 10;
    }
    digits
}

/// A number of 1 to 3 digits without zeros before it.
fn number(digits: &[u8]) -> Option<u16> {
    let is_number = match digits {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() < VERSION_LEN_MAX && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_number.then(|| core::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

fn hex(bytes: &[u8; 32]) -> [u8; HEX_LEN] {
    let mut digits = [b'0'; HEX_LEN];
    for ([high, low], byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        (*high, *low) = (hex_digit(byte >> 4), hex_digit(byte & 0x0f));
    }
    digits
}

fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' | nibble,
        _ => nibble.wrapping_sub(10).wrapping_add(b'A'),
    }
}

fn unhex(digits: &[u8; HEX_LEN]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit & 0x0f),
        b'A'..=b'F' => Some(digit.wrapping_sub(b'A').wrapping_add(10)),
        _ => None,
    }
}
