//! What an authority has revoked (RFC 5280 section 5).

use std::path::PathBuf;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use unhidra_core::time::UnixTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ED25519, OID_X509_EXT_DELTA_CRL_INDICATOR, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::file::read_public;
use crate::{Certificate, FileError};

/// One authority's list, verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RevocationList {
    /// The authority's name, in DER as it stands in the certificates it issues.
    pub issuer: Vec<u8>,
    /// The numbers of the certificates.
    pub serials: Vec<Vec<u8>>,
    /// When the authority promised the next list, if it did.
    pub next_update: Option<UnixTime>,
}

/// Why a file of lists is not used.
#[derive(Debug, Error)]
pub enum RevocationError {
    /// It cannot be read.
    #[error("pki.crl: {0}")]
    File(#[from] FileError),
    /// It holds no list, or one that is none.
    #[error("pki.crl = {}: it holds no certificate revocation list in PEM", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// A list is not signed by an authority of `pki.ca`.
    #[error("pki.crl = {}: a list is not signed by an authority of pki.ca", path.display())]
    Stranger {
        /// The file.
        path: PathBuf,
    },
    /// A list holds changes to another one alone.
    #[error("pki.crl = {}: a delta list; whole lists are read alone", path.display())]
    Delta {
        /// The file.
        path: PathBuf,
    },
}

enum Flaw {
    Malformed,
    Stranger,
    Delta,
}

impl RevocationList {
    /// Reads every list of a PEM file, each signed by one of `authorities`.
    ///
    /// # Errors
    ///
    /// [`RevocationError`] says what is wrong with the file or with a list in it.
    pub fn read(path: &std::path::Path, authorities: &[Certificate]) -> Result<Vec<Self>, RevocationError> {
        let text = read_public(path)?;
        Self::parse_pem(&text, authorities).map_err(|flaw| match flaw {
            Flaw::Malformed => RevocationError::Malformed { path: path.into() },
            Flaw::Stranger => RevocationError::Stranger { path: path.into() },
            Flaw::Delta => RevocationError::Delta { path: path.into() },
        })
    }

    fn parse_pem(text: &[u8], authorities: &[Certificate]) -> Result<Vec<Self>, Flaw> {
        let lists = CertificateRevocationListDer::pem_slice_iter(text).map(|der| {
            let der = der.map_err(|_| Flaw::Malformed)?;
            Self::parse(&der, authorities)
        });
        let lists: Vec<_> = lists.collect::<Result<_, _>>()?;
        if lists.is_empty() { Err(Flaw::Malformed) } else { Ok(lists) }
    }

    fn parse(der: &[u8], authorities: &[Certificate]) -> Result<Self, Flaw> {
        let (rest, list) = CertificateRevocationList::from_der(der).map_err(|_| Flaw::Malformed)?;
        if !rest.is_empty() {
            return Err(Flaw::Malformed);
        }
        if list.extensions().iter().any(|extension| extension.oid == OID_X509_EXT_DELTA_CRL_INDICATOR) {
            return Err(Flaw::Delta);
        }
        if !authorities.iter().any(|authority| is_signed_by(&list, authority.der())) {
            return Err(Flaw::Stranger);
        }
        let unix = |seconds: i64| UnixTime::from_s(u64::try_from(seconds).unwrap_or(0));
        Ok(Self {
            issuer: list.issuer().as_raw().to_vec(),
            serials: list.iter_revoked_certificates().map(|revoked| revoked.raw_serial().to_vec()).collect(),
            next_update: list.next_update().map(|at| unix(at.timestamp())),
        })
    }
}

/// What signs lists: what signs certificates.
fn algorithms() -> [(Oid<'static>, &'static dyn VerificationAlgorithm); 8] {
    [
        (OID_SIG_ECDSA_WITH_SHA256, &ECDSA_P256_SHA256_ASN1),
        (OID_SIG_ECDSA_WITH_SHA256, &ECDSA_P384_SHA256_ASN1),
        (OID_SIG_ECDSA_WITH_SHA384, &ECDSA_P256_SHA384_ASN1),
        (OID_SIG_ECDSA_WITH_SHA384, &ECDSA_P384_SHA384_ASN1),
        (OID_SIG_ED25519, &ED25519),
        (OID_PKCS1_SHA256WITHRSA, &RSA_PKCS1_2048_8192_SHA256),
        (OID_PKCS1_SHA384WITHRSA, &RSA_PKCS1_2048_8192_SHA384),
        (OID_PKCS1_SHA512WITHRSA, &RSA_PKCS1_2048_8192_SHA512),
    ]
}

fn is_signed_by(list: &CertificateRevocationList<'_>, authority: &[u8]) -> bool {
    let Ok((_, authority)) = X509Certificate::from_der(authority) else { return false };
    if authority.subject().as_raw() != list.issuer().as_raw() {
        return false;
    }
    let key = &authority.public_key().subject_public_key.data;
    let fitting = algorithms().into_iter().filter(|(oid, _)| *oid == list.signature_algorithm.algorithm);
    fitting.into_iter().any(|(_, algorithm)| {
        let key = UnparsedPublicKey::new(algorithm, key.as_ref());
        key.verify(list.tbs_cert_list.as_ref(), &list.signature_value.data).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pem;

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
        KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
    };

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::CrlSign, KeyUsagePurpose::KeyCertSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn list(by: &CertifiedIssuer<'static, KeyPair>, numbers: &[u64]) -> String {
        let revoked = numbers.iter().map(|number| RevokedCertParams {
            serial_number: SerialNumber::from(*number),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2036, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        pem::encode("X509 CRL", params.signed_by(by).unwrap().der()).to_string()
    }

    fn parsed(text: &str, by: &CertifiedIssuer<'static, KeyPair>) -> Result<Vec<RevocationList>, Flaw> {
        RevocationList::parse_pem(text.as_bytes(), &[Certificate::parse(by.der()).unwrap()])
    }

    #[test]
    fn a_list_names_its_issuer_and_its_numbers() {
        let ours = authority("ours");
        let Ok(lists) = parsed(&[list(&ours, &[7, 70_000]), list(&ours, &[])].concat(), &ours) else {
            panic!("two good lists");
        };
        assert_eq!(lists.len(), 2);
        let (_, certificate) = X509Certificate::from_der(ours.der()).unwrap();
        assert_eq!(lists[0].issuer, certificate.subject().as_raw());
        assert_eq!(lists[0].serials, [vec![7], vec![1, 0x11, 0x70]]);
        assert!(lists[0].next_update.is_some() && lists[1].serials.is_empty());
    }

    #[test]
    fn a_list_of_another_authority_or_with_another_signature_is_refused() {
        let (ours, other, namesake) = (authority("ours"), authority("other"), authority("ours"));
        assert!(matches!(parsed(&list(&other, &[7]), &ours), Err(Flaw::Stranger)));
        assert!(matches!(parsed(&list(&namesake, &[7]), &ours), Err(Flaw::Stranger)));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let ours = authority("ours");
        for text in
            ["", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", &pem::encode("CERTIFICATE", ours.der())]
        {
            assert!(matches!(parsed(text, &ours), Err(Flaw::Malformed)), "{text}");
        }
    }
}
