//! The agent with the kernel engine and real clients, in namespaces of its own: a host from a fixed snapshot, two guests,
//! and a station outside.

#![allow(
    clippy::unwrap_used,
    reason = "a test; clippy knows only functions marked as such"
)]

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_agent::socket::{Client, ClientError, Stats, Status};
use weft_agent::{AgentConfig, AgentError, Source};
use weft_kit::capture::Capture;
use weft_kit::clock::until;
use weft_kit::guest::{Guest, PortFacts};
use weft_kit::lab::Lab;
use weft_kit::namespace::Namespace;
use weft_kit::ping::{ping, ping_text};
use weft_model::{
    Direction, Epoch, EtherType, FixedIp, HostRoute, HostSnapshot, Ipv6Mode, MacAddress, Network,
    NetworkId, NetworkType, Port, PortBlock, PortId, PortInterface, PortStatus, Revision, Router,
    RouterAddress, RouterGateway, RouterId, RouterInterface, SecurityGroup, SecurityGroupId,
    SecurityGroupRule, SecurityGroupRuleId, Segment, Subnet, SubnetId,
};

const TIMEOUT: Duration = Duration::from_secs(15);
const PROJECT: NetworkId = NetworkId(Uuid::from_u128(0x10));
const OUTSIDE: NetworkId = NetworkId(Uuid::from_u128(0x11));
const PREFIX: &str = "fd00:192:0:2";
const PORT_IDS: [PortId; 2] = [
    PortId(Uuid::from_u128(0x30a1_b2c3_0000_4000_8000_0000_0000_0001)),
    PortId(Uuid::from_u128(0x31a1_b2c3_0000_4000_8000_0000_0000_0002)),
];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn subnet_id(n: u128) -> SubnetId {
    SubnetId(Uuid::from_u128(0x20 + n))
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
    let slaac = cidr.addr().is_ipv6().then_some(Ipv6Mode::Slaac);
    Subnet {
        network_id,
        cidr,
        gateway_ip: Some(ip(gateway)),
        enable_dhcp: true,
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
        ipv6_ra_mode: slaac,
        ipv6_address_mode: slaac,
        address_scope_id: None,
    }
}

/// The guest's port number `n`, with the v6 address that SLAAC will make.
fn port(n: u8) -> Port {
    let fixed = |subnet, text: &str| FixedIp {
        subnet_id: subnet_id(subnet),
        ip_address: ip(text),
    };
    let id = PORT_IDS[usize::from(n)].to_string();
    Port {
        network_id: PROJECT,
        mac_address: MacAddress([0xfa, 0x16, 0x3e, 0, 1, n]),
        fixed_ips: vec![
            fixed(0, &format!("192.0.2.{}", 11 + n)),
            fixed(1, &format!("{PREFIX}:f816:3eff:fe00:10{n}")),
        ],
        allowed_address_pairs: Vec::new(),
        claimed_ips: Vec::new(),
        port_security_enabled: true,
        security_groups: vec![SecurityGroupId(Uuid::from_u128(0x70))],
        admin_state_up: true,
        device_owner: "compute:nova".to_owned(),
        dns_name: format!("vm{n}"),
        interface: PortInterface::Tap {
            name: format!("tap{}", &id[..11]),
        },
        extra_dhcp_opts: Vec::new(),
        qos_policy_id: None,
        pvlan: None,
        logs: Vec::new(),
    }
}

fn router() -> Router {
    let at = |subnet, text: &str| RouterAddress {
        subnet_id: subnet_id(subnet),
        ip_address: ip(text),
    };
    Router {
        admin_state_up: true,
        interfaces: vec![RouterInterface {
            port_id: PortId(Uuid::from_u128(0x40)),
            network_id: PROJECT,
            mac_address: MacAddress([0xfa, 0x16, 0x3e, 0, 2, 0]),
            addresses: vec![at(0, "192.0.2.1"), at(1, &format!("{PREFIX}::1"))],
        }],
        gateway: Some(RouterGateway {
            port_id: PortId(Uuid::from_u128(0x41)),
            network_id: OUTSIDE,
            mac_address: MacAddress([0xfa, 0x16, 0x3e, 0, 2, 1]),
            addresses: vec![at(2, "203.0.113.10")],
            enable_snat: true,
            snat_port_block: Some(PortBlock {
                first: 1_024,
                last: 65_535,
            }),
            snat_port_blocks_elsewhere: BTreeMap::new(),
            gateway_host: None,
            qos_policy_id: None,
        }),
        routes: Vec::new(),
        ndp_proxies: None,
        conntrack_helpers: Vec::new(),
        metering_labels: Vec::new(),
    }
}

fn snapshot(host: &str) -> HostSnapshot {
    let mut s = HostSnapshot::empty(host.parse().unwrap(), Epoch::random());
    s.revision = Revision(1);
    s.networks
        .insert(PROJECT, network(NetworkType::Vxlan, 1_450));
    s.networks
        .insert(OUTSIDE, network(NetworkType::Flat, 1_400));
    let mut inside = subnet(PROJECT, "192.0.2.0/24", "192.0.2.1");
    inside.dns_nameservers = vec![ip("9.9.9.9")];
    inside.host_routes = vec![HostRoute {
        destination: "10.9.0.0/16".parse().unwrap(),
        nexthop: ip("192.0.2.12"),
    }];
    s.subnets.insert(subnet_id(0), inside);
    let v6 = subnet(PROJECT, &format!("{PREFIX}::/64"), &format!("{PREFIX}::1"));
    s.subnets.insert(subnet_id(1), v6);
    s.subnets.insert(
        subnet_id(2),
        subnet(OUTSIDE, "203.0.113.0/24", "203.0.113.1"),
    );
    s.ports = (0..2)
        .map(|n| (PORT_IDS[usize::from(n)], port(n)))
        .collect();
    s.routers.insert(RouterId(Uuid::from_u128(0x50)), router());
    let group = SecurityGroupId(Uuid::from_u128(0x70));
    s.security_groups
        .insert(group, SecurityGroup { stateful: true });
    for (n, (direction, ethertype)) in (0u128..).zip([
        (Direction::Egress, EtherType::Ipv4),
        (Direction::Egress, EtherType::Ipv6),
        (Direction::Ingress, EtherType::Ipv4),
        (Direction::Ingress, EtherType::Ipv6),
    ]) {
        s.security_group_rules.insert(
            SecurityGroupRuleId(Uuid::from_u128(0x80 + n)),
            SecurityGroupRule {
                security_group_id: group,
                direction,
                ethertype,
                protocol: None,
                port_range: None,
                remote: weft_model::Remote::Any,
            },
        );
    }
    assert_eq!(s.validate(), []);
    s
}

/// An agent in a namespace, in this process.
struct Agent {
    shutdown: CancellationToken,
    thread: JoinHandle<Result<Result<(), AgentError>>>,
    client: Client,
    runtime: tokio::runtime::Runtime,
    socket: PathBuf,
}

impl Agent {
    fn start(
        lab: &Lab,
        host: &Namespace,
        snapshots: watch::Receiver<Option<Arc<HostSnapshot>>>,
    ) -> Result<Self> {
        let mut config = AgentConfig::new(lab.run().parse()?);
        config.instance = lab.run().to_owned();
        config.socket = lab.directory().join("agent.sock");
        config.physical_networks = BTreeMap::from([("physnet1".into(), "uplink".into())]);
        config.sessions_max = 4_096;
        config.sessions_per_port_max = 1_024;
        config.ports_max = 64;
        config.remove_on_stop = true;
        let socket = config.socket.clone();
        let shutdown = CancellationToken::new();
        let (host, stop) = (host.clone(), shutdown.clone());
        let thread = std::thread::spawn(move || {
            host.enter(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(weft_agent::run(config, Source::Fixed(snapshots), stop))
            })
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = Client::new(&socket);
        let agent = Self {
            shutdown,
            thread,
            client,
            runtime,
            socket,
        };
        until("the agent to answer", TIMEOUT, || {
            ensure!(!agent.thread.is_finished(), "the agent ended at once");
            Ok(agent.status().ok())
        })?;
        Ok(agent)
    }

    fn status(&self) -> Result<Status, ClientError> {
        self.runtime.block_on(self.client.status())
    }

    fn stats(&self) -> Result<Stats> {
        Ok(self.runtime.block_on(self.client.stats())?)
    }

    fn wait_for_status(&self, n: usize, status: PortStatus) -> Result<Status> {
        until(&format!("port {n} to be {status:?}"), TIMEOUT, || {
            let now = self.status()?;
            let port = now.ports.iter().find(|p| p.port_id == PORT_IDS[n]);
            Ok(port.is_some_and(|p| p.status == status).then_some(now))
        })
    }

    fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        self.thread.join().unwrap()??;
        ensure!(!self.socket.exists(), "the control socket stays behind");
        Ok(())
    }
}

/// A host with an uplink, whose agent enforces the snapshot.
struct Scene {
    lab: Lab,
    host: Namespace,
    outside: Namespace,
    agent: Agent,
    snapshots: watch::Sender<Option<Arc<HostSnapshot>>>,
}

impl Scene {
    fn new() -> Result<Self> {
        let lab = Lab::new("agent")?;
        let (host, outside) = (lab.namespace("host")?, lab.namespace("outside")?);
        lab.veth((&host, "uplink"), (&outside, "wire"))?;
        outside.run("ip address add 203.0.113.1/24 dev wire")?;
        let first = Arc::new(snapshot(lab.run()));
        let (snapshots, receiver) = watch::channel(Some(first));
        let agent = Agent::start(&lab, &host, receiver)?;
        Ok(Self {
            lab,
            host,
            outside,
            agent,
            snapshots,
        })
    }

    fn guest(&self, n: usize) -> Result<Guest> {
        let port = port(u8::try_from(n)?);
        let facts = PortFacts {
            id: PORT_IDS[n].to_string(),
            mac: port.mac_address.to_string(),
            addresses: port.fixed_ips.iter().map(|ip| ip.ip_address).collect(),
        };
        let guest = Guest::plug(&self.lab, &self.host, &format!("vm{n}"), facts)?;
        self.agent.wait_for_status(n, PortStatus::Active)?;
        Ok(guest)
    }

    fn close(self) -> Result<()> {
        self.agent.stop()?;
        self.lab.close()
    }
}

#[test]
fn stock_clients_get_addresses_and_reach_each_other_and_the_outside() -> Result<()> {
    let scene = Scene::new()?;
    let waiting = scene.agent.wait_for_status(0, PortStatus::Down)?;
    assert_eq!(waiting.revision, Some(Revision(1)));
    assert!(
        waiting.ports[0].reason.ends_with("is not there"),
        "{waiting:?}"
    );
    assert!(waiting.physical_networks[0].attached);

    let one = scene.guest(0)?;
    one.start()?;
    let lease = one.dhcp(&scene.lab)?;
    assert_eq!(lease.get("ip"), "192.0.2.11/24");
    assert_eq!(lease.get("router"), "192.0.2.1");
    assert_eq!(lease.get("dns"), "9.9.9.9");
    assert_eq!(lease.get("mtu"), "1450");
    assert_eq!(lease.get("domain"), "example.org");
    assert_eq!(lease.get("server"), "192.0.2.1");
    assert_eq!(lease.get("lease"), "86400");
    assert_eq!(
        lease.get("routes"),
        "10.9.0.0/16 192.0.2.12 0.0.0.0/0 192.0.2.1"
    );
    one.slaac()?;
    assert_eq!(one.mtu()?, (1_450, 1_450));

    let two = scene.guest(1)?;
    two.start()?;
    let leases = two.dhclient(&scene.lab)?;
    assert!(leases.contains("fixed-address 192.0.2.12"), "{leases}");
    assert!(leases.contains("option interface-mtu 1450"), "{leases}");
    two.slaac()?;

    let (v4, v6) = (two.port.v4()?, two.port.v6()?);
    for to in [
        v4.into(),
        v6.into(),
        ip("192.0.2.1"),
        ip(&format!("{PREFIX}::1")),
    ] {
        assert!(ping(&one.namespace, to, 2)?.all(), "{to}");
    }
    assert!(
        ping(&one.namespace, ip("203.0.113.1"), 3)?.all(),
        "outside, by SNAT"
    );

    let stats = scene.agent.stats()?;
    assert!(stats.services.dhcp_acks >= 2, "{:?}", stats.services);
    assert!(stats.services.router_advertisements >= 2);
    assert!(stats.total.rx_packets > 0);
    let status = scene.agent.status()?;
    let hop = status
        .neighbours
        .iter()
        .find(|n| n.ip_address == ip("203.0.113.1"));
    assert!(hop.is_some(), "{:?}", status.neighbours);

    one.unplug(&scene.host)?;
    scene.agent.wait_for_status(0, PortStatus::Down)?;
    scene.close()
}

#[test]
fn errors_come_back_from_the_router() -> Result<()> {
    let scene = Scene::new()?;
    let guest = scene.guest(0)?;
    guest.start()?;
    guest.dhcp(&scene.lab)?;
    let text = ping_text(&guest.namespace, ip("203.0.113.1"), "-c 1 -W 2 -t 1")?;
    assert!(
        text.contains("From 192.0.2.1") && text.contains("Time to live exceeded"),
        "{text}"
    );
    let text = ping_text(
        &guest.namespace,
        ip("203.0.113.1"),
        "-c 1 -W 2 -M do -s 1410",
    )?;
    assert!(
        text.contains("From 192.0.2.1") && text.contains("mtu = 1400"),
        "{text}"
    );
    assert_eq!(scene.agent.stats()?.services.icmp_errors, 2);
    scene.close()
}

#[test]
fn the_outside_hears_announcements_and_a_neighbour_is_learned() -> Result<()> {
    let lab = Lab::new("agent")?;
    let (host, outside) = (lab.namespace("host")?, lab.namespace("outside")?);
    lab.veth((&host, "uplink"), (&outside, "wire"))?;
    outside.run("ip address add 203.0.113.1/24 dev wire")?;
    let mut capture = Capture::open(&outside, "wire")?;
    let (_snapshots, receiver) = watch::channel(Some(Arc::new(snapshot(lab.run()))));
    let agent = Agent::start(&lab, &host, receiver)?;
    let gateway = Ipv4Addr::new(203, 0, 113, 10).octets();
    let gratuitous = |frame: &[u8]| {
        frame.len() >= 42
            && frame[12..14] == [8, 6]
            && frame[28..32] == gateway
            && frame[38..42] == gateway
    };
    let heard = capture.find(TIMEOUT, gratuitous)?;
    assert!(
        heard.is_some(),
        "no gratuitous ARP of the gateway's address"
    );
    until("the next hop to be known", TIMEOUT, || {
        let known = agent.status()?.neighbours;
        Ok(known
            .iter()
            .any(|n| n.ip_address == ip("203.0.113.1"))
            .then_some(()))
    })?;
    agent.stop()?;
    lab.close()
}

#[test]
fn a_changed_snapshot_is_enforced_and_told() -> Result<()> {
    let scene = Scene::new()?;
    let guest = scene.guest(0)?;
    guest.start()?;
    guest.dhcp(&scene.lab)?;
    assert!(ping(&guest.namespace, ip("192.0.2.1"), 1)?.all());
    let mut next = snapshot(scene.lab.run());
    next.revision = Revision(2);
    let mut port = next.ports.remove(&PORT_IDS[0]).context("no port")?;
    port.admin_state_up = false;
    next.ports.insert(PORT_IDS[0], port);
    scene.snapshots.send_replace(Some(Arc::new(next)));
    let status = scene.agent.wait_for_status(0, PortStatus::Down)?;
    assert_eq!(status.revision, Some(Revision(2)));
    let port = status.ports.iter().find(|p| p.port_id == PORT_IDS[0]);
    assert_eq!(port.context("no port")?.reason, "administratively down");
    assert!(!ping(&guest.namespace, ip("192.0.2.1"), 1)?.all());
    let _unused = &scene.outside;
    scene.close()
}

#[test]
fn a_dhcpv6_client_gets_the_ports_address() -> Result<()> {
    let scene = Scene::new()?;
    let mut next = snapshot(scene.lab.run());
    next.revision = Revision(2);
    let subnet = next.subnets.get_mut(&subnet_id(1)).context("no subnet")?;
    subnet.ipv6_ra_mode = Some(Ipv6Mode::Dhcpv6Stateful);
    subnet.ipv6_address_mode = Some(Ipv6Mode::Dhcpv6Stateful);
    let address = format!("{PREFIX}::77");
    let port = next.ports.get_mut(&PORT_IDS[0]).context("no port")?;
    port.fixed_ips[1].ip_address = ip(&address);
    scene.snapshots.send_replace(Some(Arc::new(next)));
    let guest = scene.guest(0)?;
    guest.start()?;
    until("a link-local address", TIMEOUT, || {
        let usable = guest.addresses()?;
        Ok((!usable.is_empty()).then_some(()))
    })?;
    let file = |name: &str| scene.lab.directory().join(name).display().to_string();
    let (leases, pid) = (file("v6.leases"), file("v6.pid"));
    guest.namespace.run(&format!(
        "dhclient -6 -1 -v -sf /bin/true -lf {leases} -pf {pid} eth0"
    ))?;
    let lease = std::fs::read_to_string(&leases)?;
    guest.namespace.run(&format!(
        "dhclient -6 -x -sf /bin/true -lf {leases} -pf {pid} eth0"
    ))?;
    assert!(lease.contains(&format!("iaaddr {address}")), "{lease}");
    assert!(scene.agent.stats()?.services.dhcpv6_answers >= 2);
    scene.close()
}
