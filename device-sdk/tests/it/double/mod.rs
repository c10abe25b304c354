//! A world of one device: its flash, which loses power, and a node behind a broker.

mod broker;
mod flash;
mod node;
mod wire;
mod world;

pub(crate) use flash::Cut;
pub(crate) use node::Said;
pub(crate) use world::{BODY_MAX, Told, World, suites};
