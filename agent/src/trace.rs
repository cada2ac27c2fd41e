//! `weft trace`: the reference engine on the snapshot in force explains what becomes of a packet.
//!
//! Guarantees: the answer follows docs/pipeline.md for a first packet under the snapshot and the neighbours in force; what
//! it does not know of the kernel's state (sessions, fragments, rates) it says in a note.

use crate::question::Ground;
use crate::socket::{
    FiveTuple, Session, TraceAnswer, TraceIngress, TracePacket, TraceRequest, TraceStep,
};
use crate::view::vlan_id;
use std::net::IpAddr;
use weft_dataplane::stage::vlan;
use weft_dataplane::{Ingress, Outcome, Reference, ReferenceConfig, Verdict};
use weft_model::{
    DropReason, HostSnapshot, MacAddress, NetworkId, Port, Router, RouterAddress, eui64_link_local,
};
use weft_wire::{ethernet, frame, protocol, tcp, udp};

/// Bytes of a frame that is traced.
const FRAME_BYTES_MAX: usize = 65_549;
/// A station outside whose MAC address is not known; locally administered.
const STRANGER: MacAddress = MacAddress([0x02, 0x57, 0x45, 0x46, 0x54, 0xff]);

/// Answers a question; the error is for the one who asked.
pub(crate) fn trace(request: &TraceRequest, ground: &Ground) -> Result<TraceAnswer, String> {
    let snapshot = &ground.snapshot;
    let ingress = match request.ingress {
        TraceIngress::Port(id) if snapshot.ports.contains_key(&id) => Ingress::Port(id),
        TraceIngress::Port(id) => {
            return Err(format!("port {id} is not on this host; see `weft status`"));
        }
        TraceIngress::Network(id) if snapshot.networks.contains_key(&id) => Ingress::Network(id),
        TraceIngress::Network(id) => return Err(format!("network {id} is not on this host")),
    };
    let frame = match &request.packet {
        TracePacket::Frame(hex) => unhex(hex)?,
        TracePacket::FiveTuple(tuple) => match (ingress, build(ground, ingress, tuple)?) {
            (Ingress::Network(id), frame) => vlan::tagged(snapshot, id, frame),
            (_, frame) => frame,
        },
    };
    let mut reference = Reference::new(ReferenceConfig::default());
    reference.apply(snapshot.clone());
    for (network_id, address, mac) in &ground.neighbours {
        reference.neighbour_put(*network_id, *address, *mac);
    }
    let outcome = reference.process(ingress, &frame, 0);
    Ok(answer(
        &frame,
        &outcome,
        notes(ground, request.ingress, &outcome),
    ))
}

fn answer(frame: &[u8], outcome: &Outcome, notes: Vec<String>) -> TraceAnswer {
    let (verdict, text, reason, output) = told(&outcome.verdict);
    TraceAnswer {
        revision: outcome.revision,
        frame: hex(frame),
        steps: outcome
            .steps
            .iter()
            .map(|step| TraceStep {
                stage: step.stage,
                decision: step.decision.clone(),
                rule: step.rule,
            })
            .collect(),
        verdict: verdict.to_owned(),
        verdict_text: text,
        drop_reason: reason,
        output: output.map(hex),
        notes,
    }
}

fn told(verdict: &Verdict) -> (&'static str, String, Option<DropReason>, Option<&[u8]>) {
    match verdict {
        Verdict::Drop(reason) => {
            let text = format!("dropped: {reason}: {}", reason.sentence());
            ("drop", text, Some(*reason), None)
        }
        Verdict::Deliver { port, frame } => (
            "deliver",
            format!("delivered to port {port}"),
            None,
            Some(frame),
        ),
        Verdict::Uplink { network, frame } => {
            let text = format!("out of the interface of network {network}");
            ("uplink", text, None, Some(frame))
        }
        Verdict::Tunnel { frame } => (
            "tunnel",
            "by a tunnel to another host".to_owned(),
            None,
            Some(frame),
        ),
        Verdict::Reply { frame } => (
            "reply",
            "answered to where it came from".to_owned(),
            None,
            Some(frame),
        ),
        Verdict::Service(service) => {
            let text = format!("handed to the agent's service {}", service.name());
            ("service", text, None, None)
        }
        Verdict::Multicast => {
            let text = "to the members of its network alone".to_owned();
            ("multicast", text, None, None)
        }
        Verdict::Pass => {
            let text = "not Weft's: left to the host's own stack".to_owned();
            ("pass", text, None, None)
        }
    }
}

/// What the trace left out.
fn notes(ground: &Ground, ingress: TraceIngress, outcome: &Outcome) -> Vec<String> {
    let mut notes = vec![
        "traced as a first packet: sessions, fragments and rates of the kernel engine are not looked at".to_owned(),
    ];
    let Some(tuple) = outcome.tuple else {
        return notes;
    };
    let asked = FiveTuple {
        protocol: tuple.protocol,
        source: tuple.source,
        destination: tuple.destination,
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
    };
    let vlan = vlan_id(tuple.vlan.0);
    let mut sessions = ground.sessions.sessions.iter();
    let its = |s: &&Session| s.ingress == ingress && s.vlan == vlan && s.tuple == asked;
    if let Some(session) = sessions.find(its) {
        notes.push(format!(
            "the kernel engine has a session for it: {}, {} packets, idle for {} s",
            session.state, session.packets, session.idle_s
        ));
    }
    if let Verdict::Uplink { frame, .. } = &outcome.verdict
        && frame.starts_with(&[0; 6])
    {
        notes.push("the next hop's MAC address is not known: the agent asks for it and sends the frame then".to_owned());
    }
    notes
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    use std::fmt::Write;
    bytes.as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || {
        "a frame is written in pairs of hex digits; blanks and colons may stand between".to_owned()
    };
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .map(|c| u8::try_from(c.to_digit(16)?).ok())
        .collect();
    let digits = digits.ok_or_else(wrong)?;
    if digits.len() % 2 != 0 || digits.is_empty() {
        return Err(wrong());
    }
    if digits.len() / 2 > FRAME_BYTES_MAX {
        return Err(format!("a frame has at most {FRAME_BYTES_MAX} bytes"));
    }
    Ok(digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect())
}

/// The frame that a stack would send for a tuple.
fn build(ground: &Ground, ingress: Ingress, tuple: &FiveTuple) -> Result<Vec<u8>, String> {
    if tuple.source.is_ipv4() != tuple.destination.is_ipv4() {
        return Err("source and destination must be of one family".to_owned());
    }
    let link = match ingress {
        Ingress::Port(id) => {
            let port = ground.snapshot.ports.get(&id).ok_or("the port is gone")?;
            frame::Link {
                source: port.mac_address.0,
                destination: next_hop_mac(ground, port, tuple)?.0,
            }
        }
        Ingress::Network(id) => frame::Link {
            source: neighbour(ground, id, tuple.source).unwrap_or(STRANGER).0,
            destination: inward_mac(ground, id, tuple.destination)?.0,
        },
        Ingress::Underlay => return Err("a trace begins at a port or a network".to_owned()),
    };
    let addresses = frame::Ip::new(tuple.source, tuple.destination);
    let ports = (tuple.source_port, tuple.destination_port);
    Ok(match tuple.protocol {
        protocol::TCP => {
            let segment = tcp::Repr {
                source_port: ports.0,
                destination_port: ports.1,
                sequence: 1,
                acknowledgment: 0,
                flags: tcp::SYN,
                window: u16::MAX,
            };
            frame::tcp(link, addresses, segment, &[])
        }
        protocol::UDP => {
            let datagram = udp::Repr {
                source_port: ports.0,
                destination_port: ports.1,
            };
            frame::udp(link, addresses, datagram, &[])
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let echo = frame::Echo {
                reply: false,
                identifier: ports.0,
                sequence: 1,
            };
            frame::echo(link, addresses, echo, &[0; 56])
        }
        other => {
            // The other protocols with ports have them in front.
            let mut payload = [0; 20];
            payload[..2].copy_from_slice(&ports.0.to_be_bytes());
            payload[2..4].copy_from_slice(&ports.1.to_be_bytes());
            frame::ip(link, addresses, other, &payload)
        }
    })
}

/// The MAC address that the port's guest would send to: its neighbour's, else its gateway's.
fn next_hop_mac(ground: &Ground, port: &Port, tuple: &FiveTuple) -> Result<MacAddress, String> {
    let (snapshot, network_id) = (&ground.snapshot, port.network_id);
    match tuple.destination {
        IpAddr::V4(to) if to.is_multicast() || to.is_broadcast() => {
            return Ok(MacAddress(ethernet::BROADCAST));
        }
        IpAddr::V6(to) if to.is_multicast() => return Ok(MacAddress(ethernet::ipv6_multicast(to))),
        _ => {}
    }
    let on_link = snapshot
        .subnets_of(network_id)
        .any(|(_, subnet)| subnet.cidr.contains(&tuple.destination));
    let link_local = matches!(tuple.destination, IpAddr::V6(to) if to.is_unicast_link_local());
    let hop = if on_link || link_local {
        tuple.destination
    } else {
        gateway(snapshot, port, tuple.source).ok_or_else(|| {
            format!("{} is on no subnet of the port's network, and its subnet has no gateway; give a frame instead", tuple.destination)
        })?
    };
    owner(snapshot, network_id, hop)
        .or_else(|| neighbour(ground, network_id, hop))
        .ok_or_else(|| format!("nobody on the port's network has {hop}: ARP or ND would not answer; give a frame instead"))
}

fn gateway(snapshot: &HostSnapshot, port: &Port, source: IpAddr) -> Option<IpAddr> {
    let family = |ip: IpAddr| ip.is_ipv4() == source.is_ipv4();
    let own = port.fixed_ips.iter().filter(|ip| family(ip.ip_address));
    let subnets = own.filter_map(|ip| snapshot.subnets.get(&ip.subnet_id));
    let mut gateways: Vec<(bool, IpAddr)> = subnets
        .filter_map(|subnet| Some((!subnet.cidr.contains(&source), subnet.gateway_ip?)))
        .collect();
    gateways.sort_unstable();
    gateways.first().map(|(_, ip)| *ip)
}

fn neighbour(ground: &Ground, network_id: NetworkId, address: IpAddr) -> Option<MacAddress> {
    let mut known = ground.neighbours.iter();
    known
        .find(|(n, a, _)| *n == network_id && *a == address)
        .map(|(.., mac)| *mac)
}

/// Who answers ARP or ND for an address on a network, as docs/pipeline.md orders them.
fn owner(snapshot: &HostSnapshot, network_id: NetworkId, address: IpAddr) -> Option<MacAddress> {
    let routers = || snapshot.routers.values().filter(|r| r.admin_state_up);
    let legs = || routers().flat_map(|r| legs(r).filter(move |leg| leg.0 == network_id));
    let has = |mac: MacAddress, addresses: &[RouterAddress]| {
        addresses.iter().any(|a| a.ip_address == address) || address == eui64_link_local(mac)
    };
    let router = legs().find(|(_, mac, addresses)| has(*mac, addresses));
    let floating = snapshot.floating_ips.values().find(|ip| {
        ip.floating_network_id == network_id && IpAddr::from(ip.floating_ip_address) == address
    });
    let forwarded = snapshot.forwarded_ips.values().find(|ip| {
        ip.floating_network_id == network_id && IpAddr::from(ip.floating_ip_address) == address
    });
    let local = snapshot.ports.values().find(|port| {
        let fixed = port.fixed_ips.iter().any(|ip| ip.ip_address == address);
        port.network_id == network_id && (fixed || address == eui64_link_local(port.mac_address))
    });
    let remote = snapshot.remote_ports.values().find(|port| {
        let fixed = port.fixed_ips.iter().any(|ip| ip.ip_address == address);
        port.network_id == network_id && fixed
    });
    router
        .map(|(_, mac, _)| mac)
        .or(floating.map(|ip| ip.mac_address))
        .or(forwarded.map(|ip| ip.mac_address))
        .or(local.map(|port| port.mac_address))
        .or(remote.map(|port| port.mac_address))
}

type Leg<'a> = (NetworkId, MacAddress, &'a [RouterAddress]);

fn legs(router: &Router) -> impl Iterator<Item = Leg<'_>> {
    let inside = router
        .interfaces
        .iter()
        .map(|leg| (leg.network_id, leg.mac_address, leg.addresses.as_slice()));
    let outside = router.gateway.iter();
    inside.chain(outside.map(|leg| (leg.network_id, leg.mac_address, leg.addresses.as_slice())))
}

/// The MAC address that a station on the wire would send to: the owner's, else that of a gateway whose router leads there.
fn inward_mac(ground: &Ground, network_id: NetworkId, to: IpAddr) -> Result<MacAddress, String> {
    let snapshot = &ground.snapshot;
    if let Some(mac) = owner(snapshot, network_id, to) {
        return Ok(mac);
    }
    let leads = |router: &&Router| {
        let inside = router.interfaces.iter().flat_map(|leg| &leg.addresses);
        let mut subnets = inside.filter_map(|a| snapshot.subnets.get(&a.subnet_id));
        router.admin_state_up && subnets.any(|subnet| subnet.cidr.contains(&to))
    };
    let mut routers = snapshot.routers.values().filter(leads);
    let gateway = routers.find_map(|router| {
        let gateway = router.gateway.as_ref();
        gateway.filter(|leg| leg.network_id == network_id)
    });
    gateway.map(|leg| leg.mac_address).ok_or_else(|| {
        format!("nothing of this host answers for {to} on that network, and no router leads there; give a frame instead")
    })
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
