//! Where the gateway's codec looks for its error codes.
#[path = "../../gateway/src/error.rs"]
#[allow(unreachable_pub, dead_code, reason = "the gateway's own; the codec needs one of them")]
mod codes;

pub(crate) use codes::ErrorCode;
