//! The network that Neutron keeps for the heartbeats of a project's HA routers: clients look for it. Weft needs no such
//! heartbeats, and nothing is connected to it.

use super::attribute::Attributes;
use super::error::Result;
use super::network::Network;
use super::resource::{self, Resource, Write};
use crate::store::network::network_named;
use crate::store::router::ha_router_exists;

fn name_of(project: &str) -> String {
    format!("HA network tenant {project}")
}

/// Makes the project's HA network if it has none. It belongs to no project, so that it is neither seen nor counted there.
pub(super) async fn ensure(write: &mut Write<'_>, project: &str) -> Result<()> {
    let name = name_of(project);
    if network_named(write.conn(), "", &name).await?.is_some() {
        return Ok(());
    }
    let mut new = Attributes::new();
    new.insert("name".to_owned(), name.into());
    Network::create(write, new).await?;
    Ok(())
}

/// Takes the project's HA network away with its last HA router.
pub(super) async fn release(write: &mut Write<'_>, project: &str) -> Result<()> {
    if ha_router_exists(write.conn(), project).await? {
        return Ok(());
    }
    let Some(id) = network_named(write.conn(), "", &name_of(project)).await? else {
        return Ok(());
    };
    match resource::get::<Network>(write.conn(), &id).await? {
        Some(network) => Network::delete(write, network).await,
        None => Ok(()),
    }
}
