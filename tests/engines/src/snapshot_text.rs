//! Snapshots as vectors write them: short names in place of UUIDs and MAC addresses, one line a rule.
//!
//! A name expands to a UUID made of a letter for the kind and the name's bytes, so that resources are in the order of their
//! names; MAC addresses are made of the names too. What is wrong is refused with the name it is about.

use ipnet::IpNet;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use uuid::Uuid;
use weft_model::{
    AddressGroup, AllowedAddressPair, Direction, Epoch, EtherType, FixedIp, FloatingIp,
    ForwardedIp, HostName, HostSnapshot, Ipv6Mode, LocalIp, LocalIpMode, LocalIpTarget, Log,
    LogEvent, MacAddress, MeteringLabel, MeteringRule, Network, NetworkId, NetworkType, Port,
    PortBlock, PortForwarding, PortForwardingElsewhere, PortInterface, PortRange, PvlanRole,
    QosBandwidthLimit, QosDirection, QosPacketRateLimit, QosPolicy, QosPolicyId, Remote,
    RemoteFloatingIp, RemotePort, Revision, Router, RouterAddress, RouterGateway, RouterInterface,
    RouterRoute, SecurityGroup, SecurityGroupMember, SecurityGroupRule, Segment, Subnet, SubnetId,
    Transit, TunnelHost,
};

/// The UUID behind a name. `kind` keeps names of different kinds apart.
#[must_use]
pub fn uuid_of(kind: u8, name: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes[0] = kind;
    for (to, from) in bytes[1..].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    Uuid::from_bytes(bytes)
}

/// The name behind a UUID that [`uuid_of`] made.
#[must_use]
pub fn name_of(uuid: Uuid) -> String {
    let name: Vec<u8> = uuid.as_bytes()[1..]
        .iter()
        .copied()
        .take_while(|b| *b != 0)
        .collect();
    String::from_utf8_lossy(&name).into_owned()
}

/// Kinds for [`uuid_of`].
pub mod kind {
    /// Networks.
    pub const NETWORK: u8 = b'n';
    /// Subnets.
    pub const SUBNET: u8 = b's';
    /// Ports of all sorts.
    pub const PORT: u8 = b'p';
    /// Routers.
    pub const ROUTER: u8 = b'r';
    /// Floating IPs.
    pub const FLOATING_IP: u8 = b'f';
    /// Security groups.
    pub const GROUP: u8 = b'g';
    /// Rules.
    pub const RULE: u8 = b'R';
    /// Address groups.
    pub const ADDRESS_GROUP: u8 = b'a';
    /// QoS policies.
    pub const QOS_POLICY: u8 = b'q';
    /// Address scopes.
    pub const ADDRESS_SCOPE: u8 = b'S';
    /// Metering labels.
    pub const METERING_LABEL: u8 = b'm';
    /// Logs.
    pub const LOG: u8 = b'l';
    /// Local IPs.
    pub const LOCAL_IP: u8 = b'L';
}

fn yes() -> bool {
    true
}

fn mtu() -> u32 {
    1500
}

/// A network.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkText {
    #[serde(default = "mtu")]
    mtu: u32,
    /// The physical network's name; without one it is of type vxlan.
    physical: Option<String>,
    /// With `physical`: the VLAN id; without it the network is flat.
    vlan: Option<u16>,
    /// The VNI; without one it is the network's number in the order of names.
    vni: Option<u32>,
    /// Of type geneve.
    #[serde(default)]
    geneve: bool,
    /// Of type gre; `vni` is its key.
    #[serde(default)]
    gre: bool,
    /// Of type local: not in any tunnel.
    #[serde(default)]
    local: bool,
    /// The transit's VNI.
    transit: Option<u32>,
    /// The transit's MTU.
    transit_mtu: Option<u32>,
    /// Whether this host has the physical network.
    #[serde(default = "yes")]
    uplink: bool,
    /// Guests may tag frames themselves.
    #[serde(default)]
    transparent: bool,
}

/// A subnet.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubnetText {
    network: String,
    cidr: IpNet,
    gateway: Option<IpAddr>,
    #[serde(default)]
    dhcp: bool,
    ra: Option<Ipv6Mode>,
    address_mode: Option<Ipv6Mode>,
    /// The address scope.
    scope: Option<String>,
}

/// A guest's port.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortText {
    network: String,
    mac: Option<MacAddress>,
    #[serde(default)]
    ips: Vec<IpAddr>,
    /// `ADDRESS/LENGTH` with the port's MAC, or `MAC ADDRESS/LENGTH`.
    #[serde(default)]
    pairs: Vec<String>,
    /// Addresses that its guest has claimed.
    #[serde(default)]
    claims: Vec<IpAddr>,
    #[serde(default = "yes")]
    port_security: bool,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default = "yes")]
    up: bool,
    qos: Option<String>,
    /// Logs.
    #[serde(default)]
    logs: Vec<String>,
    /// `promiscuous`, `isolated`, or a community's name.
    #[serde(default)]
    pvlan: String,
    /// The trunk's port that carries it, as a subport.
    parent: Option<String>,
    /// With `parent`: its tag.
    #[serde(default)]
    vlan: u16,
}

/// A QoS policy: of each limit the rate and the burst, in thousands.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QosText {
    egress_kbps: Option<[u32; 2]>,
    egress_kpps: Option<[u32; 2]>,
    ingress_kbps: Option<[u32; 2]>,
    ingress_kpps: Option<[u32; 2]>,
    dscp: Option<u8>,
}

/// A port on another host.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemotePortText {
    network: String,
    ips: Vec<IpAddr>,
    /// Addresses that its guest has claimed.
    #[serde(default)]
    claims: Vec<IpAddr>,
    /// The host's name; by default `elsewhere`.
    host: Option<String>,
    /// As of a port.
    #[serde(default)]
    pvlan: String,
}

/// A router's leg.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayText {
    network: String,
    ips: Vec<IpAddr>,
    #[serde(default = "yes")]
    snat: bool,
    /// First and last port; the default is the upper half. Two zeros: none.
    ports: Option<[u16; 2]>,
    /// Other hosts' first and last ports.
    #[serde(default)]
    elsewhere: BTreeMap<String, [u16; 2]>,
    /// The host that answers outside.
    host: Option<String>,
    qos: Option<String>,
}

/// A router. Interfaces are a table of network's name → addresses.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterText {
    #[serde(default = "yes")]
    up: bool,
    #[serde(default)]
    interfaces: BTreeMap<String, Vec<IpAddr>>,
    gateway: Option<GatewayText>,
    /// `DESTINATION via NEXTHOP`.
    #[serde(default)]
    routes: Vec<String>,
    /// Addresses that the gateway answers for outside.
    ndp_proxies: Option<BTreeSet<Ipv6Addr>>,
    /// Metering labels.
    #[serde(default)]
    meters: Vec<String>,
}

/// A floating IP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloatingIpText {
    address: Ipv4Addr,
    router: String,
    #[serde(default)]
    port: String,
    fixed: Option<Ipv4Addr>,
    /// Of a port of this host, in place of a port here.
    host: Option<String>,
    /// In place of a port: `PROTOCOL FIRST[-LAST] to PORT ADDRESS FIRST[-LAST]` or `PROTOCOL FIRST[-LAST] at HOST`.
    #[serde(default)]
    forward: Vec<String>,
    qos: Option<String>,
}

/// A snapshot.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotText {
    #[serde(default)]
    networks: BTreeMap<String, NetworkText>,
    #[serde(default)]
    subnets: BTreeMap<String, SubnetText>,
    #[serde(default)]
    ports: BTreeMap<String, PortText>,
    #[serde(default)]
    remote_ports: BTreeMap<String, RemotePortText>,
    #[serde(default)]
    routers: BTreeMap<String, RouterText>,
    #[serde(default)]
    floating_ips: BTreeMap<String, FloatingIpText>,
    /// Group's name → members beyond its ports' addresses.
    #[serde(default)]
    groups: BTreeMap<String, Vec<IpNet>>,
    /// Groups that keep no state.
    #[serde(default)]
    stateless: Vec<String>,
    /// `GROUP ingress|egress v4|v6 PROTOCOL [FIRST[-LAST] | TYPE[/CODE]] [from|to RANGE|group:NAME|addresses:NAME]`.
    #[serde(default)]
    rules: BTreeMap<String, String>,
    #[serde(default)]
    address_groups: BTreeMap<String, Vec<IpNet>>,
    #[serde(default)]
    qos: BTreeMap<String, QosText>,
    /// Logs: of which decisions.
    #[serde(default)]
    logs: BTreeMap<String, LogEvent>,
    /// Local IPs: `ADDRESS translate|passthrough NETWORK PORT/FIXED_IP [PORT/FIXED_IP]...`.
    #[serde(default)]
    local_ips: BTreeMap<String, String>,
    /// Metering labels: `ingress|egress [from RANGE] [to RANGE] [not]`.
    #[serde(default)]
    meters: BTreeMap<String, Vec<String>>,
    /// Hosts' addresses in the underlay; `host` is the one under test. `elsewhere` has 198.51.100.2 unless it is named.
    #[serde(default)]
    hosts: BTreeMap<String, IpAddr>,
    /// Stations outside: name → MAC.
    #[serde(default)]
    macs: BTreeMap<String, MacAddress>,
}

/// MAC addresses by name: `PORT`, `ROUTER@NETWORK`, `FLOATING_IP`, a station's.
pub type Names = BTreeMap<String, MacAddress>;

/// What a text expands to.
#[derive(Clone, Debug)]
pub struct Expanded {
    /// Valid.
    pub snapshot: HostSnapshot,
    /// MAC addresses by name.
    pub names: Names,
}

/// A MAC address made of the kind and a hash (FNV-1a) of the name, so that it stays when other resources come and go.
fn mac(kind: u8, name: &str) -> MacAddress {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
    });
    let [a, b, c, d] = hash.to_be_bytes();
    MacAddress([0xfa, kind, a, b, c, d])
}

/// Expands a text.
///
/// # Errors
/// What is wrong, in words: a name that is not there, or a mistake that the snapshot's validation finds.
pub fn expand(text: &SnapshotText, revision: u64) -> Result<Expanded, String> {
    let host = "host".parse().map_err(|e| format!("{e}"))?;
    let epoch = Epoch::from(Uuid::nil());
    let mut e = Expanded {
        snapshot: HostSnapshot::empty(host, epoch),
        names: text.macs.clone(),
    };
    e.snapshot.revision = Revision(revision);
    e.names.insert("zero".into(), MacAddress([0; 6]));
    e.names.insert("bcast".into(), MacAddress::BROADCAST);
    networks(text, &mut e);
    qos(text, &mut e);
    meters(text, &mut e)?;
    for (name, event) in &text.logs {
        let log = Log {
            event: *event,
            security_group_id: None,
        };
        let id = uuid_of(kind::LOG, name).into();
        e.snapshot.logs.insert(id, log);
    }
    ports(text, &mut e)?;
    local_ips(text, &mut e)?;
    routers(text, &mut e)?;
    floating_ips(text, &mut e)?;
    groups(text, &mut e)?;
    match e.snapshot.validate().first() {
        None => Ok(e),
        Some(mistake) => Err(format!("invalid snapshot: {mistake}")),
    }
}

fn meters(text: &SnapshotText, e: &mut Expanded) -> Result<(), String> {
    for (name, rules) in &text.meters {
        let rules = rules.iter().map(|rule| meter_rule(rule));
        let label = MeteringLabel {
            rules: rules.collect::<Result<_, String>>()?,
        };
        let id = uuid_of(kind::METERING_LABEL, name).into();
        e.snapshot.metering_labels.insert(id, label);
    }
    Ok(())
}

fn local_ips(text: &SnapshotText, e: &mut Expanded) -> Result<(), String> {
    for (name, words) in &text.local_ips {
        let wrong = || format!("{words:?} is no local IP");
        let mut words = words.split_whitespace();
        let address = words.next().and_then(|word| word.parse().ok());
        let mode = match words.next() {
            Some("translate") => LocalIpMode::Translate,
            Some("passthrough") => LocalIpMode::Passthrough,
            _ => return Err(wrong()),
        };
        let network = words.next().ok_or_else(wrong)?;
        let targets = words.map(|word| {
            let (port, fixed) = word.split_once('/').ok_or_else(wrong)?;
            Ok(LocalIpTarget {
                port_id: uuid_of(kind::PORT, port).into(),
                fixed_ip: fixed.parse().map_err(|_address| wrong())?,
            })
        });
        let local = LocalIp {
            network_id: network_id(network),
            local_ip_address: address.ok_or_else(wrong)?,
            mode,
            targets: targets.collect::<Result<_, String>>()?,
        };
        let id = uuid_of(kind::LOCAL_IP, name).into();
        e.snapshot.local_ips.insert(id, local);
    }
    Ok(())
}

fn meter_rule(text: &str) -> Result<MeteringRule, String> {
    let wrong = || format!("{text:?} is no metering rule");
    let mut words = text.split_whitespace();
    let direction = match words.next() {
        Some("ingress") => Direction::Ingress,
        Some("egress") => Direction::Egress,
        _ => return Err(wrong()),
    };
    let (mut source, mut destination, mut excluded) = (None, None, false);
    while let Some(word) = words.next() {
        let mut range = || {
            let range = words.next().and_then(|word| word.parse().ok());
            range.ok_or_else(wrong).map(Some)
        };
        match word {
            "from" => source = range()?,
            "to" => destination = range()?,
            "not" => excluded = true,
            _ => return Err(wrong()),
        }
    }
    Ok(MeteringRule {
        direction,
        source,
        destination,
        excluded,
    })
}

fn host_name(name: &str) -> Result<HostName, String> {
    name.parse().map_err(|error| format!("{error}"))
}

fn network_id(name: &str) -> NetworkId {
    uuid_of(kind::NETWORK, name).into()
}

fn pvlan_role(word: &str) -> Option<PvlanRole> {
    match word {
        "" | "promiscuous" => None,
        "isolated" => Some(PvlanRole::Isolated),
        community => Some(PvlanRole::Community {
            community: community.to_owned(),
        }),
    }
}

fn qos_policy_id(name: &str) -> QosPolicyId {
    uuid_of(kind::QOS_POLICY, name).into()
}

fn networks(text: &SnapshotText, e: &mut Expanded) {
    for (number, (name, network)) in (1u32..).zip(&text.networks) {
        let network_type = match (&network.physical, network.local) {
            (Some(_), _) if network.vlan.is_some() => NetworkType::Vlan,
            (Some(_), _) => NetworkType::Flat,
            (None, true) => NetworkType::Local,
            (None, false) if network.geneve => NetworkType::Geneve,
            (None, false) if network.gre => NetworkType::Gre,
            (None, false) => NetworkType::Vxlan,
        };
        let segment = Segment {
            network_type,
            physical_network: network.physical.clone(),
            segmentation_id: match network_type {
                NetworkType::Vxlan | NetworkType::Geneve | NetworkType::Gre => {
                    Some(network.vni.unwrap_or(number))
                }
                _ => network.vlan.map(u32::from),
            },
        };
        let external = network.physical.is_some();
        let network = Network {
            segment,
            mtu: network.mtu,
            external,
            dns_domain: String::new(),
            transit: network.transit.map(|vni| Transit {
                vni,
                mtu: network.transit_mtu.unwrap_or(1500),
                uplink: network.uplink,
            }),
            vlan_transparent: network.transparent,
        };
        e.snapshot.networks.insert(network_id(name), network);
    }
    for (name, subnet) in &text.subnets {
        let subnet = Subnet {
            network_id: network_id(&subnet.network),
            cidr: subnet.cidr,
            gateway_ip: subnet.gateway,
            enable_dhcp: subnet.dhcp,
            dns_nameservers: vec![],
            host_routes: vec![],
            ipv6_ra_mode: subnet.ra,
            ipv6_address_mode: subnet.address_mode,
            address_scope_id: subnet
                .scope
                .as_ref()
                .map(|name| uuid_of(kind::ADDRESS_SCOPE, name).into()),
        };
        e.snapshot
            .subnets
            .insert(uuid_of(kind::SUBNET, name).into(), subnet);
    }
}

fn subnet_for(e: &Expanded, network: &str, address: IpAddr) -> Result<SubnetId, String> {
    e.snapshot
        .subnets_of(network_id(network))
        .find(|(_, s)| s.cidr.contains(&address))
        .map(|(id, _)| *id)
        .ok_or_else(|| format!("{address} is in no subnet of {network}"))
}

fn fixed_ips(e: &Expanded, network: &str, ips: &[IpAddr]) -> Result<Vec<FixedIp>, String> {
    ips.iter()
        .map(|ip| {
            Ok(FixedIp {
                subnet_id: subnet_for(e, network, *ip)?,
                ip_address: *ip,
            })
        })
        .collect()
}

fn qos(text: &SnapshotText, e: &mut Expanded) {
    for (name, qos) in &text.qos {
        let directions = [QosDirection::Egress, QosDirection::Ingress];
        let limits = |of: [Option<[u32; 2]>; 2]| {
            let both = directions.into_iter().zip(of);
            both.filter_map(|(direction, limit)| Some((direction, limit?)))
        };
        let bandwidth = limits([qos.egress_kbps, qos.ingress_kbps]).map(|(direction, limit)| {
            QosBandwidthLimit {
                direction,
                max_kbps: limit[0],
                max_burst_kbps: limit[1],
            }
        });
        let packets = limits([qos.egress_kpps, qos.ingress_kpps]).map(|(direction, limit)| {
            QosPacketRateLimit {
                direction,
                max_kpps: limit[0],
                max_burst_kpps: limit[1],
            }
        });
        let policy = QosPolicy {
            bandwidth_limits: bandwidth.collect(),
            packet_rate_limits: packets.collect(),
            dscp_mark: qos.dscp,
        };
        e.snapshot
            .qos_policies
            .insert(uuid_of(kind::QOS_POLICY, name).into(), policy);
    }
}

fn router_addresses(
    e: &Expanded,
    network: &str,
    ips: &[IpAddr],
) -> Result<Vec<RouterAddress>, String> {
    ips.iter()
        .map(|ip| {
            Ok(RouterAddress {
                subnet_id: subnet_for(e, network, *ip)?,
                ip_address: *ip,
            })
        })
        .collect()
}

fn pair(text: &str, own: MacAddress) -> Result<AllowedAddressPair, String> {
    let wrong = || format!("{text:?} is no address pair: expected [MAC] ADDRESS/LENGTH");
    let (mac_address, range) = match text.split_once(' ') {
        Some((mac, range)) => (mac.parse().map_err(|_mac| wrong())?, range),
        None => (own, text),
    };
    Ok(AllowedAddressPair {
        mac_address,
        ip_address: range.parse().map_err(|_range| wrong())?,
    })
}

fn ports(text: &SnapshotText, e: &mut Expanded) -> Result<(), String> {
    for (name, port) in &text.ports {
        let mac_address = port.mac.unwrap_or_else(|| mac(1, name));
        let pairs = port
            .pairs
            .iter()
            .map(|p| pair(p, mac_address))
            .collect::<Result<_, _>>()?;
        let groups = port
            .groups
            .iter()
            .map(|g| uuid_of(kind::GROUP, g).into())
            .collect();
        let made = Port {
            network_id: network_id(&port.network),
            mac_address,
            fixed_ips: fixed_ips(e, &port.network, &port.ips)?,
            claimed_ips: port.claims.clone(),
            allowed_address_pairs: pairs,
            port_security_enabled: port.port_security,
            security_groups: groups,
            admin_state_up: port.up,
            device_owner: String::new(),
            dns_name: String::new(),
            interface: match &port.parent {
                Some(parent) => PortInterface::Subport {
                    parent: uuid_of(kind::PORT, parent).into(),
                    vlan_id: port.vlan,
                },
                None => PortInterface::Tap {
                    name: format!("tap{name}"),
                },
            },
            extra_dhcp_opts: vec![],
            logs: (port.logs.iter())
                .map(|name| uuid_of(kind::LOG, name).into())
                .collect(),
            qos_policy_id: port.qos.as_deref().map(qos_policy_id),
            pvlan: pvlan_role(&port.pvlan),
        };
        for group in &made.security_groups {
            for ip in &made.fixed_ips {
                let address = IpNet::from(ip.ip_address);
                let member = SecurityGroupMember {
                    security_group_id: *group,
                    address,
                };
                e.snapshot.security_group_members.insert(member);
            }
        }
        e.names.insert(name.clone(), mac_address);
        e.snapshot
            .ports
            .insert(uuid_of(kind::PORT, name).into(), made);
    }
    for (name, tunnel_ip) in &text.hosts {
        let host = host_name(name)?;
        let tunnel_ip = *tunnel_ip;
        e.snapshot.tunnel_hosts.insert(
            host,
            TunnelHost {
                tunnel_ip,
                probed: false,
            },
        );
    }
    for (name, port) in &text.remote_ports {
        let host = port.host.as_deref().unwrap_or("elsewhere");
        let host = host_name(host)?;
        let tunnel_ip = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
        e.snapshot
            .tunnel_hosts
            .entry(host.clone())
            .or_insert(TunnelHost {
                tunnel_ip,
                probed: false,
            });
        let made = RemotePort {
            network_id: network_id(&port.network),
            mac_address: mac(5, name),
            fixed_ips: fixed_ips(e, &port.network, &port.ips)?,
            claimed_ips: port.claims.clone(),
            host,
            pvlan: pvlan_role(&port.pvlan),
        };
        e.names.insert(name.clone(), made.mac_address);
        e.snapshot
            .remote_ports
            .insert(uuid_of(kind::PORT, name).into(), made.into());
    }
    Ok(())
}

fn routers(text: &SnapshotText, e: &mut Expanded) -> Result<(), String> {
    for (name, router) in &text.routers {
        let mut made = Router {
            admin_state_up: router.up,
            interfaces: vec![],
            gateway: None,
            routes: vec![],
            ndp_proxies: router.ndp_proxies.clone(),
            conntrack_helpers: vec![],
            metering_labels: (router.meters.iter())
                .map(|name| uuid_of(kind::METERING_LABEL, name).into())
                .collect(),
        };
        for (network, ips) in &router.interfaces {
            let leg = format!("{name}@{network}");
            made.interfaces.push(RouterInterface {
                port_id: uuid_of(kind::PORT, &leg).into(),
                network_id: network_id(network),
                mac_address: mac(2, &leg),
                addresses: router_addresses(e, network, ips)?,
            });
            let leg_mac = mac(2, &leg);
            e.names.insert(leg, leg_mac);
        }
        if let Some(gateway) = &router.gateway {
            let leg = format!("{name}@{}", gateway.network);
            let [first, last] = gateway.ports.unwrap_or([32_768, 65_535]);
            let elsewhere = gateway.elsewhere.iter().map(|(host, [first, last])| {
                let block = PortBlock {
                    first: *first,
                    last: *last,
                };
                Ok((host_name(host)?, block))
            });
            made.gateway = Some(RouterGateway {
                port_id: uuid_of(kind::PORT, &leg).into(),
                network_id: network_id(&gateway.network),
                mac_address: mac(3, &leg),
                addresses: router_addresses(e, &gateway.network, &gateway.ips)?,
                enable_snat: gateway.snat,
                snat_port_block: (first > 0).then_some(PortBlock { first, last }),
                snat_port_blocks_elsewhere: elsewhere.collect::<Result<_, String>>()?,
                gateway_host: gateway.host.as_deref().map(host_name).transpose()?,
                qos_policy_id: gateway.qos.as_deref().map(qos_policy_id),
            });
            let leg_mac = mac(3, &leg);
            e.names.insert(leg, leg_mac);
        }
        for route in &router.routes {
            let wrong = || format!("{route:?} is no route: expected DESTINATION via NEXTHOP");
            let (destination, nexthop) = route.split_once(" via ").ok_or_else(wrong)?;
            made.routes.push(RouterRoute {
                destination: destination.parse().map_err(|_range| wrong())?,
                nexthop: nexthop.parse().map_err(|_address| wrong())?,
            });
        }
        e.snapshot
            .routers
            .insert(uuid_of(kind::ROUTER, name).into(), made);
    }
    Ok(())
}

fn floating_ips(text: &SnapshotText, e: &mut Expanded) -> Result<(), String> {
    for (name, floating) in &text.floating_ips {
        let router_id = uuid_of(kind::ROUTER, &floating.router).into();
        let gateway = e
            .snapshot
            .routers
            .get(&router_id)
            .and_then(|r| r.gateway.as_ref());
        let floating_network_id = gateway
            .map(|g| g.network_id)
            .ok_or_else(|| format!("{name}: {} has no gateway", floating.router))?;
        let mac_address = mac(4, name);
        e.names.insert(name.clone(), mac_address);
        let id = uuid_of(kind::FLOATING_IP, name).into();
        if !floating.forward.is_empty() {
            let mut made = ForwardedIp {
                floating_network_id,
                floating_ip_address: floating.address,
                mac_address,
                router_id,
                port_forwardings: vec![],
                elsewhere: vec![],
                qos_policy_id: floating.qos.as_deref().map(qos_policy_id),
            };
            for (number, words) in floating.forward.iter().enumerate() {
                forwarding(&mut made, &format!("{name}{number}"), words).ok_or_else(|| {
                    format!("{words:?} is no forwarding: expected PROTOCOL PORTS to PORT ADDRESS PORTS, or PROTOCOL PORTS at HOST")
                })?;
            }
            e.snapshot.forwarded_ips.insert(id, made);
            continue;
        }
        if let Some(host) = &floating.host {
            let made = RemoteFloatingIp {
                floating_network_id,
                floating_ip_address: floating.address,
                mac_address,
                router_id,
                host: host_name(host)?,
            };
            e.snapshot.remote_floating_ips.insert(id, made);
            continue;
        }
        let made = FloatingIp {
            floating_network_id,
            floating_ip_address: floating.address,
            mac_address,
            router_id,
            port_id: uuid_of(kind::PORT, &floating.port).into(),
            fixed_ip_address: floating
                .fixed
                .ok_or_else(|| format!("{name}: no fixed address"))?,
            qos_policy_id: floating.qos.as_deref().map(qos_policy_id),
        };
        e.snapshot.floating_ips.insert(id, made);
    }
    Ok(())
}

/// Reads a forwarding.
fn forwarding(of: &mut ForwardedIp, id: &str, text: &str) -> Option<()> {
    let range = |text: &str| -> Option<(u16, u16)> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let protocol = protocol_number(words.first()?)?;
    let (external_port_first, external_port_last) = range(words.get(1)?)?;
    match words.get(2..)? {
        ["to", port, address, ports] => {
            let (internal_port_first, internal_port_last) = range(ports)?;
            of.port_forwardings.push(PortForwarding {
                id: uuid_of(kind::FLOATING_IP, id).into(),
                protocol,
                external_port_first,
                external_port_last,
                internal_port_id: uuid_of(kind::PORT, port).into(),
                internal_ip_address: address.parse().ok()?,
                internal_port_first,
                internal_port_last,
            });
        }
        ["at", host] => of.elsewhere.push(PortForwardingElsewhere {
            protocol,
            external_port_first,
            external_port_last,
            host: host_name(host).ok()?,
        }),
        _ => return None,
    }
    Some(())
}

fn groups(text: &SnapshotText, e: &mut Expanded) -> Result<(), String> {
    for (name, members) in &text.groups {
        let id = uuid_of(kind::GROUP, name).into();
        let stateful = !text.stateless.contains(name);
        e.snapshot
            .security_groups
            .insert(id, SecurityGroup { stateful });
        for address in members {
            let member = SecurityGroupMember {
                security_group_id: id,
                address: *address,
            };
            e.snapshot.security_group_members.insert(member);
        }
    }
    for (name, addresses) in &text.address_groups {
        let id = uuid_of(kind::ADDRESS_GROUP, name).into();
        e.snapshot.address_groups.insert(
            id,
            AddressGroup {
                addresses: addresses.clone(),
            },
        );
    }
    for (name, rule) in &text.rules {
        let made = rule_parse(rule).ok_or_else(|| format!("rule {name}: cannot read {rule:?}"))?;
        e.snapshot
            .security_group_rules
            .insert(uuid_of(kind::RULE, name).into(), made);
    }
    Ok(())
}

/// IP protocol numbers by the names that vectors use.
#[must_use]
pub fn protocol_number(name: &str) -> Option<u8> {
    Some(match name {
        "icmp" => 1,
        "tcp" => 6,
        "udp" => 17,
        "dccp" => 33,
        "icmpv6" => 58,
        "sctp" => 132,
        "udplite" => 136,
        number => number.parse().ok()?,
    })
}

fn rule_parse(text: &str) -> Option<SecurityGroupRule> {
    let mut words = text.split_whitespace().peekable();
    let security_group_id = uuid_of(kind::GROUP, words.next()?).into();
    let direction = match words.next()? {
        "ingress" => Direction::Ingress,
        "egress" => Direction::Egress,
        _ => return None,
    };
    let ethertype = match words.next()? {
        "v4" => EtherType::Ipv4,
        "v6" => EtherType::Ipv6,
        _ => return None,
    };
    let protocol = match words.next()? {
        "any" => None,
        name => Some(protocol_number(name)?),
    };
    let mut rule = SecurityGroupRule {
        security_group_id,
        direction,
        ethertype,
        protocol,
        port_range: None,
        remote: Remote::Any,
    };
    if let Some(range) = words.next_if(|w| w.starts_with(|c: char| c.is_ascii_digit())) {
        let icmp = matches!(protocol, Some(1 | 58));
        let (first, last) = match range.split_once(['-', '/']) {
            Some((first, last)) => (first.parse().ok()?, Some(last.parse().ok()?)),
            None => (range.parse().ok()?, None),
        };
        rule.port_range = Some(PortRange {
            first,
            last: last.or((!icmp).then_some(first)),
        });
    }
    if words.next_if(|w| matches!(*w, "from" | "to")).is_some() {
        let remote = words.next()?;
        rule.remote = match remote.split_once(':') {
            Some(("group", name)) => Remote::Group(uuid_of(kind::GROUP, name).into()),
            Some(("addresses", name)) => {
                Remote::AddressGroup(uuid_of(kind::ADDRESS_GROUP, name).into())
            }
            _ => Remote::Prefix(remote.parse().ok()?),
        };
    }
    words.next().is_none().then_some(rule)
}
