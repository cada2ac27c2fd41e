//! An interface of several queues, one that has no XDP of its own, and what the kernel drops while nobody polls.

use crate::{GUEST, OTHER, PORT, Scene, TIMEOUT, Wire, payload, queues_of};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use weft_kit::clock;
use weft_kit::lab::Process;
use weft_wire::frame::{self, Ip, Link};
use weft_wire::udp;

/// Flows, by the other side's ports, and datagrams of each both ways.
const FLOWS: u16 = 24;
const FIRST: u16 = 3_000;
const ROUNDS: u16 = 20;
/// Sent while nobody polls: more than all buffers hold.
const UNPOLLED: u16 = 3_000;

const V4: [&str; 2] = ["172.16.0.1", "172.16.0.2"];
const V6: [&str; 2] = ["fd00:16::1", "fd00:16::2"];

fn tunnels(of: [&str; 2]) -> Result<[IpAddr; 2]> {
    Ok([of[0].parse()?, of[1].parse()?])
}

impl Scene {
    /// Each datagram of each flow is answered by the next one: all are whole, and none is lost.
    fn flows(&mut self) -> Result<()> {
        let sockets: Vec<UdpSocket> = (0..FLOWS)
            .map(|flow| {
                let socket = self.other.udp(OTHER.0.into(), FIRST + flow)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .collect::<Result<_>>()?;
        for round in 0..ROUNDS {
            for (flow, socket) in (0..FLOWS).zip(&sockets) {
                socket.send_to(&payload(flow * ROUNDS + round), (GUEST.0, PORT))?;
            }
            for _ in 0..FLOWS {
                self.answer()?;
            }
            for (flow, socket) in (0..FLOWS).zip(&sockets) {
                let mut bytes = [0; 2_048];
                let got = clock::until("an answer", TIMEOUT, || match socket.recv(&mut bytes) {
                    Ok(got) => Ok(Some(got)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                    Err(error) => Err(error.into()),
                })?;
                let expected = payload(flow * ROUNDS + round);
                ensure!(
                    bytes[..got] == expected,
                    "flow {flow}, {round}: {got} bytes"
                );
            }
        }
        Ok(())
    }

    /// The guest sends the next datagram that comes back to where it came from, as it is.
    fn answer(&mut self) -> Result<()> {
        let guest = &mut self.guest;
        let came = clock::until("a datagram at the guest", TIMEOUT, || {
            let came = guest.receive(0)?;
            Ok(came.filter(|came| came.get(23) == Some(&17)))
        })?;
        let port = came.get(34..36).context("a port")?;
        let port = u16::from_be_bytes([port[0], port[1]]);
        let link = Link {
            source: GUEST.1,
            destination: OTHER.1,
        };
        let ports = udp::Repr {
            source_port: PORT,
            destination_port: port,
        };
        let whole = came.get(crate::PAYLOAD_AT..).context("a payload")?;
        let frame = frame::udp(link, Ip::new(GUEST.0, OTHER.0), ports, whole);
        ensure!(guest.send(0, &frame)?, "a buffer is free");
        Ok(())
    }

    fn stop(&self, running: Process) -> Result<()> {
        let status = running.stop(Signal::TERM)?;
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        ensure!(status.success(), "{status}: {log}");
        Ok(())
    }
}

/// Of several queues each has a socket, and what comes on any of them arrives.
fn spread(of: [&str; 2], queues: u32) -> Result<()> {
    let wire = Wire {
        queues,
        ..Wire::default()
    };
    let mut scene = Scene::with(tunnels(of)?, wire)?;
    let running = scene.switch_start()?;
    scene.ping()?;
    scene.flows()?;
    let counts = queues_of(&scene.host)?;
    ensure!(counts.len() == usize::try_from(queues)?, "{counts:?}");
    let used = counts.iter().filter(|count| **count > 0).count();
    ensure!(used > 1, "flows came on one queue alone: {counts:?}");
    let stats = scene.ask(&["stats"])?;
    let xdp = &stats["underlay"]["xdp"];
    ensure!(xdp["queues"] == queues, "{stats}");
    for kind in ["rx_dropped", "rx_ring_full", "fill_ring_empty", "refused"] {
        ensure!(xdp[kind] == 0, "{stats}");
    }
    scene.stop(running)
}

#[test]
fn two_queues_lead_to_linux_vxlan() -> Result<()> {
    spread(V4, 2)
}

#[test]
fn four_queues_lead_to_linux_vxlan_over_ipv6() -> Result<()> {
    spread(V6, 4)
}

/// A veth has no XDP of its own with frames that do not fit a page: then the kernel runs the program itself.
#[test]
fn an_interface_without_xdp_of_its_own_leads_to_linux_vxlan() -> Result<()> {
    for of in [V4, V6] {
        let wire = Wire {
            queues: 2,
            mtu: 3_700,
        };
        let mut scene = Scene::with(tunnels(of)?, wire)?;
        let running = scene.switch_start()?;
        scene.ping()?;
        scene.flows()?;
        let links = scene.host.run("ip link show dev eth0")?;
        ensure!(links.contains("xdpgeneric"), "{links}");
        let log = std::fs::read_to_string(scene.log())?;
        ensure!(log.contains("generic"), "{log}");
        scene.stop(running)?;
    }
    Ok(())
}

/// A switch that is stopped for a while loses what does not fit its buffers, and says how much.
#[test]
fn what_nobody_polls_is_counted() -> Result<()> {
    let mut scene = Scene::new(tunnels(V4)?)?;
    let running = scene.switch_start()?;
    scene.ping()?;
    running.signal(Signal::STOP)?;
    let socket = scene.other.udp(OTHER.0.into(), PORT)?;
    for number in 0..UNPOLLED {
        socket.send_to(&payload(number), (GUEST.0, PORT))?;
    }
    running.signal(Signal::CONT)?;
    let lost = clock::until("the drops to be told", TIMEOUT, || {
        let stats = scene.ask(&["stats"])?;
        let xdp = &stats["underlay"]["xdp"];
        let counts = ["rx_dropped", "rx_ring_full"];
        let lost: u64 = counts.iter().filter_map(|kind| xdp[*kind].as_u64()).sum();
        Ok((lost > 0).then_some(lost))
    })?;
    eprintln!("{lost} of {UNPOLLED} lost while nobody polled");
    ensure!(lost < u64::from(UNPOLLED), "{lost}: what fits is kept");
    let output = scene.question(&["stats"])?.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("AF_XDP on the underlay"), "{text}");
    // It goes on: what is left of before is taken first.
    while scene.guest.receive(0)?.is_some() {}
    scene.ping()?;
    scene.stop(running)
}
