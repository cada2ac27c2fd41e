//! TCP servers that say whom they see, probes, and a session that runs on and knows when it was cut.

use crate::clock::{POLL, now, pause, until};
use crate::namespace::Namespace;
use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fmt;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a probe waits for an answer: several times what a lost SYN costs no one, and short for the reader.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(800);
/// How often a session sends a byte.
const PACE: Duration = Duration::from_millis(1);
/// How often a waiting thread looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);

/// Greets each client with `<name> sees <address>`, then sends back what it gets. Ends when dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    clients: Arc<Mutex<Vec<SocketAddr>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts it on an address of a namespace (`::` for all of both families).
    ///
    /// # Errors
    /// The address is not there or taken.
    pub fn start(namespace: &Namespace, name: &str, address: IpAddr, port: u16) -> Result<Self> {
        let listener = namespace.tcp_listen(address, port)?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let (flag, seen, name) = (Arc::clone(&stop), Arc::clone(&clients), name.to_owned());
        let thread = std::thread::spawn(move || serve(&listener, &name, &flag, &seen));
        Ok(Self {
            stop,
            clients,
            thread: Some(thread),
        })
    }

    /// Whom it has seen, in order.
    #[must_use]
    pub fn clients(&self) -> Vec<SocketAddr> {
        self.clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A server that panicked has nothing more to close.
            let _ = thread.join();
        }
    }
}

fn serve(
    listener: &TcpListener,
    name: &str,
    stop: &Arc<AtomicBool>,
    clients: &Mutex<Vec<SocketAddr>>,
) {
    let mut threads = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok((stream, peer)) = listener.accept() else {
            pause(POLL);
            continue;
        };
        let peer = unmapped(peer);
        clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(peer);
        let (flag, greeting) = (Arc::clone(stop), format!("{name} sees {peer}\n"));
        threads.push(std::thread::spawn(move || {
            converse(stream, &greeting, &flag)
        }));
    }
    for thread in threads {
        // As above.
        let _ = thread.join();
    }
}

/// An IPv4 client of a server on `::`, as what it is.
fn unmapped(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

fn converse(mut stream: TcpStream, greeting: &str, stop: &AtomicBool) {
    let mut bytes = [0; 2048];
    let set = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_nodelay(true))
        .and_then(|()| stream.set_read_timeout(Some(LOOK)))
        .and_then(|()| stream.write_all(greeting.as_bytes()));
    if set.is_err() {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(count) if stream.write_all(&bytes[..count]).is_err() => return,
            Err(error) if !is_timeout(&error) => return,
            Ok(_) | Err(_) => {}
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// What came of trying to reach a [`Server`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probed {
    /// It greeted.
    Answered {
        /// The server's name.
        name: String,
        /// The client's address as the server saw it.
        seen_as: SocketAddr,
    },
    /// Nothing was heard.
    Silent,
    /// An error came at once, such as "connection refused".
    Refused(String),
}

impl Probed {
    /// Whether the server of this name answered.
    #[must_use]
    pub fn is_from(&self, server: &str) -> bool {
        matches!(self, Self::Answered { name, .. } if name == server)
    }

    /// The client's address as the server saw it.
    #[must_use]
    pub fn seen_as(&self) -> Option<SocketAddr> {
        if let Self::Answered { seen_as, .. } = self {
            Some(*seen_as)
        } else {
            None
        }
    }
}

impl fmt::Display for Probed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { name, seen_as } => write!(f, "{name} answered, saw {seen_as}"),
            Self::Silent => f.write_str("nothing was heard"),
            Self::Refused(error) => f.write_str(error),
        }
    }
}

/// Tries to reach a [`Server`], and closes the connection.
///
/// # Errors
/// The system refuses to try.
pub fn probe(namespace: &Namespace, to: SocketAddr) -> Result<Probed> {
    connect(namespace, to, None).map(|(probed, _)| probed)
}

/// Tries to reach a [`Server`], from a given source port if there is one, and gives the open connection too.
///
/// # Errors
/// The system refuses to try: the source port is taken.
pub fn connect(
    namespace: &Namespace,
    to: SocketAddr,
    source_port: Option<u16>,
) -> Result<(Probed, Option<TcpStream>)> {
    let socket = namespace.enter(|| -> Result<Socket> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(port) = source_port {
            let any: IpAddr = if to.is_ipv4() {
                [0u8; 4].into()
            } else {
                [0u8; 16].into()
            };
            socket.set_reuse_address(true)?;
            socket.bind(&SockAddr::from(SocketAddr::new(any, port)))?;
        }
        Ok(socket)
    })??;
    if let Err(error) = socket.connect_timeout(&SockAddr::from(to), PROBE_TIMEOUT) {
        let silent = is_timeout(&error);
        return Ok((
            if silent {
                Probed::Silent
            } else {
                Probed::Refused(error.to_string())
            },
            None,
        ));
    }
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    let mut line = String::new();
    if BufReader::with_capacity(256, &stream)
        .read_line(&mut line)
        .is_err()
    {
        return Ok((Probed::Silent, None));
    }
    let parts = line.trim().split_once(" sees ");
    let (name, seen_as) = parts.with_context(|| format!("a strange greeting: {line:?}"))?;
    Ok((
        Probed::Answered {
            name: name.to_owned(),
            seen_as: seen_as.parse()?,
        },
        Some(stream),
    ))
}

/// A TCP session that sends a byte every millisecond and notes when echoes come. Ends when dropped.
#[derive(Debug)]
pub struct Session {
    stop: Arc<AtomicBool>,
    last: Arc<Mutex<Instant>>,
    threads: Vec<JoinHandle<()>>,
}

impl Session {
    /// Opens it to a [`Server`] and waits for the first echo.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub fn open(namespace: &Namespace, to: SocketAddr) -> Result<Self> {
        let (probed, stream) = connect(namespace, to, None)?;
        let stream = stream.with_context(|| format!("no session to {to}: {probed}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(LOOK))?;
        let stop = Arc::new(AtomicBool::new(false));
        let opened = now();
        let last = Arc::new(Mutex::new(opened));
        let writer = stream.try_clone()?;
        let (stop_writing, stop_reading) = (Arc::clone(&stop), Arc::clone(&stop));
        let heard = Arc::clone(&last);
        let threads = vec![
            std::thread::spawn(move || keep_sending(writer, &stop_writing)),
            std::thread::spawn(move || keep_hearing(stream, &stop_reading, &heard)),
        ];
        let session = Self {
            stop,
            last,
            threads,
        };
        until("the first echo", PROBE_TIMEOUT, || {
            Ok((session.last() > opened).then_some(()))
        })?;
        Ok(session)
    }

    /// When the last echo came.
    #[must_use]
    pub fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an echo comes from now on, within `timeout`.
    #[must_use]
    pub fn is_alive(&self, timeout: Duration) -> bool {
        let start = now();
        until("an echo", timeout, || {
            Ok((self.last() > start).then_some(()))
        })
        .is_ok()
    }

    /// Waits until no echo has come for `quiet`, and gives when the last one came.
    ///
    /// # Errors
    /// Echoes still come after `timeout`.
    pub fn until_quiet(&self, quiet: Duration, timeout: Duration) -> Result<Instant> {
        until("the end of the TCP session", timeout, || {
            let last = self.last();
            Ok((last.elapsed() > quiet).then_some(last))
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to close.
            let _ = thread.join();
        }
    }
}

fn keep_sending(mut stream: TcpStream, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match stream.write_all(b".") {
            Err(error) if !is_timeout(&error) => return,
            Ok(()) | Err(_) => pause(PACE),
        }
    }
}

fn keep_hearing(mut stream: TcpStream, stop: &AtomicBool, last: &Mutex<Instant>) {
    let mut bytes = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => *last.lock().unwrap_or_else(PoisonError::into_inner) = now(),
            Err(error) if !is_timeout(&error) => return,
            Err(_) => {}
        }
    }
}
