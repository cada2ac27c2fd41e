//! Snapshots of a given size, for benches and the lab: guests on one network under policies of a given size.

use anyhow::Result;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use uuid::Uuid;
use weft_model::{
    Direction, Epoch, EtherType, FixedIp, HostName, HostSnapshot, MacAddress, Network, NetworkId,
    NetworkType, Port, PortId, PortInterface, PortRange, Remote, RemotePort, Revision, Router,
    RouterAddress, RouterId, RouterInterface, SecurityGroup, SecurityGroupId, SecurityGroupRule,
    SecurityGroupRuleId, Segment, Subnet, SubnetId, TunnelHost,
};

/// UDP's and TCP's numbers.
const UDP: u8 = 17;
const TCP: u8 = 6;

/// A guest of a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotGuest {
    /// Its tap's name.
    pub tap: String,
    /// Its MAC address.
    pub mac: MacAddress,
    /// Its address, in 10.0.0.0/8.
    pub address: Ipv4Addr,
}

/// Guests on one network. `groups` says how many security groups they are spread over; each has `rules` ingress rules: the
/// last allows UDP to `service_port`, the others TCP from scattered ranges of both kinds that classifiers dislike
/// (wide port ranges, overlapping prefixes). Egress is open.
///
/// # Errors
/// There is none in practice: the host's name is fixed.
pub fn guests(
    guests: &[SnapshotGuest],
    groups: usize,
    rules: usize,
    service_port: u16,
) -> Result<HostSnapshot> {
    let host: HostName = "lab".parse()?;
    let mut snapshot = HostSnapshot::empty(host, Epoch(id(1, 0)));
    snapshot.revision = Revision(1);
    let subnet_id = network_add(&mut snapshot, 0, net(Ipv4Addr::new(10, 0, 0, 0), 8));
    for n in 0..groups {
        group_add(&mut snapshot, n, rules, service_port);
    }
    for (n, guest) in guests.iter().enumerate() {
        let group = n % groups.max(1);
        port_add(&mut snapshot, n, guest, (0, subnet_id), group);
    }
    Ok(snapshot)
}

/// A guest of one of several hosts.
#[derive(Clone, Debug)]
pub struct OverlayGuest {
    /// What it is; its address is in 10.N.0.0/16, N being its network's number.
    pub guest: SnapshotGuest,
    /// Its host's number.
    pub host: u8,
    /// Its network's number.
    pub network: u8,
}

/// The duty of host `own` of several that VXLAN joins, each by its address in `tunnel_ips`: the networks of the guests are
/// behind one router, which has the first address of each. Policies as in [`guests`], in one group, and TCP to
/// `service_port` too.
///
/// # Errors
/// There is none in practice: the hosts' names are fixed.
pub fn overlay(
    own: u8,
    tunnel_ips: &[IpAddr],
    guests: &[OverlayGuest],
    (rules, service_port): (usize, u16),
) -> Result<HostSnapshot> {
    let host = |number: u8| -> Result<HostName> { Ok(format!("lab-{number}").parse()?) };
    let mut snapshot = HostSnapshot::empty(host(own)?, Epoch(id(1, 0)));
    snapshot.revision = Revision(1);
    let mut interfaces = Vec::new();
    let networks: BTreeSet<u8> = guests.iter().map(|guest| guest.network).collect();
    for n in networks {
        let subnet_id = network_add(&mut snapshot, n.into(), net(Ipv4Addr::new(10, n, 0, 0), 16));
        interfaces.push(RouterInterface {
            port_id: PortId(id(8, n.into())),
            network_id: NetworkId(id(2, n.into())),
            mac_address: overlay_router_mac(n),
            addresses: vec![RouterAddress {
                subnet_id,
                ip_address: Ipv4Addr::new(10, n, 0, 1).into(),
            }],
        });
    }
    let router = Router {
        admin_state_up: true,
        interfaces,
        gateway: None,
        routes: Vec::new(),
        ndp_proxies: None,
        conntrack_helpers: Vec::new(),
        metering_labels: Vec::new(),
    };
    snapshot.routers.insert(RouterId(id(7, 0)), router);
    group_add(&mut snapshot, 0, rules, service_port);
    let tcp = SecurityGroupRule {
        security_group_id: SecurityGroupId(id(4, 0)),
        direction: Direction::Ingress,
        ethertype: EtherType::Ipv4,
        protocol: Some(TCP),
        port_range: Some(PortRange {
            first: service_port,
            last: Some(service_port),
        }),
        remote: Remote::Any,
    };
    let rule_id = SecurityGroupRuleId(id(9, 0));
    snapshot.security_group_rules.insert(rule_id, tcp);
    for (n, of) in guests.iter().enumerate() {
        let subnet_id = SubnetId(id(3, of.network.into()));
        if of.host == own {
            let network = (of.network.into(), subnet_id);
            port_add(&mut snapshot, n, &of.guest, network, 0);
            continue;
        }
        let remote = RemotePort {
            network_id: NetworkId(id(2, of.network.into())),
            mac_address: of.guest.mac,
            fixed_ips: vec![FixedIp {
                subnet_id,
                ip_address: of.guest.address.into(),
            }],
            claimed_ips: Vec::new(),
            host: host(of.host)?,
            pvlan: None,
        };
        snapshot
            .remote_ports
            .insert(PortId(id(5, n)), remote.into());
    }
    for (n, tunnel_ip) in (0..).zip(tunnel_ips) {
        let tunnel_host = TunnelHost {
            tunnel_ip: *tunnel_ip,
            probed: false,
        };
        snapshot.tunnel_hosts.insert(host(n)?, tunnel_host);
    }
    Ok(snapshot)
}

/// The MAC address of the router of [`overlay`] on a network.
#[must_use]
pub fn overlay_router_mac(network: u8) -> MacAddress {
    MacAddress([0xfa, 0x16, 0x3e, 0xff, 0, network])
}

/// A VXLAN network, with 5,001 and its number as VNI, and its subnet.
fn network_add(snapshot: &mut HostSnapshot, number: usize, cidr: ipnet::IpNet) -> SubnetId {
    let (network_id, subnet_id) = (NetworkId(id(2, number)), SubnetId(id(3, number)));
    let segment = Segment {
        network_type: NetworkType::Vxlan,
        physical_network: None,
        segmentation_id: u32::try_from(5_001 + number).ok(),
    };
    let network = Network {
        segment,
        mtu: 1_450,
        external: false,
        dns_domain: String::new(),
        transit: None,
        vlan_transparent: false,
    };
    snapshot.networks.insert(network_id, network);
    let subnet = Subnet {
        network_id,
        cidr,
        gateway_ip: None,
        enable_dhcp: false,
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
        ipv6_ra_mode: None,
        ipv6_address_mode: None,
        address_scope_id: None,
    };
    snapshot.subnets.insert(subnet_id, subnet);
    subnet_id
}

fn port_add(
    snapshot: &mut HostSnapshot,
    number: usize,
    guest: &SnapshotGuest,
    (network, subnet_id): (usize, SubnetId),
    group: usize,
) {
    let port = Port {
        network_id: NetworkId(id(2, network)),
        mac_address: guest.mac,
        fixed_ips: vec![FixedIp {
            subnet_id,
            ip_address: guest.address.into(),
        }],
        claimed_ips: Vec::new(),
        allowed_address_pairs: Vec::new(),
        port_security_enabled: true,
        security_groups: vec![SecurityGroupId(id(4, group))],
        admin_state_up: true,
        device_owner: "compute:lab".to_owned(),
        dns_name: String::new(),
        interface: PortInterface::Tap {
            name: guest.tap.clone(),
        },
        extra_dhcp_opts: Vec::new(),
        qos_policy_id: None,
        pvlan: None,
        logs: Vec::new(),
    };
    snapshot.ports.insert(PortId(id(5, number)), port);
}

fn group_add(snapshot: &mut HostSnapshot, group: usize, rules: usize, service_port: u16) {
    let security_group_id = SecurityGroupId(id(4, group));
    snapshot
        .security_groups
        .insert(security_group_id, SecurityGroup { stateful: true });
    let mut put = |n: usize, direction, ethertype, protocol, port_range, remote| {
        let rule = SecurityGroupRule {
            security_group_id,
            direction,
            ethertype,
            protocol,
            port_range,
            remote,
        };
        snapshot
            .security_group_rules
            .insert(SecurityGroupRuleId(id(6 + group, n)), rule);
    };
    let service = PortRange {
        first: service_port,
        last: Some(service_port),
    };
    let (inward, v4) = (Direction::Ingress, EtherType::Ipv4);
    for n in 1..rules {
        let (range, remote) = scattered(n);
        put(n, inward, v4, Some(TCP), Some(range), remote);
    }
    put(rules, inward, v4, Some(UDP), Some(service), Remote::Any);
    put(rules + 1, Direction::Egress, v4, None, None, Remote::Any);
    put(
        rules + 2,
        Direction::Egress,
        EtherType::Ipv6,
        None,
        None,
        Remote::Any,
    );
}

/// The `n`th of a fixed sequence of rules: three of four narrow, the fourth with a wide range of ports or addresses.
#[must_use]
pub fn scattered(n: usize) -> (PortRange, Remote) {
    let bits = u32::try_from(n % 1_000_003)
        .unwrap_or(0)
        .wrapping_mul(0x9e37_79b1);
    let [a, b, c, d] = bits.to_be_bytes();
    let first = u16::from_be_bytes([a, b]).clamp(1_024, 60_000);
    let (last, prefix) = match n % 8 {
        3 => (first.saturating_add(5_000), 8 + c % 9),
        7 => (first, c % 9),
        _ => (first, 24 + c % 9),
    };
    let address = Ipv4Addr::new(11 + c % 100, b, a, d);
    (
        PortRange {
            first,
            last: Some(last),
        },
        Remote::Prefix(net(address, prefix)),
    )
}

fn net(address: Ipv4Addr, prefix: u8) -> ipnet::IpNet {
    ipnet::IpNet::new_assert(IpAddr::V4(address), prefix.min(32)).trunc()
}

/// The same ids in every run: what differs between runs must not be the order of rules.
fn id(kind: usize, n: usize) -> Uuid {
    Uuid::from_u64_pair(kind as u64, n as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labs_snapshots_are_valid() {
        let guest = |n: u8| SnapshotGuest {
            tap: format!("tap-{n}"),
            mac: MacAddress([0xfa, 0x16, 0x3e, 0, 0, n]),
            address: Ipv4Addr::new(10, 0, 0, n),
        };
        let snapshot = guests(&[guest(1), guest(2), guest(3)], 2, 1_000, 7).unwrap();
        assert_eq!(snapshot.validate(), Vec::new());
        assert_eq!(snapshot.security_group_rules.len(), 2 * 1_002);
    }

    #[test]
    fn what_hosts_of_an_overlay_must_do_is_valid_and_fits_together() {
        let guest = |n: u8, host, network| OverlayGuest {
            guest: SnapshotGuest {
                tap: format!("tap-{n}"),
                mac: MacAddress([0xfa, 0x16, 0x3e, 0, 0, n]),
                address: Ipv4Addr::new(10, network, 0, 10 + n),
            },
            host,
            network,
        };
        let guests = [guest(0, 0, 0), guest(1, 1, 0), guest(2, 1, 1)];
        let ips = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let [a, b] = [0, 1].map(|own| overlay(own, &ips, &guests, (10, 7)).unwrap());
        assert_eq!([a.validate(), b.validate()], [Vec::new(), Vec::new()]);
        assert_eq!((a.ports.len(), a.remote_ports.len()), (1, 2));
        assert_eq!((b.ports.len(), b.remote_ports.len()), (2, 1));
        assert_eq!(a.tunnel_ip(), Some(ips[0]));
        assert_eq!(b.tunnel_ip(), Some(ips[1]));
        assert_eq!(a.routers, b.routers);
    }
}
