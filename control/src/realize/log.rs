//! Logs: which of them are a port's.
//!
//! One that names a port is that port's; one that names a group, that of its project's ports in the group; one that names
//! neither, that of all its project's ports. One that names both is the port's while it is in the group.

use super::change::set;
use super::decode::{At, Port, Result};
use super::index::{Move, of};
use super::rows::Rows;
use super::snapshot::View;
use super::trial::Key;
use crate::store::Resource;
use crate::store::log::LogRow;
use std::collections::BTreeSet;
use weft_model::{LogId, PortId, SecurityGroupId, limits};

/// A log that is enabled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Log {
    pub(super) project_id: String,
    pub(super) port_id: Option<PortId>,
    pub(super) log: weft_model::Log,
}

/// What logs are found by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Named {
    Port(PortId),
    Group(SecurityGroupId),
    Project(String),
}

impl Log {
    fn named(&self) -> Named {
        match (self.port_id, self.log.security_group_id) {
            (Some(port), _) => Named::Port(port),
            (None, Some(group)) => Named::Group(group),
            (None, None) => Named::Project(self.project_id.clone()),
        }
    }
}

/// None if it is not enabled.
pub(super) fn log(row: &LogRow) -> Result<Option<Log>> {
    if !row.enabled {
        return Ok(None);
    }
    let at = At(Resource::Log, &row.id);
    let port = row.target_id.as_deref();
    let group = row.resource_id.as_deref();
    Ok(Some(Log {
        project_id: row.project_id.clone(),
        port_id: port.map(|id| at.parse("target_id", id)).transpose()?,
        log: weft_model::Log {
            event: at.named("event", &row.event)?,
            security_group_id: group.map(|id| at.parse("resource_id", id)).transpose()?,
        },
    }))
}

impl Rows {
    pub(super) fn log_set(&mut self, id: LogId, log: Option<Log>) {
        self.changing(Key::Log(id));
        let Some(old) = set(&mut self.logs, id, log) else {
            return;
        };
        self.marks.logs.insert(id);
        let mut ports: BTreeSet<PortId> = BTreeSet::new();
        for (to, log) in [(Move::Out, old.as_ref()), (Move::In, self.logs.get(&id))] {
            let Some(named) = log.map(Log::named) else {
                continue;
            };
            let by_group = |group| to.apply(&mut self.index.logs_by_group, group, id);
            log.and_then(|log| log.log.security_group_id).map(by_group);
            match &named {
                Named::Port(port) => drop(ports.insert(*port)),
                Named::Group(group) => ports.extend(of(&self.index.members, group)),
                Named::Project(project) => {
                    let own = |(_, port): &(&PortId, &Port)| *port.project_id == **project;
                    ports.extend(self.ports.iter().filter(own).map(|(id, _)| *id));
                }
            }
            to.apply(&mut self.index.logs, named, id);
        }
        for port in ports {
            self.mark_guest(port);
        }
    }

    /// Takes out what goes in the database with what it names.
    pub(super) fn logs_remove(&mut self, named: &Named) {
        let by_group = match named {
            Named::Group(group) => Some(*group),
            Named::Port(_) | Named::Project(_) => None,
        };
        let by_group = by_group.into_iter();
        let by_group = by_group.flat_map(|group| of(&self.index.logs_by_group, &group).copied());
        let gone = of(&self.index.logs, named).copied().chain(by_group);
        for id in gone.collect::<BTreeSet<LogId>>() {
            self.log_set(id, None);
        }
    }
}

impl View<'_> {
    /// The logs of a port, in order, and not more than it may have.
    pub(super) fn logs(&self, id: PortId, port: &Port) -> Vec<LogId> {
        if self.rows().logs.is_empty() {
            return Vec::new();
        }
        let groups = port.security_groups.iter().copied().map(Named::Group);
        let named = [
            Named::Port(id),
            Named::Project(port.project_id.clone().into()),
        ];
        let named = named.into_iter().chain(groups);
        let found = named.flat_map(|named| of(&self.index().logs, &named).copied());
        let is_its_own = |id: &LogId| {
            let Some(log) = self.rows().logs.get(id) else {
                return false;
            };
            let group = log.log.security_group_id;
            let in_group = group.is_none_or(|group| port.security_groups.contains(&group));
            in_group && (log.port_id.is_some() || *log.project_id == *port.project_id)
        };
        let all: BTreeSet<LogId> = found.filter(is_its_own).collect();
        let max = limits::LOGS_PER_PORT_MAX;
        if all.len() > max {
            tracing::error!(port = %id, logs = all.len(), max, "the port's last logs are not written");
        }
        all.into_iter().take(max).collect()
    }
}
