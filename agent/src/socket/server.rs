//! The control socket's server.

use super::{
    CaptureRequest, Error, FeedState, REQUEST_BYTES_MAX, SESSIONS_DEFAULT, Status, TraceIngress,
    TraceRequest,
};
use crate::capture::{self, CAPTURES_MAX, PLACES_MAX, Place, Plan, Taps};
use crate::clock::now;
use crate::feed::FeedStatus;
use crate::question::{HostStatus, Question};
use crate::service::Millis;
use crate::trace;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use weft_dataplane::Ingress;
use weft_model::{HostName, HostSnapshot};
use weft_vhost::socket_file::{self, SocketFile};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 32;
/// For a request's head to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent answers there.
    #[error("another agent serves {}: stop it, or give this one another instance and socket", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot serve {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What the server tells beside what the engine's thread knows.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) host: HostName,
    pub(crate) instance: String,
    /// The engine whose ports these are, as `weft status` names it.
    pub(crate) engine: &'static str,
    pub(crate) started: Millis,
    pub(crate) feed_url: Option<String>,
    pub(crate) feed: watch::Receiver<FeedStatus>,
    pub(crate) questions: mpsc::Sender<Question>,
    /// The interface that leads to other hosts.
    pub(crate) underlay: Option<String>,
    /// Captures that may begin.
    pub(crate) captures: Arc<Semaphore>,
}

impl Context {
    /// As many captures as there may be.
    pub(crate) fn captures() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(CAPTURES_MAX))
    }
}

/// A socket of ours; its file goes with it.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    _file: SocketFile,
}

impl Socket {
    /// Binds it, in place of one that a dead agent left.
    pub(crate) fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        let (listener, file) = socket_file::listen(path).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => SocketError::Taken {
                path: path.to_owned(),
            },
            _ => failed(error),
        })?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            listener: UnixListener::from_std(listener).map_err(failed)?,
            _file: file,
        })
    }

    /// Serves until the end.
    pub(crate) async fn serve(self, context: Context, shutdown: CancellationToken) {
        let context = Arc::new(context);
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    // Above the limit a connection is closed at once: nobody waits for long.
                    if let Ok(permit) = room.clone().try_acquire_owned()
                        && is_ours(&stream)
                    {
                        let (context, shutdown) = (context.clone(), shutdown.clone());
                        tokio::spawn(async move {
                            tokio::select! {
                                () = shutdown.cancelled() => {}
                                () = connection(stream, context) => {}
                            }
                            drop(permit);
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!("control socket: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// The mode of the file says so already; between binding and setting it there is a moment.
fn is_ours(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    let peer = stream.peer_cred();
    peer.is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

async fn connection(stream: UnixStream, context: Arc<Context>) {
    let service = service_fn(move |request| {
        let context = context.clone();
        async move { Ok::<_, Infallible>(respond(request, &context).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("control socket: {error}");
    }
}

/// An error's status and text.
type Refusal = (StatusCode, String);

/// A body: JSON, or a stream.
type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn respond(request: Request<Incoming>, context: &Context) -> Response<Body> {
    let answer = match request.uri().path() {
        "/v1/capture" => captured(request, context).await,
        _ => route(request, context).await.map(|(status, body)| {
            let body = Full::new(Bytes::from(body)).boxed_unsync();
            (status, "application/json", body)
        }),
    };
    let (status, kind, body) = answer.unwrap_or_else(|(status, error)| {
        let body = serde_json::to_vec(&Error { error }).unwrap_or_default();
        let body = Full::new(Bytes::from(body)).boxed_unsync();
        (status, "application/json", body)
    });
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(kind),
    );
    response
}

/// Begins a capture, whose end is the body's.
async fn captured(
    request: Request<Incoming>,
    context: &Context,
) -> Result<(StatusCode, &'static str, Body), Refusal> {
    if request.method() != Method::POST {
        let text = "/v1/capture does not know this method".to_owned();
        return Err((StatusCode::METHOD_NOT_ALLOWED, text));
    }
    let asked: CaptureRequest = body(request).await?;
    let busy = |_full| {
        let text = format!("{CAPTURES_MAX} captures run already");
        (StatusCode::SERVICE_UNAVAILABLE, text)
    };
    let permit = context.captures.clone().try_acquire_owned().map_err(busy)?;
    let host = context.ask(Question::Status).await?;
    let ground = context
        .ask(Question::Ground)
        .await?
        .ok_or_else(no_snapshot)?;
    let places = context.places(&asked, &host, &ground.snapshot);
    let places = places.map_err(|text| (StatusCode::BAD_REQUEST, text))?;
    let (watch, taps) = Watch::begin(context, places.clone()).await?;
    let started = capture::start(
        Plan {
            places,
            taps,
            ground,
        },
        asked,
    );
    let blocks = started.map_err(|text| (StatusCode::CONFLICT, text))?;
    let held = (blocks, permit, watch);
    let frames = futures_util::stream::unfold(held, async |(mut blocks, permit, watch)| {
        let block = blocks.recv().await?;
        Some((Ok(Frame::data(block)), (blocks, permit, watch)))
    });
    Ok((
        StatusCode::OK,
        "application/x-pcapng",
        StreamBody::new(frames).boxed_unsync(),
    ))
}

/// While it lives, all that passes some places can be seen.
struct Watch {
    questions: mpsc::Sender<Question>,
    number: u64,
    places: Vec<Place>,
}

impl Watch {
    async fn begin(context: &Context, places: Vec<Place>) -> Result<(Self, Taps), Refusal> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let watch = Self {
            questions: context.questions.clone(),
            number,
            places: places.clone(),
        };
        let taps = context
            .ask(|to| Question::Watch(number, places, to))
            .await?;
        Ok((watch, taps))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let (questions, number) = (self.questions.clone(), self.number);
        let places = std::mem::take(&mut self.places);
        // Nobody waits for it, and at the agent's end it does not matter.
        tokio::spawn(async move {
            let _ending = questions.send(Question::Unwatch(number, places)).await;
        });
    }
}

fn no_snapshot() -> Refusal {
    let text = "no snapshot is in force yet; see `weft status`".to_owned();
    (StatusCode::CONFLICT, text)
}

async fn route(
    request: Request<Incoming>,
    context: &Context,
) -> Result<(StatusCode, Vec<u8>), Refusal> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/v1/status") => {
            let host = context.ask(Question::Status).await?;
            json(&context.status(host))
        }
        (&Method::GET, "/v1/stats") => json(&failed(context.ask(Question::Stats).await?)?),
        (&Method::GET, "/v1/sessions") => {
            let limit = limit(request.uri().query())?;
            let asked = context.ask(|to| Question::Sessions(limit, to)).await?;
            json(&failed(asked)?)
        }
        (&Method::POST, "/v1/trace") => {
            let question: TraceRequest = body(request).await?;
            let ground = context
                .ask(Question::Ground)
                .await?
                .ok_or_else(no_snapshot)?;
            let traced =
                tokio::task::spawn_blocking(move || trace::trace(&question, &ground)).await;
            let traced = traced.map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
            json(&traced.map_err(|text| (StatusCode::BAD_REQUEST, text))?)
        }
        (_, "/v1/status" | "/v1/stats" | "/v1/sessions" | "/v1/trace") => {
            let text = format!("{path} does not know this method");
            Err((StatusCode::METHOD_NOT_ALLOWED, text))
        }
        _ => {
            let text = format!("{path}: expected /v1/status, stats, sessions, trace or capture");
            Err((StatusCode::NOT_FOUND, text))
        }
    }
}

fn failed<T>(answer: Result<T, String>) -> Result<T, Refusal> {
    answer.map_err(|text| (StatusCode::INTERNAL_SERVER_ERROR, text))
}

fn json(value: &impl Serialize) -> Result<(StatusCode, Vec<u8>), Refusal> {
    let body = serde_json::to_vec(value);
    let body = body.map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    Ok((StatusCode::OK, body))
}

fn limit(query: Option<&str>) -> Result<usize, Refusal> {
    match query.unwrap_or_default().split_once('=') {
        None => Ok(SESSIONS_DEFAULT),
        Some(("limit", number)) if number.parse::<usize>().is_ok() => {
            Ok(number.parse().unwrap_or(SESSIONS_DEFAULT))
        }
        Some(_) => {
            let text = "expected limit=N, N a number".to_owned();
            Err((StatusCode::BAD_REQUEST, text))
        }
    }
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refusal> {
    let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX);
    let too_large = |_error| {
        let text = format!("a request has at most {REQUEST_BYTES_MAX} bytes");
        (StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    let body = body.collect().await.map_err(too_large)?.to_bytes();
    let wrong = |e: serde_json::Error| (StatusCode::BAD_REQUEST, format!("the request: {e}"));
    serde_json::from_slice(&body).map_err(wrong)
}

impl Context {
    async fn ask<A>(
        &self,
        question: impl FnOnce(oneshot::Sender<A>) -> Question,
    ) -> Result<A, Refusal> {
        let ending = || {
            let text = "the agent is ending".to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, text)
        };
        let (sender, receiver) = oneshot::channel();
        let sent = self.questions.send(question(sender)).await;
        sent.map_err(|_gone| ending())?;
        receiver.await.map_err(|_gone| ending())
    }

    /// Where a capture looks.
    fn places(
        &self,
        asked: &CaptureRequest,
        host: &HostStatus,
        snapshot: &HostSnapshot,
    ) -> Result<Vec<Place>, String> {
        let mut all: Vec<TraceIngress> = asked.places.clone();
        let everything = all.is_empty() && !asked.underlay;
        if everything {
            let ports = host.ports.iter().filter(|port| port.reason.is_empty());
            all.extend(ports.map(|port| TraceIngress::Port(port.port_id)));
            all.extend(snapshot.networks.iter().filter_map(|(id, network)| {
                let physical = network.segment.physical_network.as_ref()?;
                let here = host.physical_networks.iter();
                let mut here = here.filter(|known| known.attached && known.name == *physical);
                here.next().map(|_| TraceIngress::Network(*id))
            }));
        }
        let mut places: Vec<Place> = Vec::new();
        for ingress in all {
            let place = place(ingress, host, snapshot)?;
            // Several networks may be on one interface.
            if places.iter().all(|have| have.interface != place.interface) {
                places.push(place);
            }
        }
        if let Some(interface) = self
            .underlay
            .as_ref()
            .filter(|_| asked.underlay || everything)
        {
            places.push(Place {
                name: "underlay".to_owned(),
                interface: interface.clone(),
                ingress: Ingress::Underlay,
            });
        } else if asked.underlay {
            return Err("this host has no underlay".to_owned());
        }
        if places.is_empty() {
            return Err("there is no port yet, and no physical network".to_owned());
        }
        if places.len() > PLACES_MAX {
            let text = format!(
                "{} interfaces, more than {PLACES_MAX}: name ports",
                places.len()
            );
            return Err(text);
        }
        Ok(places)
    }

    fn status(&self, host: HostStatus) -> Status {
        let feed = self.feed.borrow().clone();
        Status {
            host: self.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.clone(),
            engine: self.engine.to_owned(),
            uptime_s: now().saturating_sub(self.started) / 1_000,
            epoch: host.in_force.as_ref().map(|s| s.epoch),
            revision: host.in_force.as_ref().map(|s| s.revision),
            revision_received: host.received,
            refused: host.refused,
            feed: FeedState {
                url: self.feed_url.clone(),
                connected: feed.connected,
                error: feed.error,
            },
            ports: host.ports,
            physical_networks: host.physical_networks,
            underlay: host.underlay,
            unsupported: host.unsupported,
            neighbours: host.neighbours,
        }
    }
}

fn place(
    ingress: TraceIngress,
    host: &HostStatus,
    snapshot: &HostSnapshot,
) -> Result<Place, String> {
    match ingress {
        TraceIngress::Port(id) => {
            let port = host.ports.iter().find(|port| port.port_id == id);
            let port = port.ok_or_else(|| format!("port {id} is not on this host"))?;
            Ok(Place {
                name: format!("port {id}"),
                interface: port.interface.clone(),
                ingress: Ingress::Port(id),
            })
        }
        TraceIngress::Network(id) => {
            let network = snapshot.networks.get(&id);
            let network = network.ok_or_else(|| format!("network {id} is not on this host"))?;
            let physical = network.segment.physical_network.as_ref();
            let here = host.physical_networks.iter();
            let mut here = here.filter(|known| physical == Some(&known.name));
            let interface = here.next().ok_or_else(|| {
                format!("network {id} is on no physical network that this host has")
            })?;
            Ok(Place {
                name: format!("network {id}"),
                interface: interface.interface.clone(),
                ingress: Ingress::Network(id),
            })
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
