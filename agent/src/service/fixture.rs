//! A host's snapshot for the services' tests: guests on a project network, a router, an external flat network.

use std::net::IpAddr;
use uuid::Uuid;
use weft_model::{
    Epoch, FixedIp, FloatingIp, FloatingIpId, HostSnapshot, Ipv6Mode, MacAddress, Network,
    NetworkId, NetworkType, Port, PortBlock, PortId, PortInterface, Router, RouterAddress,
    RouterGateway, RouterId, RouterInterface, Segment, Subnet, SubnetId,
};

pub(crate) const PROJECT: NetworkId = NetworkId(Uuid::from_u128(0x10));
pub(crate) const OUTSIDE: NetworkId = NetworkId(Uuid::from_u128(0x11));
pub(crate) const SUBNET4: SubnetId = SubnetId(Uuid::from_u128(0x20));
pub(crate) const SUBNET6: SubnetId = SubnetId(Uuid::from_u128(0x21));
pub(crate) const OUTSIDE4: SubnetId = SubnetId(Uuid::from_u128(0x22));
pub(crate) const OUTSIDE6: SubnetId = SubnetId(Uuid::from_u128(0x23));
pub(crate) const GUEST: PortId = PortId(Uuid::from_u128(0x30));
pub(crate) const OTHER_GUEST: PortId = PortId(Uuid::from_u128(0x31));
pub(crate) const LEG: PortId = PortId(Uuid::from_u128(0x40));
pub(crate) const GATEWAY: PortId = PortId(Uuid::from_u128(0x41));
pub(crate) const ROUTER: RouterId = RouterId(Uuid::from_u128(0x50));
pub(crate) const FLOATING: FloatingIpId = FloatingIpId(Uuid::from_u128(0x60));

pub(crate) const GUEST_MAC: MacAddress = MacAddress([0xfa, 0x16, 0x3e, 0, 0, 0x30]);
pub(crate) const LEG_MAC: MacAddress = MacAddress([0xfa, 0x16, 0x3e, 0, 0, 0x40]);
pub(crate) const GATEWAY_MAC: MacAddress = MacAddress([0xfa, 0x16, 0x3e, 0, 0, 0x41]);
pub(crate) const FLOATING_MAC: MacAddress = MacAddress([0xfa, 0x16, 0x3e, 0, 0, 0x60]);
pub(crate) const HOP_MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn network(network_type: NetworkType, mtu: u32) -> Network {
    let physical = network_type.is_physical();
    Network {
        segment: Segment {
            network_type,
            physical_network: physical.then(|| "physnet1".to_owned()),
            segmentation_id: (!physical).then_some(7),
        },
        mtu,
        external: physical,
        dns_domain: "example.org.".to_owned(),
        transit: None,
        vlan_transparent: false,
    }
}

fn subnet(network_id: NetworkId, cidr: &str, gateway: &str) -> Subnet {
    let cidr: ipnet::IpNet = cidr.parse().unwrap();
    let v6 = cidr.addr().is_ipv6();
    let server = if v6 { "2001:db8::53" } else { "9.9.9.9" };
    Subnet {
        network_id,
        cidr,
        gateway_ip: Some(ip(gateway)),
        enable_dhcp: true,
        dns_nameservers: vec![ip(server)],
        host_routes: Vec::new(),
        ipv6_ra_mode: v6.then_some(Ipv6Mode::Slaac),
        ipv6_address_mode: v6.then_some(Ipv6Mode::Slaac),
        address_scope_id: None,
    }
}

fn guest(mac: MacAddress, v4: &str, v6: &str, tap: &str) -> Port {
    let fixed = |subnet_id, text| FixedIp {
        subnet_id,
        ip_address: ip(text),
    };
    Port {
        network_id: PROJECT,
        mac_address: mac,
        fixed_ips: vec![fixed(SUBNET4, v4), fixed(SUBNET6, v6)],
        allowed_address_pairs: Vec::new(),
        claimed_ips: Vec::new(),
        port_security_enabled: true,
        security_groups: Vec::new(),
        admin_state_up: true,
        device_owner: String::new(),
        dns_name: "vm1".to_owned(),
        interface: PortInterface::Tap {
            name: tap.to_owned(),
        },
        extra_dhcp_opts: Vec::new(),
        qos_policy_id: None,
        pvlan: None,
        logs: Vec::new(),
    }
}

fn router() -> Router {
    let at = |subnet_id, text| RouterAddress {
        subnet_id,
        ip_address: ip(text),
    };
    Router {
        admin_state_up: true,
        interfaces: vec![RouterInterface {
            port_id: LEG,
            network_id: PROJECT,
            mac_address: LEG_MAC,
            addresses: vec![at(SUBNET4, "192.0.2.1"), at(SUBNET6, "fd00:192:0:2::1")],
        }],
        gateway: Some(RouterGateway {
            port_id: GATEWAY,
            network_id: OUTSIDE,
            mac_address: GATEWAY_MAC,
            addresses: vec![
                at(OUTSIDE4, "203.0.113.10"),
                at(OUTSIDE6, "2001:db8:203::10"),
            ],
            enable_snat: true,
            snat_port_block: Some(PortBlock {
                first: 1_024,
                last: 65_535,
            }),
            snat_port_blocks_elsewhere: std::collections::BTreeMap::new(),
            gateway_host: None,
            qos_policy_id: None,
        }),
        routes: Vec::new(),
        ndp_proxies: None,
        conntrack_helpers: Vec::new(),
        metering_labels: Vec::new(),
    }
}

/// A valid snapshot.
pub(crate) fn snapshot() -> HostSnapshot {
    let mut s = HostSnapshot::empty("host1".parse().unwrap(), Epoch(Uuid::from_u128(1)));
    s.networks
        .insert(PROJECT, network(NetworkType::Vxlan, 1_450));
    s.networks
        .insert(OUTSIDE, network(NetworkType::Flat, 1_400));
    for (id, network_id, cidr, gateway) in [
        (SUBNET4, PROJECT, "192.0.2.0/24", "192.0.2.1"),
        (SUBNET6, PROJECT, "fd00:192:0:2::/64", "fd00:192:0:2::1"),
        (OUTSIDE4, OUTSIDE, "203.0.113.0/24", "203.0.113.1"),
        (OUTSIDE6, OUTSIDE, "2001:db8:203::/64", "2001:db8:203::1"),
    ] {
        s.subnets.insert(id, subnet(network_id, cidr, gateway));
    }
    let other_mac = MacAddress([0xfa, 0x16, 0x3e, 0, 0, 0x31]);
    let one = guest(GUEST_MAC, "192.0.2.11", "fd00:192:0:2::11", "tap0");
    let two = guest(other_mac, "192.0.2.12", "fd00:192:0:2::12", "tap1");
    s.ports.insert(GUEST, one);
    s.ports.insert(OTHER_GUEST, two);
    s.routers.insert(ROUTER, router());
    s.floating_ips.insert(
        FLOATING,
        FloatingIp {
            floating_network_id: OUTSIDE,
            floating_ip_address: [203, 0, 113, 20].into(),
            mac_address: FLOATING_MAC,
            router_id: ROUTER,
            port_id: GUEST,
            fixed_ip_address: [192, 0, 2, 11].into(),
            qos_policy_id: None,
        },
    );
    assert_eq!(s.validate(), []);
    s
}
