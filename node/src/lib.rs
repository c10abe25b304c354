//! Room under construction.

pub mod admin;
mod commit;
pub mod control;
mod http;
pub mod log;
pub mod registry;
