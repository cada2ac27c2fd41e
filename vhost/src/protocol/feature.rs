//! The feature bits that are offered: virtio's and the protocol's.

use weft_wire::virtio_net::{Kind, Load};

/// VIRTIO_NET_F_CSUM: the guest may leave checksums to us.
pub const NET_CHECKSUM: u64 = 1 << 0;
/// VIRTIO_NET_F_GUEST_CSUM: the guest takes frames whose checksum is left to it.
pub const NET_GUEST_CHECKSUM: u64 = 1 << 1;
/// VIRTIO_NET_F_MTU
pub const NET_MTU: u64 = 1 << 3;
/// VIRTIO_NET_F_GUEST_TSO4: the guest takes frames of several TCP segments.
pub const NET_GUEST_TSO4: u64 = 1 << 7;
/// VIRTIO_NET_F_GUEST_TSO6
pub const NET_GUEST_TSO6: u64 = 1 << 8;
/// VIRTIO_NET_F_GUEST_ECN
pub const NET_GUEST_ECN: u64 = 1 << 9;
/// VIRTIO_NET_F_HOST_TSO4: the guest may send such frames.
pub const NET_HOST_TSO4: u64 = 1 << 11;
/// VIRTIO_NET_F_HOST_TSO6
pub const NET_HOST_TSO6: u64 = 1 << 12;
/// VIRTIO_NET_F_HOST_ECN
pub const NET_HOST_ECN: u64 = 1 << 13;
/// VIRTIO_NET_F_MRG_RXBUF
pub const NET_MERGEABLE: u64 = 1 << 15;
/// VIRTIO_NET_F_STATUS
pub const NET_STATUS: u64 = 1 << 16;
/// VIRTIO_NET_F_CTRL_VQ: served by the front-end.
pub const NET_CONTROL: u64 = 1 << 17;
/// VIRTIO_NET_F_GUEST_ANNOUNCE: served by the front-end.
pub const NET_ANNOUNCE: u64 = 1 << 21;
/// VIRTIO_NET_F_MQ
pub const NET_MULTIQUEUE: u64 = 1 << 22;
/// VHOST_F_LOG_ALL: all pages that are written are marked in the log.
pub const LOG_ALL: u64 = 1 << 26;
/// VIRTIO_F_ANY_LAYOUT
pub const ANY_LAYOUT: u64 = 1 << 27;
/// VIRTIO_F_INDIRECT_DESC
pub const INDIRECT: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX
pub const EVENT_INDEX: u64 = 1 << 29;
/// VHOST_USER_F_PROTOCOL_FEATURES
pub const PROTOCOL_FEATURES: u64 = 1 << 30;
/// VIRTIO_F_VERSION_1
pub const VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_RING_PACKED
pub const PACKED: u64 = 1 << 34;
/// VIRTIO_F_IN_ORDER
pub const IN_ORDER: u64 = 1 << 35;

/// VIRTIO_NET_F_GUEST_USO4: likewise for UDP.
pub const NET_GUEST_USO4: u64 = 1 << 54;
/// VIRTIO_NET_F_GUEST_USO6
pub const NET_GUEST_USO6: u64 = 1 << 55;
/// VIRTIO_NET_F_HOST_USO
pub const NET_HOST_USO: u64 = 1 << 56;

/// What is offered to every front-end.
pub const OFFERED: u64 = NET_MTU
    | NET_CHECKSUM
    | NET_GUEST_CHECKSUM
    | NET_GUEST_TSO4
    | NET_GUEST_TSO6
    | NET_GUEST_ECN
    | NET_HOST_TSO4
    | NET_HOST_TSO6
    | NET_HOST_ECN
    | NET_GUEST_USO4
    | NET_GUEST_USO6
    | NET_HOST_USO
    | NET_MERGEABLE
    | NET_STATUS
    | NET_CONTROL
    | NET_ANNOUNCE
    | NET_MULTIQUEUE
    | LOG_ALL
    | ANY_LAYOUT
    | INDIRECT
    | EVENT_INDEX
    | PROTOCOL_FEATURES
    | VERSION_1
    | PACKED
    | IN_ORDER;

/// What a front-end is offered that takes and gives only frames that are complete.
pub const OFFERED_PLAIN: u64 = OFFERED
    & !(NET_CHECKSUM
        | NET_GUEST_CHECKSUM
        | NET_GUEST_TSO4
        | NET_GUEST_TSO6
        | NET_GUEST_ECN
        | NET_HOST_TSO4
        | NET_HOST_TSO6
        | NET_HOST_ECN
        | NET_GUEST_USO4
        | NET_GUEST_USO6
        | NET_HOST_USO);

/// Several queue pairs.
pub const PROTOCOL_MULTIQUEUE: u64 = 1 << 0;
/// A log of dirty pages in shared memory.
pub const PROTOCOL_LOG: u64 = 1 << 1;
/// SEND_RARP
pub const PROTOCOL_RARP: u64 = 1 << 2;
/// A reply to every request that asks for one.
pub const PROTOCOL_REPLY_ACK: u64 = 1 << 3;
/// NET_SET_MTU
pub const PROTOCOL_MTU: u64 = 1 << 4;
/// GET_INFLIGHT_FD and SET_INFLIGHT_FD
pub const PROTOCOL_INFLIGHT: u64 = 1 << 12;
/// ADD_MEM_REG and REM_MEM_REG
pub const PROTOCOL_MEMORY_SLOTS: u64 = 1 << 15;

/// What is offered of the protocol.
pub const PROTOCOL_OFFERED: u64 = PROTOCOL_MULTIQUEUE
    | PROTOCOL_LOG
    | PROTOCOL_RARP
    | PROTOCOL_REPLY_ACK
    | PROTOCOL_MTU
    | PROTOCOL_INFLIGHT
    | PROTOCOL_MEMORY_SLOTS;

/// Work on frames that a guest takes upon itself; what it does not is done before it gets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepts {
    checksum: bool,
    tcp_v4: bool,
    tcp_v6: bool,
    ecn: bool,
    udp: bool,
}

impl Accepts {
    /// By the features that were negotiated.
    #[must_use]
    pub fn new(features: u64) -> Self {
        let has = |feature| features & feature == feature;
        // Without the first one, none of the others.
        let with_checksum = |feature| has(feature | NET_GUEST_CHECKSUM);
        Self {
            checksum: has(NET_GUEST_CHECKSUM),
            tcp_v4: with_checksum(NET_GUEST_TSO4),
            tcp_v6: with_checksum(NET_GUEST_TSO6),
            ecn: with_checksum(NET_GUEST_ECN),
            udp: with_checksum(NET_GUEST_USO4 | NET_GUEST_USO6),
        }
    }

    /// Whether a frame may be handed over with this work still to do.
    #[inline]
    #[must_use]
    pub fn takes(&self, load: &Load) -> bool {
        if load.is_none() {
            return true;
        }
        let segments = load.segments.is_none_or(|segments| {
            let kind = match segments.kind {
                Kind::TcpV4 => self.tcp_v4,
                Kind::TcpV6 => self.tcp_v6,
                Kind::Udp => self.udp,
            };
            kind && (self.ecn || !segments.ecn)
        });
        self.checksum && segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_wire::virtio_net::{Partial, Segments};

    #[test]
    fn a_guest_takes_what_it_negotiated() {
        let partial = Load {
            partial: Some(Partial {
                start: 34,
                offset: 16,
            }),
            ..Load::NONE
        };
        let large = |kind, ecn| Load {
            segments: Some(Segments {
                kind,
                ecn,
                header_bytes: 54,
                payload_bytes: 1_000,
            }),
            ..partial
        };
        let takes = |features, load| Accepts::new(features).takes(&load);
        assert!(takes(0, Load::NONE));
        assert!(!takes(0, partial) && takes(NET_GUEST_CHECKSUM, partial));
        let tcp = NET_GUEST_CHECKSUM | NET_GUEST_TSO4;
        assert!(takes(tcp, large(Kind::TcpV4, false)));
        assert!(!takes(NET_GUEST_TSO4, large(Kind::TcpV4, false)));
        assert!(!takes(tcp, large(Kind::TcpV4, true)));
        assert!(takes(tcp | NET_GUEST_ECN, large(Kind::TcpV4, true)));
        assert!(!takes(tcp, large(Kind::TcpV6, false)));
        assert!(!takes(tcp | NET_GUEST_USO4, large(Kind::Udp, false)));
        let udp = tcp | NET_GUEST_USO4 | NET_GUEST_USO6;
        assert!(takes(udp, large(Kind::Udp, false)));
    }
}
