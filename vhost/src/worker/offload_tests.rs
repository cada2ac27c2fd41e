//! Work that guests leave to others: handed on to guests that take it, done for those that do not, refused where it fits no
//! frame.

use super::scene::{Kind, PLAIN, Scene, scene_of, snapshot};
use crate::protocol::feature;
use std::net::{Ipv4Addr, Ipv6Addr};
use weft_model::{DropReason, HostSnapshot};
use weft_wire::frame::{self, Ip, Link};
use weft_wire::virtio_net::{self, Kind as SegmentKind, Load, Partial, Segments};
use weft_wire::{checksum, tcp};

const EVERYTHING: u64 = feature::NET_CHECKSUM
    | feature::NET_GUEST_CHECKSUM
    | feature::NET_GUEST_TSO4
    | feature::NET_GUEST_TSO6
    | feature::NET_GUEST_ECN
    | feature::NET_HOST_TSO4
    | feature::NET_HOST_TSO6
    | feature::NET_HOST_ECN;

/// A stream from the first guest.
#[derive(Clone, Copy)]
struct Stream {
    v6: bool,
    to_mac: [u8; 6],
    to: Ipv4Addr,
}

const BRIDGED: Stream = Stream {
    v6: false,
    to_mac: [2, 0, 0, 0, 0, 2],
    to: Ipv4Addr::new(10, 0, 0, 2),
};

impl Stream {
    fn addresses(&self) -> Ip {
        if self.v6 {
            let address = |n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n);
            Ip::new(address(1), address(2))
        } else {
            Ip::new(Ipv4Addr::new(10, 0, 0, 1), self.to)
        }
    }

    /// A segment, as large as it wants to be, with its checksum complete.
    fn segment(&self, flags: u8, payload: usize) -> Vec<u8> {
        let link = Link {
            source: [2, 0, 0, 0, 0, 1],
            destination: self.to_mac,
        };
        let segment = tcp::Repr {
            source_port: 1_000,
            destination_port: 22,
            sequence: 1,
            acknowledgment: 1,
            flags,
            window: 1_000,
        };
        let payload: Vec<u8> = (0..payload).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
        frame::tcp(link, self.addresses(), segment, &payload)
    }

    fn l4(&self) -> usize {
        if self.v6 { 54 } else { 34 }
    }

    fn partial(&self) -> Load {
        Load {
            partial: Some(Partial {
                start: u16::try_from(self.l4()).unwrap(),
                offset: 16,
            }),
            ..Load::NONE
        }
    }

    fn large(&self, payload_bytes: u16) -> Load {
        let kind = if self.v6 {
            SegmentKind::TcpV6
        } else {
            SegmentKind::TcpV4
        };
        Load {
            segments: Some(Segments {
                kind,
                ecn: false,
                header_bytes: u16::try_from(self.l4()).unwrap() + 20,
                payload_bytes,
            }),
            ..self.partial()
        }
    }

    /// A segment whose checksum is left to others.
    fn left(&self, payload: usize) -> Vec<u8> {
        let mut frame = self.segment(tcp::ACK, payload);
        self.partial().renew(&mut frame);
        frame
    }

    fn is_right(&self, frame: &[u8]) -> bool {
        let ends = self.addresses();
        let l4 = &frame[self.l4()..];
        checksum::transport(ends.source, ends.destination, 6, l4) == 0
    }
}

fn kind(features: u64) -> Kind {
    Kind { features, ..PLAIN }
}

/// Two guests without port security, for streams of both families, between which one stream was opened.
fn opened(receiver: u64, v6: bool) -> (Scene, Stream) {
    let mut snapshot = snapshot("two-ports-policy.json");
    for port in snapshot.ports.values_mut() {
        port.port_security_enabled = false;
        port.security_groups.clear();
    }
    let stream = Stream { v6, ..BRIDGED };
    (open([EVERYTHING, receiver], snapshot, stream), stream)
}

fn open(features: [u64; 2], snapshot: HostSnapshot, stream: Stream) -> Scene {
    let mut scene = scene_of(features.map(kind), snapshot);
    scene.guests[0].send(&stream.segment(tcp::SYN, 0));
    scene.turn();
    assert!(scene.guests[1].received().is_some(), "the stream is opened");
    scene.guests[1].receive_offer(1);
    scene
}

#[test]
fn what_a_guest_says_of_work_that_it_may_not_leave_is_not_read() {
    let mut snapshot = snapshot("two-ports-policy.json");
    for port in snapshot.ports.values_mut() {
        port.port_security_enabled = false;
        port.security_groups.clear();
    }
    let mut scene = open([0, EVERYTHING], snapshot, BRIDGED);
    let frame = BRIDGED.left(100);
    for said in [
        BRIDGED.partial().emit(),
        BRIDGED.large(50).emit(),
        [0xff; 10],
    ] {
        scene.guests[0].send_with(said, &frame);
        assert_eq!(scene.turn(), 1);
        let (header, came, _) = scene.guests[1].received_with().unwrap();
        assert_eq!((&header[..], &came), (&Load::NONE.emit()[..], &frame));
        scene.guests[1].receive_offer(1);
    }
}

#[test]
fn work_is_handed_on_to_a_guest_that_takes_it() {
    for v6 in [false, true] {
        let (mut scene, stream) = opened(EVERYTHING, v6);
        for (load, payload) in [
            (stream.partial(), 100),
            (stream.partial(), 1_400),
            (stream.large(1_400), 30_000),
        ] {
            let frame = stream.left(payload);
            scene.guests[0].send_with(load.emit(), &frame);
            assert_eq!(scene.turn(), 1);
            let (header, came, buffers) = scene.guests[1].received_with().unwrap();
            assert_eq!((&header[..], &came), (&load.emit()[..], &frame));
            assert_eq!(usize::from(buffers), (frame.len() + 12).div_ceil(2048));
            scene.guests[1].receive_offer(u64::from(buffers));
        }
        // Also where it is judged as a whole.
        scene.enforce_again();
        let (load, frame) = (stream.large(1_000), stream.left(9_000));
        scene.guests[0].send_with(load.emit(), &frame);
        scene.turn();
        let (header, came, _) = scene.guests[1].received_with().unwrap();
        assert_eq!((&header[..], &came), (&load.emit()[..], &frame));
        // What follows has no such header.
        let plain = stream.segment(tcp::ACK, 10);
        scene.guests[0].send(&plain);
        scene.turn();
        let (header, came, _) = scene.guests[1].received_with().unwrap();
        assert_eq!((&header[..], came), (&[0; 10][..], plain));
    }
}

#[test]
fn work_is_done_for_a_guest_that_does_not_take_it() {
    for v6 in [false, true] {
        let tcp = feature::NET_GUEST_TSO4 | feature::NET_GUEST_TSO6;
        for features in [0, tcp, feature::NET_GUEST_CHECKSUM] {
            let (mut scene, stream) = opened(features, v6);
            let frame = stream.left(100);
            scene.guests[0].send_with(stream.partial().emit(), &frame);
            scene.turn();
            let (header, came, _) = scene.guests[1].received_with().unwrap();
            if features == feature::NET_GUEST_CHECKSUM {
                assert_eq!((&header[..], came), (&stream.partial().emit()[..], frame));
            } else {
                assert_eq!(came, stream.segment(tcp::ACK, 100));
            }
            let whole = stream.left(10_000);
            scene.guests[0].send_with(stream.large(1_400).emit(), &whole);
            scene.turn();
            let headers = stream.l4() + 20;
            let mut payload = Vec::new();
            while let Some((header, segment, _)) = scene.guests[1].received_with() {
                assert_eq!(header, [0; 10]);
                assert!(stream.is_right(&segment), "{features:#x}");
                payload.extend_from_slice(&segment[headers..]);
            }
            assert_eq!(payload, whole[headers..]);
            assert_eq!(scene.counters[1].totals().tx_packets, 2 + 8);
        }
    }
}

#[test]
fn a_header_that_does_not_fit_its_frame_is_refused() {
    let (mut scene, stream) = opened(EVERYTHING, false);
    let frame = stream.left(3_000);
    let good = stream.large(1_000).emit();
    let spoils: [fn(&mut [u8; virtio_net::HEADER_BYTES]); 6] = [
        |h| h[4..6].fill(0),
        |h| h[6..8].fill(0xff),
        |h| h[8..10].fill(0xff),
        |h| h[0] = 0,
        |h| h[1] = 4,
        |h| h[1] = 0x7f,
    ];
    let count = spoils.len();
    for spoil in spoils {
        let mut header = good;
        spoil(&mut header);
        scene.guests[0].send_with(header, &frame);
    }
    assert_eq!(scene.turn(), count);
    assert!(scene.guests[1].received().is_none());
    let count = u64::try_from(count).unwrap();
    assert_eq!(scene.drops(0, DropReason::Malformed), count);
    assert!(scene.guests[0].queues.shut_reason().is_none());
}

#[test]
fn segments_are_measured_by_the_mtu_and_not_the_whole() {
    let stream = Stream {
        to_mac: [6, 0x10, 0, 0, 0, 2],
        to: Ipv4Addr::new(10, 0, 1, 2),
        ..BRIDGED
    };
    let mut snapshot = snapshot("two-ports-routed.json");
    for port in snapshot.ports.values_mut() {
        port.port_security_enabled = false;
        port.security_groups.clear();
    }
    let mut scene = open([EVERYTHING; 2], snapshot, stream);
    for (again, payload_bytes, passes) in [
        (false, 1_460, true),
        (false, 1_461, false),
        (true, 1_460, true),
        (true, 1_461, false),
    ] {
        if again {
            scene.enforce_again();
        }
        let load = stream.large(payload_bytes);
        scene.guests[0].send_with(load.emit(), &stream.left(20_000));
        scene.turn();
        let came = scene.guests[1].received_with();
        assert_eq!(came.is_some(), passes, "{payload_bytes}");
        if let Some((_, frame, buffers)) = came {
            assert_eq!(frame[22], 63, "routed");
            scene.guests[1].receive_offer(u64::from(buffers));
        }
    }
    assert_eq!(scene.drops(0, DropReason::MtuExceeded), 2);
}
