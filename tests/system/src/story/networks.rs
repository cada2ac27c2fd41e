//! Chapter 1: the administrator makes the external network, a user two networks and a router.

use super::Story;
use crate::scene::Scene;
use anyhow::{Context, Result};

pub(super) fn play(story: &mut Story, scene: &mut Scene) -> Result<()> {
    let admin = scene.admin.clone();
    let user = scene.project("demo")?;
    scene.external_network()?;
    let networks = scene.openstack_all(
        &user,
        &[
            "network create selfservice1",
            "network create selfservice2",
            "router create router1",
        ],
    )?;
    scene.report.equal(
        "MTU of selfservice1 (1500 less VXLAN)",
        1450,
        &networks[0]["mtu"],
    );
    let subnets = scene.openstack_all(
        &user,
        &[
            "subnet create --network selfservice1 --subnet-range 192.0.2.0/24 --dns-nameserver 8.8.4.4 \
             --host-route destination=10.9.0.0/16,gateway=192.0.2.254 selfservice1-v4",
            "subnet create --network selfservice1 --ip-version 6 --ipv6-ra-mode slaac --ipv6-address-mode slaac \
             --subnet-range fd00:192:0:2::/64 selfservice1-v6",
            "subnet create --network selfservice2 --subnet-range 198.51.100.0/24 --dns-nameserver 8.8.4.4 \
             selfservice2-v4",
            "subnet create --network selfservice2 --ip-version 6 --ipv6-ra-mode slaac --ipv6-address-mode slaac \
             --subnet-range fd00:198:51:100::/64 selfservice2-v6",
        ],
    )?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    scene.report.equal(
        "gateway of selfservice1-v4",
        "192.0.2.1",
        text(&subnets[0]["gateway_ip"]),
    );
    scene.openstack_all(
        &user,
        &[
            "router add subnet router1 selfservice1-v4",
            "router add subnet router1 selfservice1-v6",
            "router add subnet router1 selfservice2-v4",
            "router add subnet router1 selfservice2-v6",
        ],
    )?;
    scene.openstack(&user, "router set --external-gateway provider1 router1")?;
    let router = scene.openstack(&user, "router show router1")?;
    let gateway = &router["external_gateway_info"]["external_fixed_ips"][0]["ip_address"];
    let gateway = gateway
        .as_str()
        .context("the router shows no gateway address")?;
    let holds = gateway.starts_with("203.0.113.");
    scene.report.check(
        "gateway address of router1",
        "out of 203.0.113.11-250",
        gateway,
        holds,
    );
    let network = scene.openstack(&admin, "network show selfservice1")?;
    let kind = text(&network["provider:network_type"]);
    scene.report.equal(
        "type of selfservice1, as only the administrator sees it",
        "vxlan",
        kind,
    );
    story.gateway = Some(gateway.parse()?);
    story.user = Some(user);
    Ok(())
}
