//! Metering labels: what of the traffic through routers' gateways is counted together.

use crate::Direction;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A label: what any of its rules matches is counted, but for what one that excludes matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeteringLabel {
    /// At least one, at most [`crate::limits::METERING_RULES_MAX`].
    pub rules: Vec<MeteringRule>,
}

/// A rule of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeteringRule {
    /// As the router sees it: ingress comes in by the gateway, egress leaves by it.
    pub direction: Direction,
    /// Where it comes from; none for anywhere. Host bits are zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpNet>,
    /// Where it goes; none for anywhere. Host bits are zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpNet>,
    /// Whether it is left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub excluded: bool,
}
