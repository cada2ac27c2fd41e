//! Weft's shared vocabulary: typed ids, addresses, the resources of one host, the [`HostSnapshot`] that every
//! engine enforces, its deltas, the feed's messages, drop reasons and limits.
//!
//! Guarantees: no I/O, no async, no clock. Everything that crosses a process boundary (snapshot files, the feed)
//! is a serde type here, refuses unknown fields, and is checked as a whole by [`HostSnapshot::validate`].
//!
//! It does not know how a packet is parsed (`weft-wire`), how an engine enforces (`weft-ebpf`), or how the
//! control plane stores its rows (`weft-control`).

mod address;
mod delta;
mod drop_reason;
mod feed;
mod floating_ip;
mod id;
pub mod limits;
mod local_ip;
mod log;
mod metering;
mod network;
mod port;
mod qos;
mod router;
mod security_group;
mod snapshot;
mod stage;
mod validate;
mod validate_floating_ip;
mod validate_gateway;
mod validate_log;
mod validate_port;
mod validate_security_group;

pub use address::{MacAddress, MacAddressError, eui64_link_local};
pub use delta::{DeltaError, SetDelta, SnapshotDelta, TableDelta};
pub use drop_reason::DropReason;
pub use feed::{
    Claim, FeedMessage, HostReport, PortReport, PortStatus, Unsupported, VhostUserHost,
};
pub use floating_ip::{
    FloatingIp, ForwardedIp, PortForwarding, PortForwardingElsewhere, RemoteFloatingIp,
};
pub use id::{
    AddressGroupId, AddressScopeId, Epoch, FloatingIpId, HostName, HostNameError, LocalIpId, LogId,
    MeteringLabelId, NetworkId, PortForwardingId, PortId, QosPolicyId, Revision, RouterId,
    SecurityGroupId, SecurityGroupRuleId, SubnetId,
};
pub use local_ip::{LocalIp, LocalIpMode, LocalIpTarget};
pub use log::{Log, LogEvent};
pub use metering::{Metered, MeteringLabel, MeteringRegions, MeteringRule};
pub use network::{HostRoute, Ipv6Mode, Network, NetworkType, Segment, Subnet, Transit};
pub use port::{
    AllowedAddressPair, DhcpOption, FixedIp, Port, PortInterface, PvlanRole, RemotePort,
    VhostUserMode,
};
pub use qos::{
    QosBandwidthLimit, QosDirection, QosPacketRateLimit, QosPolicy, RATE_FRACTION_BITS, Rate,
};
pub use router::{
    ConntrackHelper, PortBlock, Router, RouterAddress, RouterGateway, RouterInterface, RouterRoute,
};
pub use security_group::{
    AddressGroup, Direction, EtherType, PortRange, Remote, SecurityGroup, SecurityGroupMember,
    SecurityGroupRule,
};
pub use snapshot::{HostSnapshot, SNAPSHOT_FORMAT, SnapshotFileError, TunnelHost};
pub use stage::Stage;
pub use validate::Invalid;
