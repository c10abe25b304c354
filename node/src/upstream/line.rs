//! A connection to an outside broker, as those see it who answer for what came by it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unhidra_core::delivery::{Ack, AckToken, Acknowledge, Answer};
use unhidra_core::ids::DeviceId;

use super::mailbox::Mailbox;

/// One connection. Answers go on to the mailbox of its broker; which devices are to be heard again it
/// remembers as long as anything that came by it waits, also when the next connection serves.
#[derive(Debug)]
pub(super) struct Line {
    mailbox: Arc<Mailbox>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Who speaks in the messages that wait for their answer, as many as the window lets wait.
    speakers: HashMap<AckToken, Speaker>,
    /// Whose message was answered with [`Answer::Retry`] and comes again.
    given_up: HashSet<DeviceId>,
}

#[derive(Clone, Copy, Debug)]
struct Speaker {
    device: DeviceId,
    /// At QoS 0 it does not.
    comes_again: bool,
}

impl Line {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Arc<Self> {
        Arc::new(Self { mailbox, inner: Mutex::default() })
    }

    /// The right to answer a message in a device's name, and whether that comes again where nobody takes it.
    pub(super) fn ack(self: &Arc<Self>, token: AckToken, device: DeviceId, comes_again: bool) -> Ack {
        self.lock().speakers.insert(token, Speaker { device, comes_again });
        Ack::new(self.clone(), token)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing here panics while it holds the lock, so a poisoned one holds whole values.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Acknowledge for Line {
    fn acknowledge(&self, token: AckToken, answer: Answer) {
        let mut inner = self.lock();
        let speaker = inner.speakers.remove(&token).filter(|speaker| speaker.comes_again && answer == Answer::Retry);
        inner.given_up.extend(speaker.map(|speaker| speaker.device));
        drop(inner);
        self.mailbox.acknowledge(token, answer);
    }

    fn is_given_up(&self, token: AckToken) -> bool {
        let inner = self.lock();
        inner.speakers.get(&token).is_some_and(|speaker| inner.given_up.contains(&speaker.device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_said_behind_a_message_that_comes_again_is_given_up_and_nobody_elses() {
        let [pump, valve] = ["pump-7", "valve-1"].map(|id| DeviceId::parse(id).expect("an id"));
        let mailbox = Arc::new(Mailbox::new(1));
        let line = Line::new(mailbox.clone());
        let first = line.ack(AckToken(1), pump, true);
        let behind = line.ack(AckToken(2), pump, true);
        let at_most_once = line.ack(AckToken(3), pump, false);
        let others = line.ack(AckToken(4), valve, true);
        line.ack(AckToken(5), valve, true).answer(Answer::Accepted);
        assert!(!behind.is_given_up());
        drop(first);
        assert!(behind.is_given_up() && at_most_once.is_given_up() && !others.is_given_up());
        // It comes by another connection, where nothing of it is given up.
        assert!(!Line::new(mailbox.clone()).ack(AckToken(6), pump, true).is_given_up());
        drop((behind, at_most_once));
        let answers: Vec<u64> = mailbox.take().answers.iter().map(|(token, _)| token.0).collect();
        assert_eq!((answers, line.lock().speakers.len()), (vec![5, 1, 6, 2, 3], 1), "only the valve's is left");
    }

    #[test]
    fn behind_one_that_does_not_come_again_nothing_is_given_up() {
        let pump = DeviceId::parse("pump-7").expect("an id");
        let line = Line::new(Arc::new(Mailbox::new(1)));
        drop(line.ack(AckToken(1), pump, false));
        assert!(!line.ack(AckToken(2), pump, true).is_given_up());
    }
}
