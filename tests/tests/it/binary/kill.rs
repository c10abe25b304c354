//! Nodes that are killed under load, again and again.

use rand::RngExt as _;
use rand::rngs::StdRng;
use rustix::process::Signal;
use unhidra_tests::account::{Said, agree};
use unhidra_tests::process::{FREE_PORTS, Place};
use unhidra_tests::seed::{count, drawn};

/// Small memtables, so that some kills meet tables that are being written; two partitions, so that
/// a kill meets two journals.
const STORE: &str = "--set store.memtable_bytes=65536 --set store.readings_memtable_bytes=65536 --set store.sessions_memtable_bytes=65536 --set store.partitions=2 \
     --set store.linger_bytes=1";

/// A store of its own for so many kills: what is checked after each kill is all of it.
const ROUNDS_EACH: u64 = 20;

/// `KILL_ROUNDS` times (10): the node is killed at a random moment under the load of 50 devices.
/// Nothing that a device had seen acknowledged before it is missing, nothing is stored twice or out
/// of its order, and no device ever needs another session.
#[tokio::test]
async fn whatever_was_acknowledged_before_a_kill_is_stored_once_and_in_order_and_no_session_is_reset() {
    let (rounds, mut rng) = (count("KILL_ROUNDS", 10), drawn());
    let (mut done, mut readings) = (0, 0);
    while done < rounds {
        let next = ROUNDS_EACH.min(rounds - done);
        readings += kills(next, &mut rng).await;
        done += next;
        println!("kill: {done} of {rounds} rounds, {readings} readings acknowledged");
    }
}

/// So many kills of one node; gives how many readings were acknowledged.
async fn kills(rounds: u64, rng: &mut StdRng) -> usize {
    let place = Place::new();
    let mut node = place.node(&format!("run {FREE_PORTS} {STORE}")).await;
    let ports = node.ports();
    let names: Vec<String> = (1..=50).map(|n| format!("pump-{n}")).collect();
    let devices: Vec<&str> = names.iter().map(String::as_str).collect();
    place.enroll_all(&devices).await;
    let simulated = place.simulate(&devices, "--rate 10 --report report.jsonl --retry-max 300").await;
    let mut before = 0;
    for round in 1..=rounds {
        place.readings(rng.random_range(1..400)).await;
        // Nothing is awaited here: a kill comes at a moment that nothing announces.
        tokio::time::sleep(std::time::Duration::from_micros(rng.random_range(0..60_000))).await;
        node.process.signal(Signal::KILL);
        let ended = node.process.ended().await;
        assert_eq!(ended.status, None, "{ended}");
        // The report first: what it calls acknowledged must be in the store already.
        let said = Said::read(&place.path("report.jsonl"));
        let rows = place.rows().await;
        agree(&said.acknowledged, &rows).unwrap_or_else(|wrong| panic!("after kill {round} of {rounds}:\n{wrong}"));
        assert_eq!(said.resets(), [], "after kill {round} of {rounds}");
        let acknowledged = said.acknowledged.len();
        assert!(acknowledged > before, "nothing was acknowledged in round {round}");
        before = acknowledged;
        node = place.node(&format!("run {ports} {STORE}")).await;
    }
    place.readings(50).await;
    simulated.signal(Signal::TERM);
    let ended = simulated.ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
    node.stop().await;
    let said = Said::read(&place.path("report.jsonl"));
    let rows = place.rows().await;
    assert_eq!(agree(&said.acknowledged, &rows), Ok(()));
    assert_eq!((said.resets(), said.refused), (vec![], 0));
    assert_eq!(said.acknowledged.len(), said.published, "with the node back, everything is acknowledged");
    said.acknowledged.len()
}
