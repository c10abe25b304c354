//! Whether a client may come in, and with which session.

use std::sync::Arc;

use tokio::time::timeout;

use super::connection::{Client, Connection};
use super::facts::Facts;
use super::mailbox::Order;
use crate::acl::Principal;
use crate::doors::{BrokerEvent, Denied, Identity, Introduction};
use crate::metrics::ConnectOutcome;
use crate::packet::{ReasonCode, Text};
use crate::router::queue::Queue;
use crate::session::Request;
use crate::session::table::SessionKey;
use crate::sessions::Asked;

impl Connection {
    pub(super) async fn decide(&mut self, request: Request) {
        if let Some(reason) = self.turned_away {
            return self.refuse(reason, "Door");
        }
        if let Identity::Device(certificate) = &self.identity {
            // Before anybody is asked, so that a revocation between finds the connection.
            self.broker.register_device(certificate, &self.mailbox);
            if self.broker.is_revoked(certificate) {
                return self.refuse(ReasonCode::NotAuthorized, "CertificateRevoked");
            }
        }
        let introduction = Introduction {
            identity: &self.identity,
            entrance: &self.entrance,
            peer: &self.peer,
            user_name: request.user_name.as_ref().map(Text::as_str),
            password: request.password.as_deref(),
        };
        let entrant = match self.broker.admission().admit(introduction).await {
            Ok(entrant) => entrant,
            Err(denied) => {
                return self.refuse(denied.reason_code(), word(denied));
            }
        };
        let (client_id, assigned) = match request.client_id {
            Some(id) => (id, false),
            None => match self.broker.assign_client_id(self.mailbox.id()) {
                Ok(id) => (id, true),
                Err(_) => return self.refuse(ReasonCode::ClientIdentifierNotValid, "ClientIdentifier"),
            },
        };
        let key = SessionKey::new(&entrant.who, client_id.clone());
        let who = Arc::new(Principal::new(entrant.who.clone(), client_id));
        if let Err(reason) = self.session.may_come_in(&who) {
            return self.refuse(reason, "Will");
        }
        if let Some(device) = who.device() {
            self.broker.crowd_out(device, self.mailbox.id());
        }
        let expiry_s = self.session.expiry_s();
        if expiry_s > 0 && self.broker.stores_no_more() {
            return self.refuse(ReasonCode::ServerUnavailable, "StoreClosed");
        }
        let asked = Asked { clean_start: request.clean_start, expiry_s, will: self.session.will_asked() };
        let claimed = self.broker.claim(&key, &self.mailbox, asked);
        let mut claimed = match timeout(self.broker.limits().connect_timeout(), claimed).await {
            Ok(Some(claimed)) => claimed,
            Ok(None) => return self.refuse(ReasonCode::QuotaExceeded, "SessionsFull"),
            // The connection before it still has something for the node, which has no room.
            Err(_) => return self.refuse(ReasonCode::ServerBusy, "Busy"),
        };
        let written = self.broker.written(claimed.written);
        if timeout(self.broker.limits().connect_timeout(), written).await != Ok(true) {
            // What CONNACK would say of the session is not on the disk.
            self.broker.give_back(&key, claimed, expiry_s);
            return self.refuse(ReasonCode::ServerBusy, "NotStored");
        }
        if !self.broker.admission().still_admits(&entrant) {
            // Found in the table from now on; what it had stays for whoever proves to be it.
            self.mailbox.order(Order::Close(ReasonCode::NotAuthorized));
        }
        self.until = entrant.until.map(|until| {
            let clock = self.broker.clock();
            clock.now().saturating_add(until.saturating_since(clock.unix_now()))
        });
        let outcome = if claimed.resumed.is_some() { ConnectOutcome::Resumed } else { ConnectOutcome::New };
        let is_resumed = outcome == ConnectOutcome::Resumed;
        self.broker.metrics().connect(outcome, self.session.version());
        if let Some(device) = who.device().copied() {
            self.inward.push(BrokerEvent::Connected { device, connection: self.mailbox.id() });
        }
        self.keeper = self.broker.keeper(&claimed, &self.mailbox);
        self.arrears = claimed.resumed.as_mut().and_then(|resumed| resumed.owed.take());
        let assigned = assigned.then(|| who.client_id());
        self.session.admit(who.clone(), claimed.resumed, assigned, self.broker.clock().now());
        claimed.queue.attach(self.mailbox.clone());
        self.introduce(&claimed.queue);
        let (subscriber, queue) = (claimed.subscriber, claimed.queue);
        self.client = Client::Admitted { who, key, subscriber, queue };
        self.tell_connected(is_resumed);
        // What arrived while we decided is read now, and mail found the box already.
        self.mailbox.wake();
    }

    /// Tells others who is here now.
    fn introduce(&self, queue: &Arc<Queue>) {
        let (peer, listener) = (self.peer.to_string().into(), self.entrance.name);
        let (session, since) = (&self.session, self.broker.clock().unix_now());
        let facts = Facts::new(peer, listener, session.version(), since, session.keep_alive_s(), queue.clone());
        facts.note(session.holdings());
        self.mailbox.introduce(facts);
    }

    fn refuse(&mut self, reason: ReasonCode, refusal: impl Into<Box<str>>) {
        self.broker.metrics().connect(ConnectOutcome::Refused, self.session.version());
        self.ends_refused(reason, refusal);
        self.session.refuse(reason);
    }
}

/// A denial in a word, for a label: the name of its kind.
fn word(denied: Denied) -> Box<str> {
    let text = format!("{denied:?}");
    text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default().into()
}
