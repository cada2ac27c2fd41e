//! Both engines of one host: a vhost-user guest under QEMU speaks with the kernel engine's guests on its own host and on another one, and
//! with the outside, under policy on both sides, in both families.
//!
//! `make test-vm` runs this.

use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use weft_kit::clock::until;
use weft_kit::ping::ping;
use weft_kit::tcp::{Probed, Server, probe};
use weft_kit::{Guest as TapGuest, Namespace, PortFacts};
use weft_tests_system::hosts::{Hosts, Underlay, bulk};
use weft_tests_system::qemu::{Guest, Options};
use weft_tests_system::scene::ANY;

const TIMEOUT: Duration = Duration::from_secs(20);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The guest's echo server, which greets as ours do.
const ECHO: &str = "printf '#!/bin/sh\\necho vm sees 192.0.2.1:1\\nexec cat\\n' > /tmp/echo; chmod +x /tmp/echo; \
     (nc -ll -p 22 -e /tmp/echo < /dev/null > /dev/null 2>&1 &); (nc -ll -p 23 -e /tmp/echo < /dev/null > /dev/null 2>&1 &)";

/// A cloud of two networks behind one router with a gateway, and a group that lets ICMP and TCP/22 in.
fn open() -> Result<Hosts> {
    let mut hosts = Hosts::open_with_provider("weft-both", 2, Underlay::V4, &[1, 2])?;
    let options = "--provider-network-type vxlan --mtu 1450";
    hosts.network("blue", "192.0.2.0/24", "fd00:b::/64", options)?;
    hosts.network("green", "198.51.100.0/24", "fd00:6::/64", options)?;
    hosts.openstack(
        "network create --external --provider-physical-network provider --provider-network-type flat outside",
    )?;
    hosts.openstack(
        "subnet create --network outside --subnet-range 203.0.113.0/24 --gateway 203.0.113.1 \
         --allocation-pool start=203.0.113.11,end=203.0.113.250 --no-dhcp outside-v4",
    )?;
    hosts.openstack("router create r1")?;
    for subnet in ["blue-v4", "blue-v6", "green-v4", "green-v6"] {
        hosts.openstack(&format!("router add subnet r1 {subnet}"))?;
    }
    hosts.openstack("router set --external-gateway outside r1")?;
    hosts.openstack("security group create web")?;
    for rule in [
        "--protocol icmp",
        "--ethertype IPv6 --protocol ipv6-icmp",
        "--protocol tcp --dst-port 22",
        "--ethertype IPv6 --protocol tcp --dst-port 22",
    ] {
        hosts.openstack(&format!("security group rule create {rule} web"))?;
    }
    Ok(hosts)
}

/// From now on ports of the first host are vhost-user ports.
fn serve_vhost_user(hosts: &mut Hosts) -> Result<()> {
    let folder = hosts.lab.directory().to_owned();
    hosts.agent_kill(0)?;
    let setting = format!("vhost_user = {{ socket_folder = {folder:?} }}");
    hosts.hosts[0].site.agent_set(&setting)?;
    hosts.agent_start(0)
}

/// A guest under QEMU on a vhost-user port of the first host, with its addresses.
fn boot(hosts: &mut Hosts) -> Result<(Guest, PortFacts)> {
    let host = hosts.hosts[0].site.name.clone();
    let create = format!("port create --network blue --host {host} --security-group web vm");
    // Until control has heard where the host has its sockets, its ports get taps.
    let mut created = hosts.openstack(&create)?;
    until("the port to be a vhost-user one", TIMEOUT, || {
        if created["binding:vif_type"] == "vhostuser" {
            return Ok(Some(()));
        }
        hosts.openstack("port delete vm")?;
        created = hosts.openstack(&create)?;
        Ok(None)
    })?;
    let facts = PortFacts::from_json(&created)?;
    let show = format!("port show {}", facts.id);
    let mut port = created;
    let active = until("the port to turn ACTIVE", TIMEOUT, || {
        port = hosts.openstack(&show)?;
        Ok((port["status"] == "ACTIVE").then_some(()))
    });
    active.with_context(|| format!("{port}: {}", hosts.hosts[0].site.log_end()))?;
    let socket = port["binding:vif_details"]["vhostuser_socket"]
        .as_str()
        .with_context(|| format!("no vhost-user port: {port}"))?;
    let mut guest = Guest::boot(&Options::new(&facts.mac, &PathBuf::from(socket)))?;
    guest.dhcp(&facts.v4()?.to_string())?;
    let v6 = facts.v6()?;
    guest.run(&format!(
        "for try in 1 2 3 4 5 6 7 8 9 10; do ip -6 address show dev eth0 | grep -q 'inet6 {v6}/.*global' && break; \
         sleep 1; done; ip -6 address show dev eth0 | grep '{v6}'"
    ))?;
    guest.run(ECHO)?;
    Ok((guest, facts))
}

/// TCP from the guest under QEMU: what a server of ours says.
fn ask(guest: &mut Guest, to: IpAddr, port: u16) -> Result<String> {
    let (lines, _) = guest.tried(&format!("nc -w 3 {to} {port} < /dev/null"))?;
    Ok(lines.join(" "))
}

fn addresses(facts: &PortFacts) -> Result<[IpAddr; 2]> {
    Ok([facts.v4()?.into(), facts.v6()?.into()])
}

/// Everything between the guest under QEMU and one of the kernel engine's.
fn meet(vm: &mut Guest, own: &PortFacts, tap: &TapGuest) -> Result<()> {
    let _servers = [22, 23].map(|port| Server::start(&tap.namespace, &tap.name, ANY, port));
    for (own, other) in addresses(own)?.into_iter().zip(addresses(&tap.port)?) {
        vm.ping(&other.to_string())?;
        let pinged = ping(&tap.namespace, own, 3)?;
        ensure!(pinged.all(), "{own}: {pinged:?}");
        let greeting = ask(vm, other, 22)?;
        let expected = format!("{} sees {own}", tap.name);
        let bracketed = format!("{} sees [{own}]", tap.name);
        ensure!(
            greeting.contains(&expected) || greeting.contains(&bracketed),
            "{other}: {greeting:?}"
        );
        let denied = ask(vm, other, 23)?;
        ensure!(!denied.contains("sees"), "{other} port 23: {denied:?}");
        let there = |port| SocketAddr::new(own, port);
        ensure!(probe(&tap.namespace, there(22))?.is_from("vm"), "{own}");
        let denied = probe(&tap.namespace, there(23))?;
        ensure!(denied == Probed::Silent, "{own} port 23: {denied:?}");
        bulk(&tap.namespace, there(22), 500_000).with_context(|| own.to_string())?;
    }
    Ok(())
}

/// SNAT, then a floating IP.
fn go_outside(
    hosts: &mut Hosts,
    vm: &mut Guest,
    facts: &PortFacts,
    outside: &Namespace,
) -> Result<()> {
    let server = Server::start(outside, "outside", ANY, 22)?;
    let own = facts.v4()?;
    let from = |seen: &str, address: &str| seen.contains(&format!("outside sees {address}:"));
    vm.ping(&GATEWAY.to_string())?;
    let router = hosts.openstack("router show r1")?;
    let gateway = router["external_gateway_info"]["external_fixed_ips"][0]["ip_address"]
        .as_str()
        .with_context(|| router.to_string())?;
    let seen = ask(vm, GATEWAY.into(), 22)?;
    ensure!(from(&seen, gateway), "SNAT by {gateway}: {seen:?}");
    let floating = hosts.openstack(&format!("floating ip create --port {} outside", facts.id))?;
    let address = floating["floating_ip_address"]
        .as_str()
        .with_context(|| floating.to_string())?;
    let address: Ipv4Addr = address.parse()?;
    until("the floating IP", TIMEOUT, || {
        Ok(ping(outside, address.into(), 1)?.all().then_some(()))
    })?;
    let seen = ask(vm, GATEWAY.into(), 22)?;
    ensure!(
        from(&seen, &address.to_string()),
        "floating IP {address} of {own}: {seen:?}"
    );
    let there = |port| SocketAddr::new(address.into(), port);
    ensure!(probe(outside, there(22))?.is_from("vm"), "by {address}");
    ensure!(probe(outside, there(23))? == Probed::Silent, "by {address}");
    bulk(outside, there(22), 500_000)?;
    ensure!(server.clients().len() >= 2, "{:?}", server.clients());
    Ok(())
}

/// A VLAN device in the guest is a port of another network, with an address by DHCP and one by SLAAC.
fn subport(hosts: &mut Hosts, vm: &mut Guest) -> Result<PortFacts> {
    let port = hosts.openstack("port create --network green --security-group web sub")?;
    let facts = PortFacts::from_json(&port)?;
    hosts.openstack(
        "network trunk create --parent-port vm \
         --subport port=sub,segmentation-type=vlan,segmentation-id=101 trunk1",
    )?;
    until("the trunk to be ACTIVE", TIMEOUT, || {
        let trunk = hosts.openstack("network trunk show trunk1")?;
        Ok((trunk["status"] == "ACTIVE").then_some(()))
    })?;
    vm.run("ip link add link eth0 name eth0.101 type vlan id 101")?;
    vm.run(&format!("ip link set eth0.101 address {}", facts.mac))?;
    vm.run("ip link set eth0.101 up")?;
    vm.run("udhcpc -i eth0.101 -n -q -t 10 -T 1 -s /bin/dhcp-bound")?;
    for address in addresses(&facts)? {
        vm.run(&format!(
            "for try in 1 2 3 4 5 6 7 8 9 10; do ip address show dev eth0.101 | grep -q 'inet.* {address}/' && break; \
             sleep 1; done; ip address show dev eth0.101 | grep '{address}/'"
        ))?;
    }
    Ok(facts)
}

#[test]
fn a_vlan_of_a_vhost_user_guest_is_a_port_of_its_network() -> Result<()> {
    let mut hosts = open()?;
    let near = hosts.guest(0, "green", "near", "--security-group web")?;
    let far = hosts.guest(1, "green", "far", "--security-group web")?;
    let beside = hosts.guest(1, "blue", "beside", "--security-group web")?;
    serve_vhost_user(&mut hosts)?;
    let (mut vm, facts) = boot(&mut hosts)?;
    let sub = subport(&mut hosts, &mut vm).with_context(|| hosts.hosts[0].site.log_end())?;
    // Tagged, on its network itself; and untagged, as before.
    for (own, tap) in [(&sub, &near), (&sub, &far), (&facts, &beside)] {
        meet(&mut vm, own, tap)
            .with_context(|| format!("{}: {}", tap.name, hosts.hosts[0].site.log_end()))?;
    }
    hosts.openstack("port set --no-security-group sub")?;
    let closed = SocketAddr::new(sub.v4()?.into(), 22);
    until("the subport to be closed", TIMEOUT, || {
        Ok((probe(&near.namespace, closed)? == Probed::Silent).then_some(()))
    })?;
    drop(vm);
    hosts.close()
}

#[test]
fn a_vhost_user_guest_reaches_everybody_whom_a_tap_guest_reaches() -> Result<()> {
    let mut hosts = open()?;
    let outside = hosts.outside("outside")?;
    outside.run("ip address add 203.0.113.1/24 dev eth0")?;
    let same = hosts.guest(0, "blue", "same", "--security-group web")?;
    let routed = hosts.guest(0, "green", "routed", "--security-group web")?;
    let far = hosts.guest(1, "blue", "far", "--security-group web")?;
    let beyond = hosts.guest(1, "green", "beyond", "--security-group web")?;
    serve_vhost_user(&mut hosts)?;
    let (mut vm, facts) = boot(&mut hosts)?;
    for tap in [&same, &routed, &far, &beyond] {
        meet(&mut vm, &facts, tap)
            .with_context(|| format!("{}: {}", tap.name, hosts.hosts[0].site.log_end()))?;
    }
    go_outside(&mut hosts, &mut vm, &facts, &outside)
        .with_context(|| hosts.hosts[0].site.log_end())?;
    drop(vm);
    for guest in [same, routed, far, beyond] {
        drop(guest);
    }
    hosts.close()
}
