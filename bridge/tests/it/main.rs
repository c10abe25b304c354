//! The bridge beside a device made of `e2ee` and a ledger that keeps what the store would.

mod contact;
mod device;
mod failures;
mod ledger;
