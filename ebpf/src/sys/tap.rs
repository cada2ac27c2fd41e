//! Taps of our own: a device whose frames we read and write, whole and behind virtio-net's header.
//!
//! It lives as long as its descriptor: the kernel takes it away with the process.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

const PATH: &str = "/dev/net/tun";
/// Virtio's header, with the number of buffers behind it that newer devices have.
static HEADER_BYTES: libc::c_int = 12;
/// Checksums and segments of TCP may be left undone; since Linux 6.2 those of UDP, too.
const TCP: libc::c_ulong =
    (libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN) as libc::c_ulong;
const TCP_AND_UDP: libc::c_ulong = TCP | 0x20 | 0x40;

/// Makes a tap of this name in this thread's network namespace. Its descriptor never waits.
///
/// # Errors
/// The kernel has no taps, or somebody has one of this name.
pub fn tap_open(name: &str) -> io::Result<OwnedFd> {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(PATH)?;
    // SAFETY: ifreq is plain numbers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags
        .try_into()
        .map_err(|_wide| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the kernel reads and writes one ifreq, which `request` is; the descriptor is open.
    done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    // SAFETY: the kernel reads one int; the descriptor is open.
    done(unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::TUNSETVNETHDRSZ,
            &raw const HEADER_BYTES,
        )
    })?;
    // SAFETY: the argument is a number; the descriptor is open.
    if done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, TCP_AND_UDP) }).is_err() {
        // SAFETY: as above.
        done(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, TCP) })?;
    }
    Ok(file.into())
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
