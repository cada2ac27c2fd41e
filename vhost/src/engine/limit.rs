//! QoS over a compiled snapshot: the limits of the two ports that a packet passes and of the addresses that NAT gives it, and
//! the mark of the first port.
//! docs/pipeline.md, section 6.
//!
//! Guarantees: sessions of ports and addresses without a policy never come here.

use super::key::Place;
use super::plan::{Plan, PortPlan};
use super::table::Ref;
use super::{Engine, Now};
use std::net::Ipv4Addr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use weft_dataplane::{Ingress, Way};
use weft_model::{DropReason, HostSnapshot, NetworkId, Port, PortId, QosDirection, Rate};
use weft_wire::virtio_net::Load;

/// What a port's QoS policy asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PortQos {
    /// Of bytes and of packets, from the guest.
    egress: [Option<Rate>; 2],
    /// Likewise to the guest.
    ingress: [Option<Rate>; 2],
    /// DSCP.
    pub(super) mark: Option<u8>,
}

impl PortQos {
    pub(super) fn new(snapshot: &HostSnapshot, port: &Port) -> Self {
        let policy = port.qos_policy_id;
        let policy = policy.and_then(|id| snapshot.qos_policies.get(&id));
        policy.map_or_else(Self::default, |policy| Self {
            egress: policy.rates(QosDirection::Egress),
            ingress: policy.rates(QosDirection::Ingress),
            mark: policy.dscp_mark,
        })
    }

    fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// The number of an address with limits; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Account(u16);

impl Account {
    pub(super) const NONE: Self = Self(0);

    /// In the order of [`AddressQos::all`].
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (1..=u16::MAX).map(Self)
    }

    fn at(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

/// What the QoS policy of a floating IP's or gateway's address asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressQos {
    pub(super) of: (NetworkId, Ipv4Addr),
    egress: [Option<Rate>; 2],
    ingress: [Option<Rate>; 2],
}

impl AddressQos {
    pub(super) fn all(snapshot: &HostSnapshot) -> Vec<Self> {
        let all = snapshot.qos_addresses().into_iter();
        let all = all.filter_map(|(of, id)| {
            let policy = snapshot.qos_policies.get(&id)?;
            Some(Self {
                of,
                egress: policy.rates(QosDirection::Egress),
                ingress: policy.rates(QosDirection::Ingress),
            })
        });
        all.collect()
    }
}

/// Up to when a port's limits are paid, as `weft_dataplane::stage::qos::Paid`: several workers pay.
pub(super) type Paid = [AtomicU64; 4];

fn take(rate: &Rate, paid: &AtomicU64, units: u64, now: Now) -> bool {
    let pay = |mut paid| rate.take(&mut paid, now.ns, units).then_some(paid);
    paid.fetch_update(Relaxed, Relaxed, pay).is_ok()
}

/// Whether a session between these places has to come here.
pub(super) fn is_limited(plan: &Plan, from: Place, to: Place) -> bool {
    let asks = |place| plan.port(place).is_some_and(|port| !port.qos.is_none());
    asks(from) || asks(to)
}

/// Bytes and packets of a frame; one of several segments counts as these, with the headers of each.
pub(super) fn units(load: &Load, frame_bytes: usize) -> [u64; 2] {
    let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    match load.segments {
        Some(segments) => {
            let count = segments.count(frame_bytes);
            let headers = (count - 1) * usize::from(segments.header_bytes);
            [wide(frame_bytes + headers), wide(count)]
        }
        None => [wide(frame_bytes), 1],
    }
}

impl Engine {
    /// Whether a frame may leave a port for the other engine, which limits no port of this one.
    ///
    /// # Errors
    /// A limit's refusal.
    pub fn limit_out(
        &self,
        from: Place,
        load: &Load,
        bytes: usize,
        now: Now,
    ) -> Result<(), DropReason> {
        self.limit(from, Place::default(), units(load, bytes), now)
    }

    /// Whether a frame that comes from the other engine may go to a port.
    ///
    /// # Errors
    /// A limit's refusal.
    pub fn limit_in(
        &self,
        to: Place,
        load: &Load,
        bytes: usize,
        now: Now,
    ) -> Result<(), DropReason> {
        self.limit(Place::default(), to, units(load, bytes), now)
    }

    /// Keeps what ports have paid that stay; `places` are the new ones already, the plan is the old one still.
    pub(super) fn paid_keep(&mut self, snapshot: &HostSnapshot) {
        let mut kept: Vec<Paid> = (0..self.places.len()).map(|_| Paid::default()).collect();
        let before = self.plan.as_ref().map(|plan| &plan.snapshot.ports);
        let stays = |id: &&PortId| before.is_some_and(|before| before.contains_key(id));
        for id in snapshot.ports.keys().filter(stays) {
            let at = self.places.of(Ingress::Port(*id)).unwrap_or_default().at();
            if let (Some(to), Some(from)) = (kept.get_mut(at), self.paid.get_mut(at)) {
                *to = std::mem::take(from);
            }
        }
        self.paid = kept;
    }

    /// The same of addresses, by the numbers of the plan that comes.
    pub(super) fn addresses_paid_keep(&mut self, next: &Plan) {
        let before = self.plan.as_ref().map(|plan| &plan.addresses);
        let before: Vec<_> = before.into_iter().flatten().map(|of| of.of).collect();
        let mut kept: Vec<Paid> = next.addresses.iter().map(|_| Paid::default()).collect();
        for (to, of) in kept.iter_mut().zip(&next.addresses) {
            let at = before.iter().position(|before| *before == of.of);
            if let Some(from) = at.and_then(|at| self.addresses_paid.get_mut(at)) {
                *to = std::mem::take(from);
            }
        }
        self.addresses_paid = kept;
    }

    /// Whether a frame of so many units may pass as one of a session's direction.
    pub(super) fn limit_session(
        &self,
        at: Ref,
        from: Place,
        units: [u64; 2],
        now: Now,
    ) -> Result<(), DropReason> {
        self.limit(from, self.table.half(at).output, units, now)?;
        let [source, destination] = self.table.accounts(at);
        let (leaves, enters) = match at.way() {
            Way::Forward => (source, destination),
            Way::Reply => (destination, source),
        };
        self.limit_address(leaves, |of| of.egress, 0, units, now)?;
        self.limit_address(enters, |of| of.ingress, 2, units, now)
    }

    fn limit_address(
        &self,
        account: Account,
        rates: impl Fn(&AddressQos) -> [Option<Rate>; 2],
        first: usize,
        units: [u64; 2],
        now: Now,
    ) -> Result<(), DropReason> {
        let Some(at) = account.at() else {
            return Ok(());
        };
        let plan = self.plan.as_deref();
        let of = plan.and_then(|plan| plan.addresses.get(at));
        let (Some(of), Some(paid)) = (of, self.addresses_paid.get(at)) else {
            return Ok(());
        };
        let paid = paid.get(first..).unwrap_or_default();
        for ((rate, units), paid) in rates(of).into_iter().zip(units).zip(paid) {
            if rate.is_some_and(|rate| !take(&rate, paid, units, now)) {
                return Err(DropReason::QosRateLimit);
            }
        }
        Ok(())
    }

    /// Whether a frame of so many units may pass from there to there.
    pub(super) fn limit(
        &self,
        from: Place,
        to: Place,
        units: [u64; 2],
        now: Now,
    ) -> Result<(), DropReason> {
        let Some(plan) = &self.plan else {
            return Ok(());
        };
        let rates =
            |of: fn(&PortPlan) -> [Option<Rate>; 2], place| plan.port(place).map_or([None; 2], of);
        for (place, rates, first) in [
            (from, rates(|port| port.qos.egress, from), 0),
            (to, rates(|port| port.qos.ingress, to), 2),
        ] {
            let Some(paid) = self.paid.get(place.at()) else {
                continue;
            };
            for ((rate, units), paid) in rates.into_iter().zip(units).zip(&paid[first..]) {
                if rate.is_some_and(|rate| !take(&rate, paid, units, now)) {
                    return Err(DropReason::QosRateLimit);
                }
            }
        }
        Ok(())
    }

    /// The mark that packets from there get.
    pub(super) fn mark(&self, from: Place) -> Option<u8> {
        self.plan.as_ref()?.port(from)?.qos.mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_wire::virtio_net::{Kind, Segments};

    #[test]
    fn segments_count_with_their_headers() {
        assert_eq!(units(&Load::NONE, 1_514), [1_514, 1]);
        let segments = Segments {
            kind: Kind::TcpV4,
            ecn: false,
            header_bytes: 54,
            payload_bytes: 1_000,
        };
        let load = Load {
            segments: Some(segments),
            ..Load::NONE
        };
        assert_eq!(units(&load, 54 + 2_500), [2_500 + 3 * 54, 3]);
        assert_eq!(units(&load, 54 + 900), [954, 1]);
    }
}
