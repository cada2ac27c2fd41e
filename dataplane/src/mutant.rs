//! Mistakes that can be planted in the reference engine, so that the tests of engines can be tested: machinery that does
//! not find these would not find a real one. Never set but by tests.

/// A planted mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// A rule's port range has no end.
    PortRangeEnd,
    /// A rule for an ICMP type holds for all codes.
    IcmpCode,
    /// A rule's remote group is everybody.
    RemoteGroup,
    /// Ingress rules see the source before its translation.
    IngressSource,
    /// A routed packet keeps its TTL.
    Ttl,
    /// The first route that matches is taken, not the longest.
    LongestPrefix,
    /// A session outlives a change of policy.
    StaleSession,
    /// A session serves packets to any MAC address.
    SessionMac,
    /// An ICMP session serves queries of any type.
    SessionIcmpType,
    /// A TCP session may be opened by any segment.
    OpenerTest,
    /// SNAT takes a port without asking whether it is free.
    SnatPortTaken,
    /// SNAT's first candidate may lie outside of the block.
    SnatBlock,
    /// A translated UDP datagram without a checksum gets one.
    UdpZeroChecksum,
    /// The packet inside of an ICMP error is not translated.
    IcmpErrorInside,
    /// Later fragments pass port security without a look at their source.
    FragmentSource,
    /// An ARP packet may speak for any address.
    ArpSender,
    /// ND from beyond a router is answered.
    NdHopLimit,
    /// Replies are not measured against the MTU.
    ReplyMtu,
    /// A packet through a floating IP on another router loses only one of its TTL.
    HairpinTtl,
    /// What goes into a tunnel says another network.
    TunnelVni,
    /// Tunnels take frames from anybody.
    TunnelSender,
    /// What came from a tunnel may have any source MAC address, and is answered as if by a bridge.
    TunnelBack,
    /// What goes into a tunnel unrouted is not measured against the MTU.
    TunnelMtu,
    /// A port's limits towards it are those of the port that the packet came from.
    QosIngress,
    /// A frame whose tag is of no network is of the flat one.
    VlanNative,
    /// Multicast comes back to its sender.
    MulticastSender,
    /// What came out of a tunnel by multicast goes into tunnels again.
    MulticastAgain,
    /// Copies pass whatever the destination's rules say.
    MulticastIngress,
    /// A forwarded port keeps its number.
    ForwardingPort,
    /// A tag that no subport has is no tag.
    TrunkNative,
    /// A router with NDP proxies lets everything in.
    NdpProxies,
    /// Routers forward between address scopes.
    AddressScope,
    /// Answers pass a stateless port without a rule.
    StatelessReply,
    /// So do ICMP errors.
    StatelessError,
    /// Limits of floating IPs and gateways hold the wrong way round.
    QosAddress,
    /// Ports of all roles of a private VLAN reach each other.
    Pvlan,
    /// A router is a way around what keeps ports of a private VLAN apart.
    PvlanRouted,
    /// SNAT translates within an address scope too.
    ScopeNat,
    /// A stateless port takes only what may open a session.
    StatelessOpener,
    /// Metering labels see what leaves with the source that NAT gives it.
    MeterSource,
    /// A rule of a metering label that excludes counts as one that does not.
    MeterExcluded,
    /// Logs have decisions of every event.
    LogEvent,
    /// Logs have what the rules say again of a session that stays.
    LogStale,
    /// A local IP is never translated.
    LocalIp,
    /// VLANs of the guests' own share their sessions.
    GuestVlanSession,
    /// No rule is asked for what has a guest's own tag.
    GuestVlanRules,
    /// What has a guest's own tag reaches routers.
    GuestVlanRouted,
}

impl Mutant {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::PortRangeEnd,
        Self::IcmpCode,
        Self::RemoteGroup,
        Self::IngressSource,
        Self::Ttl,
        Self::LongestPrefix,
        Self::StaleSession,
        Self::SessionMac,
        Self::SessionIcmpType,
        Self::OpenerTest,
        Self::SnatPortTaken,
        Self::SnatBlock,
        Self::UdpZeroChecksum,
        Self::IcmpErrorInside,
        Self::FragmentSource,
        Self::ArpSender,
        Self::NdHopLimit,
        Self::ReplyMtu,
        Self::HairpinTtl,
        Self::TunnelVni,
        Self::TunnelSender,
        Self::TunnelBack,
        Self::TunnelMtu,
        Self::QosIngress,
        Self::VlanNative,
        Self::MulticastSender,
        Self::MulticastAgain,
        Self::MulticastIngress,
        Self::ForwardingPort,
        Self::TrunkNative,
        Self::NdpProxies,
        Self::AddressScope,
        Self::StatelessReply,
        Self::StatelessError,
        Self::QosAddress,
        Self::Pvlan,
        Self::PvlanRouted,
        Self::ScopeNat,
        Self::StatelessOpener,
        Self::MeterSource,
        Self::MeterExcluded,
        Self::LogEvent,
        Self::LogStale,
        Self::LocalIp,
        Self::GuestVlanSession,
        Self::GuestVlanRules,
        Self::GuestVlanRouted,
    ];
}
