//! What devices are told: commands and settings.

use unhidra_core::command::Late;

use super::*;
use crate::Waits;

pub(crate) fn setting(device: &str, name: &str, version: u64) -> Setting {
    Setting {
        device: id(device),
        name: name.parse().unwrap(),
        value: Some(Bytes::from(version.to_string())),
        version,
        changed_at: UnixTime::from_s(version),
        asked_by: None,
        acknowledged: None,
    }
}

pub(super) async fn open_commands_are_those_not_final(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a")), Op::Device(device("b"))]).await.unwrap();
    let open = [Stage::Waiting, Stage::Sent, Stage::Delivered];
    let ends = [Ending::Done, Ending::Failed, Ending::Expired, Ending::Cancelled].map(over);
    let commands: Vec<Command> =
        open.into_iter().chain(ends).zip(1..).map(|(stage, n)| command("a", n, stage)).collect();
    for command in &commands {
        write(&*store, vec![Op::Command(command.clone())]).await.unwrap();
        assert_eq!(store.command(&id("a"), &command.id).await.unwrap().as_ref(), Some(command));
    }
    write(&*store, vec![Op::Command(command("b", 9, Stage::Waiting))]).await.unwrap();
    let mut expected: Vec<Command> = commands[..3].to_vec();
    // `command` makes later numbers older.
    expected.reverse();
    assert_eq!(store.open_commands(&id("a")).await.unwrap(), expected);
    for command in &commands[..2] {
        let mut ended = command.clone();
        ended.life.stage = over(Ending::Failed);
        write(&*store, vec![Op::Command(ended.clone())]).await.unwrap();
        assert_eq!(store.command(&id("a"), &command.id).await.unwrap(), Some(ended.clone()), "it stays readable");
        // Whoever has not heard of it, or ends it once more, changes nothing.
        for late in
            [command.clone(), Command { life: Life { stage: over(Ending::Done), ..command.life }, ..command.clone() }]
        {
            write(&*store, vec![Op::Command(late)]).await.unwrap();
            assert_eq!(store.command(&id("a"), &command.id).await.unwrap().as_ref(), Some(&ended), "an end is an end");
        }
    }
    assert_eq!(store.open_commands(&id("a")).await.unwrap(), commands[2..3]);
    assert_eq!(store.command(&id("a"), &CommandId::new([99; 16])).await.unwrap(), None);
}

pub(super) async fn commands_are_listed_by_age(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a")), Op::Device(device("b"))]).await.unwrap();
    for (n, stage) in [(3, Stage::Waiting), (1, over(Ending::Done)), (2, Stage::Sent)] {
        write(&*store, vec![Op::Command(command("a", n, stage))]).await.unwrap();
    }
    let listed = async |device, max| {
        let commands = store.commands(&id(device), max).await.unwrap();
        commands.iter().map(|command| command.id.as_bytes()[0]).collect::<Vec<_>>()
    };
    assert_eq!(listed("a", 9).await, [3, 2, 1]);
    assert_eq!(listed("a", 2).await, [2, 1], "the newest");
    assert!(listed("b", 9).await.is_empty() && listed("nobody", 9).await.is_empty());
}

pub(super) async fn devices_that_wait_are_named_with_the_first_expiry(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    for name in ["a", "b", "c", "d"] {
        write(&*store, vec![Op::Device(device(name))]).await.unwrap();
    }
    for (name, n, stage) in [
        ("a", 5, Stage::Waiting),
        ("a", 3, Stage::Delivered),
        ("b", 1, over(Ending::Done)),
        ("c", 4, Stage::Sent),
        ("d", 7, Stage::Waiting),
    ] {
        let expires_at = UnixTime::from_s(10_000 + u64::from(n));
        write(&*store, vec![Op::Command(Command { expires_at, ..command(name, n, stage) })]).await.unwrap();
    }
    let waits = |number, name: &str, n: u64| Waits {
        number: DeviceNumber::new(number),
        device: id(name),
        expires_at: UnixTime::from_s(10_000 + n),
    };
    let page = async |after, max| store.waits(Partition::new(0), DeviceNumber::new(after), max).await.unwrap();
    let first = page(0, 2).await;
    assert_eq!((first.rows, first.more), (vec![waits(1, "a", 3), waits(3, "c", 4)], true));
    let rest = page(3, 2).await;
    assert_eq!((rest.rows, rest.more), (vec![waits(4, "d", 7)], false));
    assert!(page(4, 2).await.rows.is_empty());
}

pub(super) async fn a_late_receipt_is_noted_at_an_end_alone(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a"))]).await.unwrap();
    let (open, ended) = (command("a", 1, Stage::Sent), command("a", 2, over(Ending::Expired)));
    write(&*store, vec![Op::Command(open.clone()), Op::Command(ended.clone())]).await.unwrap();
    let late = |n, s| Op::LateReceipt {
        device: id("a"),
        command: CommandId::new([n; 16]),
        status: ReceiptStatus::Done,
        at: UnixTime::from_s(s),
    };
    write(&*store, vec![late(1, 300), late(2, 300), late(3, 300)]).await.unwrap();
    write(&*store, vec![late(2, 301)]).await.unwrap();
    assert_eq!(store.command(&id("a"), &open.id).await.unwrap(), Some(open));
    let found = store.command(&id("a"), &ended.id).await.unwrap().unwrap();
    assert_eq!(found.life.late, Some(Late { status: ReceiptStatus::Done, at: UnixTime::from_s(301), count: 2 }));
    assert_eq!(found.life.stage, ended.life.stage);
    assert_eq!(store.command(&id("a"), &CommandId::new([3; 16])).await.unwrap(), None);
    assert_eq!(store.open_commands(&id("a")).await.unwrap().len(), 1);
}

pub(super) async fn settings_are_the_last_by_name(bench: &mut impl Bench) {
    let store = bench.open(1).await;
    write(&*store, vec![Op::Device(device("a")), Op::Device(device("b"))]).await.unwrap();
    let (interval, unit) = (setting("a", "interval", 1), setting("a", "Einheit ä", 2));
    let other = setting("b", "interval", 3);
    let ops = [&interval, &unit, &other].map(|setting| Op::Setting(setting.clone()));
    write(&*store, ops.into()).await.unwrap();
    assert_eq!(store.settings(&id("a")).await.unwrap(), [unit.clone(), interval]);
    let changed = Setting {
        acknowledged: Some(Acknowledged { version: 1, session: 1, at: UnixTime::from_s(4) }),
        ..setting("a", "interval", 4)
    };
    let removed = Setting { value: None, ..setting("a", "Einheit ä", 5) };
    write(&*store, vec![Op::Setting(changed.clone()), Op::Setting(removed.clone())]).await.unwrap();
    assert_eq!(store.settings(&id("a")).await.unwrap(), [removed.clone(), changed.clone()]);
    write(&*store, vec![Op::ForgetSetting { device: id("a"), name: removed.name }]).await.unwrap();
    assert_eq!(store.settings(&id("a")).await.unwrap(), [changed]);
    assert_eq!(store.settings(&id("b")).await.unwrap(), [other]);
    assert!(store.settings(&id("nobody")).await.unwrap().is_empty());
}
