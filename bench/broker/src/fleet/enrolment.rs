//! The devices of the fleet, enrolled over the node's control socket.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use unhidra_certs::KeyPair;
use unhidra_core::ids::DeviceId;
use unhidra_device_sdk::{Identity, IdentityKey, IdentitySecret, Suite};

use super::control;
use crate::pki;

/// One device, and how it dials.
#[derive(Clone)]
pub(super) struct Enrolled {
    pub(super) id: DeviceId,
    seed: [u8; 32],
    node: [u8; 32],
    pub(super) tls: Arc<ClientConfig>,
}

impl Enrolled {
    /// Makes a device's keys and has them signed.
    fn enrol(socket: &Path, number: usize) -> Result<Self, Box<dyn Error>> {
        let id: DeviceId = format!("fleet-{number:05}").parse()?;
        let key = KeyPair::generate()?;
        let secret = IdentitySecret::generate(&mut StdRng::seed_from_u64(rand::random()));
        let asked = json!({
            "id": id.as_str(), "csr_pem": key.request(&id)?, "identity_key": hex(secret.public().as_bytes()),
            "suite": Suite::X3dh.as_byte(), "tags": [], "replace": false,
        });
        let enrolled = control::post(socket, "/control/v1/devices", &asked)?;
        let text = |field: &str| enrolled[field].as_str().ok_or_else(|| format!("no {field} in {enrolled}"));
        let chain =
            CertificateDer::pem_slice_iter(text("certificate_pem")?.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let tls = pki::client_with(chain, key.to_rustls()?, false)?;
        Ok(Self { id, seed: *secret.seed(), node: unhex(text("node_identity_key")?)?, tls })
    }

    /// Who it is and whom it trusts.
    pub(super) fn identity(&self) -> Result<Identity, String> {
        Ok(Identity {
            device: self.id,
            secret: IdentitySecret::from_seed(&self.seed),
            node: IdentityKey::from_bytes(&self.node).map_err(|error| error.to_string())?,
            suite: Suite::X3dh,
        })
    }
}

/// Enrols so many, a few at once.
pub(super) fn enrol(socket: &Path, count: usize) -> Result<Vec<Enrolled>, Box<dyn Error>> {
    const AT_ONCE: usize = 8;
    let some = |first: usize| -> Result<Vec<Enrolled>, String> {
        (first..count)
            .step_by(AT_ONCE)
            .map(|number| Enrolled::enrol(socket, number).map_err(|error| error.to_string()))
            .collect()
    };
    let all: Vec<Result<Vec<Enrolled>, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|first| scope.spawn(move || some(first))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into()))).collect()
    });
    let mut devices = Vec::with_capacity(count);
    for some in all {
        devices.extend(some?);
    }
    Ok(devices)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<[u8; 32], String> {
    let wrong = || format!("{text:?} is no key");
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err(wrong());
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(bytes)
}
