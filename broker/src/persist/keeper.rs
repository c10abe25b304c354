//! What one connection writes as its session moves on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::queued::Exchange;
use super::receipt::After;
use super::session::interest_change;
use super::{Journal, Storing, forget};
use crate::arrears::Arrears;
use crate::doors;
use crate::net::mailbox::Mailbox;
use crate::packet::{PacketId, QoS};
use crate::router::SubscriberId;
use crate::router::message::Kept;
use crate::session::{Change, Interest, Resumable};

/// What one connection writes as its session moves on, step by step.
#[derive(Debug)]
pub(crate) struct Keeper {
    session: SubscriberId,
    journal: Arc<Journal>,
    mailbox: Arc<Mailbox>,
    /// What was sent and has had no answer.
    sent: BTreeMap<PacketId, Sent>,
    releasing: BTreeSet<PacketId>,
    /// What came and was not released, as far as it is written.
    received: BTreeSet<PacketId>,
    /// PUBRECs so far, so that PUBRELs leave again in their order.
    order: u64,
    /// The last step there was.
    last: u64,
    /// The last one that was written and is waited for.
    written: u64,
    /// The last one that is kept.
    kept: u64,
    /// A QoS 2 message came, and the event that routes it follows.
    arrived: Option<(PacketId, u64)>,
}

#[derive(Debug)]
struct Sent {
    place: Kept,
    /// Whether its identifier is written too.
    has_exchange: bool,
}

impl Keeper {
    pub(crate) fn new(
        session: SubscriberId,
        journal: Arc<Journal>,
        mailbox: Arc<Mailbox>,
        resumed: Option<&Resumable>,
    ) -> Box<Self> {
        let in_flight = resumed.iter().flat_map(|resumed| &resumed.in_flight);
        let sent = in_flight.filter_map(|(packet_id, queued)| {
            Some((*packet_id, Sent { place: queued.kept.clone()?, has_exchange: true }))
        });
        let releasing = resumed.map(|resumed| resumed.releasing.iter().copied().collect()).unwrap_or_default();
        let received = resumed.map(|resumed| resumed.received.iter().copied().collect()).unwrap_or_default();
        Box::new(Self {
            session,
            journal,
            mailbox,
            sent: sent.collect(),
            order: resumed.map_or(0, |resumed| resumed.releasing.len() as u64),
            releasing,
            received,
            last: 0,
            written: 0,
            kept: 0,
            arrived: None,
        })
    }

    /// The session has made a step. Gives the number up to which all is kept, if that is known.
    /// `owed` is what its subscriptions are still to be sent.
    pub(crate) fn step(&mut self, number: u64, change: Change, owed: Option<&Arrears>) -> Option<u64> {
        self.last = number;
        let session = self.session;
        let mut changes = Vec::new();
        let is_awaited = match change {
            Change::Sent { packet_id, queued } => {
                let Some(place) = queued.kept else { return self.without(number) };
                // At QoS 1 it may leave under another identifier after a crash: it has been sent
                // at least once.
                let has_exchange = queued.qos == QoS::ExactlyOnce;
                if has_exchange {
                    changes.push(Exchange::Sent(place.sequence.get()).put(session, packet_id));
                }
                self.sent.insert(packet_id, Sent { place, has_exchange });
                has_exchange
            }
            Change::Releasing(packet_id) => {
                self.done(packet_id, &mut changes);
                self.order += 1;
                self.releasing.insert(packet_id);
                changes.push(Exchange::Releasing(self.order).put(session, packet_id));
                true
            }
            Change::Done(packet_id) => {
                self.done(packet_id, &mut changes);
                false
            }
            Change::Received(packet_id) => {
                self.arrived = Some((packet_id, number));
                return None;
            }
            Change::Released(packet_id) if self.received.remove(&packet_id) => {
                changes.push(Exchange::Received.delete(session, packet_id));
                true
            }
            Change::Released(_) => false,
            Change::Listens(steps) => {
                let is_owed = |step: &Interest| match step {
                    Interest::Begun(filter, _) => owed.is_some_and(|owed| owed.owes(filter)),
                    Interest::Ended(_) | Interest::Listens(..) | Interest::ListensNoMore(_) => false,
                };
                changes.extend(steps.iter().map(|step| interest_change(session, step, is_owed(step))));
                true
            }
        };
        if !is_awaited {
            self.journal.write(changes, Vec::new());
            return self.without(number);
        }
        self.written = number;
        self.journal.write(changes, vec![After::Step(self.mailbox.clone(), number)]);
        None
    }

    /// A message is routed: if it is the one that came, the two are written together, where it is
    /// written at all.
    pub(crate) fn join(&mut self, storing: &mut Storing) {
        if let Some((packet_id, number)) = self.arrived {
            let change: doors::Change = Exchange::Received.put(self.session, packet_id);
            storing.with_step(change, After::Step(self.mailbox.clone(), number));
        }
    }

    /// It has been routed. Gives the number up to which all is kept, if that is known.
    pub(crate) fn joined(&mut self, storing: &mut Storing) -> Option<u64> {
        let (packet_id, number) = self.arrived.take()?;
        if storing.take_step() {
            return self.without(number);
        }
        self.received.insert(packet_id);
        self.written = number;
        None
    }

    /// Up to this step all that was waited for is kept. Gives the number up to which all is.
    pub(crate) fn kept(&mut self, number: u64) -> Option<u64> {
        if number <= self.kept {
            return None;
        }
        self.kept = number;
        Some(if number >= self.written { self.last } else { number })
    }

    /// A step that nothing waits for.
    fn without(&mut self, number: u64) -> Option<u64> {
        (self.kept >= self.written).then_some(number)
    }

    fn done(&mut self, packet_id: PacketId, changes: &mut Vec<doors::Change>) {
        if let Some(Sent { place, has_exchange }) = self.sent.remove(&packet_id) {
            forget(self.session, &place, changes);
            if has_exchange {
                changes.push(Exchange::Sent(0).delete(self.session, packet_id));
            }
        }
        if self.releasing.remove(&packet_id) {
            changes.push(Exchange::Releasing(0).delete(self.session, packet_id));
        }
    }
}
