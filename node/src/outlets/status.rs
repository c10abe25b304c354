//! What is known of an outlet: for the command line, and for the metrics.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry as MetricsRegistry;
use serde::{Deserialize, Serialize};
use unhidra_core::breaker::BreakerState;
use unhidra_core::time::UnixTime;

use super::config::Kind;
use super::fault::{Cause, Fault};

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OutletLabels {
    outlet: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct FailureLabels {
    outlet: String,
    cause: Cause,
}

/// The metrics of all outlets. There are as many labels as the configuration has outlets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    lag_rows: Family<OutletLabels, Gauge>,
    lag_seconds: Family<OutletLabels, Gauge<f64, AtomicU64>>,
    delivered: Family<OutletLabels, Counter>,
    unread: Family<OutletLabels, Counter>,
    left_behind: Family<OutletLabels, Counter>,
    missing: Family<OutletLabels, Counter>,
    damaged: Family<OutletLabels, Counter>,
    failures: Family<FailureLabels, Counter>,
    breaker: Family<OutletLabels, Gauge>,
}

impl Metrics {
    pub(crate) fn register(registry: &mut MetricsRegistry) -> Self {
        let metrics = Self::default();
        let m = &metrics;
        registry.register("outlet_lag_rows", "Rows of the log an outlet has not done yet", m.lag_rows.clone());
        registry.register(
            "outlet_lag_seconds",
            "How long ago the node heard the oldest row that waits for an outlet",
            m.lag_seconds.clone(),
        );
        registry.register("outlet_rows_delivered", "Rows the other side of an outlet has taken", m.delivered.clone());
        registry.register(
            "outlet_rows_unread",
            "Rows of a local outlet for which nobody who may read them was subscribed",
            m.unread.clone(),
        );
        registry.register(
            "outlet_rows_left_behind",
            "Rows the other side of an outlet refused until they were left behind",
            m.left_behind.clone(),
        );
        registry.register(
            "outlet_rows_missing",
            "Rows that were removed from the log before an outlet took them",
            m.missing.clone(),
        );
        registry.register(
            "outlet_rows_damaged",
            "Rows of the log that do not read, passed over by an outlet",
            m.damaged.clone(),
        );
        registry.register("outlet_failures", "Attempts of an outlet that failed, by cause", m.failures.clone());
        registry.register(
            "outlet_breaker_state",
            "The circuit breaker of an outlet: 0 closed, 1 open, 2 half open",
            m.breaker.clone(),
        );
        metrics
    }
}

/// One outlet, as it is shown.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct OutletRecord {
    /// Its name.
    pub name: String,
    /// `local`, `mqtt` or `webhook`; empty where no node runs.
    pub kind: String,
    /// Where it goes, without what may be secret; empty where no node runs.
    pub target: String,
    /// Its circuit breaker: `closed`, `open` or `half open`; `stopped` where no node runs.
    pub state: String,
    /// Rows of the log it has not done yet, those it does not want among them.
    pub lag_rows: u64,
    /// How long ago the node heard the oldest row that waits, in ms; 0 where none is known to.
    pub lag_ms: u64,
    /// Rows that were taken since the node started.
    pub delivered: u64,
    /// Those among them for which nobody who may read them was subscribed, of `local`.
    #[serde(default)]
    pub unread: u64,
    /// Rows that were refused and left behind, likewise.
    pub left_behind: u64,
    /// Rows that were removed before they were taken, likewise.
    pub missing: u64,
    /// Rows of the log that did not read and were passed over, likewise.
    #[serde(default)]
    pub damaged: u64,
    /// Attempts that failed, likewise.
    pub failures: u64,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When, in ms since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_at: Option<u64>,
}

/// What is known of an outlet that runs.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) name: String,
    kind: Kind,
    target: String,
    metrics: Metrics,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    breaker: Option<BreakerState>,
    lag_rows: u64,
    oldest: Option<UnixTime>,
    delivered: u64,
    unread: u64,
    left_behind: u64,
    missing: u64,
    damaged: u64,
    failures: u64,
    last_error: Option<(UnixTime, String)>,
}

impl Status {
    pub(crate) fn new(name: &str, kind: Kind, target: String, metrics: Metrics) -> Self {
        let status = Self { name: name.to_owned(), kind, target, metrics, seen: Mutex::default() };
        // So that each has its lines before anything has happened.
        let labels = status.labels();
        let m = &status.metrics;
        [&m.delivered, &m.unread, &m.left_behind, &m.missing, &m.damaged]
            .into_iter()
            .for_each(|family| drop(family.get_or_create(&labels)));
        status
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    fn labels(&self) -> OutletLabels {
        OutletLabels { outlet: self.name.clone() }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lags(&self, rows: u64, oldest: Option<UnixTime>, now: UnixTime) {
        let labels = self.labels();
        self.metrics.lag_rows.get_or_create(&labels).set(i64::try_from(rows).unwrap_or(i64::MAX));
        let age = oldest.map_or(0.0, |oldest| now.saturating_since(oldest).as_secs_f64());
        self.metrics.lag_seconds.get_or_create(&labels).set(age);
        let mut seen = self.seen();
        (seen.lag_rows, seen.oldest) = (rows, oldest);
    }

    pub(crate) fn misses(&self, rows: u64) {
        self.metrics.missing.get_or_create(&self.labels()).inc_by(rows);
        self.seen().missing += rows;
    }

    /// Rows of the log did not read.
    pub(crate) fn cannot_read(&self, rows: usize) {
        let rows = rows as u64;
        self.metrics.damaged.get_or_create(&self.labels()).inc_by(rows);
        self.seen().damaged += rows;
    }

    pub(crate) fn delivers(&self, rows: usize) {
        let rows = rows as u64;
        self.metrics.delivered.get_or_create(&self.labels()).inc_by(rows);
        self.seen().delivered += rows;
    }

    /// Rows that were delivered went to nobody.
    pub(crate) fn passes_over(&self, rows: usize) {
        let rows = rows as u64;
        self.metrics.unread.get_or_create(&self.labels()).inc_by(rows);
        self.seen().unread += rows;
    }

    pub(crate) fn leaves_behind(&self) {
        self.metrics.left_behind.get_or_create(&self.labels()).inc();
        self.seen().left_behind += 1;
    }

    pub(crate) fn fails(&self, fault: &Fault, now: UnixTime) {
        let labels = FailureLabels { outlet: self.name.clone(), cause: fault.cause };
        self.metrics.failures.get_or_create(&labels).inc();
        let mut seen = self.seen();
        seen.failures += 1;
        seen.last_error = Some((now, fault.text.clone()));
    }

    /// Takes note of the breaker's state. Says what it was before, where it was another.
    pub(crate) fn breaker(&self, state: BreakerState) -> Option<BreakerState> {
        self.metrics.breaker.get_or_create(&self.labels()).set(i64::from(state.as_number()));
        let before = self.seen().breaker.replace(state);
        before.filter(|before| *before != state)
    }

    pub(crate) fn record(&self, now: UnixTime) -> OutletRecord {
        let seen = self.seen();
        let (at, text) = seen.last_error.clone().unzip();
        OutletRecord {
            name: self.name.clone(),
            kind: self.kind.as_str().to_owned(),
            target: self.target.clone(),
            state: seen.breaker.unwrap_or(BreakerState::Closed).as_str().to_owned(),
            lag_rows: seen.lag_rows,
            lag_ms: seen.oldest.map_or(0, |at| u64::try_from(now.saturating_since(at).as_millis()).unwrap_or(u64::MAX)),
            delivered: seen.delivered,
            unread: seen.unread,
            left_behind: seen.left_behind,
            missing: seen.missing,
            damaged: seen.damaged,
            failures: seen.failures,
            last_error: text,
            last_error_at: at.map(UnixTime::as_ms),
        }
    }
}
