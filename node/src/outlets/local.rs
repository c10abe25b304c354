//! Rows to the clients of this node's own broker, under its rules.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use unhidra_broker::packet::{Properties, Property, Text};
use unhidra_broker::{Broker, Showing, Shown};
use unhidra_core::ids::Epoch;

use super::config::{Config, Format};
use super::fault::{Cause, Sent};
use super::record::{RowId, put_json};
use super::runner::Item;
use super::template::level;

/// This node's broker.
pub(crate) struct Local {
    broker: Arc<Broker>,
    showing: Showing,
    raw: bool,
    retain: bool,
    epoch: Epoch,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl Local {
    pub(crate) fn new(config: &Config, broker: Arc<Broker>, epoch: Epoch) -> Self {
        let showing = Showing::new(broker.clone());
        Self { broker, showing, raw: config.format == Format::Raw, retain: config.retain, epoch }
    }

    /// Routes a run of rows, and waits for those who read them as a client that publishes does. They are
    /// taken once the broker has them, and has stored them for the sessions that outlive their
    /// connections; what becomes of them in the queue of a client that is too slow is its policy's.
    pub(crate) async fn send(&self, rows: &[&Item]) -> Sent {
        let mut unread = 0;
        for item in rows {
            let (payload, properties) = message(item, self.raw, self.epoch);
            let name = level(&item.row.uplink.name);
            let shown =
                Shown { device: &item.row.uplink.device, name: &name, payload, retain: self.retain, properties };
            unread += usize::from(self.showing.show(shown).await == 0);
        }
        if self.broker.settled().await {
            Sent { unread, ..Sent::all(rows.len()) }
        } else {
            Sent::failed(0, Cause::Unavailable, "the broker stores nothing any more")
        }
    }
}

/// A row's payload and properties. What a raw body does not say is said beside it.
fn message(item: &Item, raw: bool, epoch: Epoch) -> (Bytes, Properties) {
    let mut properties = Properties::default();
    for (name, value) in user_properties(item, epoch) {
        if let (Ok(name), Ok(value)) = (Text::from_bytes(name.into()), Text::from_bytes(value.into())) {
            properties.push(Property::UserProperty(name, value));
        }
    }
    (payload(item, raw, epoch), properties)
}

/// What a message holds.
pub(super) fn payload(item: &Item, raw: bool, epoch: Epoch) -> Bytes {
    if raw {
        return item.row.uplink.body.clone();
    }
    let mut body = Vec::new();
    put_json(epoch, &item.row, item.device.as_deref(), &mut body);
    body.into()
}

/// What is said beside a payload, in MQTT 5.0.
pub(super) fn user_properties(item: &Item, epoch: Epoch) -> Vec<(String, String)> {
    let uplink = &item.row.uplink;
    let mut properties = vec![
        ("id".to_owned(), RowId::of(epoch, &item.row).to_string()),
        ("received_at".to_owned(), uplink.received_at.as_ms().to_string()),
    ];
    properties.extend(uplink.device_time.map(|time| ("time".to_owned(), time.as_ms().to_string())));
    properties
}
