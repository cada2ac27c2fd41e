//! Sessions over an upgrade: maps of another layout or size are other maps, and what stands in those of the agent before is
//! taken over, by the names of fields.
//!
//! Guarantees: a session goes on if what it belongs to is still there; it is looked at again by its next packet, so that nothing
//! passes that the snapshot in force forbids. Where the layouts do not fit together, nothing is taken over, and why is said.
//! The earlier maps are only read. Cost: one pass over them, while the earlier programs still do the work: what opens during
//! that pass begins anew.
//!
//! Assumes that `session::FORWARD` and the numbers of `state` mean what they meant.

mod shape;

use crate::compile::{SlotTables, Slots};
use crate::engine::Engine;
use crate::sys::{self, Entry, Map, SysError, UpdateMode};
use shape::{Recast, Shape, ShapeError};
use std::collections::BTreeMap;
use std::path::Path;
use uuid::Uuid;
use weft_ebpf_common::constants::{session, slot};
use weft_ebpf_common::layout::{AddressKey, Neighbour, Session, SessionKey};
use zerocopy::{FromBytes, IntoBytes};

/// Entries read and written at once. A bucket of the hash must fit.
const BATCH: u32 = 4_096;
/// A revision that none in force has: whatever carries it is looked at again.
const REVISION_NONE: u32 = u32::MAX;
/// What of a session cannot be found out again.
const NEEDED: &[&str] = &[
    "match_mac",
    "flags",
    "output",
    "seen_s",
    "state",
    "icmp_type",
    "icmp_code",
    "source",
    "destination",
    "source_port",
    "destination_port",
    "owner",
    "opener_mac",
    "network",
    "other_ingress",
];

/// What became of an earlier layout's sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Sessions that go on.
    pub sessions: usize,
    /// Sessions that do not: what they belong to is gone, or there is no room.
    pub left: usize,
    /// Why no more could be taken over.
    pub refused: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum CarryError {
    #[error(transparent)]
    Sys(#[from] SysError),
    #[error("map {map}: {source}")]
    Shape {
        map: &'static str,
        source: ShapeError,
    },
}

/// An earlier map.
struct Earlier {
    name: &'static str,
    map: Map,
    key: Option<Shape>,
    value: Shape,
}

impl Earlier {
    /// `keyed`: its keys are structs, not numbers.
    fn open(directory: &Path, name: &'static str, keyed: bool) -> Result<Self, CarryError> {
        let map = sys::obj_get_map(&directory.join(name))?;
        let wrong = |source| CarryError::Shape { map: name, source };
        let untyped = ShapeError::Types("it has none");
        let types = map.info().types.ok_or_else(|| wrong(untyped))?;
        let text = sys::btf_by_id(types.btf)?;
        let key = keyed.then(|| Shape::read(&text, types.key));
        let key = key.transpose().map_err(wrong)?;
        let value = Shape::read(&text, types.value).map_err(wrong)?;
        Ok(Self {
            name,
            map,
            key,
            value,
        })
    }

    fn wrong(&self, source: ShapeError) -> CarryError {
        CarryError::Shape {
            map: self.name,
            source,
        }
    }

    /// All entries, some at a time.
    fn each(
        &self,
        mut take: impl FnMut(Vec<Entry>) -> Result<(), CarryError>,
    ) -> Result<(), CarryError> {
        let mut cursor = None;
        // Entries that come while we read cannot keep us here for ever.
        for _batch in 0..=self.map.info().entries_max / (BATCH / 8) {
            let (entries, next) = self.map.lookup_batch(cursor.as_ref(), BATCH)?;
            take(entries)?;
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// From an earlier slot to ours, by the ids of what is in them.
    fn slots<K: Ord + Copy + From<Uuid>>(
        &self,
        ours: &Slots<K>,
    ) -> Result<BTreeMap<u32, u32>, CarryError> {
        let field = self.value.field("id", size_of::<Uuid>());
        let field = field.map_err(|source| self.wrong(source))?;
        let mut slots = BTreeMap::new();
        self.each(|entries| {
            for (key, value) in entries {
                let id = value.get(field.at..field.at + field.bytes);
                let id = id.and_then(|id| Uuid::from_slice(id).ok());
                let (Ok(was), Some(id)) = (u32::read_from_bytes(&key), id) else {
                    continue;
                };
                slots.extend(ours.get(K::from(id)).map(|is| (was, is)));
            }
            Ok(())
        })?;
        Ok(slots)
    }
}

/// What an earlier layout's slots are now.
struct Renumber {
    ports: BTreeMap<u32, u32>,
    networks: BTreeMap<u32, u32>,
    uplinks: BTreeMap<u32, u32>,
}

impl Renumber {
    fn read(directory: &Path, slots: &SlotTables) -> Result<Self, CarryError> {
        let open = |name| Earlier::open(directory, name, false);
        Ok(Self {
            ports: open("ports")?.slots(&slots.ports)?,
            networks: open("networks")?.slots(&slots.networks)?,
            uplinks: open("uplinks")?.slots(&slots.uplinks)?,
        })
    }

    /// An ingress or output; none if it is gone.
    fn device(&self, was: u32) -> Option<u32> {
        const OF_NETWORK: [u32; 2] = [slot::TUNNEL | slot::TUNNEL_NONE, slot::TUNNEL | slot::GRE];
        if was & slot::UPLINK != 0 {
            let uplink = self.uplinks.get(&(was & !slot::UPLINK))?;
            return Some(uplink | slot::UPLINK);
        }
        if was & slot::TUNNEL == 0 {
            return self.ports.get(&was).copied();
        }
        // The others have the number that the tunnel itself carries.
        for kind in OF_NETWORK {
            if was & kind == kind {
                return self.networks.get(&(was & !kind)).map(|is| is | kind);
            }
        }
        Some(was)
    }

    /// Both of an entry in our numbers; none if something that it belongs to is gone.
    fn entry(&self, key: &mut SessionKey, value: &mut Session) -> Option<()> {
        for place in [
            &mut key.ingress,
            &mut value.output,
            &mut value.owner,
            &mut value.other_ingress,
        ] {
            *place = self.device(*place)?;
        }
        value.network = *self.networks.get(&value.network)?;
        value.revision = REVISION_NONE;
        Some(())
    }
}

impl Engine {
    /// Takes over the sessions of the layout that did the work until now, if another one did. Before anything is attached.
    pub(crate) fn sessions_carry(&mut self) -> Option<Carried> {
        let directory = self.devices.predecessor()?;
        let mut carried = Carried::default();
        let taken = self.carry(directory, &mut carried);
        carried.refused = taken.err().map(|error| error.to_string());
        Some(carried)
    }

    fn carry(&self, directory: &Path, carried: &mut Carried) -> Result<(), CarryError> {
        let renumber = Renumber::read(directory, &self.slots)?;
        self.neighbours_carry(directory, &renumber)?;
        let earlier = Earlier::open(directory, "sessions", true)?;
        let to = self.recasts(&earlier)?;
        let ours = &self.loaded.maps.sessions;
        let mut room = ours.info().entries_max as usize;
        let mut quotas: BTreeMap<u32, u32> = BTreeMap::new();
        earlier.each(|entries| {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for entry in entries {
                let (forward, entry) = to.session(&entry, &renumber);
                match entry {
                    Some((key, value)) if room > 0 => {
                        room -= 1;
                        keys.extend_from_slice(key.as_bytes());
                        values.extend_from_slice(value.as_bytes());
                        if forward {
                            carried.sessions += 1;
                            *quotas.entry(value.owner).or_default() += 1;
                        }
                    }
                    _ if forward => carried.left += 1,
                    _ => {}
                }
            }
            Ok(ours.update_batch(&keys, &values)?)
        })?;
        // Programs count here, but none is attached yet.
        for (port, count) in quotas
            .iter()
            .filter(|(owner, _)| **owner & (slot::UPLINK | slot::TUNNEL) == 0)
        {
            self.loaded.maps.quotas.set(*port, &count.to_ne_bytes())?;
        }
        Ok(())
    }

    fn recasts(&self, earlier: &Earlier) -> Result<Recasts, CarryError> {
        let wrong = |source| earlier.wrong(source);
        let all: Vec<&str> = SessionKey::FIELDS.iter().map(|field| field.0).collect();
        // What only ours has is zero there.
        let key = earlier.key.as_ref().map(|shape| {
            let needed: Vec<&str> = all
                .into_iter()
                .filter(|name| shape.fields.contains_key(*name))
                .collect();
            Recast::new(shape, SessionKey::FIELDS, &needed)
        });
        let key = key.unwrap_or(Err(ShapeError::Types("its keys have none")));
        Ok(Recasts {
            key: key.map_err(wrong)?,
            value: Recast::new(&earlier.value, Session::FIELDS, NEEDED).map_err(wrong)?,
        })
    }

    /// Who has which address on physical networks: what could be asked again, but packets would wait for it.
    fn neighbours_carry(&self, directory: &Path, renumber: &Renumber) -> Result<(), CarryError> {
        let earlier = Earlier::open(directory, "neighbours", true)?;
        let wrong = |source| earlier.wrong(source);
        let untyped = ShapeError::Types("its keys have none");
        let shape = earlier.key.as_ref().ok_or(untyped).map_err(wrong)?;
        let all: Vec<&str> = AddressKey::FIELDS.iter().map(|field| field.0).collect();
        let key = Recast::new(shape, AddressKey::FIELDS, &all).map_err(wrong)?;
        let value = Recast::new(&earlier.value, Neighbour::FIELDS, &["mac"]).map_err(wrong)?;
        earlier.each(|entries| {
            for (was_key, was_value) in entries {
                let is_key = key.recast(&was_key);
                let is_key = is_key.and_then(|key| AddressKey::read_from_bytes(&key).ok());
                let (Some(mut is_key), Some(is_value)) = (is_key, value.recast(&was_value)) else {
                    continue;
                };
                if let Some(network) = renumber.networks.get(&is_key.scope) {
                    is_key.scope = *network;
                    let ours = &self.loaded.maps.neighbours;
                    ours.update(is_key.as_bytes(), &is_value, UpdateMode::Any)?;
                }
            }
            Ok(())
        })
    }
}

/// How sessions of the earlier layout become ours.
struct Recasts {
    key: Recast,
    value: Recast,
}

impl Recasts {
    /// Whether it is a session's forward entry, and the entry as ours; none if it does not go on.
    fn session(&self, entry: &Entry, renumber: &Renumber) -> (bool, Option<(SessionKey, Session)>) {
        let key = self.key.recast(&entry.0);
        let key = key.and_then(|key| SessionKey::read_from_bytes(&key).ok());
        let value = self.value.recast(&entry.1);
        let value = value.and_then(|value| Session::read_from_bytes(&value).ok());
        let (Some(mut key), Some(mut value)) = (key, value) else {
            return (false, None);
        };
        let forward = value.flags & session::FORWARD != 0;
        let goes_on = renumber.entry(&mut key, &mut value);
        (forward, goes_on.map(|()| (key, value)))
    }
}
