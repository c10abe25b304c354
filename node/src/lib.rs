//! Room under construction.

mod commit;
pub mod control;
mod http;
pub mod log;
pub mod registry;
