//! When certificates end: as metrics, and as warnings in time to do something about it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry as MetricsRegistry;
use unhidra_certs::{Certificate, Pki};
use unhidra_core::time::{Clock, UnixTime};

use crate::registry::Registry;

/// How often all certificates are looked at.
const LOOK: Duration = Duration::from_secs(10 * 60);

/// Devices looked at under one lock.
const PAGE: usize = 256;

/// Devices that a warning names: those whose certificates end first.
const DEVICES_NAMED: usize = 20;

/// From how many days on it is warned, once a day.
const WARNED_DAYS: f64 = 30.0;

/// Within how many days the ends of devices' certificates are counted.
const COUNTED_DAYS: [u32; 3] = [1, 7, 30];

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct CertificateLabels {
    of: &'static str,
    name: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct WithinLabels {
    days: u32,
}

/// The metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    expiry_days: Family<CertificateLabels, Gauge<f64, AtomicU64>>,
    devices_ending: Family<WithinLabels, Gauge>,
}

/// A certificate, and how long it holds.
#[derive(Clone, Debug, PartialEq)]
struct Ending {
    of: &'static str,
    name: String,
    /// Below 0 where it has ended.
    days: f64,
}

/// What a look has found.
#[derive(Debug, Default, PartialEq)]
struct Survey {
    /// The node's and the authorities'.
    own: Vec<Ending>,
    /// Those of the devices that end first, the soonest first.
    devices: Vec<Ending>,
    /// How many devices' end within each of [`COUNTED_DAYS`].
    counts: [i64; COUNTED_DAYS.len()],
}

impl Metrics {
    pub(crate) fn register(registry: &mut MetricsRegistry) -> Self {
        let metrics = Self::default();
        registry.register(
            "certificate_expiry_days",
            "Days until a certificate ends: the node's, the authorities', and of all devices the one that ends first",
            metrics.expiry_days.clone(),
        );
        registry.register(
            "device_certificates_ending",
            "Enrolled devices whose certificates end within so many days",
            metrics.devices_ending.clone(),
        );
        metrics
    }

    fn show(&self, survey: &Survey) {
        self.expiry_days.clear();
        for Ending { of, name, days } in &survey.own {
            self.expiry_days.get_or_create(&CertificateLabels { of, name: name.clone() }).set(*days);
        }
        // No device's name: over time there is no end of them, and each would stay a series for ever.
        if let Some(soonest) = survey.devices.first() {
            let labels = CertificateLabels { of: soonest.of, name: "soonest".to_owned() };
            self.expiry_days.get_or_create(&labels).set(soonest.days);
        }
        for (days, count) in COUNTED_DAYS.into_iter().zip(survey.counts) {
            self.devices_ending.get_or_create(&WithinLabels { days }).set(count);
        }
    }
}

/// Looks at all certificates, again and again.
pub(crate) async fn keep(
    metrics: Metrics,
    pki: Arc<ArcSwap<Pki>>,
    registry: Arc<Registry>,
    clock: Arc<dyn Clock + Send + Sync>,
) {
    let mut warned_at = None;
    loop {
        let now = clock.unix_now();
        let mut survey = own(&pki.load(), now);
        of_devices(&registry, now, &mut survey).await;
        metrics.show(&survey);
        if warned_at.is_none_or(|at| now.as_ms().saturating_sub(UnixTime::as_ms(at)) >= millis(DAY)) {
            warn(&survey);
            warned_at = Some(now);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn own(pki: &Pki, now: UnixTime) -> Survey {
    let ending = |of, certificate: &Certificate| {
        // The first digits tell one from another; the whole is in no label.
        let name = certificate.fingerprint().to_string().chars().take(12).collect();
        Ending { of, name, days: days(certificate.expires(), now) }
    };
    let node = pki.identity.chain.first().map(|certificate| ending("node", certificate));
    let between = pki.identity.chain.iter().skip(1).map(|certificate| ending("authority", certificate));
    let roots = pki.roots.iter().map(|certificate| ending("authority", certificate));
    Survey { own: node.into_iter().chain(between).chain(roots).collect(), ..Survey::default() }
}

async fn of_devices(registry: &Registry, now: UnixTime, survey: &mut Survey) {
    let mut first = Vec::new();
    let mut after = None;
    loop {
        let page = registry.page(after.as_ref(), PAGE);
        for device in page.rows.iter().filter(|device| device.is_enrolled()) {
            let days = days(device.certificate_expires, now);
            for (within, count) in COUNTED_DAYS.into_iter().zip(&mut survey.counts) {
                *count += i64::from(days <= f64::from(within));
            }
            first.push(Ending { of: "device", name: device.id.to_string(), days });
        }
        first.sort_by(|a, b| a.days.total_cmp(&b.days));
        first.truncate(DEVICES_NAMED);
        after = page.rows.last().map(|device| device.id);
        if !page.more || after.is_none() {
            survey.devices = first;
            return;
        }
        tokio::task::yield_now().await;
    }
}

fn warn(survey: &Survey) {
    let all = survey.own.iter().chain(&survey.devices);
    for Ending { of, name, days } in all.filter(|ending| ending.days <= WARNED_DAYS) {
        let (days, ended) = (format!("{days:.1}"), *days <= 0.0);
        match (*of, ended) {
            ("device", false) => tracing::warn!(device = name, days, "a device's certificate ends soon; enrol it anew"),
            ("device", true) => tracing::warn!(device = name, days, "a device's certificate has ended"),
            (of, false) => tracing::warn!(of, fingerprint = name, days, "a certificate of this node ends soon"),
            (of, true) => tracing::error!(of, fingerprint = name, days, "a certificate of this node has ended"),
        }
    }
    if let [_, _, ending] = survey.counts
        && ending > 0
    {
        tracing::warn!(devices = ending, within_days = WARNED_DAYS, "certificates of devices end soon");
    }
}

/// Days from now until then, or below 0 since.
pub(crate) fn days(then: UnixTime, now: UnixTime) -> f64 {
    let ms = |from: UnixTime, to: UnixTime| to.as_ms().saturating_sub(from.as_ms()) as f64;
    (ms(now, then) - ms(then, now)) / millis(DAY) as f64
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Enrolment, Replace};
    use crate::testing::{Ground, NOW, id};
    use unhidra_core::device::Fingerprint;
    use unhidra_core::suite::Suite;

    #[tokio::test]
    async fn those_that_end_first_are_named_and_all_are_counted() {
        let ground = Ground::new();
        let registry = ground.registry().await;
        for n in 0..30_u8 {
            let enrolment = Enrolment {
                id: id(&format!("pump-{n:02}")),
                identity_key: [n; 32],
                certificate: Fingerprint([n; 32]),
                certificate_expires: NOW.saturating_add(DAY * u32::from(n)),
                suite: Suite::X3dh,
                tags: Default::default(),
                class: String::new(),
            };
            registry.enroll(enrolment, Replace::No).await.unwrap();
        }
        registry.revoke(id("pump-00")).await.unwrap();
        let mut survey = Survey::default();
        of_devices(&registry, NOW, &mut survey).await;
        assert_eq!(survey.counts, [1, 7, 29], "those within 1, 7 and 30 days, without the revoked one");
        assert_eq!(survey.devices.len(), DEVICES_NAMED);
        assert_eq!((survey.devices[0].name.as_str(), survey.devices[0].days), ("pump-01", 1.0));
        assert!(survey.devices.is_sorted_by(|a, b| a.days <= b.days));
    }

    #[test]
    fn no_metric_has_a_devices_name_and_the_nodes_own_have_theirs() {
        let ending = |of, name: &str, days| Ending { of, name: name.to_owned(), days };
        let mut survey = Survey {
            own: vec![ending("node", "0123456789ab", 5.0)],
            devices: vec![ending("device", "pump-01", 1.0), ending("device", "pump-02", 2.0)],
            counts: [1, 2, 2],
        };
        let mut registry = MetricsRegistry::default();
        let metrics = Metrics::register(&mut registry);
        let shown = |survey: &Survey| {
            metrics.show(survey);
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let text = shown(&survey);
        assert!(!text.contains("pump-"), "{text}");
        for line in [
            "certificate_expiry_days{of=\"node\",name=\"0123456789ab\"} 5.0",
            "certificate_expiry_days{of=\"device\",name=\"soonest\"} 1.0",
            "device_certificates_ending{days=\"7\"} 2",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        survey.devices.clear();
        assert!(!shown(&survey).contains("soonest"), "where there is none, nothing is said of one");
    }

    #[test]
    fn what_has_ended_has_days_below_0() {
        assert_eq!(days(NOW, NOW.saturating_add(DAY * 2)), -2.0);
        assert_eq!(days(NOW.saturating_add(DAY / 2), NOW), 0.5);
    }
}
