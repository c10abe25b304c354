use super::*;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use unhidra_core::ids::{DeviceId, Offset, Partition};
use unhidra_core::time::UnixTime;

use crate::outlets::config::tests::config;
use crate::outlets::window::{Found, Waiting};

const TERMS: Terms =
    Terms { rows_max: 8, bytes_max: 1000, linger: Duration::ZERO, refusals_max: 3, left_behind_max: 4, proofs: 1 };

fn courier(terms: Terms) -> Courier {
    let config = config("retry_max_s = 4");
    Courier::new(terms, Pace::new(config.breaker(), config.backoff()))
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

/// A window with rows from 1 on, of one device.
fn window(rows: u64) -> Window<u64> {
    let mut window = Window::new(&[Offset::ZERO], usize::MAX, usize::MAX);
    push(&mut window, 1..=rows, Timestamp::ZERO);
    window
}

/// A window with a row from 1 on for each letter, of the device with that name.
fn window_of(devices: &str) -> Window<u64> {
    let mut window = Window::new(&[Offset::ZERO], usize::MAX, usize::MAX);
    for (n, device) in (1..).zip(devices.chars()) {
        push_of(&mut window, &device.to_string(), n..=n, Timestamp::ZERO);
    }
    window
}

fn push(window: &mut Window<u64>, rows: impl Iterator<Item = u64>, now: Timestamp) {
    push_of(window, "a", rows, now);
}

fn push_of(window: &mut Window<u64>, device: &str, rows: impl Iterator<Item = u64>, now: Timestamp) {
    let partition = Partition::new(0);
    let row = |n: u64| Waiting {
        item: n,
        device: DeviceId::parse(device).unwrap(),
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
const BROKE: Answer = Answer { taken: 0, rest: Rest::Broke };

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

/// What has become of rows.
#[derive(Debug, Default, Eq, PartialEq)]
struct Course {
    /// All that were sent, in order, witnesses among them.
    sent: Vec<Vec<u64>>,
    witnesses: Vec<u64>,
    taken: Vec<u64>,
    left: Vec<u64>,
}

/// Sends so often at most, while there is something to send.
fn sends(
    courier: &mut Courier,
    window: &mut Window<u64>,
    now: &mut Timestamp,
    sends_max: usize,
    mut answer: impl FnMut(&[u64]) -> Answer,
) -> Course {
    let mut course = Course::default();
    while window.len() > 0 && course.sent.len() < sends_max {
        let (from, count, witness) = match after_wait(courier, window, now) {
            Step::Send(count) => (0, count, false),
            Step::Witness(at) => (at, 1, true),
            step => panic!("{step:?} with rows that wait"),
        };
        let items: Vec<u64> = (from..from + count).map(|at| window.at(at).unwrap().item).collect();
        let outcome = courier.heard(answer(&items), *now, &mut rng());
        if witness {
            assert_eq!(outcome, Outcome::default(), "a witness is proof and no more");
            course.witnesses.extend(&items);
        }
        course.taken.extend(&items[..outcome.taken]);
        if outcome.left_behind {
            course.left.push(items[outcome.taken]);
        }
        window.done(outcome.taken + usize::from(outcome.left_behind));
        course.sent.push(items);
    }
    course
}

/// Breaks over these rows and takes all others.
fn breaks_over(bad: &[u64]) -> impl Fn(&[u64]) -> Answer {
    move |items| if items.iter().any(|item| bad.contains(item)) { BROKE } else { ALL(items.len()) }
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
    for devices in ["a".repeat(100), "ab".repeat(50), "abcd".repeat(25)] {
        let (mut courier, mut window, mut now) = (courier(TERMS), window_of(&devices), Timestamp::ZERO);
        let course = sends(&mut courier, &mut window, &mut now, 500, |_| REFUSED);
        assert_eq!(course.left, [1, 2, 3, 4], "and then nothing more is lost");
        // And once it takes rows again, all of the others come.
        let course = sends(&mut courier, &mut window, &mut now, 20, |items| ALL(items.len()));
        assert_eq!((course.taken, course.left), ((5..=100).collect(), Vec::new()), "in 20 runs");
    }
}

#[test]
fn a_row_that_breaks_the_exchange_is_left_behind_on_the_word_of_another_devices() {
    let (mut courier, mut window, mut now) = (courier(TERMS), window_of("aabaa"), Timestamp::ZERO);
    let course = sends(&mut courier, &mut window, &mut now, 100, breaks_over(&[2]));
    let whole: Vec<u64> = (1..=5).collect();
    // Three times as it was; then singly: the second breaks three times, the third is taken out of its
    // turn, the second breaks all the same.
    let expected: [&[u64]; 12] = [&whole, &whole, &whole, &[1], &[2], &[2], &[2], &[3], &[2], &[3], &[4], &[5]];
    assert_eq!(course.sent, expected);
    assert_eq!((course.left, course.witnesses, course.taken), (vec![2], vec![3], vec![1, 3, 4, 5]));
    push(&mut window, 6..=9, now);
    assert_eq!(after_wait(&mut courier, &window, &mut now), Step::Send(4), "behind those all goes as before");
}

#[test]
fn who_breaks_over_everything_is_waited_for_and_loses_nothing() {
    let (mut courier, mut window, mut now) = (courier(TERMS), window_of(&"abc".repeat(10)), Timestamp::ZERO);
    let course = sends(&mut courier, &mut window, &mut now, 1000, |_| BROKE);
    assert_eq!((course.left, course.taken), (vec![], vec![]));
    assert!(now > Timestamp::from_ms(1_000_000), "it waits between: {now:?}");
    let course = sends(&mut courier, &mut window, &mut now, 100, |items| ALL(items.len()));
    assert_eq!((course.left, course.taken), (vec![], (1..=30).collect()));
}

/// Else the first row would be blamed for an outage that was over before its witness was sent.
#[test]
fn an_outage_loses_nothing_whenever_it_ends() {
    for outage in 0..50 {
        for answer in [BROKE, FAILED, Answer { taken: 0, rest: Rest::FirstRefused }] {
            // Who refuses all is forgiven no row but these.
            let terms = Terms { left_behind_max: 0, ..TERMS };
            let (mut courier, mut window, mut now) = (courier(terms), window_of("aabbcc"), Timestamp::ZERO);
            let course = sends(&mut courier, &mut window, &mut now, outage, |_| answer);
            assert_eq!((course.left, course.taken), (vec![], vec![]), "{outage} sends with {answer:?}");
            let course = sends(&mut courier, &mut window, &mut now, 100, |items| ALL(items.len()));
            assert_eq!((course.left, course.taken), (vec![], (1..=6).collect()), "{outage} sends with {answer:?}");
        }
    }
}

#[test]
fn a_row_nobody_witnesses_against_is_waited_for_until_somebody_does() {
    let (mut courier, mut window, mut now) = (courier(TERMS), window(5), Timestamp::ZERO);
    let course = sends(&mut courier, &mut window, &mut now, 300, breaks_over(&[1]));
    assert_eq!((course.left, course.taken, course.witnesses), (vec![], vec![], vec![]));
    assert_eq!(course.sent.last(), Some(&vec![1]));
    push_of(&mut window, "b", 6..=6, now);
    let course = sends(&mut courier, &mut window, &mut now, 100, breaks_over(&[1]));
    assert_eq!((course.left, course.taken, course.witnesses), (vec![1], vec![2, 3, 4, 5, 6], vec![6]));
}

#[test]
fn one_device_whose_rows_are_all_refused_holds_up_no_other() {
    let (mut courier, mut window, mut now) = (courier(TERMS), window_of("aaaaaaaaaaaaba"), Timestamp::ZERO);
    let bad = |items: &[u64]| items.iter().any(|item| *item <= 12);
    let answer = |items: &[u64]| if bad(items) { REFUSED } else { ALL(items.len()) };
    let course = sends(&mut courier, &mut window, &mut now, 200, answer);
    assert_eq!((course.left, course.taken), ((1..=12).collect(), vec![13, 14]));
    assert_eq!(course.witnesses, [13; 8], "one for each row beyond the first four");
}

#[test]
fn a_witness_that_was_taken_waits_as_before() {
    let terms = Terms { refusals_max: 1, left_behind_max: 1, ..TERMS };
    let (mut courier, mut window, mut now) = (courier(terms), window_of("aab"), Timestamp::ZERO);
    let first_refused = Answer { taken: 0, rest: Rest::FirstRefused };
    let course = sends(&mut courier, &mut window, &mut now, 2, |_| first_refused);
    assert_eq!((course.left, window.cursors()), (vec![1], vec![Offset::new(1)]));
    assert_eq!(after_wait(&mut courier, &window, &mut now), Step::Witness(1));
    assert!(!courier.flows(), "it goes alone");
    assert_eq!(courier.heard(ALL(1), now, &mut rng()), Outcome::default());
    assert_eq!((window.len(), window.cursors()), (2, vec![Offset::new(1)]));
    // That it was taken is no reason to believe the next row less than this one.
    assert_eq!(after_wait(&mut courier, &window, &mut now), Step::Send(1));
    assert_eq!(courier.heard(first_refused, now, &mut rng()), Outcome { taken: 0, left_behind: true });
    window.done(1);
    push(&mut window, 4..=4, now);
    assert_eq!(after_wait(&mut courier, &window, &mut now), Step::Send(2));
    courier.heard(first_refused, now, &mut rng());
    assert_eq!(after_wait(&mut courier, &window, &mut now), Step::Witness(1), "it is not counted as taken");
}

#[test]
fn a_witness_that_is_at_fault_itself_gives_way_to_the_next_devices() {
    let (mut courier, mut window, mut now) = (courier(TERMS), window_of("abbc"), Timestamp::ZERO);
    let course = sends(&mut courier, &mut window, &mut now, 100, breaks_over(&[1, 2]));
    assert_eq!((course.left, course.taken), (vec![1, 2], vec![3, 4]));
    assert_eq!(course.witnesses, [2, 4, 4], "never one that is not its device's first");
}

/// A row that brings down the other side is followed by attempts that do not get there.
#[test]
fn a_witness_that_did_not_get_there_is_sent_again() {
    let (mut courier, mut window, mut now) = (courier(TERMS), window_of("ab"), Timestamp::ZERO);
    let mut restarts = 0;
    let course = sends(&mut courier, &mut window, &mut now, 200, |items| {
        if restarts > 0 {
            restarts -= 1;
            return FAILED;
        }
        restarts = if items.contains(&1) { 4 } else { 0 };
        breaks_over(&[1])(items)
    });
    assert_eq!((course.left, course.taken), (vec![1], vec![2]));
}

#[test]
fn what_a_witness_proved_is_old_once_the_way_has_failed() {
    let terms = Terms { refusals_max: 1, ..TERMS };
    let (mut courier, window, mut now) = (courier(terms), window_of("ab"), Timestamp::ZERO);
    let steps = [
        (Step::Send(2), BROKE),
        (Step::Send(1), BROKE),
        (Step::Witness(1), ALL(1)),
        (Step::Send(1), FAILED),
        (Step::Send(1), BROKE),
        (Step::Witness(1), REFUSED),
        (Step::Send(1), BROKE),
        (Step::Witness(1), ALL(1)),
    ];
    for (step, answer) in steps {
        assert_eq!(after_wait(&mut courier, &window, &mut now), step);
        assert_eq!(courier.heard(answer, now, &mut rng()), Outcome::default());
    }
    assert_eq!(after_wait(&mut courier, &window, &mut now), Step::Send(1));
    assert!(courier.heard(REFUSED, now, &mut rng()).left_behind);
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

    /// However one device's rows are refused and break, and whenever the way fails: the others' rows come
    /// in their order, and nothing else is lost.
    #[test]
    fn one_device_costs_the_others_nothing(
        devices in "[abc]{1,30}",
        bad in proptest::collection::vec(any::<Option<bool>>(), 30),
        outage in 0_usize..200,
        length in 0_usize..40,
        breaks in any::<bool>(),
    ) {
        // With somebody to witness at the end.
        let devices = format!("{devices}bc");
        let bad_at = |n: u64| {
            let at = usize::try_from(n - 1).unwrap();
            bad.get(at).copied().flatten().filter(|_| devices.as_bytes()[at] == b'a')
        };
        let (mut courier, mut window, mut now) = (courier(TERMS), window_of(&devices), Timestamp::ZERO);
        let (mut sent, mut came) = (0, Vec::new());
        let course = sends(&mut courier, &mut window, &mut now, 3000, |items| {
            sent += 1;
            if (outage..outage + length).contains(&sent) {
                return if breaks { BROKE } else { FAILED };
            }
            match items.iter().find_map(|item| bad_at(*item)) {
                Some(true) => BROKE,
                Some(false) => REFUSED,
                None => {
                    came.extend_from_slice(items);
                    ALL(items.len())
                }
            }
        });
        let rows = 1..=devices.len() as u64;
        let (left, taken): (Vec<u64>, Vec<u64>) = rows.partition(|n| bad_at(*n).is_some());
        prop_assert_eq!((&course.left, &course.taken), (&left, &taken));
        for device in "abc".bytes() {
            let mut once: Vec<u64> = Vec::new();
            for item in came.iter().copied().filter(|n| devices.as_bytes()[usize::try_from(n - 1).unwrap()] == device) {
                if !once.contains(&item) {
                    once.push(item);
                }
            }
            prop_assert!(once.is_sorted(), "{once:?}");
        }
    }
}

/// As behind a balancer whose one half is down: whatever is sent fails every other time, by chance.
#[test]
fn an_outage_that_comes_and_goes_loses_nothing() {
    use rand::RngExt as _;
    let (mut chance, mut left_behind) = (rng(), 0);
    for _ in 0..200 {
        let mut window = window_of("abababab");
        let mut courier = courier(Terms { refusals_max: 1, proofs: PROOFS, ..TERMS });
        let mut now = Timestamp::from_ms(1000);
        while window.len() > 0 {
            let sent = match after_wait(&mut courier, &window, &mut now) {
                Step::Send(count) => count,
                Step::Witness(_) => 1,
                step => panic!("{step:?}"),
            };
            let answer = if chance.random() { ALL(sent) } else { BROKE };
            let outcome = courier.heard(answer, now, &mut rng());
            left_behind += u32::from(outcome.left_behind);
            window.done(outcome.taken + usize::from(outcome.left_behind));
        }
    }
    assert_eq!(left_behind, 0);
}
