//! Logs: which decisions of security groups are to be written down.

use crate::SecurityGroupId;
use serde::{Deserialize, Serialize};

/// Which decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LogEvent {
    /// Those that let a packet pass.
    Accept,
    /// Those that drop it.
    Drop,
    /// All.
    All,
}

impl LogEvent {
    /// Whether it is of decisions that let a packet pass, or of those that do not.
    #[must_use]
    pub fn is_of(self, allowed: bool) -> bool {
        match self {
            Self::Accept => allowed,
            Self::Drop => !allowed,
            Self::All => true,
        }
    }
}

/// A log; the ports that it is of name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// Which decisions.
    pub event: LogEvent,
    /// Whose decisions, of those of a port; none for all its groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_group_id: Option<SecurityGroupId>,
}
