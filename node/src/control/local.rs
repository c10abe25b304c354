//! The store, the registry and the certificates at hand: in a running node, or in the command line
//! itself where none runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use unhidra_bridge::{IdentityKey, Resets};
use unhidra_certs::{Pki, Request, TrustDomain};
use unhidra_core::ids::{CommandId, DeviceId, Partition};
use unhidra_core::message::{Reading, UplinkKind};
use unhidra_core::suite::Suite;
use unhidra_core::time::Clock;
use unhidra_store::{Act, Deed, Limit, Op, Readable, Store};

use super::{
    ActRecord, ActsAsked, ActsPage, Addresses, Asked, CancelAsked, ClientsAsked, ClientsPage, CommandRecord,
    CommandsAsked, CommandsFound, Control, ControlError, DamagedRecord, DeviceRecord, DevicesAsked, DevicesPage,
    EnrollAsked, Enrolled, Info, KeyHex, KeysStatus, KickAsked, Kicked, Live, Minted, RevokeTokensAsked, Revoked,
    RevokedTokens, RewrapAsked, Rewrapped, RowRecord, RowsAsked, RowsPage, SendAsked, SetAsked, SettingRecord,
    SettingsFound, Span, Storage, SubscribersAsked, SubscribersFound, TagAsked, TokenAsked, TokenRecord, UserAct,
    storage,
};
use crate::actor;
use crate::backup::{Pieces, Source};
use crate::commit::commit;
use crate::keychain::Keychain;
use crate::outlets::{self, OutletRecord};
use crate::registry::{Enrolment, Registry, Replace, Revocation};
use crate::upstream::UpstreamRecord;

mod orders;

/// How many devices one answer holds at most.
const DEVICES_MAX: usize = 256;

/// How many acts one answer looks at.
const ACTS_MAX: usize = 4096;

/// How much of the log one answer holds at most; a row with the largest body fits.
const ROWS: Limit = Limit { rows: 1024, bytes: 1024 * 1024 };

/// What a device must be told of the node it comes to.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// The trust domain of its certificates.
    pub trust_domain: TrustDomain,
    /// How long a device's certificate holds.
    pub device_validity: Duration,
    /// Its long-term Ed25519 public key.
    pub identity_key: [u8; 32],
    /// The first level of its topics.
    pub prefix: String,
    /// What must have a reading before it is acknowledged.
    pub durability: unhidra_store::Durability,
    /// Where it takes MQTT over TLS when it runs, if that is known while it does not.
    pub server: Option<SocketAddr>,
}

/// What a command may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CommandLimits {
    /// Open commands of one device.
    pub open_max: usize,
    /// Bytes of a body.
    pub body_max: usize,
    /// How long a command lives where the caller names no time.
    pub expiry: Duration,
}

/// What a [`LocalControl`] works with.
pub struct LocalDoors {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The registry over it.
    pub registry: Arc<Registry>,
    /// The certificates, swapped when they are read again.
    pub pki: Arc<ArcSwap<Pki>>,
    /// The time.
    pub clock: Arc<dyn Clock + Send + Sync>,
    /// Where the ids of commands come from.
    pub command_ids: Box<dyn Fn() -> CommandId + Send + Sync>,
    /// How many bytes the store may take of the disk; 0 without a bound.
    pub disk_bytes_max: u64,
    /// What backups are made of, where the store has files.
    pub backups: Option<Source>,
    /// The running node, if one runs.
    pub live: Option<Arc<dyn Live>>,
    /// The keys of the store, if it lies in a folder.
    pub keys: Option<Arc<Keychain>>,
}

/// [`Control`] by hand.
pub struct LocalControl {
    doors: LocalDoors,
    facts: NodeFacts,
    limits: CommandLimits,
}

impl LocalControl {
    /// Control over a store that is open.
    #[must_use]
    pub fn new(doors: LocalDoors, facts: NodeFacts, limits: CommandLimits) -> Self {
        Self { doors, facts, limits }
    }

    fn addresses(&self) -> Addresses {
        self.doors.live.as_ref().map(|live| live.addresses()).unwrap_or_default()
    }

    fn live(&self, what: &str) -> Result<&dyn Live, ControlError> {
        self.doors.live.as_deref().ok_or_else(|| ControlError::NotRunning(what.to_owned()))
    }

    /// Writes down what was done that is in no record of the store.
    async fn note(&self, deed: Deed, detail: &str) -> Result<(), ControlError> {
        let act = Act::new(self.doors.clock.unix_now(), &actor::current(), deed, detail);
        commit(&*self.doors.store, Partition::new(0), vec![Op::Act(act)]).await?;
        Ok(())
    }

    fn keychain(&self) -> Result<&Arc<Keychain>, ControlError> {
        self.doors.keys.as_ref().ok_or_else(|| ControlError::NotRunning("the keys of a store in memory".to_owned()))
    }

    fn is_online(&self, device: &DeviceId) -> Option<bool> {
        self.doors.live.as_ref().map(|live| live.is_online(device))
    }

    async fn signed(&self, asked: EnrollAsked) -> Result<Enrolled, ControlError> {
        let suite = suite_of(asked.suite)?;
        let invalid = |error: unhidra_certs::RequestError| ControlError::Invalid(format!("the request: {error}"));
        let key = IdentityKey::from_bytes(&asked.identity_key.0);
        key.map_err(|_| ControlError::Invalid("the identity key is no Ed25519 public key".to_owned()))?;
        let request = Request::from_pem(asked.csr_pem.as_bytes()).map_err(invalid)?;
        let (certificate, ca_pem) = self.certificate(&request, &asked.id)?;
        let enrolment = Enrolment {
            id: asked.id,
            identity_key: asked.identity_key.0,
            certificate: certificate.fingerprint(),
            certificate_expires: certificate.expires(),
            suite,
            tags: asked.tags,
            class: class_of(asked.class)?,
        };
        let replace = if asked.replace { Replace::Yes } else { Replace::No };
        let device = self.doors.registry.enroll(enrolment, replace).await?;
        Ok(Enrolled {
            device: DeviceRecord::new(&device, self.is_online(&device.id)),
            certificate_pem: certificate.to_pem(),
            ca_pem,
            trust_domain: self.facts.trust_domain.to_string(),
            node_identity_key: KeyHex(self.facts.identity_key),
            prefix: self.facts.prefix.clone(),
            server: self.addresses().mqtt.or(self.facts.server),
        })
    }

    fn certificate(
        &self,
        request: &Request,
        id: &DeviceId,
    ) -> Result<(unhidra_certs::Certificate, String), ControlError> {
        let pki = self.doors.pki.load();
        let no_key = "this node has no key of its authority: set pki.ca_key, or sign the device where the key is";
        let authority = pki.authority.as_ref().ok_or_else(|| ControlError::Unable(no_key.to_owned()))?;
        let facts = &self.facts;
        let now = self.doors.clock.unix_now();
        let signed = authority.sign_device(request, id, &facts.trust_domain, facts.device_validity, now);
        let certificate = signed.map_err(|error| ControlError::Unable(error.to_string()))?;
        Ok((certificate, pki.roots_pem()))
    }

    async fn read(&self, asked: RowsAsked) -> Result<RowsPage, ControlError> {
        let after = asked.offset();
        let store = &self.doors.store;
        let (partition, read) = match asked.of {
            Span::Partition(number) if number >= store.partitions() => {
                let count = store.partitions();
                return Err(ControlError::Invalid(format!("partition {number}; there are {count}, from 0")));
            }
            Span::Partition(number) => (number, store.readable_log(Partition::new(number), after, after, ROWS).await?),
            Span::Device(id) => {
                self.doors.registry.get(&id).ok_or(ControlError::NoDevice { id })?;
                (store.partition_of(&id).get(), store.readable_history(&id, after, ROWS).await?)
            }
        };
        let reached = read.reached(after);
        let next = (reached > after).then(|| reached.get());
        let Readable { page, damaged, .. } = read;
        let damaged = damaged.into_iter().map(|row| DamagedRecord {
            partition,
            offset: row.offset.get(),
            device: row.device,
            cause: row.cause.to_string(),
        });
        // What is left of a trimmed row is shown to nobody.
        let wanted = |row: &&Reading| {
            let whole = row.uplink.kind != UplinkKind::Trimmed;
            whole && asked.covers(row.uplink.received_at) && self.is_of_class(row, &asked)
        };
        let rows = page.rows.iter().filter(wanted).map(RowRecord::from).collect();
        Ok(RowsPage { rows, more: page.more, next, damaged: damaged.collect() })
    }

    fn is_of_class(&self, row: &Reading, asked: &RowsAsked) -> bool {
        let Some(class) = &asked.class else { return true };
        self.doors.registry.get(&row.uplink.device).is_some_and(|device| device.class == *class)
    }
}

impl Control for LocalControl {
    fn info(&self) -> Asked<'_, Info> {
        let (doors, facts) = (&self.doors, &self.facts);
        let info = Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            running: doors.live.is_some(),
            trust_domain: facts.trust_domain.to_string(),
            node_identity_key: KeyHex(facts.identity_key),
            prefix: facts.prefix.clone(),
            partitions: doors.store.partitions(),
            epoch: doors.store.epoch().get(),
            durability: facts.durability.name().to_owned(),
            devices: doors.registry.len(),
            addresses: self.addresses(),
        };
        Box::pin(async { Ok(info) })
    }

    fn enroll(&self, asked: EnrollAsked) -> Asked<'_, Enrolled> {
        Box::pin(self.signed(asked))
    }

    fn devices(&self, asked: DevicesAsked) -> Asked<'_, DevicesPage> {
        let page = self.doors.registry.page(asked.after.as_ref(), DEVICES_MAX);
        let devices = page.rows.iter().map(|device| DeviceRecord::new(device, self.is_online(&device.id))).collect();
        Box::pin(async move { Ok(DevicesPage { devices, more: page.more }) })
    }

    fn device(&self, id: DeviceId) -> Asked<'_, DeviceRecord> {
        Box::pin(async move {
            let device = self.doors.registry.get(&id).ok_or(ControlError::NoDevice { id })?;
            let stored = self.doors.store.session(&id).await?;
            let resets = match stored.and_then(|stored| stored.peer) {
                Some(peer) => Resets::of(&peer).map_err(|error| ControlError::Unavailable(error.to_string()))?,
                None => Resets::default(),
            };
            Ok(DeviceRecord { resets: Some(resets.into()), ..DeviceRecord::new(&device, self.is_online(&id)) })
        })
    }

    fn tag(&self, id: DeviceId, asked: TagAsked) -> Asked<'_, DeviceRecord> {
        Box::pin(async move {
            let device = self.doors.registry.tag(id, asked.add, asked.remove).await?;
            Ok(DeviceRecord::new(&device, self.is_online(&id)))
        })
    }

    fn revoke(&self, id: DeviceId) -> Asked<'_, Revoked> {
        Box::pin(async move {
            let was_online = self.is_online(&id);
            let (device, before) = match self.doors.registry.revoke(id).await? {
                Revocation::Now(device) => (device, false),
                Revocation::Before(device) => (device, true),
            };
            Ok(Revoked { device: DeviceRecord::new(&device, self.is_online(&id)), before, was_online })
        })
    }

    fn send(&self, asked: SendAsked) -> Asked<'_, CommandRecord> {
        Box::pin(self.queue(asked))
    }

    fn cancel(&self, asked: CancelAsked) -> Asked<'_, CommandRecord> {
        Box::pin(self.call_back(asked))
    }

    fn commands(&self, asked: CommandsAsked) -> Asked<'_, CommandsFound> {
        Box::pin(self.list(asked))
    }

    fn set(&self, asked: SetAsked) -> Asked<'_, SettingRecord> {
        Box::pin(self.put_setting(asked))
    }

    fn settings(&self, device: DeviceId) -> Asked<'_, SettingsFound> {
        Box::pin(async move {
            self.known(&device)?;
            let settings = self.doors.store.settings(&device).await?;
            Ok(SettingsFound { settings: settings.iter().map(SettingRecord::from).collect() })
        })
    }

    fn command(&self, device: DeviceId, id: CommandId) -> Asked<'_, CommandRecord> {
        Box::pin(async move {
            self.doors.registry.get(&device).ok_or(ControlError::NoDevice { id: device })?;
            let command = self.doors.store.command(&device, &id).await?;
            command.map(|command| self.shown(&command)).ok_or(ControlError::NoCommand { id })
        })
    }

    fn rows(&self, asked: RowsAsked) -> Asked<'_, RowsPage> {
        Box::pin(self.read(asked))
    }

    fn storage(&self) -> Asked<'_, Storage> {
        Box::pin(storage::look(&*self.doors.store, self.doors.disk_bytes_max))
    }

    fn backup(&self) -> Asked<'_, Pieces> {
        Box::pin(async {
            let none = || ControlError::Unavailable("this store has no files to make a backup of".to_owned());
            self.doors.backups.as_ref().ok_or_else(none)?.begin(self.doors.clock.unix_now()).await
        })
    }

    fn mint(&self, asked: TokenAsked) -> Asked<'_, Minted> {
        Box::pin(async move {
            let live = self.live("a token for the gateway")?;
            // First who made it: a token that nobody knows of could not be revoked.
            if asked.is_act() {
                self.note(Deed::AddToken, &asked.detail()).await?;
            }
            Ok(Minted { token: live.mint(&asked)?, gateway: live.addresses().gateway })
        })
    }

    fn tokens(&self) -> Asked<'_, Vec<TokenRecord>> {
        let found = self.live("the list of its tokens").map(Live::tokens);
        Box::pin(async { found })
    }

    fn revoke_tokens(&self, asked: RevokeTokensAsked) -> Asked<'_, RevokedTokens> {
        Box::pin(async move {
            let revoked = self.live("a token that is to go")?.revoke_tokens(&asked);
            let RevokedTokens { tokens, clients } = revoked;
            let detail = format!("token:{}, {tokens} tokens, {clients} clients", asked.name);
            // A name that nobody has is no act.
            if tokens + clients > 0 {
                self.note(Deed::RevokeToken, &detail).await?;
            }
            Ok(revoked)
        })
    }

    fn clients(&self, asked: ClientsAsked) -> Asked<'_, ClientsPage> {
        let page = self.live("the list of its clients").and_then(|live| live.clients(&asked));
        Box::pin(async { page })
    }

    fn subscribers(&self, asked: SubscribersAsked) -> Asked<'_, SubscribersFound> {
        let found = self.live("who would get a message").and_then(|live| live.subscribers(&asked));
        Box::pin(async { found })
    }

    fn keys(&self) -> Asked<'_, KeysStatus> {
        let status = self.keychain().and_then(|keys| keys.status());
        Box::pin(async { status })
    }

    fn rotate_keys(&self) -> Asked<'_, KeysStatus> {
        Box::pin(async { self.keychain()?.rotate().await })
    }

    fn rewrap_keys(&self, asked: RewrapAsked) -> Asked<'_, Rewrapped> {
        Box::pin(async { self.keychain()?.rewrap(asked).await })
    }

    fn acts(&self, asked: ActsAsked) -> Asked<'_, ActsPage> {
        Box::pin(async move {
            let store = &self.doors.store;
            let partitions = store.partitions();
            if asked.partition >= partitions {
                let found = asked.partition;
                return Err(ControlError::Invalid(format!("partition {found}; there are {partitions}, from 0")));
            }
            let page = store.acts(Partition::new(asked.partition), asked.after, ACTS_MAX).await?;
            let next = page.rows.last().filter(|_| page.more).map(|row| row.number);
            let acts = page.rows.iter().filter(|row| asked.wants(row)).map(ActRecord::from).collect();
            Ok(ActsPage { acts, next })
        })
    }

    fn outlets(&self) -> Asked<'_, Vec<OutletRecord>> {
        Box::pin(async move {
            match &self.doors.live {
                Some(live) => Ok(live.outlets()),
                None => Ok(outlets::stopped(&*self.doors.store).await?),
            }
        })
    }

    fn user_act(&self, asked: UserAct) -> Asked<'_, ()> {
        Box::pin(async move { self.note(asked.done.into(), &asked.user).await })
    }

    fn upstreams(&self) -> Asked<'_, Vec<UpstreamRecord>> {
        let found = self.live("how its outside brokers stand").map(Live::upstreams);
        Box::pin(async { found })
    }

    fn kick(&self, asked: KickAsked) -> Asked<'_, Kicked> {
        match self.live("a client that is to go") {
            Ok(live) => live.kick(asked),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }
}

/// A class is an operator's word, and stands in tables and in names of configuration keys.
fn class_of(class: String) -> Result<String, ControlError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if class.len() <= 64 && class.bytes().all(allowed) {
        return Ok(class);
    }
    let found: String = class.chars().take(80).collect();
    Err(ControlError::Invalid(format!("the class {found:?}; a class has at most 64 characters of A-Z a-z 0-9 . _ -")))
}

fn suite_of(byte: u8) -> Result<Suite, ControlError> {
    let unknown = || ControlError::Invalid(format!("suite {byte}; there are 1 (x3dh) and 2 (pqxdh)"));
    Suite::from_byte(byte).ok_or_else(unknown)
}
