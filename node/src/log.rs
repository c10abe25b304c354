//! What the node says about itself on stderr.

use std::io::{IsTerminal, stderr};

use serde::Deserialize;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// The shape of a line.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is said, and how. The defaults stand in `node/src/default.toml`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// From which level on: `error`, `warn`, `info`, `debug`, `trace`, `off`, or by room, as in
    /// `info,unhidra_broker=debug`. A level without a room is that of our own rooms; what others'
    /// crates say is heard from `warn` on, unless they are named.
    pub level: String,
    /// The shape of a line.
    pub format: Format,
}

/// Why nothing is said.
#[derive(Debug, Error)]
pub enum LogError {
    /// The level is none.
    #[error(
        "log.level = {found:?}: {cause}; allowed are off, error, warn, info, debug, trace, \
         or one for each room as in info,unhidra_broker=debug"
    )]
    Level {
        /// What was found.
        found: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Somebody listens already.
    #[error("the log is set up already")]
    Twice,
}

/// Starts the log of this process, on stderr: stdout belongs to what was asked for.
///
/// # Errors
///
/// [`LogError`] says what is wrong with the configuration.
pub fn start(config: &Config) -> Result<(), LogError> {
    let filter = parse(&config.level)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal());
    let started = match config.format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().try_init(),
    };
    started.map_err(|_| LogError::Twice)
}

/// Whether a level is one, without starting anything.
///
/// # Errors
///
/// [`LogError::Level`] says what is wrong with it.
pub fn check(level: &str) -> Result<(), LogError> {
    parse(level).map(|_| ())
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

fn parse(level: &str) -> Result<EnvFilter, LogError> {
    let refused = |cause: String| LogError::Level { found: level.to_owned(), cause };
    // The filter would take a level it does not know for the name of a room.
    let mut levels = level.split(',').map(|part| part.rsplit_once('=').map_or(part, |(_, level)| level));
    if let Some(unknown) = levels.find(|word| !LEVELS.contains(word)) {
        return Err(refused(format!("{unknown:?} is no level")));
    }
    EnvFilter::try_new(directives(level)).map_err(|error| refused(error.to_string()))
}

/// The same for the filter, which knows of no rooms of ours.
fn directives(level: &str) -> String {
    let directive = |part: &str| match part {
        "off" | "error" => part.to_owned(),
        // rustls warns of what any peer can send, a name that is an address for instance: from outside
        // the log could be filled.
        part if LEVELS.contains(&part) => format!("warn,rustls=error,unhidra={part}"),
        part => part.to_owned(),
    };
    level.split(',').map(directive).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_that_of_our_own_rooms() {
        for (level, filter) in [
            ("info", "warn,rustls=error,unhidra=info"),
            ("off", "off"),
            ("error", "error"),
            ("info,unhidra_broker=debug,fjall=info", "warn,rustls=error,unhidra=info,unhidra_broker=debug,fjall=info"),
        ] {
            assert_eq!(directives(level), filter);
        }
    }

    #[test]
    fn a_level_is_one_of_the_six_or_one_for_each_room() {
        for good in ["off", "error", "warn", "info", "debug", "trace", "info,unhidra_broker=debug"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["loud", "", "info,loud", "unhidra_broker=loud"] {
            let refused = check(bad).unwrap_err().to_string();
            assert!(refused.contains(&format!("{bad:?}")) && refused.contains("allowed are off"), "{refused}");
        }
    }
}
