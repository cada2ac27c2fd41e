//! The stages. Each file says what it guarantees, what it assumes of the stages before it, and holds pure functions over
//! the snapshot and the packet; what they all need to know of the packet is [`Sight`].

pub mod arp_nd;
pub mod bridge;
pub mod decode;
pub mod deliver;
pub mod dhcp;
pub mod floating_ip;
pub mod guest_vlan;
pub mod icmp_error;
pub mod local_ip;
pub mod metering;
pub mod mtu;
pub mod multicast;
pub mod nat;
pub mod port_security;
pub mod qos;
pub mod router;
pub mod security_group;
pub mod session;
pub mod transit;
pub mod tunnel;
pub mod vlan;

use crate::flow::key::Ingress;
use crate::mutant::Mutant;
use std::borrow::Cow;
use weft_model::{DropReason, HostSnapshot, NetworkId, Port, PortId};

/// Where a packet is seen, and under what.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    /// The configuration.
    pub snapshot: &'a HostSnapshot,
    /// Where the packet came in.
    pub ingress: Ingress,
    /// Which network that is.
    pub network_id: NetworkId,
    /// The guest's port; none for the uplink and for tunnels.
    pub port: Option<(PortId, &'a Port)>,
    /// Whether it came from another host by the transit of that network.
    pub transit: bool,
    /// The guest's own tag that it came with.
    pub tag: Option<u16>,
    /// A planted mistake, in tests of the tests.
    pub mutant: Option<Mutant>,
}

impl<'a> Sight<'a> {
    /// The view from an ingress; none if the port or network is not in the snapshot.
    #[must_use]
    pub fn new(
        snapshot: &'a HostSnapshot,
        ingress: Ingress,
        mutant: Option<Mutant>,
    ) -> Option<Self> {
        let (network_id, port) = match ingress {
            Ingress::Port(id) => {
                let port = snapshot.ports.get(&id)?;
                (port.network_id, Some((id, port)))
            }
            Ingress::Network(id) => snapshot.networks.contains_key(&id).then_some((id, None))?,
            // What it carries is seen from the tunnel of a network.
            Ingress::Underlay => return None,
        };
        Some(Self {
            snapshot,
            ingress,
            network_id,
            port,
            transit: false,
            tag: None,
            mutant,
        })
    }

    /// The same, of what came out of a tunnel.
    #[must_use]
    pub fn tunnelled(self) -> Self {
        Self {
            transit: self.is_physical(),
            ..self
        }
    }

    /// The same, of what came with a guest's own tag.
    #[must_use]
    pub fn tagged(self, tag: Option<u16>) -> Self {
        Self { tag, ..self }
    }

    /// Whether this mistake is planted.
    #[must_use]
    pub fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether the packet came out of a tunnel.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.port.is_none() && (self.transit || !self.is_physical())
    }

    /// Whether it came from the uplink.
    #[must_use]
    pub fn is_uplink(&self) -> bool {
        self.port.is_none() && !self.transit && self.is_physical()
    }

    /// Whether frames of the packet's network leave through an interface of the host.
    #[must_use]
    pub fn is_physical(&self) -> bool {
        crate::topology::is_physical(self.snapshot, self.network_id)
    }
}

/// What a frame is inside of its tunnel or tag, and where that enters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entered<'a> {
    /// A port, or the network of an uplink or tunnel.
    pub ingress: Ingress,
    /// The frame.
    pub frame: Cow<'a, [u8]>,
    /// The guest's own tag that it had there.
    pub tag: Option<u16>,
}

impl<'a> Entered<'a> {
    /// A frame without a tag of its own.
    #[must_use]
    pub fn plain(ingress: Ingress, frame: Cow<'a, [u8]>) -> Self {
        let tag = None;
        Self {
            ingress,
            frame,
            tag,
        }
    }

    /// The same without the guest's own tag, if it is on this network and may have one.
    #[must_use]
    pub fn untagged(self, snapshot: &HostSnapshot, network_id: NetworkId) -> Self {
        match guest_vlan::take(snapshot, network_id, &self.frame) {
            Some((tci, frame)) => Self {
                frame: Cow::Owned(frame),
                tag: Some(tci),
                ..self
            },
            None => self,
        }
    }
}

/// Takes a frame out of its tunnel or tag; none if it is the host's own.
///
/// # Errors
/// The reason to drop it.
pub fn enter<'a>(
    snapshot: &HostSnapshot,
    ingress: Ingress,
    frame: &'a [u8],
    mutant: Option<Mutant>,
) -> Result<Option<Entered<'a>>, DropReason> {
    Ok(match ingress {
        Ingress::Underlay => match tunnel::decapsulate(snapshot, frame, mutant)? {
            tunnel::Outer::Pass => None,
            tunnel::Outer::Inner(id, inner) => {
                let entered = Entered::plain(Ingress::Network(id), Cow::Borrowed(inner));
                // Transits carry no tags.
                Some(match crate::topology::is_physical(snapshot, id) {
                    true => entered,
                    false => entered.untagged(snapshot, id),
                })
            }
        },
        Ingress::Network(id) if crate::topology::is_physical(snapshot, id) => {
            vlan::entered(snapshot, id, frame, mutant)
        }
        Ingress::Port(id) => Some(vlan::port_entered(snapshot, id, frame, mutant)?),
        Ingress::Network(_) => Some(Entered::plain(ingress, Cow::Borrowed(frame))),
    })
}
