//! Copies of multicast and broadcast frames to the members of their network. docs/pipeline.md, section 9.
//!
//! Guarantees: each destination's rules hold for its copy; never the sender's port, never another network.

use super::{Beside, On, opening_of};
use crate::engine::Engine;
use crate::engine::judge::packet_bytes;
use crate::engine::walk;
use weft_dataplane::Verdict;
use weft_dataplane::flow::bucket;
use weft_dataplane::stage::decode::{Body, Packet};
use weft_dataplane::stage::{dhcp, guest_vlan, tunnel};
use weft_model::DropReason;
use weft_model::limits::MULTICAST_COPIES_MAX;

impl Engine {
    /// Copies to the members of the packet's network.
    pub(super) fn multicast(
        &mut self,
        on: &On<'_>,
        packet: &Packet,
        beside: &mut Beside,
    ) -> Result<Verdict, DropReason> {
        let (network, frame) = (on.network.id, on.frame.to_vec());
        let itself = match (on.port, on.network.physical) {
            (Some(_), true) => Verdict::Uplink { network, frame },
            (None, true) => Verdict::Pass,
            (_, false) => Verdict::Multicast,
        };
        self.limit(on.place, on.network.place, on.units(), on.now)?;
        let all = on.network.ports.len() + on.network.hosts.len();
        let cost = u32::try_from(all).unwrap_or(u32::MAX);
        let unlimited = on.port.is_none() && !on.network.physical;
        let refused = if cost > MULTICAST_COPIES_MAX {
            Some(DropReason::MulticastUnsupported)
        } else {
            let bucket = self.copy_buckets.get_mut(on.place.at());
            let some = bucket.is_some_and(|b| b.take(bucket::MULTICAST, cost, on.now.s));
            (!unlimited && !some).then_some(DropReason::MulticastRateLimit)
        };
        match (refused, &itself) {
            (Some(reason), Verdict::Multicast) => return Err(reason),
            (Some(_), _) => {}
            (None, _) => self.copies(on, packet, beside),
        }
        Ok(itself)
    }

    /// Copies of ARP or ND from the uplink, to all who are up.
    pub(super) fn overheard(&mut self, on: &On<'_>, beside: &mut Beside) {
        let all = on.network.ports.len() + on.network.hosts.len();
        let cost = u32::try_from(all).unwrap_or(u32::MAX);
        let bucket = self.copy_buckets.get_mut(on.place.at());
        let paid = |cost| bucket.is_some_and(|b| b.take(bucket::MULTICAST, cost, on.now.s));
        if cost > MULTICAST_COPIES_MAX || !paid(cost) {
            return;
        }
        let ports = on.network.ports.iter();
        let ports = ports.filter_map(|place| on.plan.port(*place));
        beside
            .copies
            .extend(ports.filter(|port| port.up).map(|port| Verdict::Deliver {
                port: port.id,
                frame: on.frame.to_vec(),
            }));
    }

    fn copies(&mut self, on: &On<'_>, packet: &Packet, beside: &mut Beside) {
        let Body::Ip(ip) = &packet.body else {
            return;
        };
        let opening = opening_of(on, packet, ip);
        for place in on.network.ports.iter().filter(|place| **place != on.place) {
            let arrived = walk::arrive(on.plan, &self.neighbours, &opening, *place);
            let port = on.plan.port(*place).filter(|_| arrived.is_ok());
            let port = port.and_then(|p| Some((p.id, on.plan.snapshot.ports.get(&p.id)?)));
            let port = port.filter(|(_, p)| !dhcp::is_owned(&on.plan.snapshot, p, ip.tuple));
            let Some((port, _)) = port else { continue };
            // The sender's limits were asked already.
            if self
                .limit(on.network.place, *place, on.units(), on.now)
                .is_ok()
            {
                let frame = on.frame.to_vec();
                beside.copies.push(Verdict::Deliver { port, frame });
            }
        }
        let bytes = packet_bytes(on.load, on.frame.len()).unwrap_or(ip.ip_bytes);
        let hosts = on.network.hosts.values().filter(|tunnel| {
            let fits = u32::try_from(bytes).is_ok_and(|bytes| bytes <= tunnel.mtu);
            fits && on.port.is_some()
        });
        let frame = guest_vlan::put_borrowed(on.sight.tag, on.frame);
        beside.copies.extend(hosts.map(|tunnel| Verdict::Tunnel {
            frame: tunnel::encapsulate(&frame, tunnel, ip.tuple, None),
        }));
    }
}
