//! Copies of multicast and broadcast frames to the members of their network. docs/pipeline.md, section 9.

use super::{Notes, Packets, Reference};
use crate::flow::bucket;
use crate::flow::key::Ingress;
use crate::flow::session::Tunnel;
use crate::mutant::Mutant;
use crate::stage::decode::{Body, Packet};
use crate::stage::{dhcp, guest_vlan, multicast, qos, session, tunnel};
use crate::topology;
use crate::trace::Verdict;
use crate::walk::Walk;
use weft_model::{DropReason, PortId, Stage};

impl Reference {
    /// Copies to the members of the packet's network.
    pub(super) fn multicast(
        &mut self,
        on: &Packets<'_>,
        packet: &Packet,
        notes: &mut Notes,
    ) -> Result<Verdict, DropReason> {
        let (sight, network) = (on.sight, on.sight.network_id);
        let frame = on.frame.to_vec();
        let itself = match sight.port {
            Some(_) if sight.is_physical() => Verdict::Uplink { network, frame },
            None if sight.is_uplink() => Verdict::Pass,
            _ => Verdict::Multicast,
        };
        self.limit(on, Ingress::Network(network), [None; 2], notes)?;
        let members = multicast::Members::of(sight.snapshot, network);
        let refused = match members.cost() {
            None => Some(DropReason::MulticastUnsupported),
            Some(cost) => {
                let bucket = self.copy_buckets.entry(sight.ingress).or_default();
                let some = sight.is_tunnel() || bucket.take(bucket::MULTICAST, cost, on.now_s);
                (!some).then_some(DropReason::MulticastRateLimit)
            }
        };
        match (refused, &itself) {
            (Some(reason), Verdict::Multicast) => return Err(reason),
            (Some(reason), _) => {
                let words = format!("no copies: {}", reason.sentence());
                notes.trace.say(Stage::Bridge, words);
            }
            (None, _) => {
                let others = members.others(&sight);
                for port in others.ports {
                    if let Err(reason) = self.copy_deliver(on, packet, port, notes) {
                        let words = format!("no copy to port {port}: {reason}");
                        notes.trace.say(reason.stage(), words);
                    }
                }
                for tunnel in &others.hosts {
                    copy_tunnel(on, packet, tunnel, notes);
                }
            }
        }
        Ok(itself)
    }

    /// Copies of ARP or ND from the uplink, to all who are up.
    pub(super) fn overheard(&mut self, on: &Packets<'_>, notes: &mut Notes) {
        let members = multicast::Members::of(on.sight.snapshot, on.sight.network_id);
        let bucket = self.copy_buckets.entry(on.sight.ingress).or_default();
        let some = members.cost();
        if !some.is_some_and(|cost| bucket.take(bucket::MULTICAST, cost, on.now_s)) {
            return notes.trace.say(Stage::ArpNd, "no copies");
        }
        for port in members.others(&on.sight).ports {
            let there = on.sight.snapshot.ports.get(&port);
            if there.is_some_and(|port| topology::is_up(on.sight.snapshot, port)) {
                let words = format!("a copy to port {port}");
                notes.trace.say(Stage::Deliver, words);
                let frame = on.frame.to_vec();
                notes.copies.push(Verdict::Deliver { port, frame });
            }
        }
    }

    fn copy_deliver(
        &mut self,
        on: &Packets<'_>,
        packet: &Packet,
        port: PortId,
        notes: &mut Notes,
    ) -> Result<(), DropReason> {
        let Body::Ip(ip) = &packet.body else {
            return Err(DropReason::EngineError);
        };
        let opening = session::opening(packet, ip);
        let mut walk = Walk::new(on.sight, opening, &self.neighbours, &mut notes.trace);
        if !on.sight.has(Mutant::MulticastIngress) {
            walk.arrive(port)?;
        }
        let to = on.sight.snapshot.ports.get(&port);
        let to = to.ok_or(DropReason::EngineError)?;
        if dhcp::is_owned(on.sight.snapshot, to, ip.tuple) {
            return Ok(());
        }
        let (snapshot, bytes) = (on.sight.snapshot, on.frame.len());
        let passage = qos::Passage {
            from: Ingress::Network(on.sight.network_id),
            to: Ingress::Port(port),
            accounts: [None; 2],
        };
        qos::process(snapshot, &mut self.ledger, &passage, bytes, on.now_s)?;
        notes
            .trace
            .say(Stage::Deliver, format!("a copy to port {port}"));
        let frame = on.frame.to_vec();
        notes.copies.push(Verdict::Deliver { port, frame });
        Ok(())
    }
}

fn copy_tunnel(on: &Packets<'_>, packet: &Packet, tunnel: &Tunnel, notes: &mut Notes) {
    let Body::Ip(ip) = &packet.body else {
        return;
    };
    let fits = u32::try_from(ip.ip_bytes).is_ok_and(|bytes| bytes <= tunnel.mtu);
    if !fits {
        let words = format!("no copy to {}: {}", tunnel.remote, DropReason::MtuExceeded);
        return notes.trace.say(Stage::Mtu, words);
    }
    notes
        .trace
        .say(Stage::Tunnel, format!("a copy to {}", tunnel.remote));
    let frame = guest_vlan::put_borrowed(on.sight.tag, on.frame);
    let frame = tunnel::encapsulate(&frame, tunnel, ip.tuple, on.sight.mutant);
    notes.copies.push(Verdict::Tunnel { frame });
}
