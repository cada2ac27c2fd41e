//! DHCPv4 (RFC 2131, 2132, 3396, 3442, 6842) for the guests of this host.
//!
//! Guarantees: the server has no state: a port's leases are its fixed IPs in subnets with `enable_dhcp`, on every host
//! and after every restart the same, and nothing a client says changes them. A port hears only of its own addresses.
//! Answers are written once per snapshot; a message costs a look-up and a copy.
//!
//! It does not serve relays (a guest that sends `giaddr` gets no answer), nor hardware addresses other than the port's.

use super::dhcp_option::{self, SERVER_ADDRESS};
use super::{Action, Place, ServiceCounters};
use ipnet::{IpNet, Ipv4Net};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use weft_model::{
    DhcpOption, FixedIp, HostSnapshot, MacAddress, Network, NetworkId, Port, PortId, Subnet,
    Unsupported, limits,
};
use weft_wire::dhcp::{self as wire, Message, message_type, option};
use weft_wire::{ethernet, frame, ipv4, protocol, udp};

/// Seconds of a lease unless configured (Neutron's `dhcp_lease_duration`).
pub const LEASE_S_DEFAULT: u32 = 86_400;
/// The server's identifier on subnets without a gateway: link-local, so that it is never a guest's.
pub const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
/// The server's MAC address on subnets whose gateway is not one of Weft's routers; locally administered.
pub const SERVICE_MAC: MacAddress = MacAddress([0x02, 0x57, 0x45, 0x46, 0x54, 0x01]);

/// Bytes of IP and UDP headers, which option 57 counts in.
const HEADER_BYTES: usize = 28;
/// The IP packet that every client takes (RFC 2131 2).
const PACKET_BYTES_MIN: usize = 576;
/// The longest answer whatever the client says: fits any link that Weft serves guests on.
const PACKET_BYTES_MAX: usize = 1_400;

/// One address of a port with everything that is told with it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lease {
    address: Ipv4Addr,
    server_id: Ipv4Addr,
    server_mac: MacAddress,
    /// The header's `siaddr`.
    next_server: Ipv4Addr,
    lease_s: u32,
    t1_s: u32,
    t2_s: u32,
    /// Number and body, in the order of their importance.
    options: Vec<(u8, Vec<u8>)>,
}

/// A port's leases; at most [`weft_model::limits::FIXED_IPS_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct PortLeases {
    mac: MacAddress,
    leases: Vec<Lease>,
}

/// The answers for all ports of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct DhcpServer {
    ports: BTreeMap<PortId, PortLeases>,
    unsupported: Vec<Unsupported>,
}

/// What becomes of a message that a server may answer.
enum Answer {
    Frame(Vec<u8>),
    /// Nothing to say, and nothing to change: the address belongs to the port whatever the client says.
    Noted,
}

/// What a client asked.
struct Ask<'a> {
    message: Message<&'a [u8]>,
}

impl DhcpServer {
    /// The answers for this snapshot.
    #[must_use]
    pub fn new(snapshot: &HostSnapshot, lease_s: u32) -> Self {
        let index = Index::new(snapshot);
        let ports = snapshot.ports.iter().filter_map(|(id, port)| {
            let leases: Vec<Lease> = port
                .fixed_ips
                .iter()
                .filter_map(|ip| lease(&index, port, ip, lease_s))
                .collect();
            let mac = port.mac_address;
            (!leases.is_empty()).then_some((*id, PortLeases { mac, leases }))
        });
        let refused = snapshot.ports.iter().flat_map(|(id, port)| {
            port.extra_dhcp_opts
                .iter()
                .enumerate()
                .filter(|(_, option)| matches!(extra(option), Err(Refused)))
                .map(move |(n, option)| Unsupported {
                    path: format!("ports.{id}.extra_dhcp_opts[{n}]"),
                    message: format!("{:?} is not told to the guest", option.opt_name),
                })
        });
        Self {
            ports: ports.collect(),
            unsupported: refused.take(limits::UNSUPPORTED_MAX).collect(),
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
        match port.and_then(|port| port.answer(frame, counters)) {
            Some(Answer::Frame(frame)) => Some(Action::Send {
                to: Place::Port(port_id),
                frame,
            }),
            Some(Answer::Noted) => {
                counters.dhcp_releases += 1;
                None
            }
            None => {
                counters.dhcp_ignored += 1;
                None
            }
        }
    }

    /// The `extra_dhcp_opts` that are not told to guests, at most [`limits::UNSUPPORTED_MAX`].
    #[must_use]
    pub fn unsupported(&self) -> &[Unsupported] {
        &self.unsupported
    }
}

impl PortLeases {
    fn answer(&self, frame: &[u8], counters: &mut ServiceCounters) -> Option<Answer> {
        let ethernet = ethernet::Frame::new_checked(frame).ok()?;
        let packet = ipv4::Packet::new_checked(ethernet.payload()).ok()?;
        let ask = Ask::parse(packet.payload(), packet.protocol())?;
        let message = &ask.message;
        if MacAddress(message.client_mac()) != self.mac {
            return None;
        }
        match message.message_type()? {
            message_type::DISCOVER => {
                let lease = self.wanted(requested(message)).or(self.leases.first())?;
                counters.dhcp_offers += 1;
                Some(Answer::Frame(ask.reply(lease, message_type::OFFER)))
            }
            message_type::REQUEST => self.request(&ask, counters).map(Answer::Frame),
            message_type::INFORM => {
                let lease = self.wanted(Some(message.client_address()));
                let lease = lease.or(self.leases.first())?;
                counters.dhcp_acks += 1;
                Some(Answer::Frame(ask.reply(lease, message_type::ACK)))
            }
            message_type::RELEASE | message_type::DECLINE => Some(Answer::Noted),
            _ => None,
        }
    }

    /// RFC 2131 4.3.2: selecting (server identifier), rebooting (requested address), renewing and rebinding (`ciaddr`).
    fn request(&self, ask: &Ask<'_>, counters: &mut ServiceCounters) -> Option<Vec<u8>> {
        let message = &ask.message;
        let address = requested(message).or_else(|| {
            let held = message.client_address();
            (!held.is_unspecified()).then_some(held)
        })?;
        let selected = message
            .option_of::<4>(option::SERVER_ID)
            .map(Ipv4Addr::from);
        let ours = |server| self.leases.iter().any(|lease| lease.server_id == server);
        if selected.is_some_and(|server| !ours(server)) {
            return None; // the client chose another server
        }
        let Some(lease) = self.wanted(Some(address)) else {
            counters.dhcp_naks += 1;
            return self.leases.first().map(|lease| ask.nak(lease));
        };
        counters.dhcp_acks += 1;
        Some(ask.reply(lease, message_type::ACK))
    }

    fn wanted(&self, address: Option<Ipv4Addr>) -> Option<&Lease> {
        let address = address?;
        self.leases.iter().find(|lease| lease.address == address)
    }
}

fn requested(message: &Message<&[u8]>) -> Option<Ipv4Addr> {
    message
        .option_of::<4>(option::REQUESTED_ADDRESS)
        .map(Ipv4Addr::from)
}

impl<'a> Ask<'a> {
    /// The client's message in an IP payload, if it is one that a server may answer.
    fn parse(payload: &'a [u8], payload_protocol: u8) -> Option<Self> {
        if payload_protocol != protocol::UDP {
            return None;
        }
        let datagram = udp::Datagram::new_checked(payload).ok()?;
        if datagram.destination_port() != wire::SERVER_PORT {
            return None;
        }
        let end = datagram.length().min(payload.len());
        let message = Message::new_checked(payload.get(udp::HEADER_BYTES..end)?).ok()?;
        let answerable =
            message.operation() == wire::REQUEST && message.relay_address().is_unspecified();
        answerable.then_some(Self { message })
    }

    /// An OFFER or ACK. To INFORM, an ACK without address and times (RFC 2131 4.3.5).
    fn reply(&self, lease: &Lease, kind: u8) -> Vec<u8> {
        let inform = self.message.message_type() == Some(message_type::INFORM);
        let held = self.message.client_address();
        let mut header = self.header();
        header.next_server = lease.next_server;
        if kind == message_type::ACK {
            header.client_address = held;
        }
        let mut options = Options::new(kind, lease.server_id, self.room());
        if !inform {
            header.your_address = lease.address;
            options.push(option::LEASE_TIME, &lease.lease_s.to_be_bytes());
            options.push(option::RENEWAL_TIME, &lease.t1_s.to_be_bytes());
            options.push(option::REBINDING_TIME, &lease.t2_s.to_be_bytes());
        }
        options.push_client_id(&self.message);
        let wanted = self.message.option(option::REQUEST_LIST).unwrap_or(&[]);
        let asked = wanted
            .iter()
            .filter_map(|number| lease.options.iter().find(|(n, _)| n == number));
        let mut told = BTreeSet::new();
        for (number, body) in asked.chain(&lease.options) {
            if told.insert(*number) {
                options.push(*number, body);
            }
        }
        let broadcast = self.message.flags() & wire::FLAG_BROADCAST != 0;
        let to = match (held.is_unspecified(), broadcast) {
            (false, _) => Some(held),
            (true, true) => None,
            (true, false) => Some(lease.address),
        };
        self.frame(lease, to, &header, &options)
    }

    /// A refusal: broadcast, because the client's address is not to be believed (RFC 2131 4.3.2).
    fn nak(&self, lease: &Lease) -> Vec<u8> {
        let mut options = Options::new(message_type::NAK, lease.server_id, self.room());
        options.push(option::MESSAGE, b"the address is not this port's");
        options.push_client_id(&self.message);
        self.frame(lease, None, &self.header(), &options)
    }

    fn header(&self) -> wire::Repr {
        wire::Repr {
            operation: wire::REPLY,
            transaction_id: self.message.transaction_id(),
            flags: self.message.flags() & wire::FLAG_BROADCAST,
            client_address: Ipv4Addr::UNSPECIFIED,
            your_address: Ipv4Addr::UNSPECIFIED,
            next_server: Ipv4Addr::UNSPECIFIED,
            relay_address: Ipv4Addr::UNSPECIFIED,
            client_mac: self.message.client_mac(),
        }
    }

    /// Bytes of options that the client takes (option 57).
    fn room(&self) -> usize {
        let packet = self.message.option_of::<2>(option::MESSAGE_BYTES_MAX);
        let packet = packet.map_or(PACKET_BYTES_MIN, |bytes| u16::from_be_bytes(bytes).into());
        packet.clamp(PACKET_BYTES_MIN, PACKET_BYTES_MAX) - HEADER_BYTES - wire::FIXED_BYTES
    }

    fn frame(
        &self,
        lease: &Lease,
        to: Option<Ipv4Addr>,
        header: &wire::Repr,
        options: &Options,
    ) -> Vec<u8> {
        let destination = match to {
            Some(_) => self.message.client_mac(),
            None => ethernet::BROADCAST,
        };
        let link = frame::Link {
            source: lease.server_mac.0,
            destination,
        };
        let addresses = frame::Ip::new(lease.server_id, to.unwrap_or(Ipv4Addr::BROADCAST));
        let ports = udp::Repr {
            source_port: wire::SERVER_PORT,
            destination_port: wire::CLIENT_PORT,
        };
        frame::udp(link, addresses, ports, &header.emit(&options.bytes))
    }
}

/// Options in the order they are written, within the client's room.
struct Options {
    bytes: Vec<u8>,
    room: usize,
}

impl Options {
    fn new(kind: u8, server_id: Ipv4Addr, room: usize) -> Self {
        let mut options = Self {
            bytes: Vec::with_capacity(room),
            room: room - 1, // the end
        };
        options.push(option::MESSAGE_TYPE, &[kind]);
        options.push(option::SERVER_ID, &server_id.octets());
        options
    }

    /// Appends an option, or leaves it out if there is no room.
    fn push(&mut self, number: u8, body: &[u8]) {
        let bytes = body.len() + 2 * body.len().div_ceil(255);
        if self.bytes.len() + bytes <= self.room {
            wire::push_option(&mut self.bytes, number, body);
        }
    }

    /// RFC 6842: a server repeats the client's identifier, in a refusal too.
    fn push_client_id(&mut self, asked: &Message<&[u8]>) {
        if let Some(id) = asked.option(option::CLIENT_ID) {
            self.push(option::CLIENT_ID, id);
        }
    }
}

/// A snapshot with what leases look up in it by network.
struct Index<'a> {
    snapshot: &'a HostSnapshot,
    /// The MAC addresses of router interfaces.
    routers: BTreeMap<(NetworkId, Ipv4Addr), MacAddress>,
    ranges: BTreeMap<NetworkId, Vec<Ipv4Net>>,
}

impl<'a> Index<'a> {
    fn new(snapshot: &'a HostSnapshot) -> Self {
        let mut routers = BTreeMap::new();
        for leg in snapshot.routers.values().flat_map(|r| &r.interfaces) {
            let addresses = leg.addresses.iter().filter_map(|a| v4(a.ip_address));
            routers.extend(addresses.map(|ip| ((leg.network_id, ip), leg.mac_address)));
        }
        let mut ranges: BTreeMap<NetworkId, Vec<Ipv4Net>> = BTreeMap::new();
        for subnet in snapshot.subnets.values() {
            if let IpNet::V4(range) = subnet.cidr {
                ranges.entry(subnet.network_id).or_default().push(range);
            }
        }
        Self {
            snapshot,
            routers,
            ranges,
        }
    }
}

/// The lease for one fixed IP; none if its subnet has no DHCP or is not IPv4.
fn lease(index: &Index<'_>, port: &Port, ip: &FixedIp, lease_s: u32) -> Option<Lease> {
    let IpAddr::V4(address) = ip.ip_address else {
        return None;
    };
    let subnet = index.snapshot.subnets.get(&ip.subnet_id)?;
    let network = index.snapshot.networks.get(&port.network_id)?;
    let IpNet::V4(range) = subnet.cidr else {
        return None;
    };
    if !subnet.enable_dhcp {
        return None;
    }
    let gateway = subnet.gateway_ip.and_then(v4);
    let mut lease = Lease {
        address,
        server_id: gateway.unwrap_or(SERVICE_ADDRESS),
        server_mac: gateway
            .and_then(|ip| index.routers.get(&(port.network_id, ip)).copied())
            .unwrap_or(SERVICE_MAC),
        next_server: Ipv4Addr::UNSPECIFIED,
        lease_s,
        t1_s: 0,
        t2_s: 0,
        options: options(index, port, (subnet, range), network),
    };
    apply_extra(&mut lease, port);
    lease.t1_s = lease.lease_s / 2;
    lease.t2_s = u32::try_from(u64::from(lease.lease_s) * 7 / 8).unwrap_or(u32::MAX);
    for (number, time) in [
        (option::RENEWAL_TIME, &mut lease.t1_s),
        (option::REBINDING_TIME, &mut lease.t2_s),
    ] {
        if let Some(at) = lease.options.iter().position(|(n, _)| *n == number) {
            let (_, body) = lease.options.remove(at);
            *time = body.try_into().map_or(*time, u32::from_be_bytes);
        }
    }
    Some(lease)
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// What a subnet and its network tell, by importance: mask, gateway, name servers, routes, MTU, names.
fn options(
    index: &Index<'_>,
    port: &Port,
    (subnet, range): (&Subnet, Ipv4Net),
    network: &Network,
) -> Vec<(u8, Vec<u8>)> {
    let mut options = vec![(option::SUBNET_MASK, range.netmask().octets().to_vec())];
    let routes = Routes::new(index, port, subnet, range);
    if let Some(gateway) = routes.gateway {
        options.push((option::ROUTER, gateway.octets().to_vec()));
    }
    let servers = subnet.dns_nameservers.iter().copied().filter_map(v4);
    let servers: Vec<u8> = servers.flat_map(|ip| ip.octets()).collect();
    if !servers.is_empty() {
        options.push((option::DNS_SERVER, servers));
    }
    let mtu = u16::try_from(network.mtu).unwrap_or(u16::MAX);
    options.push((option::MTU, mtu.to_be_bytes().to_vec()));
    if let Some(body) = routes.body() {
        options.push((option::CLASSLESS_ROUTES, body.clone()));
        options.push((option::CLASSLESS_ROUTES_MICROSOFT, body));
    }
    if range.prefix_len() < 31 {
        options.push((option::BROADCAST, range.broadcast().octets().to_vec()));
    }
    let domain = network.dns_domain.trim_end_matches('.');
    for (number, text) in [
        (option::DOMAIN_NAME, domain),
        (option::HOST_NAME, port.dns_name.as_str()),
    ] {
        if (1..=255).contains(&text.len()) {
            options.push((number, text.as_bytes().to_vec()));
        }
    }
    options
}

/// Routes told to a guest, as Neutron's DHCP agent composes them.
struct Routes {
    gateway: Option<Ipv4Addr>,
    others: Vec<(Ipv4Net, Ipv4Addr)>,
}

impl Routes {
    /// The subnet's host routes, and, if there is a gateway, the network's other subnets as neighbours. A host route to
    /// everywhere stands for a missing gateway.
    fn new(index: &Index<'_>, port: &Port, subnet: &Subnet, range: Ipv4Net) -> Self {
        let mut gateway = subnet.gateway_ip.and_then(v4);
        let mut others = Vec::new();
        if gateway.is_some() {
            let siblings = index.ranges.get(&port.network_id).into_iter().flatten();
            let siblings = siblings.filter(|sibling| **sibling != range);
            others.extend(siblings.map(|sibling| (*sibling, Ipv4Addr::UNSPECIFIED)));
            others.truncate(limits::HOST_ROUTES_MAX);
        }
        for route in &subnet.host_routes {
            if let (IpNet::V4(to), IpAddr::V4(hop)) = (route.destination, route.nexthop) {
                if to.prefix_len() == 0 {
                    gateway = gateway.or(Some(hop));
                } else {
                    others.push((to, hop));
                }
            }
        }
        Self { gateway, others }
    }

    /// The body of option 121: it must hold the default route too, because clients then ignore option 3. None where
    /// option 3 says it all.
    fn body(&self) -> Option<Vec<u8>> {
        if self.others.is_empty() {
            return None;
        }
        let mut routes = self.others.clone();
        routes.extend(self.gateway.map(|hop| (Ipv4Net::default(), hop)));
        Some(
            routes
                .iter()
                .flat_map(|(to, hop)| dhcp_option::route(*to, *hop))
                .collect(),
        )
    }
}

/// An option that is unknown, the protocol's own, DHCPv6's, or whose text does not fit it.
struct Refused;

/// An extra option's number, and its body or none to withhold it.
type Extra = (u8, Option<Vec<u8>>);

/// An extra option for DHCPv4; those for DHCPv6 are not told.
fn extra(said: &DhcpOption) -> Result<Extra, Refused> {
    if said.ip_version != 4 {
        return Err(Refused);
    }
    let number = dhcp_option::number(&said.opt_name).ok_or(Refused)?;
    // What the protocol itself needs (requested address, overload … message size) is not an operator's to say.
    if matches!(
        number,
        option::REQUESTED_ADDRESS | 52
            ..=option::MESSAGE_BYTES_MAX | option::CLIENT_ID | option::RELAY_AGENT
    ) {
        return Err(Refused);
    }
    let body = match &said.opt_value {
        Some(text) => Some(dhcp_option::body(number, text).ok_or(Refused)?),
        None => None,
    };
    Ok((number, body))
}

/// The port's `extra_dhcp_opts`: each replaces what the subnet says, or withholds it.
fn apply_extra(lease: &mut Lease, port: &Port) {
    let extras = port.extra_dhcp_opts.iter().filter_map(|o| extra(o).ok());
    for (number, body) in extras {
        let word: Option<[u8; 4]> = body.as_deref().and_then(|b| b.try_into().ok());
        match number {
            SERVER_ADDRESS => {
                lease.next_server = word.map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from);
            }
            option::LEASE_TIME => lease.lease_s = word.map_or(lease.lease_s, u32::from_be_bytes),
            _ => {
                lease.options.retain(|(n, _)| *n != number);
                lease.options.extend(body.map(|body| (number, body)));
            }
        }
    }
}

#[cfg(test)]
#[path = "dhcp_tests.rs"]
mod tests;
