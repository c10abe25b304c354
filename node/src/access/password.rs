//! Passwords as argon2id hashes, checked off the runtime's threads and never too many at once.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD as STANDARD_NO_PAD;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use unhidra_core::time::Timestamp;
use zeroize::Zeroizing;

use super::memory::{Memories, Memory};

/// The bytes of a salt.
pub const SALT_LEN: usize = 16;

/// The longest password taken, in bytes.
pub const PASSWORD_LEN_MAX: usize = 1024;

/// The most memory a hash in a file may ask for, in KiB: 256 MiB.
const MEMORY_KIB_MAX: u32 = 262_144;

/// The most passes one may ask for.
const PASSES_MAX: u32 = 16;

/// How many times as long as it took a turn rests after a wrong password: guessing takes at most a
/// tenth of the cores the turns are.
const REST_AFTER_FAILURE: u32 = 9;

/// A password, hashed: `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH` (PHC string format).
#[derive(Clone, Eq, PartialEq)]
pub struct Hashed(Arc<str>);

/// Why a text is no [`Hashed`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum HashedError {
    /// It is another format.
    #[error("no argon2id hash in PHC string format, as `unhidra user` writes it")]
    Malformed,
    /// Checking it would cost too much.
    #[error(
        "a hash of {memory_kib} KiB and {passes} passes; at most {MEMORY_KIB_MAX} KiB and {PASSES_MAX} are allowed"
    )]
    TooCostly {
        /// What it asks for.
        memory_kib: u32,
        /// And how often.
        passes: u32,
    },
}

impl Hashed {
    /// Hashes a password with what OWASP recommends for argon2id: 19 MiB, two passes, one lane.
    ///
    /// # Errors
    ///
    /// [`HashedError::Malformed`] where the password is longer than argon2 takes.
    pub fn of(password: &[u8], salt: &[u8; SALT_LEN]) -> Result<Self, HashedError> {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT);
        let hash = argon2.hash_password_with_salt(password, salt).map_err(|_| HashedError::Malformed)?;
        let hash: PasswordHash = hash;
        Ok(Self(hash.to_string().into()))
    }

    /// One that is nobody's, drawn: checking a password against it takes as long as any, and fails.
    #[must_use]
    pub fn of_nobody(salt: &[u8; SALT_LEN], drawn: &[u8; 32]) -> Self {
        let params = Params::DEFAULT;
        let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(drawn));
        let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
        Self(format!("$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${hash}").into())
    }

    /// Reads one.
    ///
    /// # Errors
    ///
    /// [`HashedError`] says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, HashedError> {
        let hash = PasswordHash::new(text).map_err(|_| HashedError::Malformed)?;
        let params = Params::try_from(&hash).map_err(|_| HashedError::Malformed)?;
        if hash.algorithm.as_str() != "argon2id" || hash.salt.is_none() || hash.hash.is_none() {
            return Err(HashedError::Malformed);
        }
        let (memory_kib, passes) = (params.m_cost(), params.t_cost());
        if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX {
            return Err(HashedError::TooCostly { memory_kib, passes });
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A number that another password's hash does not have, but by chance.
    #[must_use]
    pub fn mark(&self) -> u64 {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.0.as_bytes());
        digest.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// Whether it is this password's. Takes tens of milliseconds.
    fn is_of(&self, password: &[u8], memory: &mut Memory) -> bool {
        self.computed(password, memory).is_some_and(|(computed, stored)| computed == stored)
    }

    /// The hash of a password with what this one was made with, and this one. They are compared in
    /// constant time.
    fn computed(&self, password: &[u8], memory: &mut Memory) -> Option<(Output, Output)> {
        let hash = PasswordHash::new(&self.0).ok()?;
        let (salt, stored) = (hash.salt?, hash.hash?);
        let params = Params::try_from(&hash).ok()?;
        let version = hash.version.map_or(Ok(Version::V0x13), Version::try_from).ok()?;
        let mut buffer = [0; Output::MAX_LENGTH];
        let out = buffer.get_mut(..stored.len())?;
        let blocks = memory.blocks(params.block_count())?;
        let argon2 = Argon2::new(Algorithm::Argon2id, version, params);
        argon2.hash_password_into_with_memory(password, &salt, out, blocks).ok()?;
        Some((Output::new(out).ok()?, stored))
    }
}

impl fmt::Debug for Hashed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hash]")
    }
}

/// What checking passwords may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Checks at once.
    pub at_once: usize,
    /// Checks that may wait for their turn.
    pub waiting_max: usize,
    /// How long one may wait.
    pub patience: Duration,
}

/// Nobody could look at the password in time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Busy;

/// Checks passwords, a few at once.
#[derive(Debug)]
pub(super) struct Checker {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    memories: Memories,
    budget: Budget,
}

impl Checker {
    /// With this budget.
    #[must_use]
    pub(super) fn new(budget: Budget) -> Self {
        let turns = Arc::new(Semaphore::new(budget.at_once.clamp(1, Semaphore::MAX_PERMITS)));
        Self { turns, waiting: AtomicUsize::new(0), memories: Memories::default(), budget }
    }

    /// Whether a hash is a password's.
    ///
    /// # Errors
    ///
    /// [`Busy`] where too many wait, or the wait was too long.
    pub(super) async fn check(&self, hashed: Hashed, password: &[u8]) -> Result<bool, Busy> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.budget.waiting_max {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Busy);
        }
        // Given back also where the caller gives up.
        let waiting = Waiting(&self.waiting);
        let turn = timeout(self.budget.patience, self.turns.clone().acquire_owned()).await;
        drop(waiting);
        let Ok(Ok(turn)) = turn else { return Err(Busy) };
        let password = Zeroizing::new(password.to_vec());
        let began = tokio::time::Instant::now();
        // The turn goes along: it is taken as long as the work runs, whoever still waits for it.
        let memories = self.memories.clone();
        let check = move || (memories.with(|memory| hashed.is_of(&password, memory)), turn);
        let checked = tokio::task::spawn_blocking(check).await;
        let Ok((is_of, turn)) = checked else { return Ok(false) };
        if !is_of {
            let rest = began.elapsed().saturating_mul(REST_AFTER_FAILURE);
            tokio::spawn(async move {
                sleep(rest).await;
                drop(turn);
            });
        }
        Ok(is_of)
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Passwords that were right a moment ago, so that a thousand clients that come back at once do not
/// take a core for a minute.
///
/// It holds no password and no hash of one that somebody without this process's memory could try
/// passwords against: the key of the HMAC is drawn at the start and never leaves. Only what was
/// right is in it, under the name, the password and the stored hash together: another password, or
/// another hash in the file, is another entry. Whoever can read this memory can also read the
/// passwords as they come in.
pub(super) struct Remembered {
    key: hmac::Key,
    entries: Mutex<HashMap<[u8; 32], Timestamp>>,
    life: Duration,
    max: usize,
}

impl Remembered {
    /// Remembers at most `max` for `life`.
    #[must_use]
    pub(super) fn new(key: &[u8; 32], life: Duration, max: usize) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), entries: Mutex::default(), life, max }
    }

    /// Whether this was right, not long ago.
    #[must_use]
    pub(super) fn knows(&self, name: &str, hashed: &Hashed, password: &[u8], now: Timestamp) -> bool {
        let tag = self.tag(name, hashed, password);
        self.lock().get(&tag).is_some_and(|until| now < *until)
    }

    /// This was right. Full, what has ended is forgotten, and where nothing has, this is not
    /// remembered.
    pub(super) fn remember(&self, name: &str, hashed: &Hashed, password: &[u8], now: Timestamp) {
        let tag = self.tag(name, hashed, password);
        let mut entries = self.lock();
        if entries.len() >= self.max {
            entries.retain(|_, until| now < *until);
        }
        if entries.len() < self.max {
            entries.insert(tag, now.saturating_add(self.life));
        }
    }

    fn tag(&self, name: &str, hashed: &Hashed, password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [name.as_bytes(), hashed.as_str().as_bytes(), password] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Timestamp>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remembered").field("entries", &self.lock().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Checker {
        /// Turns that rest or are taken.
        pub(in crate::access) fn resting(&self) -> usize {
            self.budget.at_once - self.turns.available_permits()
        }
    }

    fn hashed(password: &str) -> Hashed {
        Hashed::of(password.as_bytes(), &[7; SALT_LEN]).unwrap()
    }

    fn checker(at_once: usize, waiting_max: usize) -> Checker {
        Checker::new(Budget { at_once, waiting_max, patience: Duration::from_secs(5) })
    }

    #[test]
    fn a_hash_is_of_its_password_alone_and_comes_back_from_its_text() {
        let hash = hashed("secret");
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.as_str());
        let read = Hashed::parse(hash.as_str()).unwrap();
        let is_of = |hash: &Hashed, password: &[u8]| hash.is_of(password, &mut Memory::default());
        assert!(is_of(&read, b"secret") && !is_of(&read, b"Secret") && !is_of(&read, b""));
        assert_eq!(format!("{hash:?}"), "[hash]");
        let nobody = Hashed::of_nobody(&[1; SALT_LEN], &[2; 32]);
        assert!(Hashed::parse(nobody.as_str()).is_ok() && !is_of(&nobody, b""), "it is checked as any other");
    }

    #[test]
    fn a_hash_of_another_kind_or_too_costly_is_refused() {
        let good = hashed("x").as_str().to_owned();
        for bad in ["", "secret", "$6$abc$def", "$argon2id$v=19$m=19456,t=2,p=1$", &good.replace("argon2id", "argon2i")]
        {
            assert_eq!(Hashed::parse(bad), Err(HashedError::Malformed), "{bad}");
        }
        let costly = good.replace("m=19456", "m=1048576");
        assert_eq!(Hashed::parse(&costly), Err(HashedError::TooCostly { memory_kib: 1_048_576, passes: 2 }));
    }

    #[tokio::test]
    async fn a_turn_rests_after_a_wrong_password_and_too_many_are_not_waited_for() {
        let checker = checker(1, 1);
        assert_eq!(checker.check(hashed("a"), b"a").await, Ok(true));
        assert_eq!(checker.turns.available_permits(), 1, "a right password costs no rest");
        assert_eq!(checker.check(hashed("a"), b"b").await, Ok(false));
        assert_eq!(checker.turns.available_permits(), 0);
        let hash = hashed("a");
        let (first, second) = tokio::join!(checker.check(hash.clone(), b"a"), checker.check(hash, b"a"));
        assert_eq!((first, second), (Ok(true), Err(Busy)));
        assert_eq!(checker.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_hash_of_another_program_is_checked_with_what_it_was_made_with() {
        // By the reference implementation, through argon2-cffi 25.1: three passes, two lanes, 24 bytes.
        let hash = "$argon2id$v=19$m=1024,t=3,p=2$1Wq/pCCRyEnFNv26$oBCwax3ZO75HTAtzi98WpsE/4LQDQVMi";
        let hash = Hashed::parse(hash).unwrap();
        let is_of = |password: &[u8]| hash.is_of(password, &mut Memory::default());
        assert!(is_of(b"password") && !is_of(b"passwore"));
    }

    #[tokio::test]
    async fn checks_take_the_memory_of_those_at_once_however_many_there_are() {
        let checker = checker(2, 8);
        let hash = hashed("a");
        let check = || checker.check(hash.clone(), b"a");
        let checked = tokio::join!(check(), check(), check(), check(), check());
        assert_eq!(checked, (Ok(true), Ok(true), Ok(true), Ok(true), Ok(true)));
        let sizes = checker.memories.sizes();
        assert!(!sizes.is_empty() && sizes.len() <= 2, "{sizes:?}");
        assert!(sizes.iter().all(|blocks| *blocks == Params::DEFAULT.block_count()), "{sizes:?}");
    }

    #[test]
    fn what_was_right_is_remembered_for_a_while_and_nothing_else() {
        let remembered = Remembered::new(&[1; 32], Duration::from_secs(60), 2);
        let (hash, now) = (hashed("a"), Timestamp::ZERO);
        remembered.remember("ann", &hash, b"a", now);
        assert!(remembered.knows("ann", &hash, b"a", now));
        assert!(!remembered.knows("bob", &hash, b"a", now) && !remembered.knows("ann", &hash, b"b", now));
        assert!(!remembered.knows("ann", &hashed("b"), b"a", now), "another password in the file");
        let later = Timestamp::from_ms(60_000);
        assert!(!remembered.knows("ann", &hash, b"a", later));
        remembered.remember("b", &hash, b"a", now);
        remembered.remember("c", &hash, b"a", now);
        assert!(!remembered.knows("c", &hash, b"a", now), "full");
        remembered.remember("c", &hash, b"a", later);
        assert!(remembered.knows("c", &hash, b"a", later) && remembered.lock().len() == 1);
    }
}
