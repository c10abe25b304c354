//! The pipeline of commits against a naive store, while commits fail at random.
//!
//! The naive store has one list of rows, and a version for each device: how many rows it has. Whatever
//! groups the writer makes, hands over, plans behind one another or gives up, what it answers and what
//! lies on the disk are what that list allows.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::*;
use crate::Committed;

/// Longer than a round takes anywhere, and short enough to fail.
const SOON: Duration = Duration::from_secs(60);
const PARTITION: Partition = Partition::new(0);
const DEVICES: [&str; 3] = ["a", "b", "c"];

/// `PIPELINE_ROUNDS` of them, or so many.
const ROUNDS: u32 = 80;

/// A number that is drawn anew by each call (xorshift64*), from 0 to below `end`.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        u32::try_from(drawn % u64::from(end)).unwrap()
    }
}

/// What a batch asks for.
#[derive(Clone, Copy, Debug)]
enum Ask {
    /// A session of this version's and a row, both of one device.
    Write { device: usize, expect: u32 },
    /// Nothing: an answer that waits for those before it.
    Nothing,
}

/// One batch, and what the writer said.
#[derive(Debug)]
struct Told {
    ask: Ask,
    row: u32,
    answer: Result<Committed, CommitError>,
    /// The newest row that was shown when the answer was given.
    shown: u64,
}

/// The list: whose row it is, and which.
#[derive(Default)]
struct Naive(Vec<(usize, u32)>);

impl Naive {
    fn version(&self, device: usize) -> u32 {
        u32::try_from(self.0.iter().filter(|(owner, _)| *owner == device).count()).unwrap()
    }

    /// The place of a device's row before the one at `place`, both counted from 1.
    fn prev(&self, device: usize, place: u64) -> u64 {
        let before = self.0.iter().zip(1_u64..).filter(|((owner, _), at)| *owner == device && *at < place);
        before.last().map_or(0, |(_, at)| at)
    }
}

fn ops(ask: Ask, row: u32) -> Vec<Op> {
    let Ask::Write { device, expect } = ask else { return Vec::new() };
    let (device, expect, whole) = (DEVICES[device], Version::new(expect), Bytes::from_static(b"state"));
    let session = Op::Session { device: id(device), slot: Slot::Present, expect, whole };
    vec![session, Op::Reading { tag: contract::tag(row), uplink: uplink(device, &row.to_string()) }]
}

fn submit(store: &Embedded, ask: Ask, row: u32, told: &Sender<Told>) {
    let (told, committed) = (told.clone(), store.committed(PARTITION));
    let done = Box::new(move |answer| {
        let shown = committed.borrow().get();
        told.send(Told { ask, row, answer, shown }).unwrap();
    });
    let batch =
        Batch { partition: PARTITION, fence: store.fence(PARTITION), ops: ops(ask, row), unit: Unit::Batch, done };
    assert!(store.submit(batch).is_ok(), "there is room for a round");
}

/// All answers, which are those of the batches in the order of submission.
fn hear(heard: &Receiver<Told>, asked: &[u32]) -> Vec<Told> {
    let told: Vec<Told> = asked.iter().map(|_| heard.recv_timeout(SOON).expect("a batch is never answered")).collect();
    assert_eq!(told.iter().map(|told| told.row).collect::<Vec<_>>(), asked, "answers out of order");
    told
}

/// The rows on the disk, as the list has them.
async fn on_disk(store: &Embedded) -> Vec<(usize, u32)> {
    let all = Limit { rows: usize::MAX, bytes: usize::MAX };
    let log = store.log(PARTITION, Offset::ZERO, all).await.unwrap().rows;
    assert!(log.iter().zip(1..).all(|(row, at)| row.offset.get() == at), "a place is missing, or given twice");
    let which = |row: &Reading| {
        let owner = DEVICES.iter().position(|name| *name == row.uplink.device.as_str()).unwrap();
        (owner, std::str::from_utf8(&row.uplink.body).unwrap().parse().unwrap())
    };
    log.iter().map(which).collect()
}

/// Holds the answers of one round, and what is on the disk by then, against the list; which goes on.
async fn hold(store: &Embedded, naive: &mut Naive, told: &[Told], fault: Option<Fault>) {
    let disk = on_disk(store).await;
    let known = naive.0.len();
    assert_eq!(disk.get(..known), Some(&naive.0[..]), "what was there before the round has changed");
    let mut new = disk[known..].iter();
    let (mut is_void, mut is_written) = (false, true);
    for Told { ask, row, answer, shown } in told {
        let Ask::Write { device, expect } = *ask else {
            assert!(matches!(answer, Ok(_) | Err(CommitError::Unknown(_))), "{answer:?}");
            continue;
        };
        let version = naive.version(device);
        match answer {
            Ok(committed) => {
                assert_eq!(new.next(), Some(&(device, *row)), "acknowledged, and not there, or not in its place");
                assert_eq!(version, expect, "row {row} was planned on what is void");
                naive.0.push((device, *row));
                let place = naive.0.len() as u64;
                let at = committed.readings[0];
                assert_eq!((at.offset.get(), at.prev.get()), (place, naive.prev(device, place)));
                assert_eq!(committed.durable.len(), 1);
                assert!(*shown >= place, "told of a row that is not shown yet");
            }
            Err(CommitError::Unknown(_)) => {
                is_void = true;
                // A group is written or not, and none behind it is.
                let is_next = new.clone().next() == Some(&(device, *row));
                assert!(is_written || !is_next, "row {row} was written behind one that was not");
                is_written = is_next;
                if is_written {
                    assert_eq!(fault, Some(Fault::Written), "row {row} was not to be written");
                    assert_eq!(new.next(), Some(&(device, *row)));
                    naive.0.push((device, *row));
                }
            }
            // What it was planned behind may have come to nothing since, in a round with a fault.
            Err(CommitError::Version { .. }) => assert!(fault.is_some() || version != expect, "row {row} refused"),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(new.next(), None, "nobody was told of it");
    assert!(!is_void || fault.is_some(), "void without a fault: {told:?}");
    for (device, name) in DEVICES.iter().enumerate() {
        let stored = store.session(&id(name)).await.unwrap().unwrap_or_default();
        assert_eq!((stored.version.get(), stored.stale), (naive.version(device), false), "{name}");
    }
}

fn drawn() -> u64 {
    let mut seed = [0; 8];
    aws_lc_rs::rand::fill(&mut seed).unwrap();
    u64::from_be_bytes(seed) | 1
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_the_pipeline_says_and_does_what_a_naive_store_would() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("PIPELINE_ROUNDS").unwrap_or_else(|| ROUNDS.into());
    let seed = number("PIPELINE_SEED").unwrap_or_else(drawn);
    println!("PIPELINE_SEED={seed} draws the same; which threads come first is drawn by the system");
    let mut draw = Draw(seed);
    let folder = Folder::new(|| key(1));
    // So few bytes that most groups are handed over, and single batches are not.
    let config = Config { linger_bytes: 400, linger_max_ms: 1, known_devices: 2, ..config() };
    let store = folder.open_with(key(1), &config).unwrap();
    write(&store, DEVICES.iter().map(|name| Op::Device(device(name))).collect()).await.unwrap();
    let (mut naive, mut row) = (Naive::default(), 0);
    let (note, heard) = channel();
    let mut health = store.health();
    for round in 0..rounds {
        let faults = [Fault::NotWritten, Fault::Written, Fault::Panic];
        let fault = (draw.below(2) == 0).then(|| faults[draw.below(3) as usize]);
        let (batches, fails_from) = (1 + draw.below(14), draw.below(8));
        let mut versions = [0, 1, 2].map(|device| naive.version(device));
        let mut asked = Vec::new();
        {
            let shared = store.shared(PARTITION);
            let mut held = (draw.below(3) > 0).then(|| shared.gate.hold());
            for n in 0..batches {
                if let Some(fault) = fault.filter(|_| n == fails_from.min(batches - 1)) {
                    store.fail_next_commit(PARTITION, fault);
                }
                let device = draw.below(3) as usize;
                let ask = match draw.below(8) {
                    0 => Ask::Nothing,
                    1 => Ask::Write { device, expect: versions[device] + 7 },
                    _ => {
                        versions[device] += 1;
                        Ask::Write { device, expect: versions[device] - 1 }
                    }
                };
                row += 1;
                asked.push(row);
                submit(&store, ask, row, &note);
                if draw.below(6) == 0 {
                    drop(held.take());
                }
            }
        }
        let told = hear(&heard, &asked);
        let ready = tokio::time::timeout(SOON, health.wait_for(|health| *health == Health::Ready)).await;
        ready.unwrap().unwrap();
        // One that found no commit to strike strikes none of the next round.
        *store.shared(PARTITION).fault.lock().unwrap() = None;
        println!(
            "round {round}: {batches} batches, {fault:?}, {} void",
            told.iter().filter(|told| told.answer.is_err()).count()
        );
        hold(&store, &mut naive, &told, fault).await;
    }
    store.close().await;
    drop(store);
    assert_eq!(on_disk(&folder.open()).await, naive.0, "the next opening has the same");
}
