//! A node that is killed, and Mosquitto's clients who find again what they had.

use std::net::SocketAddr;

use rustix::process::Signal;
use unhidra_tests::process::{Ended, Node, Place, Process};

use super::plain::plain_node;

async fn done(place: &Place, node: SocketAddr, program: &str, line: &str) -> Ended {
    let mut command = place.program(program, "mosquitto-clients");
    command.args(["-h", "127.0.0.1", "-p", &node.port().to_string()]).args(line.split_whitespace());
    let ended = Process::start(&format!("{program} {line}"), command).ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
    ended
}

async fn killed(node: Node) {
    node.process.signal(Signal::KILL);
    let ended = node.process.ended().await;
    assert_eq!(ended.status, None, "{ended}");
}

#[tokio::test]
async fn after_sigkill_sessions_what_waits_for_them_and_retained_messages_are_there() {
    let place = Place::new();
    let (node, port) = plain_node(&place).await;
    for (version, expiry) in [("311", ""), ("5", "-x 600")] {
        let session = format!("-V {version} -c {expiry} -i keeper-{version} -q 2 -t lab/#");
        done(&place, port, "mosquitto_sub", &format!("{session} -E")).await;
    }
    for n in 0..6 {
        // Answered, hence stored.
        done(&place, port, "mosquitto_pub", &format!("-V 5 -q {} -t lab/t -m n{n}", 1 + n % 2)).await;
    }
    done(&place, port, "mosquitto_pub", "-V 5 -q 1 -r -t site/state -m on").await;
    killed(node).await;

    let (node, port) = plain_node(&place).await;
    for (version, expiry) in [("311", ""), ("5", "-x 600")] {
        let session = format!("-V {version} -c {expiry} -i keeper-{version} -q 2 -t lab/#");
        let back = done(&place, port, "mosquitto_sub", &format!("{session} -C 6 -F got:%p")).await;
        let mut lines: Vec<&str> = back.out.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["got:n0", "got:n1", "got:n2", "got:n3", "got:n4", "got:n5"], "{back}");
    }
    let state = done(&place, port, "mosquitto_sub", "-V 5 -q 1 -t site/# -C 1 -F got:%r:%p").await;
    assert_eq!(state.out.trim(), "got:1:on", "{state}");
    node.stop().await;
}
