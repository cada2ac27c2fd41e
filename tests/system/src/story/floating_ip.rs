//! Chapter 5: rules for ICMP and TCP/22 and a floating IP let the outside in, and no more than that.

use super::Story;
use crate::scene::{ANY, INTERNET, Scene};
use anyhow::{Context, Result};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use weft_kit::tcp::Server;

pub(super) fn play(story: &mut Story, scene: &mut Scene) -> Result<()> {
    let user = story.user()?;
    let outside = scene.outside.clone();
    for port in [22, 23] {
        let guest = story.guests()?[0];
        let server = Server::start(&guest.namespace, "guest1", ANY, port)?;
        story.servers.push(server);
    }
    let made = scene.openstack_all(
        &user,
        &[
            "security group rule create --protocol icmp default",
            "security group rule create --protocol tcp --dst-port 22 default",
            "floating ip create --port guest1 provider1",
        ],
    )?;
    let id = |rule: &Value| {
        rule["id"]
            .as_str()
            .map(str::to_owned)
            .context("a rule without id")
    };
    story.rules = Some((id(&made[0])?, id(&made[1])?));
    let address = made[2]["floating_ip_address"]
        .as_str()
        .context("no floating IP address")?;
    let floating: IpAddr = address.parse()?;
    story.floating_ip = Some(address.parse()?);
    scene.know_floating_ip(floating, "guest1");
    scene.settle(&outside, floating)?;
    scene.ping_passes("outside", &outside, floating, 63)?;
    scene.tcp_passes("outside", &outside, SocketAddr::new(floating, 22), "guest1")?;
    scene.tcp_fails("outside", &outside, SocketAddr::new(floating, 23))?;
    let [one, two, _] = story.guests()?;
    let internet = SocketAddr::new(INTERNET.into(), 80);
    let gateway = IpAddr::V4(story.gateway()?);
    for (guest, expected) in [(one, floating), (two, gateway)] {
        let probed = scene.tcp_passes(&guest.name, &guest.namespace, internet, "internet")?;
        let seen = probed.seen_as().map(|address| address.ip().to_string());
        let seen = seen.unwrap_or_else(|| probed.to_string());
        scene
            .report
            .equal(&format!("outside sees {} as", guest.name), expected, seen);
    }
    Ok(())
}
