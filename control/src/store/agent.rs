//! Agents, and what operators gave to them or took from them.

use super::fixed_ip::by_parents;
use super::list::Column;
use super::row::row;
use super::sql::{self, AssertSqlSafe};
use super::{Conn, Result, WriteTx};

/// Hosts of one statement.
const HOSTS_MAX: usize = 512;

row! {
    /// An agent.
    AgentRow: Agent in "agents" {
        /// Where it runs.
        host: String,
        /// Weft agent, L3 agent, DHCP agent
        agent_type: String,
        /// For people.
        description: Option<String>,
        /// Whether it is meant to work.
        admin_state_up: bool,
        /// Whether its host has reported of late.
        alive: bool,
        /// Microseconds since 1970 (UTC): since when it has been alive.
        started_at: i64,
        /// Microseconds since 1970 (UTC): when its host reported last, a few seconds late.
        heartbeat_at: i64,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("agent_type", "agent_type IN ({})", "agent_type"),
        Column::sorted("binary", "'weft' IN ({})", "id"),
        Column::sorted("topic", "'N/A' IN ({})", "id"),
        Column::sorted("host", "host IN ({})", "host"),
        Column::sorted("description", "description IN ({})", "description"),
        Column::sorted("admin_state_up", "admin_state_up IN ({})", "admin_state_up"),
        Column::sorted("alive", "alive IN ({})", "alive"),
        Column::filter("availability_zone",
            "CASE agent_type WHEN 'Weft agent' THEN '' ELSE 'nova' END IN ({})"),
        Column::sorted("created_at", "FALSE", "created_at"),
        Column::sorted("started_at", "FALSE", "started_at"),
        Column::sorted("heartbeat_timestamp", "FALSE", "heartbeat_at"),
        // The agents that serve one network or router; the API asks for them by paths of their own.
        Column::filter("dhcp_network",
            "agent_type = 'DHCP agent' AND (id IN (SELECT agent_id FROM dhcp_agent_networks \
              WHERE network_id = {} AND hosted) \
             OR (EXISTS (SELECT 1 FROM subnets WHERE network_id = {} AND enable_dhcp) \
              AND id NOT IN (SELECT agent_id FROM dhcp_agent_networks WHERE network_id = {})))"),
        Column::filter("l3_router",
            "agent_type = 'L3 agent' AND id NOT IN (SELECT agent_id FROM l3_agent_routers \
             WHERE router_id = {} AND NOT hosted)"),
    ];
    visible &[];
}

/// The agents of some hosts.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn agent_list_hosts(conn: &mut Conn, hosts: &[&str]) -> Result<Vec<AgentRow>> {
    let select = format!("{}host IN", <AgentRow as super::Row>::sql().select);
    by_parents(conn, &select, "ORDER BY host, agent_type", hosts).await
}

/// Notes that all agents of some hosts were alive at `now`.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn agents_alive(tx: &mut WriteTx, hosts: &[&str], now: i64) -> Result<()> {
    for chunk in hosts.chunks(HOSTS_MAX) {
        let places: Vec<String> = (2..chunk.len() + 2).map(|n| format!("${n}")).collect();
        let text = format!(
            "UPDATE agents SET heartbeat_at = $1, alive = TRUE, \
             started_at = CASE WHEN alive THEN started_at ELSE $1 END WHERE host IN ({})",
            places.join(", ")
        );
        let mut update = sql::query(AssertSqlSafe(text)).bind(now);
        for host in chunk {
            update = update.bind(*host);
        }
        update.execute(tx.conn()).await?;
    }
    Ok(())
}

/// Whether an agent is alive that was heard of last before `then`.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn agents_missing(conn: &mut Conn, then: i64) -> Result<bool> {
    let found: Option<i64> =
        sql::query_scalar("SELECT 1 FROM agents WHERE alive AND heartbeat_at < $1 LIMIT 1")
            .bind(then)
            .fetch_optional(conn)
            .await?;
    Ok(found.is_some())
}

/// Notes that agents that were heard of last before `then` are not alive.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn agents_dead(tx: &mut WriteTx, then: i64) -> Result<()> {
    sql::query("UPDATE agents SET alive = FALSE WHERE alive AND heartbeat_at < $1")
        .bind(then)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The hosts whose agents are alive, in order.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn agent_hosts_alive(conn: &mut Conn) -> Result<Vec<String>> {
    sql::query_scalar("SELECT DISTINCT host FROM agents WHERE alive ORDER BY host")
        .fetch_all(conn)
        .await
}

/// Whether an agent of this type is alive and meant to work.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn agent_type_works(conn: &mut Conn, agent_type: &str) -> Result<bool> {
    let found: Option<i64> = sql::query_scalar(
        "SELECT 1 FROM agents WHERE agent_type = $1 AND alive AND admin_state_up LIMIT 1",
    )
    .bind(agent_type)
    .fetch_optional(conn)
    .await?;
    Ok(found.is_some())
}

/// Gives a network to a DHCP agent, or takes it away.
///
/// # Errors
/// [`super::StoreError::Reference`] if either is gone.
pub async fn dhcp_agent_network_set(
    tx: &mut WriteTx,
    agent: &str,
    network: &str,
    hosted: bool,
) -> Result<()> {
    let text = "INSERT INTO dhcp_agent_networks (agent_id, network_id, hosted) VALUES ($1, $2, $3) \
                ON CONFLICT (agent_id, network_id) DO UPDATE SET hosted = excluded.hosted";
    set(tx, text, agent, network, hosted).await
}

/// Gives a router to an L3 agent, or takes it away.
///
/// # Errors
/// [`super::StoreError::Reference`] if either is gone.
pub async fn l3_agent_router_set(
    tx: &mut WriteTx,
    agent: &str,
    router: &str,
    hosted: bool,
) -> Result<()> {
    let text = "INSERT INTO l3_agent_routers (agent_id, router_id, hosted) VALUES ($1, $2, $3) \
                ON CONFLICT (agent_id, router_id) DO UPDATE SET hosted = excluded.hosted";
    set(tx, text, agent, router, hosted).await
}

async fn set(
    tx: &mut WriteTx,
    text: &'static str,
    agent: &str,
    of: &str,
    hosted: bool,
) -> Result<()> {
    sql::query(text)
        .bind(agent)
        .bind(of)
        .bind(hosted)
        .execute(tx.conn())
        .await?;
    Ok(())
}
