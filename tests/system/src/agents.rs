//! Two hosts whose agents end and return in every way while a guest of one sends ten thousand datagrams a second to a guest
//! of the other: how many are lost.

use crate::hosts::{Hosts, Underlay};
use anyhow::{Context, Result, anyhow, ensure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use weft_kit::Guest;
use weft_kit::clock::{now, pause, until};
use weft_kit::ping::ping;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Datagrams.
const PER_MILLISECOND: u64 = 10;
/// The load alone, before, between and after what happens.
const REST: Duration = Duration::from_millis(500);
/// Nobody listens there: what came is counted as such.
const PORT: u16 = 9;

/// How an agent ends; after each it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As a crash would end it.
    Kill,
    /// As an administrator does.
    Stop,
    /// The same, and what starts then has maps of another layout, as another version may have.
    Upgrade,
}

impl End {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kill, Self::Stop, Self::Upgrade];
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Datagrams sent.
    pub sent: u64,
    /// Those that did not arrive.
    pub lost: u64,
    /// How long the load lasted.
    pub lasted: Duration,
}

/// Two hosts, a guest on each.
#[derive(Debug)]
pub struct Cloud {
    hosts: Hosts,
    a: Guest,
    b: Guest,
}

/// Datagrams that are being sent.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Duration)>,
}

impl Cloud {
    /// Opens it; datagrams arrive then.
    ///
    /// # Errors
    /// As [`Hosts::open`], or something does not come up.
    pub fn open(name: &str) -> Result<Self> {
        let mut hosts = Hosts::open(name, 2, Underlay::V4)?;
        let mtu = format!("--mtu {}", Underlay::V4.mtu());
        hosts.network("blue", "192.0.2.0/24", "fd00:b::/64", &mtu)?;
        hosts.openstack("security group create open")?;
        for protocol in ["icmp", "udp"] {
            hosts.openstack(&format!(
                "security group rule create --protocol {protocol} open"
            ))?;
        }
        let plugged = [(0, "a"), (1, "b")].map(|(host, name)| -> Result<Guest> {
            let guest = hosts.plug(host, "blue", name, "--security-group open")?;
            guest.dhcp(&hosts.lab)?;
            Ok(guest)
        });
        let [a, b] = plugged;
        let (a, b) = (a?, b?);
        let mut cloud = Self { hosts, a, b };
        // What an agent leaves at its end is read at its start.
        for host in 0..cloud.hosts.hosts.len() {
            cloud.configure(host, "remove_on_stop = true", "remove_on_stop = false")?;
            cloud.hosts.agent_kill(host)?;
            cloud.hosts.agent_start(host)?;
        }
        let socket = cloud.a.namespace.udp(cloud.a.port.v4()?.into(), 0)?;
        let to = cloud.b.port.v4()?;
        until("the rule for UDP to be in force", TIMEOUT, || {
            // A refusal of the one before is told with this one.
            let _refused = socket.send_to(b"first", (to, PORT));
            Ok((cloud.arrived()? > 0).then_some(()))
        })?;
        Ok(cloud)
    }

    /// Ends and starts the agents of both hosts under load.
    ///
    /// # Errors
    /// An agent does not end or come up, or hardly anything was sent.
    pub fn loss(&mut self, end: End) -> Result<Loss> {
        let before = self.arrived()?;
        let load = self.load()?;
        for host in 0..self.hosts.hosts.len() {
            pause(REST);
            self.end(host, end)?;
            pause(REST);
            self.hosts.agent_start(host)?;
        }
        pause(REST);
        load.stop.store(true, Ordering::Relaxed);
        let (sent, lasted) = load
            .thread
            .join()
            .map_err(|_panic| anyhow!("the sender panicked"))?;
        ensure!(sent > 20_000, "only {sent} were sent in {lasted:?}");
        let arrived = || Ok((self.arrived()? >= before + sent).then_some(()));
        // What is lost does not come later either: how many that is, is told.
        let _lost = until("the last datagrams", TIMEOUT, arrived);
        let lost = (before + sent).saturating_sub(self.arrived()?);
        let to = self.b.port.v4()?.into();
        ensure!(
            ping(&self.a.namespace, to, 3)?.all(),
            "no new flow by the agents that came back"
        );
        Ok(Loss { sent, lost, lasted })
    }

    fn end(&mut self, host: usize, end: End) -> Result<()> {
        if end == End::Kill {
            return self.hosts.agent_kill(host);
        }
        let of = self.hosts.hosts.get_mut(host).context("no such host")?;
        of.weft.take().context("it does not run")?.stop()?;
        if end == End::Upgrade {
            self.configure(host, "[agent]\n", "[agent]\nsessions_max = 200000\n")?;
        }
        Ok(())
    }

    /// Changes a host's configuration file.
    fn configure(&self, host: usize, from: &str, to: &str) -> Result<()> {
        let of = self.hosts.hosts.get(host).context("no such host")?;
        let text = std::fs::read_to_string(&of.site.config)?;
        ensure!(text.contains(from), "{text} has no {from}");
        Ok(std::fs::write(&of.site.config, text.replacen(from, to, 1))?)
    }

    fn load(&self) -> Result<Load> {
        let to = (self.b.port.v4()?, PORT);
        let socket = self.a.namespace.udp(self.a.port.v4()?.into(), 0)?;
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (start, mut sent) = (now(), 0);
            while !ended.load(Ordering::Relaxed) {
                let past = u64::try_from(start.elapsed().as_millis()).unwrap_or(0);
                while sent < past * PER_MILLISECOND {
                    // An ICMP error of before makes the next one fail, and that is not sent.
                    sent += u64::from(socket.send_to(&[0; 64], to).is_ok());
                }
                pause(Duration::from_millis(1));
            }
            (sent, start.elapsed())
        });
        Ok(Load { stop, thread })
    }

    /// Datagrams that came to b and found nobody listening: all that came.
    fn arrived(&self) -> Result<u64> {
        let text = self.b.namespace.run("cat /proc/net/snmp")?;
        let mut udp = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, values) = (udp.next(), udp.next());
        let mut names = names.context("no UDP")?.split_whitespace();
        let at = names
            .position(|name| name == "NoPorts")
            .context("no NoPorts")?;
        let value = values.and_then(|values| values.split_whitespace().nth(at));
        Ok(value.context("no value")?.parse()?)
    }

    /// Ends it, and says what remains.
    ///
    /// # Errors
    /// As [`Hosts::close`].
    pub fn close(mut self) -> Result<()> {
        for host in 0..self.hosts.hosts.len() {
            self.configure(host, "remove_on_stop = false", "remove_on_stop = true")?;
            self.hosts.agent_kill(host)?;
            self.hosts.agent_start(host)?;
        }
        self.hosts.close()
    }
}
