//! What the store holds, taken out and shown.

use unhidra_core::ids::Offset;
use unhidra_core::message::ReceiptStatus;
use unhidra_store::Trim;

use super::*;
use crate::control::{EnrollAsked, RowsAsked, Span};

#[tokio::test]
async fn export_prints_every_row_and_hides_what_a_terminal_would_obey() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    for device in ["a", "b"] {
        control.enroll(enroll_asked(device)).await.unwrap();
        let receipt = UplinkKind::Receipt { command: CommandId::new([5; 16]), status: ReceiptStatus::Done };
        let ops = vec![row(device, 0, UplinkKind::Reading, b"21.5"), row(device, 1, receipt, b"\x1b[2J")];
        append(&*ground.store, device, ops).await;
    }
    // More than one page.
    let many = (2..2500).map(|number| row("a", number, UplinkKind::Reading, b"21.6")).collect();
    append(&*ground.store, "a", many).await;

    let all = printed(&control, "export").await.unwrap();
    assert_eq!(all.lines().count(), 2502);
    let of_b = printed(&control, "export b").await.unwrap();
    let lines: Vec<_> = of_b.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains("  b  ") && lines[0].ends_with("temperature       21.5"), "{of_b}");
    assert!(lines[1].ends_with("receipt 05050505050505050505050505050505 done  0x1b5b324a"), "{of_b}");
    let json = printed(&control, "export a --json").await.unwrap();
    let offsets: Vec<u64> = json
        .lines()
        .map(|line| serde_json::from_str::<crate::control::RowRecord>(line).unwrap())
        .map(|row| row.offset)
        .collect();
    assert!(offsets.len() == 2500 && offsets.is_sorted());
    assert!(refusal(&control, "export nobody").await.contains("no device nobody"));

    let csv = printed(&control, "export --device b --format csv").await.unwrap();
    let records: Vec<_> = csv.split_terminator("\r\n").collect();
    assert_eq!(records.len(), 3, "a header and two rows");
    assert!(records[1].starts_with("b,") && records[1].contains(",reading,temperature,text,21.5,"), "{csv}");
    let lines = printed(&control, "export b --format jsonl").await.unwrap();
    assert_eq!(lines, printed(&control, "export b --json").await.unwrap(), "two names of one thing");
}

/// One flipped bit keeps nobody from what lies behind it, and is no success either.
#[tokio::test]
async fn export_goes_on_behind_a_damaged_row_and_ends_with_an_error_that_names_it() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    control.enroll(enroll_asked("a")).await.unwrap();
    let rows = (0..2100).map(|number| row("a", number, UplinkKind::Reading, b"21.5")).collect();
    append(&*ground.store, "a", rows).await;
    // One in the first page, and the last of all.
    [2, 2100].into_iter().for_each(|offset| assert!(ground.store.damage_row(&id("a"), Offset::new(offset))));
    for line in ["export a --json", "export --json"] {
        let (text, ended) = ran(&control, line).await;
        let ended = ended.unwrap_err();
        assert_eq!(ended.exit_code(), 1);
        let ended = ended.to_string();
        assert!(ended.contains("2 places") && ended.contains("/2 of a: the record readings/"), "{ended}");
        assert_eq!(text.lines().count(), 2098, "{line}");
    }
}

#[tokio::test]
async fn export_prints_what_lies_within_its_bounds_alone() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    let classed = EnrollAsked { class: "pump".to_owned(), ..enroll_asked("a") };
    control.enroll(classed).await.unwrap();
    control.enroll(enroll_asked("b")).await.unwrap();
    for device in ["a", "b"] {
        append(&*ground.store, device, vec![row(device, 0, UplinkKind::Reading, b"21.5")]).await;
    }
    let [before, at, after] = [NOW.as_ms() - 1, NOW.as_ms(), NOW.as_ms() + 1].map(crate::cli::output::instant);
    for (line, rows) in [
        (format!("export --from {at}"), 2),
        (format!("export --from {after}"), 0),
        (format!("export --to {at}"), 0),
        (format!("export --from {before} --to {after}"), 2),
        ("export --class pump".to_owned(), 1),
        ("export --class valve".to_owned(), 0),
        (format!("export b --from {at} --class pump"), 0),
    ] {
        assert_eq!(printed(&control, &line).await.unwrap().lines().count(), rows, "{line}");
    }
}

#[tokio::test]
async fn export_of_nothing_for_its_bounds_are_the_wrong_way_round_is_refused() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    for line in ["export --from 2026-02-01 --to 2026-01-01", "export --from -1h --to -2h --class pump --format csv"] {
        let (text, ended) = ran(&control, line).await;
        let error = ended.unwrap_err();
        assert_eq!((text.as_str(), error.exit_code()), ("", 2), "{error}");
        assert!(error.to_string().contains("is after --to"), "{error}");
    }
}

/// What is left of trimmed rows is shown to nobody: a whole page of it is a page without rows, and not the end.
#[tokio::test]
async fn the_ledger_of_a_demo_goes_on_behind_a_page_of_trimmed_rows() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    control.enroll(enroll_asked("a")).await.unwrap();
    let rows = (0..1500).map(|number| row("a", number, UplinkKind::Reading, b"{\"n\":1}")).collect();
    append(&*ground.store, "a", rows).await;
    let trim = Trim { delete: Vec::new(), stub: (1..=1490).map(Offset::new).collect() };
    append(&*ground.store, "a", vec![Op::Trim { device: id("a"), trim }]).await;
    let partition = ground.store.partition_of(&id("a")).get();
    let first = RowsAsked::all(Span::Partition(partition));
    let first = control.rows(RowsAsked { after: 0, ..first }).await.unwrap();
    assert!(first.rows.is_empty() && first.more, "the first page shows none");
    assert_eq!(demo::export(&control, 2).await.unwrap().len(), 1);
}

#[tokio::test]
async fn store_status_says_what_is_held() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    control.enroll(enroll_asked("a")).await.unwrap();
    append(&*ground.store, "a", vec![row("a", 0, UplinkKind::Reading, b"21.5")]).await;
    let text = printed(&control, "store status").await.unwrap();
    assert!(text.contains("health      ready") && text.contains("without a bound"), "{text}");
    assert!(text.contains(&crate::cli::output::instant(NOW.as_ms())), "{text}");
    ground.store.hold_rows(Some("no room".into()));
    let json: serde_json::Value =
        serde_json::from_str(&printed(&control, "store status --json").await.unwrap()).unwrap();
    assert_eq!((&json["health"], &json["cause"]), (&"full".into(), &"no room".into()));
    assert_eq!(json["partitions"].as_array().unwrap().len(), 2);
}
