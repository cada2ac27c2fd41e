//! Metering: meters for the sets of labels that something is counted for, and which ranges of a router's rules lead to them.
//!
//! Guarantees: the longest ranges that a source and a destination are in say all labels that count them. Every set of labels
//! has one meter on the host, which keeps its number while anything is counted for the set.

use super::address::AddressBytes;
use super::delta::put;
use super::{Input, Tables};
use std::collections::{BTreeMap, BTreeSet};
use weft_ebpf_common::constants::family;
use weft_ebpf_common::layout::{MeterRange, MeterRegion, MeterRegionKey, MeterSet, RouteKey};
use weft_model::{Direction, HostSnapshot, MeteringLabelId, MeteringRegions, RouterId, limits};

/// Bits of a range's key in front of the address.
const SCOPE_BITS: u32 = 64;

/// What the routers of a host count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metering {
    routers: Vec<(RouterId, Direction, bool, MeteringRegions)>,
    /// The labels of each meter, by what they are known as.
    pub(crate) sets: BTreeMap<u128, BTreeSet<MeteringLabelId>>,
    /// Routers that count nothing in some direction and family: too many ranges.
    pub(crate) left_out: BTreeSet<RouterId>,
}

impl Metering {
    pub(crate) fn new(snapshot: &HostSnapshot) -> Self {
        let mut all = Self::default();
        let mut room = limits::METERING_REGIONS_PER_HOST_MAX;
        for (id, router) in &snapshot.routers {
            if router.metering_labels.is_empty() || router.gateway.is_none() {
                continue;
            }
            for direction in [Direction::Ingress, Direction::Egress] {
                for is_ipv6 in [false, true] {
                    let labels = (&snapshot.metering_labels, &router.metering_labels);
                    let regions = MeteringRegions::new(labels.0, labels.1, direction, is_ipv6);
                    let sets: BTreeMap<_, _> = (regions.labels.values())
                        .map(|set| (known_as(set), set.clone()))
                        .filter(|(id, _)| !all.sets.contains_key(id))
                        .collect();
                    let ranges = regions.sources.len() + regions.destinations.len();
                    let entries = ranges + regions.labels.len();
                    // Meter 0 is none.
                    let fits = all.sets.len() + sets.len() < limits::METERS_MAX;
                    if ranges == 0 || entries > room || !fits {
                        all.left_out.insert(*id);
                        continue;
                    }
                    room -= entries;
                    all.sets.extend(sets);
                    all.routers.push((*id, direction, is_ipv6, regions));
                }
            }
        }
        all
    }

    /// Whether anything of a router is counted.
    pub(super) fn counts(&self, router: RouterId) -> bool {
        let mut of = self.routers.iter();
        of.any(|(id, _, _, regions)| *id == router && !regions.labels.is_empty())
    }
}

/// A number made of the labels' ids.
fn known_as(set: &BTreeSet<MeteringLabelId>) -> u128 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    set.iter().fold(0, |number: u128, id| {
        (number.rotate_left(41) ^ id.0.as_u128()).wrapping_mul(ODD)
    })
}

pub(super) fn meters(input: &Input<'_>, tables: &mut Tables) {
    let metering = &input.slots.metering;
    let meter = |set| input.slots.meters.get(known_as(set));
    for (id, slot) in input.slots.meters.iter() {
        let id = id.to_be_bytes();
        put(&mut tables.meter_sets, &slot, &MeterSet { id });
    }
    for (id, direction, is_ipv6, regions) in &metering.routers {
        let table = input.router(*id) << 1 | u32::from(*direction == Direction::Ingress);
        let family = u32::from(if *is_ipv6 { family::V6 } else { family::V4 });
        for (side, ranges) in [(0, &regions.sources), (1, &regions.destinations)] {
            // What is in none of them is in the first one, which is everything.
            for (number, range) in (0..).zip(ranges).skip(1) {
                let address = AddressBytes::from(range.network());
                let key = RouteKey {
                    prefix_bits: SCOPE_BITS + u32::from(range.prefix_len()),
                    table: table << 1 | side,
                    family,
                    address: address.bytes,
                };
                put(&mut tables.meter_ranges, &key, &MeterRange { number });
            }
        }
        for ((source, destination), set) in &regions.labels {
            let number = |at: &usize| u32::try_from(*at).unwrap_or(u32::MAX);
            let key = MeterRegionKey {
                table,
                family,
                source: number(source),
                destination: number(destination),
            };
            if let Some(meter) = meter(set) {
                put(&mut tables.meter_regions, &key, &MeterRegion { meter });
            }
        }
    }
}
