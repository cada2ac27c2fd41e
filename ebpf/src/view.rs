//! What can be read of a running engine: counters and sessions.

use crate::compile::address_ip;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::event::{Ingress, ingress};
use crate::sys::ProgInfo;
use std::collections::BTreeMap;
use std::net::IpAddr;
use weft_ebpf_common::constants::{session, slot, state};
use weft_ebpf_common::layout::{DropCounts, Session, SessionKey, Traffic};
use weft_model::{DropReason, Metered, MeteringLabelId, NetworkId, PortId};
use zerocopy::FromBytes;

/// Packets and bytes of one port or uplink, and what of it was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Packets that came from it.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Packets that were sent to it, answers to ARP and ND included.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// What came from it and was dropped, by reason; only what was seen.
    pub drops: BTreeMap<DropReason, u64>,
}

/// All counters. They grow as long as the port or network is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Of guests' ports.
    pub ports: BTreeMap<PortId, DeviceCounters>,
    /// Of the uplinks of physical networks.
    pub networks: BTreeMap<NetworkId, DeviceCounters>,
    /// Of the underlay: what was tunnelled, with its outer headers.
    pub underlay: DeviceCounters,
    /// Of metering labels.
    pub metering_labels: BTreeMap<MeteringLabelId, Metered>,
}

/// A session's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Only the opener's direction was seen.
    Opening,
    /// Both were.
    Established,
    /// A FIN or RST was seen.
    Closing,
}

/// A session, as its opener's entry tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Where the opener's packets come in.
    pub ingress: Ingress,
    /// Where they go out.
    pub output: Ingress,
    /// Where replies come in: there too, unless they come from another host.
    pub reply_ingress: Ingress,
    /// The VLAN of the guests' own, with `guest_vlan::*`, or 0.
    pub vlan: u16,
    /// IP protocol.
    pub protocol: u8,
    /// The opener's address and port (ICMP: the identifier).
    pub source: (IpAddr, u16),
    /// Whom it speaks to.
    pub destination: (IpAddr, u16),
    /// Address and port that the opener is seen with.
    pub source_translated: (IpAddr, u16),
    /// Where it really leads.
    pub destination_translated: (IpAddr, u16),
    /// State.
    pub state: SessionState,
    /// Seconds of the clock of the newest packet, of either direction.
    pub seen_s: u32,
    /// Packets of the opener's direction.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets of the other direction.
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
}

impl Engine {
    /// The stages' programs and what the kernel says of them, by name.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn programs(&self) -> Result<BTreeMap<&'static str, ProgInfo>, EngineError> {
        let programs = self.loaded.programs.iter();
        programs
            .map(|(name, program)| Ok((*name, program.info()?)))
            .collect()
    }

    /// All counters.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn counters(&self) -> Result<Counters, EngineError> {
        let mut counters = Counters::default();
        for (id, slot) in self.slots.ports.iter() {
            counters
                .ports
                .insert(id, self.device_counters(slot + slot::UPLINKS_MAX)?);
        }
        for (id, slot) in self.slots.uplinks.iter() {
            counters.networks.insert(id, self.device_counters(slot)?);
        }
        counters.underlay = self.device_counters(slot::UNDERLAY)?;
        counters.metering_labels = self.metered()?;
        Ok(counters)
    }

    fn device_counters(&self, index: u32) -> Result<DeviceCounters, EngineError> {
        let key = index.to_ne_bytes();
        let mut counters = DeviceCounters::default();
        let traffic = self.loaded.maps.traffics.lookup(&key)?.unwrap_or_default();
        for cpu in traffic.chunks_exact(size_of::<Traffic>()) {
            let Ok(cpu) = Traffic::read_from_bytes(cpu) else {
                continue;
            };
            counters.rx_packets += cpu.rx_packets;
            counters.rx_bytes += cpu.rx_bytes;
            counters.tx_packets += cpu.tx_packets;
            counters.tx_bytes += cpu.tx_bytes;
        }
        let drops = self.loaded.maps.drops.lookup(&key)?.unwrap_or_default();
        if let Ok(drops) = DropCounts::read_from_bytes(&drops) {
            let seen = DropReason::ALL
                .iter()
                .map(|r| (*r, drops.reasons[usize::from(r.number())]));
            counters.drops.extend(seen.filter(|(_, count)| *count > 0));
        }
        Ok(counters)
    }

    /// Up to `limit` sessions, in no order.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn sessions(&self, limit: usize) -> Result<Vec<SessionView>, EngineError> {
        let map = &self.loaded.maps.sessions;
        let mut views = Vec::new();
        let mut key: Option<Vec<u8>> = None;
        // An entry that goes away while we stand on it makes the kernel start anew: bound the walk.
        for _entry in 0..self.config.sessions_max.saturating_mul(2) {
            let Some(next) = map.next_key(key.as_deref())? else {
                break;
            };
            if views.len() >= limit {
                break;
            }
            if let Some(value) = map.lookup(&next)? {
                views.extend(self.session_view(&next, &value)?);
            }
            key = Some(next);
        }
        Ok(views)
    }

    /// The view of a forward entry; none of a reply's.
    fn session_view(&self, key: &[u8], value: &[u8]) -> Result<Option<SessionView>, EngineError> {
        let (Ok(k), Ok(v)) = (
            SessionKey::read_from_bytes(key),
            Session::read_from_bytes(value),
        ) else {
            return Ok(None);
        };
        let [from, to, back] =
            [k.ingress, v.output, v.other_ingress].map(|n| ingress(n, &self.slots));
        let (true, Some(from), Some(to), Some(back)) =
            (v.flags & session::FORWARD != 0, from, to, back)
        else {
            return Ok(None);
        };
        let reply = SessionKey {
            ingress: v.other_ingress,
            source: v.destination,
            destination: v.source,
            source_port: v.destination_port,
            destination_port: v.source_port,
            protocol: k.protocol,
            family: k.family,
            vlan: k.vlan,
        };
        let reply = self
            .loaded
            .maps
            .sessions
            .lookup(zerocopy::IntoBytes::as_bytes(&reply))?;
        let reply = reply.and_then(|r| Session::read_from_bytes(&r).ok());
        let end = |address, port| (address_ip(k.family, address), u16::from_be(port));
        Ok(Some(SessionView {
            ingress: from,
            output: to,
            reply_ingress: back,
            vlan: k.vlan,
            protocol: k.protocol,
            source: end(k.source, k.source_port),
            destination: end(k.destination, k.destination_port),
            source_translated: end(v.source, v.source_port),
            destination_translated: end(v.destination, v.destination_port),
            state: match v.state {
                state::ESTABLISHED => SessionState::Established,
                state::CLOSING => SessionState::Closing,
                _ => SessionState::Opening,
            },
            seen_s: reply.map_or(v.seen_s, |r| r.seen_s.max(v.seen_s)),
            packets: v.packets,
            bytes: v.bytes,
            reply_packets: reply.map_or(0, |r| r.packets),
            reply_bytes: reply.map_or(0, |r| r.bytes),
        }))
    }
}
