//! Segments as resources: what a network is made of, one by one.

use super::attribute::{self, Attribute, Attributes, Default, Kind, Take};
use super::error::{Error, Result};
use super::network_segment::{self, Wanted, physical_network, segmentation_id};
use super::resource::{self, Resource, Write};
use super::view::{View, view};
use super::{network, port_address};
use crate::store::network::NetworkRow;
use crate::store::port::port_list_network;
use crate::store::segment::{self as store, SegmentRow, segment_list, subnets_of_segment};
use crate::store::{self as rows, Conn};

/// The resource.
pub struct Segment;

impl Resource for Segment {
    type Row = SegmentRow;
    type Item = SegmentRow;

    const NAME: &'static str = "segment";
    const COLLECTION: &'static str = "segments";
    const NOT_FOUND: &'static str = "SegmentNotFound";
    const TITLE: &'static str = "Segment";
    const STANDARD: &'static [Attribute] = attribute::STANDARD_GLOBAL;
    const ATTRIBUTES: &'static [Attribute] = &[
        Attribute::new("network_id", Kind::Uuid).required().sort(),
        Attribute::new("network_type", Kind::Text(32))
            .required()
            .sort(),
        Attribute::new("physical_network", Kind::Custom(physical_network))
            .post(Default::Unset)
            .nullable()
            .sort(),
        Attribute::new("segmentation_id", Kind::Custom(segmentation_id))
            .post(Default::Unset)
            .nullable()
            .sort(),
        Attribute::new("name", Kind::Text(255))
            .post(Default::Null)
            .put()
            .nullable()
            .sort(),
        // Accepted as everywhere, and shown nowhere: a segment is its network's.
        Attribute::new("project_id", Kind::Text(255)).post(Default::Unset),
    ];

    fn row(item: &SegmentRow) -> &SegmentRow {
        item
    }

    async fn complete(_conn: &mut Conn, rows: Vec<SegmentRow>) -> Result<Vec<SegmentRow>> {
        Ok(rows)
    }

    fn view(row: &SegmentRow) -> View {
        let mut view = view! { row;
            "network_id" => row.network_id,
            "network_type" => row.network_type,
            "physical_network" => row.physical_network,
            "segmentation_id" => row.segmentation_id,
            "name" => row.name,
        };
        view.remove("project_id");
        view
    }

    async fn create(write: &mut Write<'_>, mut given: Attributes) -> Result<SegmentRow> {
        let caller = write.caller;
        let mut network = network::usable(write.conn(), caller, &given.text("network_id")).await?;
        let wanted = Wanted::take(&mut given, "");
        let mut row = network_segment::checked(&write.app.config, wanted)?;
        row.network_id.clone_from(&network.id);
        row.name = given.text_opt("name");
        row.description = given.text("description");
        let mut segments = segment_list(write.conn(), &[&network.id]).await?;
        row.segment_index = segments.last().map_or(0, |last| last.segment_index + 1);
        network_segment::take(write, &mut row, &network.project_id).await?;
        segments.push(row.clone());
        fit_mtu(write, &mut network, &segments).await?;
        Ok(row)
    }

    async fn update(
        write: &mut Write<'_>,
        mut row: SegmentRow,
        mut given: Attributes,
    ) -> Result<SegmentRow> {
        if let Some(name) = given.text_or_null("name") {
            row.name = name;
        }
        if let Some(description) = given.text_opt("description") {
            row.description = description;
        }
        rows::update(&mut write.tx, &mut row).await?;
        Ok(row)
    }

    async fn delete(write: &mut Write<'_>, row: SegmentRow) -> Result<()> {
        let subnets = subnets_of_segment(write.conn(), &row.id).await?;
        if !subnets.is_empty() {
            let reason = format!(
                "The segment is still associated with subnet(s) {}",
                subnets.join(", ")
            );
            return Err(in_use(&row.id, &reason));
        }
        // Where a port is bound by, only its host could say; a network that has one left keeps it.
        let alone = segment_list(write.conn(), &[&row.network_id]).await?.len() == 1;
        let ports = port_list_network(write.conn(), &row.network_id).await?;
        let bound = |port: &rows::port::Port| {
            !port.row.binding_host_id.is_empty()
                || port_address::is_router_owner(&port.row.device_owner)
        };
        if alone && ports.iter().any(bound) {
            return Err(in_use(&row.id, "one or more ports are bound on it"));
        }
        Ok(store::segment_delete(&mut write.tx, &row).await?)
    }
}

fn in_use(id: &str, reason: &str) -> Error {
    Error::conflict(
        "SegmentInUse",
        format!("Segment '{id}' cannot be deleted: {reason}."),
    )
}

/// A segment that a subnet is to be on.
pub(super) async fn of_network(
    write: &mut Write<'_>,
    network: &str,
    id: &str,
) -> Result<SegmentRow> {
    let segment = rows::get::<SegmentRow>(write.conn(), id)
        .await?
        .ok_or_else(|| resource::not_found::<Segment>(id))?;
    if segment.network_id != network {
        return Err(Error::invalid(
            "NetworkIdsDontMatch",
            format!(
                "The subnet's network id, '{network}', doesn't match the network_id of segment '{id}'"
            ),
        ));
    }
    Ok(segment)
}

/// A network's packets must fit through all its segments.
async fn fit_mtu(
    write: &mut Write<'_>,
    network: &mut NetworkRow,
    segments: &[SegmentRow],
) -> Result<()> {
    network.mtu = network
        .mtu
        .min(network_segment::mtu_max(&write.app.config, segments)?);
    rows::update(&mut write.tx, network).await?;
    Ok(())
}
