//! Tokens to rights.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::{Clock, UnixTime};

use crate::error::TokenRefused;

/// Which devices a client may see.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Visible {
    /// Every device, also those enrolled later.
    All,
    /// These.
    Set(BTreeSet<DeviceId>),
}

impl Visible {
    /// Whether `device` is among them.
    #[must_use]
    pub fn contains(&self, device: &DeviceId) -> bool {
        match self {
            Self::All => true,
            Self::Set(devices) => devices.contains(device),
        }
    }
}

/// What a token is called, so that the log of acts can say whose it was: 1 to 32 of `A-Z a-z 0-9 . _ -`.
/// Several tokens may have one name. It is no secret.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TokenName(Arc<str>);

/// The most bytes of a [`TokenName`].
const NAME_LEN_MAX: usize = 32;

/// A text that is no [`TokenName`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a token's name has 1 to {NAME_LEN_MAX} characters of A-Z a-z 0-9 . _ -")]
pub struct TokenNameError;

impl TokenName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TokenName {
    /// What a token is called that nobody has named.
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for TokenName {
    type Err = TokenNameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let fits = (1..=NAME_LEN_MAX).contains(&text.len()) && text.bytes().all(allowed);
        if fits { Ok(Self(text.into())) } else { Err(TokenNameError) }
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client may see and do, and until when.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rights {
    /// What its token is called.
    pub name: TokenName,
    /// Which devices it may see.
    pub devices: Visible,
    /// Whether it may command those.
    pub may_command: bool,
    /// When all this ends.
    pub expires_at: UnixTime,
}

/// A token that stands for a client's rights over several connections.
#[derive(Clone, Eq, PartialEq)]
pub struct Session {
    /// The token.
    pub token: String,
    /// When it ends.
    pub expires_at: UnixTime,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("token", &"[secret]").field("expires_at", &self.expires_at).finish()
    }
}

/// Who may see and do what. Answers from memory.
pub trait Authority: Send + Sync + 'static {
    /// What a token stands for. A one-time token is used up by the asking.
    ///
    /// # Errors
    ///
    /// [`TokenRefused`] where it stands for nothing.
    fn rights(&self, token: &str) -> Result<Rights, TokenRefused>;

    /// Uses up a one-time token and gives a session token with the same rights.
    ///
    /// # Errors
    ///
    /// [`TokenRefused`] where it is no one-time token, or no longer one.
    fn exchange(&self, once: &str) -> Result<Session, TokenRefused>;
}

/// How often a token serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Use {
    /// Once: it travels in a URL, where others may come to see it.
    Once,
    /// Until it expires.
    Session,
}

/// A token as it is listed: without the token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed {
    /// What its holder may see and do, and until when.
    pub rights: Rights,
    /// How often it serves.
    pub uses: Use,
}

/// Where tokens draw their 32 random bytes from.
pub type Entropy = Box<dyn FnMut(&mut [u8; 32]) + Send>;

/// The tokens of one process: random, kept in memory as hashes, gone with the process.
///
/// Holds as many as it was made for; when full, the one nearest to its end makes room.
pub struct Tokens {
    clock: Arc<dyn Clock + Send + Sync>,
    session_lifetime: Duration,
    max: usize,
    table: Mutex<Table>,
}

struct Table {
    entropy: Entropy,
    // By SHA-256 of the token: a look-up compares hashes, whose timing tells nothing of a token.
    grants: HashMap<[u8; 32], Grant>,
}

struct Grant {
    rights: Rights,
    uses: Use,
}

impl Tokens {
    /// An empty table.
    ///
    /// `entropy` is a cryptographic generator: whoever predicts it holds every token.
    #[must_use]
    pub fn new(max: usize, session_lifetime: Duration, clock: Arc<dyn Clock + Send + Sync>, entropy: Entropy) -> Self {
        let table = Mutex::new(Table { entropy, grants: HashMap::new() });
        Self { clock, session_lifetime, max, table }
    }

    /// How long a session token lives where nobody says otherwise.
    #[must_use]
    pub const fn session_lifetime(&self) -> Duration {
        self.session_lifetime
    }

    /// Makes a token that stands for access to `devices` for `lifetime` from now.
    pub fn mint(&self, name: TokenName, devices: Visible, may_command: bool, lifetime: Duration, uses: Use) -> String {
        let now = self.clock.unix_now();
        let rights = Rights { name, devices, may_command, expires_at: now.saturating_add(lifetime) };
        self.with_table(|table| table.mint(Grant { rights, uses }, now, self.max))
    }

    /// The tokens that have not ended, by name and end.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let now = self.clock.unix_now();
        let mut listed: Vec<Listed> = self.with_table(|table| {
            let live = table.grants.values().filter(|grant| grant.rights.expires_at > now);
            live.map(|grant| Listed { rights: grant.rights.clone(), uses: grant.uses }).collect()
        });
        listed.sort_by(|a, b| (&a.rights.name, a.rights.expires_at).cmp(&(&b.rights.name, b.rights.expires_at)));
        listed
    }

    /// Ends every token of this name, those that were exchanged for one too. Says how many. Whoever is
    /// connected by one is the gateway's to end ([`Gateway::end`](crate::Gateway::end)).
    pub fn revoke(&self, name: &TokenName) -> usize {
        self.with_table(|table| {
            let before = table.grants.len();
            table.grants.retain(|_, grant| grant.rights.name != *name);
            before - table.grants.len()
        })
    }

    fn with_table<T>(&self, work: impl FnOnce(&mut Table) -> T) -> T {
        // The table is whole between any two statements that could panic.
        work(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Authority for Tokens {
    fn rights(&self, token: &str) -> Result<Rights, TokenRefused> {
        let now = self.clock.unix_now();
        self.with_table(|table| table.rights(&hash(token), now))
    }

    fn exchange(&self, once: &str) -> Result<Session, TokenRefused> {
        let now = self.clock.unix_now();
        let expires_at = now.saturating_add(self.session_lifetime);
        self.with_table(|table| {
            let key = hash(once);
            if table.grants.get(&key).is_some_and(|grant| grant.uses == Use::Session) {
                return Err(TokenRefused::Unknown);
            }
            let rights = Rights { expires_at, ..table.rights(&key, now)? };
            let token = table.mint(Grant { rights, uses: Use::Session }, now, self.max);
            Ok(Session { token, expires_at })
        })
    }
}

impl Table {
    fn mint(&mut self, grant: Grant, now: UnixTime, max: usize) -> String {
        if self.grants.len() >= max {
            self.grants.retain(|_, grant| grant.rights.expires_at > now);
        }
        if self.grants.len() >= max {
            let first = self.grants.iter().min_by_key(|(_, grant)| grant.rights.expires_at).map(|(key, _)| *key);
            first.and_then(|key| self.grants.remove(&key));
        }
        let mut secret = [0; 32];
        (self.entropy)(&mut secret);
        let token = URL_SAFE_NO_PAD.encode(secret);
        self.grants.insert(hash(&token), grant);
        token
    }

    fn rights(&mut self, key: &[u8; 32], now: UnixTime) -> Result<Rights, TokenRefused> {
        let grant = self.grants.get(key).ok_or(TokenRefused::Unknown)?;
        let expired = grant.rights.expires_at <= now;
        let rights = grant.rights.clone();
        if expired || grant.uses == Use::Once {
            self.grants.remove(key);
        }
        if expired { Err(TokenRefused::Expired) } else { Ok(rights) }
    }
}

fn hash(token: &str) -> [u8; 32] {
    let mut key = [0; 32];
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    key.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ManualClock;

    const HOUR: Duration = Duration::from_secs(3600);

    fn tokens(max: usize) -> (Tokens, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        let mut next = 0u8;
        let entropy: Entropy = Box::new(move |bytes| {
            next += 1;
            bytes.fill(next);
        });
        (Tokens::new(max, HOUR, clock.clone(), entropy), clock)
    }

    #[test]
    fn a_one_time_token_serves_once_and_gives_a_session_that_serves_often() {
        let (tokens, _) = tokens(8);
        let once = tokens.mint(TokenName::default(), Visible::All, true, HOUR, Use::Once);
        let session = tokens.exchange(&once).expect("first use");
        assert_eq!(tokens.exchange(&once), Err(TokenRefused::Unknown));
        assert_eq!(tokens.rights(&once), Err(TokenRefused::Unknown));
        for _ in 0..3 {
            assert!(tokens.rights(&session.token).expect("a session").may_command);
        }
        assert_eq!(tokens.exchange(&session.token), Err(TokenRefused::Unknown), "a session cannot breed");
        assert!(tokens.rights(&session.token).is_ok(), "and asking does not end it");
    }

    #[test]
    fn a_token_ends_with_its_lifetime() {
        let (tokens, clock) = tokens(8);
        let token = tokens.mint(TokenName::default(), Visible::All, false, HOUR, Use::Session);
        clock.advance(HOUR - Duration::from_millis(1));
        assert!(tokens.rights(&token).is_ok());
        clock.advance(Duration::from_millis(1));
        assert_eq!(tokens.rights(&token), Err(TokenRefused::Expired));
        assert_eq!(tokens.rights("something else"), Err(TokenRefused::Unknown));
    }

    #[test]
    fn a_full_table_forgets_the_token_nearest_to_its_end() {
        let (tokens, _) = tokens(2);
        let long = tokens.mint(TokenName::default(), Visible::All, true, HOUR * 3, Use::Session);
        let short = tokens.mint(TokenName::default(), Visible::All, true, HOUR, Use::Session);
        let middle = tokens.mint(TokenName::default(), Visible::All, true, HOUR * 2, Use::Session);
        assert!(tokens.rights(&long).is_ok() && tokens.rights(&middle).is_ok());
        assert_eq!(tokens.rights(&short), Err(TokenRefused::Unknown));
    }

    #[test]
    fn no_token_is_printed() {
        let (tokens, _) = tokens(2);
        let once = tokens.mint(TokenName::default(), Visible::All, true, HOUR, Use::Once);
        let session = tokens.exchange(&once).expect("first use");
        assert!(!format!("{session:?}").contains(&session.token));
    }

    #[test]
    fn a_revoked_name_takes_its_tokens_and_what_they_were_exchanged_for() {
        let (tokens, clock) = tokens(8);
        let (ann, bob): (TokenName, TokenName) = ("ann".parse().unwrap(), "bob".parse().unwrap());
        let once = tokens.mint(ann.clone(), Visible::All, true, HOUR, Use::Once);
        let session = tokens.exchange(&once).expect("first use").token;
        let second = tokens.mint(ann.clone(), Visible::All, false, HOUR, Use::Once);
        let other = tokens.mint(bob.clone(), Visible::All, true, HOUR, Use::Session);
        assert_eq!(tokens.rights(&session).map(|rights| rights.name), Ok(ann.clone()));
        let names = |tokens: &Tokens| tokens.list().into_iter().map(|it| it.rights.name).collect::<Vec<_>>();
        assert_eq!(names(&tokens), [ann.clone(), ann.clone(), bob.clone()]);
        assert_eq!((tokens.revoke(&ann), tokens.revoke(&ann)), (2, 0));
        assert_eq!(tokens.rights(&session), Err(TokenRefused::Unknown));
        assert_eq!(tokens.exchange(&second), Err(TokenRefused::Unknown));
        assert!(tokens.rights(&other).is_ok() && names(&tokens) == [bob]);
        clock.advance(HOUR);
        assert_eq!(tokens.list(), []);
    }

    #[test]
    fn a_name_is_a_word() {
        for name in ["a", "dash-board_2.x", &"x".repeat(32)] {
            assert_eq!(name.parse::<TokenName>().map(|it| it.to_string()), Ok(name.to_owned()));
        }
        for none in ["", "a b", "ä", "a:b", "a/b", "a\n", &"x".repeat(33)] {
            assert_eq!(none.parse::<TokenName>(), Err(TokenNameError), "{none:?}");
        }
    }
}
