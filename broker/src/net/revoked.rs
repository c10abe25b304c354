//! What authorities have revoked.

use std::collections::HashSet;

use aws_lc_rs::digest::{SHA256, digest};

/// Names one certificate: who issued it and under which number (RFC 5280 section 4.1.2.2), as the
/// first half of a SHA-256 over both.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Serial([u8; 16]);

impl Serial {
    /// Of the issuer's name in DER and the number's bytes. Leading zeros do not count, since
    /// authorities differ in them.
    #[must_use]
    pub fn new(issuer: &[u8], number: &[u8]) -> Self {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = number.get(zeros..).unwrap_or_default();
        let mut named = Vec::with_capacity(issuer.len() + number.len() + 8);
        named.extend_from_slice(&(issuer.len() as u64).to_be_bytes());
        named.extend_from_slice(issuer);
        named.extend_from_slice(number);
        let mut serial = [0; 16];
        for (byte, digested) in serial.iter_mut().zip(digest(&SHA256, &named).as_ref()) {
            *byte = *digested;
        }
        Self(serial)
    }
}

/// The certificates that are revoked.
#[derive(Clone, Debug, Default)]
pub struct Revoked(HashSet<Serial>);

impl Revoked {
    /// Whether one of these certificates is among them.
    #[must_use]
    pub fn holds_any(&self, serials: &[Serial]) -> bool {
        !self.0.is_empty() && serials.iter().any(|serial| self.0.contains(serial))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Serial> for Revoked {
    fn from_iter<I: IntoIterator<Item = Serial>>(serials: I) -> Self {
        Self(serials.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_its_issuer_and_its_number_whatever_zeros_stand_before() {
        assert_eq!(Serial::new(b"ca", &[0, 0, 7]), Serial::new(b"ca", &[7]));
        assert_ne!(Serial::new(b"ca", &[7]), Serial::new(b"ca", &[7, 0]));
        assert_ne!(Serial::new(b"ca", &[7]), Serial::new(b"cb", &[7]));
        assert_ne!(Serial::new(b"ca", b"b7"), Serial::new(b"cab", b"7"));
    }
}
