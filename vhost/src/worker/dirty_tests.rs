//! A guest that is moved while it runs: its front-end is told every page that the worker writes, and no more than it must be.

use super::scene::{Kind, PLAIN, RECEIVE, SEND, datagram, scene};
use crate::memory::{Mapping, Window};
use crate::protocol::{Request, feature};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const LOG_BYTES: usize = 4_096;

/// The pages that are marked; the marks are taken away.
fn marked(log: &Window) -> Vec<u64> {
    let mut pages = Vec::new();
    for (word, at) in (0..64).zip((0..).step_by(8)) {
        let bits = log.u64(at, Relaxed);
        log.u64_put(at, 0, Relaxed);
        let set = (0..64u64).filter(|bit| bits >> bit & 1 == 1);
        pages.extend(set.map(|bit| word * 64 + bit));
    }
    pages
}

#[test]
fn every_page_that_is_written_is_marked() {
    for packed in [false, true] {
        let kind = Kind { packed, ..PLAIN };
        let mut scene = scene([kind, kind]);
        let (mapping, file) = Mapping::with_file("weft-log", LOG_BYTES).unwrap();
        let log = Window::new(&Arc::new(mapping), 0, LOG_BYTES).unwrap();
        let guest = &mut scene.guests[1];
        let request = Request::LogBase(LOG_BYTES as u64, 0);
        guest.device.handle(request, vec![file]).unwrap();
        assert!(marked(&log).is_empty(), "not yet");
        let features = kind.features() | feature::LOG_ALL;
        guest
            .device
            .handle(Request::FeaturesSet(features), vec![])
            .unwrap();
        marked(&log);
        // Into the second buffer's page, and the third's and fourth's.
        for payload in [100, 3_000] {
            scene.guests[0].send(&datagram(1, payload));
            scene.turn();
        }
        let pages = marked(&log);
        let buffer = |number: u64| (RECEIVE + number * 0x4000) / 4_096;
        for number in 0..3 {
            assert!(pages.contains(&buffer(number)), "{number}: {pages:?}");
        }
        assert!(pages.contains(&0), "the ring: {pages:?}");
        assert!(!pages.contains(&buffer(3)), "{pages:?}");
        assert!(pages.iter().all(|page| *page < SEND / 4_096), "{pages:?}");
        // What it sends is only read; the ring is written.
        scene.guests[1].send(&[0; 60]);
        scene.turn();
        let pages = marked(&log);
        assert!(
            pages.iter().all(|page| *page < RECEIVE / 4_096),
            "{pages:?}"
        );
        assert!(pages.contains(&0x10), "its other ring: {pages:?}");
        // The move is over.
        let request = Request::FeaturesSet(kind.features());
        scene.guests[1].device.handle(request, vec![]).unwrap();
        scene.guests[0].send(&datagram(1, 100));
        scene.turn();
        assert!(marked(&log).is_empty());
    }
}
