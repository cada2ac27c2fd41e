//! Chapter 7: a guest sends frames that claim to come from somebody else; each dies, and its reason is told.

use super::Story;
use crate::scene::Scene;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use weft_kit::Guest;
use weft_kit::capture::Capture;
use weft_kit::clock::{now, until};
use weft_kit::frame::{self, ArpSide, Mac};

/// How often each frame is sent.
const TIMES: u64 = 3;
/// How long the victim listens for what must not come.
const LISTEN: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_secs(3);

/// A frame that no honest guest sends, and the reason that must be given for its death.
struct Lie {
    what: &'static str,
    reason: &'static str,
    frame: Vec<u8>,
}

pub(super) fn play(story: &mut Story, scene: &mut Scene) -> Result<()> {
    let [victim, liar, _] = story.guests()?;
    let mac = frame::mac(&liar.port.mac)?;
    let victim_mac = frame::mac(&victim.port.mac)?;
    let lies = lies(mac, liar.port.v4()?, victim_mac, victim.port.v4()?);
    let mut sender = Capture::open(&liar.namespace, "eth0")?;
    let mut listener = Capture::open(&victim.namespace, "eth0")?;
    for lie in lies {
        let Lie {
            what,
            reason,
            frame,
        } = lie;
        let before = dropped(scene, liar, reason)?;
        let start = now();
        for _ in 0..TIMES {
            sender.send(&frame)?;
        }
        let hex = frame.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        scene.report.command(
            "guest2",
            &format!("send {TIMES} frames: {what}"),
            start.elapsed(),
        );
        let counted = until("the counter", TIMEOUT, || {
            let count = dropped(scene, liar, reason)? - before;
            Ok((count >= TIMES).then_some(count))
        });
        let counted = counted.map_or_else(|error| format!("{error:#}"), |count| count.to_string());
        scene
            .report
            .equal(&format!("weft stats: {reason}"), TIMES, counted);
        let traced = scene
            .site_of(&liar.name)?
            .ask(&format!("trace --port {} --frame {hex}", liar.port.id))?;
        let named = reason_of(&traced);
        scene
            .report
            .equal(&format!("weft trace: {what}"), reason, named);
        let arrived = listener.find(LISTEN, |seen| seen.get(6..) == frame.get(6..))?;
        let happened = if arrived.is_some() {
            "it arrives"
        } else {
            "nothing"
        };
        scene.report.equal("guest1 sees of it", "nothing", happened);
    }
    Ok(())
}

fn lies(mac: Mac, address: Ipv4Addr, victim_mac: Mac, victim: Ipv4Addr) -> Vec<Lie> {
    let stranger: Mac = [0x02, 0, 0, 0, 0, 0x99];
    let router = Ipv4Addr::new(192, 0, 2, 1);
    let ping = |source| frame::ipv4(source, victim, 1, &frame::echo_request(7));
    let link_local = eui64_link_local(mac);
    let offer = frame::udp(67, 68, &[2; 240]);
    let claim = ArpSide { mac, ip: router };
    let router_v6 = Ipv6Addr::new(0xfd00, 0x192, 0, 2, 0, 0, 0, 1);
    vec![
        Lie {
            what: "a foreign source MAC",
            reason: "spoofed_mac",
            frame: frame::ethernet(victim_mac, stranger, 0x0800, &ping(address)),
        },
        Lie {
            what: "a foreign source address",
            reason: "spoofed_ip",
            frame: frame::ethernet(
                victim_mac,
                mac,
                0x0800,
                &ping(Ipv4Addr::new(192, 0, 2, 251)),
            ),
        },
        Lie {
            what: "ARP: the router's address is mine",
            reason: "spoofed_arp",
            frame: frame::arp(
                mac,
                2,
                claim,
                ArpSide {
                    mac: victim_mac,
                    ip: victim,
                },
            ),
        },
        Lie {
            what: "ND: the router's address is mine",
            reason: "spoofed_nd",
            frame: frame::neighbour_advertisement(mac, link_local, router_v6),
        },
        Lie {
            what: "RA: I am the router",
            reason: "rogue_ra",
            frame: frame::router_advertisement(mac, link_local),
        },
        Lie {
            what: "DHCP: I am the server",
            reason: "rogue_dhcp",
            frame: frame::ethernet(
                victim_mac,
                mac,
                0x0800,
                &frame::ipv4(address, victim, 17, &offer),
            ),
        },
    ]
}

/// RFC 4291, appendix A.
fn eui64_link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let interface = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    let mut octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    octets[8..].copy_from_slice(&interface);
    Ipv6Addr::from(octets)
}

/// How many frames of a guest died for a reason, by its host's `weft stats`.
fn dropped(scene: &Scene, guest: &Guest, reason: &str) -> Result<u64> {
    let port_id = guest.port.id.as_str();
    let stats = scene.site_of(&guest.name)?.ask("stats")?;
    let mut ports = stats["ports"].as_array().into_iter().flatten();
    let port = ports.find(|port| port["port_id"] == port_id);
    let port = port.with_context(|| format!("no counters of {port_id}: {stats}"))?;
    let mut drops = port["drops"].as_array().into_iter().flatten();
    let drop = drops.find(|drop| drop["reason"] == reason);
    Ok(drop.and_then(|drop| drop["packets"].as_u64()).unwrap_or(0))
}

/// The reason that a trace ends with, else its verdict.
fn reason_of(trace: &Value) -> &str {
    let verdict = trace["verdict"].as_str().unwrap_or("no verdict");
    trace["drop_reason"].as_str().unwrap_or(verdict)
}
