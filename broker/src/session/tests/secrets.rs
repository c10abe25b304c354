//! What a client proves itself with has no place in a log.

use super::*;
use crate::session::Request;

#[test]
fn a_request_to_come_in_prints_neither_user_name_nor_password() {
    let request = Request {
        client_id: None,
        clean_start: true,
        user_name: Some(text("hunter2")),
        password: Some(Bytes::from_static(b"hunter2")),
    };
    let printed = format!("{request:?}");
    let bytes = format!("{:?}", b"hunter2");
    assert!(printed.contains("[secret]") && !printed.contains("hunter2") && !printed.contains(&bytes), "{printed}");
}
