//! The bridge beside a device made of `e2ee` and a ledger that keeps what the store would.

#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

mod bounds;
mod contact;
mod damage;
mod device;
mod doors;
mod failures;
mod ledger;
mod orders;
mod outside;
mod restored;
mod suites;
