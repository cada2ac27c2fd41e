//! Flavors, service profiles, and which flavor has which profiles.

use super::fixed_ip::by_parents;
use super::list::Column;
use super::row::{self, row};
use super::{Conn, Result};

row! {
    /// A flavor of a service.
    FlavorRow: Flavor in "flavors" {
        /// For people.
        name: String,
        /// For people.
        description: String,
        /// `L3_ROUTER_NAT`, …
        service_type: String,
        /// Whether it may be chosen.
        enabled: bool,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("name", "name IN ({})", "name"),
        Column::sorted("description", "description IN ({})", "description"),
        Column::sorted("service_type", "service_type IN ({})", "service_type"),
        Column::sorted("enabled", "enabled IN ({})", "enabled"),
    ];
    visible &[];
}

row! {
    /// How a service is provided.
    ServiceProfileRow: ServiceProfile in "service_profiles" {
        /// For people.
        description: String,
        /// The provider's driver; empty for none.
        driver: String,
        /// What the driver is told.
        metainfo: String,
        /// Whether it may be used.
        enabled: bool,
    }
    filters &[
        Column::sorted("id", "id IN ({})", "id"),
        Column::sorted("description", "description IN ({})", "description"),
        Column::sorted("driver", "driver IN ({})", "driver"),
        Column::sorted("enabled", "enabled IN ({})", "enabled"),
        Column::sorted("metainfo", "metainfo IN ({})", "metainfo"),
    ];
    visible &[];
}

row! {
    /// A profile of a flavor.
    FlavorServiceProfileRow: FlavorServiceProfile in "flavor_service_profiles" {
        /// The flavor.
        flavor_id: String,
        /// The profile.
        service_profile_id: String,
    }
    filters &[
        Column::sorted("id", "service_profile_id IN ({})", "service_profile_id"),
        Column::filter("flavor_id", "flavor_id IN ({})"),
    ];
    visible &[];
}

/// The profiles of some flavors, as flavor and profile, oldest first.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn profiles_of_flavors(
    conn: &mut Conn,
    flavors: &[&str],
) -> Result<Vec<(String, String)>> {
    by_parents(
        conn,
        "SELECT flavor_id, service_profile_id FROM flavor_service_profiles WHERE flavor_id IN",
        "ORDER BY flavor_id, created_at, id",
        flavors,
    )
    .await
}

/// Whether a flavor has this profile.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn service_profile_is_used(conn: &mut Conn, profile: &str) -> Result<bool> {
    let found: Vec<FlavorServiceProfileRow> =
        row::fetch(conn, "service_profile_id = $1 LIMIT 1", &[profile]).await?;
    Ok(!found.is_empty())
}
