//! Flavors of services, and which service profiles they have.

use super::App;
use super::attribute::{Attribute, Attributes, Default, Kind, STANDARD_ID, Take};
use super::error::{Error, Result, quote_value};
use super::policy::Caller;
use super::resource::{self, Resource, Write};
use super::router_mode::Modes;
use super::service_profile::ServiceProfile;
use super::service_provider::{self, Provider};
use super::view::{View, view};
use crate::store::flavor::{
    FlavorRow, FlavorServiceProfileRow, ServiceProfileRow, profiles_of_flavors,
};
use crate::store::router::{RouterRow, flavor_is_used};
use crate::store::{self as rows, Conn};
use serde_json::{Value, json};
use std::collections::HashMap;
use uuid::Uuid;

/// The resource.
pub struct Flavor;

/// A flavor with its profiles.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its row.
    pub row: FlavorRow,
    /// Ids, the one that holds first.
    pub service_profiles: Vec<String>,
}

/// Neutron's names of services; what of them has no flavors here may have some elsewhere.
const SERVICE_TYPES: &[&str] = &[
    "BGPVPN",
    "CONNTRACKHELPER",
    "CORE",
    "DUMMY",
    "FIREWALL_V2",
    "FLAVORS",
    "FLOATINGIPPOOL",
    "L3_ROUTER_NAT",
    "LOADBALANCERV2",
    "LOCAL_IP",
    "LOG_API",
    "METERING",
    "NDPPROXY",
    "NETWORK_SEGMENT_RANGE",
    "PORTFORWARDING",
    "QOS",
    "TRUNK",
    "VPN",
];

fn service_type(value: &Value) -> Result<Value, String> {
    let known = |text: &&str| SERVICE_TYPES.contains(text);
    let text = value.as_str().filter(known);
    text.map(Value::from)
        .ok_or_else(|| format!("{} is not a valid service type", quote_value(value)))
}

impl Resource for Flavor {
    type Row = FlavorRow;
    type Item = Item;

    const NAME: &'static str = "flavor";
    const COLLECTION: &'static str = "flavors";
    const NOT_FOUND: &'static str = "FlavorNotFound";
    const TITLE: &'static str = "Flavor";
    const STANDARD: &'static [Attribute] = STANDARD_ID;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("description", Kind::Text(1_024))
            .post(Default::Text(""))
            .put()
            .nullable()
            .sort(),
        Attribute::new("service_type", Kind::Custom(service_type))
            .required()
            .sort(),
        Attribute::new("enabled", Kind::Bool)
            .post(Default::Bool(true))
            .put()
            .sort(),
        Attribute::new("service_profiles", Kind::UuidList)
            .post(Default::EmptyList)
            .put(),
    ];

    fn row(item: &Item) -> &FlavorRow {
        &item.row
    }

    async fn complete(conn: &mut Conn, rows: Vec<FlavorRow>) -> Result<Vec<Item>> {
        let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        let mut profiles: HashMap<String, Vec<String>> = HashMap::new();
        for (flavor, profile) in profiles_of_flavors(conn, &ids).await? {
            profiles.entry(flavor).or_default().push(profile);
        }
        Ok(rows
            .into_iter()
            .map(|row| Item {
                service_profiles: profiles.remove(&row.id).unwrap_or_default(),
                row,
            })
            .collect())
    }

    fn view(item: &Item) -> View {
        let row = &item.row;
        view! { bare row;
            "name" => row.name,
            "description" => row.description,
            "service_type" => row.service_type,
            "enabled" => row.enabled,
            "service_profiles" => item.service_profiles,
        }
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Item> {
        let mut row = FlavorRow {
            id: Uuid::new_v4().to_string(),
            name: given.text("name"),
            description: given.text("description"),
            service_type: given.text("service_type"),
            enabled: given.truth("enabled").unwrap_or(true),
            ..FlavorRow::default()
        };
        rows::insert(&mut write.tx, &mut row).await?;
        let service_profiles = given.texts("service_profiles").unwrap_or_default();
        for profile in &service_profiles {
            bind(write, &row.id, profile).await?;
        }
        Ok(Item {
            row,
            service_profiles,
        })
    }

    async fn update(write: &mut Write<'_>, mut item: Item, mut given: Attributes) -> Result<Item> {
        let row = &mut item.row;
        if let Some(name) = given.text_opt("name") {
            row.name = name;
        }
        if let Some(description) = given.text_or_null("description") {
            row.description = description.unwrap_or_default();
        }
        row.enabled = given.truth("enabled").unwrap_or(row.enabled);
        rows::update(&mut write.tx, row).await?;
        if let Some(wanted) = given.texts("service_profiles") {
            for gone in item.service_profiles.iter().filter(|p| !wanted.contains(p)) {
                let id = binding_id(&item.row.id, gone);
                rows::delete::<FlavorServiceProfileRow>(&mut write.tx, &id).await?;
            }
            for new in wanted.iter().filter(|p| !item.service_profiles.contains(p)) {
                bind(write, &item.row.id, new).await?;
            }
            item.service_profiles = wanted;
        }
        Ok(item)
    }

    async fn delete(write: &mut Write<'_>, item: Item) -> Result<()> {
        let id = &item.row.id;
        if flavor_is_used(write.conn(), id).await? {
            return Err(Error::conflict(
                "FlavorInUse",
                format!("Flavor {id} is used by some service instance."),
            ));
        }
        rows::delete::<FlavorRow>(&mut write.tx, id).await?;
        Ok(())
    }
}

/// The id of the row that says that a flavor has a profile.
pub(super) fn binding_id(flavor: &str, profile: &str) -> String {
    format!("{flavor}:{profile}")
}

/// Gives a flavor a profile.
pub(super) async fn bind(
    write: &mut Write<'_>,
    flavor: &str,
    profile: &str,
) -> Result<FlavorServiceProfileRow> {
    if rows::get::<ServiceProfileRow>(write.conn(), profile)
        .await?
        .is_none()
    {
        return Err(resource::not_found::<ServiceProfile>(profile));
    }
    let mut row = FlavorServiceProfileRow {
        id: binding_id(flavor, profile),
        flavor_id: flavor.to_owned(),
        service_profile_id: profile.to_owned(),
        ..FlavorServiceProfileRow::default()
    };
    match rows::insert(&mut write.tx, &mut row).await {
        Err(rows::StoreError::Conflict(_)) => Err(Error::conflict(
            "FlavorServiceProfileBindingExists",
            format!("Service Profile {profile} is already associated with flavor {flavor}."),
        )),
        done => {
            done?;
            Ok(row)
        }
    }
}

/// The provider of the next instance of a flavor's service: its first profile's.
async fn next_provider(conn: &mut Conn, flavor: &str) -> Result<&'static Provider> {
    let unbound = || {
        Error::not_found(
            "FlavorServiceProfileBindingNotFound",
            format!("No Service Profile is associated with flavor {flavor}."),
        )
    };
    let profiles = profiles_of_flavors(&mut *conn, &[flavor]).await?;
    let (_, first) = profiles.first().ok_or_else(unbound)?;
    let profile = rows::get::<ServiceProfileRow>(conn, first).await?;
    let profile = profile.ok_or_else(unbound)?;
    if !profile.enabled {
        return Err(Error::conflict(
            "ServiceProfileDisabled",
            "Service Profile is not enabled.",
        ));
    }
    service_provider::by_driver(&profile.driver)
        .ok_or_else(|| super::service_profile::no_driver(&profile.driver))
}

/// Refuses a new router whose flavor is not there, or does not go with the modes that were asked for.
pub(super) async fn check_router(
    write: &mut Write<'_>,
    row: &RouterRow,
    asked: Modes,
) -> Result<()> {
    let Some(id) = &row.flavor_id else {
        return Ok(());
    };
    let flavor = rows::get::<FlavorRow>(write.conn(), id).await?;
    let flavor = flavor.ok_or_else(|| resource::not_found::<Flavor>(id))?;
    if !flavor.enabled {
        return Err(Error::conflict("FlavorDisabled", "Flavor is not enabled."));
    }
    next_provider(write.conn(), id).await?.check(asked)
}

/// GET /v2.0/flavors/{id}/next_providers
///
/// # Errors
/// [`Error`].
pub async fn next_providers(app: &App, caller: &Caller, id: &str) -> Result<Value> {
    resource::seen::<Flavor>(app, caller, id.into()).await?;
    let mut read = app.store.read().await?;
    let provider = next_provider(read.conn(), id).await?;
    Ok(
        json!({ "next_providers": [{ "provider": provider.name, "driver": provider.driver, "metainfo": null }] }),
    )
}
