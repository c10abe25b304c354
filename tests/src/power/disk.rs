//! What of a recording is on the disk, and what a power cut leaves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::recording::{Node, ROOT, Slot, Step};

/// What the system writes at once, or not at all.
const PAGE: usize = 4096;

/// The disk after a part of a recording: what is on it for sure, and what may be.
#[derive(Debug, Default)]
pub struct Disk {
    files: BTreeMap<Node, File>,
    names: Vec<Name>,
    syncs: HashMap<(Node, u32), usize>,
}

#[derive(Debug, Default)]
struct File {
    synced: Vec<u8>,
    later: Vec<Change>,
    /// A sync of it has failed. The system holds its pages for written since, and later syncs of it say nothing:
    /// whoever wants to be sure writes it anew, elsewhere.
    in_doubt: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Written { at: usize, data: Vec<u8> },
    Resized { len: usize },
}

/// What was done to a name, and whether its folder was synced since.
#[derive(Debug)]
struct Name {
    node: Node,
    from: Option<Slot>,
    to: Option<Slot>,
    synced: bool,
}

/// How a cut deals with what was not synced.
#[derive(Clone, Copy, Debug)]
enum Luck {
    /// All of it is lost.
    Nothing,
    /// All of it is there, as after a kill.
    All,
    /// By chance.
    Some,
}

/// A folder as a cut leaves it: files by path, and folders.
#[derive(Debug, Eq, PartialEq)]
pub struct Image {
    files: BTreeMap<String, Vec<u8>>,
    folders: BTreeSet<String>,
}

impl Disk {
    /// Does a step.
    ///
    /// # Panics
    ///
    /// Where it does not follow from those before.
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Made { node, folder, slot } => {
                if !folder {
                    self.files.insert(*node, File::default());
                }
                self.names.push(Name { node: *node, from: None, to: Some(slot.clone()), synced: false });
            }
            Step::Moved { node, from, to } => {
                let (from, to) = (Some(from.clone()), Some(to.clone()));
                self.names.push(Name { node: *node, from, to, synced: false });
            }
            Step::Removed { node, slot } => {
                let from = Some(slot.clone());
                self.names.push(Name { node: *node, from, to: None, synced: false });
            }
            Step::Written { node, at, data } => self.change(*node, Change::Written { at: *at, data: data.clone() }),
            Step::Resized { node, len } => self.change(*node, Change::Resized { len: *len }),
            Step::SyncBegins { node, thread } => {
                let so_far = self.files.get(node).map_or(self.names.len(), |file| file.later.len());
                self.syncs.insert((*node, *thread), so_far);
            }
            Step::SyncEnds { node, thread } => {
                let so_far = self.syncs.remove(&(*node, *thread)).expect("it had begun");
                self.synced(*node, so_far);
            }
            // Of a folder the file system has a journal: its next sync holds.
            Step::SyncFails { node } => {
                if let Some(file) = self.files.get_mut(node) {
                    file.in_doubt = true;
                }
            }
        }
    }

    fn change(&mut self, node: Node, change: Change) {
        self.files.get_mut(&node).expect("a file").later.push(change);
    }

    fn synced(&mut self, node: Node, so_far: usize) {
        if let Some(file) = self.files.get_mut(&node) {
            if file.in_doubt {
                return;
            }
            let changes: Vec<Change> = file.later.drain(..so_far).collect();
            changes.iter().for_each(|change| change.apply(&mut file.synced));
            // Another thread that syncs the same file has less to wait for.
            self.syncs.iter_mut().filter(|((of, _), _)| *of == node).for_each(|(_, n)| *n = n.saturating_sub(so_far));
            return;
        }
        let of = |slot: &Option<Slot>| slot.as_ref().is_some_and(|(folder, _)| *folder == node);
        for name in self.names.iter_mut().take(so_far) {
            name.synced |= of(&name.from) || of(&name.to);
        }
    }

    /// What a power cut now might leave.
    #[must_use]
    pub fn cut(&self, rng: &mut StdRng) -> Image {
        let luck = match rng.random_range(0..6) {
            0 => Luck::Nothing,
            1 => Luck::All,
            _ => Luck::Some,
        };
        self.image(luck, rng)
    }

    /// What a power cut now leaves at the least.
    #[must_use]
    pub fn least(&self, rng: &mut StdRng) -> Image {
        self.image(Luck::Nothing, rng)
    }

    /// What is there while the power is on.
    #[must_use]
    pub fn whole(&self, rng: &mut StdRng) -> Image {
        self.image(Luck::All, rng)
    }

    fn image(&self, luck: Luck, rng: &mut StdRng) -> Image {
        let names = self.surviving(luck, rng);
        let mut image = Image { files: BTreeMap::new(), folders: BTreeSet::new() };
        let mut reached = vec![(ROOT, String::new())];
        while let Some((folder, path)) = reached.pop() {
            for ((_, name), node) in names.range((folder, String::new())..).take_while(|((of, _), _)| *of == folder) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                match self.files.get(node) {
                    Some(file) => _ = image.files.insert(path, file.after_cut(luck, rng)),
                    None => {
                        image.folders.insert(path.clone());
                        reached.push((*node, path));
                    }
                }
            }
        }
        image
    }

    /// The names that are there. What was done to one name or to one file was done in its order; what
    /// builds on something that is lost is lost with it.
    fn surviving(&self, luck: Luck, rng: &mut StdRng) -> BTreeMap<Slot, Node> {
        let mut names: BTreeMap<Slot, Node> = BTreeMap::new();
        let mut lost_nodes = BTreeSet::new();
        let mut lost_slots = BTreeSet::new();
        for done in &self.names {
            let slots = || done.from.iter().chain(&done.to);
            let hangs = lost_nodes.contains(&done.node) || slots().any(|slot| lost_slots.contains(slot));
            let chance = match luck {
                Luck::Nothing => false,
                Luck::All => true,
                Luck::Some => rng.random(),
            };
            if hangs || !(done.synced || chance) {
                lost_nodes.insert(done.node);
                lost_slots.extend(slots().cloned());
                continue;
            }
            if let Some(from) = &done.from {
                names.remove(from);
            }
            if let Some(to) = &done.to {
                names.insert(to.clone(), done.node);
            }
        }
        names
    }
}

impl File {
    fn after_cut(&self, luck: Luck, rng: &mut StdRng) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        // Up to which change each page, and the length, had reached the disk.
        let mut reached: HashMap<usize, usize> = HashMap::new();
        let count = self.later.len();
        let mut draw = |page: usize| {
            *reached.entry(page).or_insert_with(|| match luck {
                Luck::Nothing => 0,
                Luck::All => count,
                Luck::Some => match rng.random_range(0..3) {
                    0 => 0,
                    1 => count,
                    _ => rng.random_range(0..=count),
                },
            })
        };
        for (nth, change) in self.later.iter().enumerate() {
            match change {
                Change::Resized { .. } if nth < draw(usize::MAX) => change.apply(&mut bytes),
                Change::Resized { .. } => {}
                Change::Written { at, data } => {
                    let mut at = *at;
                    let mut rest = data.as_slice();
                    while !rest.is_empty() {
                        let (part, after) = rest.split_at(rest.len().min(PAGE - at % PAGE));
                        if nth < draw(at / PAGE) {
                            write_at(&mut bytes, at, part);
                        }
                        (at, rest) = (at + part.len(), after);
                    }
                }
            }
        }
        bytes
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Written { at, data } => write_at(bytes, *at, data),
            Self::Resized { len } => bytes.resize(*len, 0),
        }
    }
}

fn write_at(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(data);
}

impl Image {
    /// What is in a folder just now; what is no file and no folder is passed over.
    ///
    /// # Panics
    ///
    /// Where it cannot be read.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        let mut image = Self { files: BTreeMap::new(), folders: BTreeSet::new() };
        let mut waiting = vec![root.to_owned()];
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(root).expect("within").to_str().expect("UTF-8").to_owned();
                let kind = fs::symlink_metadata(&path).expect("is there").file_type();
                if kind.is_dir() {
                    image.folders.insert(name);
                    waiting.push(path);
                } else if kind.is_file() {
                    image.files.insert(name, fs::read(&path).expect("reads"));
                }
            }
        }
        image
    }

    /// Writes it into a folder, which is made; files are their owner's alone.
    ///
    /// # Panics
    ///
    /// Where that cannot be.
    pub fn write(&self, root: &Path) {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        let mut maker = fs::DirBuilder::new();
        maker.recursive(true).mode(0o700);
        maker.create(root).expect("a folder");
        self.folders.iter().for_each(|folder| maker.create(root.join(folder)).expect("a folder"));
        for (path, bytes) in &self.files {
            let mut options = fs::OpenOptions::new();
            let mut file = options.create(true).write(true).mode(0o600).open(root.join(path)).expect("a file");
            std::io::Write::write_all(&mut file, bytes).expect("writes");
        }
    }

    /// Where it differs from another: the paths.
    #[must_use]
    pub fn differs(&self, other: &Self) -> Vec<String> {
        let files = self.files.iter().filter(|(path, bytes)| other.files.get(*path) != Some(bytes));
        let more = other.files.keys().filter(|path| !self.files.contains_key(*path));
        let folders = self.folders.symmetric_difference(&other.folders);
        files.map(|(path, _)| path).chain(more).chain(folders).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    const FILE: Node = Node(1);

    fn slot(name: &str) -> Slot {
        (ROOT, name.to_owned())
    }

    fn made() -> Step {
        Step::Made { node: FILE, folder: false, slot: slot("a") }
    }

    fn written(at: usize, byte: u8, len: usize) -> Step {
        Step::Written { node: FILE, at, data: vec![byte; len] }
    }

    fn synced(node: Node) -> [Step; 2] {
        [Step::SyncBegins { node, thread: 1 }, Step::SyncEnds { node, thread: 1 }]
    }

    /// Every file that some cut leaves, and whether some cut leaves none.
    fn cuts(steps: &[Step]) -> (BTreeSet<Vec<u8>>, bool) {
        let mut disk = Disk::default();
        steps.iter().for_each(|step| disk.step(step));
        let (mut left, mut none) = (BTreeSet::new(), false);
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..300 {
            match disk.cut(&mut rng).files.remove("a") {
                Some(bytes) => _ = left.insert(bytes),
                None => none = true,
            }
        }
        (left, none)
    }

    #[test]
    fn a_synced_file_without_its_name_may_be_gone() {
        let steps = [vec![made(), written(0, 1, 10)], synced(FILE).to_vec()].concat();
        assert_eq!(cuts(&steps), ([vec![1; 10]].into(), true));
        let steps = [steps, synced(ROOT).to_vec()].concat();
        assert_eq!(cuts(&steps), ([vec![1; 10]].into(), false));
    }

    #[test]
    fn each_later_page_is_there_or_not_by_itself() {
        let begin = [vec![made(), written(0, 1, PAGE)], synced(FILE).to_vec(), synced(ROOT).to_vec()].concat();
        let (left, none) = cuts(&[begin, vec![written(0, 2, 2 * PAGE)]].concat());
        assert!(!none);
        let page = |byte: u8| vec![byte; PAGE];
        let expected = [page(1), page(2), [page(1), page(2)].concat(), [page(2), page(2)].concat()];
        assert_eq!(left, expected.into());
    }

    #[test]
    fn what_is_written_while_a_sync_runs_is_not_synced_by_it() {
        let [begins, ends] = synced(FILE);
        let steps = [vec![made()], synced(ROOT).to_vec(), vec![begins, written(0, 1, 3), ends]].concat();
        assert_eq!(cuts(&steps), ([vec![], vec![1; 3]].into(), false));
    }

    #[test]
    fn a_name_is_the_old_or_the_new_until_its_folder_is_synced() {
        let other = Node(2);
        let mut steps = [vec![made(), written(0, 1, 1)], synced(FILE).to_vec()].concat();
        steps.push(Step::Made { node: other, folder: false, slot: slot("b") });
        steps.push(Step::Written { node: other, at: 0, data: vec![2] });
        steps.extend(synced(other));
        steps.extend(synced(ROOT));
        steps.push(Step::Moved { node: other, from: slot("b"), to: slot("a") });
        assert_eq!(cuts(&steps), ([vec![1], vec![2]].into(), false));
        steps.extend(synced(ROOT));
        assert_eq!(cuts(&steps), ([vec![2]].into(), false));
    }
}
