//! Room under construction.

pub mod admin;
pub mod cli;
mod commit;
pub mod config;
pub mod control;
pub mod folder;
mod http;
pub mod keys;
pub mod log;
pub mod registry;
pub mod tls;
#[cfg(test)]
mod testing;
