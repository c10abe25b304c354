//! Mosquitto's clients without certificates, on the plain listener: each rule in both versions.

use std::net::SocketAddr;

use rustix::process::Signal;
use unhidra_tests::process::{Ended, Place, Process};

use super::plain::plain_node;

const VERSIONS: [&str; 2] = ["311", "5"];

fn start(place: &Place, node: SocketAddr, program: &str, line: &str) -> Process {
    let mut command = place.program(program, "mosquitto-clients");
    command.args(["-h", "127.0.0.1", "-p", &node.port().to_string()]).args(line.split_whitespace());
    Process::start(&format!("{program} {line}"), command)
}

async fn done(place: &Place, node: SocketAddr, program: &str, line: &str) -> Ended {
    let ended = start(place, node, program, line).ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
    ended
}

async fn publish(place: &Place, node: SocketAddr, line: &str) -> Ended {
    done(place, node, "mosquitto_pub", line).await
}

/// Starts a subscriber, and returns once it has its SUBACK.
async fn subscribe(place: &Place, node: SocketAddr, line: &str) -> Process {
    let subscriber = start(place, node, "mosquitto_sub", &format!("-d {line}"));
    subscriber.prints("Subscribed (mid: 1)").await;
    subscriber
}

#[tokio::test]
async fn a_message_arrives_with_the_lower_of_both_qos() {
    let place = Place::new();
    let (node, port) = plain_node(&place).await;
    for version in VERSIONS {
        for granted in QOS {
            let line = format!("-V {version} -q {granted} -t lab/t -C {} -F got:%q:%r:%t:%p", QOS.len());
            let subscriber = subscribe(&place, port, &line).await;
            for sent in QOS {
                publish(&place, port, &format!("-V {version} -q {sent} -t lab/t -m m{sent}")).await;
            }
            let ended = subscriber.ended().await;
            for sent in QOS {
                let expected = format!("got:{}:0:lab/t:m{sent}", sent.min(granted));
                assert!(ended.out.contains(&expected), "{expected} in {version}: {ended}");
            }
        }
    }
    node.stop().await;
}

const QOS: [u8; 3] = [0, 1, 2];

#[tokio::test]
async fn a_retained_message_comes_with_its_flag_until_an_empty_one_clears_it() {
    let place = Place::new();
    let (node, port) = plain_node(&place).await;
    for version in VERSIONS {
        for name in ["a", "b"] {
            publish(&place, port, &format!("-V {version} -q 1 -r -t lab/{name} -m {name}")).await;
        }
        let both = format!("-V {version} -q 1 -t lab/# -C 2 -F got:%r:%t:%p");
        let both = done(&place, port, "mosquitto_sub", &both).await;
        assert!(both.out.contains("got:1:lab/a:a") && both.out.contains("got:1:lab/b:b"), "{both}");
        publish(&place, port, &format!("-V {version} -q 1 -r -n -t lab/a")).await;
        let rest = format!("-V {version} -q 1 -t lab/# -C 1 -F got:%r:%t:%p");
        let rest = done(&place, port, "mosquitto_sub", &rest).await;
        assert_eq!(rest.out.trim(), "got:1:lab/b:b", "{rest}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_will_is_published_when_its_client_dies_or_asks_for_it_and_not_when_it_says_goodbye() {
    let place = Place::new();
    let (node, port) = plain_node(&place).await;
    for version in VERSIONS {
        let will =
            |name: &str| format!("-V {version} -t none --will-topic wills/{name} --will-payload {name} --will-qos 1");
        let watch = format!("-V {version} -q 1 -t wills/# -C 1 -F got:%t:%p");
        let watcher = subscribe(&place, port, &watch).await;
        done(&place, port, "mosquitto_sub", &format!("{} -E", will("polite"))).await;
        let killed = subscribe(&place, port, &will("killed")).await;
        killed.signal(Signal::KILL);
        let ended = watcher.ended().await;
        assert!(ended.out.contains("got:wills/killed:killed") && !ended.out.contains("wills/polite"), "{ended}");
    }
    // In 5.0 it may say goodbye and ask for its will: this client does, when it is interrupted.
    let watcher = subscribe(&place, port, "-V 5 -t wills/# -C 1 -F got:%p").await;
    let asking = subscribe(&place, port, "-V 5 -t none --will-topic wills/asked --will-payload asked").await;
    asking.signal(Signal::INT);
    let ended = watcher.ended().await;
    assert!(ended.out.contains("got:asked"), "{ended}");
    node.stop().await;
}

#[tokio::test]
async fn a_session_gets_what_came_while_its_client_was_away() {
    let place = Place::new();
    let (node, port) = plain_node(&place).await;
    for (version, expiry) in [("311", ""), ("5", "-x 60")] {
        let session = format!("-V {version} -c {expiry} -i keeper -q 1 -t lab/t");
        done(&place, port, "mosquitto_sub", &format!("{session} -E")).await;
        for n in 0..3 {
            publish(&place, port, &format!("-V {version} -q 1 -t lab/t -m n{n}")).await;
        }
        // It subscribes again, as this client always does; what waited comes all the same, in order.
        let back = done(&place, port, "mosquitto_sub", &format!("{session} -C 3")).await;
        assert_eq!(back.out.lines().collect::<Vec<_>>(), ["n0", "n1", "n2"], "{back}");
        // Without -c the session ends with its connection, and nothing waits for it.
        let clean = format!("-V {version} -i keeper -q 1 -t lab/t");
        done(&place, port, "mosquitto_sub", &format!("{clean} -E")).await;
        publish(&place, port, &format!("-V {version} -q 1 -t lab/t -m lost")).await;
        let subscriber = subscribe(&place, port, &format!("{clean} -C 1 -F got:%p")).await;
        publish(&place, port, &format!("-V {version} -q 1 -t lab/t -m new")).await;
        let ended = subscriber.ended().await;
        assert!(ended.out.contains("got:new") && !ended.out.contains("got:lost"), "{ended}");
    }
    node.stop().await;
}

#[tokio::test]
async fn properties_arrive_as_they_were_sent_and_user_properties_in_order() {
    let place = Place::new();
    let (node, port) = plain_node(&place).await;
    let shape = "-F got:%C:%R:%D:%E:%F:%P:%S:%p";
    let line = format!("-V 5 -q 1 -t lab/t -D subscribe subscription-identifier 7 -C 1 {shape}");
    let subscriber = subscribe(&place, port, &line).await;
    let properties = [
        "content-type text/plain",
        "response-topic lab/answer",
        "correlation-data c0",
        "message-expiry-interval 60",
        "payload-format-indicator 1",
        "user-property z 1",
        "user-property a 2",
        "user-property z 3",
    ];
    let properties: String = properties.iter().map(|property| format!("-D publish {property} ")).collect();
    publish(&place, port, &format!("-V 5 -q 1 -t lab/t -m hello {properties}")).await;
    let ended = subscriber.ended().await;
    let expected = "got:text/plain:lab/answer:c0:60:1:z:1 a:2 z:3:7:hello";
    assert!(ended.out.contains(expected), "{expected}: {ended}");
    node.stop().await;
}

#[tokio::test]
async fn a_request_gets_its_answer() {
    let place = Place::new();
    let (node, port) = plain_node(&place).await;
    for version in VERSIONS {
        let service = subscribe(&place, port, &format!("-V {version} -q 1 -t ask -C 1 -F asked:%R:%D:%p:")).await;
        let correlation = if version == "5" { "-D publish correlation-data c0" } else { "" };
        let line = format!("-V {version} -q 1 -t ask -e answer/here -m question {correlation}");
        let asking = start(&place, port, "mosquitto_rr", &line);
        // In 3.1.1 nobody is told where to answer; both sides know.
        let expected = if version == "5" { "asked:answer/here:c0:question:" } else { "asked:::question:" };
        service.prints(expected).await;
        publish(&place, port, &format!("-V {version} -q 1 -t answer/here -m reply {correlation}")).await;
        let ended = asking.ended().await;
        assert!(ended.status == Some(0) && ended.out.contains("reply"), "{ended}");
        service.ended().await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_group_shares_what_comes() {
    let place = Place::new();
    let (node, port) = plain_node(&place).await;
    for version in VERSIONS {
        let line = format!("-V {version} -q 1 -t $share/crew/lab/# -C 5 -F got:%p");
        let (one, two) = (subscribe(&place, port, &line).await, subscribe(&place, port, &line).await);
        for n in 0..10 {
            publish(&place, port, &format!("-V {version} -q 1 -t lab/t -m n{n}")).await;
        }
        let both = format!("{}\n{}", one.ended().await.out, two.ended().await.out);
        for n in 0..10 {
            assert_eq!(both.lines().filter(|line| *line == format!("got:n{n}")).count(), 1, "n{n}: {both}");
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn sys_is_there_under_mosquittos_names() {
    let place = Place::new();
    let (node, port) = plain_node(&place).await;
    for version in VERSIONS {
        let line = format!("-V {version} -t $SYS/broker/version -t $SYS/broker/clients/connected -C 2 -v");
        let said = done(&place, port, "mosquitto_sub", &line).await;
        assert!(said.out.contains("$SYS/broker/version unhidra version "), "{said}");
        assert!(said.out.contains("$SYS/broker/clients/connected "), "{said}");
    }
    node.stop().await;
}
