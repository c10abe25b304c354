//! Why a connection ends: noted where it is decided, told once at the end.

use tracing::{debug, info};

use super::connection::{Client, Connection};
use crate::doors::Owner;
use crate::metrics::EndedBy;
use crate::packet::ReasonCode;

/// Why a connection ends. What was noted first stands.
#[derive(Debug)]
pub(super) struct Ending {
    by: EndedBy,
    reason: Option<ReasonCode>,
    cause: Box<str>,
    /// Why its client was not let in, in a word, if it was not.
    refusal: Option<Box<str>>,
}

impl Connection {
    /// This side ends it.
    pub(super) fn ends_with(&mut self, reason: ReasonCode, cause: impl Into<Box<str>>) {
        self.note(Ending { by: EndedBy::Broker, reason: Some(reason), cause: cause.into(), refusal: None });
    }

    /// The client says goodbye.
    pub(super) fn ends_by_client(&mut self, reason: ReasonCode) {
        self.note(Ending { by: EndedBy::Client, reason: Some(reason), cause: "it disconnected".into(), refusal: None });
    }

    /// The stream breaks off, or nothing gets through it any more.
    pub(super) fn ends_lost(&mut self, cause: &str) {
        self.note(Ending { by: EndedBy::Nobody, reason: None, cause: cause.into(), refusal: None });
    }

    /// The client is not let in, for this cause in a word.
    pub(super) fn ends_refused(&mut self, reason: ReasonCode, refusal: impl Into<Box<str>>) {
        let refusal = Some(refusal.into());
        self.note(Ending { by: EndedBy::Broker, reason: Some(reason), cause: "not let in".into(), refusal });
    }

    fn note(&mut self, ending: Ending) {
        self.ending.get_or_insert_with(|| Box::new(ending));
    }

    /// Tells log and metrics, once, as the connection ends.
    pub(super) fn tell_end(&self) {
        let metrics = self.broker.metrics();
        let (by, reason, cause, refusal) = match self.ending.as_deref() {
            Some(Ending { by, reason, cause, refusal }) => (*by, *reason, &**cause, refusal.as_deref()),
            None => (EndedBy::Nobody, None, "it ended", None),
        };
        metrics.end(by, reason.map_or(0, ReasonCode::as_byte));
        match &self.client {
            Client::Admitted { .. } => self.tell_disconnected(by, reason, cause),
            Client::Unknown => {
                let refusal = refusal.unwrap_or(match by {
                    EndedBy::Broker if reason == Some(ReasonCode::MaximumConnectTime) => "Timeout",
                    EndedBy::Broker => "Protocol",
                    // Somebody who looks whether the port is open, mostly.
                    EndedBy::Client | EndedBy::Nobody => {
                        debug!(peer = %self.peer, cause, "somebody left before CONNECT was answered");
                        return metrics.refuse("Left");
                    }
                });
                metrics.refuse(refusal);
                self.tell_refused(refusal, reason, cause);
            }
        }
    }

    /// Tells that a client is in.
    pub(super) fn tell_connected(&self, resumed: bool) {
        let Client::Admitted { key, .. } = &self.client else { return };
        let Some(hidden) = self.broker.events().connected.take(self.broker.clock().now()) else { return };
        let owner = key.owner();
        info!(
            client_id = ?key.client_id().as_str(),
            device = device(owner),
            user = user(owner),
            peer = %self.peer,
            listener = self.entrance.name,
            version = self.session.version().number(),
            keep_alive_s = self.session.keep_alive_s(),
            resumed,
            hidden = (hidden > 0).then_some(hidden),
            "client connected"
        );
    }

    fn tell_disconnected(&self, by: EndedBy, reason: Option<ReasonCode>, cause: &str) {
        let Client::Admitted { key, .. } = &self.client else { return };
        let Some(hidden) = self.broker.events().ended.take(self.broker.clock().now()) else { return };
        let owner = key.owner();
        let since = self.mailbox.facts().map(|facts| facts.since.as_ms());
        let lasted = since.map(|since| self.broker.clock().unix_now().as_ms().saturating_sub(since));
        info!(
            client_id = ?key.client_id().as_str(),
            device = device(owner),
            user = user(owner),
            peer = %self.peer,
            listener = self.entrance.name,
            version = self.session.version().number(),
            ?by,
            reason = reason.map(tracing::field::debug),
            cause,
            lasted_ms = lasted,
            hidden = (hidden > 0).then_some(hidden),
            "client disconnected"
        );
    }

    fn tell_refused(&self, refusal: &str, reason: Option<ReasonCode>, cause: &str) {
        let Some(hidden) = self.broker.events().refused.take(self.broker.clock().now()) else { return };
        info!(
            device = self.identity.device().map(tracing::field::display),
            peer = %self.peer,
            listener = self.entrance.name,
            version = self.session.version().number(),
            refusal,
            reason = reason.map(tracing::field::debug),
            cause,
            hidden = (hidden > 0).then_some(hidden),
            "client refused"
        );
    }
}

fn device(owner: &Owner) -> Option<impl tracing::Value> {
    match owner {
        Owner::Device(device) => Some(tracing::field::display(*device)),
        Owner::User(_) | Owner::Anybody => None,
    }
}

/// In quotes and escaped: a user may have any name.
fn user(owner: &Owner) -> Option<impl tracing::Value + '_> {
    match owner {
        Owner::User(user) => Some(tracing::field::debug(user.as_str())),
        Owner::Device(_) | Owner::Anybody => None,
    }
}
