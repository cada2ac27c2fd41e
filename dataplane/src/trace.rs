//! What is told about a packet: each stage's decision in words, the verdict, the session, the revision.

use crate::flow::key::{SessionKey, Tuple};
use crate::flow::session::{State, Way};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use weft_model::{Direction, DropReason, NetworkId, PortId, Revision, SecurityGroupRuleId, Stage};

/// One stage's decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The stage.
    pub stage: Stage,
    /// What it decided, in words.
    pub decision: String,
    /// The security group rule that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<SecurityGroupRuleId>,
}

/// Which of the agent's services gets a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// DHCP.
    Dhcp,
    /// DHCPv6.
    Dhcpv6,
    /// A router solicitation.
    Ra,
    /// ARP or ND that tells of a neighbour.
    Neighbour,
    /// ARP or ND by which a guest says that an address is its own.
    Claim,
}

impl Service {
    /// Its name, as vectors and traces write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dhcp => "dhcp",
            Self::Dhcpv6 => "dhcpv6",
            Self::Ra => "ra",
            Self::Neighbour => "neighbour",
            Self::Claim => "claim",
        }
    }
}

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Dead, for this reason.
    Drop(DropReason),
    /// Out to a local guest.
    Deliver {
        /// The guest's port.
        port: PortId,
        /// The frame as the guest gets it.
        frame: Vec<u8>,
    },
    /// Out of a physical network's interface. With destination MAC zero: to the agent first, which resolves it.
    Uplink {
        /// The network.
        network: NetworkId,
        /// The frame as it leaves, with its tag.
        frame: Vec<u8>,
    },
    /// To another host, by the underlay. Both outer MACs are zero.
    Tunnel {
        /// The frame as it leaves, with its outer headers.
        frame: Vec<u8>,
    },
    /// Back to where it came from.
    Reply {
        /// The answer.
        frame: Vec<u8>,
    },
    /// To the agent.
    Service(Service),
    /// Nothing but its copies.
    Multicast,
    /// The host's own.
    Pass,
}

/// What a packet had to do with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encounter {
    /// It opened the session.
    Opened,
    /// It belongs to the session.
    Hit,
    /// It belongs to the session, which was walked again because policy or topology had changed.
    Revalidated,
    /// It is an ICMP error about a packet of the session.
    Error,
}

/// The session that a packet met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionNote {
    /// How.
    pub encounter: Encounter,
    /// In which direction.
    pub way: Way,
    /// The forward entry's key.
    pub forward: SessionKey,
    /// The reply entry's key.
    pub reply: SessionKey,
    /// Its state now.
    pub state: State,
    /// The revision it was computed under.
    pub revision: Revision,
}

/// A copy for the agent, beside the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Copy {
    /// An ARP request or NS from the uplink: tells of its sender.
    Neighbour,
    /// ARP or ND by which a guest says that an address is its own.
    Claim,
    /// The frame's next hop has to be resolved.
    NeighbourNeeded(IpAddr),
    /// Calls for an ICMP "time exceeded".
    TtlExceeded,
    /// Calls for an ICMP "fragmentation needed" or "packet too big" with this MTU.
    MtuExceeded(u32),
}

/// What a port's security groups said of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Decision {
    /// The port.
    pub port_id: PortId,
    /// From the guest or to it.
    pub direction: Direction,
    /// Whether a rule allowed it.
    pub allowed: bool,
    /// The packet as the port's rules see it.
    pub tuple: Tuple,
    /// ICMP: type and code.
    pub icmp: Option<(u8, u8)>,
}

/// All that is told about a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// What becomes of it.
    pub verdict: Verdict,
    /// Each stage's decision, in order.
    pub steps: Vec<Step>,
    /// Its tuple, if it is an IP packet.
    pub tuple: Option<Tuple>,
    /// Its session.
    pub session: Option<SessionNote>,
    /// What the agent gets beside.
    pub copy: Option<Copy>,
    /// Of multicast and broadcast: what members get, each to be delivered or to go by a tunnel.
    pub copies: Vec<Verdict>,
    /// Decisions that a log is to have.
    pub logs: Vec<Decision>,
    /// The revision in force.
    pub revision: Revision,
}

/// The steps so far.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// In order.
    pub steps: Vec<Step>,
    /// Decisions that may be written down, in order.
    pub decisions: Vec<Decision>,
}

impl Trace {
    /// Adds a decision.
    pub fn say(&mut self, stage: Stage, decision: impl Into<String>) {
        self.steps.push(Step {
            stage,
            decision: decision.into(),
            rule: None,
        });
    }

    /// Adds a decision that a rule made.
    pub fn say_rule(
        &mut self,
        stage: Stage,
        decision: impl Into<String>,
        rule: SecurityGroupRuleId,
    ) {
        self.steps.push(Step {
            stage,
            decision: decision.into(),
            rule: Some(rule),
        });
    }
}
