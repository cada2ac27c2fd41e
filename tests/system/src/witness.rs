//! Two projects that use the same addresses, side by side on every host, whose guests never stop talking; and everything that each
//! of them hears. What is of the other project is found by its words and by its MAC addresses.

use crate::hosts::{Hosts, Underlay};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use weft_kit::clock::{now, pause, until};
use weft_kit::{Guest, Recording, WeftOptions};

/// The projects, and what their words begin with.
pub const PROJECTS: [&str; 2] = ["red", "blue"];
/// The UDP port that everybody speaks and listens on.
pub const PORT: u16 = 7_000;
/// Between two rounds of words.
const PACE: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(15);

/// Both projects on several hosts.
#[derive(Debug)]
pub struct Projects {
    /// The hosts.
    pub hosts: Hosts,
    /// The guests: the project, and each one's guest.
    pub guests: Vec<(&'static str, Guest)>,
}

impl Projects {
    /// Two networks behind a router for each project, of the same ranges: a guest of the first on the first two hosts, and one of the
    /// second on the second.
    ///
    /// # Errors
    /// As [`Hosts::open`], or a guest does not come up.
    pub fn open(name: &str, options: WeftOptions) -> Result<Self> {
        Self::among(Hosts::open_with_options(
            name,
            2,
            Underlay::V4,
            &[],
            options,
        )?)
    }

    /// The same among hosts that are there.
    ///
    /// # Errors
    /// As [`Projects::open`].
    pub fn among(mut hosts: Hosts) -> Result<Self> {
        let mut guests = Vec::new();
        for project in PROJECTS {
            networks(&mut hosts, project)?;
        }
        for (host, network, name) in [(0, 1, "a"), (1, 1, "b"), (1, 2, "c")] {
            for project in PROJECTS {
                let group = format!("--security-group {project}-open");
                let (network, name) = (format!("{project}{network}"), format!("{project}-{name}"));
                let guest = hosts.plug(host, &network, &name, &group)?;
                guest.dhcp(&hosts.lab)?;
                guests.push((project, guest));
            }
        }
        for (_, guest) in &guests {
            guest.slaac()?;
        }
        Ok(Self { hosts, guests })
    }

    /// A guest by its name.
    ///
    /// # Errors
    /// There is none.
    pub fn guest(&self, name: &str) -> Result<&Guest> {
        let mut all = self.guests.iter().map(|(_, guest)| guest);
        all.find(|guest| guest.name == name)
            .context("no such guest")
    }

    /// Lets all guests talk, and listens; everybody hears everybody of the own project from then on.
    ///
    /// # Errors
    /// Somebody is not heard.
    pub fn witness(&mut self) -> Result<Witness> {
        let recordings = self.guests.iter().map(|(project, guest)| {
            let recording = Recording::start(&self.hosts.lab, &guest.namespace, "eth0")?;
            Ok((*project, guest.name.clone(), recording))
        });
        let recordings = recordings.collect::<Result<Vec<_>>>()?;
        let talk = Talk::start(&self.guests)?;
        until("everybody to be heard", TIMEOUT, || {
            Ok(talk.silent().is_empty().then_some(()))
        })
        .with_context(|| format!("not heard: {:?}", talk.silent()))?;
        talk.take();
        Ok(Witness {
            talk,
            recordings,
            macs: macs(&mut self.hosts)?,
        })
    }
}

fn networks(hosts: &mut Hosts, project: &str) -> Result<()> {
    for (number, v4, v6) in [
        (1, "192.0.2.0/24", "fd00:b::/64"),
        (2, "198.51.100.0/24", "fd00:6::/64"),
    ] {
        hosts.network(&format!("{project}{number}"), v4, v6, "--mtu 1450")?;
    }
    hosts.openstack(&format!("router create {project}-router"))?;
    for subnet in ["1-v4", "1-v6", "2-v4", "2-v6"] {
        let line = format!("router add subnet {project}-router {project}{subnet}");
        hosts.openstack(&line)?;
    }
    hosts.openstack(&format!("security group create {project}-open"))?;
    for rule in [
        "--protocol udp",
        "--ethertype IPv6 --protocol udp",
        "--protocol tcp",
        "--protocol icmp",
        "--ethertype IPv6 --protocol ipv6-icmp",
    ] {
        hosts.openstack(&format!("security group rule create {rule} {project}-open"))?;
    }
    Ok(())
}

/// The project of every MAC address of a port, routers' too.
fn macs(hosts: &mut Hosts) -> Result<BTreeMap<[u8; 6], &'static str>> {
    let admin = hosts.admin.clone();
    let mut networks = BTreeMap::new();
    let all = hosts.operator.get(&admin, "/v2.0/networks")?;
    for network in all["networks"].as_array().into_iter().flatten() {
        let name = network["name"].as_str().unwrap_or_default();
        let of = PROJECTS.iter().find(|project| name.starts_with(**project));
        networks.extend(network["id"].as_str().map(str::to_owned).zip(of));
    }
    let all = hosts.operator.get(&admin, "/v2.0/ports")?;
    let ports = all["ports"].as_array().into_iter().flatten();
    let mac = |port: &Value| -> Result<Option<([u8; 6], &'static str)>> {
        let network = port["network_id"].as_str().and_then(|id| networks.get(id));
        let mac = weft_kit::frame::mac(port["mac_address"].as_str().context("no MAC")?)?;
        Ok(network.map(|project| (mac, **project)))
    };
    ports.filter_map(|port| mac(port).transpose()).collect()
}

/// From whom to whom, and in which family.
pub type Pair = (String, String, bool);

/// What was said and heard between two guests.
#[derive(Clone, Copy, Debug)]
struct Heard {
    next: u64,
    last: Instant,
    count: u64,
    lost: u64,
    gap: Duration,
}

/// What was noticed since the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noticed {
    /// Words that arrived.
    pub heard: u64,
    /// Words that did not, although later ones did.
    pub lost: u64,
    /// Milliseconds of the longest silence between two who should hear each other.
    pub gap_ms: u64,
    /// Words of the other project: the first of them.
    pub foreign: BTreeSet<String>,
}

/// The conversation.
#[derive(Debug)]
struct Talk {
    stop: Arc<AtomicBool>,
    shared: Arc<Mutex<Shared>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    heard: BTreeMap<Pair, Heard>,
    expected: BTreeSet<Pair>,
    foreign: BTreeSet<String>,
}

struct Voice {
    project: &'static str,
    name: String,
    /// What it listens on. It speaks by others: answers to the own words would be let in without a rule.
    ears: [UdpSocket; 2],
    /// Addresses of the own project, and by which socket; then those of the other project alone, whose errors must not be the former's.
    targets: Vec<(UdpSocket, Vec<SocketAddr>)>,
}

impl Talk {
    fn start(guests: &[(&'static str, Guest)]) -> Result<Self> {
        let mut voices = Vec::new();
        let mut shared = Shared::default();
        for (project, guest) in guests {
            let own = [IpAddr::V4(guest.port.v4()?), guest.port.v6()?.into()];
            let ears = [
                guest.namespace.udp(own[0], PORT)?,
                guest.namespace.udp(own[1], PORT)?,
            ];
            let (mut inside, mut outside) = (BTreeSet::new(), BTreeSet::new());
            for (whose, other) in guests {
                // Words to the addresses of the other project must not arrive there; those of both, to the own.
                let addresses = [IpAddr::V4(other.port.v4()?), other.port.v6()?.into()];
                for address in addresses {
                    if whose == project && other.name != guest.name {
                        let pair = (guest.name.clone(), other.name.clone(), address.is_ipv6());
                        shared.expected.insert(pair);
                        inside.insert(address);
                    } else if whose != project && !own.contains(&address) {
                        outside.insert(address);
                    }
                }
            }
            let outside = outside.difference(&inside).copied().collect();
            let mut targets = Vec::new();
            for some in [inside, outside] {
                for own in own {
                    let of = some.iter().filter(|to| to.is_ipv6() == own.is_ipv6());
                    let of = of.map(|to| SocketAddr::new(*to, PORT)).collect();
                    targets.push((guest.namespace.udp(own, 0)?, of));
                }
            }
            for socket in ears.iter().chain(targets.iter().map(|(socket, _)| socket)) {
                socket.set_nonblocking(true)?;
            }
            voices.push(Voice {
                project,
                name: guest.name.clone(),
                ears,
                targets,
            });
        }
        let shared = Arc::new(Mutex::new(shared));
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, all) = (Arc::clone(&stop), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            let mut round = 0;
            while !flag.load(Ordering::Relaxed) {
                for voice in &voices {
                    voice.speak(round);
                }
                pause(PACE);
                let mut shared = lock(&all);
                for voice in &voices {
                    voice.listen(&mut shared);
                }
                round += 1;
            }
        });
        Ok(Self {
            stop,
            shared,
            thread: Some(thread),
        })
    }

    /// Who should have been heard and was not yet.
    fn silent(&self) -> Vec<Pair> {
        let shared = lock(&self.shared);
        let heard = |pair: &&Pair| !shared.heard.contains_key(*pair);
        shared.expected.iter().filter(heard).cloned().collect()
    }

    fn take(&self) -> Noticed {
        self.take_of(|_| true)
    }

    fn take_of(&self, counts: impl Fn(&Pair) -> bool) -> Noticed {
        let mut shared = lock(&self.shared);
        let mut noticed = Noticed {
            heard: 0,
            lost: 0,
            gap_ms: 0,
            foreign: shared.foreign.clone(),
        };
        for (pair, heard) in &mut shared.heard {
            let gap = heard.gap.max(heard.last.elapsed());
            if counts(pair) {
                let gap_ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
                noticed.heard += heard.count;
                noticed.lost += heard.lost;
                noticed.gap_ms = noticed.gap_ms.max(gap_ms);
            }
            (heard.count, heard.lost, heard.gap) = (0, 0, Duration::ZERO);
        }
        noticed
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

impl Voice {
    fn speak(&self, round: u64) {
        let words = format!("weft {} {} {round} ", self.project, self.name);
        for (socket, targets) in &self.targets {
            for target in targets {
                // An error of an earlier word is told in place of this one: once more. Nobody may be there at all.
                let said = || socket.send_to(words.as_bytes(), target);
                let _ = said().or_else(|_| said()).or_else(|_| said());
            }
        }
    }

    fn listen(&self, shared: &mut Shared) {
        let mut bytes = [0; 256];
        for socket in &self.ears {
            // An error of an earlier word counts for nothing; an empty queue ends it.
            loop {
                match socket.recv_from(&mut bytes) {
                    Ok((count, from)) => {
                        let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                        self.hear(shared, &text, from.ip().is_ipv6());
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(_) => {}
                }
            }
        }
    }

    fn hear(&self, shared: &mut Shared, text: &str, v6: bool) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let ["weft", project, from, round] = words[..] else {
            return;
        };
        if project != self.project {
            let said = format!("{} hears: {text}", self.name);
            shared.foreign.insert(said);
            return;
        }
        let round = round.parse().unwrap_or(0);
        let pair = (from.to_owned(), self.name.clone(), v6);
        let heard = shared.heard.entry(pair).or_insert(Heard {
            next: round,
            last: now(),
            count: 0,
            lost: 0,
            gap: Duration::ZERO,
        });
        heard.gap = heard.gap.max(heard.last.elapsed());
        heard.lost += u64::saturating_sub(round, heard.next);
        heard.next = heard.next.max(round + 1);
        heard.last = now();
        heard.count += 1;
    }
}

/// Everything that the guests hear.
#[derive(Debug)]
pub struct Witness {
    talk: Talk,
    recordings: Vec<(&'static str, String, Recording)>,
    macs: BTreeMap<[u8; 6], &'static str>,
}

impl Witness {
    /// What was noticed since the last time.
    #[allow(clippy::must_use_candidate, reason = "what was before may not matter")]
    pub fn take(&self) -> Noticed {
        self.talk.take()
    }

    /// The same of some pairs alone; what others noticed is forgotten.
    #[must_use]
    pub fn take_of(&self, counts: impl Fn(&Pair) -> bool) -> Noticed {
        self.talk.take_of(counts)
    }

    /// Waits until everybody hears everybody again (of those who `counts`), and says how long it took.
    ///
    /// # Errors
    /// Not in time.
    pub fn until_heard(
        &self,
        counts: impl Fn(&Pair) -> bool,
        timeout: Duration,
    ) -> Result<Duration> {
        let start = now();
        let all = || {
            let shared = lock(&self.talk.shared);
            let expected = shared.expected.iter().filter(|pair| counts(pair));
            let heard = |pair: &Pair| shared.heard.get(pair).is_some_and(|it| it.last > start);
            let mut silent = expected.filter(|pair| !heard(pair));
            Ok(silent.next().is_none().then_some(()))
        };
        until("everybody to be heard again", timeout, all)?;
        Ok(start.elapsed())
    }

    /// Waits until nobody of those who `counts` was heard for a while, and says when the last one was, from now.
    ///
    /// # Errors
    /// They are still heard.
    pub fn until_silent(
        &self,
        counts: impl Fn(&Pair) -> bool,
        timeout: Duration,
    ) -> Result<Duration> {
        const QUIET: Duration = Duration::from_millis(300);
        let start = now();
        let last = || {
            let shared = lock(&self.talk.shared);
            let of = shared.heard.iter().filter(|(pair, _)| counts(pair));
            of.map(|(_, heard)| heard.last).max()
        };
        until("silence", timeout, || {
            let quiet = last().is_none_or(|last| last.elapsed() >= QUIET);
            Ok(quiet.then_some(()))
        })?;
        Ok(last().map_or(Duration::ZERO, |last| last.saturating_duration_since(start)))
    }

    /// Ends it: on no guest was there a frame of the other project, and on each some of its own.
    ///
    /// # Errors
    /// There was.
    pub fn end(self) -> Result<usize> {
        let foreign = self.talk.take().foreign;
        ensure!(foreign.is_empty(), "{foreign:?}");
        drop(self.talk);
        let mut count = 0;
        for (project, name, recording) in self.recordings {
            let frames = recording.end()?;
            let own = frames.iter().filter(|frame| says(frame, project)).count();
            ensure!(own > 0, "{name} heard nothing in {} frames", frames.len());
            foreign_in(&frames, project, &self.macs).with_context(|| name.clone())?;
            count += frames.len();
        }
        Ok(count)
    }
}

fn says(frame: &[u8], project: &str) -> bool {
    let words = format!("weft {project} ");
    frame
        .windows(words.len())
        .any(|some| some == words.as_bytes())
}

/// Fails if there is a frame of another project among these, by its words or its sender.
///
/// # Errors
/// There is one.
fn foreign_in(
    frames: &[Vec<u8>],
    project: &str,
    macs: &BTreeMap<[u8; 6], &'static str>,
) -> Result<()> {
    for frame in frames {
        let sender = frame.get(6..12).and_then(|mac| mac.first_chunk());
        let whose = sender.and_then(|mac| macs.get(mac));
        let other = PROJECTS.iter().find(|other| **other != project);
        let heard = other.is_some_and(|other| says(frame, other));
        let own = whose.is_none_or(|whose| *whose == project);
        ensure!(!heard && own, "of another project: {frame:02x?}");
    }
    Ok(())
}

/// Fails if a recording has a frame of another project.
///
/// # Errors
/// It has, or cannot be read.
pub fn hears_no_other(recording: Recording, project: &str) -> Result<usize> {
    let frames = recording.end()?;
    foreign_in(&frames, project, &BTreeMap::new())?;
    Ok(frames.len())
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
