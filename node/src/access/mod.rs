//! Who may come in as whom: devices by their certificates, users by password or token; and the
//! files that say so.
//!
//! ```text
//! certificate -----------> Registry
//! name and password --> remembered? --> too many failures? --> argon2, off the runtime
//! token ------------------> signature and claims
//! ```

mod acl;
mod failures;
mod file;
mod handle;
mod memory;
mod password;
mod token;
mod users;
mod watched;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use rand_core::CryptoRng;
use thiserror::Error;
use unhidra_broker::{Admission, Admitted, BoxFuture, Denied, Entrant, Identity, Introduction, Proof, UserName};
use unhidra_core::time::Clock;

use crate::registry::Registry;
use failures::{Bounds, Failures};
use password::{Budget, Checker, Remembered};
use token::Tokens;
use watched::Seen;

pub use acl::{AclError, load as load_acl};
pub use handle::{Files, Handle};
pub use password::{Hashed, HashedError, PASSWORD_LEN_MAX, SALT_LEN};
pub use token::{Config as TokenConfig, TokensError};
pub use users::{NameError, Users, UsersError, check_name};

/// The table `[users]`.
#[derive(Clone, Debug, serde::Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file of users. Resolved: where the configuration names none, it lies beside the data
    /// folder.
    pub file: PathBuf,
    /// Passwords checked at once.
    pub checks_at_once: NonZeroUsize,
    /// Passwords that may wait for their turn. Further clients are refused, 0x89.
    pub checks_waiting_max: usize,
    /// How long one may wait, in s.
    pub check_patience_s: u64,
    /// How long a right password is remembered, in s; 0 is not at all.
    pub remember_s: u64,
    /// Failures a minute from one address; 0 is no bound.
    pub failures_per_address: u32,
    /// Failures a minute for one name; 0 is no bound.
    pub failures_per_user: u32,
}

/// The table `[acl]`.
#[derive(Clone, Debug, serde::Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AclConfig {
    /// The file of rules; empty, none.
    pub file: PathBuf,
}

/// Passwords remembered at most, about 100 bytes each.
const REMEMBERED_MAX: usize = 65_536;

/// Addresses and names whose failures are counted at most, about 100 bytes each.
const FAILURES_MAX: usize = 16_384;

/// Why it cannot be said who may come in.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The users.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The keys of tokens.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The rules.
    #[error(transparent)]
    Acl(#[from] AclError),
}

/// Who may come in as whom.
pub struct Access {
    registry: Arc<Registry>,
    users: ArcSwap<Users>,
    /// The file of users as it was before it was read.
    users_seen: Option<Seen>,
    tokens: ArcSwapOption<Tokens>,
    checker: Checker,
    remembered: Remembered,
    failures: Mutex<Failures>,
    clock: Arc<dyn Clock + Send + Sync>,
    /// Whose password is checked where the name is nobody's: the answer takes as long.
    nobody: Hashed,
}

impl Access {
    /// Reads the files of users and keys.
    ///
    /// # Errors
    ///
    /// [`AccessError`] names the file and the line.
    pub fn open(
        config: &Config,
        tokens: &TokenConfig,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock + Send + Sync>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, AccessError> {
        let (mut key, mut salt, mut nobodys) = ([0; 32], [0; SALT_LEN], [0; 32]);
        rng.fill_bytes(&mut key);
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut nobodys);
        let budget = Budget {
            at_once: config.checks_at_once.get(),
            waiting_max: config.checks_waiting_max,
            patience: Duration::from_secs(config.check_patience_s),
        };
        let bounds = Bounds {
            per_address: config.failures_per_address,
            per_user: config.failures_per_user,
            entries_max: FAILURES_MAX,
        };
        let users_seen = Seen::now(&config.file);
        Ok(Self {
            users_seen,
            users: ArcSwap::from_pointee(Users::read_or_none(&config.file)?),
            tokens: ArcSwapOption::from(Tokens::open(tokens)?.map(Arc::new)),
            checker: Checker::new(budget),
            remembered: Remembered::new(&key, Duration::from_secs(config.remember_s), REMEMBERED_MAX),
            failures: Mutex::new(Failures::new(bounds)),
            nobody: Hashed::of_nobody(&salt, &nobodys),
            registry,
            clock,
        })
    }

    async fn decide(&self, introduction: Introduction<'_>) -> Result<Entrant, Denied> {
        let Introduction { identity, entrance, user_name, password, .. } = introduction;
        let says_who = user_name.is_some() || password.is_some();
        if matches!(identity, Identity::Device(_)) || !says_who {
            return self.registry.decide(identity, entrance).map(Entrant::from);
        }
        if !entrance.users || !self.knows_somebody() {
            // A name nobody can check is no name, and where anybody may come in no harm.
            return if entrance.anonymous { Ok(Admitted::Client(None).into()) } else { Err(Denied::BadCredentials) };
        }
        let (name, password) = (user_name.unwrap_or_default(), password.unwrap_or_default());
        let tokens = self.tokens.load_full();
        match tokens.filter(|_| Tokens::looks_like_one(password)) {
            Some(tokens) => self.by_token(&tokens, password, introduction),
            None => self.by_password(name, password, introduction).await,
        }
    }

    fn by_token(&self, tokens: &Tokens, token: &[u8], from: Introduction<'_>) -> Result<Entrant, Denied> {
        let (address, now) = (from.peer.ip(), self.clock.now());
        if !self.failures().may_try(address, "", now) {
            return Err(Denied::TooManyFailures);
        }
        match tokens.prove(token, from.user_name, self.clock.unix_now()) {
            Ok(proven) => Ok(Entrant {
                who: Admitted::Client(Some(UserName::new(&proven.user))),
                until: Some(proven.until),
                proof: Proof::Token,
            }),
            Err(error) => {
                tracing::debug!(peer = %from.peer, %error, "a token proves nobody");
                self.failures().failed(address, "", now);
                Err(Denied::BadToken)
            }
        }
    }

    async fn by_password(&self, name: &str, password: &[u8], from: Introduction<'_>) -> Result<Entrant, Denied> {
        let (address, now) = (from.peer.ip(), self.clock.now());
        let users = self.users.load_full();
        let known = users.get(name);
        if let Some(hashed) = known
            && self.remembered.knows(name, hashed, password, now)
        {
            return Ok(entrant(name, hashed));
        }
        if !self.failures().may_try(address, name, now) {
            return Err(Denied::TooManyFailures);
        }
        // One that cannot be right is checked all the same, the beginning of it where it is longer than
        // any: the answer must not take less.
        let may_be_right = password.len() <= PASSWORD_LEN_MAX;
        let password = password.get(..PASSWORD_LEN_MAX).unwrap_or(password);
        let hashed = known.unwrap_or(&self.nobody).clone();
        let is_of = self.checker.check(hashed, password).await.map_err(|_| Denied::Busy)?;
        match known.filter(|_| is_of && may_be_right) {
            Some(hashed) => {
                self.remembered.remember(name, hashed, password, now);
                Ok(entrant(name, hashed))
            }
            None => {
                self.failures().failed(address, name, now);
                Err(Denied::BadCredentials)
            }
        }
    }

    fn knows_somebody(&self) -> bool {
        self.tokens.load().is_some() || self.has_users()
    }

    fn has_users(&self) -> bool {
        self.users.load().iter().next().is_some()
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes other users, and names those whose password is another or none now.
    fn use_users(&self, users: Users) -> Vec<(UserName, bool)> {
        let before = self.users.swap(Arc::new(users));
        let now = self.users.load();
        let changed = before.iter().filter(|(name, hashed)| now.get(name) != Some(*hashed));
        changed.map(|(name, _)| (UserName::new(name), now.get(name).is_some())).collect()
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("checker", &self.checker).finish_non_exhaustive()
    }
}

impl Admission for Access {
    fn admit<'a>(&'a self, introduction: Introduction<'a>) -> BoxFuture<'a, Result<Entrant, Denied>> {
        Box::pin(self.decide(introduction))
    }

    fn still_admits(&self, entrant: &Entrant) -> bool {
        match (&entrant.who, entrant.proof) {
            (Admitted::Client(Some(user)), Proof::Password(mark)) => {
                self.users.load().get(user.as_str()).is_some_and(|hashed| hashed.mark() == mark)
            }
            _ => true,
        }
    }
}

fn entrant(name: &str, hashed: &Hashed) -> Entrant {
    let who = Admitted::Client(Some(UserName::new(name)));
    Entrant { who, until: None, proof: Proof::Password(hashed.mark()) }
}

#[cfg(test)]
mod tests;
