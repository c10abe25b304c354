//! Backups that are read.

use super::*;

/// Reads a backup as typed, with the keys that the place has.
async fn verified(place: &Place, set: &[String], line: &str) -> Result<serde_json::Value, CliError> {
    let mut global = place.global();
    global.set.extend_from_slice(set);
    let Some(Command::Backup { action }) = parse(line).unwrap().command else { panic!("{line}") };
    let mut text = Vec::new();
    backup::run(action, &global, &mut Output::new(true, &mut text)).await?;
    Ok(serde_json::from_slice(&text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_told_whether_the_records_of_a_backup_were_opened() {
    let (place, elsewhere) = (Place::new(), Place::new());
    let file = place.folder.path().join("kept.backup");
    let node = place.start().await;
    let line = format!("backup create {}", file.display());
    let Some(Command::Backup { action: backup::Action::Create(create) }) = parse(&line).unwrap().command else {
        panic!("{line}")
    };
    backup::create(&create, &*node.control(), &mut Output::new(true, &mut Vec::new())).await.unwrap();
    node.stop().await;

    let line = format!("backup verify {}", file.display());
    for (at, is_opened) in [(&place, true), (&elsewhere, false)] {
        let told = verified(at, &[], &line).await.unwrap();
        assert_eq!(told["records_opened"], is_opened, "{told}");
        assert!(told["backup"]["records"].is_u64() && told["file"].is_string(), "{told}");
    }
    // Nobody can say that no key is there.
    let beneath = [format!("store.master_key_file={}/key", file.display())];
    let refused = verified(&place, &beneath, &line).await.unwrap_err();
    assert_eq!(refused.exit_code(), 1);
    assert!(refused.to_string().contains("kept.backup/key"), "{refused}");
}
