//! Claims: a guest says, by a gratuitous ARP or an unsolicited neighbour advertisement, that an address of its allowed
//! address pairs is its own from now on, as VRRP's masters do. Control hears of it, and decides; what it decided is told to
//! the guests here, which may have the address's old MAC address in their caches.
//!
//! Guarantees: a claim that the snapshot shows already costs nothing; of one address at most one claim goes to control in
//! [`limits::CLAIM_INTERVAL_MS`], the last one. Only addresses of the port's own pairs are claimed.

use super::announce::announcement;
use super::{Action, Millis, Place, ServiceCounters};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use weft_dataplane::stage::decode::{self, Body};
use weft_model::{Claim, HostSnapshot, MacAddress, NetworkId, PortId, limits};
use weft_wire::ndisc;

/// Frames to guests after one snapshot at most.
const TOLD_MAX: usize = 4_096;

type Key = (NetworkId, IpAddr);

/// What is claimed, and who was told.
#[derive(Debug, Default)]
pub struct Claims {
    /// Who has what, in the snapshot.
    owned: BTreeMap<Key, MacAddress>,
    /// What control is to hear, and when.
    pending: BTreeMap<Key, (PortId, Millis)>,
    /// When it heard last of an address.
    told: BTreeMap<Key, Millis>,
}

impl Claims {
    /// Takes over a snapshot: the attached guests hear of addresses that are somebody else's now.
    pub fn apply(
        &mut self,
        snapshot: &HostSnapshot,
        attached: &BTreeSet<PortId>,
        counters: &mut ServiceCounters,
    ) -> Vec<Action> {
        let owned = owned(snapshot);
        self.pending.retain(|key, (port, _)| {
            let port = snapshot.ports.get(port);
            port.is_some_and(|port| port.network_id == key.0 && !port.claimed_ips.contains(&key.1))
        });
        let mut actions = Vec::new();
        for (key, mac) in &owned {
            if self.owned.get(key) != Some(mac) {
                tell(snapshot, attached, (*key, *mac), &mut actions);
            }
        }
        counters.announcements += actions.len() as u64;
        self.owned = owned;
        actions
    }

    /// A guest's frame that claims an address.
    pub fn heard(
        &mut self,
        snapshot: &HostSnapshot,
        port_id: PortId,
        frame: &[u8],
        now: Millis,
        counters: &mut ServiceCounters,
    ) {
        let port = snapshot.ports.get(&port_id);
        let Some((port, address)) = port.zip(claimed(frame)) else {
            return;
        };
        let mut pairs = port.allowed_address_pairs.iter();
        if !pairs.any(|pair| pair.ip_address.contains(&address)) {
            return;
        }
        let key = (port.network_id, address);
        if port.claimed_ips.contains(&address) {
            self.pending.remove(&key);
            return;
        }
        if self.pending.len() >= limits::CLAIMS_PER_REPORT_MAX && !self.pending.contains_key(&key) {
            return;
        }
        counters.claims += 1;
        let told = self.told.get(&key);
        let due = told.map_or(now, |told| now.max(told + limits::CLAIM_INTERVAL_MS));
        self.pending.insert(key, (port_id, due));
    }

    /// What control is to hear now.
    pub fn take(&mut self, now: Millis) -> Vec<Claim> {
        self.told
            .retain(|_, told| *told + limits::CLAIM_INTERVAL_MS > now);
        let mut claims = Vec::new();
        self.pending.retain(|(network, address), (port_id, due)| {
            if *due > now {
                return true;
            }
            self.told.insert((*network, *address), now);
            claims.push(Claim {
                port_id: *port_id,
                ip_address: *address,
            });
            false
        });
        claims
    }

    /// When something is to be said.
    #[must_use]
    pub fn due(&self) -> Option<Millis> {
        self.pending.values().map(|(_, due)| *due).min()
    }
}

/// Who has claimed what, as far as nobody has it otherwise.
fn owned(snapshot: &HostSnapshot) -> BTreeMap<Key, MacAddress> {
    let here = snapshot.ports.values();
    let here = here.map(|port| (port.network_id, port.mac_address, &port.claimed_ips));
    let there = snapshot.remote_ports.values();
    let there = there.map(|port| (port.network_id, port.mac_address, &port.claimed_ips));
    let mut owned = BTreeMap::new();
    for (network, mac, claimed) in here.chain(there) {
        for address in claimed {
            owned.entry((network, *address)).or_insert(mac);
        }
    }
    if owned.is_empty() {
        return owned;
    }
    let here = snapshot.ports.values();
    let here = here.map(|port| (port.network_id, &port.fixed_ips));
    let there = snapshot.remote_ports.values();
    let there = there.map(|port| (port.network_id, &port.fixed_ips));
    for (network, fixed) in here.chain(there) {
        for ip in fixed {
            owned.remove(&(network, ip.ip_address));
        }
    }
    owned
}

/// Tells the network's guests here whose an address is now.
fn tell(
    snapshot: &HostSnapshot,
    attached: &BTreeSet<PortId>,
    ((network, address), mac): (Key, MacAddress),
    actions: &mut Vec<Action>,
) {
    for id in attached {
        let port = snapshot.ports.get(id);
        let hears = port.is_some_and(|port| port.network_id == network && port.mac_address != mac);
        if hears && actions.len() < TOLD_MAX {
            let frame = announcement(address, mac, 0);
            let to = Place::Port(*id);
            actions.push(Action::Send { to, frame });
        }
    }
}

/// The address that a frame claims.
fn claimed(frame: &[u8]) -> Option<IpAddr> {
    let packet = decode::process(frame).ok()?;
    match &packet.body {
        Body::Arp(arp) => {
            let gratuitous = arp.sender_ip == arp.target_ip && !arp.sender_ip.is_unspecified();
            gratuitous.then_some(arp.sender_ip.into())
        }
        Body::Ip(ip) => {
            let (kind, _) = ip.icmp.filter(|_| ip.tuple.is_ipv6())?;
            let said = ndisc::Neighbour::new_checked(frame.get(ip.l4.clone())?).ok()?;
            let target = said.target();
            let claims = kind == ndisc::NEIGHBOUR_ADVERTISEMENT && !target.is_multicast();
            claims.then_some(target.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{GUEST, GUEST_MAC, OTHER_GUEST, snapshot};
    use super::*;
    use weft_model::AllowedAddressPair;
    use weft_wire::frame;

    const VIP: &str = "192.0.2.100";

    fn with_pairs() -> HostSnapshot {
        let mut s = snapshot();
        for port in s.ports.values_mut() {
            for range in ["192.0.2.96/28", "fd00:192:0:2::64/128"] {
                port.allowed_address_pairs.push(AllowedAddressPair {
                    mac_address: port.mac_address,
                    ip_address: range.parse().unwrap(),
                });
            }
        }
        s
    }

    fn gratuitous(address: &str) -> Vec<u8> {
        let address = address.parse().unwrap();
        frame::arp_request(GUEST_MAC.0, address, address)
    }

    #[test]
    fn an_address_of_a_pair_is_claimed_and_no_other() {
        let (s, mut claims) = (with_pairs(), Claims::default());
        let mut counters = ServiceCounters::default();
        let mut hear = |frame: &[u8]| {
            claims.heard(&s, GUEST, frame, 0, &mut counters);
            claims.take(0)
        };
        let claim = |address: &str| Claim {
            port_id: GUEST,
            ip_address: address.parse().unwrap(),
        };
        assert_eq!(hear(&gratuitous(VIP)), [claim(VIP)]);
        let v6 = "fd00:192:0:2::64";
        let advertisement = match announcement_of(v6) {
            Action::Send { frame, .. } => frame,
            other => panic!("{other:?}"),
        };
        assert_eq!(hear(&advertisement), [claim(v6)]);
        assert_eq!(hear(&gratuitous("192.0.2.200")), []);
        let question = frame::arp_request(
            GUEST_MAC.0,
            VIP.parse().unwrap(),
            "192.0.2.1".parse().unwrap(),
        );
        assert_eq!(hear(&question), []);
        assert_eq!(hear(b"nonsense"), []);
    }

    fn announcement_of(address: &str) -> Action {
        Action::Send {
            to: Place::Port(GUEST),
            frame: announcement(address.parse().unwrap(), GUEST_MAC, 0),
        }
    }

    #[test]
    fn what_is_known_is_not_said_again_and_the_last_of_a_second_counts() {
        let (mut s, mut claims) = (with_pairs(), Claims::default());
        let mut counters = ServiceCounters::default();
        let mut hear = |s: &HostSnapshot, port, now| {
            claims.heard(s, port, &gratuitous(VIP), now, &mut counters);
            claims
                .take(now)
                .iter()
                .map(|c| c.port_id)
                .collect::<Vec<_>>()
        };
        assert_eq!(hear(&s, GUEST, 5), [GUEST]);
        s.ports.get_mut(&GUEST).unwrap().claimed_ips = vec![VIP.parse().unwrap()];
        assert_eq!(hear(&s, GUEST, 6), []);
        // Another one: not within the second.
        assert_eq!(hear(&s, OTHER_GUEST, 7), []);
        assert_eq!(hear(&s, GUEST, 8), []);
        assert_eq!(hear(&s, OTHER_GUEST, 9), []);
        let interval = limits::CLAIM_INTERVAL_MS;
        assert_eq!(claims.due(), Some(5 + interval));
        let said = claims.take(5 + interval);
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].port_id, OTHER_GUEST);
        assert_eq!(claims.due(), None);
    }

    #[test]
    fn guests_hear_whose_an_address_is_now() {
        let (mut s, mut claims) = (with_pairs(), Claims::default());
        let mut counters = ServiceCounters::default();
        let attached = BTreeSet::from([GUEST, OTHER_GUEST]);
        assert_eq!(claims.apply(&s, &attached, &mut counters), []);
        s.ports.get_mut(&GUEST).unwrap().claimed_ips = vec![VIP.parse().unwrap()];
        let told = claims.apply(&s, &attached, &mut counters);
        let to = Place::Port(OTHER_GUEST);
        let frame = gratuitous(VIP);
        assert_eq!(told, [Action::Send { to, frame }]);
        assert_eq!(claims.apply(&s, &attached, &mut counters), []);
        // A fixed IP goes before it.
        let mut other = s.clone();
        other.ports.get_mut(&OTHER_GUEST).unwrap().fixed_ips[0].ip_address = VIP.parse().unwrap();
        assert_eq!(claims.apply(&other, &attached, &mut counters), []);
        assert_eq!(claims.apply(&s, &attached, &mut counters).len(), 1);
    }
}
