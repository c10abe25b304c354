//! The binary, with real clients: `target/PROFILE/unhidra` as people start it.

mod ledger;
mod mosquitto;
mod restart;
