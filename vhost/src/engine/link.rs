//! The interface towards other hosts, where it is this engine's own: who has which MAC address on it, by ARP and ND.
//!
//! Guarantees: answers for this host's own tunnel address only, learns only addresses of hosts of the snapshot, asks for one of
//! them once a second at most and for [`ASKED_PER_SECOND`] in all. Assumes that all hosts are on one link: there are no routes.

use super::Engine;
use super::map::{FastMap, Seed};
use super::plan::At;
use super::tunnels::Tunnels;
use std::net::IpAddr;
use weft_model::MacAddress;
use weft_wire::ethernet::ethertype;
use weft_wire::frame::{self, Link as Ends};
use weft_wire::{Mac, arp, checksum, ethernet, ipv6, ndisc, protocol};

/// Questions that the engine asks of itself in one second.
const ASKED_PER_SECOND: usize = 64;
/// Seconds until somebody who is known is asked again.
const KNOWN_S: u32 = 30;

/// Both ends of a tunnel on the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) own: Mac,
    pub(super) remote: Mac,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    mac: MacAddress,
    told_s: u32,
}

/// The interface.
#[derive(Debug)]
pub(super) struct Link {
    mac: MacAddress,
    known: FastMap<IpAddr, Known>,
    /// By the numbers of the snapshot's hosts.
    remotes: Vec<Option<MacAddress>>,
    asked_s: FastMap<IpAddr, u32>,
}

impl Link {
    fn new(mac: MacAddress, seed: Seed) -> Self {
        Self {
            mac,
            known: FastMap::with_hasher(seed),
            remotes: Vec::new(),
            asked_s: FastMap::with_hasher(seed),
        }
    }

    pub(super) fn use_remotes(&mut self, tunnels: &Tunnels) {
        let stays = |address: &IpAddr| tunnels.remotes.contains(address);
        self.known.retain(|address, _| stays(address));
        self.asked_s.retain(|address, _| stays(address));
        let mac = |address| self.known.get(address).map(|known| known.mac);
        self.remotes = tunnels.remotes.iter().map(mac).collect();
    }

    #[inline]
    pub(super) fn neighbour(&self, remote: At) -> Option<Neighbour> {
        let remote = self.remotes.get(remote).copied().flatten()?;
        Some(Neighbour {
            own: self.mac.0,
            remote: remote.0,
        })
    }

    fn learn(&mut self, at: At, address: IpAddr, mac: Mac, now_s: u32) {
        let mac = MacAddress(mac);
        if mac.is_multicast() || mac.is_zero() {
            return;
        }
        let told_s = now_s;
        self.known.insert(address, Known { mac, told_s });
        if let Some(remote) = self.remotes.get_mut(at) {
            *remote = Some(mac);
        }
    }

    fn question(&mut self, own: IpAddr, address: IpAddr, now_s: u32) -> Option<Vec<u8>> {
        if self
            .asked_s
            .get(&address)
            .is_some_and(|asked| *asked == now_s)
        {
            return None;
        }
        self.asked_s.insert(address, now_s);
        match (own, address) {
            (IpAddr::V4(own), IpAddr::V4(address)) => {
                Some(frame::arp_request(self.mac.0, own, address))
            }
            (IpAddr::V6(own), IpAddr::V6(address)) => {
                Some(frame::neighbour_solicitation(self.mac.0, own, address))
            }
            _ => None,
        }
    }
}

/// What came by the interface towards other hosts beside tunnelled packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Neither ARP nor ND.
    Nothing,
    /// Nothing that is to be answered.
    Told,
    /// A question, and the answer to it.
    Asked(Vec<u8>),
}

/// What somebody on the link says: that an address is at a MAC, and perhaps which address it asks for.
struct Said {
    address: IpAddr,
    mac: Mac,
    asks: Option<IpAddr>,
}

impl Said {
    fn parse(frame: &[u8]) -> Option<Self> {
        let link = ethernet::Frame::new_checked(frame).ok()?;
        let packet = frame.get(ethernet::HEADER_BYTES..)?;
        match link.ethertype() {
            ethertype::ARP => {
                let packet = arp::Repr::parse(&arp::Packet::new_checked(packet).ok()?);
                let asks = packet.operation == arp::REQUEST;
                Some(Self {
                    address: packet.sender_ip.into(),
                    mac: packet.sender_mac,
                    asks: asks.then_some(packet.target_ip.into()),
                })
            }
            ethertype::IPV6 => Self::parse_nd(packet, link.source()),
            _ => None,
        }
    }

    fn parse_nd(packet: &[u8], source_mac: Mac) -> Option<Self> {
        let header = ipv6::Packet::new_checked(packet).ok()?;
        let plain =
            header.next_header() == protocol::ICMPV6 && header.hop_limit() == ndisc::HOP_LIMIT;
        let (source, destination) = (header.source(), header.destination());
        let message = header.payload();
        let sum = checksum::transport(source.into(), destination.into(), protocol::ICMPV6, message);
        if !plain || sum != 0 {
            return None;
        }
        let message = ndisc::NeighbourRepr::parse(&ndisc::Neighbour::new_checked(message).ok()?);
        Some(if message.kind == ndisc::NEIGHBOUR_SOLICITATION {
            Self {
                address: source.into(),
                mac: message.mac.unwrap_or(source_mac),
                asks: Some(message.target.into()),
            }
        } else {
            Self {
                address: message.target.into(),
                mac: message.mac.unwrap_or(source_mac),
                asks: None,
            }
        })
    }
}

impl Engine {
    /// From now on what goes to other hosts leaves by an interface of this engine's own, which has this MAC address.
    pub fn link_use(&mut self, mac: MacAddress) {
        let mut link = Link::new(mac, *self.neighbours.hasher());
        if let Some(plan) = &self.plan {
            link.use_remotes(&plan.underlay);
        }
        self.link = Some(link);
    }

    /// Whether there is such an interface.
    #[must_use]
    pub fn has_link(&self) -> bool {
        self.link.is_some()
    }

    /// Listens to what may be no tunnelled packet on the interface towards other hosts.
    pub fn link_hear(&mut self, frame: &[u8], now_s: u32) -> Heard {
        match Said::parse(frame) {
            None => Heard::Nothing,
            Some(said) => self.answer(&said, now_s).map_or(Heard::Told, Heard::Asked),
        }
    }

    fn answer(&mut self, said: &Said, now_s: u32) -> Option<Vec<u8>> {
        let tunnels = &self.plan.as_ref()?.underlay;
        let link = self.link.as_mut()?;
        if let Some(at) = tunnels.number(said.address) {
            link.learn(at, said.address, said.mac, now_s);
        }
        let own = tunnels.own.filter(|own| said.asks == Some(*own))?;
        let ends = Ends {
            source: link.mac.0,
            destination: said.mac,
        };
        match (own, said.address) {
            (IpAddr::V4(own), IpAddr::V4(asker)) => {
                let reply = arp::Repr {
                    operation: arp::REPLY,
                    sender_mac: link.mac.0,
                    sender_ip: own,
                    target_mac: said.mac,
                    target_ip: asker,
                };
                Some(frame::arp(ends, &reply))
            }
            (IpAddr::V6(own), IpAddr::V6(asker)) => {
                // One that has no address yet asks whether it may have this one: all are told.
                let nobody = asker.is_unspecified();
                let all = Ends {
                    destination: ethernet::ipv6_multicast(ndisc::ALL_NODES),
                    ..ends
                };
                let solicited = if nobody { 0 } else { ndisc::FLAG_SOLICITED };
                let told = ndisc::NeighbourRepr {
                    kind: ndisc::NEIGHBOUR_ADVERTISEMENT,
                    flags: solicited | ndisc::FLAG_OVERRIDE,
                    target: own,
                    mac: Some(link.mac.0),
                };
                let (ends, to) = match nobody {
                    true => (all, ndisc::ALL_NODES),
                    false => (ends, asker),
                };
                Some(frame::neighbour_advertisement(ends, own, to, &told))
            }
            _ => None,
        }
    }

    /// The question for the MAC address of another host, unless it was asked in this second.
    pub fn remote_ask(&mut self, address: IpAddr, now_s: u32) -> Option<Vec<u8>> {
        let tunnels = &self.plan.as_ref()?.underlay;
        tunnels.number(address)?;
        self.link.as_mut()?.question(tunnels.own?, address, now_s)
    }

    /// Questions for hosts that are not known, or were not heard of for long: to be asked once a second.
    pub fn remotes_ask(&mut self, now_s: u32) -> Vec<Vec<u8>> {
        let (Some(plan), Some(link)) = (&self.plan, &mut self.link) else {
            return Vec::new();
        };
        let Some(own) = plan.underlay.own else {
            return Vec::new();
        };
        let due = |address: &&IpAddr| {
            let known = link.known.get(*address);
            known.is_none_or(|known| now_s.saturating_sub(known.told_s) >= KNOWN_S)
        };
        let count = plan.underlay.remotes.len().max(1);
        let start = usize::try_from(now_s)
            .unwrap_or(0)
            .wrapping_mul(ASKED_PER_SECOND)
            % count;
        let remotes = &plan.underlay.remotes;
        let (before, behind) = remotes.split_at(start.min(remotes.len()));
        let due: Vec<IpAddr> = behind.iter().chain(before).filter(due).copied().collect();
        let asked = due.into_iter().take(ASKED_PER_SECOND);
        asked
            .filter_map(|address| link.question(own, address, now_s))
            .collect()
    }
}
