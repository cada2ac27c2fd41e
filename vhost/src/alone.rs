//! The switch alone: a snapshot's ports on sockets, without a control plane and without the kernel engine.
//!
//! Guarantees: a port without a socket is not there; a socket that cannot be opened is refused by name before anything
//! runs. When it is dropped, front-ends are disconnected and the sockets removed.

use crate::engine::{EngineConfig, Limits, Seeds};
use crate::protocol::{Endpoint, Server, ServerHandle, feature};
use crate::queue::PortQueues;
use crate::socket_file::folder_make;
use crate::worker::{PortCounters, PortTotals, Switch, SwitchConfig, SwitchError};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use weft_model::{HostSnapshot, MacAddress, PortId, PortInterface, VhostUserMode};

/// The name of the socket that leads to other hosts.
pub const UNDERLAY: &str = "underlay";

/// Why a switch could not start.
#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    /// No port of the snapshot has this id or name.
    #[error("--socket {0}=…: the snapshot has no port of this id or dns_name")]
    Port(String),
    /// A port has two sockets.
    #[error("--socket {0}=…: its port was given a socket already; a port has one")]
    Twice(String),
    /// No port has a socket.
    #[error("no port of the snapshot has a vhost-user socket; give them by --socket PORT=PATH")]
    NoSocket,
    /// A socket cannot be opened.
    #[error("cannot use the vhost-user socket {}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing leads to other hosts.
    #[error(
        "the link to other hosts: the snapshot has no tunnel address of this host (tunnel_hosts)"
    )]
    NoTunnelAddress,
    /// Two links to other hosts.
    #[error("the link to other hosts is an interface or a socket, not both")]
    TwoLinks,
    /// Two ports have one socket.
    #[error("{}: the socket of two ports; each port needs one of its own", .0.display())]
    Shared(PathBuf),
    /// A thread cannot be started, or not on its CPU.
    #[error(transparent)]
    Switch(#[from] SwitchError),
    /// The system refused something else.
    #[error("cannot start the switch")]
    Start(#[from] io::Error),
}

/// What runs.
#[derive(Clone, Debug)]
pub struct AloneConfig {
    /// Sockets to listen on, by a port's id or `dns_name`; their folders are made. Ports whose interface is a socket have that one without. One named
    /// [`UNDERLAY`] is that of the link to other hosts.
    pub sockets: Vec<(String, PathBuf)>,
    /// The link to other hosts, if it is an interface: its MAC address and queues.
    pub link: Option<(MacAddress, Arc<PortQueues>)>,
    /// The workers' CPUs; without any there is one worker, anywhere.
    pub cpus: Vec<usize>,
    /// Sizes of the session table.
    pub limits: Limits,
    /// Where sessions are kept for the switch that comes after, if they are.
    pub sessions_file: Option<PathBuf>,
}

/// The MAC address of this host's end of the underlay: a local one that is another one for each tunnel address of a link.
fn underlay_mac(address: IpAddr) -> MacAddress {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let octets = address.octets();
            let (words, _) = octets.as_chunks::<4>();
            let all = words.iter().map(|word| u32::from_be_bytes(*word));
            all.fold(0, |all, word| all ^ word).to_be_bytes()
        }
    };
    MacAddress([0x02, 0x57, a, b, c, d])
}

/// A port of a switch that runs alone.
#[derive(Clone, Debug)]
pub struct AlonePort {
    /// Its socket, from the root.
    pub path: PathBuf,
    /// Its queues.
    pub queues: Arc<PortQueues>,
    counters: Arc<PortCounters>,
}

/// A switch that runs alone.
#[derive(Debug)]
pub struct Alone {
    // Dropped in this order: front-ends first.
    server: ServerHandle,
    switch: Switch,
    ports: BTreeMap<PortId, AlonePort>,
    underlay: Option<Arc<PortCounters>>,
}

/// Where front-ends are met.
struct Sockets {
    endpoints: BTreeMap<PortId, Endpoint>,
    /// The link to other hosts, if it is a socket.
    underlay: Option<(MacAddress, Endpoint)>,
}

impl Sockets {
    /// What the snapshot and the command line say together.
    fn of(snapshot: &HostSnapshot, config: &AloneConfig) -> Result<Self, AloneError> {
        let mut endpoints: BTreeMap<PortId, Endpoint> = BTreeMap::new();
        for (id, port) in &snapshot.ports {
            if let PortInterface::VhostUser { socket, mode } = &port.interface {
                endpoints.insert(*id, endpoint(socket.into(), *mode));
            }
        }
        let (mut underlay, mut given) = (None, BTreeSet::new());
        if config.link.is_some() {
            snapshot.tunnel_ip().ok_or(AloneError::NoTunnelAddress)?;
        }
        for (name, path) in &config.sockets {
            if name == UNDERLAY && config.link.is_some() {
                return Err(AloneError::TwoLinks);
            }
            if name == UNDERLAY {
                if underlay.is_some() {
                    return Err(AloneError::Twice(name.clone()));
                }
                let address = snapshot.tunnel_ip();
                let mac = underlay_mac(address.ok_or(AloneError::NoTunnelAddress)?);
                let link = Endpoint {
                    offered: feature::OFFERED_PLAIN,
                    ..endpoint(path.clone(), VhostUserMode::Client)
                };
                underlay = Some((mac, link));
                continue;
            }
            let found = snapshot.ports.iter().find(|(id, port)| {
                id.to_string() == *name || (port.dns_name == *name && !name.is_empty())
            });
            let (id, _) = found.ok_or_else(|| AloneError::Port(name.clone()))?;
            if !given.insert(*id) {
                return Err(AloneError::Twice(name.clone()));
            }
            endpoints.insert(*id, endpoint(path.clone(), VhostUserMode::Client));
        }
        if endpoints.is_empty() {
            return Err(AloneError::NoSocket);
        }
        let mut paths = BTreeSet::new();
        let mut all = endpoints
            .values()
            .chain(underlay.iter().map(|(_, link)| link));
        if let Some(twice) = all.find(|e| !paths.insert(&e.path)) {
            return Err(AloneError::Shared(twice.path.clone()));
        }
        Ok(Self {
            endpoints,
            underlay,
        })
    }
}

impl Alone {
    /// Starts it.
    ///
    /// # Errors
    /// A port or socket is wrong, or the system refused a thread.
    pub fn start(snapshot: &Arc<HostSnapshot>, config: &AloneConfig) -> Result<Self, AloneError> {
        let Sockets {
            endpoints,
            underlay,
        } = Sockets::of(snapshot, config)?;
        let switch = Switch::start(&SwitchConfig {
            engine: EngineConfig {
                limits: config.limits,
                seeds: seeds()?,
            },
            cpus: config.cpus.clone(),
            hand_over: None,
            shared: false,
            sessions_file: config.sessions_file.clone(),
        })?;
        switch.apply(snapshot);
        for (_, path) in &config.sockets {
            let path = path.clone();
            folder_make(&path).map_err(|source| AloneError::Socket { path, source })?;
        }
        let server = Server::start()?;
        let mut ports = BTreeMap::new();
        let link = config.link.as_ref();
        let mut of_underlay = link.map(|(mac, queues)| switch.underlay_add(*mac, queues));
        if let Some((mac, link)) = underlay {
            let (queues, path) = (Arc::clone(&link.queues), link.path.clone());
            of_underlay = Some(switch.underlay_add(mac, &queues));
            let added = server.add(link);
            added.map_err(|source| AloneError::Socket { path, source })?;
        }
        for (id, endpoint) in endpoints {
            let (queues, path) = (Arc::clone(&endpoint.queues), endpoint.path.clone());
            let port = AlonePort {
                path: std::path::absolute(&path).unwrap_or_else(|_same| path.clone()),
                counters: switch.port_add(id, &queues),
                queues,
            };
            ports.insert(id, port);
            let added = server.add(endpoint);
            added.map_err(|source| AloneError::Socket { path, source })?;
        }
        Ok(Self {
            server,
            switch,
            ports,
            underlay: of_underlay,
        })
    }

    /// Enforces another snapshot; ports keep the sockets that they had at the start.
    pub fn apply(&self, snapshot: &Arc<HostSnapshot>) {
        self.switch.apply(snapshot);
    }

    /// The ports' counters now.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<PortId, PortTotals> {
        let ports = self.ports.iter();
        ports
            .map(|(id, port)| (*id, port.counters.totals()))
            .collect()
    }

    /// A port that has a socket.
    #[must_use]
    pub fn port(&self, id: PortId) -> Option<&AlonePort> {
        self.ports.get(&id)
    }

    /// Those of the link to other hosts, if it has one.
    #[must_use]
    pub fn underlay_totals(&self) -> Option<PortTotals> {
        self.underlay.as_ref().map(|counters| counters.totals())
    }

    /// The switch.
    #[must_use]
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The server of its sockets.
    #[must_use]
    pub fn server(&self) -> &ServerHandle {
        &self.server
    }
}

fn endpoint(path: PathBuf, mode: VhostUserMode) -> Endpoint {
    Endpoint {
        path,
        mode,
        offered: feature::OFFERED,
        queues: Arc::new(PortQueues::default()),
    }
}

/// Secrets from the kernel.
///
/// # Errors
/// The kernel gave none.
pub fn seeds() -> io::Result<Seeds> {
    let mut bytes = [0u8; 32];
    let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if read < bytes.len() {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let (words, _) = bytes.as_chunks::<8>();
    let mut seeds = [0; 4];
    for (seed, word) in seeds.iter_mut().zip(words) {
        *seed = u64::from_le_bytes(*word);
    }
    Ok(Seeds(seeds))
}
