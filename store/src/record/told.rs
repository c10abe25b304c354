//! What devices are told: commands and settings.
//!
//! ```text
//! command, version 2                          setting
//!   0, 2: no name is empty                      version varint
//!   name text                                   changed at varint
//!   created at, expires at: varint each         flags 1: bit 0 a value, 1 acknowledged, 2 asked by
//!   attempts varint                             [acknowledged: version, session, at: varint each]
//!   stage 1: 0 waiting, 1 sent,                 [asked by text]
//!     2 delivered, 0x10 + ending                value: the rest
//!   flags 1: bit 0 sent at, 1 delivered at,
//!     2 acting at, 3 late, 4 asked by         command, version 1: read, not written
//!   [sent at, delivered at,                     name text
//!     acting at: varint each]                   created at, expires at: varint each
//!   [ended: by 1, at varint, cause text]        state 1, receipts 0x10 + status
//!   [late: status 1, at varint,                 body: the rest
//!     count varint]
//!   [asked by text]
//!   body: the rest
//! ```

use bytes::Bytes;
use unhidra_core::command::{By, Command, Ended, Ending, Late, Life, Stage};
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::message::ReceiptStatus;
use unhidra_core::setting::{Acknowledged, Setting, SettingName};

use super::{Input, RecordError, put_bytes, put_varint};

/// What the first byte of a command is since version 2; before, it was the length of a name.
const MARK: u8 = 0;
const VERSION: u8 = 2;

const SENT: u8 = 1;
const DELIVERED: u8 = 1 << 1;
const ACTING: u8 = 1 << 2;
const LATE: u8 = 1 << 3;
const ASKED_BY: u8 = 1 << 4;

const ENDED: u8 = 0x10;

pub(crate) fn encode_command(command: &Command) -> Vec<u8> {
    let Command { name, body, created_at, expires_at, asked_by, life, .. } = command;
    let mut out = Vec::with_capacity(64 + name.len() + body.len());
    out.extend_from_slice(&[MARK, VERSION]);
    put_bytes(&mut out, name.as_bytes());
    put_varint(&mut out, created_at.as_ms());
    put_varint(&mut out, expires_at.as_ms());
    put_varint(&mut out, u64::from(life.attempts));
    out.push(match &life.stage {
        Stage::Waiting => 0,
        Stage::Sent => 1,
        Stage::Delivered => 2,
        Stage::Over(ended) => ENDED + ended.how as u8,
    });
    let times = [(SENT, life.sent_at), (DELIVERED, life.delivered_at), (ACTING, life.acting_at)];
    let flag = |flag: u8, is_there: bool| if is_there { flag } else { 0 };
    let of_times = times.iter().fold(0, |flags, (bit, time)| flags | flag(*bit, time.is_some()));
    out.push(of_times | flag(LATE, life.late.is_some()) | flag(ASKED_BY, asked_by.is_some()));
    for time in times.iter().filter_map(|(_, time)| *time) {
        put_varint(&mut out, time.as_ms());
    }
    if let Stage::Over(ended) = &life.stage {
        out.push(ended.by as u8);
        put_varint(&mut out, ended.at.as_ms());
        put_bytes(&mut out, ended.cause.as_bytes());
    }
    if let Some(late) = &life.late {
        out.push(late.status as u8);
        put_varint(&mut out, late.at.as_ms());
        put_varint(&mut out, u64::from(late.count));
    }
    if let Some(asked_by) = asked_by {
        put_bytes(&mut out, asked_by.as_bytes());
    }
    out.extend_from_slice(body);
    out
}

pub(crate) fn decode_command(device: DeviceId, id: CommandId, value: Bytes) -> Result<Command, RecordError> {
    if value.first() != Some(&MARK) {
        return decode_version_1(device, id, value);
    }
    let mut input = Input(value);
    let [_, version] = input.array("the version")?;
    if version != VERSION {
        return Err(RecordError::Value { what: "the version", found: u64::from(version) });
    }
    let name = input.text("the name")?;
    let created_at = input.time("created at")?;
    let expires_at = input.time("expires at")?;
    let attempts = small(input.varint("the attempts")?, "the attempts")?;
    let stage = input.byte("the stage")?;
    let flags = input.byte("the flags")?;
    if flags & !(SENT | DELIVERED | ACTING | LATE | ASKED_BY) != 0 {
        return Err(RecordError::Value { what: "the flags", found: u64::from(flags) });
    }
    let time =
        |input: &mut Input, flag: u8, what| if flags & flag != 0 { input.time(what).map(Some) } else { Ok(None) };
    let sent_at = time(&mut input, SENT, "sent at")?;
    let delivered_at = time(&mut input, DELIVERED, "delivered at")?;
    let acting_at = time(&mut input, ACTING, "acting at")?;
    let stage = match stage {
        0 => Stage::Waiting,
        1 => Stage::Sent,
        2 => Stage::Delivered,
        found => {
            let unknown = RecordError::Value { what: "the stage", found: u64::from(found) };
            let how = found.checked_sub(ENDED).and_then(Ending::from_byte).ok_or(unknown)?;
            let by = input.byte("by whom")?;
            let by = By::from_byte(by).ok_or(RecordError::Value { what: "by whom", found: u64::from(by) })?;
            let at = input.time("ended at")?;
            Stage::Over(Ended { how, by, at, cause: input.text("the cause")? })
        }
    };
    let late = if flags & LATE != 0 {
        let status = input.status()?;
        let at = input.time("late at")?;
        Some(Late { status, at, count: small(input.varint("how often")?, "how often")? })
    } else {
        None
    };
    let asked_by = if flags & ASKED_BY != 0 { Some(input.text("asked by")?) } else { None };
    let life = Life { stage, attempts, sent_at, delivered_at, acting_at, late };
    Ok(Command { id, device, name, body: input.0, created_at, expires_at, asked_by, life })
}

/// A command as it was written before it kept its times. When it ended is not known: no later than
/// its expiry, no earlier than it was made.
fn decode_version_1(device: DeviceId, id: CommandId, value: Bytes) -> Result<Command, RecordError> {
    let mut input = Input(value);
    let name = input.text("the name")?;
    let created_at = input.time("created at")?;
    let expires_at = input.time("expires at")?;
    let over = |how, by, cause| Stage::Over(Ended::new(how, by, cause, created_at));
    let mut acting_at = None;
    let stage = match input.byte("the state")? {
        0 => Stage::Waiting,
        1 => Stage::Sent,
        2 => Stage::Delivered,
        3 => Stage::Over(Ended::new(Ending::Expired, By::Node, "", expires_at)),
        found => {
            let unknown = RecordError::Value { what: "the state", found: u64::from(found) };
            match found.checked_sub(0x10).and_then(ReceiptStatus::from_byte).ok_or(unknown)? {
                ReceiptStatus::Accepted => {
                    acting_at = Some(created_at);
                    Stage::Delivered
                }
                ReceiptStatus::Done => over(Ending::Done, By::Device, ""),
                ReceiptStatus::Failed => over(Ending::Failed, By::Device, ""),
                ReceiptStatus::Unknown => over(Ending::Failed, By::Device, "unknown command"),
                ReceiptStatus::Expired => over(Ending::Expired, By::Device, ""),
            }
        }
    };
    let attempts = u32::from(stage != Stage::Waiting);
    let life = Life { stage, attempts, acting_at, ..Life::default() };
    Ok(Command { id, device, name, body: input.0, created_at, expires_at, asked_by: None, life })
}

const VALUE: u8 = 1;
const ACKNOWLEDGED: u8 = 1 << 1;
const SET_BY: u8 = 1 << 2;

pub(crate) fn encode_setting(setting: &Setting) -> Vec<u8> {
    let value = setting.value.as_deref();
    let mut out = Vec::with_capacity(48 + value.map_or(0, <[u8]>::len));
    put_varint(&mut out, setting.version);
    put_varint(&mut out, setting.changed_at.as_ms());
    let flag = |flag: u8, is_there: bool| if is_there { flag } else { 0 };
    out.push(
        flag(VALUE, value.is_some())
            | flag(ACKNOWLEDGED, setting.acknowledged.is_some())
            | flag(SET_BY, setting.asked_by.is_some()),
    );
    if let Some(acknowledged) = &setting.acknowledged {
        put_varint(&mut out, acknowledged.version);
        put_varint(&mut out, u64::from(acknowledged.session));
        put_varint(&mut out, acknowledged.at.as_ms());
    }
    if let Some(asked_by) = &setting.asked_by {
        put_bytes(&mut out, asked_by.as_bytes());
    }
    out.extend_from_slice(value.unwrap_or_default());
    out
}

pub(crate) fn decode_setting(device: DeviceId, name: SettingName, value: Bytes) -> Result<Setting, RecordError> {
    let mut input = Input(value);
    let version = input.varint("the version")?;
    let changed_at = input.time("changed at")?;
    let flags = input.byte("the flags")?;
    if flags & !(VALUE | ACKNOWLEDGED | SET_BY) != 0 {
        return Err(RecordError::Value { what: "the flags", found: u64::from(flags) });
    }
    let acknowledged = if flags & ACKNOWLEDGED != 0 {
        let version = input.varint("the version acknowledged")?;
        let session = small(input.varint("the session")?, "the session")?;
        Some(Acknowledged { version, session, at: input.time("acknowledged at")? })
    } else {
        None
    };
    let asked_by = if flags & SET_BY != 0 { Some(input.text("asked by")?) } else { None };
    let value = if flags & VALUE != 0 {
        Some(input.0)
    } else {
        input.end()?;
        None
    };
    Ok(Setting { device, name, value, version, changed_at, asked_by, acknowledged })
}

fn small(value: u64, what: &'static str) -> Result<u32, RecordError> {
    u32::try_from(value).map_err(|_| RecordError::Value { what, found: value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use unhidra_core::command::CommandState;
    use unhidra_core::time::UnixTime;

    const MS: fn(u64) -> UnixTime = UnixTime::from_ms;

    fn device_id() -> DeviceId {
        "pump-7".parse().unwrap()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn command() -> Command {
        Command {
            id: CommandId::new([0xcc; 16]),
            device: device_id(),
            name: "go".into(),
            body: Bytes::from_static(b"!"),
            created_at: MS(1),
            expires_at: MS(129),
            asked_by: Some("me".into()),
            life: Life {
                stage: Stage::Over(Ended::new(Ending::Failed, By::Device, "no", MS(6))),
                attempts: 2,
                sent_at: Some(MS(3)),
                delivered_at: Some(MS(4)),
                acting_at: Some(MS(5)),
                late: Some(Late { status: ReceiptStatus::Done, at: MS(7), count: 1 }),
            },
        }
    }

    fn setting() -> Setting {
        Setting {
            device: device_id(),
            name: "interval".parse().unwrap(),
            value: Some(Bytes::from_static(b"5")),
            version: 300,
            changed_at: MS(2),
            asked_by: Some("me".into()),
            acknowledged: Some(Acknowledged { version: 299, session: 4, at: MS(1) }),
        }
    }

    fn read(value: Vec<u8>) -> Result<Command, RecordError> {
        decode_command(device_id(), CommandId::new([0xcc; 16]), value.into())
    }

    /// A later version must read them still.
    #[test]
    fn the_bytes_stand() {
        let times = "1f030405";
        let text = "0002".to_owned() + "02676f" + "018101" + "02" + "11" + times + "0006026e6f" + "010701" + "026d65";
        assert_eq!(hex(&encode_command(&command())), text + "21");
        let text = "ac0202".to_owned() + "07" + "ab020401" + "026d65" + "35";
        assert_eq!(hex(&encode_setting(&setting())), text);
    }

    #[test]
    fn they_read_back_and_no_cut_one_does() {
        let value = encode_command(&command());
        assert_eq!(read(value.clone()), Ok(command()));
        // All but the body, which is what is left.
        for len in 0..value.len() - 1 {
            assert!(read(value[..len].to_vec()).is_err(), "cut at {len}");
        }
        let value = Bytes::from(encode_setting(&setting()));
        let name = || setting().name;
        assert_eq!(decode_setting(device_id(), name(), value.clone()), Ok(setting()));
        for len in 0..value.len() - 1 {
            assert!(decode_setting(device_id(), name(), value.slice(..len)).is_err(), "cut at {len}");
        }
        for changed in [
            Setting { value: None, ..setting() },
            Setting { value: Some(Bytes::new()), asked_by: None, acknowledged: None, ..setting() },
        ] {
            let value = Bytes::from(encode_setting(&changed));
            assert_eq!(decode_setting(device_id(), name(), value), Ok(changed));
        }
    }

    #[test]
    fn every_stage_reads_back() {
        let ends = (0..4).filter_map(Ending::from_byte).flat_map(|how| {
            (0..3).filter_map(By::from_byte).map(move |by| Stage::Over(Ended::new(how, by, "", MS(9))))
        });
        for stage in [Stage::Waiting, Stage::Sent, Stage::Delivered].into_iter().chain(ends) {
            let command = Command { asked_by: None, life: Life { stage, ..Life::default() }, ..command() };
            assert_eq!(read(encode_command(&command)), Ok(command));
        }
    }

    /// What lies in a folder since before commands kept their times.
    #[test]
    fn a_command_of_version_1_is_read() {
        let table = [
            (0x00, CommandState::Accepted, ""),
            (0x01, CommandState::Sent, ""),
            (0x02, CommandState::Delivered, ""),
            (0x03, CommandState::Expired, ""),
            (0x10, CommandState::Delivered, ""),
            (0x11, CommandState::Done, ""),
            (0x12, CommandState::Failed, ""),
            (0x13, CommandState::Expired, ""),
            (0x14, CommandState::Failed, "unknown command"),
        ];
        for (byte, state, cause) in table {
            let value = [b"\x02go\x01\x81\x01".as_slice(), &[byte], b"!"].concat();
            let command = read(value).unwrap();
            assert_eq!((command.state(), &*command.name, &*command.body), (state, "go", b"!".as_slice()));
            assert_eq!(command.ended().map_or("", |ended| &ended.cause), cause, "{byte:02x}");
            assert_eq!(command.life.acting_at.is_some(), byte == 0x10);
        }
        assert!(read(b"\x02go\x01\x81\x01\x15!".to_vec()).is_err());
        assert!(read(b"\x00\x03".to_vec()).is_err(), "a later version");
    }
}
