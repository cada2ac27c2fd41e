//! Network segment ranges: from which numbers whose networks' segments are taken.

use super::attribute::{Attribute, Attributes, Default, Kind, Take};
use super::config::NetworkConfig;
use super::error::{Error, Result};
use super::network_segment::{network_type_of, numbers, physical_network};
use super::resource::{Resource, Write};
use super::view::{View, view};
use crate::store::network_segment_range::{
    NetworkSegmentRangeRow as Row, range_list_default, range_list_kind,
};
use crate::store::segment::segmentation_ids_used;
use crate::store::{self as rows, Conn, Store, StoreError};
use serde_json::{Map, Value};
use uuid::Uuid;

/// The resource.
pub struct NetworkSegmentRange;

/// A range with the numbers that networks have of it.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its row.
    pub row: Row,
    /// In ascending order, each with its network's project.
    pub used: Vec<(i64, String)>,
}

/// Numbers that `available` lists: who needs them all asks for less at a time.
const AVAILABLE_MAX: usize = 4_096;

impl Resource for NetworkSegmentRange {
    type Row = Row;
    type Item = Item;

    const NAME: &'static str = "network_segment_range";
    const COLLECTION: &'static str = "network_segment_ranges";
    const NOT_FOUND: &'static str = "NetworkSegmentRangeNotFound";
    const TITLE: &'static str = "Network Segment Range";
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("name", Kind::Text(255))
            .post(Default::Text(""))
            .put()
            .sort(),
        Attribute::new("shared", Kind::Bool).post(Default::Bool(true)),
        Attribute::new("default", Kind::Bool),
        Attribute::new(
            "network_type",
            Kind::OneOf(&["vlan", "vxlan", "gre", "geneve"]),
        )
        .required()
        .filter(),
        Attribute::new("physical_network", Kind::Custom(physical_network))
            .post(Default::Unset)
            .nullable()
            .filter(),
        Attribute::new("minimum", Kind::Int(1, 4_294_967_295))
            .required()
            .put()
            .filter(),
        Attribute::new("maximum", Kind::Int(1, 4_294_967_295))
            .required()
            .put()
            .filter(),
        Attribute::new("used", Kind::Text(0)),
        Attribute::new("available", Kind::Text(0)),
    ];

    fn row(item: &Item) -> &Row {
        &item.row
    }

    async fn complete(conn: &mut Conn, rows: Vec<Row>) -> Result<Vec<Item>> {
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            items.push(item(conn, row).await?);
        }
        Ok(items)
    }

    fn view(item: &Item) -> View {
        let row = &item.row;
        let used: Map<String, Value> = item
            .used
            .iter()
            .map(|(number, project)| (number.to_string(), project.clone().into()))
            .collect();
        let mut view = view! { row;
            "name" => row.name,
            "shared" => row.shared,
            "default" => row.is_default,
            "network_type" => row.network_type,
            "physical_network" => (!row.physical_network.is_empty()).then_some(&row.physical_network),
            "minimum" => row.minimum,
            "maximum" => row.maximum,
            "used" => used,
            "available" => available(item),
        };
        if row.project_id.is_empty() {
            view.remove("project_id");
            view.put("project_id", &Value::Null);
        }
        view
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<Item> {
        let shared = given.truth("shared").unwrap_or(true);
        let mut row = Row {
            id: Uuid::new_v4().to_string(),
            project_id: given.text("project_id"),
            name: given.text("name"),
            description: given.text("description"),
            shared,
            network_type: given.text("network_type"),
            physical_network: given.text("physical_network"),
            minimum: given.int("minimum").unwrap_or(1),
            maximum: given.int("maximum").unwrap_or(1),
            ..Row::default()
        };
        if shared {
            row.project_id.clear();
        }
        if row.network_type != "vlan" {
            row.physical_network.clear();
        } else if row.physical_network.is_empty() {
            return Err(Error::invalid(
                "BadRequest",
                "Bad network_segment_range request: Network type vlan requires 'physical_network' to \
                 be specified while creating new range.",
            ));
        }
        check(write, &row).await?;
        rows::insert(&mut write.tx, &mut row).await?;
        item(write.conn(), row).await
    }

    async fn update(write: &mut Write<'_>, item: Item, mut given: Attributes) -> Result<Item> {
        changeable(&item.row)?;
        let Item { mut row, used } = item;
        if let Some(name) = given.text_opt("name") {
            row.name = name;
        }
        if let Some(description) = given.text_opt("description") {
            row.description = description;
        }
        row.minimum = given.int("minimum").unwrap_or(row.minimum);
        row.maximum = given.int("maximum").unwrap_or(row.maximum);
        let outside = |(number, _): &(i64, String)| !(row.minimum..=row.maximum).contains(number);
        if used.iter().any(outside) {
            return Err(referenced(&row.id));
        }
        check(write, &row).await?;
        rows::update(&mut write.tx, &mut row).await?;
        self::item(write.conn(), row).await
    }

    async fn delete(write: &mut Write<'_>, item: Item) -> Result<()> {
        changeable(&item.row)?;
        if !item.used.is_empty() {
            return Err(referenced(&item.row.id));
        }
        rows::delete::<Row>(&mut write.tx, &item.row.id).await?;
        Ok(())
    }
}

async fn item(conn: &mut Conn, row: Row) -> Result<Item> {
    let physical = Some(row.physical_network.as_str()).filter(|name| !name.is_empty());
    let (first, last) = (row.minimum, row.maximum);
    let used = segmentation_ids_used(conn, &row.network_type, physical, first, last).await?;
    Ok(Item { row, used })
}

/// The first free numbers.
fn available(item: &Item) -> Vec<i64> {
    let mut used = item.used.iter().map(|(number, _)| *number).peekable();
    (item.row.minimum..=item.row.maximum)
        .filter(|number| {
            while used.next_if(|taken| taken < number).is_some() {}
            used.peek() != Some(number)
        })
        .take(AVAILABLE_MAX)
        .collect()
}

/// The configuration's ranges are changed there.
fn changeable(row: &Row) -> Result<()> {
    if !row.is_default {
        return Ok(());
    }
    Err(Error::invalid(
        "NetworkSegmentRangeDefaultReadOnly",
        format!(
            "Network Segment Range {} is a default segment range which could not be updated or deleted.",
            row.id
        ),
    ))
}

fn referenced(id: &str) -> Error {
    Error::conflict(
        "NetworkSegmentRangeReferencedByProject",
        format!("Network Segment Range {id} is referenced by one or more project networks."),
    )
}

/// A range holds numbers of its kind, and none of another that was made by hand.
async fn check(write: &mut Write<'_>, row: &Row) -> Result<()> {
    let (first, last) = numbers(network_type_of(&row.network_type)?);
    let inside = (first..=last).contains(&row.minimum) && (first..=last).contains(&row.maximum);
    if !inside || row.minimum > row.maximum {
        return Err(Error::invalid(
            "NetworkSegmentRangeError",
            format!(
                "minimum {} and maximum {} are no range of {} numbers ({first} through {last}).",
                row.minimum, row.maximum, row.network_type
            ),
        ));
    }
    let all = range_list_kind(write.conn(), &row.network_type, &row.physical_network).await?;
    let overlapping: Vec<&str> = all
        .iter()
        .filter(|other| !other.is_default && other.id != row.id)
        .filter(|other| other.minimum <= row.maximum && other.maximum >= row.minimum)
        .map(|other| other.id.as_str())
        .collect();
    if overlapping.is_empty() {
        return Ok(());
    }
    Err(Error::conflict(
        "NetworkSegmentRangeOverlaps",
        format!(
            "Network segment range overlaps with range(s) with id {}",
            overlapping.join(", ")
        ),
    ))
}

/// The configuration's ranges: VLANs of each physical network, and one for each kind of tunnel.
fn configured(config: &NetworkConfig) -> Vec<Row> {
    let row = |network_type: &str, physical_network: &str, first: u32, last: u32| Row {
        is_default: true,
        shared: true,
        network_type: network_type.to_owned(),
        physical_network: physical_network.to_owned(),
        minimum: first.into(),
        maximum: last.into(),
        ..Row::default()
    };
    let vlans = config
        .vlan_ranges
        .iter()
        .map(|(name, range)| row("vlan", name, range.first, range.last));
    let tunnels = config.tunnel_id_range;
    let tunnels = ["vxlan", "gre", "geneve"]
        .into_iter()
        .map(|kind| row(kind, "", tunnels.first, tunnels.last));
    vlans.chain(tunnels).collect()
}

/// What is written of the configuration's ranges and not in it any more, and what is missing.
fn difference(written: Vec<Row>, config: &NetworkConfig) -> (Vec<Row>, Vec<Row>) {
    let mut missing = configured(config);
    let mut gone = Vec::new();
    for have in written {
        let same = |row: &Row| {
            row.network_type == have.network_type
                && row.physical_network == have.physical_network
                && (row.minimum, row.maximum) == (have.minimum, have.maximum)
        };
        match missing.iter().position(same) {
            Some(found) => drop(missing.swap_remove(found)),
            None => gone.push(have),
        }
    }
    (gone, missing)
}

/// Brings the ranges of the configuration to what it says now.
///
/// # Errors
/// [`StoreError`].
pub async fn defaults_ensure(store: &Store, config: &NetworkConfig) -> Result<(), StoreError> {
    let mut read = store.read().await?;
    let written = range_list_default(read.conn()).await?;
    drop(read);
    let (gone, missing) = difference(written, config);
    if gone.is_empty() && missing.is_empty() {
        return Ok(());
    }
    let mut tx = store.write().await?;
    // Of several servers that start at once, one writes; the others wait here, and then find it written.
    tx.touch(rows::Resource::NetworkSegmentRange, "").await?;
    let written = range_list_default(tx.conn()).await?;
    let (gone, missing) = difference(written, config);
    for row in gone {
        rows::delete::<Row>(&mut tx, &row.id).await?;
    }
    for mut row in missing {
        row.id = Uuid::new_v4().to_string();
        rows::insert(&mut tx, &mut row).await?;
    }
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_not_available() {
        let item = |minimum, maximum, used: &[i64]| Item {
            row: Row {
                minimum,
                maximum,
                ..Row::default()
            },
            used: used
                .iter()
                .map(|number| (*number, "p".to_owned()))
                .collect(),
        };
        assert_eq!(available(&item(3, 7, &[3, 5, 7])), [4, 6]);
        assert!(available(&item(3, 3, &[3])).is_empty());
        let many = available(&item(1, 16_000_000, &[2]));
        assert_eq!((many.len(), many[1]), (AVAILABLE_MAX, 3));
    }
}
