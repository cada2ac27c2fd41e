//! How many addresses networks have to give, and how many are in use.
//!
//! Numbers of IPv6 addresses are larger than what a JSON value of ours holds, so the answers are JSON text.

use super::App;
use super::attribute::{Attribute, Attributes, Kind};
use super::error::{Error, Result};
use super::network::Network;
use super::policy::Caller;
use super::query::{self, LIST_ROWS_MAX};
use super::resource;
use super::subnet::{range_of, range_of_pool};
use crate::ipam::{self, Range};
use crate::prefix;
use crate::store::network::NetworkRow;
use crate::store::port::{ip_key, used_by_subnet, used_in_range};
use crate::store::subnet::{SubnetRow, subnet_list_networks};
use crate::store::{self as rows, Conn, Filter, ListQuery, StoreError, Value as Wanted};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use std::collections::{BTreeMap, HashMap};

const ATTRIBUTES: &[Attribute] = &[
    Attribute::new("network_id", Kind::Text(64)).filter(),
    Attribute::new("network_name", Kind::Text(255)).filter(),
    Attribute::new("project_id", Kind::Text(255)).filter(),
    Attribute::new("ip_version", Kind::Int(4, 6)).filter(),
    Attribute::new("total_ips", Kind::Int(0, 0)),
    Attribute::new("used_ips", Kind::Int(0, 0)),
    Attribute::new("subnet_ip_availability", Kind::Text(0)),
    Attribute::new("ip_availability_details", Kind::Text(0)),
];

/// The rule, and what it looks at: nothing of the network.
fn permitted(app: &App, caller: &Caller) -> bool {
    let rule = "get_network_ip_availability";
    app.policy.allows(rule, caller, &Attributes::new())
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Details {
    total_ips_in_subnet: u128,
    total_ips_in_allocation_pool: u128,
    used_ips_in_subnet: u128,
    used_ips_in_allocation_pool: u128,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Subnet {
    subnet_id: String,
    subnet_name: String,
    cidr: String,
    ip_version: i64,
    total_ips: u128,
    used_ips: u128,
    ip_availability_details: Details,
}

/// GET /v2.0/network-ip-availabilities: JSON text.
///
/// # Errors
/// [`Error`].
pub async fn list(app: &App, caller: &Caller, pairs: &[(String, String)]) -> Result<String> {
    let asked = query::read(ATTRIBUTES, &[], pairs)?;
    let mut answer = Vec::new();
    if permitted(app, caller) {
        let mut read = app.store.read().await?;
        answer = availabilities(read.conn(), asked.list.filters, &asked.fields).await?;
    }
    text(&BTreeMap::from([("network_ip_availabilities", answer)]))
}

/// GET /v2.0/network-ip-availabilities/{network}: JSON text.
///
/// # Errors
/// [`Error`].
pub async fn show(
    app: &App,
    caller: &Caller,
    id: &str,
    pairs: &[(String, String)],
) -> Result<String> {
    let fields = pairs.iter().filter(|(name, _)| name == "fields").cloned();
    let asked = query::read(ATTRIBUTES, &[], &fields.collect::<Vec<_>>())?;
    let not_found = || resource::not_found::<Network>(id);
    if !permitted(app, caller) {
        return Err(not_found());
    }
    let by_id = Filter {
        attribute: "network_id".to_owned(),
        values: vec![Wanted::Text(id.to_owned())],
    };
    let mut read = app.store.read().await?;
    let mut found = availabilities(read.conn(), vec![by_id], &asked.fields).await?;
    let one = found.pop().ok_or_else(not_found)?;
    text(&BTreeMap::from([("network_ip_availability", one)]))
}

/// A network's answer, field by field.
type Answer = BTreeMap<&'static str, Box<RawValue>>;

/// Texts and numbers always have a JSON; if they had not, that would be a defect of ours.
fn defect(error: serde_json::Error) -> Error {
    Error::Internal(StoreError::Database(error.into()))
}

fn text(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(defect)
}

async fn availabilities(
    conn: &mut Conn,
    filters: Vec<Filter>,
    fields: &[String],
) -> Result<Vec<Answer>> {
    let mut ip_version = None;
    let mut query = ListQuery {
        limit: Some(LIST_ROWS_MAX),
        ..ListQuery::default()
    };
    for filter in filters {
        let attribute = match filter.attribute.as_str() {
            "ip_version" => {
                ip_version = Some(filter.values);
                continue;
            }
            "network_id" => "id",
            "network_name" => "name",
            other => other,
        };
        query.filters.push(Filter {
            attribute: attribute.to_owned(),
            values: filter.values,
        });
    }
    let networks: Vec<Box<NetworkRow>> = rows::list(&mut *conn, &query).await?;
    let ids: Vec<&str> = networks.iter().map(|row| row.id.as_str()).collect();
    let mut subnets: HashMap<String, Vec<Subnet>> = HashMap::new();
    let mut of_networks = subnet_list_networks(&mut *conn, &ids).await?;
    if let Some(wanted) = &ip_version {
        of_networks.retain(|subnet| wanted.contains(&Wanted::Int(subnet.ip_version)));
    }
    let ids: Vec<&str> = of_networks.iter().map(|row| row.id.as_str()).collect();
    let used = used_by_subnet(&mut *conn, &ids).await?;
    let used: HashMap<String, i64> = used.into_iter().collect();
    for row in &of_networks {
        let used = used.get(&row.id).copied().unwrap_or(0);
        let subnet = subnet_of(&mut *conn, row, used).await?;
        subnets
            .entry(row.network_id.clone())
            .or_default()
            .push(subnet);
    }
    let mut answers = Vec::with_capacity(networks.len());
    for network in networks {
        let subnets = subnets.remove(&network.id).unwrap_or_default();
        // Whoever asks for one family wants no network without it.
        if ip_version.is_none() || !subnets.is_empty() {
            answers.push(answer(&network, &subnets, fields)?);
        }
    }
    Ok(answers)
}

fn count(used: i64) -> u128 {
    u128::from(used.unsigned_abs())
}

fn size(range: Range) -> u128 {
    range.last - range.first + 1
}

async fn subnet_of(conn: &mut Conn, row: &SubnetRow, used: i64) -> Result<Subnet> {
    let cidr = range_of(row);
    let all = size(prefix::range(cidr));
    let pools: Vec<Range> = row
        .allocation_pools
        .0
        .iter()
        .map(|pool| range_of_pool(*pool))
        .collect();
    let in_pools: u128 = pools.iter().copied().map(size).sum();
    let mut used_in_pools = 0;
    for pool in pools.iter().filter(|_| used > 0) {
        let key = |number| ip_key(ipam::address(number));
        let (first, last) = (key(pool.first), key(pool.last));
        used_in_pools += count(used_in_range(&mut *conn, &row.id, &first, &last).await?);
    }
    Ok(Subnet {
        subnet_id: row.id.clone(),
        subnet_name: row.name.clone(),
        cidr: row.cidr.clone(),
        ip_version: row.ip_version,
        total_ips: if pools.is_empty() { all } else { in_pools },
        used_ips: count(used),
        ip_availability_details: Details {
            // Neutron leaves the network's and the broadcast address out.
            total_ips_in_subnet: all.saturating_sub(if row.ip_version == 4 { 2 } else { 0 }),
            total_ips_in_allocation_pool: in_pools,
            used_ips_in_subnet: count(used),
            used_ips_in_allocation_pool: used_in_pools,
        },
    })
}

fn answer(network: &NetworkRow, subnets: &[Subnet], fields: &[String]) -> Result<Answer> {
    let mut details = Details::default();
    let (mut total, mut used) = (0_u128, 0_u128);
    for subnet in subnets {
        let own = subnet.ip_availability_details;
        total = total.saturating_add(subnet.total_ips);
        used += subnet.used_ips;
        details = Details {
            total_ips_in_subnet: details
                .total_ips_in_subnet
                .saturating_add(own.total_ips_in_subnet),
            total_ips_in_allocation_pool: details
                .total_ips_in_allocation_pool
                .saturating_add(own.total_ips_in_allocation_pool),
            used_ips_in_subnet: details.used_ips_in_subnet + own.used_ips_in_subnet,
            used_ips_in_allocation_pool: details.used_ips_in_allocation_pool
                + own.used_ips_in_allocation_pool,
        };
    }
    let raw = [
        ("network_id", to_raw_value(&network.id)),
        ("network_name", to_raw_value(&network.name)),
        ("project_id", to_raw_value(&network.project_id)),
        ("tenant_id", to_raw_value(&network.project_id)),
        ("total_ips", to_raw_value(&total)),
        ("used_ips", to_raw_value(&used)),
        ("subnet_ip_availability", to_raw_value(subnets)),
        ("ip_availability_details", to_raw_value(&details)),
    ];
    let mut answer = Answer::new();
    for (name, value) in raw {
        let asked = if name == "tenant_id" {
            "project_id"
        } else {
            name
        };
        if fields.is_empty() || fields.iter().any(|field| field == asked) {
            answer.insert(name, value.map_err(defect)?);
        }
    }
    Ok(answer)
}
