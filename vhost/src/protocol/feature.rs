//! The feature bits that are offered: virtio's and the protocol's.

/// VIRTIO_NET_F_MTU
pub const NET_MTU: u64 = 1 << 3;
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

/// What is offered to every front-end.
pub const OFFERED: u64 = NET_MTU
    | NET_MERGEABLE
    | NET_STATUS
    | NET_CONTROL
    | NET_ANNOUNCE
    | NET_MULTIQUEUE
    | ANY_LAYOUT
    | INDIRECT
    | EVENT_INDEX
    | PROTOCOL_FEATURES
    | VERSION_1
    | PACKED
    | IN_ORDER;

/// Several queue pairs.
pub const PROTOCOL_MULTIQUEUE: u64 = 1 << 0;
/// SEND_RARP
pub const PROTOCOL_RARP: u64 = 1 << 2;
/// A reply to every request that asks for one.
pub const PROTOCOL_REPLY_ACK: u64 = 1 << 3;
/// NET_SET_MTU
pub const PROTOCOL_MTU: u64 = 1 << 4;
/// ADD_MEM_REG and REM_MEM_REG
pub const PROTOCOL_MEMORY_SLOTS: u64 = 1 << 15;

/// What is offered of the protocol.
pub const PROTOCOL_OFFERED: u64 =
    PROTOCOL_MULTIQUEUE | PROTOCOL_RARP | PROTOCOL_REPLY_ACK | PROTOCOL_MTU | PROTOCOL_MEMORY_SLOTS;
