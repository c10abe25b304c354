//! The disk: steps in order, the first so many of which a crash leaves.

use std::collections::VecDeque;

use super::Who;
use crate::packet::PacketId;
use crate::router::message::Queued;
use crate::session::{Change, Resumable};

#[derive(Debug, Default)]
pub(super) struct Log {
    steps: Vec<(Step, Option<(Who, u64)>)>,
    committed: usize,
}

/// What is written at once.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A message, and that it came.
    Routed {
        received: Option<PacketId>,
        queued: Queued,
    },
    Released(PacketId),
    Sent {
        packet_id: PacketId,
        queued: Queued,
    },
    Releasing(PacketId),
    Done(PacketId),
    Forgotten(Who),
}

impl Step {
    pub(super) fn of(who: Who, change: Change) -> Self {
        match (who, change) {
            (Who::Publisher, Change::Released(packet_id)) => Self::Released(packet_id),
            (Who::Subscriber, Change::Sent { packet_id, queued }) => Self::Sent { packet_id, queued },
            (Who::Subscriber, Change::Releasing(packet_id)) => Self::Releasing(packet_id),
            (Who::Subscriber, Change::Done(packet_id)) => Self::Done(packet_id),
            (who, change) => panic!("{change:?} of {who:?}"),
        }
    }
}

impl Log {
    /// Adds a step, which is told to whose session it is when it is committed.
    pub(super) fn add(&mut self, step: Step, told: Option<(Who, u64)>) {
        self.steps.push((step, told));
    }

    pub(super) fn forget(&mut self, who: Who) {
        self.add(Step::Forgotten(who), None);
    }

    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    pub(super) fn committed(&self) -> usize {
        self.committed
    }

    /// Commits the next `count`, and says who is to hear of it.
    pub(super) fn commit(&mut self, count: usize) -> Vec<(Who, u64)> {
        let end = self.committed.saturating_add(count).min(self.steps.len());
        let told = self.steps[self.committed..end].iter().filter_map(|(_, told)| *told).collect();
        self.committed = end;
        told
    }

    /// What a crash leaves: both sessions, and what waits for the subscriber.
    pub(super) fn recover(&mut self) -> (Resumable, Resumable, VecDeque<Queued>) {
        self.steps.truncate(self.committed);
        let (mut publisher, mut subscriber) = (Resumable::default(), Resumable::default());
        let mut queue: VecDeque<Queued> = VecDeque::new();
        for (step, _) in &self.steps {
            match step {
                Step::Routed { received, queued } => {
                    publisher.received.extend(received);
                    queue.push_back(queued.clone());
                }
                Step::Released(packet_id) => publisher.received.retain(|id| id != packet_id),
                Step::Sent { packet_id, queued } => {
                    let at = queue.iter().position(|waiting| std::sync::Arc::ptr_eq(&waiting.message, &queued.message));
                    queue.remove(at.expect("it was routed before it was sent"));
                    subscriber.in_flight.push((*packet_id, queued.clone()));
                    subscriber.next_packet_id = packet_id.next();
                }
                Step::Releasing(packet_id) => {
                    subscriber.in_flight.retain(|(id, _)| id != packet_id);
                    subscriber.releasing.push(*packet_id);
                }
                Step::Done(packet_id) => {
                    subscriber.in_flight.retain(|(id, _)| id != packet_id);
                    subscriber.releasing.retain(|id| id != packet_id);
                }
                Step::Forgotten(Who::Publisher) => publisher = Resumable::default(),
                Step::Forgotten(Who::Subscriber) => {
                    subscriber = Resumable::default();
                    queue.clear();
                }
            }
        }
        publisher.received.sort_unstable();
        (publisher, subscriber, queue)
    }
}
