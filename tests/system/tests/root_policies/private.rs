//! Private VLANs.

use crate::{Engine, dropped, external, floating_ip, gateway, group, id, open, pings, settle};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::net::IpAddr;
use weft_kit::Guest;
use weft_tests_system::hosts::Hosts;

/// Who has which role, on which host.
const ROLES: &[(&str, &str, usize)] = &[
    ("alone1", "isolated", 0),
    ("alone2", "isolated", 1),
    ("red1", "red", 0),
    ("red2", "red", 1),
    ("blue", "blue", 1),
    ("open", "promiscuous", 0),
];

fn reaches(a: &str, b: &str) -> bool {
    let open = |role| role == "promiscuous";
    open(a) || open(b) || (a == b && a != "isolated")
}

fn role_give(hosts: &mut Hosts, guest: &Guest, role: &str) -> Result<()> {
    let port = match role {
        "isolated" | "promiscuous" => json!({ "pvlan_type": role, "pvlan_community": null }),
        community => json!({ "pvlan_type": "community", "pvlan_community": community }),
    };
    let path = format!("/v2.0/ports/{}", guest.port.id);
    hosts.put(&path, "port", &port).map(drop)
}

/// Everybody to everybody, on one host and over two, in both families.
fn everybody(hosts: &mut Hosts, guests: &[Guest]) -> Result<()> {
    for (from, (name, own, _)) in guests.iter().zip(ROLES) {
        let others = guests
            .iter()
            .zip(ROLES)
            .filter(|(_, (other, ..))| name != other);
        let ways: Vec<(IpAddr, bool)> = others
            .flat_map(|(to, (_, role, _))| {
                let addresses = to.port.addresses.iter();
                addresses.map(|address| (*address, reaches(own, role)))
            })
            .collect();
        let refused = ways.iter().filter(|(_, may)| !may).count();
        // All at once.
        let lost = dropped(hosts, "pvlan_isolated", |_| {
            std::thread::scope(|scope| {
                let pinging = ways
                    .iter()
                    .map(|(to, may)| scope.spawn(|| pings(&from.namespace, *to, *may)));
                let pinging: Vec<_> = pinging.collect();
                pinging.into_iter().try_for_each(|one| {
                    one.join()
                        .map_err(|_panic| anyhow::anyhow!("it panicked"))?
                })
            })
        })
        .with_context(|| (*name).to_owned())?;
        ensure!(
            lost == u64::try_from(refused)?,
            "{name}: {lost} dropped, not {refused}"
        );
    }
    Ok(())
}

fn kept_apart(name: &str, engine: Engine) -> Result<()> {
    let (mut hosts, outside) = open(name, engine)?;
    hosts.network("net", "192.0.2.0/24", "fd00:2::/64", "")?;
    let network = id(&hosts.openstack("network show net")?)?;
    let pvlan: Value = json!({ "pvlan": true });
    hosts.put(&format!("/v2.0/networks/{network}"), "network", &pvlan)?;
    external(&mut hosts, [None, None])?;
    for subnet in ["net-v4", "net-v6"] {
        hosts.openstack(&format!("router add subnet r1 {subnet}"))?;
    }
    group(&mut hosts, "web", &["icmp"])?;
    let mut guests = Vec::new();
    for (name, role, host) in ROLES {
        let guest = hosts.plug(*host, "net", name, "--security-group web")?;
        guest.dhcp(&hosts.lab)?;
        guest.configure(&format!("{}/64", guest.port.v6()?), None)?;
        role_give(&mut hosts, &guest, role)?;
        guests.push(guest);
    }
    everybody(&mut hosts, &guests)?;

    // Routers lead outside, and floating IPs in; but not around what keeps ports apart.
    let [alone, _, red, red2, ..] = &guests[..] else {
        anyhow::bail!("six were made")
    };
    let (_, floating) = floating_ip(&mut hosts, alone)?;
    settle(&outside, floating)?;
    let gateway = gateway(&mut hosts)?[0];
    settle(&red.namespace, gateway)?;
    let lost = dropped(&mut hosts, "pvlan_isolated", |_| {
        pings(&red.namespace, floating, false)
    })?;
    ensure!(lost == 1, "by {floating}: {lost} dropped");
    let router: IpAddr = "192.0.2.1".parse()?;
    let to = red2.port.v4()?;
    let around = format!("ip route add {to}/32 via {router}");
    alone.namespace.run(&around)?;
    let lost = dropped(&mut hosts, "pvlan_isolated", |_| {
        pings(&alone.namespace, to.into(), false)
    })?;
    ensure!(lost == 1, "by the router: {lost} dropped");

    // Roles change under sessions that are there.
    role_give(&mut hosts, alone, "red")?;
    pings(&alone.namespace, red.port.v4()?.into(), true)?;
    role_give(&mut hosts, alone, "isolated")?;
    pings(&alone.namespace, red.port.v4()?.into(), false)?;
    hosts.close()
}

#[test]
fn private_vlans_keep_guests_apart() -> Result<()> {
    kept_apart("weft-pvlan", Engine::Kernel)
}

#[test]
fn private_vlans_keep_vhost_user_guests_apart() -> Result<()> {
    kept_apart("weft-pvlanu", Engine::User)
}
