//! One client's side of the protocol, without I/O.
//!
//! ```text
//!               authenticate                     token expires, no pong,
//!   Greeting ------------------> Open             too many faults, drain
//!      |      right version,      |                        |
//!      |       good token         +------------------------+--> Closed
//!      +--- nothing in time, wrong version, bad token ---------->
//! ```
//!
//! A request that is wrong is answered with an error and changes nothing; the connection ends only
//! where going on makes no sense.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::message::MessageName;
use unhidra_core::setting::Setting;
use unhidra_core::time::{Timestamp, UnixTime};

use crate::auth::{Authority, Rights, TokenName, Visible};
use crate::cursor::{Cursors, Position};
use crate::doors::{Cancel, NewCommand, NewSetting};
use crate::error::{Close, ErrorCode, TokenRefused};
use crate::frame::{self, Audience, Malformed, Reply, Request, RequestId, Seen};

/// Faulty frames, and pings, that a client may send at once; one more is allowed each second.
const BURST: u32 = 32;
/// Devices in one answer at most, and where the client does not say.
const DEVICES_MAX: u32 = 500;
/// Readings in one answer at most.
const HISTORY_MAX: u32 = 500;
/// Commands in one answer at most.
const COMMANDS_MAX: u32 = 256;

/// What bounds a client.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) authenticate: Duration,
    pub(crate) ping: Duration,
    pub(crate) pong: Duration,
    pub(crate) frame_len_max: usize,
    pub(crate) subscriptions_max: usize,
    pub(crate) command_expires: Duration,
    pub(crate) command_expires_max: Duration,
}

/// What the client's requests are judged by.
pub(crate) struct Bench<'a> {
    pub(crate) now: Timestamp,
    pub(crate) unix_now: UnixTime,
    pub(crate) authority: &'a dyn Authority,
    pub(crate) cursors: &'a Cursors,
}

/// What the shell is to do. Every `id` goes back with the answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    Subscribe {
        id: RequestId,
        audience: Audience,
        from: From,
    },
    Unsubscribe {
        id: RequestId,
        audience: Audience,
    },
    Devices {
        id: RequestId,
        visible: Visible,
        after: Option<DeviceId>,
        limit: usize,
    },
    History {
        id: RequestId,
        device: DeviceId,
        newest: usize,
    },
    Send {
        id: RequestId,
        new: NewCommand,
    },
    Cancel {
        id: RequestId,
        cancel: Cancel,
    },
    /// `newest` of all; without, those that are not final.
    Commands {
        id: RequestId,
        device: DeviceId,
        newest: Option<usize>,
    },
    Command {
        id: RequestId,
        device: DeviceId,
        command: CommandId,
    },
    Set {
        id: RequestId,
        new: NewSetting,
    },
    /// `values` is whether the client may know them.
    Settings {
        id: RequestId,
        device: DeviceId,
        values: bool,
    },
    /// It has shown a token of this name.
    Entered(TokenName),
    Close(Close),
}

/// Where a subscription begins.
#[derive(Debug, PartialEq)]
pub(crate) enum From {
    /// With what comes next.
    Now,
    /// With the first row there is.
    Beginning,
    /// Behind a place.
    After(Position),
}

/// One client.
pub(crate) struct Client {
    limits: Limits,
    state: State,
    subscriptions: BTreeSet<Audience>,
    faults: Budget,
    pings: Budget,
    replies: VecDeque<Bytes>,
    events: VecDeque<Event>,
}

enum State {
    Greeting { deadline: Timestamp },
    Open { rights: Rights, expires: Timestamp, ping: Ping },
    Closed,
}

enum Ping {
    Due { at: Timestamp },
    Awaited { until: Timestamp },
}

impl Client {
    pub(crate) fn new(limits: Limits, now: Timestamp) -> Self {
        let deadline = now.saturating_add(limits.authenticate);
        Self {
            limits,
            state: State::Greeting { deadline },
            subscriptions: BTreeSet::new(),
            faults: Budget::new(now),
            pings: Budget::new(now),
            replies: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Handles a text message.
    pub(crate) fn handle_text(&mut self, text: &str, bench: &Bench<'_>) {
        // Whoever always has something to say is not waited for, and its time is over all the same.
        match self.state {
            State::Greeting { deadline } if deadline <= bench.now => return self.close(Close::AuthenticationTimeout),
            State::Open { expires, .. } if expires <= bench.now => return self.close(Close::TokenExpired),
            _ => {}
        }
        if let State::Open { ping, .. } = &mut self.state {
            *ping = Ping::Due { at: bench.now.saturating_add(self.limits.ping) };
        }
        let (id, request) = match Request::parse(text) {
            Ok(request) => request,
            Err(malformed) => return self.fault(&malformed, bench.now),
        };
        let outcome = match (&self.state, request) {
            (State::Closed, _) => Ok(()),
            (State::Greeting { .. }, Request::Authenticate { version, token }) => {
                self.authenticate(version, &token, bench);
                Ok(())
            }
            (State::Open { .. }, Request::Authenticate { .. }) => {
                Err((ErrorCode::AlreadyAuthenticated, "one connection, one token".to_owned()))
            }
            (State::Greeting { .. }, _) => {
                Err((ErrorCode::NotAuthenticated, "the first message is authenticate".to_owned()))
            }
            (State::Open { rights, .. }, request) => {
                let rights = rights.clone();
                self.serve(id, request, &rights, bench)
            }
        };
        if let Err((code, message)) = outcome {
            self.fault(&Malformed { id, code, message }, bench.now);
        }
    }

    /// Handles a binary message: there are none.
    pub(crate) fn handle_binary(&mut self) {
        self.close(Close::NotText);
    }

    /// Handles a ping of WebSocket itself. Each is answered below us, into a queue that only the
    /// peer's reading empties, so their number is bounded here.
    pub(crate) fn handle_ping(&mut self, now: Timestamp) {
        if !self.pings.spend(now) {
            self.close(Close::TooManyFaults);
        }
    }

    /// Acts on what is due.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        match &mut self.state {
            State::Greeting { deadline } if *deadline <= now => self.close(Close::AuthenticationTimeout),
            State::Open { expires, .. } if *expires <= now => self.close(Close::TokenExpired),
            State::Open { ping: Ping::Awaited { until }, .. } if *until <= now => self.close(Close::NoAnswer),
            State::Open { ping: ping @ Ping::Due { .. }, .. } => {
                if let Ping::Due { at } = ping
                    && *at <= now
                {
                    *ping = Ping::Awaited { until: now.saturating_add(self.limits.pong) };
                    self.replies.push_back(Reply::Ping {}.encode());
                }
            }
            State::Greeting { .. } | State::Open { .. } | State::Closed => {}
        }
    }

    /// The next frame to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<Bytes> {
        self.replies.pop_front()
    }

    /// The next thing to do.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.state {
            State::Greeting { deadline } => Some(*deadline),
            State::Open { expires, ping: Ping::Due { at: due } | Ping::Awaited { until: due }, .. } => {
                Some(*due.min(expires))
            }
            State::Closed => None,
        }
    }

    /// Forgets a subscription that the shell could not begin.
    pub(crate) fn not_subscribed(&mut self, audience: &Audience) {
        self.subscriptions.remove(audience);
    }

    fn authenticate(&mut self, version: u32, token: &str, bench: &Bench<'_>) {
        if version != frame::VERSION {
            return self.close(Close::VersionUnsupported);
        }
        let rights = match bench.authority.rights(token) {
            Ok(rights) => rights,
            Err(TokenRefused::Unknown) => return self.close(Close::TokenRefused),
            Err(TokenRefused::Expired) => return self.close(Close::TokenExpired),
        };
        let welcome = Reply::Welcome {
            version: frame::VERSION,
            server_time: bench.unix_now,
            expires_at: rights.expires_at,
            devices: match &rights.devices {
                Visible::All => Seen::All,
                Visible::Set(devices) => Seen::Set(devices),
            },
            may_command: rights.may_command,
            ping_s: self.limits.ping.as_secs(),
            frame_len_max: self.limits.frame_len_max,
            subscriptions_max: self.limits.subscriptions_max,
        };
        self.replies.push_back(welcome.encode());
        let expires = bench.now.saturating_add(rights.expires_at.saturating_since(bench.unix_now));
        let ping = Ping::Due { at: bench.now.saturating_add(self.limits.ping) };
        self.events.push_back(Event::Entered(rights.name.clone()));
        self.state = State::Open { rights, expires, ping };
    }

    fn serve(&mut self, id: RequestId, request: Request, rights: &Rights, bench: &Bench<'_>) -> Outcome {
        match request {
            Request::Authenticate { .. } | Request::Pong {} => {}
            Request::Ping {} => self.replies.push_back(Reply::Pong { id }.encode()),
            Request::Subscribe { device, since } => self.subscribe(id, device, since.as_deref(), rights, bench)?,
            Request::Unsubscribe { device } => {
                if !self.subscriptions.remove(&device) {
                    return Err((ErrorCode::NotSubscribed, format!("{device} is not subscribed to")));
                }
                self.events.push_back(Event::Unsubscribe { id, audience: device });
            }
            Request::Devices { after, limit } => {
                let limit = limit.unwrap_or(DEVICES_MAX).clamp(1, DEVICES_MAX) as usize;
                self.events.push_back(Event::Devices { id, visible: rights.devices.clone(), after, limit });
            }
            Request::History { device, newest } => {
                see(rights, &device)?;
                let newest = newest.clamp(1, HISTORY_MAX) as usize;
                self.events.push_back(Event::History { id, device, newest });
            }
            Request::Send { device, command: own, name, text, base64, expires_after_ms } => {
                command(rights, &device)?;
                let new = NewCommand {
                    id: own,
                    device,
                    name: name.parse::<MessageName>().map_err(|error| (ErrorCode::BadRequest, error.to_string()))?,
                    body: body(text, base64)?,
                    expires_after: self.lifetime(expires_after_ms)?,
                    asked_by: asked_by(rights),
                };
                self.events.push_back(Event::Send { id, new });
            }
            Request::Cancel { device, command: which } => {
                command(rights, &device)?;
                let cancel = Cancel { device, command: which, asked_by: asked_by(rights) };
                self.events.push_back(Event::Cancel { id, cancel });
            }
            Request::Commands { device, newest } => {
                see(rights, &device)?;
                let newest = newest.map(|newest| newest.clamp(1, COMMANDS_MAX) as usize);
                self.events.push_back(Event::Commands { id, device, newest });
            }
            Request::Set { device, name, text, base64, remove } => {
                command(rights, &device)?;
                let new = NewSetting { device, name, value: value(text, base64, remove)?, asked_by: asked_by(rights) };
                self.events.push_back(Event::Set { id, new });
            }
            Request::Settings { device } => {
                see(rights, &device)?;
                self.events.push_back(Event::Settings { id, device, values: rights.may_command });
            }
            Request::Command { device, command } => {
                see(rights, &device)?;
                self.events.push_back(Event::Command { id, device, command });
            }
        }
        Ok(())
    }

    fn subscribe(
        &mut self,
        id: RequestId,
        audience: Audience,
        since: Option<&str>,
        rights: &Rights,
        bench: &Bench<'_>,
    ) -> Outcome {
        match &audience {
            Audience::All if rights.devices != Visible::All => {
                return Err((ErrorCode::Forbidden, "the token shows some devices: subscribe to each".to_owned()));
            }
            Audience::All => {}
            Audience::Device(device) => see(rights, device)?,
        }
        if self.subscriptions.contains(&audience) {
            return Err((ErrorCode::AlreadySubscribed, format!("{audience} is subscribed to already")));
        }
        let max = self.limits.subscriptions_max;
        if self.subscriptions.len() >= max {
            return Err((ErrorCode::TooManySubscriptions, format!("at most {max} subscriptions a connection")));
        }
        let from = match since {
            None => From::Now,
            Some("beginning") => From::Beginning,
            Some(cursor) => match bench.cursors.decode(cursor) {
                Ok(position) => From::After(position),
                Err(error) => return Err((error.code(), error.to_string())),
            },
        };
        self.subscriptions.insert(audience);
        self.events.push_back(Event::Subscribe { id, audience, from });
        Ok(())
    }

    fn lifetime(&self, ms: Option<u64>) -> Result<Duration, (ErrorCode, String)> {
        let asked = ms.map_or(self.limits.command_expires, Duration::from_millis);
        let max = self.limits.command_expires_max;
        if asked.is_zero() || asked > max {
            let message = format!("expires_after_ms is {}; 1 to {} are allowed", asked.as_millis(), max.as_millis());
            return Err((ErrorCode::BadRequest, message));
        }
        Ok(asked)
    }

    fn fault(&mut self, malformed: &Malformed, now: Timestamp) {
        let Malformed { id, code, message } = malformed;
        self.replies.push_back(Reply::Error { id: *id, code: *code, message }.encode());
        if !self.faults.spend(now) {
            self.close(Close::TooManyFaults);
        }
    }

    fn close(&mut self, close: Close) {
        if !matches!(self.state, State::Closed) {
            self.state = State::Closed;
            self.events.push_back(Event::Close(close));
        }
    }
}

type Outcome = Result<(), (ErrorCode, String)>;

/// Who asks, for the log of acts: the token, by its name.
fn asked_by(rights: &Rights) -> Arc<str> {
    format!("token:{}", rights.name).into()
}

// What a client may not see does not exist for it: the same answer whether or not it is enrolled.
fn see(rights: &Rights, device: &DeviceId) -> Outcome {
    if rights.devices.contains(device) {
        Ok(())
    } else {
        Err((ErrorCode::Forbidden, format!("the token does not show {device}")))
    }
}

fn command(rights: &Rights, device: &DeviceId) -> Outcome {
    see(rights, device)?;
    if rights.may_command { Ok(()) } else { Err((ErrorCode::Forbidden, "the token may not command".to_owned())) }
}

fn body(text: Option<String>, base64: Option<String>) -> Result<Bytes, (ErrorCode, String)> {
    match (text, base64) {
        (None, None) => Ok(Bytes::new()),
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => match STANDARD.decode(base64) {
            Ok(body) => Ok(body.into()),
            Err(error) => Err((ErrorCode::BadRequest, format!("base64: {error}"))),
        },
        (Some(_), Some(_)) => Err((ErrorCode::BadRequest, "a body is text or base64, not both".to_owned())),
    }
}

fn value(text: Option<String>, base64: Option<String>, remove: bool) -> Result<Option<Bytes>, (ErrorCode, String)> {
    let bad = |message: &str| Err((ErrorCode::BadRequest, message.to_owned()));
    match (remove, text.is_some() || base64.is_some()) {
        (true, true) => return bad("a setting is removed or has a value, not both"),
        (true, false) => return Ok(None),
        (false, false) => return bad("a setting has a value, text or base64, or remove is true"),
        (false, true) => {}
    }
    let value = body(text, base64)?;
    let (len, max) = (value.len(), Setting::VALUE_LEN_MAX);
    if len > max {
        return Err((ErrorCode::TooLarge, format!("a value of {len} bytes; at most {max} are allowed")));
    }
    Ok(Some(value))
}

/// How often something that costs us may happen: a burst, and then once a second.
struct Budget {
    left: u32,
    counted_at: Timestamp,
}

impl Budget {
    const fn new(now: Timestamp) -> Self {
        Self { left: BURST, counted_at: now }
    }

    fn spend(&mut self, now: Timestamp) -> bool {
        let earned = now.saturating_since(self.counted_at).as_secs();
        self.counted_at = self.counted_at.saturating_add(Duration::from_secs(earned));
        self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(BURST);
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests;
