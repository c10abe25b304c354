//! What several rooms' tests stand on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use unhidra_certs::{KeyPair, Pki};
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::time::{Clock, Timestamp, UnixTime};
use unhidra_store::Store;
use unhidra_store::memory::{Memory, Options};

use crate::control::{CommandLimits, EnrollAsked, KeyHex, Live, LocalControl, LocalDoors, NodeFacts};
use crate::registry::{Registry, Rules};

pub(crate) const NOW: UnixTime = UnixTime::from_s(1_800_000_000);
pub(crate) const TRUST_DOMAIN: &str = "unhidra.local";

/// A clock that stands until it is moved: its timer, how far its calendar was set ahead of that, and how
/// long the machine was suspended.
pub(crate) struct StillClock(AtomicU64, AtomicU64, AtomicU64);

impl StillClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Sets the calendar ahead.
    pub(crate) fn jump(&self, by: Duration) {
        self.1.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Lets the machine sleep: its timer stands meanwhile.
    pub(crate) fn suspend(&self, by: Duration) {
        self.2.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Default for StillClock {
    fn default() -> Self {
        Self(AtomicU64::new(NOW.as_ms()), AtomicU64::default(), AtomicU64::default())
    }
}

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::Relaxed))
    }
    fn unix_now(&self) -> UnixTime {
        UnixTime::from_ms(self.since_boot().as_ms() + self.1.load(Ordering::Relaxed))
    }
    fn since_boot(&self) -> Timestamp {
        Timestamp::from_ms(self.0.load(Ordering::Relaxed) + self.2.load(Ordering::Relaxed))
    }
}

pub(crate) fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

/// What a node stands on, in a folder that goes with it.
pub(crate) struct Ground {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Arc<Memory>,
    pub(crate) clock: Arc<StillClock>,
}

impl Ground {
    pub(crate) fn new() -> Self {
        Self::with(Options { partitions: 2, ..Options::SMALL })
    }

    pub(crate) fn with(options: Options) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), store: Arc::new(Memory::new(options)), clock: Arc::default() }
    }

    /// The same store, closed and opened again, as by the next process.
    pub(crate) async fn reopen(&mut self) {
        self.store.close().await;
        self.store = Arc::new(self.store.reopen());
    }

    pub(crate) async fn registry(&self) -> Arc<Registry> {
        let rules = Rules { trust_domain: TRUST_DOMAIN.to_owned() };
        Registry::load(self.store.clone(), self.clock.clone(), rules).await.unwrap()
    }

    pub(crate) async fn control(&self, live: Option<Arc<dyn Live>>) -> LocalControl {
        self.control_over(self.registry().await, live)
    }

    pub(crate) fn control_over(&self, registry: Arc<Registry>, live: Option<Arc<dyn Live>>) -> LocalControl {
        self.control_with(registry, live, self.pki())
    }

    /// Control of a node that has no key of its authority.
    pub(crate) async fn keyless(&self) -> LocalControl {
        let pki = Pki { authority: None, ..self.pki() };
        self.control_with(self.registry().await, None, pki)
    }

    fn pki(&self) -> Pki {
        let config = toml::from_str(
            r#"
            ca = ""
            ca_key = ""
            crl = ""
            crl_interval_s = 10
            certificate = ""
            key = ""
            names = ["localhost"]
            trust_domain = "unhidra.local"
            device_validity_days = 365
            node_validity_days = 30
            "#,
        )
        .unwrap();
        Pki::open(&config, self.folder.path(), NOW).unwrap()
    }

    fn control_with(&self, registry: Arc<Registry>, live: Option<Arc<dyn Live>>, pki: Pki) -> LocalControl {
        let numbers = AtomicU64::new(1);
        let doors = LocalDoors {
            store: self.store.clone(),
            registry,
            pki: Arc::new(ArcSwap::from_pointee(pki)),
            clock: self.clock.clone(),
            command_ids: Box::new(move || {
                CommandId::new(u128::from(numbers.fetch_add(1, Ordering::Relaxed)).to_be_bytes())
            }),
            disk_bytes_max: 0,
            backups: None,
            live,
            keys: None,
        };
        let facts = NodeFacts {
            trust_domain: TRUST_DOMAIN.parse().unwrap(),
            device_validity: Duration::from_secs(86_400),
            identity_key: node_identity_key(),
            prefix: "unhidra".to_owned(),
            durability: unhidra_store::Durability::Fsync,
            server: None,
        };
        let limits = CommandLimits { open_max: 2, body_max: 100, expiry: Duration::from_secs(60) };
        LocalControl::new(doors, facts, limits)
    }
}

/// The public key of the node's identity.
pub(crate) fn node_identity_key() -> [u8; 32] {
    *unhidra_bridge::IdentitySecret::from_seed(&[7; 32]).public().as_bytes()
}

/// A request as `unhidra enroll` makes it.
pub(crate) fn enroll_asked(device: &str) -> EnrollAsked {
    let csr_pem = KeyPair::generate().unwrap().request(&id(device)).unwrap();
    let identity_key = KeyHex(*unhidra_bridge::IdentitySecret::from_seed(&[3; 32]).public().as_bytes());
    EnrollAsked {
        id: id(device),
        csr_pem,
        identity_key,
        suite: 1,
        tags: Default::default(),
        class: String::new(),
        replace: false,
    }
}
