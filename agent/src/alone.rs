//! The control socket of a switch that runs alone (`weft run` with vhost-user sockets): the questions that an agent answers, with the
//! same types. There are no physical networks, no services and no control to report to.
//!
//! Guarantees: a question changes nothing, and none holds up the polling threads for longer than one look at the engine.

use crate::capture::{Place, Taps};
use crate::clock::now;
use crate::feed::FeedStatus;
use crate::question::{Ground, HostStatus, Question};
use crate::service::ServiceCounters;
use crate::socket::server::{Context, Socket};
use crate::socket::{
    PortState, SESSIONS_COUNTED_MAX, SESSIONS_MAX, Sessions, SocketError, Stats, XdpStats,
};
use crate::user;
use crate::view;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weft_dataplane::Ingress;
use weft_ebpf::{Counters, SessionView};
use weft_model::{HostName, HostSnapshot, PortStatus};
use weft_vhost::alone::Alone;
use weft_vhost::xdp::XdpDrops;

/// Questions that wait at most; behind that, who asks waits.
const QUESTIONS_MAX: usize = 16;

/// A switch that runs alone, and where it is asked.
#[derive(Debug)]
pub struct AloneSocket {
    /// The control socket.
    pub socket: PathBuf,
    /// This host.
    pub host: HostName,
    /// As `weft status` shows it.
    pub instance: String,
    /// The snapshot in force.
    pub snapshots: watch::Receiver<Option<Arc<HostSnapshot>>>,
    /// The AF_XDP sockets of the link to other hosts, if it is an interface.
    pub link: Vec<Arc<OwnedFd>>,
}

impl AloneSocket {
    /// Answers until the end.
    ///
    /// # Errors
    /// The socket is another's, or the file system refused.
    pub async fn serve(
        self,
        alone: Arc<Alone>,
        shutdown: CancellationToken,
    ) -> Result<(), SocketError> {
        let socket = Socket::bind(&self.socket)?;
        let (questions, mut asked) = mpsc::channel(QUESTIONS_MAX);
        // No feed ever says anything.
        let (_silent, feed) = watch::channel(FeedStatus::default());
        let context = Context {
            host: self.host,
            instance: self.instance,
            engine: "vhost-user",
            started: now(),
            feed_url: None,
            feed,
            questions,
            underlay: None,
            captures: Context::captures(),
        };
        let switch = Switch {
            alone,
            snapshots: self.snapshots,
            link: self.link,
        };
        let answers = async {
            while let Some(question) = asked.recv().await {
                switch.answer(question);
            }
        };
        tokio::select! {
            () = socket.serve(context, shutdown) => {}
            () = answers => {}
        }
        Ok(())
    }
}

struct Switch {
    alone: Arc<Alone>,
    snapshots: watch::Receiver<Option<Arc<HostSnapshot>>>,
    link: Vec<Arc<OwnedFd>>,
}

impl Switch {
    /// Who asked may be gone.
    fn answer(&self, question: Question) {
        match question {
            Question::Status(to) => drop(to.send(self.status())),
            Question::Stats(to) => drop(to.send(Ok(self.stats()))),
            Question::Sessions(limit, to) => drop(to.send(Ok(self.sessions(limit)))),
            Question::Ground(to) => {
                let ground = self.snapshot().map(|snapshot| Ground {
                    snapshot,
                    neighbours: Vec::new(),
                    sessions: self.sessions(SESSIONS_COUNTED_MAX),
                });
                drop(to.send(ground));
            }
            Question::Watch(number, places, to) => drop(to.send(self.watch(number, &places))),
            Question::Unwatch(number, _) => self.alone.switch().tap_remove(number),
        }
    }

    fn snapshot(&self) -> Option<Arc<HostSnapshot>> {
        self.snapshots.borrow().clone()
    }

    fn status(&self) -> HostStatus {
        let snapshot = self.snapshot();
        let ports = snapshot.iter().flat_map(|snapshot| &snapshot.ports);
        let ports = ports.map(|(id, port)| {
            let served = self.alone.port(*id);
            let (status, reason) = match &served {
                None => (PortStatus::Down, "it has no socket here".to_owned()),
                Some(served) => match served.queues.shut_reason() {
                    None => (PortStatus::Active, String::new()),
                    Some(reason) => {
                        let reason = format!("the guest broke its rings: {reason}");
                        (PortStatus::Error, reason)
                    }
                },
            };
            let path = served.map(|served| served.path.display().to_string());
            PortState {
                port_id: *id,
                network_id: port.network_id,
                interface: path.unwrap_or_else(|| view::interface_name(&port.interface)),
                vhost_user: view::vhost_user_mode(&port.interface),
                mac_address: port.mac_address,
                fixed_ips: port.fixed_ips.iter().map(|ip| ip.ip_address).collect(),
                status,
                reason,
            }
        });
        HostStatus {
            ports: ports.collect(),
            received: snapshot.as_ref().map(|snapshot| snapshot.revision),
            refused: None,
            physical_networks: Vec::new(),
            underlay: None,
            unsupported: Vec::new(),
            neighbours: Vec::new(),
            in_force: snapshot,
        }
    }

    fn stats(&self) -> Stats {
        let mut counters = Counters::default();
        for (id, totals) in self.alone.totals() {
            counters.ports.insert(id, user::device_counters(totals));
        }
        if let Some(totals) = self.alone.underlay_totals() {
            counters.underlay = user::device_counters(totals);
        }
        let sessions = self.views(SESSIONS_COUNTED_MAX).len();
        let snapshot = self.snapshot();
        let services = ServiceCounters::default();
        let mut stats = view::stats(&counters, snapshot.as_deref(), sessions, services);
        for stats in &mut stats.ports {
            if let Some(served) = self.alone.port(stats.port_id) {
                stats.interface = served.path.display().to_string();
            }
        }
        stats.underlay.xdp = self.link_drops();
        stats
    }

    fn link_drops(&self) -> Option<XdpStats> {
        if self.link.is_empty() {
            return None;
        }
        let drops = XdpDrops::of(&self.link)
            .inspect_err(|error| tracing::warn!("the link's drops are not known: {error}"))
            .ok()?;
        Some(XdpStats {
            queues: self.link.len() as u64,
            rx_dropped: drops.rx_dropped,
            rx_ring_full: drops.rx_ring_full,
            fill_ring_empty: drops.fill_ring_empty,
            refused: drops.refused,
        })
    }

    fn views(&self, limit: usize) -> Vec<SessionView> {
        user::sessions_of(self.alone.switch(), limit)
    }

    fn sessions(&self, limit: usize) -> Sessions {
        let limit = limit.min(SESSIONS_MAX);
        let mut sessions = self.views(limit + 1);
        let truncated = sessions.len() > limit;
        sessions.truncate(limit);
        let now = now();
        Sessions {
            sessions: sessions.iter().map(|s| view::session(s, now)).collect(),
            truncated,
        }
    }

    fn watch(&self, number: u64, places: &[Place]) -> Taps {
        let (taps, tap) = Taps::new(places.len());
        for (at, place) in places.iter().enumerate() {
            if let Ingress::Port(id) = place.ingress {
                self.alone.switch().tap_add(id, number, &tap(at));
            }
        }
        taps
    }
}
