//! Routers: gateways, extra routes, modes. Legs in project networks are `router_interface`'s, the leg in an external
//! network is `router_gateway`'s.

use super::attribute::{Attribute, Attributes, Default, Kind, Take};
use super::error::{Error, Result};
use super::resource::{Resource, Write};
use super::router_gateway::{self, Gateway};
use super::router_mode::{self, Modes};
use super::view::{View, view};
use super::{availability_zone, extra_route, flavor, ha_network, ndp_proxy};
use crate::store::conntrack_helper::{ConntrackHelperRow, conntrack_helper_list};
use crate::store::port::{Port as PortItem, port_get, port_list_ids};
use crate::store::router::{RouterRow, interface_list};
use crate::store::{self as rows, Conn, JsonText};
use serde_json::{Value, json};
use std::collections::HashMap;
use uuid::Uuid;

/// The resource.
pub struct Router;

/// A router with what hangs on it.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its row.
    pub row: RouterRow,
    /// The port in the external network.
    pub gateway: Option<PortItem>,
    /// Its conntrack helpers.
    pub conntrack_helpers: Vec<ConntrackHelperRow>,
}

impl Resource for Router {
    type Row = RouterRow;
    type Item = Item;

    const NAME: &'static str = "router";
    const COLLECTION: &'static str = "routers";
    const NOT_FOUND: &'static str = "RouterNotFound";
    const TITLE: &'static str = "Router";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("admin_state_up", Kind::Bool)
            .post(Default::Bool(true))
            .put()
            .sort(),
        Attribute::new("external_gateway_info", Kind::Custom(router_gateway::read))
            .post(Default::Null)
            .put()
            .nullable(),
        Attribute::new("routes", Kind::Custom(extra_route::read))
            .put()
            .nullable(),
        Attribute::new("distributed", Kind::Bool)
            .post(Default::Unset)
            .put()
            .nullable(),
        Attribute::new("ha", Kind::Bool)
            .post(Default::Unset)
            .put()
            .nullable(),
        Attribute::new("flavor_id", Kind::Uuid)
            .post(Default::Unset)
            .nullable()
            .sort(),
        Attribute::new("enable_ndp_proxy", Kind::Bool)
            .post(Default::Unset)
            .put()
            .nullable()
            .filter(),
        Attribute::new(
            "availability_zone_hints",
            Kind::Custom(availability_zone::hints),
        )
        .post(Default::EmptyList),
        Attribute::new("availability_zones", Kind::Text(0)),
        Attribute::new("conntrack_helpers", Kind::Text(0)),
        Attribute::new("status", Kind::Text(16)).sort(),
    ];

    fn row(item: &Item) -> &RouterRow {
        &item.row
    }

    async fn complete(conn: &mut Conn, routers: Vec<RouterRow>) -> Result<Vec<Item>> {
        let gateways: Vec<&str> = routers
            .iter()
            .filter_map(|row| row.gateway_port_id.as_deref())
            .collect();
        let gateways = port_list_ids(&mut *conn, &gateways).await?;
        let mut gateways: HashMap<String, PortItem> = gateways
            .into_iter()
            .map(|port| (port.row.id.clone(), port))
            .collect();
        let ids: Vec<&str> = routers.iter().map(|row| row.id.as_str()).collect();
        let mut helpers: HashMap<String, Vec<ConntrackHelperRow>> = HashMap::new();
        for helper in conntrack_helper_list(conn, &ids).await? {
            let of = helpers.entry(helper.router_id.clone()).or_default();
            of.push(helper);
        }
        Ok(routers
            .into_iter()
            .map(|row| Item {
                gateway: row
                    .gateway_port_id
                    .as_ref()
                    .and_then(|id| gateways.remove(id)),
                conntrack_helpers: helpers.remove(&row.id).unwrap_or_default(),
                row,
            })
            .collect())
    }

    fn view(item: &Item) -> View {
        let row = &item.row;
        let helper = |helper: &ConntrackHelperRow| json!({ "protocol": helper.protocol, "port": helper.port, "helper": helper.helper });
        let helpers: Vec<Value> = item.conntrack_helpers.iter().map(helper).collect();
        view! { row;
            "name" => row.name,
            "admin_state_up" => row.admin_state_up,
            "status" => "ACTIVE",
            "external_gateway_info" => router_gateway::view(item),
            "routes" => row.routes.0,
            "distributed" => row.distributed,
            "ha" => row.ha,
            "flavor_id" => row.flavor_id,
            "enable_ndp_proxy" => row.enable_ndp_proxy && item.gateway.is_some(),
            "availability_zone_hints" => row.availability_zone_hints.0,
            "availability_zones" => availability_zone::of_service(),
            "conntrack_helpers" => helpers,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Item> {
        let asked = Modes::of(&given);
        let mut row = RouterRow {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            name: given.text("name"),
            description: given.text("description"),
            admin_state_up: given.truth("admin_state_up").unwrap_or(true),
            distributed: asked.distributed.unwrap_or(false),
            ha: asked.ha.unwrap_or(false),
            enable_snat: true,
            flavor_id: given.text_opt("flavor_id"),
            availability_zone_hints: JsonText(
                given.texts("availability_zone_hints").unwrap_or_default(),
            ),
            ..RouterRow::default()
        };
        availability_zone::check(&row.availability_zone_hints.0)?;
        flavor::check_router(write, &row, asked).await?;
        let gateway: Option<Gateway> = given.shaped("external_gateway_info");
        rows::insert(&mut write.tx, &mut row).await?;
        let mut item = Item {
            row,
            gateway: None,
            conntrack_helpers: Vec::new(),
        };
        if let Some(wanted) = gateway.filter(|gateway| gateway.network_id.is_some()) {
            router_gateway::set(write, &mut item, wanted).await?;
        }
        ndp_proxy::enable(write, &mut item, given.truth("enable_ndp_proxy")).await?;
        if item.gateway.is_some() {
            // Still its first revision.
            item.row.revision_number = 0;
            rows::update(&mut write.tx, &mut item.row).await?;
        }
        if item.row.ha {
            ha_network::ensure(write, &item.row.project_id).await?;
        }
        Ok(item)
    }

    async fn update(write: &mut Write<'_>, mut item: Item, mut given: Attributes) -> Result<Item> {
        if let Some(name) = given.text_opt("name") {
            item.row.name = name;
        }
        if let Some(description) = given.text_opt("description") {
            item.row.description = description;
        }
        let was_up = item.row.admin_state_up;
        item.row.admin_state_up = given.truth("admin_state_up").unwrap_or(was_up);
        let was_ha = item.row.ha;
        router_mode::change(&mut item.row, was_up, Modes::of(&given))?;
        if let Some(wanted) = given.remove("external_gateway_info") {
            let wanted: Gateway = serde_json::from_value(wanted).unwrap_or_default();
            if wanted.network_id.is_some() {
                router_gateway::set(write, &mut item, wanted).await?;
            } else {
                router_gateway::clear(write, &mut item).await?;
            }
        }
        ndp_proxy::enable(write, &mut item, given.truth("enable_ndp_proxy")).await?;
        if let Some(routes) = given.remove("routes") {
            let routes = serde_json::from_value(routes).unwrap_or_default();
            extra_route::set(write, &mut item, routes).await?;
        }
        rows::update(&mut write.tx, &mut item.row).await?;
        match (was_ha, item.row.ha) {
            (false, true) => ha_network::ensure(write, &item.row.project_id).await?,
            (true, false) => ha_network::release(write, &item.row.project_id).await?,
            _ => {}
        }
        Ok(item)
    }

    async fn delete(write: &mut Write<'_>, mut item: Item) -> Result<()> {
        let id = item.row.id.clone();
        if !interface_list(write.conn(), &[&id]).await?.is_empty() {
            return Err(Error::conflict(
                "RouterInUse",
                format!("Router {id} still has ports"),
            ));
        }
        router_gateway::clear(write, &mut item).await?;
        rows::delete::<RouterRow>(&mut write.tx, &id).await?;
        if item.row.ha {
            ha_network::release(write, &item.row.project_id).await?;
        }
        Ok(())
    }
}

/// The ports of a router's legs in project networks.
pub(super) async fn interfaces(write: &mut Write<'_>, router: &str) -> Result<Vec<PortItem>> {
    let mut ports = Vec::new();
    for interface in interface_list(write.conn(), &[router]).await? {
        ports.extend(port_get(write.conn(), &interface.port_id).await?);
    }
    Ok(ports)
}
