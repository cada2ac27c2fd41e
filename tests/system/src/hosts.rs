//! Several hosts: a control plane, an agent on each host, and the wire that joins them.
//!
//! ```text
//!   control 10.77.0.100 ─┐
//!   h1      10.77.0.1   ─┼─ wire: a bridge
//!   h2      10.77.0.2   ─┘
//! ```
//! In IPv6 the same under fd77::/64. Tunnels run over one of both. Beside it, some hosts have `eth1` on the wire of the physical
//! network `provider`, another bridge, on which [`Hosts::outside`] can be.

use crate::vhost_guest::Nic;
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;
use weft_kit::capture::Capture;
use weft_kit::clock::until;
use weft_kit::guest::{Guest, PortFacts};
use weft_kit::tcp::connect;
use weft_kit::{Client, Cloud, Lab, Namespace, Operator, Site, Weft, WeftOptions};

/// How long a port may take to turn ACTIVE.
const ACTIVE_TIMEOUT: Duration = Duration::from_secs(15);
/// The host number of the control plane on the wire.
const CONTROL: u8 = 100;
/// Where agents find the feed.
const FEED_PORT: u16 = 9697;

/// The family that tunnels run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underlay {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Underlay {
    /// The largest IP packet of a network whose tunnels run over it, on a wire of 1,500.
    #[must_use]
    pub fn mtu(self) -> u16 {
        match self {
            Self::V4 => 1_450,
            Self::V6 => 1_430,
        }
    }

    /// A host's address on the wire.
    #[must_use]
    pub fn address(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 77, 0, number).into(),
            Self::V6 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }
}

/// A host with its agent.
#[derive(Debug)]
pub struct Host {
    /// The agent, while it runs.
    pub weft: Option<Weft>,
    /// Where its things are.
    pub site: Site,
    /// Its namespace.
    pub namespace: Namespace,
    /// Where tunnels to it lead.
    pub tunnel_ip: IpAddr,
}

/// A cloud of hosts. Fields are dropped in order: processes before namespaces.
#[derive(Debug)]
pub struct Hosts {
    /// The devices of vhost-user guests.
    nics: Vec<Nic>,
    /// Whether guests are attached by vhost-user.
    vhost_user: bool,
    /// The hosts: the first one is h1.
    pub hosts: Vec<Host>,
    /// The control plane, while it runs.
    pub server: Option<Weft>,
    /// Where its things are.
    pub control_site: Site,
    /// The control plane's namespace.
    pub control: Namespace,
    /// What joins them; a host's port there is named as the host.
    pub wire: Namespace,
    /// Somebody who asks the API.
    pub operator: Client,
    /// The administrator.
    pub admin: Cloud,
    /// The lab that all of it lives in.
    pub lab: Lab,
}

impl Hosts {
    /// A lab with a control plane and so many hosts, all ready.
    ///
    /// # Errors
    /// Not root, no binary, or something does not start.
    pub fn open(name: &str, count: u8, underlay: Underlay) -> Result<Self> {
        Self::open_with_provider(name, count, underlay, &[])
    }

    /// The same; the hosts of these numbers (h1 is 1) have an interface on the physical network `provider`.
    ///
    /// # Errors
    /// As [`Hosts::open`].
    pub fn open_with_provider(
        name: &str,
        count: u8,
        underlay: Underlay,
        provider: &[u8],
    ) -> Result<Self> {
        Self::open_with_options(name, count, underlay, provider, WeftOptions::new(None)?)
    }

    /// The same, of another build or otherwise set up; its physical networks, underlay and feed are each host's own.
    ///
    /// # Errors
    /// As [`Hosts::open`].
    pub fn open_with_options(
        name: &str,
        count: u8,
        underlay: Underlay,
        provider: &[u8],
        mut options: WeftOptions,
    ) -> Result<Self> {
        let lab = Lab::new(name)?;
        let wire = lab.namespace("wire")?;
        for bridge in ["br0", "br1"] {
            wire.run(&format!("ip link add {bridge} type bridge"))?;
            wire.run(&format!("ip link set {bridge} up"))?;
        }
        let control = station(&lab, &wire, "control", CONTROL)?;
        options.physical_networks.clear();
        options.feed = Some(feed_of(CONTROL));
        let site = Site::of_host(&lab, &control, "control", &options)?;
        let server = Some(site.start(&lab, "server")?);
        let mut hosts = Vec::new();
        for number in 1..=count {
            let name = format!("h{number}");
            let namespace = station(&lab, &wire, &name, number)?;
            let tunnel_ip = underlay.address(number);
            options.underlay = Some(("eth0".to_owned(), tunnel_ip));
            options.physical_networks.clear();
            if provider.contains(&number) {
                on_provider(&lab, &wire, (&namespace, "eth1"), &format!("p{number}"))?;
                let mapped = ("provider".to_owned(), "eth1".to_owned());
                options.physical_networks.push(mapped);
            }
            let site = Site::of_host(&lab, &namespace, &name, &options)?;
            let weft = Some(site.start(&lab, "agent")?);
            hosts.push(Host {
                weft,
                site,
                namespace,
                tunnel_ip,
            });
        }
        let operator = Client::new(&control)?;
        Ok(Self {
            nics: Vec::new(),
            vhost_user: options.vhost_user,
            hosts,
            server,
            admin: site.admin(),
            control_site: site,
            control,
            wire,
            operator,
            lab,
        })
    }

    /// Kills the control plane, as a crash would.
    ///
    /// # Errors
    /// It does not run.
    pub fn server_kill(&mut self) -> Result<()> {
        self.server.take().context("it does not run")?.kill()
    }

    /// Starts it again.
    ///
    /// # Errors
    /// It is not ready in time.
    pub fn server_start(&mut self) -> Result<()> {
        self.server = Some(self.control_site.start(&self.lab, "server")?);
        self.operator = Client::new(&self.control)?;
        Ok(())
    }

    /// One more control plane on the same database: [`Hosts::open_with_options`] with a `store_url` and [`feed_of`] this number
    /// among `feed_also`. Gives it, and somebody who asks its API.
    ///
    /// # Errors
    /// It does not start.
    pub fn further_server(&self, number: u8, options: &WeftOptions) -> Result<(Weft, Client)> {
        let name = format!("control{number}");
        let namespace = station(&self.lab, &self.wire, &name, number)?;
        let mut options = options.clone();
        options.physical_networks.clear();
        options.feed = Some(feed_of(number));
        options.feed_also = vec![feed_of(CONTROL)];
        let site = Site::of_host(&self.lab, &namespace, &name, &options)?;
        let server = site.start(&self.lab, "server")?;
        Ok((server, Client::new(&namespace)?))
    }

    /// What the control plane knows of its hosts' agents.
    ///
    /// # Errors
    /// It does not answer.
    pub fn feed_view(&self) -> Result<Value> {
        let feed = feed_of(CONTROL);
        let request =
            format!("GET /feed/v1/hosts HTTP/1.1\r\nHost: {feed}\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        self.ask_feed(&self.control, feed, &request)?
            .read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        serde_json::from_str(body).with_context(|| answer.clone())
    }

    /// One line of the `openstack` client, as the administrator.
    ///
    /// # Errors
    /// The API refuses.
    pub fn openstack(&mut self, line: &str) -> Result<Value> {
        let admin = self.admin.clone();
        let answer = self.operator.openstack(&admin, line);
        answer.with_context(|| format!("openstack {line}"))
    }

    /// Makes a resource by the API, and waits until it is enforced: `resource` is what its body is called.
    ///
    /// # Errors
    /// Refused, or not enforced in time.
    pub fn post(&mut self, path: &str, resource: &str, body: &Value) -> Result<Value> {
        let body = serde_json::json!({ resource: body });
        let made = self.operator.post(&self.admin, path, &body);
        Ok(made.with_context(|| body.to_string())?[resource].clone())
    }

    /// One resource or a list, as the API shows it.
    ///
    /// # Errors
    /// No answer, or another status than 200.
    pub fn openstack_get(&mut self, path: &str) -> Result<Value> {
        self.operator.get(&self.admin, path)
    }

    /// Changes one, likewise.
    ///
    /// # Errors
    /// As [`Hosts::post`].
    pub fn put(&mut self, path: &str, resource: &str, body: &Value) -> Result<Value> {
        let body = serde_json::json!({ resource: body });
        let changed = self.operator.put(&self.admin, path, &body);
        Ok(changed.with_context(|| body.to_string())?[resource].clone())
    }

    /// Removes one, likewise.
    ///
    /// # Errors
    /// As [`Hosts::post`].
    pub fn delete(&mut self, path: &str) -> Result<()> {
        self.operator.delete(&self.admin, path)
    }

    /// A network with a subnet of each family.
    ///
    /// # Errors
    /// The API refuses.
    pub fn network(&mut self, name: &str, v4: &str, v6: &str, options: &str) -> Result<Value> {
        let network = self.openstack(&format!("network create {options} {name}"))?;
        self.openstack(&format!(
            "subnet create --network {name} --subnet-range {v4} {name}-v4"
        ))?;
        self.openstack(&format!(
            "subnet create --network {name} --ip-version 6 --ipv6-ra-mode slaac --ipv6-address-mode slaac \
             --subnet-range {v6} {name}-v6"
        ))?;
        Ok(network)
    }

    /// A guest on a host, with its addresses.
    ///
    /// # Errors
    /// The API refuses, the port does not turn ACTIVE, or no address comes.
    pub fn guest(
        &mut self,
        host: usize,
        network: &str,
        name: &str,
        options: &str,
    ) -> Result<Guest> {
        let guest = self.plug(host, network, name, options)?;
        guest.dhcp(&self.lab)?;
        if guest.port.v6().is_ok() {
            guest.slaac()?;
        }
        Ok(guest)
    }

    /// A port of a host's: with vhost-user when the hosts have it, of which control hears a little after they start.
    fn port(&mut self, host: &str, network: &str, name: &str, options: &str) -> Result<Value> {
        let line = format!("port create --network {network} --host {host} {options} {name}");
        let wanted = if self.vhost_user { "vhostuser" } else { "tap" };
        until("a port of the host's kind", ACTIVE_TIMEOUT, || {
            let port = self.openstack(&line)?;
            if port["binding:vif_type"] == wanted {
                return Ok(Some(port));
            }
            self.openstack(&format!(
                "port delete {}",
                port["id"].as_str().unwrap_or(name)
            ))?;
            Ok(None)
        })
    }

    /// A guest on a host, up and without addresses.
    ///
    /// # Errors
    /// The API refuses, or the port does not turn ACTIVE.
    pub fn plug(&mut self, host: usize, network: &str, name: &str, options: &str) -> Result<Guest> {
        let (site, namespace) = {
            let host = self.hosts.get(host).context("no such host")?;
            (host.site.clone(), host.namespace.clone())
        };
        let port = self.port(&site.name, network, name, options)?;
        let facts = PortFacts::from_json(&port)?;
        let guest = match port["binding:vif_details"]["vhostuser_socket"].as_str() {
            None => Guest::plug(&self.lab, &namespace, name, facts)?,
            Some(socket) => {
                let plugged = Nic::plug(&self.lab, name, facts, Path::new(socket));
                let (guest, nic) = plugged.with_context(|| site.log_end())?;
                self.nics.push(nic);
                guest
            }
        };
        let line = format!("port show {}", guest.port.id);
        let mut status = String::new();
        let active = until("the port to turn ACTIVE", ACTIVE_TIMEOUT, || {
            let port = self.openstack(&line)?;
            status = port["status"].as_str().unwrap_or_default().to_owned();
            Ok((status == "ACTIVE").then_some(()))
        });
        active
            .with_context(|| format!("{name} is {status:?}; the log ends:\n{}", site.log_end()))?;
        guest.start()?;
        Ok(guest)
    }

    /// Kills a host's agent, as a crash would.
    ///
    /// # Errors
    /// It does not run.
    pub fn agent_kill(&mut self, host: usize) -> Result<()> {
        let host = self.hosts.get_mut(host).context("no such host")?;
        host.weft.take().context("it does not run")?.kill()
    }

    /// Starts a host's agent again.
    ///
    /// # Errors
    /// It is not ready in time.
    pub fn agent_start(&mut self, host: usize) -> Result<()> {
        let host = self.hosts.get_mut(host).context("no such host")?;
        host.weft = Some(host.site.start(&self.lab, "agent")?);
        Ok(())
    }

    /// How many packets a host has dropped for a reason.
    ///
    /// # Errors
    /// Its agent does not answer.
    pub fn drops(&self, host: usize, reason: &str) -> Result<u64> {
        let host = self.hosts.get(host).context("no such host")?;
        let stats = host.site.ask("stats")?;
        let drops = stats["drops"].as_array().into_iter().flatten();
        let of = drops.filter(|drop| drop["reason"] == reason);
        Ok(of.filter_map(|drop| drop["packets"].as_u64()).sum())
    }

    /// The same of all hosts.
    ///
    /// # Errors
    /// As [`Hosts::drops`].
    pub fn drops_of_all(&self, reason: &str) -> Result<u64> {
        (0..self.hosts.len())
            .map(|host| self.drops(host, reason))
            .sum()
    }

    /// Packets and bytes that a host has sent into tunnels.
    ///
    /// # Errors
    /// Its agent does not answer.
    pub fn sent(&self, host: usize) -> Result<[u64; 2]> {
        let host = self.hosts.get(host).context("no such host")?;
        let stats = host.site.ask("stats")?;
        let traffic = &stats["underlay"]["traffic"];
        let number = |key: &str| traffic[key].as_u64().with_context(|| stats.to_string());
        Ok([number("tx_packets")?, number("tx_bytes")?])
    }

    /// A machine on the wire that runs no agent of ours: it tells control where tunnels to it lead, as an agent does.
    ///
    /// # Errors
    /// The name or number is taken, or control does not listen.
    pub fn stranger(&self, name: &str, number: u8, tunnel_ip: IpAddr) -> Result<Namespace> {
        let namespace = station(&self.lab, &self.wire, name, number)?;
        let feed = feed_of(CONTROL);
        let watch = format!("GET /feed/v1/hosts/{name}/watch HTTP/1.1\r\nHost: {feed}\r\n\r\n");
        let mut answer = BufReader::new(self.ask_feed(&namespace, feed, &watch)?).lines();
        let duty = answer.find(|line| line.as_ref().is_ok_and(|line| line.contains("\"epoch\"")));
        let duty = duty.context("no duty came")??;
        let duty: Value = serde_json::from_str(duty.trim())?;
        let report = serde_json::json!({
            "host": name, "epoch": duty["epoch"], "revision": 0, "ports": [], "full": true,
            "tunnel_ip": tunnel_ip,
        })
        .to_string();
        let post = format!(
            "POST /feed/v1/hosts/{name}/report HTTP/1.1\r\nHost: {feed}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{report}",
            report.len()
        );
        let mut status = String::new();
        BufReader::new(self.ask_feed(&namespace, feed, &post)?).read_line(&mut status)?;
        ensure!(status.contains(" 20"), "control says {status:?}");
        Ok(namespace)
    }

    fn ask_feed(&self, from: &Namespace, feed: SocketAddr, request: &str) -> Result<TcpStream> {
        let mut stream = from.tcp_connect(feed, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(request.as_bytes())?;
        Ok(stream)
    }

    /// A namespace on the physical network `provider`, by its `eth0`.
    ///
    /// # Errors
    /// There is one already.
    pub fn outside(&self, name: &str) -> Result<Namespace> {
        let outside = self.lab.namespace(name)?;
        on_provider(&self.lab, &self.wire, (&outside, "eth0"), name)?;
        Ok(outside)
    }

    /// What passes on the wire at a host, from now on.
    ///
    /// # Errors
    /// There is no such host.
    pub fn capture(&self, host: usize) -> Result<Capture> {
        Capture::open(&self.wire, &format!("h{}", host + 1))
    }

    /// Stops everything in order, and says what remains.
    ///
    /// # Errors
    /// Something does not end well, or leaves pins behind.
    pub fn close(self) -> Result<()> {
        let Self {
            nics,
            hosts,
            server,
            lab,
            ..
        } = self;
        drop(nics);
        for host in hosts {
            if let Some(weft) = host.weft {
                weft.stop()?;
            }
            let pins = host.site.pins();
            ensure!(!pins.exists(), "{} is left behind", pins.display());
        }
        if let Some(server) = server {
            server.stop()?;
        }
        lab.close()
    }
}

/// Where a control plane of this number listens for agents.
#[must_use]
pub fn feed_of(number: u8) -> SocketAddr {
    SocketAddr::new(Underlay::V4.address(number), FEED_PORT)
}

/// A namespace on the wire, with both addresses on its `eth0`.
fn station(lab: &Lab, wire: &Namespace, name: &str, number: u8) -> Result<Namespace> {
    let namespace = lab.namespace(name)?;
    lab.veth((&namespace, "eth0"), (wire, name))?;
    wire.run(&format!("ip link set {name} master br0"))?;
    let (v4, v6) = (Underlay::V4.address(number), Underlay::V6.address(number));
    namespace.run(&format!("ip address add {v4}/24 dev eth0"))?;
    namespace.run(&format!("ip address add {v6}/64 dev eth0 nodad"))?;
    Ok(namespace)
}

/// Joins an interface to the wire of the physical network; its end there has a name of its own.
fn on_provider(lab: &Lab, wire: &Namespace, end: (&Namespace, &str), there: &str) -> Result<()> {
    lab.veth(end, (wire, there))?;
    wire.run(&format!("ip link set {there} master br1"))?;
    Ok(())
}

/// Sends so many bytes to a [`weft_kit::tcp::Server`] and compares what it sends back.
///
/// # Errors
/// No connection, or other bytes.
pub fn bulk(from: &Namespace, to: SocketAddr, bytes: usize) -> Result<()> {
    let (probed, stream) = connect(from, to, None)?;
    let mut stream = stream.with_context(|| format!("no connection to {to}: {probed}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let pattern = |at: usize| u8::try_from(at % 251).unwrap_or_default();
    let sent: Vec<u8> = (0..bytes).map(pattern).collect();
    let mut writer = stream.try_clone()?;
    let written = std::thread::spawn(move || writer.write_all(&sent));
    let mut back = vec![0; bytes];
    stream.read_exact(&mut back)?;
    let wrong = back
        .iter()
        .enumerate()
        .find(|(at, byte)| **byte != pattern(*at));
    ensure!(wrong.is_none(), "another byte came back: {wrong:?}");
    written
        .join()
        .map_err(|_panic| anyhow!("the writer panicked"))??;
    Ok(())
}
