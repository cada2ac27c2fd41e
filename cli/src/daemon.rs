//! Starting and stopping: what runs in one process, and in which order it ends.
//!
//! Guarantees: SIGINT, SIGTERM and SIGHUP (the last one reloads in `weft run`) end everything within
//! [`SHUTDOWN_TIMEOUT`]; when one part fails the others end with it, and its error is the process's; a host that cannot
//! run the kernel engine is told before anything is opened.

use crate::config::Config;
use crate::server;
use crate::snapshot_file;
use anyhow::{Context, bail};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_agent::{AgentConfig, AloneSocket, Source, Underlay, check_host};
use weft_ebpf::{Steering, link_about};
use weft_model::MacAddress;
use weft_vhost::alone::{Alone, AloneConfig};
use weft_vhost::engine::Limits;
use weft_vhost::worker::cpus_check;
use weft_vhost::xdp::{XdpInterface, XdpPort};

/// From the signal to the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(1_900);
/// The same if what is in the kernel is to be removed: to leave half of it would be worse than to be late.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(60);

/// `weft all-in-one`
pub(crate) async fn all_in_one(config: &Config) -> anyhow::Result<()> {
    host_checked(config)?;
    let mut parts = Parts::new()?;
    let feed = server::start(config, &mut parts, true).await?;
    agent_start(config, &mut parts, Source::Feed(config.feed_url(feed)));
    parts.run(None).await
}

/// `weft server`
pub(crate) async fn server(config: &Config) -> anyhow::Result<()> {
    let mut parts = Parts::new()?;
    server::start(config, &mut parts, false).await?;
    parts.run(None).await
}

/// `weft agent`
pub(crate) async fn agent(config: &Config) -> anyhow::Result<()> {
    host_checked(config)?;
    let mut parts = Parts::new()?;
    agent_start(
        config,
        &mut parts,
        Source::Feed(config.feed_url(config.feed.listen)),
    );
    parts.run(None).await
}

/// `weft run`
pub(crate) async fn run(config: &Config, file: PathBuf) -> anyhow::Result<()> {
    let mut source = snapshot_file::SnapshotFile::open(file)?;
    host_checked(config)?;
    let mut parts = Parts::new()?;
    agent_start(config, &mut parts, Source::Fixed(source.subscribe()));
    let (reload, reloads) = mpsc::channel(1);
    let shutdown = parts.shutdown.clone();
    parts.spawn("the snapshot file", async move {
        source.follow(reloads, shutdown).await;
        Ok(())
    });
    parts.run(Some(reload)).await
}

/// The user engine alone: `weft run` with vhost-user sockets.
#[derive(Debug)]
pub(crate) struct SwitchAlone {
    /// Sockets by a port's id or `dns_name`.
    pub(crate) sockets: Vec<(String, PathBuf)>,
    /// The interface that leads to other hosts, if it is one.
    pub(crate) underlay: Option<String>,
    /// Where it is asked, if anywhere.
    pub(crate) control_socket: Option<PathBuf>,
    /// The CPUs that poll them.
    pub(crate) cpus: Vec<usize>,
    /// Where sessions are kept over a restart, if they are.
    pub(crate) sessions_file: Option<PathBuf>,
}

/// `weft run` with vhost-user sockets: needs no kernel engine.
pub(crate) async fn switch(
    config: &Config,
    file: PathBuf,
    switch: SwitchAlone,
) -> anyhow::Result<()> {
    let mut source = snapshot_file::SnapshotFile::open(file)?;
    let mut snapshots = source.subscribe();
    let first = snapshots.borrow_and_update().clone();
    let first = first.context("the snapshot file was read")?;
    cpus_check(&switch.cpus).context("--cpu")?;
    let mut parts = Parts::new()?;
    let link = switch.underlay.as_deref().map(link_open).transpose()?;
    let alone = Alone::start(
        &first,
        &AloneConfig {
            sockets: switch.sockets,
            link: link
                .as_ref()
                .map(|link| (link.interface.mac, Arc::clone(&link.queues))),
            cpus: switch.cpus,
            sessions_file: switch.sessions_file,
            limits: Limits {
                sessions_max: config.agent.sessions_max,
                sessions_per_port_max: config.agent.sessions_per_port_max,
            },
        },
    )?;
    let alone = Arc::new(alone);
    if let Some(socket) = switch.control_socket {
        let (alone, shutdown) = (Arc::clone(&alone), parts.shutdown.clone());
        let socket = AloneSocket {
            socket,
            host: config.host.clone(),
            instance: config.instance.clone(),
            snapshots: source.subscribe(),
            link: link.iter().flat_map(|link| link.sockets.clone()).collect(),
        };
        parts.spawn("the control socket", async move {
            Ok(socket.serve(alone, shutdown).await?)
        });
    }
    let mut link = link.map(Link::new);
    if let Some(link) = &mut link {
        // From here on packets come.
        link.steer(first.tunnel_ip())?;
    }
    tracing::info!(ports = alone.totals().len(), "the switch runs");
    let (reload, reloads) = mpsc::channel(1);
    let shutdown = parts.shutdown.clone();
    parts.spawn("the snapshot file", async move {
        source.follow(reloads, shutdown).await;
        Ok(())
    });
    let shutdown = parts.shutdown.clone();
    parts.spawn("the switch", async move {
        loop {
            tokio::select! {
                // First: at the end the snapshot file's part goes too, and its sender with it.
                biased;
                () = shutdown.cancelled() => break,
                changed = snapshots.changed() => {
                    changed?;
                    let snapshot = snapshots.borrow_and_update().clone();
                    if let Some(snapshot) = snapshot {
                        alone.apply(&snapshot);
                        if let Some(link) = &mut link {
                            link.steer(snapshot.tunnel_ip())?;
                        }
                    }
                }
            }
        }
        drop(link);
        // Front-ends are disconnected and sockets removed here; the threads end within one batch.
        drop(alone);
        Ok(())
    });
    parts.run(Some(reload)).await
}

/// Opens the interface that leads to other hosts.
fn link_open(interface: &str) -> anyhow::Result<XdpPort> {
    let about = link_about(interface)
        .with_context(|| format!("--underlay: no such network interface: {interface}"))?;
    let link = XdpPort::open(XdpInterface {
        name: interface.to_owned(),
        index: about.index,
        mac: MacAddress(about.mac),
        mtu: about.mtu,
    });
    let link = link.context("--underlay")?;
    let (queues, mac) = (link.sockets.len(), link.interface.mac);
    tracing::info!(interface, queues, %mac, "the link to other hosts is open");
    Ok(link)
}

/// The interface that leads to other hosts.
struct Link {
    port: XdpPort,
    /// What is steered to the switch, and for which tunnel address.
    steering: Option<(IpAddr, Steering)>,
}

impl Link {
    fn new(port: XdpPort) -> Self {
        let steering = None;
        Self { port, steering }
    }

    /// Steers what is for this tunnel address to the switch, and nothing else any more.
    fn steer(&mut self, tunnel_ip: Option<IpAddr>) -> anyhow::Result<()> {
        if self.steering.as_ref().map(|(ip, _)| *ip) == tunnel_ip {
            return Ok(());
        }
        // An interface takes one program.
        self.steering = None;
        let Some(tunnel_ip) = tunnel_ip else {
            tracing::warn!(
                "the snapshot has no tunnel address of this host: no packets of tunnels come"
            );
            return Ok(());
        };
        if std::net::UdpSocket::bind((tunnel_ip, 0)).is_ok() {
            bail!(
                "--underlay: {tunnel_ip} is an address of this host's kernel, which would answer for it too; give the switch one \
                 of its own (tunnel_hosts in the snapshot)"
            );
        }
        let steering = Steering::attach(self.port.interface.index, tunnel_ip, &self.port.sockets)
            .context("--underlay: packets cannot be steered by XDP")?;
        let mode = if steering.native { "native" } else { "generic" };
        tracing::info!(%tunnel_ip, mode, "packets of tunnels come by XDP");
        self.steering = Some((tunnel_ip, steering));
        Ok(())
    }
}

/// Says what the host lacks, if it lacks anything.
fn host_checked(config: &Config) -> anyhow::Result<()> {
    // The engine that polls is only started with its first port; a mistake is said now.
    cpus_check(&config.agent.vhost_user.cpus).context("agent.vhost_user.cpus")?;
    let missing = check_host();
    if missing.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = missing
        .iter()
        .map(|missing| format!("\n  {missing}"))
        .collect();
    bail!(
        "this host cannot run the kernel engine; it lacks{}",
        lines.concat()
    );
}

/// Starts the agent's part.
fn agent_start(config: &Config, parts: &mut Parts, source: Source) {
    let agent = &config.agent;
    let config = AgentConfig {
        host: config.host.clone(),
        instance: config.instance.clone(),
        bpffs: agent.bpffs.clone(),
        socket: agent.socket.clone(),
        feed_identity_folder: config.feed.identity_folder.clone(),
        physical_networks: agent.physical_networks.clone(),
        underlay: agent
            .underlay
            .clone()
            .zip(agent.tunnel_ip)
            .map(|(interface, tunnel_ip)| Underlay {
                interface,
                tunnel_ip,
            }),
        sessions_max: agent.sessions_max,
        sessions_per_port_max: agent.sessions_per_port_max,
        group_members_max: agent.group_members_max,
        ports_max: agent.ports_max,
        dhcp_lease_s: agent.dhcp_lease_s,
        user_engine_cpus: agent.vhost_user.cpus.clone(),
        user_engine_sessions: agent.vhost_user.sessions_file(&agent.socket),
        vhost_user: agent.vhost_user.host(),
        remove_on_stop: agent.remove_on_stop,
    };
    if config.remove_on_stop {
        parts.timeout = REMOVE_TIMEOUT;
    }
    let shutdown = parts.shutdown.clone();
    parts.spawn("the agent", async move {
        Ok(weft_agent::run(config, source, shutdown).await?)
    });
}

/// Tasks that live and die together.
pub(crate) struct Parts {
    tasks: JoinSet<anyhow::Result<()>>,
    /// Cancelled when all must end.
    pub(crate) shutdown: CancellationToken,
    timeout: Duration,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Parts {
    /// No parts yet; from here on a signal ends the process in order.
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            tasks: JoinSet::new(),
            shutdown: CancellationToken::new(),
            timeout: SHUTDOWN_TIMEOUT,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Starts a part; `name` is for its error.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        part: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.tasks
            .spawn(async move { part.await.with_context(|| format!("{name} failed")) });
    }

    /// Waits for a signal or for a part to end, then ends all of them. SIGHUP goes to `reload`, if there is one.
    async fn run(mut self, reload: Option<mpsc::Sender<()>>) -> anyhow::Result<()> {
        let mut done = Ok(());
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => break,
                _ = self.terminate.recv() => break,
                _ = self.hangup.recv() => match &reload {
                    // A full channel holds a reload that is still to come.
                    Some(reload) => drop(reload.try_send(())),
                    None => break,
                },
                Some(ended) = self.tasks.join_next() => {
                    done = ended.context("a part panicked").flatten();
                    break;
                }
            }
        }
        tracing::info!("ending");
        self.shutdown.cancel();
        let rest = async {
            while let Some(ended) = self.tasks.join_next().await {
                let ended = ended.context("a part panicked").flatten();
                done = std::mem::replace(&mut done, Ok(())).and(ended);
            }
        };
        if tokio::time::timeout(self.timeout, rest).await.is_err() {
            bail!(
                "some parts did not end within {} ms and were cut off",
                self.timeout.as_millis()
            );
        }
        done
    }
}
