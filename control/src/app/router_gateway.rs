//! A router's leg in an external network: `external_gateway_info`.

use super::attribute::{bool_of, only_keys, uuid_of};
use super::error::{Error, Result, quote_value};
use super::network;
use super::port::{self, New, ROUTER_GATEWAY};
use super::port_attribute::{FixedIpWanted, fixed_ips};
use super::resource::Write;
use super::router::Item;
use super::{ndp_proxy, port_address, qos_policy, subnet};
use crate::store::floating_ip::floating_ip_list_router;
use crate::store::subnet::subnet_list_network;
use crate::store::{self as rows};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a caller wants of the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gateway {
    /// The external network; none takes the gateway away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_id: Option<String>,
    /// Whether IPv4 traffic leaves under the gateway's address; none for as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_snat: Option<bool>,
    /// Its addresses; none for one a family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_fixed_ips: Option<Vec<FixedIpWanted>>,
    /// Its QoS policy: the inner level says which; none for as it is.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "given"
    )]
    pub qos_policy_id: Option<Option<String>>,
}

/// What is there was given, null too.
fn given<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// Reads `external_gateway_info`; an empty object takes the gateway away.
pub(super) fn read(value: &Value) -> Result<Value, String> {
    let Value::Object(object) = value else {
        return Err(format!("{} is not a dictionary", quote_value(value)));
    };
    only_keys(
        object,
        &[
            "network_id",
            "enable_snat",
            "external_fixed_ips",
            "qos_policy_id",
        ],
    )?;
    let given = |key: &str| object.get(key).filter(|value| !value.is_null());
    if !object.is_empty() && given("network_id").is_none() {
        return Err("network_id is missing".to_owned());
    }
    let mut read = serde_json::Map::new();
    if let Some(id) = given("network_id") {
        read.insert("network_id".to_owned(), uuid_of(id)?.into());
    }
    if let Some(snat) = given("enable_snat") {
        read.insert("enable_snat".to_owned(), bool_of(snat)?.into());
    }
    if let Some(policy) = object.get("qos_policy_id") {
        let id = match policy {
            Value::Null => Value::Null,
            id => uuid_of(id)?.into(),
        };
        read.insert("qos_policy_id".to_owned(), id);
    }
    if let Some(ips) = given("external_fixed_ips") {
        read.insert("external_fixed_ips".to_owned(), fixed_ips(ips)?);
    }
    Ok(Value::Object(read))
}

/// What the API shows of it.
pub(super) fn view(item: &Item) -> Value {
    let Some(gateway) = &item.gateway else {
        return Value::Null;
    };
    let ips: Vec<Value> = gateway
        .fixed_ips
        .iter()
        .map(|ip| json!({ "subnet_id": ip.subnet_id, "ip_address": ip.ip_address }))
        .collect();
    json!({
        "network_id": gateway.row.network_id,
        "enable_snat": item.row.enable_snat,
        "external_fixed_ips": ips,
        "qos_policy_id": item.row.gateway_qos_policy_id,
    })
}

/// Gives the router this gateway, or changes the one it has.
pub(super) async fn set(write: &mut Write<'_>, item: &mut Item, wanted: Gateway) -> Result<()> {
    let network_id = wanted.network_id.unwrap_or_default();
    let network = network::usable(write.tx.conn(), write.caller, &network_id).await?;
    if !network.external {
        return Err(Error::invalid(
            "BadRequest",
            format!("Bad router request: Network {network_id} is not an external network."),
        ));
    }
    item.row.enable_snat = wanted.enable_snat.unwrap_or(item.row.enable_snat);
    let policy = item.row.gateway_qos_policy_id.clone();
    let policy = match wanted.qos_policy_id {
        Some(wanted) => qos_policy::change(write, policy, wanted).await?,
        None => policy,
    };
    let ips = wanted.external_fixed_ips.filter(|ips| !ips.is_empty());
    if let Some(gateway) = item
        .gateway
        .as_mut()
        .filter(|port| port.row.network_id == network_id)
    {
        if let Some(ips) = ips {
            port_address::assign(write, gateway, Some(&ips)).await?;
            ndp_proxy::gateway_keeps_ipv6(&item.row, gateway)?;
            rows::update(&mut write.tx, &mut gateway.row).await?;
        }
        item.row.gateway_qos_policy_id = policy;
        return Ok(());
    }
    check_overlap(write, item, &network_id).await?;
    clear(write, item).await?;
    item.row.gateway_qos_policy_id = policy;
    let new = New {
        // The port belongs to no project, so that it is neither seen nor counted there (as in Neutron).
        admin_state_up: true,
        device_id: item.row.id.clone(),
        device_owner: ROUTER_GATEWAY.to_owned(),
        fixed_ips: ips,
        security_groups: Some(Vec::new()),
        ..New::default()
    };
    // It may have no address yet: subnets that the network gets later give it some.
    let gateway = port::create(write, &network, new).await?;
    item.row.gateway_port_id = Some(gateway.row.id.clone());
    item.gateway = Some(gateway);
    Ok(())
}

/// The router must not have a leg whose range overlaps with the external network's.
async fn check_overlap(write: &mut Write<'_>, item: &Item, network: &str) -> Result<()> {
    let outside = subnet_list_network(write.conn(), network).await?;
    for leg in super::router::interfaces(write, &item.row.id).await? {
        for ip in &leg.fixed_ips {
            let inside = subnet::range_of(&port_address::subnet_of(write, &ip.subnet_id).await?);
            for other in outside.iter().map(subnet::range_of) {
                if other.contains(&inside.network()) || inside.contains(&other.network()) {
                    return Err(Error::invalid(
                        "BadRequest",
                        format!(
                            "Bad router request: Cidr {inside} of subnet {} overlaps with cidr \
                             {other} of the external network.",
                            ip.subnet_id
                        ),
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Takes the gateway away, if there is one. The row is the caller's to write.
pub(super) async fn clear(write: &mut Write<'_>, item: &mut Item) -> Result<()> {
    let Some(gateway) = item.gateway.take() else {
        return Ok(());
    };
    let router = &item.row.id;
    if !floating_ip_list_router(write.conn(), router)
        .await?
        .is_empty()
    {
        return Err(Error::conflict(
            "RouterExternalGatewayInUseByFloatingIp",
            format!(
                "Gateway cannot be updated for router {router}, since a gateway to external network \
                 {} is required by one or more floating IPs.",
                gateway.row.network_id
            ),
        ));
    }
    ndp_proxy::gateway_unused(write, &item.row).await?;
    item.row.enable_ndp_proxy = false;
    item.row.gateway_port_id = None;
    item.row.gateway_qos_policy_id = None;
    // The row refers to the port: it lets go first.
    let revision_number = item.row.revision_number;
    rows::update(&mut write.tx, &mut item.row).await?;
    item.row.revision_number = revision_number;
    port::delete(write, &gateway.row.id).await
}
