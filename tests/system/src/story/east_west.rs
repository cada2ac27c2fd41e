//! Chapter 3: guests of one project reach each other, on one network and across the router, in both families.

use super::Story;
use crate::scene::{ANY, Scene};
use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use weft_kit::tcp::Server;

pub(super) fn play(story: &mut Story, scene: &mut Scene) -> Result<()> {
    scene
        .report
        .remark("the default security group lets its members reach each other");
    for guest in &story.guests {
        story
            .servers
            .push(Server::start(&guest.namespace, &guest.name, ANY, 80)?);
    }
    let [one, two, three] = story.guests()?;
    let from = &one.namespace;
    for (to, ttl) in [(two, 64), (three, 63)] {
        let addresses = [IpAddr::V4(to.port.v4()?), IpAddr::V6(to.port.v6()?)];
        for address in addresses {
            scene.ping_passes("guest1", from, address, ttl)?;
        }
        for address in addresses {
            scene.tcp_passes("guest1", from, SocketAddr::new(address, 80), &to.name)?;
        }
    }
    scene
        .report
        .remark("the router answers echo requests to its own addresses");
    scene.ping_passes("guest1", from, Ipv4Addr::new(192, 0, 2, 1).into(), 64)
}
