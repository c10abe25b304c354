//! From a verified certificate to a device (e2ee/PROTOCOL.md section 1).

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use unhidra_core::device::Fingerprint;
use unhidra_core::ids::{DeviceId, DeviceIdError};
use unhidra_core::time::UnixTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::revoked::Serial;
use crate::doors::PeerCertificate;

/// Why a certificate names no device.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum CertificateError {
    /// The peer showed none.
    #[error("no certificate")]
    Missing,
    /// It is no X.509 certificate.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// Its subject has no Common Name, or several.
    #[error("the certificate has {found} common names, not 1")]
    CommonNames {
        /// How many it has.
        found: usize,
    },
    /// Its Common Name is no device id.
    #[error("the certificate's common name is no device id: {0}")]
    CommonName(DeviceIdError),
    /// It has no URI of the form `spiffe://<trust-domain>/device/<device_id>`, or several URIs.
    #[error("the certificate names no URI of the form spiffe://<trust-domain>/device/<device_id> alone")]
    Uri,
    /// Common Name and URI name different devices.
    #[error("the certificate's common name is {common_name:?} and its URI names {uri:?}")]
    Disagree {
        /// The Common Name.
        common_name: String,
        /// The device its URI names.
        uri: String,
    },
}

/// Reads whom the first certificate of a chain names, and until when all of them hold. Whether to
/// believe them the handshake has decided.
pub(super) fn read(chain: &[CertificateDer<'_>]) -> Result<PeerCertificate, CertificateError> {
    let [der, above @ ..] = chain else { return Err(CertificateError::Missing) };
    let certificate = parse(der)?;
    let (mut not_after, mut serials) = (not_after(&certificate), vec![serial(&certificate)]);
    for der in above {
        let above = parse(der)?;
        not_after = not_after.min(self::not_after(&above));
        serials.push(serial(&above));
    }
    let names: Vec<_> = certificate.subject().iter_common_name().collect();
    let [name] = names.as_slice() else { return Err(CertificateError::CommonNames { found: names.len() }) };
    let name = name.as_str().map_err(|_| CertificateError::Unreadable)?;
    let common_name = DeviceId::parse(name).map_err(CertificateError::CommonName)?;
    let (trust_domain, uri) = spiffe(&certificate)?;
    if uri != common_name {
        return Err(CertificateError::Disagree { common_name: common_name.to_string(), uri: uri.to_string() });
    }
    let mut fingerprint = [0; 32];
    for (byte, digested) in fingerprint.iter_mut().zip(digest(&SHA256, der).as_ref()) {
        *byte = *digested;
    }
    let serials = serials.into();
    Ok(PeerCertificate { device: common_name, trust_domain, fingerprint: Fingerprint(fingerprint), not_after, serials })
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CertificateError> {
    X509Certificate::from_der(der).map(|(_, certificate)| certificate).map_err(|_| CertificateError::Unreadable)
}

/// The last second in which it holds.
fn not_after(certificate: &X509Certificate<'_>) -> UnixTime {
    UnixTime::from_s(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0))
}

fn serial(certificate: &X509Certificate<'_>) -> Serial {
    Serial::new(certificate.issuer().as_raw(), certificate.raw_serial())
}

/// The trust domain and the device of the one URI there must be.
fn spiffe(certificate: &X509Certificate<'_>) -> Result<(String, DeviceId), CertificateError> {
    let names = certificate.subject_alternative_name().map_err(|_| CertificateError::Unreadable)?;
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    let [uri] = uris.as_slice() else { return Err(CertificateError::Uri) };
    let rest = uri.strip_prefix("spiffe://").ok_or(CertificateError::Uri)?;
    let (trust_domain, id) = rest.split_once("/device/").ok_or(CertificateError::Uri)?;
    if trust_domain.is_empty() || trust_domain.contains('/') {
        return Err(CertificateError::Uri);
    }
    let id = DeviceId::parse(id).map_err(|_| CertificateError::Uri)?;
    Ok((trust_domain.to_owned(), id))
}
