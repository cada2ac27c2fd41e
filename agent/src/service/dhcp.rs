//! DHCPv4 (RFC 2131, 2132, 3396, 3442, 6842) for the guests of this host.
//!
//! Guarantees: the server has no state: a port's leases are its fixed IPs in subnets with `enable_dhcp`, on every host
//! and after every restart the same, and nothing a client says changes them. A port hears only of its own addresses.
//! Answers are written once per snapshot; a message costs a look-up and a copy.
//!
//! It does not serve relays (a guest that sends `giaddr` gets no answer), nor hardware addresses other than the port's.

use super::dhcp_option::{self, SERVER_ADDRESS};
use super::{Action, Place, ServiceCounters};
use dhcproto::v4::{DhcpOption as O, Flags, HType, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use ipnet::{IpNet, Ipv4Net};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use weft_model::{
    DhcpOption, FixedIp, HostSnapshot, MacAddress, Network, Port, PortId, Subnet, Unsupported,
    limits,
};
use weft_wire::{ethernet, frame, ipv4, protocol, udp};

/// Seconds of a lease unless configured (Neutron's `dhcp_lease_duration`).
pub const LEASE_S_DEFAULT: u32 = 86_400;
/// The server's identifier on subnets without a gateway: link-local, so that it is never a guest's.
pub const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
/// The server's MAC address on subnets whose gateway is not one of Weft's routers; locally administered.
pub const SERVICE_MAC: MacAddress = MacAddress([0x02, 0x57, 0x45, 0x46, 0x54, 0x01]);

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// Bytes of a message up to and with the magic cookie.
const FIXED_BYTES: usize = 240;
/// Bytes of IP and UDP headers, which option 57 counts in.
const HEADER_BYTES: usize = 28;
/// The IP packet that every client takes (RFC 2131 2).
const PACKET_BYTES_MIN: usize = 576;
/// The longest answer whatever the client says: fits any link that Weft serves guests on.
const PACKET_BYTES_MAX: usize = 1_400;
/// A BOOTP client's smallest message (RFC 951); shorter ones are padded.
const MESSAGE_BYTES_MIN: usize = 300;

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
struct Ask {
    message: Message,
    client_mac: MacAddress,
}

impl DhcpServer {
    /// The answers for this snapshot.
    #[must_use]
    pub fn new(snapshot: &HostSnapshot, lease_s: u32) -> Self {
        let ports = snapshot.ports.iter().filter_map(|(id, port)| {
            let leases: Vec<Lease> = port
                .fixed_ips
                .iter()
                .filter_map(|ip| lease(snapshot, port, ip, lease_s))
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
        let ask = Ask::parse(frame)?;
        if ask.client_mac != self.mac {
            return None;
        }
        let message = &ask.message;
        match message.opts().msg_type()? {
            MessageType::Discover => {
                let lease = self.wanted(requested(message)).or(self.leases.first())?;
                counters.dhcp_offers += 1;
                Some(Answer::Frame(ask.reply(lease, MessageType::Offer)))
            }
            MessageType::Request => self.request(&ask, counters).map(Answer::Frame),
            MessageType::Inform => {
                let lease = self
                    .wanted(Some(message.ciaddr()))
                    .or(self.leases.first())?;
                counters.dhcp_acks += 1;
                Some(Answer::Frame(ask.reply(lease, MessageType::Ack)))
            }
            MessageType::Release | MessageType::Decline => Some(Answer::Noted),
            _ => None,
        }
    }

    /// RFC 2131 4.3.2: selecting (server identifier), rebooting (requested address), renewing and rebinding (`ciaddr`).
    fn request(&self, ask: &Ask, counters: &mut ServiceCounters) -> Option<Vec<u8>> {
        let message = &ask.message;
        let address = requested(message).or_else(|| {
            let held = message.ciaddr();
            (!held.is_unspecified()).then_some(held)
        })?;
        let selected = match message.opts().get(OptionCode::ServerIdentifier) {
            Some(O::ServerIdentifier(server)) => Some(*server),
            _ => None,
        };
        let ours = |server| self.leases.iter().any(|lease| lease.server_id == server);
        if selected.is_some_and(|server| !ours(server)) {
            return None; // the client chose another server
        }
        let Some(lease) = self.wanted(Some(address)) else {
            counters.dhcp_naks += 1;
            return self.leases.first().map(|lease| ask.nak(lease));
        };
        counters.dhcp_acks += 1;
        Some(ask.reply(lease, MessageType::Ack))
    }

    fn wanted(&self, address: Option<Ipv4Addr>) -> Option<&Lease> {
        let address = address?;
        self.leases.iter().find(|lease| lease.address == address)
    }
}

fn requested(message: &Message) -> Option<Ipv4Addr> {
    match message.opts().get(OptionCode::RequestedIpAddress) {
        Some(O::RequestedIpAddress(address)) => Some(*address),
        _ => None,
    }
}

impl Ask {
    /// The client's message in an Ethernet frame, if it is one that a server may answer.
    fn parse(frame: &[u8]) -> Option<Self> {
        let frame = ethernet::Frame::new_checked(frame).ok()?;
        let packet = ipv4::Packet::new_checked(frame.payload()).ok()?;
        if packet.protocol() != protocol::UDP || packet.fragment_offset() != 0 {
            return None;
        }
        let datagram = udp::Datagram::new_checked(packet.payload()).ok()?;
        if datagram.destination_port() != SERVER_PORT {
            return None;
        }
        let payload = datagram.payload();
        // Hardware type 1 with 6 bytes before dhcproto looks: it takes the length on trust.
        if payload.len() < FIXED_BYTES || payload[..3] != [1, 1, 6] {
            return None;
        }
        let message = Message::decode(&mut Decoder::new(payload)).ok()?;
        if !message.giaddr().is_unspecified() {
            return None;
        }
        let client_mac = MacAddress(payload[28..34].try_into().ok()?);
        Some(Self {
            message,
            client_mac,
        })
    }

    /// An OFFER or ACK. To INFORM, an ACK without address and times (RFC 2131 4.3.5).
    fn reply(&self, lease: &Lease, kind: MessageType) -> Vec<u8> {
        let inform = self.message.opts().has_msg_type(MessageType::Inform);
        let held = self.message.ciaddr();
        let mut header = self.header();
        header.set_siaddr(lease.next_server);
        if kind == MessageType::Ack {
            header.set_ciaddr(held);
        }
        if !inform {
            header.set_yiaddr(lease.address);
        }
        let mut options = Options::new(kind, lease.server_id, self.room());
        if !inform {
            options.push(51, &lease.lease_s.to_be_bytes());
            options.push(58, &lease.t1_s.to_be_bytes());
            options.push(59, &lease.t2_s.to_be_bytes());
        }
        options.push_client_id(&self.message);
        let mut wanted = Vec::new();
        if let Some(O::ParameterRequestList(codes)) =
            self.message.opts().get(OptionCode::ParameterRequestList)
        {
            wanted.extend(codes.iter().map(|code| u8::from(*code)));
        }
        let mut told = BTreeSet::new();
        let asked = wanted
            .iter()
            .filter_map(|code| lease.options.iter().find(|(number, _)| number == code));
        for (number, body) in asked.chain(&lease.options) {
            if told.insert(*number) {
                options.push(*number, body);
            }
        }
        let broadcast = self.message.flags().broadcast();
        let to = if !held.is_unspecified() {
            Some(held)
        } else if broadcast {
            None
        } else {
            Some(lease.address)
        };
        self.frame(lease, to, &header, options)
    }

    /// A refusal: broadcast, because the client's address is not to be believed (RFC 2131 4.3.2).
    fn nak(&self, lease: &Lease) -> Vec<u8> {
        let header = self.header();
        let mut options = Options::new(MessageType::Nak, lease.server_id, self.room());
        options.push(56, b"the address is not this port's");
        options.push_client_id(&self.message);
        self.frame(lease, None, &header, options)
    }

    fn header(&self) -> Message {
        let asked = &self.message;
        let mut header = Message::default();
        header
            .set_opcode(Opcode::BootReply)
            .set_htype(HType::Eth)
            .set_xid(asked.xid())
            .set_flags(Flags::from(u16::from(asked.flags()) & 0x8000))
            .set_chaddr(&self.client_mac.0);
        header
    }

    /// Bytes of options that the client takes (option 57).
    fn room(&self) -> usize {
        let packet = match self.message.opts().get(OptionCode::MaxMessageSize) {
            Some(O::MaxMessageSize(bytes)) => usize::from(*bytes),
            _ => PACKET_BYTES_MIN,
        };
        packet.clamp(PACKET_BYTES_MIN, PACKET_BYTES_MAX) - HEADER_BYTES - FIXED_BYTES
    }

    fn frame(
        &self,
        lease: &Lease,
        to: Option<Ipv4Addr>,
        header: &Message,
        options: Options,
    ) -> Vec<u8> {
        // Without options, dhcproto writes the fixed fields and the cookie; writing into memory cannot fail.
        let mut message = header.to_vec().unwrap_or_default();
        message.extend(options.finish());
        if message.len() < MESSAGE_BYTES_MIN {
            message.resize(MESSAGE_BYTES_MIN, 0);
        }
        let destination = if to.is_some() {
            self.client_mac.0
        } else {
            ethernet::BROADCAST
        };
        let link = frame::Link {
            source: lease.server_mac.0,
            destination,
        };
        let addresses = frame::Ip::new(lease.server_id, to.unwrap_or(Ipv4Addr::BROADCAST));
        let ports = udp::Repr {
            source_port: SERVER_PORT,
            destination_port: CLIENT_PORT,
        };
        frame::udp(link, addresses, ports, &message)
    }
}

/// Options in the order they are written, within the client's room.
struct Options {
    bytes: Vec<u8>,
    room: usize,
}

impl Options {
    fn new(kind: MessageType, server_id: Ipv4Addr, room: usize) -> Self {
        let mut options = Self {
            bytes: Vec::with_capacity(room),
            room: room - 1, // the end
        };
        options.push(53, &[kind.into()]);
        options.push(54, &server_id.octets());
        options
    }

    /// Appends an option, in pieces of at most 255 bytes (RFC 3396), or leaves it out if there is no room.
    fn push(&mut self, number: u8, body: &[u8]) {
        let bytes = body.len() + 2 * body.len().div_ceil(255).max(1);
        if self.bytes.len() + bytes > self.room {
            return;
        }
        for piece in body.chunks(255) {
            self.bytes.push(number);
            self.bytes.extend(u8::try_from(piece.len()));
            self.bytes.extend(piece);
        }
    }

    /// RFC 6842: a server repeats the client's identifier, in a refusal too.
    fn push_client_id(&mut self, asked: &Message) {
        if let Some(O::ClientIdentifier(id)) = asked.opts().get(OptionCode::ClientIdentifier) {
            self.push(61, id);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.push(255);
        self.bytes
    }
}

/// The lease for one fixed IP; none if its subnet has no DHCP or is not IPv4.
fn lease(snapshot: &HostSnapshot, port: &Port, ip: &FixedIp, lease_s: u32) -> Option<Lease> {
    let IpAddr::V4(address) = ip.ip_address else {
        return None;
    };
    let subnet = snapshot.subnets.get(&ip.subnet_id)?;
    let network = snapshot.networks.get(&port.network_id)?;
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
            .and_then(|ip| router_mac(snapshot, port, ip))
            .unwrap_or(SERVICE_MAC),
        next_server: Ipv4Addr::UNSPECIFIED,
        lease_s,
        t1_s: 0,
        t2_s: 0,
        options: options(snapshot, port, (subnet, range), network),
    };
    apply_extra(&mut lease, port);
    lease.t1_s = lease.lease_s / 2;
    lease.t2_s = u32::try_from(u64::from(lease.lease_s) * 7 / 8).unwrap_or(u32::MAX);
    for (number, time) in [(58, &mut lease.t1_s), (59, &mut lease.t2_s)] {
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

/// The MAC address of the router interface that has this address on the port's network.
fn router_mac(snapshot: &HostSnapshot, port: &Port, address: Ipv4Addr) -> Option<MacAddress> {
    let legs = snapshot.routers.values().flat_map(|r| &r.interfaces);
    legs.filter(|leg| leg.network_id == port.network_id)
        .find(|leg| leg.addresses.iter().any(|a| a.ip_address == address))
        .map(|leg| leg.mac_address)
}

/// What a subnet and its network tell, by importance: mask, gateway, name servers, routes, MTU, names.
fn options(
    snapshot: &HostSnapshot,
    port: &Port,
    (subnet, range): (&Subnet, Ipv4Net),
    network: &Network,
) -> Vec<(u8, Vec<u8>)> {
    let mut options = vec![(1, range.netmask().octets().to_vec())];
    let routes = Routes::new(snapshot, port, subnet, range);
    if let Some(gateway) = routes.gateway {
        options.push((3, gateway.octets().to_vec()));
    }
    let servers = subnet.dns_nameservers.iter().copied().filter_map(v4);
    let servers: Vec<u8> = servers.flat_map(|ip| ip.octets()).collect();
    if !servers.is_empty() {
        options.push((6, servers));
    }
    let mtu = u16::try_from(network.mtu).unwrap_or(u16::MAX);
    options.push((26, mtu.to_be_bytes().to_vec()));
    if let Some(body) = routes.body() {
        options.push((121, body.clone()));
        options.push((249, body)); // what Windows asked for before it knew RFC 3442
    }
    if range.prefix_len() < 31 {
        options.push((28, range.broadcast().octets().to_vec()));
    }
    let domain = network.dns_domain.trim_end_matches('.');
    for (number, text) in [(15, domain), (12, port.dns_name.as_str())] {
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
    fn new(snapshot: &HostSnapshot, port: &Port, subnet: &Subnet, range: Ipv4Net) -> Self {
        let mut gateway = subnet.gateway_ip.and_then(v4);
        let mut others = Vec::new();
        if gateway.is_some() {
            let siblings = snapshot.subnets_of(port.network_id);
            others.extend(siblings.filter_map(|(_, sibling)| match sibling.cidr {
                IpNet::V4(other) if other != range => Some((other, Ipv4Addr::UNSPECIFIED)),
                _ => None,
            }));
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

/// An option that is unknown, the protocol's own, or whose text does not fit it.
struct Refused;

/// An extra option's number, and its body or none to withhold it.
type Extra = (u8, Option<Vec<u8>>);

/// An extra option for DHCPv4; none if it is for DHCPv6.
fn extra(option: &DhcpOption) -> Result<Option<Extra>, Refused> {
    if option.ip_version != 4 {
        return Ok(None);
    }
    let number = dhcp_option::number(&option.opt_name).ok_or(Refused)?;
    // What the protocol itself needs is not an operator's to say.
    if matches!(number, 50 | 52..=57 | 61 | 82) {
        return Err(Refused);
    }
    let body = match &option.opt_value {
        Some(text) => Some(dhcp_option::body(number, text).ok_or(Refused)?),
        None => None,
    };
    Ok(Some((number, body)))
}

/// The port's `extra_dhcp_opts`: each replaces what the subnet says, or withholds it.
fn apply_extra(lease: &mut Lease, port: &Port) {
    let extras = port.extra_dhcp_opts.iter().filter_map(|o| extra(o).ok()?);
    for (number, body) in extras {
        let word: Option<[u8; 4]> = body.as_deref().and_then(|b| b.try_into().ok());
        match number {
            SERVER_ADDRESS => {
                lease.next_server = word.map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from);
            }
            51 => lease.lease_s = word.map_or(lease.lease_s, u32::from_be_bytes),
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
