//! The checks of what hosts share of an external network: its transit, the gateway's blocks of ports, floating IPs of
//! other hosts.

use crate::validate::{Report, check_mac};
use crate::{
    FloatingIpId, HostName, HostSnapshot, Network, NetworkId, NetworkType, PortBlock,
    RemoteFloatingIp, RouterGateway, limits,
};

impl HostSnapshot {
    pub(crate) fn validate_transit(&self, r: &mut Report, id: NetworkId, network: &Network) {
        let Some(transit) = network.transit else {
            return;
        };
        let path = |field: &str| format!("networks.{id}.transit.{field}");
        let physical = network.segment.network_type.is_physical();
        r.check(physical, || path("vni"), "nothing: the network has tunnels");
        let good = (1..=0xff_ffff).contains(&transit.vni);
        r.check(good, || path("vni"), "1 to 16777215");
        let good = (68..=65_535).contains(&transit.mtu);
        r.check(good, || path("mtu"), "68 to 65535");
        let taken = self.networks.iter().any(|(other, network)| {
            let segment = &network.segment;
            let tunnelled = segment.network_type == NetworkType::Vxlan
                && segment.segmentation_id == Some(transit.vni);
            let transits = network.transit.map(|t| t.vni) == Some(transit.vni);
            tunnelled || (*other != id && transits)
        });
        r.check(!taken, || path("vni"), "one that no other network has");
    }

    pub(crate) fn validate_blocks(
        &self,
        r: &mut Report,
        gateway: &RouterGateway,
        at: impl Fn(&str) -> String,
    ) {
        let in_order = |block: &PortBlock| block.first >= 1 && block.first <= block.last;
        let own = &gateway.snat_port_block;
        let good = own.as_ref().is_none_or(in_order);
        r.check(good, || at("snat_port_block"), "1 <= first <= last");
        let others = &gateway.snat_port_blocks_elsewhere;
        let elsewhere = "snat_port_blocks_elsewhere";
        r.count(
            &at(elsewhere),
            others.len(),
            limits::SNAT_HOSTS_PER_GATEWAY_MAX,
        );
        let whole = |block: &PortBlock| in_order(block) && block.prefix_bits().is_some();
        let mut blocks: Vec<&PortBlock> = others.values().chain(own).collect();
        let good = others.values().all(whole);
        r.check(
            good,
            || at(elsewhere),
            "2^n ports from a multiple of that on",
        );
        blocks.sort_by_key(|block| block.first);
        let apart = blocks.windows(2).all(|two| two[0].last < two[1].first);
        r.check(apart, || at(elsewhere), "blocks that do not overlap");
        for host in others.keys().chain(&gateway.gateway_host) {
            self.other_host(r, host, || at(elsewhere));
        }
    }

    pub(crate) fn validate_remote_floating_ips<'a>(
        &self,
        r: &mut Report,
        floating_ips: impl Iterator<Item = (&'a FloatingIpId, &'a RemoteFloatingIp)>,
    ) {
        for (id, fip) in floating_ips {
            let path = |field: &str| format!("remote_floating_ips.{id}.{field}");
            check_mac(r, fip.mac_address, || path("mac_address"));
            self.gateway_in(r, fip.router_id, fip.floating_network_id, || {
                path("router_id")
            });
            self.other_host(r, &fip.host, || path("host"));
        }
    }

    pub(crate) fn other_host(
        &self,
        r: &mut Report,
        host: &HostName,
        path: impl FnOnce() -> String,
    ) {
        let known = *host != self.host && self.tunnel_hosts.contains_key(host);
        r.check(known, path, "another host, of tunnel_hosts");
    }
}
