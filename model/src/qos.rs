//! QoS policies (Neutron's bandwidth limit, packet rate limit and DSCP marking rules).
//!
//! They have their place in the snapshot so that every engine meets them; an engine that does not enforce one
//! says so in its report ([`crate::Unsupported`]).

use serde::{Deserialize, Serialize};

/// A direction as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QosDirection {
    /// To the guest.
    Ingress,
    /// From the guest.
    Egress,
}

/// A limit in kilobits a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QosBandwidthLimit {
    /// Which way.
    pub direction: QosDirection,
    /// kbit/s.
    pub max_kbps: u32,
    /// kbit; 0 means Neutron's default of 80 % of the rate.
    pub max_burst_kbps: u32,
}

/// A limit in thousands of packets a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QosPacketRateLimit {
    /// Which way.
    pub direction: QosDirection,
    /// Thousand packets a second.
    pub max_kpps: u32,
    /// Thousand packets; 0 means 80 % of the rate.
    pub max_burst_kpps: u32,
}

/// What a QoS policy asks of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QosPolicy {
    /// At most one a direction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bandwidth_limits: Vec<QosBandwidthLimit>,
    /// At most one a direction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packet_rate_limits: Vec<QosPacketRateLimit>,
    /// One of Neutron's 22 valid marks, written into packets from the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp_mark: Option<u8>,
}
