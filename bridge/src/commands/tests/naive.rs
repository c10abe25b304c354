//! The queue beside a naive one, whatever happens.

use std::collections::BTreeMap;

use proptest::prelude::*;
use unhidra_core::command::CommandState;

use super::*;

/// What may happen to a queue.
#[derive(Clone, Debug)]
enum Step {
    Push { lives_s: u64 },
    SendAll,
    Published { which: usize, outcome: u8 },
    Release,
    ConnectionEnds,
    Receipt { which: usize, status: u8 },
    Cancel { which: usize },
    Pass { ms: u64 },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..200_u64).prop_map(|lives_s| Step::Push { lives_s }),
        4 => Just(Step::SendAll),
        4 => (any::<usize>(), 0..5_u8).prop_map(|(which, outcome)| Step::Published { which, outcome }),
        1 => Just(Step::Release),
        1 => Just(Step::ConnectionEnds),
        3 => (any::<usize>(), 0..5_u8).prop_map(|(which, status)| Step::Receipt { which, status }),
        1 => any::<usize>().prop_map(|which| Step::Cancel { which }),
        3 => (0..60_000_u64).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Restart),
    ]
}

/// The naive queue: one entry for each command there ever was, and every question answered by a
/// look at all of them.
#[derive(Default)]
struct Model {
    all: Vec<Naive>,
}

#[derive(Clone, Debug)]
struct Naive {
    id: CommandId,
    expires: u64,
    attempts: u32,
    may_have_it: bool,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Waits,
    Aside,
    Flies { ticket: u64, overtaken: bool },
    There { since: u64, promised: bool },
    Over(CommandState),
}

impl Model {
    fn busy(&self, at: u64) -> usize {
        let holds_up = |naive: &&Naive| match naive.place {
            Place::Flies { .. } => true,
            Place::There { since, promised } => promised || at < since + 30_000,
            Place::Waits | Place::Aside | Place::Over(_) => false,
        };
        self.all.iter().filter(holds_up).count()
    }

    fn next(&self, in_flight: usize, at: u64) -> Option<CommandId> {
        let waits = |naive: &&Naive| naive.place == Place::Waits && naive.expires > at;
        if self.busy(at) < in_flight { self.all.iter().find(waits).map(|naive| naive.id) } else { None }
    }

    /// The connection ends: what was on its way may have come through.
    fn all_wait(&mut self) {
        for naive in &mut self.all {
            if matches!(naive.place, Place::Aside | Place::Flies { .. }) {
                naive.may_have_it |= naive.place != Place::Aside;
                naive.place = Place::Waits;
            }
        }
    }

    fn expire(&mut self, at: u64) -> Vec<CommandId> {
        let mut over = Vec::new();
        for naive in &mut self.all {
            let grace = if naive.attempts > 0 { 60_000 } else { 0 };
            if !matches!(naive.place, Place::Over(_)) && naive.expires + grace <= at {
                naive.place = Place::Over(CommandState::Expired);
                over.push(naive.id);
            }
        }
        over
    }

    fn state(&self, id: &CommandId) -> Option<CommandState> {
        let naive = self.all.iter().find(|naive| naive.id == *id)?;
        Some(match naive.place {
            Place::Waits | Place::Aside if !naive.may_have_it => CommandState::Accepted,
            Place::Waits | Place::Aside | Place::Flies { .. } => CommandState::Sent,
            Place::There { .. } => CommandState::Delivered,
            Place::Over(state) => state,
        })
    }
}

/// The queue, the model, and what was written of each command.
struct Both {
    queue: CommandQueue,
    model: Model,
    written: BTreeMap<CommandId, Command>,
    pace: Pace,
    at: u64,
    tickets: u64,
    ids: u8,
}

impl Both {
    fn write(&mut self, command: Command) {
        if let Some(before) = self.written.get(&command.id) {
            assert!(!before.is_final(), "{:?} after its end: {command:?}", before.state());
            let (old, new) = (before.state(), command.state());
            let falls_back = old == CommandState::Sent && new == CommandState::Accepted;
            let says_more = old == CommandState::Delivered && new == old;
            let again = old == CommandState::Sent && new == old && command.life.attempts > before.life.attempts;
            let forward = (old as u8) < (new as u8);
            assert!(falls_back || says_more || again || forward, "{old:?} to {new:?}");
            assert!(command.life.attempts >= before.life.attempts);
            assert!(command.life.sent_at >= before.life.sent_at);
        }
        self.written.insert(command.id, command);
    }

    fn step(&mut self, step: &Step) {
        let here = now(self.at);
        match *step {
            Step::Push { lives_s } if self.ids < 250 => {
                self.ids += 1;
                let mut new = command(self.ids, 0);
                new.created_at = here.unix;
                new.expires_at = here.unix.saturating_add(Duration::from_secs(lives_s));
                let expires = new.expires_at.as_ms();
                let naive = Naive { id: new.id, expires, attempts: 0, may_have_it: false, place: Place::Waits };
                self.model.all.push(naive);
                let pushed = self.queue.push(new);
                self.write(pushed);
            }
            Step::Push { .. } => {}
            Step::SendAll => loop {
                let wanted = self.model.next(self.pace.in_flight, self.at);
                assert_eq!(self.queue.next(self.pace, here).map(|c| c.id), wanted);
                let Some(id) = wanted else { break };
                self.tickets += 1;
                let sent = self.queue.sent(&id, Ticket(self.tickets), here).expect("it is open");
                self.write(sent);
                let naive = self.model.all.iter_mut().find(|naive| naive.id == id).expect("known");
                naive.attempts += 1;
                naive.place = Place::Flies { ticket: self.tickets, overtaken: false };
            },
            Step::Published { which, outcome } => {
                let flying = self.model.all.iter_mut().filter(|naive| matches!(naive.place, Place::Flies { .. }));
                let mut flying: Vec<_> = flying.collect();
                let Some(count) = flying.len().checked_sub(1) else { return };
                let naive = &mut flying[which % (count + 1)];
                let Place::Flies { ticket, overtaken } = naive.place else { return };
                let outcomes =
                    [Outcome::Delivered, Outcome::Refused, Outcome::Lost, Outcome::Unsent, Outcome::Declined];
                let outcome = outcomes[usize::from(outcome)];
                naive.place = match outcome {
                    Outcome::Delivered => Place::There { since: self.at, promised: false },
                    Outcome::Refused | Outcome::Declined if !overtaken => Place::Aside,
                    Outcome::Refused | Outcome::Declined | Outcome::Lost | Outcome::Unsent => Place::Waits,
                    Outcome::Relayed | Outcome::Unclear => unreachable!("the device has a connection here"),
                };
                naive.may_have_it |= matches!(outcome, Outcome::Lost | Outcome::Declined);
                let moves = outcome == Outcome::Delivered || !naive.may_have_it;
                let moved = self.queue.published(Ticket(ticket), outcome, self.pace, here);
                assert_eq!(moved.is_some(), moves);
                moved.into_iter().for_each(|moved| self.write(moved));
            }
            Step::Release => {
                self.queue.release();
                for naive in &mut self.model.all {
                    naive.place = match naive.place {
                        Place::Aside => Place::Waits,
                        Place::Flies { ticket, .. } => Place::Flies { ticket, overtaken: true },
                        other => other,
                    };
                }
            }
            Step::ConnectionEnds => {
                self.queue.connection_ended();
                self.model.all_wait();
            }
            Step::Receipt { which, status } => {
                let Some(count) = self.model.all.len().checked_sub(1) else { return };
                let naive = &mut self.model.all[which % (count + 1)];
                let status = ReceiptStatus::from_byte(status).expect("a status");
                let is_open = !matches!(naive.place, Place::Over(_));
                if is_open {
                    naive.place = match (status, naive.place) {
                        (ReceiptStatus::Accepted, Place::There { since, .. }) => Place::There { since, promised: true },
                        (ReceiptStatus::Accepted, _) => Place::There { since: self.at, promised: true },
                        (ReceiptStatus::Done, _) => Place::Over(CommandState::Done),
                        (ReceiptStatus::Failed | ReceiptStatus::Unknown, _) => Place::Over(CommandState::Failed),
                        (ReceiptStatus::Expired, _) => Place::Over(CommandState::Expired),
                    };
                }
                let id = naive.id;
                if is_open && matches!(naive.place, Place::Over(_)) {
                    let aside = self.model.all.iter_mut().filter(|naive| matches!(naive.place, Place::Aside));
                    aside.for_each(|naive| naive.place = Place::Waits);
                }
                let moved = self.queue.answered(&id, status, "because", self.pace, here);
                assert!(is_open || moved.is_none());
                moved.into_iter().for_each(|moved| self.write(moved));
            }
            Step::Cancel { which } => {
                let Some(count) = self.model.all.len().checked_sub(1) else { return };
                let naive = &mut self.model.all[which % (count + 1)];
                match (self.queue.cancel(&naive.id, "me", here.unix), naive.place) {
                    (Cancelled::Now(command), Place::Waits | Place::Aside) if !naive.may_have_it => {
                        naive.place = Place::Over(CommandState::Cancelled);
                        self.write(command);
                    }
                    (Cancelled::TooLate(_), Place::Flies { .. } | Place::There { .. }) => {}
                    (Cancelled::TooLate(_), Place::Waits | Place::Aside) if naive.may_have_it => {}
                    (Cancelled::NotOpen, Place::Over(_)) => {}
                    (other, place) => panic!("{place:?} gives {other:?}"),
                }
            }
            Step::Pass { ms } => {
                self.at += ms;
                let over = self.queue.expire(self.pace, UnixTime::from_ms(self.at));
                let mut found: Vec<_> = over.iter().map(|command| command.id).collect();
                let mut wanted = self.model.expire(self.at);
                found.sort();
                wanted.sort();
                assert_eq!(found, wanted);
                over.into_iter().for_each(|command| self.write(command));
            }
            Step::Restart => {
                let mut open: Vec<_> = self.written.values().filter(|c| !c.is_final()).cloned().collect();
                open.sort_by_key(|command| (command.created_at, command.id));
                self.queue = CommandQueue::restore(open, self.pace, here);
                self.model.all_wait();
            }
        }
    }

    fn agree(&self) {
        for (id, command) in &self.written {
            assert_eq!(Some(command.state()), self.model.state(id));
            assert_eq!(self.queue.get(id).is_some(), !command.is_final());
            let life = &command.life;
            let ended = command.ended().map(|ended| ended.at);
            let times = [Some(command.created_at), life.sent_at, life.delivered_at, life.acting_at, ended];
            let times: Vec<_> = times.into_iter().flatten().collect();
            assert!(times.is_sorted() || life.attempts > 1 && times.last() == times.iter().max(), "{command:?}");
        }
        let next = self.queue.next(self.pace, now(self.at)).map(|c| c.id);
        assert_eq!(next, self.model.next(self.pace.in_flight, self.at));
    }
}

proptest! {
    /// Whatever happens, in whatever order: the queue does what the naive one does, what is written
    /// goes forward as the diagram says, and in the end each command has one end.
    #[test]
    fn the_queue_does_what_a_naive_one_does(
        steps in proptest::collection::vec(step(), 1..120),
        in_flight in 1..=8_usize,
    ) {
        let mut both = Both {
            queue: CommandQueue::default(),
            model: Model::default(),
            written: BTreeMap::new(),
            pace: Pace { in_flight, ..PACE },
            at: 1,
            tickets: 0,
            ids: 0,
        };
        for step in &steps {
            both.step(step);
            both.agree();
        }
        // The longest life, and the grace.
        both.step(&Step::Pass { ms: 200_000 + 60_000 });
        both.agree();
        prop_assert!(both.written.values().all(Command::is_final) && both.queue.is_empty());
    }
}
