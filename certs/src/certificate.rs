//! A certificate and the few facts about it that the node acts on.

use std::time::Duration;

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use unhidra_core::device::Fingerprint;
use unhidra_core::time::UnixTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

pub(crate) use x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256 as OID_ECDSA_WITH_SHA256;

use crate::{CertificateError, pem};

/// A certificate that has been parsed. Whether it is trusted is for a chain to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    not_before: UnixTime,
    not_after: UnixTime,
    key_point: Option<Vec<u8>>,
    signed_by_p256: bool,
    authority: bool,
    serves: bool,
}

impl Certificate {
    /// Parses DER.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Malformed`] where it is no X.509 certificate, or something follows it.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
        if !rest.is_empty() {
            return Err(CertificateError::Malformed);
        }
        let basic = parsed.basic_constraints().map_err(|_| CertificateError::Malformed)?;
        let purpose = parsed.extended_key_usage().map_err(|_| CertificateError::Malformed)?;
        let key = parsed.public_key();
        Ok(Self {
            not_before: instant(parsed.validity().not_before.timestamp()),
            not_after: instant(parsed.validity().not_after.timestamp()),
            key_point: is_p256(key).then(|| key.subject_public_key.data.to_vec()),
            signed_by_p256: parsed.signature_algorithm.algorithm == OID_ECDSA_WITH_SHA256,
            authority: basic.is_some_and(|basic| basic.value.ca),
            serves: purpose.is_none_or(|purpose| purpose.value.server_auth || purpose.value.any),
            der: CertificateDer::from(der.to_vec()),
        })
    }

    /// Reads every certificate of a PEM text, in order, at most [`Self::BUNDLE_MAX`].
    ///
    /// # Errors
    ///
    /// [`CertificateError`] where there is none, or one of them is none.
    pub fn parse_pem(text: &[u8]) -> Result<Vec<Self>, CertificateError> {
        let mut found = Vec::new();
        for der in CertificateDer::pem_slice_iter(text) {
            if found.len() == Self::BUNDLE_MAX {
                return Err(CertificateError::TooMany { max: Self::BUNDLE_MAX });
            }
            found.push(Self::parse(&der.map_err(|_| CertificateError::NotPem)?)?);
        }
        if found.is_empty() { Err(CertificateError::NotPem) } else { Ok(found) }
    }

    /// The most certificates a PEM text may hold.
    pub const BUNDLE_MAX: usize = 32;

    /// Its encoding.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Its encoding in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der).to_string()
    }

    /// SHA-256 over its DER.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.der)
    }

    /// When it ends.
    #[must_use]
    pub const fn expires(&self) -> UnixTime {
        self.not_after
    }

    /// How long it is still good for: `None` before it begins and after it ends.
    #[must_use]
    pub fn remaining(&self, now: UnixTime) -> Option<Duration> {
        (self.not_before <= now && now <= self.not_after).then(|| self.not_after.saturating_since(now))
    }

    /// From its beginning to its end.
    #[must_use]
    pub const fn validity(&self) -> Duration {
        self.not_after.saturating_since(self.not_before)
    }

    /// Its P-256 public point, uncompressed, if that is what its key is.
    #[must_use]
    pub fn p256_point(&self) -> Option<&[u8]> {
        self.key_point.as_deref()
    }

    /// Whether its signature is ECDSA with SHA-256, which a device can check.
    #[must_use]
    pub const fn is_signed_by_p256(&self) -> bool {
        self.signed_by_p256
    }

    /// Whether it may sign others.
    #[must_use]
    pub const fn is_authority(&self) -> bool {
        self.authority
    }

    /// Whether it may stand for a server: it says so, or says nothing about purposes.
    #[must_use]
    pub const fn may_serve(&self) -> bool {
        self.serves
    }
}

/// SHA-256 over a certificate's DER.
#[must_use]
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
    Fingerprint(bytes)
}

/// Whether a key is ECDSA over P-256 in the uncompressed form of RFC 5480 section 2.2.
pub(crate) fn is_p256(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let point: &[u8] = &key.subject_public_key.data;
    key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve.is_some_and(|curve| curve == OID_EC_P256)
        && key.subject_public_key.unused_bits == 0
        && point.len() == 65
        && point.first() == Some(&4)
}

/// Dates before 1970 count as 1970: nothing here was ever valid then.
fn instant(unix_s: i64) -> UnixTime {
    UnixTime::from_s(u64::try_from(unix_s).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;

    fn authority() -> Authority {
        Authority::generate(Duration::from_secs(1000), UnixTime::from_s(1_000_000)).unwrap()
    }

    #[test]
    fn a_bundle_is_read_in_order_and_never_half() {
        let (a, b) = (authority(), authority());
        let text = a.certificate().to_pem() + "a comment between\n" + &b.certificate().to_pem();
        let read = Certificate::parse_pem(text.as_bytes()).unwrap();
        assert_eq!(read, [a.certificate().clone(), b.certificate().clone()]);
        let half = &text.as_bytes()[..text.len() - 40];
        assert_eq!(Certificate::parse_pem(half), Err(CertificateError::NotPem));
        assert_eq!(Certificate::parse_pem(b""), Err(CertificateError::NotPem));
        let many = a.certificate().to_pem().repeat(33);
        assert_eq!(Certificate::parse_pem(many.as_bytes()), Err(CertificateError::TooMany { max: 32 }));
    }

    #[test]
    fn garbage_is_no_certificate() {
        let ca = authority();
        let der = ca.certificate().der();
        for len in 0..der.len() {
            assert_eq!(Certificate::parse(&der[..len]), Err(CertificateError::Malformed));
        }
        let mut longer = der.to_vec();
        longer.push(0);
        assert_eq!(Certificate::parse(&longer), Err(CertificateError::Malformed));
    }

    #[test]
    fn a_certificate_is_good_from_its_beginning_to_its_end() {
        let ca = authority();
        let end = UnixTime::from_s(1_001_000);
        assert_eq!(ca.certificate().expires(), end);
        assert_eq!(ca.certificate().remaining(UnixTime::from_s(1_000_400)), Some(Duration::from_secs(600)));
        assert_eq!(ca.certificate().remaining(UnixTime::from_s(1_001_001)), None);
        assert_eq!(ca.certificate().remaining(UnixTime::from_s(900_000)), None);
    }
}
