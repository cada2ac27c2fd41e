//! A cloud of three hosts that share an external network, and what happens to connections when the host that answers dies.

use crate::hosts::{Hosts, Underlay};
use crate::scene::ANY;
use anyhow::{Context, Result, ensure};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weft_kit::clock::{now, pause, until};
use weft_kit::ping::ping;
use weft_kit::{Guest, Namespace, Trunk};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Whom guests reach outside.
pub const ROUTER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));

/// Three hosts, of which the first two have the external network, a guest on each, and somebody outside.
#[derive(Debug)]
pub struct Cloud {
    /// The hosts.
    pub hosts: Hosts,
    /// Beside the hosts that have the network.
    pub outside: Namespace,
    /// Its interface there.
    pub leg: String,
    _trunk: Option<Trunk>,
    /// a, b and c, on the first, second and third host.
    pub guests: Vec<Guest>,
    /// The router's IPv4 address outside.
    pub gateway: IpAddr,
    /// Its IPv6 address there.
    pub gateway_v6: IpAddr,
    /// Its MAC address there.
    pub gateway_mac: String,
}

/// Opens it; every guest reaches the outside then.
///
/// # Errors
/// As [`Hosts::open`], or something does not come up.
pub fn open(name: &str) -> Result<Cloud> {
    open_over(name, Underlay::V4, None)
}

/// The same with tunnels over another underlay, and the external network in a VLAN.
///
/// # Errors
/// As [`open`].
pub fn open_over(name: &str, underlay: Underlay, vlan: Option<u16>) -> Result<Cloud> {
    let mut hosts = Hosts::open_with_provider(name, 3, underlay, &[1, 2])?;
    let outside = hosts.outside("outside")?;
    let (leg, trunk, kind) = match vlan {
        None => ("eth0".to_owned(), None, "flat".to_owned()),
        Some(vlan) => (
            format!("vlan{vlan}"),
            Some(Trunk::split(&outside, "eth0", &[vlan])?),
            format!("vlan --provider-segment {vlan}"),
        ),
    };
    for address in ["203.0.113.1/24", "fd00:203:0:113::1/64"] {
        outside.run(&format!("ip address add {address} dev {leg} nodad"))?;
    }
    let mtu = format!("--mtu {}", underlay.mtu());
    hosts.network("blue", "192.0.2.0/24", "fd00:b::/64", &mtu)?;
    hosts.openstack(&format!(
        "network create --external --provider-physical-network provider --provider-network-type {kind} ext"
    ))?;
    for line in [
        "subnet create --network ext --subnet-range 203.0.113.0/24 --gateway 203.0.113.1 --no-dhcp ext-v4",
        "subnet create --network ext --ip-version 6 --subnet-range fd00:203:0:113::/64 \
         --gateway fd00:203:0:113::1 ext-v6",
        "router create r1",
        "router add subnet r1 blue-v4",
        "router add subnet r1 blue-v6",
        "router set --external-gateway ext r1",
        "security group create web",
        "security group rule create --protocol icmp web",
        "security group rule create --ethertype IPv6 --protocol ipv6-icmp web",
        "security group rule create --protocol tcp --dst-port 22 web",
        "security group rule create --ethertype IPv6 --protocol tcp --dst-port 22 web",
    ] {
        hosts.openstack(line)?;
    }
    let router = hosts.openstack("router show r1")?;
    let ips = router["external_gateway_info"]["external_fixed_ips"].as_array();
    let ips = ips.into_iter().flatten();
    let ips: Vec<IpAddr> = ips
        .filter_map(|ip| ip["ip_address"].as_str()?.parse().ok())
        .collect();
    let of = |v6: bool| ips.iter().copied().find(|ip| ip.is_ipv6() == v6);
    let (gateway, gateway_v6) = of(false).zip(of(true)).context("no gateway addresses")?;
    outside.run(&format!("ip -6 route add fd00:b::/64 via {gateway_v6}"))?;
    let mut guests = Vec::new();
    for (host, name) in [(0, "a"), (1, "b"), (2, "c")] {
        guests.push(hosts.guest(host, "blue", name, "--security-group web")?);
    }
    for guest in &guests {
        until("the outside", TIMEOUT, || {
            Ok(ping(&guest.namespace, ROUTER_V4, 1)?.all().then_some(()))
        })
        .with_context(|| format!("from {}", guest.name))?;
    }
    until("the gateway", TIMEOUT, || {
        Ok(ping(&outside, gateway, 1)?.all().then_some(()))
    })?;
    let text = outside.run(&format!("ip neighbour show {gateway}"))?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "lladdr");
    let gateway_mac = words.nth(1).context("no MAC")?.to_owned();
    Ok(Cloud {
        hosts,
        outside,
        leg,
        _trunk: trunk,
        guests,
        gateway,
        gateway_v6,
        gateway_mac,
    })
}

impl Cloud {
    /// The host that answers outside for the router: 0 or 1.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn elected(&self) -> Result<usize> {
        until("the gateway's answer", TIMEOUT, || {
            // An answer, not what some host sent under the MAC: asked anew.
            self.outside
                .run(&format!(
                    "ip neighbour del {} dev {}",
                    self.gateway, self.leg
                ))
                .ok();
            if !ping(&self.outside, self.gateway, 1)?.all() {
                return Ok(None);
            }
            let fdb = self.hosts.wire.run("bridge fdb show br br1")?;
            let line = fdb.lines().find(|line| line.starts_with(&self.gateway_mac));
            Ok(line.and_then(|line| ["p1", "p2"].iter().position(|port| line.contains(port))))
        })
    }

    /// A floating IP for a guest.
    ///
    /// # Errors
    /// The API refuses.
    pub fn floating_ip(&mut self, guest: &str) -> Result<IpAddr> {
        let made = self
            .hosts
            .openstack(&format!("floating ip create --port {guest} ext"))?;
        let address = made["floating_ip_address"].as_str().context("no address")?;
        Ok(address.parse()?)
    }

    /// Takes a host's links to both wires, and kills its agent.
    ///
    /// # Errors
    /// Its agent does not run.
    pub fn kill(&mut self, host: usize) -> Result<()> {
        for port in [format!("h{}", host + 1), format!("p{}", host + 1)] {
            self.hosts.wire.run(&format!("ip link set {port} down"))?;
        }
        self.hosts.agent_kill(host)
    }
}

/// Many connections in one thread: each sends a byte in turn, and notes when it comes back.
struct Fleet {
    stop: Arc<AtomicBool>,
    /// Milliseconds since the start of the longest wait for an echo, and connections that ended.
    longest_ms: Arc<AtomicU64>,
    broken: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Fleet {
    fn start(streams: Vec<TcpStream>) -> Result<Self> {
        for stream in &streams {
            stream.set_nonblocking(true)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let longest_ms = Arc::new(AtomicU64::new(0));
        let broken = Arc::new(AtomicU64::new(0));
        let (flag, longest, ended) = (
            Arc::clone(&stop),
            Arc::clone(&longest_ms),
            Arc::clone(&broken),
        );
        let thread = std::thread::spawn(move || {
            let mut all: Vec<(TcpStream, Instant, bool)> = streams
                .into_iter()
                .map(|stream| (stream, now(), false))
                .collect();
            while !flag.load(Ordering::Relaxed) {
                for (stream, asked, open) in &mut all {
                    step(stream, asked, open, &longest, &ended);
                }
                pause(Duration::from_millis(5));
            }
        });
        Ok(Self {
            stop,
            longest_ms,
            broken,
            thread,
        })
    }

    /// The longest wait so far, and how many are broken; counting of waits starts anew.
    fn take(&self) -> Noticed {
        Noticed {
            gap_ms: self.longest_ms.swap(0, Ordering::Relaxed),
            broken: self.broken.load(Ordering::Relaxed),
        }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that panicked has nothing more to say.
        let _ = self.thread.join();
    }
}

/// One connection's turn: asks if nothing is asked, else looks for the answer. `open`: whether an answer is awaited.
fn step(
    stream: &mut TcpStream,
    asked: &mut Instant,
    open: &mut bool,
    longest_ms: &AtomicU64,
    broken: &AtomicU64,
) {
    let mut byte = [0; 16];
    if *open {
        let waited = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
        longest_ms.fetch_max(waited, Ordering::Relaxed);
        match stream.read(&mut byte) {
            Ok(0) => drop(broken.fetch_add(1, Ordering::Relaxed)),
            Ok(_) => *open = false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => drop(broken.fetch_add(1, Ordering::Relaxed)),
        }
    } else if asked.elapsed() >= Duration::from_millis(100) {
        match stream.write(b"x") {
            Ok(_) => (*asked, *open) = (now(), true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => drop(broken.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// Echoes for many clients in one thread.
struct Echo {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Echo {
    fn start(listener: TcpListener) -> Result<Self> {
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut clients: Vec<TcpStream> = Vec::new();
            let mut bytes = [0; 256];
            while !flag.load(Ordering::Relaxed) {
                while let Ok((stream, _)) = listener.accept() {
                    if stream.set_nonblocking(true).is_ok() {
                        clients.push(stream);
                    }
                }
                clients.retain_mut(|client| match client.read(&mut bytes) {
                    Ok(0) => false,
                    Ok(count) => client.write_all(&bytes[..count]).is_ok(),
                    Err(error) => error.kind() == ErrorKind::WouldBlock,
                });
                pause(Duration::from_millis(5));
            }
        });
        Ok(Self { stop, thread })
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        // As above.
        let _ = self.thread.join();
    }
}

fn connections(from: &Namespace, to: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    (0..count)
        .map(|n| {
            let stream = from.tcp_connect(to, Duration::from_secs(3));
            stream.with_context(|| format!("connection {n} to {to}"))
        })
        .collect()
}

/// What connections noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noticed {
    /// Connections that ended.
    pub broken: u64,
    /// Milliseconds of the longest wait for an answer.
    pub gap_ms: u64,
}

/// What many connections noticed of one cloud's misfortunes.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// How many they were: half by SNAT, half by a floating IP.
    pub connections: usize,
    /// Before anything happened.
    pub before: Noticed,
    /// When the host that answers outside died.
    pub lost: Noticed,
    /// When the agent of the one that took over was killed and started again.
    pub restarted: Noticed,
    /// When the one that died came back, and answered again.
    pub returned: Noticed,
}

/// What many connections noticed when the host that answers outside lost its link to the other hosts alone, and had it again.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// While it was without.
    pub lost: Noticed,
    /// When it had it again, and answered again.
    pub returned: Noticed,
}

/// A cloud under load: connections by SNAT from the host with the network that does not answer outside, and as many by the floating IP
/// of a guest on a host without it.
struct Loaded {
    cloud: Cloud,
    elected: usize,
    fleet: Fleet,
    outside: Echo,
    inside: Echo,
}

impl Loaded {
    fn open(name: &str, count: usize) -> Result<Self> {
        let mut cloud = open(name)?;
        let floating = cloud.floating_ip("c")?;
        let outside = Echo::start(cloud.outside.tcp_listen(ANY, 80)?)?;
        let inside = Echo::start(cloud.guests[2].namespace.tcp_listen(ANY, 22)?)?;
        until("the floating IP", TIMEOUT, || {
            Ok(ping(&cloud.outside, floating, 1)?.all().then_some(()))
        })?;
        let elected = cloud.elected()?;
        let other = &cloud.guests[1 - elected];
        let mut streams = connections(&other.namespace, SocketAddr::new(ROUTER_V4, 80), count)?;
        streams.extend(connections(
            &cloud.outside,
            SocketAddr::new(floating, 22),
            count,
        )?);
        let fleet = Fleet::start(streams)?;
        pause(Duration::from_secs(2));
        Ok(Self {
            cloud,
            elected,
            fleet,
            outside,
            inside,
        })
    }

    /// What is noticed until the host answers again that did at first.
    fn returned(&self) -> Result<Noticed> {
        until("the host that answered at first", TIMEOUT, || {
            Ok((self.cloud.elected()? == self.elected).then_some(()))
        })?;
        pause(Duration::from_secs(1));
        Ok(self.fleet.take())
    }

    fn close(self) -> Result<()> {
        self.fleet.end();
        self.outside.end();
        self.inside.end();
        self.cloud.hosts.close()
    }
}

/// Kills the host that answers outside under `count` connections by SNAT and as many by a floating IP; then the agent of the other; then
/// the host comes back.
///
/// # Errors
/// Something does not come up, or nobody takes over.
pub fn loss(name: &str, count: usize) -> Result<Loss> {
    let mut loaded = Loaded::open(name, count)?;
    let elected = loaded.elected;
    let before = loaded.fleet.take();
    loaded.cloud.kill(elected)?;
    pause(Duration::from_secs(4));
    let lost = loaded.fleet.take();
    ensure!(
        loaded.cloud.elected()? == 1 - elected,
        "the other host does not answer"
    );
    loaded.fleet.take();
    loaded.cloud.hosts.agent_kill(1 - elected)?;
    pause(Duration::from_secs(1));
    loaded.cloud.hosts.agent_start(1 - elected)?;
    pause(Duration::from_secs(1));
    let restarted = loaded.fleet.take();
    for port in [format!("h{}", elected + 1), format!("p{}", elected + 1)] {
        let line = format!("ip link set {port} up");
        loaded.cloud.hosts.wire.run(&line)?;
    }
    loaded.cloud.hosts.agent_start(elected)?;
    let returned = loaded.returned()?;
    loaded.close()?;
    Ok(Loss {
        connections: 2 * count,
        before,
        lost,
        restarted,
        returned,
    })
}

/// Takes the link to the other hosts, and to control, of the host that answers outside, under the same connections as [`loss`]; its interface
/// on the external network stays. Then gives it back.
///
/// # Errors
/// As [`loss`].
pub fn cut(name: &str, count: usize) -> Result<Cut> {
    let loaded = Loaded::open(name, count)?;
    loaded.fleet.take();
    let link = |state: &str| {
        let port = format!("h{}", loaded.elected + 1);
        let line = format!("ip link set {port} {state}");
        loaded.cloud.hosts.wire.run(&line)
    };
    link("down")?;
    pause(Duration::from_secs(5));
    let lost = loaded.fleet.take();
    link("up")?;
    let returned = loaded.returned()?;
    loaded.close()?;
    Ok(Cut { lost, returned })
}
