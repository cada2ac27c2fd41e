//! Security group rules: protocols, port ranges, remotes, and when two rules are the same.

use super::address_group;
use super::attribute::{
    Attribute, Attributes, Default, Kind, STANDARD_UNTAGGED, Take, cidr_of, ip_of, text_of,
};
use super::error::{Error, Result, quote, quote_value};
use super::policy::Caller;
use super::resource::{Resource, Write};
use super::security_group::{self, SecurityGroup};
use super::view::{View, view};
use crate::store::security_group::{SecurityGroupRow, SecurityGroupRuleRow, rule_get_match};
use crate::store::{self as rows, Conn};
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

/// The resource.
pub struct SecurityGroupRule;

/// A rule, and whether its group is a default one.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its row.
    pub row: SecurityGroupRuleRow,
    /// Neutron's `belongs_to_default_sg`.
    pub belongs_to_default_sg: bool,
}

/// Neutron's names of protocols and their numbers (IANA).
pub const PROTOCOLS: &[(&str, u8)] = &[
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("hopopt", 0),
    ("icmp", 1),
    ("icmpv6", 58),
    ("igmp", 2),
    ("ip", 0),
    ("ipip", 4),
    ("ipv6-encap", 41),
    ("ipv6-frag", 44),
    ("ipv6-icmp", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("vrrp", 112),
];

/// The number of a rule's protocol; none for any. `icmp` in an IPv6 rule means ICMPv6.
#[must_use]
pub fn protocol_number(protocol: &str, ethertype: &str) -> Option<u8> {
    let number = protocol.parse().ok().or_else(|| {
        PROTOCOLS
            .iter()
            .find(|(name, _)| *name == protocol)
            .map(|(_, n)| *n)
    })?;
    match (number, ethertype, protocol) {
        (_, _, "ip") => None,
        (1, "IPv6", _) => Some(58),
        (number, _, _) => Some(number),
    }
}

/// As Neutron writes it: small letters, none for any. Whether there is such a protocol is looked at later.
fn protocol(value: &Value) -> Result<Value, String> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        other => text_of(other, 40)?.trim().to_ascii_lowercase(),
    };
    Ok(if text.is_empty() || text == "any" {
        Value::Null
    } else {
        text.parse::<i64>()
            .map_or_else(|_name| text.into(), |number| number.to_string().into())
    })
}

fn ethertype(value: &Value) -> Result<Value, String> {
    match text_of(value, 16)?.to_ascii_lowercase().as_str() {
        "ipv4" => Ok("IPv4".into()),
        "ipv6" => Ok("IPv6".into()),
        _ => Err(format!("{} is not in ['IPv4', 'IPv6']", quote_value(value))),
    }
}

fn prefix(value: &Value) -> Result<Value, String> {
    let text = text_of(value, 64)?;
    if text.is_empty() {
        return Ok(Value::Null);
    }
    // An address alone is a range of one; a range is kept as it was given.
    match ip_of(value) {
        Ok(ip) => Ok(ipnet::IpNet::from(ip).to_string().into()),
        Err(_) => cidr_of(value).map(|_| text.into()),
    }
}

/// Any whole number: which ones are good depends on the protocol.
const PORT: Kind = Kind::Int(i64::MIN, i64::MAX);

/// An id of something that may not be there, which is told as such.
const ID: Kind = Kind::Text(255);

/// The attributes that say what a rule allows: shared with the templates of rules.
pub(super) const MATCH: [Attribute; 8] = [
    Attribute::new("direction", Kind::OneOf(&["ingress", "egress"]))
        .required()
        .sort(),
    Attribute::new("ethertype", Kind::Custom(ethertype))
        .post(Default::Text("IPv4"))
        .sort(),
    Attribute::new("protocol", Kind::Custom(protocol))
        .post(Default::Null)
        .nullable()
        .sort(),
    Attribute::new("port_range_min", PORT)
        .post(Default::Null)
        .nullable()
        .sort(),
    Attribute::new("port_range_max", PORT)
        .post(Default::Null)
        .nullable()
        .sort(),
    Attribute::new("remote_ip_prefix", Kind::Custom(prefix))
        .post(Default::Null)
        .nullable()
        .sort(),
    Attribute::new("remote_group_id", ID)
        .post(Default::Null)
        .nullable()
        .sort(),
    Attribute::new("remote_address_group_id", ID)
        .post(Default::Null)
        .nullable()
        .sort(),
];

impl Resource for SecurityGroupRule {
    type Row = SecurityGroupRuleRow;
    type Item = Item;

    const NAME: &'static str = "security_group_rule";
    const COLLECTION: &'static str = "security_group_rules";
    const NOT_FOUND: &'static str = "SecurityGroupRuleNotFound";
    const TITLE: &'static str = "Security group rule";
    const STANDARD: &'static [Attribute] = STANDARD_UNTAGGED;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("security_group_id", ID).required().sort(),
        MATCH[0],
        MATCH[1],
        MATCH[2],
        MATCH[3],
        MATCH[4],
        MATCH[5],
        MATCH[6],
        MATCH[7],
        Attribute::new("normalized_cidr", Kind::Text(64)).sort(),
        Attribute::new("belongs_to_default_sg", Kind::Bool).filter(),
    ];

    fn row(item: &Item) -> &SecurityGroupRuleRow {
        &item.row
    }

    async fn complete(conn: &mut Conn, rules: Vec<SecurityGroupRuleRow>) -> Result<Vec<Item>> {
        let mut defaults: HashMap<String, bool> = HashMap::new();
        for rule in &rules {
            if !defaults.contains_key(&rule.security_group_id) {
                let group = rows::get::<SecurityGroupRow>(conn, &rule.security_group_id).await?;
                let is_default = group.is_some_and(|group| group.is_default);
                defaults.insert(rule.security_group_id.clone(), is_default);
            }
        }
        Ok(rules
            .into_iter()
            .map(|row| Item {
                belongs_to_default_sg: defaults.get(&row.security_group_id).copied() == Some(true),
                row,
            })
            .collect())
    }

    fn view(item: &Item) -> View {
        let row = &item.row;
        view! { row;
            "security_group_id" => row.security_group_id,
            "direction" => row.direction,
            "ethertype" => row.ethertype,
            "protocol" => row.protocol,
            "port_range_min" => row.port_range_min,
            "port_range_max" => row.port_range_max,
            "remote_ip_prefix" => row.remote_ip_prefix,
            "normalized_cidr" => row.normalized_cidr,
            "remote_group_id" => row.remote_group_id,
            "remote_address_group_id" => row.remote_address_group_id,
            "belongs_to_default_sg" => item.belongs_to_default_sg,
        }
    }

    fn together(all: &[Attributes]) -> Result<()> {
        let same = |name: &str| {
            let mut values = all.iter().map(|rule| rule.get(name));
            values
                .next()
                .is_none_or(|first| values.all(|other| other == first))
        };
        if !same("security_group_id") {
            return Err(Error::invalid(
                "SecurityGroupNotSingleGroupRules",
                "Only allowed to update rules for one security profile at a time",
            ));
        }
        if !same("project_id") {
            return Err(Error::invalid(
                "SecurityGroupRulesNotSingleTenant",
                "Multiple tenant_ids in bulk security group rule create not allowed",
            ));
        }
        Ok(())
    }

    async fn target(
        conn: &mut Conn,
        _caller: &Caller,
        attributes: &Attributes,
    ) -> Result<Attributes> {
        let id = attributes
            .get("security_group_id")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let mut target = Attributes::new();
        if let Some(group) = rows::get::<SecurityGroupRow>(conn, id).await? {
            target.insert(
                "security_group:project_id".to_owned(),
                group.project_id.into(),
            );
        }
        Ok(target)
    }

    async fn parent(conn: &mut Conn, caller: &Caller, attributes: &Attributes) -> Result<()> {
        let id = attributes
            .get("security_group_id")
            .and_then(Value::as_str)
            .unwrap_or_default();
        rows::get::<SecurityGroupRow>(conn, id)
            .await?
            .filter(|group| group.project_id == caller.project_id || caller.is_admin())
            .map(|_group| ())
            .ok_or_else(|| super::resource::not_found::<SecurityGroup>(id))
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Item> {
        let id = given.text("security_group_id");
        let group = rows::get::<SecurityGroupRow>(write.conn(), &id)
            .await?
            .ok_or_else(|| super::resource::not_found::<SecurityGroup>(&id))?;
        let mut row = SecurityGroupRuleRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            security_group_id: id,
            ..shape_of(&mut given)?
        };
        check_remote(&mut row)?;
        check_remote_usable(write, &row).await?;
        row.match_key = match_key(&row);
        if let Some(same) = rule_get_match(write.conn(), &group.id, &row.match_key).await? {
            return Err(Error::conflict(
                "SecurityGroupRuleExists",
                format!(
                    "Security group rule already exists. Rule id is {}.",
                    same.id
                ),
            ));
        }
        rows::insert(&mut write.tx, &mut row).await?;
        touch_group(write, &group.id).await?;
        Ok(Item {
            row,
            belongs_to_default_sg: group.is_default,
        })
    }

    async fn update(write: &mut Write<'_>, item: Item, mut given: Attributes) -> Result<Item> {
        let mut item = item;
        if let Some(description) = given.text_opt("description") {
            item.row.description = description;
        }
        rows::update(&mut write.tx, &mut item.row).await?;
        Ok(item)
    }

    async fn delete(write: &mut Write<'_>, item: Item) -> Result<()> {
        rows::delete::<SecurityGroupRuleRow>(&mut write.tx, &item.row.id).await?;
        touch_group(write, &item.row.security_group_id).await
    }
}

/// A group shows its rules, so it changes with them.
async fn touch_group(write: &mut Write<'_>, id: &str) -> Result<()> {
    Ok(rows::bump::<SecurityGroupRow>(&mut write.tx, id).await?)
}

/// What makes two rules of a group the same: names and numbers of a protocol are one, and so are no prefix and the
/// whole address space.
pub(super) fn match_key(row: &SecurityGroupRuleRow) -> String {
    let protocol = row
        .protocol
        .as_deref()
        .and_then(|p| protocol_number(p, &row.ethertype));
    let prefix = row
        .normalized_cidr
        .as_deref()
        .filter(|cidr| !matches!(*cidr, "0.0.0.0/0" | "::/0"));
    let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    [
        row.direction.clone(),
        row.ethertype.clone(),
        shown(protocol.map(|number| number.to_string())),
        shown(row.port_range_min.map(|port| port.to_string())),
        shown(row.port_range_max.map(|port| port.to_string())),
        shown(prefix.map(str::to_owned)),
        shown(row.remote_group_id.clone()),
        shown(row.remote_address_group_id.clone()),
    ]
    .join(" ")
}

/// What a prepared body says that a rule allows; checked but for its remote.
pub(super) fn shape_of(given: &mut Attributes) -> Result<SecurityGroupRuleRow> {
    let row = SecurityGroupRuleRow {
        description: given.text("description"),
        direction: given.text("direction"),
        ethertype: given.text("ethertype"),
        protocol: given.text_opt("protocol"),
        port_range_min: given.int("port_range_min"),
        port_range_max: given.int("port_range_max"),
        remote_ip_prefix: given.text_opt("remote_ip_prefix"),
        remote_group_id: given.text_opt("remote_group_id"),
        remote_address_group_id: given.text_opt("remote_address_group_id"),
        ..SecurityGroupRuleRow::default()
    };
    check_match(&row)?;
    Ok(row)
}

/// Numbers of the protocols that there are in IPv6 only.
const IPV6_ONLY: &[u8] = &[41, 43, 44, 58, 59, 60];

fn check_match(row: &SecurityGroupRuleRow) -> Result<()> {
    let Some(named) = row.protocol.as_deref() else {
        return check_ports(row, None, "None");
    };
    let known = PROTOCOLS.iter().any(|(name, _)| *name == named) || named.parse::<u8>().is_ok();
    if !known {
        let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
        return Err(Error::invalid(
            "SecurityGroupRuleInvalidProtocol",
            format!(
                "Security group rule protocol {} not supported. Only protocol values {} and integer \
                 representations [0 to 255] are supported.",
                quote(named),
                names.join(", ")
            ),
        ));
    }
    let number = protocol_number(named, &row.ethertype);
    if row.ethertype == "IPv4" && number.is_some_and(|number| IPV6_ONLY.contains(&number)) {
        return Err(Error::invalid(
            "SecurityGroupEthertypeConflictWithProtocol",
            format!("Invalid ethertype {} for protocol {named}.", row.ethertype),
        ));
    }
    check_ports(row, number, named)
}

fn check_ports(row: &SecurityGroupRuleRow, number: Option<u8>, named: &str) -> Result<()> {
    let (min, max) = (row.port_range_min, row.port_range_max);
    let wrong = |port: &i64| !(0..=65_535).contains(port);
    let invalid_value = |port: i64| {
        Error::invalid(
            "SecurityGroupInvalidPortValue",
            format!("Invalid value for port {port}"),
        )
    };
    if let Some(port) = [min, max].into_iter().flatten().find(wrong) {
        return Err(invalid_value(port));
    }
    match number {
        Some(1 | 58) => check_icmp(min, max),
        Some(6 | 17 | 33 | 132 | 136) => match (min, max) {
            (None, None) => Ok(()),
            (Some(0), _) | (_, Some(0)) if matches!(number, Some(17 | 6)) => Err(invalid_value(0)),
            (Some(min), Some(max)) if min <= max => Ok(()),
            _ => Err(Error::invalid(
                "SecurityGroupInvalidPortRange",
                "For TCP/UDP protocols, port_range_min must be <= port_range_max, and both be given",
            )),
        },
        _ if min.is_none() && max.is_none() => Ok(()),
        None => Err(Error::invalid(
            "SecurityGroupProtocolRequiredWithPorts",
            "Must also specify protocol if port range is given.",
        )),
        Some(_) => Err(Error::invalid(
            "SecurityGroupInvalidProtocolForPort",
            format!(
                "Invalid protocol {} for port range, only supported for DCCP, SCTP, TCP, UDP, UDPLITE.",
                quote(named)
            ),
        )),
    }
}

fn check_icmp(kind: Option<i64>, code: Option<i64>) -> Result<()> {
    for (field, attribute, value) in [
        ("type", "port_range_min", kind),
        ("code", "port_range_max", code),
    ] {
        if let Some(value) = value.filter(|value| *value > 255) {
            return Err(Error::invalid(
                "SecurityGroupInvalidIcmpValue",
                format!(
                    "Invalid value for ICMP {field} ({attribute}) {value}. It must be 0 to 255."
                ),
            ));
        }
    }
    if let (None, Some(code)) = (kind, code) {
        return Err(Error::invalid(
            "SecurityGroupMissingIcmpType",
            format!(
                "ICMP code (port-range-max) {code} is provided but ICMP type (port-range-min) is missing."
            ),
        ));
    }
    Ok(())
}

/// At most one remote, and a range of the rule's family, which is normalized.
pub(super) fn check_remote(row: &mut SecurityGroupRuleRow) -> Result<()> {
    let remotes = [
        &row.remote_ip_prefix,
        &row.remote_group_id,
        &row.remote_address_group_id,
    ];
    if remotes.iter().filter(|remote| remote.is_some()).count() > 1 {
        return Err(Error::invalid(
            "SecurityGroupMultipleRemoteEntites",
            "Only one of remote_ip_prefix, remote_group_id and remote_address_group_id may be provided.",
        ));
    }
    if let Some(prefix) = &row.remote_ip_prefix {
        let cidr = cidr_of(&Value::from(prefix.as_str()))
            .map_err(|reason| Error::attribute("remote_ip_prefix", reason))?
            .trunc();
        if cidr.addr().is_ipv6() != (row.ethertype == "IPv6") {
            return Err(Error::invalid(
                "SecurityGroupRuleParameterConflict",
                format!(
                    "Conflicting value ethertype {} for CIDR {prefix}.",
                    row.ethertype
                ),
            ));
        }
        row.normalized_cidr = Some(cidr.to_string());
    }
    Ok(())
}

/// Fails unless the rule's project may speak of its remote.
async fn check_remote_usable(write: &mut Write<'_>, row: &SecurityGroupRuleRow) -> Result<()> {
    if let Some(group) = &row.remote_group_id {
        let groups = std::slice::from_ref(group);
        security_group::usable(write, groups, &row.project_id).await?;
    }
    if let Some(group) = &row.remote_address_group_id {
        address_group::usable(write.tx.conn(), write.caller, group).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(protocol: Option<&str>, ports: (Option<i64>, Option<i64>)) -> SecurityGroupRuleRow {
        SecurityGroupRuleRow {
            ethertype: "IPv4".to_owned(),
            direction: "ingress".to_owned(),
            protocol: protocol.map(str::to_owned),
            port_range_min: ports.0,
            port_range_max: ports.1,
            ..SecurityGroupRuleRow::default()
        }
    }

    #[test]
    fn a_protocols_name_and_number_are_the_same_rule() {
        let both = (Some(22), Some(22));
        assert_eq!(
            match_key(&row(Some("tcp"), both)),
            match_key(&row(Some("6"), both))
        );
        assert_ne!(
            match_key(&row(Some("tcp"), both)),
            match_key(&row(Some("udp"), both))
        );
        let mut all = row(None, (None, None));
        all.normalized_cidr = Some("0.0.0.0/0".to_owned());
        assert_eq!(match_key(&all), match_key(&row(None, (None, None))));
    }

    #[test]
    fn ports_need_a_protocol_that_has_them() {
        for (protocol, ports, good) in [
            (Some("tcp"), (Some(22), Some(22)), true),
            (Some("tcp"), (None, None), true),
            (Some("tcp"), (Some(22), None), false),
            (Some("tcp"), (Some(23), Some(22)), false),
            (Some("tcp"), (Some(0), Some(22)), false),
            (Some("icmp"), (Some(8), None), true),
            (Some("icmp"), (Some(8), Some(0)), true),
            (Some("icmp"), (None, Some(0)), false),
            (Some("icmp"), (Some(256), None), false),
            (Some("icmpv6"), (None, None), false),
            (Some("gre"), (Some(1), Some(2)), false),
            (None, (Some(1), Some(2)), false),
            (Some("47"), (None, None), true),
            (Some("41"), (None, None), false),
            (Some("256"), (None, None), false),
            (Some("nonsense"), (None, None), false),
            (Some("tcp"), (Some(1), Some(65_536)), false),
        ] {
            assert_eq!(
                check_match(&row(protocol, ports)).is_ok(),
                good,
                "{protocol:?} {ports:?}"
            );
        }
    }

    #[test]
    fn icmp_in_an_ipv6_rule_is_icmpv6() {
        assert_eq!(protocol_number("icmp", "IPv6"), Some(58));
        assert_eq!(protocol_number("icmp", "IPv4"), Some(1));
        assert_eq!(protocol_number("ip", "IPv4"), None);
    }
}
