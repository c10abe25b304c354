//! Which suites this build has (PROTOCOL.md section 3). Suite 2 stands behind the Cargo feature
//! `pqxdh`, so that a device that was enrolled with suite 1 need not carry ML-KEM.

use thiserror::Error;
pub use unhidra_core::suite::Suite;

/// A suite byte that this build does not take.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SuiteError {
    /// There is no such suite.
    #[error("suite {found}; there are 1 and 2")]
    Unknown {
        /// The byte found.
        found: u8,
    },
    /// There is, and this build leaves it out.
    #[error("suite {}, which this build leaves out: it needs the feature pqxdh", .found.as_byte())]
    NotBuilt {
        /// The suite found.
        found: Suite,
    },
}

/// Whether this build has a suite.
#[must_use]
pub const fn is_built(suite: Suite) -> bool {
    match suite {
        Suite::X3dh => true,
        Suite::Pqxdh => cfg!(feature = "pqxdh"),
    }
}

/// The suite of a byte.
///
/// # Errors
///
/// [`SuiteError`]: there is no such suite, or it is left out.
pub const fn built(byte: u8) -> Result<Suite, SuiteError> {
    match Suite::from_byte(byte) {
        None => Err(SuiteError::Unknown { found: byte }),
        Some(suite) if is_built(suite) => Ok(suite),
        Some(suite) => Err(SuiteError::NotBuilt { found: suite }),
    }
}
