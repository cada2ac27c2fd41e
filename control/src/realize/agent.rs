//! What hosts say of themselves and other hosts' duties depend on, from the rows of their agents.

use super::decode::{At, RowError};
use super::index::{Move, of};
use super::rows::Rows;
use super::trial::Key;
use crate::app::agent::L2;
use crate::store::Resource;
use crate::store::agent::AgentRow;
use std::collections::BTreeSet;
use weft_model::HostName;

/// A host's Weft agent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Agent {
    pub(super) host: HostName,
    /// What the host is connected to.
    pub(super) physical_networks: BTreeSet<String>,
}

/// Decodes a Weft agent; none of another type.
pub(super) fn agent(row: &AgentRow) -> Result<Option<Agent>, RowError> {
    if row.agent_type != L2 {
        return Ok(None);
    }
    Ok(Some(Agent {
        host: At(Resource::Agent, &row.id).parse("host", &row.host)?,
        physical_networks: row.physical_networks.0.iter().cloned().collect(),
    }))
}

impl Rows {
    /// What a host says of itself, by the id of its agent.
    pub(super) fn agent_set(&mut self, id: &str, agent: Option<Agent>) {
        self.changing(Key::Agent(id.to_owned()));
        if self.agents.get(id) == agent.as_ref() {
            return;
        }
        let old = self.agents.remove(id);
        for (to, agent) in [(Move::Out, &old), (Move::In, &agent)] {
            if let Some(agent) = agent {
                self.index.agent(to, agent);
                self.mark_segments(&agent.host);
            }
        }
        if let Some(agent) = agent {
            self.agents.insert(id.to_owned(), agent);
        }
    }

    /// The networks that have several segments, as a host has them, and its guests on them as others do.
    fn mark_segments(&mut self, host: &HostName) {
        if self.loading || self.segments.is_empty() {
            return;
        }
        self.marks.networks.extend(self.segments.keys());
        for id in of(&self.index.guests_by_host, host) {
            let network = self.ports.get(id).map(|port| port.network_id);
            if let Some(network) = network.filter(|id| self.segments.contains_key(id)) {
                let remote = self.marks.remote_ports.entry(network).or_default();
                remote.insert(*id);
            }
        }
    }
}
