//! The feed's listener with TLS: who is on the other end of each connection.
//!
//! Guarantees: so many handshakes at once, none longer than [`HANDSHAKE`]; one that fails is logged and holds up nobody.
//! A certificate of another authority ends the handshake; whose certificate it is, and whether it still counts, is asked
//! by each request (`server`).

use super::authority::fingerprint;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once; the next connection waits in the kernel's queue.
const HANDSHAKES_MAX: usize = 256;

/// Who is on the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// The SHA-256 of its certificate, if it showed one.
    pub(super) fingerprint: Option<String>,
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A listener whose connections have shaken hands.
pub(super) struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, Peer)>>,
}

impl TlsListener {
    pub(super) fn new(listener: TcpListener, config: rustls::ServerConfig) -> Self {
        Self {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            handshakes: JoinSet::new(),
        }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = Peer;

    async fn accept(&mut self) -> (TlsStream<TcpStream>, Peer) {
        loop {
            tokio::select! {
                (stream, address) = Listener::accept(&mut self.listener), if self.handshakes.len() < HANDSHAKES_MAX => {
                    self.handshakes.spawn(shake(self.acceptor.clone(), stream, address));
                }
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(connection)) = done {
                        return connection;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        let address = self.listener.local_addr()?;
        Ok(Peer {
            address,
            fingerprint: None,
        })
    }
}

async fn shake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<(TlsStream<TcpStream>, Peer)> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::warn!(%address, %error, "a connection to the feed is refused");
            return None;
        }
        Err(_elapsed) => {
            tracing::warn!(%address, "a connection to the feed does not finish its handshake");
            return None;
        }
    };
    let (_, connection) = stream.get_ref();
    let certificate = connection.peer_certificates().and_then(|all| all.first());
    let fingerprint = certificate.map(|certificate| fingerprint(certificate));
    let peer = Peer {
        address,
        fingerprint,
    };
    Some((stream, peer))
}
