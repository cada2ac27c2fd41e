//! Rings between a driver and a device, both on threads of their own: `vhost/src/ring` against `vhost/src/driver.rs`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use loom::model::Builder;
use loom::sync::Notify;
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use weft_tests_interleavings::driver::{Buffer, DriverRing, Layout};
use weft_tests_interleavings::memory::{Mapping, Regions, Window};
use weft_tests_interleavings::ring::{Direction, PackedRing, Ring, RingFeatures, SplitRing};

const SIZE: u16 = 2;
/// Bytes of a buffer.
const BYTES: u32 = 4;

struct Guest {
    driver: DriverRing,
    memory: Window,
    buffers: usize,
}

struct Device {
    ring: Ring,
    memory: Regions,
}

fn both(packed: bool) -> (Guest, Device) {
    let layout = Layout {
        packed,
        size: SIZE,
        start: 0,
    };
    let buffers = layout.end();
    let mapping = Arc::new(Mapping::new(buffers + 64));
    let parts = layout.parts(&mapping).unwrap();
    let features = RingFeatures::default();
    let ring = if packed {
        PackedRing::new(SIZE, features, parts, 0x8000_8000).map(Ring::Packed)
    } else {
        SplitRing::new(SIZE, features, parts, 0).map(Ring::Split)
    };
    let memory = Window::new(&mapping, 0, mapping.bytes()).unwrap();
    let guest = Guest {
        driver: DriverRing::new(layout, &mapping).unwrap(),
        memory: memory.clone(),
        buffers,
    };
    let device = Device {
        ring: ring.unwrap(),
        memory: Regions::new(memory),
    };
    (guest, device)
}

impl Guest {
    fn address(&self, number: u16) -> usize {
        self.buffers + usize::from(number) * 8
    }

    fn offer(&mut self, number: u16, direction: Direction) {
        let at = self.address(number);
        if direction == Direction::Read {
            self.memory.u32_put(at, word(number), Relaxed);
        }
        let buffer = Buffer {
            address: at as u64,
            bytes: BYTES,
            write: direction == Direction::Write,
        };
        self.driver.offer(&[buffer], None).unwrap();
    }

    /// Waits until one comes back.
    fn collect(&mut self, number: u16, direction: Direction) {
        loop {
            if let Some((_, bytes)) = self.driver.collect() {
                let written = direction == Direction::Write;
                assert_eq!(bytes, if written { BYTES } else { 0 });
                let have = self.memory.u32(self.address(number), Relaxed);
                assert_eq!(
                    have,
                    word(number),
                    "the buffer is written before it is given back"
                );
                return;
            }
            thread::yield_now();
        }
    }
}

/// What is in a buffer: both halves differ from what was there before.
fn word(number: u16) -> u32 {
    0x0101_0100 * (1 + u32::from(number)) + 7
}

impl Device {
    /// Takes one, if it is there, and gives it back; whether the driver is to be told.
    fn turn(&mut self, number: u16, direction: Direction) -> Option<bool> {
        let (mut pieces, mut taken) = (Vec::new(), Vec::new());
        let wrong = self
            .ring
            .take_many(direction, &self.memory, 1, &mut pieces, &mut taken);
        assert_eq!(wrong, None);
        let taken = taken.first().copied()?;
        assert_eq!(
            (taken.bytes, pieces.len()),
            (BYTES, 1),
            "a whole descriptor"
        );
        let span = self.memory.span(&pieces[0]).unwrap();
        let bytes = word(number).to_le_bytes();
        let written = match direction {
            Direction::Read => {
                let mut bytes = [0; 4];
                assert_eq!(span.read(&mut bytes), 4);
                assert_eq!(u32::from_le_bytes(bytes), word(number), "a whole buffer");
                0
            }
            Direction::Write => {
                span.write(&bytes);
                BYTES
            }
        };
        self.ring.give(&taken, written);
        Some(self.ring.publish())
    }
}

/// In every order with so many changes of thread where none has to wait: two find all mistakes that were planted.
fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 10_000;
    builder.check(f);
}

fn passes(packed: bool, direction: Direction) {
    model(move || {
        let (mut guest, mut device) = both(packed);
        let driver = thread::spawn(move || {
            guest.offer(0, direction);
            guest.offer(1, direction);
            guest.collect(0, direction);
            guest.collect(1, direction);
        });
        for number in 0..SIZE {
            while device.turn(number, direction).is_none() {
                thread::yield_now();
            }
        }
        driver.join().unwrap();
    });
}

#[test]
fn what_a_split_ring_s_driver_sends_is_whole() {
    passes(false, Direction::Read);
}

#[test]
fn what_a_split_ring_s_driver_receives_is_whole() {
    passes(false, Direction::Write);
}

#[test]
fn what_a_packed_ring_s_driver_sends_is_whole() {
    passes(true, Direction::Read);
}

#[test]
fn what_a_packed_ring_s_driver_receives_is_whole() {
    passes(true, Direction::Write);
}

/// The device asks for a kick, looks once more, and sleeps: it must be woken.
fn device_sleeps(packed: bool) {
    model(move || {
        let (mut guest, mut device) = both(packed);
        device.ring.kicks_ask(false);
        let kick = Arc::new(Notify::new());
        let kicked = Arc::clone(&kick);
        let driver = thread::spawn(move || {
            guest.offer(0, Direction::Read);
            if guest.driver.kicks_wanted() {
                kick.notify();
            }
        });
        while device.turn(0, Direction::Read).is_none() {
            device.ring.kicks_ask(true);
            if !device.ring.has_available() {
                kicked.wait();
            }
            device.ring.kicks_ask(false);
        }
        driver.join().unwrap();
    });
}

#[test]
fn a_device_that_sleeps_on_a_split_ring_is_woken() {
    device_sleeps(false);
}

#[test]
fn a_device_that_sleeps_on_a_packed_ring_is_woken() {
    device_sleeps(true);
}

/// The driver asks to be told, looks once more, and sleeps.
fn driver_sleeps(packed: bool) {
    model(move || {
        let (mut guest, mut device) = both(packed);
        guest.offer(0, Direction::Read);
        guest.driver.interrupts_ask(false, None);
        let call = Arc::new(Notify::new());
        let called = Arc::clone(&call);
        let driver = thread::spawn(move || {
            while guest.driver.collect().is_none() {
                guest.driver.interrupts_ask(true, None);
                if guest.driver.collect().is_some() {
                    break;
                }
                called.wait();
            }
        });
        while device.turn(0, Direction::Read).is_none_or(|wanted| {
            if wanted {
                call.notify();
            }
            false
        }) {
            thread::yield_now();
        }
        driver.join().unwrap();
    });
}

#[test]
fn a_driver_that_sleeps_on_a_split_ring_is_told() {
    driver_sleeps(false);
}

#[test]
fn a_driver_that_sleeps_on_a_packed_ring_is_told() {
    driver_sleeps(true);
}
