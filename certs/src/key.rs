//! A P-256 key pair whose private half is wiped when it is dropped.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use unhidra_core::ids::DeviceId;
use zeroize::Zeroizing;

use crate::{IssueError, KeyError, pem};

/// An ECDSA P-256 key pair: an authority's, a node's or a device's.
pub struct KeyPair {
    pair: EcdsaKeyPair,
}

impl KeyPair {
    /// Makes a new one.
    ///
    /// # Errors
    ///
    /// [`IssueError::Crypto`] where the system gives no randomness.
    pub fn generate() -> Result<Self, IssueError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
        pair.map(|pair| Self { pair }).map_err(|_| IssueError::Crypto("generating a P-256 key"))
    }

    /// Reads a private key in PEM: PKCS #8 or SEC 1, not encrypted.
    ///
    /// # Errors
    ///
    /// [`KeyError`] says what the text is instead.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(text).map_err(|_| KeyError::NotPem)?;
        if matches!(der, PrivateKeyDer::Pkcs1(_)) {
            return Err(KeyError::NotP256);
        }
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_der());
        pair.map(|pair| Self { pair }).map_err(|_| KeyError::NotP256)
    }

    /// The private key in PEM, PKCS #8.
    ///
    /// # Errors
    ///
    /// [`IssueError::Crypto`] where the key cannot be encoded.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, IssueError> {
        let pkcs8 = self.pair.to_pkcs8v1().map_err(|_| IssueError::Crypto("encoding a key"))?;
        Ok(pem::encode("PRIVATE KEY", pkcs8.as_ref()))
    }

    /// The private key as rustls takes it.
    ///
    /// # Errors
    ///
    /// [`IssueError::Crypto`] where the key cannot be encoded.
    pub fn to_rustls(&self) -> Result<PrivateKeyDer<'static>, IssueError> {
        let pkcs8 = self.pair.to_pkcs8v1().map_err(|_| IssueError::Crypto("encoding a key"))?;
        Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec())))
    }

    /// Asks for a certificate for `device`: a PKCS #10 request in PEM, signed to prove possession.
    /// Whoever signs it takes the key from it and the name from the registry.
    ///
    /// # Errors
    ///
    /// [`IssueError::Crypto`] where it cannot be encoded or signed.
    pub fn request(&self, device: &DeviceId) -> Result<String, IssueError> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, device.as_str());
        let request = params.serialize_request(self).map_err(|_| IssueError::Crypto("signing a request"))?;
        Ok(pem::encode("CERTIFICATE REQUEST", request.der()).to_string())
    }

    /// The public point, uncompressed.
    #[must_use]
    pub fn public_point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
}

impl rcgen::PublicKeyData for KeyPair {
    fn der_bytes(&self) -> &[u8] {
        self.public_point()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for KeyPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        signature.map(|s| s.as_ref().to_vec()).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair([secret])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, Ed25519KeyPair};

    #[test]
    fn a_key_survives_its_pem() {
        let key = KeyPair::generate().unwrap();
        let read = KeyPair::from_pem(key.to_pem().unwrap().as_bytes()).unwrap();
        assert_eq!(read.public_point(), key.public_point());
    }

    #[test]
    fn a_sec1_key_is_read_too() {
        let key = KeyPair::generate().unwrap();
        let sec1: EcPrivateKeyRfc5915Der<'_> = key.pair.private_key().as_der().unwrap();
        let text = pem::encode("EC PRIVATE KEY", sec1.as_ref());
        assert_eq!(KeyPair::from_pem(text.as_bytes()).unwrap().public_point(), key.public_point());
    }

    #[test]
    fn other_keys_and_other_texts_are_refused() {
        let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap().to_pkcs8v1().unwrap();
        let ed25519 = Ed25519KeyPair::generate().unwrap().to_pkcs8().unwrap();
        for der in [p384.as_ref(), ed25519.as_ref(), b"".as_slice(), b"garbage"] {
            let text = pem::encode("PRIVATE KEY", der);
            assert!(matches!(KeyPair::from_pem(text.as_bytes()), Err(KeyError::NotP256)));
        }
        let pkcs1 = pem::encode("RSA PRIVATE KEY", b"whatever");
        assert!(matches!(KeyPair::from_pem(pkcs1.as_bytes()), Err(KeyError::NotP256)));
        for text in ["", "not a key", "-----BEGIN PRIVATE KEY-----\nMIGH"] {
            assert!(matches!(KeyPair::from_pem(text.as_bytes()), Err(KeyError::NotPem)), "{text}");
        }
    }

    #[test]
    fn a_key_prints_as_a_secret() {
        assert_eq!(format!("{:?}", KeyPair::generate().unwrap()), "KeyPair([secret])");
    }
}
