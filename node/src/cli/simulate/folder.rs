//! A device's folder, as `unhidra enroll` writes it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use unhidra_core::ids::DeviceId;
use unhidra_device_sdk::topics::Prefix;
use unhidra_device_sdk::{Identity, IdentityKey, IdentitySecret, Suite};
use zeroize::Zeroizing;

use super::SimulateError;

/// What a device is, and how it comes in.
pub(super) struct DeviceFolder {
    pub(super) identity: Identity,
    pub(super) prefix: Prefix,
    /// Where its node listens, as far as the folder knows.
    pub(super) server: Option<String>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) path: PathBuf,
}

/// `device.toml`. Keys of later versions are not this one's business.
#[derive(Deserialize)]
struct DeviceToml {
    id: String,
    suite: u8,
    node_identity_key: String,
    prefix: String,
    server: Option<String>,
}

impl DeviceFolder {
    /// Reads a folder.
    ///
    /// # Errors
    ///
    /// [`SimulateError`] names the file and what is wrong with it.
    pub(super) fn read(path: &Path) -> Result<Self, SimulateError> {
        let toml_path = path.join("device.toml");
        let bad = |cause: String| SimulateError::Folder { path: toml_path.clone(), cause };
        let text = fs::read_to_string(&toml_path).map_err(|error| bad(error.to_string()))?;
        let toml: DeviceToml = toml::from_str(&text).map_err(|error| bad(error.message().to_owned()))?;
        let suite = Suite::from_byte(toml.suite)
            .ok_or_else(|| bad(format!("suite {}; there are 1 (x3dh) and 2 (pqxdh)", toml.suite)))?;
        let node = unhex(&toml.node_identity_key)
            .ok_or_else(|| bad("node_identity_key is not 64 hexadecimal digits".to_owned()))?;
        let identity = Identity {
            device: DeviceId::parse(&toml.id).map_err(|error| bad(error.to_string()))?,
            secret: identity_secret(&path.join("identity.key"))?,
            node: IdentityKey::from_bytes(&node).map_err(|error| bad(format!("node_identity_key: {error}")))?,
            suite,
        };
        let prefix = Prefix::parse(&toml.prefix).map_err(|error| bad(error.to_string()))?;
        Ok(Self { identity, prefix, server: toml.server, tls: Arc::new(tls(path)?), path: path.to_owned() })
    }
}

fn identity_secret(path: &Path) -> Result<IdentitySecret, SimulateError> {
    let bad = |cause: String| SimulateError::Folder { path: path.to_owned(), cause };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| bad(error.to_string()))?);
    let seed = unhex(text.trim_end()).ok_or_else(|| bad("it is not 64 hexadecimal digits".to_owned()))?;
    Ok(IdentitySecret::from_seed(&Zeroizing::new(seed)))
}

/// TLS 1.3 with the device's certificate, towards a node of its own authority alone.
fn tls(path: &Path) -> Result<ClientConfig, SimulateError> {
    let file = |name: &str| path.join(name);
    let bad = |name: &str, cause: String| SimulateError::Folder { path: file(name), cause };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&file("ca.pem"))? {
        roots.add(certificate).map_err(|error| bad("ca.pem", error.to_string()))?;
    }
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).map_err(|error| bad("key.pem", error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| bad("ca.pem", error.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&file("cert.pem"))?, key)
        .map_err(|error| bad("cert.pem", error.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SimulateError> {
    let bad = |cause: String| SimulateError::Folder { path: path.to_owned(), cause };
    let found = CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| bad(error.to_string()))?;
    if found.is_empty() { Err(bad("it holds no certificate".to_owned())) } else { Ok(found) }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        let digit = |digit: &u8| char::from(*digit).to_digit(16);
        *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_four_hexadecimal_digits_are_a_key() {
        assert_eq!(unhex(&"0aF1".repeat(16)).map(|key| [key[0], key[1], key[31]]), Some([0x0a, 0xf1, 0xf1]));
        for bad in ["", "0a", &"0g".repeat(32), &"0a".repeat(33), &"ä".repeat(32)] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_folder_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let read = || DeviceFolder::read(folder.path()).map(|_| ()).unwrap_err().to_string();
        assert!(read().contains("device.toml"), "{}", read());
        let key = "0".repeat(64);
        let write = |suite: u8, id: &str, node: &str| {
            let text = format!("id = {id:?}\nsuite = {suite}\nnode_identity_key = {node:?}\nprefix = \"unhidra\"\n");
            fs::write(folder.path().join("device.toml"), text).unwrap();
        };
        write(3, "d7", &key);
        assert!(read().contains("suite 3; there are 1"), "{}", read());
        write(1, "d 7", &key);
        fs::write(folder.path().join("identity.key"), "abc\n").unwrap();
        assert!(read().contains("a device id"), "{}", read());
        write(1, "d7", "abc");
        assert!(read().contains("node_identity_key"), "{}", read());
        write(1, "d7", &key);
        assert!(read().contains("identity.key"), "{}", read());
    }
}
