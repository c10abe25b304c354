//! What a device is told by others: its commands and its settings, from the queue to the draft.

use rand_core::CryptoRng;
use unhidra_core::command::Command;
use unhidra_core::ids::CommandId;
use unhidra_core::message::{ReceiptStatus, Uplink};
use unhidra_e2ee::plaintext::{Kind, Plaintext};
use unhidra_store::{Act, Deed, Op};

use crate::commands::{Cancelled, Outcome};
use crate::draft::{Asked, CommandRefused, Connection, Effect, Ticket};
use crate::link::Link;
use crate::peer::{Peer, seal};
use crate::settings::NewSetting;
use crate::shard::{Common, Now};

impl Peer {
    /// Takes a command into the queue, and sends it if the device is here.
    pub(crate) fn take_command(
        &mut self,
        asked: Asked,
        command: Command,
        link: Option<&Link>,
        common: &mut Common,
        now: Now,
        rng: &mut impl CryptoRng,
    ) {
        let (open, max) = (self.commands.len(), common.config.commands_open_max);
        self.touch(common);
        // A client that repeats itself hears how the command stands.
        let refused = match self.commands.get(&command.id) {
            Some(known) if known.asks_the_same(&command) => Some(Ok(known.clone())),
            Some(_) => Some(Err(CommandRefused::IdTaken)),
            None if open >= max => Some(Err(CommandRefused::TooMany { open, max })),
            None => None,
        };
        if let Some(answer) = refused {
            common.draft.effects.push(Effect::CommandAnswered(asked, answer));
            return;
        }
        let command = self.commands.push(command);
        common.draft.effects.push(Effect::CommandAnswered(asked, Ok(command.clone())));
        let detail = format!("{} {}", command.name, command.id);
        self.note(Deed::Command, command.asked_by.as_deref(), &detail, common, now);
        common.draft.push_command(command);
        self.send_due(link, common, now, rng);
    }

    /// Calls a command back. `who` asks for it.
    pub(crate) fn cancel_command(&mut self, asked: Asked, id: &CommandId, who: &str, common: &mut Common, now: Now) {
        self.touch(common);
        let answer = match self.commands.cancel(id, who, now.unix) {
            Cancelled::Now(command) => {
                self.note(Deed::Cancel, Some(who), &id.to_string(), common, now);
                common.draft.push_command(command.clone());
                Ok(command)
            }
            Cancelled::TooLate(command) => Err(CommandRefused::TooLate { state: command.state() }),
            Cancelled::NotOpen => Err(CommandRefused::NotOpen),
        };
        common.draft.effects.push(Effect::CommandAnswered(asked, answer));
    }

    /// Takes a setting, and sends it if the device is here.
    pub(crate) fn take_setting(
        &mut self,
        asked: Asked,
        new: NewSetting,
        link: Option<&Link>,
        common: &mut Common,
        now: Now,
        rng: &mut impl CryptoRng,
    ) {
        self.touch(common);
        let answer = self.settings.set(new, now.unix).map(|changed| {
            if let Some(name) = changed.forgotten {
                common.draft.ops.push(Op::ForgetSetting { device: self.device.id, name });
            }
            if changed.is_new {
                let (by, name) = (changed.setting.asked_by.as_deref(), changed.setting.name.as_str());
                self.note(Deed::Setting, by, name, common, now);
                common.draft.push_setting(changed.setting.clone());
            }
            changed.setting
        });
        common.draft.effects.push(Effect::SettingAnswered(asked, answer));
        self.send_due(link, common, now, rng);
    }

    /// Appends to the log of acts, in the commit of the act.
    fn note(&self, deed: Deed, by: Option<&str>, detail: &str, common: &mut Common, now: Now) {
        let act = Act::on(now.unix, by.unwrap_or("node"), deed, self.device.id, detail);
        common.draft.ops.push(Op::Act(act));
    }

    /// Takes the broker's word on a publish.
    pub(crate) fn published(&mut self, ticket: Ticket, outcome: Outcome, common: &mut Common, now: Now) {
        if let Some(moved) = self.commands.published(ticket, outcome, common.config.pace(), now) {
            self.touch(common);
            common.draft.push_command(moved);
        }
        if let Some(known) = self.settings.published(ticket, outcome, now) {
            self.touch(common);
            common.stats.settings_known += 1;
            common.draft.push_setting(known);
        }
        if outcome == Outcome::Delivered {
            self.release();
        }
    }

    /// What the device refused may go again.
    pub(crate) fn release(&mut self) {
        self.commands.release();
        self.settings.release();
    }

    /// What is in flight went with the connection.
    pub(crate) fn connection_ended(&mut self) {
        self.settings.connection_ended();
        self.commands.connection_ended();
    }

    /// Takes what a device says of a command. `said` is the receipt's row.
    pub(crate) fn take_receipt(
        &mut self,
        command: CommandId,
        status: ReceiptStatus,
        said: &Uplink,
        common: &mut Common,
        now: Now,
    ) {
        if !self.commands.holds(&command) {
            common.stats.late_receipts += 1;
            let (device, at) = (self.device.id, now.unix);
            common.draft.ops.push(Op::LateReceipt { device, command, status, at });
            return;
        }
        let cause = std::str::from_utf8(&said.body).unwrap_or_default();
        let moved = self.commands.answered(&command, status, cause, common.config.pace(), now);
        moved.into_iter().for_each(|moved| common.draft.push_command(moved));
    }

    /// Seals the commands that are due, while the window has room. Whether more can be sealed.
    pub(crate) fn send_commands_due(&mut self, connection: Connection, common: &mut Common, now: Now) -> bool {
        let pace = common.config.pace();
        while let Some(command) = self.commands.next(pace, now) {
            let id = command.id;
            let said = Plaintext {
                name: Some(&command.name),
                body: Some(&command.body),
                command_id: Some(id),
                expires_at: Some(command.expires_at),
                ..Plaintext::new(Kind::Command)
            };
            let Ok((write, pending)) = seal(&mut self.sessions, &said, common) else { return false };
            let ticket = common.ticket();
            self.after_seal(write, pending, connection, ticket, common, now);
            if let Some(sent) = self.commands.sent(&id, ticket, now) {
                common.draft.push_command(sent);
            }
        }
        true
    }

    /// Seals the setting that is due, one at a time. Whether more can be sealed.
    pub(crate) fn send_setting_due(&mut self, connection: Connection, common: &mut Common, now: Now) -> bool {
        let Some(setting) = self.settings.next() else { return true };
        let name = setting.name.clone();
        let said = Plaintext {
            name: Some(name.as_str()),
            body: setting.value.as_deref(),
            reading_id: Some(setting.version),
            ..Plaintext::new(Kind::Setting)
        };
        let Ok((write, pending)) = seal(&mut self.sessions, &said, common) else { return false };
        let ticket = common.ticket();
        self.after_seal(write, pending, connection, ticket, common, now);
        self.settings.sent(&name, ticket, self.record.last_counter);
        true
    }

    /// Ends the commands whose time is over.
    pub(crate) fn end_expired_commands(&mut self, common: &mut Common, now: Now) {
        let pace = common.config.pace();
        if self.commands.next_expiry(pace).is_none_or(|at| at > now.unix) {
            return;
        }
        for command in self.commands.expire(pace, now.unix) {
            common.stats.expired += 1;
            common.draft.push_command(command);
            self.touch(common);
        }
    }
}
