//! Metering labels: which of them are a router's, and what they count.
//!
//! A label is that of all routers of its project, or of all projects if it is shared. One without rules counts nothing, and
//! is told to nobody.

use super::change::set;
use super::decode::{At, Result, Router};
use super::index::{Move, of};
use super::rows::Rows;
use super::snapshot::View;
use super::trial::Key;
use crate::store::Resource;
use crate::store::metering::{MeteringLabelRow, MeteringLabelRuleRow};
use std::collections::BTreeSet;
use weft_model::{Direction, MeteringLabelId, MeteringRule, RouterId, limits};

/// A label with rules.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MeteringLabel {
    pub(super) project_id: String,
    pub(super) shared: bool,
    pub(super) label: weft_model::MeteringLabel,
}

/// None if it has no rules.
pub(super) fn metering_label(
    row: MeteringLabelRow,
    rules: &[MeteringLabelRuleRow],
) -> Result<Option<MeteringLabel>> {
    let rule = |row: &MeteringLabelRuleRow| {
        let at = At(Resource::MeteringLabelRule, &row.id);
        let range = |column, text: &Option<String>| {
            text.as_deref()
                .map(|text| at.range(column, text))
                .transpose()
        };
        let direction = at.named("direction", &row.direction)?;
        let remote = range("remote_ip_prefix", &row.remote_ip_prefix)?;
        let (from, to) = match direction {
            Direction::Ingress => (remote, None),
            Direction::Egress => (None, remote),
        };
        Ok(MeteringRule {
            direction,
            source: from.or(range("source_ip_prefix", &row.source_ip_prefix)?),
            destination: to.or(range("destination_ip_prefix", &row.destination_ip_prefix)?),
            excluded: row.excluded,
        })
    };
    let rules = rules.iter().map(rule).collect::<Result<Vec<_>>>()?;
    if rules.is_empty() {
        return Ok(None);
    }
    let at = At(Resource::MeteringLabel, &row.id);
    let rules = at.at_most("rules", rules, limits::METERING_RULES_MAX)?;
    Ok(Some(MeteringLabel {
        project_id: row.project_id,
        shared: row.shared,
        label: weft_model::MeteringLabel { rules },
    }))
}

impl Rows {
    pub(super) fn metering_label_set(&mut self, id: MeteringLabelId, label: Option<MeteringLabel>) {
        self.changing(Key::MeteringLabel(id));
        let Some(old) = set(&mut self.metering_labels, id, label) else {
            return;
        };
        self.marks.metering_labels.insert(id);
        let mut routers: BTreeSet<RouterId> = BTreeSet::new();
        for (to, label) in [
            (Move::Out, old.as_ref()),
            (Move::In, self.metering_labels.get(&id)),
        ] {
            let Some(label) = label else {
                continue;
            };
            let project = Some(&label.project_id).filter(|_| !label.shared);
            let by = &mut self.index.labels_by_project;
            to.apply(by, project.cloned(), id);
            match project {
                Some(project) => routers.extend(of(&self.index.routers_by_project, project)),
                None => routers.extend(self.routers.keys()),
            }
        }
        for router in routers {
            self.mark_router(router);
        }
    }
}

impl View<'_> {
    /// The labels of a router that has a gateway, in order, and not more than it may have.
    pub(super) fn metering_labels(&self, id: RouterId, router: &Router) -> Vec<MeteringLabelId> {
        let by = &self.index().labels_by_project;
        let own = of(by, &Some(router.project_id.clone()));
        let all: BTreeSet<_> = own.chain(of(by, &None)).copied().collect();
        let max = limits::METERING_LABELS_PER_ROUTER_MAX;
        if all.len() > max {
            tracing::error!(router = %id, labels = all.len(), max, "the last metering labels count nothing");
        }
        all.into_iter().take(max).collect()
    }
}
