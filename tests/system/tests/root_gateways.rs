//! Hosts that share an external network: SNAT from several at once, hosts without the network, floating IPs, and the loss of
//! the host that answers.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use weft_kit::Namespace;
use weft_kit::clock::until;
use weft_kit::ping::{ping, ping_with};
use weft_kit::tcp::{Server, connect, probe};
use weft_tests_system::gateways::{Cloud, ROUTER_V4, cut, loss, open, open_over};
use weft_tests_system::hosts::Underlay;
use weft_tests_system::scene::ANY;
use weft_tests_system::tunnelled::{Tunnelled, tunnelled};

const TIMEOUT: Duration = Duration::from_secs(10);

fn reach(from: &Namespace, to: SocketAddr, name: &str) -> Result<SocketAddr> {
    until("a server to be reached", TIMEOUT, || {
        let probed = probe(from, to)?;
        Ok(probed.is_from(name).then(|| probed.seen_as()).flatten())
    })
    .with_context(|| format!("{name} at {to}"))
}

/// SNAT from three hosts at once, one of them without the network: with the same source port, each by ports of its own; replies that
/// come to the host that answers, and errors; IPv6, both ways; and what travels between the hosts.
#[test]
fn three_hosts_share_a_gateways_address() -> Result<()> {
    share(open("weft-snat")?)
}

/// The same with tunnels over IPv6, and the external network in a VLAN.
#[test]
fn three_hosts_share_a_gateways_address_over_ipv6_in_a_vlan() -> Result<()> {
    share(open_over("weft-snat6", Underlay::V6, Some(107))?)
}

fn share(cloud: Cloud) -> Result<()> {
    let _server = Server::start(&cloud.outside, "outside", ANY, 80)?;
    let _inner: Vec<Server> = cloud
        .guests
        .iter()
        .map(|guest| Server::start(&guest.namespace, &guest.name, ANY, 22))
        .collect::<Result<_>>()?;
    let to = SocketAddr::new(ROUTER_V4, 80);
    let mut wire = cloud.hosts.capture(2)?;
    let mut open = Vec::new();
    let mut seen = Vec::new();
    for guest in &cloud.guests {
        let (probed, stream) = connect(&guest.namespace, to, Some(40_001))?;
        let as_seen = probed
            .seen_as()
            .with_context(|| format!("{}: {probed}", guest.name))?;
        assert_eq!(as_seen.ip(), cloud.gateway);
        seen.push(as_seen.port());
        open.push(stream.context("it answered")?);
    }
    let blocks: BTreeSet<u16> = seen.iter().map(|port| port / 8_192).collect();
    assert_eq!(blocks.len(), 3, "each by its own block: {seen:?}");
    // All stay open, and answer.
    for (stream, guest) in open.iter_mut().zip(&cloud.guests) {
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"x")?;
        let mut byte = [0];
        stream
            .read_exact(&mut byte)
            .with_context(|| guest.name.clone())?;
    }
    // What c sent went as it left the router, in a VNI that is not its network's; replies came by the same.
    let c = &cloud.guests[2];
    let packets = tunnelled(&mut wire, cloud.gateway, ROUTER_V4)?;
    let vnis: BTreeSet<u32> = packets.iter().map(|packet| packet.vni).collect();
    assert_eq!(vnis.len(), 1, "{packets:#?}");
    let own = tunnelled(&mut wire, c.port.v4()?.into(), ROUTER_V4)?;
    assert!(own.is_empty(), "nothing untranslated: {own:#?}");
    let elected = cloud.hosts.hosts[cloud.elected()?].tunnel_ip;
    let out: Vec<&Tunnelled> = packets
        .iter()
        .filter(|packet| packet.to == elected)
        .collect();
    assert!(!out.is_empty(), "{packets:#?}");
    for packet in out {
        assert_eq!(
            packet.macs(),
            (cloud.gateway_mac.clone(), "00:00:00:00:00:00".to_owned())
        );
    }
    // Errors: a closed UDP port outside is heard of by whoever asked.
    for guest in &cloud.guests {
        let socket = guest
            .namespace
            .udp(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 40_002)?;
        socket.connect(SocketAddr::new(ROUTER_V4, 9))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.send(b"x")?;
        let refused = socket.recv(&mut [0]).map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "{}", guest.name);
    }
    // IPv6 is routed plainly: out, and in by the destination.
    let router_v6: IpAddr = "fd00:203:0:113::1".parse()?;
    for guest in &cloud.guests {
        let own = IpAddr::V6(guest.port.v6()?);
        let seen = reach(&guest.namespace, SocketAddr::new(router_v6, 80), "outside")?;
        assert_eq!(seen.ip(), own);
        reach(&cloud.outside, SocketAddr::new(own, 22), &guest.name)?;
        assert!(ping(&cloud.outside, own, 3)?.all(), "{}", guest.name);
    }
    assert!(ping(&cloud.outside, cloud.gateway_v6, 3)?.all());
    drop(open);
    cloud.hosts.close()
}

/// Floating IPs of guests whose hosts have the network and have not: from outside, to outside, from one another.
#[test]
fn floating_ips_live_with_their_guests() -> Result<()> {
    live_with_their_guests(open("weft-fips")?)
}

/// The same with tunnels over IPv6, and the external network in a VLAN.
#[test]
fn floating_ips_live_with_their_guests_over_ipv6_in_a_vlan() -> Result<()> {
    live_with_their_guests(open_over("weft-fips6", Underlay::V6, Some(107))?)
}

fn live_with_their_guests(mut cloud: Cloud) -> Result<()> {
    let _server = Server::start(&cloud.outside, "outside", ANY, 80)?;
    let _inner: Vec<Server> = cloud
        .guests
        .iter()
        .map(|guest| Server::start(&guest.namespace, &guest.name, ANY, 22))
        .collect::<Result<_>>()?;
    let mut floating = BTreeMap::new();
    for name in ["b", "c"] {
        floating.insert(name, cloud.floating_ip(name)?);
    }
    for (name, address) in &floating {
        reach(&cloud.outside, SocketAddr::new(*address, 22), name)?;
        assert!(
            ping_with(&cloud.outside, *address, 3, "-W 1")?.all(),
            "{name}"
        );
        let guest = cloud.guests.iter().find(|guest| guest.name == *name);
        let guest = guest.context("a guest")?;
        let seen = reach(&guest.namespace, SocketAddr::new(ROUTER_V4, 80), "outside")?;
        assert_eq!(
            seen.ip(),
            *address,
            "{name} is seen outside by its floating IP"
        );
    }
    // From guests of every host, by SNAT or floating IP to floating IP: hairpin, and over hosts.
    for from in &cloud.guests {
        for (name, address) in &floating {
            let seen = reach(&from.namespace, SocketAddr::new(*address, 22), name)?;
            let expected = floating
                .get(from.name.as_str())
                .copied()
                .unwrap_or(cloud.gateway);
            assert_eq!(seen.ip(), expected, "{} to {name}", from.name);
        }
    }
    cloud.hosts.close()
}

/// The host that answers outside dies under connections by SNAT and by floating IP: none breaks, and none waits for a second.
/// Then it comes back, and an agent is restarted: nothing is noticed.
#[test]
fn a_gateway_host_dies_under_a_thousand_connections() -> Result<()> {
    let loss = loss("weft-gwloss", 500)?;
    println!("{loss:#?}");
    assert_eq!(loss.lost.broken, 0);
    assert!(loss.lost.gap_ms <= 1_000, "{loss:?}");
    assert_eq!(loss.restarted.broken, 0);
    assert!(loss.restarted.gap_ms <= 500, "{loss:?}");
    assert_eq!(loss.returned.broken, 0);
    assert!(loss.returned.gap_ms <= 1_000, "{loss:?}");
    Ok(())
}

/// It loses its link to the other hosts alone, while it still is on the external network: another one answers, and none breaks.
#[test]
fn a_gateway_host_is_cut_off_from_the_others() -> Result<()> {
    let cut = cut("weft-gwcut", 100)?;
    println!("{cut:#?}");
    assert_eq!(cut.lost.broken + cut.returned.broken, 0);
    assert!(cut.lost.gap_ms <= 1_000, "{cut:?}");
    assert!(cut.returned.gap_ms <= 1_000, "{cut:?}");
    Ok(())
}
