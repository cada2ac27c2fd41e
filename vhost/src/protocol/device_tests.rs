//! A device, message by message: in the order that QEMU 7.2 has, and in none.

use super::ProtocolError;
use super::device::{Device, Reply};
use super::feature::{self, OFFERED};
use super::message::{Request, RingAddress};
use crate::driver::{Buffer, DriverRing, Layout};
use crate::memory::{Mapping, Piece, Region};
use crate::queue::PortQueues;
use crate::ring::Direction;
use proptest::prelude::*;
use rustix::fd::OwnedFd;
use std::sync::Arc;

const BYTES: usize = 1 << 20;
const USER: u64 = 0x7f00_0000_0000;

struct Guest {
    mapping: Arc<Mapping>,
    file: OwnedFd,
    layout: Layout,
    driver: DriverRing,
}

fn guest(packed: bool) -> Guest {
    let (mapping, file) = Mapping::with_file("weft-test", BYTES).unwrap();
    let mapping = Arc::new(mapping);
    let layout = Layout {
        packed,
        size: 16,
        start: 4096,
    };
    Guest {
        driver: DriverRing::new(layout, &mapping).unwrap(),
        mapping,
        file,
        layout,
    }
}

impl Guest {
    fn region(&self) -> Region {
        Region {
            guest_address: 0,
            bytes: self.mapping.bytes() as u64,
            user_address: USER,
            file_offset: 0,
        }
    }

    fn fd(&self) -> OwnedFd {
        self.file.try_clone().unwrap()
    }

    fn address(&self, index: u32) -> RingAddress {
        let [descriptors, driver, device] = self.layout.starts().map(|at| USER + at as u64);
        RingAddress {
            index,
            descriptors,
            device,
            driver,
        }
    }
}

fn eventfd() -> OwnedFd {
    rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap()
}

fn do_all(device: &mut Device, requests: Vec<(Request, Vec<OwnedFd>)>) {
    for (request, fds) in requests {
        device
            .handle(request.clone(), fds)
            .unwrap_or_else(|error| panic!("{request:?}: {error}"));
    }
}

/// Takes what the guest offers on queue 1.
fn takes(queues: &PortQueues) -> Option<u16> {
    let mut queue = queues.lock(1).unwrap();
    let memory = Arc::clone(&queue.memory);
    let ring = queue.ring.as_mut()?;
    let mut pieces: Vec<Piece> = Vec::new();
    let taken = ring.take(Direction::Read, &memory, &mut pieces).unwrap()?;
    ring.give(&taken, 0);
    ring.publish();
    Some(taken.id)
}

#[test]
fn rings_run_in_the_order_of_qemu_7_2() {
    for packed in [false, true] {
        let mut guest = guest(packed);
        let queues = Arc::new(PortQueues::default());
        let mut device = Device::new(Arc::clone(&queues), OFFERED);
        let features = OFFERED & !if packed { 0 } else { feature::PACKED };
        let base = if packed { 0x8000_8000 } else { 0 };
        do_all(
            &mut device,
            vec![
                (Request::OwnerSet, vec![]),
                (Request::RingCall(1, true), vec![eventfd()]),
                // Before any features: rust-vmm refuses this.
                (Request::RingEnable(1, true), vec![]),
                (Request::FeaturesSet(features), vec![]),
                (Request::MemoryTable(vec![guest.region()]), vec![guest.fd()]),
                (Request::RingSize(1, 16), vec![]),
                (Request::RingBaseSet(1, base), vec![]),
                (Request::RingAddress(guest.address(1)), vec![]),
                (Request::RingKick(1, true), vec![eventfd()]),
                (Request::RingCall(1, true), vec![eventfd()]),
            ],
        );
        assert!(queues.lock(1).unwrap().enabled);
        let buffer = Buffer {
            address: 0x8000,
            bytes: 64,
            write: false,
        };
        let id = guest.driver.offer(&[buffer], None);
        assert_eq!(takes(&queues), id);
        // More memory while it runs, and the log's flag: it goes on where it was.
        let more = Region {
            guest_address: 1 << 32,
            user_address: USER + (1 << 32),
            ..guest.region()
        };
        // Both twice, as QEMU 7.2 says them of two queue pairs.
        for _pair in 0..2 {
            device
                .handle(Request::FeaturesSet(features), vec![])
                .unwrap();
            device
                .handle(Request::MemoryAdd(more), vec![guest.fd()])
                .unwrap();
        }
        let id = guest.driver.offer(
            &[Buffer {
                address: more.guest_address,
                ..buffer
            }],
            None,
        );
        assert_eq!(takes(&queues), id);
        for _pair in 0..2 {
            device.handle(Request::MemoryRemove(more), vec![]).unwrap();
        }
        // Other numbers at the same place are another region.
        let other = Region {
            file_offset: 4_096,
            ..guest.region()
        };
        let refused = device.handle(Request::MemoryAdd(other), vec![guest.fd()]);
        assert!(refused.is_err());
        let stopped = device.handle(Request::RingBaseGet(1), vec![]).unwrap();
        let at = if packed { 0x8002_8002 } else { 2 };
        assert!(matches!(stopped, Some(Reply::Ring(1, have)) if have == at));
        assert!(queues.lock(1).unwrap().ring.is_none());
    }
}

#[test]
fn without_protocol_features_rings_are_enabled_at_once() {
    let queues = Arc::new(PortQueues::default());
    let mut device = Device::new(Arc::clone(&queues), OFFERED);
    assert!(!queues.lock(0).unwrap().enabled);
    device
        .handle(Request::FeaturesSet(feature::VERSION_1), vec![])
        .unwrap();
    assert!(queues.lock(0).unwrap().enabled);
}

#[test]
fn what_was_not_offered_or_lies_outside_is_refused() {
    let guest = guest(false);
    let queues = Arc::new(PortQueues::default());
    let mut device = Device::new(Arc::clone(&queues), OFFERED);
    let refused =
        |device: &mut Device, request: Request| device.handle(request, vec![]).unwrap_err();
    let error = refused(&mut device, Request::FeaturesSet(1 << 63));
    assert!(matches!(error, ProtocolError::Features(_)), "{error}");
    let error = refused(&mut device, Request::ProtocolFeaturesSet(1 << 9));
    assert!(matches!(error, ProtocolError::Features(_)), "{error}");
    for request in [
        Request::RingSize(16, 1),
        Request::RingBaseGet(255),
        Request::RingEnable(u32::MAX, true),
    ] {
        let error = refused(&mut device, request);
        assert!(matches!(error, ProtocolError::RingIndex(..)), "{error}");
    }
    do_all(
        &mut device,
        vec![
            (Request::MemoryTable(vec![guest.region()]), vec![guest.fd()]),
            (Request::RingSize(1, 16), vec![]),
            (Request::RingKick(1, false), vec![]),
        ],
    );
    let mut outside = guest.address(1);
    outside.device = USER + BYTES as u64 - 8;
    let error = refused(&mut device, Request::RingAddress(outside));
    assert!(matches!(error, ProtocolError::RingAddress(1)), "{error}");
    let mut device = Device::new(queues, OFFERED);
    do_all(
        &mut device,
        vec![
            (Request::MemoryTable(vec![guest.region()]), vec![guest.fd()]),
            (Request::RingSize(1, 15), vec![]),
            (Request::RingKick(1, false), vec![]),
        ],
    );
    let error = refused(&mut device, Request::RingAddress(guest.address(1)));
    assert!(matches!(error, ProtocolError::Ring(1, _)), "{error}");
}

proptest! {
    /// Any bytes as any request: an answer or an error.
    #[test]
    fn any_request_is_survived(requests in prop::collection::vec((0u32..50, prop::collection::vec(any::<u8>(), 0..64), 0usize..2), 0..40)) {
        let guest = guest(false);
        let mut device = Device::new(Arc::new(PortQueues::default()), OFFERED);
        device.handle(Request::MemoryTable(vec![guest.region()]), vec![guest.fd()]).unwrap();
        for (number, payload, fds) in requests {
            if let Ok(request) = Request::parse(number, &payload, fds) {
                let fds = (0..fds).map(|_| guest.fd()).collect();
                let _any = device.handle(request, fds);
            }
        }
    }
}
