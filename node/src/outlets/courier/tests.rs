use super::*;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use unhidra_core::ids::{Offset, Partition};
use unhidra_core::time::UnixTime;

use crate::outlets::config::tests::config;
use crate::outlets::window::{Found, Waiting};

const TERMS: Terms =
    Terms { rows_max: 8, bytes_max: 1000, linger: Duration::ZERO, refusals_max: 3, left_behind_max: 4 };

fn courier(terms: Terms) -> Courier {
    let config = config("retry_max_s = 4");
    Courier::new(terms, Pace::new(config.breaker(), config.backoff()))
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

/// A window with rows from 1 on.
fn window(rows: u64) -> Window<u64> {
    let mut window = Window::new(&[Offset::ZERO], usize::MAX, usize::MAX);
    push(&mut window, 1..=rows, Timestamp::ZERO);
    window
}

fn push(window: &mut Window<u64>, rows: impl Iterator<Item = u64>, now: Timestamp) {
    let partition = Partition::new(0);
    let row = |n: u64| Waiting {
        item: n,
        partition,
        offset: Offset::new(n),
        bytes: 10,
        received_at: UnixTime::EPOCH,
        read_at: now,
    };
    window.fill(partition, rows.map(|n| (Offset::new(n), Found::Wanted(row(n)))), None);
}

const ALL: fn(usize) -> Answer = |taken| Answer { taken, rest: Rest::None };
const FAILED: Answer = Answer { taken: 0, rest: Rest::Failed { retry_after: None } };
const REFUSED: Answer = Answer { taken: 0, rest: Rest::Refused };

/// The instant a wait ends, and what is done then.
fn after_wait(courier: &mut Courier, window: &Window<u64>, now: &mut Timestamp) -> Step {
    loop {
        match courier.next(window, *now) {
            Step::Wait(at) => {
                assert!(at > *now, "a wait ends later");
                *now = at;
            }
            step => return step,
        }
    }
}

#[test]
fn a_run_is_sent_when_it_is_full_or_has_waited() {
    let mut courier = courier(Terms { linger: Duration::from_millis(50), ..TERMS });
    let mut window = window(3);
    assert_eq!(courier.next(&window, Timestamp::ZERO), Step::Wait(Timestamp::from_ms(50)));
    push(&mut window, 4..=20, Timestamp::from_ms(10));
    assert_eq!(courier.next(&window, Timestamp::from_ms(10)), Step::Send(8));
    courier.heard(ALL(8), Timestamp::from_ms(11), &mut rng());
    window.done(20);
    assert_eq!(courier.next(&window, Timestamp::from_ms(11)), Step::Idle);
}

#[test]
fn a_run_that_failed_is_offered_again_as_it_was() {
    let mut courier = courier(TERMS);
    let mut window = window(3);
    let mut now = Timestamp::ZERO;
    assert_eq!(courier.next(&window, now), Step::Send(3));
    courier.heard(FAILED, now, &mut rng());
    push(&mut window, 4..=9, now);
    assert_eq!(after_wait(&mut courier, &window, &mut now), Step::Send(3));
    let half = Answer { taken: 2, rest: Rest::Failed { retry_after: None } };
    assert_eq!(courier.heard(half, now, &mut rng()), Outcome { taken: 2, left_behind: false });
    window.done(2);
    assert_eq!(after_wait(&mut courier, &window, &mut now), Step::Send(1));
}

#[test]
fn a_refused_row_is_found_by_halves_and_left_behind() {
    let mut courier = courier(TERMS);
    let mut window = window(8);
    let (mut now, mut sent, mut left) = (Timestamp::ZERO, Vec::new(), Vec::new());
    while window.len() > 0 {
        let Step::Send(count) = after_wait(&mut courier, &window, &mut now) else { panic!("it sends") };
        let items: Vec<u64> = window.first(count).map(|row| row.item).collect();
        let answer = if items.contains(&6) { REFUSED } else { ALL(count) };
        sent.push(items.clone());
        let outcome = courier.heard(answer, now, &mut rng());
        if outcome.left_behind {
            left.push(items[outcome.taken]);
        }
        window.done(outcome.taken + usize::from(outcome.left_behind));
    }
    assert_eq!(left, [6]);
    let whole: Vec<u64> = (1..=8).collect();
    let expected: [&[u64]; 10] = [&whole, &whole, &whole, &[1, 2, 3, 4], &[5, 6], &[5], &[6], &[6], &[6], &[7, 8]];
    assert_eq!(sent, expected);
}

#[test]
fn who_refuses_everything_is_waited_for() {
    let mut courier = courier(TERMS);
    let mut window = window(100);
    let (mut now, mut left) = (Timestamp::ZERO, 0);
    for _ in 0..500 {
        let Step::Send(_) = after_wait(&mut courier, &window, &mut now) else { panic!("it sends") };
        let outcome = courier.heard(REFUSED, now, &mut rng());
        left += usize::from(outcome.left_behind);
        window.done(usize::from(outcome.left_behind));
    }
    assert_eq!(left, 4, "and then nothing more is lost");
    // And once it takes rows again, all of the others come.
    let mut sends = 0;
    while window.len() > 0 {
        let Step::Send(count) = after_wait(&mut courier, &window, &mut now) else { panic!("it sends") };
        courier.heard(ALL(count), now, &mut rng());
        window.done(count);
        sends += 1;
    }
    assert!(sends < 20, "{sends} runs for 96 rows");
}

#[test]
fn as_much_time_is_given_as_was_asked_for() {
    let mut courier = courier(TERMS);
    let window = window(3);
    courier.next(&window, Timestamp::ZERO);
    let answer = Answer { taken: 0, rest: Rest::Failed { retry_after: Some(Duration::from_secs(100)) } };
    courier.heard(answer, Timestamp::ZERO, &mut rng());
    let Step::Wait(at) = courier.next(&window, Timestamp::ZERO) else { panic!("it waits") };
    assert!(at >= Timestamp::from_ms(100_000));
}

proptest! {
    /// Whatever the other side does, every row it does not refuse comes to it, in order, and those it
    /// refuses are left behind, unless it refuses too many in a row.
    #[test]
    fn all_but_what_is_refused_comes_in_order(
        seed in any::<u64>(),
        poisoned in proptest::collection::btree_set(1_u64..40, 0..4),
        failures in 0_u32..60,
        exact in any::<bool>(),
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut courier = courier(TERMS);
        let mut window = window(40);
        let (mut now, mut failures) = (Timestamp::ZERO, failures);
        let (mut came, mut left) = (Vec::new(), Vec::new());
        let mut sends = 0;
        while window.len() > 0 {
            sends += 1;
            prop_assert!(sends < 1000, "it comes to an end");
            let Step::Send(count) = after_wait(&mut courier, &window, &mut now) else { panic!("it sends") };
            prop_assert!((1..=TERMS.rows_max).contains(&count));
            let items: Vec<u64> = window.first(count).map(|row| row.item).collect();
            let bad = items.iter().position(|item| poisoned.contains(item));
            let fails = failures > 0 && rng.random_bool(0.5);
            failures -= u32::from(fails);
            let answer = match bad {
                // It may have been taken all the same, and nobody heard.
                _ if fails => {
                    came.extend(items.iter().copied().filter(|_| bad.is_none() && rng.random_bool(0.5)).take(1));
                    FAILED
                }
                None => ALL(count),
                Some(at) if exact => Answer { taken: at, rest: Rest::FirstRefused },
                Some(_) => REFUSED,
            };
            let outcome = courier.heard(answer, now, &mut rng);
            came.extend(&items[..outcome.taken]);
            if outcome.left_behind {
                left.push(items[outcome.taken]);
            }
            window.done(outcome.taken + usize::from(outcome.left_behind));
        }
        prop_assert_eq!(&left, &poisoned.iter().copied().collect::<Vec<_>>());
        let mut once = Vec::new();
        for item in came {
            if !once.contains(&item) {
                once.push(item);
            }
        }
        let expected: Vec<u64> = (1..=40).filter(|n| !poisoned.contains(n)).collect();
        once.sort_unstable();
        prop_assert_eq!(once, expected);
    }
}
