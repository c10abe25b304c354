//! The simulated world: an [`App`](unhidra_node::app::App) on doors that a test holds, and devices
//! and clients that walk through them.
