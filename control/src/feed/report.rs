//! Agents' reports: checked, written to the store, then noted in the hub, in this order, so that whoever waited for
//! a host finds its ports ACTIVE.

use super::hub::{Hub, HubError};
use crate::store::claimed_ip::{claimed_ip_get, claimed_ip_set};
use crate::store::port_binding::{self, VhostUserHostRow};
use crate::store::{Store, StoreError, gateway, port, trunk, tunnel_host};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use tokio::time::Instant;
use weft_model::{HostName, HostReport, PortStatus, VhostUserMode, limits};

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
    /// Sockets in no place that a guest could find.
    #[error("vhost_user.socket_folder: expected an absolute path")]
    Folder,
    /// See [`HubError`].
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The ports' states could not be written.
    #[error("cannot write the ports' states")]
    Store(#[from] StoreError),
}

/// Takes a report in.
pub(super) async fn report(
    hub: &Hub,
    store: &Store,
    path: &HostName,
    report: &HostReport,
) -> Result<(), ReportError> {
    let now = Instant::now();
    check(path, report)?;
    hub.report_check(report)?;
    if report.full {
        attachment_set(store, report).await?;
        tunnel_set(store, report).await?;
        physical_networks_set(store, report).await?;
    }
    unreachable_set(store, report).await?;
    claims_set(store, report).await?;
    if report.full || !report.ports.is_empty() {
        port_statuses_set(store, report).await?;
    }
    hub.report(report, now)?;
    Ok(())
}

/// Sets the `status` of the host's ports; those of other hosts are left alone. If the report is full, ports of the
/// host that it does not name are DOWN.
async fn port_statuses_set(store: &Store, report: &HostReport) -> Result<(), StoreError> {
    let host = report.host.as_str();
    let said = report
        .ports
        .iter()
        .map(|port| (port.port_id.to_string(), name(port.status)));
    let mut statuses: BTreeMap<String, &str> = said.collect();
    if report.full {
        let bound = port::port_list_host(store.read().await?.conn(), host).await?;
        for port in &bound {
            statuses
                .entry(port.row.id.clone())
                .or_insert(name(PortStatus::Down));
        }
        // Most full reports say what is known: they need not wait for the writers' queue.
        let known: BTreeMap<&str, &str> = bound
            .iter()
            .map(|port| (port.row.id.as_str(), port.row.status.as_str()))
            .collect();
        statuses.retain(|id, status| known.get(id.as_str()).is_some_and(|known| known != status));
    }
    if statuses.is_empty() {
        return Ok(());
    }
    let mut tx = store.write().await?;
    for (id, status) in statuses {
        if port::port_status_set(&mut tx, &id, host, status).await? {
            trunk::status_refresh(&mut tx, &id).await?;
        }
    }
    tx.commit().await
}

/// Notes how the host attaches its guests, if that is news.
async fn attachment_set(store: &Store, report: &HostReport) -> Result<(), StoreError> {
    let host = report.host.as_str();
    let said = report.vhost_user.as_ref().map(|said| VhostUserHostRow {
        host: host.to_owned(),
        socket_folder: said.socket_folder.clone(),
        mode: match said.mode {
            VhostUserMode::Server => "server",
            VhostUserMode::Client => "client",
        }
        .to_owned(),
    });
    let known = port_binding::vhost_user_host_get(store.read().await?.conn(), host).await?;
    if known != said {
        let mut tx = store.write().await?;
        port_binding::vhost_user_host_set(&mut tx, host, said.as_ref()).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Notes where tunnels to the host lead, if that is news.
async fn tunnel_set(store: &Store, report: &HostReport) -> Result<(), StoreError> {
    let host = report.host.as_str();
    let said = report.tunnel_ip.map(|ip| ip.to_string());
    let known = tunnel_host::tunnel_host_get(store.read().await?.conn(), host).await?;
    if known.map(|known| known.tunnel_ip) != said {
        let mut tx = store.write().await?;
        tunnel_host::tunnel_host_set(&mut tx, host, said.as_deref()).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Notes which physical networks the host has, if that is news.
async fn physical_networks_set(store: &Store, report: &HostReport) -> Result<(), StoreError> {
    let host = report.host.as_str();
    let said: BTreeSet<&String> = report.physical_networks.iter().collect();
    let known = gateway::physical_network_list(store.read().await?.conn(), host).await?;
    if !said.iter().copied().eq(&known) {
        let names: Vec<String> = said.into_iter().cloned().collect();
        let mut tx = store.write().await?;
        gateway::physical_network_set(&mut tx, host, &names).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Notes which hosts this one does not reach, if that is news.
async fn unreachable_set(store: &Store, report: &HostReport) -> Result<(), StoreError> {
    let Some(said) = &report.unreachable else {
        return Ok(());
    };
    let host = report.host.as_str();
    let known = gateway::unreachable_said_by(store.read().await?.conn(), host).await?;
    let known: BTreeSet<&str> = known.iter().map(String::as_str).collect();
    let said: BTreeSet<&str> = said.iter().map(HostName::as_str).collect();
    if known == said {
        return Ok(());
    }
    let mut tx = store.write().await?;
    for other in known.symmetric_difference(&said) {
        gateway::unreachable_set(&mut tx, host, other, said.contains(other)).await?;
    }
    tx.commit().await
}

/// Notes which guests say that an address is theirs, as far as their ports may: the host's own, by an allowed address pair,
/// and no address that another port of the network lives under.
async fn claims_set(store: &Store, report: &HostReport) -> Result<(), StoreError> {
    if report.claims.is_empty() {
        return Ok(());
    }
    let mut last: BTreeMap<(String, IpAddr), String> = BTreeMap::new();
    let mut read = store.read().await?;
    for claim in &report.claims {
        let id = claim.port_id.to_string();
        let Some(port) = port::port_get_for_host(read.conn(), &id, report.host.as_str()).await?
        else {
            continue;
        };
        let pairs = port.row.allowed_address_pairs.0.iter();
        let mut ranges = pairs.filter_map(|pair| range_of(&pair.ip_address));
        let room = port.claimed_ips.len() < limits::CLAIMED_IPS_PER_PORT_MAX;
        if room
            && is_station(claim.ip_address)
            && ranges.any(|range| range.contains(&claim.ip_address))
        {
            last.insert((port.row.network_id, claim.ip_address), id);
        }
    }
    let mut news = Vec::new();
    for ((network, address), port) in last {
        let ip = address.to_string();
        let before = claimed_ip_get(read.conn(), &network, &ip).await?;
        let taken = port::address_is_lived_under(read.conn(), &network, address).await?;
        if before.as_ref() != Some(&port) && !taken {
            news.push((network, ip, port));
        }
    }
    drop(read);
    if news.is_empty() {
        return Ok(());
    }
    let mut tx = store.write().await?;
    for (network, ip, port) in news {
        let before = claimed_ip_get(tx.conn(), &network, &ip).await?;
        // It may be gone by now.
        let there = port::port_get_for_host(tx.conn(), &port, report.host.as_str()).await?;
        if there.is_some() && before.as_ref() != Some(&port) {
            let before = before.as_deref();
            claimed_ip_set(&mut tx, (&network, &ip), &port, before).await?;
        }
    }
    tx.commit().await
}

/// Whether a guest can live under an address.
fn is_station(address: IpAddr) -> bool {
    let everybody = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(everybody || address.is_multicast() || address.is_unspecified() || address.is_loopback())
}

/// A pair's range, or its address.
fn range_of(text: &str) -> Option<IpNet> {
    let address = text.parse::<IpAddr>().ok().map(IpNet::from);
    address.or_else(|| text.parse().ok())
}

/// Neutron's word.
fn name(status: PortStatus) -> &'static str {
    match status {
        PortStatus::Active => "ACTIVE",
        PortStatus::Down => "DOWN",
        PortStatus::Error => "ERROR",
    }
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
    let folder = report.vhost_user.as_ref().map(|said| &said.socket_folder);
    if folder.is_some_and(|folder| !folder.starts_with('/') || folder.contains('\0')) {
        return Err(ReportError::Folder);
    }
    let names = report.physical_networks.iter().map(String::len);
    let name = names.max().unwrap_or(0);
    let limits = [
        (
            "vhost_user.socket_folder",
            folder.map_or(0, String::len),
            limits::SOCKET_FOLDER_BYTES_MAX,
        ),
        ("ports", report.ports.len(), limits::PORTS_PER_HOST_MAX),
        ("claims", report.claims.len(), limits::CLAIMS_PER_REPORT_MAX),
        (
            "unsupported",
            report.unsupported.len(),
            limits::UNSUPPORTED_MAX,
        ),
        (
            "physical_networks",
            report.physical_networks.len(),
            limits::PHYSICAL_NETWORKS_PER_HOST_MAX,
        ),
        (
            "unreachable",
            report.unreachable.as_ref().map_or(0, BTreeSet::len),
            limits::PROBED_HOSTS_MAX,
        ),
        (
            "physical_networks: a name",
            name,
            limits::PHYSICAL_NETWORK_BYTES_MAX,
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
