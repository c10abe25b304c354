//! SIGHUP: configuration and certificates are read again.

use rustix::process::Signal;
use unhidra_tests::process::{FREE_PORTS, Place};

use super::outlets::secret;
use super::peer::{dial, enter};

/// At the start, at a reload, in an error and at the end, on every level.
#[tokio::test]
async fn no_secret_of_the_configuration_is_in_the_log() {
    let place = Place::new();
    secret(&place);
    let outlet = |url: &str| {
        format!("[outlets.hook]\nkind = \"webhook\"\nsecret_file = \"secret\"\nurl = \"{url}\"\nretry_max_s = 1\n")
    };
    // Nobody listens there: each attempt fails, and is told of.
    place.write("node.toml", outlet("http://127.0.0.1:1/hook?token=hunter2"));
    let level = "--set log.level=trace";
    let node = place.node(&format!("run --config node.toml {FREE_PORTS} {level}")).await;
    place.write("node.toml", outlet("http://127.0.0.1:2/hunter2?token=hunter2"));
    node.process.signal(Signal::HUP);
    let line = node.process.logs("its new value takes effect at the next start").await;
    assert!(line.contains("outlets.hook.url"), "{line}");
    for (count, broken) in ["http://user:hunter2@127.0.0.1:2/", "http://a.example/?token=hunter2"].iter().enumerate() {
        place.write("node.toml", outlet(broken));
        node.process.signal(Signal::HUP);
        let line = node.process.logs_again("not reloaded; the node goes on as it was", count + 1).await;
        assert!(line.contains("outlets.hook.url"), "{line}");
    }
    place.write("node.toml", outlet("http://127.0.0.1:2/") + "password = \"hunter2\"\n");
    node.process.signal(Signal::HUP);
    node.process.logs_again("not reloaded; the node goes on as it was", 3).await;
    node.process.signal(Signal::TERM);
    let ended = node.process.ended().await;
    assert!(!ended.err.contains("hunter2"), "{}", ended.err);
    let ended = place.run("run --config node.toml").await;
    assert!(ended.status == Some(2) && ended.err.contains("outlets.hook.password"), "{ended}");
    assert!(!ended.err.contains("hunter2"), "{ended}");
}

#[tokio::test]
async fn what_a_refused_file_was_to_change_is_not_said_to_take_effect_and_is_tried_again() {
    let place = Place::new();
    place.write("node.toml", "");
    let node = place.node(&format!("run --config node.toml {FREE_PORTS}")).await;
    place.write("rules.toml", "[[rule]]\nallow = \"all\"\ntopics = [\"a/#/b\"]\n");
    place.write("node.toml", "[acl]\nfile = \"rules.toml\"\n[jwt]\nissuer = \"somebody\"\n");
    for count in 1..=2 {
        node.process.signal(Signal::HUP);
        node.process.logs_again("the rules stay as they were", count).await;
        let line = node.process.logs_again("its new value does not take effect", count).await;
        assert!(line.contains("acl.file"), "{line}");
    }
    place.write("rules.toml", "[[rule]]\nallow = \"all\"\ntopics = [\"a/b\"]\n");
    node.process.signal(Signal::HUP);
    // What could be used took effect the first time.
    let first = node.process.logs_again("its new value takes effect now", 1).await;
    let second = node.process.logs_again("its new value takes effect now", 2).await;
    assert!(first.contains("jwt.issuer") && second.contains("acl.file"), "{first} {second}");
    node.stop().await;
}

#[tokio::test]
async fn after_sighup_another_certificate_is_served_and_a_broken_configuration_changes_nothing() {
    let place = Place::new();
    place.write("node.toml", "[pki]\nnames = [\"localhost\", \"127.0.0.1\"]\n");
    let node = place.node(&format!("run --config node.toml {FREE_PORTS}")).await;
    let folder = place.enroll("pump-7").await;
    let before = dial(&folder, node.mqtt, "edge.example").await.map(|_| ()).expect_err("the node is not called that");
    assert!(before.to_string().contains("certificate"), "{before}");
    // Whoever is in stays in.
    let mut present = dial(&folder, node.mqtt, "localhost").await.expect("a handshake");
    assert_eq!(enter(&mut present).await, 0);

    place.write("node.toml", "[pki]\nnames = [\"edge.example\"]\n");
    node.process.signal(Signal::HUP);
    node.process.logs("configuration and certificates are read again").await;
    let mut renamed = dial(&folder, node.mqtt, "edge.example").await.expect("the new certificate is served");
    assert_eq!(enter(&mut renamed).await, 0);
    assert!(dial(&folder, node.mqtt, "localhost").await.is_err(), "the old certificate is served still");

    let broken = [
        ("[pki]\nnames = [\"other.example\"", "node.toml is no TOML"),
        ("[pki]\nnames = [\"other.example\"]\ncolour = 1\n", "there is no key pki.colour"),
        ("[pki]\nnames = [\"other.example\"]\ncertificate = \"missing.pem\"\n", "pki."),
    ];
    for (count, (broken, said)) in broken.into_iter().enumerate() {
        place.write("node.toml", broken);
        node.process.signal(Signal::HUP);
        let line = node.process.logs_again("not reloaded; the node goes on as it was", count + 1).await;
        assert!(line.contains(said), "{line}");
        let mut same = dial(&folder, node.mqtt, "edge.example").await.expect("the certificate of before is served");
        assert_eq!(enter(&mut same).await, 0);
        assert!(dial(&folder, node.mqtt, "other.example").await.is_err(), "{broken}");
    }
    node.stop().await;
}
