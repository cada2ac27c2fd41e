//! The scene over several hosts: the story's guests are spread over three, of which one has the external network, and every step is
//! looked for on the wire.
//!
//! ```text
//!   control ─┐
//!   h1      ─┼─ wire                       outside
//!   h2      ─┤                             vlan103 203.0.113.1/24
//!   h3      ─┘   h3 ── physical network ── lo      198.18.0.1/32 ("the Internet")
//! ```

use crate::hosts::{Hosts, Underlay};
use crate::report::Report;
use crate::scene::{INTERNET, PHYSICAL_ROUTER, PHYSICAL_ROUTER_V6, Scene};
use crate::story;
use crate::wire::{Station, Wire};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use weft_kit::{Recording, Trunk, WeftOptions};

/// How many hosts run an agent.
const HOSTS: u8 = 3;
/// The one of them with the external network.
const GATEWAY: u8 = 3;
/// The external network's tag.
const VLAN: u16 = 103;

/// The story over several hosts, to its end. What fails is in the report.
///
/// # Errors
/// Not root, no binary, or something does not start or end.
pub fn play(name: &str, options: WeftOptions) -> Result<Report> {
    let (mut scene, trunk) = open(name, options)?;
    for (place, site) in scene.sites().enumerate() {
        let role = match place + 1 == usize::from(GATEWAY) {
            true => "a compute host with the external network",
            false => "a compute host",
        };
        scene.report.remark(&format!(
            "h{} is {role}: weft agent in {}",
            place + 1,
            site.host.name()
        ));
    }
    story::play_all(&mut scene);
    if let Err(error) = scene.sum_up() {
        scene.report.failure(&error);
    }
    drop(trunk);
    scene.close()
}

fn open(name: &str, options: WeftOptions) -> Result<(Scene, Trunk)> {
    let hosts = Hosts::open_with_options(name, HOSTS, Underlay::V4, &[GATEWAY], options)?;
    let outside = hosts.outside("outside")?;
    let trunk = Trunk::split(&outside, "eth0", &[VLAN])?;
    let leg = format!("vlan{VLAN}");
    outside.run(&format!("ip address add {PHYSICAL_ROUTER}/24 dev {leg}"))?;
    outside.run(&format!(
        "ip address add {PHYSICAL_ROUTER_V6}/64 dev {leg} nodad"
    ))?;
    outside.run(&format!("ip address add {INTERNET}/32 dev lo"))?;
    let links = outside.run(&format!("ip -j link show dev {leg}"))?;
    let links: Value = serde_json::from_str(&links)?;
    let mac = weft_kit::frame::mac(links[0]["address"].as_str().context("no MAC")?)?;
    let mut stations = Vec::new();
    for (place, host) in hosts.hosts.iter().enumerate() {
        let name = format!("h{}", place + 1);
        stations.push(Station {
            tunnel_ip: host.tunnel_ip,
            recording: Recording::start(&hosts.lab, &hosts.wire, &name)?,
            name,
        });
    }
    let beside = Recording::start(&hosts.lab, &hosts.wire, &format!("p{GATEWAY}"))?;
    let gateway = usize::from(GATEWAY) - 1;
    let wire = Wire::new(stations, gateway, VLAN, (beside, mac.to_vec()));
    let Hosts {
        hosts,
        server,
        operator,
        admin,
        lab,
        ..
    } = hosts;
    let mut hosts = hosts.into_iter();
    let first = hosts.next().context("no host")?;
    let scene = Scene {
        weft: first.weft,
        server,
        site: first.site,
        operator: Box::new(operator),
        report: Report::new(),
        host: first.namespace,
        more: hosts.collect(),
        wire: Some(wire),
        places: BTreeMap::new(),
        outside,
        admin,
        lab,
    };
    Ok((scene, trunk))
}

impl Scene {
    /// Tells the wire, if there is one, of a guest that was plugged.
    ///
    /// # Errors
    /// The API does not show its network.
    pub(crate) fn know(&mut self, name: &str, port: &Value) -> Result<()> {
        let Some(wire) = &mut self.wire else {
            return Ok(());
        };
        let network = port["network_id"].as_str().context("on no network")?;
        let line = format!("network show {network}");
        let network = self.operator.openstack(&self.admin, &line)?;
        let place = *self.places.get(name).context("no such guest")?;
        wire.know(name, place, port, &network)
    }

    /// Tells it of a floating IP.
    pub fn know_floating_ip(&mut self, address: IpAddr, guest: &str) {
        if let Some(wire) = &mut self.wire {
            wire.know_floating_ip(address, guest);
        }
    }

    /// Begins a step whose packets will be looked for on the wire.
    ///
    /// # Errors
    /// A recording cannot be read.
    pub fn wire_begin(&mut self) -> Result<()> {
        self.wire.as_mut().map_or(Ok(()), Wire::begin)
    }

    /// The packets of this step took the way that they should, and no other, between hosts and to the outside.
    ///
    /// # Errors
    /// A recording cannot be read.
    pub fn on_the_wire(&mut self, who: &str, to: IpAddr, answered: bool) -> Result<()> {
        if let Some(wire) = &mut self.wire {
            let (expected, happened) = wire.path(who, to, answered)?;
            self.report.equal("on the wire", expected, happened);
        }
        Ok(())
    }

    /// What passed between the hosts in all.
    fn sum_up(&mut self) -> Result<()> {
        let Some(wire) = &mut self.wire else {
            return Ok(());
        };
        self.report.epilogue("What passed between the hosts");
        for line in wire.summary()? {
            self.report.remark(&line);
        }
        self.report.equal(
            "numbers in tunnels that are no network's",
            0,
            wire.unknown().len(),
        );
        self.report
            .equal("frames of guests outside of tunnels", 0, wire.bare());
        Ok(())
    }
}
