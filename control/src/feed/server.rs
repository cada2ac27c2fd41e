//! The feed's HTTP: three routes, on a listener of their own.
//!
//! | route | what |
//! |---|---|
//! | `GET /feed/v1/hosts` | what is known of every host's agent, and the API-to-enforced latency |
//! | `GET /feed/v1/hosts/{host}/watch?epoch=E&revision=R` | the stream; resumes where the agent is, if it can |
//! | `POST /feed/v1/hosts/{host}/report` | an agent's [`HostReport`] |
//! | `POST /feed/v1/hosts/{host}/join` | with TLS only: a certificate for the bearer of a token |
//! | `POST /feed/v1/hosts/{host}/renew` | with TLS only: the next certificate |
//!
//! With TLS a host's routes are for who has a certificate of that host, and nobody gets the list of hosts. Without it
//! there is nobody to tell apart: such a listener is for loopback.

use super::authority::{Authority, AuthorityError, Signed, hex};
use super::hub::{HostState, Hub, HubError, Round};
use super::latency::Latency;
use super::report::{self, ReportError};
use super::stream::FeedStream;
use super::tls::{Bounds, Peer, TlsListener};
use crate::connection::BoundedListener;
use crate::store::Store;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_model::{Epoch, HostName, HostReport, Revision, limits};

/// Whole snapshots that are made for streams at a time: each takes a processor, and megabytes, for a moment.
const WHOLE_AT_ONCE: usize = 2;

/// The answer of `GET /feed/v1/hosts`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostsView {
    /// The database.
    pub epoch: Epoch,
    /// The newest revision.
    pub revision: Revision,
    /// From commit to the report that it is enforced, over all hosts since the server started.
    pub latency: LatencyView,
    /// What the last rounds of realize cost.
    pub realize: RealizeView,
    /// Bytes that all streams were sent since the start.
    pub sent_bytes: u64,
    /// All hosts, by name.
    pub hosts: Vec<HostState>,
}

/// What rounds of realize cost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RealizeView {
    /// How many there were since the start.
    pub rounds: u64,
    /// Of the last ones, oldest first: microseconds to read what changed, and to bring the hosts' duties up to date.
    pub recent_us: Vec<(u128, u128)>,
}

impl RealizeView {
    fn of((rounds, recent): &(u64, Vec<Round>)) -> Self {
        let us = |round: &Round| (round.read.as_micros(), round.made.as_micros());
        Self {
            rounds: *rounds,
            recent_us: recent.iter().map(us).collect(),
        }
    }
}

/// A [`Latency`] for people and graphs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LatencyView {
    /// How many changes were measured.
    pub count: u64,
    /// Milliseconds on average.
    pub mean_ms: Option<f64>,
    /// Half were at most this.
    pub p50_ms: Option<u64>,
    /// 99 of 100 were at most this.
    pub p99_ms: Option<u64>,
    /// Upper bound in milliseconds (none: no bound), and how many were at most that.
    pub buckets: Vec<(Option<u64>, u64)>,
}

impl From<Latency> for LatencyView {
    fn from(latency: Latency) -> Self {
        Self {
            count: latency.count(),
            mean_ms: latency.mean_ms(),
            p50_ms: latency.percentile_ms(50),
            p99_ms: latency.percentile_ms(99),
            buckets: latency.cumulative().collect(),
        }
    }
}

#[derive(Clone)]
struct Feed {
    hub: Arc<Hub>,
    store: Store,
    shutdown: CancellationToken,
    /// Who says who may; none without TLS.
    authority: Option<Authority>,
    /// For whole snapshots on their way.
    turns: Arc<Semaphore>,
}

/// The feed's routes. Streams end when `shutdown` is cancelled. With an `authority` they are for [`serve_tls`].
pub fn router(
    hub: Arc<Hub>,
    store: Store,
    authority: Option<Authority>,
    shutdown: CancellationToken,
) -> Router {
    Router::new()
        .route("/feed/v1/hosts", get(hosts))
        .route("/feed/v1/hosts/{host}/watch", get(watch))
        .route("/feed/v1/hosts/{host}/report", post(report))
        .route("/feed/v1/hosts/{host}/join", post(join))
        .route("/feed/v1/hosts/{host}/renew", post(renew))
        .layer(DefaultBodyLimit::max(limits::FEED_REPORT_BYTES_MAX))
        .with_state(Feed {
            hub,
            store,
            shutdown,
            authority,
            turns: Arc::new(Semaphore::new(WHOLE_AT_ONCE)),
        })
}

/// Serves with TLS, under these names, until `shutdown` is cancelled and all streams have ended.
///
/// # Errors
/// The listener broke, or there can be no certificate for such names.
pub async fn serve_tls(
    listener: TcpListener,
    router: Router,
    (authority, names): (&Authority, &[String]),
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let config = authority.server(names).map_err(std::io::Error::other)?;
    let service = router.into_make_service_with_connect_info::<Peer>();
    axum::serve(
        TlsListener::new(listener, config, Bounds::default()),
        service,
    )
    .with_graceful_shutdown(shutdown.cancelled_owned())
    .await
}

/// Who asks, where there is TLS.
type Asks = Option<Extension<ConnectInfo<Peer>>>;

impl Feed {
    /// Lets in who has the host's certificate. Answers what it has to be asked again with; nothing without TLS.
    async fn admit(&self, asks: Asks, host: &HostName) -> Result<Option<String>, Refusal> {
        let Some(authority) = &self.authority else {
            return Ok(None);
        };
        let Some(Extension(ConnectInfo(peer))) = asks else {
            return Err(Refusal::stranger());
        };
        let address = peer.address;
        let Some(fingerprint) = peer.fingerprint else {
            tracing::warn!(%address, %host, "an agent without a certificate is refused");
            return Err(Refusal::stranger());
        };
        match authority.host_of(&fingerprint).await? {
            Some(whose) if whose == host.as_str() => Ok(Some(fingerprint)),
            Some(whose) => {
                tracing::warn!(%address, %host, %whose, "an agent with another host's certificate is refused");
                Err(Refusal::stranger())
            }
            None => {
                tracing::warn!(%address, %host, "an agent whose certificate has expired or was taken back is refused");
                Err(Refusal::stranger())
            }
        }
    }

    /// Resolves when a certificate counts no longer; never without one.
    async fn no_longer(&self, host: HostName, fingerprint: Option<String>) {
        let (Some(authority), Some(fingerprint)) = (&self.authority, fingerprint) else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(Duration::from_millis(limits::FEED_HEARTBEAT_MS)).await;
            // A database that does not answer takes nobody's certificate back.
            if let Ok(None) = authority.host_of(&fingerprint).await {
                tracing::warn!(%host, "a stream ends: its certificate has expired or was taken back");
                return;
            }
        }
    }
}

/// Serves until `shutdown` is cancelled and all streams have ended.
///
/// # Errors
/// The listener broke.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let idle = Duration::from_secs(limits::FEED_IDLE_S);
    let listener = BoundedListener::new(listener, limits::FEED_CONNECTIONS_MAX, idle);
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

async fn hosts(State(feed): State<Feed>) -> Result<Json<HostsView>, Refusal> {
    if feed.authority.is_some() {
        // One host's agent must not learn of the others.
        return Err(Refusal::stranger());
    }
    Ok(Json(HostsView {
        epoch: feed.hub.epoch(),
        revision: feed.hub.revision(),
        latency: feed.hub.latency().into(),
        realize: RealizeView::of(&feed.hub.rounds()),
        sent_bytes: feed.hub.sent_bytes(),
        hosts: feed.hub.hosts(Instant::now()),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchQuery {
    epoch: Option<Epoch>,
    revision: Option<u64>,
}

async fn watch(
    State(feed): State<Feed>,
    asks: Asks,
    host: Result<Path<HostName>, PathRejection>,
    query: Result<Query<WatchQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let (Path(host), Query(query)) = (host?, query?);
    let certificate = feed.admit(asks, &host).await?;
    let have = query.epoch.zip(query.revision.map(Revision));
    let subscription = feed.hub.subscribe(&host, have).map_err(ReportError::Hub)?;
    let (shutdown, turns) = (feed.shutdown.clone(), feed.turns.clone());
    let whose = host.clone();
    let no_longer = async move { feed.no_longer(whose, certificate).await };
    let end = (shutdown, Box::pin(no_longer) as BoxFuture<'static, ()>);
    let stream = FeedStream::new(host, subscription, end, turns);
    let lines = futures_util::stream::unfold(stream, async |stream| {
        let (line, stream) = stream.next().await?;
        Some((Ok::<_, Infallible>(line), stream))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

async fn report(
    State(feed): State<Feed>,
    asks: Asks,
    host: Result<Path<HostName>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Refusal> {
    let (Path(host), body) = (host?, body?);
    feed.admit(asks, &host).await?;
    let report: HostReport = serde_json::from_slice(&body).map_err(Refusal::body)?;
    report::report(&feed.hub, &feed.store, &host, &report).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Join {
    token: String,
    public_key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Renew {
    public_key: String,
}

/// A certificate, in hexadecimal, and in how many seconds to ask for the next.
#[derive(Serialize)]
struct Certificate {
    certificate: String,
    renew_after_s: u64,
}

impl From<Signed> for Certificate {
    fn from(signed: Signed) -> Self {
        Self {
            certificate: hex(&signed.certificate),
            renew_after_s: signed.renew_after_s,
        }
    }
}

async fn join(
    State(feed): State<Feed>,
    host: Result<Path<HostName>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Certificate>, Refusal> {
    let (Path(host), body) = (host?, body?);
    let authority = feed.authority.ok_or_else(Refusal::stranger)?;
    let asked: Join = serde_json::from_slice(&body).map_err(Refusal::body)?;
    let signed = authority
        .join(&host, &asked.token, &asked.public_key)
        .await?;
    let Some(signed) = signed else {
        tracing::warn!(%host, "an agent with a token that counts not, or not any more, is refused");
        return Err(Refusal::stranger());
    };
    tracing::info!(%host, "an agent has joined");
    Ok(Json(signed.into()))
}

async fn renew(
    State(feed): State<Feed>,
    asks: Asks,
    host: Result<Path<HostName>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Certificate>, Refusal> {
    let (Path(host), body) = (host?, body?);
    feed.admit(asks, &host).await?;
    let authority = feed.authority.ok_or_else(Refusal::stranger)?;
    let asked: Renew = serde_json::from_slice(&body).map_err(Refusal::body)?;
    let signed = authority.renew(&host, &asked.public_key).await?;
    signed
        .map(|signed| Json(signed.into()))
        .ok_or_else(Refusal::stranger)
}

/// What a client is told: a status and a sentence.
struct Refusal(StatusCode, String);

#[derive(Serialize)]
struct RefusalBody {
    error: String,
}

impl Refusal {
    #[allow(clippy::needless_pass_by_value, reason = "stands in map_err")]
    fn body(error: serde_json::Error) -> Self {
        Self(
            StatusCode::BAD_REQUEST,
            format!("the body cannot be read: {error}"),
        )
    }

    /// Not why: a stranger learns nothing, and the log says it.
    fn stranger() -> Self {
        let sentence =
            "expected this host's certificate: `weft feed token HOST` makes a token to join with";
        Self(StatusCode::FORBIDDEN, sentence.to_owned())
    }
}

impl From<AuthorityError> for Refusal {
    fn from(error: AuthorityError) -> Self {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "nobody can be let in"
        );
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<PathRejection> for Refusal {
    fn from(rejection: PathRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Self {
        Self(rejection.status(), rejection.body_text())
    }
}

impl From<ReportError> for Refusal {
    fn from(error: ReportError) -> Self {
        let status = match &error {
            ReportError::Host { .. } | ReportError::TooMany { .. } | ReportError::Folder => {
                StatusCode::BAD_REQUEST
            }
            ReportError::Hub(HubError::HostsMax { .. }) => StatusCode::SERVICE_UNAVAILABLE,
            ReportError::Hub(HubError::Epoch { .. } | HubError::Revision { .. }) => {
                StatusCode::CONFLICT
            }
            ReportError::Store(source) => {
                tracing::error!(
                    error = source as &dyn std::error::Error,
                    "a report is not stored"
                );
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(RefusalBody { error: self.1 })).into_response()
    }
}
