//! What is walked for, where a walk leads, and by which tunnels.

use super::key::Place;
use super::limit::Account;
use super::plan::{At, PortPlan};
use super::transit::ByTransit;
use std::net::IpAddr;
use weft_dataplane::Tuple;
use weft_dataplane::stage::decode::{IcmpKind, icmp_kind, is_icmp};
use weft_dataplane::stage::nat::SnatPorts;
use weft_model::{DropReason, MacAddress};
use weft_wire::{protocol, tcp};

/// How a routed packet's link header changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) ttl_decrement: u8,
    pub(super) source_mac: MacAddress,
    pub(super) destination_mac: MacAddress,
    pub(super) next_hop: Option<IpAddr>,
    pub(super) mtu: u32,
}

/// Where a walk leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) output: Place,
    pub(super) hop: Option<Hop>,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) destination_port: u16,
    pub(super) snat: Option<SnatPorts>,
    /// To another host: one of the plan's tunnels. `output` is the network in it then.
    pub(super) tunnel: Option<At>,
    /// Of what came from a tunnel.
    pub(super) back: Option<Back>,
    /// What leaves by a physical network goes to another host.
    pub(super) transit: Option<ByTransit>,
    /// Limits of the address that the opener is seen with, and of the one that it came in by.
    pub(super) accounts: [Account; 2],
}

impl Path {
    /// The transit that what leaves by this place goes by.
    pub(super) fn transit_by(&self, place: Place) -> Option<ByTransit> {
        self.transit.filter(|transit| transit.place == place)
    }

    /// The tunnel of the way forward.
    pub(super) fn forward_tunnel(&self) -> Option<At> {
        let transit = self.transit_by(self.output);
        self.tunnel.or(transit.map(|transit| transit.tunnel))
    }
}

/// The way back of what came from a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Back {
    pub(super) output: Place,
    pub(super) tunnel: At,
    pub(super) hop: Option<Hop>,
}

/// Where a walk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Path(Path),
    EchoReply,
    Multicast,
    /// As it is to another host, without a session.
    Relay(ByTransit),
    Pass,
}

/// What is walked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) place: Place,
    pub(super) tuple: Tuple,
    pub(super) source_mac: MacAddress,
    pub(super) destination_mac: MacAddress,
    pub(super) icmp: Option<(u8, u8)>,
    /// The opener's TCP flags; none for a stale session, which is not asked for its opener.
    pub(super) test: Option<u8>,
    pub(super) echo_request: bool,
    /// It came from another host by the network's transit.
    pub(super) transit: bool,
}

impl Opening {
    /// The opener test, for a port that keeps state.
    pub(super) fn state_test(&self, port: &PortPlan) -> Result<(), DropReason> {
        if port.stateless {
            return Ok(());
        }
        self.opener_test()
    }

    /// Whether no rule is asked: members of a VLAN of the guests' own tell each other of their neighbours.
    pub(super) fn is_neighbour(&self) -> bool {
        self.tuple.vlan.is_neighbour()
    }

    /// Whether it may open a session.
    pub(super) fn opener_test(&self) -> Result<(), DropReason> {
        let Some(flags) = self.test.filter(|_| !self.is_neighbour()) else {
            return Ok(());
        };
        let Tuple {
            protocol: number, ..
        } = self.tuple;
        let v6 = self.tuple.is_ipv6();
        if number == protocol::TCP
            && flags & (tcp::SYN | tcp::ACK | tcp::RST | tcp::FIN) != tcp::SYN
        {
            return Err(DropReason::TcpNoSession);
        }
        let query = |(kind, _): (u8, u8)| icmp_kind(v6, kind) == IcmpKind::Query;
        if is_icmp(v6, number) && !self.icmp.is_some_and(query) {
            return Err(DropReason::IcmpNoSession);
        }
        Ok(())
    }
}
