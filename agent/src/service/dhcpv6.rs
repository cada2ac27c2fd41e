//! DHCPv6 (RFC 8415, RFC 3646) for the guests of this host, stateful and stateless.
//!
//! Guarantees: as for DHCPv4, the server has no state: a port's addresses are its fixed IPs in subnets whose
//! `ipv6_address_mode` is stateful; on every host and after every restart the server is the same to its clients.
//!
//! No prefix delegation, no temporary addresses, no relays.

use super::{Action, Place, ServiceCounters};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use weft_model::{
    HostSnapshot, Ipv6Mode, MacAddress, NetworkId, Port, PortId, Subnet, eui64_link_local,
};
use weft_wire::dhcpv6::{self as wire, Message, message_type, option, status};
use weft_wire::{ethernet, frame, ipv6, protocol, udp};

/// Who serves, on every host: a DUID-LL (RFC 8415 11.4) of [`super::dhcp::SERVICE_MAC`].
const SERVER_DUID: [u8; 10] = {
    let m = super::dhcp::SERVICE_MAC.0;
    [0, 3, 0, 1, m[0], m[1], m[2], m[3], m[4], m[5]]
};
/// Bytes of a domain name on the wire (RFC 1035 3.1).
const NAME_BYTES_MAX: usize = 255;

/// What one port is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct PortAnswers {
    server_mac: MacAddress,
    /// Its stateful addresses.
    addresses: Vec<Ipv6Addr>,
    /// The subnets that answer DHCPv6: what is on the link.
    ranges: Vec<ipnet::IpNet>,
    /// Options that go with every answer, written out.
    options: Vec<u8>,
}

/// The answers for all ports of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Dhcpv6Server {
    ports: BTreeMap<PortId, PortAnswers>,
    lease_s: u32,
}

impl Dhcpv6Server {
    /// The answers for this snapshot.
    #[must_use]
    pub fn new(snapshot: &HostSnapshot, lease_s: u32) -> Self {
        let mut routers: BTreeMap<NetworkId, MacAddress> = BTreeMap::new();
        for leg in snapshot.routers.values().flat_map(|r| &r.interfaces) {
            routers.entry(leg.network_id).or_insert(leg.mac_address);
        }
        let ports = snapshot.ports.iter().filter_map(|(id, port)| {
            let router = routers.get(&port.network_id).copied();
            let server_mac = router.unwrap_or(super::dhcp::SERVICE_MAC);
            Some((*id, answers(snapshot, port, server_mac)?))
        });
        Self {
            ports: ports.collect(),
            lease_s,
        }
    }

    /// The answer to a frame from a port, if there is one.
    pub fn answer(
        &self,
        port_id: PortId,
        frame: &[u8],
        counters: &mut ServiceCounters,
    ) -> Option<Action> {
        let port = self.ports.get(&port_id);
        let answer = port.and_then(|port| port.answer(frame, self.lease_s));
        if answer.is_some() {
            counters.dhcpv6_answers += 1;
        } else {
            counters.dhcpv6_ignored += 1;
        }
        answer.map(|frame| Action::Send {
            to: Place::Port(port_id),
            frame,
        })
    }
}

/// What a port is told; none if no subnet of its has DHCPv6.
fn answers(snapshot: &HostSnapshot, port: &Port, server_mac: MacAddress) -> Option<PortAnswers> {
    let subnets: Vec<(IpAddr, &Subnet)> = port
        .fixed_ips
        .iter()
        .filter_map(|ip| Some((ip.ip_address, snapshot.subnets.get(&ip.subnet_id)?)))
        .filter(|(_, s)| s.enable_dhcp)
        .filter(|(_, s)| !matches!(s.ipv6_address_mode, None | Some(Ipv6Mode::Slaac)))
        .collect();
    if subnets.is_empty() {
        return None;
    }
    let stateful = |s: &Subnet| s.ipv6_address_mode == Some(Ipv6Mode::Dhcpv6Stateful);
    let addresses = subnets.iter().filter(|(_, s)| stateful(s));
    let servers = subnets.iter().flat_map(|(_, s)| &s.dns_nameservers);
    let servers: BTreeSet<Ipv6Addr> = servers.copied().filter_map(v6).collect();
    let mut options = Vec::new();
    if !servers.is_empty() {
        let body: Vec<u8> = servers.iter().flat_map(Ipv6Addr::octets).collect();
        wire::push_option(&mut options, option::DNS_SERVERS, &body);
    }
    let network = snapshot.networks.get(&port.network_id)?;
    if let Some(body) = name(&network.dns_domain) {
        wire::push_option(&mut options, option::DOMAIN_LIST, &body);
    }
    Some(PortAnswers {
        server_mac,
        addresses: addresses.filter_map(|(ip, _)| v6(*ip)).collect(),
        ranges: subnets.iter().map(|(_, s)| s.cidr).collect(),
        options,
    })
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

/// A domain name in wire format (RFC 8415 10); none if it is empty or no name.
fn name(domain: &str) -> Option<Vec<u8>> {
    let domain = domain.trim_end_matches('.');
    let mut body = Vec::new();
    for label in domain.split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..=63).contains(n))?;
        body.push(length);
        body.extend(label.as_bytes());
    }
    body.push(0);
    (body.len() <= NAME_BYTES_MAX).then_some(body)
}

impl PortAnswers {
    fn answer(&self, frame: &[u8], lease_s: u32) -> Option<Vec<u8>> {
        let ethernet = ethernet::Frame::new_checked(frame).ok()?;
        let packet = ipv6::Packet::new_checked(ethernet.payload()).ok()?;
        let upper = packet
            .upper_layer(weft_model::limits::IPV6_EXTENSION_HEADERS_MAX)
            .ok()?;
        if upper.protocol != protocol::UDP || upper.fragment.is_some() {
            return None;
        }
        let payload = packet.payload().get(upper.offset..)?;
        let datagram = udp::Datagram::new_checked(payload).ok()?;
        if datagram.destination_port() != wire::SERVER_PORT || packet.source().is_unspecified() {
            return None;
        }
        let end = datagram.length().min(payload.len());
        let asked = Message::new_checked(payload.get(udp::HEADER_BYTES..end)?).ok()?;
        let reply = self.reply(&asked, lease_s)?;
        let link = frame::Link {
            source: self.server_mac.0,
            destination: ethernet.source(),
        };
        let addresses = frame::Ip::new(eui64_link_local(self.server_mac), packet.source());
        let ports = udp::Repr {
            source_port: wire::SERVER_PORT,
            destination_port: wire::CLIENT_PORT,
        };
        Some(frame::udp(link, addresses, ports, &reply))
    }

    /// RFC 8415 18.3, and 16 for what is discarded.
    fn reply(&self, asked: &Message<'_>, lease_s: u32) -> Option<Vec<u8>> {
        let client = asked.option(option::CLIENT_ID);
        let server = asked.option(option::SERVER_ID);
        let ours = server == Some(&SERVER_DUID[..]);
        let (good, kind) = match asked.kind() {
            message_type::SOLICIT if asked.option(option::RAPID_COMMIT).is_some() => {
                (client.is_some() && server.is_none(), message_type::REPLY)
            }
            message_type::SOLICIT => (
                client.is_some() && server.is_none(),
                message_type::ADVERTISE,
            ),
            message_type::CONFIRM | message_type::REBIND => {
                (client.is_some() && server.is_none(), message_type::REPLY)
            }
            message_type::REQUEST
            | message_type::RENEW
            | message_type::RELEASE
            | message_type::DECLINE => (client.is_some() && ours, message_type::REPLY),
            message_type::INFORMATION_REQUEST => (server.is_none() || ours, message_type::REPLY),
            _ => (false, 0),
        };
        if !good {
            return None;
        }
        let mut reply = vec![kind];
        reply.extend(asked.transaction_id());
        wire::push_option(&mut reply, option::SERVER_ID, &SERVER_DUID);
        if let Some(id) = client {
            wire::push_option(&mut reply, option::CLIENT_ID, id);
        }
        if asked.kind() == message_type::SOLICIT && kind == message_type::REPLY {
            wire::push_option(&mut reply, option::RAPID_COMMIT, &[]);
        }
        match asked.kind() {
            message_type::CONFIRM => push_status(&mut reply, self.confirmed(asked)?),
            // Nothing to give back: the addresses belong to the port.
            message_type::RELEASE | message_type::DECLINE => {
                push_status(&mut reply, status::SUCCESS);
            }
            message_type::INFORMATION_REQUEST => reply.extend(&self.options),
            _ => {
                self.push_associations(&mut reply, asked, lease_s);
                reply.extend(&self.options);
            }
        }
        Some(reply)
    }

    /// Whether all addresses of a CONFIRM are on this link; none if it names no address (RFC 8415 18.3.3).
    fn confirmed(&self, asked: &Message<'_>) -> Option<u16> {
        let mut named = asked
            .options()
            .flat_map(|(c, b)| association(c, b))
            .peekable();
        named.peek()?;
        let on_link = |a: Ipv6Addr| self.ranges.iter().any(|r| r.contains(&IpAddr::V6(a)));
        let all = named.all(on_link);
        Some(if all {
            status::SUCCESS
        } else {
            status::NOT_ON_LINK
        })
    }

    /// The first association gets the port's addresses; what else the client holds there must go (lifetime 0). Further
    /// associations get none.
    fn push_associations(&self, reply: &mut Vec<u8>, asked: &Message<'_>, lease_s: u32) {
        let associations = asked.options().filter(|(code, _)| *code == option::IA_NA);
        let associations = associations.filter(|(_, body)| body.len() >= 12);
        for (n, (code, body)) in associations
            .take(weft_model::limits::FIXED_IPS_MAX)
            .enumerate()
        {
            let mut told = body[..4].to_vec();
            let t2 = u32::try_from(u64::from(lease_s) * 4 / 5).unwrap_or(u32::MAX);
            told.extend((lease_s / 2).to_be_bytes());
            told.extend(t2.to_be_bytes());
            let given: &[Ipv6Addr] = if n == 0 { &self.addresses } else { &[] };
            for address in given {
                push_address(&mut told, *address, lease_s);
            }
            let renewing = matches!(asked.kind(), message_type::RENEW | message_type::REBIND);
            let gone = association(code, body).filter(|a| renewing && !given.contains(a));
            for address in gone.take(weft_model::limits::FIXED_IPS_MAX) {
                push_address(&mut told, address, 0);
            }
            if given.is_empty() {
                push_status(&mut told, status::NO_ADDRESSES);
            }
            wire::push_option(reply, option::IA_NA, &told);
        }
    }
}

/// The addresses that an option names, if it is an association.
fn association(code: u16, body: &[u8]) -> impl Iterator<Item = Ipv6Addr> {
    let inner = if code == option::IA_NA {
        body.get(12..).unwrap_or_default()
    } else {
        &[]
    };
    wire::options(inner).filter_map(|(code, body)| {
        let address: [u8; 16] = body.get(..16)?.try_into().ok()?;
        (code == option::IA_ADDRESS).then(|| Ipv6Addr::from(address))
    })
}

fn push_address(told: &mut Vec<u8>, address: Ipv6Addr, lease_s: u32) {
    let mut body = address.octets().to_vec();
    body.extend(lease_s.to_be_bytes());
    body.extend(lease_s.to_be_bytes());
    wire::push_option(told, option::IA_ADDRESS, &body);
}

fn push_status(told: &mut Vec<u8>, code: u16) {
    wire::push_option(told, option::STATUS, &code.to_be_bytes());
}

#[cfg(test)]
#[path = "dhcpv6_tests.rs"]
mod tests;
