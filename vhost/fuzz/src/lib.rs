//! What the fuzz targets do with the bytes that they are given: a hostile front-end, and a hostile driver.
//!
//! Nothing here knows what is right. A target fails when the code under test panics, touches memory that is not the guest's (the
//! sanitizer), does not come to an end, or hands on a piece that is not in the guest's memory.

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use weft_vhost::memory::{Mapping, Piece, Region, Regions, Window};
use weft_vhost::protocol::{Device, Request, feature};
use weft_vhost::queue::PortQueues;
use weft_vhost::ring::{
    Direction, PackedRing, Parts, Ring, RingFeatures, SplitRing, Taken, part_bytes,
};

const MEMORY_BYTES: usize = 64 << 10;
/// Where rings are; what is behind is buffers and tables.
const USER_ADDRESS: u64 = 0x1000_0000;
const ROUNDS: usize = 64;
const BATCH: usize = 64;

/// Takes bytes off the front; zeros when there are none left.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let have = self.0.len().min(N);
        let (first, rest) = self.0.split_at(have);
        out[..have].copy_from_slice(first);
        self.0 = rest;
        out
    }

    fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn memory() -> (Regions, Arc<Mapping>, OwnedFd) {
    let (mapping, file) = Mapping::with_file("weft-fuzz", MEMORY_BYTES).expect("memory");
    let mut regions = Regions::default();
    let region = Region {
        guest_address: 0,
        bytes: MEMORY_BYTES as u64,
        user_address: USER_ADDRESS,
        file_offset: 0,
    };
    regions.add(region, &file).expect("a region");
    (regions, Arc::new(mapping), file)
}

/// A guest that writes anything into its memory, before and while its ring is read.
pub fn ring(packed: bool, data: &[u8]) {
    let mut data = Bytes(data);
    let (regions, mapping, _file) = memory();
    let size = 1u16 << (data.u8() % 9);
    let choice = data.u8();
    let features = RingFeatures {
        indirect: choice & 1 != 0,
        event_index: choice & 2 != 0,
    };
    let direction = match choice & 4 {
        0 => Direction::Read,
        _ => Direction::Write,
    };
    let mut at = 0;
    let parts = part_bytes(packed, size).map(|bytes| {
        let window = Window::new(&mapping, at, bytes).expect("room");
        at = (at + bytes).next_multiple_of(16);
        window
    });
    let [descriptors, driver, device] = parts;
    let parts = Parts {
        descriptors,
        driver,
        device,
    };
    let base = data.u16();
    let made = if packed {
        PackedRing::new(size, features, parts, u32::from(base) | 0x8000 << 16).map(Ring::Packed)
    } else {
        SplitRing::new(size, features, parts, base).map(Ring::Split)
    };
    let Ok(mut ring) = made else { return };
    let window = Window::new(&mapping, 0, MEMORY_BYTES).expect("all of it");
    let (mut pieces, mut taken): (Vec<Piece>, Vec<Taken>) = Default::default();
    for _ in 0..ROUNDS {
        // The guest writes: mostly into its ring, sometimes anywhere.
        for _ in 0..data.u8() % 64 {
            let place = usize::from(data.u16());
            let place = if place & 1 == 0 {
                place % at.max(2)
            } else {
                place % MEMORY_BYTES
            };
            window.u16_put(place & !1, data.u16(), Relaxed);
        }
        (pieces.clear(), taken.clear());
        let broken = ring.take_many(direction, &regions, BATCH, &mut pieces, &mut taken);
        for chain in &taken {
            let first = chain.first as usize;
            let mine = &pieces[first..first + chain.pieces as usize];
            let mut bytes = 0;
            for piece in mine {
                let span = regions.span(piece).expect("a piece of the guest's memory");
                let mut copy = vec![0; span.bytes().min(2_048)];
                match direction {
                    Direction::Read => span.read(&mut copy),
                    Direction::Write => span.write(&copy),
                };
                bytes += u64::from(piece.bytes);
            }
            assert_eq!(bytes, u64::from(chain.bytes));
        }
        if data.u8() & 1 == 0 {
            taken.iter().for_each(|chain| ring.give(chain, chain.bytes));
            ring.publish();
        } else {
            ring.untake(&taken);
        }
        ring.kicks_ask(data.u8() & 1 == 0);
        let _looked = ring.has_available();
        if broken.is_some() || data.is_empty() {
            return;
        }
    }
}

/// A front-end that sends any requests, with memory and event descriptors that are real.
pub fn protocol(data: &[u8]) {
    let mut data = Bytes(data);
    let queues = Arc::new(PortQueues::default());
    let offered = feature::VERSION_1
        | feature::PACKED
        | feature::INDIRECT
        | feature::EVENT_INDEX
        | feature::NET_MERGEABLE
        | feature::PROTOCOL_FEATURES;
    let mut device = Device::new(Arc::clone(&queues), offered);
    let (_, mapping, file) = memory();
    let window = Window::new(&mapping, 0, MEMORY_BYTES).expect("all of it");
    for _ in 0..ROUNDS {
        if data.is_empty() {
            return;
        }
        let number = u32::from(data.u8() % 48);
        let length = usize::from(data.u8());
        let (payload, rest) = data.0.split_at(length.min(data.0.len()));
        data.0 = rest;
        let fds: Vec<OwnedFd> = (0..data.u8() % 9)
            .filter_map(|n| match n % 2 {
                0 => file.try_clone().ok(),
                _ => eventfd(0, EventfdFlags::CLOEXEC).ok(),
            })
            .collect();
        if let Ok(request) = Request::parse(number, payload, fds.len())
            && device.handle(request, fds).is_err()
        {
            return;
        }
        // A worker looks at whatever runs, and the guest has written meanwhile.
        window.u16_put(usize::from(data.u16()) & 0xfffe, data.u16(), Relaxed);
        for at in 0..queues.len() {
            let Some(mut queue) = queues.lock(at) else {
                continue;
            };
            let memory = Arc::clone(&queue.memory);
            let (mut pieces, mut taken) = (Vec::new(), Vec::new());
            if let Some(ring) = queue.ring.as_mut() {
                let broken =
                    ring.take_many(Direction::Read, &memory, BATCH, &mut pieces, &mut taken);
                let inside = pieces.iter().all(|piece| memory.span(piece).is_some());
                assert!(inside, "a piece that is not in the guest's memory");
                taken.iter().for_each(|chain| ring.give(chain, 0));
                ring.publish();
                if let Some(error) = broken {
                    drop(queue);
                    queues.shut(error.to_string());
                }
            }
        }
    }
}
