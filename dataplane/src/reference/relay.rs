//! What hosts hand each other of an external network, in the reference engine. docs/pipeline.md, section 8.

use super::{Notes, Packets, Reference};
use crate::flow::session::Tunnel;
use crate::stage::decode::{Body, IpPacket, Packet};
use crate::stage::transit::{self, Outbound};
use crate::stage::{session, tunnel};
use crate::trace::{Copy, Verdict};
use weft_model::{DropReason, MacAddress, Stage};

impl Reference {
    /// What another host left to this one, to bring it outside; none for all others.
    pub(super) fn outbound(
        &mut self,
        on: &Packets<'_>,
        packet: &mut Packet,
        notes: &mut Notes,
    ) -> Result<Option<Outbound>, DropReason> {
        let Body::Ip(ip) = &mut packet.body else {
            return Err(DropReason::EngineError);
        };
        if !on.sight.transit || !packet.destination_mac.is_zero() {
            return Ok(None);
        }
        let known = session::fragment_follow(&on.sight, &mut self.fragments, ip);
        known.map_err(|_unknown| DropReason::DestinationMacUnknown)?;
        let inside = transit::quoted(on.frame, ip);
        let way = transit::outbound(
            &on.sight,
            packet.source_mac,
            ip,
            inside.as_ref(),
            &self.neighbours,
        )?;
        let words = format!("left here by another host, to bring it outside: {way:?}");
        notes.trace.say(Stage::Tunnel, words);
        Ok(Some(way))
    }

    pub(super) fn bring_outside(
        &mut self,
        on: &Packets<'_>,
        packet: &Packet,
        way: &Outbound,
        notes: &mut Notes,
    ) -> Result<Verdict, DropReason> {
        let Body::Ip(ip) = &packet.body else {
            return Err(DropReason::EngineError);
        };
        notes.tuple = Some(ip.tuple);
        match way {
            Outbound::Relay(mac, tunnel) => {
                self.relay(on, ip, tunnel, &with_destination(on.frame, *mac), notes)
            }
            Outbound::Uplink(mac, next_hop) => {
                if mac.is_zero() {
                    self.copy(on, notes, Copy::NeighbourNeeded(*next_hop));
                }
                Ok(Verdict::Uplink {
                    network: on.sight.network_id,
                    frame: with_destination(on.frame, *mac),
                })
            }
            Outbound::Here(_) => Err(DropReason::EngineError),
        }
    }

    /// To another host as it is.
    pub(super) fn relay(
        &mut self,
        on: &Packets<'_>,
        ip: &IpPacket,
        tunnel: &Tunnel,
        frame: &[u8],
        notes: &mut Notes,
    ) -> Result<Verdict, DropReason> {
        if ip.ip_bytes > usize::try_from(tunnel.mtu).unwrap_or(usize::MAX) {
            self.copy(on, notes, Copy::MtuExceeded(tunnel.mtu));
            return Err(DropReason::MtuExceeded);
        }
        let words = format!("to {} with VNI {}", tunnel.remote, tunnel.vni);
        notes.trace.say(Stage::Tunnel, words);
        Ok(Verdict::Tunnel {
            frame: tunnel::encapsulate(frame, tunnel, ip.tuple, on.sight.mutant),
        })
    }
}

/// The frame with this destination MAC.
pub(super) fn with_destination(frame: &[u8], mac: MacAddress) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    if let Ok(mut link) = weft_wire::ethernet::Frame::new_checked(&mut bytes[..]) {
        link.set_destination(mac.0);
    }
    bytes
}
