//! Rows as text to values of the model, one function a resource.
//!
//! Guarantees: a row that says what no host could enforce is refused with its name and the column, never bent into
//! something else; the rest of the cloud does not suffer for it.

use super::gateway;
use crate::store::Resource;
use crate::store::address_group::AddressGroupRow;
use crate::store::conntrack_helper::ConntrackHelperRow;
use crate::store::local_ip::{LocalIpPortAssociationRow, LocalIpRow};
use crate::store::ndp_proxy::NdpProxyRow;
use crate::store::network::NetworkRow;
use crate::store::port::Port as PortParts;
use crate::store::port_binding::VhostUser;
use crate::store::router::{RouterInterfaceRow, RouterRow};
use crate::store::security_group::{SecurityGroupRow, SecurityGroupRuleRow};
use crate::store::segment::SegmentRow;
use crate::store::subnet::{Route, SubnetRow};
use crate::store::trunk::SubportPlace;
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::de::value::StrDeserializer;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use weft_model::{
    AddressGroup, AllowedAddressPair, ConntrackHelper, DhcpOption, EtherType, FixedIp, HostName,
    HostRoute, LocalIpMode, LocalIpTarget, MacAddress, Network, NetworkId, PortId, PortRange,
    PvlanRole, QosPolicyId, Remote, RouterRoute, SecurityGroup, SecurityGroupId, SecurityGroupRule,
    Segment, Subnet, VhostUserMode, limits,
};

/// A row that cannot be realized.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {id}, {column}: {reason}", resource.name())]
pub struct RowError {
    /// Its kind.
    pub resource: Resource,
    /// Its id.
    pub id: String,
    /// Where.
    pub column: &'static str,
    /// What is wrong.
    pub reason: String,
}

/// A port as realize needs it: a guest's, a router's or a floating IP's.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Port {
    pub(super) project_id: Box<str>,
    pub(super) network_id: NetworkId,
    pub(super) mac_address: MacAddress,
    pub(super) fixed_ips: Vec<FixedIp>,
    /// Of what its allowed address pairs hold.
    pub(super) claimed_ips: Vec<IpAddr>,
    pub(super) allowed_address_pairs: Vec<AllowedAddressPair>,
    pub(super) port_security_enabled: bool,
    pub(super) security_groups: Vec<SecurityGroupId>,
    pub(super) admin_state_up: bool,
    pub(super) device_owner: String,
    pub(super) dns_name: String,
    pub(super) extra_dhcp_opts: Vec<DhcpOption>,
    pub(super) host: Option<HostName>,
    pub(super) attached: Attached,
    /// Its own; its network's is in [`super::rows::Rows`].
    pub(super) qos_policy_id: Option<QosPolicyId>,
    pub(super) pvlan: Option<PvlanRole>,
}

/// How a port is attached to its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    Tap,
    VhostUser {
        socket: String,
        mode: VhostUserMode,
    },
    /// Through a trunk; not at all while the trunk is administratively down.
    Subport {
        parent: PortId,
        vlan_id: u16,
        open: bool,
    },
}

impl Port {
    /// Whether it is a guest's, and so an interface on a host: all but those of Weft's own services.
    pub(super) fn is_guest(&self) -> bool {
        !self.device_owner.starts_with("network:")
    }

    /// The host that it is a guest's port on.
    pub(super) fn guest_host(&self) -> Option<&HostName> {
        self.host.as_ref().filter(|_| self.is_guest())
    }
}

/// A router, with its legs by their ports.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Router {
    pub(super) project_id: String,
    pub(super) admin_state_up: bool,
    pub(super) enable_snat: bool,
    pub(super) gateway_port_id: Option<PortId>,
    pub(super) interfaces: Vec<PortId>,
    pub(super) routes: Vec<RouterRoute>,
    pub(super) ndp_proxies: Option<BTreeSet<Ipv6Addr>>,
    pub(super) conntrack_helpers: Vec<ConntrackHelper>,
    pub(super) snat_port_blocks: gateway::Blocks,
    /// The gateway's own QoS policy.
    pub(super) qos_policy_id: Option<QosPolicyId>,
}

impl Router {
    /// The ports of its interfaces and of its gateway.
    pub(super) fn legs(&self) -> impl Iterator<Item = PortId> + '_ {
        self.interfaces.iter().chain(&self.gateway_port_id).copied()
    }
}

/// What hangs on a router in other tables.
#[derive(Clone, Debug, Default)]
pub(super) struct RouterParts {
    pub(super) interfaces: Vec<RouterInterfaceRow>,
    pub(super) ndp_proxies: Vec<NdpProxyRow>,
    pub(super) conntrack_helpers: Vec<ConntrackHelperRow>,
    pub(super) snat_port_blocks: Vec<crate::store::gateway::SnatPortBlockRow>,
}

/// A local IP with the ports that stand for it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LocalIp {
    pub(super) network_id: NetworkId,
    pub(super) local_ip_address: IpAddr,
    pub(super) mode: LocalIpMode,
    pub(super) targets: Vec<LocalIpTarget>,
}

pub(super) type Result<T> = std::result::Result<T, RowError>;

/// The least MTU of the model's networks.
const MTU_MIN: i64 = 68;

/// Names the row in errors.
#[derive(Clone, Copy)]
pub(super) struct At<'a>(pub(super) Resource, pub(super) &'a str);

impl At<'_> {
    fn error(&self, column: &'static str, reason: impl Display) -> RowError {
        RowError {
            resource: self.0,
            id: self.1.to_owned(),
            column,
            reason: reason.to_string(),
        }
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(
        &self,
        column: &'static str,
        text: &str,
    ) -> Result<T> {
        text.parse()
            .map_err(|error| self.error(column, format_args!("{text:?}: {error}")))
    }

    /// A value by the name that serde gives it.
    pub(super) fn named<T: DeserializeOwned>(&self, column: &'static str, text: &str) -> Result<T> {
        let text = StrDeserializer::<serde::de::value::Error>::new(text);
        T::deserialize(text).map_err(|error| self.error(column, error))
    }

    pub(super) fn number<T: TryFrom<i64>>(&self, column: &'static str, number: i64) -> Result<T> {
        T::try_from(number)
            .map_err(|_range| self.error(column, format_args!("{number} is out of range")))
    }

    /// The id of a QoS policy, if there is one.
    pub(super) fn policy(
        &self,
        column: &'static str,
        id: Option<&str>,
    ) -> Result<Option<QosPolicyId>> {
        id.map(|id| self.parse(column, id)).transpose()
    }

    pub(super) fn at_most<T>(
        &self,
        column: &'static str,
        list: Vec<T>,
        max: usize,
    ) -> Result<Vec<T>> {
        if list.len() > max {
            return Err(self.error(
                column,
                format_args!("{} entries, at most {max}", list.len()),
            ));
        }
        Ok(list)
    }

    /// An address or a range, its host bits made zero.
    pub(super) fn range(&self, column: &'static str, text: &str) -> Result<IpNet> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(address.into()),
            Err(_not_an_address) => Ok(self.parse::<IpNet>(column, text)?.trunc()),
        }
    }
}

/// A network on its first segment, and all segments if there are several. A network without one is nobody's duty.
pub(super) fn network(
    row: &NetworkRow,
    segments: &[SegmentRow],
) -> Result<Option<(Network, Vec<Segment>)>> {
    let at = At(Resource::Network, &row.id);
    let mut segments: Vec<&SegmentRow> = segments.iter().collect();
    segments.sort_by_key(|segment| segment.segment_index);
    let segment = |segment: &&SegmentRow| {
        Ok(Segment {
            network_type: at.named("network_type", &segment.network_type)?,
            physical_network: segment.physical_network.clone(),
            segmentation_id: segment
                .segmentation_id
                .map(|id| at.number("segmentation_id", id))
                .transpose()?,
        })
    };
    let mut segments = segments
        .iter()
        .map(segment)
        .collect::<Result<Vec<Segment>>>()?;
    let Some(first) = segments.first().cloned() else {
        return Ok(None);
    };
    if segments.len() == 1 {
        segments.clear();
    }
    let network = Network {
        segment: first,
        // A network whose MTU is below IPv4's least has no subnets; its frames need a bound all the same.
        mtu: at.number("mtu", row.mtu.max(MTU_MIN))?,
        external: row.external,
        dns_domain: row.dns_domain.clone(),
        transit: None,
        vlan_transparent: row.vlan_transparent == Some(true),
    };
    Ok(Some((network, segments)))
}

/// `scope`: the address scope of its pool.
pub(super) fn subnet(row: SubnetRow, scope: Option<&str>) -> Result<Subnet> {
    let at = At(Resource::Subnet, &row.id);
    let mode = |column, mode: &Option<String>| {
        mode.as_deref()
            .map(|mode| at.named(column, mode))
            .transpose()
    };
    let route = |route: Route| HostRoute {
        destination: route.destination.trunc(),
        nexthop: route.nexthop,
    };
    let routes = row.host_routes.0.into_iter().map(route).collect();
    Ok(Subnet {
        network_id: at.parse("network_id", &row.network_id)?,
        cidr: at.range("cidr", &row.cidr)?,
        gateway_ip: row
            .gateway_ip
            .as_deref()
            .map(|ip| at.parse("gateway_ip", ip))
            .transpose()?,
        enable_dhcp: row.enable_dhcp,
        dns_nameservers: at.at_most(
            "dns_nameservers",
            row.dns_nameservers.0,
            limits::DNS_NAMESERVERS_MAX,
        )?,
        host_routes: at.at_most("host_routes", routes, limits::HOST_ROUTES_MAX)?,
        ipv6_ra_mode: mode("ipv6_ra_mode", &row.ipv6_ra_mode)?,
        ipv6_address_mode: mode("ipv6_address_mode", &row.ipv6_address_mode)?,
        address_scope_id: scope
            .map(|id| at.parse("address_scope_id", id))
            .transpose()?,
    })
}

pub(super) fn port(port: PortParts) -> Result<Port> {
    let row = port.row;
    let at = At(Resource::Port, &row.id);
    let fixed_ip = |ip: &crate::store::port::FixedIpRow| {
        Ok(FixedIp {
            subnet_id: at.parse("fixed_ips", &ip.subnet_id)?,
            ip_address: at.parse("fixed_ips", &ip.ip_address)?,
        })
    };
    let pair = |pair: &crate::store::port::AddressPair| {
        Ok(AllowedAddressPair {
            mac_address: at.parse("allowed_address_pairs", &pair.mac_address)?,
            ip_address: at.range("allowed_address_pairs", &pair.ip_address)?,
        })
    };
    let option = |option: crate::store::port::DhcpOpt| DhcpOption {
        opt_name: option.opt_name,
        opt_value: Some(option.opt_value),
        ip_version: option.ip_version,
    };
    let fixed_ips = port.fixed_ips.iter().map(fixed_ip);
    let fixed_ips = fixed_ips.collect::<Result<Vec<FixedIp>>>()?;
    let pairs = row
        .allowed_address_pairs
        .0
        .iter()
        .map(pair)
        .collect::<Result<Vec<AllowedAddressPair>>>()?;
    let claimed = port.claimed_ips.iter();
    let claimed = claimed.map(|ip| at.parse::<IpAddr>("claimed_ips", ip));
    let mut claimed = claimed.collect::<Result<Vec<IpAddr>>>()?;
    claimed.retain(|ip| pairs.iter().any(|pair| pair.ip_address.contains(ip)));
    claimed.retain(|ip| !fixed_ips.iter().any(|fixed| fixed.ip_address == *ip));
    claimed.truncate(limits::CLAIMED_IPS_PER_PORT_MAX);
    let groups = port
        .security_groups
        .iter()
        .map(|id| at.parse("security_groups", id));
    let groups = groups.collect::<Result<_>>()?;
    let options = row.extra_dhcp_opts.0.into_iter().map(option).collect();
    Ok(Port {
        project_id: row.project_id.into(),
        network_id: at.parse("network_id", &row.network_id)?,
        mac_address: at.parse("mac_address", &row.mac_address)?,
        fixed_ips: at.at_most("fixed_ips", fixed_ips, limits::FIXED_IPS_MAX)?,
        claimed_ips: claimed,
        allowed_address_pairs: at.at_most(
            "allowed_address_pairs",
            pairs,
            limits::ALLOWED_ADDRESS_PAIRS_MAX,
        )?,
        port_security_enabled: row.port_security_enabled,
        security_groups: at.at_most(
            "security_groups",
            groups,
            limits::SECURITY_GROUPS_PER_PORT_MAX,
        )?,
        admin_state_up: row.admin_state_up,
        extra_dhcp_opts: at.at_most("extra_dhcp_opts", options, limits::DHCP_OPTIONS_MAX)?,
        host: match row.binding_host_id.as_str() {
            "" => None,
            host => Some(at.parse("binding_host_id", host)?),
        },
        qos_policy_id: at.policy("qos_policy_id", row.qos_policy_id.as_deref())?,
        pvlan: pvlan(at, row.pvlan_type.as_deref(), row.pvlan_community)?,
        attached: attached(&at, row.binding_vhost_user.0, port.subport)?,
        device_owner: row.device_owner,
        dns_name: row.dns_name,
    })
}

/// A port's role, if it keeps the port from others.
fn pvlan(at: At<'_>, role: Option<&str>, community: Option<String>) -> Result<Option<PvlanRole>> {
    Ok(match (role, community) {
        (None | Some("promiscuous"), _) => None,
        (Some("isolated"), _) => Some(PvlanRole::Isolated),
        (Some("community"), Some(community)) => Some(PvlanRole::Community { community }),
        (Some(role), _) => {
            return Err(at.error("pvlan_type", format_args!("{role:?} is not known")));
        }
    })
}

fn attached(
    at: &At<'_>,
    vhost_user: Option<VhostUser>,
    subport: Option<SubportPlace>,
) -> Result<Attached> {
    Ok(match (subport, vhost_user) {
        (Some(place), _) => Attached::Subport {
            parent: at.parse("trunk's port_id", &place.parent_id)?,
            vlan_id: at.number("segmentation_id", place.segmentation_id)?,
            open: place.admin_state_up,
        },
        (None, Some(VhostUser { socket, mode })) => Attached::VhostUser { socket, mode },
        (None, None) => Attached::Tap,
    })
}

pub(super) fn router(row: RouterRow, parts: RouterParts) -> Result<Router> {
    let at = At(Resource::Router, &row.id);
    let route = |route: Route| RouterRoute {
        destination: route.destination.trunc(),
        nexthop: route.nexthop,
    };
    let gateway = row.gateway_port_id.as_deref();
    let interfaces = parts
        .interfaces
        .iter()
        .map(|leg| at.parse("interfaces", &leg.port_id));
    let interfaces = interfaces.collect::<Result<_>>()?;
    let proxies = parts.ndp_proxies.iter().take(limits::NDP_PROXIES_MAX);
    let mut proxies = proxies.map(|proxy| at.parse("ndp_proxies", &proxy.ip_address));
    let helper = |helper: ConntrackHelperRow| {
        Ok(ConntrackHelper {
            protocol: port_protocol(at, "conntrack_helpers", &helper.protocol)?,
            port: at.number("conntrack_helpers", helper.port)?,
            helper: helper.helper,
        })
    };
    let helpers = parts.conntrack_helpers.into_iter().map(helper);
    let helpers = helpers.collect::<Result<_>>()?;
    Ok(Router {
        project_id: row.project_id.clone(),
        admin_state_up: row.admin_state_up,
        enable_snat: row.enable_snat,
        gateway_port_id: gateway
            .map(|id| at.parse("gateway_port_id", id))
            .transpose()?,
        interfaces: at.at_most("interfaces", interfaces, limits::ROUTER_INTERFACES_MAX)?,
        routes: at.at_most(
            "routes",
            row.routes.0.into_iter().map(route).collect(),
            limits::ROUTER_ROUTES_MAX,
        )?,
        ndp_proxies: row
            .enable_ndp_proxy
            .then(|| proxies.by_ref().collect::<Result<_>>())
            .transpose()?,
        conntrack_helpers: at.at_most(
            "conntrack_helpers",
            helpers,
            limits::CONNTRACK_HELPERS_MAX,
        )?,
        snat_port_blocks: gateway::blocks(&parts.snat_port_blocks),
        qos_policy_id: at.policy(
            "gateway_qos_policy_id",
            row.gateway_qos_policy_id.as_deref(),
        )?,
    })
}

/// The number of a protocol that has ports.
pub(super) fn port_protocol(at: At<'_>, column: &'static str, text: &str) -> Result<u8> {
    protocol(text, EtherType::Ipv4)
        .flatten()
        .ok_or_else(|| at.error(column, format_args!("protocol {text:?} is not known")))
}

pub(super) fn local_ip(
    row: &LocalIpRow,
    associations: &[LocalIpPortAssociationRow],
) -> Result<LocalIp> {
    let at = At(Resource::LocalIp, &row.id);
    let target = |row: &LocalIpPortAssociationRow| {
        Ok(LocalIpTarget {
            port_id: at.parse("targets", &row.fixed_port_id)?,
            fixed_ip: at.parse("targets", &row.fixed_ip)?,
        })
    };
    let targets = associations.iter().map(target).collect::<Result<_>>()?;
    Ok(LocalIp {
        network_id: at.parse("network_id", &row.network_id)?,
        local_ip_address: at.parse("local_ip_address", &row.local_ip_address)?,
        mode: at.named("ip_mode", &row.ip_mode)?,
        targets: at.at_most("targets", targets, limits::LOCAL_IP_TARGETS_MAX)?,
    })
}

pub(super) fn security_group(row: &SecurityGroupRow) -> SecurityGroup {
    SecurityGroup {
        stateful: row.stateful,
    }
}

/// An address group's ranges.
pub(super) fn address_group(row: &AddressGroupRow) -> Result<AddressGroup> {
    let at = At(Resource::AddressGroup, &row.id);
    let ranges = row.addresses.0.iter();
    let ranges = ranges.map(|text| at.range("addresses", text));
    Ok(AddressGroup {
        addresses: at.at_most(
            "addresses",
            ranges.collect::<Result<_>>()?,
            limits::ADDRESS_GROUP_ADDRESSES_MAX,
        )?,
    })
}

pub(super) fn security_group_rule(row: &SecurityGroupRuleRow) -> Result<SecurityGroupRule> {
    let at = At(Resource::SecurityGroupRule, &row.id);
    let ethertype = at.named("ethertype", &row.ethertype)?;
    let protocol = match row.protocol.as_deref() {
        None => None,
        Some(text) => protocol(text, ethertype)
            .ok_or_else(|| at.error("protocol", format_args!("{text:?} is not known")))?,
    };
    let bound = |column, bound: Option<i64>| bound.map(|n| at.number(column, n)).transpose();
    let first = bound("port_range_min", row.port_range_min)?;
    let last = bound("port_range_max", row.port_range_max)?;
    let port_range = match (first, last) {
        (Some(first), last) => Some(PortRange { first, last }),
        (None, None) => None,
        (None, Some(_)) => return Err(at.error("port_range_min", "missing beside port_range_max")),
    };
    let prefix = row
        .normalized_cidr
        .as_deref()
        .or(row.remote_ip_prefix.as_deref());
    let remote = match (&row.remote_group_id, &row.remote_address_group_id, prefix) {
        (Some(group), _, _) => Remote::Group(at.parse("remote_group_id", group)?),
        (None, Some(group), _) => Remote::AddressGroup(at.parse("remote_address_group_id", group)?),
        (None, None, Some(prefix)) => Remote::Prefix(at.range("remote_ip_prefix", prefix)?),
        (None, None, None) => Remote::Any,
    };
    Ok(SecurityGroupRule {
        security_group_id: at.parse("security_group_id", &row.security_group_id)?,
        direction: at.named("direction", &row.direction)?,
        ethertype,
        protocol,
        port_range,
        remote,
    })
}

/// The number of a protocol by Neutron's names (neutron-lib's `IP_PROTOCOL_MAP`); `ip` and 0 are any. The outer none
/// is an unknown name.
fn protocol(text: &str, ethertype: EtherType) -> Option<Option<u8>> {
    let number = match text {
        "any" | "ip" | "hopopt" | "0" => return Some(None),
        "icmp" => 1,
        "igmp" => 2,
        "ipip" => 4,
        "tcp" => 6,
        "egp" => 8,
        "udp" => 17,
        "dccp" => 33,
        "ipv6-encap" => 41,
        "ipv6-route" => 43,
        "ipv6-frag" => 44,
        "rsvp" => 46,
        "gre" => 47,
        "esp" => 50,
        "ah" => 51,
        "icmpv6" | "ipv6-icmp" => 58,
        "ipv6-nonxt" => 59,
        "ipv6-opts" => 60,
        "ospf" => 89,
        "vrrp" => 112,
        "pgm" => 113,
        "sctp" => 132,
        "udplite" => 136,
        number => number.parse().ok()?,
    };
    Some(Some(match (number, ethertype) {
        // Neutron takes `icmp` in IPv6 rules for ICMPv6.
        (1, EtherType::Ipv6) => 58,
        (number, _) => number,
    }))
}
