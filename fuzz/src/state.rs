//! What a disk may give back: a state record and its two chain records, of either role.
//!
//! ```text
//! role(1) receive_len(1) send_len(1) receive record, send record, state record
//! ```
//!
//! Bit 0 of the first byte is the role, 0 the device's. A length of 0 is no record.

use std::num::NonZeroU8;

use unhidra_e2ee::role::{DeviceRole, Role};
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::Sessions;

use crate::fixed::{Fixed, LATER, open, rng};
use crate::pair::{Node, durable, encode};

pub(crate) fn run(data: &[u8]) {
    let [role, receive_len, send_len, rest @ ..] = data else { return };
    let Some((receive, rest)) = rest.split_at_checked((*receive_len).into()) else { return };
    let Some((send, whole)) = rest.split_at_checked((*send_len).into()) else { return };
    let records = Records { whole, receive: present(receive), send: present(send) };
    match role & 1 {
        0 => device(&records),
        _ => node(&records),
    }
}

struct Records<'a> {
    whole: &'a [u8],
    receive: Option<&'a [u8]>,
    send: Option<&'a [u8]>,
}

fn present(record: &[u8]) -> Option<&[u8]> {
    (!record.is_empty()).then_some(record)
}

/// A record that is read is written as the same bytes; with chain records beside it, as bytes that
/// read as the same.
fn read<R: Role>(records: &Records<'_>) -> Option<Session<R>> {
    if let Ok(session) = Session::<R>::decode(records.whole, None, None) {
        assert_eq!(encode(&session), records.whole, "a state has two records");
    }
    let session = Session::<R>::decode(records.whole, records.receive, records.send).ok()?;
    let written = encode(&session);
    let again = Session::<R>::decode(&written, None, None);
    let Ok(again) = again else { panic!("{again:?} from what was written") };
    assert_eq!(encode(&again), written);
    Some(session)
}

/// Whatever the record says, a message that meets it stops nothing.
fn use_it<R: Role>(session: Session<R>) -> Sessions<R> {
    let fixed = Fixed::of(session.suite());
    let mut sessions = Sessions::new(Some(session), None, Default::default());
    for message in &fixed.messages {
        open(&mut sessions, &message.sealed, LATER);
    }
    let _ = (sessions.keys_expire_at(), sessions.expire_keys(LATER).count());
    sessions
}

fn device(records: &Records<'_>) {
    let Some(session) = read::<DeviceRole>(records) else { return };
    let mut sessions = use_it(session);
    let _ = (sessions.may_restart(LATER), sessions.restart_due(LATER));
    let Some(session) = sessions.present_mut() else { return };
    let next = session.next_number();
    let Ok((_, lease)) = session.lease(NonZeroU8::MAX, LATER, &mut rng()) else { return };
    let at_end = encode(session);
    let lease = lease.grant(durable());
    let mut out = vec![0; session.sealed_len(5)];
    if session.seal_within(&lease, b"first", &mut out, LATER).is_ok() {
        // A step begins again at 0; else the number is the one that was next.
        assert!([1, next.wrapping_add(1)].contains(&session.next_number()));
        assert_eq!(encode(session), at_end, "what is written stands at the lease's end");
    }
}

fn node(records: &Records<'_>) {
    let Some(session) = read::<Node>(records) else { return };
    let mut sessions = use_it(session);
    let Some(session) = sessions.present_mut() else { return };
    let _ = (session.has_room_for_alive(), session.alive_due_at());
    let (next, before) = (session.next_number(), encode(session));
    match session.seal(b"first", vec![0; session.sealed_len(5)]) {
        Ok(_) => assert_eq!(session.next_number(), next + 1),
        Err(_) => assert_eq!(encode(session), before, "a seal that failed changed the session"),
    }
}
