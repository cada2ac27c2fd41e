//! Address scopes and NDP proxies.

use crate::{
    Engine, OUTSIDE, both, dropped, external, floating_ip, gateway, group, id, open, pings, sees,
    settle,
};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use weft_kit::tcp::Server;
use weft_tests_system::hosts::Hosts;
use weft_tests_system::scene::ANY;

/// A pool of each family in a scope of its own.
fn pools(hosts: &mut Hosts, name: &str, prefixes: [&[&str]; 2]) -> Result<[Value; 2]> {
    let mut made = Vec::new();
    for (version, prefixes) in [4, 6].into_iter().zip(prefixes) {
        let scope = json!({ "name": format!("{name}{version}"), "ip_version": version });
        let scope = hosts.post("/v2.0/address-scopes", "address_scope", &scope)?;
        let pool = json!({
            "name": format!("{name}{version}"), "prefixes": prefixes, "address_scope_id": scope["id"],
            "default_prefixlen": if version == 4 { 24 } else { 64 },
        });
        made.push(hosts.post("/v2.0/subnetpools", "subnetpool", &pool)?);
    }
    let [four, six] = <[Value; 2]>::try_from(made).map_err(|made| anyhow::anyhow!("{made:?}"))?;
    Ok([four, six])
}

/// A network of these pools behind `r1`.
fn network(hosts: &mut Hosts, name: &str, pools: &[Value; 2], ranges: [&str; 2]) -> Result<()> {
    let network = hosts.openstack(&format!("network create {name}"))?;
    for (version, (pool, range)) in [4, 6].into_iter().zip(pools.iter().zip(ranges)) {
        let mut subnet = json!({
            "name": format!("{name}-v{version}"), "network_id": network["id"], "ip_version": version,
            "cidr": range, "subnetpool_id": pool["id"],
        });
        if version == 6 {
            subnet["ipv6_ra_mode"] = json!("slaac");
            subnet["ipv6_address_mode"] = json!("slaac");
        }
        hosts.post("/v2.0/subnets", "subnet", &subnet)?;
        hosts.openstack(&format!("router add subnet r1 {name}-v{version}"))?;
    }
    Ok(())
}

/// Two scopes: `red` and `pink` of the external network's, `blue` of another.
fn scopes_and_proxies(name: &str, engine: Engine) -> Result<()> {
    let (mut hosts, outside) = open(name, engine)?;
    let ours = pools(
        &mut hosts,
        "ours",
        [&["10.1.0.0/16", "203.0.113.0/24"], &["fd01::/48"]],
    )?;
    let other = pools(&mut hosts, "other", [&["10.2.0.0/16"], &["fd02::/48"]])?;
    external(&mut hosts, [Some(&ours[0]), Some(&ours[1])])?;
    network(&mut hosts, "red", &ours, ["10.1.0.0/24", "fd01::/64"])?;
    network(
        &mut hosts,
        "pink",
        &ours,
        ["10.1.1.0/24", "fd01:0:0:1::/64"],
    )?;
    network(&mut hosts, "blue", &other, ["10.2.0.0/24", "fd02::/64"])?;
    group(&mut hosts, "web", &["icmp", "tcp:22"])?;
    let web = "--security-group web";
    let red = hosts.guest(0, "red", "red", web)?;
    let pink = hosts.guest(1, "pink", "pink", web)?;
    let blue = hosts.guest(1, "blue", "blue", web)?;
    let [gateway, gateway_v6] = gateway(&mut hosts)?;
    let _servers = [
        Server::start(&outside, "outside", ANY, 22)?,
        Server::start(&red.namespace, "red", ANY, 22)?,
        Server::start(&blue.namespace, "blue", ANY, 22)?,
    ];
    for route in ["10.1.0.0/16", "10.2.0.0/16"] {
        outside.run(&format!("ip route add {route} via {gateway}"))?;
    }
    for route in ["fd01::/64", "fd01:0:0:1::/64", "fd02::/64"] {
        outside.run(&format!("ip -6 route add {route} via {gateway_v6}"))?;
    }
    for guest in [&red, &pink, &blue] {
        settle(&guest.namespace, OUTSIDE[0].parse()?)?;
    }

    // Between networks: of one scope there is a way, of two there is none.
    for (to, other) in both(&pink)?.into_iter().zip(both(&blue)?) {
        pings(&red.namespace, to, true)?;
        let lost = dropped(&mut hosts, "address_scope_mismatch", |_| {
            pings(&red.namespace, other, false)
        })?;
        ensure!(lost == 1, "to {other}: {lost} dropped");
    }
    for to in both(&red)? {
        let lost = dropped(&mut hosts, "address_scope_mismatch", |_| {
            pings(&blue.namespace, to, false)
        })?;
        ensure!(lost == 1, "from blue to {to}: {lost} dropped");
    }

    // Outside: of one scope as they are, both ways; of two by NAT in IPv4, and not at all in IPv6.
    let at = |text: &str| -> Result<SocketAddr> { Ok(SocketAddr::new(text.parse()?, 22)) };
    for (own, to) in both(&red)?.into_iter().zip(OUTSIDE) {
        ensure!(sees(&red.namespace, at(to)?, "outside")? == own, "{own}");
        sees(&outside, SocketAddr::new(own, 22), "red")?;
    }
    ensure!(sees(&blue.namespace, at(OUTSIDE[0])?, "outside")? == gateway);
    let lost = dropped(&mut hosts, "address_scope_mismatch", |_| {
        pings(&blue.namespace, OUTSIDE[1].parse()?, false)
    })?;
    ensure!(lost == 1, "blue, IPv6: {lost} dropped");
    let [private, private_v6] = both(&blue)?;
    let lost = dropped(&mut hosts, "nat_private_destination", |_| {
        pings(&outside, private, false)
    })?;
    ensure!(lost == 1, "to {private}: {lost} dropped");
    let lost = dropped(&mut hosts, "address_scope_mismatch", |_| {
        pings(&outside, private_v6, false)
    })?;
    ensure!(lost == 1, "to {private_v6}: {lost} dropped");

    // A floating IP leads from one scope to the other, and from outside.
    let (_, floating) = floating_ip(&mut hosts, &blue)?;
    settle(&outside, floating)?;
    for from in [&red.namespace, &pink.namespace, &outside] {
        sees(from, SocketAddr::new(floating, 22), "blue")?;
    }

    proxies(&mut hosts, &outside, &[&red, &pink])?;
    hosts.close()
}

/// From now on the router answers outside for whom it is told to, and lets in what is for them.
fn proxies(
    hosts: &mut Hosts,
    outside: &weft_kit::Namespace,
    guests: &[&weft_kit::Guest; 2],
) -> Result<()> {
    let [red, pink] = guests;
    let (own, other): (IpAddr, IpAddr) = (red.port.v6()?.into(), pink.port.v6()?.into());
    let router = id(&hosts.openstack("router show r1")?)?;
    let enabled = json!({ "enable_ndp_proxy": true });
    hosts.put(&format!("/v2.0/routers/{router}"), "router", &enabled)?;
    for to in [own, other] {
        let lost = dropped(hosts, "ndp_proxy_unknown", |_| pings(outside, to, false))?;
        ensure!(lost == 1, "to {to}: {lost} dropped");
    }
    // Outside they are on the link: whoever asks for one that has a proxy is answered.
    for range in ["fd01::/64", "fd01:0:0:1::/64"] {
        outside.run(&format!("ip -6 route replace {range} dev eth0"))?;
    }
    pings(outside, own, false)?;
    let proxy = json!({ "router_id": router, "port_id": red.port.id });
    let proxy = hosts.post("/v2.0/ndp_proxies", "ndp_proxy", &proxy)?;
    settle(outside, own)?;
    sees(outside, SocketAddr::new(own, 22), "red")?;
    pings(outside, other, false)?;
    // What they ask for themselves is answered, with a proxy or without.
    outside.run(&format!(
        "ip -6 route replace {other}/128 via {}",
        gateway(hosts)?[1]
    ))?;
    for guest in guests {
        pings(&guest.namespace, OUTSIDE[1].parse()?, true)?;
    }
    hosts.delete(&format!("/v2.0/ndp_proxies/{}", id(&proxy)?))?;
    let lost = dropped(hosts, "ndp_proxy_unknown", |_| pings(outside, own, false))?;
    ensure!(lost == 1, "to {own} without its proxy: {lost} dropped");
    Ok(())
}

#[test]
fn scopes_part_networks_and_proxies_speak_for_guests() -> Result<()> {
    scopes_and_proxies("weft-scopes", Engine::Kernel)
}

#[test]
fn scopes_part_networks_and_proxies_speak_for_vhost_user_guests() -> Result<()> {
    scopes_and_proxies("weft-scopesu", Engine::User)
}
