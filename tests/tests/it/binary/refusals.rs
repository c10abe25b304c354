//! What a node does not start on, and what it says then.

use tokio::net::TcpListener;
use unhidra_tests::process::{FREE_PORTS, Place};

/// Runs `line`, which must end with `status` and say each of `words` on stderr.
async fn refused(place: &Place, line: &str, status: i32, words: &[&str]) {
    let ended = place.run(line).await;
    assert_eq!(ended.status, Some(status), "{ended}");
    for word in words {
        assert!(ended.err.contains(word), "no {word:?}: {ended}");
    }
    assert!(!ended.out.contains("ready"), "{ended}");
}

#[tokio::test]
async fn a_port_in_use_names_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address");
    let place = Place::new();
    for key in ["broker.tls.listen", "gateway.listen", "admin.listen"] {
        let line = format!("run --data node {FREE_PORTS} --set {key}={address}");
        refused(&place, &line, 1, &[&format!("{key} = {address}: "), "in use", "port 0"]).await;
    }
    // What was refused has left nothing behind that stands in the way.
    place.node(&format!("run {FREE_PORTS}")).await.stop().await;
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_written_is_named() {
    let place = Place::new();
    place.write("file", "");
    for folder in ["/proc/unhidra", "file/node"] {
        refused(&place, &format!("run {FREE_PORTS} --data {folder}"), 1, &["cannot make the data folder", folder])
            .await;
    }
    refused(&place, &format!("run {FREE_PORTS} --data file"), 1, &["is a file and no data folder"]).await;
    place.write("letters.txt", "dear");
    refused(&place, &format!("run {FREE_PORTS} --data ."), 1, &["no format file", "give an empty one"]).await;
}

#[tokio::test]
async fn a_data_folder_of_another_version_is_left_alone() {
    let place = Place::new();
    place.node(&format!("run {FREE_PORTS}")).await.stop().await;
    let format = std::fs::read_to_string(place.path("node/format")).expect("a format file");
    assert!(format.contains("version 1\n"), "{format}");
    place.write("node/format", format.replace("version 1\n", "version 2\n"));
    for line in ["run", "device list"] {
        let line = format!("{line} --data node {FREE_PORTS}");
        refused(&place, &line, 1, &["format version 2", "knows version 1", "another folder"]).await;
    }
    place.write("node/format", format);
    place.node(&format!("run {FREE_PORTS}")).await.stop().await;
}

#[tokio::test]
async fn a_folder_in_use_names_the_pid_of_its_node() {
    let place = Place::new();
    let node = place.node(&format!("run {FREE_PORTS}")).await;
    let pid = node.ready["pid"].as_u64().expect("a pid");
    refused(&place, &format!("run --data node {FREE_PORTS}"), 1, &[&format!("a node with pid {pid} uses")]).await;
    // It serves on.
    place.done("device list --data node").await;
    node.stop().await;
}

#[tokio::test]
async fn run_refuses_a_demos_folder_and_demo_a_nodes() {
    let place = Place::new();
    let demo = format!("demo --data demo {FREE_PORTS} --devices 1 --seconds 1");
    place.done(&demo).await;
    let words = ["a demo's data folder", "says plain", "unhidra demo --data"];
    refused(&place, &format!("run --data demo {FREE_PORTS}"), 1, &words).await;
    place.node(&format!("run {FREE_PORTS}")).await.stop().await;
    let words = ["a node's data folder", "says sealed", "unhidra run --data"];
    refused(&place, &format!("demo --data node {FREE_PORTS}"), 1, &words).await;
}

#[tokio::test]
async fn a_configuration_that_is_wrong_names_the_key_what_was_found_and_what_is_allowed() {
    let place = Place::new();
    for (text, words) in [
        // As an editor leaves it whose disk was full.
        ("[gateway]\nping_s = 5\n[broker.tls]\nlisten = \"127.0.", &["node.toml is no TOML", "line 4"][..]),
        ("[broker.tls]\nlistn = \"127.0.0.1:0\"\n", &["node.toml", "no key broker.tls.listn", "broker.tls.listen"]),
        (
            "[gateway]\nclients_max = \"many\"\n",
            &["node.toml", "gateway.clients_max", "is a text", "a whole number is expected"],
        ),
        ("[gateway]\nlisten = \"here\"\n", &["node.toml", "gateway.listen", "\"here\""]),
        ("[broker.tcp]\nlisten = \"127.0.0.1:0\"\nusers = false\n", &["broker.tcp", "anonymous"]),
        ("[broker.tls]\nlisten = \"0.0.0.0:0\"\n", &["broker.tls.listen", "0.0.0.0:0", "loopback"]),
        ("[store]\nopen_files = 1\n", &["store.open_files = 1", "10"]),
    ] {
        place.write("node.toml", text);
        refused(&place, "run --data node --config node.toml", 2, words).await;
    }
    refused(&place, "run --data node --config missing.toml", 2, &["missing.toml"]).await;
    for (set, words) in [
        ("gatewy.listen=127.0.0.1:0", &["--set", "no key gatewy", "gateway"][..]),
        ("gateway.clients_max=many", &["--set", "gateway.clients_max", "is a text"]),
        ("log.level=loud", &["log", "loud", "debug"]),
    ] {
        refused(&place, &format!("run --data node --set {set}"), 2, words).await;
    }
    assert!(!place.path("node").exists(), "a configuration that is wrong makes no folder");
}
