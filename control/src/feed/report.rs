//! Agents' reports: checked, written to the store, then noted in the hub, in this order, so that whoever waited for
//! a host finds its ports ACTIVE.

use super::hub::{Hub, HubError};
use std::future::Future;
use tokio::time::Instant;
use weft_model::{HostName, HostReport, PortReport, limits};

/// The store did not take the ports' states.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the ports' states")]
pub struct PortStatusesError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Where the ports' states are kept: the store.
pub trait PortStatuses: Clone + Send + Sync + 'static {
    /// Sets the `status` of ports of `host`; ports that are not bound to it are left alone. If `full`, the host's
    /// other ports are DOWN.
    fn port_statuses_set(
        &self,
        host: &HostName,
        ports: &[PortReport],
        full: bool,
    ) -> impl Future<Output = Result<(), PortStatusesError>> + Send;
}

/// Why a report was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    /// It is sent under another host's name.
    #[error("the report is host {said}'s, but was sent to the address of host {path}")]
    Host {
        /// The report's.
        said: HostName,
        /// The path's.
        path: HostName,
    },
    /// A list or a text is too long.
    #[error("{field}: expected at most {max} entries or bytes, not {have}")]
    TooMany {
        /// Which.
        field: &'static str,
        /// How many there are.
        have: usize,
        /// How many may be.
        max: usize,
    },
    /// See [`HubError`].
    #[error(transparent)]
    Hub(#[from] HubError),
    /// See [`PortStatusesError`].
    #[error(transparent)]
    Store(#[from] PortStatusesError),
}

/// Takes a report in.
pub(super) async fn report(
    hub: &Hub,
    store: &impl PortStatuses,
    path: &HostName,
    report: &HostReport,
) -> Result<(), ReportError> {
    let now = Instant::now();
    check(path, report)?;
    hub.report_check(report)?;
    if report.full || !report.ports.is_empty() {
        store
            .port_statuses_set(&report.host, &report.ports, report.full)
            .await?;
    }
    hub.report(report, now)?;
    Ok(())
}

fn check(path: &HostName, report: &HostReport) -> Result<(), ReportError> {
    if report.host != *path {
        return Err(ReportError::Host {
            said: report.host.clone(),
            path: path.clone(),
        });
    }
    let texts = report
        .unsupported
        .iter()
        .flat_map(|u| [u.path.len(), u.message.len()]);
    let refused = report.refused.iter().map(|(_, message)| message.len());
    let longest = texts.chain(refused).max().unwrap_or(0);
    let limits = [
        ("ports", report.ports.len(), limits::PORTS_PER_HOST_MAX),
        (
            "unsupported",
            report.unsupported.len(),
            limits::UNSUPPORTED_MAX,
        ),
        (
            "unsupported, refused: a text",
            longest,
            limits::FEED_MESSAGE_BYTES_MAX,
        ),
    ];
    for (field, have, max) in limits {
        if have > max {
            return Err(ReportError::TooMany { field, have, max });
        }
    }
    Ok(())
}
