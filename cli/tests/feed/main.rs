//! From a commit to the agent and back: store, realize, the feed's server and its client, over a real connection.

#![allow(
    clippy::unwrap_used,
    reason = "a test: helpers outside of its functions may panic too"
)]

mod command;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weft_agent::feed::{self as client, FeedConfig, FeedStatus};
use weft_control::feed::{self as server, Authority, Hub};
use weft_control::realize;
use weft_control::store::network::NetworkRow;
use weft_control::store::port::PortRow;
use weft_control::store::segment::{SegmentRow, segment_insert};
use weft_control::store::{self, Durability, Store};
use weft_model::{HostName, HostReport, HostSnapshot, PortId, PortReport, PortStatus, Revision};

const DEADLINE: Duration = Duration::from_secs(20);

fn host() -> HostName {
    "h1".parse().unwrap()
}

/// A control plane without its API.
struct Control {
    store: Store,
    hub: Arc<Hub>,
    address: SocketAddr,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Control {
    async fn start(file: &Path, address: SocketAddr) -> Self {
        let store = Store::open(file, Durability::Process, Arc::new(|| 0)).await;
        Self::serve(store.unwrap(), address, None).await
    }

    async fn serve(store: Store, address: SocketAddr, authority: Option<Authority>) -> Self {
        let hub = Arc::new(Hub::new(store.epoch()));
        let shutdown = CancellationToken::new();
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (rows, realize_hub, stop) = (store.clone(), hub.clone(), shutdown.clone());
        let realize = tokio::spawn(async move {
            {
                let (_ask, trials) = realize::trials();
                realize::run(rows, &realize_hub, trials, stop).await
            }
        });
        let routes = server::router(
            hub.clone(),
            store.clone(),
            authority.clone(),
            shutdown.clone(),
        );
        let stop = shutdown.clone();
        let feed = tokio::spawn(async move {
            match authority {
                None => server::serve(listener, routes, stop).await.unwrap(),
                Some(authority) => {
                    let names = ["127.0.0.1".to_owned()];
                    server::serve_tls(listener, routes, (&authority, &names), stop)
                        .await
                        .unwrap();
                }
            }
        });
        Self {
            store,
            hub,
            address,
            shutdown,
            tasks: vec![realize, feed],
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            tokio::time::timeout(DEADLINE, task)
                .await
                .expect("ends in time")
                .unwrap();
        }
        self.store.close().await;
    }

    /// Writes a network with a port that is bound to the host.
    async fn port(&self, number: i64) -> (PortId, Revision) {
        let (network_id, port_id) = (PortId::random().to_string(), PortId::random());
        let mut tx = self.store.write().await.unwrap();
        let mut network = NetworkRow {
            id: network_id.clone(),
            mtu: 1_450,
            ..NetworkRow::default()
        };
        store::insert(&mut tx, &mut network).await.unwrap();
        let mut segment = SegmentRow {
            id: network_id.clone(),
            network_id: network_id.clone(),
            segment_index: 0,
            network_type: "vxlan".to_owned(),
            physical_network: None,
            segmentation_id: Some(number),
            ..SegmentRow::default()
        };
        segment_insert(&mut tx, &mut segment).await.unwrap();
        let mut port = PortRow {
            id: port_id.to_string(),
            network_id,
            mac_address: format!("fa:16:3e:00:00:{number:02x}"),
            device_owner: "compute:nova".to_owned(),
            binding_host_id: "h1".to_owned(),
            admin_state_up: true,
            status: "DOWN".to_owned(),
            ..PortRow::default()
        };
        store::insert(&mut tx, &mut port).await.unwrap();
        tx.commit().await.unwrap();
        let revision = store::revision(self.store.read().await.unwrap().conn())
            .await
            .unwrap();
        (port_id, revision)
    }

    async fn status(&self, port: PortId) -> String {
        let mut view = self.store.read().await.unwrap();
        let row = store::get::<PortRow>(view.conn(), &port.to_string())
            .await
            .unwrap();
        row.unwrap().status
    }
}

/// An agent whose engine enforces everything at once.
struct Agent {
    snapshots: watch::Receiver<Option<Arc<HostSnapshot>>>,
    status: watch::Receiver<FeedStatus>,
    reports: mpsc::Sender<HostReport>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Agent {
    fn start(servers: &[SocketAddr]) -> Self {
        let servers: Vec<String> = servers.iter().map(|at| format!("http://{at}")).collect();
        Self::with(FeedConfig::new(servers.join(","), host()))
    }

    fn with(mut config: FeedConfig) -> Self {
        config.backoff_max = Duration::from_millis(200);
        let status = config.status.subscribe();
        let sender = watch::Sender::new(None);
        let snapshots = sender.subscribe();
        let (reports, received) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task =
            tokio::spawn(async move { client::run(config, sender, received, stop).await.unwrap() });
        Self {
            snapshots,
            status,
            reports,
            shutdown,
            task,
        }
    }

    /// The host's duty once it knows a port.
    async fn knows(&mut self, port: PortId) -> Arc<HostSnapshot> {
        let knows = |have: &Option<Arc<HostSnapshot>>| {
            have.as_ref()
                .is_some_and(|have| have.ports.contains_key(&port))
        };
        let found = tokio::time::timeout(DEADLINE, self.snapshots.wait_for(knows)).await;
        found.expect("in time").unwrap().clone().unwrap()
    }

    async fn enforce(&self, snapshot: &HostSnapshot) {
        let active = |id: &PortId| PortReport {
            port_id: *id,
            status: PortStatus::Active,
            message: String::new(),
        };
        let report = HostReport {
            host: host(),
            epoch: snapshot.epoch,
            revision: snapshot.revision,
            ports: snapshot.ports.keys().map(active).collect(),
            full: true,
            refused: None,
            unsupported: Vec::new(),
            vhost_user: None,
            physical_networks: Vec::new(),
            unreachable: None,
            tunnel_ip: None,
            claims: Vec::new(),
        };
        self.reports.send(report).await.unwrap();
    }
}

#[tokio::test]
async fn a_port_is_active_once_its_host_says_so_and_a_restart_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weft.sqlite");
    let control = Control::start(&file, SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let mut agent = Agent::start(&[control.address]);
    let (first, revision) = control.port(1).await;
    let enforced = control.hub.enforced(&host(), revision).unwrap();
    let duty = agent.knows(first).await;
    assert_eq!(control.status(first).await, "DOWN");
    agent.enforce(&duty).await;
    tokio::time::timeout(DEADLINE, enforced)
        .await
        .expect("enforced in time");
    assert_eq!(control.status(first).await, "ACTIVE");

    // Control goes away: the agent keeps what it has. It comes back: the agent finds it, and says again what holds.
    let address = control.address;
    control.stop().await;
    let away = |status: &FeedStatus| !status.connected;
    drop(
        tokio::time::timeout(DEADLINE, agent.status.wait_for(away))
            .await
            .expect("noticed"),
    );
    assert_eq!(agent.snapshots.borrow().as_ref(), Some(&duty));
    let control = Control::start(&file, address).await;
    let enforced = control.hub.enforced(&host(), revision).unwrap();
    tokio::time::timeout(DEADLINE, enforced)
        .await
        .expect("said again in time");

    // And changes arrive as before.
    let (second, _) = control.port(2).await;
    let next = agent.knows(second).await;
    assert_eq!((next.ports.len(), next.epoch), (2, duty.epoch));
    agent.enforce(&next).await;
    let enforced = control.hub.enforced(&host(), next.revision).unwrap();
    tokio::time::timeout(DEADLINE, enforced)
        .await
        .expect("enforced in time");
    assert_eq!(control.status(second).await, "ACTIVE");
    assert_eq!(control.hub.latency().count(), 1);

    agent.shutdown.cancel();
    tokio::time::timeout(DEADLINE, agent.task)
        .await
        .expect("ends in time")
        .unwrap();
    control.stop().await;
}

#[tokio::test]
async fn when_a_server_dies_the_agent_goes_on_with_another_of_the_same_database() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weft.sqlite");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (one, other) = (
        Control::start(&file, any).await,
        Control::start(&file, any).await,
    );
    let mut agent = Agent::start(&[one.address, other.address]);
    let (first, _) = one.port(1).await;
    let duty = agent.knows(first).await;
    agent.enforce(&duty).await;
    one.stop().await;
    // It says to the other what it enforces, and is told of what is written there.
    let enforced = other.hub.enforced(&host(), duty.revision).unwrap();
    tokio::time::timeout(DEADLINE, enforced)
        .await
        .expect("said to the other in time");
    let (second, _) = other.port(2).await;
    let next = agent.knows(second).await;
    assert_eq!((next.ports.len(), next.epoch), (2, duty.epoch));
    agent.shutdown.cancel();
    tokio::time::timeout(DEADLINE, agent.task)
        .await
        .expect("ends in time")
        .unwrap();
    other.stop().await;
}
