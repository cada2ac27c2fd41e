//! Chapter 4: nothing comes in from outside; what goes out is seen from the router's gateway address.

use super::Story;
use crate::scene::{ANY, INTERNET, Scene};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use weft_kit::clock::now;
use weft_kit::tcp::{Server, connect};

/// The source port that all guests use at once.
const SOURCE_PORT: u16 = 40_000;

pub(super) fn play(story: &mut Story, scene: &mut Scene) -> Result<()> {
    let outside = scene.outside.clone();
    story
        .servers
        .push(Server::start(&outside, "internet", ANY, 80)?);
    let gateway = story.gateway()?;
    let [one, two, three] = story.guests()?;
    scene
        .report
        .remark("outside has a route to the guests' networks by the router's gateway, and tries");
    for network in ["192.0.2.0/24", "198.51.100.0/24"] {
        outside.run(&format!("ip route replace {network} via {gateway}"))?;
    }
    let target = IpAddr::V4(one.port.v4()?);
    scene.ping_fails("outside", &outside, target)?;
    scene.tcp_fails("outside", &outside, SocketAddr::new(target, 80))?;
    for network in ["192.0.2.0/24", "198.51.100.0/24"] {
        outside.run(&format!("ip route del {network}"))?;
    }
    scene
        .report
        .remark("guests reach the outside; every guest uses the same source port at the same time");
    scene.ping_passes("guest1", &one.namespace, INTERNET.into(), 63)?;
    let mut open = Vec::new();
    let mut ports = BTreeSet::new();
    for guest in [one, two, three] {
        scene.wire_begin()?;
        let start = now();
        let to = SocketAddr::new(INTERNET.into(), 80);
        let (probed, stream) = connect(&guest.namespace, to, Some(SOURCE_PORT))?;
        let command = format!("nc -p {SOURCE_PORT} {INTERNET} 80");
        scene.report.command(&guest.name, &command, start.elapsed());
        let seen = probed.seen_as().map(|address| address.ip().to_string());
        let seen = seen.unwrap_or_else(|| probed.to_string());
        scene
            .report
            .equal(&format!("outside sees {} as", guest.name), gateway, seen);
        scene.explain(probed.seen_as().is_some())?;
        scene.on_the_wire(&guest.name, to.ip(), true)?;
        ports.extend(probed.seen_as().map(|address| address.port()));
        open.extend(stream.map(|stream| (guest.name.clone(), stream)));
    }
    let seen: Vec<String> = ports.iter().map(u16::to_string).collect();
    let (happened, holds) = (seen.join(", "), ports.len() == 3);
    scene.report.check(
        "source ports that outside sees",
        "3 different",
        happened,
        holds,
    );
    let mut answered = 0;
    for (name, stream) in &mut open {
        stream
            .write_all(name.as_bytes())
            .context("the connection was cut")?;
        let mut echo = vec![0; name.len()];
        answered += u32::from(stream.read_exact(&mut echo).is_ok() && echo == name.as_bytes());
    }
    scene.report.equal(
        "all three talk at once and hear their own echo",
        3,
        answered,
    );
    Ok(())
}
