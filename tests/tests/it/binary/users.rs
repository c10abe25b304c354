//! Users and rules: `unhidra user`, `unhidra acl`, and Mosquitto's clients who come in by them.

use std::net::SocketAddr;

use rustix::process::Signal;
use unhidra_tests::process::{Ended, FREE_PORTS, Node, Place, Process};

const RULES: &str = r##"
[[rule]]
deny = "read"
topics = ["site/secret/#"]

[[rule]]
allow = "subscribe"
user = "ann"
topics = ["{p}/devices/+/messages", "#"]

[[rule]]
allow = "all"
user = "*"
topics = ["home/{user}/#", "site/#"]

[[rule]]
deny = "all"
topics = ["#"]
"##;

/// Gives a user a password, as from a pipe.
async fn user(place: &Place, line: &str, password: &str) {
    let unhidra = place.unhidra("");
    let binary = unhidra.as_std().get_program().to_string_lossy().into_owned();
    let mut command = place.program("sh", "dash");
    command.args(["-c", &format!("echo {password} | {binary} user {line} --data node --password-stdin")]);
    let ended = Process::start(line, command).ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
}

async fn node(place: &Place) -> (Node, SocketAddr) {
    let plain = "--set broker.tcp.listen=127.0.0.1:0 --set acl.file=acl.toml";
    let node = place.node(&format!("run {FREE_PORTS} {plain}")).await;
    let address = node.ready["mqtt_plain"].as_str().and_then(|text| text.parse().ok());
    (node, address.expect("it listens for plain MQTT"))
}

fn start(place: &Place, node: SocketAddr, program: &str, line: &str) -> Process {
    let mut command = place.program(program, "mosquitto-clients");
    command.args(["-d", "-h", "127.0.0.1", "-p", &node.port().to_string()]).args(line.split_whitespace());
    Process::start(&format!("{program} {line}"), command)
}

async fn publish(place: &Place, node: SocketAddr, line: &str) -> Ended {
    start(place, node, "mosquitto_pub", &format!("-q 1 {line}")).ended().await
}

#[tokio::test]
async fn a_password_lets_its_user_in_until_it_is_taken_away() {
    let place = Place::new();
    place.write("acl.toml", RULES);
    user(&place, "add ann", "open-sesame").await;
    let (node, port) = node(&place).await;
    for (who, code) in [
        ("-V 311 -u ann -P wrong", "CONNACK (4)"),
        ("-V 5 -u ann -P wrong", "CONNACK (134)"),
        ("-V 5 -u eve -P open-sesame", "CONNACK (134)"),
        ("-V 5", "CONNACK (135)"),
        ("-V 311 -u ann -P open-sesame", "CONNACK (0)"),
    ] {
        let ended = publish(&place, port, &format!("{who} -t home/ann/x -m 1")).await;
        assert!(ended.out.contains(code), "{who}: {ended}");
    }
    // A user that is added while the node runs comes in; one that is removed is sent away.
    let present = start(&place, port, "mosquitto_sub", "-V 5 -u ann -P open-sesame -t home/ann/#");
    present.prints("Subscribed (mid: 1): 0").await;
    user(&place, "add bob", "secret").await;
    node.process.logs_again("the users are read again", 1).await;
    let ended = publish(&place, port, "-V 5 -u bob -P secret -t home/bob/x -m 1").await;
    assert!(ended.out.contains("CONNACK (0)"), "{ended}");
    place.done("user remove ann --data node").await;
    present.prints("DISCONNECT (135)").await;
    let ended = publish(&place, port, "-V 5 -u ann -P open-sesame -t home/ann/x -m 1").await;
    assert!(ended.out.contains("CONNACK (134)"), "{ended}");
    node.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_user_is_there_when_the_file_of_users_is_back() {
    let place = Place::new();
    place.write("acl.toml", RULES);
    user(&place, "add ann", "open-sesame").await;
    let (node, port) = node(&place).await;
    let ann = "-V 311 -u ann -P open-sesame";
    let session = format!("{ann} -c -i watcher -q 1 -t home/ann/# -F got:%p");
    let ended = start(&place, port, "mosquitto_sub", &format!("{session} -E")).ended().await;
    assert!(ended.out.contains("Subscribed (mid: 1): 1"), "{ended}");
    let ended = publish(&place, port, &format!("{ann} -t home/ann/x -m kept")).await;
    assert!(ended.out.contains("PUBACK"), "{ended}");
    // As an operator who edits a copy.
    std::fs::rename(place.path("node.users"), place.path("users.bak")).expect("the file is there");
    let line = node.process.logs("the users stay as they were until the file can be used").await;
    assert!(line.contains("no such file any more"), "{line}");
    let ended = publish(&place, port, &format!("{ann} -t home/ann/x -m more")).await;
    assert!(ended.out.contains("CONNACK (0)"), "ann is a user still: {ended}");
    std::fs::rename(place.path("users.bak"), place.path("node.users")).expect("it was put there");
    node.process.logs_again("the users are read again", 1).await;
    let watcher = start(&place, port, "mosquitto_sub", &format!("{session} -C 2"));
    assert_eq!(watcher.prints("got:").await, "got:kept");
    node.stop().await;
}

#[tokio::test]
async fn rules_hold_for_topics_filters_and_what_devices_say_and_change_on_sighup() {
    let place = Place::new();
    place.write("acl.toml", RULES);
    user(&place, "add ann", "a").await;
    user(&place, "add bob", "b").await;
    let (node, port) = node(&place).await;
    place.enroll("pump-7").await;

    let all = start(&place, port, "mosquitto_sub", "-V 5 -u ann -P a -t # -F got:%t:%p");
    all.prints("Subscribed (mid: 1): 0").await;
    let refused = start(&place, port, "mosquitto_sub", "-V 5 -E -u bob -P b -t #").ended().await;
    assert!(refused.out.contains("Subscribed (mid: 1): 135"), "{refused}");
    for (topic, code) in
        [("site/secret/x", 16), ("home/ann/x", 135), ("unhidra/devices/pump-7/messages", 135), ("site/x", 0)]
    {
        let ended = publish(&place, port, &format!("-V 5 -u bob -P b -t {topic} -m 1")).await;
        assert!(ended.out.contains(&format!("RC:{code})")), "{topic}: {ended}");
    }
    // Nothing of site/secret came before it.
    assert_eq!(all.prints("got:").await, "got:site/x:1");
    // What a device says comes as it was sealed.
    let _device = place.simulate(&["pump-7"], "--rate 5").await;
    let sealed = all.prints("got:unhidra/devices/pump-7/messages:").await;
    assert!(!sealed.contains("temperature"), "{sealed}");

    place.write("acl.toml", "[[rule]]\nallow = \"all\"\ntopics = [\"a/#/b\"]\n");
    node.process.signal(Signal::HUP);
    let line = node.process.logs("the rules stay as they were").await;
    assert!(line.contains("acl.toml:3:11"), "{line}");
    place.write("acl.toml", "[[rule]]\ndeny = \"subscribe\"\nuser = \"ann\"\ntopics = [\"#\"]\n");
    node.process.signal(Signal::HUP);
    node.process.logs("the rules are read again").await;
    let gone = start(&place, port, "mosquitto_sub", "-V 5 -E -u ann -P a -t site/x").ended().await;
    assert!(gone.out.contains("Subscribed (mid: 1): 135"), "{gone}");
    let ended = publish(&place, port, "-V 5 -u bob -P b -t site/x -m 2").await;
    assert!(ended.out.contains("RC:16)"), "nobody is subscribed any more: {ended}");
    node.stop().await;
}

#[tokio::test]
async fn a_test_of_the_rules_names_the_line_that_decides() {
    let place = Place::new();
    place.write("acl.toml", RULES);
    for (asked, status, said) in [
        ("ann site/secret/x --read", 1, "acl.toml:2"),
        ("ann # --subscribe", 0, "acl.toml:6"),
        ("bob home/bob/x", 0, "acl.toml:11"),
        ("bob home/ann/x --publish", 1, "acl.toml:16"),
        ("bob unhidra/devices/pump-7/messages --subscribe", 1, "devices' tree"),
        ("pump-7 unhidra/devices/pump-7/messages --device --publish", 0, "own row"),
        ("pump-7 weather --device --publish", 1, "devices have their own rows"),
        ("- weather --publish", 1, "acl.toml:16"),
    ] {
        let ended = place.run(&format!("acl test {asked} --file acl.toml")).await;
        assert!(ended.status == Some(status) && ended.out.contains(said), "{asked}: {ended}");
    }
    assert!(place.done("acl check acl.toml").await.contains("4 rules"));
    place.write("bad.toml", "[[rule]]\nallow = \"write\"\ntopics = [\"a\"]\n");
    let ended = place.run("acl check bad.toml").await;
    assert!(ended.status == Some(1) && ended.err.contains("bad.toml:1:1: the action \"write\""), "{ended}");
}
