//! A guest and another host, by VXLAN over a port of the worker: both families of the underlay, ARP and ND, large frames, segments,
//! and what must not come out of a tunnel.

use super::scene::{Guest, Kind, PLAIN, Scene, datagram, scene_tunnel, snapshot};
use crate::protocol::feature;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use weft_dataplane::flow::session::Tunnel;
use weft_dataplane::stage::tunnel::encapsulate;
use weft_dataplane::{GuestVlan, Tuple};
use weft_model::{DropReason, HostName, HostSnapshot, MacAddress, NetworkType};
use weft_wire::frame::{self, Ip, Link};
use weft_wire::{arp, ethernet, ndisc, protocol, tcp, udp, virtio_net};

/// This host's end, and the other one's.
const OWN_MAC: [u8; 6] = [2, 0x57, 0xac, 0x10, 0, 1];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];

fn ends(v6: bool) -> [IpAddr; 2] {
    ["172.16.0.1", "172.16.0.2", "fd16::1", "fd16::2"].map(|text| text.parse::<IpAddr>().unwrap())
        [if v6 { 2..4 } else { 0..2 }]
    .try_into()
    .unwrap()
}

fn two_hosts(v6: bool) -> HostSnapshot {
    let mut snapshot = snapshot("two-hosts-policy.json");
    for (host, address) in ["lab", "lab-2"].into_iter().zip(ends(v6)) {
        let host: HostName = host.parse().unwrap();
        snapshot.tunnel_hosts.get_mut(&host).unwrap().tunnel_ip = address;
    }
    snapshot
}

struct Hosts {
    scene: Scene,
    v6: bool,
}

impl Hosts {
    /// A scene in which each host knows the other's MAC address.
    fn met(kinds: [Kind; 2], v6: bool) -> Self {
        let mut hosts = Self::strange(kinds, v6);
        hosts.other_asks();
        hosts
    }

    fn strange(kinds: [Kind; 2], v6: bool) -> Self {
        let scene = scene_tunnel(kinds, two_hosts(v6), MacAddress(OWN_MAC));
        Self { scene, v6 }
    }

    fn other(&mut self) -> &mut Guest {
        &mut self.scene.guests[1]
    }

    /// The other host asks for this one's MAC address, and gets the answer.
    fn other_asks(&mut self) {
        let question = match ends(self.v6) {
            [IpAddr::V4(own), IpAddr::V4(other)] => frame::arp_request(OTHER_MAC, other, own),
            [IpAddr::V6(own), IpAddr::V6(other)] => {
                frame::neighbour_solicitation(OTHER_MAC, other, own)
            }
            _ => unreachable!("of one family"),
        };
        self.other().send(&question);
        self.scene.turn();
        let (answer, _) = self.other().received().unwrap();
        let link = ethernet::Frame::new_checked(&answer[..]).unwrap();
        assert_eq!((link.source(), link.destination()), (OWN_MAC, OTHER_MAC));
        if self.v6 {
            let told = ndisc::Neighbour::new_checked(&answer[54..]).unwrap();
            assert_eq!(told.mac(), Some(OWN_MAC));
        } else {
            let told = arp::Packet::new_checked(&answer[14..]).unwrap();
            assert_eq!((told.operation(), told.sender_mac()), (arp::REPLY, OWN_MAC));
        }
    }

    fn tunnel(&self, there: bool) -> Tunnel {
        let [own, other] = ends(self.v6);
        let (local, remote) = if there { (own, other) } else { (other, own) };
        Tunnel {
            network_id: *self
                .scene
                .worker
                .engine
                .read()
                .snapshot()
                .unwrap()
                .networks
                .keys()
                .next()
                .unwrap(),
            kind: NetworkType::Vxlan,
            vni: 100,
            local,
            remote,
            mtu: 1_500,
        }
    }

    /// A frame in its tunnel, to the other host or from there.
    fn tunnelled(&self, frame: &[u8], tuple: Tuple, there: bool) -> Vec<u8> {
        let mut whole = encapsulate(frame, &self.tunnel(there), tuple, None);
        let (to, from) = if there {
            (OTHER_MAC, OWN_MAC)
        } else {
            (OWN_MAC, OTHER_MAC)
        };
        whole[..6].copy_from_slice(&to);
        whole[6..12].copy_from_slice(&from);
        whole
    }
}

fn tuple(protocol: u8, source_port: u16) -> Tuple {
    Tuple {
        protocol,
        source: Ipv4Addr::new(10, 0, 0, 1).into(),
        destination: Ipv4Addr::new(10, 0, 0, 2).into(),
        source_port,
        destination_port: 2_000,
        vlan: GuestVlan::default(),
    }
}

/// The answer to [`datagram`].
fn answer(port: u16, payload: usize) -> Vec<u8> {
    let link = Link {
        source: [2, 0, 0, 0, 0, 2],
        destination: [2, 0, 0, 0, 0, 1],
    };
    let addresses = Ip::new(Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1));
    let ports = udp::Repr {
        source_port: 2_000,
        destination_port: port,
    };
    frame::udp(link, addresses, ports, &vec![0x5a; payload])
}

#[test]
fn frames_go_to_the_other_host_and_come_from_there_whole() {
    for v6 in [false, true] {
        for (packed, apart, buffer) in
            [(false, false, 2_048), (true, true, 700), (false, true, 200)]
        {
            let kind = Kind {
                packed,
                apart,
                buffer,
                ..PLAIN
            };
            let mut hosts = Hosts::met([kind; 2], v6);
            for (n, payload) in (0u16..).zip([0, 1, 22, 86, 87, 500, 1_400, 0, 1_400]) {
                // The first packet of a session, and one of a known one.
                let port = 1_000 + n % 7;
                let frame = datagram(port, payload);
                hosts.scene.guests[0].send(&frame);
                hosts.scene.turn();
                let (have, _) = hosts.other().received().unwrap_or_default();
                let wanted = hosts.tunnelled(&frame, tuple(protocol::UDP, port), true);
                assert_eq!(have, wanted, "{kind:?} v6 {v6}: {payload} bytes");
                let back = answer(port, payload);
                let reversed = tuple(protocol::UDP, port).reversed();
                let inside = hosts.tunnelled(&back, reversed, false);
                hosts.other().send(&inside);
                hosts.scene.turn();
                let (have, _) = hosts.scene.guests[0].received().unwrap_or_default();
                assert_eq!(have, back, "{kind:?} v6 {v6}: {payload} bytes");
                for guest in &mut hosts.scene.guests {
                    assert!(guest.send.collect().is_some(), "the buffer is given back");
                    guest.receive_offer(32);
                }
            }
            let totals = hosts.scene.counters[1].totals();
            assert_eq!(totals.drops.values().sum::<u64>(), 0, "{totals:?}");
        }
    }
}

#[test]
fn the_other_host_is_asked_for_once_a_second_until_it_is_known() {
    for v6 in [false, true] {
        let mut hosts = Hosts::strange([PLAIN; 2], v6);
        // Of its own accord, when a second begins.
        hosts.scene.turn();
        let (question, _) = hosts.other().received().unwrap();
        let wanted = match ends(v6) {
            [IpAddr::V4(own), IpAddr::V4(other)] => frame::arp_request(OWN_MAC, own, other),
            [IpAddr::V6(own), IpAddr::V6(other)] => {
                frame::neighbour_solicitation(OWN_MAC, own, other)
            }
            _ => unreachable!("of one family"),
        };
        assert_eq!(question, wanted);
        for _ in 0..2 {
            hosts.scene.guests[0].send(&datagram(1_000, 8));
            hosts.scene.turn();
        }
        assert_eq!(hosts.scene.drops(0, DropReason::NeighbourUnresolved), 2);
        assert!(hosts.other().received().is_none(), "asked in this second");
        hosts.scene.worker.turn(Duration::from_secs(6));
        assert_eq!(hosts.other().received().unwrap().0, wanted);
        hosts.other_asks();
        hosts.scene.guests[0].send(&datagram(1_000, 8));
        hosts.scene.turn();
        assert!(hosts.other().received().is_some());
        hosts.scene.worker.turn(Duration::from_secs(7));
        assert!(hosts.other().received().is_none(), "it is known");
    }
}

#[test]
fn what_a_guest_leaves_undone_is_done_before_it_goes_into_a_tunnel() {
    let kind = Kind {
        features: feature::NET_CHECKSUM | feature::NET_HOST_TSO4,
        ..PLAIN
    };
    let other = Kind {
        features: 0,
        ..PLAIN
    };
    let mut hosts = Hosts::met([kind, other], false);
    let link = Link {
        source: [2, 0, 0, 0, 0, 1],
        destination: [2, 0, 0, 0, 0, 2],
    };
    let addresses = Ip::new(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    for (flags, payload, segments) in [(tcp::SYN, 0, 1), (tcp::ACK, 2_500, 3)] {
        let segment = tcp::Repr {
            source_port: 1_000,
            destination_port: 2_000,
            sequence: 7,
            flags,
            acknowledgment: 1,
            window: 1_000,
        };
        let payload = vec![0x5a; payload];
        let frame = frame::tcp(link, addresses, segment, &payload);
        let mut header = [0; virtio_net::HEADER_BYTES];
        if segments > 1 {
            // Needs a checksum, from 34 on at 16; TCP over IPv4 in segments of 1,000 behind headers of 54 bytes.
            header = [1, 1, 54, 0, 232, 3, 34, 0, 16, 0];
        }
        hosts.scene.guests[0].send_with(header, &frame);
        hosts.scene.turn();
        for number in 0..segments {
            let part = &payload[(number * 1_000).min(payload.len())..];
            let part = &part[..part.len().min(1_000)];
            let (have, _) = hosts.other().received().unwrap_or_default();
            let outer = have.len() - 54 - part.len();
            let inner = &have[outer..];
            let sequence = 7 + u32::try_from(number * 1_000).unwrap();
            let wanted = frame::tcp(
                link,
                addresses,
                tcp::Repr {
                    sequence,
                    ..segment
                },
                part,
            );
            assert_eq!(
                inner[34..],
                wanted[34..],
                "segment {number}: checksum and all"
            );
            assert_eq!(
                have,
                hosts.tunnelled(inner, tuple(protocol::TCP, 1_000), true)
            );
        }
        assert!(hosts.other().received().is_none());
    }
}

#[test]
fn nothing_comes_out_of_a_tunnel_but_from_a_host_of_the_cloud_for_a_network_of_this_one() {
    let mut hosts = Hosts::met([PLAIN; 2], false);
    let frame = answer(4_000, 8);
    let reversed = tuple(protocol::UDP, 4_000).reversed();
    let good = hosts.tunnelled(&frame, reversed, false);
    let spoil = |at: usize, byte: u8| {
        let mut wrong = good.clone();
        wrong[at] = byte;
        wrong
    };
    for (wrong, reason) in [
        (spoil(29, 77), DropReason::TunnelSenderUnknown),
        (spoil(48, 77), DropReason::TunnelNetworkUnknown),
        (spoil(42, 0), DropReason::TunnelMalformed),
        (good[..good.len() - 1].to_vec(), DropReason::TunnelMalformed),
        (spoil(61, 77), DropReason::RogueSource),
        (spoil(55, 77), DropReason::DestinationMacUnknown),
    ] {
        let before = hosts.scene.drops(1, reason);
        hosts.other().send(&wrong);
        hosts.scene.turn();
        assert_eq!(hosts.scene.drops(1, reason), before + 1, "{reason}");
        assert!(hosts.scene.guests[0].received().is_none(), "{reason}");
    }
    // To another address, or no tunnel at all: nobody's.
    for other in [spoil(33, 77), datagram(1, 1)] {
        let before = hosts.scene.drops(1, DropReason::ServiceOff);
        hosts.other().send(&other);
        hosts.scene.turn();
        assert_eq!(hosts.scene.drops(1, DropReason::ServiceOff), before + 1);
    }
    hosts.other().send(&good);
    hosts.scene.turn();
    assert_eq!(hosts.scene.guests[0].received().unwrap().0, frame);
}
