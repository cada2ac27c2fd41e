//! One session: what the walk found, and the two transformations that follow from it.
//!
//! The reply transformation is not computed but mirrored (docs/pipeline.md, section 4), unless one of both directions goes
//! through a tunnel (section 7).

use super::key::{Ingress, SessionKey, Tuple};
use crate::stage::nat::SnatPorts;
use crate::stage::qos::Account;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use weft_model::limits::session_timeout_s as timeout;
use weft_model::{
    Direction, DropReason, MacAddress, NetworkId, NetworkType, PortId, Revision, RouterId,
    SecurityGroupRuleId,
};
use weft_wire::{protocol, tcp};

/// Which of the two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// As the opener sent it.
    Forward,
    /// Back to the opener.
    Reply,
}

/// State, for timeouts only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The reply direction was not seen yet.
    Opening,
    /// Both directions were seen.
    Established,
    /// TCP after FIN or RST.
    Closing,
}

/// Who opened a session: what the walk needs besides the tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opener {
    /// Source MAC of the first packet.
    pub source_mac: MacAddress,
    /// Destination MAC of the first packet.
    pub destination_mac: MacAddress,
    /// ICMP type and code of the first packet.
    pub icmp: Option<(u8, u8)>,
}

/// How a routed packet's link header changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Subtracted from TTL or hop limit: 1 or 2; 0 on the way to a local IP.
    pub ttl_decrement: u8,
    /// The leg's MAC.
    pub source_mac: MacAddress,
    /// The neighbour's MAC; zero while it is unknown.
    pub destination_mac: MacAddress,
    /// Who has that MAC, if the neighbour table was asked.
    pub next_hop: Option<IpAddr>,
    /// MTU of the network that it leaves by, bytes of IP packet.
    pub mtu: u32,
    /// MTU of the opener's network, for the other direction.
    pub reply_mtu: u32,
}

/// The tunnel that a packet leaves by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// What it carries.
    pub network_id: NetworkId,
    /// The kind of tunnel.
    pub kind: NetworkType,
    /// That network's number in the tunnel.
    pub vni: u32,
    /// This host's end.
    pub local: IpAddr,
    /// The other end.
    pub remote: IpAddr,
    /// The network's MTU, bytes of IP packet.
    pub mtu: u32,
}

/// The way back of what came from a tunnel: not the mirror of the way forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Back {
    /// To the opener's host.
    pub tunnel: Tunnel,
    /// Routed so; none if bridged.
    pub hop: Option<Hop>,
}

/// How a session reaches the outside of a physical network by another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByTransit {
    /// To that host.
    pub tunnel: Tunnel,
    /// Whether this host says the destination MAC; else it is zero in what is routed, and the other host finds it.
    pub resolved: bool,
}

/// Where a walk leads: the forward transformation, the port of SNAT still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Out there.
    pub output: Ingress,
    /// Routed so; none if bridged.
    pub hop: Option<Hop>,
    /// New source address.
    pub source: IpAddr,
    /// New destination address.
    pub destination: IpAddr,
    /// New destination port.
    pub destination_port: u16,
    /// The new source port is to be taken from here.
    pub snat: Option<SnatPorts>,
    /// To another host; `output` is the network in the tunnel then.
    pub tunnel: Option<Tunnel>,
    /// Of what came from a tunnel.
    pub back: Option<Back>,
    /// What leaves by a physical network goes to another host.
    pub transit: Option<ByTransit>,
    /// The router whose gateway it passes, and which way.
    pub gateway: Option<(RouterId, Direction)>,
    /// Limits of the address that the opener is seen with, and of the one that it came in by.
    pub accounts: [Option<Account>; 2],
}

impl Path {
    /// A bridged path.
    #[must_use]
    pub fn bridged(output: Ingress, tuple: Tuple) -> Self {
        Self {
            output,
            hop: None,
            source: tuple.source,
            destination: tuple.destination,
            destination_port: tuple.destination_port,
            snat: None,
            tunnel: None,
            back: None,
            transit: None,
            gateway: None,
            accounts: [None; 2],
        }
    }

    /// The tunnel of what leaves by this output.
    fn tunnel_by(&self, output: Ingress) -> Option<Tunnel> {
        let transit = self.transit.map(|transit| transit.tunnel);
        transit.filter(|tunnel| output == Ingress::Network(tunnel.network_id))
    }

    /// The tunnel of the way forward.
    #[must_use]
    pub fn forward_tunnel(&self) -> Option<Tunnel> {
        self.tunnel.or_else(|| self.tunnel_by(self.output))
    }

    /// Where replies enter, if the opener is on this network.
    #[must_use]
    pub fn reply_ingress(&self, network_id: NetworkId) -> Ingress {
        match self.tunnel {
            Some(_) => Ingress::Network(network_id),
            None => self.output,
        }
    }

    /// The tuple behind the translation, with this source port.
    #[must_use]
    pub fn translated(&self, tuple: Tuple, source_port: u16) -> Tuple {
        Tuple {
            source: self.source,
            destination: self.destination,
            source_port,
            destination_port: self.destination_port,
            protocol: tuple.protocol,
            vlan: tuple.vlan,
        }
    }
}

/// What is done to the packets of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transformation {
    /// The tuple before.
    pub from: Tuple,
    /// The tuple behind.
    pub to: Tuple,
    /// Out there.
    pub output: Ingress,
    /// Link header and MTU; none if bridged: then the frame's MACs stay.
    pub hop: Option<Hop>,
    /// To another host.
    pub tunnel: Option<Tunnel>,
    /// Limits of the address that it leaves by, and of the one that it comes in by.
    pub accounts: [Option<Account>; 2],
}

/// A tracked connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Key of the forward entry.
    pub forward: SessionKey,
    /// Key of the reply entry.
    pub reply: SessionKey,
    /// The network that the opener was on.
    pub network_id: NetworkId,
    /// The first packet.
    pub opener: Opener,
    /// Where the walk led.
    pub path: Path,
    /// The guest port that it counts for.
    pub owner: Option<PortId>,
    /// What it was computed under; another generation makes it stale.
    pub generation: u64,
    /// The snapshot's revision at that time.
    pub revision: Revision,
    /// The rules that allowed it: the opener's egress, the destination's ingress.
    pub rules: [Option<SecurityGroupRuleId>; 2],
    /// Why no answer passes, if a stateless port's rules allow none.
    pub reply_denied: Option<DropReason>,
    /// For its timeout.
    pub state: State,
    /// Seconds of the newest packet of either direction.
    pub seen_s: u32,
}

impl Session {
    /// The destination MAC that packets of a direction must have.
    #[must_use]
    pub fn match_mac(&self, way: Way) -> MacAddress {
        match (way, self.path.hop) {
            (Way::Forward, _) => self.opener.destination_mac,
            (Way::Reply, _) if self.path.tunnel.is_some() => self.opener.source_mac,
            (Way::Reply, Some(hop)) => hop.source_mac,
            (Way::Reply, None) => self.opener.source_mac,
        }
    }

    /// Why a direction's packets do not pass, if they do not.
    #[must_use]
    pub fn denied(&self, way: Way) -> Option<DropReason> {
        self.reply_denied.filter(|_| way == Way::Reply)
    }

    /// The transformation of a direction.
    #[must_use]
    pub fn transformation(&self, way: Way) -> Transformation {
        match way {
            Way::Forward => Transformation {
                from: self.forward.tuple,
                to: self.reply.tuple.reversed(),
                output: self.path.output,
                hop: self.path.hop,
                tunnel: self.path.forward_tunnel(),
                accounts: self.path.accounts,
            },
            Way::Reply => Transformation {
                from: self.reply.tuple,
                to: self.forward.tuple.reversed(),
                output: match self.path.back {
                    Some(back) => Ingress::Network(back.tunnel.network_id),
                    None => self.forward.ingress,
                },
                hop: self.reply_hop(),
                tunnel: match self.path.back {
                    Some(back) => Some(back.tunnel),
                    None => self.path.tunnel_by(self.forward.ingress),
                },
                accounts: [self.path.accounts[1], self.path.accounts[0]],
            },
        }
    }

    fn reply_hop(&self) -> Option<Hop> {
        if let Some(back) = self.path.back {
            return back.hop;
        }
        let mirrored = self.path.hop.filter(|_| self.path.tunnel.is_none());
        let by_transit = self.path.tunnel_by(self.forward.ingress);
        let unresolved = by_transit.is_some() && self.path.transit.is_some_and(|t| !t.resolved);
        mirrored.map(|hop| Hop {
            source_mac: self.opener.destination_mac,
            destination_mac: if unresolved {
                MacAddress([0; 6])
            } else {
                self.opener.source_mac
            },
            next_hop: None,
            mtu: by_transit.map_or(hop.reply_mtu, |tunnel| hop.reply_mtu.min(tunnel.mtu)),
            reply_mtu: hop.mtu,
            ..hop
        })
    }

    /// Seconds that it may be idle.
    #[must_use]
    pub fn timeout_s(&self) -> u32 {
        match (self.forward.tuple.protocol, self.state) {
            (protocol::TCP, State::Opening) => timeout::TCP_OPENING,
            (protocol::TCP, State::Established) => timeout::TCP_ESTABLISHED,
            (protocol::TCP, State::Closing) => timeout::TCP_CLOSING,
            (protocol::ICMP | protocol::ICMPV6, _) => timeout::ICMP,
            (_, State::Opening) => timeout::UDP_OPENING,
            (_, _) => timeout::UDP_ESTABLISHED,
        }
    }

    /// Whether it is as good as absent.
    #[must_use]
    pub fn is_expired(&self, now_s: u32) -> bool {
        now_s.saturating_sub(self.seen_s) > self.timeout_s()
    }

    /// Counts a packet: idle time and state. `tcp_flags` are none for other protocols, and for later fragments, which
    /// change no state.
    pub fn see(&mut self, way: Way, seen: Seen, now_s: u32) {
        self.seen_s = now_s;
        let flags = match seen {
            Seen::LaterFragment => return,
            Seen::Tcp(flags) => flags,
            Seen::Other => 0,
        };
        if flags & (tcp::FIN | tcp::RST) != 0 {
            self.state = State::Closing;
        } else if self.state == State::Closing
            && way == Way::Forward
            && flags & (tcp::SYN | tcp::ACK) == tcp::SYN
        {
            self.state = State::Opening;
        } else if self.state == State::Opening && way == Way::Reply {
            self.state = State::Established;
        }
    }
}

/// What of a packet moves a session's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A TCP segment with these flags.
    Tcp(u8),
    /// A later fragment.
    LaterFragment,
    /// Any other packet.
    Other,
}
