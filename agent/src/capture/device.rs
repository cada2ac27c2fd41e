//! Packet sockets (packet(7)) that see what passes devices, in either direction.

use super::pcapng::Way;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind,
    recvmsg, setsockopt, socket, sockopt,
};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

/// Bytes of a frame that are looked at.
const FRAME_BYTES: usize = 65_600;
/// `PACKET_OUTGOING` of linux/if_packet.h.
const OUTGOING: u8 = 4;
/// Frames of one device before the next one's turn.
const BURST: usize = 64;
/// Bytes that the kernel keeps for a socket until it is read.
const KERNEL_BYTES: usize = 8 << 20;

/// One socket a device.
pub(super) struct Devices {
    /// Each with its device's index, and the number of its place.
    sockets: Vec<(OwnedFd, usize, usize)>,
    frame: Vec<u8>,
}

impl Devices {
    /// Opens them, in the network namespace of this thread; the error is for whoever asked.
    pub(super) fn open(names: &[(usize, &str)]) -> Result<Self, String> {
        let all: Vec<_> = getifaddrs()
            .map_err(|error| error.to_string())?
            .filter_map(|interface| {
                let address = *interface.address?.as_link_addr()?;
                Some((interface.interface_name, address))
            })
            .collect();
        let mut sockets = Vec::new();
        for (place, name) in names {
            let found = all.iter().find(|(have, _)| have == name);
            let (_, address) = found.ok_or_else(|| format!("there is no interface {name}"))?;
            let socket = open(address).map_err(|error| format!("{name}: {error}"))?;
            sockets.push((socket, address.ifindex(), *place));
        }
        Ok(Self {
            sockets,
            frame: vec![0; FRAME_BYTES],
        })
    }

    /// Waits for frames and hands over what came (which device, which way, nanoseconds since 1970, bytes in all, the frame); false if
    /// `take` wants no more.
    pub(super) fn next(
        &mut self,
        timeout: Duration,
        mut take: impl FnMut(usize, Way, u64, usize, &[u8]) -> bool,
    ) -> Result<bool, Errno> {
        let ready: Vec<bool> = {
            let each = self.sockets.iter();
            let mut waits: Vec<PollFd<'_>> = each
                .map(|(socket, ..)| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
                .collect();
            let millis = u16::try_from(timeout.as_millis()).unwrap_or(u16::MAX);
            match poll(&mut waits, PollTimeout::from(millis)) {
                Err(Errno::EINTR) => return Ok(true),
                other => other?,
            };
            waits
                .iter()
                .map(|wait| wait.any().unwrap_or(false))
                .collect()
        };
        for (at, _) in ready.iter().enumerate().filter(|(_, ready)| **ready) {
            let place = self.sockets.get(at).map_or(0, |(_, _, place)| *place);
            for _ in 0..BURST {
                match self.receive(at) {
                    Ok(Some((way, time_ns, length))) => {
                        let data = self.frame.get(..length).unwrap_or(&self.frame);
                        if !take(place, way, time_ns, length, data) {
                            return Ok(false);
                        }
                    }
                    Ok(None) => {}
                    Err(Errno::EAGAIN | Errno::EINTR) => break,
                    // The device went down, or away: it may come back.
                    Err(Errno::ENETDOWN) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(true)
    }

    fn receive(&mut self, at: usize) -> Result<Option<(Way, u64, usize)>, Errno> {
        let (socket, ifindex, _) = self.sockets.get(at).ok_or(Errno::EBADF)?;
        let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
        let mut parts = [IoSliceMut::new(&mut self.frame)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let got = recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
        // What came between the socket's making and its binding may be of another device.
        let Some(address) = got.address.filter(|from| from.ifindex() == *ifindex) else {
            return Ok(None);
        };
        let time = got.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(time) => Some(time),
            _ => None,
        });
        let time_ns = time.map_or(0, |time| {
            let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
            seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
        });
        let way = match address.pkttype() {
            OUTGOING => Way::Out,
            _ => Way::In,
        };
        Ok(Some((way, time_ns, got.bytes)))
    }
}

fn open(address: &LinkAddr) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        flags,
        SockProtocol::EthAll,
    )?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(&socket, sockopt::RcvBuf, &KERNEL_BYTES)?;
    bind(socket.as_raw_fd(), address)?;
    Ok(socket)
}
