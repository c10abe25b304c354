//! Whose session is whose: claimed by a connection, released, kept until its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;
use unhidra_core::ids::{ClientId, ClientIdError};
use unhidra_core::time::{Timestamp, UnixTime};

use crate::Broker;
use crate::doors::ConnectionId;
use crate::net::mailbox::{Mailbox, Order};
use crate::packet::{Property, QoS, ReasonCode, Will};
use crate::persist::journal::Written;
use crate::router::SubscriberId;
use crate::router::message::Queued;
use crate::router::queue::Queue;
use crate::routing::Place;
use crate::session::table::{Claim, Due, SessionKey, Stored, will_due};
use crate::session::{Remains, Resumable};

/// What a client asks for its session.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) clean_start: bool,
    /// How long it is to outlive its connection, in s.
    pub(crate) expiry_s: u32,
    pub(crate) will: Option<&'a Will>,
}

/// A session a connection has been given.
pub(crate) struct Claimed {
    pub(crate) resumed: Option<Resumable>,
    pub(crate) subscriber: SubscriberId,
    pub(crate) queue: Arc<Queue>,
    /// What was written of it.
    pub(crate) written: Written,
    /// How it was stored, where it was.
    pub(crate) before: Option<Before>,
}

/// When a stored session was to end, and what was to be published then.
#[derive(Debug)]
pub(crate) struct Before {
    expires_at: Timestamp,
    expiry_s: u32,
    left_at: UnixTime,
    will: Option<(Timestamp, Will)>,
}

impl Broker {
    /// Publishes Wills and ends sessions whose time has come. Completes when it has done so, to be
    /// called again.
    pub(crate) async fn keep_sessions(&self) {
        let stored = self.sessions_due.notified();
        let due_at = self.sessions().poll_timeout();
        match due_at {
            None => stored.await,
            Some(at) => {
                let wait = at.saturating_since(self.doors.clock.now());
                tokio::select! {
                    () = sleep(wait) => {}
                    () = stored => return,
                }
            }
        }
        self.handle_due();
    }

    /// Does what is due now.
    pub(crate) fn handle_due(&self) {
        let due = self.sessions().handle_timeout(self.doors.clock.now());
        for due in due {
            match due {
                Due::Will(key, will) => {
                    self.publish_will(&will);
                    self.store_without_will(&key);
                }
                Due::Ended(stored) => {
                    self.metrics.expired.inc();
                    self.end_session(*stored);
                }
            }
        }
    }

    pub(crate) fn assign_client_id(&self, connection: ConnectionId) -> Result<ClientId, ClientIdError> {
        ClientId::parse(&format!("auto-{:016x}-{}", self.doors.seed, connection.0))
    }

    /// Gives a connection its session, once no other carries it. `None` where there are too many.
    pub(crate) async fn claim(&self, key: &SessionKey, mailbox: &Arc<Mailbox>, asked: Asked<'_>) -> Option<Claimed> {
        loop {
            let claim = self.sessions().claim(key, mailbox, asked.clean_start);
            match claim {
                Claim::Live(other) => {
                    other.order(Order::Close(ReasonCode::SessionTakenOver));
                    other.ended().await;
                }
                Claim::Resumed(stored) => {
                    let Stored { resumable, subscriber, queue, expires_at, expiry_s, left_at, will } = *stored;
                    let written = self.store_session(subscriber, &queue, key, asked);
                    let before = Some(Before { expires_at, expiry_s, left_at, will });
                    return Some(Claimed { resumed: Some(resumable), subscriber, queue, written, before });
                }
                Claim::New { ended } => {
                    let gone = ended.map_or(Written::NONE, |stored| self.end_session(*stored));
                    let subscriber = SubscriberId(self.next_subscriber.fetch_add(1, Ordering::Relaxed));
                    let queue = Queue::new(key.clone(), self.queue_terms.clone());
                    let is_kept = asked.expiry_s > 0 && self.journal.is_some();
                    let queue = Arc::new(if is_kept { queue.kept_for(subscriber) } else { queue });
                    let written = self.store_session(subscriber, &queue, key, asked).max(gone);
                    return Some(Claimed { resumed: None, subscriber, queue, written, before: None });
                }
                Claim::Full => return None,
            }
        }
    }

    /// A connection has ended: its session is stored or ends, and its Will is published or waits.
    pub(crate) fn release(
        &self,
        key: &SessionKey,
        subscriber: SubscriberId,
        queue: Arc<Queue>,
        remains: Remains,
        forget: bool,
        with_will: bool,
    ) {
        let now = self.doors.clock.now();
        let Remains { resumable, expiry_s, will, had_will, .. } = remains;
        let expiry_s = if forget { 0 } else { expiry_s };
        let will = will.filter(|_| with_will);
        let delay_s = will.as_ref().map_or(0, will_delay_s);
        let will = match (will, will_due(now, delay_s, expiry_s)) {
            (Some(will), None) => {
                self.publish_will(&will);
                None
            }
            (Some(will), Some(at)) => Some((at, will)),
            (None, _) => None,
        };
        let expires_at = now.saturating_add(Duration::from_secs(u64::from(expiry_s)));
        let left_at = self.doors.clock.unix_now();
        let stored = Stored { resumable, subscriber, queue, expires_at, expiry_s, left_at, will };
        if expiry_s == 0 {
            self.sessions().release(key, None);
            if had_will {
                self.store_without_session(subscriber, &stored.queue);
            }
            self.end_session(stored);
        } else {
            // Asked before the queue is locked: a group that looks for a member locks itself and then a queue.
            let takers: Vec<_> =
                stored.queue.groups().into_iter().filter(|group| group.has_taker_besides(subscriber)).collect();
            let may_go = |queued: &Queued| {
                queued.group.as_ref().is_some_and(|of| takers.iter().any(|group| Arc::ptr_eq(group, of)))
            };
            let may_go_to_others = stored.queue.take_if(may_go);
            self.store_left(key, &stored);
            self.sessions().release(key, Some(Box::new(stored)));
            self.sessions_due.notify_waiters();
            self.pass_on(may_go_to_others.iter().cloned());
            self.forget_queued(subscriber, may_go_to_others);
        }
    }

    /// A session that was claimed goes back where it was: nobody has come in, so it ends when it was to end, and
    /// its Will is published when it was to be.
    pub(crate) fn give_back(&self, key: &SessionKey, claimed: Claimed, expiry_s: u32) {
        let Claimed { resumed, subscriber, queue, before, .. } = claimed;
        let resumable = resumed.unwrap_or_default();
        match before {
            Some(Before { expires_at, expiry_s, left_at, will }) => {
                let stored = Stored { resumable, subscriber, queue, expires_at, expiry_s, left_at, will };
                self.store_left(key, &stored);
                self.sessions().release(key, Some(Box::new(stored)));
                self.sessions_due.notify_waiters();
            }
            None => {
                let remains = Remains { resumable, expiry_s, will: None, had_will: false, lost: Vec::new() };
                self.release(key, subscriber, queue, remains, false, false);
            }
        }
    }

    pub(crate) fn end_session(&self, stored: Stored) -> Written {
        for filter in stored.resumable.subscriptions.keys() {
            self.unsubscribe(filter, stored.subscriber);
        }
        let waiting = stored.queue.take_if(|_| true);
        let gone = self.session_ends(&stored, &waiting);
        let unsent = waiting.into_iter().filter(|queued| queued.group.is_some());
        // A message of QoS 2 that has been sent may go to nobody else [MQTT-4.8.2-5].
        let sent = stored.resumable.in_flight.into_iter().map(|(_, queued)| queued);
        self.pass_on(sent.filter(|queued| queued.qos == QoS::AtLeastOnce).chain(unsent));
        if let Some((_, will)) = stored.will {
            self.publish_will(&will);
        }
        // Last: others have it before this one has it no more.
        self.write(gone)
    }

    /// The rules are others now: every session's subscriptions are held to them, the stored ones
    /// here, the others by their connections.
    pub(crate) fn review_sessions(&self) {
        self.sessions().each(|key, session| match session {
            Ok(mailbox) => mailbox.review(),
            Err(stored) => {
                let who = Arc::new(key.principal());
                let subscriptions = &mut stored.resumable.subscriptions;
                for filter in self.rules().acl.lost(&who, subscriptions.keys().map(|filter| &**filter)) {
                    subscriptions.remove(&filter);
                    self.unsubscribe(&filter, stored.subscriber);
                    if let Some(owed) = &mut stored.resumable.owed {
                        owed.forget(&filter);
                    }
                }
                let place = Place { who: &who, subscriber: stored.subscriber, queue: &stored.queue };
                for (filter, subscription) in &*subscriptions {
                    self.place(filter, place, *subscription);
                }
            }
        });
    }
}

/// How long after its connection a Will waits, in s (section 3.1.3.2.2).
pub(crate) fn will_delay_s(will: &Will) -> u32 {
    let delay_s = will.properties.find(|property| match property {
        Property::WillDelayInterval(s) => Some(*s),
        _ => None,
    });
    delay_s.unwrap_or(0)
}
