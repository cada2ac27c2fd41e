//! One network namespace: programs, sockets and settings inside it.
//!
//! Only the network is entered (`nsenter --net`, setns): the mounts stay, so that bpffs is the same one inside. A socket
//! belongs to the namespace that it was made in, for ever: so sockets are made by a thread inside and used by any.

use crate::command::{outcome, output};
use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

/// A network namespace by name.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The namespace of this name.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self { name }
    }

    /// Its name, as `ip netns` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a command line inside (split at blanks) and gives its standard output.
    ///
    /// # Errors
    /// It cannot be started or fails.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        output(self.command(program).args(words))
            .with_context(|| format!("in {}: {line}", self.name))
    }

    /// Runs a command line inside, whatever its status.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn outcome(&self, line: &str) -> Result<Output> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        outcome(self.command(program).args(words))
    }

    /// Sets a `net.` sysctl, given by its path under `/proc/sys/net`.
    ///
    /// # Errors
    /// There is no such setting.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{path}");
        let value = value.to_owned();
        self.enter(move || std::fs::write(&path, value).with_context(|| path.clone()))?
    }

    /// Does `work` on a thread inside, and gives its result. Threads that `work` starts are inside as well.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = std::fs::File::open(self.path()).with_context(|| self.name.clone())?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            });
            thread
                .join()
                .unwrap_or_else(|_panic| Err(anyhow!("the work inside {} panicked", self.name)))
        })
    }

    /// Listens for TCP.
    ///
    /// # Errors
    /// The address is not there or taken.
    pub fn tcp_listen(&self, address: IpAddr, port: u16) -> Result<TcpListener> {
        let address = SocketAddr::new(address, port);
        self.enter(|| TcpListener::bind(address))?
            .with_context(|| format!("in {}: cannot listen on {address}", self.name))
    }

    /// Connects by TCP.
    ///
    /// # Errors
    /// Refused, or nothing heard in time.
    pub fn tcp_connect(&self, to: SocketAddr, timeout: Duration) -> Result<TcpStream> {
        let stream = self
            .enter(|| TcpStream::connect_timeout(&to, timeout))?
            .with_context(|| format!("in {}: cannot connect to {to}", self.name))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A UDP socket.
    ///
    /// # Errors
    /// The address is not there or taken.
    pub fn udp(&self, address: IpAddr, port: u16) -> Result<UdpSocket> {
        let address = SocketAddr::new(address, port);
        self.enter(|| UdpSocket::bind(address))?
            .with_context(|| format!("in {}: cannot bind {address}", self.name))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }
}
