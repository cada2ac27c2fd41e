//! The client against a server that says what a script tells it to.

use super::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use weft_model::{
    Epoch, FeedMessage, MacAddress, Network, NetworkId, NetworkType, Port, PortId, PortInterface,
    PortReport, PortStatus, Revision, Segment, SnapshotDelta,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// A request that has come in and waits for its answer.
struct Request {
    head: String,
    body: Vec<u8>,
    connection: TcpStream,
}

impl Request {
    async fn read(mut connection: TcpStream) -> Self {
        let mut text = Vec::new();
        let end = loop {
            if let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            assert_ne!(
                connection.read_buf(&mut text).await.unwrap(),
                0,
                "a whole head"
            );
        };
        let head = String::from_utf8(text[..end].to_vec()).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        while text.len() < end + length {
            assert_ne!(
                connection.read_buf(&mut text).await.unwrap(),
                0,
                "a whole body"
            );
        }
        Self {
            head,
            body: text[end..].to_vec(),
            connection,
        }
    }

    async fn send(&mut self, text: &str) {
        self.connection.write_all(text.as_bytes()).await.unwrap();
    }

    /// Begins a stream that ends with the connection.
    async fn stream(&mut self, lines: &[String]) {
        self.send("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
            .await;
        for line in lines {
            self.send(&format!("{line}\n")).await;
        }
    }

    async fn answer(mut self, status: &str) {
        let close = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        self.send(&close).await;
    }
}

/// A client and the server that it speaks to.
struct Lab {
    listener: TcpListener,
    snapshots: state::Receiver<Option<Arc<HostSnapshot>>>,
    status: state::Receiver<FeedStatus>,
    reports: mpsc::Sender<HostReport>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), FeedStartError>>,
    waiting: Vec<Request>,
}

impl Lab {
    async fn start(have: Option<HostSnapshot>) -> Self {
        Self::start_with(have, |_| ()).await
    }

    async fn start_with(have: Option<HostSnapshot>, change: fn(&mut FeedConfig)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut config = FeedConfig::new(url, "h1".parse().unwrap());
        config.backoff_min = Duration::from_millis(1);
        config.backoff_max = Duration::from_millis(20);
        config.line_bytes_max = 4_000;
        change(&mut config);
        let status = config.status.subscribe();
        let sender = state::Sender::new(have.map(Arc::new));
        let snapshots = sender.subscribe();
        let (reports, received) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(config, sender, received, shutdown.clone()));
        Self {
            listener,
            snapshots,
            status,
            reports,
            shutdown,
            task,
            waiting: Vec::new(),
        }
    }

    /// The next request whose first line contains `what`; others wait.
    async fn request(&mut self, what: &str) -> Request {
        loop {
            if let Some(n) = self.waiting.iter().position(|r| r.head.contains(what)) {
                return self.waiting.remove(n);
            }
            let accepted = timeout(DEADLINE, self.listener.accept())
                .await
                .expect("a request");
            self.waiting.push(Request::read(accepted.unwrap().0).await);
        }
    }

    async fn snapshot(&mut self, revision: u64) -> Arc<HostSnapshot> {
        let at = |have: &Option<Arc<HostSnapshot>>| {
            have.as_ref()
                .is_some_and(|have| have.revision == Revision(revision))
        };
        let have = timeout(DEADLINE, self.snapshots.wait_for(at))
            .await
            .expect("a snapshot");
        have.unwrap().clone().unwrap()
    }

    async fn status(&mut self, good: impl FnMut(&FeedStatus) -> bool) -> FeedStatus {
        let have = timeout(DEADLINE, self.status.wait_for(good)).await;
        have.expect("a status").unwrap().clone()
    }

    /// The next report, taken.
    async fn report(&mut self) -> HostReport {
        let request = self.request("POST /feed/v1/hosts/h1/report").await;
        let report = serde_json::from_slice(&request.body).unwrap();
        request.answer("204 No Content").await;
        report
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(DEADLINE, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

fn snapshot(revision: u64) -> HostSnapshot {
    let mut snapshot = HostSnapshot::empty("h1".parse().unwrap(), Epoch(uuid(7)));
    snapshot.revision = Revision(revision);
    snapshot
}

fn uuid(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

fn with_network(mut snapshot: HostSnapshot, mtu: u32) -> HostSnapshot {
    let network = Network {
        segment: Segment {
            network_type: NetworkType::Local,
            physical_network: None,
            segmentation_id: None,
        },
        mtu,
        external: false,
        dns_domain: String::new(),
        transit: None,
        vlan_transparent: false,
    };
    snapshot.networks.insert(NetworkId(uuid(1)), network);
    snapshot
}

fn with_port(mut snapshot: HostSnapshot, id: PortId) -> HostSnapshot {
    let port = Port {
        network_id: NetworkId(uuid(1)),
        mac_address: MacAddress([2, 0, 0, 0, 0, 1]),
        fixed_ips: Vec::new(),
        allowed_address_pairs: Vec::new(),
        claimed_ips: Vec::new(),
        port_security_enabled: false,
        security_groups: Vec::new(),
        admin_state_up: true,
        device_owner: String::new(),
        dns_name: String::new(),
        interface: PortInterface::Tap {
            name: "tap0".to_owned(),
        },
        extra_dhcp_opts: Vec::new(),
        qos_policy_id: None,
        pvlan: None,
        logs: Vec::new(),
    };
    snapshot.ports.insert(id, port);
    snapshot
}

fn line_of(snapshot: &HostSnapshot) -> String {
    serde_json::to_string(&FeedMessage::Snapshot(Box::new(snapshot.clone()))).unwrap()
}

fn line_between(from: &HostSnapshot, to: &HostSnapshot) -> String {
    let delta = SnapshotDelta::between(from, to);
    serde_json::to_string(&FeedMessage::Delta(Box::new(delta))).unwrap()
}

#[tokio::test]
async fn a_snapshot_and_deltas_arrive_and_a_lost_stream_resumes() {
    let mut lab = Lab::start(None).await;
    let (one, two) = (snapshot(1), with_network(snapshot(2), 1500));
    let mut stream = lab.request("GET /feed/v1/hosts/h1/watch HTTP").await;
    stream.stream(&[line_of(&one)]).await;
    assert_eq!(*lab.snapshot(1).await, one);
    stream.send(&line_between(&one, &two)).await;
    stream.send("\n").await;
    assert_eq!(*lab.snapshot(2).await, two);
    drop(stream);
    lab.status(|status| !status.connected).await;

    let resume = format!(
        "GET /feed/v1/hosts/h1/watch?epoch={}&revision=2 HTTP",
        two.epoch
    );
    lab.request(&resume)
        .await
        .answer("503 Service Unavailable")
        .await;
    let said = lab
        .status(|s| s.error.as_ref().is_some_and(|e| e.contains("503")))
        .await;
    assert!(!said.connected);
    lab.request(&resume)
        .await
        .stream(&[r#"{"type":"heartbeat","revision":9}"#.to_owned()])
        .await;
    lab.status(|status| status.connections == 2).await;
    assert_eq!(*lab.snapshot(2).await, two);
    lab.stop().await;
}

#[tokio::test]
async fn what_a_hostile_server_says_is_refused_with_a_reason() {
    let have = with_network(snapshot(5), 1500);
    let other_host = {
        let mut value =
            serde_json::to_value(FeedMessage::Snapshot(Box::new(have.clone()))).unwrap();
        value["host"] = json!("h2");
        value.to_string()
    };
    let cases = [
        (
            "hello".to_owned(),
            "no message of Weft's: it begins with \"hello\"",
        ),
        ("\u{1b}[2J\0".to_owned(), "begins with \"\\u{1b}[2J\\0\""),
        (String::new(), "no message"),
        (r#"{"type":"sudo"}"#.to_owned(), "unknown variant `sudo`"),
        (
            r#"{"type":"heartbeat"}"#.to_owned(),
            "missing field `revision`",
        ),
        (r#"{"type":"heartbeat","revision":-1}"#.to_owned(), "-1"),
        ("[".repeat(3_000), "no message"),
        ("x".repeat(4_001), "longer than 4000 bytes"),
        (
            other_host,
            "a snapshot for host h2 came on the feed of host h1",
        ),
        (
            line_of(&with_network(snapshot(6), 7)),
            "mtu: expected 68 to 65535",
        ),
        (
            line_between(&have, &with_network(snapshot(6), 7)),
            "leads to an invalid snapshot",
        ),
        (
            line_between(&snapshot(4), &snapshot(6)),
            "from revision 4 does not apply to revision 5",
        ),
    ];
    let mut lab = Lab::start(Some(have.clone())).await;
    for (line, text) in cases {
        let mut stream = lab.request("GET /feed/v1/hosts/h1/watch?epoch=").await;
        stream.stream(&[line]).await;
        let contains = |s: &FeedStatus| s.error.as_ref().is_some_and(|e| e.contains(text));
        lab.status(contains).await;
        assert_eq!(*lab.snapshot(5).await, have, "{text}");
        // It lost the thread, and so asks for everything; then it can resume again.
        let mut stream = lab.request("GET /feed/v1/hosts/h1/watch HTTP").await;
        stream.stream(&[line_of(&have)]).await;
        lab.status(|status| status.connected).await;
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_delta_without_a_snapshot_and_an_error_page_are_told_apart() {
    let mut lab = Lab::start(None).await;
    let mut stream = lab.request("GET").await;
    stream
        .stream(&[line_between(&snapshot(1), &snapshot(2))])
        .await;
    lab.status(|s| {
        s.error
            .as_ref()
            .is_some_and(|e| e == "a delta came before any snapshot")
    })
    .await;
    let mut page = lab.request("GET").await;
    page.send("HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 7\r\n\r\nno such")
        .await;
    lab.status(|s| {
        s.error
            .as_ref()
            .is_some_and(|e| e.ends_with("404 Not Found: no such"))
    })
    .await;
    let mut elsewhere = lab.request("GET").await;
    elsewhere
        .send("HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .await;
    lab.status(|s| s.error.as_ref().is_some_and(|e| e.contains("302 Found")))
        .await;
    let mut noise = lab.request("GET").await;
    noise.send("SSH-2.0-OpenSSH_9.2\r\n").await;
    lab.status(|s| s.error.as_ref().is_some_and(|e| e.contains("invalid HTTP")))
        .await;
    lab.stop().await;
}

fn said(revision: u64, full: bool, ports: &[(PortId, PortStatus)]) -> HostReport {
    let port = |(port_id, status): &(PortId, PortStatus)| PortReport {
        port_id: *port_id,
        status: *status,
        message: String::new(),
    };
    HostReport {
        host: "h1".parse().unwrap(),
        epoch: Epoch(uuid(7)),
        revision: Revision(revision),
        ports: ports.iter().map(port).collect(),
        full,
        refused: None,
        unsupported: Vec::new(),
        vhost_user: None,
        physical_networks: Vec::new(),
        unreachable: None,
        tunnel_ip: None,
        claims: Vec::new(),
    }
}

#[tokio::test]
async fn reports_are_merged_until_they_arrive_and_said_again_after_a_reconnection() {
    let (a, b) = (PortId(uuid(10)), PortId(uuid(11)));
    let mut lab = Lab::start(None).await;
    let mut stream = lab.request("GET").await;
    stream
        .stream(&[line_of(&with_port(with_network(snapshot(1), 1500), a))])
        .await;
    lab.snapshot(1).await;

    lab.reports
        .send(said(
            1,
            true,
            &[(a, PortStatus::Down), (b, PortStatus::Down)],
        ))
        .await
        .unwrap();
    let waiting = lab.request("POST").await;
    lab.reports
        .send(said(2, false, &[(a, PortStatus::Active)]))
        .await
        .unwrap();
    waiting.answer("503 Service Unavailable").await;
    let arrived = lab.report().await;
    assert_eq!(
        arrived,
        said(2, true, &[(a, PortStatus::Active), (b, PortStatus::Down)])
    );
    // A conflict is said again too; a refusal is not.
    lab.reports.send(said(3, false, &[])).await.unwrap();
    lab.request("POST").await.answer("409 Conflict").await;
    assert_eq!(lab.report().await, said(3, false, &[]));
    lab.reports.send(said(4, false, &[])).await.unwrap();
    lab.request("POST").await.answer("400 Bad Request").await;
    lab.reports.send(said(5, false, &[])).await.unwrap();
    assert_eq!(lab.report().await, said(5, false, &[]));

    // All that is still true; `b` is not this host's any more.
    drop(stream);
    let mut stream = lab.request("GET").await;
    stream
        .stream(&[r#"{"type":"heartbeat","revision":9}"#.to_owned()])
        .await;
    assert_eq!(
        lab.report().await,
        said(5, true, &[(a, PortStatus::Active)])
    );
    lab.stop().await;
}

#[tokio::test]
async fn control_hears_of_a_duty_that_was_refused() {
    let mut lab = Lab::start(None).await;
    lab.request("GET")
        .await
        .stream(&[line_of(&with_network(snapshot(6), 7))])
        .await;
    let report = lab.report().await;
    let (revision, text) = report.refused.unwrap();
    assert_eq!(
        (report.revision, report.epoch, revision),
        (Revision(0), Epoch(uuid(7)), Revision(6))
    );
    assert!(text.contains("mtu: expected 68 to 65535"), "{text}");
    lab.stop().await;
}

#[test]
fn waits_double_up_to_a_bound_and_are_shortened_by_chance() {
    let mut config = FeedConfig::new(String::new(), "h1".parse().unwrap());
    (config.backoff_min, config.backoff_max) = (Duration::from_secs(1), Duration::from_secs(3));
    let mut backoff = Backoff::new(&config);
    let waits: Vec<_> = [0.0, 0.0, 0.0, 0.5]
        .map(|chance| backoff.due(chance).as_millis())
        .into();
    assert_eq!(waits, [1_000, 2_000, 3_000, 2_250]);
    backoff.reset();
    assert_eq!(backoff.due(0.0).as_millis(), 1_000);
}

#[test]
fn an_excerpt_is_short_and_printable() {
    assert_eq!(excerpt(b"a\x1b\xffb"), "a\\u{1b}\u{fffd}b");
    assert_eq!(excerpt(&[b'x'; 600]).len(), EXCERPT_BYTES);
}

#[tokio::test]
async fn who_has_nothing_to_say_shows_that_it_lives() {
    let port = PortId(uuid(10));
    let mut lab = Lab::start_with(None, |config| {
        config.report_every = Duration::from_millis(1);
        config.physical_networks = vec!["one".to_owned()];
    })
    .await;
    let report = said(3, true, &[(port, PortStatus::Active)]);
    lab.reports.send(report).await.unwrap();
    let first = lab.report().await;
    assert_eq!(first.ports.len(), 1);
    let again = lab.report().await;
    assert_eq!((again.revision, again.full), (Revision(3), false));
    assert!(again.ports.is_empty());
    assert_eq!(again.physical_networks, ["one"]);
    assert_eq!(first.physical_networks, ["one"]);
    lab.stop().await;
}
