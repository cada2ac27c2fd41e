//! The scene: a host that runs Weft, the outside behind its uplink, guests, and somebody who types `openstack`.
//!
//! ```text
//!   outside                     host                          guest
//!   eth0 203.0.113.1/24 ─────── uplink0   weft   tap<port> ── eth0
//!   lo   198.18.0.1/32 ("the Internet")
//! ```

use crate::hosts::Host;
use crate::report::Report;
use crate::wire::Wire;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};
use weft_kit::clock::{now, until};
use weft_kit::guest::{Guest, PortFacts};
use weft_kit::ping::{Pinged, ping};
use weft_kit::tcp::{Probed, probe};
use weft_kit::{Client, Cloud, Lab, Namespace, Operator, Site, Weft, WeftOptions};

/// The physical router's address on the provider network.
pub const PHYSICAL_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The same in IPv6.
pub const PHYSICAL_ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x203, 0, 0x113, 0, 0, 0, 1);
/// A machine far away, behind the physical router.
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Every address of both families, to listen on.
pub const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
/// How long a port may take to turn ACTIVE.
const ACTIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a change may take to be seen in packets, where the change itself is not what is measured.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// A host with Weft and an outside, or several hosts ([`crate::over_hosts`]). Fields are dropped in order: the process before the namespaces.
#[derive(Debug)]
pub struct Scene {
    /// The running Weft: all in one, or the agent alone.
    pub weft: Option<Weft>,
    /// The control plane, where it runs apart.
    pub server: Option<Weft>,
    /// Where its things are.
    pub site: Site,
    /// Somebody who types `openstack`.
    pub operator: Box<dyn Operator>,
    /// What was done and seen.
    pub report: Report,
    /// The host's namespace: of several the first one's.
    pub host: Namespace,
    /// The hosts beside the first.
    pub more: Vec<Host>,
    /// What passes between them, if there are several.
    pub wire: Option<Wire>,
    /// Which of the hosts each guest is on, by name.
    pub places: BTreeMap<String, usize>,
    /// The outside's namespace.
    pub outside: Namespace,
    /// The administrator.
    pub admin: Cloud,
    /// The lab that all of it lives in.
    pub lab: Lab,
}

impl Scene {
    /// A lab with host and outside joined, in which `weft all-in-one` is ready.
    ///
    /// # Errors
    /// Not root, no binary, or it does not start.
    pub fn open(name: &str, options: &WeftOptions) -> Result<Self> {
        let (lab, host, outside, site) = stage(name, options)?;
        let weft = Some(site.start(&lab, "all-in-one")?);
        Self::with(lab, host, outside, site, weft, None)
    }

    /// The same with `weft server` and `weft agent` as two processes.
    ///
    /// # Errors
    /// As [`Scene::open`].
    pub fn open_apart(name: &str, options: &WeftOptions) -> Result<Self> {
        let (lab, host, outside, site) = stage(name, options)?;
        let server = Some(site.start(&lab, "server")?);
        let weft = Some(site.start(&lab, "agent")?);
        Self::with(lab, host, outside, site, weft, server)
    }

    fn with(
        lab: Lab,
        host: Namespace,
        outside: Namespace,
        site: Site,
        weft: Option<Weft>,
        server: Option<Weft>,
    ) -> Result<Self> {
        let operator = Box::new(Client::new(&host)?);
        let (admin, report) = (site.admin(), Report::new());
        Ok(Self {
            weft,
            server,
            site,
            operator,
            report,
            host,
            more: Vec::new(),
            wire: None,
            places: BTreeMap::new(),
            outside,
            admin,
            lab,
        })
    }

    /// Kills what runs as `weft`, does `meanwhile` without it, and starts it again.
    ///
    /// # Errors
    /// It does not come back, or `meanwhile` failed.
    pub fn crash_weft(
        &mut self,
        role: &str,
        meanwhile: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        self.weft.take().context("weft does not run")?.kill()?;
        meanwhile(self)?;
        self.weft = Some(self.site.start(&self.lab, role)?);
        self.operator = Box::new(Client::new(&self.host)?);
        Ok(())
    }

    /// Kills the control plane, does `meanwhile` without it, and starts it again.
    ///
    /// # Errors
    /// It does not come back, or `meanwhile` failed.
    pub fn crash_server(&mut self, meanwhile: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        self.server
            .take()
            .context("the control plane does not run apart")?
            .kill()?;
        meanwhile(self)?;
        self.server = Some(self.site.start(&self.lab, "server")?);
        self.operator = Box::new(Client::new(&self.host)?);
        Ok(())
    }

    /// Types one line and shows it.
    ///
    /// # Errors
    /// The API refuses.
    pub fn openstack(&mut self, cloud: &Cloud, line: &str) -> Result<Value> {
        let start = now();
        let answer = self.operator.openstack(cloud, line);
        self.report.command(
            &cloud.username,
            &format!("openstack {line}"),
            start.elapsed(),
        );
        answer.with_context(|| format!("openstack {line}"))
    }

    /// Types lines that do not depend on each other, and shows them.
    ///
    /// # Errors
    /// The API refuses one of them.
    pub fn openstack_all(&mut self, cloud: &Cloud, lines: &[&str]) -> Result<Vec<Value>> {
        if self.operator.is_quick() {
            return lines
                .iter()
                .map(|line| self.openstack(cloud, line))
                .collect();
        }
        let start = now();
        let owned: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let answers = self.operator.openstack_all(cloud, &owned);
        for line in lines {
            self.report.command(
                &cloud.username,
                &format!("openstack {line}"),
                start.elapsed(),
            );
        }
        answers
    }

    /// Types a line, and gives when it took effect at the latest for the API: for a client that answers within the bar
    /// the moment of the request, else the moment of its end.
    ///
    /// # Errors
    /// The API refuses.
    pub fn openstack_timed(&mut self, cloud: &Cloud, line: &str) -> Result<Instant> {
        let start = now();
        self.openstack(cloud, line)?;
        Ok(if self.operator.is_quick() {
            start
        } else {
            now()
        })
    }

    /// Makes a project with one user of the same name who is member of it.
    ///
    /// # Errors
    /// The API refuses.
    pub fn project(&mut self, name: &str) -> Result<Cloud> {
        let admin = self.admin.clone();
        let password = format!("{name}-password");
        self.openstack(&admin, &format!("project create {name}"))?;
        let user = format!("user create --project {name} --password {password} {name}");
        self.openstack(&admin, &user)?;
        self.openstack(
            &admin,
            &format!("role add --project {name} --user {name} member"),
        )?;
        Ok(admin.with(name, &password, name))
    }

    /// Binds ports to the hosts in turn, as Nova does when it starts machines, and plugs a guest into each.
    ///
    /// # Errors
    /// The API refuses, or a port does not turn ACTIVE.
    pub fn plug(&mut self, ports: &[(&str, Value)]) -> Result<Vec<Guest>> {
        let admin = self.admin.clone();
        let mut lines = Vec::new();
        for (name, port) in ports {
            let id = port["id"].as_str().context("a port without id")?;
            let place = self.places.len() % (1 + self.more.len());
            self.places.insert((*name).to_owned(), place);
            lines.push(format!("port set --host {} {id}", self.site_of(name)?.name));
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        self.openstack_all(&admin, &lines)?;
        let mut guests = Vec::new();
        for (name, port) in ports {
            let facts = PortFacts::from_json(port)?;
            let host = &self.site_of(name)?.host;
            let guest = Guest::plug(&self.lab, host, name, facts)?;
            guests.push(guest);
            self.know(name, port)?;
        }
        for guest in &guests {
            self.wait_active(guest)?;
            guest.start()?;
        }
        Ok(guests)
    }

    /// A guest on a network, with more options of `port create`, plugged and up but without addresses.
    ///
    /// # Errors
    /// As [`Scene::plug`].
    pub fn guest(
        &mut self,
        cloud: &Cloud,
        network: &str,
        name: &str,
        options: &str,
    ) -> Result<Guest> {
        let line = format!("port create --network {network} {options} {name}");
        let port = self.openstack(cloud, &line)?;
        let mut guests = self.plug(&[(name, port)])?;
        guests.pop().context("no guest was plugged")
    }

    /// A guest as [`Scene::guest`], with its addresses by DHCP and, if its port has one, by SLAAC.
    ///
    /// # Errors
    /// No address comes.
    pub fn booted_guest(&mut self, cloud: &Cloud, network: &str, name: &str) -> Result<Guest> {
        let guest = self.guest(cloud, network, name, "")?;
        guest.dhcp(&self.lab)?;
        if guest.port.v6().is_ok() {
            guest.slaac()?;
        }
        Ok(guest)
    }

    /// The external network `provider1` with its subnet, made by the administrator.
    ///
    /// # Errors
    /// The API refuses.
    pub fn external_network(&mut self) -> Result<()> {
        let admin = self.admin.clone();
        let kind = match &self.wire {
            Some(wire) => format!("vlan --provider-segment {}", wire.vlan()),
            None => "flat".to_owned(),
        };
        self.openstack(
            &admin,
            &format!("network create --external --provider-physical-network provider --provider-network-type {kind} provider1"),
        )?;
        self.openstack(
            &admin,
            "subnet create --network provider1 --subnet-range 203.0.113.0/24 --gateway 203.0.113.1 \
             --allocation-pool start=203.0.113.11,end=203.0.113.250 --no-dhcp provider1-v4",
        )
        .map(drop)
    }

    /// A project's network with an IPv4 subnet.
    ///
    /// # Errors
    /// The API refuses.
    pub fn network(&mut self, cloud: &Cloud, name: &str, range: &str, options: &str) -> Result<()> {
        self.openstack(cloud, &format!("network create {options} {name}"))?;
        let subnet = format!("subnet create --network {name} --subnet-range {range} {name}-v4");
        self.openstack(cloud, &subnet).map(drop)
    }

    /// Waits until the host has said that it enforces a guest's port.
    ///
    /// # Errors
    /// It does not turn ACTIVE in time: says what it is instead.
    pub fn wait_active(&mut self, guest: &Guest) -> Result<()> {
        let (admin, line) = (self.admin.clone(), format!("port show {}", guest.port.id));
        let mut status = String::new();
        let active = until("the port to turn ACTIVE", ACTIVE_TIMEOUT, || {
            let port = self.operator.openstack(&admin, &line)?;
            status = port["status"].as_str().unwrap_or_default().to_owned();
            Ok((status == "ACTIVE").then_some(()))
        });
        let log = self.site_of(&guest.name)?.log_end();
        active.with_context(|| format!("{} is {status:?}; the log ends:\n{log}", guest.name))
    }

    /// The instance on whose host a guest is.
    ///
    /// # Errors
    /// There is no such guest.
    pub fn site_of(&self, guest: &str) -> Result<&Site> {
        let place = *self.places.get(guest).context("no such guest")?;
        self.sites().nth(place).context("no such host")
    }

    /// The instances of all hosts.
    pub fn sites(&self) -> impl Iterator<Item = &Site> {
        std::iter::once(&self.site).chain(self.more.iter().map(|host| &host.site))
    }

    /// Waits until echo requests from `from` reach `to`: for changes whose delay is not what is looked at.
    ///
    /// # Errors
    /// They never do.
    pub fn settle(&self, from: &Namespace, to: IpAddr) -> Result<()> {
        let reached = || Ok((ping(from, to, 1)?.received == 1).then_some(()));
        until(
            &format!("{} to reach {to}", from.name()),
            SETTLE_TIMEOUT,
            reached,
        )
    }

    /// Three echo requests, all of which should come back with this TTL.
    ///
    /// # Errors
    /// `ping` cannot be run.
    pub fn ping_passes(&mut self, who: &str, from: &Namespace, to: IpAddr, ttl: u8) -> Result<()> {
        let pinged = self.ping_shown(who, from, to, 3)?;
        let words = |received: u32, ttl: Option<u8>| match ttl {
            Some(ttl) => format!("{received} of 3, TTL {ttl}"),
            None => format!("{received} of 3"),
        };
        let happened = words(pinged.received, pinged.ttl);
        let expected = words(3, Some(ttl));
        let holds = expected == happened;
        self.report
            .check(&format!("{who} pings {to}"), expected, happened, holds);
        self.explain(holds)?;
        self.on_the_wire(who, to, true)
    }

    /// Two echo requests, none of which should come back.
    ///
    /// # Errors
    /// `ping` cannot be run.
    pub fn ping_fails(&mut self, who: &str, from: &Namespace, to: IpAddr) -> Result<()> {
        let pinged = self.ping_shown(who, from, to, 2)?;
        let happened = format!("{} of 2", pinged.received);
        self.report
            .equal(&format!("{who} pings {to}"), "0 of 2", happened);
        self.on_the_wire(who, to, false)
    }

    fn ping_shown(
        &mut self,
        who: &str,
        from: &Namespace,
        to: IpAddr,
        count: u32,
    ) -> Result<Pinged> {
        self.wire_begin()?;
        let start = now();
        let pinged = ping(from, to, count)?;
        self.report.command(
            who,
            &format!("ping -i 0.05 -c {count} {to}"),
            start.elapsed(),
        );
        Ok(pinged)
    }

    /// A TCP connection that should be answered by the server of this name.
    ///
    /// # Errors
    /// The system refuses to try.
    pub fn tcp_passes(
        &mut self,
        who: &str,
        from: &Namespace,
        to: SocketAddr,
        server: &str,
    ) -> Result<Probed> {
        let probed = self.probe_shown(who, from, to)?;
        let holds = probed.is_from(server);
        let happened = if holds {
            format!("{server} answers")
        } else {
            probed.to_string()
        };
        let what = format!("{who} connects to {to}");
        self.report
            .check(&what, format!("{server} answers"), happened, holds);
        self.explain(holds)?;
        self.on_the_wire(who, to.ip(), true)?;
        Ok(probed)
    }

    /// If a check did not hold, adds what Weft says of dropped packets.
    pub(crate) fn explain(&self, holds: bool) -> Result<()> {
        if !holds {
            for site in self.sites() {
                let stats = site.ask("stats")?;
                let drops = stats["drops"].as_array().into_iter().flatten();
                let counts = drops.map(|drop| format!("{} {}", drop["reason"], drop["packets"]));
                let counts: Vec<String> = counts.collect();
                let counts = counts.join(", ");
                self.report
                    .remark(&format!("dropped so far on {}: {counts}", site.name));
            }
        }
        Ok(())
    }

    /// A TCP connection that nobody should answer, not even with a refusal.
    ///
    /// # Errors
    /// The system refuses to try.
    pub fn tcp_fails(&mut self, who: &str, from: &Namespace, to: SocketAddr) -> Result<()> {
        let probed = self.probe_shown(who, from, to)?;
        self.report
            .equal(&format!("{who} connects to {to}"), Probed::Silent, &probed);
        self.on_the_wire(who, to.ip(), false)
    }

    fn probe_shown(&mut self, who: &str, from: &Namespace, to: SocketAddr) -> Result<Probed> {
        self.wire_begin()?;
        let start = now();
        let probed = probe(from, to)?;
        let command = format!("nc {} {}", to.ip(), to.port());
        self.report.command(who, &command, start.elapsed());
        Ok(probed)
    }

    /// Stops Weft, checks that it left nothing, and removes the lab. The report is what remains.
    ///
    /// # Errors
    /// Weft does not run: a test that ended it must start it again.
    pub fn close(self) -> Result<Report> {
        let Self {
            weft,
            server,
            site,
            operator,
            mut report,
            more,
            wire,
            lab,
            ..
        } = self;
        drop((operator, wire));
        report.epilogue("Nothing is left behind");
        let mut running = vec![(site, weft.context("weft does not run")?)];
        for host in more {
            running.push((host.site, host.weft.context("an agent does not run")?));
        }
        let logs = running.iter();
        let logs: Vec<_> = logs
            .map(|(site, _)| (site.name.clone(), site.log_end()))
            .collect();
        for (site, weft) in running {
            if let Err(error) = stop(weft, &mut report) {
                report.failure(&error);
            }
            let pins = if site.pins().exists() {
                "left"
            } else {
                "none left"
            };
            report.equal("its pins", "none left", pins);
        }
        if let Some(server) = server {
            report.equal(
                "the control plane stops",
                "status 0",
                outcome(server.stop(), "status 0"),
            );
        }
        report.equal(
            "processes and namespaces",
            "none left",
            outcome(lab.close(), "none left"),
        );
        if !report.failures().is_empty() {
            for (name, log) in logs {
                report.remark(&format!("the log of {name} ends:\n{log}"));
            }
        }
        Ok(report)
    }
}

fn stop(weft: Weft, report: &mut Report) -> Result<()> {
    let objects = weft.kernel_objects()?;
    report.remark(&format!(
        "weft holds {} programs, {} maps, {} links and {} MiB",
        objects.programs.len(),
        objects.maps.len(),
        objects.links.len(),
        weft.memory_kib()? / 1024,
    ));
    report.equal("weft stops", "status 0", outcome(weft.stop(), "status 0"));
    let gone = objects.wait_until_gone();
    report.equal(
        "its programs, maps and links",
        "none left",
        outcome(gone, "none left"),
    );
    Ok(())
}

/// `good`, or what went wrong.
fn outcome(result: Result<()>, good: &str) -> String {
    result.map_or_else(|error| format!("{error:#}"), |()| good.to_owned())
}

/// The host and the outside, joined once for each physical network: by `eth0`, `eth1`, … on the outside.
fn stage(name: &str, options: &WeftOptions) -> Result<(Lab, Namespace, Namespace, Site)> {
    let lab = Lab::new(name)?;
    let (host, outside) = (lab.namespace("host")?, lab.namespace("outside")?);
    for (number, (_, interface)) in options.physical_networks.iter().enumerate() {
        lab.veth((&host, interface), (&outside, &format!("eth{number}")))?;
    }
    outside.run(&format!("ip address add {PHYSICAL_ROUTER}/24 dev eth0"))?;
    outside.run(&format!(
        "ip address add {PHYSICAL_ROUTER_V6}/64 dev eth0 nodad"
    ))?;
    outside.run(&format!("ip address add {INTERNET}/32 dev lo"))?;
    let site = Site::new(&lab, &host, options)?;
    Ok((lab, host, outside, site))
}
