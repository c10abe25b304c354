//! The binary, with real clients: `target/PROFILE/unhidra` as people start it.

mod bad_input;
mod browser;
mod clients;
mod commands;
mod demo;
mod fingerprint;
mod kept;
mod kill;
mod ledger;
mod minimq;
mod mosquitto;
mod mosquitto_plain;
mod mqttjs;
mod paho;
mod peer;
mod plain;
mod power;
mod records;
mod refusals;
mod reload;
mod restart;
mod rumqttc;
mod rumqttc_v4;
mod users;
mod watch;
