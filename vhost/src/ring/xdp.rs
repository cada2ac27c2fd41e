//! The two ways of an AF_XDP socket (Documentation/networking/af_xdp.rst), as a port's queues: what comes by an interface's queue
//! is taken like what a guest sends, and what is given leaves by it.
//!
//! Guarantees: each chunk of the socket's memory is in one place at a time: the kernel's, a batch's, or free. A packet comes and goes
//! with room for virtio's header before it, so that it is read and written like any other; of the header nothing goes out.
//!
//! Assumes a kernel that keeps to its rules; addresses are looked up in the socket's memory all the same.

use super::{Direction, RingError, Taken};
use crate::memory::{Piece, Regions, Window};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Bytes of virtio's header (virtio 1.2, 5.1.6), for which there is room before each packet.
pub const HEADER_BYTES: u32 = 12;
/// Bytes of a chunk: one packet with the kernel's headroom (XDP_PACKET_HEADROOM, 256) and ours.
pub const CHUNK_BYTES: u32 = 4_096;
/// In a ring's flags: the kernel goes on only when it is called (XDP_RING_NEED_WAKEUP).
const NEED_WAKEUP: u32 = 1;
/// Bytes of a packet's descriptor: address, length, options.
const PACKET_BYTES: usize = 16;
/// Bytes of a chunk's: its address.
const ADDRESS_BYTES: usize = 8;
/// Calls for one batch at most: the kernel sends 32 packets a call where it copies.
const CALLS_MAX: usize = 16;

/// One of a socket's four rings: the kernel is on the other side of it.
#[derive(Clone, Debug)]
pub struct KernelRing {
    /// Its memory.
    pub window: Window,
    /// Where in it: the index of who fills it, of who empties it, its flags, and its elements.
    pub producer: usize,
    /// As above.
    pub consumer: usize,
    /// As above.
    pub flags: usize,
    /// As above.
    pub elements: usize,
    /// Elements, a power of two.
    pub size: u32,
}

impl KernelRing {
    fn element(&self, index: u32, bytes: usize) -> usize {
        let at = usize::try_from(index & (self.size - 1)).unwrap_or(0);
        self.elements + at * bytes
    }

    fn produced(&self) -> u32 {
        self.window.u32(self.producer, Acquire)
    }

    fn consumed(&self) -> u32 {
        self.window.u32(self.consumer, Acquire)
    }

    fn needs_wakeup(&self) -> bool {
        self.window.u32(self.flags, Relaxed) & NEED_WAKEUP != 0
    }
}

/// One way of a socket.
#[derive(Clone, Debug)]
pub struct XdpRing {
    socket: Arc<OwnedFd>,
    /// Packets that came, or that go out.
    packets: KernelRing,
    /// Chunks that the kernel may fill, or that it has sent.
    chunks: KernelRing,
    /// In `packets` and `chunks`: what comes next, seen from here.
    next_packet: u32,
    next_chunk: u32,
    /// Chunks that nobody has: to be filled, or to be sent in.
    free: Vec<u16>,
    sends: bool,
    hint: Cell<usize>,
}

impl XdpRing {
    /// The way in, with the chunks that the kernel may fill.
    #[must_use]
    pub fn receiving(
        socket: Arc<OwnedFd>,
        packets: KernelRing,
        chunks: KernelRing,
        free: Vec<u16>,
    ) -> Self {
        let mut ring = Self::new(socket, packets, chunks, free, false);
        ring.fill();
        ring
    }

    /// The way out, with the chunks to send in.
    #[must_use]
    pub fn sending(
        socket: Arc<OwnedFd>,
        packets: KernelRing,
        chunks: KernelRing,
        free: Vec<u16>,
    ) -> Self {
        Self::new(socket, packets, chunks, free, true)
    }

    fn new(
        socket: Arc<OwnedFd>,
        packets: KernelRing,
        chunks: KernelRing,
        free: Vec<u16>,
        sends: bool,
    ) -> Self {
        Self {
            socket,
            packets,
            chunks,
            next_packet: 0,
            next_chunk: 0,
            free,
            sends,
            hint: Cell::new(0),
        }
    }

    /// As for virtqueues.
    pub(super) fn take(
        &mut self,
        direction: Direction,
        memory: &Regions,
        pieces: &mut Vec<Piece>,
    ) -> Result<Option<Taken>, RingError> {
        if self.sends != (direction == Direction::Write) {
            return Err(RingError::Direction);
        }
        let (chunk, address, bytes) = if self.sends {
            if self.free.is_empty() {
                self.reap();
            }
            let Some(chunk) = self.free.pop() else {
                return Ok(None);
            };
            (
                chunk,
                u64::from(chunk) * u64::from(CHUNK_BYTES),
                CHUNK_BYTES,
            )
        } else {
            if self.packets.produced() == self.next_packet {
                return Ok(None);
            }
            let at = self.packets.element(self.next_packet, PACKET_BYTES);
            let address = self.packets.window.u64(at, Relaxed);
            let bytes = self.packets.window.u32(at + 8, Relaxed);
            self.next_packet = self.next_packet.wrapping_add(1);
            let wrong = RingError::Address(address);
            let chunk = u16::try_from(address / u64::from(CHUNK_BYTES)).map_err(|_far| wrong)?;
            let start = address.checked_sub(HEADER_BYTES.into()).ok_or(wrong)?;
            (chunk, start, bytes.saturating_add(HEADER_BYTES))
        };
        let wrong = RingError::Address(address);
        let wanted = usize::try_from(bytes).map_err(|_wide| wrong)?;
        let piece = memory.piece(address, wanted, &self.hint).ok_or(wrong)?;
        if piece.bytes < bytes {
            return Err(wrong);
        }
        let first = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        pieces.push(piece);
        Ok(Some(Taken {
            id: chunk,
            slots: 1,
            first,
            pieces: 1,
            bytes,
        }))
    }

    /// As for virtqueues; only what is to be sent is ever taken back.
    pub(super) fn untake(&mut self, taken: &[Taken]) {
        if self.sends {
            self.free.extend(taken.iter().map(|taken| taken.id));
        }
    }

    /// As for virtqueues.
    pub(super) fn give(&mut self, taken: &Taken, written: u32) {
        let bytes = written.saturating_sub(HEADER_BYTES);
        if !self.sends || bytes == 0 {
            self.free.push(taken.id);
            return;
        }
        // There are as many elements as chunks to send in.
        let at = self.packets.element(self.next_packet, PACKET_BYTES);
        let address = u64::from(taken.id) * u64::from(CHUNK_BYTES) + u64::from(HEADER_BYTES);
        self.packets.window.u64_put(at, address, Relaxed);
        let length = u64::from(bytes);
        self.packets.window.u64_put(at + 8, length, Relaxed);
        self.next_packet = self.next_packet.wrapping_add(1);
    }

    /// Hands over what was given. Nobody is to be told: the kernel is called here.
    pub(super) fn publish(&mut self) -> bool {
        if self.sends {
            let producer = self.packets.producer;
            (self.packets.window).u32_put(producer, self.next_packet, Release);
            self.push();
        } else {
            let consumer = self.packets.consumer;
            (self.packets.window).u32_put(consumer, self.next_packet, Release);
            self.fill();
        }
        false
    }

    /// Whether a packet waits to be taken, or what was given to be sent.
    pub(super) fn has_available(&self) -> bool {
        if self.sends {
            return self.packets.consumed() != self.next_packet;
        }
        self.packets.produced() != self.next_packet
    }

    /// Calls the kernel until it has taken all that it can.
    pub(super) fn push(&self) {
        for _ in 0..CALLS_MAX {
            if !self.has_available() || !self.packets.needs_wakeup() {
                return;
            }
            match rustix::net::send(&*self.socket, &[], SendFlags::DONTWAIT) {
                // What is left was too much for one call, or for the device at the moment.
                Ok(_) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => {}
                // The interface is down or gone: what waits does so until it is up.
                Err(_) => return,
            }
        }
    }

    /// Lets the kernel fill what is free.
    fn fill(&mut self) {
        // There are as many elements as chunks to be filled.
        for chunk in self.free.drain(..) {
            let at = self.chunks.element(self.next_chunk, ADDRESS_BYTES);
            let address = u64::from(chunk) * u64::from(CHUNK_BYTES);
            self.chunks.window.u64_put(at, address, Relaxed);
            self.next_chunk = self.next_chunk.wrapping_add(1);
        }
        let producer = self.chunks.producer;
        (self.chunks.window).u32_put(producer, self.next_chunk, Release);
        if self.chunks.needs_wakeup() {
            let mut none = [0; 1];
            // It answers what a socket without messages answers.
            let _called = rustix::net::recv(
                &*self.socket,
                &mut none[..0],
                rustix::net::RecvFlags::DONTWAIT,
            );
        }
    }

    /// Takes back what was sent.
    fn reap(&mut self) {
        let sent = self.chunks.produced();
        while self.next_chunk != sent {
            let at = self.chunks.element(self.next_chunk, ADDRESS_BYTES);
            let address = self.chunks.window.u64(at, Relaxed);
            if let Ok(chunk) = u16::try_from(address / u64::from(CHUNK_BYTES)) {
                self.free.push(chunk);
            }
            self.next_chunk = self.next_chunk.wrapping_add(1);
        }
        let consumer = self.chunks.consumer;
        (self.chunks.window).u32_put(consumer, self.next_chunk, Release);
    }
}
