//! Packet walks of the Neutron administration guide, on real packets; those by tunnels are in `root_hosts.rs`. What the story shows already
//! (SNAT, floating IP, one network, two networks) is looked at here from the sides that it leaves out.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use weft_kit::capture::Capture;
use weft_kit::clock::until;
use weft_kit::ping::{ping, ping_text, ping_with};
use weft_kit::tcp::{Probed, Server, probe};
use weft_kit::{Cloud, Guest, Namespace, Recording, Trunk, WeftOptions};
use weft_tests_system::hosts::{Hosts, Underlay};
use weft_tests_system::scene::{ANY, INTERNET, PHYSICAL_ROUTER, PHYSICAL_ROUTER_V6, Scene};
use weft_wire::ethernet;

const TIMEOUT: Duration = Duration::from_secs(5);

fn open(name: &str) -> Result<Scene> {
    Scene::open(name, &WeftOptions::new(None)?)
}

/// Everything holds that was checked on the way, and nothing remains.
fn close(scene: Scene) -> Result<()> {
    let report = scene.close()?;
    assert_eq!(report.failures(), Vec::<String>::new());
    Ok(())
}

/// Lets ICMP and TCP/22 in, in both families.
fn let_in(scene: &mut Scene, cloud: &Cloud) -> Result<()> {
    for rule in [
        "--protocol icmp",
        "--ethertype IPv6 --protocol ipv6-icmp",
        "--protocol tcp --dst-port 22",
        "--ethertype IPv6 --protocol tcp --dst-port 22",
    ] {
        scene.openstack(cloud, &format!("security group rule create {rule} default"))?;
    }
    Ok(())
}

/// The physical router's legs with these tags, and an address list of each.
fn tagged_legs(outside: &Namespace, legs: &[(u16, &[String])]) -> Result<Trunk> {
    let tags: Vec<u16> = legs.iter().map(|(vlan, _)| *vlan).collect();
    let trunk = Trunk::split(outside, "eth0", &tags)?;
    for (vlan, addresses) in legs {
        for address in *addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            outside.run(&format!("ip address add {address} dev vlan{vlan} {nodad}"))?;
        }
    }
    Ok(trunk)
}

/// The tag of a frame on the wire, and the frame without it.
fn untagged(frame: &[u8]) -> (Option<u16>, Vec<u8>) {
    match ethernet::untag(frame) {
        Some((vlan, frame)) => (Some(vlan), frame),
        None => (None, frame.to_vec()),
    }
}

/// The tags of all frames that are from or to this MAC address.
fn tags_of(frames: &[Vec<u8>], mac: &str) -> Result<BTreeSet<Option<u16>>> {
    let mac = weft_kit::frame::mac(mac)?;
    let of = |frame: &&Vec<u8>| frame.get(..6) == Some(&mac) || frame.get(6..12) == Some(&mac);
    Ok(frames
        .iter()
        .filter(of)
        .map(|frame| untagged(frame).0)
        .collect())
}

/// Walk 1: a guest on a provider network, no router of Weft between it and the physical one.
fn north_south(name: &str, vlan: Option<u16>) -> Result<()> {
    let mut scene = open(name)?;
    let wire = Recording::start(&scene.lab, &scene.outside, "eth0")?;
    let mut trunk = None;
    if let Some(vlan) = vlan {
        let addresses = [
            format!("{PHYSICAL_ROUTER}/24"),
            format!("{PHYSICAL_ROUTER_V6}/64"),
        ];
        for address in &addresses {
            scene
                .outside
                .run(&format!("ip address del {address} dev eth0"))?;
        }
        trunk = Some(tagged_legs(&scene.outside, &[(vlan, &addresses)])?);
    }
    let (admin, outside) = (scene.admin.clone(), scene.outside.clone());
    let user = scene.project("demo")?;
    provider_network(
        &mut scene,
        "net1",
        "provider",
        "203.0.113",
        "fd00:203:0:113",
        vlan,
    )?;
    let guest = scene.guest(&user, "net1", "guest1", "")?;
    guest.dhcp(&scene.lab)?;
    guest.configure(
        &format!("{}/64", guest.port.v6()?),
        Some(PHYSICAL_ROUTER_V6.into()),
    )?;

    let server = Server::start(&outside, "outside", ANY, 80)?;
    let own = [IpAddr::V4(guest.port.v4()?), IpAddr::V6(guest.port.v6()?)];
    let routers = [IpAddr::V4(PHYSICAL_ROUTER), IpAddr::V6(PHYSICAL_ROUTER_V6)];
    for (own, router) in own.into_iter().zip(routers) {
        let pinged = ping(&guest.namespace, router, 3)?;
        assert!(
            pinged.all() && pinged.ttl == Some(64),
            "{router}: {pinged:?}"
        );
        let probed = probe(&guest.namespace, SocketAddr::new(router, 80))?;
        assert_eq!(
            probed.seen_as().map(|seen| seen.ip()),
            Some(own),
            "{probed}"
        );
    }
    let probed = probe(&guest.namespace, SocketAddr::new(INTERNET.into(), 80))?;
    assert!(
        probed.is_from("outside"),
        "by the physical router as default gateway: {probed}"
    );

    let _ssh = Server::start(&guest.namespace, "guest1", ANY, 22)?;
    for own in own {
        assert_eq!(
            ping(&outside, own, 2)?.received,
            0,
            "{own}: not before a rule allows it"
        );
        assert_eq!(probe(&outside, SocketAddr::new(own, 22))?, Probed::Silent);
    }
    let_in(&mut scene, &user)?;
    for own in own {
        scene.settle(&outside, own)?;
        let pinged = ping(&outside, own, 3)?;
        assert!(pinged.all() && pinged.ttl == Some(64), "{own}: {pinged:?}");
        assert!(probe(&outside, SocketAddr::new(own, 22))?.is_from("guest1"));
    }
    drop(server);
    scene.openstack(&admin, &format!("port show {}", guest.port.id))?;
    let tags = tags_of(&wire.end()?, &guest.port.mac)?;
    assert_eq!(tags, BTreeSet::from([vlan]), "every frame, ARP and ND too");
    drop(trunk);
    close(scene)
}

#[test]
fn provider_network_north_south() -> Result<()> {
    north_south("weft-walk1", None)
}

#[test]
fn provider_network_north_south_in_a_vlan() -> Result<()> {
    north_south("weft-walk1v", Some(101))
}

/// A shared provider network with DHCP, routed by the physical router's addresses .1 and ::1.
fn provider_network(
    scene: &mut Scene,
    name: &str,
    physical: &str,
    v4: &str,
    v6: &str,
    vlan: Option<u16>,
) -> Result<()> {
    let admin = scene.admin.clone();
    let kind = match vlan {
        Some(vlan) => format!("vlan --provider-segment {vlan}"),
        None => "flat".to_owned(),
    };
    scene.openstack(
        &admin,
        &format!(
            "network create --share --provider-physical-network {physical} --provider-network-type {kind} {name}"
        ),
    )?;
    scene.openstack(
        &admin,
        &format!(
            "subnet create --network {name} --subnet-range {v4}.0/24 --gateway {v4}.1 \
             --allocation-pool start={v4}.11,end={v4}.250 {name}-v4"
        ),
    )?;
    scene.openstack(
        &admin,
        &format!(
            "subnet create --network {name} --ip-version 6 --ipv6-address-mode slaac \
             --subnet-range {v6}::/64 --gateway {v6}::1 {name}-v6"
        ),
    )?;
    Ok(())
}

/// Walk 3: two provider networks on one host; what goes between them goes by the physical router. `second` is where the
/// other network is: its physical network, the physical router's leg there, and its tag.
fn east_west_by_the_physical_router(
    mut scene: Scene,
    tags: [Option<u16>; 2],
    second: (&str, &str),
) -> Result<()> {
    let outside = scene.outside.clone();
    outside.sysctl("ipv4/ip_forward", "1")?;
    let user = scene.project("demo")?;
    let (v4, v6) = ("203.0.113", "fd00:203:0:113");
    provider_network(&mut scene, "net1", "provider", v4, v6, tags[0])?;
    let (v4, v6) = ("192.0.2", "fd00:192:0:2");
    provider_network(&mut scene, "net2", second.0, v4, v6, tags[1])?;
    let one = scene.guest(&user, "net1", "guest1", "")?;
    let two = scene.guest(&user, "net2", "guest2", "")?;
    one.dhcp(&scene.lab)?;
    // The other stock client, which is given its default route here by hand: see `Guest::dhclient`.
    let lease = two.dhclient(&scene.lab)?;
    assert!(lease.contains("option routers 192.0.2.1"), "{lease}");
    two.namespace.run("ip route add default via 192.0.2.1")?;
    let _server = Server::start(&two.namespace, "guest2", ANY, 22)?;
    let to = IpAddr::V4(two.port.v4()?);
    let wire = Recording::start(&scene.lab, &outside, second.1)?;
    let pinged = ping(&one.namespace, to, 3)?;
    assert!(pinged.all() && pinged.ttl == Some(63), "{pinged:?}");
    let source = one.port.v4()?.octets();
    let seen = wire.end()?;
    let seen = seen.iter().map(|frame| untagged(frame));
    let of_one = seen.filter(|(_, frame)| frame.get(26..30) == Some(&source));
    let tags_seen: Vec<_> = of_one.map(|(tag, _)| tag).collect();
    if second.1 == "eth0" {
        let there_and_back = [tags[0], tags[1]].repeat(3);
        assert_eq!(tags_seen, there_and_back, "out, routed, and back in");
    } else {
        assert_eq!(tags_seen, [tags[1]; 3], "they pass the physical router");
    }
    let probed = probe(&one.namespace, SocketAddr::new(to, 22))?;
    assert_eq!(
        probed.seen_as().map(|seen| seen.ip()),
        Some(one.port.v4()?.into()),
        "{probed}"
    );
    close(scene)
}

#[test]
fn provider_networks_east_west_by_the_physical_router() -> Result<()> {
    let mut options = WeftOptions::new(None)?;
    options
        .physical_networks
        .push(("provider2".to_owned(), "uplink1".to_owned()));
    let scene = Scene::open("weft-walk3", &options)?;
    scene.outside.run("ip address add 192.0.2.1/24 dev eth1")?;
    east_west_by_the_physical_router(scene, [None, None], ("provider2", "eth1"))
}

#[test]
fn vlans_of_one_wire_east_west_by_the_physical_router() -> Result<()> {
    let scene = open("weft-walk3v")?;
    let outside = scene.outside.clone();
    outside.run(&format!("ip address del {PHYSICAL_ROUTER}/24 dev eth0"))?;
    let (one, two) = (
        [format!("{PHYSICAL_ROUTER}/24")],
        ["192.0.2.1/24".to_owned()],
    );
    let _trunk = tagged_legs(&outside, &[(101, &one), (102, &two)])?;
    east_west_by_the_physical_router(scene, [Some(101), Some(102)], ("provider", "eth0"))
}

/// Walk 2: one provider network on two hosts: out by the one's uplink, in by the other's, with the network's tag, never in a
/// tunnel.
#[test]
fn one_vlan_on_two_hosts() -> Result<()> {
    let mut hosts = Hosts::open_with_provider("weft-walk2", 2, Underlay::V4, &[1, 2])?;
    let kind = "--share --provider-network-type vlan --provider-physical-network provider";
    for (name, vlan) in [("net1", 101), ("net2", 102)] {
        hosts.openstack(&format!(
            "network create {kind} --provider-segment {vlan} {name}"
        ))?;
        for (family, range) in [
            ("4 --gateway none", "203.0.113.0/24"),
            ("6 --ipv6-address-mode slaac", "fd00:203:0:113::/64"),
        ] {
            hosts.openstack(&format!(
                "subnet create --network {name} --ip-version {family} --subnet-range {range} {name}-{}",
                &family[..1]
            ))?;
        }
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
    let guests = [(0, "net1", "a"), (1, "net1", "b"), (1, "net2", "c")];
    let guests = guests.map(|(host, network, name)| -> Result<Guest> {
        let guest = hosts.plug(host, network, name, "--security-group web")?;
        guest.dhcp(&hosts.lab)?;
        guest.configure(&format!("{}/64", guest.port.v6()?), None)?;
        Ok(guest)
    });
    let [a, b, c] = guests;
    let (a, b, c) = (a?, b?, c?);
    let _servers = [&b, &c].map(|guest| Server::start(&guest.namespace, &guest.name, ANY, 22));
    let wire = Recording::start(&hosts.lab, &hosts.wire, "p1")?;
    let underlay = Recording::start(&hosts.lab, &hosts.wire, "h1")?;
    let addresses = [
        (a.port.v4()?.into(), b.port.v4()?.into()),
        (IpAddr::V6(a.port.v6()?), IpAddr::V6(b.port.v6()?)),
    ];
    for (_, to) in addresses {
        until("b to be reached", TIMEOUT, || {
            Ok((ping(&a.namespace, to, 1)?.received == 1).then_some(()))
        })?;
        let pinged = ping(&a.namespace, to, 3)?;
        assert!(pinged.all() && pinged.ttl == Some(64), "{to}: {pinged:?}");
        assert!(probe(&a.namespace, SocketAddr::new(to, 22))?.is_from("b"));
        let closed = probe(&a.namespace, SocketAddr::new(to, 23))?;
        assert_eq!(closed, Probed::Silent);
    }
    let mtu = "-W 1 -M do -s 1472";
    assert!(ping_with(&a.namespace, b.port.v4()?.into(), 2, mtu)?.all());
    // The same addresses are c's neighbours on another VLAN: nothing of it is heard there.
    assert_ne!(a.port.mac, c.port.mac);
    let frames = wire.end()?;
    for guest in [&a, &b] {
        let tags = tags_of(&frames, &guest.port.mac)?;
        assert_eq!(tags, BTreeSet::from([Some(101)]), "{}", guest.name);
    }
    for frame in underlay.end()? {
        assert_eq!(weft_tests_system::tunnelled::Tunnelled::parse(&frame), None);
    }
    hosts.close()
}

/// Walks 4, 5 and 8 with an external network of type VLAN: SNAT and a floating IP out of a tagged uplink.
#[test]
fn an_external_network_in_a_vlan() -> Result<()> {
    let mut scene = open("weft-walk5v")?;
    let (admin, outside) = (scene.admin.clone(), scene.outside.clone());
    let user = scene.project("demo")?;
    outside.run(&format!("ip address del {PHYSICAL_ROUTER}/24 dev eth0"))?;
    let _trunk = tagged_legs(&outside, &[(103, &[format!("{PHYSICAL_ROUTER}/24")])])?;
    scene.openstack(
        &admin,
        "network create --external --provider-physical-network provider --provider-network-type vlan \
         --provider-segment 103 provider1",
    )?;
    scene.openstack(
        &admin,
        "subnet create --network provider1 --subnet-range 203.0.113.0/24 --gateway 203.0.113.1 \
         --allocation-pool start=203.0.113.11,end=203.0.113.250 --no-dhcp provider1-v4",
    )?;
    scene.network(&user, "net1", "192.0.2.0/24", "")?;
    scene.openstack(&user, "router create router1")?;
    scene.openstack(&user, "router add subnet router1 net1-v4")?;
    let router = scene.openstack(&user, "router set --external-gateway provider1 router1");
    router.context("the gateway")?;
    let one = scene.booted_guest(&user, "net1", "guest1")?;
    let two = scene.booted_guest(&user, "net1", "guest2")?;
    let_in(&mut scene, &user)?;
    let wire = Recording::start(&scene.lab, &outside, "eth0")?;
    let _web = Server::start(&outside, "outside", ANY, 80)?;
    let to = SocketAddr::new(PHYSICAL_ROUTER.into(), 80);
    let probed = probe(&one.namespace, to)?;
    assert!(probed.is_from("outside"), "by SNAT: {probed}");
    let snat = probed.seen_as().context("nobody saw it")?.ip();
    assert_ne!(snat, IpAddr::from(one.port.v4()?));
    let floating = scene.openstack(&user, "floating ip create --port guest2 provider1")?;
    let floating: Ipv4Addr = floating["floating_ip_address"]
        .as_str()
        .context("none")?
        .parse()?;
    scene.settle(&outside, floating.into())?;
    let _ssh = Server::start(&two.namespace, "guest2", ANY, 22)?;
    assert!(probe(&outside, SocketAddr::new(floating.into(), 22))?.is_from("guest2"));
    let probed = probe(&two.namespace, to)?;
    let seen = probed.seen_as().map(|seen| seen.ip());
    assert_eq!(seen, Some(floating.into()), "{probed}");
    let frames = wire.end()?;
    let tags: BTreeSet<_> = frames.iter().map(|frame| untagged(frame).0).collect();
    assert_eq!(tags, BTreeSet::from([Some(103)]), "announcements too");
    close(scene)
}

/// A project with a network behind a router that has a gateway, and one booted guest on it.
fn routed(scene: &mut Scene) -> Result<(Cloud, Guest)> {
    let user = scene.project("demo")?;
    scene.external_network()?;
    scene.network(&user, "net1", "192.0.2.0/24", "")?;
    scene.openstack(&user, "router create router1")?;
    scene.openstack(&user, "router add subnet router1 net1-v4")?;
    scene.openstack(&user, "router set --external-gateway provider1 router1")?;
    let guest = scene.booted_guest(&user, "net1", "guest1")?;
    Ok((user, guest))
}

/// Walk 4 in IPv6: routed plainly in both directions, never translated.
#[test]
fn self_service_north_south_in_ipv6() -> Result<()> {
    let mut scene = open("weft-walk4")?;
    let (admin, outside) = (scene.admin.clone(), scene.outside.clone());
    let user = scene.project("demo")?;
    scene.external_network()?;
    scene.openstack(
        &admin,
        "subnet create --network provider1 --ip-version 6 --no-dhcp --subnet-range fd00:203:0:113::/64 \
         --gateway fd00:203:0:113::1 provider1-v6",
    )?;
    scene.network(&user, "net1", "192.0.2.0/24", "")?;
    scene.openstack(
        &user,
        "subnet create --network net1 --ip-version 6 --ipv6-ra-mode slaac --ipv6-address-mode slaac \
         --subnet-range fd00:192:0:2::/64 net1-v6",
    )?;
    scene.openstack(&user, "router create router1")?;
    scene.openstack(&user, "router add subnet router1 net1-v4")?;
    scene.openstack(&user, "router add subnet router1 net1-v6")?;
    scene.openstack(&user, "router set --external-gateway provider1 router1")?;
    let router = scene.openstack(&user, "router show router1")?;
    let addresses = router["external_gateway_info"]["external_fixed_ips"].as_array();
    let mut all = addresses
        .context("no gateway")?
        .iter()
        .filter_map(|ip| ip["ip_address"].as_str());
    let gateway = all
        .find(|address| address.contains(':'))
        .context("no IPv6 gateway address")?;
    outside.run(&format!("ip -6 route add fd00:192:0:2::/64 via {gateway}"))?;
    let guest = scene.booted_guest(&user, "net1", "guest1")?;
    let own = IpAddr::V6(guest.port.v6()?);

    let server = Server::start(&outside, "outside", ANY, 80)?;
    let to = IpAddr::V6(PHYSICAL_ROUTER_V6);
    let pinged = ping(&guest.namespace, to, 3)?;
    assert!(pinged.all() && pinged.ttl == Some(63), "{pinged:?}");
    let probed = probe(&guest.namespace, SocketAddr::new(to, 80))?;
    assert_eq!(
        probed.seen_as().map(|seen| seen.ip()),
        Some(own),
        "{probed}"
    );
    assert_eq!(ping(&outside, own, 2)?.received, 0, "no rule allows it yet");
    let_in(&mut scene, &user)?;
    scene.settle(&outside, own)?;
    let pinged = ping(&outside, own, 3)?;
    assert!(pinged.all() && pinged.ttl == Some(63), "{pinged:?}");
    drop(server);
    close(scene)
}

/// Walks 5 and 8: the floating IP is answered for by the guest's host, with its own MAC; guests reach it as well.
#[test]
fn floating_ip_lives_on_the_guests_host() -> Result<()> {
    let mut scene = open("weft-walk8")?;
    let outside = scene.outside.clone();
    let (user, one) = routed(&mut scene)?;
    let two = scene.booted_guest(&user, "net1", "guest2")?;
    let_in(&mut scene, &user)?;
    let floating = scene.openstack(&user, "floating ip create --port guest1 provider1")?;
    let floating: Ipv4Addr = floating["floating_ip_address"]
        .as_str()
        .context("none")?
        .parse()?;
    scene.settle(&outside, floating.into())?;
    let neighbour = outside.run(&format!("ip neigh show {floating} dev eth0"))?;
    assert!(
        neighbour.contains("lladdr"),
        "the host answers ARP for it: {neighbour}"
    );

    let _server = Server::start(&one.namespace, "guest1", ANY, 22)?;
    let to = SocketAddr::new(floating.into(), 22);
    let probed = probe(&outside, to)?;
    assert_eq!(
        probed.seen_as().map(|seen| seen.ip()),
        Some(PHYSICAL_ROUTER.into()),
        "{probed}"
    );
    let probed = probe(&two.namespace, to)?;
    assert!(
        probed.is_from("guest1"),
        "a guest reaches the floating IP of another: {probed}"
    );
    let seen = probed.seen_as().map(|seen| seen.ip());
    assert_ne!(
        seen,
        Some(two.port.v4()?.into()),
        "as outside, it is translated too"
    );

    scene.openstack(&user, &format!("floating ip unset --port {floating}"))?;
    until("the end of the floating IP", TIMEOUT, || {
        Ok((probe(&outside, to)? == Probed::Silent).then_some(()))
    })?;
    close(scene)
}

/// Walks 7 and 9, at their edges: the router answers what it cannot forward.
/// Ports of a floating IP lead to two guests, from outside and from a guest; a forwarding that goes cuts its connections' way.
#[test]
fn ports_of_a_floating_ip_lead_to_guests() -> Result<()> {
    let mut scene = open("weft-walkpf")?;
    let outside = scene.outside.clone();
    let (user, one) = routed(&mut scene)?;
    let two = scene.booted_guest(&user, "net1", "guest2")?;
    let_in(&mut scene, &user)?;
    let made = scene.openstack(&user, "floating ip create provider1")?;
    let address: Ipv4Addr = made["floating_ip_address"]
        .as_str()
        .context("no address")?
        .parse()?;
    for (guest, external) in [(&one, "2201"), (&two, "2202:2203")] {
        let (name, internal) = (&guest.name, guest.port.v4()?);
        let line = format!(
            "floating ip port forwarding create --port {name} --protocol tcp --internal-ip-address {internal} \
             --internal-protocol-port 22 --external-protocol-port {external} {address}"
        );
        scene.openstack(&user, &line)?;
    }
    scene.settle(&outside, address.into())?;
    let _servers = [&one, &two].map(|guest| Server::start(&guest.namespace, &guest.name, ANY, 22));
    let at = |port| SocketAddr::new(address.into(), port);
    for (port, name) in [(2201, "guest1"), (2202, "guest2"), (2203, "guest2")] {
        let probed = probe(&outside, at(port))?;
        assert!(probed.is_from(name), "{port}: {probed}");
        let probed = probe(&two.namespace, at(port))?;
        assert!(probed.is_from(name), "from guest2, {port}: {probed}");
    }
    assert_eq!(probe(&outside, at(22))?, Probed::Silent);
    assert!(
        ping(&outside, address.into(), 2)?.all(),
        "the router answers for the address"
    );
    close(scene)
}

/// A trunk: the guest's VLAN devices are ports of other networks, with their own DHCP, rules and router; the trunk is ACTIVE.
#[test]
fn subports_of_a_trunk_are_ports_of_their_networks() -> Result<()> {
    let mut scene = open("weft-walktr")?;
    let (user, one) = routed(&mut scene)?;
    let_in(&mut scene, &user)?;
    scene.network(&user, "net2", "198.51.100.0/24", "")?;
    scene.openstack(&user, "router add subnet router1 net2-v4")?;
    let far = scene.booted_guest(&user, "net2", "guest2")?;
    let subport = scene.openstack(&user, "port create --network net2 sub")?;
    let facts = weft_kit::PortFacts::from_json(&subport)?;
    scene.openstack(
        &user,
        "network trunk create --parent-port guest1 \
         --subport port=sub,segmentation-type=vlan,segmentation-id=101 trunk1",
    )?;
    let (inside, address, mac) = (&one.namespace, facts.v4()?, &facts.mac);
    let _split = Trunk::split(inside, "eth0", &[101])?;
    inside.run(&format!("ip link set vlan101 address {mac}"))?;
    inside.run(&format!("ip address add {address}/24 dev vlan101"))?;
    until("the trunk to be ACTIVE", TIMEOUT, || {
        let trunk = scene.openstack(&user, "network trunk show trunk1")?;
        Ok((trunk["status"] == "ACTIVE").then_some(()))
    })?;
    let _servers = [&one, &far].map(|guest| Server::start(&guest.namespace, &guest.name, ANY, 22));
    let there = SocketAddr::new(far.port.v4()?.into(), 22);
    let probed = probe(inside, there)?;
    assert!(probed.is_from("guest2"), "tagged, on net2 itself: {probed}");
    assert_eq!(probed.seen_as().map(|seen| seen.ip()), Some(address.into()));
    let back = probe(&far.namespace, SocketAddr::new(address.into(), 22))?;
    assert!(back.is_from("guest1"), "to the subport: {back}");
    let router = Ipv4Addr::new(192, 0, 2, 1);
    assert!(ping(inside, router.into(), 2)?.all(), "untagged, as before");
    scene.openstack(&user, "port set --no-security-group sub")?;
    until("the subport to be closed", TIMEOUT, || {
        Ok((probe(inside, there)? == Probed::Silent).then_some(()))
    })?;
    close(scene)
}

#[test]
fn the_router_says_why_it_does_not_forward() -> Result<()> {
    let mut scene = open("weft-walk9")?;
    let (user, one) = routed(&mut scene)?;
    scene.network(&user, "net2", "198.51.100.0/24", "--mtu 1280")?;
    scene.openstack(&user, "router add subnet router1 net2-v4")?;
    let two = scene.booted_guest(&user, "net2", "guest2")?;
    let to = IpAddr::V4(two.port.v4()?);
    scene.settle(&one.namespace, to)?;
    assert_eq!(two.mtu()?.0, 1280);
    let text = ping_text(&one.namespace, to, "-c 2 -t 1")?;
    assert!(
        text.contains("From 192.0.2.1") && text.contains("Time to live exceeded"),
        "{text}"
    );
    let text = ping_text(&one.namespace, to, "-c 2 -M do -s 1300")?;
    assert!(
        text.contains("mtu = 1280") || text.contains("mtu=1280"),
        "{text}"
    );
    let text = ping_text(&one.namespace, to, "-c 2 -M do -s 1252")?;
    assert!(
        text.contains(" 2 received"),
        "what just fits is forwarded: {text}"
    );
    close(scene)
}

/// S4's law: what is not on the same network is not even heard, ARP included.
#[test]
fn networks_without_a_router_hear_nothing_of_each_other() -> Result<()> {
    let mut scene = open("weft-isolation")?;
    let user = scene.project("demo")?;
    scene.network(&user, "net1", "192.0.2.0/24", "")?;
    scene.network(&user, "net2", "192.0.2.0/24", "")?;
    let one = scene.booted_guest(&user, "net1", "guest1")?;
    let two = scene.booted_guest(&user, "net2", "guest2")?;
    let_in(&mut scene, &user)?;
    let mut wire = Capture::open(&two.namespace, "eth0")?;
    assert_eq!(
        ping(&one.namespace, Ipv4Addr::new(192, 0, 2, 254).into(), 2)?.received,
        0
    );
    let source = weft_kit::frame::mac(&one.port.mac)?;
    let heard = wire.find(Duration::from_millis(500), |frame| {
        frame.get(6..12) == Some(&source)
    })?;
    assert_eq!(heard, None);
    close(scene)
}

/// Walks 1 to 3, when the external router's address moves to another MAC address: it says so to everybody on the wire, and guests there and
/// routers hear it at once; so do guests its router advertisements.
#[test]
fn a_router_on_the_wire_moves_its_address() -> Result<()> {
    const MOVED: &str = "02:00:00:00:00:77";
    let mut scene = open("weft-moved")?;
    let outside = scene.outside.clone();
    let user = scene.project("demo")?;
    let (v4, v6) = ("203.0.113", "fd00:203:0:113");
    provider_network(&mut scene, "net1", "provider --external", v4, v6, None)?;
    scene.network(&user, "inner", "192.0.2.0/24", "")?;
    scene.openstack(&user, "router create router1")?;
    scene.openstack(&user, "router add subnet router1 inner-v4")?;
    scene.openstack(&user, "router set --external-gateway net1 router1")?;
    let beside = scene.guest(&user, "net1", "guest1", "")?;
    beside.dhcp(&scene.lab)?;
    beside.configure(&format!("{}/64", beside.port.v6()?), None)?;
    let behind = scene.booted_guest(&user, "inner", "guest2")?;
    let routers = [IpAddr::V4(PHYSICAL_ROUTER), IpAddr::V6(PHYSICAL_ROUTER_V6)];
    for router in routers {
        scene.settle(&beside.namespace, router)?;
    }
    scene.settle(&behind.namespace, routers[0])?;

    let mut wire = Capture::open(&outside, "eth0")?;
    let mac = weft_kit::frame::mac(MOVED)?;
    let link_local = "fe80::ff:fe00:77".parse()?;
    wire.send(&weft_kit::frame::router_advertisement(mac, link_local))?;
    let route = || beside.namespace.run("ip -6 route show default");
    until("a default route by a router advertisement", TIMEOUT, || {
        Ok(route()?.contains("via fe80::ff:fe00:77").then_some(()))
    })?;
    outside.run(&format!("ip link set eth0 address {MOVED}"))?;
    let side = weft_kit::frame::ArpSide {
        mac,
        ip: PHYSICAL_ROUTER,
    };
    wire.send(&weft_kit::frame::arp(mac, 1, side, side))?;
    let v6 = PHYSICAL_ROUTER_V6;
    wire.send(&weft_kit::frame::neighbour_advertisement(mac, v6, v6))?;
    for router in routers {
        until("the guest to hear of it", Duration::from_secs(1), || {
            let line = format!("ip neighbour show {router} dev eth0");
            Ok(beside.namespace.run(&line)?.contains(MOVED).then_some(()))
        })?;
        let pinged = ping(&beside.namespace, router, 3)?;
        assert!(pinged.all(), "{router}: {pinged:?}");
    }
    until("the router to hear of it", Duration::from_secs(1), || {
        let status = scene.site.ask("status")?;
        let neighbours = status["neighbours"].as_array().cloned();
        let all = neighbours.unwrap_or_default();
        let moved = all.iter().any(|one| one["mac_address"] == MOVED);
        Ok(moved.then_some(()))
    })?;
    let pinged = ping(&behind.namespace, routers[0], 3)?;
    assert!(pinged.all(), "{pinged:?}");
    close(scene)
}
