//! The recording: `tests/power/recorder.c` has its format.

use std::collections::HashMap;
use std::path::{Component, Path};

/// A file or folder, whatever its name is just now.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Node(pub usize);

/// A name in a folder.
pub type Slot = (Node, String);

/// One thing that was done.
#[derive(Clone, Debug)]
pub enum Step {
    /// A file or folder got its first name.
    Made {
        /// What.
        node: Node,
        /// Whether it is a folder.
        folder: bool,
        /// Its name.
        slot: Slot,
    },
    /// It got another name, in place of what had that.
    Moved {
        /// What.
        node: Node,
        /// Its name before.
        from: Slot,
        /// Its name now.
        to: Slot,
    },
    /// A name was removed.
    Removed {
        /// What had it.
        node: Node,
        /// The name.
        slot: Slot,
    },
    /// Bytes were written.
    Written {
        /// Where to.
        node: Node,
        /// At which byte.
        at: usize,
        /// Which.
        data: Vec<u8>,
    },
    /// A file was cut off, or made longer with zeros.
    Resized {
        /// Which.
        node: Node,
        /// Its length.
        len: usize,
    },
    /// A thread began to sync a file or folder.
    SyncBegins {
        /// Which.
        node: Node,
        /// Who.
        thread: u32,
    },
    /// It had synced it.
    SyncEnds {
        /// Which.
        node: Node,
        /// Who.
        thread: u32,
    },
    /// The disk refused to sync a file or folder.
    SyncFails {
        /// Which.
        node: Node,
    },
}

/// The folder that is recorded.
pub const ROOT: Node = Node(0);

const HEAD: usize = 40;

/// Reads a recording of what was done in `root`. A last record that was cut off is ignored.
///
/// # Panics
///
/// Where it says something that cannot be rebuilt, or names what was there before it began.
#[must_use]
pub fn read(log: &Path, root: &Path) -> Vec<Step> {
    let bytes = std::fs::read(log).expect("a recording");
    let mut reader = Reader { root, names: HashMap::new(), inodes: HashMap::new(), nodes: 1 };
    let mut steps = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((record, after)) = Record::split(rest) {
        steps.extend(reader.step(&record));
        rest = after;
    }
    steps
}

struct Record<'a> {
    kind: u32,
    thread: u32,
    inode: u64,
    at: usize,
    path: &'a str,
    other: &'a str,
    data: &'a [u8],
}

impl<'a> Record<'a> {
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_ne_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        let size = |value: u64| usize::try_from(value).expect("it fits");
        let (path, rest) = rest.split_at_checked(word(24) as usize)?;
        let (other, rest) = rest.split_at_checked(word(28) as usize)?;
        let (data, rest) = rest.split_at_checked(size(long(32)))?;
        let text = |bytes| std::str::from_utf8(bytes).expect("paths are UTF-8");
        let (path, other) = (text(path), text(other));
        let (kind, thread, inode, at) = (word(0), word(4), long(8), size(long(16)));
        Some((Self { kind, thread, inode, at, path, other, data }, rest))
    }
}

/// Gives names and inodes, which are used again, a meaning that lasts.
struct Reader<'a> {
    root: &'a Path,
    names: HashMap<Slot, Node>,
    inodes: HashMap<u64, Node>,
    nodes: usize,
}

impl Reader<'_> {
    fn step(&mut self, record: &Record<'_>) -> Option<Step> {
        let thread = record.thread;
        let file = |reader: &Self| *reader.inodes.get(&record.inode).expect("its making is recorded");
        let step = match record.kind {
            1 => {
                let node = self.made(record.path);
                self.inodes.insert(record.inode, node);
                Step::Made { node, folder: false, slot: self.slot(record.path) }
            }
            2 => Step::Written { node: file(self), at: record.at, data: record.data.to_vec() },
            3 => Step::Resized { node: file(self), len: record.at },
            4 => {
                let (from, to) = (self.slot(record.path), self.slot(record.other));
                let node = self.names.remove(&from).expect("it had that name");
                self.names.insert(to.clone(), node);
                Step::Moved { node, from, to }
            }
            5 | 7 => {
                let slot = self.slot(record.path);
                // A socket or a pipe is made and not recorded.
                let node = self.names.remove(&slot)?;
                Step::Removed { node, slot }
            }
            6 => Step::Made { node: self.made(record.path), folder: true, slot: self.slot(record.path) },
            8 | 9 | 11 => {
                let node = if record.path.is_empty() { file(self) } else { self.find(record.path) };
                match record.kind {
                    8 => Step::SyncBegins { node, thread },
                    9 => Step::SyncEnds { node, thread },
                    _ => Step::SyncFails { node },
                }
            }
            _ => panic!("{} of {}: what it does is not recorded", record.other, record.path),
        };
        Some(step)
    }

    fn made(&mut self, path: &str) -> Node {
        let node = Node(self.nodes);
        self.nodes += 1;
        let slot = self.slot(path);
        self.names.insert(slot, node);
        node
    }

    fn slot(&self, path: &str) -> Slot {
        let path = Path::new(path);
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        (self.find(path.parent().and_then(Path::to_str).expect("a folder")), name.to_owned())
    }

    fn find(&self, path: &str) -> Node {
        let inner = Path::new(path).strip_prefix(self.root).expect("a path in the folder");
        inner.components().filter(|part| *part != Component::CurDir).fold(ROOT, |folder, part| {
            let slot = (folder, part.as_os_str().to_str().expect("UTF-8").to_owned());
            *self.names.get(&slot).unwrap_or_else(|| panic!("{path}: the making of {slot:?} is not recorded"))
        })
    }
}
