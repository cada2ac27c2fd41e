//! Tunnels from the wire's side: which network a frame in VXLAN is for, and what goes around one that leaves.
//! docs/pipeline.md, section 7.
//!
//! Guarantees: what is taken out here is what `weft_dataplane::stage::tunnel` takes out, and what is put around is what it
//! puts around; whatever is out of the ordinary is left to it.

use super::key::Place;
use super::map::{FastMap, Seed};
use super::place::Places;
use super::plan::At;
use super::table::Ref;
use super::{Engine, link::Neighbour};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use weft_dataplane::flow::session::Tunnel;
use weft_dataplane::stage::tunnel;
use weft_dataplane::{GuestVlan, Ingress, Tuple};
use weft_model::{HostSnapshot, NetworkType};
use weft_wire::outer::{self, Finish, InVxlan, Outer};

/// The tunnel that a session's direction leaves by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// One of the plan's, plus one.
    tunnel: u32,
    entropy: u16,
}

/// What goes around a frame.
#[derive(Clone, Copy, Debug)]
pub struct Encapsulation<'a> {
    outer: &'a Outer,
    entropy: u16,
    /// From this host to that one.
    link: Neighbour,
}

impl<'a> Encapsulation<'a> {
    /// Bytes in front of the frame.
    #[inline]
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        self.outer.length()
    }

    /// The outer headers of a frame of so many bytes; the first [`Self::header_bytes`] of them.
    #[inline]
    #[must_use]
    pub fn header(&self, frame_bytes: usize) -> [u8; outer::BYTES_MAX] {
        self.outer.finish(&Finish {
            frame_bytes,
            entropy: self.entropy,
            destination: self.link.remote,
            source: self.link.own,
        })
    }
}

/// The tunnels that frames of one batch leave by, kept until they are sent: by then another snapshot may be in force.
#[derive(Debug, Default)]
pub struct Leaving(Vec<(u32, Outer, Neighbour)>);

impl Leaving {
    /// Forgets all.
    #[inline]
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps an entry's tunnel; false if its other end's MAC address is not known, which is to be asked for then
    /// ([`Engine::remote_ask`]).
    #[inline]
    pub fn keep(&mut self, engine: &Engine, entry: Entry) -> bool {
        if self.encapsulation(entry).is_some() {
            return true;
        }
        let known = engine.encapsulation(entry);
        let known = known.map(|known| (entry.tunnel, *known.outer, known.link));
        self.0.extend(known);
        known.is_some()
    }

    /// What goes around a frame that leaves by one that was kept.
    #[inline]
    #[must_use]
    pub fn encapsulation(&self, entry: Entry) -> Option<Encapsulation<'_>> {
        let (_, outer, link) = self.0.iter().find(|(tunnel, ..)| *tunnel == entry.tunnel)?;
        Some(Encapsulation {
            outer,
            entropy: entry.entropy,
            link: *link,
        })
    }
}

/// The tunnels of a snapshot.
#[derive(Debug)]
pub(super) struct Tunnels {
    /// This host's address.
    pub(super) own: Option<IpAddr>,
    /// The other hosts' addresses, and their numbers.
    hosts: FastMap<IpAddr, At>,
    /// By number.
    pub(super) remotes: Vec<IpAddr>,
    /// Networks by their number in VXLAN; none for one whose frames are looked at whole.
    vxlan: FastMap<u32, Option<Place>>,
    /// By the number of a tunnel: its headers and the number of its other end.
    outers: Vec<Option<(Outer, At)>>,
}

impl Tunnels {
    /// Without what leads out: see [`Self::fill`].
    pub(super) fn new(snapshot: &Arc<HostSnapshot>, places: &Places, seed: Seed) -> Self {
        let mut this = Self {
            own: snapshot.tunnel_ip(),
            hosts: FastMap::with_hasher(seed),
            remotes: Vec::new(),
            vxlan: FastMap::with_hasher(seed),
            outers: Vec::new(),
        };
        for (host, about) in &snapshot.tunnel_hosts {
            if *host != snapshot.host && !this.hosts.contains_key(&about.tunnel_ip) {
                this.hosts.insert(about.tunnel_ip, this.remotes.len());
                this.remotes.push(about.tunnel_ip);
            }
        }
        for (id, network) in &snapshot.networks {
            let is_vxlan = network.segment.network_type == NetworkType::Vxlan;
            let own = network.segment.segmentation_id.filter(|_| is_vxlan);
            if let Some(vni) = own {
                let place = places.of(Ingress::Network(*id));
                this.vxlan.entry(vni).or_insert(place);
            }
            if let Some(transit) = network.transit {
                this.vxlan.entry(transit.vni).or_insert(None);
            }
        }
        this
    }

    /// The number of another host by its address.
    pub(super) fn number(&self, address: IpAddr) -> Option<At> {
        self.hosts.get(&address).copied()
    }

    #[inline]
    fn outer(&self, entry: Entry) -> Option<&(Outer, At)> {
        let at = usize::try_from(entry.tunnel).ok()?.checked_sub(1)?;
        self.outers.get(at)?.as_ref()
    }

    /// Makes the headers of all tunnels.
    pub(super) fn fill(&mut self, tunnels: &[Tunnel]) {
        let nobody = Tuple {
            protocol: 0,
            source: Ipv4Addr::UNSPECIFIED.into(),
            destination: Ipv4Addr::UNSPECIFIED.into(),
            source_port: 0,
            destination_port: 0,
            vlan: GuestVlan::default(),
        };
        let outer = |to: &Tunnel| {
            let outer = Outer::of(&tunnel::encapsulate(&[], to, nobody, None))?;
            Some((outer, *self.hosts.get(&to.remote)?))
        };
        self.outers = tunnels.iter().map(outer).collect();
    }
}

impl Engine {
    /// The network whose tunnel a frame from the underlay came by, of which `first` are the first bytes, and how many are in
    /// front of the frame inside. None if that is not so easily said: then the frame is to be judged as a whole.
    #[inline]
    #[must_use]
    pub fn decapsulate(
        &self,
        first: &[u8; outer::BYTES_MAX],
        frame_bytes: usize,
    ) -> Option<(Place, usize)> {
        let seen = InVxlan::parse(first, frame_bytes)?;
        let tunnels = &self.plan.as_deref()?.underlay;
        let ours =
            tunnels.own == Some(seen.destination) && tunnels.hosts.contains_key(&seen.source);
        let place = tunnels.vxlan.get(&seen.vni).copied().flatten();
        Some((place.filter(|_| ours)?, seen.header_bytes))
    }

    #[inline]
    pub(super) fn entry(&self, at: Ref) -> Entry {
        let (tunnel, entropy) = self.table.tunnel(at);
        Entry { tunnel, entropy }
    }

    /// What goes around a frame that leaves by a tunnel; none if its other end's MAC address is not known, which is to be
    /// asked for then ([`Self::remote_ask`]).
    #[inline]
    fn encapsulation(&self, entry: Entry) -> Option<Encapsulation<'_>> {
        let (outer, remote) = self.plan.as_deref()?.underlay.outer(entry)?;
        Some(Encapsulation {
            outer,
            entropy: entry.entropy,
            link: self.link.as_ref()?.neighbour(*remote)?,
        })
    }

    /// The same with outer MACs that are zero, for whoever fills them in.
    #[must_use]
    pub fn outer(&self, entry: Entry) -> Option<Encapsulation<'_>> {
        let (outer, _) = self.plan.as_deref()?.underlay.outer(entry)?;
        Some(Encapsulation {
            outer,
            entropy: entry.entropy,
            link: Neighbour::default(),
        })
    }

    /// The same for headers that were made already.
    #[must_use]
    pub fn encapsulation_of<'a>(&self, outer: &'a Outer) -> Option<Encapsulation<'a>> {
        let hosts = &self.plan.as_deref()?.underlay.hosts;
        let remote = *hosts.get(&outer.remote())?;
        Some(Encapsulation {
            outer,
            entropy: outer.entropy(),
            link: self.link.as_ref()?.neighbour(remote)?,
        })
    }

    /// The other end of a tunnel.
    #[must_use]
    pub fn remote(&self, entry: Entry) -> Option<IpAddr> {
        let (outer, _) = self.plan.as_deref()?.underlay.outer(entry)?;
        Some(outer.remote())
    }
}
