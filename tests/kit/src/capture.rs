//! Frames in and out of one interface, as they are: to send what a stack would not, and to see what really passes.

use crate::clock::now;
use crate::namespace::Namespace;
use anyhow::{Context, Result, bail};
use pnet_datalink::{Channel, Config, DataLinkReceiver, DataLinkSender};
use std::fmt;
use std::time::Duration;

/// A packet socket on one interface.
pub struct Capture {
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
    interface: String,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture")
            .field("interface", &self.interface)
            .finish_non_exhaustive()
    }
}

impl Capture {
    /// Opens it. Frames are kept from now on.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::open_waiting(namespace, interface, Duration::from_millis(20))
    }

    /// Opens it for [`Capture::take`].
    ///
    /// # Errors
    /// There is no such interface.
    pub fn open_polled(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::open_waiting(namespace, interface, Duration::ZERO)
    }

    fn open_waiting(namespace: &Namespace, interface: &str, timeout: Duration) -> Result<Self> {
        let config = Config {
            read_timeout: Some(timeout),
            ..Config::default()
        };
        let channel = namespace.enter(|| -> Result<Channel> {
            let found = pnet_datalink::interfaces()
                .into_iter()
                .find(|i| i.name == interface);
            let found = found.with_context(|| format!("no interface {interface}"))?;
            Ok(pnet_datalink::channel(&found, config)?)
        })??;
        match channel {
            Channel::Ethernet(sender, receiver) => Ok(Self {
                sender,
                receiver,
                interface: interface.to_owned(),
            }),
            _ => bail!("{interface} gives no frames"),
        }
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// The system refuses.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.sender
            .send_to(frame, None)
            .context("the frame is too long")?
            .with_context(|| format!("cannot send on {}", self.interface))
    }

    /// A frame that has come; `None` if there is none now.
    ///
    /// # Errors
    /// The interface went away.
    pub fn take(&mut self) -> Result<Option<Vec<u8>>> {
        match self.receiver.next() {
            Ok(frame) => Ok(Some(frame.to_vec())),
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Ok(None),
            Err(error) => Err(error).context(self.interface.clone()),
        }
    }

    /// The next frame that `wanted` accepts; `None` if none passes in time. Frames that were sent here are seen too.
    ///
    /// # Errors
    /// The interface went away.
    pub fn find(
        &mut self,
        timeout: Duration,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>> {
        let start = now();
        while start.elapsed() < timeout {
            match self.receiver.next() {
                Ok(frame) if wanted(frame) => return Ok(Some(frame.to_vec())),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {}
                Err(error) => return Err(error).context(self.interface.clone()),
            }
        }
        Ok(None)
    }
}
