use super::*;
use crate::testing::device;
use unhidra_core::ids::{Offset, Partition};
use unhidra_core::time::UnixTime;

const ALL: Bounds = Bounds { frames: 1000, bytes: 1_000_000 };

fn outbox(frames: usize, bytes: usize) -> Outbox {
    Outbox::new(Bounds { frames, bytes })
}

fn at(offset: u64) -> Position {
    [Offset::new(offset)].into_iter().collect()
}

fn frame(after: u64) -> Arc<LiveFrame> {
    Arc::new(LiveFrame { text: Bytes::from(format!("live-{after}")), after: at(after), readings: 1 })
}

fn texts(round: Round) -> Vec<String> {
    round.frames.iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect()
}

fn next(outbox: &mut Outbox) -> Next {
    outbox.take(ALL).next
}

fn replay(outbox: &mut Outbox) -> Replay {
    match next(outbox) {
        Next::Replay(replay) => replay,
        other => panic!("{other:?} instead of a replay"),
    }
}

fn joined(outbox: &mut Outbox, from: u64, until: u64) -> Replay {
    outbox.open(Audience::All, at(from), Bytes::from_static(b"subscribed"));
    let round = outbox.take(ALL);
    assert!(matches!(round.next, Next::Join(Audience::All)));
    assert_eq!(texts(round), ["subscribed"]);
    outbox.join(&Audience::All, &at(until));
    replay(outbox)
}

const CAUGHT_UP: &str = r#"{"type":"caught_up","device":"*"}"#;

#[test]
fn what_was_being_read_when_a_token_was_revoked_is_not_sent() {
    let mut outbox = outbox(10, 1000);
    let replay = joined(&mut outbox, 3, 7);
    outbox.close(Close::TokenRefused);
    assert!(!outbox.replayed(&replay, at(5)));
}

/// What it has been given and goes later is no gap.
#[test]
fn a_stream_that_falls_behind_begins_to_read_where_it_was_live_and_not_where_it_once_did() {
    let mut outbox = outbox(10, 1000);
    let first = joined(&mut outbox, 3, 7);
    assert!(outbox.replayed(&first, at(5)));
    let second = replay(&mut outbox);
    assert_eq!((&second.since, &second.from), (&at(3), &at(5)));
    outbox.fall_behind();
    outbox.join(&Audience::All, &at(8));
    let third = loop {
        match next(&mut outbox) {
            Next::Join(audience) => outbox.join(&audience, &at(8)),
            Next::Replay(replay) => break replay,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((&third.since, &third.from), (&at(3), &at(5)), "it was not live yet");
    assert!(outbox.replayed(&third, at(8)));
    outbox.take(ALL);
    outbox.fall_behind();
    outbox.join(&Audience::All, &at(9));
    let fourth = replay(&mut outbox);
    assert_eq!((&fourth.since, &fourth.from), (&at(8), &at(8)));
}

#[test]
fn a_stream_reads_up_to_where_it_joined_and_then_what_waited() {
    let mut outbox = outbox(10, 1000);
    let replay = joined(&mut outbox, 3, 7);
    assert_eq!((&replay.from, &replay.until), (&at(3), &at(7)));
    assert_eq!(outbox.push(&Audience::All, &frame(8)), Pushed::Queued);
    assert!(outbox.replayed(&replay, at(5)));
    let rest = self::replay(&mut outbox);
    assert_eq!(rest.from, at(5));
    assert_eq!(outbox.push(&Audience::All, &frame(9)), Pushed::Queued);
    assert!(outbox.replayed(&rest, at(7)));
    assert_eq!(texts(outbox.take(ALL)), [CAUGHT_UP, "live-8", "live-9"]);
    assert!(matches!(next(&mut outbox), Next::Idle));
}

#[test]
fn a_slow_client_falls_back_to_the_store_behind_what_it_was_sent() {
    let mut outbox = outbox(2, 1000);
    let replay = joined(&mut outbox, 0, 0);
    assert!(outbox.replayed(&replay, at(0)));
    assert_eq!(texts(outbox.take(ALL)), [CAUGHT_UP]);
    outbox.push(&Audience::All, &frame(1));
    assert_eq!(texts(outbox.take(ALL)), ["live-1"]);
    assert_eq!(outbox.push(&Audience::All, &frame(2)), Pushed::Queued);
    assert_eq!(outbox.push(&Audience::All, &frame(3)), Pushed::Queued);
    assert_eq!(outbox.push(&Audience::All, &frame(4)), Pushed::FellBehind);
    assert_eq!(outbox.push(&Audience::All, &frame(5)), Pushed::NotLive);
    assert_eq!((outbox.frames, outbox.bytes), (0, 0), "nothing is kept of what the store has");
    assert!(matches!(next(&mut outbox), Next::Join(Audience::All)));
    outbox.join(&Audience::All, &at(5));
    let replay = self::replay(&mut outbox);
    assert_eq!((replay.from.clone(), replay.until.clone()), (at(1), at(5)));
    outbox.push(&Audience::All, &frame(6));
    assert!(outbox.replayed(&replay, at(5)));
    assert_eq!(texts(outbox.take(ALL)), [CAUGHT_UP, "live-6"]);
}

#[test]
fn a_client_that_joins_and_falls_behind_again_keeps_what_it_has_read() {
    let mut outbox = outbox(1, 1000);
    let replay = joined(&mut outbox, 0, 10);
    outbox.push(&Audience::All, &frame(11));
    assert_eq!(outbox.push(&Audience::All, &frame(12)), Pushed::FellBehind);
    assert!(outbox.replayed(&replay, at(4)));
    outbox.join(&Audience::All, &at(12));
    assert!(matches!(next(&mut outbox), Next::Replay(r) if r.from == at(4) && r.until == at(12)));
}

#[test]
fn bytes_bound_as_frames_do_but_one_frame_is_always_taken() {
    let mut outbox = outbox(100, 8);
    let replay = joined(&mut outbox, 0, 0);
    assert!(outbox.replayed(&replay, at(0)));
    assert_eq!(texts(outbox.take(ALL)), [CAUGHT_UP]);
    let large = Arc::new(LiveFrame { text: Bytes::from(vec![b'x'; 50]), after: at(1), readings: 1 });
    assert_eq!(outbox.push(&Audience::All, &large), Pushed::Queued);
    assert_eq!(outbox.push(&Audience::All, &frame(2)), Pushed::FellBehind);
}

#[test]
fn replies_beyond_the_bound_end_the_connection_after_what_was_said() {
    let mut outbox = outbox(2, 1000);
    for text in ["a", "b", "c"] {
        outbox.reply(Bytes::from_static(text.as_bytes()));
    }
    assert_eq!(texts(outbox.take(ALL)), ["a", "b"]);
    assert!(matches!(next(&mut outbox), Next::Close(Close::SlowClient)));
}

#[test]
fn a_page_for_an_ended_stream_is_not_given_to_the_next_of_its_name() {
    let mut outbox = outbox(10, 1000);
    let replay = joined(&mut outbox, 0, 5);
    outbox.end(&Audience::All);
    assert!(!outbox.replayed(&replay, at(5)));
    outbox.open(Audience::All, at(3), Bytes::from_static(b"again"));
    assert!(!outbox.replayed(&replay, at(5)));
}

#[test]
fn ending_a_stream_frees_what_waited() {
    let mut outbox = outbox(10, 1000);
    joined(&mut outbox, 0, 5);
    outbox.push(&Audience::All, &frame(6));
    outbox.end(&Audience::All);
    assert_eq!((outbox.frames, outbox.bytes), (0, 0));
    assert!(matches!(next(&mut outbox), Next::Idle));
}

#[test]
fn presence_is_told_once_a_device_and_replaced_by_a_word_when_there_is_too_much() {
    let mut outbox = outbox(10, 1000);
    let now = |online| Presence { online, since: UnixTime::from_ms(5) };
    outbox.presence(device("a"), now(true));
    outbox.presence(device("a"), now(false));
    let entry = r#"{"type":"presence","devices":[{"device":"a","online":false,"since":5}]}"#;
    assert_eq!(texts(outbox.take(ALL)), [entry]);
    for n in 0..=PRESENCE_MAX {
        outbox.presence(device(&format!("d{n}")), now(true));
    }
    assert_eq!(texts(outbox.take(ALL)), [r#"{"type":"presence_stale"}"#]);
    assert_eq!((outbox.frames, outbox.bytes), (0, 0));
    outbox.presence(device("a"), now(true));
    assert_eq!(texts(outbox.take(ALL)).len(), 1);
}

fn change(id: u8, to: &str, last: bool) -> Change {
    let text = Bytes::from(format!("{id}-{last}"));
    Change { command: CommandId::new([id; 16]), device: device(to), last, text }
}

#[test]
fn the_answer_to_a_command_goes_before_what_became_of_it() {
    let mut outbox = outbox(10, 1000);
    outbox.begin_command(device("a"));
    outbox.changed(change(1, "a", false), false);
    outbox.changed(change(2, "a", false), false);
    assert!(outbox.tracks(&device("a")));
    outbox.end_command(Bytes::from_static(b"taken"), Some((CommandId::new([1; 16]), device("a"))), false);
    assert_eq!(texts(outbox.take(ALL)), ["taken", "1-false"], "and nobody else's is told");
    outbox.changed(change(1, "a", true), false);
    assert_eq!(texts(outbox.take(ALL)), ["1-true"]);
    assert!(!outbox.tracks(&device("a")));
    outbox.changed(change(1, "a", true), false);
    assert!(matches!(next(&mut outbox), Next::Idle));
    outbox.changed(change(3, "b", true), true);
    assert_eq!(texts(outbox.take(ALL)), ["3-true"], "a watcher is told");
}

#[test]
fn streams_that_read_the_store_take_turns_and_do_not_hold_up_live_ones() {
    let mut outbox = outbox(100, 10_000);
    let live = joined(&mut outbox, 0, 0);
    assert!(outbox.replayed(&live, at(0)));
    for id in ["a", "b"] {
        let audience = Audience::Device(device(id));
        outbox.open(audience, at(0), Bytes::from_static(b"ok"));
        outbox.join(&audience, &at(9));
    }
    let mut turns = Vec::new();
    for offset in 1..=4 {
        outbox.push(&Audience::All, &frame(offset));
        let round = outbox.take(ALL);
        let Next::Replay(replay) = &round.next else { panic!("{round:?}") };
        turns.push(replay.audience.to_string());
        assert!(texts(round).contains(&format!("live-{offset}")));
    }
    assert_eq!(turns, ["a", "b", "a", "b"]);
}

#[test]
fn live_frames_of_other_logs_move_the_place_too() {
    let mut outbox = outbox(10, 1000);
    let replay = joined(&mut outbox, 0, 0);
    assert!(outbox.replayed(&replay, at(0)));
    outbox.push(&Audience::All, &frame(4));
    assert_eq!(texts(outbox.take(ALL)).len(), 2);
    assert_eq!(outbox.streams[&Audience::All].sent.at(Partition::new(0)), Offset::new(4));
}

#[test]
fn of_what_is_sent_to_a_client_lengths_are_printed() {
    let frame = LiveFrame { text: Bytes::from_static(b"sesame"), after: at(7), readings: 3 };
    let round = Round { frames: vec![frame.text.clone()], next: Next::Idle };
    let printed = format!("{frame:?} {round:?}");
    // As text, and as a list of its bytes.
    assert!(!printed.contains("sesame") && !printed.contains("115"), "{printed}");
    assert!(printed.contains("text_len: 6") && printed.contains("frame_lens: [6]"), "{printed}");
}

#[test]
fn nothing_more_is_taken_once_the_connection_is_to_end() {
    for (close, waiting) in [(Close::Draining, &[CAUGHT_UP, "live-1"][..]), (Close::TokenRefused, &[])] {
        let mut outbox = outbox(100, 1000);
        let replay = joined(&mut outbox, 0, 0);
        assert!(outbox.replayed(&replay, at(0)));
        outbox.push(&Audience::All, &frame(1));
        outbox.reply(Bytes::from_static(b"said"));
        outbox.close(close);
        outbox.close(Close::NoAnswer);
        assert_eq!(outbox.push(&Audience::All, &frame(2)), Pushed::NotLive);
        outbox.reply(Bytes::from_static(b"late"));
        outbox.presence(device("a"), Presence { online: true, since: UnixTime::EPOCH });
        assert_eq!(texts(outbox.take(ALL)), [&["said"], waiting].concat(), "{close:?}");
        assert!(matches!(next(&mut outbox), Next::Close(found) if found == close));
        assert_eq!((outbox.frames, outbox.bytes), (0, 0));
    }
}

#[test]
fn an_answer_goes_before_what_the_store_has() {
    let mut outbox = outbox(2, 1000);
    let replay = joined(&mut outbox, 0, 0);
    assert!(outbox.replayed(&replay, at(0)));
    outbox.push(&Audience::All, &frame(1));
    outbox.reply(Bytes::from_static(b"a"));
    let round = outbox.take(ALL);
    assert!(matches!(round.next, Next::Join(Audience::All)), "{round:?}");
    assert_eq!(texts(round), ["a"]);
}

#[test]
fn a_command_that_is_repeated_is_told_of_once_and_the_oldest_of_too_many_no_more() {
    let mut outbox = outbox(1000, 100_000);
    let command = |id: u8| CommandId::new([id; 16]);
    let take = |outbox: &mut Outbox, id: u8, to: &str| {
        outbox.begin_command(device(to));
        outbox.end_command(Bytes::from_static(b"taken"), Some((command(id), device(to))), false)
    };
    for _ in 0..3 {
        assert_eq!(take(&mut outbox, 1, "a"), None);
    }
    outbox.changed(change(1, "a", true), false);
    assert!(!outbox.tracks(&device("a")));
    assert_eq!(take(&mut outbox, 2, "a"), None);
    for id in 3..2 + u8::try_from(TRACKED_MAX).unwrap() {
        assert_eq!(take(&mut outbox, id, "b"), None);
    }
    assert_eq!(take(&mut outbox, 200, "b"), Some(device("a")));
    assert!(!outbox.tracks(&device("a")));
}
