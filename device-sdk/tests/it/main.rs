//! The device from outside: its MQTT client against a scripted server, and the whole of it against
//! a node's double, over power cuts.
#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

mod client;
mod commands;
mod double;
mod mosquitto;
mod power_cut;
mod sessions;
mod settings;
