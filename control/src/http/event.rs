//! GET /v2.0/events: a stream (Server-Sent Events) of what changes, as far as the caller may see it.
//!
//! An event is one revision: `id` is its number, `data` a JSON object with the `revision` and its `changes`; each names
//! the `resource`, its `id`, the `change` (created, changed, deleted) and, unless it is deleted, the resource as a GET
//! shows it. `after=REVISION` or the header Last-Event-ID resumes behind a revision. An event `resync` says that the
//! record does not reach back that far: read what you watch anew, and go on from its revision. `heartbeat` says that
//! nothing was missed.
//!
//! Guarantees: what a GET would refuse is not shown; streams are bounded, a project's too; a slow reader holds no
//! queue, because a line is made when it is ready for one; a stream ends with its token.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Handler, Operation, Route, Server, boxed, caller, routes};
use crate::app::attribute::Attributes;
use crate::app::error::Error;
use crate::app::policy::Caller;
use crate::app::resource::Shape;
use crate::store::{Change, How, StoreError, changes_since};
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use weft_model::Revision;

/// Streams of one server.
const STREAMS_MAX: usize = 64;
/// Streams of one project.
const STREAMS_PER_PROJECT_MAX: usize = 8;
/// Changes that are read at once; a reader that is further behind must read anew.
const CHANGES_MAX: u32 = 1_000;
/// Between two looks at what has changed, so that a storm of writes is not also one of reads.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two lines at most.
const HEARTBEAT: Duration = Duration::from_secs(15);

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

/// The streams that are open, by project.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<BTreeMap<String, usize>>);

/// One open stream.
struct Place {
    streams: Arc<Streams>,
    project: String,
}

impl Streams {
    fn open(self: &Arc<Self>, project: &str) -> Result<Place, Error> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.get(project).copied().unwrap_or_default();
        if all >= STREAMS_MAX || own >= STREAMS_PER_PROJECT_MAX {
            return Err(Error::TooMany(format!(
                "{own} event streams of this project are open, {all} of all projects; \
                 expected fewer than {STREAMS_PER_PROJECT_MAX} and {STREAMS_MAX}"
            )));
        }
        open.insert(project.to_owned(), own + 1);
        Ok(Place {
            streams: self.clone(),
            project: project.to_owned(),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .streams
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.project) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.project);
            }
        }
    }
}

/// How each kind of resource is shown: the handler of its GET.
static SHOWN: LazyLock<BTreeMap<&'static str, (Handler, Shape)>> = LazyLock::new(|| {
    let one = |route: Route| match route.shape {
        Some((Operation::Show, shape)) if !route.path.contains("{parent}") => {
            Some((shape.kind, (route.handler, shape)))
        }
        _ => None,
    };
    // Kinds that are shown at several paths are shown as at the first.
    routes().into_iter().rev().filter_map(one).collect()
});

pub(super) fn events(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let newest = *server.app.store.subscribe().borrow();
        let after = after(&request)?.unwrap_or(newest);
        let place = server.streams.open(&request.caller.project_id)?;
        let stream = Stream {
            nudges: server.app.store.subscribe(),
            server,
            request,
            after,
            greeted: false,
            _place: place,
        };
        let lines = futures_util::stream::unfold(stream, async |mut stream| {
            let line = stream.line().await?;
            Some((Ok::<_, Infallible>(line), stream))
        });
        Ok(Reply::stream("text/event-stream", Body::from_stream(lines)))
    })
}

/// The revision behind which the stream begins, if the caller names one.
fn after(request: &Request) -> Result<Option<Revision>, Error> {
    let header = request.headers.get("last-event-id");
    let header = header.and_then(|value| value.to_str().ok());
    let mut wanted = header.map(|value| ("Last-Event-ID", value));
    for (name, value) in &request.query {
        match name.as_str() {
            "after" => wanted = Some(("after", value)),
            _ => {
                return Err(Error::attribute(
                    name,
                    "the event stream knows the parameter 'after' only",
                ));
            }
        }
    }
    let Some((name, value)) = wanted else {
        return Ok(None);
    };
    let number = value
        .parse()
        .map_err(|_not_a_number| Error::attribute(name, "a revision is a whole number"))?;
    Ok(Some(Revision(number)))
}

struct Stream {
    server: Arc<Server>,
    request: Request,
    nudges: watch::Receiver<Revision>,
    after: Revision,
    greeted: bool,
    _place: Place,
}

impl Stream {
    /// The next events; none ends the stream.
    async fn line(&mut self) -> Option<Bytes> {
        // The client learns at once that it is connected, and where it is.
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(self.heartbeat());
        }
        loop {
            let closing = self.server.closing.clone();
            tokio::select! {
                biased;
                () = closing.cancelled() => return None,
                () = tokio::time::sleep(PAUSE) => {}
            }
            self.nudges.borrow_and_update();
            // A token ends while its stream is open, and so may a role.
            let headers = &self.request.headers;
            let caller = caller::of(&self.server, headers, &self.request.uri_path).await;
            self.request.caller = caller.ok()?;
            match self.read().await {
                Ok(text) if !text.is_empty() => return Some(text.into()),
                Ok(_nothing_to_see) => {}
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "an event stream ends"
                    );
                    return None;
                }
            }
            tokio::select! {
                () = closing.cancelled() => return None,
                nudge = self.nudges.changed() => nudge.ok()?,
                () = tokio::time::sleep(HEARTBEAT) => return Some(self.heartbeat()),
            }
        }
    }

    fn heartbeat(&self) -> Bytes {
        event("heartbeat", self.after, &json!({ "revision": self.after })).into()
    }

    /// What has changed since, as events; the empty text if the caller may see none of it.
    async fn read(&mut self) -> Result<String, StoreError> {
        let mut read = self.server.app.store.read().await?;
        let newest = crate::store::revision(read.conn()).await?;
        let changes = changes_since(read.conn(), self.after, CHANGES_MAX).await?;
        drop(read);
        let ahead = self.after > newest;
        let Some(changes) = changes.filter(|_| !ahead) else {
            self.after = newest;
            return Ok(event("resync", newest, &json!({ "revision": newest })));
        };
        let mut by_revision: BTreeMap<i64, Vec<Value>> = BTreeMap::new();
        for change in changes {
            let shown = self.shown(&change).await;
            let changes = by_revision.entry(change.revision).or_default();
            changes.extend(shown.map(Value::Object));
        }
        let mut text = String::new();
        for (revision, changes) in by_revision {
            let revision = Revision(revision.unsigned_abs());
            self.after = self.after.max(revision);
            if !changes.is_empty() {
                let data = json!({ "revision": revision, "changes": changes });
                text.push_str(&event("changes", revision, &data));
            }
        }
        Ok(text)
    }

    /// A change as this caller sees it, if it does.
    async fn shown(&self, change: &Change) -> Option<Map<String, Value>> {
        let (handler, shape) = SHOWN.get(change.resource.as_str())?;
        let mut shown = Map::new();
        shown.insert("resource".to_owned(), shape.name.into());
        shown.insert("id".to_owned(), change.resource_id.clone().into());
        shown.insert("change".to_owned(), change.how.clone().into());
        if change.how == How::Deleted.name() {
            return may_see_gone(
                &self.server,
                &self.request.caller,
                shape,
                &change.project_id,
            )
            .then_some(shown);
        }
        let reply = handler(self.server.clone(), self.request.of(&change.resource_id)).await;
        let reply = reply.ok().filter(|reply| reply.status == StatusCode::OK)?;
        let body: Map<String, Value> = serde_json::from_str(&reply.json?).ok()?;
        shown.extend(body);
        Some(shown)
    }
}

/// Whether the caller may know that something of a project is gone: if it could see all that the project has.
fn may_see_gone(server: &Server, caller: &Caller, shape: &Shape, project: &str) -> bool {
    let mut target = Attributes::new();
    target.insert("project_id".to_owned(), project.into());
    target.insert("security_group:project_id".to_owned(), project.into());
    target.insert("ext_parent:project_id".to_owned(), project.into());
    let rule = format!("get_{}", shape.policy);
    server.app.policy.allows(&rule, caller, &target)
}

/// One event. JSON has no line breaks of its own.
fn event(kind: &str, revision: Revision, data: &Value) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(text, "id: {}\nevent: {kind}\ndata: {data}\n\n", revision.0);
    text
}
