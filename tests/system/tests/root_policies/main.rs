//! What the API promises of policies, over real packets: through the API server, the feed and the agents of two hosts, for guests of
//! the kernel engine and of the user engine, in both families.

mod counted;
mod guest_vlans;
mod local_ips;
mod private;
mod ruled;
mod scopes;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use weft_kit::clock::until;
use weft_kit::ping::{ping, ping_with};
use weft_kit::tcp::probe;
use weft_kit::{Guest, Namespace, WeftOptions};
use weft_tests_system::hosts::{Hosts, Underlay};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Somebody outside, in both families.
const OUTSIDE: [&str; 2] = ["203.0.113.1", "fd01:0:0:113::1"];

/// Which engine serves the guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Kernel,
    User,
}

/// Two hosts, both on the external network's wire, and somebody there.
fn open(name: &str, engine: Engine) -> Result<(Hosts, Namespace)> {
    let options = WeftOptions {
        vhost_user: engine == Engine::User,
        ..WeftOptions::new(None)?
    };
    let hosts = Hosts::open_with_options(name, 2, Underlay::V4, &[1, 2], options)?;
    let outside = hosts.outside("outside")?;
    for (address, bits) in OUTSIDE.iter().zip([24, 64]) {
        outside.run(&format!("ip address add {address}/{bits} dev eth0 nodad"))?;
    }
    Ok((hosts, outside))
}

/// A group that lets these in, in both families: `PROTOCOL` or `PROTOCOL:PORT`.
fn group(hosts: &mut Hosts, name: &str, lets_in: &[&str]) -> Result<()> {
    hosts.openstack(&format!("security group create {name}"))?;
    for what in lets_in {
        let (protocol, port) = what.split_once(':').unwrap_or((what, ""));
        let port = if port.is_empty() {
            String::new()
        } else {
            format!("--dst-port {port}")
        };
        let six = if protocol == "icmp" {
            "ipv6-icmp"
        } else {
            protocol
        };
        for rule in [
            format!("--protocol {protocol}"),
            format!("--ethertype IPv6 --protocol {six}"),
        ] {
            hosts.openstack(&format!("security group rule create {rule} {port} {name}"))?;
        }
    }
    Ok(())
}

/// The external network `ext`, and the router `r1` with its gateway there. The subnets may be of pools.
fn external(hosts: &mut Hosts, pools: [Option<&Value>; 2]) -> Result<()> {
    hosts.openstack(
        "network create --external --provider-physical-network provider --provider-network-type flat ext",
    )?;
    for (version, (pool, range)) in [4, 6].into_iter().zip(
        pools
            .into_iter()
            .zip(["203.0.113.0/24", "fd01:0:0:113::/64"]),
    ) {
        let gateway = OUTSIDE[usize::from(version == 6)];
        let mut body = json!({
            "name": format!("ext-v{version}"), "network_id": id(&hosts.openstack("network show ext")?)?,
            "ip_version": version, "cidr": range, "gateway_ip": gateway, "enable_dhcp": false,
        });
        if let Some(pool) = pool {
            body["subnetpool_id"] = pool["id"].clone();
        }
        hosts.post("/v2.0/subnets", "subnet", &body)?;
    }
    hosts.openstack("router create r1")?;
    hosts.openstack("router set --external-gateway ext r1")?;
    Ok(())
}

/// The addresses of `r1` outside.
fn gateway(hosts: &mut Hosts) -> Result<[IpAddr; 2]> {
    let router = hosts.openstack("router show r1")?;
    let ips = router["external_gateway_info"]["external_fixed_ips"].as_array();
    let ips = ips.into_iter().flatten();
    let ips: Vec<IpAddr> = ips
        .filter_map(|ip| ip["ip_address"].as_str()?.parse().ok())
        .collect();
    let of = |v6: bool| ips.iter().copied().find(|ip| ip.is_ipv6() == v6);
    let (v4, v6) = of(false).zip(of(true)).context("no gateway addresses")?;
    Ok([v4, v6])
}

/// A floating IP of a guest: its id and address.
fn floating_ip(hosts: &mut Hosts, guest: &Guest) -> Result<(String, IpAddr)> {
    let made = hosts.openstack(&format!("floating ip create --port {} ext", guest.port.id))?;
    let address = made["floating_ip_address"].as_str().unwrap_or_default();
    Ok((id(&made)?, address.parse()?))
}

fn id(made: &Value) -> Result<String> {
    let id = made["id"].as_str();
    Ok(id.with_context(|| format!("no id: {made}"))?.to_owned())
}

/// Both addresses of a guest.
fn both(guest: &Guest) -> Result<[IpAddr; 2]> {
    Ok([guest.port.v4()?.into(), guest.port.v6()?.into()])
}

/// Waits until echo requests are answered.
fn settle(from: &Namespace, to: IpAddr) -> Result<()> {
    until(&format!("{} to reach {to}", from.name()), TIMEOUT, || {
        Ok(ping(from, to, 1)?.all().then_some(()))
    })
}

/// Two echo requests are answered, or one is not.
fn pings(from: &Namespace, to: IpAddr, reaches: bool) -> Result<()> {
    let pinged = match reaches {
        true => ping(from, to, 2)?,
        false => ping_with(from, to, 1, "-W 0.2")?,
    };
    let expected = if reaches { 2 } else { 0 };
    ensure!(
        pinged.received == expected,
        "{} to {to}: {pinged:?}",
        from.name()
    );
    Ok(())
}

/// Reaches a server of this name, and gives whom it saw.
fn sees(from: &Namespace, to: SocketAddr, name: &str) -> Result<IpAddr> {
    let seen = until(&format!("{name} at {to}"), TIMEOUT, || {
        let probed = probe(from, to)?;
        Ok(probed.is_from(name).then(|| probed.seen_as()).flatten())
    })?;
    Ok(seen.ip())
}

/// Packets that were dropped for a reason meanwhile, on all hosts.
fn dropped(
    hosts: &mut Hosts,
    reason: &str,
    meanwhile: impl FnOnce(&mut Hosts) -> Result<()>,
) -> Result<u64> {
    let before = hosts.drops_of_all(reason)?;
    meanwhile(hosts)?;
    Ok(hosts.drops_of_all(reason)? - before)
}
