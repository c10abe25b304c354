//! Reading the files anew while the node runs. What cannot be used changes nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use unhidra_broker::packet::ReasonCode;
use unhidra_broker::{Broker, Stay};

use super::Access;
use super::acl;
use super::token::Tokens;
use super::users::Users;
use crate::config::Config;

/// How often the file of users is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Takes what the files say into a running node.
#[derive(Clone, Debug)]
pub struct Handle {
    access: Arc<Access>,
    broker: Arc<Broker>,
    users: Arc<Mutex<Watched>>,
}

/// A file, and how it looked last.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    seen: Option<(SystemTime, u64)>,
}

impl Handle {
    /// For a node whose access has read `users` a moment ago.
    #[must_use]
    pub fn new(access: Arc<Access>, broker: Arc<Broker>, users: &Path) -> Self {
        let watched = Watched { path: users.into(), seen: look(users) };
        Self { access, broker, users: Arc::new(Mutex::new(watched)) }
    }

    /// Reads every file again: users, keys of tokens, rules.
    pub fn reload(&self, config: &Config) {
        {
            let mut watched = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            watched.path.clone_from(&config.users.file);
            watched.seen = look(&watched.path);
        }
        self.reload_users(&config.users.file);
        match Tokens::open(&config.jwt) {
            Ok(tokens) => self.access.tokens.store(tokens.map(Arc::new)),
            Err(error) => tracing::error!(%error, "the keys of tokens stay as they were"),
        }
        match acl::load(&config.acl.file, config.broker.prefix.as_str()) {
            Ok(rules) => {
                let count = rules.len();
                self.broker.use_rules(rules);
                tracing::info!(rules = count, "the rules are read again");
            }
            Err(error) => tracing::error!(%error, "the rules stay as they were"),
        }
    }

    /// Follows the file of users, for `unhidra user` writes it while the node runs.
    pub async fn follow_users(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let changed = {
                let mut watched = self.users.lock().unwrap_or_else(PoisonError::into_inner);
                let seen = look(&watched.path);
                let changed = seen != watched.seen;
                watched.seen = seen;
                changed.then(|| watched.path.clone())
            };
            if let Some(path) = changed {
                self.reload_users(&path);
            }
        }
    }

    fn reload_users(&self, path: &Path) {
        let users = match Users::read_or_none(path) {
            Ok(users) => users,
            Err(error) => {
                tracing::error!(%error, "the users stay as they were");
                return;
            }
        };
        let count = users.iter().count();
        for (user, stays) in self.access.use_users(users) {
            tracing::info!(%user, removed = !stays, "a user's password is no longer what it was: its connections close");
            let stay = if stays { Stay::Known } else { Stay::Gone };
            self.broker.disconnect_user(&user, ReasonCode::NotAuthorized, stay);
        }
        tracing::info!(users = count, "the users are read again");
    }
}

/// When a file was written last, and its length; `None` where there is none.
fn look(path: &Path) -> Option<(SystemTime, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}
