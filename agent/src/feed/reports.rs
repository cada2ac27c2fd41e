//! Reports to control: one request each, merged while control is away, and all said again after a reconnection,
//! because a server that was restarted knows nothing of its hosts. When there is nothing to say, that is said from time
//! to time: it shows that the host is alive.

use super::transport::Transport;
use super::watch::{Refusal, begin};

use super::{Backoff, FeedConfig, REPORT_TIMEOUT, sentence};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch as state};
use tokio::time::Instant;
use weft_model::{HostReport, HostSnapshot, PortReport, Revision, limits};

type Snapshots = state::Sender<Option<Arc<HostSnapshot>>>;

/// Delivers for ever, or until nobody reports any more.
pub(super) async fn deliver(
    config: &FeedConfig,
    http: &Transport,
    snapshots: &Snapshots,
    mut reports: mpsc::Receiver<HostReport>,
    mut refusals: mpsc::Receiver<Refusal>,
) {
    let mut connected = config.status.subscribe();
    let mut unreachable = config.unreachable.clone();
    let mut connections = 0;
    let mut backoff = Backoff::new(config);
    // All that was ever said, what of it control has not taken yet, and what is on its way.
    let (mut said, mut due): (Option<HostReport>, Option<HostReport>) = (None, None);
    let mut flight: Option<Flight<'_>> = None;
    // When a sign of life is due.
    let mut quiet = Instant::now() + config.report_every;
    loop {
        if flight.is_none()
            && let Some(report) = due.take()
        {
            let wait = backoff.due(fastrand::f64());
            flight = Some(Box::pin(post(config, http, report, wait)));
            quiet = Instant::now() + config.report_every;
        }
        tokio::select! {
            biased;
            report = reports.recv() => {
                let Some(report) = report else { return };
                said = Some(merged(said, lasting(&report)));
                due = Some(merged(due, report));
            }
            Some(refused) = refusals.recv() => {
                let report = refusal(config, &said, refused);
                said = Some(merged(said, report.clone()));
                due = Some(merged(due, report));
            }
            // The status is this function's config's: its sender cannot go away.
            Ok(()) = connected.changed() => {
                let status = connected.borrow_and_update().clone();
                if status.connected && status.connections != connections {
                    connections = status.connections;
                    prune(&mut said, snapshots);
                    // What guests claimed is said once.
                    let claims = due.take().map(|due| due.claims).unwrap_or_default();
                    due = said.clone().map(|said| HostReport { claims, ..said });
                    // What was on its way is part of `said`, and may be said twice.
                    flight = None;
                    backoff.reset();
                }
            }
            // Whoever looked after others may have ended: then there is nothing new.
            Ok(()) = unreachable.changed() => {
                if due.is_none() {
                    due = said.as_ref().map(nothing_new);
                }
            }
            failed = landed(&mut flight) => {
                flight = None;
                match failed {
                    Some(report) => {
                        due = Some(match due {
                            Some(newer) => merged(Some(report), newer),
                            None => report,
                        });
                    }
                    None => backoff.reset(),
                }
            }
            () = tokio::time::sleep_until(quiet), if flight.is_none() => {
                due = said.as_ref().map(nothing_new);
                quiet = Instant::now() + config.report_every;
            }
        }
    }
}

/// A report on its way; it yields the report if it has to be said again.
type Flight<'a> = Pin<Box<dyn Future<Output = Option<HostReport>> + Send + 'a>>;

async fn landed(flight: &mut Option<Flight<'_>>) -> Option<HostReport> {
    match flight {
        Some(flight) => flight.await,
        None => std::future::pending().await,
    }
}

/// Sends a report. If it has to be said again, gives it back after `wait`.
async fn post(
    config: &FeedConfig,
    http: &Transport,
    mut report: HostReport,
    wait: Duration,
) -> Option<HostReport> {
    report
        .physical_networks
        .clone_from(&config.physical_networks);
    report.tunnel_ip = config.tunnel_ip;
    report.unreachable = config.unreachable.borrow().clone();
    match try_post(config, http, &report).await {
        Ok(()) => None,
        Err(Failed::Refused(text)) => {
            tracing::error!(host = %config.host, "control refuses a report: {text}");
            None
        }
        Err(Failed::Later(text)) => {
            tracing::debug!(host = %config.host, "a report waits: {text}");
            tokio::time::sleep(wait).await;
            Some(report)
        }
    }
}

/// Why a report did not arrive.
enum Failed {
    /// It is wrong; to say it again would not help.
    Refused(String),
    /// Control is away or elsewhere; to say it again will.
    Later(String),
}

async fn try_post(
    config: &FeedConfig,
    http: &Transport,
    report: &HostReport,
) -> Result<(), Failed> {
    let body = serde_json::to_vec(report).map_err(|error| Failed::Refused(error.to_string()))?;
    let url = config.address("report");
    let answer = tokio::time::timeout(REPORT_TIMEOUT, http.post(&url, body)).await;
    let mut response = answer
        .map_err(|_elapsed| Failed::Later("control does not answer".to_owned()))?
        .map_err(|error| Failed::Later(sentence(&error)))?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let text = format!("{status}: {}", begin(&mut response).await);
    // 409: the server is at another database or behind; the stream will tell the agent, and the agent will say more.
    if status.is_client_error() && status != hyper::StatusCode::CONFLICT {
        Err(Failed::Refused(text))
    } else {
        Err(Failed::Later(text))
    }
}

/// `old` as `new` changes it.
fn merged(old: Option<HostReport>, new: HostReport) -> HostReport {
    let Some(old) = old.filter(|old| old.epoch == new.epoch) else {
        return new;
    };
    let mut claims = old.claims;
    claims.extend(&new.claims);
    let more = claims.len().saturating_sub(limits::CLAIMS_PER_REPORT_MAX);
    claims.drain(..more);
    let refused = new
        .refused
        .or(old.refused.filter(|(revision, _)| *revision > new.revision));
    if new.full {
        return HostReport {
            refused,
            claims,
            ..new
        };
    }
    let mut ports = old.ports;
    for port in new.ports {
        match ports.iter_mut().find(|known| known.port_id == port.port_id) {
            Some(known) => *known = port,
            None => ports.push(port),
        }
    }
    HostReport {
        ports,
        full: old.full,
        refused,
        claims,
        vhost_user: new.vhost_user.or(old.vhost_user),
        ..new
    }
}

/// What of a report holds until another one says otherwise.
fn lasting(report: &HostReport) -> HostReport {
    HostReport {
        claims: Vec::new(),
        ..report.clone()
    }
}

/// A report that says again what was said last.
fn nothing_new(said: &HostReport) -> HostReport {
    HostReport {
        ports: Vec::new(),
        full: false,
        ..said.clone()
    }
}

/// Forgets ports that are not the host's any more.
fn prune(said: &mut Option<HostReport>, snapshots: &Snapshots) {
    if let (Some(said), Some(snapshot)) = (said.as_mut(), snapshots.borrow().as_ref()) {
        said.ports
            .retain(|port: &PortReport| snapshot.ports.contains_key(&port.port_id));
    }
}

/// What to tell control of a duty that was refused.
fn refusal(config: &FeedConfig, said: &Option<HostReport>, refused: Refusal) -> HostReport {
    let mut text = refused.text;
    text.truncate(text.floor_char_boundary(limits::FEED_MESSAGE_BYTES_MAX));
    let enforced = said.as_ref().filter(|said| said.epoch == refused.epoch);
    HostReport {
        host: config.host.clone(),
        epoch: refused.epoch,
        revision: enforced.map_or(Revision(0), |said| said.revision),
        ports: Vec::new(),
        full: false,
        refused: Some((refused.revision, text)),
        unsupported: enforced
            .map(|said| said.unsupported.clone())
            .unwrap_or_default(),
        vhost_user: None,
        physical_networks: Vec::new(),
        unreachable: None,
        tunnel_ip: None,
        claims: Vec::new(),
    }
}
