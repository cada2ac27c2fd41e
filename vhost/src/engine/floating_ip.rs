//! Floating IPs over a compiled snapshot: what is behind one, whole or by its ports, and the ways in. docs/pipeline.md,
//! section 5.
//!
//! Guarantees: as `weft_dataplane::stage::floating_ip`. Cost: look-ups, and a search of one floating IP's forwardings.

use super::key::Place;
use super::limit::Account;
use super::numbers::Numbers;
use super::path::{End, Hop, Path};
use super::plan::{AddressIs, At, NetworkPlan, Plan, RouterPlan};
use super::transit::Endpoint;
use super::walk::Walk;
use std::net::Ipv4Addr;
use weft_dataplane::stage::floating_ip;
use weft_dataplane::topology;
use weft_model::{
    DropReason, ForwardedIp, HostSnapshot, MacAddress, PortForwarding, PortId, RouterId,
};

/// A floating IP that is translated one to one, or what one of its ports leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct FloatingPlan {
    pub(super) address: Ipv4Addr,
    pub(super) mac: MacAddress,
    pub(super) fixed: Ipv4Addr,
    pub(super) router: Option<At>,
    pub(super) port: Option<Place>,
    /// The MAC of its router towards the fixed address.
    pub(super) leg: Option<MacAddress>,
    /// Limits of its own.
    pub(super) account: Account,
}

/// A floating IP whose ports are forwarded.
#[derive(Debug)]
pub(super) struct ForwardedPlan {
    mac: MacAddress,
    /// This host answers for it outside, and knows all of them.
    answered: bool,
    /// By protocol and first port; none overlap.
    ports: Vec<PortsPlan>,
}

#[derive(Debug)]
struct PortsPlan {
    protocol: u8,
    first: u16,
    last: u16,
    to: To,
}

#[derive(Debug)]
enum To {
    Here(FloatingPlan, PortForwarding),
    Elsewhere(At),
}

/// What a floating IP is for a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known<'a> {
    /// It leads to a port here, with this destination port.
    Behind(&'a FloatingPlan, u16),
    /// Port forwardings: one of another host's.
    Elsewhere,
    /// Port forwardings: none.
    Nowhere {
        /// This host knows all of them.
        answered: bool,
    },
}

impl ForwardedPlan {
    fn find(&self, protocol: u8, port: u16) -> Option<&PortsPlan> {
        let before = |ports: &PortsPlan| (ports.protocol, ports.first) <= (protocol, port);
        let behind = self.ports.partition_point(before);
        let found = self.ports.get(behind.checked_sub(1)?)?;
        (found.protocol == protocol && port <= found.last).then_some(found)
    }
}

/// Floating IPs in order.
pub(super) fn plans(snapshot: &HostSnapshot, numbers: &Numbers) -> Vec<FloatingPlan> {
    let all = topology::floating_ips(snapshot);
    let plan = |f: &weft_model::FloatingIp| {
        let outside = (f.floating_ip_address, f.mac_address, f.router_id);
        let account = numbers.account(f.floating_network_id, f.floating_ip_address);
        let behind = (f.port_id, f.fixed_ip_address);
        FloatingPlan {
            account,
            ..plan(snapshot, numbers, outside, behind)
        }
    };
    all.map(plan).collect()
}

fn plan(
    snapshot: &HostSnapshot,
    numbers: &Numbers,
    (address, mac, router_id): (Ipv4Addr, MacAddress, RouterId),
    (port_id, fixed): (PortId, Ipv4Addr),
) -> FloatingPlan {
    let router = snapshot.routers.get(&router_id);
    let leg = router.and_then(|router| topology::interface_towards(snapshot, router, fixed.into()));
    FloatingPlan {
        address,
        mac,
        fixed,
        router: numbers.routers.get(&router_id).copied(),
        port: numbers.ports.get(&port_id).copied(),
        leg: leg.map(|interface| interface.mac_address),
        account: Account::NONE,
    }
}

/// Those with port forwardings, in order.
pub(super) fn forwarded_plans(snapshot: &HostSnapshot, numbers: &Numbers) -> Vec<ForwardedPlan> {
    let all = snapshot.forwarded_ips.values();
    all.map(|f| forwarded_plan(snapshot, numbers, f)).collect()
}

fn forwarded_plan(snapshot: &HostSnapshot, numbers: &Numbers, f: &ForwardedIp) -> ForwardedPlan {
    let outside = (f.floating_ip_address, f.mac_address, f.router_id);
    let account = numbers.account(f.floating_network_id, f.floating_ip_address);
    let holds = |protocol, port| floating_ip::forwarding(f, protocol, port).is_some();
    let here = f.port_forwardings.iter();
    let here = here.filter(|one| holds(one.protocol, one.external_port_first));
    let here = here.map(|one| {
        let behind = (one.internal_port_id, one.internal_ip_address);
        PortsPlan {
            protocol: one.protocol,
            first: one.external_port_first,
            last: one.external_port_last,
            to: To::Here(
                FloatingPlan {
                    account,
                    ..plan(snapshot, numbers, outside, behind)
                },
                one.clone(),
            ),
        }
    });
    let known = |protocol, port| floating_ip::forwarded_host(f, protocol, port).is_some();
    let elsewhere = f.elsewhere.iter();
    let elsewhere = elsewhere.filter(|one| known(one.protocol, one.external_port_first));
    let elsewhere = elsewhere.map(|one| PortsPlan {
        protocol: one.protocol,
        first: one.external_port_first,
        last: one.external_port_last,
        to: To::Elsewhere(numbers.host(&one.host)),
    });
    let mut ports: Vec<_> = here.chain(elsewhere).collect();
    ports.sort_by_key(|ports| (ports.protocol, ports.first));
    ForwardedPlan {
        mac: f.mac_address,
        answered: topology::answers_outside(snapshot, f.router_id),
        ports,
    }
}

impl Plan {
    /// The floating IP with port forwardings that counts for an address.
    fn forwarded(&self, known: &AddressIs) -> Option<&ForwardedPlan> {
        let taken = known.floating.is_some() || known.floating_elsewhere.is_some();
        self.forwarded.get(known.forwarded.filter(|_| !taken)?)
    }

    /// The host that a floating IP leads to, or one of its ports, and the MAC address that answers for it.
    pub(super) fn whose_floating(
        &self,
        network: &NetworkPlan,
        (protocol, address, port): Endpoint,
    ) -> Option<(At, MacAddress)> {
        let known = network.addresses.get(&address)?;
        if let Some(floating) = known.floating_elsewhere {
            return Some((floating.host, floating.mac));
        }
        let forwarded = self.forwarded(known)?;
        match forwarded.find(protocol, port)?.to {
            To::Elsewhere(host) => Some((host, forwarded.mac)),
            To::Here(..) => None,
        }
    }
}

impl<'a> Walk<'a> {
    /// What the packet's destination is, if it is a floating IP that leads to ports of this host, or may.
    pub(super) fn floating(&self, known: &AddressIs) -> Option<Known<'a>> {
        let tuple = self.opening.tuple;
        if let Some(at) = known.floating {
            let floating = self.plan.floating.get(at)?;
            return Some(Known::Behind(floating, tuple.destination_port));
        }
        let forwarded = self.plan.forwarded(known)?;
        let found = forwarded.find(tuple.protocol, tuple.destination_port);
        Some(match found.map(|ports| &ports.to) {
            Some(To::Here(floating, forwarding)) => {
                Known::Behind(floating, forwarding.internal_port(tuple.destination_port))
            }
            Some(To::Elsewhere(_)) => Known::Elsewhere,
            None => Known::Nowhere {
                answered: forwarded.answered,
            },
        })
    }

    /// From outside to what is behind it.
    pub(super) fn enter(&self, floating: &FloatingPlan, port: u16) -> Result<End, DropReason> {
        self.opening.opener_test()?;
        let mac = self.floating_leg(floating)?;
        let path = self.floating_path(floating, port, mac, 1)?;
        Ok(End::Path(path))
    }

    /// From a guest behind a router: as if out and in again.
    pub(super) fn hairpin(
        &self,
        at: At,
        router: &RouterPlan,
        floating: &FloatingPlan,
        port: u16,
    ) -> Result<End, DropReason> {
        let other = floating.router.ok_or(DropReason::NoRoute)?;
        if !self.router(other)?.up {
            return Err(DropReason::RouterDown);
        }
        let seen = self.seen(at, router)?;
        let mac = self.floating_leg(floating)?;
        self.opening.opener_test()?;
        let decrement = if other == at { 1 } else { 2 };
        let path = self.floating_path(floating, port, mac, decrement)?;
        Ok(End::Path(Path {
            source: seen.source,
            snat: seen.snat,
            accounts: [seen.account, floating.account],
            ..path
        }))
    }

    /// The MAC of the floating IP's router towards the fixed address; the router must be up.
    fn floating_leg(&self, floating: &FloatingPlan) -> Result<MacAddress, DropReason> {
        let router = self.router(floating.router.ok_or(DropReason::NoRoute)?)?;
        if !router.up {
            return Err(DropReason::RouterDown);
        }
        floating.leg.ok_or(DropReason::NoRoute)
    }

    /// To the port, the source still as it was.
    fn floating_path(
        &self,
        floating: &FloatingPlan,
        destination_port: u16,
        source_mac: MacAddress,
        ttl_decrement: u8,
    ) -> Result<Path, DropReason> {
        let output = floating.port.ok_or(DropReason::NoRoute)?;
        let port = self.plan.port(output).ok_or(DropReason::NoRoute)?;
        let network = self.plan.networks.get(port.network);
        let hop = Hop {
            ttl_decrement,
            source_mac,
            destination_mac: MacAddress(port.mac),
            next_hop: None,
            mtu: network.map_or(u32::MAX, |network| network.mtu),
        };
        Ok(Path {
            output,
            hop: Some(hop),
            source: self.opening.tuple.source,
            destination: floating.fixed.into(),
            destination_port,
            snat: None,
            tunnel: None,
            back: None,
            transit: None,
            accounts: [Account::NONE, floating.account],
        })
    }
}
