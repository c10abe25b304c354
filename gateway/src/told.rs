//! Commands and settings on the wire.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use unhidra_core::command::{Command, CommandState};
use unhidra_core::setting::Setting;
use unhidra_core::time::UnixTime;

use crate::frame::Id;

/// A command on the wire. Its body stays here: whoever may see a device need not see what others
/// told it.
#[derive(Serialize)]
pub(crate) struct CommandEntry<'a> {
    command: String,
    device: Id<'a>,
    name: &'a str,
    state: &'static str,
    created_at: u64,
    expires_at: u64,
    times: Times,
    attempts: u32,
    /// Whose word the end is.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    cause: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    late: Option<LateEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_by: Option<&'a str>,
}

/// When a command was in each state it passed.
#[derive(Serialize)]
struct Times {
    accepted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acting: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expired: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled: Option<u64>,
}

/// What a device said of a command after its end.
#[derive(Serialize)]
struct LateEntry {
    status: &'static str,
    at: u64,
    count: u32,
}

impl<'a> CommandEntry<'a> {
    pub(crate) fn new(command: &'a Command) -> Self {
        let (life, state, ended) = (&command.life, command.state(), command.ended());
        let ended_as = |wanted| ended.filter(|_| state == wanted).map(|ended| ended.at.as_ms());
        Self {
            command: command.id.to_string(),
            device: Id(&command.device),
            name: &command.name,
            state: state.as_str(),
            created_at: command.created_at.as_ms(),
            expires_at: command.expires_at.as_ms(),
            times: Times {
                accepted: command.created_at.as_ms(),
                sent: life.sent_at.map(UnixTime::as_ms),
                delivered: life.delivered_at.map(UnixTime::as_ms),
                acting: life.acting_at.map(UnixTime::as_ms),
                done: ended_as(CommandState::Done),
                failed: ended_as(CommandState::Failed),
                expired: ended_as(CommandState::Expired),
                cancelled: ended_as(CommandState::Cancelled),
            },
            attempts: life.attempts,
            by: ended.map(|ended| ended.by.as_str()),
            cause: ended.map_or("", |ended| &ended.cause),
            late: life.late.map(|late| LateEntry {
                status: late.status.as_str(),
                at: late.at.as_ms(),
                count: late.count,
            }),
            asked_by: command.asked_by.as_deref(),
        }
    }
}

/// A setting on the wire. Its value is told to those alone who may command the device.
#[derive(Serialize)]
pub(crate) struct SettingEntry<'a> {
    device: Id<'a>,
    name: &'a str,
    removed: bool,
    // Versions are about as large as a time in ms: JSON's numbers keep them.
    version: u64,
    changed_at: u64,
    in_sync: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged_version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl<'a> SettingEntry<'a> {
    /// `with_value` says whether whoever reads it may know the value.
    pub(crate) fn new(setting: &'a Setting, with_value: bool) -> Self {
        let value = setting.value.as_deref().filter(|_| with_value);
        let text = value.and_then(|value| std::str::from_utf8(value).ok());
        Self {
            device: Id(&setting.device),
            name: setting.name.as_str(),
            removed: setting.value.is_none(),
            version: setting.version,
            changed_at: setting.changed_at.as_ms(),
            in_sync: setting.is_in_sync(),
            acknowledged_version: setting.acknowledged.map(|of| of.version),
            acknowledged_at: setting.acknowledged.map(|of| of.at.as_ms()),
            asked_by: setting.asked_by.as_deref(),
            text,
            base64: value.filter(|_| text.is_none()).map(|value| STANDARD.encode(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::device;
    use bytes::Bytes;
    use serde_json::{Value, json};
    use unhidra_core::command::{By, Ended, Ending, Late, Life, Stage};
    use unhidra_core::ids::CommandId;
    use unhidra_core::message::ReceiptStatus;
    use unhidra_core::setting::Acknowledged;

    fn ms(ms: u64) -> UnixTime {
        UnixTime::from_ms(ms)
    }

    #[test]
    fn a_command_tells_its_times_its_end_and_what_came_after_and_not_its_body() {
        let command = Command {
            id: CommandId::new([0xab; 16]),
            device: device("pump-7"),
            name: "reboot".into(),
            body: Bytes::from_static(b"secret"),
            created_at: ms(1),
            expires_at: ms(100),
            asked_by: Some("me".into()),
            life: Life {
                stage: Stage::Over(Ended::new(Ending::Failed, By::Device, "no power", ms(6))),
                attempts: 2,
                sent_at: Some(ms(3)),
                delivered_at: Some(ms(4)),
                acting_at: Some(ms(5)),
                late: Some(Late { status: ReceiptStatus::Done, at: ms(7), count: 1 }),
            },
        };
        let value = serde_json::to_value(CommandEntry::new(&command)).expect("JSON");
        let expected = json!({
            "command": "ab".repeat(16), "device": "pump-7", "name": "reboot", "state": "failed",
            "created_at": 1, "expires_at": 100, "attempts": 2, "by": "device", "cause": "no power",
            "times": { "accepted": 1, "sent": 3, "delivered": 4, "acting": 5, "failed": 6 },
            "late": { "status": "done", "at": 7, "count": 1 }, "asked_by": "me",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_settings_value_is_told_to_those_who_may_know_it() {
        let setting = |value: Option<&'static [u8]>| Setting {
            device: device("pump-7"),
            name: "interval".parse().expect("a name"),
            value: value.map(Bytes::from_static),
            version: 9,
            changed_at: ms(9),
            asked_by: None,
            acknowledged: Some(Acknowledged { version: 8, session: 1, at: ms(8) }),
        };
        let read = |setting: &Setting, with| -> Value {
            serde_json::to_value(SettingEntry::new(setting, with)).expect("JSON")
        };
        let shown = read(&setting(Some(b"5")), true);
        assert_eq!(
            (&shown["text"], &shown["in_sync"], &shown["acknowledged_version"]),
            (&json!("5"), &json!(false), &json!(8))
        );
        assert_eq!(read(&setting(Some(&[0xff])), true)["base64"], "/w==");
        assert_eq!(read(&setting(Some(b"5")), false).get("text"), None);
        assert_eq!(read(&setting(None), true)["removed"], true);
    }
}
