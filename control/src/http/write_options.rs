//! What a caller may ask of a write beyond the write itself, the same at every route of the networking API:
//!
//! - `dry_run=true`: nothing is written; the answer is as it would be, with `dry_run` beside it: the resources that
//!   would change, and the hosts whose duty would;
//! - `wait_for=enforced`, with `wait_timeout=SECONDS`: the answer comes when every host concerned has said that it
//!   enforces the write, or when the time is over; the header `Weft-Enforced` says which, and `Weft-Not-Enforced` of
//!   whom it was not heard.
//!
//! Names of hosts are shown to whom the policy shows where ports are bound; others are told how many there are.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Handler, Server};
use crate::app::attribute::{Attributes, bool_of, int_of};
use crate::app::error::Error;
use crate::app::policy::Caller;
use crate::feed::wait;
use crate::realize::Trial;
use crate::store::Resource;
use crate::store::observer::{Observer, Touched, Written};
use crate::store::port::hosts_of_ports;
use axum::http::{HeaderName, Method, StatusCode};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use weft_model::{HostName, Revision};

/// Seconds that a write is waited for if the caller names none.
const WAIT_S: i64 = 10;
/// Seconds that a write is waited for at most: below the time that a request may take.
const WAIT_S_MAX: i64 = 50;

/// Whether every host concerned enforces the write.
const ENFORCED: HeaderName = HeaderName::from_static("weft-enforced");
/// Which ones do not (yet).
const NOT_ENFORCED: HeaderName = HeaderName::from_static("weft-not-enforced");

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    DryRun,
    Wait(Duration),
}

fn asked(query: &[(String, String)]) -> Result<Asked, Error> {
    let (mut dry_run, mut wait, mut seconds) = (false, false, None);
    for (name, value) in query {
        let refused = |reason: String| Error::attribute(name, reason);
        let json = Value::from(value.as_str());
        match (name.as_str(), value.as_str()) {
            ("dry_run", _) => dry_run = bool_of(&json).map_err(refused)?,
            ("wait_for", "enforced") => wait = true,
            ("wait_for", _) => {
                return Err(refused("'enforced' is what can be waited for".to_owned()));
            }
            ("wait_timeout", _) => {
                seconds = Some(int_of(&json, 0, WAIT_S_MAX).map_err(refused)?);
            }
            _ => {}
        }
    }
    match (dry_run, wait) {
        (true, true) => Err(Error::bad_request(
            "dry_run and wait_for cannot be together: what is not written is never enforced",
        )),
        (true, false) => Ok(Asked::DryRun),
        (false, true) => Ok(Asked::Wait(Duration::from_secs(
            seconds.unwrap_or(WAIT_S).unsigned_abs(),
        ))),
        (false, false) => Ok(Asked::Nothing),
    }
}

/// Serves a request, with what it asks beyond it.
pub(super) async fn serve(
    server: Arc<Server>,
    request: Request,
    method: &Method,
    handler: Handler,
) -> Result<Reply, HttpError> {
    let writes = *method != Method::GET && *method != Method::HEAD;
    if !writes || !request.uri_path.starts_with("/v2.0/") {
        return handler(server, request).await;
    }
    match asked(&request.query)? {
        Asked::Nothing => handler(server, request).await,
        Asked::DryRun => dry_run(&server, request, handler).await,
        Asked::Wait(time) => done_and_waited(&server, request, handler, time).await,
    }
}

/// The same server, whose writes this observer sees.
fn observed(server: &Server, observer: &Arc<Observer>) -> Arc<Server> {
    let mut server = server.clone();
    server.app.store = server.app.store.observed(observer.clone());
    Arc::new(server)
}

/// Whether the caller may know which hosts there are.
fn knows_hosts(server: &Server, caller: &Caller) -> bool {
    let rule = "get_port:binding:host_id";
    server.app.policy.allows(rule, caller, &Attributes::new())
}

async fn dry_run(
    server: &Arc<Server>,
    request: Request,
    handler: Handler,
) -> Result<Reply, HttpError> {
    let trial = Arc::new(Trial::default());
    let looking = trial.clone();
    let observer = Arc::new(Observer::trial(Box::new(move |conn, touched| {
        let trial = looking.clone();
        Box::pin(async move { trial.look(conn, touched).await })
    })));
    let caller = request.caller.clone();
    let mut reply = handler(observed(server, &observer), request).await?;
    let written = observer.written();
    drop(observer);
    let hosts = server.trials.hosts(&trial).await.ok_or(Error::Busy)?;
    let mut dry_run = Map::new();
    dry_run.insert("resources".to_owned(), resources(&caller, &written).into());
    dry_run.insert("hosts_count".to_owned(), hosts.len().into());
    if knows_hosts(server, &caller) {
        let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
        dry_run.insert("hosts".to_owned(), json!(names));
    }
    let mut body = match reply.body.take() {
        Some(Value::Object(body)) => body,
        _ => Map::new(),
    };
    body.insert("dry_run".to_owned(), dry_run.into());
    reply.body = Some(body.into());
    reply.status = StatusCode::OK;
    Ok(reply)
}

/// The rows that would change, of those that the caller's project owns; an admin is told of all.
fn resources(caller: &Caller, written: &Written) -> Vec<Value> {
    let own =
        |row: &&Touched| caller.is_admin() || row.project_id.as_deref() == Some(&caller.project_id);
    let view = |row: &Touched| json!({ "resource": row.resource.name(), "id": row.id, "change": row.how.name() });
    written.touched.iter().filter(own).map(view).collect()
}

async fn done_and_waited(
    server: &Arc<Server>,
    request: Request,
    handler: Handler,
    time: Duration,
) -> Result<Reply, HttpError> {
    let observer = Arc::new(Observer::default());
    let caller = request.caller.clone();
    let mut reply = handler(observed(server, &observer), request).await?;
    let written = observer.written();
    let late = match written.revision {
        Some(revision) => {
            let revision = Revision(revision.unsigned_abs());
            let bound = bound_hosts(server, &written).await?;
            let (hub, store) = (&server.hub, &server.app.store);
            wait::late(hub, store, revision, bound, Instant::now() + time).await?
        }
        None => BTreeSet::new(),
    };
    reply.headers.push((ENFORCED, late.is_empty().to_string()));
    if !late.is_empty() {
        let names: Vec<&str> = late.iter().map(HostName::as_str).collect();
        let shown = if knows_hosts(server, &caller) {
            names.join(", ")
        } else {
            names.len().to_string()
        };
        reply.headers.push((NOT_ENFORCED, shown));
    }
    Ok(reply)
}

/// The hosts that ports which were written are bound to: they are concerned even if no agent of theirs ever came.
async fn bound_hosts(server: &Server, written: &Written) -> Result<BTreeSet<HostName>, HttpError> {
    let ports: BTreeSet<&str> = written
        .touched
        .iter()
        .filter(|row| row.resource == Resource::Port)
        .map(|row| row.id.as_str())
        .collect();
    let ports: Vec<&str> = ports.into_iter().collect();
    let mut read = server.app.store.read().await?;
    let hosts = hosts_of_ports(read.conn(), &ports).await?;
    Ok(hosts.iter().filter_map(|host| host.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Result<Asked, Error> {
        let pairs: Vec<_> = form_urlencoded::parse(text.as_bytes())
            .into_owned()
            .collect();
        asked(&pairs)
    }

    #[test]
    fn what_is_asked_is_bounded_and_consistent() {
        assert_eq!(ask("").unwrap(), Asked::Nothing);
        assert_eq!(ask("dry_run=false&x=1").unwrap(), Asked::Nothing);
        assert_eq!(ask("dry_run=True").unwrap(), Asked::DryRun);
        let wait = |seconds| Asked::Wait(Duration::from_secs(seconds));
        assert_eq!(ask("wait_for=enforced").unwrap(), wait(10));
        assert_eq!(ask("wait_for=enforced&wait_timeout=50").unwrap(), wait(50));
        for wrong in [
            "dry_run=maybe",
            "wait_for=rain",
            "wait_for=enforced&wait_timeout=51",
            "wait_for=enforced&wait_timeout=-1",
            "wait_for=enforced&dry_run=true",
        ] {
            assert!(ask(wrong).is_err(), "{wrong}");
        }
    }
}
