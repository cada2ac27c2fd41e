//! The feed's HTTP: three routes, on a listener of their own.
//!
//! | route | what |
//! |---|---|
//! | `GET /feed/v1/hosts` | what is known of every host's agent, and the API-to-enforced latency |
//! | `GET /feed/v1/hosts/{host}/watch?epoch=E&revision=R` | the stream; resumes where the agent is, if it can |
//! | `POST /feed/v1/hosts/{host}/report` | an agent's [`HostReport`] |

use super::hub::{HostState, Hub, HubError, Round};
use super::latency::Latency;
use super::report::{self, ReportError};
use super::stream::FeedStream;
use crate::store::Store;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_model::{Epoch, HostName, HostReport, Revision, limits};

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
}

/// The feed's routes. Streams end when `shutdown` is cancelled.
pub fn router(hub: Arc<Hub>, store: Store, shutdown: CancellationToken) -> Router {
    Router::new()
        .route("/feed/v1/hosts", get(hosts))
        .route("/feed/v1/hosts/{host}/watch", get(watch))
        .route("/feed/v1/hosts/{host}/report", post(report))
        .layer(DefaultBodyLimit::max(limits::FEED_REPORT_BYTES_MAX))
        .with_state(Feed {
            hub,
            store,
            shutdown,
        })
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
    let listener = listener.tap_io(|connection| {
        // A delta is one small write that somebody waits for.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
    });
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

async fn hosts(State(feed): State<Feed>) -> Json<HostsView> {
    Json(HostsView {
        epoch: feed.hub.epoch(),
        revision: feed.hub.revision(),
        latency: feed.hub.latency().into(),
        realize: RealizeView::of(&feed.hub.rounds()),
        sent_bytes: feed.hub.sent_bytes(),
        hosts: feed.hub.hosts(Instant::now()),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchQuery {
    epoch: Option<Epoch>,
    revision: Option<u64>,
}

async fn watch(
    State(feed): State<Feed>,
    host: Result<Path<HostName>, PathRejection>,
    query: Result<Query<WatchQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let (Path(host), Query(query)) = (host?, query?);
    let have = query.epoch.zip(query.revision.map(Revision));
    let subscription = feed.hub.subscribe(&host, have).map_err(ReportError::Hub)?;
    let stream = FeedStream::new(host, subscription, feed.shutdown);
    let lines = futures_util::stream::unfold(stream, async |mut stream| {
        let line = stream.line().await?;
        Some((Ok::<_, Infallible>(line), stream))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

async fn report(
    State(feed): State<Feed>,
    host: Result<Path<HostName>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Refusal> {
    let (Path(host), body) = (host?, body?);
    let report: HostReport = serde_json::from_slice(&body).map_err(Refusal::body)?;
    report::report(&feed.hub, &feed.store, &host, &report).await?;
    Ok(StatusCode::NO_CONTENT)
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
            format!("the report cannot be read: {error}"),
        )
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
