//! Agents: what hosts do for the cloud, as Neutron's clients know it. Every host that reports over the feed has three: the
//! Weft agent, which connects its guests, and one L3 and one DHCP agent, because it routes and serves addresses for its
//! own guests itself. They come by themselves, and one that is deleted comes again with its host's next report.

use super::attribute::{Attribute, Attributes, Kind, Take};
use super::availability_zone::ZONE;
use super::error::{Error, Result};
use super::resource::{Resource, Write};
use super::view::{View, view};
use crate::store::agent::AgentRow;
use crate::store::gateway::physical_network_list_hosts;
use crate::store::{self as rows, Conn};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};

/// The resource.
pub struct Agent;

/// An agent, and the physical networks that its host is connected to.
pub struct Item {
    pub(super) row: AgentRow,
    physical_networks: Vec<String>,
}

/// The type of the agent that connects a host's guests.
pub const L2: &str = "Weft agent";
/// The type of the agent that routes for them.
pub const L3: &str = "L3 agent";
/// The type of the agent that gives them addresses.
pub const DHCP: &str = "DHCP agent";
/// What every host has.
pub const TYPES: &[&str] = &[L2, L3, DHCP];

impl Resource for Agent {
    type Row = AgentRow;
    type Item = Item;

    const NAME: &'static str = "agent";
    const COLLECTION: &'static str = "agents";
    const NOT_FOUND: &'static str = "AgentNotFound";
    const TITLE: &'static str = "Agent";
    const STANDARD: &'static [Attribute] = super::attribute::STANDARD_ID;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("agent_type", Kind::OneOf(TYPES)).sort(),
        Attribute::new("binary", Kind::Text(255)).sort(),
        Attribute::new("topic", Kind::Text(255)).sort(),
        Attribute::new("host", Kind::Text(255)).sort(),
        Attribute::new("description", Kind::Text(255))
            .put()
            .nullable()
            .sort(),
        Attribute::new("admin_state_up", Kind::Bool).put().sort(),
        Attribute::new("alive", Kind::Bool).sort(),
        Attribute::new("availability_zone", Kind::Text(255)).filter(),
        Attribute::new("created_at", Kind::Text(255)).order(),
        Attribute::new("started_at", Kind::Text(255)).order(),
        Attribute::new("heartbeat_timestamp", Kind::Text(255)).order(),
        Attribute::new("configurations", Kind::Text(0)),
        Attribute::new("resources_synced", Kind::Bool),
    ];

    fn row(item: &Item) -> &AgentRow {
        &item.row
    }

    async fn complete(conn: &mut Conn, rows: Vec<AgentRow>) -> Result<Vec<Item>> {
        let hosts: BTreeSet<&str> = rows.iter().map(|row| row.host.as_str()).collect();
        let hosts: Vec<&str> = hosts.into_iter().collect();
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        for (host, name) in physical_network_list_hosts(conn, &hosts).await? {
            names.entry(host).or_default().push(name);
        }
        let item = |row: AgentRow| Item {
            physical_networks: names.get(&row.host).cloned().unwrap_or_default(),
            row,
        };
        Ok(rows.into_iter().map(item).collect())
    }

    fn view(item: &Item) -> View {
        let row = &item.row;
        view! { bare row;
            "agent_type" => row.agent_type,
            "binary" => "weft",
            "topic" => "N/A",
            "host" => row.host,
            "description" => row.description,
            "admin_state_up" => row.admin_state_up,
            "alive" => row.alive,
            "availability_zone" => (row.agent_type != L2).then_some(ZONE),
            "created_at" => time_text(row.created_at),
            "started_at" => time_text(row.started_at),
            "heartbeat_timestamp" => time_text(row.heartbeat_at),
            "configurations" => configurations(item),
            // Placement is told nothing yet.
            "resources_synced" => Value::Null,
        }
    }

    fn unenforced(view: &Attributes) -> Vec<&'static str> {
        match view["admin_state_up"] == json!(false) {
            true => vec!["the agent is marked as down, but its host serves its guests as before"],
            false => Vec::new(),
        }
    }

    async fn create(_write: &mut Write<'_>, _given: Attributes) -> Result<Item> {
        Err(Error::bad_request(
            "Agents are not created: they come by themselves when their hosts report",
        ))
    }

    async fn update(write: &mut Write<'_>, mut item: Item, mut given: Attributes) -> Result<Item> {
        let row = &mut item.row;
        if let Some(description) = given.text_or_null("description") {
            row.description = description;
        }
        row.admin_state_up = given.truth("admin_state_up").unwrap_or(row.admin_state_up);
        rows::update(&mut write.tx, row).await?;
        Ok(item)
    }

    async fn delete(write: &mut Write<'_>, item: Item) -> Result<()> {
        rows::delete::<AgentRow>(&mut write.tx, &item.row.id).await?;
        Ok(())
    }
}

/// What clients of Neutron look for, and what the host said of itself.
fn configurations(item: &Item) -> Value {
    match item.row.agent_type.as_str() {
        L2 => json!({ "physical_networks": item.physical_networks }),
        L3 => json!({ "agent_mode": "dvr_snat", "handle_internal_only_routers": true }),
        _ => json!({}),
    }
}

/// A time as Neutron prints an agent's.
fn time_text(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us)
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_default()
}
