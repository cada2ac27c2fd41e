//! Events: frames that the programs hand to the agent, out of the ring buffer.

use crate::compile::{SlotTables, address_ip};
use std::net::IpAddr;
use weft_ebpf_common::constants::{event, log, slot};
use weft_ebpf_common::layout::{EventHead, LogRecord};
use weft_model::{Direction, NetworkId, PortId};
use zerocopy::FromBytes;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// DHCP from a guest.
    Dhcp,
    /// DHCPv6 from a guest.
    Dhcpv6,
    /// A router solicitation from a guest.
    Ra,
    /// ARP or ND from outside, whose sender can be learnt. It has been answered already, if it was a question.
    Neighbour,
    /// A finished frame whose next hop's MAC is not known: resolve `next_hop`, call `neighbour_put`, write the MAC into
    /// the frame and send it out of the network. A guest may have left the layer-4 checksum to the device: complete it.
    NeighbourNeeded,
    /// The frame's TTL ran out: the guest is owed an ICMP error.
    TtlExceeded,
    /// The frame is larger than the MTU ahead: the guest is owed an ICMP error.
    MtuExceeded,
    /// ARP or ND by which a guest says that an address of its pairs is its own. On a physical network it has been sent out.
    Claim,
}

impl EventKind {
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            event::DHCP => Self::Dhcp,
            event::DHCPV6 => Self::Dhcpv6,
            event::RA => Self::Ra,
            event::NEIGHBOUR => Self::Neighbour,
            event::NEIGHBOUR_NEEDED => Self::NeighbourNeeded,
            event::TTL_EXCEEDED => Self::TtlExceeded,
            event::MTU_EXCEEDED => Self::MtuExceeded,
            event::CLAIM => Self::Claim,
            _ => return None,
        })
    }
}

/// Where a frame came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ingress {
    /// From a guest.
    Port(PortId),
    /// From the interface of a physical network, or out of the tunnel of another. In a test run: the interface, where the
    /// frame's tag says the network.
    Network(NetworkId),
}

/// A frame for the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub kind: EventKind,
    /// Where the frame came in.
    pub ingress: Ingress,
    /// The network that it concerns: the one that the frame came from, or for `NeighbourNeeded`, `TtlExceeded` and
    /// `MtuExceeded` the one that it leaves by.
    pub network: Option<NetworkId>,
    /// `NeighbourNeeded`: whom to resolve.
    pub next_hop: Option<IpAddr>,
    /// `MtuExceeded`: the MTU.
    pub mtu: u32,
    /// Bytes of the frame on the wire; more than `frame.len()` if it was cut.
    pub frame_bytes: u32,
    /// The frame, at most `limits::SERVICE_FRAME_BYTES_MAX` bytes.
    pub frame: Vec<u8>,
}

/// What a port's security groups said of a packet, and a log is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEvent {
    /// The port.
    pub port_id: PortId,
    /// From the guest or to it.
    pub direction: Direction,
    /// Whether a rule allowed it.
    pub allowed: bool,
    /// The VLAN of the guests' own that it is in, or 0.
    pub vlan: u16,
    /// IP protocol.
    pub protocol: u8,
    /// Where it comes from, as the port's rules see it.
    pub source: (IpAddr, u16),
    /// Where it goes.
    pub destination: (IpAddr, u16),
    /// ICMP: type and code.
    pub icmp: Option<(u8, u8)>,
}

/// A record of the logs' ring buffer; none if its port is gone.
pub(crate) fn log_event(record: &[u8], slots: &SlotTables) -> Option<LogEvent> {
    let (said, _) = LogRecord::read_from_prefix(record).ok()?;
    let end = |address, port| (address_ip(said.family, address), u16::from_be(port));
    let source = end(said.source, said.source_port);
    let is_icmp = said.protocol == if source.0.is_ipv6() { 58 } else { 1 };
    Some(LogEvent {
        port_id: slots.ports.id(said.port)?,
        direction: if said.flags & log::INGRESS == 0 {
            Direction::Egress
        } else {
            Direction::Ingress
        },
        allowed: said.flags & log::ALLOWED != 0,
        vlan: u16::try_from(said.flags >> log::VLAN_SHIFT).unwrap_or_default(),
        protocol: said.protocol,
        source,
        destination: end(said.destination, said.destination_port),
        icmp: is_icmp.then_some((said.icmp_type, said.icmp_code)),
    })
}

/// A ring buffer record as an event; none if what it names is gone.
pub(crate) fn event(record: &[u8], slots: &SlotTables) -> Option<Event> {
    let (head, rest) = EventHead::read_from_prefix(record).ok()?;
    let kind = EventKind::from_number(head.kind)?;
    let family = u8::try_from(head.family).ok()?;
    Some(Event {
        kind,
        ingress: ingress(head.ingress, slots)?,
        network: slots.networks.id(head.network),
        next_hop: (kind == EventKind::NeighbourNeeded).then(|| address_ip(family, head.next_hop)),
        mtu: if kind == EventKind::MtuExceeded {
            head.mtu
        } else {
            0
        },
        frame_bytes: head.frame_bytes,
        frame: rest.get(..head.copied_bytes as usize)?.to_vec(),
    })
}

/// What an ingress or output slot names.
pub(crate) fn ingress(number: u32, slots: &SlotTables) -> Option<Ingress> {
    let network = if number & slot::UPLINK != 0 {
        slots.uplinks.id(number & !slot::UPLINK)
    } else if number & slot::TUNNEL == 0 {
        return slots.ports.id(number).map(Ingress::Port);
    } else if number & slot::TUNNEL_NONE != 0 {
        let network = number & !(slot::TUNNEL | slot::TUNNEL_NONE);
        slots.networks.id(network)
    } else {
        slots.tunnels.get(&number).copied()
    };
    network.map(Ingress::Network)
}
