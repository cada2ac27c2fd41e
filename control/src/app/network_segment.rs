//! Which segments a network gets: what callers may ask for, and the choice of the number.
//!
//! Guarantees: no two networks are on one segment; a project's networks take their numbers from its own ranges first,
//! then from those that are for everybody, and never from another project's.

use super::attribute::{Attributes, Take, int_of, objects_of, only_keys, text_of};
use super::config::NetworkConfig;
use super::error::{Error, Result, quote};
use super::resource::Write;
use super::view::View;
use crate::store::StoreError;
use crate::store::gateway::transit_has_vni;
use crate::store::network_segment_range::{NetworkSegmentRangeRow, range_list_kind};
use crate::store::segment::{SegmentRow, segment_insert, segment_update, segmentation_id_free};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use weft_model::NetworkType;

/// Segments of one network.
const SEGMENTS_MAX: usize = 64;

/// What a caller says of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// As in `provider:network_type`.
    pub(super) network_type: Option<String>,
    /// flat, vlan: the physical network.
    pub(super) physical_network: Option<String>,
    /// The number.
    pub(super) segmentation_id: Option<i64>,
}

impl Wanted {
    /// Takes the attributes of these names out of a body.
    pub(super) fn take(given: &mut Attributes, prefix: &str) -> Self {
        let text = |given: &mut Attributes, name: &str| {
            let text = given.text_opt(&format!("{prefix}{name}"));
            text.filter(|text| !text.is_empty())
        };
        Self {
            network_type: text(given, "network_type"),
            physical_network: text(given, "physical_network"),
            segmentation_id: given.int(&format!("{prefix}segmentation_id")),
        }
    }

    /// Whether nothing was said.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A number for a segment; which ones its kind allows is checked with the kind.
pub(super) fn segmentation_id(value: &Value) -> Result<Value, String> {
    int_of(value, 0, i64::from(u32::MAX)).map(Value::from)
}

/// The name of a physical network.
pub(super) fn physical_network(value: &Value) -> Result<Value, String> {
    text_of(value, 64).map(Value::from)
}

/// Reads `segments` of a network (Neutron's multi-provider extension).
pub(super) fn segments(value: &Value) -> Result<Value, String> {
    let wanted = objects_of(value, SEGMENTS_MAX, "segments", |segment| {
        only_keys(
            segment,
            &[
                "provider:network_type",
                "provider:physical_network",
                "provider:segmentation_id",
            ],
        )?;
        let given = |key: &str| segment.get(key).filter(|value| !value.is_null());
        let number = given("provider:segmentation_id").map(segmentation_id);
        Ok(Wanted {
            network_type: given("provider:network_type")
                .map(|value| text_of(value, 32))
                .transpose()?,
            physical_network: given("provider:physical_network")
                .map(|value| text_of(value, 64))
                .transpose()?
                .filter(|name| !name.is_empty()),
            segmentation_id: number.transpose()?.and_then(|number| number.as_i64()),
        })
    })?;
    if wanted.is_empty() {
        return Err("a network has at least one segment".to_owned());
    }
    serde_json::to_value(wanted).map_err(|error| error.to_string())
}

/// A network's segments as its view has them: three attributes for one, a list for several.
pub(super) fn add_view(segments: &[SegmentRow], view: &mut View) {
    let add = |segment: Option<&SegmentRow>, view: &mut View| {
        let physical_network = segment.and_then(|s| s.physical_network.as_ref());
        view.put("provider:network_type", &segment.map(|s| &s.network_type));
        view.put("provider:physical_network", &physical_network);
        view.put(
            "provider:segmentation_id",
            &segment.and_then(|s| s.segmentation_id),
        );
    };
    if segments.len() <= 1 {
        return add(segments.first(), view);
    }
    let list: Vec<_> = segments
        .iter()
        .map(|segment| {
            let mut one = View::new();
            add(Some(segment), &mut one);
            one.raw()
        })
        .collect();
    view.put("segments", &list);
}

/// [`add_view`] alone.
pub(super) fn view(segments: &[SegmentRow]) -> View {
    let mut view = View::new();
    add_view(segments, &mut view);
    view
}

/// Whether a network's segments are what [`segments`] has read.
pub(super) fn are(segments: &[SegmentRow], wanted: &Value) -> bool {
    let now: Vec<Wanted> = segments
        .iter()
        .map(|segment| Wanted {
            network_type: Some(segment.network_type.clone()),
            physical_network: segment.physical_network.clone(),
            segmentation_id: segment.segmentation_id,
        })
        .collect();
    json!(now) == *wanted
}

/// A segment's type.
pub(super) fn network_type_of(text: &str) -> Result<NetworkType> {
    serde_json::from_value(Value::from(text)).map_err(|_unknown| {
        Error::invalid_input(format!("Unknown provider:network_type {}", quote(text)))
    })
}

fn type_name(network_type: NetworkType) -> String {
    // A unit variant serialises to its name.
    serde_json::to_value(network_type)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// The largest MTU that a network on these segments can have.
pub(super) fn mtu_max(config: &NetworkConfig, segments: &[SegmentRow]) -> Result<i64> {
    let mut least = config.mtu;
    for segment in segments {
        least = least.min(config.mtu_max(network_type_of(&segment.network_type)?));
    }
    Ok(i64::from(least))
}

/// The segment of a network whose creator names none.
pub(super) fn default_segment(config: &NetworkConfig) -> SegmentRow {
    SegmentRow {
        id: Uuid::new_v4().to_string(),
        network_type: type_name(config.default_network_type),
        ..SegmentRow::default()
    }
}

/// What was asked for, checked; the number may still be missing, and for a VLAN the physical network too.
pub(super) fn checked(config: &NetworkConfig, wanted: Wanted) -> Result<SegmentRow> {
    let network_type = wanted
        .network_type
        .ok_or_else(|| Error::invalid_input("provider:network_type required"))?;
    let kind = network_type_of(&network_type)?;
    let known = |name: &String| {
        config.physical_networks.is_empty()
            || config.physical_networks.contains(name)
            || config.vlan_ranges.contains_key(name)
    };
    let refused = match (kind, &wanted.physical_network, wanted.segmentation_id) {
        (NetworkType::Flat, None, _) => Some(format!(
            "provider:physical_network required for {network_type} network"
        )),
        (NetworkType::Vlan, None, Some(_)) => Some(format!(
            "provider:segmentation_id requires provider:physical_network for {network_type} network"
        )),
        (kind, Some(_), _) if !kind.is_physical() => Some(format!(
            "provider:physical_network specified for {network_type} network"
        )),
        (_, Some(name), _) if !known(name) => Some(format!(
            "physical_network {} unknown for {network_type} provider network",
            quote(name)
        )),
        (NetworkType::Local | NetworkType::Flat, _, Some(_)) => Some(format!(
            "provider:segmentation_id specified for {network_type} network"
        )),
        _ => None,
    };
    if let Some(reason) = refused {
        return Err(Error::invalid_input(reason));
    }
    let (first, last) = numbers(kind);
    if let Some(id) = wanted.segmentation_id
        && !(first..=last).contains(&id)
    {
        return Err(Error::invalid_input(format!(
            "segmentation_id out of range ({first} through {last}) for {network_type} network"
        )));
    }
    Ok(SegmentRow {
        id: Uuid::new_v4().to_string(),
        network_type,
        physical_network: wanted.physical_network,
        segmentation_id: wanted.segmentation_id,
        ..SegmentRow::default()
    })
}

/// The numbers that a kind of segment can have.
pub(super) fn numbers(kind: NetworkType) -> (i64, i64) {
    match kind {
        NetworkType::Vlan => (1, 4_094),
        NetworkType::Gre => (1, i64::from(u32::MAX)),
        _ => (1, 0xff_ffff),
    }
}

/// What a new network asks for: `segments`, or the provider attributes, or nothing.
pub(super) fn wanted_of(config: &NetworkConfig, given: &mut Attributes) -> Result<Vec<SegmentRow>> {
    let single = Wanted::take(given, "provider:");
    let several: Option<Vec<Wanted>> = given.shaped("segments");
    match (single.is_empty(), several) {
        (false, Some(_)) => Err(Error::invalid(
            "SegmentsSetInConjunctionWithProviders",
            "Segments and provider values cannot both be set.",
        )),
        (false, None) => Ok(vec![checked(config, single)?]),
        (true, None) => Ok(vec![default_segment(config)]),
        (true, Some(several)) => {
            // What leaves something open may be there twice: each gets something else.
            let whole = |wanted: &Wanted| {
                wanted.segmentation_id.is_some() || wanted.network_type.as_deref() == Some("flat")
            };
            for (n, wanted) in several.iter().enumerate() {
                if whole(wanted) && several[..n].contains(wanted) {
                    return Err(Error::invalid(
                        "SegmentsContainDuplicateEntry",
                        "Duplicate segment entry in request.",
                    ));
                }
            }
            several
                .into_iter()
                .map(|wanted| checked(config, wanted))
                .collect()
        }
    }
}

/// Chooses the segment's number where none was given, and gives the segment to its network.
pub(super) async fn take(
    write: &mut Write<'_>,
    segment: &mut SegmentRow,
    project: &str,
) -> Result<()> {
    let kind = network_type_of(&segment.network_type)?;
    let numbered = !matches!(kind, NetworkType::Local | NetworkType::Flat);
    if numbered && segment.segmentation_id.is_none() {
        choose(write, segment, project).await?;
    }
    if kind == NetworkType::Vxlan
        && let Some(number) = segment.segmentation_id
        && transit_has_vni(write.conn(), number).await?
    {
        return Err(taken(segment));
    }
    match segment_insert(&mut write.tx, segment).await {
        Err(StoreError::Conflict(_)) => Err(taken(segment)),
        done => Ok(done?),
    }
}

/// Looks through the physical networks, where the segment may be on several, for a number.
pub(super) async fn choose(
    write: &mut Write<'_>,
    segment: &mut SegmentRow,
    project: &str,
) -> Result<()> {
    let physical: Vec<Option<String>> = match &segment.physical_network {
        Some(name) => vec![Some(name.clone())],
        None if segment.network_type == "vlan" => {
            let ranges = &write.app.config.vlan_ranges;
            ranges.keys().cloned().map(Some).collect()
        }
        None => vec![None],
    };
    // Whoever chooses at the same time waits here, and then sees what was given.
    write
        .tx
        .touch(crate::store::Resource::Network, &segment.network_id)
        .await?;
    for name in physical {
        let kind = segment.network_type.as_str();
        let ranges = range_list_kind(write.conn(), kind, name.as_deref().unwrap_or("")).await?;
        for (first, last) in open_to(&ranges, project) {
            let of = (kind, name.as_deref());
            let chance = Uuid::new_v4().as_u128();
            let free = segmentation_id_free(write.conn(), of, (first, last), chance).await?;
            if free.is_some() {
                segment.segmentation_id = free;
                segment.physical_network = name;
                return Ok(());
            }
        }
    }
    Err(Error::conflict(
        "NoNetworkAvailable",
        "Unable to create the network. No available network found in maximum allowed attempts.",
    ))
}

/// The numbers that a project may take, in the order in which they are looked through: its own ranges, then what is
/// shared but for the ranges of other projects.
fn open_to(ranges: &[NetworkSegmentRangeRow], project: &str) -> Vec<(i64, i64)> {
    let own = ranges
        .iter()
        .filter(|range| !range.shared && range.project_id == project)
        .map(|range| (range.minimum, range.maximum));
    let mut open: Vec<(i64, i64)> = own.collect();
    let reserved = ranges
        .iter()
        .filter(|range| !range.shared && range.project_id != project);
    for shared in ranges.iter().filter(|range| range.shared) {
        // Ranges come in ascending order.
        let mut next = shared.minimum;
        for other in reserved.clone() {
            if other.maximum < next || other.minimum > shared.maximum {
                continue;
            }
            if other.minimum > next {
                open.push((next, other.minimum - 1));
            }
            next = next.max(other.maximum + 1);
        }
        if next <= shared.maximum {
            open.push((next, shared.maximum));
        }
    }
    open
}

/// Moves a network to another VLAN of its physical network.
pub(super) async fn renumber(
    write: &mut Write<'_>,
    segment: &mut SegmentRow,
    number: i64,
) -> Result<()> {
    let (first, last) = numbers(network_type_of(&segment.network_type)?);
    if !(first..=last).contains(&number) {
        return Err(Error::invalid_input(format!(
            "segmentation_id out of range ({first} through {last}) for {} network",
            segment.network_type
        )));
    }
    segment.segmentation_id = Some(number);
    match segment_update(&mut write.tx, segment).await {
        Err(StoreError::Conflict(_)) => Err(taken(segment)),
        done => Ok(done?),
    }
}

fn taken(segment: &SegmentRow) -> Error {
    let physical = segment.physical_network.as_deref().unwrap_or_default();
    match (segment.network_type.as_str(), segment.segmentation_id) {
        ("flat", _) => Error::conflict(
            "FlatNetworkInUse",
            format!("Unable to create the flat network. Physical network {physical} is in use."),
        ),
        ("vlan", Some(id)) => Error::conflict(
            "VlanIdInUse",
            format!(
                "Unable to create the network. The VLAN {id} on physical network {physical} is in use."
            ),
        ),
        (_, id) => Error::conflict(
            "TunnelIdInUse",
            format!(
                "Unable to create the network. The tunnel ID {} is in use.",
                id.unwrap_or_default()
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(project: &str, minimum: i64, maximum: i64) -> NetworkSegmentRangeRow {
        NetworkSegmentRangeRow {
            project_id: project.to_owned(),
            shared: project.is_empty(),
            minimum,
            maximum,
            ..NetworkSegmentRangeRow::default()
        }
    }

    #[test]
    fn own_ranges_come_first_and_others_are_left_out() {
        let ranges = [
            range("", 1, 100),
            range("a", 10, 19),
            range("b", 50, 59),
            range("c", 95, 120),
            range("", 110, 130),
        ];
        assert_eq!(
            open_to(&ranges, "a"),
            [(10, 19), (1, 49), (60, 94), (121, 130)]
        );
        assert_eq!(
            open_to(&ranges, "d"),
            [(1, 9), (20, 49), (60, 94), (121, 130)]
        );
        assert!(open_to(&[], "a").is_empty());
    }
}
