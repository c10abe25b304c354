//! One device's queue of commands, and what the broker and the device say of them.
//!
//! ```text
//!            next()             published(Delivered)       answered(..), expire(..)
//! Waiting ----------> InFlight ----------------------> Delivered ------> gone
//!  |  ^                  |                                 ^
//!  |  +--- Lost, Unsent -+---------------------------------+ answered(Accepted) from any state
//!  |  |                  |
//!  |  +- release() - Relayed: an outside broker has it
//!  |  +- release() - Held +--- Refused, Declined            answered(..), expire(..) from any state -> gone
//!  |  +------------------+--- Refused, and release() came in between
//!  +--> gone: cancel(..), from Held too, unless the device may have it
//! ```
//!
//! An attempt that ended without the device's word (`Lost`, `Relayed`, `Declined`, a restart of the node) may
//! have reached it. Such a command goes again under its id and stays `sent` meanwhile: it is not cancelled,
//! for it may be carried out.
//!
//! One command at a time is carried out, in the order they came: the next is sent when the one
//! before has ended, or was delivered and the device has promised no receipt within a while. What
//! the device refuses stands aside until it begins anew or says what became of another, and others pass it.
//!
//! The queue moves commands on and gives each as it is to be written; it seals nothing, and knows
//! no clock. The life itself is [`unhidra_core::command`]'s.

use std::collections::VecDeque;
use std::time::Duration;

use unhidra_core::command::{By, Command, Ended, Ending, Stage};
use unhidra_core::ids::CommandId;
use unhidra_core::message::ReceiptStatus;
use unhidra_core::time::{Timestamp, UnixTime};

use crate::draft::Ticket;
use crate::shard::Now;

/// What became of a publish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The device's MQTT client has it.
    Delivered,
    /// The device could not take it and will say why, or begins a new session; or it never left, for it is too
    /// large for the way or there is no room.
    Refused,
    /// An outside broker says that it did not take it, and may have passed it on all the same.
    Declined,
    /// The connection ended first.
    Lost,
    /// It never left: the connection it was sealed for was over.
    Unsent,
    /// An outside broker has it: whether the device has, only its receipt says.
    Relayed,
    /// The connection to an outside broker ended first: that broker may have it or not.
    Unclear,
}

/// How the queue is held to time and number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Pace {
    /// Commands under way at once, at least 1.
    pub(crate) in_flight: usize,
    /// How long after its delivery a command that promised no receipt holds up the next.
    pub(crate) answer: Duration,
    /// How long after its expiry a command that was sent may still be answered.
    pub(crate) grace: Duration,
}

/// So many others may be sent between two attempts at a command: a device knows a repeat among its last 64
/// (PROTOCOL section 7).
const PASSED_BY_MAX: usize = 63;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Progress {
    Waiting,
    InFlight(Ticket),
    /// In flight, and sealed before the device listened anew or a new session began.
    Overtaken(Ticket),
    Held,
    /// An outside broker has it, and the device may: without a promise it holds up the next until then.
    Relayed {
        quiet_until: Timestamp,
    },
    /// The device has it; without a promise it holds up the next until then.
    Delivered {
        quiet_until: Timestamp,
    },
}

impl Progress {
    const fn ticket(self) -> Option<Ticket> {
        match self {
            Self::InFlight(ticket) | Self::Overtaken(ticket) => Some(ticket),
            Self::Waiting | Self::Held | Self::Relayed { .. } | Self::Delivered { .. } => None,
        }
    }
}

#[derive(Debug)]
struct Entry {
    command: Command,
    progress: Progress,
    /// An attempt has ended without the device's word: it may have the command.
    may_have_it: bool,
    /// How many others were sent for the first time since this one was: they take its place among the ids that the
    /// device knows a repeat by. A restart of the node, or a commit that fails, begins the count anew.
    passed_by: usize,
}

impl Entry {
    /// Whether the next command waits for this one.
    fn holds_up(&self, now: Timestamp) -> bool {
        match self.progress {
            Progress::InFlight(_) | Progress::Overtaken(_) => true,
            Progress::Delivered { quiet_until } => self.command.life.acting_at.is_some() || quiet_until > now,
            Progress::Relayed { quiet_until } => quiet_until > now,
            Progress::Waiting | Progress::Held => false,
        }
    }

    /// A device that may have forgotten that it has the command would carry it out once more: it waits for its
    /// receipt or its end.
    fn may_be_sent(&self, now: UnixTime) -> bool {
        let is_known = !self.may_have_it || self.passed_by < PASSED_BY_MAX;
        self.progress == Progress::Waiting && self.command.expires_at > now && is_known
    }

    /// When it is over whatever happens. What was sent may have been carried out in time, and its
    /// receipt be on its way or wait with the device.
    fn over_at(&self, grace: Duration) -> UnixTime {
        let expires_at = self.command.expires_at;
        if self.command.life.attempts == 0 { expires_at } else { expires_at.saturating_add(grace) }
    }
}

/// What became of an attempt to call a command back.
#[derive(Debug, PartialEq)]
pub(crate) enum Cancelled {
    /// It is called back, and to be written so.
    Now(Command),
    /// The device has it, or may.
    TooLate(Command),
    /// It is not open: it has ended, or there is none.
    NotOpen,
}

/// The open commands of one device, oldest first.
#[derive(Debug, Default)]
pub(crate) struct CommandQueue {
    open: VecDeque<Entry>,
}

impl CommandQueue {
    /// The queue as the store has it. What was sent before a restart waits to be sealed anew under the
    /// same id: the device knows it by that, and may have it.
    pub(crate) fn restore(commands: Vec<Command>, pace: Pace, now: Now) -> Self {
        let entry = |command: Command| {
            let progress = if command.life.stage == Stage::Delivered {
                let since = command.life.delivered_at.map_or(pace.answer, |at| now.unix.saturating_since(at));
                Progress::Delivered { quiet_until: now.timer.saturating_add(pace.answer.saturating_sub(since)) }
            } else {
                Progress::Waiting
            };
            Entry { may_have_it: command.life.stage == Stage::Sent, command, progress, passed_by: 0 }
        };
        Self { open: commands.into_iter().filter(|command| !command.is_final()).map(entry).collect() }
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

    /// The open command of an id.
    #[must_use]
    pub(crate) fn get(&self, id: &CommandId) -> Option<&Command> {
        self.open.iter().map(|entry| &entry.command).find(|command| command.id == *id)
    }

    /// Adds a command behind the others, and gives it as it is to be written: no two of a device
    /// were made in the same millisecond, so that the store gives them back in this order.
    pub(crate) fn push(&mut self, mut command: Command) -> Command {
        let newest = self.open.iter().map(|entry| entry.command.created_at).max();
        let after = newest.map(|at| at.saturating_add(Duration::from_millis(1)));
        command.created_at = after.map_or(command.created_at, |after| after.max(command.created_at));
        let entry = Entry { command: command.clone(), progress: Progress::Waiting, may_have_it: false, passed_by: 0 };
        self.open.push_back(entry);
        command
    }

    /// The oldest command that may be sent now, if none before it is under way.
    #[must_use]
    pub(crate) fn next(&self, pace: Pace, now: Now) -> Option<&Command> {
        let under_way = self.open.iter().filter(|entry| entry.holds_up(now.timer)).count();
        if under_way >= pace.in_flight {
            return None;
        }
        self.open.iter().find(|entry| entry.may_be_sent(now.unix)).map(|entry| &entry.command)
    }

    /// When the device's silence about a command lets the next one go.
    #[must_use]
    pub(crate) fn opens_at(&self, now: Now) -> Option<Timestamp> {
        self.open.iter().find(|entry| entry.may_be_sent(now.unix))?;
        let silent = self.open.iter().filter(|entry| entry.command.life.acting_at.is_none());
        let ends = silent.filter_map(|entry| match entry.progress {
            Progress::Delivered { quiet_until } | Progress::Relayed { quiet_until } if quiet_until > now.timer => {
                Some(quiet_until)
            }
            _ => None,
        });
        ends.min()
    }

    /// Marks a command as handed out under `ticket`, and gives it as it is to be written.
    pub(crate) fn sent(&mut self, id: &CommandId, ticket: Ticket, now: Now) -> Option<Command> {
        let entry = self.open.iter_mut().find(|e| e.command.id == *id)?;
        entry.progress = Progress::InFlight(ticket);
        let is_first = entry.command.life.attempts == 0;
        entry.command.sent(now.unix);
        let sent = entry.command.clone();
        if is_first {
            // Those that were sent and have not arrived may arrive behind it.
            let may_come = |other: &&Entry| {
                let is_there = matches!(other.progress, Progress::Delivered { .. });
                other.command.id != *id && other.command.life.attempts > 0 && !is_there
            };
            let to_come = self.open.iter().filter(may_come).count();
            if let Some(entry) = self.open.iter_mut().find(|entry| entry.command.id == *id) {
                entry.passed_by = to_come;
            }
            let others =
                self.open.iter_mut().filter(|other| other.command.id != *id && other.command.life.attempts > 0);
            others.for_each(|other| other.passed_by += 1);
        }
        Some(sent)
    }

    /// Takes the broker's word on a ticket, and gives the command where it is to be written.
    pub(crate) fn published(&mut self, ticket: Ticket, outcome: Outcome, pace: Pace, now: Now) -> Option<Command> {
        let entry = self.open.iter_mut().find(|e| e.progress.ticket() == Some(ticket))?;
        let moved = match outcome {
            Outcome::Delivered => {
                entry.progress = Progress::Delivered { quiet_until: now.timer.saturating_add(pace.answer) };
                entry.command.delivered(now.unix)
            }
            Outcome::Lost => {
                entry.progress = Progress::Waiting;
                entry.may_have_it = true;
                false
            }
            Outcome::Unsent => {
                entry.progress = Progress::Waiting;
                !entry.may_have_it && entry.command.came_back()
            }
            Outcome::Relayed | Outcome::Unclear => {
                entry.may_have_it = true;
                entry.progress = Progress::Relayed { quiet_until: now.timer.saturating_add(pace.answer) };
                false
            }
            Outcome::Refused | Outcome::Declined => {
                entry.may_have_it |= outcome == Outcome::Declined;
                // What the device refuses of a session that another has followed is no reason to
                // wait for yet another.
                let overtaken = matches!(entry.progress, Progress::Overtaken(_));
                entry.progress = if overtaken { Progress::Waiting } else { Progress::Held };
                !entry.may_have_it && entry.command.came_back()
            }
        };
        moved.then(|| entry.command.clone())
    }

    /// Lets what the device refused, and what an outside broker may have lost, be sent again: it
    /// listens anew, a new session has begun, or it speaks on without a receipt.
    pub(crate) fn release(&mut self) {
        for entry in &mut self.open {
            entry.progress = match entry.progress {
                Progress::Held | Progress::Relayed { .. } => Progress::Waiting,
                Progress::InFlight(ticket) => Progress::Overtaken(ticket),
                other => other,
            };
        }
    }

    /// What is in flight went with the connection, to the device or not.
    pub(crate) fn connection_ended(&mut self) {
        for entry in &mut self.open {
            if entry.progress.ticket().is_some() || entry.progress == Progress::Held {
                entry.may_have_it |= entry.progress != Progress::Held;
                entry.progress = Progress::Waiting;
            }
        }
    }

    /// The device has said what became of another: it may have room again for what it refused.
    fn try_held(&mut self) {
        for entry in self.open.iter_mut().filter(|entry| entry.progress == Progress::Held) {
            entry.progress = Progress::Waiting;
        }
    }

    /// Calls a command back, unless the device may have it.
    pub(crate) fn cancel(&mut self, id: &CommandId, who: &str, now: UnixTime) -> Cancelled {
        let Some(at) = self.open.iter().position(|e| e.command.id == *id) else { return Cancelled::NotOpen };
        let Some(entry) = self.open.get_mut(at) else { return Cancelled::NotOpen };
        if !entry.command.end(Ended::new(Ending::Cancelled, By::Client, who, now)) {
            return Cancelled::TooLate(entry.command.clone());
        }
        self.open.remove(at).map_or(Cancelled::NotOpen, |entry| Cancelled::Now(entry.command))
    }

    /// Whether a command of this id is open.
    #[must_use]
    pub(crate) fn holds(&self, id: &CommandId) -> bool {
        self.get(id).is_some()
    }

    /// Takes the device's receipt, and gives the command where it is to be written. `said` is what
    /// the device adds. `None` where it says nothing new, or no such command is open.
    pub(crate) fn answered(
        &mut self,
        id: &CommandId,
        status: ReceiptStatus,
        said: &str,
        pace: Pace,
        now: Now,
    ) -> Option<Command> {
        let at = self.open.iter().position(|e| e.command.id == *id)?;
        let entry = self.open.get_mut(at)?;
        let (how, cause) = match status {
            ReceiptStatus::Accepted => {
                if !matches!(entry.progress, Progress::Delivered { .. }) {
                    entry.progress = Progress::Delivered { quiet_until: now.timer.saturating_add(pace.answer) };
                }
                return entry.command.acting(now.unix).then(|| entry.command.clone());
            }
            ReceiptStatus::Done => (Ending::Done, ""),
            ReceiptStatus::Failed => (Ending::Failed, said),
            ReceiptStatus::Unknown => (Ending::Failed, "unknown command"),
            ReceiptStatus::Expired => (Ending::Expired, "it came too late"),
        };
        entry.command.end(Ended::new(how, By::Device, cause, now.unix));
        let ended = self.open.remove(at).map(|e| e.command);
        self.try_held();
        ended
    }

    /// Ends the commands whose time is over, and gives them as they are to be written.
    pub(crate) fn expire(&mut self, pace: Pace, now: UnixTime) -> Vec<Command> {
        let mut expired = Vec::new();
        self.open.retain_mut(|entry| {
            let over = entry.over_at(pace.grace) <= now;
            if over {
                let life = &entry.command.life;
                let cause = match (&life.stage, life.acting_at) {
                    (_, Some(_)) => "the device began and has not said how it ended",
                    (Stage::Delivered, None) => "the device has it and has not answered",
                    (_, None) if life.attempts > 0 => "it was sent and not acknowledged",
                    (_, None) => "the device did not come in time",
                };
                entry.command.end(Ended::new(Ending::Expired, By::Node, cause, now));
                expired.push(entry.command.clone());
            }
            !over
        });
        expired
    }

    /// When the next command's time is over.
    #[must_use]
    pub(crate) fn next_expiry(&self, pace: Pace) -> Option<UnixTime> {
        self.open.iter().map(|entry| entry.over_at(pace.grace)).min()
    }

    /// Ends what the device before may have been told, where another one has its name now.
    pub(crate) fn replaced(&mut self, now: UnixTime) -> Vec<Command> {
        let waits = |entry: &Entry| entry.command.life.stage == Stage::Waiting;
        let (open, told): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.open).into_iter().partition(waits);
        self.open = open;
        let cause = "another device has this name now; the one before it may have carried it out";
        let end = |Entry { mut command, .. }: Entry| {
            command.end(Ended::new(Ending::Failed, By::Node, cause, now)).then_some(command)
        };
        told.into_iter().filter_map(end).collect()
    }
}

/// The commands of a device that may not be told anything any more, ended.
pub(crate) fn revoked(commands: Vec<Command>, now: UnixTime) -> impl Iterator<Item = Command> {
    commands.into_iter().filter_map(move |mut command| {
        let cause = match command.life.stage {
            Stage::Waiting => "the device is not enrolled any more",
            _ => "the device is not enrolled any more; it may have carried it out",
        };
        command.end(Ended::new(Ending::Failed, By::Node, cause, now)).then_some(command)
    })
}

#[cfg(test)]
mod tests;
