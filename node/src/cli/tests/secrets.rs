//! What was typed and may be a secret: a panic, a log line or an error may print what was parsed.

use super::parse;

#[test]
fn a_token_that_is_typed_is_not_printed() {
    for line in
        ["watch --node http://127.0.0.1:1 --token hunter2", "send d reboot --node http://127.0.0.1:1 --token hunter2"]
    {
        let args = format!("{:?}", parse(line).unwrap());
        assert!(!args.contains("hunter2") && args.contains("[token]"), "{args}");
    }
}

#[test]
fn of_what_is_set_the_keys_are_printed_and_no_value() {
    let args = parse("--set store.master_key_env=hunter2 --set jwt.issuer='a=hunter2' run").unwrap();
    let sources = args.global.sources(crate::config::Purpose::Node);
    for printed in [format!("{args:?}"), format!("{sources:?}")] {
        let keys = printed.contains(r#"["store.master_key_env", "jwt.issuer"]"#);
        assert!(keys && !printed.contains("hunter2"), "{printed}");
    }
}

#[test]
fn what_a_device_is_told_is_printed_by_its_length() {
    for (line, name) in [("send pump-7 unlock hunter2", "unlock"), ("set pump-7 password hunter2", "password")] {
        let args = format!("{:?}", parse(line).unwrap());
        assert!(!args.contains("hunter2") && args.contains(name) && args.contains('7'), "{args}");
    }
}
