//! The file of what is revoked: whether it has changed, and whether its authorities are late.

use std::os::unix::fs::MetadataExt as _;

use unhidra_certs::{Config, RevocationList};
use unhidra_core::time::UnixTime;

/// The file as it was when it was read last.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    read: Option<Seen>,
}

/// What tells one file from another that took its place: a file is written anew or replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Seen {
    inode: u64,
    len: u64,
    changed_at: (i64, i64),
}

impl Seen {
    /// The file as it is now. Taken before it is read, so that one that takes its place meanwhile is another one.
    pub(crate) fn now(config: &Config) -> Option<Self> {
        std::fs::metadata(&config.crl).ok().map(|file| Self {
            inode: file.ino(),
            len: file.len(),
            changed_at: (file.mtime(), file.mtime_nsec()),
        })
    }
}

impl Revocations {
    /// The file, where it is another one than was read last.
    pub(crate) fn changed(&self, config: &Config) -> Option<Seen> {
        Seen::now(config).filter(|found| Some(*found) != self.read)
    }

    /// What was seen then has been read, and is in effect.
    pub(crate) const fn have_read(&mut self, seen: Option<Seen>) {
        self.read = seen;
    }

    /// Says which list should have been replaced by now. It is used all the same: what it names is
    /// revoked, and to refuse everybody would stop every device with it.
    pub(crate) fn warn_of_age(&self, lists: &[RevocationList], now: UnixTime) {
        for late in lists.iter().filter_map(|list| list.next_update).filter(|next| *next < now) {
            let since_s = now.saturating_since(late).as_secs();
            tracing::warn!(since_s, "a list in pki.crl is older than its authority promised");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_when_it_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let text = "ca = ''\nca_key = ''\ncertificate = ''\nkey = ''\ncrl = ''\ncrl_interval_s = 10\nnames = []\n\
                    trust_domain = 'unhidra.local'\ndevice_validity_days = 30\nnode_validity_days = 30";
        let mut config: Config = toml::from_str(text).unwrap();
        config.crl = folder.path().join("crl.pem");
        let mut revocations = Revocations::default();
        assert_eq!(revocations.changed(&config), None, "there is none");
        std::fs::write(&config.crl, "one").unwrap();
        let one = revocations.changed(&config);
        assert!(one.is_some());
        assert_eq!(revocations.changed(&config), one, "what could not be read is tried again");
        let next = folder.path().join("next.pem");
        std::fs::write(&next, "two").unwrap();
        std::fs::rename(&next, &config.crl).unwrap();
        revocations.have_read(one);
        let two = revocations.changed(&config);
        assert!(two.is_some() && two != one, "it came while the first was read");
        revocations.have_read(two);
        assert_eq!(revocations.changed(&config), None);
        std::fs::remove_file(&config.crl).unwrap();
        assert_eq!(revocations.changed(&config), None, "what is gone cannot be read");
    }
}
