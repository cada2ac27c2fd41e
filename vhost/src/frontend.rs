//! A front-end, as QEMU plays it for a guest: for tests and the lab. It hands over a guest's memory and rings, and goes on with a
//! back-end that was started again, without a reset of the guest.
//!
//! Guarantees: it tells where rings are as QEMU does: of a split ring the used index, of a packed one only where it began.

use crate::driver::{Buffer, DriverRing, Layout};
use crate::memory::{Mapping, Window};
use crate::protocol::{HEADER_BYTES, feature};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// An answer that does not come within this time does not come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes between two rings, and where the buffers begin.
const RING_SPACE: usize = 1 << 16;
/// Where the front-end sees the guest's memory.
const USER: u64 = 0x7f00_0000_0000;
/// Requests, by their numbers.
mod request {
    pub(super) const FEATURES_GET: u32 = 1;
    pub(super) const FEATURES_SET: u32 = 2;
    pub(super) const OWNER_SET: u32 = 3;
    pub(super) const MEMORY_TABLE: u32 = 5;
    pub(super) const RING_SIZE: u32 = 8;
    pub(super) const RING_ADDRESS: u32 = 9;
    pub(super) const RING_BASE_SET: u32 = 10;
    pub(super) const RING_KICK: u32 = 12;
    pub(super) const RING_CALL: u32 = 13;
    pub(super) const PROTOCOL_FEATURES_GET: u32 = 15;
    pub(super) const PROTOCOL_FEATURES_SET: u32 = 16;
    pub(super) const RING_ENABLE: u32 = 18;
    pub(super) const INFLIGHT_GET: u32 = 31;
    pub(super) const INFLIGHT_SET: u32 = 32;
}

/// What a guest is.
#[derive(Clone, Copy, Debug)]
pub struct FrontendConfig {
    /// Features that it wants; those that are not offered are left away.
    pub features: u64,
    /// Queue pairs.
    pub pairs: u16,
    /// Descriptors of each ring.
    pub ring_size: u16,
    /// Whether it asks for memory in which the back-end notes what is in flight.
    pub inflight: bool,
    /// Bytes of its memory behind the rings.
    pub buffer_bytes: usize,
}

/// A guest and its front-end.
#[derive(Debug)]
pub struct Frontend {
    config: FrontendConfig,
    memory: Window,
    file: OwnedFd,
    layouts: Vec<Layout>,
    rings: Vec<DriverRing>,
    calls: Vec<OwnedFd>,
    kicks: Vec<OwnedFd>,
    /// The area that the back-end has given, and its place in it.
    inflight: Option<([u8; 20], OwnedFd)>,
    stream: Option<UnixStream>,
    negotiated: u64,
    begun: bool,
}

fn event() -> io::Result<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    Ok(rustix::event::eventfd(0, flags)?)
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Frontend {
    /// A guest that nobody serves yet.
    ///
    /// # Errors
    /// The kernel gave no memory, or the rings do not fit.
    pub fn new(config: FrontendConfig) -> io::Result<Self> {
        let queues = 2 * usize::from(config.pairs);
        let bytes = queues * RING_SPACE + config.buffer_bytes;
        let (mapping, file) = Mapping::with_file("weft-guest", bytes)?;
        let mapping = Arc::new(mapping);
        let layouts = (0..queues).map(|queue| Layout {
            packed: config.features & feature::PACKED != 0,
            size: config.ring_size,
            start: queue * RING_SPACE,
        });
        let layouts: Vec<Layout> = layouts.collect();
        if layouts
            .iter()
            .any(|layout| layout.end() > layout.start + RING_SPACE)
        {
            return Err(io::Error::other("the rings are too large"));
        }
        let short = || io::Error::other("the memory is too short");
        let rings = layouts
            .iter()
            .map(|layout| DriverRing::new(*layout, &mapping));
        let rings: Option<Vec<DriverRing>> = rings.collect();
        let events = || (0..queues).map(|_| event()).collect::<io::Result<Vec<_>>>();
        Ok(Self {
            config,
            memory: Window::new(&mapping, 0, bytes).ok_or_else(short)?,
            file,
            rings: rings.ok_or_else(short)?,
            layouts,
            calls: events()?,
            kicks: events()?,
            inflight: None,
            stream: None,
            negotiated: 0,
            begun: false,
        })
    }

    /// Where its memory behind the rings begins, as a guest address.
    #[must_use]
    pub fn buffers(&self) -> u64 {
        wide(self.layouts.len() * RING_SPACE)
    }

    /// Its memory.
    #[must_use]
    pub fn memory(&self) -> &Window {
        &self.memory
    }

    /// One of its rings: even ones receive, odd ones send.
    pub fn ring(&mut self, queue: usize) -> Option<&mut DriverRing> {
        self.rings.get_mut(queue)
    }

    /// Bytes of virtio's header before each frame.
    #[must_use]
    pub fn header_bytes(&self) -> u32 {
        let wide = self.negotiated & (feature::VERSION_1 | feature::NET_MERGEABLE) != 0;
        if wide { 12 } else { 10 }
    }

    /// The features that both sides have.
    #[must_use]
    pub fn negotiated(&self) -> u64 {
        self.negotiated
    }

    /// Offers a buffer, and kicks if the back-end wants it.
    ///
    /// # Errors
    /// It could not be kicked.
    pub fn offer(&mut self, queue: usize, buffer: Buffer) -> io::Result<Option<u16>> {
        self.offer_chain(queue, &[buffer], None)
    }

    /// Offers a chain, as an indirect table if there is room for one at a guest address, and kicks if the back-end wants it.
    ///
    /// # Errors
    /// It could not be kicked.
    pub fn offer_chain(
        &mut self,
        queue: usize,
        buffers: &[Buffer],
        table: Option<u64>,
    ) -> io::Result<Option<u16>> {
        let (Some(ring), Some(kick)) = (self.rings.get_mut(queue), self.kicks.get(queue)) else {
            return Ok(None);
        };
        let id = ring.offer(buffers, table);
        if id.is_some() && ring.kicks_wanted() {
            // A counter that is full has told already.
            let _full = rustix::io::write(kick, &1u64.to_ne_bytes());
        }
        Ok(id)
    }

    /// Waits until the back-end calls about a queue.
    ///
    /// # Errors
    /// It does not within so long.
    pub fn wait(&self, queue: usize, timeout: Duration) -> io::Result<()> {
        let call = self.calls.get(queue);
        let call = call.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(call, PollFlags::IN)];
        if rustix::event::poll(&mut fds, Some(&timeout))? == 0 {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        let _count = rustix::io::read(call, &mut [0; 8])?;
        Ok(())
    }

    /// Whether the back-end is gone.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        let Some(stream) = &self.stream else {
            return true;
        };
        let mut byte = [0; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(stream, &mut byte[..], flags) {
            Ok((read, _)) => read == 0,
            Err(error) => error != rustix::io::Errno::AGAIN,
        }
    }

    /// Dials the back-end and hands all over. When it returns, all of it was done.
    ///
    /// # Errors
    /// Nobody is there, or it refused something.
    pub fn connect(&mut self, path: &Path) -> io::Result<()> {
        self.meet(UnixStream::connect(path)?)
    }

    /// Hands all over to a back-end that is there.
    ///
    /// # Errors
    /// It refused something.
    pub fn meet(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        self.stream = Some(stream);
        let offered = self.ask(request::FEATURES_GET, &[], &[])?;
        self.negotiated = (self.config.features | feature::PROTOCOL_FEATURES) & number(&offered)?;
        let protocol = number(&self.ask(request::PROTOCOL_FEATURES_GET, &[], &[])?)?;
        let mut wanted = feature::PROTOCOL_REPLY_ACK | feature::PROTOCOL_MULTIQUEUE;
        if self.config.inflight {
            wanted |= feature::PROTOCOL_INFLIGHT;
        }
        if protocol & wanted != wanted {
            return Err(io::Error::other("the back-end lacks a protocol feature"));
        }
        self.tell(request::PROTOCOL_FEATURES_SET, &wanted.to_le_bytes(), &[])?;
        self.tell(request::OWNER_SET, &[], &[])?;
        self.tell(request::FEATURES_SET, &self.negotiated.to_le_bytes(), &[])?;
        self.memory_tell()?;
        self.inflight_tell()?;
        for queue in 0..self.layouts.len() {
            self.ring_tell(queue)?;
        }
        self.begun = true;
        Ok(())
    }

    fn memory_tell(&self) -> io::Result<()> {
        let mut table = Vec::new();
        for word in [1, 0, wide(self.memory.bytes()), USER, 0] {
            table.extend(word.to_le_bytes());
        }
        self.tell(request::MEMORY_TABLE, &table, &[self.file.as_fd()])
    }

    fn inflight_tell(&mut self) -> io::Result<()> {
        if !self.config.inflight {
            return Ok(());
        }
        if self.inflight.is_none() {
            let mut wanted = [0; 20];
            wanted[16..18].copy_from_slice(&(2 * self.config.pairs).to_le_bytes());
            wanted[18..].copy_from_slice(&self.config.ring_size.to_le_bytes());
            let (answer, file) = self.ask_fd(request::INFLIGHT_GET, &wanted)?;
            let area = answer.first_chunk().copied();
            let area = area.ok_or_else(|| io::Error::other("a short answer"))?;
            self.inflight = Some((area, file));
        }
        match &self.inflight {
            Some((area, file)) => self.tell(request::INFLIGHT_SET, area, &[file.as_fd()]),
            None => Ok(()),
        }
    }

    fn ring_tell(&self, queue: usize) -> io::Result<()> {
        let (Some(layout), Some(kick), Some(call)) = (
            self.layouts.get(queue),
            self.kicks.get(queue),
            self.calls.get(queue),
        ) else {
            return Ok(());
        };
        let [descriptors, driver, device] = layout.starts();
        let base = match (layout.packed, self.begun) {
            (true, _) => 0x8000_8000,
            (false, true) => u32::from(self.memory.u16(device + 2, Relaxed)),
            (false, false) => 0,
        };
        let index = u32::try_from(queue).unwrap_or(u32::MAX);
        let pair = |number: u32| (u64::from(number) << 32 | u64::from(index)).to_le_bytes();
        self.tell(request::RING_SIZE, &pair(u32::from(layout.size)), &[])?;
        self.tell(request::RING_BASE_SET, &pair(base), &[])?;
        let mut address = pair(0).to_vec();
        for at in [descriptors, device, driver] {
            address.extend((USER + wide(at)).to_le_bytes());
        }
        address.extend([0; 8]);
        self.tell(request::RING_ADDRESS, &address, &[])?;
        let number = wide(queue).to_le_bytes();
        self.tell(request::RING_CALL, &number, &[call.as_fd()])?;
        self.tell(request::RING_KICK, &number, &[kick.as_fd()])?;
        self.tell(request::RING_ENABLE, &pair(1), &[])
    }

    /// A request that is acknowledged.
    fn tell(&self, request: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        // Before the features are agreed on, nothing is acknowledged.
        let before = [request::PROTOCOL_FEATURES_SET].contains(&request);
        self.send(request, if before { 1 } else { 9 }, payload, fds)?;
        if before {
            return Ok(());
        }
        match number(&self.receive()?.0)? {
            0 => Ok(()),
            error => Err(io::Error::other(format!("request {request}: {error}"))),
        }
    }

    /// A request that has an answer.
    fn ask(&self, request: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<Vec<u8>> {
        self.send(request, 1, payload, fds)?;
        Ok(self.receive()?.0)
    }

    fn ask_fd(&self, request: u32, payload: &[u8]) -> io::Result<(Vec<u8>, OwnedFd)> {
        self.send(request, 1, payload, &[])?;
        let (answer, file) = self.receive()?;
        let file = file.ok_or_else(|| io::Error::other("an answer without a file"))?;
        Ok((answer, file))
    }

    fn stream(&self) -> io::Result<&UnixStream> {
        let stream = self.stream.as_ref();
        stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    fn send(
        &self,
        request: u32,
        flags: u32,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        for word in [request, flags, length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(payload);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let parts = [IoSlice::new(&bytes)];
        let sent = rustix::net::sendmsg(self.stream()?, &parts, &mut control, SendFlags::NOSIGNAL)?;
        if sent < bytes.len() {
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
        Ok(())
    }

    /// An answer, and what came along.
    fn receive(&self) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
        let mut file = None;
        let header = self.read(HEADER_BYTES, &mut file)?;
        let length = header.last_chunk().copied().map_or(0, u32::from_le_bytes);
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let payload = self.read(length.min(4_096), &mut file)?;
        Ok((payload, file))
    }

    fn read(&self, bytes: usize, file: &mut Option<OwnedFd>) -> io::Result<Vec<u8>> {
        let mut read = vec![0; bytes];
        let mut at = 0;
        while at < bytes {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut read[at..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let got = rustix::net::recvmsg(self.stream()?, &mut into, &mut control, flags)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    *file = fds.last().or(file.take());
                }
            }
            if got.bytes == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            at += got.bytes;
        }
        Ok(read)
    }
}

fn number(answer: &[u8]) -> io::Result<u64> {
    let word = answer.first_chunk().copied();
    let word = word.ok_or_else(|| io::Error::other("a short answer"))?;
    Ok(u64::from_le_bytes(word))
}
