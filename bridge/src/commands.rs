//! One device's queue, and the life of a command.
//!
//! ```text
//!            next()             published(Delivered)       answered(..)
//! Waiting ----------> InFlight ----------------------> Delivered ------> gone
//!    ^                   |                                 |
//!    +--- Lost ----------+        answered(..) from any state; expire(..) from any state -> gone
//!    |                   |
//!    +- release() - Held +--- Refused by the device
//!    +-------------------+--- Refused, and release() came in between
//! ```
//!
//! The queue moves commands on and gives each as it is to be written; it seals nothing, and knows
//! no clock.

use std::collections::VecDeque;

use unhidra_core::ids::CommandId;
use unhidra_core::message::{Command, CommandState, ReceiptStatus};
use unhidra_core::time::UnixTime;

use crate::draft::Ticket;

/// Commands of one device that are sealed and not yet acknowledged. Their message keys are spent
/// when the connection ends, so few are risked at once.
const IN_FLIGHT_MAX: usize = 8;

/// What became of a publish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The device's MQTT client has it.
    Delivered,
    /// The device could not take it: it will say why, or begin a new session.
    Refused,
    /// The connection ended first.
    Lost,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Progress {
    Waiting,
    InFlight(Ticket),
    /// In flight, and sealed before the device listened anew or a new session began.
    Overtaken(Ticket),
    Held,
    Delivered,
}

impl Progress {
    const fn ticket(self) -> Option<Ticket> {
        match self {
            Self::InFlight(ticket) | Self::Overtaken(ticket) => Some(ticket),
            Self::Waiting | Self::Held | Self::Delivered => None,
        }
    }
}

#[derive(Debug)]
struct Entry {
    command: Command,
    progress: Progress,
}

/// The open commands of one device, oldest first.
#[derive(Debug, Default)]
pub(crate) struct CommandQueue {
    open: VecDeque<Entry>,
}

impl CommandQueue {
    /// The queue as the store has it. What was sent before a restart is sent again, sealed anew
    /// under the same id: the device knows it by that.
    #[must_use]
    pub(crate) fn restore(commands: Vec<Command>) -> Self {
        let entry = |command: Command| Entry {
            progress: match command.state {
                CommandState::Queued | CommandState::Sent => Progress::Waiting,
                CommandState::Delivered | CommandState::Answered(_) | CommandState::Expired => Progress::Delivered,
            },
            command,
        };
        Self { open: commands.into_iter().filter(|c| !c.state.is_final()).map(entry).collect() }
    }

    /// How many are open.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is open.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Adds a command behind the others.
    pub(crate) fn push(&mut self, command: Command) {
        self.open.push_back(Entry { command, progress: Progress::Waiting });
    }

    /// The oldest command that may be sent now, if the window has room.
    #[must_use]
    pub(crate) fn next(&self) -> Option<&Command> {
        let in_flight = self.open.iter().filter(|e| e.progress.ticket().is_some()).count();
        if in_flight >= IN_FLIGHT_MAX {
            return None;
        }
        self.open.iter().find(|e| e.progress == Progress::Waiting).map(|e| &e.command)
    }

    /// Marks a command as handed out under `ticket`, and gives it as it is to be written.
    pub(crate) fn sent(&mut self, id: &CommandId, ticket: Ticket) -> Option<Command> {
        let entry = self.open.iter_mut().find(|e| e.command.id == *id)?;
        entry.progress = Progress::InFlight(ticket);
        entry.command.state = CommandState::Sent;
        Some(entry.command.clone())
    }

    /// Takes the broker's word on a ticket, and gives the command where it is to be written.
    pub(crate) fn published(&mut self, ticket: Ticket, outcome: Outcome) -> Option<Command> {
        let entry = self.open.iter_mut().find(|e| e.progress.ticket() == Some(ticket))?;
        match outcome {
            Outcome::Delivered => {
                entry.progress = Progress::Delivered;
                // A receipt may have come before the PUBACK; it says more.
                if entry.command.state == CommandState::Sent {
                    entry.command.state = CommandState::Delivered;
                    return Some(entry.command.clone());
                }
                None
            }
            Outcome::Lost => {
                entry.progress = Progress::Waiting;
                None
            }
            Outcome::Refused => {
                // What the device refuses of a session that another has followed is no reason to
                // wait for yet another.
                let overtaken = matches!(entry.progress, Progress::Overtaken(_));
                entry.progress = if overtaken { Progress::Waiting } else { Progress::Held };
                None
            }
        }
    }

    /// Lets what the device refused be sent again: it listens anew, or a new session has begun.
    pub(crate) fn release(&mut self) {
        for entry in &mut self.open {
            entry.progress = match entry.progress {
                Progress::Held => Progress::Waiting,
                Progress::InFlight(ticket) => Progress::Overtaken(ticket),
                other => other,
            };
        }
    }

    /// What is in flight went with the connection.
    pub(crate) fn connection_ended(&mut self) {
        for entry in &mut self.open {
            if entry.progress.ticket().is_some() || entry.progress == Progress::Held {
                entry.progress = Progress::Waiting;
            }
        }
    }

    /// Takes the device's receipt, and gives the command as it is to be written. `None` where no
    /// such command is open: its receipt came before, or its time is over.
    pub(crate) fn answered(&mut self, id: &CommandId, status: ReceiptStatus) -> Option<Command> {
        let at = self.open.iter().position(|e| e.command.id == *id)?;
        let state = CommandState::Answered(status);
        let entry = self.open.get_mut(at)?;
        if entry.command.state == state {
            return None;
        }
        entry.command.state = state;
        if !state.is_final() {
            entry.progress = Progress::Delivered;
            return Some(entry.command.clone());
        }
        self.open.remove(at).map(|e| e.command)
    }

    /// Ends the commands whose time is over, and gives them as they are to be written.
    pub(crate) fn expire(&mut self, now: UnixTime) -> Vec<Command> {
        let mut expired = Vec::new();
        self.open.retain_mut(|entry| {
            let over = entry.command.expires_at <= now;
            if over {
                entry.command.state = CommandState::Expired;
                expired.push(entry.command.clone());
            }
            !over
        });
        expired
    }

    /// When the next command's time is over.
    #[must_use]
    pub(crate) fn next_expiry(&self) -> Option<UnixTime> {
        self.open.iter().map(|e| e.command.expires_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use unhidra_core::ids::DeviceId;

    fn command(n: u8, expires_s: u64) -> Command {
        Command {
            id: CommandId::new([n; 16]),
            device: DeviceId::parse("pump-7").expect("valid"),
            name: "reboot".into(),
            body: Bytes::new(),
            created_at: UnixTime::EPOCH,
            expires_at: UnixTime::from_s(expires_s),
            state: CommandState::Queued,
        }
    }

    fn send(queue: &mut CommandQueue, ticket: u64) -> CommandId {
        let id = queue.next().expect("one waits").id;
        assert_eq!(queue.sent(&id, Ticket(ticket)).map(|c| c.state), Some(CommandState::Sent));
        id
    }

    #[test]
    fn a_command_is_sent_delivered_and_answered() {
        let mut queue = CommandQueue::default();
        queue.push(command(1, 9));
        let id = send(&mut queue, 7);
        assert!(queue.next().is_none());
        assert_eq!(queue.published(Ticket(8), Outcome::Delivered), None, "another ticket");
        assert_eq!(queue.published(Ticket(7), Outcome::Delivered).map(|c| c.state), Some(CommandState::Delivered));
        let answered = |queue: &mut CommandQueue, status| queue.answered(&id, status).map(|c| c.state);
        let accepted = CommandState::Answered(ReceiptStatus::Accepted);
        assert_eq!(answered(&mut queue, ReceiptStatus::Accepted), Some(accepted));
        assert_eq!(answered(&mut queue, ReceiptStatus::Accepted), None, "a repeat");
        assert_eq!(answered(&mut queue, ReceiptStatus::Done), Some(CommandState::Answered(ReceiptStatus::Done)));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_receipt_before_the_puback_is_not_taken_back_by_it() {
        let mut queue = CommandQueue::default();
        queue.push(command(1, 9));
        let id = send(&mut queue, 7);
        assert!(queue.answered(&id, ReceiptStatus::Accepted).is_some());
        assert_eq!(queue.published(Ticket(7), Outcome::Delivered), None);
        assert!(queue.answered(&id, ReceiptStatus::Failed).is_some() && queue.is_empty());
    }

    #[test]
    fn a_lost_one_goes_again_and_a_refused_one_waits_for_a_new_beginning() {
        let mut queue = CommandQueue::default();
        queue.push(command(1, 9));
        send(&mut queue, 1);
        queue.published(Ticket(1), Outcome::Lost);
        send(&mut queue, 2);
        queue.published(Ticket(2), Outcome::Refused);
        assert!(queue.next().is_none());
        queue.release();
        send(&mut queue, 3);
        queue.connection_ended();
        assert!(queue.next().is_some());
    }

    #[test]
    fn one_that_is_refused_after_a_new_beginning_waits_for_no_other() {
        let mut queue = CommandQueue::default();
        queue.push(command(1, 9));
        send(&mut queue, 1);
        queue.release();
        assert!(queue.next().is_none(), "the device may yet take it");
        queue.published(Ticket(1), Outcome::Refused);
        send(&mut queue, 2);
        queue.published(Ticket(2), Outcome::Refused);
        assert!(queue.next().is_none(), "once for each beginning");
    }

    #[test]
    fn the_window_is_bounded_and_the_order_kept() {
        let mut queue = CommandQueue::default();
        (1..=20).for_each(|n| queue.push(command(n, 9)));
        let sent: Vec<_> = (0..IN_FLIGHT_MAX as u64).map(|t| send(&mut queue, t)).collect();
        assert_eq!(sent, (1..=8).map(|n| CommandId::new([n; 16])).collect::<Vec<_>>());
        assert!(queue.next().is_none());
    }

    #[test]
    fn what_is_past_its_time_is_expired_once() {
        let mut queue = CommandQueue::default();
        queue.push(command(1, 5));
        queue.push(command(2, 9));
        assert_eq!(queue.next_expiry(), Some(UnixTime::from_s(5)));
        let expired = queue.expire(UnixTime::from_s(5));
        assert_eq!(
            expired.iter().map(|c| (c.id, c.state)).collect::<Vec<_>>(),
            [(CommandId::new([1; 16]), CommandState::Expired)]
        );
        assert_eq!((queue.expire(UnixTime::from_s(5)).len(), queue.len()), (0, 1));
    }

    #[test]
    fn after_a_restart_what_was_sent_goes_again_and_what_was_delivered_does_not() {
        let with = |n, state| Command { state, ..command(n, 9) };
        let queue = CommandQueue::restore(vec![
            with(1, CommandState::Delivered),
            with(2, CommandState::Sent),
            with(3, CommandState::Expired),
        ]);
        assert_eq!((queue.len(), queue.next().map(|c| c.id)), (2, Some(CommandId::new([2; 16]))));
    }
}
