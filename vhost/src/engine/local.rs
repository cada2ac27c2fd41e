//! ARP and ND over a compiled snapshot. docs/pipeline.md, section 3.
//!
//! Guarantees: an answer goes only back to where the question came from, and no ND or MLD packet gets further. Cost: one
//! look-up, whatever the size of the network: a guest that asks without end slows nobody else.

use super::key::Place;
use super::plan::{NetworkPlan, Owner, Plan, PortPlan};
use std::net::{IpAddr, Ipv6Addr};
use weft_dataplane::stage::decode::{IpPacket, Packet};
use weft_model::{DropReason, MacAddress};
use weft_wire::frame::{Link, neighbour_advertisement};
use weft_wire::{arp, ethernet, ndisc};

/// What becomes of an ARP or ND packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Drop(DropReason),
    /// From the uplink, the question is told to whoever learns neighbours.
    Reply(Vec<u8>),
    Uplink,
    Deliver(Place),
    Neighbour,
    Claim,
    RouterSolicitation,
    /// For everybody on the wire; whether it tells of a neighbour.
    Overheard(bool),
    Pass,
}

/// Who asks, and where.
pub(super) struct Asker<'a> {
    pub(super) plan: &'a Plan,
    pub(super) place: Place,
    pub(super) port: Option<&'a PortPlan>,
    pub(super) network: &'a NetworkPlan,
    /// Whether it came by a tunnel.
    pub(super) tunnelled: bool,
}

impl Asker<'_> {
    pub(super) fn arp(&self, packet: &Packet, request: &arp::Repr, frame: &[u8]) -> Answer {
        let target = IpAddr::V4(request.target_ip);
        let owner = self.owner(target);
        let Some(port) = self.port else {
            let tells = request.sender_ip == request.target_ip;
            let answer = match (request.operation, owner) {
                (arp::REQUEST, Some(owner)) if !tells => {
                    Answer::Reply(arp_reply(frame, packet, request, owner))
                }
                (arp::REPLY, _) => self.told(packet.destination_mac),
                _ => Answer::Pass,
            };
            return overheard(packet, answer, tells);
        };
        let own = port.own4.contains(&u32::from(request.target_ip));
        let gratuitous =
            request.sender_ip == request.target_ip && !request.sender_ip.is_unspecified();
        if gratuitous && port.secured && !own {
            return Answer::Claim;
        }
        if request.operation != arp::REQUEST || request.sender_ip == request.target_ip || own {
            return Answer::Drop(DropReason::ArpIgnored);
        }
        match owner {
            Some(owner) if self.is_own_claim(&owner) => Answer::Drop(DropReason::ArpIgnored),
            Some(owner) => Answer::Reply(arp_reply(frame, packet, request, owner)),
            None => self.unanswered(DropReason::ArpUnanswered),
        }
    }

    fn owner(&self, address: IpAddr) -> Option<Owner> {
        self.network.owner(address, self.port.map(|_| self.place))
    }

    /// Whether a guest asks for what it has claimed itself.
    fn is_own_claim(&self, owner: &Owner) -> bool {
        self.port.is_some() && owner.claim && owner.port == Some(self.place)
    }

    /// Whether an NA of a guest says that an address of its pairs is its own.
    fn claims<T: AsRef<[u8]>>(&self, said: &ndisc::Neighbour<T>) -> bool {
        let (solicited, target) = (said.flags() & ndisc::FLAG_SOLICITED != 0, said.target());
        self.port.is_some_and(|port| {
            let own = port.own6.contains(&u128::from(target));
            port.secured && !solicited && !own && !target.is_multicast()
        })
    }

    /// An ARP reply or NA from the uplink.
    fn told(&self, destination: MacAddress) -> Answer {
        let is = self.network.mac(destination);
        if is.interface.is_some() || is.outside.is_some() {
            return Answer::Neighbour;
        }
        match is
            .port
            .and_then(|place| Some((place, self.plan.port(place)?)))
        {
            Some((place, port)) if port.up => Answer::Deliver(place),
            Some(_) => Answer::Drop(DropReason::DestinationPortDown),
            None => Answer::Pass,
        }
    }

    fn unanswered(&self, reason: DropReason) -> Answer {
        if self.network.physical {
            Answer::Uplink
        } else {
            Answer::Drop(reason)
        }
    }

    /// An IPv6 packet; none if it is neither ND nor MLD.
    pub(super) fn nd(&self, packet: &Packet, ip: &IpPacket, frame: &[u8]) -> Option<Answer> {
        let (kind, code) = ip.icmp.filter(|_| ip.tuple.is_ipv6())?;
        if !matches!(kind, 130..=137 | 143) {
            return None;
        }
        if self.tunnelled {
            return Some(Answer::Drop(DropReason::NdIgnored));
        }
        let uplink = self.port.is_none();
        let message = frame.get(ip.l4.clone()).unwrap_or_default();
        let neighbour = ndisc::Neighbour::new_checked(message);
        let short = matches!(kind, 135 | 136) && neighbour.is_err();
        let wrong = ip.ttl != ndisc::HOP_LIMIT || code != 0 || short;
        let answer = match (kind, neighbour) {
            (133..=137, _) if wrong && uplink => return Some(Answer::Pass),
            (ndisc::NEIGHBOUR_SOLICITATION, Ok(question))
                if uplink && question.target().is_multicast() =>
            {
                return Some(Answer::Pass);
            }
            (133..=137, _) if wrong => Answer::Drop(DropReason::Malformed),
            (ndisc::NEIGHBOUR_SOLICITATION, Ok(question)) => {
                self.solicited(packet, ip, question.target())
            }
            (ndisc::NEIGHBOUR_ADVERTISEMENT, _) if uplink => self.told(packet.destination_mac),
            (_, _) if uplink => Answer::Pass,
            (ndisc::NEIGHBOUR_ADVERTISEMENT, Ok(said)) if self.claims(&said) => Answer::Claim,
            (ndisc::ROUTER_SOLICITATION, _) if self.network.announces => Answer::RouterSolicitation,
            (ndisc::ROUTER_SOLICITATION, _) => self.unanswered(DropReason::ServiceOff),
            (_, _) => Answer::Drop(DropReason::NdIgnored),
        };
        Some(match kind {
            133..=137 => overheard(packet, answer, kind == ndisc::NEIGHBOUR_ADVERTISEMENT),
            _ => answer,
        })
    }

    fn solicited(&self, packet: &Packet, ip: &IpPacket, target: Ipv6Addr) -> Answer {
        match self.port {
            Some(_) if target.is_multicast() => return Answer::Drop(DropReason::Malformed),
            // Its link-local address is among them.
            Some(port) if port.own6.contains(&u128::from(target)) => {
                return Answer::Drop(DropReason::NdIgnored);
            }
            _ => {}
        }
        match (self.owner(IpAddr::V6(target)), ip.tuple.source) {
            (Some(owner), _) if self.is_own_claim(&owner) => Answer::Drop(DropReason::NdIgnored),
            (Some(owner), IpAddr::V6(asker)) => {
                Answer::Reply(nd_reply(packet.source_mac, asker, target, owner))
            }
            (_, _) if self.port.is_none() => Answer::Pass,
            (_, _) => self.unanswered(DropReason::NdUnanswered),
        }
    }
}

/// What passes and was sent to everybody.
fn overheard(packet: &Packet, answer: Answer, tells: bool) -> Answer {
    match answer {
        Answer::Pass if packet.destination_mac.is_multicast() => Answer::Overheard(tells),
        answer => answer,
    }
}

/// In place, so that the length and what is behind the ARP packet stay.
fn arp_reply(frame: &[u8], packet: &Packet, request: &arp::Repr, owner: Owner) -> Vec<u8> {
    let reply = arp::Repr {
        operation: arp::REPLY,
        sender_mac: owner.mac.0,
        sender_ip: request.target_ip,
        target_mac: request.sender_mac,
        target_ip: request.sender_ip,
    };
    let mut bytes = reply.emit().to_vec();
    let rest = frame.get(ethernet::HEADER_BYTES + arp::PACKET_BYTES..);
    bytes.extend(rest.unwrap_or_default());
    ethernet::Repr {
        source: owner.mac.0,
        destination: packet.source_mac.0,
        ethertype: ethernet::ethertype::ARP,
    }
    .emit(&bytes)
}

fn nd_reply(asker_mac: MacAddress, asker: Ipv6Addr, target: Ipv6Addr, owner: Owner) -> Vec<u8> {
    let router = if owner.router { ndisc::FLAG_ROUTER } else { 0 };
    let (destination, mac, solicited) = if asker.is_unspecified() {
        let all = ndisc::ALL_NODES;
        (all, ethernet::ipv6_multicast(all), 0)
    } else {
        (asker, asker_mac.0, ndisc::FLAG_SOLICITED)
    };
    let link = Link {
        source: owner.mac.0,
        destination: mac,
    };
    let advertisement = ndisc::NeighbourRepr {
        kind: ndisc::NEIGHBOUR_ADVERTISEMENT,
        flags: ndisc::FLAG_OVERRIDE | router | solicited,
        target,
        mac: Some(owner.mac.0),
    };
    neighbour_advertisement(link, target, destination, &advertisement)
}
