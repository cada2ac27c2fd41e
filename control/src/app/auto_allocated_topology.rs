//! Auto-allocated topologies ("get me a network"): a network with a subnet of each default pool, behind a router to the
//! default external network, made for whoever asks for the first time.
//!
//! Guarantees: all of it is made or nothing; a project that asks twice, even at the same time, gets one.

use super::attribute::{self, Attributes};
use super::error::{Error, Result};
use super::network::Network;
use super::policy::Caller;
use super::resource::{Resource, Write, get, not_found};
use super::router::{Router, interfaces};
use super::subnet::Subnet;
use super::{App, port, quota, router_interface, subnetpool};
use crate::store::auto_allocated_topology::{TopologyRow, topology_get, topology_insert};
use crate::store::network::{NetworkRow, network_default};
use crate::store::router::interface_delete;
use crate::store::subnetpool::SubnetpoolRow;
use crate::store::{Conn, Resource as Kind, Row};
use serde_json::{Value, json};

/// The `fields` value that only asks whether it could be made.
const DRY_RUN: &str = "dry-run";

/// The project that a path names: None is what clients send for their own.
fn project_of<'a>(caller: &'a Caller, named: &'a str) -> &'a str {
    if named == "None" {
        &caller.project_id
    } else {
        named
    }
}

fn permit(app: &App, caller: &Caller, rule: &str, project: &str) -> Result<()> {
    let mut target = Attributes::new();
    target.insert("project_id".to_owned(), project.into());
    app.permit(rule, caller, &target)
}

fn answer(id: &str, project: &str) -> Value {
    json!({ "auto_allocated_topology": { "id": id, "project_id": project, "tenant_id": project } })
}

fn failure(reason: &str) -> Error {
    Error::conflict(
        "AutoAllocationFailure",
        format!("Deployment error: {reason}."),
    )
}

/// GET /v2.0/auto-allocated-topology/{project}: what the project has, made if it has none.
///
/// # Errors
/// [`Error`].
pub async fn show(
    app: &App,
    caller: &Caller,
    project: &str,
    pairs: &[(String, String)],
) -> Result<Value> {
    let project = project_of(caller, project);
    permit(app, caller, "get_auto_allocated_topology", project)?;
    let asked = |(name, _): &&(String, String)| name == "fields";
    let fields: Vec<&str> = pairs
        .iter()
        .filter(asked)
        .map(|(_, field)| field.as_str())
        .collect();
    let dry_run = fields.contains(&DRY_RUN);
    if let Some(unknown) = fields
        .iter()
        .find(|field| !["id", "project_id", "tenant_id", DRY_RUN].contains(field))
    {
        return Err(Error::attribute("fields", super::error::quote(unknown)));
    }
    let mut read = app.store.read().await?;
    if dry_run {
        requirements(read.conn(), caller).await?;
        return Ok(answer("dry-run=pass", project));
    }
    if let Some(have) = topology_get(read.conn(), project).await? {
        return Ok(answer(&have.network_id, project));
    }
    drop(read);
    let mut write = Write {
        tx: app.store.write().await?,
        caller,
        app,
    };
    let network = build(&mut write, project).await?;
    write.tx.commit().await?;
    Ok(answer(&network, project))
}

/// What it takes: an external network that is the default, and a default pool of a family at least.
async fn requirements(
    conn: &mut Conn,
    caller: &Caller,
) -> Result<(NetworkRow, Vec<SubnetpoolRow>)> {
    let external = network_default(conn)
        .await?
        .ok_or_else(|| failure("No default router:external network"))?;
    let mut pools = Vec::new();
    for ip_version in [4, 6] {
        if let Some(pool) = subnetpool::default_of(conn, ip_version).await?
            && subnetpool::usable(conn, caller, &pool.id).await.is_ok()
        {
            pools.push(pool);
        }
    }
    if pools.is_empty() {
        return Err(failure("No default subnetpools defined"));
    }
    Ok((external, pools))
}

async fn build(write: &mut Write<'_>, project: &str) -> Result<String> {
    let caller = write.caller;
    let (external, pools) = requirements(write.conn(), caller).await?;
    // Whoever asks for the same project at the same time waits here, and then finds what was made.
    write.tx.touch(Kind::Network, &external.id).await?;
    if let Some(have) = topology_get(write.conn(), project).await? {
        return Ok(have.network_id);
    }
    let body = json!({ "name": "auto_allocated_network" });
    let network = make::<Network>(write, project, body).await?.row;
    let mut subnets = Vec::new();
    for pool in pools {
        let body = json!({
            "name": format!("auto_allocated_subnet_v{}", pool.ip_version),
            "network_id": network.id,
            "ip_version": pool.ip_version,
            "subnetpool_id": pool.id,
        });
        let subnet = make::<Subnet>(write, project, body).await;
        subnets.push(subnet.map_err(|error| unmet(error, "project private network"))?);
    }
    let body = json!({
        "name": "auto_allocated_router",
        "external_gateway_info": { "network_id": external.id },
    });
    let router = make::<Router>(write, project, body).await;
    let router = router.map_err(|error| unmet(error, "external connectivity"))?;
    for subnet in subnets {
        router_interface::add_subnet(write, &router, &subnet.row.id).await?;
    }
    let row = TopologyRow {
        project_id: project.to_owned(),
        network_id: network.id,
        router_id: Some(router.row.id),
    };
    topology_insert(&mut write.tx, &row).await?;
    Ok(row.network_id)
}

/// What is wrong with the request that was never sent is wrong with the deployment.
fn unmet(error: Error, what: &str) -> Error {
    match error {
        Error::Invalid { .. }
        | Error::NotFound { .. }
        | Error::Conflict {
            kind: "SubnetAllocationError",
            ..
        } => failure(&format!("Unable to provide {what}")),
        other => other,
    }
}

/// Makes a resource of the project as if it had asked for it itself.
async fn make<R: Resource>(write: &mut Write<'_>, project: &str, body: Value) -> Result<R::Item> {
    let Value::Object(body) = body else {
        return Err(Error::bad_request("not an object"));
    };
    let mut attributes = attribute::prepare_create(R::ATTRIBUTES, R::STANDARD, body)?;
    attributes.insert("project_id".to_owned(), project.into());
    let item = R::create(write, attributes).await?;
    quota::check::<R>(write, project, 1).await?;
    Ok(item)
}

/// DELETE /v2.0/auto-allocated-topology/{project}
///
/// # Errors
/// [`Error`].
pub async fn delete(app: &App, caller: &Caller, project: &str) -> Result<()> {
    let project = project_of(caller, project);
    permit(app, caller, "delete_auto_allocated_topology", project)?;
    let mut write = Write {
        tx: app.store.write().await?,
        caller,
        app,
    };
    let Some(have) = topology_get(write.conn(), project).await? else {
        return Ok(());
    };
    if let Some(id) = &have.router_id {
        for leg in interfaces(&mut write, id).await? {
            interface_delete(&mut write.tx, id, &leg.row.id).await?;
            port::delete(&mut write, &leg.row.id).await?;
        }
        remove::<Router>(&mut write, id).await?;
    }
    remove::<Network>(&mut write, &have.network_id).await?;
    write.tx.commit().await.map_err(Error::from)
}

async fn remove<R: Resource>(write: &mut Write<'_>, id: &str) -> Result<()> {
    let item = get::<R>(write.conn(), id).await?;
    let item = item.ok_or_else(|| not_found::<R>(id))?;
    let id = R::row(&item).id().to_owned();
    R::delete(write, item).await?;
    if let Some(object_type) = R::RBAC {
        crate::store::rbac_policy::object_gone(&mut write.tx, object_type, &id).await?;
    }
    Ok(())
}
