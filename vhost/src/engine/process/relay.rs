//! What hosts hand each other of an external network. docs/pipeline.md, section 8.
//!
//! Guarantees: it goes on as it came, but for its destination MAC; no session.

use super::{Beside, On};
use crate::engine::Engine;
use crate::engine::judge::packet_bytes;
use crate::engine::plan::At;
use weft_dataplane::flow::session::Tunnel;
use weft_dataplane::stage::decode::{Body, IpPacket, Packet};
use weft_dataplane::stage::transit::{self, Outbound};
use weft_dataplane::stage::{session, tunnel};
use weft_dataplane::{Copy, Verdict};
use weft_model::{DropReason, MacAddress};

impl Engine {
    /// What another host left to this one, to bring it outside; none for all others.
    pub(super) fn outbound(
        &mut self,
        on: &On<'_>,
        packet: &mut Packet,
    ) -> Result<Option<Outbound>, DropReason> {
        if !on.sight.transit || !packet.destination_mac.is_zero() {
            return Ok(None);
        }
        let Body::Ip(ip) = &mut packet.body else {
            return Err(DropReason::EngineError);
        };
        let known = session::fragment_follow(&on.sight, &mut self.fragments, ip);
        known.map_err(|_unknown| DropReason::DestinationMacUnknown)?;
        let (inside, mac) = (transit::quoted(on.frame, ip), packet.source_mac);
        let way = on
            .plan
            .outbound(on.network, mac, ip, inside.as_ref(), &self.neighbours)?;
        Ok(Some(way))
    }

    pub(super) fn bring_outside(
        &mut self,
        on: &On<'_>,
        packet: &Packet,
        way: &Outbound,
        beside: &mut Beside,
    ) -> Result<Verdict, DropReason> {
        let Body::Ip(ip) = &packet.body else {
            return Err(DropReason::EngineError);
        };
        match way {
            Outbound::Relay(mac, tunnel) => {
                let frame = with_destination(on.frame, *mac);
                self.hand_on(on, ip, (tunnel, &frame), beside)
            }
            Outbound::Uplink(mac, next_hop) => {
                if mac.is_zero() {
                    self.copy(on, beside, Copy::NeighbourNeeded(*next_hop));
                }
                Ok(Verdict::Uplink {
                    network: on.network.id,
                    frame: with_destination(on.frame, *mac),
                })
            }
            Outbound::Here(_) => Err(DropReason::EngineError),
        }
    }

    /// To another host as it is.
    pub(super) fn relay(
        &mut self,
        on: &On<'_>,
        ip: &IpPacket,
        tunnel: At,
        beside: &mut Beside,
    ) -> Result<Verdict, DropReason> {
        let tunnel = on.plan.tunnels.get(tunnel).copied();
        let tunnel = tunnel.ok_or(DropReason::EngineError)?;
        self.hand_on(on, ip, (&tunnel, on.frame), beside)
    }

    fn hand_on(
        &mut self,
        on: &On<'_>,
        ip: &IpPacket,
        (tunnel, frame): (&Tunnel, &[u8]),
        beside: &mut Beside,
    ) -> Result<Verdict, DropReason> {
        let bytes = packet_bytes(on.load, on.frame.len()).unwrap_or(ip.ip_bytes);
        if bytes > usize::try_from(tunnel.mtu).unwrap_or(usize::MAX) {
            self.copy(on, beside, Copy::MtuExceeded(tunnel.mtu));
            return Err(DropReason::MtuExceeded);
        }
        Ok(Verdict::Tunnel {
            frame: tunnel::encapsulate(frame, tunnel, ip.tuple, None),
        })
    }
}

/// The frame with this destination MAC.
pub(super) fn with_destination(frame: &[u8], mac: MacAddress) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    if let Some(destination) = bytes.first_chunk_mut() {
        *destination = mac.0;
    }
    bytes
}
