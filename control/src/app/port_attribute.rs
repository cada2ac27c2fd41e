//! What a port's attributes of a shape of their own must look like.

use super::attribute::{cidr_of, int_of, ip_of, mac_of, objects_of, only_keys, text_of, uuid_of};
use super::error::quote;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use weft_model::{HostName, limits};

/// Bytes of `binding:profile`.
const PROFILE_BYTES_MAX: usize = 4_095;

/// What a caller wants of one address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
        if name.trim().is_empty() || name.contains('\n') {
            return Err(format!("{} is not a valid option name", quote(&name)));
        }
        let value = match opt.get("opt_value") {
            None | Some(Value::Null) => Value::Null,
            Some(value) => text_of(value, 255)?.into(),
        };
        let version = int_of(opt.get("ip_version").unwrap_or(&json!(4)), 4, 6)?;
        Ok(json!({ "opt_name": name, "opt_value": value, "ip_version": version }))
    })?;
    Ok(opts.into())
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
