//! The checks of what is counted and what is written down.

use crate::validate::{Report, is_canonical};
use crate::{HostSnapshot, LogId, MeteringLabel, MeteringLabelId, Port, Router, limits};

impl HostSnapshot {
    #[allow(clippy::unused_self, reason = "one shape for all tables")]
    pub(crate) fn validate_metering_labels<'a>(
        &self,
        r: &mut Report,
        labels: impl Iterator<Item = (&'a MeteringLabelId, &'a MeteringLabel)>,
    ) {
        for (id, label) in labels {
            let path = |field: &str| format!("metering_labels.{id}.{field}");
            r.count(
                &path("rules"),
                label.rules.len(),
                limits::METERING_RULES_MAX,
            );
            r.check(!label.rules.is_empty(), || path("rules"), "at least one");
            for (n, rule) in label.rules.iter().enumerate() {
                let mut ranges = rule.source.iter().chain(&rule.destination);
                r.check(
                    ranges.all(|range| is_canonical(*range)),
                    || path(&format!("rules[{n}]")),
                    "ranges with their host bits zero",
                );
            }
        }
    }

    /// The labels that a router names.
    pub(crate) fn labels_known(
        &self,
        r: &mut Report,
        router: &Router,
        path: impl Fn(&str) -> String,
    ) {
        let labels = &router.metering_labels;
        let max = limits::METERING_LABELS_PER_ROUTER_MAX;
        r.count(&path("metering_labels"), labels.len(), max);
        let known = |id: &MeteringLabelId| self.metering_labels.contains_key(id);
        r.check(
            labels.iter().all(known),
            || path("metering_labels"),
            "labels in metering_labels",
        );
    }

    /// The logs that a port names.
    pub(crate) fn logs_known(&self, r: &mut Report, port: &Port, path: impl Fn(&str) -> String) {
        r.count(&path("logs"), port.logs.len(), limits::LOGS_PER_PORT_MAX);
        let known = |id: &LogId| self.logs.contains_key(id);
        let good = port.logs.iter().all(known);
        r.check(good, || path("logs"), "logs in logs");
    }
}
