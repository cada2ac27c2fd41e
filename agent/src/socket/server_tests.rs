//! Tests of the control socket: real requests over a real unix socket.

use super::*;
use crate::service::fixture::{GUEST, snapshot};
use crate::socket::{Client, ClientError, FiveTuple, Sessions, Stats, TraceIngress, TracePacket};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn path() -> PathBuf {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("weft-socket-{}-{number}.sock", std::process::id()))
}

/// A served socket whose engine's thread is played by a task that answers from the fixture.
struct Served {
    path: PathBuf,
    client: Client,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    fn start() -> Self {
        let path = path();
        let socket = Socket::bind(&path).unwrap();
        let (questions, mut asked) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                answer(question);
            }
        });
        let context = Context {
            engine: "ebpf",
            host: "host1".parse().unwrap(),
            instance: "test".to_owned(),
            started: now(),
            feed_url: None,
            feed: watch::channel(FeedStatus::default()).1,
            questions,
            underlay: None,
            captures: Context::captures(),
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(socket.serve(context, shutdown.clone()));
        let client = Client::new(&path);
        Self {
            path,
            client,
            shutdown,
            task,
        }
    }

    async fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

fn answer(question: Question) {
    match question {
        Question::Status(to) => drop(to.send(HostStatus {
            in_force: Some(Arc::new(snapshot())),
            received: None,
            refused: None,
            ports: Vec::new(),
            physical_networks: Vec::new(),
            underlay: None,
            unsupported: Vec::new(),
            neighbours: Vec::new(),
        })),
        Question::Stats(to) => drop(to.send(Ok(Stats::default()))),
        Question::Sessions(0, to) => drop(to.send(Err("the kernel refuses".to_owned()))),
        Question::Sessions(limit, to) => drop(to.send(Ok(Sessions {
            sessions: Vec::new(),
            truncated: limit == 7,
        }))),
        Question::Ground(to) => drop(to.send(None)),
        Question::Watch(_, places, to) => drop(to.send(Taps::new(places.len()).0)),
        Question::Unwatch(..) => {}
    }
}

#[tokio::test]
async fn questions_are_answered() {
    let served = Served::start();
    let mode = std::fs::metadata(&served.path)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let status = served.client.status().await.unwrap();
    assert_eq!(status.revision, Some(weft_model::Revision(0)));
    assert_eq!(status.host.as_str(), "host1");
    assert_eq!(served.client.stats().await.unwrap(), Stats::default());
    assert!(served.client.sessions(7).await.unwrap().truncated);
    assert!(
        !served
            .client
            .sessions(SESSIONS_DEFAULT)
            .await
            .unwrap()
            .truncated
    );
    let refused = served.client.sessions(0).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused(text) if text == "the kernel refuses"));
    let request = TraceRequest {
        ingress: TraceIngress::Port(GUEST),
        packet: TracePacket::FiveTuple(FiveTuple {
            protocol: 6,
            source: [192, 0, 2, 11].into(),
            destination: [192, 0, 2, 12].into(),
            source_port: 1,
            destination_port: 2,
        }),
    };
    let refused = served.client.trace(&request).await.unwrap_err();
    assert!(
        refused.to_string().contains("no snapshot is in force"),
        "{refused}"
    );
}

#[tokio::test]
async fn nonsense_is_refused_with_what_is_expected() {
    let served = Served::start();
    let long = "x".repeat(REQUEST_BYTES_MAX + 1);
    let post = |body: &str| {
        let length = body.len();
        format!(
            "POST /v1/trace HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    for (request, status, text) in [
        (get("/"), "404", "expected /v1/status"),
        (get("/v1/trace"), "405", "method"),
        (get("/v1/sessions?limit=x"), "400", "expected limit=N"),
        (post("{}"), "400", "missing field `ingress`"),
        (post(&long), "413", "at most"),
    ] {
        let answer = served.raw(&request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(answer.contains(text), "{answer}");
    }
}

#[tokio::test]
async fn a_dead_agents_socket_is_replaced_and_a_living_ones_is_not() {
    let served = Served::start();
    assert!(matches!(
        Socket::bind(&served.path),
        Err(SocketError::Taken { .. })
    ));
    served.shutdown.cancel();
    served.task.await.unwrap();
    assert!(!served.path.exists(), "its file goes with it");
    let gone = served.client.status().await.unwrap_err();
    assert!(matches!(gone, ClientError::Connect { .. }), "{gone}");
    drop(std::os::unix::net::UnixListener::bind(&served.path).unwrap());
    assert!(served.path.exists(), "as a dead agent leaves it");
    let again = Socket::bind(&served.path).unwrap();
    drop(again);
    assert!(!served.path.exists());
}

#[tokio::test]
async fn a_file_at_the_sockets_path_is_left_alone_and_named() {
    let path = path();
    std::fs::write(&path, "precious").unwrap();
    let refused = Socket::bind(&path).unwrap_err();
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(
        refused.to_string().contains(path.to_str().unwrap()),
        "{refused}"
    );
    assert!(why.contains("an ordinary file is there"), "{why}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
}
