//! The driver's side of a ring, as a guest plays it: for tests, fuzzing and the lab. It is plain and not fast.
//!
//! Guarantees: what it writes keeps the rules of virtio 1.2, unless a caller writes into the memory itself.

use crate::memory::{Mapping, Window, fence};
use crate::ring::{Parts, part_bytes};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

/// A buffer that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest address.
    pub address: u64,
    /// Length.
    pub bytes: u32,
    /// Whether the device writes it.
    pub write: bool,
}

/// How a ring is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Packed, else split.
    pub packed: bool,
    /// Descriptors.
    pub size: u16,
    /// Where its parts start in the guest's memory, which starts at guest address 0.
    pub start: usize,
}

impl Layout {
    /// Where descriptors, driver's part and device's part start.
    #[must_use]
    pub fn starts(&self) -> [usize; 3] {
        let [descriptors, driver, _] = part_bytes(self.packed, self.size);
        let second = (self.start + descriptors).next_multiple_of(64);
        [self.start, second, (second + driver).next_multiple_of(64)]
    }

    /// The first byte behind.
    #[must_use]
    pub fn end(&self) -> usize {
        let [.., device] = part_bytes(self.packed, self.size);
        (self.starts()[2] + device).next_multiple_of(64)
    }

    /// The parts; none if the mapping is too short.
    #[must_use]
    pub fn parts(&self, memory: &Arc<Mapping>) -> Option<Parts> {
        let [descriptors, driver, device] = self.starts();
        let bytes = part_bytes(self.packed, self.size);
        Some(Parts {
            descriptors: Window::new(memory, descriptors, bytes[0])?,
            driver: Window::new(memory, driver, bytes[1])?,
            device: Window::new(memory, device, bytes[2])?,
        })
    }
}

/// A ring from the driver's side.
#[derive(Debug)]
pub struct DriverRing {
    layout: Layout,
    parts: Parts,
    memory: Window,
    free: Vec<u16>,
    chains: BTreeMap<u16, Vec<u16>>,
    next: u16,
    used: u16,
    wrap: bool,
    used_wrap: bool,
    strays: usize,
}

impl DriverRing {
    /// An empty ring; none if the memory is too short for it.
    #[must_use]
    pub fn new(layout: Layout, memory: &Arc<Mapping>) -> Option<Self> {
        Some(Self {
            layout,
            parts: layout.parts(memory)?,
            memory: Window::new(memory, 0, memory.bytes())?,
            free: (0..layout.size).rev().collect(),
            chains: BTreeMap::new(),
            next: 0,
            used: 0,
            wrap: true,
            used_wrap: true,
            strays: 0,
        })
    }

    /// Descriptors that are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    fn descriptor_put(window: &Window, at: usize, buffer: Buffer, low: u16, high: u16) {
        window.u64_put(at, buffer.address, Relaxed);
        window.u32_put(at + 8, buffer.bytes, Relaxed);
        window.u16_put(at + 12, low, Relaxed);
        window.u16_put(at + 14, high, Release);
    }

    /// Offers a chain of buffers, and gives the id that it will come back with; none if there is no room. With `table`, a
    /// guest address with room for the descriptors, it is offered as an indirect table.
    pub fn offer(&mut self, buffers: &[Buffer], table: Option<u64>) -> Option<u16> {
        let bytes = u32::try_from(buffers.len() * 16).ok()?;
        if let Some(address) = table {
            let at = usize::try_from(address).ok()?;
            for (n, buffer) in buffers.iter().enumerate() {
                let next = if n + 1 < buffers.len() { 1 } else { 0 };
                let flags = next | u16::from(buffer.write) << 1;
                let following = u16::try_from(n + 1).ok()?;
                let (low, high) = if self.layout.packed {
                    (0, flags & 2)
                } else {
                    (flags, following)
                };
                Self::descriptor_put(&self.memory, at + n * 16, *buffer, low, high);
            }
            let whole = Buffer {
                address,
                bytes,
                write: false,
            };
            return self.offer_direct(&[whole], 4);
        }
        self.offer_direct(buffers, 0)
    }

    fn offer_direct(&mut self, buffers: &[Buffer], flag: u16) -> Option<u16> {
        if buffers.is_empty() || buffers.len() > self.free.len() {
            return None;
        }
        if self.layout.packed {
            return self.offer_packed(buffers, flag);
        }
        let ids = self.free.split_off(self.free.len() - buffers.len());
        for (n, (id, buffer)) in ids.iter().zip(buffers).enumerate() {
            let next = ids.get(n + 1).copied();
            let flags = flag | u16::from(buffer.write) << 1 | u16::from(next.is_some());
            let at = usize::from(*id) * 16;
            let next = next.unwrap_or_default();
            Self::descriptor_put(&self.parts.descriptors, at, *buffer, flags, next);
        }
        let head = *ids.first()?;
        let slot = usize::from(self.next & (self.layout.size - 1));
        self.parts.driver.u16_put(4 + 2 * slot, head, Relaxed);
        self.next = self.next.wrapping_add(1);
        self.parts.driver.u16_put(2, self.next, Release);
        self.chains.insert(head, ids);
        Some(head)
    }

    fn offer_packed(&mut self, buffers: &[Buffer], flag: u16) -> Option<u16> {
        let ids = self.free.split_off(self.free.len() - buffers.len());
        let id = *ids.first()?;
        let mut written = Vec::new();
        for (n, buffer) in buffers.iter().enumerate() {
            let more = u16::from(n + 1 < buffers.len());
            let turn = if self.wrap { 1 << 7 } else { 1 << 15 };
            let flags = flag | u16::from(buffer.write) << 1 | more | turn;
            written.push((usize::from(self.next) * 16, *buffer, flags));
            self.next += 1;
            if self.next == self.layout.size {
                self.next = 0;
                self.wrap = !self.wrap;
            }
        }
        // The first one last: it makes the chain available.
        for (at, buffer, flags) in written.into_iter().rev() {
            Self::descriptor_put(&self.parts.descriptors, at, buffer, id, flags);
        }
        self.chains.insert(id, ids);
        Some(id)
    }

    /// How often something came back that was not offered, or had come back already.
    #[must_use]
    pub fn strays(&self) -> usize {
        self.strays
    }

    /// A chain that came back, by its id, and the bytes written into it.
    pub fn collect(&mut self) -> Option<(u16, u32)> {
        let (id, bytes) = if self.layout.packed {
            let at = usize::from(self.used) * 16;
            let flags = self.parts.descriptors.u16(at + 14, Acquire);
            let used = |bit: u16| (flags & bit != 0) == self.used_wrap;
            if !used(1 << 7) || !used(1 << 15) {
                return None;
            }
            let id = self.parts.descriptors.u16(at + 12, Relaxed);
            (id, self.parts.descriptors.u32(at + 8, Relaxed))
        } else {
            if self.parts.device.u16(2, Acquire) == self.used {
                return None;
            }
            let at = 4 + 8 * usize::from(self.used & (self.layout.size - 1));
            let id = self.parts.device.u32(at, Relaxed);
            (
                u16::try_from(id).ok()?,
                self.parts.device.u32(at + 4, Relaxed),
            )
        };
        let Some(ids) = self.chains.remove(&id) else {
            self.strays += 1;
            return None;
        };
        if self.layout.packed {
            let slots = u16::try_from(ids.len()).ok()?;
            self.used += slots;
            if self.used >= self.layout.size {
                self.used -= self.layout.size;
                self.used_wrap = !self.used_wrap;
            }
        } else {
            self.used = self.used.wrapping_add(1);
        }
        self.free.extend(ids);
        Some((id, bytes))
    }

    /// Asks to be told of what comes back, or not to be. With `at`, only of the chain so many behind the next one
    /// (VIRTIO_F_EVENT_IDX, split rings).
    pub fn interrupts_ask(&self, wanted: bool, at: Option<u16>) {
        if self.layout.packed {
            self.parts.driver.u16_put(2, u16::from(!wanted), Release);
        } else {
            self.parts.driver.u16_put(0, u16::from(!wanted), Release);
            if let Some(ahead) = at {
                let place = 4 + 2 * usize::from(self.layout.size);
                self.parts
                    .driver
                    .u16_put(place, self.used.wrapping_add(ahead), Release);
            }
        }
        // What is asked for must be seen before we look for what has come: the device looks in the other order.
        fence(SeqCst);
    }

    /// Whether the device wants to be told of new chains.
    #[must_use]
    pub fn kicks_wanted(&self) -> bool {
        // What was offered must be seen before we look at what the device wants: it looks in the other order.
        fence(SeqCst);
        if self.layout.packed {
            self.parts.device.u16(2, Acquire) != 1
        } else {
            self.parts.device.u16(0, Acquire) & 1 == 0
        }
    }
}
