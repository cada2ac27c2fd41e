//! Quotas: how many of each resource a project may have.

use super::error::{Error, Result, quote};
use super::policy::Caller;
use super::resource::{Resource, Write};
use super::{App, attribute};
use crate::store::floating_ip::FloatingIpRow;
use crate::store::network::NetworkRow;
use crate::store::port::PortRow;
use crate::store::router::RouterRow;
use crate::store::security_group::{SecurityGroupRow, SecurityGroupRuleRow};
use crate::store::subnet::SubnetRow;
use crate::store::subnetpool::SubnetpoolRow;
use crate::store::{Conn, quota as store, quota::usage};
use serde_json::{Map, Value, json};

/// Neutron's defaults; -1 is no limit.
pub const DEFAULTS: &[(&str, i64)] = &[
    ("network", 100),
    ("subnet", 100),
    ("subnetpool", -1),
    ("port", 500),
    ("router", 10),
    ("floatingip", 50),
    ("security_group", 10),
    ("security_group_rule", 100),
];

/// The largest limit; Neutron's is the database's 32-bit integer.
const LIMIT_MAX: i64 = 2_147_483_647;

fn default_of(app: &App, resource: &str) -> i64 {
    let configured = app.config.quotas.get(resource).copied();
    let built_in = DEFAULTS
        .iter()
        .find(|(name, _)| *name == resource)
        .map(|(_, limit)| *limit);
    configured.or(built_in).unwrap_or(-1)
}

async fn limits(app: &App, conn: &mut Conn, project: &str) -> Result<Vec<(&'static str, i64)>> {
    let own = store::quota_get(conn, project).await?;
    Ok(DEFAULTS
        .iter()
        .map(|(name, _)| {
            let own = own
                .iter()
                .find(|(resource, _)| resource == name)
                .map(|(_, limit)| *limit);
            (*name, own.unwrap_or_else(|| default_of(app, name)))
        })
        .collect())
}

/// Refuses a transaction that has written more than the project may have. Counts no further than the limit.
///
/// # Errors
/// [`Error::Conflict`] (OverQuota).
pub async fn check<R: Resource>(write: &mut Write<'_>, project: &str, _new: i64) -> Result<()> {
    let app = write.app;
    let own = store::quota_get(write.conn(), project).await?;
    let own = own
        .into_iter()
        .find(|(resource, _)| resource == R::NAME)
        .map(|(_, limit)| limit);
    let limit = own.unwrap_or_else(|| default_of(app, R::NAME));
    if limit < 0 || project.is_empty() {
        return Ok(());
    }
    if usage::<R::Row>(write.conn(), project, limit + 1).await? > limit {
        return Err(Error::conflict(
            "OverQuota",
            format!("Quota exceeded for resources: ['{}'].", R::NAME),
        ));
    }
    Ok(())
}

fn permit(app: &App, caller: &Caller, rule: &str, project: &str) -> Result<()> {
    let mut target = Map::new();
    target.insert("project_id".to_owned(), project.into());
    if app.policy.allows(rule, caller, &target) {
        Ok(())
    } else {
        Err(Error::Forbidden(format!("rule:{rule}")))
    }
}

fn wrap(limits: Vec<(&'static str, i64)>) -> Value {
    let quota: Map<String, Value> = limits
        .into_iter()
        .map(|(name, limit)| (name.to_owned(), limit.into()))
        .collect();
    json!({ "quota": quota })
}

/// GET /v2.0/quotas/{project}. Reading one's own limits needs no more than a token with a role that reads: the
/// stock client shows them.
///
/// # Errors
/// [`Error::Forbidden`].
pub async fn show(app: &App, caller: &Caller, project: &str) -> Result<Value> {
    if project != caller.project_id || !caller.has_role("reader") {
        permit(app, caller, "get_quota", project)?;
    }
    let mut read = app.store.read().await?;
    Ok(wrap(limits(app, read.conn(), project).await?))
}

/// GET /v2.0/quotas/{project}/default
///
/// # Errors
/// [`Error::Forbidden`].
pub fn show_default(app: &App, caller: &Caller, project: &str) -> Result<Value> {
    if project != caller.project_id || !caller.has_role("reader") {
        permit(app, caller, "get_quota", project)?;
    }
    Ok(wrap(
        DEFAULTS
            .iter()
            .map(|(name, _)| (*name, default_of(app, name)))
            .collect(),
    ))
}

/// GET /v2.0/quotas/{project}/details: limits with what is in use.
///
/// # Errors
/// [`Error::Forbidden`].
pub async fn show_details(app: &App, caller: &Caller, project: &str) -> Result<Value> {
    if project != caller.project_id || !caller.has_role("reader") {
        permit(app, caller, "get_quota", project)?;
    }
    let mut read = app.store.read().await?;
    let mut quota = Map::new();
    for (name, limit) in limits(app, read.conn(), project).await? {
        let used = used(read.conn(), name, project).await?;
        quota.insert(
            name.to_owned(),
            json!({ "limit": limit, "used": used, "reserved": 0 }),
        );
    }
    Ok(json!({ "quota": quota }))
}

async fn used(conn: &mut Conn, resource: &str, project: &str) -> Result<i64> {
    Ok(match resource {
        "network" => usage::<NetworkRow>(conn, project, LIMIT_MAX).await?,
        "subnet" => usage::<SubnetRow>(conn, project, LIMIT_MAX).await?,
        "subnetpool" => usage::<SubnetpoolRow>(conn, project, LIMIT_MAX).await?,
        "port" => usage::<PortRow>(conn, project, LIMIT_MAX).await?,
        "router" => usage::<RouterRow>(conn, project, LIMIT_MAX).await?,
        "floatingip" => usage::<FloatingIpRow>(conn, project, LIMIT_MAX).await?,
        "security_group" => usage::<SecurityGroupRow>(conn, project, LIMIT_MAX).await?,
        _ => usage::<SecurityGroupRuleRow>(conn, project, LIMIT_MAX).await?,
    })
}

/// GET /v2.0/quotas: the projects with limits of their own.
///
/// # Errors
/// [`Error::Forbidden`].
pub async fn list(app: &App, caller: &Caller) -> Result<Value> {
    permit(app, caller, "get_quota", "*")?;
    let mut read = app.store.read().await?;
    let mut projects: Vec<String> = store::quota_list(read.conn())
        .await?
        .into_iter()
        .map(|(project, _, _)| project)
        .collect();
    projects.dedup();
    let mut quotas = Vec::new();
    for project in projects {
        let mut quota: Map<String, Value> = limits(app, read.conn(), &project)
            .await?
            .into_iter()
            .map(|(name, limit)| (name.to_owned(), limit.into()))
            .collect();
        quota.insert("project_id".to_owned(), project.clone().into());
        quota.insert("tenant_id".to_owned(), project.into());
        quotas.push(Value::Object(quota));
    }
    Ok(json!({ "quotas": quotas }))
}

/// PUT /v2.0/quotas/{project}
///
/// # Errors
/// [`Error::Forbidden`], [`Error::Invalid`].
pub async fn update(app: &App, caller: &Caller, project: &str, body: &Value) -> Result<Value> {
    permit(app, caller, "update_quota", project)?;
    if project.is_empty() || project.len() > 255 {
        return Err(Error::bad_request(
            "The project's id must have 1 to 255 characters",
        ));
    }
    let quota = body
        .get("quota")
        .and_then(Value::as_object)
        .ok_or_else(|| Error::bad_request("Unable to find 'quota' in request body"))?;
    let mut new = Vec::new();
    let mut check_limit = false;
    for (name, value) in quota {
        match name.as_str() {
            "project_id" | "tenant_id" | "force" => {}
            "check_limit" => {
                check_limit = attribute::bool_of(value)
                    .map_err(|reason| Error::attribute("check_limit", reason))?;
            }
            _ => {
                let Some((name, _)) = DEFAULTS.iter().find(|(known, _)| known == name) else {
                    return Err(Error::bad_request(format!(
                        "Unrecognized attribute(s) {}",
                        quote(name)
                    )));
                };
                let limit = attribute::int_of(value, -1, LIMIT_MAX)
                    .map_err(|reason| Error::attribute(name, reason))?;
                new.push((*name, limit));
            }
        }
    }
    let mut tx = app.store.write().await?;
    for (name, limit) in new {
        if check_limit && limit >= 0 && used(tx.conn(), name, project).await? > limit {
            return Err(Error::invalid(
                "InvalidQuotaValue",
                format!("Change would make usage less than 0 for the following resources: {name}."),
            ));
        }
        store::quota_set(&mut tx, project, name, limit).await?;
    }
    let limits = limits(app, tx.conn(), project).await?;
    tx.commit().await?;
    Ok(wrap(limits))
}

/// DELETE /v2.0/quotas/{project}: back to the defaults.
///
/// # Errors
/// [`Error::Forbidden`], [`Error::NotFound`].
pub async fn delete(app: &App, caller: &Caller, project: &str) -> Result<()> {
    permit(app, caller, "delete_quota", project)?;
    let mut tx = app.store.write().await?;
    if !store::quota_delete(&mut tx, project).await? {
        let shown: String = project.chars().take(64).collect();
        return Err(Error::not_found(
            "TenantQuotaNotFound",
            format!("Quota for project {shown} could not be found."),
        ));
    }
    tx.commit().await?;
    Ok(())
}
