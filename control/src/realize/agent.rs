//! What hosts say of themselves and other hosts' duties depend on, from the rows of their agents.

use super::decode::{At, RowError};
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
