//! A port's attributes: the table, and what those of a shape of their own must look like.

use super::attribute::{
    Attribute, Default, Kind, cidr_of, int_of, ip_of, mac_of, objects_of, only_keys, text_of,
    uuid_of,
};
use super::error::{quote, quote_value};
use super::port_dns::{dns_domain, dns_name};
use super::port_pvlan;
use crate::store::port::DhcpOpt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use weft_model::{HostName, limits};

/// Bytes of `binding:profile`.
const PROFILE_BYTES_MAX: usize = 4_095;

/// Neutron's `binding:vnic_type`.
pub(super) const VNIC_TYPES: &[&str] = &[
    "normal",
    "direct",
    "macvtap",
    "baremetal",
    "direct-physical",
    "virtio-forwarder",
    "smart-nic",
    "vdpa",
    "accelerator-direct",
    "accelerator-direct-physical",
    "remote-managed",
];

const NUMA_POLICIES: &[&str] = &["required", "preferred", "legacy", "socket"];

/// All of them.
pub(super) const ALL: &[Attribute] = &[
    Attribute::new("name", Kind::Text(255))
        .post(Default::Text(""))
        .put()
        .sort(),
    Attribute::new("network_id", Kind::Uuid).required().sort(),
    Attribute::new("admin_state_up", Kind::Bool)
        .post(Default::Bool(true))
        .put()
        .sort(),
    Attribute::new("mac_address", Kind::Mac)
        .post(Default::Unset)
        .put()
        .nullable()
        .sort(),
    Attribute::new("fixed_ips", Kind::Custom(fixed_ips))
        .post(Default::Unset)
        .put(),
    Attribute::new("device_id", Kind::Text(255))
        .post(Default::Text(""))
        .put()
        .sort(),
    Attribute::new("device_owner", Kind::Text(255))
        .post(Default::Text(""))
        .put()
        .sort(),
    Attribute::new("security_groups", Kind::UuidList)
        .post(Default::Unset)
        .put()
        .nullable()
        .filter(),
    Attribute::new("allowed_address_pairs", Kind::Custom(address_pairs))
        .post(Default::EmptyList)
        .put()
        .nullable(),
    Attribute::new("extra_dhcp_opts", Kind::Custom(dhcp_opts))
        .post(Default::Null)
        .put()
        .nullable(),
    Attribute::new("port_security_enabled", Kind::Bool)
        .post(Default::Unset)
        .put(),
    Attribute::new("binding:host_id", Kind::Custom(host))
        .post(Default::Unset)
        .put()
        .nullable()
        .filter(),
    Attribute::new("binding:vnic_type", Kind::OneOf(VNIC_TYPES))
        .post(Default::Text("normal"))
        .put(),
    Attribute::new("binding:profile", Kind::Custom(profile))
        .post(Default::Unset)
        .put()
        .nullable(),
    Attribute::new("qos_policy_id", Kind::Uuid)
        .post(Default::Null)
        .put()
        .nullable(),
    Attribute::new("qos_network_policy_id", Kind::Uuid),
    Attribute::new("resource_request", Kind::Text(0)),
    Attribute::new("dns_name", Kind::Custom(dns_name))
        .post(Default::Text(""))
        .put(),
    Attribute::new("dns_domain", Kind::Custom(dns_domain))
        .post(Default::Text(""))
        .put(),
    Attribute::new("dns_assignment", Kind::Text(0)),
    Attribute::new("data_plane_status", Kind::OneOf(&["ACTIVE", "DOWN"]))
        .put()
        .nullable(),
    Attribute::new("device_profile", Kind::Text(255))
        .post(Default::Null)
        .nullable(),
    Attribute::new("hardware_offload_type", Kind::OneOf(&["switchdev"])).post(Default::Unset),
    Attribute::new("hints", Kind::Custom(hints))
        .post(Default::Null)
        .put()
        .nullable(),
    Attribute::new("numa_affinity_policy", Kind::OneOf(NUMA_POLICIES))
        .post(Default::Null)
        .put()
        .nullable(),
    Attribute::new("propagate_uplink_status", Kind::Bool)
        .post(Default::Bool(true))
        .put(),
    Attribute::new("trusted", Kind::Bool)
        .post(Default::Unset)
        .put(),
    Attribute::new("pvlan_type", Kind::OneOf(port_pvlan::TYPES))
        .post(Default::Null)
        .put()
        .nullable()
        .filter(),
    Attribute::new("pvlan_community", Kind::Custom(port_pvlan::community))
        .post(Default::Null)
        .put()
        .nullable()
        .filter(),
    Attribute::new("ip_allocation", Kind::Text(16)).sort(),
    Attribute::new("binding:vif_type", Kind::Text(64)),
    Attribute::new("binding:vif_details", Kind::Text(64)),
    Attribute::new("status", Kind::Text(16)).sort(),
];

/// What a caller wants of one address.
#[derive(Clone, Debug, std::default::Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FixedIpWanted {
    /// The subnet to take it from.
    pub(super) subnet_id: Option<String>,
    /// The address.
    pub(super) ip_address: Option<IpAddr>,
}

/// Reads `fixed_ips` and `external_fixed_ips`.
pub(super) fn fixed_ips(value: &Value) -> Result<Value, String> {
    let wanted = objects_of(value, limits::FIXED_IPS_MAX, "fixed_ips", |ip| {
        only_keys(ip, &["subnet_id", "ip_address"])?;
        let given = |key: &str| ip.get(key).filter(|value| !value.is_null());
        Ok(FixedIpWanted {
            subnet_id: given("subnet_id").map(uuid_of).transpose()?,
            ip_address: given("ip_address").map(ip_of).transpose()?,
        })
    })?;
    for (n, wish) in wanted.iter().enumerate() {
        if wish.ip_address.is_some()
            && wanted[..n]
                .iter()
                .any(|before| before.ip_address == wish.ip_address)
        {
            return Err("Duplicate IP address in fixed_ips".to_owned());
        }
    }
    let objects = wanted.iter().map(|wish| {
        let mut object = Map::new();
        if let Some(subnet) = &wish.subnet_id {
            object.insert("subnet_id".to_owned(), subnet.clone().into());
        }
        if let Some(ip) = wish.ip_address {
            object.insert("ip_address".to_owned(), ip.to_string().into());
        }
        Value::Object(object)
    });
    Ok(objects.collect())
}

pub(super) fn address_pairs(value: &Value) -> Result<Value, String> {
    let pairs = objects_of(
        value,
        limits::ALLOWED_ADDRESS_PAIRS_MAX,
        "allowed_address_pairs",
        |pair| {
            only_keys(pair, &["mac_address", "ip_address"])?;
            let given = |key: &str| pair.get(key).filter(|value| !value.is_null());
            let ip = given("ip_address").ok_or("AllowedAddressPair must contain ip_address")?;
            let net = ip_of(ip).map(ipnet::IpNet::from).or_else(|_| cidr_of(ip))?;
            if net.addr().is_multicast() {
                return Err(format!("{net} is a multicast address"));
            }
            let mut object = Map::new();
            object.insert("ip_address".to_owned(), ip.clone());
            if let Some(mac) = given("mac_address") {
                object.insert("mac_address".to_owned(), mac_of(mac)?.to_string().into());
            }
            Ok(Value::Object(object))
        },
    )?;
    for (n, pair) in pairs.iter().enumerate() {
        if pairs[..n].contains(pair) {
            return Err("Request contains duplicate address pair".to_owned());
        }
    }
    Ok(pairs.into())
}

pub(super) fn dhcp_opts(value: &Value) -> Result<Value, String> {
    let opts = objects_of(value, limits::DHCP_OPTIONS_MAX, "extra_dhcp_opts", |opt| {
        only_keys(opt, &["opt_name", "opt_value", "ip_version"])?;
        let name = text_of(opt.get("opt_name").unwrap_or(&Value::Null), 64)?;
        let one_line = |text: &str| !text.trim().is_empty() && !text.contains(['\n', '\r']);
        if !one_line(&name) {
            return Err(format!("{} is not a valid option name", quote(&name)));
        }
        let value = match opt.get("opt_value") {
            None => return Err(format!("opt_value of {} is missing", quote(&name))),
            Some(Value::Null) => Value::Null,
            Some(value) => {
                let text = text_of(value, 255)?;
                let blank = text.is_empty() && MAY_BE_BLANK.contains(&&*name);
                if !(blank || one_line(&text)) {
                    return Err(format!(
                        "opt_value of {} must be one line, not empty",
                        quote(&name)
                    ));
                }
                text.into()
            }
        };
        let version = int_of(opt.get("ip_version").unwrap_or(&json!(4)), 4, 6)?;
        if version == 5 {
            return Err("'5' is not in [4, 6]".to_owned());
        }
        Ok(json!({ "opt_name": name, "opt_value": value, "ip_version": version }))
    })?;
    Ok(opts.into())
}

/// Neutron's names of options that may be withheld by an empty value.
const MAY_BE_BLANK: [&str; 2] = ["router", "classless-static-route"];

/// What a port has after a caller asked for these options: an option without a value is taken away, and options not named stay.
pub(super) fn opts_of(value: Option<Value>, before: Vec<DhcpOpt>) -> Vec<DhcpOpt> {
    let mut opts = before;
    let Some(Value::Array(list)) = value else {
        return opts;
    };
    for item in list {
        let name = item["opt_name"].as_str().unwrap_or_default().to_owned();
        let ip_version = if item["ip_version"].as_i64() == Some(6) {
            6
        } else {
            4
        };
        opts.retain(|have| have.opt_name != name || have.ip_version != ip_version);
        if let Some(value) = item["opt_value"].as_str() {
            opts.push(DhcpOpt {
                opt_name: name,
                opt_value: value.to_owned(),
                ip_version,
            });
        }
    }
    opts
}

/// Reads `hints`: `{"openvswitch": {"other_config": {"tx-steering": "thread" | "hash"}}}`.
fn hints(value: &Value) -> Result<Value, String> {
    let object = |value: &Value, only: &str| match value {
        Value::Object(object) => {
            only_keys(object, &[only])?;
            Ok(object.get(only).cloned())
        }
        other => Err(format!("{} is not a dictionary", quote_value(other))),
    };
    let Some(switch) = object(value, "openvswitch")? else {
        return Ok(value.clone());
    };
    let Some(config) = object(&switch, "other_config")? else {
        return Ok(value.clone());
    };
    match object(&config, "tx-steering")? {
        None => Ok(value.clone()),
        Some(Value::String(how)) if how == "thread" || how == "hash" => Ok(value.clone()),
        Some(other) => Err(format!(
            "{} is not in ['thread', 'hash']",
            quote_value(&other)
        )),
    }
}

pub(super) fn profile(value: &Value) -> Result<Value, String> {
    match value {
        Value::Object(object) if value.to_string().len() <= PROFILE_BYTES_MAX => {
            Ok(Value::Object(object.clone()))
        }
        Value::Object(_) => Err(format!("longer than {PROFILE_BYTES_MAX} bytes")),
        _ => Err("not a dictionary".to_owned()),
    }
}

pub(super) fn host(value: &Value) -> Result<Value, String> {
    let text = text_of(value, 253)?;
    if !text.is_empty() {
        text.parse::<HostName>()
            .map_err(|error| error.to_string())?;
    }
    Ok(text.into())
}
