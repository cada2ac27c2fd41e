//! The feed over real connections.

use super::stream::FeedStream;
use super::*;
use crate::store::network::NetworkRow;
use crate::store::port::PortRow;
use crate::store::port_binding::vhost_user_host_get;
use crate::store::trunk::{SubportRow, TrunkRow, subport_insert};
use crate::store::{self, Durability, Store};
use axum::body::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use weft_model::{
    Epoch, FeedMessage, HostName, HostSnapshot, Network, NetworkId, NetworkType, PortId, Revision,
    Segment, limits,
};

const DEADLINE: Duration = Duration::from_secs(20);

struct Server {
    hub: Arc<Hub>,
    store: Store,
    _folder: tempfile::TempDir,
    url: String,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weft.sqlite");
        let store = Store::open(&file, Durability::Process, Arc::new(|| 0))
            .await
            .unwrap();
        let hub = Arc::new(Hub::new(store.epoch()));
        let shutdown = CancellationToken::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/feed/v1/hosts", listener.local_addr().unwrap());
        let app = router(hub.clone(), store.clone(), None, shutdown.clone());
        let task = tokio::spawn(serve(listener, app, shutdown.clone()));
        Self {
            hub,
            store,
            _folder: folder,
            url,
            shutdown,
            task,
        }
    }

    /// Writes ports bound to hosts, on a network of their own.
    async fn ports(&self, ports: &[(PortId, &str)]) {
        let mut tx = self.store.write().await.unwrap();
        let mut network = NetworkRow {
            id: NetworkId::random().to_string(),
            ..NetworkRow::default()
        };
        store::insert(&mut tx, &mut network).await.unwrap();
        for (id, host) in ports {
            let mut port = PortRow {
                id: id.to_string(),
                network_id: network.id.clone(),
                mac_address: id.to_string(),
                binding_host_id: (*host).to_owned(),
                status: "DOWN".to_owned(),
                ..PortRow::default()
            };
            store::insert(&mut tx, &mut port).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    async fn status(&self, id: PortId) -> String {
        let mut view = self.store.read().await.unwrap();
        let port = store::get::<PortRow>(view.conn(), &id.to_string())
            .await
            .unwrap();
        port.unwrap().status
    }

    async fn watch(&self, host: &str, have: Option<Revision>) -> Lines {
        let mut url = format!("{}/{host}/watch", self.url);
        if let Some(revision) = have {
            url += &format!("?epoch={}&revision={revision}", self.hub.epoch());
        }
        let response = reqwest::get(url).await.unwrap();
        assert_eq!(response.status(), 200);
        Lines {
            response,
            buffer: Vec::new(),
        }
    }

    async fn report(&self, host: &str, body: &Value) -> (u16, String) {
        let url = format!("{}/{host}/report", self.url);
        let response = reqwest::Client::new()
            .post(url)
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// A report that would be believed.
    fn said(&self, host: &str, revision: u64) -> Value {
        json!({
            "host": host, "epoch": self.hub.epoch(), "revision": revision, "ports": [], "full": false
        })
    }

    /// Publishes a duty of `networks` for `host`.
    fn publish(&self, host: &str, revision: u64, networks: &[NetworkId]) {
        let mut snapshot = HostSnapshot::empty(host.parse().unwrap(), self.hub.epoch());
        let segment = Segment {
            network_type: NetworkType::Local,
            physical_network: None,
            segmentation_id: None,
        };
        for id in networks {
            let network = Network {
                segment: segment.clone(),
                mtu: 1500,
                external: false,
                dns_domain: String::new(),
                transit: None,
                vlan_transparent: false,
            };
            snapshot.networks.insert(*id, network);
        }
        snapshot.revision = Revision(revision);
        self.publish_at(revision, Some(snapshot));
    }

    /// Tells that all is computed up to a revision; some host's duty is this.
    fn publish_at(&self, revision: u64, snapshot: Option<HostSnapshot>) {
        let revision = Revision(revision);
        self.hub.begin(revision);
        let host = snapshot.as_ref().map(|snapshot| snapshot.host.clone());
        let changed = snapshot.and_then(|snapshot| self.hub.replace(snapshot, Instant::now()));
        let changed = changed.and(host).into_iter().collect();
        self.hub.finish(revision, changed, None);
    }
}

struct Lines {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line, or none at the end.
    async fn next(&mut self) -> Option<FeedMessage> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = timeout(DEADLINE, self.response.chunk())
                .await
                .expect("a line in time");
            self.buffer.extend(chunk.unwrap()?);
        }
    }

    async fn snapshot(&mut self) -> HostSnapshot {
        match self.next().await {
            Some(FeedMessage::Snapshot(snapshot)) => *snapshot,
            other => panic!("expected a snapshot, not {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_agent_gets_a_snapshot_then_what_changes() {
    let server = Server::start().await;
    let (a, b) = (NetworkId::random(), NetworkId::random());
    let mut lines = server.watch("h1", None).await;
    server.hub.wanted().await;
    server.publish("h1", 3, &[a]);
    let first = lines.snapshot().await;
    assert_eq!((first.revision, first.networks.len()), (Revision(3), 1));

    server.publish("h1", 4, &[a]);
    server.publish("h1", 5, &[a, b]);
    let Some(FeedMessage::Delta(delta)) = lines.next().await else {
        panic!("a delta")
    };
    assert_eq!((delta.from, delta.to), (Revision(3), Revision(5)));
    assert_eq!(delta.networks.put.keys().collect::<Vec<_>>(), [&b]);
    let next = first.apply(*delta).unwrap();
    assert_eq!(next.networks.len(), 2);

    server.shutdown.cancel();
    assert_eq!(lines.next().await, None);
    timeout(DEADLINE, server.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_lost_connection_resumes_where_it_was() {
    let server = Server::start().await;
    let networks: Vec<_> = (0..limits::FEED_HISTORY_MAX)
        .map(|_| NetworkId::random())
        .collect();
    let mut lines = server.watch("h1", None).await;
    server.publish("h1", 1, &networks[..1]);
    lines.snapshot().await;
    assert_eq!(server.hub.hosts(Instant::now())[0].streams, 1);
    drop(lines);

    let mut lines = server.watch("h1", Some(Revision(1))).await;
    assert_eq!(
        lines.next().await,
        Some(FeedMessage::Heartbeat {
            revision: Revision(1)
        })
    );
    drop(lines);

    // The oldest revision that is remembered, and one older.
    for revision in 2..=limits::FEED_HISTORY_MAX {
        server.publish("h1", revision as u64, &networks[..revision]);
    }
    let mut lines = server.watch("h1", Some(Revision(1))).await;
    let Some(FeedMessage::Delta(delta)) = lines.next().await else {
        panic!("a delta")
    };
    assert_eq!(delta.networks.put.len(), limits::FEED_HISTORY_MAX - 1);
    server.publish("h1", 1_000, &[]);
    let Some(FeedMessage::Delta(delta)) = lines.next().await else {
        panic!("a delta")
    };
    assert_eq!(delta.networks.delete.len(), limits::FEED_HISTORY_MAX);
    server.publish("h1", 1_001, &networks[..1]);
    let mut lines = server.watch("h1", Some(Revision(1))).await;
    assert_eq!(lines.snapshot().await.revision, Revision(1_001));
    // A revision that never was one of this host's.
    let mut lines = server.watch("h1", Some(Revision(999))).await;
    assert_eq!(lines.snapshot().await.revision, Revision(1_001));
}

#[tokio::test]
async fn large_changes_are_forgotten_sooner() {
    let server = Server::start().await;
    let networks: Vec<_> = (0..limits::FEED_HISTORY_ENTRIES_MAX / 2)
        .map(|_| NetworkId::random())
        .collect();
    drop(server.watch("h1", None).await);
    server.publish("h1", 1, &networks);
    server.publish("h1", 2, &[]);
    server.publish("h1", 3, &networks);
    let mut lines = server.watch("h1", Some(Revision(1))).await;
    let Some(FeedMessage::Delta(delta)) = lines.next().await else {
        panic!("a delta")
    };
    assert_eq!((delta.from, delta.to), (Revision(1), Revision(3)));
    server.publish("h1", 4, &networks[..1]);
    let mut lines = server.watch("h1", Some(Revision(1))).await;
    assert_eq!(lines.snapshot().await.networks.len(), 1);
}

#[tokio::test]
async fn a_reader_that_sleeps_gets_little() {
    let server = Server::start().await;
    let networks: Vec<_> = (0..2_000).map(|_| NetworkId::random()).collect();
    let mut lines = server.watch("h1", None).await;
    server.publish("h1", 1, &networks);
    let mut snapshot = lines.snapshot().await;
    // Nothing is read while far more than a connection's buffers is published.
    let mut published = 1;
    for round in 0..400 {
        published += 1;
        server.publish(
            "h1",
            published,
            if round % 2 == 0 { &[] } else { &networks },
        );
        tokio::task::yield_now().await;
    }
    let mut messages = 0;
    while snapshot.revision < Revision(published) {
        // All that it missed in one; a snapshot if that is too much to remember.
        snapshot = match lines.next().await {
            Some(FeedMessage::Delta(delta)) => snapshot.apply(*delta).unwrap(),
            Some(FeedMessage::Snapshot(snapshot)) => *snapshot,
            other => panic!("{other:?}"),
        };
        messages += 1;
    }
    assert!(messages < 400, "{messages} messages");
    assert_eq!(snapshot.networks.len(), 2_000);
}

#[tokio::test]
async fn too_many_streams_of_a_host_end_the_oldest() {
    let server = Server::start().await;
    server.publish("h1", 1, &[]);
    let mut lines = Vec::new();
    for _ in 0..=limits::FEED_STREAMS_PER_HOST_MAX {
        lines.push(server.watch("h1", None).await);
        server.publish("h1", 1, &[]);
    }
    let mut oldest = lines.remove(0);
    while oldest.next().await.is_some() {}
    for line in &mut lines {
        line.snapshot().await;
    }
}

#[tokio::test]
async fn a_report_is_stored_noted_and_waited_for() {
    let server = Server::start().await;
    let h1: HostName = "h1".parse().unwrap();
    let mut lines = server.watch("h1", None).await;
    server.publish("h1", 7, &[NetworkId::random()]);
    lines.snapshot().await;
    let enforced = server.hub.enforced(&h1, Revision(9)).unwrap();
    tokio::pin!(enforced);
    // Nothing of this host's changed in 8 and 9: its word on 7 will do, once 9 is computed.
    let mut said = server.said("h1", 7);
    let (ours, theirs, gone) = (PortId::random(), PortId::random(), PortId::random());
    server.ports(&[(ours, "h1"), (theirs, "h2")]).await;
    let active = |id: PortId| json!({"port_id": id, "status": "ACTIVE"});
    said["ports"] = json!([active(ours), active(theirs), active(gone)]);
    said["refused"] = json!([8, "no room"]);
    assert_eq!(server.report("h1", &said).await, (204, String::new()));
    assert!(timeout(Duration::ZERO, &mut enforced).await.is_err());
    server.publish_at(9, None);
    timeout(DEADLINE, enforced).await.unwrap();

    assert_eq!(
        (
            server.status(ours).await.as_str(),
            &*server.status(theirs).await
        ),
        ("ACTIVE", "DOWN")
    );
    let view: Value = reqwest::get(&server.url)
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(
        (&view["revision"], &view["hosts"][0]["enforced"]),
        (&json!(9), &json!(7))
    );
    assert_eq!(view["hosts"][0]["refused"], json!([8, "no room"]));

    // A change that is enforced shows in the histogram and clears the refusal.
    server.publish("h1", 10, &[]);
    let enforced = server.hub.enforced(&h1, Revision(10)).unwrap();
    assert_eq!(server.report("h1", &server.said("h1", 10)).await.0, 204);
    timeout(DEADLINE, enforced).await.unwrap();
    assert_eq!(server.status(ours).await, "ACTIVE");
    // What a full report does not name is down.
    let mut said = server.said("h1", 10);
    said["full"] = json!(true);
    assert_eq!(server.report("h1", &said).await.0, 204);
    assert_eq!(server.status(ours).await, "DOWN");
    assert_eq!(server.hub.latency().count(), 1);
    assert_eq!(server.hub.hosts(Instant::now())[0].refused, None);
}

#[tokio::test]
async fn reports_that_cannot_be_believed_are_refused() {
    let server = Server::start().await;
    server.publish_at(5, None);
    let good = server.said("h1", 5);
    let with = |field: &str, value: Value| {
        let mut said = good.clone();
        said[field] = value;
        said
    };
    let entry = json!({"path": "x", "message": "y"});
    let port = || json!({"port_id": PortId::random(), "status": "DOWN"});
    let ports = |n: usize| Value::Array((0..n).map(|_| port()).collect());
    let cases = [
        (with("host", json!("h2")), 400, "host h2"),
        (with("epoch", json!(Epoch::random())), 409, "epoch"),
        (with("revision", json!(6)), 409, "newer than the newest, 5"),
        (
            with(
                "unsupported",
                json!(vec![&entry; limits::UNSUPPORTED_MAX + 1]),
            ),
            400,
            "unsupported",
        ),
        (
            with("unsupported", json!(vec![&entry; limits::UNSUPPORTED_MAX])),
            204,
            "",
        ),
        (
            with(
                "refused",
                json!([5, "x".repeat(limits::FEED_MESSAGE_BYTES_MAX + 1)]),
            ),
            400,
            "refused",
        ),
        (
            with(
                "refused",
                json!([5, "x".repeat(limits::FEED_MESSAGE_BYTES_MAX)]),
            ),
            204,
            "",
        ),
        (
            with("ports", ports(limits::PORTS_PER_HOST_MAX + 1)),
            400,
            "ports: expected at most 4096",
        ),
        (with("ports", ports(limits::PORTS_PER_HOST_MAX)), 204, ""),
        (
            with("ports", json!([{"port_id": "no", "status": "DOWN"}])),
            400,
            "UUID",
        ),
        (with("surprise", json!(1)), 400, "unknown field `surprise`"),
        (
            json!("x".repeat(limits::FEED_REPORT_BYTES_MAX)),
            413,
            "limit",
        ),
    ];
    for (body, status, text) in cases {
        let (have, answer) = server.report("h1", &body).await;
        assert_eq!(have, status, "{answer}");
        assert!(answer.contains(text), "{answer:?} should speak of {text:?}");
    }
    assert_eq!(server.report("h%20x", &good).await.0, 400);
    for bad in [
        "h1/watch?epoch=7&revision=1",
        "h1/watch?revision=-1",
        "h1/watch?surprise=1",
    ] {
        assert_eq!(
            reqwest::get(format!("{}/{bad}", server.url))
                .await
                .unwrap()
                .status(),
            400,
            "{bad}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_whole_snapshot_waits_for_its_turn_and_the_stream_lives_meanwhile() {
    let hub = Hub::new(Epoch::random());
    let host: HostName = "h1".parse().unwrap();
    let subscription = hub.subscribe(&host, None).unwrap();
    let mut snapshot = HostSnapshot::empty(host.clone(), hub.epoch());
    snapshot.revision = Revision(1);
    hub.replace(snapshot, Instant::now());
    let turns = Arc::new(Semaphore::new(1));
    let taken = turns.clone().try_acquire_owned().unwrap();
    let end = (
        CancellationToken::new(),
        Box::pin(std::future::pending()) as _,
    );
    let stream = FeedStream::new(host, subscription, end, turns.clone());
    let read = |line: Bytes| serde_json::from_slice(&line).unwrap();
    let (line, stream) = stream.next().await.unwrap();
    assert!(matches!(read(line), FeedMessage::Heartbeat { .. }));
    drop(taken);
    let (line, stream) = stream.next().await.unwrap();
    assert!(matches!(read(line), FeedMessage::Snapshot(_)));
    assert_eq!(turns.available_permits(), 1);
    let (line, _stream) = stream.next().await.unwrap();
    assert!(matches!(read(line), FeedMessage::Heartbeat { .. }));
}

#[test]
fn the_hub_knows_so_many_hosts_and_no_more() {
    let hub = Hub::new(Epoch::random());
    for number in 0..limits::FEED_HOSTS_MAX {
        hub.subscribe(&format!("h{number}").parse().unwrap(), None)
            .unwrap();
    }
    let one_more = "one-more".parse().unwrap();
    let refused = hub.subscribe(&one_more, None).map(|_| ()).unwrap_err();
    assert_eq!(refused, HubError::HostsMax { host: one_more });
    hub.subscribe(&"h0".parse().unwrap(), None).unwrap();
}

#[tokio::test]
async fn a_full_report_says_how_guests_are_attached() {
    let server = Server::start().await;
    let longest = limits::SOCKET_FOLDER_BYTES_MAX;
    let with = |folder: String, full: bool| {
        let mut body = server.said("h1", 0);
        body["vhost_user"] = json!({ "socket_folder": folder, "mode": "server" });
        body["full"] = full.into();
        body
    };
    let folder = format!("/{}", "x".repeat(longest - 1));
    let known = async || {
        let mut view = server.store.read().await.unwrap();
        let row = vhost_user_host_get(view.conn(), "h1").await.unwrap();
        row.map(|row| (row.socket_folder, row.mode))
    };
    // A report of changes says nothing of it.
    assert_eq!(
        server.report("h1", &with(folder.clone(), false)).await.0,
        204
    );
    assert_eq!(known().await, None);
    assert_eq!(
        server.report("h1", &with(folder.clone(), true)).await.0,
        204
    );
    assert_eq!(known().await, Some((folder.clone(), "server".to_owned())));
    for bad in [format!("{folder}x"), "run".to_owned(), "/run\0".to_owned()] {
        assert_eq!(server.report("h1", &with(bad, true)).await.0, 400);
    }
    let mut taps = server.said("h1", 0);
    taps["full"] = true.into();
    assert_eq!(server.report("h1", &taps).await.0, 204);
    assert_eq!(known().await, None);
}

#[tokio::test]
async fn a_trunk_is_what_its_ports_hosts_make_of_it() {
    let server = Server::start().await;
    let [parent, one, two] = [0; 3].map(|_| PortId::random());
    server
        .ports(&[(parent, "h1"), (one, "h1"), (two, "h1")])
        .await;
    let mut tx = server.store.write().await.unwrap();
    let mut row = TrunkRow {
        id: "t".to_owned(),
        status: "DOWN".to_owned(),
        port_id: parent.to_string(),
        ..TrunkRow::default()
    };
    store::insert(&mut tx, &mut row).await.unwrap();
    for (n, port) in [(1, one), (2, two)] {
        let subport = SubportRow {
            port_id: port.to_string(),
            trunk_id: "t".to_owned(),
            segmentation_type: "vlan".to_owned(),
            segmentation_id: n,
            position: n,
        };
        subport_insert(&mut tx, &subport).await.unwrap();
    }
    tx.commit().await.unwrap();
    for (port, said, status) in [
        (one, "ACTIVE", "DOWN"),
        (parent, "ACTIVE", "BUILD"),
        (two, "ERROR", "DEGRADED"),
        (two, "ACTIVE", "ACTIVE"),
        (parent, "ERROR", "ERROR"),
        (parent, "DOWN", "DOWN"),
    ] {
        let mut body = server.said("h1", 0);
        body["ports"] = json!([{ "port_id": port, "status": said }]);
        assert_eq!(server.report("h1", &body).await.0, 204);
        let mut view = server.store.read().await.unwrap();
        let trunk: TrunkRow = store::get(view.conn(), "t").await.unwrap().unwrap();
        assert_eq!(trunk.status, status, "{said}");
    }
}
