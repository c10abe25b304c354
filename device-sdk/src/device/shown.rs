//! What the application is shown, and what it says to that.

use heapless::Deque;
use rand_core::CryptoRng;
use unhidra_core::time::Timestamp;
use unhidra_e2ee::plaintext::Status;

use super::{CommandTicket, Device, Event, NotAnswered, SettingTicket, Waiting};
use crate::client::{Ended, Qos, ReasonCode};
use crate::device::waiting::What;
use crate::outbox::{Content, Outcome};
use crate::storage::Storage;

/// News the application has not taken; of more than these the oldest are dropped, since the
/// newest say how things are.
pub(super) const NEWS_MAX: usize = 8;

pub(super) enum News {
    Connected { session_present: bool },
    NewSession { counter: u32 },
    Disconnected { why: Ended, dial_at: Timestamp },
}

impl<S: Storage, R: CryptoRng, const SLOTS: usize, const BODY: usize, const WINDOW: usize, const PACKET: usize>
    Device<S, R, SLOTS, BODY, WINDOW, PACKET>
{
    /// What happened since. To be asked until it has nothing.
    pub fn poll_event(&mut self) -> Option<Event<'_>> {
        if let Some(news) = self.news.pop_front() {
            return Some(match news {
                News::Connected { session_present } => Event::Connected { session_present },
                News::NewSession { counter } => Event::NewSession { counter },
                News::Disconnected { why, dial_at } => Event::Disconnected { why, dial_at },
            });
        }
        if let Some(mut waiting) = next_waiting(&mut self.commands) {
            let delivery = waiting.delivery.take();
            let what = waiting.what;
            let ticket = match what {
                // What comes again is known by its id: PUBACK can leave.
                What::Command { .. } => {
                    self.reply(delivery, ReasonCode::SUCCESS);
                    None
                }
                What::Setting { .. } => delivery,
            };
            let Waiting { name, body, .. } = self.shown.insert(waiting);
            return Some(match what {
                What::Command { id, expires_at, .. } => {
                    Event::Command { ticket: CommandTicket(id), name, body, expires_at }
                }
                What::Setting { version, is_removed } => {
                    let value = (!is_removed).then_some(body.as_slice());
                    Event::Setting { ticket: SettingTicket(ticket), name, value, version }
                }
            });
        }
        Some(match self.outbox.take_outcome()? {
            Outcome::Acknowledged(reading) => Event::Acknowledged(reading),
            Outcome::Refused(reading, reason) => Event::Refused { reading, reason },
        })
    }

    /// Answers a command.
    ///
    /// # Errors
    ///
    /// [`NotAnswered`] gives the ticket back where the receipt was not taken.
    pub fn answer(
        &mut self,
        ticket: CommandTicket,
        status: Status,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), NotAnswered> {
        let content = Content::Receipt { command: ticket.0, status };
        match self.queue(self.fresh_id(), content, "", body, Qos::AtLeastOnce, now) {
            Ok(_) => Ok(()),
            Err(cause) => Err(NotAnswered { cause, ticket }),
        }
    }

    /// Says that a setting was taken: it is kept, or changes nothing. The node hears of it.
    pub fn applied(&mut self, ticket: SettingTicket) {
        self.not_applied = self.not_applied.saturating_sub(1);
        self.reply(ticket.0, ReasonCode::SUCCESS);
    }

    /// Where the time is known: commands that wait and are over are answered, and not shown.
    pub(super) fn judge(&mut self, now: Timestamp) {
        let Some(unix) = self.clock.unix(now).filter(|_| self.clock.is_believed(now)) else { return };
        let mut over = false;
        for waiting in &mut self.commands {
            if let What::Command { expires_at, waits_for_time, .. } = &mut waiting.what {
                *waits_for_time = false;
                over |= expires_at.is_some_and(|expires_at| unix >= expires_at);
            }
        }
        if !over {
            return;
        }
        for _ in 0..self.commands.len() {
            let Some(mut waiting) = self.commands.pop_front() else { return };
            match waiting.what {
                What::Command { id, expires_at: Some(expires_at), .. } if unix >= expires_at => {
                    self.stats.commands_expired += 1;
                    self.reply(waiting.delivery.take(), ReasonCode::SUCCESS);
                    let receipt = Content::Receipt { command: id, status: Status::Expired };
                    // Where the outbox has no room left, the node hears nothing: it has its own expiry.
                    let _ = self.queue(self.fresh_id(), receipt, "", b"", Qos::AtLeastOnce, now);
                }
                // It was taken out just now, so there is room.
                _ => drop(self.commands.push_back(waiting)),
            }
        }
    }

    pub(super) fn tell(&mut self, news: News) {
        if self.news.is_full() {
            self.news.pop_front();
        }
        let _ = self.news.push_back(news);
    }
}

/// The oldest that can be shown: a command that expires cannot before the time is known, and commands are shown in
/// order. A setting passes it.
fn next_waiting<const BODY: usize, const N: usize>(waiting: &mut Deque<Waiting<BODY>, N>) -> Option<Waiting<BODY>> {
    let (mut next, mut waits_for_time) = (None, false);
    // Once round, so that what is left keeps its order.
    for _ in 0..waiting.len() {
        let one = waiting.pop_front()?;
        let may_be_shown = match one.what {
            What::Command { waits_for_time: waits, .. } => {
                waits_for_time |= waits;
                !waits_for_time
            }
            What::Setting { .. } => true,
        };
        if may_be_shown && next.is_none() {
            next = Some(one);
        } else {
            // One was taken out just now, so there is room.
            let _ = waiting.push_back(one);
        }
    }
    next
}
