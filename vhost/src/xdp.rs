//! An interface as a port: an AF_XDP socket (Documentation/networking/af_xdp.rst) for each of its queues.
//!
//! Guarantees: what was opened is a port's queues like a guest's, polled by the same workers; all of it goes when the queues go.
//! Which packets come is not decided here: a program on the interface steers them (`weft-ebpf`'s `Steering`), and without one
//! nothing comes. Packets must fit a chunk: interfaces of up to [`MTU_MAX`].

use crate::memory::{Mapping, MemoryError, Region, Regions, Window};
use crate::queue::{PortQueues, QUEUE_PAIRS_MAX, Queue};
use crate::ring::Ring;
use crate::ring::xdp::{CHUNK_BYTES, HEADER_BYTES, KernelRing, XdpRing};
use rustix::event::Timespec;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING,
    XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpMmapOffsets, XdpRingOffset,
    XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::sync::Arc;
use weft_model::MacAddress;

/// Packets of each ring, and chunks for each way.
const RING_SIZE: u16 = 1_024;
/// Before each packet, for virtio's header: a multiple of what the kernel aligns to.
const HEADROOM: u32 = 16;
/// The largest MTU of an interface: a chunk without headroom, the kernel's (XDP_PACKET_HEADROOM) and ours, and link headers.
pub const MTU_MAX: u32 = CHUNK_BYTES - 256 - HEADROOM - 18;

/// How often a busy queue is asked for, and 10 ms between: five seconds.
const BUSY_TRIES: u32 = 500;
const BUSY_PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};

/// An interface to be opened.
#[derive(Clone, Debug)]
pub struct XdpInterface {
    /// Its name, for errors.
    pub name: String,
    /// Its number (if_nametoindex).
    pub index: u32,
    /// Its MAC address.
    pub mac: MacAddress,
    /// Its MTU, in bytes.
    pub mtu: u32,
}

/// Why an interface cannot be a port.
#[derive(Debug, thiserror::Error)]
pub enum XdpError {
    /// Its packets are too large.
    #[error("{interface}: its MTU is {mtu}, and packets by AF_XDP have {MTU_MAX} bytes at most")]
    Mtu {
        /// Its name.
        interface: String,
        /// What it says.
        mtu: u32,
    },
    /// It has more queues than a port.
    #[error(
        "{interface}: it has more than {QUEUE_PAIRS_MAX} queues, as many as a port has: \
         lower them by `ethtool -L {interface} combined {QUEUE_PAIRS_MAX}`"
    )]
    Queues {
        /// Its name.
        interface: String,
    },
    /// No socket for one of its queues.
    #[error("{interface}: no AF_XDP socket for its queue {queue}")]
    Socket {
        /// Its name.
        interface: String,
        /// The queue.
        queue: u32,
        /// What the system said.
        source: io::Error,
    },
}

/// What the kernel dropped of what was steered to an interface's sockets, and would not send for them, since they were opened
/// (XDP_STATISTICS). Kernels before 5.9 count the rings under `rx_dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpDrops {
    /// Packets that came while there was no chunk for them, or that did not fit one.
    pub rx_dropped: u64,
    /// Packets that came while nobody had taken what came before.
    pub rx_ring_full: u64,
    /// How often there was no chunk: why packets are among `rx_dropped`.
    pub fill_ring_empty: u64,
    /// Descriptors of ours that the kernel refused, both ways.
    pub refused: u64,
}

impl XdpDrops {
    /// The sum over sockets.
    ///
    /// # Errors
    /// One is no AF_XDP socket.
    pub fn of(sockets: &[Arc<OwnedFd>]) -> io::Result<Self> {
        let mut sum = Self::default();
        for socket in sockets {
            let one = sockopt::xdp_statistics(socket)?;
            sum.rx_dropped += one.rx_dropped;
            sum.rx_ring_full += one.rx_ring_full.unwrap_or_default();
            sum.fill_ring_empty += one.rx_fill_ring_empty_descs.unwrap_or_default();
            sum.refused += one.rx_invalid_descs + one.tx_invalid_descs;
        }
        Ok(sum)
    }
}

/// An interface, opened.
#[derive(Debug)]
pub struct XdpPort {
    /// What it is.
    pub interface: XdpInterface,
    /// Its queues.
    pub queues: Arc<PortQueues>,
    /// The sockets, by queue: packets must be steered to them.
    pub sockets: Vec<Arc<OwnedFd>>,
}

impl XdpPort {
    /// Opens all queues of an interface.
    ///
    /// # Errors
    /// Its MTU or number of queues is too large, or the kernel refused: somebody else has its queues, for five seconds now.
    pub fn open(interface: XdpInterface) -> Result<Self, XdpError> {
        let name = || interface.name.clone();
        if interface.mtu > MTU_MAX {
            let mtu = interface.mtu;
            return Err(XdpError::Mtu {
                interface: name(),
                mtu,
            });
        }
        let queues = PortQueues::default();
        let mut sockets = Vec::new();
        for queue in 0.. {
            let number = u32::try_from(queue).unwrap_or(u32::MAX);
            let opened = match open(interface.index, number) {
                Ok(_) if queue == QUEUE_PAIRS_MAX => {
                    return Err(XdpError::Queues { interface: name() });
                }
                Ok(opened) => opened,
                // Behind the last one.
                Err(error) if queue > 0 && error.kind() == io::ErrorKind::InvalidInput => break,
                Err(source) => {
                    return Err(XdpError::Socket {
                        interface: name(),
                        queue: number,
                        source,
                    });
                }
            };
            for (at, way) in [(2 * queue, opened.out), (2 * queue + 1, opened.inward)] {
                if let Some(mut place) = queues.lock(at) {
                    *place = way;
                }
            }
            sockets.push(opened.socket);
        }
        queues.changed();
        Ok(Self {
            interface,
            queues: Arc::new(queues),
            sockets,
        })
    }
}

/// The kernel lets go of a queue some time after the process that had it is gone (`xp_release_deferred`): so one that is busy is
/// asked for [`BUSY_TRIES`] times.
fn bind(socket: &OwnedFd, address: &SocketAddrXdp) -> Result<(), Errno> {
    for _ in 0..BUSY_TRIES {
        match rustix::net::bind(socket, address) {
            Err(Errno::BUSY) => {}
            bound => return bound,
        }
        // Nothing tells when it is free.
        let _interrupted = rustix::event::poll(&mut [], Some(&BUSY_PAUSE));
    }
    Err(Errno::BUSY)
}

struct Opened {
    socket: Arc<OwnedFd>,
    out: Queue,
    inward: Queue,
}

fn open(interface: u32, queue: u32) -> io::Result<Opened> {
    let socket = rustix::net::socket_with(
        AddressFamily::XDP,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let chunks = 2 * u32::from(RING_SIZE);
    let bytes = usize::try_from(u64::from(chunks) * u64::from(CHUNK_BYTES));
    let bytes = bytes.map_err(io::Error::other)?;
    let (memory, file) = Mapping::with_file("weft-xdp", bytes)?;
    let registered = XdpUmemReg {
        addr: u64::try_from(memory.address()).map_err(io::Error::other)?,
        len: u64::try_from(bytes).map_err(io::Error::other)?,
        chunk_size: CHUNK_BYTES,
        headroom: HEADROOM,
        flags: XdpUmemRegFlags::empty(),
        tx_metadata_len: 0,
    };
    sockopt::set_xdp_umem_reg(&socket, registered)?;
    let size = u32::from(RING_SIZE);
    sockopt::set_xdp_umem_fill_ring_size(&socket, size)?;
    sockopt::set_xdp_umem_completion_ring_size(&socket, size)?;
    sockopt::set_xdp_rx_ring_size(&socket, size)?;
    sockopt::set_xdp_tx_ring_size(&socket, size)?;
    let at = sockopt::xdp_mmap_offsets(&socket)?;
    let rings = Rings::map(&socket, &at)?;
    let flags = SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
    bind(&socket, &SocketAddrXdp::new(flags, interface, queue))?;
    let mut regions = Regions::default();
    let region = Region {
        guest_address: 0,
        bytes: registered.len,
        user_address: 0,
        file_offset: 0,
    };
    regions.add(region, &file).map_err(|wrong| match wrong {
        MemoryError::Map(source) => source,
        wrong => io::Error::other(wrong),
    })?;
    let socket = Arc::new(socket);
    let [to_fill, to_send] = [0..RING_SIZE, RING_SIZE..2 * RING_SIZE].map(Iterator::collect);
    let shared = Arc::new(regions);
    let way = |ring: XdpRing, kick: Option<&Arc<OwnedFd>>| Queue {
        ring: Some(Ring::Xdp(Box::new(ring))),
        enabled: true,
        memory: Arc::clone(&shared),
        kick: kick.map(Arc::clone),
        header_bytes: u8::try_from(HEADER_BYTES).unwrap_or(u8::MAX),
        ..Queue::default()
    };
    let inward = XdpRing::receiving(Arc::clone(&socket), rings.rx, rings.fill, to_fill);
    let out = XdpRing::sending(Arc::clone(&socket), rings.tx, rings.completion, to_send);
    Ok(Opened {
        out: way(out, None),
        inward: way(inward, Some(&socket)),
        socket,
    })
}

struct Rings {
    rx: KernelRing,
    tx: KernelRing,
    fill: KernelRing,
    completion: KernelRing,
}

impl Rings {
    fn map(socket: &OwnedFd, at: &XdpMmapOffsets) -> io::Result<Self> {
        let ring = |offset: u64, at: &XdpRingOffset, element: usize| {
            let number = |offset: u64| usize::try_from(offset).map_err(io::Error::other);
            let elements = number(at.desc)?;
            let bytes = elements + usize::from(RING_SIZE) * element;
            let mapping = Arc::new(Mapping::of_socket(socket, offset, bytes)?);
            let short = || io::Error::other("a ring is shorter than it should be");
            Ok::<_, io::Error>(KernelRing {
                window: Window::new(&mapping, 0, bytes).ok_or_else(short)?,
                producer: number(at.producer)?,
                consumer: number(at.consumer)?,
                // Kernels before 5.4 have none: then nothing says that it wants to be called.
                flags: number(at.flags.unwrap_or(u64::MAX >> 1))?,
                elements,
                size: RING_SIZE.into(),
            })
        };
        Ok(Self {
            rx: ring(XDP_PGOFF_RX_RING, &at.rx, 16)?,
            tx: ring(XDP_PGOFF_TX_RING, &at.tx, 16)?,
            fill: ring(XDP_UMEM_PGOFF_FILL_RING, &at.fr, 8)?,
            completion: ring(XDP_UMEM_PGOFF_COMPLETION_RING, &at.cr, 8)?,
        })
    }
}
