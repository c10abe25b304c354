//! Sockets and tasks: a thin shell around the cores.

pub(crate) mod dispatch;
pub(crate) mod http;
pub(crate) mod replay;
pub(crate) mod serve;
pub(crate) mod websocket;
