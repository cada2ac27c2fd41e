//! NAT: the source that a packet leaves a router with, and SNAT's port. docs/pipeline.md, sections 5 and 6.
//!
//! Guarantees: two sessions never share a reply key. Assumes a route to the outside. Cost: the floating IPs; at most
//! [`weft_model::limits::NAT_PORT_TRIES_MAX`] candidates.

use super::Sight;
use super::decode::{has_ports, is_icmp};
use super::qos::Account;
use super::router::{Target, longest_prefix};
use crate::flow::key::Tuple;
use crate::mutant::Mutant;
use crate::topology::{self, Scopes};
use std::net::IpAddr;
use weft_model::limits::NAT_PORT_TRIES_MAX;
use weft_model::{DropReason, MacAddress, NetworkId, PortBlock, Router, RouterGateway, RouterId};
use weft_wire::protocol;

/// What SNAT may take on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnatPorts {
    /// Its ports, if it has any.
    pub block: Option<PortBlock>,
    /// Whether protocols without ports are its own.
    pub portless: bool,
}

impl SnatPorts {
    /// Of a router's gateway.
    #[must_use]
    pub fn of(gateway: &RouterGateway) -> Self {
        Self {
            block: gateway.snat_port_block,
            portless: gateway.has_portless(),
        }
    }
}

/// What a packet looks like outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its source address there.
    pub source: IpAddr,
    /// Its source MAC there.
    pub source_mac: MacAddress,
    /// Where its source port is to be taken from, if it changes.
    pub snat: Option<SnatPorts>,
    /// Whether any of it is NAT.
    pub translated: bool,
    /// Limits of its address there.
    pub account: Option<Account>,
}

/// The source behind a router's gateway: the guest's floating IP, SNAT, or plain.
///
/// # Errors
/// SNAT without an IPv4 address on the gateway, or no gateway.
pub fn source(
    sight: &Sight<'_>,
    router_id: RouterId,
    router: &Router,
    tuple: Tuple,
) -> Result<Seen, DropReason> {
    let gateway = router.gateway.as_ref().ok_or(DropReason::NoRoute)?;
    let port = sight.port.map(|(id, _)| id);
    let floating = topology::floating_ips(sight.snapshot).find(|f| {
        f.router_id == router_id
            && Some(f.port_id) == port
            && IpAddr::V4(f.fixed_ip_address) == tuple.source
    });
    if let Some(floating) = floating {
        return Ok(Seen {
            source: floating.floating_ip_address.into(),
            source_mac: floating.mac_address,
            snat: None,
            translated: true,
            account: Account::of(
                floating.floating_network_id,
                floating.floating_ip_address,
                floating.qos_policy_id,
            ),
        });
    }
    let source_mac = gateway.mac_address;
    if tuple.is_ipv6() || !gateway.enable_snat || shares_scope(sight, gateway.network_id) {
        return Ok(Seen {
            source: tuple.source,
            source_mac,
            snat: None,
            translated: false,
            account: None,
        });
    }
    let source = topology::snat_address(router).ok_or(DropReason::NoRoute)?;
    Ok(Seen {
        source: source.into(),
        source_mac,
        snat: Some(SnatPorts::of(gateway)),
        translated: true,
        account: Account::of(gateway.network_id, source, gateway.qos_policy_id),
    })
}

/// Whether a network is of the same address scope as the packet's, in IPv4.
fn shares_scope(sight: &Sight<'_>, other: NetworkId) -> bool {
    if sight.has(Mutant::ScopeNat) {
        return false;
    }
    topology::scopes(sight.snapshot, [sight.network_id, other], false) == Scopes::Shared
}

/// Whether a router hides an address of those behind it from the packet's network, by SNAT.
#[must_use]
pub fn hides(sight: &Sight<'_>, router: &Router, address: IpAddr) -> bool {
    let translates = router.gateway.as_ref().is_some_and(|g| g.enable_snat);
    if address.is_ipv6() || !translates {
        return false;
    }
    match longest_prefix(sight, router, address, false) {
        Some(Target::Inside(interface, _)) => !shares_scope(sight, interface.network_id),
        _ => true,
    }
}

/// Whether a port is this host's.
#[must_use]
pub fn holds(ports: SnatPorts, tuple: Tuple, source_port: u16) -> bool {
    if translates_port(tuple) {
        ports.block.is_some_and(|block| block.contains(source_port))
    } else {
        ports.portless
    }
}

fn translates_port(tuple: Tuple) -> bool {
    has_ports(tuple.protocol) || is_icmp(tuple.is_ipv6(), tuple.protocol)
}

/// SNAT's source port for a tuple: the first candidate that `is_free`.
///
/// # Errors
/// No candidate is free.
pub fn source_port(
    sight: &Sight<'_>,
    ports: SnatPorts,
    tuple: Tuple,
    mut is_free: impl FnMut(u16) -> bool,
) -> Result<u16, DropReason> {
    let block = ports.block.ok_or(DropReason::NatPortsExhausted)?;
    if !ports.portless && !translates_port(tuple) {
        return Err(DropReason::NatPortsExhausted);
    }
    let mut candidates = candidates(sight, block, tuple);
    candidates
        .find(|port| sight.has(Mutant::SnatPortTaken) || is_free(*port))
        .ok_or(DropReason::NatPortsExhausted)
}

fn candidates(
    sight: &Sight<'_>,
    block: PortBlock,
    tuple: Tuple,
) -> impl Iterator<Item = u16> + use<> {
    let own = if translates_port(tuple) {
        tuple.source_port
    } else {
        0
    };
    let inside = (block.first..=block.last).contains(&own) || sight.has(Mutant::SnatBlock);
    let first = (inside || !translates_port(tuple)).then_some(own);
    let alone = !translates_port(tuple) || tuple.protocol == protocol::SCTP;
    let (start, size) = (
        u32::from(block.first),
        u32::from(block.last) - u32::from(block.first) + 1,
    );
    let hash = tuple.hash();
    let others = (1..if alone { 1 } else { NAT_PORT_TRIES_MAX }).filter_map(move |i| {
        u16::try_from(start + hash.wrapping_add(i.wrapping_mul(40_503)) % size).ok()
    });
    first.into_iter().chain(others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::key::{GuestVlan, Ingress};
    use std::net::Ipv4Addr;
    use weft_model::{Epoch, HostSnapshot, NetworkId};

    fn with_sight(check: impl Fn(&Sight<'_>)) {
        let epoch = Epoch::from(uuid::Uuid::nil());
        let snapshot = HostSnapshot::empty("host".parse().unwrap(), epoch);
        let network_id = NetworkId::from(uuid::Uuid::nil());
        let ingress = Ingress::Network(network_id);
        check(&Sight {
            tag: None,
            snapshot: &snapshot,
            ingress,
            network_id,
            port: None,
            transit: false,
            mutant: None,
        });
    }

    fn ports(block: PortBlock) -> SnatPorts {
        SnatPorts {
            block: Some(block),
            portless: true,
        }
    }

    fn tuple(protocol: u8, source_port: u16) -> Tuple {
        Tuple {
            protocol,
            source: Ipv4Addr::new(192, 0, 2, 11).into(),
            destination: Ipv4Addr::new(203, 0, 113, 50).into(),
            source_port,
            destination_port: 80,
            vlan: GuestVlan::default(),
        }
    }

    #[test]
    fn a_port_inside_the_block_is_kept_and_all_candidates_lie_in_it() {
        with_sight(|sight| {
            let block = PortBlock {
                first: 1024,
                last: 1123,
            };
            assert_eq!(
                source_port(sight, ports(block), tuple(6, 1100), |_| true),
                Ok(1100)
            );
            let all: Vec<u16> = candidates(sight, block, tuple(6, 80)).collect();
            assert_eq!(all.len(), NAT_PORT_TRIES_MAX as usize - 1);
            assert!(all.iter().all(|port| (1024..=1123).contains(port)));
            let none = source_port(sight, ports(block), tuple(6, 1100), |_| false);
            assert_eq!(none, Err(DropReason::NatPortsExhausted));
        });
    }

    #[test]
    fn protocols_without_ports_and_sctp_have_one_candidate() {
        with_sight(|sight| {
            let block = PortBlock {
                first: 1024,
                last: 1123,
            };
            assert_eq!(
                candidates(sight, block, tuple(47, 0)).collect::<Vec<_>>(),
                [0]
            );
            assert_eq!(
                candidates(sight, block, tuple(132, 1100)).collect::<Vec<_>>(),
                [1100]
            );
            assert_eq!(candidates(sight, block, tuple(132, 80)).count(), 0);
        });
    }
}
