//! How long readings are kept, and how many: what is beyond goes, the oldest first, while everything
//! else goes on.
//!
//! ```text
//! each interval:  every device --beyond its bounds?--> Op::Trim, some hundred rows a commit
//! each 2 s:       the disk     --over 90 %?--> the oldest rows of all --over 100 %?--> no rows taken
//! ```
//!
//! Nothing is read or counted at a start. A device is looked at when something of it may be due.

mod disk;
mod metrics;
mod recount;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry as MetricsRegistry;
use serde::Deserialize;
use thiserror::Error;
use unhidra_core::time::Clock;
use unhidra_store::{Bounds, Store};

use self::recount::Recount;
use crate::calendar::Calendar;
use crate::registry::Registry;
use disk::Disk;
use metrics::Metrics;
use sweep::Sweep;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The table `[retention]`. Every default stands in `node/src/default.toml`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Days a reading is kept; 0: without end.
    pub days: u64,
    /// Readings of one device; 0: any number.
    pub device_rows_max: u64,
    /// Bytes of one device's readings; 0: any number.
    pub device_bytes_max: u64,
    /// Days a command is kept after its end; 0: without end.
    pub commands_days: u64,
    /// Bytes the store may take of the disk; 0: any number.
    pub disk_bytes_max: u64,
    /// Seconds between two looks at all devices, at least 1.
    pub interval_s: u64,
    /// What holds otherwise for devices of a class.
    pub class: BTreeMap<String, ClassConfig>,
}

/// The table `[retention.class.NAME]`. What it does not name is as in `[retention]`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ClassConfig {
    /// See [`Config::days`].
    pub days: Option<u64>,
    /// See [`Config::device_rows_max`].
    pub device_rows_max: Option<u64>,
    /// See [`Config::device_bytes_max`].
    pub device_bytes_max: Option<u64>,
}

/// The least disk a node can work on: journals and tables in memory alone take more than half.
const DISK_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// A setting out of its bounds.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("retention.{key} = {found}: at least {min} is needed")]
pub struct RetentionError {
    key: &'static str,
    found: u64,
    min: u64,
}

impl Config {
    /// Checks every bound.
    ///
    /// # Errors
    ///
    /// [`RetentionError`] names the first setting out of its bounds.
    pub const fn check(&self) -> Result<(), RetentionError> {
        if self.interval_s == 0 {
            return Err(RetentionError { key: "interval_s", found: 0, min: 1 });
        }
        if self.disk_bytes_max != 0 && self.disk_bytes_max < DISK_BYTES_MIN {
            return Err(RetentionError { key: "disk_bytes_max", found: self.disk_bytes_max, min: DISK_BYTES_MIN });
        }
        Ok(())
    }

    /// What holds for devices of a class; without one, or of another, what holds for all.
    fn bounds(&self, class: &str) -> Bounds {
        let own = self.class.get(class).copied().unwrap_or_default();
        let some = |value: u64| (value != 0).then_some(value);
        Bounds {
            age: some(own.days.unwrap_or(self.days)).map(days),
            rows: some(own.device_rows_max.unwrap_or(self.device_rows_max)),
            bytes: some(own.device_bytes_max.unwrap_or(self.device_bytes_max)),
        }
    }
}

const fn days(count: u64) -> Duration {
    Duration::from_secs(DAY.as_secs().saturating_mul(count))
}

/// Keeps what is kept, and lets the rest go.
pub(crate) struct Retention {
    sweep: Sweep,
    disk: Disk,
    interval: Duration,
}

impl Retention {
    pub(crate) fn new(
        config: &Config,
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock + Send + Sync>,
        calendar: Arc<Calendar>,
        counted: &mut MetricsRegistry,
    ) -> Self {
        let (metrics, recount) = (Metrics::register(counted), Recount::default());
        Self {
            disk: Disk::new(config.disk_bytes_max, store.clone(), clock, metrics.clone(), recount.clone()),
            sweep: Sweep::new(config.clone(), store, registry, calendar, metrics, recount),
            interval: Duration::from_secs(config.interval_s),
        }
    }

    /// Goes on until it is dropped.
    pub(crate) async fn keep(self) {
        let Self { mut sweep, mut disk, interval } = self;
        let looks = async {
            loop {
                tokio::time::sleep(interval).await;
                if let Err(error) = sweep.look().await {
                    tracing::warn!(%error, "what is beyond its time could not be trimmed; tried again later");
                }
            }
        };
        let bounds = async {
            loop {
                if let Err(error) = disk.look().await {
                    tracing::warn!(%error, "the use of the disk could not be held within its bound; tried again");
                }
                tokio::time::sleep(disk.pause()).await;
            }
        };
        tokio::join!(looks, bounds);
    }
}

/// Why a look was given up.
#[derive(Debug, Error)]
enum LookError {
    #[error(transparent)]
    Read(#[from] unhidra_store::ReadError),
    #[error(transparent)]
    Commit(#[from] unhidra_store::CommitError),
}

impl LookError {
    /// Whether it is a record that is damaged, and so of one device alone.
    const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Read(unhidra_store::ReadError::Damaged { .. })
                | Self::Commit(unhidra_store::CommitError::Damaged { .. })
        )
    }
}
