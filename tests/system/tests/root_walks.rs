//! Packet walks of the Neutron administration guide that fit one host, on real packets. What the story shows already
//! (SNAT, floating IP, one network, two networks) is looked at here from the sides that it leaves out.

use anyhow::{Context, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use weft_kit::capture::Capture;
use weft_kit::clock::until;
use weft_kit::ping::{ping, ping_text};
use weft_kit::tcp::{Probed, Server, probe};
use weft_kit::{Cloud, Guest, WeftOptions};
use weft_tests_system::scene::{ANY, INTERNET, PHYSICAL_ROUTER, PHYSICAL_ROUTER_V6, Scene};

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

/// Walk 1: a guest on a flat provider network, no router of Weft between it and the physical one.
#[test]
fn provider_network_north_south() -> Result<()> {
    let mut scene = open("weft-walk1")?;
    let (admin, outside) = (scene.admin.clone(), scene.outside.clone());
    let user = scene.project("demo")?;
    provider_network(
        &mut scene,
        "net1",
        "provider",
        "203.0.113",
        "fd00:203:0:113",
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
    close(scene)
}

/// A shared flat provider network with DHCP, routed by the physical router's addresses .1 and ::1.
fn provider_network(
    scene: &mut Scene,
    name: &str,
    physical: &str,
    v4: &str,
    v6: &str,
) -> Result<()> {
    let admin = scene.admin.clone();
    scene.openstack(
        &admin,
        &format!(
            "network create --share --provider-physical-network {physical} --provider-network-type flat {name}"
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

/// Walk 3: two provider networks on one host; what goes between them goes by the physical router.
#[test]
fn provider_networks_east_west_by_the_physical_router() -> Result<()> {
    let mut options = WeftOptions::new(None)?;
    options
        .physical_networks
        .push(("provider2".to_owned(), "uplink1".to_owned()));
    let mut scene = Scene::open("weft-walk3", &options)?;
    let outside = scene.outside.clone();
    outside.run("ip address add 192.0.2.1/24 dev eth1")?;
    outside.sysctl("ipv4/ip_forward", "1")?;
    let user = scene.project("demo")?;
    provider_network(
        &mut scene,
        "net1",
        "provider",
        "203.0.113",
        "fd00:203:0:113",
    )?;
    provider_network(&mut scene, "net2", "provider2", "192.0.2", "fd00:192:0:2")?;
    let one = scene.guest(&user, "net1", "guest1", "")?;
    let two = scene.guest(&user, "net2", "guest2", "")?;
    one.dhcp(&scene.lab)?;
    // The other stock client, which is given its default route here by hand: see `Guest::dhclient`.
    let lease = two.dhclient(&scene.lab)?;
    assert!(lease.contains("option routers 192.0.2.1"), "{lease}");
    two.namespace.run("ip route add default via 192.0.2.1")?;
    let _server = Server::start(&two.namespace, "guest2", ANY, 22)?;
    let to = IpAddr::V4(two.port.v4()?);
    let mut wire = Capture::open(&outside, "eth1")?;
    let pinged = ping(&one.namespace, to, 3)?;
    assert!(pinged.all() && pinged.ttl == Some(63), "{pinged:?}");
    let source = one.port.v4()?.octets();
    let seen = wire.find(TIMEOUT, |frame| frame.get(26..30) == Some(&source))?;
    assert!(seen.is_some(), "the packets pass the physical router");
    let probed = probe(&one.namespace, SocketAddr::new(to, 22))?;
    assert_eq!(
        probed.seen_as().map(|seen| seen.ip()),
        Some(one.port.v4()?.into()),
        "{probed}"
    );
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
