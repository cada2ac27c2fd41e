//! Quotas: how many of each resource a project may have.

use super::error::{Error, Result, quote};
use super::policy::Caller;
use super::resource::{Resource, Write};
use super::{App, attribute};
use crate::store::floating_ip::FloatingIpRow;
use crate::store::network::NetworkRow;
use crate::store::port::PortRow;
use crate::store::rbac_policy::RbacPolicyRow;
use crate::store::router::RouterRow;
use crate::store::security_group::{SecurityGroupRow, SecurityGroupRuleRow};
use crate::store::subnet::SubnetRow;
use crate::store::subnetpool::SubnetpoolRow;
use crate::store::trunk::TrunkRow;
use crate::store::{Conn, Row, quota as store, quota::usage};
use serde_json::{Map, Value, json};

/// A resource that projects may have so many of.
pub struct Limited {
    /// Neutron's name.
    pub resource: &'static str,
    /// Neutron's default; -1 is no limit.
    pub default: i64,
    /// Where its rows are.
    pub table: &'static str,
}

const fn limited<R: Row>(resource: &'static str, default: i64) -> Limited {
    Limited {
        resource,
        default,
        table: R::TABLE,
    }
}

/// All of them, with Neutron's defaults.
pub const LIMITED: &[Limited] = &[
    limited::<FloatingIpRow>("floatingip", 50),
    limited::<NetworkRow>("network", 100),
    limited::<PortRow>("port", 500),
    limited::<RbacPolicyRow>("rbac_policy", 10),
    limited::<RouterRow>("router", 10),
    limited::<SecurityGroupRow>("security_group", 10),
    limited::<SecurityGroupRuleRow>("security_group_rule", 100),
    limited::<SubnetRow>("subnet", 100),
    limited::<SubnetpoolRow>("subnetpool", -1),
    limited::<TrunkRow>("trunk", -1),
];

/// The largest limit; Neutron's is the database's 32-bit integer.
pub(super) const LIMIT_MAX: i64 = 2_147_483_647;

pub(super) fn limited_of(resource: &str) -> Option<&'static Limited> {
    LIMITED.iter().find(|known| known.resource == resource)
}

fn default_of(app: &App, resource: &str) -> i64 {
    let configured = app.config.quotas.get(resource).copied();
    let built_in = limited_of(resource).map(|known| known.default);
    configured.or(built_in).unwrap_or(-1)
}

async fn limits(app: &App, conn: &mut Conn, project: &str) -> Result<Vec<(&'static str, i64)>> {
    let own = store::quota_get(conn, project).await?;
    Ok(LIMITED
        .iter()
        .map(|known| {
            let own = own
                .iter()
                .find(|(resource, _)| resource == known.resource)
                .map(|(_, limit)| *limit);
            let limit = own.unwrap_or_else(|| default_of(app, known.resource));
            (known.resource, limit)
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
    if usage(write.conn(), R::Row::TABLE, project, limit + 1).await? > limit {
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
        LIMITED
            .iter()
            .map(|known| (known.resource, default_of(app, known.resource)))
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
    Ok(match limited_of(resource) {
        Some(known) => usage(conn, known.table, project, LIMIT_MAX).await?,
        None => 0,
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
    let (new, force) = limits_wanted(quota)?;
    let mut tx = app.store.write().await?;
    for (name, limit) in new {
        let used = used(tx.conn(), name, project).await?;
        if !force && limit >= 0 && used > limit {
            return Err(Error::bad_request(format!(
                "Quota limit {limit} for {name} must be greater than or equal to already used {used}"
            )));
        }
        store::quota_set(&mut tx, project, name, limit).await?;
    }
    let limits = limits(app, tx.conn(), project).await?;
    tx.commit().await?;
    Ok(wrap(limits))
}

/// The limits that a body asks for, and whether they are to be set even where more is in use. (`check_limit` asks for
/// what is the default by now.)
fn limits_wanted(quota: &Map<String, Value>) -> Result<(Vec<(&'static str, i64)>, bool)> {
    let mut new = Vec::new();
    let mut force = false;
    for (name, value) in quota {
        let truth = || attribute::bool_of(value).map_err(|reason| Error::attribute(name, reason));
        match name.as_str() {
            "project_id" | "tenant_id" => {}
            "force" => force = truth()?,
            "check_limit" => {
                truth()?;
            }
            _ => {
                let known = limited_of(name).ok_or_else(|| {
                    Error::bad_request(format!("Unrecognized attribute(s) {}", quote(name)))
                })?;
                let limit = attribute::int_of(value, -1, LIMIT_MAX)
                    .map_err(|reason| Error::attribute(name, reason))?;
                new.push((known.resource, limit));
            }
        }
    }
    Ok((new, force))
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
