//! Ports in domains of libvirt: plug in, take out, show.

use crate::interface;
use crate::{List, Plug, output, port};
use anyhow::{Context, Result, bail, ensure};
use std::time::Duration;
use virt::connect::Connect;
use virt::domain::Domain;
use weft_agent::socket::PortState;
use weft_model::PortStatus;

/// How long a running guest may take to let a device go.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(20);
const RELEASE_ASKED_EVERY: Duration = Duration::from_millis(200);
/// Domains that are shown at most.
const DOMAINS_MAX: usize = 4_096;

/// Where a change is made.
struct Scope {
    /// `VIR_DOMAIN_AFFECT_LIVE` and `VIR_DOMAIN_AFFECT_CONFIG`.
    flags: u32,
    words: &'static str,
}

/// Plugs a port in.
pub(crate) fn attach(plug: &Plug) -> Result<()> {
    let port = port::one(&plug.agent.socket, plug.port)?;
    let connect = open(&plug.libvirt.connect)?;
    let domain = find(&connect, &plug.domain)?;
    let scope = scope(&domain)?;
    let description = description(&domain, false)?;
    ensure!(
        !interface::of_domain(&description)?.contains(&port.interface),
        "{} has port {} already",
        plug.domain,
        plug.port
    );
    ensure!(
        port.vhost_user.is_none() || interface::shares_memory(&description)?,
        "{} does not share its memory, without which a vhost-user port cannot reach it: give its configuration\n  \
         <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>\nand start it anew",
        plug.domain
    );
    let xml = interface::xml(&port, plug.queues);
    output::print(&xml)?;
    if plug.dry_run {
        return Ok(());
    }
    domain
        .attach_device_flags(&xml, scope.flags)
        .with_context(|| format!("libvirt did not plug it into {}", plug.domain))?;
    output::print(&format!(
        "port {} is in {}: {}\n",
        plug.port, plug.domain, scope.words
    ))?;
    Ok(())
}

/// Takes a port out.
pub(crate) fn detach(plug: &Plug) -> Result<()> {
    let port = port::one(&plug.agent.socket, plug.port)?;
    let connect = open(&plug.libvirt.connect)?;
    let domain = find(&connect, &plug.domain)?;
    let has = |inactive| -> Result<bool> {
        let description = description(&domain, inactive)?;
        Ok(interface::of_domain(&description)?.contains(&port.interface))
    };
    let live = domain.is_active()? && has(false)?;
    let configured = domain.is_persistent()? && has(true)?;
    ensure!(
        live || configured,
        "{} does not have port {}",
        plug.domain,
        plug.port
    );
    let xml = interface::xml(&port, plug.queues);
    output::print(&xml)?;
    if plug.dry_run {
        return Ok(());
    }
    let flags = if live {
        virt::sys::VIR_DOMAIN_AFFECT_LIVE
    } else {
        0
    } | if configured {
        virt::sys::VIR_DOMAIN_AFFECT_CONFIG
    } else {
        0
    };
    domain
        .detach_device_flags(&xml, flags)
        .with_context(|| format!("libvirt did not take it out of {}", plug.domain))?;
    // The guest is asked to let the device go, and may take its time or refuse.
    let mut waited = Duration::ZERO;
    while live && domain.is_active()? && has(false)? {
        if waited >= RELEASE_TIMEOUT {
            bail!(
                "the guest does not let the device go within {} s: does it run, and can it unplug PCI devices?",
                RELEASE_TIMEOUT.as_secs()
            );
        }
        wait(RELEASE_ASKED_EVERY)?;
        waited += RELEASE_ASKED_EVERY;
    }
    output::print(&format!(
        "port {} is not in {} any more\n",
        plug.port, plug.domain
    ))?;
    Ok(())
}

/// Shows ports and domains.
pub(crate) fn list(list: &List) -> Result<()> {
    let ports = port::all(&list.agent.socket)?;
    let connect = open(&list.libvirt.connect)?;
    let mut rows = Vec::new();
    for domain in connect.list_all_domains(0)?.iter().take(DOMAINS_MAX) {
        let running = domain.is_active()?;
        let description = description(domain, false)?;
        for name in interface::of_domain(&description)? {
            if let Some(port) = ports.iter().find(|port| port.interface == name) {
                rows.push(Row::new(domain.get_name()?, running, port));
            }
        }
    }
    if list.json {
        output::print(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?;
    } else {
        output::print(&text(&rows))?;
    }
    Ok(())
}

/// A port in a domain.
#[derive(Debug, serde::Serialize)]
struct Row {
    domain: String,
    state: &'static str,
    port_id: weft_model::PortId,
    status: PortStatus,
    mac_address: weft_model::MacAddress,
    interface: String,
}

impl Row {
    fn new(domain: String, running: bool, port: &PortState) -> Self {
        Self {
            domain,
            state: if running { "running" } else { "shut off" },
            port_id: port.port_id,
            status: port.status,
            mac_address: port.mac_address,
            interface: port.interface.clone(),
        }
    }
}

fn text(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.domain.chars().count()).max();
    let width = width.unwrap_or(0).max("domain".len());
    let mut text = format!(
        "{:width$}  {:8}  {:36}  {:6}  {:17}  interface\n",
        "domain", "state", "port", "status", "MAC address"
    );
    for row in rows {
        let status = match row.status {
            PortStatus::Active => "ACTIVE",
            PortStatus::Down => "DOWN",
            PortStatus::Error => "ERROR",
        };
        text += &format!(
            "{:width$}  {:8}  {:36}  {status:6}  {:17}  {}\n",
            row.domain, row.state, row.port_id, row.mac_address, row.interface
        );
    }
    text
}

fn open(uri: &str) -> Result<Connect> {
    Connect::open(Some(uri))
        .with_context(|| format!("cannot reach libvirt at {uri}: does libvirtd run?"))
}

fn find(connect: &Connect, name: &str) -> Result<Domain> {
    Domain::lookup_by_name(connect, name)
        .with_context(|| format!("there is no domain {name} (virsh list --all)"))
}

fn scope(domain: &Domain) -> Result<Scope> {
    let (live, config) = (
        virt::sys::VIR_DOMAIN_AFFECT_LIVE,
        virt::sys::VIR_DOMAIN_AFFECT_CONFIG,
    );
    let (flags, words) = match (domain.is_active()?, domain.is_persistent()?) {
        (true, true) => (live | config, "at once, and whenever it starts"),
        (true, false) => (live, "until it ends"),
        (false, _) => (config, "when it starts"),
    };
    Ok(Scope { flags, words })
}

fn description(domain: &Domain, inactive: bool) -> Result<String> {
    let flags = if inactive {
        virt::sys::VIR_DOMAIN_XML_INACTIVE
    } else {
        0
    };
    Ok(domain.get_xml_desc(flags)?)
}

/// Lets time pass, while libvirt waits for the guest; there is nothing to wait on without an event loop of libvirt's.
fn wait(how_long: Duration) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(tokio::time::sleep(how_long));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_table() {
        let port = PortState {
            port_id: weft_model::PortId::random(),
            network_id: weft_model::NetworkId::random(),
            interface: "/run/x.sock".to_owned(),
            vhost_user: None,
            mac_address: "fa:16:3e:00:00:01".parse().unwrap(),
            fixed_ips: Vec::new(),
            status: PortStatus::Active,
            reason: String::new(),
        };
        let table = text(&[Row::new("instance-00000001".to_owned(), true, &port)]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 2);
        let column = lines[0].find("interface").unwrap();
        assert_eq!(&lines[1][column..], "/run/x.sock");
    }
}
