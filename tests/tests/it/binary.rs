//! The binary, with real clients: `target/PROFILE/unhidra` as people start it.

mod bad_input;
mod browser;
mod commands;
mod demo;
mod fingerprint;
mod ledger;
mod minimq;
mod mosquitto;
mod peer;
mod records;
mod refusals;
mod reload;
mod restart;
mod rumqttc;
mod watch;
