//! The feed's listener with TLS: who is on the other end of each connection.
//!
//! Guarantees: so many handshakes at once, none longer than [`HANDSHAKE`]; one that fails is logged and holds up nobody.
//! A certificate of another authority ends the handshake; whose certificate it is, and whether it still counts, is asked
//! by each request (`server`). Connections are bounded: those that showed a certificate, each host's among them, so that none takes
//! the places of others; and, far fewer and for a short while, those that showed none, which hold up nobody but each other.

use super::authority::fingerprint;
use crate::connection::Connection;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use weft_model::limits;

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
    /// Whom it names (RFC 5280, 4.1.2.6), as it stands there.
    subject: Option<Arc<[u8]>>,
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// How many connections there may be, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// With a certificate.
    agents: usize,
    /// With certificates of one host.
    of_host: usize,
    /// Without a byte.
    idle: Duration,
    /// Without a certificate.
    strangers: usize,
    /// Altogether.
    life: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            agents: limits::FEED_CONNECTIONS_MAX,
            of_host: limits::FEED_CONNECTIONS_PER_HOST_MAX,
            idle: Duration::from_secs(limits::FEED_IDLE_S),
            strangers: limits::FEED_STRANGERS_MAX,
            life: Duration::from_secs(limits::FEED_STRANGER_S),
        }
    }
}

/// A listener whose connections have shaken hands.
pub(super) struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    bounds: Bounds,
    agents: Arc<Semaphore>,
    /// By whom certificates name: only hosts with open connections, and those of late.
    hosts: HashMap<Arc<[u8]>, Arc<Semaphore>>,
    strangers: Arc<Semaphore>,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, Peer)>>,
}

impl TlsListener {
    pub(super) fn new(listener: TcpListener, config: rustls::ServerConfig, bounds: Bounds) -> Self {
        Self {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            bounds,
            agents: Arc::new(Semaphore::new(bounds.agents)),
            hosts: HashMap::new(),
            strangers: Arc::new(Semaphore::new(bounds.strangers)),
            handshakes: JoinSet::new(),
        }
    }

    /// Gives a connection its places, if there are any.
    fn place(
        &mut self,
        stream: TlsStream<TcpStream>,
        peer: &Peer,
    ) -> Option<Connection<TlsStream<TcpStream>>> {
        let address = peer.address;
        let Some(subject) = &peer.subject else {
            let Ok(place) = Arc::clone(&self.strangers).try_acquire_owned() else {
                tracing::warn!(%address, "a connection to the feed without a certificate is refused: there are too many");
                return None;
            };
            return Some(Connection::until(stream, self.bounds.life, vec![place]));
        };
        let host = Arc::clone(self.host(subject)).try_acquire_owned();
        let place = Arc::clone(&self.agents).try_acquire_owned();
        let (Ok(host), Ok(place)) = (host, place) else {
            let who = String::from_utf8_lossy(subject);
            tracing::warn!(%address, %who, "a connection to the feed is refused: there are too many, or too many of this host");
            return None;
        };
        let places = vec![host, place];
        Some(Connection::idle(stream, self.bounds.idle, places))
    }

    /// The places of a host.
    fn host(&mut self, subject: &Arc<[u8]>) -> &Arc<Semaphore> {
        let of_host = self.bounds.of_host;
        if !self.hosts.contains_key(subject) && self.hosts.len() >= self.bounds.agents {
            self.hosts
                .retain(|_, places| places.available_permits() < of_host);
        }
        let places = self.hosts.entry(Arc::clone(subject));
        places.or_insert_with(|| Arc::new(Semaphore::new(of_host)))
    }
}

impl Listener for TlsListener {
    type Io = Connection<TlsStream<TcpStream>>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Peer) {
        loop {
            tokio::select! {
                (stream, address) = Listener::accept(&mut self.listener), if self.handshakes.len() < HANDSHAKES_MAX => {
                    self.handshakes.spawn(shake(self.acceptor.clone(), stream, address));
                }
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some((stream, peer))) = done
                        && let Some(connection) = self.place(stream, &peer)
                    {
                        return (connection, peer);
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
            subject: None,
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
    let subject = certificate.map(|certificate| {
        // It was read by who verified it.
        let read = webpki::EndEntityCert::try_from(certificate);
        read.map_or_else(|_unread| Arc::default(), |read| Arc::from(read.subject()))
    });
    let peer = Peer {
        address,
        fingerprint: certificate.map(|certificate| fingerprint(certificate)),
        subject,
    };
    Some((stream, peer))
}

#[cfg(test)]
mod tests {
    use super::super::Authority;
    use super::super::authority::{hex, unhex};
    use super::*;
    use crate::store::{Durability, Store};
    use axum::Router;
    use axum::routing::get;
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream as Client;
    use weft_model::HostName;

    const LONG: Duration = Duration::from_secs(20);
    /// Microseconds since 1970: certificates of then have not expired yet.
    const THEN: i64 = 4_000_000_000_000_000;

    /// A feed's listener, who signs for it, and a client of each kind.
    struct Scene {
        address: SocketAddr,
        stranger: TlsConnector,
        agent: TlsConnector,
        other: TlsConnector,
        _folder: tempfile::TempDir,
    }

    async fn scene(bounds: Bounds) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weft.sqlite");
        let store = Store::open(&file, Durability::Process, Arc::new(|| THEN));
        let authority = Authority::open(&store.await.unwrap()).await.unwrap();
        let (stranger, agent) = connectors(&authority, "h1").await;
        let (_, other) = connectors(&authority, "h2").await;
        let server = authority.server(&["localhost".to_owned()]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TlsListener::new(listener, server, bounds);
        let router = Router::new().route("/", get(async || "weft"));
        let service = router.into_make_service_with_connect_info::<Peer>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        Scene {
            address,
            stranger,
            agent,
            other,
            _folder: folder,
        }
    }

    /// Who has no certificate, and who has that of a host.
    async fn connectors(authority: &Authority, host: &str) -> (TlsConnector, TlsConnector) {
        let host: HostName = host.parse().unwrap();
        let token = authority.token(&host, LONG).await.unwrap();
        let (secret, root) = token.split_once('.').unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let joined = authority.join(&host, secret, &hex(key.der_bytes())).await;
        let certificate = joined.unwrap().unwrap().certificate;
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from(unhex(root).unwrap()))
            .unwrap();
        let config = || {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider);
            let config = config.with_protocol_versions(&[&rustls::version::TLS13]);
            config.unwrap().with_root_certificates(roots.clone())
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let known = config().with_client_auth_cert(vec![certificate], key);
        let stranger = config().with_no_client_auth();
        let connector = |config| TlsConnector::from(Arc::new(config));
        (connector(stranger), connector(known.unwrap()))
    }

    impl Scene {
        /// Connects and asks; the connection, if it is answered.
        async fn ask(&self, who: &TlsConnector) -> Option<Client<TcpStream>> {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = who.connect(name, stream).await.ok()?;
            let request = b"GET / HTTP/1.1\r\nhost: weft\r\n\r\n";
            stream.write_all(request).await.ok()?;
            let mut bytes = [0; 12];
            let read = timeout(LONG, stream.read_exact(&mut bytes)).await;
            read.expect("an answer or an end").ok()?;
            assert_eq!(&bytes, b"HTTP/1.1 200");
            Some(stream)
        }
    }

    #[tokio::test]
    async fn strangers_hold_up_nobody_but_each_other() {
        let scene = scene(Bounds {
            strangers: 1,
            agents: 2,
            ..Bounds::default()
        })
        .await;
        let first = scene.ask(&scene.stranger).await.unwrap();
        assert!(scene.ask(&scene.stranger).await.is_none());
        let one = scene.ask(&scene.agent).await.unwrap();
        let _two = scene.ask(&scene.agent).await.unwrap();
        assert!(scene.ask(&scene.agent).await.is_none());
        drop((first, one));
        let again = async |who| {
            while scene.ask(who).await.is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, again(&scene.agent)).await.unwrap();
        timeout(LONG, again(&scene.stranger)).await.unwrap();
    }

    #[tokio::test]
    async fn a_host_takes_no_other_hosts_places() {
        let scene = scene(Bounds {
            agents: 4,
            of_host: 2,
            ..Bounds::default()
        })
        .await;
        let one = scene.ask(&scene.agent).await.unwrap();
        let _two = scene.ask(&scene.agent).await.unwrap();
        assert!(scene.ask(&scene.agent).await.is_none());
        let _other = scene.ask(&scene.other).await.unwrap();
        drop(one);
        let again = async {
            while scene.ask(&scene.agent).await.is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, again).await.unwrap();
    }

    #[tokio::test]
    async fn a_stranger_must_go_however_much_it_says() {
        let life = Duration::from_millis(300);
        let scene = scene(Bounds {
            life,
            idle: LONG,
            ..Bounds::default()
        })
        .await;
        let mut stranger = scene.ask(&scene.stranger).await.unwrap();
        let mut agent = scene.ask(&scene.agent).await.unwrap();
        let mut bytes = [0; 256];
        let talk = async {
            // Half a request after the other.
            while stranger
                .write_all(b"GET / HTTP/1.1\r\nhost: weft\r\n\r\n")
                .await
                .is_ok()
                && stranger.read(&mut bytes).await.is_ok_and(|count| count > 0)
            {
                tokio::time::sleep(life / 10).await;
            }
        };
        timeout(LONG, talk).await.expect("it was ended");
        let request = b"GET / HTTP/1.1\r\nhost: weft\r\n\r\n";
        agent.write_all(request).await.unwrap();
        let heard = timeout(LONG, agent.read(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        assert!(heard > 0, "an agent stays");
    }
}
