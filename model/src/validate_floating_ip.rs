//! The checks of floating IPs whose ports are forwarded.

use crate::validate::{Report, check_mac};
use crate::{
    FloatingIpId, ForwardedIp, HostSnapshot, PortForwarding, PortForwardingElsewhere, limits,
};

impl HostSnapshot {
    pub(crate) fn validate_forwarded_ips<'a>(
        &'a self,
        r: &mut Report,
        forwarded_ips: impl Iterator<Item = (&'a FloatingIpId, &'a ForwardedIp)>,
    ) {
        for (id, fip) in forwarded_ips {
            let path = |field: &str| format!("forwarded_ips.{id}.{field}");
            check_mac(r, fip.mac_address, || path("mac_address"));
            self.gateway_in(r, fip.router_id, fip.floating_network_id, || {
                path("router_id")
            });
            let count = fip.port_forwardings.len() + fip.elsewhere.len();
            r.count(
                &path("port_forwardings"),
                count,
                limits::PORT_FORWARDINGS_MAX,
            );
            r.check(count > 0, || path("port_forwardings"), "at least one");
            self.policy_known(r, fip.qos_policy_id, || path("qos_policy_id"));
            let network = self.networks.get(&fip.floating_network_id);
            let shared = network.is_some_and(|network| network.transit.is_some());
            let good = shared || fip.elsewhere.is_empty();
            r.check(
                good,
                || path("elsewhere"),
                "none: the network has no transit",
            );
            for (n, forwarding) in fip.port_forwardings.iter().enumerate() {
                let at = |field: &str| path(&format!("port_forwardings[{n}].{field}"));
                let internal = forwarding.internal_ip_address.into();
                self.address_owned(r, forwarding.internal_port_id, internal, at);
                r.check(
                    is_parallel(forwarding),
                    || at("internal_port_last"),
                    "ranges of one length, or one internal port",
                );
                let mut others = fip.port_forwardings[..n].iter();
                let clash = others.find(|other| collide(other, forwarding));
                if let Some(other) = clash {
                    r.check(
                        false,
                        || at("external_port_first"),
                        format_args!("ports that forwarding {} does not have", other.id),
                    );
                }
            }
            for (n, forwarding) in fip.elsewhere.iter().enumerate() {
                let at = |field: &str| path(&format!("elsewhere[{n}].{field}"));
                let good = forwarding.external_port_first <= forwarding.external_port_last;
                r.check(good, || at("external_port_last"), "first <= last");
                let here = fip.port_forwardings.iter().map(External::of);
                let before = fip.elsewhere[..n].iter().map(External::of_elsewhere);
                let own = External::of_elsewhere(forwarding);
                let clash = here.chain(before).any(|other| other.overlaps(&own));
                let taken = "ports that no other forwarding has";
                r.check(!clash, || at("external_port_first"), taken);
                self.other_host(r, &forwarding.host, || at("host"));
            }
        }
    }
}

/// The ports that a forwarding takes outside.
struct External {
    protocol: u8,
    ports: (u16, u16),
}

impl External {
    fn of(f: &PortForwarding) -> Self {
        Self {
            protocol: f.protocol,
            ports: (f.external_port_first, f.external_port_last),
        }
    }

    fn of_elsewhere(f: &PortForwardingElsewhere) -> Self {
        Self {
            protocol: f.protocol,
            ports: (f.external_port_first, f.external_port_last),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.protocol == other.protocol && overlap(self.ports, other.ports)
    }
}

fn overlap(a: (u16, u16), b: (u16, u16)) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}

/// Whether every external port has one internal port.
fn is_parallel(f: &PortForwarding) -> bool {
    let external = f.external_port_last.checked_sub(f.external_port_first);
    let internal = f.internal_port_last.checked_sub(f.internal_port_first);
    match (external, internal) {
        (Some(external), Some(internal)) => internal == 0 || internal == external,
        _ => false,
    }
}

/// Whether two forwardings of one address would take the same packet, outside or inside.
fn collide(a: &PortForwarding, b: &PortForwarding) -> bool {
    let internal = |f: &PortForwarding| (f.internal_port_first, f.internal_port_last);
    External::of(a).overlaps(&External::of(b))
        || (a.protocol == b.protocol
            && a.internal_ip_address == b.internal_ip_address
            && a.internal_port_id == b.internal_port_id
            && overlap(internal(a), internal(b)))
}
