//! One device's settings: what is wanted, and what the device is known to have.
//!
//! ```text
//! set() ----> Due ----next()----> InFlight ----Delivered----> Known
//!              ^                     |                          |
//!              +--- Lost, Unsent ----+                          |
//!              +--- release() - Held +--- Refused               |
//!              |                     +--- Relayed: an outside   |
//!              |                            broker has it       |
//!              +--- returned(), heard() later -+                |
//!              +---- a new session, another value, heard() -----+
//!                    behind a gap, returned() a day later
//! ```
//!
//! One is in flight at a time, the one that was changed first before the others. The device's
//! client acknowledges it once its firmware has taken it.
//!
//! What a device has taken it may lose again: it begins anew with an old copy of its storage, and need
//! not show it, where the copy is but a few message numbers old. So it is told all again in a new
//! session, when numbers of its were passed over, and when it returns a day after its acknowledgement.
//! For numbers that is done at most once in ten minutes, and owed until then: whoever drops every second
//! message of a device would else have it told all of them for each.
//! What was removed stays known as that, and is told like a value.
//!
//! A setting has no receipt, so what an outside broker has taken counts as acknowledged, on that broker's
//! word. It may have had nobody to give it to, or lose it: while the device is heard it is told again ten
//! minutes later, then twenty, and so on, up to once a day.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use unhidra_core::ids::DeviceId;
use unhidra_core::setting::{Acknowledged, Setting, SettingName};
use unhidra_core::time::{Timestamp, UnixTime};

use crate::commands::Outcome;
use crate::draft::Ticket;
use crate::shard::Now;

/// What a setting is to become.
#[derive(Clone, Eq, PartialEq)]
pub struct NewSetting {
    /// Whose.
    pub device: DeviceId,
    /// Which.
    pub name: SettingName,
    /// The value; without, the setting is removed and the device told to forget it.
    pub value: Option<Bytes>,
    /// Who asks for it, where that is known.
    pub asked_by: Option<Arc<str>>,
}

impl fmt::Debug for NewSetting {
    // What a device is set to may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSetting")
            .field("device", &self.device)
            .field("name", &self.name)
            .field("value_len", &self.value.as_ref().map(Bytes::len))
            .finish_non_exhaustive()
    }
}

/// Why a setting was not taken.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SettingRefused {
    /// As many settings of the device are there as may be.
    #[error(
        "this device has {max} settings, and no more may be; remove one, or wait until it has acknowledged that others \
         were removed"
    )]
    TooMany {
        /// How many there may be: with a value, or in all.
        max: usize,
    },
    /// There is nothing to remove.
    #[error("the device has no such setting")]
    NoSetting,
    /// No such device is enrolled.
    #[error("no such device is enrolled")]
    NoDevice,
    /// The device's records could not be read, or the commit failed: try again.
    #[error("the store does not serve now; try again")]
    Unavailable,
}

/// A setting that was taken.
#[derive(Debug, PartialEq)]
pub struct Changed {
    /// It, as it stands.
    pub setting: Setting,
    /// Whether it is to be written: it was not so before.
    pub is_new: bool,
    /// One that was removed and made room, and is to be forgotten.
    pub forgotten: Option<SettingName>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Progress {
    Due,
    InFlight {
        ticket: Ticket,
        session: u32,
    },
    Held,
    /// An outside broker has it. Whether the device has, nobody says: it is told again.
    Relayed {
        again_at: Timestamp,
    },
    Known,
}

#[derive(Debug)]
struct Entry {
    setting: Setting,
    progress: Progress,
    /// How often in a row an outside broker has taken it.
    relayed: u32,
}

impl Entry {
    const fn due(setting: Setting) -> Self {
        Self { setting, progress: Progress::Due, relayed: 0 }
    }

    const fn is_taken(&self) -> bool {
        matches!(self.progress, Progress::Known | Progress::Relayed { .. })
    }
}

/// How long an acknowledgement is relied on when a device returns.
const RELIED_ON: Duration = Duration::from_secs(24 * 60 * 60);

/// How long it serves that a device was told all again because numbers of its were passed over.
const DOUBT_SERVES: Duration = Duration::from_secs(10 * 60);

/// How long it serves that an outside broker has taken a value, the first time. Twice as long each further time,
/// at most [`RELAYED_DOUBLINGS`] times: 21 hours.
const RELAYED_SERVES: Duration = Duration::from_secs(10 * 60);
const RELAYED_DOUBLINGS: u32 = 7;

/// The settings of one device.
#[derive(Debug, Default)]
pub struct SettingList {
    entries: Vec<Entry>,
    /// When the device was told all again for numbers that were passed over.
    doubted_at: Option<Timestamp>,
    /// Numbers were passed over since.
    doubt_owed: bool,
    /// When the first of those that outside brokers have is told again, or before.
    relayed_due: Option<Timestamp>,
    /// They were read from the store, which does not say on whose word they were acknowledged: the device's, or an
    /// outside broker's.
    restored: bool,
}

impl SettingList {
    /// The settings as the store has them; `session` is the handshake counter of the present
    /// session.
    #[must_use]
    pub fn restore(settings: Vec<Setting>, session: u32, now: UnixTime) -> Self {
        let entry = |setting: Setting| {
            let known = setting.is_in_sync() && setting.acknowledged.is_some_and(|of| of.session == session);
            Entry { progress: if known { Progress::Known } else { Progress::Due }, ..Entry::due(setting) }
        };
        let mut restored =
            Self { entries: settings.into_iter().map(entry).collect(), restored: true, ..Self::default() };
        restored.heard_of_again(now);
        restored
    }

    /// Sets one, or removes it. The same value again changes nothing.
    ///
    /// # Errors
    ///
    /// [`SettingRefused`] where there are too many, or there is none to remove.
    pub fn set(&mut self, new: NewSetting, now: UnixTime) -> Result<Changed, SettingRefused> {
        let NewSetting { device, name, value, asked_by } = new;
        let found = self.entries.iter().position(|entry| entry.setting.name == name);
        let before = found.and_then(|at| self.entries.get(at)).map(|entry| &entry.setting);
        let valued = self.entries.iter().filter(|entry| entry.setting.value.is_some()).count();
        let gains_value = value.is_some() && before.is_none_or(|before| before.value.is_none());
        if gains_value && valued >= Setting::COUNT_MAX {
            return Err(SettingRefused::TooMany { max: Setting::COUNT_MAX });
        }
        match (before, &value) {
            (Some(before), _) if before.value == value => {
                return Ok(Changed { setting: before.clone(), is_new: false, forgotten: None });
            }
            (None, None) => return Err(SettingRefused::NoSetting),
            _ => {}
        }
        let acknowledged = before.and_then(|before| before.acknowledged);
        // Above all there are, and above those that are forgotten unless the clock was set back.
        let newest = self.entries.iter().map(|entry| entry.setting.version).max().unwrap_or_default();
        let version = newest.saturating_add(1).max(now.as_ms());
        let setting = Setting { device, name, value, version, changed_at: now, asked_by, acknowledged };
        let mut forgotten = None;
        let entry = Entry::due(setting.clone());
        match found.and_then(|at| self.entries.get_mut(at)) {
            Some(place) => *place = entry,
            None => {
                if self.entries.len() >= Setting::KNOWN_MAX {
                    forgotten = Some(self.forget_one()?);
                }
                self.entries.push(entry);
            }
        }
        Ok(Changed { setting, is_new: true, forgotten })
    }

    /// Makes room: of those that were removed and that the device has forgotten, the one that was removed
    /// first goes. A copy of the device's storage from before then may bring it back.
    fn forget_one(&mut self) -> Result<SettingName, SettingRefused> {
        let gone =
            self.entries.iter().enumerate().filter(|(_, entry)| entry.setting.value.is_none() && entry.is_taken());
        let oldest = gone.min_by_key(|(_, entry)| entry.setting.version).map(|(at, _)| at);
        let at = oldest.ok_or(SettingRefused::TooMany { max: Setting::KNOWN_MAX })?;
        Ok(self.entries.swap_remove(at).setting.name)
    }

    /// The setting that is to be sent, where none is in flight.
    pub(crate) fn next(&self) -> Option<&Setting> {
        if self.entries.iter().any(|entry| matches!(entry.progress, Progress::InFlight { .. })) {
            return None;
        }
        let due = self.entries.iter().filter(|entry| entry.progress == Progress::Due);
        due.map(|entry| &entry.setting).min_by_key(|setting| setting.version)
    }

    /// Marks one as handed out under `ticket`, sealed in `session`.
    pub(crate) fn sent(&mut self, name: &SettingName, ticket: Ticket, session: u32) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.setting.name == *name) {
            entry.progress = Progress::InFlight { ticket, session };
        }
    }

    /// Takes the broker's word on a ticket, and gives the setting where it is to be written.
    pub(crate) fn published(&mut self, ticket: Ticket, outcome: Outcome, now: Now) -> Option<Setting> {
        let is_it = |entry: &&mut Entry| matches!(entry.progress, Progress::InFlight { ticket: t, .. } if t == ticket);
        let entry = self.entries.iter_mut().find(is_it)?;
        let Progress::InFlight { session, .. } = entry.progress else { return None };
        entry.progress = match outcome {
            Outcome::Delivered => {
                entry.relayed = 0;
                Progress::Known
            }
            Outcome::Relayed => {
                let serves = RELAYED_SERVES.saturating_mul(1 << entry.relayed.min(RELAYED_DOUBLINGS));
                let again_at = now.timer.saturating_add(serves);
                entry.relayed = entry.relayed.saturating_add(1);
                self.relayed_due = Some(self.relayed_due.map_or(again_at, |due| due.min(again_at)));
                Progress::Relayed { again_at }
            }
            Outcome::Lost | Outcome::Unsent | Outcome::Unclear => Progress::Due,
            Outcome::Refused | Outcome::Declined => Progress::Held,
        };
        if !entry.is_taken() {
            return None;
        }
        entry.setting.acknowledged = Some(Acknowledged { version: entry.setting.version, session, at: now.unix });
        Some(entry.setting.clone())
    }

    /// Lets what the device refused be sent again.
    pub(crate) fn release(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.progress == Progress::Held) {
            entry.progress = Progress::Due;
        }
    }

    /// What is in flight went with the connection.
    pub(crate) fn connection_ended(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| !entry.is_taken()) {
            entry.progress = Progress::Due;
        }
    }

    /// A session has begun: the device may have lost all it held.
    pub(crate) fn session_began(&mut self) {
        for entry in &mut self.entries {
            entry.progress = Progress::Due;
        }
    }

    /// A message of the device has opened. Where it has passed over message numbers, as one does that
    /// begins anew with what its storage holds, it may have lost what it had taken.
    pub(crate) fn heard(&mut self, behind_a_gap: bool, now: Timestamp) {
        if self.relayed_due.is_some_and(|due| due <= now) {
            self.tell_relayed_again(|again_at| again_at <= now);
        }
        self.doubt_owed |= behind_a_gap;
        let serves = self.doubted_at.is_some_and(|at| now.saturating_since(at) < DOUBT_SERVES);
        if !self.doubt_owed || serves {
            return;
        }
        (self.doubted_at, self.doubt_owed) = (Some(now), false);
        for entry in self.entries.iter_mut().filter(|entry| entry.is_taken()) {
            entry.progress = Progress::Due;
        }
    }

    /// The device listens at the node's own broker, which knows what it acknowledges: it is told again what an
    /// outside broker has acknowledged for it, and what it has itself long ago.
    pub(crate) fn returned(&mut self, now: UnixTime) {
        self.relay_lost();
        self.heard_of_again(now);
    }

    /// The device is heard by an outside broker: what may have been acknowledged by that alone is told again, once.
    pub(crate) fn heard_outside(&mut self) {
        if std::mem::take(&mut self.restored) {
            let known = self.entries.iter_mut().filter(|entry| entry.progress == Progress::Known);
            known.for_each(|entry| entry.progress = Progress::Due);
        }
    }

    /// What an outside broker had may be lost.
    pub(crate) fn relay_lost(&mut self) {
        self.tell_relayed_again(|_| true);
    }

    fn tell_relayed_again(&mut self, which: impl Fn(Timestamp) -> bool) {
        self.relayed_due = None;
        for entry in &mut self.entries {
            match entry.progress {
                Progress::Relayed { again_at } if which(again_at) => entry.progress = Progress::Due,
                Progress::Relayed { again_at } => {
                    self.relayed_due = Some(self.relayed_due.map_or(again_at, |due| due.min(again_at)));
                }
                _ => {}
            }
        }
    }

    /// The device is heard of again: it is told again what it has acknowledged long ago.
    pub(crate) fn heard_of_again(&mut self, now: UnixTime) {
        let is_old = |entry: &&mut Entry| {
            let acknowledged = entry.setting.acknowledged;
            entry.progress == Progress::Known
                && acknowledged.is_none_or(|acknowledged| now.saturating_since(acknowledged.at) >= RELIED_ON)
        };
        for entry in self.entries.iter_mut().filter(is_old) {
            entry.progress = Progress::Due;
        }
    }

    /// Another device has this name now, and has been told nothing. Gives those that change with it.
    pub(crate) fn replaced(&mut self) -> Vec<Setting> {
        let was_told = |entry: &&mut Entry| entry.setting.acknowledged.is_some();
        let told = self.entries.iter_mut().filter(was_told).map(|entry| {
            *entry = Entry::due(Setting { acknowledged: None, ..entry.setting.clone() });
            entry.setting.clone()
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_ms(1000);

    /// An instant whose two clocks say the same.
    const fn at(unix: UnixTime) -> Now {
        Now { timer: Timestamp::from_ms(unix.as_ms()), unix }
    }

    fn new(name: &str, value: Option<&'static str>) -> NewSetting {
        NewSetting {
            device: DeviceId::parse("pump-7").expect("valid"),
            name: name.parse().expect("a name"),
            value: value.map(|text| Bytes::from_static(text.as_bytes())),
            asked_by: None,
        }
    }

    fn set(list: &mut SettingList, name: &str, value: Option<&'static str>) -> Setting {
        list.set(new(name, value), NOW).expect("taken").setting
    }

    fn send(list: &mut SettingList, ticket: u64) -> Option<String> {
        let name = list.next()?.name.clone();
        list.sent(&name, Ticket(ticket), 1);
        Some(name.to_string())
    }

    #[test]
    fn a_value_is_not_printed() {
        let printed = format!("{:?}", new("password", Some("sesame")));
        assert!(
            printed.contains("password") && printed.contains("Some(6)") && !printed.contains("sesame"),
            "{printed}"
        );
    }

    fn all(list: &SettingList) -> Vec<Setting> {
        list.entries.iter().map(|entry| entry.setting.clone()).collect()
    }

    #[test]
    fn the_last_value_goes_until_it_is_acknowledged() {
        let mut list = SettingList::default();
        let first = set(&mut list, "interval", Some("5"));
        assert_eq!(send(&mut list, 1).as_deref(), Some("interval"));
        let second = set(&mut list, "interval", Some("6"));
        assert!(second.version > first.version);
        assert_eq!(
            list.published(Ticket(1), Outcome::Delivered, at(NOW)),
            None,
            "of a value that is not wanted any more"
        );
        assert_eq!(send(&mut list, 2).as_deref(), Some("interval"));
        assert_eq!(list.published(Ticket(2), Outcome::Lost, at(NOW)), None);
        assert_eq!(send(&mut list, 3).as_deref(), Some("interval"));
        let known = list.published(Ticket(3), Outcome::Delivered, at(NOW)).expect("written");
        assert!(known.is_in_sync() && send(&mut list, 4).is_none());
    }

    #[test]
    fn one_goes_at_a_time_and_the_oldest_change_first() {
        let mut list = SettingList::default();
        for name in ["b", "a", "c"] {
            set(&mut list, name, Some("x"));
        }
        let mut order = Vec::new();
        for ticket in 0..3 {
            order.extend(send(&mut list, ticket));
            assert!(list.next().is_none());
            list.published(Ticket(ticket), Outcome::Delivered, at(NOW));
        }
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[test]
    fn what_is_refused_waits_for_a_new_beginning() {
        let mut list = SettingList::default();
        set(&mut list, "interval", Some("5"));
        send(&mut list, 1);
        list.published(Ticket(1), Outcome::Refused, at(NOW));
        assert!(list.next().is_none());
        list.release();
        assert!(list.next().is_some());
    }

    #[test]
    fn a_new_session_is_told_all_and_a_return_what_is_not_known() {
        let mut list = SettingList::default();
        set(&mut list, "a", Some("x"));
        set(&mut list, "b", Some("x"));
        send(&mut list, 1);
        list.published(Ticket(1), Outcome::Delivered, at(NOW));
        list.connection_ended();
        assert_eq!(send(&mut list, 2).as_deref(), Some("b"));
        list.published(Ticket(2), Outcome::Delivered, at(NOW));
        for session in [1, 2] {
            let restored = SettingList::restore(all(&list), session, NOW);
            assert_eq!(restored.next().is_none(), session == 1, "session {session}");
        }
        list.session_began();
        assert!(list.next().is_some());
    }

    #[test]
    fn the_same_again_changes_nothing_and_a_removed_one_is_sent_without_a_value() {
        let mut list = SettingList::default();
        let first = set(&mut list, "a", Some("x"));
        let again = list.set(new("a", Some("x")), UnixTime::from_ms(5000)).expect("taken");
        assert_eq!((again.setting.version, again.is_new), (first.version, false));
        let removed = set(&mut list, "a", None);
        assert_eq!((removed.value, removed.version > first.version), (None, true));
        assert_eq!(list.set(new("b", None), NOW), Err(SettingRefused::NoSetting));
    }

    #[test]
    fn versions_go_up_when_the_clock_goes_back() {
        let mut list = SettingList::default();
        let first = list.set(new("a", Some("x")), UnixTime::from_ms(9000)).expect("taken").setting;
        let second = list.set(new("b", Some("x")), UnixTime::from_ms(10)).expect("taken").setting;
        assert_eq!((first.version, second.version), (9000, 9001));
    }

    #[test]
    fn a_device_that_may_have_lost_what_it_took_is_told_again() {
        let mut list = SettingList::default();
        set(&mut list, "a", Some("x"));
        set(&mut list, "b", Some("x"));
        set(&mut list, "b", None);
        let tell_all = |list: &mut SettingList, now| {
            std::iter::from_fn(|| {
                let name = send(list, 1)?;
                list.published(Ticket(1), Outcome::Delivered, at(now));
                Some(name)
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(tell_all(&mut list, NOW), ["a", "b"]);
        list.returned(NOW.saturating_add(RELIED_ON - Duration::from_millis(1)));
        assert!(list.next().is_none(), "it has taken them of late");
        list.heard(true, Timestamp::ZERO);
        assert_eq!(tell_all(&mut list, NOW), ["a", "b"], "what was removed, too");
        let later = NOW.saturating_add(RELIED_ON);
        assert!(SettingList::restore(all(&list), 1, later).next().is_some());
        list.returned(later);
        assert_eq!(tell_all(&mut list, later), ["a", "b"]);
        list.returned(later);
        assert!(list.next().is_none());
    }

    #[test]
    fn for_numbers_that_were_passed_over_all_is_told_again_once_in_ten_minutes() {
        let mut list = SettingList::default();
        set(&mut list, "a", Some("x"));
        let mut tell = |behind_a_gap, ms| {
            list.heard(behind_a_gap, Timestamp::from_ms(ms));
            let told = send(&mut list, 1).is_some();
            list.published(Ticket(1), Outcome::Delivered, at(NOW));
            told
        };
        assert!(tell(false, 0), "it is new");
        assert_eq!([tell(true, 1), tell(true, 2), tell(false, 600_000)], [true, false, false]);
        assert_eq!([tell(false, 600_001), tell(false, 600_002)], [true, false], "the second gap was owed");
    }

    #[test]
    fn beyond_the_bound_no_value_is_taken_until_another_is_removed() {
        let mut list = SettingList::default();
        for n in 0..Setting::COUNT_MAX {
            set(&mut list, &format!("name-{n}"), Some("x"));
        }
        let full = Err(SettingRefused::TooMany { max: Setting::COUNT_MAX });
        assert_eq!(list.set(new("one-more", Some("x")), NOW), full);
        set(&mut list, "name-4", Some("y"));
        set(&mut list, "name-3", None);
        let changed = list.set(new("one-more", Some("x")), NOW).expect("room");
        assert_eq!(changed.forgotten, None, "what was removed stays known as that");
        assert_eq!(list.set(new("name-3", Some("x")), NOW), full);
    }

    #[test]
    fn of_those_that_were_removed_the_first_that_is_acknowledged_makes_room_or_none_is_taken() {
        let mut list = SettingList::default();
        for n in 0..Setting::KNOWN_MAX {
            set(&mut list, &format!("name-{n}"), Some("x"));
            set(&mut list, &format!("name-{n}"), None);
        }
        let full = Err(SettingRefused::TooMany { max: Setting::KNOWN_MAX });
        assert_eq!(list.set(new("one-more", Some("x")), NOW), full, "the device does not know yet");
        while send(&mut list, 1).is_some() {
            list.published(Ticket(1), Outcome::Delivered, at(NOW));
        }
        let changed = list.set(new("one-more", Some("x")), NOW).expect("room");
        assert_eq!(changed.forgotten, Some("name-0".parse().expect("a name")));
    }

    #[test]
    fn what_an_outside_broker_has_taken_is_told_again_while_the_device_is_heard() {
        let mut list = SettingList::default();
        set(&mut list, "a", Some("x"));
        let min = |n: u64| Timestamp::from_ms(n * 60_000);
        let mut told = Vec::new();
        for n in 0..10_000 {
            list.heard(false, min(n));
            if send(&mut list, 1).is_some() {
                let known = list.published(Ticket(1), Outcome::Relayed, at(UnixTime::from_ms(n * 60_000)));
                assert!(known.is_some_and(|known| known.is_in_sync()), "on that broker's word");
                told.push(n);
            }
        }
        assert_eq!(told, [0, 10, 30, 70, 150, 310, 630, 1270, 2550, 3830, 5110, 6390, 7670, 8950]);
        assert!(list.next().is_none());
        list.relay_lost();
        assert!(list.next().is_some());
        send(&mut list, 1);
        list.published(Ticket(1), Outcome::Relayed, at(NOW));
        list.returned(NOW);
        send(&mut list, 1);
        list.published(Ticket(1), Outcome::Delivered, at(NOW));
        list.returned(NOW);
        list.heard(false, Timestamp::from_ms(u64::MAX));
        assert!(list.next().is_none(), "its own word holds");
    }
}
