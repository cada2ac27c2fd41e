//! The engine's counters and sessions as the control socket tells them.

use crate::service::{Millis, ServiceCounters};
use crate::socket::{
    DropCount, FiveTuple, MeteringStats, NetworkStats, PortStats, Session, Stats, TraceIngress,
    Traffic, UnderlayStats,
};
use std::collections::BTreeMap;
use weft_ebpf::{Counters, DeviceCounters, Ingress, SessionState, SessionView};
use weft_model::{DropReason, HostSnapshot, PortInterface, VhostUserMode};

/// A port's device or socket.
pub(crate) fn interface_name(interface: &PortInterface) -> String {
    match interface {
        PortInterface::Tap { name } => name.clone(),
        PortInterface::VhostUser { socket, .. } => socket.clone(),
        PortInterface::Subport { parent, vlan_id } => format!("{parent}.{vlan_id}"),
    }
}

/// Who listens, if it is a vhost-user socket.
pub(crate) fn vhost_user_mode(interface: &PortInterface) -> Option<VhostUserMode> {
    match interface {
        PortInterface::VhostUser { mode, .. } => Some(*mode),
        PortInterface::Tap { .. } | PortInterface::Subport { .. } => None,
    }
}

/// All counters.
pub(crate) fn stats(
    counters: &Counters,
    snapshot: Option<&HostSnapshot>,
    sessions: usize,
    services: ServiceCounters,
) -> Stats {
    let mut total = Traffic::default();
    let mut all: BTreeMap<DropReason, u64> = BTreeMap::new();
    for device in counters.ports.values().chain(counters.networks.values()) {
        let traffic = traffic(device);
        total.rx_packets += traffic.rx_packets;
        total.rx_bytes += traffic.rx_bytes;
        total.tx_packets += traffic.tx_packets;
        total.tx_bytes += traffic.tx_bytes;
        for (reason, packets) in &device.drops {
            *all.entry(*reason).or_default() += packets;
        }
    }
    for (reason, packets) in &counters.underlay.drops {
        *all.entry(*reason).or_default() += packets;
    }
    let ports = counters.ports.iter().map(|(id, device)| PortStats {
        port_id: *id,
        interface: snapshot
            .and_then(|s| s.ports.get(id))
            .map(|port| interface_name(&port.interface))
            .unwrap_or_default(),
        traffic: traffic(device),
        drops: drops(&device.drops),
    });
    let networks = counters.networks.iter().map(|(id, device)| NetworkStats {
        network_id: *id,
        traffic: traffic(device),
        drops: drops(&device.drops),
    });
    let metering = counters.metering_labels.iter();
    let metering = metering.map(|(id, metered)| MeteringStats {
        metering_label_id: *id,
        metered: *metered,
    });
    Stats {
        ports: ports.collect(),
        networks: networks.collect(),
        underlay: UnderlayStats {
            traffic: traffic(&counters.underlay),
            drops: drops(&counters.underlay.drops),
            xdp: None,
        },
        metering_labels: metering.collect(),
        total,
        drops: drops(&all),
        sessions: sessions as u64,
        services,
    }
}

fn traffic(device: &DeviceCounters) -> Traffic {
    Traffic {
        rx_packets: device.rx_packets,
        rx_bytes: device.rx_bytes,
        tx_packets: device.tx_packets,
        tx_bytes: device.tx_bytes,
    }
}

fn drops(counts: &BTreeMap<DropReason, u64>) -> Vec<DropCount> {
    counts
        .iter()
        .map(|(reason, packets)| DropCount {
            reason: *reason,
            stage: reason.stage(),
            packets: *packets,
            sentence: reason.sentence().to_owned(),
        })
        .collect()
}

fn place(ingress: Ingress) -> TraceIngress {
    match ingress {
        Ingress::Port(id) => TraceIngress::Port(id),
        Ingress::Network(id) => TraceIngress::Network(id),
    }
}

/// The number of a VLAN of guests' own: the engines say in higher bits what else they tell apart. None for no VLAN.
pub(crate) fn vlan_id(vlan: u16) -> Option<u16> {
    let id = vlan & 0x0fff;
    (id != 0).then_some(id)
}

/// One session; `now` is on the same clock as the engine's seconds.
pub(crate) fn session(view: &SessionView, now: Millis) -> Session {
    let tuple = FiveTuple {
        protocol: view.protocol,
        source: view.source.0,
        destination: view.destination.0,
        source_port: view.source.1,
        destination_port: view.destination.1,
    };
    let translated = FiveTuple {
        protocol: view.protocol,
        source: view.source_translated.0,
        destination: view.destination_translated.0,
        source_port: view.source_translated.1,
        destination_port: view.destination_translated.1,
    };
    let idle = (now / 1_000).saturating_sub(u64::from(view.seen_s));
    Session {
        ingress: place(view.ingress),
        egress: Some(place(view.output)),
        tuple,
        vlan: vlan_id(view.vlan),
        translated: (translated != tuple).then_some(translated),
        state: match view.state {
            SessionState::Opening => "opening",
            SessionState::Established => "established",
            SessionState::Closing => "closing",
        }
        .to_owned(),
        idle_s: u32::try_from(idle).unwrap_or(u32::MAX),
        packets: view.packets + view.reply_packets,
        bytes: view.bytes + view.reply_bytes,
    }
}
