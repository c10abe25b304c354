//! What the node presents, whom it trusts, and with what it enrols: the operator's files, or an
//! authority made in the data folder.

use std::path::Path;
use std::time::Duration;

use unhidra_core::time::UnixTime;

use crate::file::{read_private, read_public};
use crate::{
    Authority, AuthorityError, Certificate, Config, FileError, IssueError, KeyPair, PkiError, RevocationError,
    RevocationList,
};

/// Where the certificates come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// From a development authority in the data folder: good for this machine alone.
    Generated,
    /// From files of the configuration.
    Configured,
}

/// The node's certificates.
#[derive(Debug)]
pub struct Pki {
    /// Where they come from.
    pub origin: Origin,
    /// Whose devices may come in; also what a device is given to check the node by.
    pub roots: Vec<Certificate>,
    /// What the node presents.
    pub identity: NodeIdentity,
    /// What enrols devices, if its key is here.
    pub authority: Option<Authority>,
    /// What the authorities have revoked, where `pki.crl` says.
    pub revoked: Vec<RevocationList>,
}

/// A chain and its key.
#[derive(Debug)]
pub struct NodeIdentity {
    /// The node's certificate first, then what links it to a root.
    pub chain: Vec<Certificate>,
    /// The first one's key.
    pub key: KeyPair,
}

impl Pki {
    /// The most bytes of certificates the node may present: with what else it says in its first
    /// flight they fit one TLS record of 4 000 bytes, and a device reads no message that is split.
    pub const CHAIN_LEN_MAX: usize = 2_600;

    /// Opens the operator's certificates, or, without any in the configuration, those of the
    /// development authority in `folder`, which is made where there is none.
    ///
    /// The folder exists. A generated node certificate and its key are never written down: they
    /// are made anew each time, and devices trust the authority.
    ///
    /// # Errors
    ///
    /// [`PkiError`] names the configuration's key or the file that is at fault.
    pub fn open(config: &Config, folder: &Path, now: UnixTime) -> Result<Self, PkiError> {
        let mut pki = match config.origin()? {
            Origin::Generated => Self::generated(config, folder, now),
            Origin::Configured => Self::configured(config, now),
        }?;
        pki.revoked = pki.read_revoked(config)?;
        Ok(pki)
    }

    /// Reads what its authorities have revoked, anew.
    ///
    /// # Errors
    ///
    /// [`RevocationError`] where the file is not to be used.
    pub fn read_revoked(&self, config: &Config) -> Result<Vec<RevocationList>, RevocationError> {
        if config.crl.as_os_str().is_empty() {
            return Ok(Vec::new());
        }
        RevocationList::read(&config.crl, &self.roots)
    }

    /// Whether the node's certificate is to be made anew: the node has made it itself, it does not hold now or has
    /// less than a third of its validity left, and the authority's holds longer.
    ///
    /// One that begins in the future was made before the clock was put right.
    #[must_use]
    pub fn is_renewal_due(&self, now: UnixTime) -> bool {
        let (Origin::Generated, Some(node)) = (self.origin, self.identity.chain.first()) else { return false };
        let authority_ends = self.authority.as_ref().and_then(|authority| {
            let certificate = authority.certificate();
            certificate.remaining(now).map(|_| certificate.expires())
        });
        let ends_soon = node.remaining(now).is_none_or(|left| left < node.validity() / 3);
        let holds_now = node.remaining(now).is_some();
        ends_soon && authority_ends.is_some_and(|ends| !holds_now || ends > node.expires())
    }

    /// The roots in PEM, as a device is given them.
    #[must_use]
    pub fn roots_pem(&self) -> String {
        self.roots.iter().map(Certificate::to_pem).collect()
    }

    fn generated(config: &Config, folder: &Path, now: UnixTime) -> Result<Self, PkiError> {
        let failed = |source| PkiError::Generated { folder: folder.into(), source };
        let authority = development_authority(folder, now)?;
        let node = authority.issue_node(&config.names, config.node_validity(), now);
        let node = node.map_err(|source| match source {
            IssueError::AuthorityNotValid { .. } => {
                PkiError::AuthorityNotValid { certificate: folder.join("ca.pem"), key: folder.join("ca.key"), source }
            }
            source => failed(AuthorityError::Issue(source)),
        })?;
        Ok(Self {
            origin: Origin::Generated,
            roots: vec![authority.certificate().clone()],
            identity: NodeIdentity { chain: vec![node.certificate], key: node.key },
            authority: Some(authority),
            revoked: Vec::new(),
        })
    }

    fn configured(config: &Config, now: UnixTime) -> Result<Self, PkiError> {
        let roots = certificates("pki.ca", &config.ca)?;
        let chain = certificates("pki.certificate", &config.certificate)?;
        let text = read_private(&config.key).map_err(|source| PkiError::File { key: "pki.key", source })?;
        let key = KeyPair::from_pem(&text).map_err(|source| PkiError::Key { path: config.key.clone(), source })?;
        fits_a_device(&chain, &key, now).map_err(|unfit| match unfit {
            Unfit::Rule(rule) => PkiError::Unfit { path: config.certificate.clone(), rule },
            Unfit::Len(len) => {
                PkiError::ChainTooLong { path: config.certificate.clone(), len, max: Self::CHAIN_LEN_MAX }
            }
        })?;
        let authority = (!config.ca_key.as_os_str().is_empty())
            .then(|| Authority::load(&config.ca, &config.ca_key))
            .transpose()
            .map_err(|source| PkiError::Authority { path: config.ca_key.clone(), source })?;
        let identity = NodeIdentity { chain, key };
        Ok(Self { origin: Origin::Configured, roots, identity, authority, revoked: Vec::new() })
    }
}

/// Ten years: a development authority is thrown away with its folder.
const DEVELOPMENT_VALIDITY: Duration = Duration::from_secs(3650 * 86_400);

/// Reads `ca.pem` and `ca.key`, or makes them. The key is written first: a crash between the two,
/// or a lost certificate, is mended from the key, and what it has signed stays good.
fn development_authority(folder: &Path, now: UnixTime) -> Result<Authority, PkiError> {
    let failed = |source| PkiError::Generated { folder: folder.into(), source };
    let (certificate, key) = (folder.join("ca.pem"), folder.join("ca.key"));
    let make = |made: KeyPair| {
        let authority = Authority::with_key(made, DEVELOPMENT_VALIDITY, now).map_err(AuthorityError::from)?;
        authority.save(&certificate, &key).map(|()| authority)
    };
    match (exists(&certificate).map_err(failed)?, exists(&key).map_err(failed)?) {
        (true, true) => Authority::load(&certificate, &key).map_err(failed),
        (true, false) => Err(PkiError::KeyLost { certificate, key }),
        (false, true) => {
            let text = read_private(&key).map_err(|source| failed(source.into()))?;
            make(KeyPair::from_pem(&text).map_err(|source| failed(source.into()))?).map_err(failed)
        }
        (false, false) => make(KeyPair::generate().map_err(|source| failed(source.into()))?).map_err(failed),
    }
}

fn exists(path: &Path) -> Result<bool, AuthorityError> {
    path.try_exists().map_err(|source| AuthorityError::File(FileError::Read { path: path.into(), source }))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<Certificate>, PkiError> {
    let text = read_public(path).map_err(|source| PkiError::File { key, source })?;
    Certificate::parse_pem(&text).map_err(|source| PkiError::Certificate { key, path: path.into(), source })
}

enum Unfit {
    Rule(&'static str),
    Len(usize),
}

/// A device's TLS knows P-256 alone and reads a flight from one record: better said at the start
/// than by every device in the field.
fn fits_a_device(chain: &[Certificate], key: &KeyPair, now: UnixTime) -> Result<(), Unfit> {
    let Some(leaf) = chain.first() else {
        return Err(Unfit::Rule("it holds no certificate"));
    };
    let rule = if leaf.p256_point() != Some(key.public_point()) {
        "its first certificate is not that of pki.key, or its key is not P-256"
    } else if !chain.iter().all(Certificate::is_signed_by_p256) {
        "a certificate in it is not signed by ECDSA with SHA-256, and devices check nothing else"
    } else if !leaf.may_serve() {
        "its extended key usage does not name server authentication"
    } else if leaf.remaining(now).is_none() {
        "it does not hold today"
    } else {
        let len = chain.iter().map(|certificate| certificate.der().len()).sum();
        return if len <= Pki::CHAIN_LEN_MAX { Ok(()) } else { Err(Unfit::Len(len)) };
    };
    Err(Unfit::Rule(rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{write_private, write_public};
    use std::fs;
    use std::num::NonZeroU16;
    use std::path::PathBuf;
    use tempfile::TempDir;

    const NOW: UnixTime = UnixTime::from_s(1_800_000_000);
    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    fn generated() -> Config {
        let days = NonZeroU16::new(30).unwrap();
        Config {
            ca: PathBuf::new(),
            ca_key: PathBuf::new(),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            crl: PathBuf::new(),
            crl_interval_s: NonZeroU16::new(10).unwrap(),
            names: vec!["localhost".parse().unwrap()],
            trust_domain: "unhidra.local".parse().unwrap(),
            device_validity_days: days,
            node_validity_days: days,
        }
    }

    /// An operator's own files.
    fn configured(folder: &TempDir) -> Config {
        let path = |name| folder.path().join(name);
        let authority = Authority::generate(YEAR, NOW).unwrap();
        authority.save(&path("ca.pem"), &path("ca.key")).unwrap();
        let node = authority.issue_node(&["node.example".parse().unwrap()], YEAR, NOW).unwrap();
        write_public(&path("node.pem"), node.certificate.to_pem().as_bytes()).unwrap();
        write_private(&path("node.key"), node.key.to_pem().unwrap().as_bytes()).unwrap();
        Config { ca: path("ca.pem"), certificate: path("node.pem"), key: path("node.key"), ..generated() }
    }

    fn refusal(config: &Config) -> String {
        Pki::open(config, Path::new("/nowhere"), NOW).expect_err("refused").to_string()
    }

    #[test]
    fn a_generated_authority_stays_and_the_node_certificate_is_new_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Pki::open(&generated(), folder.path(), NOW).unwrap();
        let second = Pki::open(&generated(), folder.path(), NOW).unwrap();
        assert_eq!(first.roots, second.roots);
        assert_ne!(first.identity.chain, second.identity.chain);
        assert_eq!(first.origin, Origin::Generated);
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["ca.key", "ca.pem"]);
    }

    #[test]
    fn a_lost_certificate_is_made_again_from_its_key_and_a_lost_key_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let first = Pki::open(&generated(), folder.path(), NOW).unwrap();
        fs::remove_file(folder.path().join("ca.pem")).unwrap();
        let second = Pki::open(&generated(), folder.path(), NOW).unwrap();
        assert_eq!(first.roots[0].p256_point(), second.roots[0].p256_point());
        fs::remove_file(folder.path().join("ca.key")).unwrap();
        let text = Pki::open(&generated(), folder.path(), NOW).unwrap_err().to_string();
        assert!(text.contains("ca.key") && text.contains("put the key back"), "{text}");
    }

    #[test]
    fn the_operators_files_are_taken_and_enrol_only_with_the_authoritys_key() {
        let folder = tempfile::tempdir().unwrap();
        let config = configured(&folder);
        let pki = Pki::open(&config, Path::new("/nowhere"), NOW).unwrap();
        assert_eq!(pki.origin, Origin::Configured);
        assert!(pki.authority.is_none());
        let config = Config { ca_key: folder.path().join("ca.key"), ..config };
        assert!(Pki::open(&config, Path::new("/nowhere"), NOW).unwrap().authority.is_some());
    }

    #[test]
    fn keys_that_belong_together_are_asked_for_together() {
        let folder = tempfile::tempdir().unwrap();
        let text = refusal(&Config { key: PathBuf::new(), ..configured(&folder) });
        assert!(text.contains("pki.ca is set and pki.key is not"), "{text}");
        let text = refusal(&Config { ca_key: "ca.key".into(), ..generated() });
        assert!(text.contains("pki.ca_key is set and pki.ca is not"), "{text}");
    }

    #[test]
    fn what_a_device_could_not_check_is_refused_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let config = configured(&folder);
        let ca = fs::read_to_string(&config.ca).unwrap();
        let node = fs::read_to_string(&config.certificate).unwrap();

        fs::write(&config.certificate, &ca).unwrap();
        assert!(refusal(&config).contains("not that of pki.key"));
        fs::write(&config.certificate, node.clone() + &ca.repeat(6)).unwrap();
        assert!(refusal(&config).contains("at most 2600"), "{}", refusal(&config));
        fs::write(&config.certificate, &node[..node.len() / 2]).unwrap();
        assert!(refusal(&config).contains("pki.certificate"));
        fs::write(&config.certificate, &node).unwrap();
        fs::write(&config.ca, "").unwrap();
        assert!(refusal(&config).contains("pki.ca"));
        fs::write(&config.ca, &ca).unwrap();
        let late = NOW.saturating_add(YEAR * 2);
        let text = Pki::open(&config, Path::new("/nowhere"), late).unwrap_err().to_string();
        assert!(text.contains("does not hold today"), "{text}");
        fs::remove_file(&config.key).unwrap();
        assert!(refusal(&config).contains("pki.key"));
    }

    #[test]
    fn what_the_node_has_made_itself_is_made_anew_in_time_and_what_an_operator_gave_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(&generated(), folder.path(), NOW).unwrap();
        let leaf = &pki.identity.chain[0];
        let third = leaf.validity() / 3;
        let at = |left: Duration| UnixTime::from_ms(leaf.expires().as_ms() - left.as_millis() as u64);
        assert!(!pki.is_renewal_due(NOW) && !pki.is_renewal_due(at(third)));
        assert!(pki.is_renewal_due(at(third - Duration::from_secs(1))));
        assert!(pki.is_renewal_due(leaf.expires().saturating_add(YEAR)), "the clock was put forward");
        let before = UnixTime::from_ms(NOW.as_ms() - YEAR.as_millis() as u64);
        assert!(!pki.is_renewal_due(before), "before the authority began, there is nobody to sign");
        let later = at(Duration::ZERO);
        let renewed = Pki::open(&generated(), folder.path(), later).unwrap();
        assert!(renewed.identity.chain[0].expires() > leaf.expires() && !renewed.is_renewal_due(later));

        let end = pki.roots[0].expires();
        let eve = UnixTime::from_ms(end.as_ms() - 86_400_000);
        let last = Pki::open(&generated(), folder.path(), eve).unwrap();
        assert!(!last.is_renewal_due(eve), "it holds as long as its authority");
        assert!(!last.is_renewal_due(end.saturating_add(YEAR)), "there is nobody to sign");
        // One that differs in nothing else: its authority's key is here and could sign.
        let ends = leaf.expires();
        assert!(pki.is_renewal_due(ends));
        assert!(!Pki { origin: Origin::Configured, ..pki }.is_renewal_due(ends));
    }

    #[test]
    fn an_authority_that_does_not_hold_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(&generated(), folder.path(), NOW).unwrap();
        let late = pki.roots[0].expires().saturating_add(YEAR);
        let text = Pki::open(&generated(), folder.path(), late).unwrap_err().to_string();
        assert!(text.contains("ca.pem away and start again") && text.contains("ca.key"), "{text}");
        fs::remove_file(folder.path().join("ca.pem")).unwrap();
        assert!(Pki::open(&generated(), folder.path(), late).is_ok());
    }
}
