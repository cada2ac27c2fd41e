//! Local IPs: one address, and on each host another guest that stands for it.

use crate::{Engine, TIMEOUT, group, id, open};
use anyhow::{Context, Result};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use weft_kit::clock::until;
use weft_kit::tcp::{Server, probe};
use weft_tests_system::scene::ANY;

/// Who asks on a host comes to the guest that stands for the address there; to nobody where none does any more, while the other
/// host's goes on.
fn leads_to_its_hosts_guest(name: &str, engine: Engine) -> Result<()> {
    let (mut hosts, outside) = open(name, engine)?;
    // Local IPs are IPv4's alone, as in Neutron.
    let network = hosts.openstack("network create red")?;
    hosts.openstack("subnet create --network red --subnet-range 192.0.2.0/24 red-v4")?;
    group(&mut hosts, "web", &["tcp:22"])?;
    let made = json!({ "network_id": network["id"], "name": "l" });
    let made = hosts.post("/v2.0/local_ips", "local_ip", &made)?;
    let address: IpAddr = made["local_ip_address"].as_str().context("text")?.parse()?;
    let path = format!("/v2.0/local_ips/{}/port_associations", id(&made)?);
    let to = SocketAddr::new(address, 22);
    let (mut pairs, mut servers) = (Vec::new(), Vec::new());
    for (host, served) in ["one", "two"].into_iter().enumerate() {
        let asks = hosts.guest(host, "red", &format!("asks{host}"), "")?;
        let stands = hosts.guest(host, "red", served, "--security-group web")?;
        servers.push(Server::start(&stands.namespace, served, ANY, 22)?);
        let body = json!({ "fixed_port_id": stands.port.id });
        hosts.post(&path, "port_association", &body)?;
        pairs.push((asks, stands));
    }
    let answers = |who: usize, wanted: Option<&str>| {
        let what = format!("{address} to lead to {wanted:?} on host {who}");
        let from = &pairs.get(who).context("a pair")?.0.namespace;
        until(&what, TIMEOUT, || {
            let probed = probe(from, to)?;
            let others = ["one", "two"].iter().filter(|name| Some(**name) != wanted);
            let by_others = others.filter(|name| probed.is_from(name)).count();
            let by_wanted = wanted.is_none_or(|name| probed.is_from(name));
            Ok((by_wanted && by_others == 0).then_some(()))
        })
    };
    answers(0, Some("one"))?;
    answers(1, Some("two"))?;
    hosts.delete(&format!("{path}/{}", pairs[0].1.port.id))?;
    answers(0, None)?;
    answers(1, Some("two"))?;
    drop((servers, pairs, outside));
    hosts.close()
}

#[test]
fn a_local_ip_leads_to_the_guest_of_the_senders_host() -> Result<()> {
    leads_to_its_hosts_guest("weft-localip", Engine::Kernel)
}

#[test]
fn a_local_ip_leads_to_the_vhost_user_guest_of_the_senders_host() -> Result<()> {
    leads_to_its_hosts_guest("weft-localipu", Engine::User)
}
