//! Frames out: one packet socket (packet(7)) for all interfaces.
//!
//! Guarantees: a frame leaves by the interface that was named, or an error says why not; nothing is received.

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

/// Sends frames by interface.
#[derive(Debug)]
pub(crate) struct WireSocket {
    socket: OwnedFd,
    /// Interfaces' addresses, as the system writes them.
    addresses: BTreeMap<u32, LinkAddr>,
}

impl WireSocket {
    /// Opens the socket, in the network namespace of this thread.
    pub(crate) fn open() -> Result<Self, Errno> {
        // Without a protocol the socket receives nothing.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        Ok(Self {
            socket,
            addresses: BTreeMap::new(),
        })
    }

    /// Looks the interfaces up anew; to be called when they changed.
    pub(crate) fn refresh(&mut self) -> Result<(), Errno> {
        let all = getifaddrs()?.filter_map(|interface| {
            let address = *interface.address?.as_link_addr()?;
            Some((u32::try_from(address.ifindex()).ok()?, address))
        });
        self.addresses = all.collect();
        Ok(())
    }

    /// Sends a frame. One that does not fit into the device's queue is lost, as on any wire.
    pub(crate) fn send(&self, interface: u32, frame: &[u8]) -> Result<(), Errno> {
        let address = self.addresses.get(&interface).ok_or(Errno::ENODEV)?;
        let sent = sendto(
            self.socket.as_raw_fd(),
            frame,
            address,
            MsgFlags::MSG_DONTWAIT,
        )?;
        if sent == frame.len() {
            Ok(())
        } else {
            Err(Errno::EMSGSIZE)
        }
    }
}
