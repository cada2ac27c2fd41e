//! What a front-end has told so far, and what follows from it: which rings run, and how.
//!
//! Guarantees: a ring runs from SET_VRING_KICK to GET_VRING_BASE, whatever came before in which order; a change of memory,
//! addresses or features under a running ring goes on where it was. No sockets here, so that it can be fuzzed.

use super::ProtocolError;
use super::feature::{self, Accepts};
use super::message::{Request, RingAddress};
use crate::dirty::{DirtyLog, QueueLog};
use crate::inflight::{Inflight, InflightArea};
use crate::memory::{Region, Regions};
use crate::queue::{PortQueues, Queue};
use crate::ring::{PackedRing, Parts, RING_SIZE_MAX, Ring, RingFeatures, SplitRing, part_bytes};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;
use std::sync::Arc;

/// An answer to a request.
#[derive(Debug)]
pub enum Reply {
    /// A number.
    Number(u64),
    /// A ring's number and where it is.
    Ring(u32, u32),
    /// An area of what is in flight, in its file, and how long the answer is to be.
    Inflight(InflightArea, OwnedFd, usize),
}

impl Reply {
    /// Its payload.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let word = match self {
            Self::Number(number) => *number,
            Self::Ring(index, base) => u64::from(*base) << 32 | u64::from(*index),
            Self::Inflight(area, _, length) => {
                let mut bytes = area.bytes.to_le_bytes().to_vec();
                bytes.extend(area.offset.to_le_bytes());
                bytes.extend(area.queues.to_le_bytes());
                bytes.extend(area.ring_size.to_le_bytes());
                bytes.resize(*length, 0);
                return bytes;
            }
        };
        word.to_le_bytes().to_vec()
    }

    /// What goes along.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Inflight(_, file, _) => Some(file.as_fd()),
            _ => None,
        }
    }
}

/// A ring as told.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    size: u16,
    address: Option<RingAddress>,
    base: u32,
    started: bool,
    enabled: bool,
    /// Whether it goes on where a predecessor's notes say.
    recovers: bool,
}

/// A back-end of one front-end.
#[derive(Debug)]
pub struct Device {
    queues: Arc<PortQueues>,
    offered: u64,
    features: u64,
    protocol_features: u64,
    memory: Arc<Regions>,
    log: Option<Arc<DirtyLog>>,
    inflight: Option<Inflight>,
    rings: Vec<Told>,
}

impl Device {
    /// A device that nothing was told, for these queues, which start from nothing.
    #[must_use]
    pub fn new(queues: Arc<PortQueues>, offered: u64) -> Self {
        queues.reset();
        let rings = vec![Told::default(); queues.len()];
        Self {
            queues,
            offered,
            features: 0,
            protocol_features: 0,
            memory: Arc::default(),
            log: None,
            inflight: None,
            rings,
        }
    }

    /// The features that were negotiated.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Whether a request that has no answer of its own may ask for one.
    #[must_use]
    pub fn acknowledges(&self) -> bool {
        self.protocol_features & feature::PROTOCOL_REPLY_ACK != 0
    }

    /// Does what is asked.
    ///
    /// # Errors
    /// It cannot be done: the connection is to be ended.
    pub fn handle(
        &mut self,
        request: Request,
        mut fds: Vec<OwnedFd>,
    ) -> Result<Option<Reply>, ProtocolError> {
        match request {
            Request::FeaturesGet => return Ok(Some(Reply::Number(self.offered))),
            Request::FeaturesSet(features) => self.features_set(features)?,
            Request::ProtocolFeaturesGet => {
                return Ok(Some(Reply::Number(feature::PROTOCOL_OFFERED)));
            }
            Request::ProtocolFeaturesSet(features) => {
                if features & !feature::PROTOCOL_OFFERED != 0 {
                    return Err(ProtocolError::Features(features));
                }
                self.protocol_features = features;
            }
            Request::QueuesGet => {
                let pairs = u64::try_from(self.rings.len() / 2).unwrap_or(1);
                return Ok(Some(Reply::Number(pairs)));
            }
            Request::MemorySlotsGet => {
                let slots = u64::try_from(crate::memory::REGIONS_MAX).unwrap_or(1);
                return Ok(Some(Reply::Number(slots)));
            }
            Request::MemoryTable(regions) => self.memory_set(&regions, &fds)?,
            Request::MemoryAdd(region) => {
                let file = fds.pop().ok_or(ProtocolError::Payload(37))?;
                self.memory_add(region, &file)?;
            }
            Request::MemoryRemove(region) => {
                let mut memory = Regions::clone(&self.memory);
                memory.remove(&region);
                self.memory_use(memory)?;
            }
            Request::LogBase(bytes, offset) => {
                let file = fds.pop().ok_or(ProtocolError::Payload(6))?;
                let log = DirtyLog::new(&file, offset, bytes).map_err(ProtocolError::Log)?;
                self.log = Some(Arc::new(log));
                self.indices()
                    .try_for_each(|index| self.ring_set_up(index))?;
                return Ok(Some(Reply::Number(0)));
            }
            Request::InflightGet(wanted, length) => {
                return self.inflight_make(wanted, length).map(Some);
            }
            Request::InflightSet(area) => {
                let file = fds.pop().ok_or(ProtocolError::Payload(32))?;
                self.inflight_use(area, &file)?;
            }
            Request::RingBaseGet(index) => return self.ring_stop(index).map(Some),
            Request::RingSize(index, size) => {
                let told = self.told(index)?;
                told.size = u16::try_from(size).unwrap_or(u16::MAX);
            }
            Request::RingAddress(address) => {
                self.told(address.index)?.address = Some(address);
                self.ring_set_up(address.index)?;
            }
            Request::RingBaseSet(index, base) => self.told(index)?.base = base,
            Request::RingKick(index, _) => {
                self.told(index)?.started = true;
                self.queue(index, |queue| queue.kick = fds.pop().map(Arc::new))?;
                self.ring_set_up(index)?;
            }
            Request::RingCall(index, _) => self.queue(index, |queue| queue.call = fds.pop())?,
            Request::RingEnable(index, on) => {
                self.told(index)?.enabled = on;
                self.enabled_use(index)?;
            }
            Request::OwnerReset => self.stop_all()?,
            // Nothing follows from these: errors are told by closing, frames are not learned from, and the MTU is that of
            // the port's network.
            Request::OwnerSet | Request::RingError(..) | Request::Rarp | Request::MtuSet(_) => {}
        }
        Ok(None)
    }

    fn told(&mut self, index: u32) -> Result<&mut Told, ProtocolError> {
        let count = self.rings.len();
        let ring = usize::try_from(index)
            .ok()
            .and_then(|at| self.rings.get_mut(at));
        ring.ok_or(ProtocolError::RingIndex(index, count))
    }

    /// Does something to a queue while no worker is inside.
    fn queue<T>(&self, index: u32, act: impl FnOnce(&mut Queue) -> T) -> Result<T, ProtocolError> {
        let queue = usize::try_from(index)
            .ok()
            .and_then(|at| self.queues.lock(at));
        let mut queue = queue.ok_or(ProtocolError::RingIndex(index, self.rings.len()))?;
        let done = act(&mut queue);
        drop(queue);
        self.queues.changed();
        Ok(done)
    }

    fn indices(&self) -> impl Iterator<Item = u32> + use<> {
        0..u32::try_from(self.rings.len()).unwrap_or(0)
    }

    fn features_set(&mut self, features: u64) -> Result<(), ProtocolError> {
        if features & !self.offered != 0 {
            return Err(ProtocolError::Features(features));
        }
        self.features = features;
        for index in self.indices() {
            self.enabled_use(index)?;
            self.ring_set_up(index)?;
        }
        Ok(())
    }

    /// Without the protocol's features a ring is enabled from the start.
    fn enabled_use(&mut self, index: u32) -> Result<(), ProtocolError> {
        let always = self.features & feature::PROTOCOL_FEATURES == 0;
        let enabled = self.told(index)?.enabled || always;
        self.queue(index, |queue| queue.enabled = enabled)
    }

    fn memory_set(&mut self, regions: &[Region], fds: &[OwnedFd]) -> Result<(), ProtocolError> {
        let mut memory = Regions::default();
        for (region, fd) in regions.iter().zip(fds) {
            memory.add(*region, fd)?;
        }
        self.memory_use(memory)
    }

    /// QEMU before 8.1 says each region once for each queue pair; likewise when one goes.
    fn memory_add(&mut self, region: Region, file: &OwnedFd) -> Result<(), ProtocolError> {
        if self.memory.has(&region) {
            return Ok(());
        }
        let mut memory = Regions::clone(&self.memory);
        memory.add(region, file)?;
        self.memory_use(memory)
    }

    fn memory_use(&mut self, memory: Regions) -> Result<(), ProtocolError> {
        self.memory = Arc::new(memory);
        self.indices().try_for_each(|index| self.ring_set_up(index))
    }

    fn ring_stop(&mut self, index: u32) -> Result<Reply, ProtocolError> {
        let base = self.queue(index, |queue| {
            queue.kick = None;
            queue.ring.take().map(|ring| ring.base())
        })?;
        let told = self.told(index)?;
        (told.started, told.recovers) = (false, false);
        told.base = base.unwrap_or(told.base);
        Ok(Reply::Ring(index, told.base))
    }

    fn stop_all(&mut self) -> Result<(), ProtocolError> {
        for index in self.indices() {
            self.ring_stop(index)?;
            self.told(index)?.enabled = false;
            self.enabled_use(index)?;
        }
        Ok(())
    }

    fn is_packed(&self) -> bool {
        self.features & feature::PACKED != 0
    }

    fn inflight_make(&self, wanted: InflightArea, length: usize) -> Result<Reply, ProtocolError> {
        let queues = usize::from(wanted.queues);
        if queues > self.rings.len() || !(1..=RING_SIZE_MAX).contains(&wanted.ring_size) {
            let error = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(ProtocolError::Inflight(error));
        }
        let made = Inflight::make(wanted.queues, wanted.ring_size, self.is_packed());
        let (area, file) = made.map_err(ProtocolError::Inflight)?;
        Ok(Reply::Inflight(area, file, length))
    }

    /// Rings that start from now on go on where a predecessor has noted to be.
    fn inflight_use(&mut self, area: InflightArea, file: &OwnedFd) -> Result<(), ProtocolError> {
        let inflight = Inflight::new(file, area, self.is_packed());
        self.inflight = Some(inflight.map_err(ProtocolError::Inflight)?);
        for told in self.rings.iter_mut().filter(|told| !told.started) {
            told.recovers = true;
        }
        self.indices().try_for_each(|index| self.ring_set_up(index))
    }

    /// What is to be told of the pages that a ring and its buffers are in, if anything.
    fn queue_log(&self, address: &RingAddress, bytes: [usize; 3]) -> Option<QueueLog> {
        let log = self.log.as_ref();
        let log = log.filter(|_| self.features & feature::LOG_ALL != 0)?;
        let [descriptors, _, device] = bytes;
        // Of a packed ring we write the descriptors, too.
        let packed = self.features & feature::PACKED != 0;
        let descriptors = packed.then_some((address.descriptors, descriptors));
        let parts = descriptors.into_iter().chain([(address.device, device)]);
        let ring = parts.filter_map(|(address, bytes)| {
            let address = self.memory.guest_address(address)?;
            Some((address, u64::try_from(bytes).ok()?))
        });
        Some(QueueLog {
            log: Arc::clone(log),
            ring: ring.collect(),
        })
    }

    /// Makes a ring of all that was told, if it is enough; a running one goes on where it was.
    fn ring_set_up(&mut self, index: u32) -> Result<(), ProtocolError> {
        let told = *self.told(index)?;
        let Some(address) = told
            .address
            .filter(|_| told.started && !self.memory.is_empty())
        else {
            return Ok(());
        };
        let packed = self.is_packed();
        let part = |address, bytes| {
            let window = self.memory.window_at_user(address, bytes);
            window.ok_or(ProtocolError::RingAddress(index))
        };
        let [descriptors, driver, device] = part_bytes(packed, told.size);
        let parts = Parts {
            descriptors: part(address.descriptors, descriptors)?,
            driver: part(address.driver, driver)?,
            device: part(address.device, device)?,
        };
        let features = RingFeatures {
            indirect: self.features & feature::INDIRECT != 0,
            event_index: self.features & feature::EVENT_INDEX != 0,
        };
        let wide = self.features & (feature::VERSION_1 | feature::NET_MERGEABLE) != 0;
        let mergeable = self.features & feature::NET_MERGEABLE != 0;
        // Segments ask for checksums: VIRTIO_NET_F_HOST_* for this one.
        let loads = self.features & feature::NET_CHECKSUM != 0;
        let accepts = Accepts::new(self.features);
        let log = self.queue_log(&address, part_bytes(packed, told.size));
        let inflight = self.inflight.as_ref();
        let notes = inflight.and_then(|inflight| inflight.notes(index, packed, told.size));
        let memory = Arc::clone(&self.memory);
        let made = self.queue(index, |queue| {
            let base = queue.ring.as_ref().map_or(told.base, Ring::base);
            let ring = if packed {
                PackedRing::new(told.size, features, parts, base).map(Ring::Packed)
            } else {
                let [low, high, ..] = base.to_le_bytes();
                SplitRing::new(told.size, features, parts, u16::from_le_bytes([low, high]))
                    .map(Ring::Split)
            };
            let mut ring = ring?;
            if let Some(notes) = notes {
                ring.note_in(notes, told.recovers && queue.ring.is_none())?;
            }
            ring.kicks_ask(true);
            if let Some(log) = &log {
                log.ring_written();
            }
            queue.log = log;
            queue.ring = Some(ring);
            queue.memory = memory;
            queue.header_bytes = if wide { 12 } else { 10 };
            queue.mergeable = mergeable;
            queue.loads = loads;
            queue.accepts = accepts;
            Ok(())
        })?;
        made.map_err(|error| ProtocolError::Ring(index, error))
    }
}
