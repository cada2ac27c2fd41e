//! QoS: the limits of the two ports that a packet passes and of the addresses that NAT gives it, and the mark of the first
//! port. docs/pipeline.md, section 6.
//!
//! Guarantees: in the long run a port or address passes what its policy allows, and never more than the burst and one packet ahead of
//! it. Assumes a transformation. Cost: the same for every policy.

use super::decode::IpPacket;
use crate::flow::key::Ingress;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use weft_model::{DropReason, HostSnapshot, NetworkId, PortId, QosDirection, QosPolicyId};
use weft_wire::{ethernet, ipv4, ipv6};

/// Up to when limits are paid, in nanoseconds: from the guest bytes and packets, to the guest bytes and packets.
pub type Paid = [u64; 4];

/// Who has limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payer {
    /// A guest's port.
    Port(PortId),
    /// A floating IP's or gateway's address on its external network.
    Address(NetworkId, Ipv4Addr),
}

/// An address with a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Which.
    pub payer: Payer,
    /// Whose limits hold.
    pub policy: QosPolicyId,
}

impl Account {
    /// Of an address, if it has a policy.
    #[must_use]
    pub fn of(network: NetworkId, address: Ipv4Addr, policy: Option<QosPolicyId>) -> Option<Self> {
        let payer = Payer::Address(network, address);
        policy.map(|policy| Self { payer, policy })
    }
}

/// The limits; who is not there has not passed anything yet.
pub type Ledger = BTreeMap<Payer, Paid>;

/// Forgets who has no limits any more.
pub fn retain(ledger: &mut Ledger, snapshot: &HostSnapshot) {
    let addresses = snapshot.qos_addresses();
    ledger.retain(|payer, _| match payer {
        Payer::Port(id) => snapshot.ports.contains_key(id),
        Payer::Address(network, address) => addresses.contains_key(&(*network, *address)),
    });
}

fn port(snapshot: &HostSnapshot, place: Ingress) -> Option<Account> {
    let Ingress::Port(id) = place else {
        return None;
    };
    let policy = snapshot.ports.get(&id)?.qos_policy_id?;
    let payer = Payer::Port(id);
    Some(Account { payer, policy })
}

/// Whom a packet passes.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    /// From there.
    pub from: Ingress,
    /// To there.
    pub to: Ingress,
    /// The address that it leaves by, and the one that it comes in by.
    pub accounts: [Option<Account>; 2],
}

/// Whether a frame of this many bytes may pass.
///
/// # Errors
/// A limit's refusal.
pub fn process(
    snapshot: &HostSnapshot,
    ledger: &mut Ledger,
    passage: &Passage,
    bytes: usize,
    now_s: u32,
) -> Result<(), DropReason> {
    let now_ns = u64::from(now_s) * 1_000_000_000;
    let units = [u64::try_from(bytes).unwrap_or(u64::MAX), 1];
    let [leaves, enters] = passage.accounts;
    for (account, direction, first) in [
        (port(snapshot, passage.from), QosDirection::Egress, 0),
        (port(snapshot, passage.to), QosDirection::Ingress, 2),
        (leaves, QosDirection::Egress, 0),
        (enters, QosDirection::Ingress, 2),
    ] {
        let Some(Account { payer, policy }) = account else {
            continue;
        };
        let Some(policy) = snapshot.qos_policies.get(&policy) else {
            continue;
        };
        let paid = ledger.entry(payer).or_default();
        let rates = policy.rates(direction).into_iter().zip(units);
        for ((rate, units), paid) in rates.zip(&mut paid[first..]) {
            if rate.is_some_and(|rate| !rate.take(paid, now_ns, units)) {
                return Err(DropReason::QosRateLimit);
            }
        }
    }
    Ok(())
}

/// The mark that packets from there get.
#[must_use]
pub fn mark(snapshot: &HostSnapshot, from: Ingress) -> Option<u8> {
    let policy = port(snapshot, from)?.policy;
    snapshot.qos_policies.get(&policy)?.dscp_mark
}

/// Writes a mark; the bits of ECN stay.
pub fn mark_write(frame: &mut [u8], ip: &IpPacket, mark: u8) {
    let Some(packet) = frame.get_mut(ethernet::HEADER_BYTES..) else {
        return;
    };
    if ip.tuple.is_ipv6() {
        if let Ok(mut packet) = ipv6::Packet::new_header_checked(packet) {
            packet.set_dscp(mark);
        }
    } else if let Ok(mut packet) = ipv4::Packet::new_header_checked(packet) {
        packet.set_dscp(mark);
    }
}
