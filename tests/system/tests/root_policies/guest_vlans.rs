//! VLAN-transparent networks: guests tag their own frames.

use crate::counted::{PORT, about, flood, policy};
use crate::{Engine, TIMEOUT, both, dropped, group, id, open, pings, settle};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use weft_kit::Guest;
use weft_kit::clock::until;
use weft_kit::tcp::{Server, probe};
use weft_kit::trunk::Trunk;
use weft_tests_system::hosts::Hosts;
use weft_tests_system::scene::ANY;

/// VLANs of the guests' own; both use the same addresses.
const VLANS: [u16; 2] = [7, 8];
/// Of a limited port.
const LIMIT_KBPS: u32 = 3_000;
/// Of all guests, within each VLAN.
const RANGES: [&str; 2] = ["10.7.0.0/24", "fd07::/64"];

/// A guest, and the legs of its tags.
struct Tagging {
    guest: Guest,
    number: u16,
    _trunk: Trunk,
}

impl Tagging {
    /// A guest that has a leg for each VLAN, with the port's MAC address and, within the first, addresses of its own.
    fn plug(
        hosts: &mut Hosts,
        engine: Engine,
        host: usize,
        network: &str,
        number: u16,
    ) -> Result<Self> {
        let name = format!("{network}{number}");
        let guest = hosts.plug(host, network, &name, "--security-group web")?;
        guest.dhcp(&hosts.lab)?;
        guest.configure(&format!("{}/64", guest.port.v6()?), None)?;
        let pairs: Vec<_> = RANGES
            .iter()
            .map(|range| json!({ "ip_address": range }))
            .collect();
        let path = format!("/v2.0/ports/{}", guest.port.id);
        hosts.put(&path, "port", &json!({ "allowed_address_pairs": pairs }))?;
        let split = match engine {
            Engine::Kernel => Trunk::split,
            Engine::User => Trunk::split_covered,
        };
        let trunk = split(&guest.namespace, "eth0", &VLANS)?;
        for vlan in VLANS {
            let mac = &guest.port.mac;
            guest
                .namespace
                .run(&format!("ip link set vlan{vlan} address {mac}"))?;
        }
        let made = Self {
            guest,
            number,
            _trunk: trunk,
        };
        made.enter(VLANS[0])?;
        Ok(made)
    }

    /// Takes its addresses to a VLAN, from the other one.
    fn enter(&self, vlan: u16) -> Result<()> {
        for other in VLANS.iter().filter(|other| **other != vlan) {
            let flush = format!("ip address flush dev vlan{other}");
            self.guest.namespace.run(&flush)?;
        }
        for address in self.addresses()? {
            let bits = if address.is_ipv6() { 64 } else { 24 };
            let nodad = if address.is_ipv6() { "nodad" } else { "" };
            self.guest.namespace.run(&format!(
                "ip address replace {address}/{bits} dev vlan{vlan} {nodad}"
            ))?;
        }
        Ok(())
    }

    fn addresses(&self) -> Result<[IpAddr; 2]> {
        let v4 = format!("10.7.0.{}", self.number);
        let v6 = format!("fd07::{}", self.number);
        Ok([v4.parse()?, v6.parse()?])
    }
}

/// Two guests on one host and one on the other find each other within a VLAN, by ARP and ND of their own, and their rules hold there;
/// who is in another VLAN does not hear them.
fn meet(hosts: &mut Hosts, engine: Engine, network: &str) -> Result<()> {
    let places = [(0, 1), (0, 2), (1, 3)];
    let guests: Result<Vec<Tagging>> = places
        .iter()
        .map(|(host, number)| Tagging::plug(hosts, engine, *host, network, *number))
        .collect();
    let guests = guests?;
    let [a, b, c] = &guests[..] else {
        anyhow::bail!("three were made")
    };
    for (from, to) in [(a, b), (b, a), (a, c), (c, b)] {
        for address in to.addresses()? {
            settle(&from.guest.namespace, address)
                .with_context(|| format!("{} to {} in its VLAN", from.number, to.number))?;
        }
        for address in both(&to.guest)? {
            pings(&from.guest.namespace, address, true)?;
        }
    }
    for to in [b, c] {
        let _served = Server::start(&to.guest.namespace, "served", ANY, 22)?;
        let _refused = Server::start(&to.guest.namespace, "refused", ANY, 23)?;
        for address in to.addresses()? {
            let from = &a.guest.namespace;
            until("a server within the VLAN", TIMEOUT, || {
                let probed = probe(from, SocketAddr::new(address, 22))?;
                Ok(probed.is_from("served").then_some(()))
            })?;
            let lost = dropped(hosts, "security_group_ingress_denied", |_| {
                let probed = probe(from, SocketAddr::new(address, 23))?;
                ensure!(!probed.is_from("refused"), "{address} answers: {probed:?}");
                Ok(())
            })?;
            ensure!(lost > 0, "{address}: nothing was dropped");
        }
    }
    limited(hosts, a, b)?;
    // In the other VLAN, with the addresses that it had.
    b.enter(VLANS[1])?;
    c.enter(VLANS[1])?;
    for to in [b, c] {
        for address in to.addresses()? {
            pings(&a.guest.namespace, address, false)?;
        }
    }
    for address in c.addresses()? {
        settle(&b.guest.namespace, address)?;
    }
    Ok(())
}

/// A port's QoS policy limits what comes with a tag, too.
fn limited(hosts: &mut Hosts, from: &Tagging, to: &Tagging) -> Result<()> {
    let policy = policy(hosts, "tagged", &[("ingress", LIMIT_KBPS.into())])?;
    let path = format!("/v2.0/ports/{}", to.guest.port.id);
    hosts.put(&path, "port", &json!({ "qos_policy_id": policy }))?;
    for address in to.addresses()? {
        let any: IpAddr = if address.is_ipv6() { "::" } else { "0.0.0.0" }.parse()?;
        let sender = from.guest.namespace.udp(any, PORT)?;
        let taker = to.guest.namespace.udp(any, PORT)?;
        let refused = dropped(hosts, "qos_rate_limit", |_| {
            let [kbps, _] = flood(&sender, (address, PORT).into(), &taker)?;
            about("within a VLAN", kbps, LIMIT_KBPS.into())
        })?;
        ensure!(refused > 100, "{address}: {refused} dropped");
    }
    hosts.put(&path, "port", &json!({ "qos_policy_id": null }))?;
    Ok(())
}

fn tags_come_out(name: &str, engine: Engine) -> Result<()> {
    let (mut hosts, outside) = open(name, engine)?;
    group(
        &mut hosts,
        "web",
        &["icmp", "tcp:22", &format!("udp:{PORT}")],
    )?;
    let vlan =
        "--provider-network-type vlan --provider-physical-network provider --provider-segment 101";
    for (network, third, options) in [("over", 2, ""), ("wire", 3, vlan)] {
        let (v4, v6) = (format!("192.0.{third}.0/24"), format!("fd00:{third}::/64"));
        let options = format!("--transparent-vlan {options}");
        let made = hosts.network(network, &v4, &v6, &options)?;
        ensure!(made["vlan_transparent"] == true, "{}: {made}", id(&made)?);
        meet(&mut hosts, engine, network).with_context(|| network.to_owned())?;
    }
    drop(outside);
    hosts.close()
}

#[test]
fn guests_tags_come_out_at_the_others() -> Result<()> {
    tags_come_out("weft-gvlan", Engine::Kernel)
}

#[test]
fn vhost_user_guests_tags_come_out_at_the_others() -> Result<()> {
    tags_come_out("weft-gvlanu", Engine::User)
}
