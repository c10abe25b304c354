//! A certificate authority: it signs nodes and devices, and nothing that could sign in its turn.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;

use crate::file::{read_private, read_public, write_private, write_public};
use crate::{AuthorityError, Certificate, IssueError, KeyPair, NodeName, Request, TrustDomain};

/// A certificate authority with its key.
pub struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

/// What a node presents.
#[derive(Debug)]
pub struct NodeCertificate {
    /// The certificate. The chain is this one alone: whoever dials the node holds the authority's.
    pub certificate: Certificate,
    /// Its key.
    pub key: KeyPair,
}

impl Authority {
    /// Makes an authority, self-signed.
    ///
    /// # Errors
    ///
    /// [`IssueError`] where the system gives no randomness.
    pub fn generate(validity: Duration, now: UnixTime) -> Result<Self, IssueError> {
        Self::with_key(KeyPair::generate()?, validity, now)
    }

    /// Makes an authority's certificate anew around a key that has one already or lost it: what
    /// the key has signed stays good.
    ///
    /// # Errors
    ///
    /// [`IssueError`] where the system gives no randomness.
    pub fn with_key(key: KeyPair, validity: Duration, now: UnixTime) -> Result<Self, IssueError> {
        let mut params = params(validity.min(FAR), now)?;
        params.distinguished_name.push(DnType::CommonName, "Unhidra Edge development CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = false;
        let signed = params.self_signed(&key).map_err(|_| IssueError::Crypto("signing an authority"))?;
        let certificate = Certificate::parse(signed.der()).map_err(|_| IssueError::Crypto("reading it back"))?;
        Ok(Self { certificate, key })
    }

    /// Reads an authority from its certificate and its key in PEM.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`] where either is not what it should be, or they do not belong together.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key)?;
        let found = Certificate::parse_pem(certificate)?;
        let own = |c: &Certificate| c.p256_point() == Some(key.public_point());
        let Some(certificate) = found.into_iter().find(own) else {
            return Err(AuthorityError::OtherKey);
        };
        if certificate.is_authority() { Ok(Self { certificate, key }) } else { Err(AuthorityError::NoAuthority) }
    }

    /// Reads an authority from two files; of several certificates in the first it is the one
    /// whose key the second holds.
    ///
    /// # Errors
    ///
    /// [`AuthorityError`]; a key that others may read is refused.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        Self::from_pem(&read_public(certificate)?, &read_private(key)?)
    }

    /// Writes the two files, the key first: with the key alone the certificate can be made again.
    ///
    /// # Errors
    ///
    /// [`AuthorityError::File`] names the file that cannot be written.
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), AuthorityError> {
        write_private(key, self.key.to_pem()?.as_bytes())?;
        write_public(certificate, self.certificate.to_pem().as_bytes())?;
        Ok(())
    }

    /// Its certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Gives a node a certificate and a new key.
    ///
    /// # Errors
    ///
    /// [`IssueError`] where the authority has ended, or the system gives no randomness.
    pub fn issue_node(
        &self,
        names: &[NodeName],
        validity: Duration,
        now: UnixTime,
    ) -> Result<NodeCertificate, IssueError> {
        let mut params = params(self.bounded(validity, now)?, now)?;
        params.distinguished_name.push(DnType::CommonName, "Unhidra Edge node");
        for name in names {
            params.subject_alt_names.push(match name {
                NodeName::Ip(ip) => SanType::IpAddress(*ip),
                NodeName::Dns(name) => {
                    SanType::DnsName(name.as_str().try_into().map_err(|_| IssueError::Crypto("encoding a name"))?)
                }
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        Ok(NodeCertificate { certificate: self.sign(&params, &key)?, key })
    }

    /// Gives a device the certificate its request asks for, under the name the registry has: CN
    /// and `spiffe://<trust domain>/device/<id>` (e2ee/PROTOCOL.md section 1), for clients only.
    ///
    /// # Errors
    ///
    /// [`IssueError`] where the authority has ended, or the system gives no randomness.
    pub fn sign_device(
        &self,
        request: &Request,
        device: &DeviceId,
        trust_domain: &TrustDomain,
        validity: Duration,
        now: UnixTime,
    ) -> Result<Certificate, IssueError> {
        let mut params = params(self.bounded(validity, now)?, now)?;
        params.distinguished_name.push(DnType::CommonName, device.as_str());
        let uri = trust_domain.device_uri(device);
        params.subject_alt_names =
            vec![SanType::URI(uri.try_into().map_err(|_| IssueError::Crypto("encoding a name"))?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params, request)
    }

    /// No certificate outlives its authority.
    fn bounded(&self, validity: Duration, now: UnixTime) -> Result<Duration, IssueError> {
        let left = self.certificate.remaining(now);
        left.map(|left| left.min(validity)).ok_or(IssueError::AuthorityNotValid { at: self.certificate.expires(), now })
    }

    fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<Certificate, IssueError> {
        let failed = |_| IssueError::Crypto("signing a certificate");
        let issuer = Issuer::from_ca_cert_der(self.certificate.der(), &self.key).map_err(failed)?;
        let signed = params.signed_by(key, &issuer).map_err(failed)?;
        Certificate::parse(signed.der()).map_err(|_| IssueError::Crypto("reading a certificate back"))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fingerprint = self.certificate.fingerprint();
        f.debug_struct("Authority").field("fingerprint", &fingerprint).finish_non_exhaustive()
    }
}

/// A peer whose clock is behind by less than this takes a new certificate.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// About a thousand years: dates stay far from the four digits a year may have.
const FAR: Duration = Duration::from_secs(1000 * 365 * 86_400);

/// What all certificates share: a random serial number of 127 bits, and when they hold.
fn params(validity: Duration, now: UnixTime) -> Result<CertificateParams, IssueError> {
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| IssueError::Crypto("drawing a serial number"))?;
    // Positive, and never shorter: RFC 5280 section 4.1.2.2.
    serial[0] = serial[0] & 0x7f | 0x40;
    let epoch = date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(now.as_s()).min(FAR);
    let mut params = CertificateParams::default();
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + (now + validity.min(FAR));
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::pki_types::{ServerName, UnixTime as RustlsTime};
    use rustls::server::WebPkiClientVerifier;
    use rustls::server::danger::ClientCertVerifier;
    use x509_parser::extensions::GeneralName;

    const NOW: UnixTime = UnixTime::from_s(1_800_000_000);
    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    fn device() -> DeviceId {
        DeviceId::parse("pump-7").unwrap()
    }

    fn trust_domain() -> TrustDomain {
        "unhidra.local".parse().unwrap()
    }

    fn request() -> Request {
        let text = KeyPair::generate().unwrap().request(&DeviceId::parse("somebody-else").unwrap()).unwrap();
        Request::from_pem(text.as_bytes()).unwrap()
    }

    fn verifier(authority: &Authority) -> Arc<dyn ClientCertVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().der().clone()).unwrap();
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).build().unwrap()
    }

    fn accepts(authority: &Authority, leaf: &Certificate, now: UnixTime) -> bool {
        let now = RustlsTime::since_unix_epoch(Duration::from_secs(now.as_s()));
        verifier(authority).verify_client_cert(leaf.der(), &[], now).is_ok()
    }

    #[test]
    fn a_device_certificate_bears_the_registrys_name_and_not_the_requests() {
        let authority = Authority::generate(YEAR, NOW).unwrap();
        let leaf = authority.sign_device(&request(), &device(), &trust_domain(), YEAR, NOW).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf.der()).unwrap();
        assert_eq!(parsed.subject().to_string(), "CN=pump-7");
        let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert_eq!(names, &[GeneralName::URI("spiffe://unhidra.local/device/pump-7")]);
        let purpose = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(purpose.client_auth && !purpose.server_auth && !purpose.any);
        assert!(!leaf.is_authority() && !leaf.may_serve() && leaf.is_signed_by_p256());
        assert!(accepts(&authority, &leaf, NOW));
    }

    #[test]
    fn a_certificate_is_refused_by_another_authority_and_after_its_end() {
        let (authority, other) = (Authority::generate(YEAR, NOW).unwrap(), Authority::generate(YEAR, NOW).unwrap());
        let day = Duration::from_secs(86_400);
        let leaf = authority.sign_device(&request(), &device(), &trust_domain(), day, NOW).unwrap();
        assert!(accepts(&authority, &leaf, NOW.saturating_add(day)));
        assert!(!accepts(&authority, &leaf, NOW.saturating_add(day * 2)));
        assert!(!accepts(&other, &leaf, NOW));
    }

    #[test]
    fn a_node_certificate_is_no_clients_and_a_device_certificate_no_authority() {
        let authority = Authority::generate(YEAR, NOW).unwrap();
        let node = authority.issue_node(&["localhost".parse().unwrap()], YEAR, NOW).unwrap();
        assert!(!accepts(&authority, &node.certificate, NOW));
        let key = KeyPair::generate().unwrap();
        let asked = Request::from_pem(key.request(&device()).unwrap().as_bytes()).unwrap();
        let leaf = authority.sign_device(&asked, &device(), &trust_domain(), YEAR, NOW).unwrap();
        let pair = Authority::from_pem(leaf.to_pem().as_bytes(), key.to_pem().unwrap().as_bytes());
        assert!(matches!(pair, Err(AuthorityError::NoAuthority)));
    }

    #[test]
    fn a_node_certificate_serves_its_names_alone() {
        let authority = Authority::generate(YEAR, NOW).unwrap();
        let names = ["localhost".parse().unwrap(), "127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let node = authority.issue_node(&names, YEAR, NOW).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().der().clone()).unwrap();
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
                .build()
                .unwrap();
        let accepts = |name: &'static str| {
            let now = RustlsTime::since_unix_epoch(Duration::from_secs(NOW.as_s()));
            let name = ServerName::try_from(name).unwrap();
            rustls::client::danger::ServerCertVerifier::verify_server_cert(
                &*verifier,
                node.certificate.der(),
                &[],
                &name,
                &[],
                now,
            )
            .is_ok()
        };
        assert!(accepts("localhost") && accepts("127.0.0.1") && accepts("::1"));
        assert!(!accepts("example.org") && !accepts("127.0.0.2"));
    }

    #[test]
    fn nothing_outlives_its_authority() {
        let authority = Authority::generate(Duration::from_secs(100), NOW).unwrap();
        let node = authority.issue_node(&[], YEAR, NOW).unwrap();
        assert_eq!(node.certificate.expires(), authority.certificate().expires());
        let late = NOW.saturating_add(Duration::from_secs(101));
        let sign =
            |now| authority.sign_device(&request(), &device(), &trust_domain(), YEAR, now).unwrap_err().to_string();
        assert!(sign(late).contains("ended 0 days ago"), "{}", sign(late));
        assert!(sign(UnixTime::EPOCH).contains("clock"), "{}", sign(UnixTime::EPOCH));
    }

    #[test]
    fn no_two_certificates_share_a_serial_number() {
        let authority = Authority::generate(YEAR, NOW).unwrap();
        let request = request();
        let sign = || authority.sign_device(&request, &device(), &trust_domain(), YEAR, NOW).unwrap();
        assert_ne!(sign().fingerprint(), sign().fingerprint());
    }

    #[test]
    fn the_ends_of_time_are_no_panic() {
        for now in [UnixTime::EPOCH, UnixTime::from_ms(u64::MAX)] {
            let authority = Authority::generate(Duration::MAX, now).unwrap();
            assert!(authority.certificate().expires() > UnixTime::EPOCH);
        }
    }

    #[test]
    fn an_authority_survives_its_files_and_the_key_is_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("ca.pem"), folder.path().join("ca.key"));
        let authority = Authority::generate(YEAR, NOW).unwrap();
        authority.save(&certificate, &key).unwrap();
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
        let read = Authority::load(&certificate, &key).unwrap();
        assert_eq!(read.certificate(), authority.certificate());

        Authority::generate(YEAR, NOW).unwrap().save(&folder.path().join("other.pem"), &key).unwrap();
        assert!(matches!(Authority::load(&certificate, &key), Err(AuthorityError::OtherKey)));
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Authority::load(&certificate, &key), Err(AuthorityError::File(_))));
    }

    #[test]
    fn debug_shows_no_key() {
        let authority = Authority::generate(YEAR, NOW).unwrap();
        let shown = format!("{authority:?}");
        assert!(shown.starts_with("Authority { fingerprint: ") && shown.len() < 110, "{shown}");
    }
}
