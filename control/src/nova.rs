//! Telling Nova what happens to its servers' ports: it waits for `network-vif-plugged` before it lets a guest run.
//!
//! Guarantees: events are sent in the order in which they were committed, several in one request; what Nova cannot take now is
//! tried again, longer and longer apart, [`TRIES_MAX`] times; the queue is bounded, and no request of the API ever waits for
//! Nova. An event is sent once or, if Nova's answer is lost, twice; one that Nova refuses is not sent again.

use crate::remote::session::{Credentials, Session};
use crate::remote::{self, RemoteError};
use crate::store::{Clock, ServerEvent, ServerEventKind, Store};
use axum::http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait.
const QUEUE_MAX: usize = 10_000;
/// Events of one request.
const BATCH_MAX: usize = 100;
/// How often one request is tried.
const TRIES_MAX: u32 = 8;
/// The pause after the first try; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(250);

/// `[nova]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NovaConfig {
    /// Whether Nova is told.
    pub notify: bool,
    /// Its URL, with `/v2.1`; none for the catalogue's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Which of the catalogue's endpoints.
    pub interface: String,
    /// The user that Weft tells it as.
    pub auth: Credentials,
}

impl Default for NovaConfig {
    fn default() -> Self {
        Self {
            notify: false,
            url: None,
            interface: "public".to_owned(),
            auth: Credentials::default(),
        }
    }
}

/// Whoever tells Nova.
pub(crate) struct Nova {
    config: NovaConfig,
    region: String,
    session: Session,
    events: mpsc::Receiver<ServerEvent>,
}

impl Nova {
    /// Listens to the store from now on; tells nobody yet.
    ///
    /// # Errors
    /// The system's certificates cannot be read.
    pub(crate) fn new(
        config: NovaConfig,
        region: String,
        store: &Store,
        clock: Clock,
    ) -> remote::Result<Self> {
        let session = Session::new(config.auth.clone(), clock)?;
        let (sender, events) = mpsc::channel(QUEUE_MAX);
        store.server_events_to(sender);
        Ok(Self {
            config,
            region,
            session,
            events,
        })
    }

    /// Tells, until `shutdown` is cancelled. What waits then is not told: Nova asks anew when it matters.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let told = async {
            let mut batch = Vec::with_capacity(BATCH_MAX);
            while self.events.recv_many(&mut batch, BATCH_MAX).await > 0 {
                self.tell(&bodies(&batch)).await;
                batch.clear();
            }
        };
        tokio::select! {
            () = told => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn tell(&self, events: &Value) {
        let mut pause = PAUSE;
        for number in 1..=TRIES_MAX {
            let error = match self.try_tell(events).await {
                Ok(()) => return,
                Err(error) => error,
            };
            let again = number < TRIES_MAX && may_help(&error);
            tracing::warn!(%error, again, "Nova is not told of its servers' ports");
            if !again {
                return;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn try_tell(&self, events: &Value) -> remote::Result<()> {
        let url = match &self.config.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => {
                let interface = &self.config.interface;
                self.session
                    .endpoint("compute", interface, &self.region)
                    .await?
            }
        };
        let url = format!("{url}/os-server-external-events");
        self.session
            .send(Method::POST, &url, &[], Some(events))
            .await?
            .good()?;
        Ok(())
    }
}

/// Whether the same request may succeed later: not if Nova has understood and refused it.
fn may_help(error: &RemoteError) -> bool {
    match error {
        RemoteError::Status { status, .. } => *status >= 500 || *status == 401 || *status == 429,
        _ => true,
    }
}

/// The request's body. What is said twice in a row is said once.
fn bodies(batch: &[ServerEvent]) -> Value {
    let mut events: Vec<&ServerEvent> = batch.iter().collect();
    events.dedup();
    let events: Vec<Value> = events.into_iter().map(body).collect();
    json!({ "events": events })
}

fn body(event: &ServerEvent) -> Value {
    let (name, status) = match event.kind {
        ServerEventKind::NetworkChanged => ("network-changed", None),
        ServerEventKind::VifPlugged => ("network-vif-plugged", Some("completed")),
        ServerEventKind::VifPlugFailed => ("network-vif-plugged", Some("failed")),
        ServerEventKind::VifUnplugged => ("network-vif-unplugged", Some("completed")),
        ServerEventKind::VifDeleted => ("network-vif-deleted", None),
    };
    let mut body = json!({ "name": name, "server_uuid": event.server_id, "tag": event.port_id });
    if let Some(status) = status {
        body["status"] = status.into();
    }
    body
}
