//! The way out: what a guest sends to whom this engine does not serve goes to the host's other engine, and comes from there.
//!
//! A way out is a tap of the port's own, on which the other engine sees an ordinary guest. Frames are behind virtio-net's header, so
//! that checksums and segments are left undone from one engine to the other. Docs: docs/adr/0011-one-engine-a-flow.md.
//!
//! Guarantees: waits for nothing; a frame that the other side does not take is dropped with a reason.

use super::Worker;
use super::batch::{BATCH, Batch, From, VIRTIO_BYTES};
use crate::engine::Now;
use crate::memory::Regions;
use rustix::event::epoll;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;
use weft_model::DropReason;
use weft_wire::virtio_net::{self, Load};

/// Between two looks while nothing comes.
const LOOK_PERIOD: Duration = Duration::from_micros(10);
/// Ways that are looked at before the rings have their turn.
const READY_MAX: usize = 64;
/// Bytes that are read at once: virtio's header and the largest frame.
const READ_BYTES: usize = VIRTIO_BYTES + super::batch::FRAME_BYTES_MAX;
/// First bytes of a frame, which hold its headers.
const HEAD_BYTES: usize = crate::engine::HEADER_BYTES;

/// One port's.
#[derive(Debug)]
pub(super) struct WayOut(OwnedFd);

/// A frame that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Where it starts in what was read.
    pub(super) start: usize,
    /// What is left to do; none if its header does not fit it.
    pub(super) load: Option<Load>,
}

impl WayOut {
    pub(super) fn new(file: OwnedFd) -> Self {
        Self(file)
    }

    /// What it is known by among the others.
    pub(super) fn number(&self) -> u64 {
        u64::try_from(self.0.as_raw_fd()).unwrap_or(u64::MAX)
    }

    /// Sends a frame.
    pub(super) fn send(&self, load: &Load, frame: &[u8]) -> Result<(), DropReason> {
        let mut header = [0; VIRTIO_BYTES];
        if let Some(place) = header.first_chunk_mut() {
            *place = load.emit();
        }
        let parts = [io::IoSlice::new(&header), io::IoSlice::new(frame)];
        let sent = rustix::io::writev(&self.0, &parts);
        sent.map(drop).map_err(|_refused| DropReason::UplinkMissing)
    }

    /// Reads a frame with its header, if there is one.
    pub(super) fn receive(&self, into: &mut Vec<u8>) -> Option<Received> {
        into.resize(READ_BYTES, 0);
        let read = rustix::io::read(&self.0, &mut into[..]).unwrap_or(0);
        into.truncate(read);
        let (header, frame) = into.split_at_checked(VIRTIO_BYTES)?;
        let first = frame.get(..frame.len().min(HEAD_BYTES)).unwrap_or_default();
        let header: &[u8; virtio_net::HEADER_BYTES] = header.first_chunk()?;
        Some(Received {
            start: VIRTIO_BYTES,
            // What the host's own stack has verified need not be verified again.
            load: Load::parse(header, first, frame.len(), true).ok(),
        })
    }
}

/// All ports'.
#[derive(Debug)]
pub(super) struct Ways {
    epoll: OwnedFd,
    due: Duration,
}

impl Ways {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            due: Duration::ZERO,
        })
    }

    /// To wait for.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Watches one more. It is watched until it is closed.
    pub(super) fn add(&mut self, way: &WayOut) -> io::Result<()> {
        let data = epoll::EventData::new_u64(way.number());
        Ok(epoll::add(
            &self.epoll,
            &way.0,
            data,
            epoll::EventFlags::IN,
        )?)
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.due
    }

    /// The numbers of those where something waits.
    pub(super) fn ready(&self) -> Vec<u64> {
        let now = rustix::event::Timespec::default();
        let mut events = [const { MaybeUninit::uninit() }; READY_MAX];
        match epoll::wait(&self.epoll, &mut events, Some(&now)) {
            Ok((events, _)) => events.iter().map(|event| event.data.u64()).collect(),
            // Without an answer there is nothing, until the next look.
            Err(_) => Vec::new(),
        }
    }

    /// A look is over.
    pub(super) fn looked(&mut self, frames: usize, now: Duration) {
        self.due = if frames > 0 { now } else { now + LOOK_PERIOD };
    }
}

impl Worker {
    /// Hands a frame as it came to the other engine.
    pub(super) fn hand_out(&mut self, batch: &mut Batch, index: usize, from: &From<'_>) {
        let mut whole = std::mem::take(&mut batch.whole);
        batch.came(index, from, &mut whole);
        batch.whole = whole;
        let load = batch.loads.get(index).copied().flatten();
        self.whole_out(batch, load.unwrap_or_default(), from);
    }

    /// Hands the frame that was read whole to the other engine, by its port's way out.
    pub(super) fn whole_out(&mut self, batch: &Batch, load: Load, from: &From<'_>) {
        let Some(port) = self.ports.get(from.port) else {
            return;
        };
        let place = port.place.unwrap_or_default();
        let engine = self.engine.read();
        let limited = match engine.limited_bytes(place, &batch.whole) {
            None => Ok(()),
            Some(bytes) => engine.limit_out(place, &load, bytes, from.now),
        };
        drop(engine);
        let sent = limited.and_then(|()| {
            let out = port.way_out.as_ref();
            out.map_or(Err(DropReason::UplinkMissing), |out| {
                out.send(&load, &batch.whole)
            })
        });
        if let Err(reason) = sent {
            self.drop_count(from.port, reason, 1);
        }
    }

    /// Delivers what the other engine sends to a port's guest, and says how many frames came.
    pub(super) fn way_poll(&mut self, at: usize, now: Now) -> usize {
        self.places_look();
        let Some(port) = self.ports.get(at) else {
            return 0;
        };
        let (Some(out), Some(place)) = (port.way_out.clone(), port.place) else {
            return 0;
        };
        let Some(mut batch) = self.batch.take() else {
            return 0;
        };
        let from = From {
            port: at,
            queue: 0,
            memory: &Regions::default(),
            header_bytes: 0,
            loads: false,
            now,
        };
        let mut count = 0;
        while count < BATCH
            && let Some(received) = out.receive(&mut batch.whole)
        {
            count += 1;
            let frame = batch.whole.get(received.start..).unwrap_or_default();
            let allowed = received.load.ok_or(DropReason::Malformed).and_then(|load| {
                let engine = self.engine.read();
                if let Some(bytes) = engine.limited_bytes(place, frame) {
                    engine.limit_in(place, &load, bytes, now)?;
                }
                Ok(load)
            });
            match allowed {
                Ok(load) => self.deliver_own(Ok(at), frame, load, &mut batch.room, &from),
                Err(reason) => self.drop_count(at, reason, 1),
            }
        }
        self.batch = Some(batch);
        count
    }
}
