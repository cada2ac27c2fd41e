//! The thread that owns the engine: one loop, in which snapshots, interfaces, events, the clock and questions take turns.
//!
//! Guarantees: only this thread makes the engine's system calls; of several snapshots that came meanwhile only the newest
//! is applied; one that the engine refuses is reported and not tried again before something changed. On the end the engine
//! is closed, and what it made is removed if the configuration says so.

use crate::clock::now;
use crate::host::Host;
use crate::links::Links;
use crate::question::Question;
use crate::service::ServiceEvent;
use crate::user::{UserConfig, UserEngine};
use rtnetlink::Handle;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use weft_ebpf::{Engine, EngineConfig, EngineError};
use weft_model::{HostReport, HostSnapshot, VhostUserHost};

/// Frames of the user engine's guests that wait for the services; more are dropped.
const USER_EVENTS_MAX: usize = 256;

/// How the owner is to be set up.
#[derive(Debug)]
pub(crate) struct OwnerConfig {
    pub(crate) engine: EngineConfig,
    pub(crate) user: UserConfig,
    pub(crate) vhost_user: Option<VhostUserHost>,
    pub(crate) dhcp_lease_s: u32,
    pub(crate) remove_on_stop: bool,
}

/// What the owner is connected to.
#[derive(Debug)]
pub(crate) struct Channels {
    pub(crate) snapshots: watch::Receiver<Option<Arc<HostSnapshot>>>,
    pub(crate) links: watch::Receiver<Links>,
    pub(crate) netlink: Handle,
    pub(crate) questions: mpsc::Receiver<Question>,
    pub(crate) reports: Option<mpsc::Sender<HostReport>>,
    pub(crate) shutdown: CancellationToken,
}

/// Why the owner ended.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The engine refused to open or to close.
    #[error("the kernel engine failed")]
    Engine(#[from] EngineError),
    /// The system refused a socket, a poll or a thread.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl OwnerError {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// The thread, and how it ended.
pub(crate) type Thread = JoinHandle<Result<(), OwnerError>>;

/// Starts the thread. The receiver says how the engine opened, the thread's result how it ended.
pub(crate) fn spawn(
    config: OwnerConfig,
    channels: Channels,
) -> Result<(Thread, oneshot::Receiver<()>), OwnerError> {
    let (opened, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("weft-engine".to_owned())
        .spawn(move || {
            // However the thread ends, a panic included, the agent ends with it.
            let _guard = channels.shutdown.clone().drop_guard();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(OwnerError::system("start the engine's thread"))?;
            runtime.block_on(own(config, channels, opened))
        })
        .map_err(OwnerError::system("start the engine's thread"))?;
    Ok((thread, receiver))
}

async fn own(
    config: OwnerConfig,
    channels: Channels,
    opened: oneshot::Sender<()>,
) -> Result<(), OwnerError> {
    let physical_networks = config.engine.physical_networks.clone();
    let underlay = config.engine.underlay.clone();
    let engine = Engine::open(config.engine)?;
    let events =
        watched(engine.event_fd()).map_err(OwnerError::system("watch the engine's events"))?;
    let (user_events, handed) = mpsc::channel(USER_EVENTS_MAX);
    let user = UserEngine::new(config.user, user_events);
    let mut host = Host::new(
        engine,
        user,
        physical_networks,
        underlay,
        config.dhcp_lease_s,
        config.vhost_user,
    )
    .map_err(|errno| OwnerError::system("open a packet socket")(errno.into()))?;
    // Nobody waits any more: the agent is ending.
    let _ended = opened.send(());
    turns(&mut host, channels, &events, handed).await;
    drop(events);
    host.close(config.remove_on_stop)?;
    Ok(())
}

/// A descriptor of its own for the engine's events, known to this thread's poll.
#[allow(
    deprecated,
    reason = "deprecated because a type's descriptor could change under it; an OwnedFd's does not, and the \
              replacement would need unsafe"
)]
fn watched(events: BorrowedFd<'_>) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(events.try_clone_to_owned()?, Interest::READABLE)
}

/// Takes turns until the end.
async fn turns(
    host: &mut Host,
    mut channels: Channels,
    events: &AsyncFd<OwnedFd>,
    mut handed: mpsc::Receiver<ServiceEvent>,
) {
    let links = channels.links.borrow_and_update().clone();
    host.links_changed(links, now());
    channels.snapshots.mark_changed();
    loop {
        let wait = Duration::from_millis(host.due().saturating_sub(now()));
        tokio::select! {
            biased;
            () = channels.shutdown.cancelled() => return,
            Ok(()) = channels.snapshots.changed() => {
                let snapshot = channels.snapshots.borrow_and_update().clone();
                if let Some(snapshot) = snapshot {
                    host.snapshot_received(snapshot, now());
                }
            }
            Ok(()) = channels.links.changed() => {
                let links = channels.links.borrow_and_update().clone();
                host.links_changed(links, now());
            }
            Ok(mut ready) = events.readable() => {
                // Cleared first: what comes while the buffer is drained wakes us again.
                ready.clear_ready();
                host.events(now());
            }
            Some(event) = handed.recv() => host.user_event(&event, now()),
            Some(question) = channels.questions.recv() => host.answer(question, now()),
            () = tokio::time::sleep(wait) => {}
        }
        host.tick(now());
        host.prepare(&channels.netlink).await;
        if let Some(reports) = &channels.reports {
            host.report(reports);
        }
    }
}
