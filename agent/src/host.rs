//! The host as the agent sees it: the engine, the services, the interfaces, what is in force and what was said of it.
//! One method for each thing that can happen; [`crate::owner`] calls them in turn.

mod answer;
mod carrier;
mod watch;

use crate::decision_log;
use crate::links::{self, Links};
use crate::report::{self, Device, Reporter, Said};
use crate::service::{Action, EventKind, Millis, Place, ServiceEvent, Services};
use crate::user::UserEngine;
use crate::wire_socket::WireSocket;
use nix::errno::Errno;
use rtnetlink::Handle;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use weft_ebpf::{Carried, Engine, EngineError, Event, Ingress};
use weft_model::{
    Epoch, HostReport, HostSnapshot, NetworkId, Port, PortId, PortInterface, Revision, Unsupported,
    VhostUserHost, limits,
};

/// Between two rounds of garbage collection.
const EXPIRE_MS: Millis = 5_000;
/// Between two looks for policies that were compiled in the background.
const POLL_MS: Millis = 200;

/// A device that has Weft's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prepared {
    guest: bool,
    mtu: u32,
}

/// Everything that the engine's thread owns.
pub(crate) struct Host {
    engine: Engine,
    user: UserEngine,
    services: Services,
    wire: WireSocket,
    /// Physical networks' names and interfaces.
    physical_networks: BTreeMap<String, String>,
    /// The interface that leads to other hosts.
    underlay: Option<String>,
    links: Links,
    /// The same by name.
    indices: BTreeMap<String, u32>,
    /// The interfaces that the engine did not take, by name, and why.
    link_errors: BTreeMap<String, String>,
    /// Those that the kernel did not let it attach to: tried again.
    device_errors: BTreeMap<String, String>,
    prepared: BTreeMap<u32, Prepared>,
    /// How many captures there are, by interface.
    watched: BTreeMap<String, usize>,
    in_force: Option<Arc<HostSnapshot>>,
    received: Option<Arc<HostSnapshot>>,
    refused: Option<(Revision, String)>,
    unsupported: Vec<Unsupported>,
    attached: BTreeSet<PortId>,
    uplinks: BTreeSet<NetworkId>,
    reporter: Reporter,
    /// Reports that are due.
    reports: Vec<HostReport>,
    /// Whether ports or devices may have changed since they were looked at for settings and for a report.
    unprepared: bool,
    unreported: bool,
    expire_due: Millis,
    poll_due: Millis,
}

impl Host {
    pub(crate) fn new(
        engine: Engine,
        user: UserEngine,
        physical_networks: BTreeMap<String, String>,
        underlay: Option<String>,
        dhcp_lease_s: u32,
        vhost_user: Option<VhostUserHost>,
    ) -> Result<Self, Errno> {
        // A snapshot without anything in it: nobody is answered before the first real one.
        let name = weft_model::HostName::try_from("none".to_owned());
        let empty = name.map(|name| HostSnapshot::empty(name, Epoch::from(uuid::Uuid::nil())));
        let empty = empty.map_err(|_invalid| Errno::EINVAL)?;
        Ok(Self {
            engine,
            user,
            services: Services::new(Arc::new(empty), dhcp_lease_s),
            wire: WireSocket::open()?,
            physical_networks,
            underlay,
            links: Links::new(),
            indices: BTreeMap::new(),
            link_errors: BTreeMap::new(),
            device_errors: BTreeMap::new(),
            prepared: BTreeMap::new(),
            watched: BTreeMap::new(),
            in_force: None,
            received: None,
            refused: None,
            unsupported: Vec::new(),
            attached: BTreeSet::new(),
            uplinks: BTreeSet::new(),
            reporter: Reporter::new(vhost_user),
            reports: Vec::new(),
            unprepared: false,
            unreported: false,
            expire_due: 0,
            poll_due: 0,
        })
    }

    /// A snapshot came; it may be the same again.
    pub(crate) fn snapshot_received(&mut self, snapshot: Arc<HostSnapshot>, now: Millis) {
        self.received = Some(snapshot.clone());
        self.apply(snapshot, now);
    }

    fn apply(&mut self, snapshot: Arc<HostSnapshot>, now: Millis) {
        match self.engine.apply(&snapshot) {
            Ok(applied) => {
                tracing::debug!(revision = %snapshot.revision, changes = applied.changes, "enforced");
                if let Some(Carried {
                    sessions,
                    left,
                    refused,
                }) = applied.carried
                {
                    tracing::info!(sessions, left, "sessions of the earlier maps' layout go on");
                    if let Some(why) = refused {
                        tracing::warn!("sessions of the earlier maps' layout begin anew: {why}");
                    }
                }
                self.refused = None;
                self.in_force = Some(snapshot.clone());
                self.user.apply(&snapshot);
                self.look_at_faults();
                self.look_at_devices();
                let actions = self.services.apply(snapshot, &self.attached, now);
                self.unsupported = applied.unsupported;
                self.unsupported
                    .extend_from_slice(self.services.unsupported());
                self.unsupported.truncate(limits::UNSUPPORTED_MAX);
                self.act(actions);
                self.uplinks_changed(now);
            }
            Err(error) => {
                let why = sentence(&error);
                tracing::error!(revision = %snapshot.revision, "the engine refuses the snapshot: {why}");
                self.reports.push(self.reporter.refused(&snapshot, &why));
                self.refused = Some((snapshot.revision, why));
            }
        }
    }

    /// The interfaces of the namespace changed.
    pub(crate) fn links_changed(&mut self, links: Links, now: Millis) {
        let old = std::mem::replace(&mut self.links, links);
        let by_name = self
            .links
            .iter()
            .map(|(index, name)| (name.clone(), *index));
        self.indices = by_name.collect();
        if let Err(errno) = self.wire.refresh() {
            tracing::warn!("cannot list the interfaces' addresses: {errno}");
        }
        for (index, name) in &old {
            if self.links.get(index) != Some(name) {
                self.link_errors.remove(name);
                self.prepared.remove(index);
                self.engine.interface_removed(name);
            }
        }
        for (index, name) in &self.links {
            if old.get(index) != Some(name)
                && let Err(error) = self.engine.interface_added(name, *index)
            {
                let why = sentence(&error);
                tracing::error!("attaching {name}: {why}");
                self.link_errors.insert(name.clone(), why);
            }
        }
        self.look_at_faults();
        // The interfaces are part of what an apply works on: a refusal may have been theirs.
        if let (Some(_), Some(received)) = (&self.refused, self.received.clone()) {
            self.apply(received, now);
        }
        self.attached_changed(now);
        self.uplinks_changed(now);
    }

    fn attached_changed(&mut self, now: Millis) {
        let before = self.attached.clone();
        self.look_at_devices();
        if self.attached != before {
            let actions = self.services.guests_changed(&self.attached, now);
            self.act(actions);
        }
    }

    /// Which interfaces the engine could not take, and says so once.
    fn look_at_faults(&mut self) {
        let before = std::mem::take(&mut self.device_errors);
        for (index, error) in self.engine.device_faults() {
            let name = self.links.get(index).map_or("no device", String::as_str);
            let why = sentence(error);
            if before.get(name) != Some(&why) {
                tracing::error!("{name} is left out, and tried again: {why}");
            }
            self.device_errors.insert(name.to_owned(), why);
        }
    }

    fn look_at_devices(&mut self) {
        self.unprepared = true;
        self.unreported = true;
        let Some(snapshot) = &self.in_force else {
            return;
        };
        let attached = snapshot.ports.keys().copied();
        self.attached = attached
            .filter(|id| {
                let vhost_user = snapshot.ports.get(id).is_some_and(is_vhost_user);
                self.engine.port_attached(*id) && (!vhost_user || self.user.port_attached(*id))
            })
            .collect();
    }

    fn uplinks_changed(&mut self, now: Millis) {
        let Some(snapshot) = &self.in_force else {
            return;
        };
        let physical = snapshot
            .networks
            .iter()
            .filter(|(_, network)| network.segment.network_type.is_physical());
        let there: BTreeSet<NetworkId> = physical
            .filter(|(id, _)| self.interface_of(Place::Network(**id)).is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in there.difference(&self.uplinks) {
            self.services.network_attached(*id, now);
        }
        self.uplinks = there;
    }

    /// What the programs handed up.
    pub(crate) fn events(&mut self, now: Millis) {
        for event in self.engine.events() {
            let actions = self.services.event(&service_event(event), now);
            self.act(actions);
        }
        self.claimed(now);
    }

    /// Says what guests claim.
    fn claimed(&mut self, now: Millis) {
        let claims = self.services.claims_take(now);
        if let (false, Some(snapshot)) = (claims.is_empty(), &self.in_force) {
            self.reports.push(self.reporter.claimed(snapshot, claims));
        }
    }

    /// Writes down what security groups decided.
    fn decisions(&mut self) {
        let events = self.engine.log_events();
        let mut decisions: Vec<_> = events.iter().map(decision_log::decision).collect();
        decisions.extend(self.user.decisions());
        if let Some(snapshot) = &self.in_force {
            for decision in &decisions {
                decision_log::write(snapshot, decision);
            }
        }
    }

    /// What the user engine handed up.
    pub(crate) fn user_event(&mut self, event: &ServiceEvent, now: Millis) {
        let actions = self.services.event(event, now);
        self.act(actions);
        self.claimed(now);
    }

    /// What is due by the clock.
    pub(crate) fn tick(&mut self, now: Millis) {
        if now >= self.poll_due {
            self.poll_due = now + POLL_MS;
            self.decisions();
            // A guest may have broken its rings.
            self.attached_changed(now);
            if let Err(error) = self.engine.poll() {
                tracing::warn!(
                    "a compiled policy was not installed, the interpreted one stays: {}",
                    sentence(&error)
                );
            }
        }
        if now >= self.expire_due {
            self.expire_due = now + EXPIRE_MS;
            if let Err(error) = self.engine.expire(None) {
                tracing::warn!("idle sessions stay: {}", sentence(&error));
            }
            if !self.engine.device_faults().is_empty() {
                self.engine.devices_retry();
                self.look_at_faults();
                self.attached_changed(now);
            }
        }
        if self.services.due().is_some_and(|due| due <= now) {
            let actions = self.services.tick(now, &mut fastrand::f64);
            self.act(actions);
            self.claimed(now);
        }
    }

    /// When the next tick has something to do.
    pub(crate) fn due(&self) -> Millis {
        let services = self.services.due().unwrap_or(Millis::MAX);
        services.min(self.poll_due).min(self.expire_due)
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send { to, frame } => self.send(to, &frame),
                Action::NeighbourPut {
                    network_id,
                    address,
                    mac,
                } => {
                    self.user.neighbour_set(network_id, address, Some(mac));
                    if let Err(error) = self.engine.neighbour_put(network_id, address, mac) {
                        tracing::warn!("neighbour {address}: {}", sentence(&error));
                    }
                }
                Action::NeighbourDelete {
                    network_id,
                    address,
                } => {
                    self.user.neighbour_set(network_id, address, None);
                    // Gone with its network, perhaps.
                    if let Err(error) = self.engine.neighbour_delete(network_id, address) {
                        tracing::debug!("neighbour {address}: {}", sentence(&error));
                    }
                }
            }
        }
    }

    fn send(&mut self, to: Place, frame: &[u8]) {
        if let Place::Port(id) = to
            && self.user.send(id, frame)
        {
            return;
        }
        let sent = match self.interface_of(self.carrier(to)) {
            Some((index, _)) => self.wire.send(index, &self.tagged(to, frame)),
            None => Err(Errno::ENODEV),
        };
        if let Err(errno) = sent {
            self.services.unsent();
            tracing::debug!("a frame to {to:?} was not sent: {errno}");
        }
    }

    /// Index and name of a place's interface, if it is there.
    fn interface_of(&self, place: Place) -> Option<(u32, Cow<'_, str>)> {
        let snapshot = self.in_force.as_ref()?;
        let name = match place {
            Place::Port(id) => snapshot.ports.get(&id)?.device(id)?,
            Place::Network(id) => {
                let segment = &snapshot.networks.get(&id)?.segment;
                let name = self
                    .physical_networks
                    .get(segment.physical_network.as_ref()?)?;
                Cow::Borrowed(name.as_str())
            }
        };
        self.index_of(&name).map(|index| (index, name))
    }

    fn index_of(&self, name: &str) -> Option<u32> {
        self.indices.get(name).copied()
    }

    /// Gives the devices of ports and physical networks their settings, once.
    pub(crate) async fn prepare(&mut self, netlink: &Handle) {
        if !std::mem::take(&mut self.unprepared) {
            return;
        }
        for (index, name, wanted) in self.devices_unprepared() {
            let done = if wanted.guest {
                links::prepare_guest(netlink, index, &name, wanted.mtu).await
            } else {
                links::set_up(netlink, index).await
            };
            if let Err(error) = done {
                tracing::warn!("preparing {name}: {}", sentence(&error));
            }
            self.prepared.insert(index, wanted);
        }
    }

    fn devices_unprepared(&self) -> Vec<(u32, String, Prepared)> {
        let Some(snapshot) = &self.in_force else {
            return Vec::new();
        };
        let guests = self.attached.iter().filter_map(|id| {
            let mtu = snapshot
                .networks
                .get(&snapshot.ports.get(id)?.network_id)?
                .mtu;
            Some((Place::Port(*id), Prepared { guest: true, mtu }))
        });
        let uplinks = self.uplinks.iter().map(|id| {
            let nothing = Prepared {
                guest: false,
                mtu: 0,
            };
            (Place::Network(*id), nothing)
        });
        guests
            .chain(uplinks)
            .filter_map(|(place, wanted)| {
                let (index, name) = self.interface_of(place)?;
                let open = self.prepared.get(&index) != Some(&wanted);
                open.then(|| (index, name.into_owned(), wanted))
            })
            .collect()
    }

    /// Says what changed.
    pub(crate) fn report(&mut self, channel: &mpsc::Sender<HostReport>) {
        if std::mem::take(&mut self.unreported)
            && let Some(snapshot) = &self.in_force
        {
            let ports = self.statuses(snapshot);
            let report = self.reporter.enforced(snapshot, &ports, &self.unsupported);
            self.reports.extend(report);
        }
        for report in std::mem::take(&mut self.reports) {
            if let Err(TrySendError::Full(_)) = channel.try_send(report) {
                // Rather than to queue without end, everything is said again, with the next turn.
                self.reporter.forget();
                self.unreported = true;
                return;
            }
        }
    }

    fn statuses(&self, snapshot: &HostSnapshot) -> BTreeMap<PortId, Said> {
        let each = snapshot.ports.iter();
        each.map(|(id, port)| (*id, report::status(port, &self.device(*id, port))))
            .collect()
    }

    fn device(&self, id: PortId, port: &Port) -> Device {
        if let PortInterface::Subport { parent, .. } = port.interface {
            let snapshot = self.in_force.as_ref();
            let parent = snapshot.and_then(|s| Some((parent, s.ports.get(&parent)?)));
            let plain = |(_, port): &(PortId, &Port)| {
                !matches!(port.interface, PortInterface::Subport { .. })
            };
            let parent = parent.filter(plain);
            return parent.map_or(Device::Missing, |(id, port)| self.device(id, port));
        }
        if is_vhost_user(port) {
            let socket = self.user.device(id);
            if socket != Device::Attached {
                return socket;
            }
        }
        let Some(name) = port.device(id) else {
            return Device::Missing;
        };
        let name = &*name;
        if self.attached.contains(&id) {
            Device::Attached
        } else if self.index_of(name).is_none() {
            Device::Missing
        } else {
            let refused = self.link_errors.get(name);
            let error = refused.or_else(|| self.device_errors.get(name)).cloned();
            Device::Failed(error.unwrap_or_else(|| format!("the engine did not attach {name}")))
        }
    }

    /// Ends: what passes goes on without the agent, or, with `remove`, nothing of Weft stays.
    pub(crate) fn close(self, remove: bool) -> Result<(), EngineError> {
        self.engine.close(remove)
    }
}

fn is_vhost_user(port: &Port) -> bool {
    matches!(port.interface, PortInterface::VhostUser { .. })
}

fn service_event(event: Event) -> ServiceEvent {
    use weft_ebpf::EventKind as Kind;
    ServiceEvent {
        kind: match event.kind {
            Kind::Dhcp => EventKind::Dhcp,
            Kind::Dhcpv6 => EventKind::Dhcpv6,
            Kind::Ra => EventKind::Ra,
            Kind::Neighbour => EventKind::Neighbour,
            Kind::NeighbourNeeded => EventKind::NeighbourNeeded,
            Kind::TtlExceeded => EventKind::TtlExceeded,
            Kind::MtuExceeded => EventKind::MtuExceeded,
            Kind::Claim => EventKind::Claim,
        },
        ingress: match event.ingress {
            Ingress::Port(id) => Place::Port(id),
            Ingress::Network(id) => Place::Network(id),
        },
        needed: event.network.zip(event.next_hop),
        mtu: event.mtu,
        cut: event.frame_bytes as usize > event.frame.len(),
        frame: event.frame,
    }
}

/// An error and its sources, one after the other.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
