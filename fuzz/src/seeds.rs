//! What the corpora begin with: honest material of every target. No target of its own: it writes
//! `corpus/`, for when a format has changed.
//!
//! ```text
//! cd fuzz && FUZZ_TARGET=seeds $CARGO_TARGET_DIR/HOST/release/unhidra-fuzz -runs=1
//! ```

use std::fs;
use std::path::Path;

use unhidra_e2ee::envelope::PrekeyRequest;
use unhidra_e2ee::suite::Suite;

use crate::fixed::{Fixed, Side};
use crate::pair::{NONCE, Pair, Written};

pub(crate) fn run(_: &[u8]) {
    for suite in Suite::ALL {
        let fixed = Fixed::of(suite);
        let name = |what: &str| format!("{what}-{suite}");
        let down = fixed.messages.iter().find(|message| message.to == Side::Device).expect("the node has sent");
        let request = PrekeyRequest { suite, nonce: NONCE }.encode();
        write("envelope", &name("prekey-request"), &[&request]);
        write("envelope", &name("message"), &[&down.sealed]);
        write("envelope", &name("reset"), &[&fixed.reset]);
        write("envelope", &name("bundle"), &[&fixed.bundle]);
        write("bundle", &name("as-it-comes"), &[&[0], &fixed.bundle]);
        write("bundle", &name("signed"), &[&[1], &fixed.bundle]);
        for (target, before) in [("envelope", &[][..]), ("handshake", &[0])] {
            write(target, &name("handshake"), &[before, &fixed.first_sealed]);
            write(target, &name("handshake-later"), &[before, &fixed.messages[0].sealed]);
        }
        states(suite);
    }
    for (name, changed) in
        [("honest", None), ("counter", Some(77)), ("suite", Some(1)), ("identity", Some(2)), ("spk", Some(66))]
    {
        let mut changes = [0; 78];
        if let Some(at) = changed {
            changes[at] = 3;
        }
        write("handshake", &format!("resealed-{name}"), &[&[1], &changes, b"text"]);
    }
    scripts();
    frames();
}

/// Records of both sides: before the first answer, after it, with keys kept, and with chain records.
fn states(suite: Suite) {
    let mut pair = Pair::begun_with(suite, 7);
    let put = |name: &str, pair: &Pair| {
        for (role, who, written) in [(0, "device", &pair.device_disk[0]), (1, "node", &pair.node_disk[0])] {
            state(&format!("{who}-{name}-{suite}"), role, written);
        }
    };
    put("begun", &pair);
    let hello = pair.node_seals(b"hello");
    pair.device_opens(&hello).expect("it opens");
    let late: Vec<_> = (0..6).map(|_| (pair.device_seals(b"up"), pair.node_seals(b"down"))).collect();
    put("sent", &pair);
    for (up, down) in [&late[3], &late[5]] {
        pair.node_opens(up).expect("it opens");
        pair.device_opens(down).expect("it opens");
    }
    put("skipped", &pair);
    pair.device_reboots();
    let up = pair.device_seals(b"up");
    pair.node_opens(&up).expect("it opens");
    let up = pair.device_seals(b"up");
    pair.node_opens(&up).expect("it opens");
    put("stepped", &pair);
}

fn state(name: &str, role: u8, written: &Written) {
    let (receive, send) = (written.receive.as_deref().unwrap_or_default(), written.send.as_deref().unwrap_or_default());
    let len = |record: &[u8]| u8::try_from(record.len()).expect("at most 48");
    write("state", name, &[&[role, len(receive), len(send)], receive, send, &written.whole]);
}

/// The numbers are those of `World::step`.
fn scripts() {
    const TALK: [u8; 18] = [0, 0, 0, 2, 0, 0, 1, 0, 0, 3, 0, 0, 0, 0, 0, 2, 0, 0];
    let talks: [(&str, &[u8]); 12] = [
        ("talk", &[]),
        ("late", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 0, 2, 1, 0, 2, 0, 0]),
        ("twice-and-lost", &[0, 0, 0, 4, 0, 0, 4, 0, 0, 0, 0, 0, 6, 1, 0, 1, 0, 0, 5, 0, 0, 5, 0, 0, 7, 0, 0]),
        ("tampered", &[0, 0, 0, 8, 0, 9, 2, 0, 0, 1, 0, 0, 9, 0, 20, 3, 0, 0]),
        ("power", &[0, 0, 0, 12, 0, 0, 10, 0, 0, 0, 0, 0, 11, 0, 0, 2, 1, 0, 1, 0, 0, 13, 0, 0]),
        ("step", &[14, 0, 11, 0, 0, 0, 2, 0, 0, 1, 0, 0, 3, 0, 0, 14, 0, 11, 0, 0, 0, 2, 0, 0]),
        ("again", &[15, 0, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 3, 0, 0]),
        ("reset", &[16, 0, 0, 17, 0, 0, 0, 0, 0, 2, 0, 0, 17, 0, 0]),
        ("restored", &[18, 0, 0, 0, 0, 0, 2, 0, 0, 18, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 11, 0, 0]),
        ("restored-seals", &[18, 0, 0, 1, 0, 0, 18, 0, 0, 1, 0, 0]),
        ("late-over-a-step", &[0, 0, 0, 14, 0, 11, 0, 0, 0, 2, 1, 0, 2, 0, 0]),
        (
            "a-day",
            &[
                0, 0, 0, 0, 0, 0, 2, 1, 0, 14, 0, 255, 14, 0, 255, 14, 0, 255, 14, 0, 255, 14, 0, 255, 14, 0, 255, 19,
                0, 0, 2, 0, 0,
            ],
        ),
    ];
    for (settings, (name, steps)) in (0_u8..).zip(talks) {
        write("script", name, &[&[7, settings], &TALK, steps]);
    }
}

/// Frames of WebSocket as a client sends them, each masked with the same four bytes.
fn frames() {
    let frame = |first: u8, payload: &[u8]| {
        let mask = [0x11, 0x22, 0x44, 0x88];
        let mut frame = match u8::try_from(payload.len()) {
            Ok(len) if len <= 125 => vec![first, 0x80 | len],
            _ => {
                let len = u16::try_from(payload.len()).expect("at most 65 535");
                [&[first, 0x80 | 126][..], &len.to_be_bytes()].concat()
            }
        };
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    };
    let parts = [frame(0x02, b"be"), frame(0x89, b"there?"), frame(0x00, b""), frame(0x80, b"gin")];
    write("websocket", "parts-and-a-ping", &[&[6], &parts.concat()]);
    write("websocket", "long", &[&[99], &frame(0x82, &[7; 200]), &frame(0x8a, b"nobody asked")]);
    write("websocket", "close", &[&[255], &frame(0x82, b"last"), &frame(0x88, &[0x03, 0xe9, b'b']), b"more"]);
    write("websocket", "too-long", &[&[0, 0x82, 0xff, 0, 0, 0, 0, 0, 1, 0x86, 0xa1, 1, 2, 3, 4]]);
    write("websocket", "text", &[&[0], &frame(0x81, b"text")]);
}

fn write(target: &str, name: &str, parts: &[&[u8]]) {
    let folder = Path::new("corpus").join(target);
    fs::create_dir_all(&folder).expect("the folder of this crate");
    fs::write(folder.join(name), parts.concat()).expect("a place for it");
}
