//! Floating IP pools: the IPv4 subnets that floating IPs come from, as a project may choose them.

use super::App;
use super::attribute::{Attribute, Kind};
use super::error::{Error, Result};
use super::network;
use super::policy::Caller;
use super::query;
use crate::store::subnet::subnet_list_external;
use serde_json::{Map, Value, json};

const ATTRIBUTES: &[Attribute] = &[
    Attribute::new("network_id", Kind::Uuid).filter(),
    Attribute::new("subnet_id", Kind::Uuid).filter(),
    Attribute::new("subnet_name", Kind::Text(255)).filter(),
    Attribute::new("cidr", Kind::Text(64)).filter(),
    Attribute::new("project_id", Kind::Text(255)).filter(),
];

/// GET /v2.0/floatingip_pools
///
/// # Errors
/// [`Error::Invalid`], [`Error::Forbidden`].
pub async fn list(app: &App, caller: &Caller, pairs: &[(String, String)]) -> Result<Value> {
    let asked = query::read(ATTRIBUTES, &[], pairs)?;
    let mut target = Map::new();
    target.insert("project_id".to_owned(), caller.project_id.clone().into());
    if !app.policy.allows("get_floatingip_pool", caller, &target) {
        return Err(Error::Forbidden("rule:get_floatingip_pool".to_owned()));
    }
    let mut read = app.store.read().await?;
    let mut pools = Vec::new();
    for subnet in subnet_list_external(read.conn()).await? {
        if network::usable(read.conn(), caller, &subnet.network_id)
            .await
            .is_err()
        {
            continue;
        }
        let mut pool = Map::new();
        for (name, value) in [
            ("network_id", &subnet.network_id),
            ("subnet_id", &subnet.id),
            ("subnet_name", &subnet.name),
            ("cidr", &subnet.cidr),
            ("project_id", &caller.project_id),
            ("tenant_id", &caller.project_id),
        ] {
            pool.insert(name.to_owned(), value.clone().into());
        }
        let wanted = asked.list.filters.iter().all(|filter| {
            let has = pool.get(&filter.attribute).and_then(Value::as_str);
            filter
                .values
                .iter()
                .any(|value| matches!(value, crate::store::Value::Text(text) if Some(text.as_str()) == has))
        });
        if wanted {
            pool.retain(|name, _| asked.fields.is_empty() || asked.fields.contains(name));
            pools.push(Value::Object(pool));
        }
    }
    Ok(json!({ "floatingip_pools": pools }))
}
