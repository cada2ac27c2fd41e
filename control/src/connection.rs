//! Connections that a listener serves: so many at once, and none that says nothing for long.
//!
//! Guarantees: at most `places` connections are open; the next one waits in the kernel's queue until one ends. One on
//! which nothing is read or written for `idle` is ended, so that whoever opens connections and keeps still holds up others
//! for that long only; one with [`Connection::until`] ends then, whatever is said. It does not look at what is said.

use axum::serve::Listener;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// A listener with a bound.
pub(crate) struct BoundedListener {
    listener: TcpListener,
    places: Arc<Semaphore>,
    idle: Duration,
}

/// A connection that holds its places until it is dropped.
pub(crate) struct Connection<S = TcpStream> {
    stream: S,
    /// By how much what is said prolongs it; not at all without.
    idle: Option<Duration>,
    end: Pin<Box<Sleep>>,
    _places: Vec<OwnedSemaphorePermit>,
}

impl BoundedListener {
    pub(crate) fn new(listener: TcpListener, places: usize, idle: Duration) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(places)),
            idle,
        }
    }
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("nobody closes the semaphore");
        let (stream, address) = Listener::accept(&mut self.listener).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        (Connection::idle(stream, self.idle, vec![place]), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl<S> Connection<S> {
    /// One that ends when nothing is said for so long.
    pub(crate) fn idle(stream: S, idle: Duration, places: Vec<OwnedSemaphorePermit>) -> Self {
        Self {
            stream,
            idle: Some(idle),
            end: Box::pin(sleep(idle)),
            _places: places,
        }
    }

    /// One that ends after `life`.
    pub(crate) fn until(stream: S, life: Duration, places: Vec<OwnedSemaphorePermit>) -> Self {
        Self {
            stream,
            idle: None,
            end: Box::pin(sleep(life)),
            _places: places,
        }
    }

    /// Passes on what became of a read or write; one that waits is ended when its time is over.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match self.idle {
            Some(idle) if poll.is_ready() => {
                self.end.as_mut().reset(Instant::now() + idle);
                return poll;
            }
            Some(_) => {}
            None if self.end.is_elapsed() => {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            None if poll.is_ready() => return poll,
            None => {}
        }
        ready!(self.end.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch(context, poll)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    const LONG: Duration = Duration::from_secs(10);
    /// What does not come within this does not come; a machine that is slower only makes the test see less.
    const SHORT: Duration = Duration::from_millis(200);

    async fn serve(places: usize, idle: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bounded = BoundedListener::new(listener, places, idle);
        let address = Listener::local_addr(&bounded).unwrap();
        let router = Router::new().route("/", get(async || "weft"));
        tokio::spawn(async move { axum::serve(bounded, router).await });
        address
    }

    /// Connects, asks, and leaves the connection open.
    async fn ask(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: weft\r\n\r\n";
        stream.write_all(request).await.unwrap();
        stream
    }

    async fn is_answered(stream: &mut TcpStream, within: Duration) -> bool {
        let mut bytes = [0; 12];
        let read = timeout(within, stream.read_exact(&mut bytes)).await;
        read.is_ok_and(|read| read.is_ok()) && bytes == *b"HTTP/1.1 200"
    }

    #[tokio::test]
    async fn as_many_as_there_are_places_are_served_and_the_next_waits_for_one() {
        let address = serve(2, LONG).await;
        let mut first = ask(address).await;
        let mut second = ask(address).await;
        assert!(is_answered(&mut first, LONG).await);
        assert!(is_answered(&mut second, LONG).await);
        let mut third = ask(address).await;
        assert!(!is_answered(&mut third, SHORT).await);
        drop(first);
        assert!(is_answered(&mut third, LONG).await);
    }

    #[tokio::test]
    async fn who_says_nothing_gives_way() {
        let address = serve(1, SHORT).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut waiting = ask(address).await;
        assert!(is_answered(&mut waiting, LONG).await);
        assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0, "it was ended");
    }
}
