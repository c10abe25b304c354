//! What asks for a certificate: a PKCS #10 request (RFC 2986), parsed and proven.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::RequestError;
use crate::certificate::{OID_ECDSA_WITH_SHA256, is_p256};

/// A public key whose holder has proven to hold its private half.
///
/// The names and extensions of a request are not kept: they are wishes, and the authority writes
/// the registry's instead.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// The uncompressed point, 65 bytes.
    point: Vec<u8>,
}

impl Request {
    /// The most bytes a request may have. One for P-256 with a full name has about 300.
    pub const LEN_MAX: usize = 4096;

    /// Reads a request in PEM.
    ///
    /// # Errors
    ///
    /// [`RequestError`] says which rule it breaks.
    pub fn from_pem(text: &[u8]) -> Result<Self, RequestError> {
        // Base64 and its line ends make four bytes of three, and the frame adds a hundred.
        if text.len() > Self::LEN_MAX * 3 / 2 + 100 {
            return Err(RequestError::TooLarge { len: text.len(), max: Self::LEN_MAX });
        }
        let der = CertificateSigningRequestDer::from_pem_slice(text).map_err(|_| RequestError::NotPem)?;
        Self::from_der(&der)
    }

    /// Reads a request in DER, and verifies its proof of possession.
    ///
    /// # Errors
    ///
    /// [`RequestError`] says which rule it breaks.
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > Self::LEN_MAX {
            return Err(RequestError::TooLarge { len: der.len(), max: Self::LEN_MAX });
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        let info = &request.certification_request_info;
        if !is_p256(&info.subject_pki) {
            return Err(RequestError::NotP256 { found: info.subject_pki.algorithm.algorithm.to_id_string() });
        }
        if request.signature_algorithm.algorithm != OID_ECDSA_WITH_SHA256 {
            return Err(RequestError::Algorithm { found: request.signature_algorithm.algorithm.to_id_string() });
        }
        let point = info.subject_pki.subject_public_key.data.to_vec();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point)
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| RequestError::NotProven)?;
        Ok(Self { point })
    }
}

impl rcgen::PublicKeyData for Request {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyPair;
    use unhidra_core::ids::DeviceId;

    fn request_pem() -> (KeyPair, String) {
        let key = KeyPair::generate().unwrap();
        let text = key.request(&DeviceId::parse("pump-7").unwrap()).unwrap();
        (key, text)
    }

    #[test]
    fn a_request_gives_its_key() {
        let (key, text) = request_pem();
        assert_eq!(Request::from_pem(text.as_bytes()).unwrap().point, key.public_point());
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let (_, text) = request_pem();
        let mut der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).unwrap().to_vec();
        let (other, _) = request_pem();
        // The key inside is replaced, the signature stays.
        let at = der.windows(2).position(|w| w == [0x00, 0x04]).unwrap() + 1;
        der[at..at + 65].copy_from_slice(other.public_point());
        assert_eq!(Request::from_der(&der), Err(RequestError::NotProven));
    }

    #[test]
    fn another_curve_is_refused_by_name() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        assert!(matches!(Request::from_der(request.der()), Err(RequestError::NotP256 { .. })));
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let refused = Request::from_der(request.der());
        assert_eq!(refused, Err(RequestError::NotP256 { found: "1.3.101.112".into() }));
    }

    #[test]
    fn garbage_is_refused_whatever_its_length() {
        let (_, text) = request_pem();
        let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).unwrap();
        for len in 0..der.len() {
            assert_eq!(Request::from_der(&der[..len]), Err(RequestError::Malformed), "{len}");
        }
        let mut longer = der.to_vec();
        longer.push(0);
        assert_eq!(Request::from_der(&longer), Err(RequestError::Malformed));
        assert!(matches!(Request::from_der(&[0x30; 5000]), Err(RequestError::TooLarge { len: 5000, .. })));
        assert_eq!(Request::from_pem(b"hello"), Err(RequestError::NotPem));
        assert!(matches!(Request::from_pem(&[b'-'; 10_000]), Err(RequestError::TooLarge { .. })));
    }
}
