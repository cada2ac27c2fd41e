//! Chapter 8: another project uses the same range, even the same addresses, and sees nothing of the first.

use super::Story;
use crate::scene::{ANY, Scene};
use anyhow::{Context, Result};
use std::net::{IpAddr, SocketAddr};
use weft_kit::Guest;
use weft_kit::tcp::Server;

pub(super) fn play(story: &mut Story, scene: &mut Scene) -> Result<()> {
    let other = scene.project("other")?;
    scene.openstack(&other, "network create selfservice1")?;
    scene.openstack(
        &other,
        "subnet create --network selfservice1 --subnet-range 192.0.2.0/24 selfservice1-v4",
    )?;
    let [one, two, _] = story.guests()?;
    let (first, second) = (one.port.v4()?, two.port.v4()?);
    // An address that only the first project has, and nobody here.
    let unshared = second;
    let mut ports = Vec::new();
    for (name, address) in [("twin1", first), ("twin3", free_address(&[first, second])?)] {
        let line = format!(
            "port create --network selfservice1 --fixed-ip subnet=selfservice1-v4,ip-address={address} {name}"
        );
        ports.push((name, scene.openstack(&other, &line)?));
    }
    let twins = scene.plug(&ports)?;
    let mut servers = Vec::new();
    for twin in &twins {
        twin.configure(&format!("{}/24", twin.port.v4()?), None)?;
        servers.push(Server::start(&twin.namespace, &twin.name, ANY, 80)?);
    }
    let [twin1, twin3] = &twins[..] else {
        anyhow::bail!("two twins were plugged")
    };
    let shared = SocketAddr::new(IpAddr::V4(first), 80);
    scene.report.remark(&format!(
        "{first} is guest1 to its own project, and twin1 to the other"
    ));
    scene.tcp_passes("guest2", &two.namespace, shared, "guest1")?;
    scene.tcp_passes("twin3", &twin3.namespace, shared, "twin1")?;
    scene.report.remark(&format!(
        "{unshared} is guest2, and nobody in the other project"
    ));
    scene.ping_fails("twin1", &twin1.namespace, IpAddr::V4(unshared))?;
    scene.ping_fails("guest1", &one.namespace, IpAddr::V4(twin3.port.v4()?))?;
    hidden(scene, &other, one);
    drop(servers);
    for twin in &twins {
        twin.unplug(&scene.site_of(&twin.name)?.host)?;
    }
    Ok(())
}

/// The API hides one project's port from the other.
fn hidden(scene: &mut Scene, other: &weft_kit::Cloud, guest: &Guest) {
    let shown = scene.openstack(other, &format!("port show {}", guest.port.id));
    let happened = shown.map_or_else(|error| format!("{error:#}"), |port| port.to_string());
    let holds = happened.contains("404");
    scene.report.check(
        "the other project asks for guest1's port",
        "404 not found",
        happened,
        holds,
    );
}

/// An address of 192.0.2.0/24 that is not among `taken`, nor the gateway.
fn free_address(taken: &[std::net::Ipv4Addr]) -> Result<std::net::Ipv4Addr> {
    let mut all = (200..250).map(|last| std::net::Ipv4Addr::new(192, 0, 2, last));
    all.find(|address| !taken.contains(address))
        .context("no free address")
}
