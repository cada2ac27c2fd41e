//! QoS: what the policies of ports and addresses ask, in the units of the programs.

use super::{Input, Tables, delta::put};
use weft_ebpf_common::constants::session;
use weft_ebpf_common::layout::{QosRate, QosRecord};
use weft_model::{PortInterface, QosDirection, QosPolicy};

pub(super) fn qos(input: &Input<'_>, tables: &mut Tables) {
    for (id, port) in &input.snapshot.ports {
        let policy = port.qos_policy_id;
        if let Some(policy) = policy.and_then(|id| input.snapshot.qos_policies.get(&id)) {
            // A vhost-user port is limited where its guest is, for all that it sends and gets.
            let limits = !matches!(port.interface, PortInterface::VhostUser { .. });
            put(&mut tables.qos, &input.port(*id), &record(policy, limits));
        }
    }
}

/// Of floating IPs and gateways.
pub(super) fn accounts(input: &Input<'_>, tables: &mut Tables) {
    for ((network, address), policy) in input.snapshot.qos_addresses() {
        if let Some(policy) = input.snapshot.qos_policies.get(&policy) {
            let slot = input.account(network, address);
            put(&mut tables.accounts, &slot, &record(policy, true));
        }
    }
}

fn record(policy: &QosPolicy, limits: bool) -> QosRecord {
    let mut record = QosRecord::zero();
    // In the order of `constants::qos`.
    let rates = [QosDirection::Egress, QosDirection::Ingress].map(|way| policy.rates(way));
    for (to, rate) in record.rates.iter_mut().zip(rates.into_iter().flatten()) {
        if let Some(rate) = rate.filter(|_| limits) {
            *to = QosRate {
                per_unit: rate.per_unit,
                burst_ns: rate.burst_ns,
            };
            record.flags |= u32::from(session::QOS);
        }
    }
    if let Some(mark) = policy.dscp_mark {
        record.flags |= u32::from(session::DSCP);
        record.dscp = mark.into();
    }
    record
}

const _: () = assert!(
    weft_model::RATE_FRACTION_BITS == weft_ebpf_common::constants::rate::FRACTION_BITS,
    "rates are written as the model counts them"
);
