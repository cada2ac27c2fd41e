//! Both kinds of rings against a driver, an honest one and a hostile one.

use crate::driver::{Buffer, DriverRing, Layout};
use crate::inflight::{Inflight, Notes};
use crate::memory::{Mapping, Piece, Region, Regions, Window};
use crate::ring::{Direction, PackedRing, Ring, RingError, RingFeatures, SplitRing, Taken};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const MEMORY_BYTES: usize = 1 << 20;
const BUFFERS: u64 = 0x4_0000;
const TABLES: u64 = 0x8_0000;
const TABLES_AT: usize = 0x8_0000;

struct Side {
    memory: Regions,
    mapping: Arc<Mapping>,
    driver: DriverRing,
    device: Ring,
    layout: Layout,
}

fn side(packed: bool, size: u16, features: RingFeatures) -> Side {
    let (mapping, file) = Mapping::with_file("weft-test", MEMORY_BYTES).unwrap();
    let mapping = Arc::new(mapping);
    let mut memory = Regions::default();
    let region = Region {
        guest_address: 0,
        bytes: MEMORY_BYTES as u64,
        user_address: 0x1000_0000,
        file_offset: 0,
    };
    memory.add(region, &file).unwrap();
    let layout = Layout {
        packed,
        size,
        start: 0,
    };
    let parts = layout.parts(&mapping).unwrap();
    let device = if packed {
        Ring::Packed(PackedRing::new(size, features, parts, 0x8000_8000).unwrap())
    } else {
        Ring::Split(SplitRing::new(size, features, parts, 0).unwrap())
    };
    Side {
        memory,
        driver: DriverRing::new(layout, &mapping).unwrap(),
        mapping,
        device,
        layout,
    }
}

fn all() -> RingFeatures {
    RingFeatures {
        indirect: true,
        event_index: true,
    }
}

impl Side {
    fn take(&mut self, direction: Direction) -> Result<Option<(Taken, Vec<Piece>)>, RingError> {
        let mut pieces = Vec::new();
        let taken = self.device.take(direction, &self.memory, &mut pieces)?;
        Ok(taken.map(|taken| (taken, pieces)))
    }

    fn window(&self) -> Window {
        Window::new(&self.mapping, 0, MEMORY_BYTES).unwrap()
    }
}

fn buffer(n: u64, bytes: u32, write: bool) -> Buffer {
    Buffer {
        address: BUFFERS + n * 4096,
        bytes,
        write,
    }
}

#[test]
fn chains_come_and_go_in_order_round_the_ring() {
    for packed in [false, true] {
        for indirect in [false, true] {
            let mut side = side(packed, 8, all());
            for round in 0..40u64 {
                let table = indirect.then_some(TABLES + 256 * (round % 8));
                let chain = [
                    buffer(0, 12, false),
                    buffer(1, 64, false),
                    buffer(2, 7, false),
                ];
                let id = side.driver.offer(&chain, table).unwrap();
                let (taken, pieces) = side.take(Direction::Read).unwrap().unwrap();
                assert_eq!((taken.id, taken.bytes, pieces.len()), (id, 83, 3));
                assert_eq!(side.take(Direction::Read), Ok(None));
                side.device.give(&taken, 0);
                side.device.publish();
                assert_eq!(
                    side.driver.collect(),
                    Some((id, 0)),
                    "{packed} {indirect} {round}"
                );
                assert_eq!(side.driver.collect(), None);
            }
            assert_eq!(side.driver.free(), 8);
        }
    }
}

#[test]
fn what_was_taken_and_not_given_is_offered_again() {
    for packed in [false, true] {
        let mut side = side(packed, 8, all());
        let pair = [buffer(0, 10, true), buffer(1, 20, true)];
        let ids: Vec<u16> = (0..3)
            .map(|_| side.driver.offer(&pair, None).unwrap())
            .collect();
        let first = side.take(Direction::Write).unwrap().unwrap().0;
        let second = side.take(Direction::Write).unwrap().unwrap().0;
        side.device.untake(&[second]);
        side.device.give(&first, 30);
        side.device.publish();
        let again = side.take(Direction::Write).unwrap().unwrap().0;
        assert_eq!((first.id, again.id), (ids[0], ids[1]));
        // A device that starts anew where the ring was left sees the rest.
        let parts = side.layout.parts(&side.mapping).unwrap();
        side.device = if packed {
            // One chain of two descriptors was given.
            Ring::Packed(PackedRing::new(8, all(), parts, 0x8002_8002).unwrap())
        } else {
            Ring::Split(SplitRing::new(8, all(), parts, 1).unwrap())
        };
        let rest: Vec<u16> = std::iter::from_fn(|| side.take(Direction::Write).unwrap())
            .map(|(taken, _)| taken.id)
            .collect();
        assert_eq!(rest, ids[1..]);
    }
}

#[test]
fn the_driver_is_notified_when_it_asks() {
    for packed in [false, true] {
        let mut side = side(packed, 8, RingFeatures::default());
        let one = [buffer(0, 10, false)];
        for wanted in [true, false, true] {
            side.driver.interrupts_ask(wanted, None);
            side.driver.offer(&one, None).unwrap();
            let (taken, _) = side.take(Direction::Read).unwrap().unwrap();
            side.device.give(&taken, 0);
            assert_eq!(side.device.publish(), wanted);
            assert!(!side.device.publish(), "nothing new");
            side.driver.collect().unwrap();
            side.device.kicks_ask(wanted);
            assert_eq!(side.driver.kicks_wanted(), wanted);
        }
    }
    let mut side = side(false, 8, all());
    side.driver.interrupts_ask(true, Some(1));
    for told in [false, true, false] {
        side.driver.offer(&[buffer(0, 10, false)], None).unwrap();
        let (taken, _) = side.take(Direction::Read).unwrap().unwrap();
        side.device.give(&taken, 0);
        assert_eq!(side.device.publish(), told);
    }
}

#[test]
fn hostile_split_rings_are_refused_with_a_reason() {
    type Break = fn(&Side);
    let size = 8;
    let cases: &[(Break, RingError)] = &[
        (
            |s| s.window().u16_put(s.layout.starts()[1] + 2, 9, Relaxed),
            RingError::AvailableIndex {
                from: 0,
                to: 9,
                size: 8,
            },
        ),
        (
            |s| s.window().u16_put(s.layout.starts()[1] + 4, 8, Relaxed),
            RingError::DescriptorIndex(8),
        ),
        (|s| s.window().u16_put(12, 2, Relaxed), RingError::Direction),
        (
            |s| s.window().u16_put(12, 1 | 4, Relaxed),
            RingError::Indirect,
        ),
        (
            |s| {
                s.window().u16_put(12, 1, Relaxed);
                s.window().u16_put(14, 0, Relaxed);
            },
            RingError::ChainLength(8),
        ),
        (
            |s| {
                s.window().u16_put(12, 1, Relaxed);
                s.window().u16_put(14, 77, Relaxed);
            },
            RingError::DescriptorIndex(77),
        ),
        (
            |s| s.window().u64_put(0, MEMORY_BYTES as u64, Relaxed),
            RingError::Address(MEMORY_BYTES as u64),
        ),
        (
            |s| s.window().u64_put(0, MEMORY_BYTES as u64 - 1, Relaxed),
            RingError::Address(MEMORY_BYTES as u64),
        ),
        (
            |s| s.window().u64_put(0, u64::MAX, Relaxed),
            RingError::Address(u64::MAX),
        ),
        (
            |s| s.window().u32_put(8, u32::MAX, Relaxed),
            RingError::ChainBytes,
        ),
    ];
    for (number, (spoil, error)) in cases.iter().enumerate() {
        let mut side = side(false, size, all());
        side.driver.offer(&[buffer(0, 64, false)], None).unwrap();
        spoil(&side);
        assert_eq!(side.take(Direction::Read), Err(*error), "case {number}");
    }
}

#[test]
fn hostile_tables_are_refused_with_a_reason() {
    type Break = fn(&Window, bool);
    let cases: &[(Break, RingError)] = &[
        (|w, _| w.u32_put(8, 0, Relaxed), RingError::Indirect),
        (|w, _| w.u32_put(8, 17, Relaxed), RingError::Indirect),
        (|w, _| w.u32_put(8, 16 * 1025, Relaxed), RingError::Indirect),
        (
            |w, _| w.u64_put(0, 1 << 40, Relaxed),
            RingError::Address(1 << 40),
        ),
        // A table in a table.
        (
            |w, packed| w.u16_put(TABLES_AT + if packed { 14 } else { 12 }, 4, Relaxed),
            RingError::Indirect,
        ),
    ];
    for packed in [false, true] {
        for (number, (spoil, error)) in cases.iter().enumerate() {
            let mut side = side(packed, 8, all());
            let pair = [buffer(0, 12, false), buffer(1, 64, false)];
            side.driver.offer(&pair, Some(TABLES)).unwrap();
            spoil(&side.window(), packed);
            assert_eq!(
                side.take(Direction::Read),
                Err(*error),
                "{packed} case {number}"
            );
        }
        // Not negotiated.
        let mut side = side(packed, 8, RingFeatures::default());
        side.driver
            .offer(&[buffer(0, 12, false)], Some(TABLES))
            .unwrap();
        assert_eq!(side.take(Direction::Read), Err(RingError::Indirect));
    }
    // A table that leads in a circle (split; packed tables have no links).
    let mut side = side(false, 8, all());
    let pair = [buffer(0, 12, false), buffer(1, 64, false)];
    side.driver.offer(&pair, Some(TABLES)).unwrap();
    side.window().u16_put(TABLES_AT + 14, 0, Relaxed);
    assert_eq!(side.take(Direction::Read), Err(RingError::ChainLength(2)));
}

#[test]
fn a_packed_ring_full_of_one_chain_ends() {
    let mut side = side(true, 4, all());
    for at in 0..4usize {
        // Every descriptor available and linked to the next one.
        side.window().u16_put(at * 16 + 14, 1 << 7 | 1, Relaxed);
    }
    assert_eq!(side.take(Direction::Read), Err(RingError::ChainLength(4)));
}

/// A device that ends at any moment, and its successor.
fn successor(side: &Side, notes: &Notes) -> Ring {
    let (size, parts) = (side.layout.size, side.layout.parts(&side.mapping).unwrap());
    // As QEMU tells it: the used index, or where a packed ring began.
    let mut ring = if side.layout.packed {
        Ring::Packed(PackedRing::new(size, all(), parts, 0x8000_8000).unwrap())
    } else {
        let used = parts.device.u16(2, Relaxed);
        Ring::Split(SplitRing::new(size, all(), parts, used).unwrap())
    };
    ring.note_in(notes.clone(), true).unwrap();
    ring
}

proptest! {
    /// Each chain comes back once and in its order, whenever the device ends.
    #[test]
    fn no_chain_is_lost_or_given_twice(
        packed: bool,
        steps in prop::collection::vec((0u8..6, 1usize..4), 1..400),
    ) {
        let mut side = side(packed, 8, all());
        let (area, file) = Inflight::make(1, 8, packed).unwrap();
        let notes = Inflight::new(&file, area, packed).unwrap().notes(0, packed, 8).unwrap();
        side.device.note_in(notes.clone(), true).unwrap();
        let (mut offered, mut under_way) = (VecDeque::new(), VecDeque::new());
        for (step, count) in steps.iter().copied().chain([(5, 1)]) {
            match step {
                0 => {
                    let buffers = vec![buffer(0, 10, false); count];
                    offered.extend(side.driver.offer(&buffers, None));
                }
                1 => under_way.extend(side.take(Direction::Read).unwrap()),
                2 => {
                    if let Some((taken, _)) = under_way.pop_front() {
                        side.device.give(&taken, 0);
                    }
                }
                3 => {
                    side.device.publish();
                }
                4 => {
                    while let Some((id, _)) = side.driver.collect() {
                        prop_assert_eq!(Some(id), offered.pop_front());
                    }
                }
                _ => {
                    side.device = successor(&side, &notes);
                    under_way.clear();
                }
            }
        }
        while let Some((taken, _)) = side.take(Direction::Read).unwrap() {
            side.device.give(&taken, 0);
        }
        side.device.publish();
        while let Some((id, _)) = side.driver.collect() {
            prop_assert_eq!(Some(id), offered.pop_front());
        }
        prop_assert_eq!((offered.len(), side.driver.strays()), (0, 0));
    }

    /// Whatever stands in the memory, a ring gives chains inside of it or an error, and comes to an end.
    #[test]
    fn any_memory_is_survived(
        packed: bool,
        write: bool,
        size in prop::sample::select(vec![1u16, 2, 8]),
        noise in prop::collection::vec((0usize..400, any::<u16>()), 0..200),
    ) {
        let mut side = side(packed, size, all());
        for (word, value) in noise {
            side.window().u16_put(word * 2, value, Relaxed);
        }
        let direction = if write { Direction::Write } else { Direction::Read };
        for _ in 0..64 {
            match side.take(direction) {
                Ok(Some((taken, pieces))) => {
                    for piece in &pieces {
                        prop_assert!(side.memory.span(piece).is_some());
                    }
                    let bytes: u64 = pieces.iter().map(|p| u64::from(p.bytes)).sum();
                    prop_assert_eq!(bytes, u64::from(taken.bytes));
                    side.device.give(&taken, 0);
                    side.device.publish();
                }
                Ok(None) | Err(_) => break,
            }
        }
    }

    /// An honest driver and the device agree on what goes round, whatever the mix of chains and pauses.
    #[test]
    fn an_honest_driver_gets_all_back_in_order(
        packed: bool,
        event_index: bool,
        steps in prop::collection::vec((0u8..4, 1usize..4, any::<bool>()), 1..200),
    ) {
        let mut side = side(packed, 16, RingFeatures { indirect: true, event_index });
        let (mut offered, mut taken, mut back) = (Vec::new(), Vec::new(), Vec::new());
        for (step, length, indirect) in steps {
            match step {
                0 | 1 => {
                    let chain: Vec<Buffer> = (0..length as u64).map(|n| buffer(n, 100, true)).collect();
                    let table = indirect.then_some(TABLES + 64 * (offered.len() as u64 % 32));
                    offered.extend(side.driver.offer(&chain, table));
                }
                2 => {
                    if let Some((chain, _)) = side.take(Direction::Write).unwrap() {
                        side.device.give(&chain, chain.bytes);
                        taken.push(chain.id);
                    }
                }
                _ => {
                    side.device.publish();
                    back.extend(std::iter::from_fn(|| side.driver.collect()).map(|(id, _)| id));
                }
            }
        }
        side.device.publish();
        back.extend(std::iter::from_fn(|| side.driver.collect()).map(|(id, _)| id));
        prop_assert_eq!(&offered[..taken.len()], &taken[..]);
        prop_assert_eq!(back, taken);
    }
}
