//! Two hosts and more: guests reach each other through tunnels, under policy on both sides, and each packet takes one.

use anyhow::{Context, Result, anyhow};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use weft_kit::capture::Capture;
use weft_kit::clock::until;
use weft_kit::lab::Process;
use weft_kit::ping::{ping, ping_with};
use weft_kit::tcp::{Probed, Server, probe};
use weft_kit::{Guest, Lab, Namespace, PortFacts};
use weft_tests_system::hosts::{Hosts, Underlay, bulk};
use weft_tests_system::scene::ANY;
use weft_tests_system::tunnelled::{Tunnelled, tunnelled};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Two networks behind one router, and a group that lets ICMP and TCP/22 in.
struct Cloud {
    hosts: Hosts,
    blue: u32,
    green: u32,
}

fn open(name: &str, underlay: Underlay) -> Result<Cloud> {
    open_with(name, underlay, "vxlan")
}

/// The largest MTU that control gives to a network of this kind.
fn mtu(underlay: Underlay, kind: &str) -> u16 {
    match kind {
        "gre" => underlay.mtu() + 8,
        "geneve" => underlay.mtu() - 8,
        _ => underlay.mtu(),
    }
}

fn open_with(name: &str, underlay: Underlay, kind: &str) -> Result<Cloud> {
    let mut hosts = Hosts::open(name, 2, underlay)?;
    let options = |mtu: u16| format!("--provider-network-type {kind} --mtu {mtu}");
    let mtu = mtu(underlay, kind);
    let (mtu, smaller) = (options(mtu), options(mtu - 50));
    let vni = |network: &serde_json::Value| {
        let number = network["provider:segmentation_id"].as_u64();
        u32::try_from(number.context("no VNI")?).context("a VNI has 24 bits")
    };
    let blue = vni(&hosts.network("blue", "192.0.2.0/24", "fd00:b::/64", &mtu)?)?;
    let green = vni(&hosts.network("green", "198.51.100.0/24", "fd00:6::/64", &smaller)?)?;
    hosts.openstack("router create r1")?;
    for subnet in ["blue-v4", "blue-v6", "green-v4", "green-v6"] {
        hosts.openstack(&format!("router add subnet r1 {subnet}"))?;
    }
    hosts.openstack("security group create web")?;
    for rule in [
        "--protocol icmp",
        "--ethertype IPv6 --protocol ipv6-icmp",
        "--protocol tcp --dst-port 22",
        "--ethertype IPv6 --protocol tcp --dst-port 22",
    ] {
        hosts.openstack(&format!("security group rule create {rule} web"))?;
    }
    Ok(Cloud { hosts, blue, green })
}

fn addresses(guest: &Guest) -> Result<[IpAddr; 2]> {
    Ok([guest.port.v4()?.into(), guest.port.v6()?.into()])
}

/// The tunnelled echo requests and replies between two guests: three of each, one tunnel a packet.
fn assert_one_tunnel_each_way(
    seen: &[Tunnelled],
    port: u16,
    from: (IpAddr, u32, u8),
    to: (IpAddr, u32, u8),
) {
    assert_eq!(seen.len(), 6, "three requests and three replies: {seen:#?}");
    for packet in seen {
        let (source, _, ttl) = packet.ip().expect("it was found by its addresses");
        let (_, vni, expected) = if source == from.0 { from } else { to };
        assert_eq!((packet.vni, ttl), (vni, expected), "{packet:?}");
        assert_eq!(packet.destination_port, port);
        assert_eq!(packet.outer_ttl, 64);
        assert!(port == 0 || packet.source_port >= 49_152, "{packet:?}");
    }
}

fn walks(name: &str, underlay: Underlay, kind: &str) -> Result<()> {
    let Cloud {
        mut hosts,
        blue,
        green,
    } = open_with(name, underlay, kind)?;
    let a = hosts.guest(0, "blue", "a", "--security-group web")?;
    let b = hosts.guest(1, "blue", "b", "--security-group web")?;
    let c = hosts.guest(1, "green", "c", "--security-group web")?;
    let port = match kind {
        "vxlan" => 4789,
        "geneve" => 6081,
        _ => 0,
    };
    let ends = (hosts.hosts[0].tunnel_ip, hosts.hosts[1].tunnel_ip);
    let _servers = [&b, &c]
        .map(|guest| [22, 23].map(|port| Server::start(&guest.namespace, &guest.name, ANY, port)));

    // Walk 6: the same network on two hosts.
    for (own, other) in addresses(&a)?.into_iter().zip(addresses(&b)?) {
        reach(&a, other)?;
        let mut wire = hosts.capture(0)?;
        let pinged = ping(&a.namespace, other, 3)?;
        assert!(
            pinged.all() && pinged.ttl == Some(64),
            "{other}: {pinged:?}"
        );
        let seen = tunnelled(&mut wire, own, other)?;
        assert_one_tunnel_each_way(&seen, port, (own, blue, 64), (other, blue, 64));
        let out = seen.iter().find(|packet| packet.from == ends.0);
        let out = out.context("nothing from the first host")?;
        assert_eq!(out.to, ends.1);
        assert_eq!(out.macs(), (a.port.mac.clone(), b.port.mac.clone()));
        assert!(probe(&a.namespace, SocketAddr::new(other, 22))?.is_from("b"));
        assert_eq!(
            probe(&a.namespace, SocketAddr::new(other, 23))?,
            Probed::Silent
        );
    }
    assert!(
        hosts.drops(1, "security_group_ingress_denied")? > 0,
        "ingress rules are the receiver's host's"
    );

    // Walk 9: another network on another host: routed at the source, in the VNI of the network where it is delivered.
    for (own, other) in addresses(&a)?.into_iter().zip(addresses(&c)?) {
        reach(&a, other)?;
        let mut wire = hosts.capture(0)?;
        let pinged = ping(&a.namespace, other, 3)?;
        assert!(
            pinged.all() && pinged.ttl == Some(63),
            "{other}: {pinged:?}"
        );
        let seen = tunnelled(&mut wire, own, other)?;
        assert_one_tunnel_each_way(&seen, port, (own, green, 63), (other, blue, 63));
        for packet in &seen {
            let to = if packet.from == ends.0 { &c } else { &a };
            assert_eq!(packet.macs().1, to.port.mac, "{packet:?}");
        }
        assert!(probe(&a.namespace, SocketAddr::new(other, 22))?.is_from("c"));
        assert_eq!(
            probe(&a.namespace, SocketAddr::new(other, 23))?,
            Probed::Silent
        );
    }
    large_packets(&hosts, &a, &c, mtu(underlay, kind) - 50)?;
    let bytes = 4 << 20;
    bulk(
        &a.namespace,
        SocketAddr::new(c.port.v4()?.into(), 22),
        bytes,
    )?;
    let [packets, octets] = hosts.sent(0)?;
    let mean = octets / packets.max(1);
    assert!(
        mean > 2_000,
        "large segments stay whole in the tunnel: {mean} bytes a packet"
    );
    policy(&mut hosts, &a, &b)?;
    assert_eq!(
        hosts.drops(0, "engine_error")? + hosts.drops(1, "engine_error")?,
        0
    );
    hosts.close()
}

fn reach(guest: &Guest, to: IpAddr) -> Result<()> {
    until(&format!("{} to reach {to}", guest.name), TIMEOUT, || {
        Ok((ping(&guest.namespace, to, 1)?.received == 1).then_some(()))
    })
}

/// What fits the network passes whole; what does not is answered by the router, in both families.
fn large_packets(hosts: &Hosts, a: &Guest, c: &Guest, mtu: u16) -> Result<()> {
    for (to, headers) in [(IpAddr::from(c.port.v4()?), 28), (c.port.v6()?.into(), 48)] {
        let fits = ping_with(
            &a.namespace,
            to,
            2,
            &format!("-W 1 -M do -s {}", mtu - headers),
        )?;
        assert!(fits.all(), "{to}: {fits:?}");
        let over = format!("-W 1 -M do -s {}", mtu + 20 - headers);
        let over = ping_with(&a.namespace, to, 2, &over)?;
        assert_eq!(over.received, 0, "{to}: larger than the network");
        let route = a.namespace.run(&format!("ip route get {to}"))?;
        let told = route.contains(&format!("mtu {mtu}"));
        assert!(told, "the guest was not told: {route}");
    }
    assert!(hosts.drops(0, "mtu_exceeded")? >= 2);
    Ok(())
}

/// A rule that goes cuts what it allowed, on the host that asks it.
fn policy(hosts: &mut Hosts, a: &Guest, b: &Guest) -> Result<()> {
    let to = b.port.v4()?.into();
    let admin = hosts.admin.clone();
    let rules = hosts.operator.get(&admin, "/v2.0/security-group-rules")?;
    let rules = rules["security_group_rules"]
        .as_array()
        .context("no rules")?;
    let rule = |direction: &str, protocol: Option<&str>| {
        let fits = |rule: &&serde_json::Value| {
            rule["direction"] == direction
                && rule["ethertype"] == "IPv4"
                && rule["protocol"].as_str() == protocol
                && rule["remote_group_id"].is_null()
                && rule["port_range_min"].is_null()
        };
        let ids = rules
            .iter()
            .filter(fits)
            .filter_map(|rule| rule["id"].as_str());
        ids.map(str::to_owned).collect::<Vec<_>>()
    };
    for id in rule("ingress", Some("icmp")) {
        hosts.openstack(&format!("security group rule delete {id}"))?;
    }
    let cut = || Ok((ping(&a.namespace, to, 1)?.received == 0).then_some(()));
    until("pings to be cut at the receiver's host", TIMEOUT, cut)?;
    let before = hosts.drops(0, "security_group_egress_denied")?;
    assert!(probe(&a.namespace, SocketAddr::new(to, 22))?.is_from("b"));
    for id in rule("egress", None) {
        hosts.openstack(&format!("security group rule delete {id}"))?;
    }
    let cut = || {
        let probed = probe(&a.namespace, SocketAddr::new(to, 22))?;
        Ok((probed == Probed::Silent).then_some(()))
    };
    until("connections to be cut at the sender's host", TIMEOUT, cut)?;
    assert!(hosts.drops(0, "security_group_egress_denied")? > before);
    Ok(())
}

/// Linux's own vxlan device on a third host, which control knows as any other: frames pass both ways, whole segments too.
fn linux_peer(name: &str, underlay: Underlay) -> Result<()> {
    let Cloud {
        mut hosts, blue, ..
    } = open(name, underlay)?;
    let a = hosts.guest(0, "blue", "a", "--security-group web")?;
    let peer = hosts.stranger("peer", 9, underlay.address(9))?;
    let port = hosts.openstack("port create --network blue --host peer x")?;
    let port = PortFacts::from_json(&port)?;
    let (local, remote) = (underlay.address(9), hosts.hosts[0].tunnel_ip);
    let zero = match underlay {
        Underlay::V4 => "",
        Underlay::V6 => "udp6zerocsumtx udp6zerocsumrx",
    };
    peer.run(&format!(
        "ip link add vx0 address {} mtu {} type vxlan id {blue} local {local} remote {remote} dev eth0 dstport 4789 nolearning {zero}",
        port.mac,
        underlay.mtu(),
    ))?;
    peer.run("ip link set vx0 up")?;
    for (address, length) in [(IpAddr::from(port.v4()?), 24), (port.v6()?.into(), 64)] {
        peer.run(&format!("ip address add {address}/{length} dev vx0 nodad"))?;
    }
    for address in addresses(&a)? {
        let mac = &a.port.mac;
        peer.run(&format!("ip neighbour add {address} lladdr {mac} dev vx0"))?;
    }
    let _servers = [
        Server::start(&a.namespace, "a", ANY, 22)?,
        Server::start(&peer, "peer", ANY, 22)?,
    ];
    let others = [IpAddr::from(port.v4()?), port.v6()?.into()];
    for (own, other) in addresses(&a)?.into_iter().zip(others) {
        reach(&a, other)?;
        assert!(ping(&a.namespace, other, 3)?.all());
        let pinged = ping(&peer, own, 3)?;
        assert!(pinged.all() && pinged.ttl == Some(64), "{own}: {pinged:?}");
        bulk(&a.namespace, SocketAddr::new(other, 22), 1 << 20)?;
        bulk(&peer, SocketAddr::new(own, 22), 1 << 20)?;
    }
    hosts.close()
}

#[test]
fn linux_vxlan_is_a_peer_over_ipv4() -> Result<()> {
    linux_peer("weft-linux4", Underlay::V4)
}

#[test]
fn linux_vxlan_is_a_peer_over_ipv6() -> Result<()> {
    linux_peer("weft-linux6", Underlay::V6)
}

/// Open vSwitch in a namespace, with its userspace datapath. Ends when dropped.
struct OpenVswitch {
    namespace: Namespace,
    folder: PathBuf,
    _daemons: Vec<Process>,
}

impl OpenVswitch {
    fn start(lab: &Lab, namespace: &Namespace) -> Result<Self> {
        let folder = lab.directory().join("ovs");
        std::fs::create_dir(&folder)?;
        let path = folder.display();
        namespace.run(&format!(
            "ovsdb-tool create {path}/conf.db /usr/share/openvswitch/vswitch.ovsschema"
        ))?;
        let spawn = |line: &str| {
            let mut command = namespace.command("env");
            command.arg(format!("OVS_RUNDIR={path}"));
            command.args(line.split_whitespace());
            lab.spawn(command.stdout(Stdio::null()).stderr(Stdio::null()))
        };
        let database = spawn(&format!(
            "ovsdb-server {path}/conf.db --remote=punix:{path}/db.sock --unixctl={path}/db.ctl"
        ))?;
        let socket = folder.join("db.sock");
        until("the database's socket", TIMEOUT, || {
            Ok(socket.exists().then_some(()))
        })?;
        let mut ovs = Self {
            namespace: namespace.clone(),
            folder: folder.clone(),
            _daemons: vec![database],
        };
        ovs.set("--no-wait init")?;
        let switch = spawn(&format!(
            "ovs-vswitchd unix:{path}/db.sock --disable-system --unixctl={path}/switch.ctl"
        ))?;
        ovs._daemons.push(switch);
        Ok(ovs)
    }

    fn set(&self, line: &str) -> Result<String> {
        let socket = self.folder.join("db.sock");
        let socket = socket.display();
        self.namespace
            .run(&format!("ovs-vsctl --timeout=10 --db=unix:{socket} {line}"))
    }
}

/// Open vSwitch on a third machine, which control knows as any other host: its userspace datapath exchanges frames with a
/// guest, by VXLAN, GENEVE and GRE.
fn open_vswitch(name: &str, kind: &str) -> Result<()> {
    let Cloud {
        mut hosts, blue, ..
    } = open_with(name, Underlay::V4, kind)?;
    let a = hosts.guest(0, "blue", "a", "--security-group web")?;
    let peer = hosts.stranger("peer", 9, Underlay::V4.address(9))?;
    let port = hosts.openstack("port create --network blue --host peer x")?;
    let port = PortFacts::from_json(&port)?;
    let ovs = OpenVswitch::start(&hosts.lab, &peer)?;
    ovs.set("add-br br-phy -- set bridge br-phy datapath_type=netdev -- add-port br-phy eth0")?;
    let own = Underlay::V4.address(9);
    peer.run(&format!("ip address del {own}/24 dev eth0"))?;
    peer.run(&format!("ip address add {own}/24 dev br-phy"))?;
    peer.run("ip link set br-phy up")?;
    let (remote, mac) = (hosts.hosts[0].tunnel_ip, &port.mac);
    ovs.set(&format!(
        "add-br br-int -- set bridge br-int datapath_type=netdev other-config:hwaddr={mac} \
         -- add-port br-int tun0 -- set interface tun0 type={kind} options:remote_ip={remote} options:key={blue}"
    ))?;
    peer.run(&format!(
        "ip link set br-int up mtu {}",
        mtu(Underlay::V4, kind)
    ))?;
    for (address, length) in [(IpAddr::from(port.v4()?), 24), (port.v6()?.into(), 64)] {
        peer.run(&format!(
            "ip address add {address}/{length} dev br-int nodad"
        ))?;
    }
    for address in addresses(&a)? {
        let mac = &a.port.mac;
        peer.run(&format!(
            "ip neighbour add {address} lladdr {mac} dev br-int"
        ))?;
    }
    // It learns the underlay's neighbours from what passes br-phy.
    assert!(
        ping(&peer, remote, 3)?.received > 0,
        "the switch does not reach the host"
    );
    let others = [IpAddr::from(port.v4()?), port.v6()?.into()];
    for (own, other) in addresses(&a)?.into_iter().zip(others) {
        reach(&a, other)?;
        assert!(ping(&a.namespace, other, 3)?.all());
        let pinged = ping(&peer, own, 3)?;
        assert!(pinged.all() && pinged.ttl == Some(64), "{own}: {pinged:?}");
    }
    drop(ovs);
    hosts.close()
}

#[test]
fn open_vswitch_is_a_peer_by_vxlan() -> Result<()> {
    open_vswitch("weft-ovsvx", "vxlan")
}

#[test]
fn open_vswitch_is_a_peer_by_geneve() -> Result<()> {
    open_vswitch("weft-ovsgnv", "geneve")
}

#[test]
fn open_vswitch_is_a_peer_by_gre() -> Result<()> {
    open_vswitch("weft-ovsgre", "gre")
}

#[test]
fn guests_of_two_hosts_by_gre() -> Result<()> {
    walks("weft-gre", Underlay::V4, "gre")
}

#[test]
fn guests_of_two_hosts_by_gre_over_ipv6() -> Result<()> {
    walks("weft-gre6", Underlay::V6, "gre")
}

#[test]
fn guests_of_two_hosts_over_ipv4() -> Result<()> {
    walks("weft-hosts4", Underlay::V4, "vxlan")
}

#[test]
fn guests_of_two_hosts_over_ipv6() -> Result<()> {
    walks("weft-hosts6", Underlay::V6, "vxlan")
}

#[test]
fn guests_of_two_hosts_by_geneve() -> Result<()> {
    walks("weft-geneve", Underlay::V4, "geneve")
}

/// A UDP datagram to port 5353 of everybody, as a frame.
fn to_everybody(from: &Guest, v6: bool) -> Result<Vec<u8>> {
    let mac = weft_kit::frame::mac(&from.port.mac)?;
    let datagram = weft_wire::udp::Repr {
        source_port: 5353,
        destination_port: 5353,
    };
    if v6 {
        let header = weft_wire::ipv6::Repr {
            source: from.port.v6()?,
            destination: "ff02::fb".parse()?,
            next_header: 17,
            hop_limit: 255,
        };
        let packet = header.emit(&datagram.emit_without_checksum(b"weft"));
        let to = [0x33, 0x33, 0, 0, 0, 0xfb];
        return Ok(weft_kit::frame::ethernet(to, mac, 0x86dd, &packet));
    }
    let datagram = weft_kit::frame::udp(5353, 5353, b"weft");
    let broadcast = std::net::Ipv4Addr::new(192, 0, 2, 255);
    let packet = weft_kit::frame::ipv4(from.port.v4()?, broadcast, 17, &datagram);
    Ok(weft_kit::frame::ethernet([0xff; 6], mac, 0x0800, &packet))
}

/// How many frames with these bytes were heard so far.
fn heard(capture: &mut Capture, frame: &[u8]) -> Result<usize> {
    let mut count = 0;
    capture.find(Duration::from_millis(150), |seen| {
        count += usize::from(seen == frame);
        false
    })?;
    Ok(count)
}

/// Broadcast and multicast: each member of the network gets one copy if its rules allow it, each host with members one tunnelled
/// packet, and nobody else any.
#[test]
fn multicast_reaches_the_members_alone() -> Result<()> {
    let mut hosts = Hosts::open("weft-multicast", 3, Underlay::V4)?;
    let blue = hosts.network("blue", "192.0.2.0/24", "fd00:b::/64", "--mtu 1450")?;
    let vni = blue["provider:segmentation_id"].as_u64();
    hosts.network("green", "192.0.2.0/24", "fd00:b::/64", "--mtu 1450")?;
    for subnet in ["blue-v4", "blue-v6"] {
        let router = subnet.replace('-', "");
        hosts.openstack(&format!("router create {router}"))?;
        hosts.openstack(&format!("router add subnet {router} {subnet}"))?;
    }
    hosts.openstack("security group create mdns")?;
    hosts.openstack("security group create deaf")?;
    for family in ["IPv4", "IPv6"] {
        hosts.openstack(&format!(
            "security group rule create --ethertype {family} --protocol udp --dst-port 5353 mdns"
        ))?;
    }
    let places = [
        (0, "blue", "a", "mdns"),
        (0, "blue", "b", "mdns"),
        (0, "blue", "c", "deaf"),
        (1, "blue", "d", "mdns"),
        (1, "blue", "e", "mdns"),
        (1, "blue", "f", "deaf"),
        (1, "green", "g", "mdns"),
        (2, "green", "h", "mdns"),
    ];
    let mut guests = Vec::new();
    for (host, network, name, group) in places {
        let guest = hosts.plug(host, network, name, &format!("--security-group {group}"))?;
        guest.dhcp(&hosts.lab)?;
        guests.push(guest);
    }
    let a = guests.first().context("no guest")?;
    let socket = guests[3].namespace.udp("0.0.0.0".parse()?, 5353)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    until("a broadcast to get through", TIMEOUT, || {
        let mut wire = Capture::open(&guests[3].namespace, "eth0")?;
        Capture::open(&a.namespace, "eth0")?.send(&to_everybody(a, false)?)?;
        Ok((heard(&mut wire, &to_everybody(a, false)?)? > 0).then_some(()))
    })?;
    let mut text = [0; 16];
    let (bytes, from) = socket.recv_from(&mut text)?;
    assert_eq!(&text[..bytes], b"weft", "its own stack takes it");
    assert_eq!(from.ip(), IpAddr::from(a.port.v4()?));
    for v6 in [false, true] {
        let frame = to_everybody(a, v6)?;
        let opened = guests.iter();
        let opened = opened.map(|guest| Capture::open(&guest.namespace, "eth0"));
        let mut captures = opened.collect::<Result<Vec<_>>>()?;
        let mut wires = [0, 1, 2].map(|host| hosts.capture(host));
        captures[0].send(&frame)?;
        let mut counts = Vec::new();
        for capture in &mut captures {
            counts.push(heard(capture, &frame)?);
        }
        // A packet socket does not hear what it sends: the first would be a copy.
        assert_eq!(counts, [0, 1, 0, 1, 1, 0, 0, 0], "IPv6: {v6}");
        let mut tunnelled = Vec::new();
        for wire in &mut wires {
            let wire = wire.as_mut().map_err(|error| anyhow!("{error:#}"))?;
            let mut count = 0;
            wire.find(Duration::from_millis(150), |seen| {
                let packet = Tunnelled::parse(seen).filter(|packet| packet.frame == frame);
                count += usize::from(packet.is_some_and(|p| Some(u64::from(p.vni)) == vni));
                false
            })?;
            tunnelled.push(count);
        }
        assert_eq!(tunnelled, [1, 1, 0], "one out of h1, to h2 alone");
    }
    assert!(hosts.drops(0, "security_group_ingress_denied")? >= 2);
    assert!(hosts.drops(1, "security_group_ingress_denied")? >= 2);
    // Above its rate, a port is held up, and nobody else.
    let mut flood = Capture::open(&a.namespace, "eth0")?;
    let frame = to_everybody(a, false)?;
    for _ in 0..4_000 {
        flood.send(&frame)?;
    }
    assert!(hosts.drops(0, "multicast_rate_limit")? > 0);
    let b = &guests[1];
    let mut wire = Capture::open(&guests[3].namespace, "eth0")?;
    Capture::open(&b.namespace, "eth0")?.send(&to_everybody(b, false)?)?;
    assert_eq!(heard(&mut wire, &to_everybody(b, false)?)?, 1);
    for host in 0..3 {
        assert_eq!(hosts.drops(host, "engine_error")?, 0);
    }
    hosts.close()
}
