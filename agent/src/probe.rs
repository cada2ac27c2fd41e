//! Probes: whether the hosts that this one looks after are reached in the underlay, by echo requests (RFC 792, RFC 4443).
//!
//! Guarantees: what is asked is the other host's kernel, which answers whether or not its agent runs: an agent that is
//! restarted or upgraded is not missed, a host that is dead or cut off is, within [`LOST_AFTER`] + 1 probes. It is believed to be back after
//! [`BACK_AFTER`] answers in a row. A probe that could not be sent or looked at in time (this agent had no processor) counts for
//! nothing: lost is what had at least one period to be answered.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom, sendto,
    socket,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use weft_model::{HostName, HostSnapshot, limits};
use weft_wire::{icmpv4, icmpv6, ipv4};

/// Between two probes of a host.
const PERIOD: Duration = Duration::from_millis(50);
/// Probes without an answer after which a host is not reached.
const LOST_AFTER: u32 = 4;
/// Answers in a row after which it is reached again.
const BACK_AFTER: u32 = 100;
/// Packets that are looked at in one period.
const RECEIVED_MAX: usize = 1_024;
/// Bytes of an answer: an IP header and an echo reply without data.
const ANSWER_BYTES_MAX: usize = 128;

/// What a host tells of others: none before it knows.
pub(crate) type Unreachable = Option<BTreeSet<HostName>>;

/// What is known of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    address: IpAddr,
    /// Whether the last probe is still open.
    open: bool,
    lost: u32,
    answered: u32,
    reached: bool,
}

/// The hosts under watch; pure.
#[derive(Debug, Default)]
struct Watch {
    targets: BTreeMap<HostName, Target>,
    sequence: u16,
}

impl Watch {
    fn apply(&mut self, snapshot: &HostSnapshot) {
        let probed = snapshot.tunnel_hosts.iter();
        let probed = probed.filter(|(name, host)| host.probed && **name != snapshot.host);
        let mut before = std::mem::take(&mut self.targets);
        for (name, host) in probed.take(limits::PROBED_HOSTS_MAX) {
            let known = before.remove(name);
            let known = known.filter(|known| known.address == host.tunnel_ip);
            let target = known.unwrap_or(Target {
                address: host.tunnel_ip,
                open: false,
                lost: 0,
                answered: 0,
                reached: true,
            });
            self.targets.insert(name.clone(), target);
        }
    }

    /// An answer to the last probe.
    fn answered(&mut self, from: IpAddr, sequence: u16) {
        let here = sequence == self.sequence;
        for target in self.targets.values_mut() {
            if here && target.open && target.address == from {
                target.open = false;
                target.lost = 0;
                target.answered = target.answered.saturating_add(1);
                target.reached |= target.answered >= BACK_AFTER;
            }
        }
    }

    /// A period is over: what is open is lost, and what is to be asked now.
    fn tick(&mut self) -> Vec<IpAddr> {
        for target in self.targets.values_mut().filter(|target| target.open) {
            target.answered = 0;
            target.lost = target.lost.saturating_add(1);
            target.reached &= target.lost < LOST_AFTER;
        }
        self.sequence = self.sequence.wrapping_add(1);
        let targets = self.targets.values_mut();
        targets
            .map(|target| {
                target.open = true;
                target.address
            })
            .collect()
    }

    /// A probe that did not leave is as good as lost: the host has no way there.
    fn unreachable(&self) -> BTreeSet<HostName> {
        let lost = self.targets.iter().filter(|(_, target)| !target.reached);
        lost.map(|(name, _)| name.clone()).collect()
    }
}

/// A socket for echo requests and their answers.
struct Echoes {
    socket: OwnedFd,
    v6: bool,
    identifier: u16,
}

impl Echoes {
    fn open(v6: bool, identifier: u16) -> Result<Self, Errno> {
        let (family, protocol) = if v6 {
            (AddressFamily::Inet6, SockProtocol::IcmpV6)
        } else {
            (AddressFamily::Inet, SockProtocol::Icmp)
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        Ok(Self {
            socket: socket(family, SockType::Raw, flags, protocol)?,
            v6,
            identifier,
        })
    }

    fn send(&self, to: IpAddr, sequence: u16) {
        // ICMPv6's has the same shape, and its checksum from the kernel (RFC 3542 3.1).
        let request = icmpv4::Repr {
            kind: if self.v6 {
                icmpv6::ECHO_REQUEST
            } else {
                icmpv4::ECHO_REQUEST
            },
            code: 0,
            identifier: self.identifier,
            sequence,
        };
        let message = request.emit(&[]);
        let address = SockaddrStorage::from(SocketAddr::new(to, 0));
        let sent = sendto(
            self.socket.as_raw_fd(),
            &message,
            &address,
            MsgFlags::MSG_DONTWAIT,
        );
        if let Err(error) = sent {
            tracing::trace!(%to, %error, "a probe did not leave");
        }
    }

    /// Who answered, and to which probe.
    fn receive(&self) -> Option<Option<(IpAddr, u16)>> {
        let mut bytes = [0; ANSWER_BYTES_MAX];
        let received = recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut bytes);
        let (length, from) = received.ok()?;
        Some(self.answer(bytes.get(..length).unwrap_or_default(), from))
    }

    fn answer(&self, bytes: &[u8], from: Option<SockaddrStorage>) -> Option<(IpAddr, u16)> {
        let (kind, message) = if self.v6 {
            (icmpv6::ECHO_REPLY, bytes)
        } else {
            let packet = ipv4::Packet::new_header_checked(bytes).ok()?;
            (icmpv4::ECHO_REPLY, bytes.get(packet.header_bytes()..)?)
        };
        let message = icmpv4::Message::new_checked(message).ok()?;
        let ours = message.kind() == kind && message.identifier() == self.identifier;
        let from = from?;
        let v4 = from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip()));
        let v6 = from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip()));
        ours.then_some((v4.or(v6)?, message.sequence()))
    }
}

/// Probes for ever, and tells in `said` what it finds.
pub(crate) async fn run(
    own: Option<IpAddr>,
    mut snapshots: watch::Receiver<Option<Arc<HostSnapshot>>>,
    said: watch::Sender<Unreachable>,
) {
    let Some(own) = own else {
        return std::future::pending().await;
    };
    let echoes = match Echoes::open(own.is_ipv6(), fastrand::u16(..)) {
        Ok(echoes) => echoes,
        Err(error) => {
            tracing::warn!(%error, "this host cannot look after others: no socket for echo requests");
            return std::future::pending().await;
        }
    };
    let mut watched = Watch::default();
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        for _ in 0..RECEIVED_MAX {
            match echoes.receive() {
                Some(Some((from, sequence))) => watched.answered(from, sequence),
                Some(None) => {}
                None => break,
            }
        }
        if snapshots.has_changed().unwrap_or(false) {
            let snapshot = snapshots.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                watched.apply(&snapshot);
            }
        }
        for address in watched.tick() {
            echoes.send(address, watched.sequence);
        }
        let now = watched.unreachable();
        said.send_if_modified(|before| {
            let news =
                before.as_ref() != Some(&now) && (before.is_some() || !watched.targets.is_empty());
            if news {
                *before = Some(now);
            }
            news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::{Epoch, TunnelHost};

    fn watched() -> Watch {
        let mut snapshot = HostSnapshot::empty("a".parse().unwrap(), Epoch::random());
        for (name, last, probed) in [("a", 1, false), ("b", 2, true), ("c", 3, false)] {
            let tunnel_ip = IpAddr::from([192, 0, 2, last]);
            let host = TunnelHost { tunnel_ip, probed };
            snapshot.tunnel_hosts.insert(name.parse().unwrap(), host);
        }
        let mut watch = Watch::default();
        watch.apply(&snapshot);
        watch
    }

    #[test]
    fn a_host_is_lost_after_some_probes_and_back_after_many() {
        let b = IpAddr::from([192, 0, 2, 2]);
        let mut watch = watched();
        assert_eq!(watch.tick(), [b]);
        watch.answered(b, watch.sequence);
        for _ in 0..LOST_AFTER {
            assert!(watch.unreachable().is_empty());
            watch.tick();
        }
        // Late, and another's.
        watch.answered(b, watch.sequence.wrapping_sub(1));
        watch.answered(IpAddr::from([192, 0, 2, 3]), watch.sequence);
        watch.tick();
        assert_eq!(watch.unreachable(), BTreeSet::from(["b".parse().unwrap()]));
        for n in 0..BACK_AFTER {
            assert_eq!(watch.unreachable().len(), 1, "after {n}");
            watch.answered(b, watch.sequence);
            watch.tick();
        }
        assert!(watch.unreachable().is_empty());
    }
}
