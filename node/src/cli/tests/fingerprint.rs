//! `unhidra device fingerprint`.

use super::*;

#[tokio::test]
async fn a_fingerprint_is_shown_and_compared_with_a_scanned_one() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    for name in ["pump-7", "pump-8"] {
        control.enroll(enroll_asked(name)).await.unwrap();
    }
    let shown: serde_json::Value =
        serde_json::from_str(&printed(&control, "device fingerprint pump-7 --json").await.unwrap()).unwrap();
    let (digits, code) = (shown["digits"].as_str().unwrap(), shown["code"].as_str().unwrap());
    let text = printed(&control, "device fingerprint pump-7").await.unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..3].join(" "), digits);
    assert!(lines[..3].iter().all(|line| line.split(' ').map(str::len).collect::<Vec<_>>() == [5; 4]), "{text}");

    let same = format!("device fingerprint pump-7 --scanned {code}");
    assert!(printed(&control, &same).await.unwrap().starts_with("the same: pump-7"));
    assert!(printed(&control, &format!("{same} --json")).await.unwrap().contains("\"scanned\":\"same\""));
    let other = refusal(&control, &same.replace("pump-7", "pump-8")).await;
    assert!(other.starts_with("DIFFERENT: that is the code of another device"), "{other}");
    let foreign_node = format!("{}{}", &code[..75], "0".repeat(64));
    let other = refusal(&control, &format!("device fingerprint pump-7 --scanned {foreign_node}")).await;
    assert!(other.starts_with("DIFFERENT: the device trusts another node"), "{other}");
    let newer = refusal(&control, &same.replace("UNHIDRA:1", "UNHIDRA:2")).await;
    assert!(newer.contains("version 2; 1 is compared"), "{newer}");
    let none = printed(&control, "device fingerprint pump-7 --scanned 12345").await.unwrap_err();
    assert!(none.exit_code() == 2 && none.to_string().contains("not the code of a fingerprint"), "{none}");

    assert!(refusal(&control, "device fingerprint pump-9").await.contains("no device pump-9 is enrolled here"));
    control.revoke(id("pump-7")).await.unwrap();
    assert!(refusal(&control, "device fingerprint pump-7").await.contains("pump-7 is revoked"));
}

#[tokio::test]
async fn a_fingerprint_is_drawn_into_a_file() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    control.enroll(enroll_asked("pump-7")).await.unwrap();
    let file = ground.folder.path().join("pump-7.svg");
    printed(&control, &format!("device fingerprint pump-7 --svg {}", file.display())).await.unwrap();
    assert!(std::fs::read_to_string(&file).unwrap().contains(">pump-7</text>"));
    let nowhere = ground.folder.path().join("nowhere/pump-7.svg");
    let line = format!("device fingerprint pump-7 --svg {}", nowhere.display());
    assert!(refusal(&control, &line).await.contains("nowhere"), "the file is named");
}
