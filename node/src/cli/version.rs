//! `unhidra version`

use serde_json::json;

use super::CliError;
use super::output::Output;

pub(super) fn run(out: &mut Output<'_>) -> Result<(), CliError> {
    let version = env!("CARGO_PKG_VERSION");
    out.say(&json!({ "name": "unhidra", "version": version }), &format!("unhidra {version}"))
}
