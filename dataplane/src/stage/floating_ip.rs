//! Floating IPs: what is behind one, whole or by its ports, and the ways in. docs/pipeline.md, section 5.
//!
//! Guarantees: what comes in leaves by the leg of the floating IP's own router. Assumes the router stage's choice.
//! Cost: all floating IPs and their forwardings.

use super::decode::has_ports;
use super::nat;
use super::qos::Account;
use crate::flow::key::{Ingress, Tuple};
use crate::flow::session::{Hop, Path};
use crate::mutant::Mutant;
use crate::topology;
use crate::walk::{End, Walk};
use std::net::{IpAddr, Ipv4Addr};
use weft_model::{
    Direction, DropReason, ForwardedIp, HostName, HostSnapshot, MacAddress, NetworkId,
    PortForwarding, PortId, Router, RouterId, Stage,
};
use weft_wire::protocol;

/// A port of this host behind a floating IP.
#[derive(Clone, Copy, Debug)]
pub struct Behind {
    floating_ip_address: Ipv4Addr,
    router_id: RouterId,
    port_id: PortId,
    address: Ipv4Addr,
    port: u16,
    account: Option<Account>,
}

/// What a floating IP is for a packet.
#[derive(Clone, Copy, Debug)]
pub enum Known {
    /// It stands for a port here.
    Behind(Behind),
    /// Port forwardings: one of another host's.
    Elsewhere,
    /// Port forwardings: none, as far as this host knows.
    Nowhere {
        /// This host knows all of them.
        answered: bool,
    },
}

/// Whether a protocol's ports can be forwarded so. SCTP's must stay: its CRC covers them and is not rewritten.
fn is_forwardable(forwarding: &PortForwarding) -> bool {
    has_ports(forwarding.protocol)
        && (forwarding.protocol != protocol::SCTP || forwarding.keeps_ports())
}

/// The forwarding of this host that a port is of.
#[must_use]
pub fn forwarding(forwarded: &ForwardedIp, number: u8, port: u16) -> Option<&PortForwarding> {
    let all = forwarded.port_forwardings.iter();
    all.filter(|f| is_forwardable(f)).find(|f| {
        f.protocol == number && (f.external_port_first..=f.external_port_last).contains(&port)
    })
}

/// The other host that a port is forwarded to.
#[must_use]
pub fn forwarded_host(forwarded: &ForwardedIp, number: u8, port: u16) -> Option<&HostName> {
    let mut all = forwarded.elsewhere.iter().filter(|f| has_ports(f.protocol));
    let found = all.find(|f| {
        f.protocol == number && (f.external_port_first..=f.external_port_last).contains(&port)
    });
    found.map(|f| &f.host)
}

/// What a packet's destination is, if it is a floating IP that leads to ports of this host, or may.
#[must_use]
pub fn find(
    snapshot: &HostSnapshot,
    network_id: NetworkId,
    tuple: Tuple,
    mutant: Option<Mutant>,
) -> Option<Known> {
    if let Some(f) = topology::floating_ip(snapshot, network_id, tuple.destination) {
        return Some(Known::Behind(Behind {
            floating_ip_address: f.floating_ip_address,
            router_id: f.router_id,
            port_id: f.port_id,
            address: f.fixed_ip_address,
            port: tuple.destination_port,
            account: Account::of(network_id, f.floating_ip_address, f.qos_policy_id),
        }));
    }
    let f = topology::forwarded_ip(snapshot, network_id, tuple.destination)?;
    let port = tuple.destination_port;
    if let Some(forwarding) = forwarding(f, tuple.protocol, port) {
        let kept = mutant == Some(Mutant::ForwardingPort);
        return Some(Known::Behind(Behind {
            floating_ip_address: f.floating_ip_address,
            router_id: f.router_id,
            port_id: forwarding.internal_port_id,
            address: forwarding.internal_ip_address,
            port: if kept {
                port
            } else {
                forwarding.internal_port(port)
            },
            account: Account::of(network_id, f.floating_ip_address, f.qos_policy_id),
        }));
    }
    Some(match forwarded_host(f, tuple.protocol, port) {
        Some(_) => Known::Elsewhere,
        None => Known::Nowhere {
            answered: topology::answers_outside(snapshot, f.router_id),
        },
    })
}

/// From outside to what is behind it.
///
/// # Errors
/// The reason to drop it.
pub fn enter(walk: &mut Walk<'_>, behind: &Behind) -> Result<End, DropReason> {
    walk.opener_test()?;
    let source_mac = leg(walk, behind)?;
    walk.say(
        Stage::Nat,
        format!(
            "floating IP {} is {}",
            behind.floating_ip_address,
            behind.words(walk)
        ),
    );
    let source = walk.opening.tuple.source;
    let path = path(walk, behind, source_mac, 1)?;
    Ok(End::Path(Path {
        source,
        gateway: Some((behind.router_id, Direction::Ingress)),
        ..path
    }))
}

/// From a guest behind a router: as if out and in again.
///
/// # Errors
/// The reason to drop it.
pub fn hairpin(
    walk: &mut Walk<'_>,
    id: RouterId,
    router: &Router,
    behind: &Behind,
) -> Result<End, DropReason> {
    if !router_of(walk, behind)?.admin_state_up {
        return Err(DropReason::RouterDown);
    }
    let seen = nat::source(&walk.sight, id, router, walk.opening.tuple)?;
    let source_mac = leg(walk, behind)?;
    walk.opener_test()?;
    let same = behind.router_id == id || walk.sight.has(Mutant::HairpinTtl);
    walk.say(
        Stage::Nat,
        format!(
            "hairpin: {} is {}, the source is seen as {}",
            behind.floating_ip_address,
            behind.words(walk),
            seen.source
        ),
    );
    let path = path(walk, behind, source_mac, if same { 1 } else { 2 })?;
    Ok(End::Path(Path {
        source: seen.source,
        snat: seen.snat,
        accounts: [seen.account, behind.account],
        ..path
    }))
}

impl Behind {
    /// For a trace.
    fn words(&self, walk: &Walk<'_>) -> String {
        if self.port == walk.opening.tuple.destination_port {
            self.address.to_string()
        } else {
            format!("{}:{}", self.address, self.port)
        }
    }
}

fn router_of<'a>(walk: &Walk<'a>, behind: &Behind) -> Result<&'a Router, DropReason> {
    let routers = &walk.sight.snapshot.routers;
    routers.get(&behind.router_id).ok_or(DropReason::NoRoute)
}

/// The MAC of the floating IP's router towards the address; the router must be up.
fn leg(walk: &Walk<'_>, behind: &Behind) -> Result<MacAddress, DropReason> {
    let router = router_of(walk, behind)?;
    if !router.admin_state_up {
        return Err(DropReason::RouterDown);
    }
    let address = IpAddr::V4(behind.address);
    let interface = topology::interface_towards(walk.sight.snapshot, router, address);
    interface.map(|i| i.mac_address).ok_or(DropReason::NoRoute)
}

/// To the port, the source still as it was.
fn path(
    walk: &Walk<'_>,
    behind: &Behind,
    source_mac: MacAddress,
    ttl_decrement: u8,
) -> Result<Path, DropReason> {
    let snapshot = walk.sight.snapshot;
    let port = snapshot.ports.get(&behind.port_id);
    let port = port.ok_or(DropReason::NoRoute)?;
    let hop = Hop {
        ttl_decrement,
        source_mac,
        destination_mac: port.mac_address,
        next_hop: None,
        mtu: topology::mtu(snapshot, port.network_id),
        reply_mtu: topology::mtu(snapshot, walk.sight.network_id),
    };
    Ok(Path {
        output: Ingress::Port(behind.port_id),
        hop: Some(hop),
        source: walk.opening.tuple.source,
        destination: behind.address.into(),
        destination_port: behind.port,
        snat: None,
        tunnel: None,
        back: None,
        transit: None,
        gateway: None,
        accounts: [None, behind.account],
    })
}
