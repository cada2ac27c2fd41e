//! The user engine of this host: started with the first vhost-user port, its sockets kept as the snapshot says.
//!
//! It judges what goes from one vhost-user port to another; a tap for each port, its way out, is what the kernel engine sees
//! of the others' traffic (docs/adr/0011-one-engine-a-flow.md).
//!
//! Guarantees: a port that cannot be served is told with the reason and keeps no other from being served; sockets that a
//! snapshot no longer names are removed. It compiles policies on the caller's thread and copies no packet.

use crate::report::Device;
use crate::service::{EventKind, Place, ServiceEvent};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;
use weft_dataplane::{Copy, Decision, Service, State};
use weft_ebpf::sys::tap_open;
use weft_ebpf::{Counters, DeviceCounters, Ingress, SessionState, SessionView};
use weft_model::{
    HostSnapshot, MacAddress, NetworkId, PortId, PortInterface, VhostUserMode, limits,
};
use weft_vhost::alone::seeds;
use weft_vhost::engine::{EngineConfig, Limits};
use weft_vhost::protocol::{Endpoint, Server, ServerHandle, feature};
use weft_vhost::queue::PortQueues;
use weft_vhost::worker::{Handed, PortCounters, PortTotals, Switch, SwitchConfig, Tap};

/// Decisions that wait to be written down; more are not.
const DECISIONS_MAX: usize = 4_096;

/// How the user engine is set up.
#[derive(Clone, Debug)]
pub(crate) struct UserConfig {
    pub(crate) limits: Limits,
    /// The CPUs that it polls on; without any it is one thread, anywhere.
    pub(crate) cpus: Vec<usize>,
    /// Where sessions are kept over a restart, if they are.
    pub(crate) sessions_file: Option<PathBuf>,
}

/// The engine, or what it would be.
pub(crate) struct UserEngine {
    config: UserConfig,
    events: mpsc::Sender<ServiceEvent>,
    /// What is to be written down.
    decided: mpsc::Sender<Decision>,
    decisions: mpsc::Receiver<Decision>,
    running: Option<Running>,
    /// Why ports are not served.
    errors: BTreeMap<PortId, String>,
}

/// The threads and what they serve.
struct Running {
    // Dropped in this order: front-ends first.
    server: ServerHandle,
    switch: Switch,
    ports: BTreeMap<PortId, Served>,
}

struct Served {
    path: PathBuf,
    mode: VhostUserMode,
    queues: Arc<PortQueues>,
    counters: Arc<PortCounters>,
}

impl Running {
    fn start(
        config: &UserConfig,
        events: mpsc::Sender<ServiceEvent>,
        decided: mpsc::Sender<Decision>,
    ) -> Result<Self, String> {
        let sentence = |error: &dyn std::error::Error| crate::host::sentence(error);
        let switch = Switch::start(&SwitchConfig {
            engine: EngineConfig {
                limits: config.limits,
                seeds: seeds().map_err(|error| sentence(&error))?,
            },
            cpus: config.cpus.clone(),
            hand_over: Some(Arc::new(move |ingress, handed, frame| {
                if let Handed::Decision(decision) = handed {
                    return decided.try_send(decision).is_ok();
                }
                let event = service_event(ingress, handed, frame);
                event.is_some_and(|event| events.try_send(event).is_ok())
            })),
            shared: true,
            sessions_file: config.sessions_file.clone(),
        });
        Ok(Self {
            server: Server::start().map_err(|error| sentence(&error))?,
            switch: switch.map_err(|error| sentence(&error))?,
            ports: BTreeMap::new(),
        })
    }
}

impl UserEngine {
    /// Nothing runs before a snapshot has a vhost-user port. What guests ask for goes to `events`.
    pub(crate) fn new(config: UserConfig, events: mpsc::Sender<ServiceEvent>) -> Self {
        let (decided, decisions) = mpsc::channel(DECISIONS_MAX);
        Self {
            config,
            events,
            decided,
            decisions,
            running: None,
            errors: BTreeMap::new(),
        }
    }

    /// Enforces a snapshot, which must be valid, and serves its sockets.
    pub(crate) fn apply(&mut self, snapshot: &Arc<HostSnapshot>) {
        let wanted: BTreeMap<PortId, (PathBuf, VhostUserMode)> = snapshot
            .ports
            .iter()
            .filter_map(|(id, port)| match &port.interface {
                PortInterface::VhostUser { socket, mode } => Some((*id, (socket.into(), *mode))),
                _ => None,
            })
            .collect();
        self.errors.clear();
        if self.running.is_none() && !wanted.is_empty() {
            match Running::start(&self.config, self.events.clone(), self.decided.clone()) {
                Ok(running) => self.running = Some(running),
                Err(error) => {
                    tracing::error!("the user engine does not start: {error}");
                    let all = wanted.keys().map(|id| (*id, error.clone()));
                    self.errors = all.collect();
                }
            }
        }
        let Some(running) = &mut self.running else {
            return;
        };
        let stays = |id: &PortId, served: &Served| {
            let same = wanted.get(id);
            same.is_some_and(|(path, mode)| (path, *mode) == (&served.path, served.mode))
        };
        let (server, switch) = (&running.server, &running.switch);
        running.ports.retain(|id, served| {
            let stays = stays(id, served);
            if !stays {
                server.remove(&served.path);
                switch.port_remove(*id);
            }
            stays
        });
        running.switch.apply(snapshot);
        for (id, (path, mode)) in wanted {
            if running.ports.contains_key(&id) {
                continue;
            }
            let queues = Arc::new(PortQueues::default());
            let endpoint = Endpoint {
                path: path.clone(),
                mode,
                queues: Arc::clone(&queues),
                offered: feature::OFFERED,
            };
            let device = snapshot.ports.get(&id).and_then(|port| port.device(id));
            let device = device.unwrap_or_default();
            let way_out = match tap_open(&device) {
                Ok(way_out) => way_out,
                Err(error) => {
                    let error = format!("cannot make the tap {device}, its way out: {error}");
                    tracing::error!(port = %id, "{error}");
                    self.errors.insert(id, error);
                    continue;
                }
            };
            if let Err(error) = running.server.add(endpoint) {
                let error = format!("{}: {error}", path.display());
                tracing::error!(port = %id, "the vhost-user socket cannot be used: {error}");
                self.errors.insert(id, error);
                continue;
            }
            let counters = running.switch.port_add(id, &queues);
            running.switch.way_out(id, way_out);
            let served = Served {
                path,
                mode,
                queues,
                counters,
            };
            running.ports.insert(id, served);
        }
    }

    /// What its ports' security groups decided since the last time, of what a log is to have.
    pub(crate) fn decisions(&mut self) -> Vec<Decision> {
        std::iter::from_fn(|| self.decisions.try_recv().ok()).collect()
    }

    /// Whether a port is served.
    pub(crate) fn port_attached(&self, id: PortId) -> bool {
        self.device(id) == Device::Attached
    }

    /// What is known of a port's socket.
    pub(crate) fn device(&self, id: PortId) -> Device {
        if let Some(error) = self.errors.get(&id) {
            return Device::Failed(error.clone());
        }
        let served = self.running.as_ref().and_then(|r| r.ports.get(&id));
        match served.map(|served| served.queues.shut_reason()) {
            None => Device::Missing,
            Some(None) => Device::Attached,
            Some(Some(reason)) => Device::Failed(format!("the guest broke its rings: {reason}")),
        }
    }

    /// Sends a frame to a guest; false if it is none of ours.
    pub(crate) fn send(&self, id: PortId, frame: &[u8]) -> bool {
        let running = self.running.as_ref();
        let running = running.filter(|running| running.ports.contains_key(&id));
        if let Some(running) = running {
            running.switch.send(id, frame.to_vec());
        }
        running.is_some()
    }

    /// Shows a port's frames to `tap` from now on; false if it is none of ours.
    pub(crate) fn tap(&self, id: PortId, number: u64, tap: &Tap) -> bool {
        let running = self.running.as_ref();
        let running = running.filter(|running| running.ports.contains_key(&id));
        if let Some(running) = running {
            running.switch.tap_add(id, number, tap);
        }
        running.is_some()
    }

    /// Shows them no more.
    pub(crate) fn untap(&self, number: u64) {
        if let Some(running) = &self.running {
            running.switch.tap_remove(number);
        }
    }

    /// A neighbour on a physical network has this MAC address, or is gone.
    pub(crate) fn neighbour_set(&self, network: NetworkId, ip: IpAddr, mac: Option<MacAddress>) {
        if let Some(running) = &self.running {
            running.switch.ask(move |engine| match mac {
                Some(mac) => engine.neighbour_put(network, ip, mac),
                None => engine.neighbour_delete(network, ip),
            });
        }
    }

    /// Adds the counters of its ports. What the kernel engine has counted of one is part of it, but for its drops.
    pub(crate) fn count(&self, counters: &mut Counters) {
        for (id, served) in self.running.iter().flat_map(|running| &running.ports) {
            let mut device = device_counters(served.counters.totals());
            let there = counters.ports.get(id).map(|counters| &counters.drops);
            for (reason, count) in there.into_iter().flatten() {
                *device.drops.entry(*reason).or_default() += count;
            }
            counters.ports.insert(*id, device);
        }
    }

    /// At most so many of its sessions, with times on the agent's clock.
    pub(crate) fn sessions(&self, limit: usize) -> Vec<SessionView> {
        let Some(running) = &self.running else {
            return Vec::new();
        };
        sessions_of(&running.switch, limit)
    }
}

/// What was counted of a port, as the kernel engine says it.
pub(crate) fn device_counters(totals: PortTotals) -> DeviceCounters {
    let PortTotals {
        rx_packets,
        rx_bytes,
        tx_packets,
        tx_bytes,
        drops,
    } = totals;
    DeviceCounters {
        rx_packets,
        rx_bytes,
        tx_packets,
        tx_bytes,
        drops,
    }
}

/// At most so many sessions of a switch. Its clock is the agent's: it began with the machine.
pub(crate) fn sessions_of(switch: &Switch, limit: usize) -> Vec<SessionView> {
    let views = switch.ask(move |engine| engine.sessions().take(limit).collect::<Vec<_>>());
    let views = views.unwrap_or_default().into_iter();
    views.filter_map(|view| session(&view)).collect()
}

/// None for one that comes by a tunnel, to which this engine has no device.
fn session(view: &weft_vhost::engine::SessionView) -> Option<SessionView> {
    let (forward, behind) = (&view.forward, view.reply.reversed());
    let output = ingress(view.output)?;
    Some(SessionView {
        ingress: ingress(view.ingress)?,
        output,
        reply_ingress: output,
        vlan: forward.vlan.0,
        protocol: forward.protocol,
        source: (forward.source, forward.source_port),
        destination: (forward.destination, forward.destination_port),
        source_translated: (behind.source, behind.source_port),
        destination_translated: (behind.destination, behind.destination_port),
        state: match view.state {
            State::Opening => SessionState::Opening,
            State::Established => SessionState::Established,
            State::Closing => SessionState::Closing,
        },
        seen_s: view.seen_s,
        packets: view.packets,
        bytes: view.bytes,
        reply_packets: view.reply_packets,
        reply_bytes: view.reply_bytes,
    })
}

fn ingress(ingress: weft_dataplane::Ingress) -> Option<Ingress> {
    match ingress {
        weft_dataplane::Ingress::Port(id) => Some(Ingress::Port(id)),
        weft_dataplane::Ingress::Network(id) => Some(Ingress::Network(id)),
        weft_dataplane::Ingress::Underlay => None,
    }
}

/// What the services are told of a frame; nothing for what only an uplink would need.
fn service_event(
    ingress: weft_dataplane::Ingress,
    handed: Handed,
    frame: &[u8],
) -> Option<ServiceEvent> {
    let (kind, mtu) = match handed {
        Handed::Service(Service::Dhcp) => (EventKind::Dhcp, 0),
        Handed::Service(Service::Dhcpv6) => (EventKind::Dhcpv6, 0),
        Handed::Service(Service::Ra) => (EventKind::Ra, 0),
        Handed::Service(Service::Neighbour) | Handed::Copy(Copy::Neighbour) => {
            (EventKind::Neighbour, 0)
        }
        Handed::Service(Service::Claim) | Handed::Copy(Copy::Claim) => (EventKind::Claim, 0),
        Handed::Copy(Copy::TtlExceeded) => (EventKind::TtlExceeded, 0),
        Handed::Copy(Copy::MtuExceeded(mtu)) => (EventKind::MtuExceeded, mtu),
        Handed::Copy(Copy::NeighbourNeeded(_)) | Handed::Decision(_) => return None,
    };
    let bytes = frame.len().min(limits::SERVICE_FRAME_BYTES_MAX);
    Some(ServiceEvent {
        kind,
        ingress: match ingress {
            weft_dataplane::Ingress::Port(id) => Place::Port(id),
            weft_dataplane::Ingress::Network(id) => Place::Network(id),
            weft_dataplane::Ingress::Underlay => return None,
        },
        needed: None,
        mtu,
        cut: frame.len() > bytes,
        frame: frame.get(..bytes).unwrap_or_default().to_vec(),
    })
}
