//! Reading the files anew while the node runs. What cannot be used changes nothing.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use unhidra_broker::packet::ReasonCode;
use unhidra_broker::{Broker, Stay};

use super::Access;
use super::acl;
use super::token::Tokens;
use super::users::UsersError;
use super::watched::Watched;
use crate::config::Config;

/// How often the file of users is looked at. A change is taken at the second look that finds it, so within
/// two seconds.
const LOOK: Duration = Duration::from_secs(1);

/// Files that are read again while the node runs, by the table that names them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Files {
    /// `users.file`
    Users,
    /// `jwt.key_file`, read as the other keys of `[jwt]` say.
    Tokens,
    /// `acl.file`
    Rules,
}

/// Takes what the files say into a running node.
#[derive(Clone, Debug)]
pub struct Handle {
    access: Arc<Access>,
    broker: Arc<Broker>,
    users: Arc<Mutex<Watched>>,
}

impl Handle {
    /// For a node whose access has read `users` a moment ago.
    #[must_use]
    pub fn new(access: Arc<Access>, broker: Arc<Broker>, users: &Path) -> Self {
        let watched = Watched::new(users, access.users_seen);
        Self { access, broker, users: Arc::new(Mutex::new(watched)) }
    }

    /// Reads every file again: users, keys of tokens, rules. Gives back those that cannot be used, of which
    /// all stays as it was.
    pub fn reload(&self, config: &Config) -> Vec<Files> {
        let mut refused = Vec::new();
        if let Err(error) = self.take_users(&mut self.watched(), &config.users.file) {
            tracing::error!(%error, "the users stay as they were");
            refused.push(Files::Users);
        }
        match Tokens::open(&config.jwt) {
            Ok(tokens) => self.access.tokens.store(tokens.map(Arc::new)),
            Err(error) => {
                tracing::error!(%error, "the keys of tokens stay as they were");
                refused.push(Files::Tokens);
            }
        }
        match acl::load(&config.acl.file, config.broker.prefix.as_str()) {
            Ok(rules) => {
                let count = rules.len();
                self.broker.use_rules(rules);
                tracing::info!(rules = count, "the rules are read again");
            }
            Err(error) => {
                tracing::error!(%error, "the rules stay as they were");
                refused.push(Files::Rules);
            }
        }
        refused
    }

    /// Follows the file of users, for `unhidra user` writes it while the node runs.
    pub async fn follow_users(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.look_at_users();
        }
    }

    fn look_at_users(&self) {
        let mut watched = self.watched();
        if !watched.look() {
            return;
        }
        let path = watched.path().to_path_buf();
        if let Err(error) = self.take_users(&mut watched, &path)
            && watched.is_news(&error)
        {
            tracing::error!(%error, "the users stay as they were until the file can be used");
        }
    }

    /// One at a time: users of a moment ago do not come behind those of now.
    fn take_users(&self, watched: &mut Watched, path: &Path) -> Result<(), UsersError> {
        let users = watched.take(path, self.access.has_users())?;
        let count = users.iter().count();
        for (user, stays) in self.access.use_users(users) {
            tracing::info!(%user, removed = !stays, "a user's password is no longer what it was: its connections close");
            let stay = if stays { Stay::Known } else { Stay::Gone };
            self.broker.disconnect_user(&user, ReasonCode::NotAuthorized, stay);
        }
        tracing::info!(users = count, "the users are read again");
        Ok(())
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
