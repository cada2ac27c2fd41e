//! What passes between the hosts of a scene: which host sends to which, in which tunnel's network, and what reaches the outside
//! with which tag. Read from captures of every host's port of the underlay, and of the physical network's wire.
//!
//! Where a packet should go is worked out here from who is where, and from nothing that Weft says.

use crate::scene::{INTERNET, PHYSICAL_ROUTER};
use crate::tunnelled::{Tunnelled, ends};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use weft_kit::clock::{now, pause};
use weft_kit::{PortFacts, Recording};
use weft_wire::ethernet;

/// How long a path may take to be seen whole.
const SEEN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long is listened at least, for what should not come.
const LISTEN: Duration = Duration::from_millis(60);

/// One way that packets took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leg {
    /// From host to host in a network's tunnel.
    Tunnel {
        /// The sender's place.
        from: usize,
        /// The receiver's.
        to: usize,
        /// The network's number.
        vni: u32,
    },
    /// To the outside, with this tag.
    Out(Option<u16>),
    /// From there.
    In(Option<u16>),
}

/// A host's port of the underlay.
#[derive(Debug)]
pub struct Station {
    /// The host's short name.
    pub name: String,
    /// Where tunnels to it lead.
    pub tunnel_ip: IpAddr,
    /// What passes there.
    pub recording: Recording,
}

/// A guest, and where it is.
#[derive(Debug)]
struct Placed {
    name: String,
    place: usize,
    project: String,
    vni: u32,
    mac: Vec<u8>,
    addresses: Vec<IpAddr>,
}

/// All of it.
#[derive(Debug)]
pub struct Wire {
    stations: Vec<Station>,
    /// What passes at the physical network's port of the host `gateway`.
    outside: Recording,
    /// The MAC address of the physical router there.
    outside_mac: Vec<u8>,
    gateway: usize,
    vlan: u16,
    guests: Vec<Placed>,
    floating: BTreeMap<IpAddr, String>,
    networks: BTreeMap<u32, String>,
    /// The number in which hosts exchange the external network's frames: told by nobody, so learnt from the first.
    transit: Option<u32>,
    /// Of every way that was ever seen, how many packets took it.
    counts: BTreeMap<Leg, u64>,
    /// Frames of guests that passed the underlay outside of tunnels.
    bare: u64,
}

impl Wire {
    /// Watches hosts; `outside` is what passes where the host at `gateway` has the external network, with the tag `vlan`, and the
    /// MAC address of whom it meets there.
    #[must_use]
    pub fn new(
        stations: Vec<Station>,
        gateway: usize,
        vlan: u16,
        outside: (Recording, Vec<u8>),
    ) -> Self {
        let (outside, outside_mac) = outside;
        Self {
            stations,
            outside,
            outside_mac,
            gateway,
            vlan,
            guests: Vec::new(),
            floating: BTreeMap::new(),
            networks: BTreeMap::new(),
            transit: None,
            counts: BTreeMap::new(),
            bare: 0,
        }
    }

    /// The external network's tag.
    #[must_use]
    pub fn vlan(&self) -> u16 {
        self.vlan
    }

    /// A guest that is on the host at `place`, by its port and its network as the administrator sees it.
    ///
    /// # Errors
    /// A field is missing.
    pub fn know(&mut self, name: &str, place: usize, port: &Value, network: &Value) -> Result<()> {
        let facts = PortFacts::from_json(port)?;
        let vni = network["provider:segmentation_id"].as_u64();
        let vni = u32::try_from(vni.context("no VNI")?)?;
        let label = network["name"].as_str().context("no name")?;
        self.networks.insert(vni, label.to_owned());
        self.guests.push(Placed {
            name: name.to_owned(),
            place,
            project: port["project_id"].as_str().context("whose?")?.to_owned(),
            vni,
            mac: weft_kit::frame::mac(&facts.mac)?.to_vec(),
            addresses: facts.addresses,
        });
        Ok(())
    }

    /// A floating IP of a guest.
    pub fn know_floating_ip(&mut self, address: IpAddr, guest: &str) {
        self.floating.insert(address, guest.to_owned());
    }

    /// Begins a step: what passed before is counted, and no more looked at.
    ///
    /// # Errors
    /// A recording cannot be read.
    pub fn begin(&mut self) -> Result<()> {
        self.take(None).map(drop)
    }

    /// The way that packets from a guest (or else from the outside) to an address should have taken since the step began,
    /// with their answers or without, and the way that they took.
    ///
    /// # Errors
    /// A recording cannot be read.
    pub fn path(&mut self, who: &str, to: IpAddr, answered: bool) -> Result<(String, String)> {
        let start = now();
        let mut seen = BTreeSet::new();
        loop {
            seen.extend(self.take(Some(to))?);
            let expected = self.expected(who, to, answered);
            let all = expected.iter().copied().collect::<BTreeSet<_>>() == seen;
            let waited = start.elapsed();
            if (all && waited >= LISTEN) || waited >= SEEN_TIMEOUT {
                let others = seen.iter().filter(|leg| !expected.contains(leg));
                let happened = expected.iter().filter(|leg| seen.contains(leg));
                let happened: Vec<Leg> = happened.chain(others).copied().collect();
                return Ok((self.words(&expected), self.words(&happened)));
            }
            pause(Duration::from_millis(10));
        }
    }

    fn expected(&self, who: &str, to: IpAddr, answered: bool) -> Vec<Leg> {
        let tunnel = |from, to, vni| Leg::Tunnel { from, to, vni };
        let transit = self.transit.unwrap_or(0);
        let (out, back) = (Leg::Out(Some(self.vlan)), Leg::In(Some(self.vlan)));
        let guest = |name: &str| self.guests.iter().find(|guest| guest.name == name);
        // There, and back.
        let (there, again) = match guest(who) {
            None => match self.floating.get(&to).and_then(|name| guest(name)) {
                Some(guest) if guest.place != self.gateway => (
                    vec![back, tunnel(self.gateway, guest.place, transit)],
                    vec![tunnel(guest.place, self.gateway, transit), out],
                ),
                _ => (vec![back], vec![out]),
            },
            Some(from) => {
                let mut others = self.guests.iter();
                let other = others
                    .find(|other| other.project == from.project && other.addresses.contains(&to));
                let outside = [INTERNET, PHYSICAL_ROUTER].map(IpAddr::from).contains(&to);
                match other {
                    Some(other) if other.place != from.place => (
                        vec![tunnel(from.place, other.place, other.vni)],
                        vec![tunnel(other.place, from.place, from.vni)],
                    ),
                    Some(_) => (Vec::new(), Vec::new()),
                    // A router's own address, or nobody's.
                    None if !outside => (Vec::new(), Vec::new()),
                    None if from.place == self.gateway => (vec![out], vec![back]),
                    None => (
                        vec![tunnel(from.place, self.gateway, transit), out],
                        vec![back, tunnel(self.gateway, from.place, transit)],
                    ),
                }
            }
        };
        let again = if answered { again } else { Vec::new() };
        there.into_iter().chain(again).collect()
    }

    /// Takes what was recorded, and gives the ways of packets from or to an address.
    fn take(&mut self, of: Option<IpAddr>) -> Result<BTreeSet<Leg>> {
        let mut found = BTreeSet::new();
        let has = |frame: &[u8]| {
            let ends = ends(frame).map(|(from, to, _)| (from, to));
            ends.filter(|(from, to)| of.is_some_and(|of| [*from, *to].contains(&of)))
        };
        let addresses: Vec<IpAddr> = self.stations.iter().map(|it| it.tunnel_ip).collect();
        let place = |address| addresses.iter().position(|it| *it == address);
        for station in &mut self.stations {
            for frame in station.recording.take()? {
                let Some(packet) = Tunnelled::parse(&frame) else {
                    let own = |guest: &Placed| frame.get(6..12) == Some(&guest.mac[..]);
                    self.bare += u64::from(self.guests.iter().any(own));
                    continue;
                };
                // Every packet passes two ports: it is looked at where it was sent.
                if packet.from != station.tunnel_ip {
                    continue;
                }
                let from = place(packet.from).context("a stranger sends into a tunnel")?;
                let to = place(packet.to).context("a tunnel leads to a stranger")?;
                if !self.networks.contains_key(&packet.vni) {
                    self.transit.get_or_insert(packet.vni);
                }
                let vni = packet.vni;
                let leg = Leg::Tunnel { from, to, vni };
                *self.counts.entry(leg).or_default() += 1;
                found.extend(has(&packet.frame).map(|_| leg));
            }
        }
        for frame in self.outside.take()? {
            let (tag, frame) = match ethernet::untag(&frame) {
                Some((tag, frame)) => (Some(tag), frame),
                None => (None, frame),
            };
            let comes_in = frame.get(6..12) == Some(&self.outside_mac[..]);
            let leg = has(&frame).map(|_| match comes_in {
                true => Leg::In(tag),
                false => Leg::Out(tag),
            });
            found.extend(leg);
        }
        Ok(found)
    }

    fn words(&self, legs: &[Leg]) -> String {
        let name = |place: usize| self.stations.get(place).map_or("?", |it| it.name.as_str());
        let tag = |tag: Option<u16>| match tag {
            Some(vlan) => format!("VLAN {vlan}"),
            None => "no tag".to_owned(),
        };
        let gateway = name(self.gateway);
        let words = legs.iter().map(|leg| match *leg {
            Leg::Tunnel { from, to, vni } => {
                format!("{} → {} VXLAN {vni}", name(from), name(to))
            }
            Leg::Out(vlan) => format!("{gateway} → outside {}", tag(vlan)),
            Leg::In(vlan) => format!("outside → {gateway} {}", tag(vlan)),
        });
        let words: Vec<String> = words.collect();
        match words.is_empty() {
            true => "nothing".to_owned(),
            false => words.join(", "),
        }
    }

    /// Every way that was taken in a tunnel, with its count.
    ///
    /// # Errors
    /// A recording cannot be read.
    pub fn summary(&mut self) -> Result<Vec<String>> {
        self.begin()?;
        let lines = self.counts.iter().map(|(leg, count)| {
            let network = match leg {
                Leg::Tunnel { vni, .. } => self.label(*vni),
                Leg::Out(_) | Leg::In(_) => String::new(),
            };
            format!("{} ({network}): {count} packets", self.words(&[*leg]))
        });
        Ok(lines.collect())
    }

    /// What a tunnel's number stands for.
    fn label(&self, vni: u32) -> String {
        match self.networks.get(&vni) {
            Some(name) => name.clone(),
            None if self.transit == Some(vni) => "transit of the external network".to_owned(),
            None => "no network".to_owned(),
        }
    }

    /// Numbers in tunnels that stand for nothing.
    #[must_use]
    pub fn unknown(&self) -> BTreeSet<u32> {
        let numbers = self.counts.keys().filter_map(|leg| match leg {
            Leg::Tunnel { vni, .. } => Some(*vni),
            Leg::Out(_) | Leg::In(_) => None,
        });
        numbers
            .filter(|vni| !self.networks.contains_key(vni) && self.transit != Some(*vni))
            .collect()
    }

    /// Frames of guests that passed between the hosts outside of tunnels.
    #[must_use]
    pub fn bare(&self) -> u64 {
        self.bare
    }
}
