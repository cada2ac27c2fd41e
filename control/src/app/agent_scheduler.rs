//! Which DHCP agents serve a network and which L3 agents a router, and what operators wish of it.
//!
//! In Weft every host serves addresses and routes for its own guests: every DHCP agent serves every network that has a
//! subnet with DHCP, and every L3 agent every router. What an operator gives to an agent or takes from it is kept and
//! shown, and changes nothing on hosts: the answer says so in a Warning.

use super::App;
use super::agent::{Agent, DHCP, L3};
use super::attribute::{Attributes, uuid_of};
use super::error::{Error, Result};
use super::network::Network;
use super::policy::Caller;
use super::query;
use super::resource::{Resource, not_found};
use super::resource_list::{self, Listed};
use super::router::Router;
use crate::store::agent::{AgentRow, dhcp_agent_network_set, l3_agent_router_set};
use crate::store::router::RouterRow;
use crate::store::{self as rows, Conn, Filter, ListQuery, StoreError, Value as Wanted, WriteTx};
use serde_json::Value;
use std::future::Future;

/// What the answer to a wish says.
pub const WARNING: &str =
    "kept and shown, but every host serves its own guests whatever agents are given";

/// What agents of one type serve.
pub trait Scheduled: Send + Sync + 'static {
    /// What they serve.
    type Served: Resource;
    /// Their type.
    const AGENT_TYPE: &'static str;
    /// The key of a served one's id in a body.
    const KEY: &'static str;
    /// The filter of served ones by agent.
    const BY_AGENT: &'static str;
    /// The filter of agents by served one.
    const BY_SERVED: &'static str;
    /// The policy's rules for listing served ones, giving one, taking one, and listing agents.
    const RULES: [&'static str; 4];
    /// The exceptions for an agent of another type, and for one that does not serve it.
    const ERRORS: [&'static str; 2];
    /// The exception for an agent that serves it already, if that is refused.
    const SERVED_ALREADY: Option<&'static str>;

    /// Adds to an agent's view what it has to do with the served one.
    fn finish(served: &<Self::Served as Resource>::Row, agent: &mut Value) {
        let _ = (served, agent);
    }

    /// Writes a wish.
    fn set(
        tx: &mut WriteTx,
        agent: &str,
        served: &str,
        hosted: bool,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Networks on DHCP agents.
pub struct Dhcp;

impl Scheduled for Dhcp {
    type Served = Network;

    const AGENT_TYPE: &'static str = DHCP;
    const KEY: &'static str = "network_id";
    const BY_AGENT: &'static str = "dhcp_agent";
    const BY_SERVED: &'static str = "dhcp_network";
    const RULES: [&'static str; 4] = [
        "get_dhcp-networks",
        "create_dhcp-network",
        "delete_dhcp-network",
        "get_dhcp-agents",
    ];
    const ERRORS: [&'static str; 2] = ["InvalidDHCPAgent", "NetworkNotHostedByDhcpAgent"];
    const SERVED_ALREADY: Option<&'static str> = Some("NetworkHostedByDHCPAgent");

    async fn set(
        tx: &mut WriteTx,
        agent: &str,
        served: &str,
        hosted: bool,
    ) -> Result<(), StoreError> {
        dhcp_agent_network_set(tx, agent, served, hosted).await
    }
}

/// Routers on L3 agents.
pub struct L3Routers;

impl Scheduled for L3Routers {
    type Served = Router;

    const AGENT_TYPE: &'static str = L3;
    const KEY: &'static str = "router_id";
    const BY_AGENT: &'static str = "l3_agent";
    const BY_SERVED: &'static str = "l3_router";
    const RULES: [&'static str; 4] = [
        "get_l3-routers",
        "create_l3-router",
        "delete_l3-router",
        "get_l3-agents",
    ];
    const ERRORS: [&'static str; 2] = ["InvalidL3Agent", "RouterNotHostedByL3Agent"];
    const SERVED_ALREADY: Option<&'static str> = None;

    fn finish(router: &RouterRow, agent: &mut Value) {
        agent["ha_state"] = router.ha.then_some("active").into();
    }

    async fn set(
        tx: &mut WriteTx,
        agent: &str,
        served: &str,
        hosted: bool,
    ) -> Result<(), StoreError> {
        l3_agent_router_set(tx, agent, served, hosted).await
    }
}

fn filter(attribute: &str, id: &str) -> Filter {
    Filter {
        attribute: attribute.to_owned(),
        values: vec![Wanted::Text(id.to_owned())],
    }
}

/// GET /v2.0/agents/{agent}/dhcp-networks, …/l3-routers
///
/// # Errors
/// [`Error`].
pub async fn served<S: Scheduled>(
    app: &App,
    caller: &Caller,
    agent: &str,
    pairs: &[(String, String)],
) -> Result<Listed> {
    app.permit(S::RULES[0], caller, &Attributes::new())?;
    let mut asked = query::read(S::Served::ATTRIBUTES, S::Served::STANDARD, pairs)?;
    asked.list.filters.push(filter(S::BY_AGENT, agent));
    let mut read = app.store.read().await?;
    let row = agent_get(read.conn(), agent).await?;
    drop(read);
    if row.agent_type != S::AGENT_TYPE {
        return Ok(Listed::empty::<S::Served>(asked));
    }
    resource_list::list_asked::<S::Served>(app, caller, None, asked).await
}

/// GET /v2.0/networks/{network}/dhcp-agents, /v2.0/routers/{router}/l3-agents
///
/// # Errors
/// [`Error`].
pub async fn agents<S: Scheduled>(
    app: &App,
    caller: &Caller,
    served: &str,
    pairs: &[(String, String)],
) -> Result<Vec<Value>> {
    app.permit(S::RULES[3], caller, &Attributes::new())?;
    let mut asked = query::read(Agent::ATTRIBUTES, Agent::STANDARD, pairs)?;
    asked.list.filters.push(filter(S::BY_SERVED, served));
    let mut read = app.store.read().await?;
    let row = served_get::<S>(read.conn(), served).await?;
    drop(read);
    let mut agents = resource_list::list_views::<Agent>(app, caller, asked).await?;
    for agent in &mut agents {
        S::finish(&row, agent);
    }
    Ok(agents)
}

/// POST /v2.0/agents/{agent}/dhcp-networks, …/l3-routers
///
/// # Errors
/// [`Error`].
pub async fn give<S: Scheduled>(
    app: &App,
    caller: &Caller,
    agent: &str,
    body: &Value,
) -> Result<()> {
    app.permit(S::RULES[1], caller, &Attributes::new())?;
    let wrong = |reason: String| Error::attribute(S::KEY, reason);
    let served = uuid_of(&body[S::KEY]).map_err(wrong)?;
    let mut tx = app.store.write().await?;
    let serves = serves::<S>(tx.conn(), agent, &served).await?;
    if let (true, Some(kind)) = (serves, S::SERVED_ALREADY) {
        let message = format!(
            "{served} is hosted by the {} {agent} already.",
            S::AGENT_TYPE
        );
        return Err(Error::conflict(kind, message));
    }
    S::set(&mut tx, agent, &served, true).await?;
    Ok(tx.commit().await?)
}

/// DELETE /v2.0/agents/{agent}/dhcp-networks/{network}, …/l3-routers/{router}
///
/// # Errors
/// [`Error`].
pub async fn take<S: Scheduled>(
    app: &App,
    caller: &Caller,
    agent: &str,
    served: &str,
) -> Result<()> {
    app.permit(S::RULES[2], caller, &Attributes::new())?;
    let mut tx = app.store.write().await?;
    let serves = serves::<S>(tx.conn(), agent, served).await?;
    if !serves {
        let message = format!("{served} is not hosted by the {} {agent}.", S::AGENT_TYPE);
        return Err(Error::conflict(S::ERRORS[1], message));
    }
    S::set(&mut tx, agent, served, false).await?;
    Ok(tx.commit().await?)
}

async fn agent_get(conn: &mut Conn, id: &str) -> Result<AgentRow> {
    let row = rows::get::<AgentRow>(conn, id).await?;
    row.ok_or_else(|| not_found::<Agent>(id))
}

async fn served_get<S: Scheduled>(
    conn: &mut Conn,
    id: &str,
) -> Result<<S::Served as Resource>::Row> {
    let row = rows::get::<<S::Served as Resource>::Row>(conn, id).await?;
    row.ok_or_else(|| not_found::<S::Served>(id))
}

/// Whether an agent of the right type is shown as serving it; both must be there.
async fn serves<S: Scheduled>(conn: &mut Conn, agent: &str, served: &str) -> Result<bool> {
    let row = agent_get(conn, agent).await?;
    if row.agent_type != S::AGENT_TYPE {
        let message = format!("Agent {agent} is not a {}.", S::AGENT_TYPE);
        return Err(Error::conflict(S::ERRORS[0], message));
    }
    served_get::<S>(conn, served).await?;
    let asked = ListQuery {
        filters: vec![filter("id", agent), filter(S::BY_SERVED, served)],
        ..ListQuery::default()
    };
    Ok(!rows::list::<AgentRow>(conn, &asked).await?.is_empty())
}
