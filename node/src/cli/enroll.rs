//! `unhidra enroll`
//!
//! | file | mode | what it holds |
//! | --- | --- | --- |
//! | `key.pem` | 0600 | the private key of the certificate |
//! | `identity.key` | 0600 | the seed of the identity key (IK), 64 hexadecimal digits |
//! | `cert.pem` | 0644 | the device's certificate |
//! | `ca.pem` | 0644 | the authority that signs the node's certificate |
//! | `device.toml` | 0644 | what it is called, and the node it belongs to |
//!
//! Both keys are made here and lie nowhere else: the node is sent a certificate request and a
//! public key.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand_core::CryptoRng;
use serde::Serialize;
use serde_json::json;
use unhidra_certs::KeyPair;
use unhidra_core::device::Tag;
use unhidra_core::ids::DeviceId;
use unhidra_core::suite::Suite;
use unhidra_device_sdk::IdentitySecret;
use zeroize::Zeroizing;

use super::CliError;
use super::console::reachable;
use super::output::Output;
use crate::control::{Control, EnrollAsked, Enrolled, KeyHex};
use crate::folder::make_durably;

/// Enrols a device: makes its keys, has its certificate signed, and writes what it needs.
#[derive(Debug, clap::Args)]
pub struct Enroll {
    /// Its name: 1 to 64 characters of A-Z a-z 0-9 . _ -
    #[arg(value_name = "DEVICE_ID")]
    pub device: DeviceId,
    /// The folder its files are written to; made where there is none. No file is overwritten.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// A tag it carries; may be given more than once.
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<Tag>,
    /// Its hardware class, which `[retention.class.NAME]` and `unhidra export --class` go by.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub class: String,
    /// Its key agreement, which its firmware must have: x3dh (1), or pqxdh (2), which stays secret
    /// even from a quantum computer and takes 40 KB of stack.
    #[arg(long, value_name = "SUITE", default_value_t = Suite::X3dh)]
    pub suite: Suite,
    /// Gives a device that is enrolled already a new certificate and a new key. What it had ends.
    #[arg(long)]
    pub replace: bool,
}

const KEY: &str = "key.pem";
const IDENTITY: &str = "identity.key";
const CERTIFICATE: &str = "cert.pem";
const AUTHORITY: &str = "ca.pem";
const DEVICE: &str = "device.toml";

pub(super) async fn run(
    args: &Enroll,
    control: &dyn Control,
    rng: &mut impl CryptoRng,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let enrolled = enroll(args, control, rng).await?;
    let folder = args.out.display();
    out.say(
        &json!({ "device": enrolled.device, "out": args.out }),
        &format!("{} is enrolled; its files are in {folder}. Keep {KEY} and {IDENTITY} secret.", args.device),
    )
}

/// Enrols a device and writes its folder.
pub(super) async fn enroll(
    args: &Enroll,
    control: &dyn Control,
    rng: &mut impl CryptoRng,
) -> Result<Enrolled, CliError> {
    let mut bundle = Bundle::begin(&args.out)?;
    let unmade = |error: unhidra_certs::IssueError| CliError::Failed(format!("the device's key: {error}"));
    let key = KeyPair::generate().map_err(unmade)?;
    let identity = IdentitySecret::generate(rng);
    // The private halves first, durable, and from the question on they stay: were they gone after the
    // enrolment, the device would be enrolled with keys nobody has.
    bundle.write(KEY, 0o600, key.to_pem().map_err(unmade)?.as_bytes())?;
    bundle.write(IDENTITY, 0o600, &hex_line(identity.seed()))?;
    let asked = EnrollAsked {
        id: args.device,
        csr_pem: key.request(&args.device).map_err(unmade)?,
        identity_key: KeyHex(*identity.public().as_bytes()),
        suite: args.suite.as_byte(),
        tags: args.tags.iter().cloned().collect::<BTreeSet<_>>(),
        class: args.class.clone(),
        replace: args.replace,
    };
    bundle.sync()?;
    bundle.keep = Keep::Keys;
    let enrolled = match control.enroll(asked).await {
        Ok(enrolled) => enrolled,
        Err(error) if error.leaves_doubt() => return Err(keys_stay(args, "may be enrolled", &error)),
        Err(error) => {
            bundle.keep = Keep::Nothing;
            return Err(error.into());
        }
    };
    let written = bundle.finish(&enrolled);
    written.map_err(|error| keys_stay(args, "is enrolled", &error))?;
    Ok(enrolled)
}

/// What to do about a device whose certificate is not in its folder.
fn keys_stay(args: &Enroll, standing: &str, error: &dyn std::fmt::Display) -> CliError {
    let (device, folder) = (args.device, args.out.display());
    CliError::Failed(format!(
        "{error}; {device} {standing} with the keys in {folder}, which stay there: `unhidra device show {device}` says \
         how it stands, and `unhidra enroll {device} --replace --out` with another folder gives it others"
    ))
}

/// What `device.toml` says.
#[derive(Serialize)]
struct DeviceToml<'a> {
    id: &'a str,
    suite: u8,
    trust_domain: &'a str,
    node_identity_key: String,
    prefix: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
}

fn device_toml(enrolled: &Enrolled) -> Result<String, CliError> {
    let device = DeviceToml {
        id: enrolled.device.id.as_str(),
        suite: enrolled.device.suite,
        trust_domain: &enrolled.trust_domain,
        node_identity_key: enrolled.node_identity_key.to_string(),
        prefix: &enrolled.prefix,
        server: enrolled.server.map(|server| reachable(server).to_string()),
    };
    toml::to_string(&device).map_err(|error| CliError::Failed(format!("{DEVICE}: {error}")))
}

fn hex_line(seed: &[u8; 32]) -> Zeroizing<Vec<u8>> {
    // All its room at once: a vector that grows leaves copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(65));
    for byte in seed {
        for nibble in [byte >> 4, byte & 0x0f] {
            line.push(b"0123456789abcdef"[usize::from(nibble)]);
        }
    }
    line.push(b'\n');
    line
}

/// The files of one device, taken back unless all of them were written; the keys only until the node was asked.
struct Bundle {
    folder: PathBuf,
    made_folder: bool,
    written: Vec<PathBuf>,
    keep: Keep,
}

/// What stays of a device's files if it ends now.
enum Keep {
    Nothing,
    Keys,
    All,
}

impl Bundle {
    fn begin(folder: &Path) -> Result<Self, CliError> {
        let failed = |source| CliError::File { path: folder.to_owned(), source };
        for name in [KEY, IDENTITY, CERTIFICATE, AUTHORITY, DEVICE] {
            let path = folder.join(name);
            if path.symlink_metadata().is_ok() {
                let path = path.display();
                return Err(CliError::Failed(format!(
                    "{path} is there already, and is not overwritten; name another folder"
                )));
            }
        }
        let made_folder = match fs::metadata(folder) {
            Ok(found) if found.is_dir() => false,
            Ok(_) => return Err(failed(io::ErrorKind::NotADirectory.into())),
            Err(_) => {
                make_durably(folder).map_err(failed)?;
                true
            }
        };
        Ok(Self { folder: folder.to_owned(), made_folder, written: Vec::new(), keep: Keep::Nothing })
    }

    fn write(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<(), CliError> {
        let path = self.folder.join(name);
        let failed = |source| CliError::File { path: path.clone(), source };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).map_err(failed)?;
        self.written.push(path.clone());
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
    }

    /// Writes what the node has answered.
    fn finish(&mut self, enrolled: &Enrolled) -> Result<(), CliError> {
        self.write(CERTIFICATE, 0o644, enrolled.certificate_pem.as_bytes())?;
        self.write(AUTHORITY, 0o644, enrolled.ca_pem.as_bytes())?;
        self.write(DEVICE, 0o644, device_toml(enrolled)?.as_bytes())?;
        self.keep = Keep::All;
        self.sync()
    }

    /// Makes the names of the files durable, as what is in them is already.
    fn sync(&self) -> Result<(), CliError> {
        let failed = |source| CliError::File { path: self.folder.clone(), source };
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let stays = |path: &Path| match self.keep {
            Keep::Nothing => false,
            Keep::Keys => path.ends_with(KEY) || path.ends_with(IDENTITY),
            Keep::All => true,
        };
        // Whatever stands in the way now stood in the way of writing too, and was told.
        for path in self.written.iter().filter(|path| !stays(path)) {
            let _ = fs::remove_file(path);
        }
        if self.made_folder && matches!(self.keep, Keep::Nothing) {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}
