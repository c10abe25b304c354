//! What an operator may set.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use crate::linger::Linger;
use crate::waiting::Bounds;

/// The table `[store]`. Every default stands in `node/src/default.toml`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of `master_key_file` before it had that one. Empty where the other is set.
    pub key_file: PathBuf,
    /// Where the master key is; a relative path begins in the data folder. Made at the first run.
    pub master_key_file: PathBuf,
    /// A program and its arguments that print the master key; empty for none.
    pub master_key_command: KeyCommand,
    /// How long that program may take, in s, at least 1.
    pub master_key_command_timeout_s: u64,
    /// The variable of the environment that holds the master key; empty for none.
    pub master_key_env: String,
    /// How old a data key grows before another one seals, in days, at least 1.
    pub key_rotation_days: u32,
    /// How old a data key grows before it is destroyed, once nothing is left under it, in days: at
    /// least one more than `key_rotation_days`.
    pub key_expiry_days: u32,
    /// How many acts each partition remembers, at least 1. At the bound the oldest goes.
    pub acts_max: u64,
    /// How many partitions a new folder has; 0 for 1 up to 15 cores and cores / 8 above. A folder
    /// keeps the number it was made with: another one here, unless 0, is refused.
    pub partitions: u16,
    /// What is on the disk when something is said to be durable.
    pub durability: Durability,
    /// With [`Durability::Interval`]: how long it takes until it is on the disk, in ms, at least 1.
    pub sync_interval_ms: u64,
    /// How many records may wait for a partition's writer. Full, it gives batches back, and the
    /// shard reads no further deliveries.
    pub queue_records: usize,
    /// How many bytes may wait for a partition's writer.
    pub queue_bytes: usize,
    /// How many records go into one commit.
    pub commit_records: usize,
    /// How many bytes go into one commit.
    pub commit_bytes: usize,
    /// How many bytes are worth waiting for with a commit, where they come within `linger_max_ms`. From
    /// so many on a group is committed beside the planning of the next.
    pub linger_bytes: usize,
    /// How long a commit may wait for more to share its sync, in ms; 0 for never. It waits only where
    /// at the rate of late `linger_bytes` come in that time, and only with [`Durability::Fsync`].
    pub linger_max_ms: u64,
    /// How many reads run at once, each on a thread of its own; more of them wait.
    pub reads: usize,
    /// How many devices a partition's writer remembers, at about 200 bytes each. Beyond, it forgets all,
    /// and a device costs three short reads once more.
    pub known_devices: usize,
    /// How many bytes of blocks are kept in memory, for all partitions.
    pub cache_bytes: u64,
    /// How large a table grows in memory before it is written out, at least 65 536. Each of a
    /// partition's tables has up to four of these.
    pub memtable_bytes: u64,
    /// The same of the table of readings, which is merged more than any other: for all partitions,
    /// of which each has its share, at least 65 536.
    pub readings_memtable_bytes: u64,
    /// After how long an eighth of that and more is written out, in s, at least 1.
    pub readings_memtable_s: u64,
    /// The same as `readings_memtable_bytes` of the tables of sessions and of the log, each: to both
    /// every reading adds a record.
    pub sessions_memtable_bytes: u64,
    /// After how long an eighth of that and more is written out, in s, at least 1.
    pub sessions_memtable_s: u64,
    /// How many bytes of journals all partitions may keep, at least 67 108 864, and each so many at
    /// least. What is in them is read at every start.
    pub journal_bytes: u64,
    /// How many threads write out and compact, for each partition.
    pub compaction_threads: usize,
    /// How many of its files a partition keeps open, at least 10.
    pub open_files: usize,
}

/// A program and its arguments, one of which may be a token: it is printed as `[command]`.
#[derive(Clone, Default, Deserialize, Eq, PartialEq)]
#[serde(transparent)]
pub struct KeyCommand(Vec<String>);

impl KeyCommand {
    /// The program and its arguments; nothing where there is none.
    #[must_use]
    pub fn argv(&self) -> &[String] {
        &self.0
    }
}

impl From<Vec<String>> for KeyCommand {
    fn from(argv: Vec<String>) -> Self {
        Self(argv)
    }
}

impl fmt::Debug for KeyCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "[]" } else { "[command]" })
    }
}

/// What a commit waits for before it counts as durable. A process that is killed loses nothing in any
/// of them; a machine that loses power does.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// For the disk to have it. Nothing acknowledged is lost.
    Fsync,
    /// For the system to have it, and a sync every `sync_interval_ms`. A power cut loses what was
    /// acknowledged since the last.
    Interval,
    /// For the system to have it. A power cut loses what it had not written yet: half a minute of it,
    /// as Linux is usually set.
    None,
}

impl Durability {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Interval => "interval",
            Self::None => "none",
        }
    }
}

/// Settings that cannot be.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ConfigError {
    /// One is out of its bounds.
    #[error("store.{key} = {found}: at least {min} is needed")]
    Less {
        /// Which.
        key: &'static str,
        /// What it is set to.
        found: u64,
        /// The least it may be.
        min: u64,
    },
    /// The master key comes from two places.
    #[error("store.{first} and store.{second} are both set; the master key comes from one place")]
    TwoSources {
        /// One.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
}

impl Config {
    /// Checks every bound.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first setting out of its bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        let sources = [
            ("master_key_file", !self.master_key_file.as_os_str().is_empty()),
            ("key_file", !self.key_file.as_os_str().is_empty()),
            ("master_key_command", !self.master_key_command.argv().is_empty()),
            ("master_key_env", !self.master_key_env.is_empty()),
        ];
        let mut set = sources.into_iter().filter(|(_, set)| *set).map(|(key, _)| key);
        if let (Some(first), Some(second)) = (set.next(), set.next()) {
            return Err(ConfigError::TwoSources { first, second });
        }
        let table = [
            ("sync_interval_ms", self.sync_interval_ms, 1),
            ("queue_records", self.queue_records as u64, 1),
            ("queue_bytes", self.queue_bytes as u64, 1),
            ("commit_records", self.commit_records as u64, 1),
            ("commit_bytes", self.commit_bytes as u64, 1),
            ("linger_bytes", self.linger_bytes as u64, 1),
            ("reads", self.reads as u64, 1),
            ("known_devices", self.known_devices as u64, 1),
            ("memtable_bytes", self.memtable_bytes, MEMTABLE_MIN),
            ("readings_memtable_bytes", self.readings_memtable_bytes, MEMTABLE_MIN),
            ("readings_memtable_s", self.readings_memtable_s, 1),
            ("sessions_memtable_bytes", self.sessions_memtable_bytes, MEMTABLE_MIN),
            ("sessions_memtable_s", self.sessions_memtable_s, 1),
            ("journal_bytes", self.journal_bytes, JOURNAL_MIN),
            ("compaction_threads", self.compaction_threads as u64, 1),
            ("open_files", self.open_files as u64, 10),
            ("master_key_command_timeout_s", self.master_key_command_timeout_s, 1),
            ("key_rotation_days", u64::from(self.key_rotation_days), 1),
            ("key_expiry_days", u64::from(self.key_expiry_days), u64::from(self.key_rotation_days) + 1),
            ("acts_max", self.acts_max, 1),
        ];
        match table.into_iter().find(|(_, found, min)| found < min) {
            Some((key, found, min)) => Err(ConfigError::Less { key, found, min }),
            None => Ok(()),
        }
    }

    /// Where the master key's file is, for a node whose data is in `data`. Where another place has
    /// the key, there is none.
    #[must_use]
    pub fn master_key_path(&self, data: &Path) -> Option<PathBuf> {
        let named = [&self.master_key_file, &self.key_file];
        named.into_iter().find(|path| !path.as_os_str().is_empty()).map(|path| data.join(path))
    }

    /// Whether nothing says where the master key is.
    #[must_use]
    pub fn names_no_master_key(&self) -> bool {
        let Self { key_file, master_key_file, master_key_command, master_key_env, .. } = self;
        let files = [key_file, master_key_file];
        files.iter().all(|path| path.as_os_str().is_empty())
            && master_key_command.argv().is_empty()
            && master_key_env.is_empty()
    }

    /// What each of so many partitions may keep of journals.
    pub(crate) fn journal_share(&self, partitions: u16) -> u64 {
        share(self.journal_bytes, partitions, JOURNAL_MIN)
    }

    /// How large the readings of each of so many partitions may grow in memory.
    pub(crate) fn readings_share(&self, partitions: u16) -> u64 {
        share(self.readings_memtable_bytes, partitions, MEMTABLE_MIN)
    }

    /// How large the sessions, and the log, of each of so many partitions may grow in memory.
    pub(crate) fn sessions_share(&self, partitions: u16) -> u64 {
        share(self.sessions_memtable_bytes, partitions, MEMTABLE_MIN)
    }

    /// What a writer lingers by. Only a sync makes whole pages of little.
    pub(crate) const fn linger(&self) -> Linger {
        let max = match self.durability {
            Durability::Fsync => Duration::from_millis(self.linger_max_ms),
            Durability::Interval | Durability::None => Duration::ZERO,
        };
        Linger::new(self.linger_bytes, max)
    }

    pub(crate) const fn bounds(&self) -> Bounds {
        Bounds {
            queue_records: self.queue_records,
            queue_bytes: self.queue_bytes,
            commit_records: self.commit_records,
            commit_bytes: self.commit_bytes,
        }
    }
}

/// The least the engine keeps of journals, in bytes.
const JOURNAL_MIN: u64 = 64 * 1024 * 1024;
/// The least a table grows to in memory, in bytes.
const MEMTABLE_MIN: u64 = 64 * 1024;

/// What one of so many partitions has of a store's bytes.
fn share(bytes: u64, partitions: u16, least: u64) -> u64 {
    bytes.checked_div(partitions.into()).unwrap_or(bytes).max(least)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn config() -> Config {
        Config {
            key_file: PathBuf::new(),
            master_key_file: "store.key".into(),
            master_key_command: KeyCommand::default(),
            master_key_command_timeout_s: 10,
            master_key_env: String::new(),
            key_rotation_days: 90,
            key_expiry_days: 365,
            acts_max: 50,
            partitions: 1,
            durability: Durability::Fsync,
            sync_interval_ms: 1000,
            queue_records: 65_536,
            queue_bytes: 16 << 20,
            commit_records: 4096,
            commit_bytes: 1 << 20,
            linger_bytes: 16 << 10,
            linger_max_ms: 12,
            reads: 4,
            // Few, so that the contract meets a writer that has forgotten.
            known_devices: 2,
            cache_bytes: 4 << 20,
            memtable_bytes: 1 << 20,
            readings_memtable_bytes: 1 << 20,
            readings_memtable_s: 60,
            sessions_memtable_bytes: 1 << 20,
            sessions_memtable_s: 10,
            journal_bytes: 64 << 20,
            compaction_threads: 1,
            open_files: 64,
        }
    }

    #[test]
    fn a_setting_below_its_bound_names_itself() {
        assert_eq!(config().check(), Ok(()));
        let refused = Config { open_files: 9, ..config() }.check().unwrap_err();
        assert_eq!(refused.to_string(), "store.open_files = 9: at least 10 is needed");
        let refused = Config { journal_bytes: 1 << 20, ..config() }.check().unwrap_err();
        assert_eq!(refused, ConfigError::Less { key: "journal_bytes", found: 1 << 20, min: 64 << 20 });
    }

    #[test]
    fn the_key_lies_beside_the_folder_unless_its_path_is_absolute() {
        let data = Path::new("/var/lib/unhidra");
        let at = |config: &Config| config.master_key_path(data);
        assert_eq!(at(&config()).unwrap(), Path::new("/var/lib/unhidra/store.key"));
        let elsewhere = Config { master_key_file: "/run/secrets/store.key".into(), ..config() };
        assert_eq!(at(&elsewhere).unwrap(), Path::new("/run/secrets/store.key"));
        let before = Config { master_key_file: PathBuf::new(), key_file: "old.key".into(), ..config() };
        assert_eq!(at(&before).unwrap(), Path::new("/var/lib/unhidra/old.key"));
        let none = Config { master_key_file: PathBuf::new(), master_key_env: "KEY".into(), ..config() };
        assert!(at(&none).is_none() && !none.names_no_master_key());
    }

    #[test]
    fn the_master_key_comes_from_one_place() {
        let two = Config { key_file: "store.key".into(), ..config() };
        assert_eq!(two.check(), Err(ConfigError::TwoSources { first: "master_key_file", second: "key_file" }));
        let two = Config { master_key_command: vec!["vault".into(), "hunter2".into()].into(), ..config() };
        assert!(!format!("{two:?}").contains("hunter2"));
        let refused = two.check().unwrap_err().to_string();
        assert!(refused.contains("store.master_key_file") && refused.contains("store.master_key_command"), "{refused}");
    }

    #[test]
    fn a_key_rotates_before_it_expires() {
        let refused = Config { key_rotation_days: 90, key_expiry_days: 90, ..config() }.check().unwrap_err();
        assert_eq!(refused, ConfigError::Less { key: "key_expiry_days", found: 90, min: 91 });
    }
}
