//! Addresses that move between guests, as VRRP's masters move them: by a gratuitous ARP or an unsolicited neighbour
//! advertisement for an address of an allowed address pair.

use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use weft_kit::capture::Capture;
use weft_kit::clock::until;
use weft_kit::frame::{self, ArpSide};
use weft_kit::tcp::{Server, probe};
use weft_kit::{Guest, Namespace, WeftOptions};
use weft_tests_system::hosts::{Hosts, Underlay};
use weft_tests_system::scene::{ANY, Scene};

const TIMEOUT: Duration = Duration::from_secs(10);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const VIP_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x192, 0, 2, 0, 0, 0, 0x100);
const PAIRS: &str =
    "--allowed-address ip-address=192.0.2.100 --allowed-address ip-address=fd00:192:0:2::100";

/// Gives a guest the addresses, and lets it say so.
fn claim(guest: &Guest, v6: bool) -> Result<()> {
    guest
        .namespace
        .run(&format!("ip address replace {VIP}/32 dev eth0"))?;
    let mac = frame::mac(&guest.port.mac)?;
    let own = ArpSide { mac, ip: VIP };
    let mut sender = Capture::open(&guest.namespace, "eth0")?;
    sender.send(&frame::arp(
        mac,
        1,
        own,
        ArpSide {
            mac: [0; 6],
            ip: VIP,
        },
    ))?;
    if v6 {
        guest
            .namespace
            .run(&format!("ip address replace {VIP_V6}/128 dev eth0 nodad"))?;
        sender.send(&frame::neighbour_advertisement(mac, VIP_V6, VIP_V6))?;
    }
    Ok(())
}

fn give_up(guest: &Guest, v6: bool) -> Result<()> {
    guest
        .namespace
        .run(&format!("ip address delete {VIP}/32 dev eth0"))?;
    if v6 {
        guest
            .namespace
            .run(&format!("ip address delete {VIP_V6}/128 dev eth0"))?;
    }
    Ok(())
}

/// A server of this name is what an address leads to, at the latest when the caches were told.
fn leads_to(from: &Namespace, to: IpAddr, name: &str) -> Result<()> {
    until(&format!("{to} to lead to {name}"), TIMEOUT, || {
        let probed = probe(from, SocketAddr::new(to, 22))?;
        Ok(probed.is_from(name).then_some(()))
    })
}

/// Two guests on two hosts move an address of each family to and fro, and guests on both hosts, which have its old MAC address
/// in their caches, follow at once.
#[test]
fn an_address_moves_between_guests_of_two_hosts() -> Result<()> {
    moves("weft-claim", false)
}

#[test]
fn an_address_moves_between_vhost_user_guests_of_two_hosts() -> Result<()> {
    moves("weft-claimu", true)
}

fn moves(name: &str, vhost_user: bool) -> Result<()> {
    let options = WeftOptions {
        vhost_user,
        ..WeftOptions::new(None)?
    };
    let mut hosts = Hosts::open_with_options(name, 2, Underlay::V4, &[], options)?;
    hosts.network("net1", "192.0.2.0/24", "fd00:192:0:2::/64", "")?;
    hosts.openstack("security group create web")?;
    for rule in ["--protocol tcp", "--ethertype IPv6 --protocol tcp"] {
        hosts.openstack(&format!(
            "security group rule create {rule} --dst-port 22 web"
        ))?;
    }
    let mut guests = Vec::new();
    for (host, name, pairs) in [(0, "a", PAIRS), (1, "b", PAIRS), (0, "c", ""), (1, "d", "")] {
        let options = format!("--security-group web {pairs}");
        let guest = hosts.plug(host, "net1", name, &options)?;
        guest.dhcp(&hosts.lab)?;
        guest.configure(&format!("{}/64", guest.port.v6()?), None)?;
        guests.push(guest);
    }
    let [a, b, c, d] = &guests[..] else {
        anyhow::bail!("four were made")
    };
    let _servers = [
        Server::start(&a.namespace, "a", ANY, 22)?,
        Server::start(&b.namespace, "b", ANY, 22)?,
    ];
    for (master, backup) in [(a, None), (b, Some(a)), (a, Some(b))] {
        if let Some(backup) = backup {
            give_up(backup, true)?;
        }
        claim(master, true)?;
        for client in [c, d] {
            for to in [IpAddr::V4(VIP), IpAddr::V6(VIP_V6)] {
                leads_to(&client.namespace, to, &master.name)?;
            }
        }
    }
    hosts.close()
}

/// A floating IP of a port that is on no host, and is kept for an address, leads to whoever has the address.
#[test]
fn a_floating_ip_follows_who_has_the_address() -> Result<()> {
    let mut scene = Scene::open("weft-claimfip", &WeftOptions::new(None)?)?;
    let cloud = scene.project("acme")?;
    scene.external_network()?;
    scene.network(&cloud, "net1", "192.0.2.0/24", "")?;
    for line in [
        "router create router1",
        "router set --external-gateway provider1 router1",
        "router add subnet router1 net1-v4",
        "security group rule create --protocol tcp --dst-port 22 default",
        "port create --network net1 --fixed-ip ip-address=192.0.2.100 vip",
    ] {
        scene.openstack(&cloud, line)?;
    }
    let mut guests = Vec::new();
    for name in ["guest1", "guest2"] {
        let pair = "--allowed-address ip-address=192.0.2.100";
        let guest = scene.guest(&cloud, "net1", name, pair)?;
        guest.dhcp(&scene.lab)?;
        guests.push(guest);
    }
    let floating = scene.openstack(&cloud, "floating ip create --port vip provider1")?;
    let address = floating["floating_ip_address"].as_str().unwrap_or_default();
    let address: IpAddr = address.parse()?;
    let [first, second] = &guests[..] else {
        anyhow::bail!("two were made")
    };
    let _servers = [
        Server::start(&first.namespace, "guest1", ANY, 22)?,
        Server::start(&second.namespace, "guest2", ANY, 22)?,
    ];
    claim(first, false)?;
    leads_to(&scene.outside, address, "guest1")?;
    give_up(first, false)?;
    claim(second, false)?;
    leads_to(&scene.outside, address, "guest2")?;
    let report = scene.close()?;
    assert_eq!(report.failures(), Vec::<String>::new());
    Ok(())
}
