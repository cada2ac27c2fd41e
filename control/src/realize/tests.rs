//! Realize over a real store: what each resource does to a host's snapshot, and that incremental and full agree.

use super::snapshot::View;
use super::*;
use crate::feed::host::Subscription;
use crate::store::address_group::AddressGroupRow;
use crate::store::floating_ip::FloatingIpRow;
use crate::store::gateway::physical_network_set;
use crate::store::log::LogRow;
use crate::store::metering::{MeteringLabelRow, MeteringLabelRuleRow};
use crate::store::network::NetworkRow;
use crate::store::port::{
    self, AddressPair, DhcpOpt, FixedIpRow, PortRow, fixed_ip_insert, ip_key, security_groups_set,
};
use crate::store::port_binding::VhostUser;
use crate::store::qos_policy::{QosPolicyRow, QosRuleRow};
use crate::store::router::{RouterRow, interface_insert};
use crate::store::security_group::{SecurityGroupRow, SecurityGroupRuleRow};
use crate::store::segment::{SegmentRow, segment_delete, segment_insert};
use crate::store::subnet::{Route, SubnetRow};
use crate::store::trunk::{SubportRow, TrunkRow, subport_insert};
use crate::store::tunnel_host::tunnel_host_set;
use crate::store::{self, Durability, JsonText, WriteTx};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use uuid::Uuid;
use weft_model::limits::{self, ADDRESS_GROUP_ADDRESSES_MAX};
use weft_model::{
    EtherType, FeedMessage, HostName, HostSnapshot, Ipv6Mode, LogEvent, NetworkId, PortInterface,
    PortRange, PvlanRole, Remote, Revision, VhostUserMode,
};

/// A cloud's database, written below the API.
struct Cloud {
    store: Store,
    _folder: tempfile::TempDir,
    rows: Rows,
    duties: Duties,
    hub: Hub,
    hosts: BTreeSet<HostName>,
}

/// Different numbers make different device names: those are made of an id's first digits.
fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(number << 96)
}

fn id(number: u128) -> String {
    uuid(number).to_string()
}

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

impl Cloud {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weft.sqlite");
        let store = Store::open(&file, Durability::Process, Arc::new(|| 0))
            .await
            .unwrap();
        let mut tx = store.write().await.unwrap();
        tunnel_host_set(&mut tx, "h2", Some("10.0.0.2"))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let rows = Rows::load(&store).await.unwrap();
        let hub = Hub::new(store.epoch());
        let hosts = [host("h1"), host("h2")];
        for name in &hosts {
            hub.subscribe(name, None).unwrap();
        }
        Self {
            store,
            _folder: folder,
            rows,
            duties: Duties::default(),
            hub,
            hosts: hosts.into(),
        }
    }

    /// What `name` must do now: brought up to date, and checked against what is computed from scratch.
    async fn duty(&mut self, name: &str) -> HostSnapshot {
        let marks = self.rows.update(&self.store).await.unwrap();
        let all = Rows::load(&self.store).await.unwrap();
        assert!(self.rows == all, "incremental and full differ");
        self.duties
            .update(&self.rows, &marks, &self.hub, Instant::now());
        let name = host(name);
        let full = View::new(&self.rows).snapshot(&name, &self.hosts, self.store.epoch());
        assert_eq!(full.validate(), []);
        let mut kept = self.hub.snapshot(&name).unwrap();
        kept.revision = full.revision;
        assert_eq!(kept, full);
        full
    }

    async fn write(&self) -> WriteTx {
        self.store.write().await.unwrap()
    }

    /// Network `n`: VXLAN, or flat on physical network `physnet`n.
    async fn network(&self, n: u128, flat: bool) {
        let mut tx = self.write().await;
        let mut row = NetworkRow {
            id: id(n),
            mtu: 1450,
            external: flat,
            dns_domain: "example.org".to_owned(),
            ..NetworkRow::default()
        };
        store::insert(&mut tx, &mut row).await.unwrap();
        let mut segment = SegmentRow {
            id: id(n),
            network_id: id(n),
            segment_index: 0,
            network_type: if flat { "flat" } else { "vxlan" }.to_owned(),
            physical_network: flat.then(|| format!("physnet{n}")),
            segmentation_id: (!flat).then(|| i64::try_from(n).unwrap()),
            ..SegmentRow::default()
        };
        segment_insert(&mut tx, &mut segment).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn address_group(&self, n: u128, addresses: &[&str]) {
        let mut tx = self.write().await;
        let addresses = addresses.iter().map(|range| (*range).to_owned());
        let mut row = AddressGroupRow {
            id: id(n),
            addresses: JsonText(addresses.collect()),
            ..AddressGroupRow::default()
        };
        store::insert(&mut tx, &mut row).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn subnet(&self, n: u128, network: u128, cidr: &str, gateway: &str) {
        let mut tx = self.write().await;
        let v6 = cidr.contains(':');
        let mut row = SubnetRow {
            id: id(n),
            network_id: id(network),
            ip_version: if v6 { 6 } else { 4 },
            cidr: cidr.to_owned(),
            gateway_ip: Some(gateway.to_owned()),
            enable_dhcp: true,
            ipv6_ra_mode: v6.then(|| "dhcpv6-stateless".to_owned()),
            ipv6_address_mode: v6.then(|| "slaac".to_owned()),
            dns_nameservers: JsonText(vec!["192.0.2.53".parse().unwrap()]),
            ..SubnetRow::default()
        };
        store::insert(&mut tx, &mut row).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Port `n` of a device owner on a host, with addresses (subnet, address) and groups.
    async fn port(
        &self,
        n: u128,
        network: u128,
        who: (&str, &str),
        ips: &[(u128, &str)],
        groups: &[u128],
    ) {
        let mut tx = self.write().await;
        let mut row = PortRow {
            id: id(n),
            network_id: id(network),
            admin_state_up: true,
            mac_address: format!("fa:16:3e:00:{:02x}:{:02x}", n >> 8 & 0xff, n & 0xff),
            device_owner: who.0.to_owned(),
            binding_host_id: who.1.to_owned(),
            port_security_enabled: true,
            status: "DOWN".to_owned(),
            ..PortRow::default()
        };
        store::insert(&mut tx, &mut row).await.unwrap();
        for (position, (subnet, address)) in ips.iter().enumerate() {
            let ip = FixedIpRow {
                subnet_id: id(*subnet),
                ip_key: ip_key(address.parse().unwrap()),
                ip_address: (*address).to_owned(),
                port_id: id(n),
                position: i64::try_from(position).unwrap(),
            };
            fixed_ip_insert(&mut tx, &ip).await.unwrap();
        }
        let groups: Vec<String> = groups.iter().map(|group| id(*group)).collect();
        security_groups_set(&mut tx, &id(n), &groups).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn guest(&self, n: u128, network: u128, at: &str, ips: &[(u128, &str)], groups: &[u128]) {
        self.port(n, network, ("compute:nova", at), ips, groups)
            .await;
    }

    async fn router(&self, n: u128, gateway: Option<u128>, interfaces: &[u128]) {
        let mut tx = self.write().await;
        let mut row = RouterRow {
            id: id(n),
            admin_state_up: true,
            enable_snat: true,
            gateway_port_id: gateway.map(id),
            routes: JsonText(vec![Route {
                destination: "198.51.100.0/24".parse().unwrap(),
                nexthop: "192.0.2.9".parse().unwrap(),
            }]),
            ..RouterRow::default()
        };
        store::insert(&mut tx, &mut row).await.unwrap();
        for port in interfaces {
            interface_insert(&mut tx, &id(n), &id(*port)).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    async fn floating_ip(
        &self,
        n: u128,
        address: &str,
        ports: (u128, u128),
        router: u128,
        fixed: &str,
    ) {
        let mut tx = self.write().await;
        let mut row = FloatingIpRow {
            id: id(n),
            floating_network_id: id(EXTERNAL),
            floating_ip_address: address.to_owned(),
            floating_port_id: id(ports.0),
            router_id: Some(id(router)),
            port_id: Some(id(ports.1)),
            fixed_ip_address: Some(fixed.to_owned()),
            ..FloatingIpRow::default()
        };
        store::insert(&mut tx, &mut row).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn group(&self, n: u128) {
        let mut tx = self.write().await;
        let mut row = SecurityGroupRow {
            id: id(n),
            stateful: true,
            ..SecurityGroupRow::default()
        };
        store::insert(&mut tx, &mut row).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn rule(&self, row: SecurityGroupRuleRow) {
        let mut tx = self.write().await;
        let match_key = row.id.clone();
        let mut row = SecurityGroupRuleRow { match_key, ..row };
        store::insert(&mut tx, &mut row).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Changes a row.
    async fn change<R: store::Row>(&self, n: u128, how: impl FnOnce(&mut R)) {
        let mut tx = self.write().await;
        let mut row: R = store::get(tx.conn(), &id(n)).await.unwrap().unwrap();
        how(&mut row);
        store::update(&mut tx, &mut row).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn connected(&self, host: &str, to: &[&str]) {
        let names: Vec<String> = to.iter().map(|name| (*name).to_owned()).collect();
        let mut tx = self.write().await;
        physical_network_set(&mut tx, host, &names).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn delete<R: store::Row>(&self, n: u128) {
        let mut tx = self.write().await;
        store::delete::<R>(&mut tx, &id(n)).await.unwrap();
        tx.commit().await.unwrap();
    }
}

fn rule(n: u128, group: u128) -> SecurityGroupRuleRow {
    SecurityGroupRuleRow {
        id: id(n),
        security_group_id: id(group),
        direction: "ingress".to_owned(),
        ethertype: "IPv4".to_owned(),
        ..SecurityGroupRuleRow::default()
    }
}

const NET_A: u128 = 1;
const NET_B: u128 = 2;
const EXTERNAL: u128 = 9;
const SUBNET_A: u128 = 11;
const SUBNET_A6: u128 = 12;
const SUBNET_B: u128 = 13;
const SUBNET_X: u128 = 19;
const GUEST: u128 = 0x101;
const SECOND: u128 = 0x103;
const LEG_A: u128 = 0x201;
const LEG_B: u128 = 0x202;
const GATEWAY: u128 = 0x203;
const FIP_PORT: u128 = 0x204;
const ROUTER: u128 = 0x301;
const GROUP: u128 = 0x401;

/// Two networks, a router with a gateway, and one guest on `h1`.
async fn small_cloud() -> Cloud {
    let cloud = Cloud::new().await;
    cloud.network(NET_A, false).await;
    cloud.network(NET_B, false).await;
    cloud.network(EXTERNAL, true).await;
    cloud
        .subnet(SUBNET_A, NET_A, "192.0.2.0/24", "192.0.2.1")
        .await;
    cloud
        .subnet(SUBNET_A6, NET_A, "fd00:192:0:2::/64", "fd00:192:0:2::1")
        .await;
    cloud
        .subnet(SUBNET_B, NET_B, "10.1.0.0/16", "10.1.0.1")
        .await;
    cloud
        .subnet(SUBNET_X, EXTERNAL, "203.0.113.0/24", "203.0.113.1")
        .await;
    cloud.group(GROUP).await;
    let leg = ("network:router_interface", "");
    cloud
        .port(LEG_A, NET_A, leg, &[(SUBNET_A, "192.0.2.1")], &[])
        .await;
    cloud
        .port(LEG_B, NET_B, leg, &[(SUBNET_B, "10.1.0.1")], &[])
        .await;
    let gateway = ("network:router_gateway", "");
    cloud
        .port(
            GATEWAY,
            EXTERNAL,
            gateway,
            &[(SUBNET_X, "203.0.113.7")],
            &[],
        )
        .await;
    cloud.router(ROUTER, Some(GATEWAY), &[LEG_A, LEG_B]).await;
    let ips = [(SUBNET_A, "192.0.2.10"), (SUBNET_A6, "fd00:192:0:2::a")];
    cloud.guest(GUEST, NET_A, "h1", &ips, &[GROUP]).await;
    cloud
}

#[tokio::test]
async fn a_guest_brings_its_network_router_and_gateway() {
    let mut cloud = small_cloud().await;
    let duty = cloud.duty("h1").await;
    assert_eq!(
        (duty.networks.len(), duty.subnets.len(), duty.ports.len()),
        (3, 4, 1)
    );
    let port = &duty.ports[&uuid(GUEST).into()];
    assert_eq!(
        port.interface,
        PortInterface::Tap {
            name: "tap00000101-00".to_owned()
        }
    );
    assert_eq!((port.fixed_ips.len(), port.security_groups.len()), (2, 1));
    let network = &duty.networks[&uuid(NET_A).into()];
    assert_eq!(
        (
            network.mtu,
            network.segment.segmentation_id,
            network.external
        ),
        (1450, Some(1), false)
    );
    let external = &duty.networks[&uuid(EXTERNAL).into()];
    assert_eq!(
        (
            external.segment.physical_network.as_deref(),
            external.external
        ),
        (Some("physnet9"), true)
    );
    let subnet = &duty.subnets[&uuid(SUBNET_A6).into()];
    assert_eq!(subnet.ipv6_ra_mode, Some(Ipv6Mode::Dhcpv6Stateless));
    assert_eq!(subnet.ipv6_address_mode, Some(Ipv6Mode::Slaac));
    let router = &duty.routers[&uuid(ROUTER).into()];
    assert_eq!(
        (
            router.interfaces.len(),
            router.routes.len(),
            router.admin_state_up
        ),
        (2, 1, true)
    );
    let gateway = router.gateway.as_ref().unwrap();
    assert_eq!(gateway.snat_port_block, None, "nobody gave it one");
    assert_eq!(
        gateway.addresses[0].ip_address,
        "203.0.113.7".parse::<IpAddr>().unwrap()
    );
    assert_eq!(duty.revision, cloud.rows.revision);
}

#[tokio::test]
async fn who_comes_behind_a_router_while_others_get_their_ports_gets_ports_too() {
    let mut cloud = small_cloud().await;
    let marks = cloud.rows.update(&cloud.store).await.unwrap();
    let ips = [(SUBNET_A, "192.0.2.11")];
    cloud.guest(SECOND, NET_A, "h2", &ips, &[GROUP]).await;
    let given = ports_given(&cloud.store, &mut cloud.rows, marks);
    let marks = given.await.unwrap();
    cloud.rows.marks = marks;
    for name in ["h1", "h2"] {
        let duty = cloud.duty(name).await;
        let gateway = duty.routers[&uuid(ROUTER).into()].gateway.as_ref().unwrap();
        assert!(gateway.snat_port_block.is_some(), "{name}");
    }
}

#[tokio::test]
async fn a_host_without_guests_has_no_duty_and_a_lonely_gateway_is_the_first_hosts() {
    let mut cloud = small_cloud().await;
    assert_eq!(cloud.duty("h2").await.networks.len(), 0);
    cloud
        .change::<PortRow>(GUEST, |port| port.binding_host_id = String::new())
        .await;
    let first = cloud.duty("h1").await;
    assert_eq!(
        (first.ports.len(), first.routers.len(), first.networks.len()),
        (0, 1, 3)
    );
    assert_eq!(cloud.duty("h2").await.routers.len(), 0);
    // As soon as somebody lives there, it is that host's.
    cloud
        .change::<PortRow>(GUEST, |port| port.binding_host_id = "h2".to_owned())
        .await;
    assert_eq!(cloud.duty("h1").await.routers.len(), 0);
    assert_eq!(cloud.duty("h2").await.routers.len(), 1);
}

#[tokio::test]
async fn what_the_api_changes_changes_in_the_snapshot() {
    let mut cloud = small_cloud().await;
    let guest = uuid(GUEST).into();
    cloud
        .change::<PortRow>(GUEST, |port| {
            port.admin_state_up = false;
            port.dns_name = "vm".to_owned();
            port.allowed_address_pairs.0.push(AddressPair {
                mac_address: "fa:16:3e:00:00:99".to_owned(),
                ip_address: "192.0.2.77/28".to_owned(),
            });
            port.extra_dhcp_opts.0.push(DhcpOpt {
                opt_name: "mtu".to_owned(),
                opt_value: "1400".to_owned(),
                ip_version: 4,
            });
        })
        .await;
    let port = cloud.duty("h1").await.ports[&guest].clone();
    assert_eq!((port.admin_state_up, port.dns_name.as_str()), (false, "vm"));
    assert_eq!(
        port.allowed_address_pairs[0].ip_address,
        "192.0.2.64/28".parse().unwrap()
    );
    assert_eq!(port.extra_dhcp_opts[0].opt_value.as_deref(), Some("1400"));

    cloud
        .change::<NetworkRow>(NET_A, |network| network.mtu = 1300)
        .await;
    cloud
        .change::<SubnetRow>(SUBNET_A, |subnet| subnet.enable_dhcp = false)
        .await;
    cloud
        .change::<RouterRow>(ROUTER, |router| {
            router.admin_state_up = false;
            router.enable_snat = false;
            router.routes.0.clear();
        })
        .await;
    let duty = cloud.duty("h1").await;
    assert_eq!(duty.networks[&uuid(NET_A).into()].mtu, 1300);
    assert!(!duty.subnets[&uuid(SUBNET_A).into()].enable_dhcp);
    let router = &duty.routers[&uuid(ROUTER).into()];
    assert_eq!((router.admin_state_up, router.routes.len()), (false, 0));
    assert!(!router.gateway.as_ref().unwrap().enable_snat);

    // A leg goes with its port; the network behind it with the leg.
    cloud.delete::<PortRow>(LEG_B).await;
    let duty = cloud.duty("h1").await;
    assert_eq!(
        (duty.routers.len(), duty.networks.len(), duty.subnets.len()),
        (1, 2, 3)
    );
    cloud.delete::<PortRow>(GUEST).await;
    assert_eq!(cloud.duty("h1").await.ports.len(), 0);
}

#[tokio::test]
async fn a_floating_ip_is_where_its_port_is_and_needs_the_gateway() {
    let mut cloud = small_cloud().await;
    let holder = ("network:floatingip", "");
    cloud
        .port(
            FIP_PORT,
            EXTERNAL,
            holder,
            &[(SUBNET_X, "203.0.113.20")],
            &[],
        )
        .await;
    cloud
        .floating_ip(
            0x501,
            "203.0.113.20",
            (FIP_PORT, GUEST),
            ROUTER,
            "192.0.2.10",
        )
        .await;
    let duty = cloud.duty("h1").await;
    let ip = &duty.floating_ips[&uuid(0x501).into()];
    assert_eq!(ip.mac_address, "fa:16:3e:00:02:04".parse().unwrap());
    assert_eq!(
        ip.floating_ip_address,
        "203.0.113.20".parse::<std::net::Ipv4Addr>().unwrap()
    );
    assert_eq!(cloud.duty("h2").await.floating_ips.len(), 0);

    cloud
        .change::<FloatingIpRow>(0x501, |ip| ip.fixed_ip_address = Some("192.0.2.11".into()))
        .await;
    assert_eq!(
        cloud.duty("h1").await.floating_ips.len(),
        0,
        "not one of the port's addresses"
    );
    cloud
        .change::<FloatingIpRow>(0x501, |ip| ip.fixed_ip_address = Some("192.0.2.10".into()))
        .await;
    cloud
        .change::<RouterRow>(ROUTER, |router| router.gateway_port_id = None)
        .await;
    assert_eq!(cloud.duty("h1").await.floating_ips.len(), 0, "no gateway");
    cloud
        .change::<RouterRow>(ROUTER, |router| router.gateway_port_id = Some(id(GATEWAY)))
        .await;
    assert_eq!(cloud.duty("h1").await.floating_ips.len(), 1);
    cloud
        .change::<FloatingIpRow>(0x501, |ip| ip.port_id = None)
        .await;
    assert_eq!(
        cloud.duty("h1").await.floating_ips.len(),
        0,
        "leads nowhere"
    );
}

#[tokio::test]
async fn rules_come_with_the_members_of_the_groups_that_they_name() {
    let (other, far) = (0x402, 0x403);
    let mut cloud = small_cloud().await;
    cloud.group(other).await;
    cloud.group(far).await;
    cloud
        .guest(0x102, NET_B, "h2", &[(SUBNET_B, "10.1.0.5")], &[other])
        .await;
    cloud
        .change::<PortRow>(0x102, |port| {
            let pair = AddressPair {
                mac_address: "fa:16:3e:00:00:01".to_owned(),
                ip_address: "10.1.2.0/24".to_owned(),
            };
            port.allowed_address_pairs.0.push(pair);
        })
        .await;
    cloud
        .rule(SecurityGroupRuleRow {
            protocol: Some("tcp".to_owned()),
            port_range_min: Some(22),
            port_range_max: Some(23),
            remote_group_id: Some(id(other)),
            ..rule(0x601, GROUP)
        })
        .await;
    // A rule of a group that no port here has.
    cloud.rule(rule(0x602, far)).await;
    let duty = cloud.duty("h1").await;
    assert_eq!(
        (duty.security_groups.len(), duty.security_group_rules.len()),
        (2, 1)
    );
    let ssh = &duty.security_group_rules[&uuid(0x601).into()];
    assert_eq!(ssh.protocol, Some(6));
    assert_eq!(
        ssh.port_range,
        Some(PortRange {
            first: 22,
            last: Some(23)
        })
    );
    assert_eq!(ssh.remote, Remote::Group(uuid(other).into()));
    let members: Vec<_> = duty
        .security_group_members
        .iter()
        .map(|m| m.address.to_string())
        .collect();
    assert_eq!(members, ["10.1.0.5/32", "10.1.2.0/24"]);

    cloud.delete::<SecurityGroupRuleRow>(0x601).await;
    let duty = cloud.duty("h1").await;
    assert_eq!(
        (
            duty.security_groups.len(),
            duty.security_group_members.len()
        ),
        (1, 0)
    );
}

#[tokio::test]
async fn an_address_group_is_known_where_a_rule_refers_to_it() {
    let mut cloud = small_cloud().await;
    cloud
        .address_group(1, &["10.0.0.0/8", "2001:db8::/32"])
        .await;
    cloud.address_group(2, &["192.0.2.0/24"]).await;
    assert_eq!(cloud.duty("h1").await.address_groups.len(), 0);
    let by_group = |n| SecurityGroupRuleRow {
        remote_address_group_id: Some(id(1)),
        ..rule(n, GROUP)
    };
    cloud.rule(by_group(0x700)).await;
    let duty = cloud.duty("h1").await;
    let group = &duty.address_groups[&uuid(1).into()];
    assert_eq!(group.addresses.len(), 2);
    assert_eq!(
        duty.security_group_rules[&uuid(0x700).into()].remote,
        Remote::AddressGroup(uuid(1).into())
    );
    cloud
        .change::<AddressGroupRow>(1, |group| group.addresses = JsonText(Vec::new()))
        .await;
    let duty = cloud.duty("h1").await;
    assert_eq!(duty.address_groups[&uuid(1).into()].addresses, []);
    cloud.delete::<SecurityGroupRuleRow>(0x700).await;
    cloud.delete::<AddressGroupRow>(1).await;
    assert_eq!(cloud.duty("h1").await.address_groups.len(), 0);
}

#[tokio::test]
async fn groups_that_are_too_large_cost_their_own_port_only() {
    let mut cloud = small_cloud().await;
    cloud.guest(0x150, NET_A, "h1", &[], &[]).await;
    let ranges: Vec<String> = (0..ADDRESS_GROUP_ADDRESSES_MAX)
        .map(|n| format!("10.{}.{}.0/24", n / 256, n % 256))
        .collect();
    let ranges: Vec<&str> = ranges.iter().map(String::as_str).collect();
    cloud.address_group(1, &ranges).await;
    let most = limits::RULES_PER_POLICY_MAX / ADDRESS_GROUP_ADDRESSES_MAX;
    for n in 0..=most as u128 {
        let groups = |duty: &HostSnapshot| duty.ports[&uuid(GUEST).into()].security_groups.len();
        let duty = cloud.duty("h1").await;
        assert_eq!((groups(&duty), duty.ports.len()), (1, 2), "{n}");
        cloud
            .rule(SecurityGroupRuleRow {
                port_range_min: Some(1),
                port_range_max: Some(1),
                protocol: Some("tcp".to_owned()),
                remote_address_group_id: Some(id(1)),
                ..rule(0x700 + n, GROUP)
            })
            .await;
        if n == most as u128 {
            let duty = cloud.duty("h1").await;
            assert_eq!((groups(&duty), duty.ports.len()), (0, 2));
        }
    }
}

#[tokio::test]
async fn rules_keep_their_meaning() {
    let mut cloud = small_cloud().await;
    let base = |n| rule(n, GROUP);
    let v6 = |n| SecurityGroupRuleRow {
        ethertype: "IPv6".to_owned(),
        ..rule(n, GROUP)
    };
    let named = |row, protocol: &str| SecurityGroupRuleRow {
        protocol: Some(protocol.to_owned()),
        ..row
    };
    let icmp = |row: SecurityGroupRuleRow| SecurityGroupRuleRow {
        port_range_min: Some(8),
        port_range_max: Some(0),
        ..row
    };
    let prefix = |row, prefix: &str| SecurityGroupRuleRow {
        remote_ip_prefix: Some(prefix.to_owned()),
        ..row
    };
    cloud.rule(base(1)).await;
    cloud.rule(icmp(named(base(2), "icmp"))).await;
    cloud.rule(named(v6(3), "icmp")).await;
    cloud.rule(named(v6(4), "ipv6-icmp")).await;
    cloud.rule(named(base(5), "any")).await;
    cloud.rule(named(base(6), "132")).await;
    cloud.rule(prefix(base(7), "10.9.8.7/16")).await;
    cloud.rule(prefix(v6(8), "2001:db8::1")).await;
    let duty = cloud.duty("h1").await;
    let rule = |n: u128| duty.security_group_rules[&uuid(n).into()].clone();
    assert_eq!(
        (rule(1).protocol, rule(1).remote, rule(1).ethertype),
        (None, Remote::Any, EtherType::Ipv4)
    );
    assert_eq!(
        rule(2).port_range,
        Some(PortRange {
            first: 8,
            last: Some(0)
        })
    );
    assert_eq!(
        (rule(2).protocol, rule(3).protocol, rule(4).protocol),
        (Some(1), Some(58), Some(58))
    );
    assert_eq!((rule(5).protocol, rule(6).protocol), (None, Some(132)));
    assert_eq!(
        rule(7).remote,
        Remote::Prefix("10.9.0.0/16".parse().unwrap())
    );
    assert_eq!(
        rule(8).remote,
        Remote::Prefix("2001:db8::1/128".parse().unwrap())
    );
}

#[tokio::test]
async fn a_row_that_cannot_be_realized_takes_nothing_else_with_it() {
    let mut cloud = small_cloud().await;
    let wrong = |n, protocol: &str| SecurityGroupRuleRow {
        protocol: Some(protocol.to_owned()),
        ..rule(n, GROUP)
    };
    cloud.rule(wrong(1, "quic")).await;
    cloud.rule(wrong(2, "256")).await;
    cloud
        .rule(SecurityGroupRuleRow {
            port_range_max: Some(7),
            ..wrong(3, "tcp")
        })
        .await;
    cloud
        .rule(SecurityGroupRuleRow {
            port_range_min: Some(-1),
            ..wrong(4, "tcp")
        })
        .await;
    cloud.address_group(5, &["10.0.0.0/33"]).await;
    cloud
        .rule(SecurityGroupRuleRow {
            remote_address_group_id: Some(id(5)),
            ..wrong(5, "tcp")
        })
        .await;
    cloud
        .rule(SecurityGroupRuleRow {
            direction: "up".to_owned(),
            ..wrong(6, "tcp")
        })
        .await;
    cloud.rule(wrong(7, "tcp")).await;
    cloud.guest(0x102, NET_A, "h1", &[], &[]).await;
    cloud
        .change::<PortRow>(0x102, |port| port.mac_address = "fa:16".to_owned())
        .await;
    let duty = cloud.duty("h1").await;
    assert_eq!((duty.security_group_rules.len(), duty.ports.len()), (1, 1));
    // A network that cannot be realized takes its ports with it, and no more.
    cloud
        .guest(0x103, NET_B, "h1", &[(SUBNET_B, "10.1.0.9")], &[])
        .await;
    assert_eq!(cloud.duty("h1").await.ports.len(), 2);
    cloud
        .change::<NetworkRow>(NET_B, |network| network.mtu = i64::MAX)
        .await;
    let duty = cloud.duty("h1").await;
    assert_eq!((duty.ports.len(), duty.networks.len()), (1, 2));
    assert_eq!(duty.routers[&uuid(ROUTER).into()].interfaces.len(), 1);
    cloud
        .change::<NetworkRow>(NET_B, |network| network.mtu = 1400)
        .await;
    assert_eq!(cloud.duty("h1").await.ports.len(), 2);
}

#[tokio::test]
async fn two_ports_never_share_a_device_name() {
    let mut cloud = small_cloud().await;
    let same = uuid(GUEST).as_u128() + 1;
    let mut tx = cloud.write().await;
    let mut twin: PortRow = store::get(tx.conn(), &id(GUEST)).await.unwrap().unwrap();
    twin.id = Uuid::from_u128(same).to_string();
    twin.mac_address = "fa:16:3e:00:77:77".to_owned();
    store::insert(&mut tx, &mut twin).await.unwrap();
    tx.commit().await.unwrap();
    let ports = cloud.duty("h1").await.ports;
    assert_eq!(
        ports.keys().map(|port| port.0).collect::<Vec<_>>(),
        [uuid(GUEST)]
    );
}

#[tokio::test]
async fn guests_elsewhere_are_known_where_frames_travel_in_tunnels() {
    let mut cloud = small_cloud().await;
    cloud
        .guest(0x102, NET_B, "h2", &[(SUBNET_B, "10.1.0.5")], &[])
        .await;
    cloud
        .guest(0x103, EXTERNAL, "h2", &[(SUBNET_X, "203.0.113.50")], &[])
        .await;
    cloud
        .guest(0x104, NET_B, "h3", &[(SUBNET_B, "10.1.0.6")], &[])
        .await;
    let duty = cloud.duty("h1").await;
    let remote: Vec<_> = duty
        .remote_ports
        .iter()
        .map(|(id, port)| (id.0, port.host.as_str()))
        .collect();
    assert_eq!(remote, [(uuid(0x102), "h2")]);
    assert_eq!(duty.tunnel_hosts.len(), 1);
}

#[tokio::test]
async fn a_new_member_is_one_entry_where_its_group_is_named() {
    let mut cloud = small_cloud().await;
    cloud
        .rule(SecurityGroupRuleRow {
            remote_group_id: Some(id(GROUP)),
            ..rule(1, GROUP)
        })
        .await;
    for n in 0..200 {
        let address = format!("10.1.0.{}", n + 2);
        let ips = [(SUBNET_B, address.as_str())];
        cloud.guest(0x1000 + n, NET_B, "h2", &ips, &[GROUP]).await;
    }
    cloud.duty("h1").await;
    let mut stream = cloud.hub.subscribe(&host("h1"), None).unwrap();
    let Some(FeedMessage::Snapshot(first)) = stream.message() else {
        panic!("a snapshot")
    };
    assert_eq!(first.security_group_members.len(), 202);
    let ips = [(SUBNET_B, "10.1.1.1")];
    cloud.guest(0x2000, NET_B, "h2", &ips, &[GROUP]).await;
    cloud.duty("h1").await;
    let Some(FeedMessage::Delta(delta)) = stream.message() else {
        panic!("a delta")
    };
    // Its address, and where it is.
    let sizes = (
        delta.security_group_members.add.len(),
        delta.remote_ports.put.len(),
        delta.len(),
    );
    assert_eq!(sizes, (1, 1, 2));
}

#[tokio::test]
async fn of_hosts_that_come_together_a_few_have_their_turn_and_changes_go_on() {
    let mut cloud = small_cloud().await;
    cloud.duty("h1").await;
    let late: Vec<HostName> = (0..10).map(|n| host(&format!("late{n}"))).collect();
    for name in &late {
        cloud.hub.subscribe(name, None).unwrap();
    }
    cloud.hosts.extend(late.iter().cloned());
    for (n, at, ip) in [(0x3001, "h2", "10.1.0.21"), (0x3002, "late9", "10.1.0.22")] {
        cloud.guest(n, NET_B, at, &[(SUBNET_B, ip)], &[]).await;
    }
    let elsewhere = |cloud: &Cloud| {
        let duty = cloud.hub.snapshot(&host("h1")).unwrap();
        duty.remote_ports.contains_key(&uuid(0x3001).into())
    };
    let known = |cloud: &Cloud| {
        late.iter()
            .filter(|name| cloud.hub.has_snapshot(name))
            .count()
    };
    let marks = cloud.rows.update(&cloud.store).await.unwrap();
    let mut so_far = Vec::new();
    let mut marks = Some(marks);
    loop {
        let marks = marks.take().unwrap_or_default();
        let (rows, hub) = (&cloud.rows, &cloud.hub);
        cloud.duties.update(rows, &marks, hub, Instant::now());
        assert!(
            elsewhere(&cloud),
            "who knows something is told of a guest elsewhere"
        );
        let concerned = cloud.hub.concerned(cloud.rows.revision);
        assert!(concerned.contains(&host("late9")), "it has a new guest");
        so_far.push(known(&cloud));
        if !cloud.duties.are_waiting() {
            break;
        }
    }
    assert_eq!(so_far, [4, 8, 10]);
    for name in ["h1", "h2", "late0", "late9"] {
        cloud.duty(name).await;
    }
}

#[tokio::test]
async fn a_commit_reaches_the_hub_by_a_nudge() {
    let cloud = small_cloud().await;
    let hub = Arc::new(Hub::new(cloud.store.epoch()));
    let shutdown = CancellationToken::new();
    let (task_hub, store, stop) = (hub.clone(), cloud.store.clone(), shutdown.clone());
    let task = tokio::spawn(async move {
        let (_ask, trials) = trials();
        run(store, &task_hub, trials, stop).await
    });
    let newest = || async {
        store::revision(cloud.store.read().await.unwrap().conn())
            .await
            .unwrap()
    };
    let mut stream = hub.subscribe(&host("h1"), None).unwrap();
    let at = async |stream: &mut Subscription, revision: Revision| {
        let good = |have: &Option<Revision>| have.is_some_and(|have| have >= revision);
        let found = stream.revision.wait_for(good);
        let found = tokio::time::timeout(Duration::from_secs(20), found).await;
        found.expect("a snapshot in time").unwrap();
        hub.snapshot(&host("h1")).unwrap()
    };
    let first = at(&mut stream, newest().await).await;
    assert_eq!(first.ports.len(), 1);
    cloud
        .guest(0x102, NET_A, "h1", &[(SUBNET_A, "192.0.2.11")], &[])
        .await;
    let second = at(&mut stream, newest().await).await;
    assert_eq!(second.ports.len(), 2);
    // What does not concern the host moves the revision that is realized, and not the host's.
    cloud.group(0x409).await;
    let mut tx = cloud.write().await;
    port::port_status_set(&mut tx, &id(GUEST), "h1", "ACTIVE")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let last = newest().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while hub.revision() < last {
        assert!(Instant::now() < deadline, "realized in time");
        tokio::task::yield_now().await;
    }
    assert_eq!(*stream.revision.borrow(), Some(second.revision));
    shutdown.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn old_changes_are_forgotten_and_rows_still_come_up_to_date() {
    let mut cloud = small_cloud().await;
    let now = cloud.duty("h1").await.revision;
    let mut pruned = Revision(0);
    let on_record = async |store: &Store, after: u64| {
        let mut view = store.read().await.unwrap();
        store::changes_since(view.conn(), Revision(after), 1_000)
            .await
            .unwrap()
    };
    // Not yet enough of them; then enough.
    prune(&cloud.store, now, &mut pruned).await.unwrap();
    assert!(
        on_record(&cloud.store, 0)
            .await
            .is_some_and(|changes| !changes.is_empty())
    );
    pruned = Revision(now.0 - 1);
    let far = Revision(pruned.0 + 2 * CHANGES_KEPT);
    prune(&cloud.store, far, &mut pruned).await.unwrap();
    assert_eq!(pruned, Revision(far.0 - CHANGES_KEPT));
    assert_eq!(on_record(&cloud.store, 0).await, None);
    // Rows that lag behind the record are read anew.
    cloud.rows.revision = Revision(1);
    cloud
        .change::<PortRow>(GUEST, |port| port.admin_state_up = false)
        .await;
    assert!(
        cloud
            .duty("h1")
            .await
            .ports
            .values()
            .all(|port| !port.admin_state_up)
    );
}

const QOS: u128 = 0x501;
const TRUNK: u128 = 0x601;
const INNER: u128 = 0x102;

async fn policy_with_limit(cloud: &Cloud, kbps: i64) {
    let mut tx = cloud.write().await;
    let mut policy = QosPolicyRow {
        id: id(QOS),
        ..QosPolicyRow::default()
    };
    store::insert(&mut tx, &mut policy).await.unwrap();
    for (n, rule_type) in [(1, "bandwidth_limit"), (2, "minimum_bandwidth")] {
        let mut rule = QosRuleRow {
            id: id(QOS + n),
            policy_id: id(QOS),
            rule_type: rule_type.to_owned(),
            direction: "egress".to_owned(),
            max_kbps: (n == 1).then_some(kbps),
            min_kbps: (n == 2).then_some(1),
            ..QosRuleRow::default()
        };
        store::insert(&mut tx, &mut rule).await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_policy_holds_for_a_port_or_its_whole_network() {
    let mut cloud = small_cloud().await;
    policy_with_limit(&cloud, 100).await;
    assert_eq!(cloud.duty("h1").await.qos_policies.len(), 0);
    let network = |row: &mut NetworkRow| row.qos_policy_id = Some(id(QOS));
    cloud.change(NET_A, network).await;
    let duty = cloud.duty("h1").await;
    let policy = duty.ports.values().next().unwrap().qos_policy_id.unwrap();
    let limits = &duty.qos_policies[&policy].bandwidth_limits;
    assert_eq!((limits.len(), limits[0].max_kbps), (1, 100));

    cloud.delete::<QosRuleRow>(QOS + 1).await;
    cloud.change(QOS, |_: &mut QosPolicyRow| ()).await;
    // What is left of it is the scheduler's.
    let duty = cloud.duty("h1").await;
    assert_eq!(duty.qos_policies.len(), 0);
    assert_eq!(duty.ports.values().next().unwrap().qos_policy_id, None);
}

#[tokio::test]
async fn a_policy_holds_for_a_floating_ip_and_a_gateway_or_all_of_their_network() {
    let mut cloud = small_cloud().await;
    policy_with_limit(&cloud, 100).await;
    let holder = ("network:floatingip", "");
    let ips = [(SUBNET_X, "203.0.113.20")];
    cloud.port(FIP_PORT, EXTERNAL, holder, &ips, &[]).await;
    let ports = (FIP_PORT, GUEST);
    cloud
        .floating_ip(0x501, "203.0.113.20", ports, ROUTER, "192.0.2.10")
        .await;
    let qos: weft_model::QosPolicyId = uuid(QOS).into();
    let under = |duty: &HostSnapshot| {
        let gateway = duty.routers[&uuid(ROUTER).into()].gateway.as_ref().unwrap();
        let floating = &duty.floating_ips[&uuid(0x501).into()];
        let known = duty.qos_policies.contains_key(&qos);
        (gateway.qos_policy_id, floating.qos_policy_id, known)
    };
    assert_eq!(under(&cloud.duty("h1").await), (None, None, false));
    cloud
        .change::<RouterRow>(ROUTER, |row| row.gateway_qos_policy_id = Some(id(QOS)))
        .await;
    assert_eq!(under(&cloud.duty("h1").await), (Some(qos), None, true));
    cloud
        .change::<FloatingIpRow>(0x501, |row| row.qos_policy_id = Some(id(QOS)))
        .await;
    cloud
        .change::<RouterRow>(ROUTER, |row| row.gateway_qos_policy_id = None)
        .await;
    assert_eq!(under(&cloud.duty("h1").await), (None, Some(qos), true));
    cloud
        .change::<FloatingIpRow>(0x501, |row| row.qos_policy_id = None)
        .await;
    assert_eq!(under(&cloud.duty("h1").await), (None, None, false));
    let network = |row: &mut NetworkRow| row.qos_policy_id = Some(id(QOS));
    cloud.change(EXTERNAL, network).await;
    assert_eq!(under(&cloud.duty("h1").await), (Some(qos), Some(qos), true));
    // What is left of it is the scheduler's.
    cloud.delete::<QosRuleRow>(QOS + 1).await;
    cloud.change(QOS, |_: &mut QosPolicyRow| ()).await;
    assert_eq!(under(&cloud.duty("h1").await), (None, None, false));
}

#[tokio::test]
async fn a_router_has_its_projects_metering_labels_and_shared_ones() {
    let mut cloud = small_cloud().await;
    let labels = |duty: &HostSnapshot| {
        let router = &duty.routers[&uuid(ROUTER).into()];
        assert!(duty.metering_labels.keys().eq(&router.metering_labels));
        duty.metering_labels.len()
    };
    for (n, project, shared) in [(1, "", false), (2, "other", false), (3, "other", true)] {
        let mut tx = cloud.write().await;
        let mut label = MeteringLabelRow {
            id: id(n),
            project_id: project.to_owned(),
            shared,
            ..MeteringLabelRow::default()
        };
        store::insert(&mut tx, &mut label).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(labels(&cloud.duty("h1").await), 0, "they have no rules");
    for n in [1, 2, 3] {
        let mut tx = cloud.write().await;
        let mut rule = MeteringLabelRuleRow {
            id: id(10 + n),
            metering_label_id: id(n),
            direction: "egress".to_owned(),
            remote_ip_prefix: Some("198.51.100.7/24".to_owned()),
            ..MeteringLabelRuleRow::default()
        };
        store::insert(&mut tx, &mut rule).await.unwrap();
        tx.touch(store::Resource::MeteringLabel, &id(n))
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
    let duty = cloud.duty("h1").await;
    assert_eq!(labels(&duty), 2);
    let rule = duty.metering_labels[&uuid(1).into()].rules[0];
    let destination = Some("198.51.100.0/24".parse().unwrap());
    assert_eq!((rule.source, rule.destination), (None, destination));
    cloud
        .change::<RouterRow>(ROUTER, |router| router.gateway_port_id = None)
        .await;
    assert_eq!(labels(&cloud.duty("h1").await), 0, "nothing goes out");
    cloud
        .change::<RouterRow>(ROUTER, |router| router.gateway_port_id = Some(id(GATEWAY)))
        .await;
    cloud.delete::<MeteringLabelRow>(1).await;
    assert_eq!(labels(&cloud.duty("h1").await), 1);
}

#[tokio::test]
async fn a_log_is_of_its_port_of_a_groups_ports_or_of_a_projects() {
    let mut cloud = small_cloud().await;
    cloud.guest(0x102, NET_A, "h1", &[], &[]).await;
    cloud
        .change::<PortRow>(0x102, |port| port.project_id = "other".to_owned())
        .await;
    let log = |n, group: Option<u128>, port: Option<u128>| LogRow {
        id: id(n),
        enabled: true,
        event: "DROP".to_owned(),
        resource_type: "security_group".to_owned(),
        resource_id: group.map(id),
        target_id: port.map(id),
        ..LogRow::default()
    };
    let all = [
        log(1, None, Some(0x102)),
        log(2, Some(GROUP), None),
        log(3, None, None),
        log(4, Some(GROUP), Some(0x102)),
    ];
    for mut row in all {
        let mut tx = cloud.write().await;
        store::insert(&mut tx, &mut row).await.unwrap();
        tx.commit().await.unwrap();
    }
    let logs = |duty: &HostSnapshot, n: u128| {
        let port = duty.ports.get(&uuid(n).into());
        let logs = port.iter().flat_map(|port| &port.logs);
        logs.map(|log| log.0.as_u128() >> 96).collect::<Vec<_>>()
    };
    let duty = cloud.duty("h1").await;
    assert_eq!(logs(&duty, GUEST), [2, 3]);
    assert_eq!(logs(&duty, 0x102), [1]);
    assert_eq!(duty.logs.len(), 3);
    assert_eq!(duty.logs[&uuid(1).into()].event, LogEvent::Drop);
    let mut tx = cloud.write().await;
    tx.touch(store::Resource::Port, &id(0x102)).await.unwrap();
    security_groups_set(&mut tx, &id(0x102), &[id(GROUP)])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(logs(&cloud.duty("h1").await, 0x102), [1, 4]);
    cloud.change::<LogRow>(3, |log| log.enabled = false).await;
    assert_eq!(logs(&cloud.duty("h1").await, GUEST), [2]);
    // They go with what they name.
    cloud.delete::<PortRow>(0x102).await;
    assert_eq!(cloud.duty("h1").await.logs.len(), 1);
}

#[tokio::test]
async fn a_private_vlans_roles_are_known_here_and_elsewhere() {
    let mut cloud = small_cloud().await;
    let other = 0x102;
    let ips = [(SUBNET_A, "192.0.2.11")];
    cloud.guest(other, NET_A, "h2", &ips, &[]).await;
    let roles = |duty: &HostSnapshot| {
        let here = duty.ports.values().next().unwrap().pvlan.clone();
        let there = duty.remote_ports.values().next().unwrap().pvlan.clone();
        (here, there)
    };
    assert_eq!(roles(&cloud.duty("h1").await), (None, None));
    let role = |role: &str, community: Option<&str>| {
        let (role, community) = (role.to_owned(), community.map(str::to_owned));
        move |row: &mut PortRow| (row.pvlan_type, row.pvlan_community) = (Some(role), community)
    };
    cloud.change(GUEST, role("isolated", None)).await;
    cloud.change(other, role("community", Some("a"))).await;
    let community = PvlanRole::Community {
        community: "a".to_owned(),
    };
    let expected = (Some(PvlanRole::Isolated), Some(community));
    assert_eq!(roles(&cloud.duty("h1").await), expected);
    cloud.change(GUEST, role("promiscuous", None)).await;
    cloud.change(other, role("promiscuous", None)).await;
    assert_eq!(roles(&cloud.duty("h1").await), (None, None));
    let transparent = |row: &mut NetworkRow| row.vlan_transparent = Some(true);
    cloud.change(NET_A, transparent).await;
    assert!(cloud.duty("h1").await.networks[&uuid(NET_A).into()].vlan_transparent);
}

#[tokio::test]
async fn subports_are_where_their_trunk_is_open() {
    let mut cloud = small_cloud().await;
    let guest = [(SUBNET_B, "10.1.0.9")];
    let who = ("trunk:subport", "h1");
    cloud.port(INNER, NET_B, who, &guest, &[]).await;
    let mut tx = cloud.write().await;
    let mut trunk = TrunkRow {
        id: id(TRUNK),
        admin_state_up: true,
        port_id: id(GUEST),
        ..TrunkRow::default()
    };
    store::insert(&mut tx, &mut trunk).await.unwrap();
    let subport = SubportRow {
        port_id: id(INNER),
        trunk_id: id(TRUNK),
        segmentation_type: "vlan".to_owned(),
        segmentation_id: 7,
        position: 0,
    };
    subport_insert(&mut tx, &subport).await.unwrap();
    tx.commit().await.unwrap();
    let inner = id(INNER).parse().unwrap();
    let interface = PortInterface::Subport {
        parent: id(GUEST).parse().unwrap(),
        vlan_id: 7,
    };
    assert_eq!(cloud.duty("h1").await.ports[&inner].interface, interface);

    // Its parent is somewhere else: there is nothing here to reach it through.
    let away = |row: &mut PortRow| "h2".clone_into(&mut row.binding_host_id);
    cloud.change(GUEST, away).await;
    assert!(!cloud.duty("h1").await.ports.contains_key(&inner));
    cloud.change(INNER, away).await;
    assert_eq!(cloud.duty("h2").await.ports[&inner].interface, interface);
    let closed = |row: &mut TrunkRow| row.admin_state_up = false;
    cloud.change(TRUNK, closed).await;
    cloud.change(INNER, |_: &mut PortRow| ()).await;
    assert!(!cloud.duty("h2").await.ports.contains_key(&inner));
}

#[tokio::test]
async fn a_port_keeps_the_socket_that_nova_was_told() {
    let mut cloud = small_cloud().await;
    let socket = "/run/weft/vhu1".to_owned();
    let told = VhostUser {
        socket: socket.clone(),
        mode: VhostUserMode::Server,
    };
    let attach = |row: &mut PortRow| row.binding_vhost_user = JsonText(Some(told));
    cloud.change(GUEST, attach).await;
    let expected = PortInterface::VhostUser {
        socket,
        mode: VhostUserMode::Server,
    };
    let duty = cloud.duty("h1").await;
    assert_eq!(duty.ports.values().next().unwrap().interface, expected);
}

#[tokio::test]
async fn each_host_is_on_its_own_segment_of_a_network() {
    let mut cloud = Cloud::new().await;
    cloud.network(NET_A, true).await;
    for (n, kind, physical) in [(1, "flat", Some("other")), (2, "vxlan", None)] {
        let mut tx = cloud.write().await;
        let mut segment = SegmentRow {
            id: id(100 + n),
            network_id: id(NET_A),
            segment_index: i64::try_from(n).unwrap(),
            network_type: kind.to_owned(),
            physical_network: physical.map(str::to_owned),
            segmentation_id: physical.is_none().then_some(7),
            ..SegmentRow::default()
        };
        segment_insert(&mut tx, &mut segment).await.unwrap();
        tx.commit().await.unwrap();
    }
    cloud.guest(GUEST, NET_A, "h1", &[], &[]).await;
    cloud.guest(GUEST + 1, NET_A, "h2", &[], &[]).await;
    let network = NetworkId(uuid(NET_A));
    let segment = |duty: HostSnapshot| {
        let segment = &duty.networks[&network].segment;
        (segment.physical_network.clone(), duty.remote_ports.len())
    };
    // Neither says what it is connected to: frames travel in tunnels.
    assert_eq!(segment(cloud.duty("h1").await), (None, 1));
    for (at, physical) in [("h1", "physnet1"), ("h2", "other")] {
        cloud.connected(at, &[physical]).await;
        let duty = cloud.duty(at).await;
        assert_eq!(segment(duty), (Some(physical.to_owned()), 0));
    }
    // One that is moved to the other's is on its segment; one that is connected to nothing is in the tunnels again.
    cloud.connected("h1", &["x", "other"]).await;
    let duty = cloud.duty("h1").await;
    assert_eq!(segment(duty), (Some("other".to_owned()), 0));
    cloud.connected("h1", &[]).await;
    assert_eq!(segment(cloud.duty("h1").await), (None, 0));
    cloud.connected("h2", &[]).await;
    assert_eq!(segment(cloud.duty("h1").await), (None, 1));
    assert_eq!(
        segment(cloud.duty("h2").await),
        (None, 0),
        "h1 has no tunnel address"
    );
}

#[tokio::test]
async fn a_network_without_segments_is_nobodys_duty_and_no_mistake() {
    let mut cloud = Cloud::new().await;
    cloud.network(NET_A, false).await;
    cloud.guest(GUEST, NET_A, "h1", &[], &[]).await;
    assert_eq!(cloud.duty("h1").await.ports.len(), 1);
    let mut tx = cloud.write().await;
    let segment: SegmentRow = store::get(tx.conn(), &id(NET_A)).await.unwrap().unwrap();
    segment_delete(&mut tx, &segment).await.unwrap();
    let row: NetworkRow = store::get(tx.conn(), &id(NET_A)).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    let duty = cloud.duty("h1").await;
    assert_eq!((duty.ports.len(), duty.networks.len()), (0, 0));
    // What cannot be decoded is an error in the log; this is none.
    assert!(decode::network(&row, &[]).unwrap().is_none());
}
