//! Asks the kernel what a device is, by one rtnetlink request: whether it is a veth whose peer is in another namespace,
//! because frames may then enter that peer directly; and what must be known of one that is to be used by AF_XDP.

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
/// Bytes of `struct nlmsghdr` and of `struct ifinfomsg`.
const HEADER_BYTES: usize = 16;
/// A link's description with all its attributes fits.
const ANSWER_BYTES_MAX: usize = 32_768;

/// A device of this thread's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAbout {
    /// Its number.
    pub index: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its MTU, in bytes.
    pub mtu: u32,
}

/// What the kernel says of the device of this name.
///
/// # Errors
/// There is none, or it is no Ethernet device.
pub fn link_about(name: &str) -> std::io::Result<LinkAbout> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let index = rustix::net::netdevice::name_to_index(&socket, name)?;
    let answer = ask(index)?;
    let about = attributes_of(&answer).and_then(|attributes| {
        let mac = attribute(attributes, IFLA_ADDRESS)?.try_into().ok()?;
        let mtu = attribute(attributes, IFLA_MTU)?.try_into().ok()?;
        let mtu = u32::from_ne_bytes(mtu);
        Some(LinkAbout { index, mac, mtu })
    });
    about.ok_or_else(|| std::io::Error::other("it is no Ethernet device"))
}

/// Whether the device (of this thread's namespace) is a veth whose peer is in another network namespace.
pub(crate) fn peer_elsewhere(ifindex: u32) -> Result<bool, Errno> {
    Ok(veth_peer_elsewhere(&ask(ifindex)?))
}

fn ask(ifindex: u32) -> Result<Vec<u8>, Errno> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // protocol 0: NETLINK_ROUTE
    )?;
    sendto(
        &socket,
        &request(ifindex),
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    let (bytes, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    answer.truncate(bytes);
    Ok(answer)
}

fn request(ifindex: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(2 * HEADER_BYTES);
    message.extend(32u32.to_ne_bytes());
    message.extend(RTM_GETLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence and port: one question, one answer
    message.extend([0; 4]); // family unspecified
    message.extend(ifindex.to_ne_bytes());
    message.extend([0; 8]);
    message
}

fn attributes_of(answer: &[u8]) -> Option<&[u8]> {
    let kind = answer.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    let attributes = answer.get(2 * HEADER_BYTES..);
    attributes.filter(|_| kind == Some(RTM_NEWLINK))
}

fn veth_peer_elsewhere(answer: &[u8]) -> bool {
    let Some(attributes) = attributes_of(answer) else {
        return false;
    };
    let elsewhere = attribute(attributes, IFLA_LINK_NETNSID).is_some();
    let info =
        attribute(attributes, IFLA_LINKINFO).and_then(|info| attribute(info, IFLA_INFO_KIND));
    elsewhere && info.is_some_and(|kind| kind.strip_suffix(&[0]).unwrap_or(kind) == b"veth")
}

/// The first attribute of a type (`struct rtattr`, aligned to four bytes).
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [a, b, c, d, ..] = *attributes {
        let bytes = usize::from(u16::from_ne_bytes([a, b]));
        let value = attributes.get(4..bytes)?;
        if u16::from_ne_bytes([c, d]) & 0x3fff == wanted {
            return Some(value);
        }
        attributes = attributes.get(bytes.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_peer_and_garbage_says_no() {
        assert_eq!(peer_elsewhere(1), Ok(false));
        assert!(!veth_peer_elsewhere(&[]));
        assert!(!veth_peer_elsewhere(&[255; 64]));
    }
}
