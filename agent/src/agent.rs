//! Starts the agent's parts and ends them together.

use crate::clock::now;
use crate::feed::{self, FeedConfig, FeedStartError, FeedStatus};
use crate::links::{self, LinksError};
use crate::owner::{self, Channels, OwnerConfig, OwnerError};
use crate::probe;
use crate::service::dhcp;
use crate::socket::SocketError;
use crate::socket::server::{Context, Socket};
use crate::user::UserConfig;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weft_ebpf::EngineConfig;
use weft_model::{HostName, HostReport, HostSnapshot, VhostUserHost, limits};
use weft_vhost::engine::Limits;

/// Reports and questions that wait at most; behind that, reports are merged and who asks waits.
const CHANNEL_MAX: usize = 16;

/// What tunnels to other hosts use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// The interface that leads to other hosts.
    pub interface: String,
    /// This host's address there.
    pub tunnel_ip: IpAddr,
}

/// How an agent is set up.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// This host, as in `binding:host_id`.
    pub host: HostName,
    /// Names this agent's pins among others on the host.
    pub instance: String,
    /// Where a bpffs is, or is to be mounted.
    pub bpffs: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// Where this host's certificate for the feed is kept, see [`FeedConfig`].
    pub feed_identity_folder: PathBuf,
    /// The interface of each physical network.
    pub physical_networks: BTreeMap<String, String>,
    /// The interface and the address that tunnels to other hosts use; without them there are none.
    pub underlay: Option<Underlay>,
    /// Sessions of the host.
    pub sessions_max: u32,
    /// Sessions that one port may hold.
    pub sessions_per_port_max: u32,
    /// Memberships of security groups.
    pub group_members_max: u32,
    /// Guest ports of the host.
    pub ports_max: u32,
    /// Seconds of a DHCP lease.
    pub dhcp_lease_s: u32,
    /// The CPUs that poll vhost-user ports; without any it is one thread, anywhere.
    pub user_engine_cpus: Vec<usize>,
    /// Where sessions of vhost-user ports are kept over a restart, if they are.
    pub user_engine_sessions: Option<PathBuf>,
    /// How guests that are bound to this host from now on are attached; none for taps.
    pub vhost_user: Option<VhostUserHost>,
    /// Whether the end removes programs, maps and links; without it packets go on while the agent is away.
    pub remove_on_stop: bool,
}

impl AgentConfig {
    /// The usual paths and limits.
    #[must_use]
    pub fn new(host: HostName) -> Self {
        Self {
            host,
            instance: "weft".to_owned(),
            bpffs: PathBuf::from("/sys/fs/bpf"),
            feed_identity_folder: "/var/lib/weft/feed".into(),
            socket: PathBuf::from(crate::socket::PATH_DEFAULT),
            physical_networks: BTreeMap::new(),
            underlay: None,
            sessions_max: limits::SESSIONS_MAX_DEFAULT,
            sessions_per_port_max: limits::SESSIONS_PER_PORT_MAX_DEFAULT,
            group_members_max: limits::GROUP_MEMBERS_MAX_DEFAULT,
            ports_max: u32::try_from(limits::PORTS_PER_HOST_MAX).unwrap_or(u32::MAX),
            dhcp_lease_s: dhcp::LEASE_S_DEFAULT,
            user_engine_cpus: Vec::new(),
            user_engine_sessions: None,
            vhost_user: None,
            remove_on_stop: false,
        }
    }
}

/// Where the snapshots come from.
#[derive(Debug)]
pub enum Source {
    /// Control's feed at this address, such as `http://127.0.0.1:9697`; reports go back there.
    Feed(String),
    /// From the caller, who has checked them; nobody hears reports.
    Fixed(watch::Receiver<Option<Arc<HostSnapshot>>>),
}

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The control socket.
    #[error("the control socket failed")]
    Socket(#[from] SocketError),
    /// The interfaces cannot be watched.
    #[error("the host's interfaces cannot be watched")]
    Links(#[from] LinksError),
    /// The feed's client cannot be started.
    #[error("the feed failed")]
    Feed(#[from] FeedStartError),
    /// The engine's thread.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The engine's thread panicked: a bug.
    #[error("the engine's thread panicked")]
    Panicked,
}

/// Runs the agent until `shutdown` is cancelled or a part fails.
///
/// # Errors
/// What failed. What the engine enforces stays in force in the kernel, unless the configuration says otherwise.
pub async fn run(
    config: AgentConfig,
    source: Source,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    // All parts end with this call, whichever way it returns.
    let shutdown = shutdown.child_token();
    let _guard = shutdown.clone().drop_guard();
    let socket = Socket::bind(&config.socket)?;
    let (links, netlink) = links::watch().await?;
    let (questions, asked) = mpsc::channel(CHANNEL_MAX);
    let feed = Feed::new(&config, source);
    let context = Context {
        host: config.host.clone(),
        instance: config.instance.clone(),
        engine: "ebpf",
        started: now(),
        feed_url: feed.url.clone(),
        feed: feed.status.clone(),
        questions,
        underlay: config
            .underlay
            .as_ref()
            .map(|underlay| underlay.interface.clone()),
        captures: Context::captures(),
    };
    let channels = Channels {
        snapshots: feed.snapshots.clone(),
        links,
        netlink,
        questions: asked,
        reports: feed.reports.clone(),
        shutdown: shutdown.clone(),
    };
    let (thread, opened) = owner::spawn(owner_config(config), channels)?;
    let mut fed = Ok(());
    if opened.await.is_ok() {
        let feeding = async {
            let ended = feed.run(&shutdown).await;
            shutdown.cancel();
            ended
        };
        ((), fed) = tokio::join!(socket.serve(context, shutdown.clone()), feeding);
    }
    shutdown.cancel();
    let ended = tokio::task::spawn_blocking(move || thread.join()).await;
    match ended {
        Ok(Ok(ended)) => ended?,
        _ => return Err(AgentError::Panicked),
    }
    Ok(fed?)
}

fn owner_config(config: AgentConfig) -> OwnerConfig {
    OwnerConfig {
        engine: EngineConfig {
            instance: config.instance,
            bpffs: config.bpffs,
            sessions_max: config.sessions_max,
            sessions_per_port_max: config.sessions_per_port_max,
            group_members_max: config.group_members_max,
            ports_max: config.ports_max,
            physical_networks: config.physical_networks,
            underlay: config.underlay.map(|underlay| underlay.interface),
        },
        user: UserConfig {
            limits: Limits {
                sessions_max: config.sessions_max,
                sessions_per_port_max: config.sessions_per_port_max,
            },
            cpus: config.user_engine_cpus,
            sessions_file: config.user_engine_sessions,
        },
        vhost_user: config.vhost_user,
        dhcp_lease_s: config.dhcp_lease_s,
        remove_on_stop: config.remove_on_stop,
    }
}

/// The source's ends on the agent's side.
struct Feed {
    url: Option<String>,
    status: watch::Receiver<FeedStatus>,
    snapshots: watch::Receiver<Option<Arc<HostSnapshot>>>,
    reports: Option<mpsc::Sender<HostReport>>,
    client: Option<FeedClient>,
}

/// What the feed's client works with.
struct FeedClient {
    config: FeedConfig,
    snapshots: watch::Sender<Option<Arc<HostSnapshot>>>,
    reports: mpsc::Receiver<HostReport>,
    /// What probes of other hosts find.
    found: watch::Sender<probe::Unreachable>,
}

impl Feed {
    fn new(config: &AgentConfig, source: Source) -> Self {
        let url = match source {
            Source::Feed(url) => url,
            Source::Fixed(snapshots) => {
                return Self {
                    url: None,
                    status: watch::channel(FeedStatus::default()).1,
                    snapshots,
                    reports: None,
                    client: None,
                };
            }
        };
        let (reports, received) = mpsc::channel(CHANNEL_MAX);
        let mut feed = FeedConfig::new(url.clone(), config.host.clone());
        feed.identity_folder
            .clone_from(&config.feed_identity_folder);
        let networks = config.physical_networks.keys().cloned();
        feed.physical_networks = networks.collect();
        feed.tunnel_ip = config.underlay.as_ref().map(|underlay| underlay.tunnel_ip);
        let found = watch::Sender::new(None);
        feed.unreachable = found.subscribe();
        let client = FeedClient {
            config: feed,
            snapshots: watch::Sender::new(None),
            reports: received,
            found,
        };
        Self {
            url: Some(url),
            status: client.config.status.subscribe(),
            snapshots: client.snapshots.subscribe(),
            reports: Some(reports),
            client: Some(client),
        }
    }

    async fn run(self, shutdown: &CancellationToken) -> Result<(), FeedStartError> {
        match self.client {
            Some(client) => {
                let own = client.config.tunnel_ip;
                let probing = probe::run(own, client.snapshots.subscribe(), client.found);
                let feeding = feed::run(
                    client.config,
                    client.snapshots,
                    client.reports,
                    shutdown.clone(),
                );
                tokio::select! {
                    ended = feeding => ended,
                    () = probing => Ok(()),
                }
            }
            None => {
                shutdown.cancelled().await;
                Ok(())
            }
        }
    }
}
