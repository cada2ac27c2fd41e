//! The thread that talks to front-ends: listens or dials, and hands messages to each port's [`Device`].
//!
//! Guarantees: one slow or hostile front-end delays no other by more than the work of one of its messages; a connection
//! that ends, for whatever reason, leaves its port without rings and ready for the next one. One front-end a port: a
//! second one waits in the listener's queue until the first is gone.

use super::ProtocolError;
use super::connection::{Connection, Incoming};
use super::device::{Device, Reply};
use super::message::Request;
use crate::queue::PortQueues;
use crate::socket_file::{self, SocketFile};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use weft_model::VhostUserMode;

/// Between two tries to dial.
const DIAL_PERIOD: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};
/// Messages of one front-end before the others have their turn.
const MESSAGES_PER_TURN: usize = 16;

/// Where a port's front-end is met.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The socket's path.
    pub path: PathBuf,
    /// Who listens.
    pub mode: VhostUserMode,
    /// The port's queues.
    pub queues: Arc<PortQueues>,
    /// The features that its front-end is offered: [`feature::OFFERED`] or less.
    pub offered: u64,
}

/// A socket, and its file, which goes with it.
type Listening = (UnixListener, SocketFile);

enum Order {
    Add(Endpoint, Option<Listening>),
    Remove(PathBuf),
    Stop,
}

/// The server's thread, from outside.
#[derive(Debug)]
pub struct ServerHandle {
    orders: Sender<Order>,
    bell: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl ServerHandle {
    /// Serves one more port. A socket to listen on is there when this returns.
    ///
    /// # Errors
    /// It could not be bound, or what is at its path is no socket that somebody dead left.
    pub fn add(&self, endpoint: Endpoint) -> io::Result<()> {
        let listener = match endpoint.mode {
            VhostUserMode::Client => Some(listen(&endpoint.path)?),
            VhostUserMode::Server => None,
        };
        self.order(Order::Add(endpoint, listener));
        Ok(())
    }

    /// Serves a port no longer; its front-end is disconnected and its socket removed.
    pub fn remove(&self, path: &Path) {
        self.order(Order::Remove(path.to_owned()));
    }

    fn order(&self, order: Order) {
        // The thread ends only by an order to stop, after which nothing matters.
        let _stopped = self.orders.send(order);
        let _full = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _panicked = thread.join();
        }
    }
}

fn listen(path: &Path) -> io::Result<Listening> {
    let (listener, file) = socket_file::listen(path)?;
    listener.set_nonblocking(true)?;
    Ok((listener, file))
}

/// One port.
struct Served {
    endpoint: Endpoint,
    listener: Option<Listening>,
    session: Option<(Connection, Device)>,
}

impl Served {
    /// What to wait for, if anything.
    fn poll_fd(&self) -> Option<PollFd<'_>> {
        let wanted = PollFlags::IN;
        match (&self.session, &self.listener) {
            (Some((connection, _)), _) => Some(PollFd::new(connection.stream(), wanted)),
            (None, Some((listener, _))) => Some(PollFd::new(listener, wanted)),
            (None, None) => None,
        }
    }

    fn meet(&mut self) -> io::Result<()> {
        let stream = match &self.listener {
            Some((listener, _)) => listener.accept()?.0,
            None => UnixStream::connect(&self.endpoint.path)?,
        };
        let device = Device::new(Arc::clone(&self.endpoint.queues), self.endpoint.offered);
        self.session = Some((Connection::new(stream)?, device));
        tracing::info!(path = %self.endpoint.path.display(), "a front-end is there");
        Ok(())
    }

    fn turn(&mut self) {
        if self.session.is_none() && self.meet().is_err() {
            // Nobody there yet, or gone again.
            return;
        }
        let Some((connection, device)) = &mut self.session else {
            return;
        };
        if let Err(error) = converse(connection, device) {
            self.session = None;
            self.endpoint.queues.reset();
            let path = self.endpoint.path.display();
            match error {
                ProtocolError::Socket(error) => {
                    tracing::info!(%path, "the front-end is gone: {error}");
                }
                error => tracing::warn!(%path, "the front-end is sent away: {error}"),
            }
        }
    }
}

fn converse(connection: &mut Connection, device: &mut Device) -> Result<(), ProtocolError> {
    for _ in 0..MESSAGES_PER_TURN {
        let Some(Incoming {
            header,
            payload,
            fds,
        }) = connection.receive()?
        else {
            return Ok(());
        };
        let request = Request::parse(header.request, &payload, fds.len())?;
        tracing::debug!(?request, "vhost-user");
        let acknowledge = header.needs_reply() && device.acknowledges();
        let done = device.handle(request, fds);
        let reply = match done {
            Ok(Some(reply)) => Some(reply),
            Ok(None) => acknowledge.then_some(Reply::Number(0)),
            Err(error) => {
                if acknowledge {
                    connection.reply(header.request, &Reply::Number(1))?;
                }
                return Err(error);
            }
        };
        if let Some(reply) = reply {
            connection.reply(header.request, &reply)?;
        }
    }
    Ok(())
}

/// The server itself.
pub struct Server {
    orders: Receiver<Order>,
    bell: Arc<OwnedFd>,
    served: Vec<Served>,
}

impl Server {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn start() -> io::Result<ServerHandle> {
        let (sender, orders) = channel();
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let bell = Arc::new(rustix::event::eventfd(0, flags)?);
        let mut server = Self {
            orders,
            bell: Arc::clone(&bell),
            served: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("weft-vhost-user".to_owned())
            .spawn(move || {
                if let Err(error) = server.run() {
                    tracing::error!("the vhost-user server ends: {error}");
                }
            })?;
        Ok(ServerHandle {
            orders: sender,
            bell,
            thread: Some(thread),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            let mut word = [0; 8];
            let _empty = rustix::io::read(&*self.bell, &mut word);
            while let Ok(order) = self.orders.try_recv() {
                match order {
                    Order::Add(endpoint, listener) => self.served.push(Served {
                        endpoint,
                        listener,
                        session: None,
                    }),
                    Order::Remove(path) => self.remove(&path),
                    Order::Stop => {
                        self.served.drain(..).for_each(Served::end);
                        return Ok(());
                    }
                }
            }
            for served in &mut self.served {
                let dials = served.session.is_none() && served.listener.is_none();
                if dials || ready.contains(&served.endpoint.path) {
                    served.turn();
                }
            }
        }
    }

    /// Waits until something is to be done, and says for which ports there is something to read.
    fn wait(&self) -> io::Result<Vec<PathBuf>> {
        let (mut fds, mut paths) = (vec![PollFd::new(&*self.bell, PollFlags::IN)], Vec::new());
        for served in &self.served {
            if let Some(fd) = served.poll_fd() {
                fds.push(fd);
                paths.push(&served.endpoint.path);
            }
        }
        let dials = self.served.len() > paths.len();
        match rustix::event::poll(&mut fds, dials.then_some(&DIAL_PERIOD)) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let ready = fds.iter().skip(1).zip(paths);
        Ok(ready
            .filter(|(fd, _)| !fd.revents().is_empty())
            .map(|(_, path)| path.clone())
            .collect())
    }

    fn remove(&mut self, path: &Path) {
        let (gone, stay) = std::mem::take(&mut self.served)
            .into_iter()
            .partition(|served| served.endpoint.path == path);
        self.served = stay;
        let gone: Vec<Served> = gone;
        gone.into_iter().for_each(Served::end);
    }
}

impl Served {
    fn end(self) {
        // The socket's file goes with it.
        self.endpoint.queues.reset();
    }
}
