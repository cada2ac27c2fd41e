//! The engine: what is loaded, what is in force, and the way from one to the next.
//!
//! Guarantees: when `apply` returns, all of the snapshot is enforced, for established flows too, on every device that the
//! kernel let it attach to ([`Engine::device_faults`] has the others); on an error the previous one is in force. Everything it makes is pinned under `bpffs/weft/<instance>` and found again after a restart; nothing
//! else is ever touched. It has no thread and no clock of its own: one caller owns it.

use crate::carry::Carried;
use crate::compile::{self, Contents, Difference, Input, Only, SlotTables, TABLES, Tables};
use crate::device::Devices;
use crate::error::EngineError;
use crate::event::{Event, LogEvent, event, log_event};
use crate::host::{Mounted, bpffs_mount, check_host, instance_lock};
use crate::load::{self, LAYOUT, Loaded, Sizes};
use crate::policy::{Enforced, PolicyKey, PolicyMaps, PolicyTable};
use crate::sys::{Map, UpdateMode};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use uuid::Uuid;
use weft_ebpf_common::constants::port as flag;
use weft_ebpf_common::layout::{
    Meter, MeterSet, Neighbour, NetworkRecord, PortRecord, QosPaid, RouterRecord, TunnelHost,
    TunnelSlot, UplinkRecord,
};
use weft_model::{
    HostSnapshot, MacAddress, Metered, MeteringLabelId, NetworkId, PortId, Unsupported, limits,
};
use zerocopy::{FromBytes, IntoBytes};

/// How an engine is to be opened.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Names this engine among others on the host; a directory's name.
    pub instance: String,
    /// Where a bpffs is, or is to be mounted.
    pub bpffs: PathBuf,
    /// Sessions of the host.
    pub sessions_max: u32,
    /// Sessions that one port may hold.
    pub sessions_per_port_max: u32,
    /// Memberships of security groups: see [`limits::GROUP_MEMBERS_MAX_DEFAULT`].
    pub group_members_max: u32,
    /// Ports of the host.
    pub ports_max: u32,
    /// The interface of each physical network.
    pub physical_networks: BTreeMap<String, String>,
    /// The interface towards other hosts.
    pub underlay: Option<String>,
}

impl EngineConfig {
    /// The defaults of `weft_model::limits`, at /sys/fs/bpf.
    #[must_use]
    pub fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            bpffs: PathBuf::from("/sys/fs/bpf"),
            sessions_max: limits::SESSIONS_MAX_DEFAULT,
            sessions_per_port_max: limits::SESSIONS_PER_PORT_MAX_DEFAULT,
            group_members_max: limits::GROUP_MEMBERS_MAX_DEFAULT,
            ports_max: u32::try_from(limits::PORTS_PER_HOST_MAX).unwrap_or(u32::MAX),
            physical_networks: BTreeMap::new(),
            underlay: None,
        }
    }
}

/// What an apply did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Map entries written or deleted, but for memberships of groups.
    pub changes: usize,
    /// Memberships of groups written or deleted.
    pub member_writes: usize,
    /// What of the snapshot is not enforced.
    pub unsupported: Vec<Unsupported>,
    /// What became of the sessions of maps of another layout or size, at the first apply of an upgraded agent.
    pub carried: Option<Carried>,
}

/// The kernel engine.
pub struct Engine {
    pub(crate) config: EngineConfig,
    pub(crate) mounted: Mounted,
    pub(crate) loaded: Loaded,
    pub(crate) policies: PolicyTable,
    pub(crate) slots: SlotTables,
    installed: Tables,
    /// What labels were counted by meters that are gone.
    metered: BTreeMap<MeteringLabelId, Metered>,
    pub(crate) snapshot: Option<HostSnapshot>,
    pub(crate) devices: Devices,
    /// Held as long as this engine is there.
    _lock: OwnedFd,
}

impl Engine {
    /// Loads the programs, or takes over what an earlier process of this instance left behind.
    ///
    /// # Errors
    /// [`EngineError::Host`] says what the host lacks, [`EngineError::Taken`] that another process has this instance; otherwise
    /// what the kernel refused. Nothing is attached then.
    pub fn open(config: EngineConfig) -> Result<Self, EngineError> {
        let missing = check_host();
        if !missing.is_empty() {
            return Err(EngineError::Host { missing });
        }
        let mounted = bpffs_mount(&config.bpffs)?;
        let base = config.bpffs.join("weft").join(&config.instance);
        let lock = instance_lock(&base, &config.instance)?;
        // Maps of other sizes are other maps.
        let directory = base.join(format!(
            "{LAYOUT}-{}-{}-{}",
            config.sessions_max, config.group_members_max, config.ports_max
        ));
        let io = |what: &str, source| EngineError::Io {
            what: format!("{what} {}", directory.display()),
            source,
        };
        std::fs::create_dir_all(&directory).map_err(|e| io("create directory", e))?;
        let sizes = Sizes {
            sessions_max: config.sessions_max,
            sessions_per_port_max: config.sessions_per_port_max,
            group_members_max: config.group_members_max,
            ports_max: config.ports_max,
        };
        let loaded = load::load(&directory, sizes)?;
        let policies = PolicyTable::open(policy_maps(&loaded)?)?;
        let mut slots = SlotTables::new(config.ports_max);
        let installed = adopt(&loaded, &mut slots)?;
        let devices = Devices::open(&base, &directory)?;
        let mut engine = Self {
            config,
            mounted,
            loaded,
            policies,
            slots,
            installed,
            metered: BTreeMap::new(),
            snapshot: None,
            devices,
            _lock: lock,
        };
        engine.outputs_adopt()?;
        engine.subports_adopt()?;
        Ok(engine)
    }

    /// Enforces a snapshot.
    ///
    /// # Errors
    /// The snapshot does not fit, or the kernel refused; the previous snapshot is in force.
    pub fn apply(&mut self, snapshot: &HostSnapshot) -> Result<Applied, EngineError> {
        let mut slots = self.slots.clone();
        let reused = slots.assign(snapshot)?;
        let (maps, nothing) = (&self.loaded.maps, QosPaid::zero());
        for slot in &reused.accounts {
            maps.accounts_paid.set(*slot, nothing.as_bytes())?;
        }
        for slot in reused.ports {
            self.port_sessions_delete(slot)?;
            self.loaded.maps.qos_paid.set(slot, nothing.as_bytes())?;
        }
        let (tables, enforced, changes) = match self.change(snapshot, &slots) {
            Ok(changed) => changed,
            Err(error) => {
                self.restore();
                return Err(error);
            }
        };
        let before = std::mem::replace(&mut self.slots, slots);
        self.installed = tables;
        if changes > 0 {
            self.revise_topology()?;
        }
        self.meters_settle(&before, snapshot)?;
        self.revise_ports(&enforced)?;
        self.policies.settle()?;
        self.snapshot = Some(snapshot.clone());
        let carried = self.sessions_carry();
        self.devices_settle();
        Ok(Applied {
            carried,
            changes,
            member_writes: enforced.member_writes,
            unsupported: compile::unsupported(snapshot, &self.slots),
        })
    }

    /// Keeps for the labels what meters counted that are gone, and makes those anew.
    fn meters_settle(
        &mut self,
        before: &SlotTables,
        snapshot: &HostSnapshot,
    ) -> Result<(), EngineError> {
        for (id, slot) in before.meters.iter() {
            if self.slots.meters.get(id).is_some() {
                continue;
            }
            let counted = self.meter(slot)?;
            for label in before.metering.sets.get(&id).into_iter().flatten() {
                *self.metered.entry(*label).or_default() += counted;
            }
            let meters = &self.loaded.maps.meters;
            meters.set(slot, &vec![0; meters.value_bytes()])?;
        }
        let labels = &snapshot.metering_labels;
        self.metered.retain(|id, _| labels.contains_key(id));
        Ok(())
    }

    /// What a meter has counted on all CPUs.
    fn meter(&self, slot: u32) -> Result<Metered, EngineError> {
        let value = self.loaded.maps.meters.lookup(&slot.to_ne_bytes())?;
        let mut sum = Metered::default();
        for cpu in value.unwrap_or_default().chunks_exact(size_of::<Meter>()) {
            if let Ok(Meter { packets, bytes }) = Meter::read_from_bytes(cpu) {
                sum += Metered { packets, bytes };
            }
        }
        Ok(sum)
    }

    /// What each metering label has counted.
    pub(crate) fn metered(&self) -> Result<BTreeMap<MeteringLabelId, Metered>, EngineError> {
        let mut all = self.metered.clone();
        for (id, slot) in self.slots.meters.iter() {
            let counted = self.meter(slot)?;
            for label in self.slots.metering.sets.get(&id).into_iter().flatten() {
                *all.entry(*label).or_default() += counted;
            }
        }
        Ok(all)
    }

    /// Policies, then tables: the new tables, what became of the policies, and the count of writes.
    fn change(
        &mut self,
        snapshot: &HostSnapshot,
        slots: &SlotTables,
    ) -> Result<(Tables, Enforced, usize), EngineError> {
        let enforced = self.policies.apply(snapshot)?;
        let input = Input { snapshot, slots };
        let before = self.snapshot.as_ref();
        let only = before.and_then(|before| Only::between((before, &self.slots), &input));
        let policies = &self.policies;
        let policy = |key: &PolicyKey| policies.slot(key);
        let mut tables = compile::compile(&input, &policy, only.as_ref());
        let changes = self.write(&tables, only.as_ref())?;
        if let Some(only) = &only {
            for name in TABLES {
                let keys = only.keys(name);
                let tables = (tables.get_mut(name), self.installed.get_mut(name));
                if let (Some(keys), (Some(new), Some(whole))) = (keys, tables) {
                    keys.iter().for_each(|key| drop(whole.remove(key)));
                    whole.append(new);
                    std::mem::swap(new, whole);
                }
            }
            debug_assert!(
                tables == compile::compile(&input, &policy, None),
                "what is made in part and as a whole differ"
            );
        }
        Ok((tables, enforced, changes))
    }

    /// Writes what differs: entries that go first, then what comes, each in the order of the tables.
    fn write(&self, tables: &Tables, only: Option<&Only>) -> Result<usize, EngineError> {
        let names = self.installed.iter().map(|(name, _)| name);
        let keys: Vec<_> = names
            .map(|name| only.and_then(|only| only.keys(name)))
            .collect();
        let both = self.installed.iter().zip(tables.iter()).zip(&keys);
        let differences = both.map(|(((name, have), (_, want)), keys)| match keys {
            Some(keys) => (name, Difference::at(keys, have, want)),
            None => (name, Difference::between(have, want)),
        });
        let differences: Vec<(&str, Difference<'_>)> = differences.collect();
        let mut changes = 0;
        // Deletes from tables before what they lead to: the other way round than writing.
        for (name, difference) in differences.iter().rev() {
            let map = self.table(name)?;
            for key in &difference.gone {
                delete(map, name, key)?;
                changes += 1;
            }
        }
        for (name, difference) in &differences {
            let map = self.table(name)?;
            for (key, value) in &difference.new {
                put(map, name, key, value)?;
                changes += 1;
            }
        }
        Ok(changes)
    }

    /// Puts back what was in force, as far as the kernel lets us: after a refused write.
    fn restore(&mut self) {
        if let Some(before) = &self.snapshot {
            let _refused = self.policies.apply(before);
        }
        for (name, have) in self.installed.iter() {
            let Ok(map) = self.table(name) else { continue };
            let there = map.keys(usize::MAX).unwrap_or_default();
            for key in there.iter().filter(|key| !have.contains_key(*key)) {
                let _refused = delete(map, name, key);
            }
            for (key, value) in have {
                let _refused = map.update(key, value, UpdateMode::Any);
            }
        }
        let _refused = self.revise_topology();
    }

    fn table(&self, name: &'static str) -> Result<&Map, EngineError> {
        self.loaded
            .maps
            .table(name)
            .ok_or(EngineError::Missing { name })
    }

    /// Makes every session look again at what it was computed from, on its next packet.
    fn revise_topology(&mut self) -> Result<(), EngineError> {
        self.revise(0)
    }

    /// Makes the sessions look again that begin or end at a port with a policy that allows less now, or, of ports that keep no
    /// state, other things.
    fn revise_ports(&mut self, enforced: &Enforced) -> Result<(), EngineError> {
        let Enforced {
            narrowed, widened, ..
        } = enforced;
        if narrowed.is_empty() && widened.is_empty() {
            return Ok(());
        }
        let touched: Vec<u32> = by_slot::<PortRecord>(&self.installed.ports)
            .into_iter()
            .filter(|(_, record)| {
                let stateless = record.flags & flag::STATELESS != 0;
                let touches = |slot| narrowed.contains(slot) || stateless && widened.contains(slot);
                record.policy.iter().any(touches)
            })
            .map(|(slot, _)| slot + 1)
            .collect();
        touched.into_iter().try_for_each(|index| self.revise(index))
    }

    fn revise(&mut self, index: u32) -> Result<(), EngineError> {
        let next = revision(&self.loaded.maps.revisions, index)?.wrapping_add(1);
        self.loaded.maps.revisions.set(index, &next.to_ne_bytes())?;
        Ok(())
    }

    /// Remembers who has an address on a physical network.
    ///
    /// # Errors
    /// No such network, or the table is full.
    pub fn neighbour_put(
        &mut self,
        network: NetworkId,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), EngineError> {
        let key = compile::address_key(self.network_slot(network)?, address);
        let value = Neighbour {
            mac: mac.0,
            reserved: 0,
        };
        self.loaded
            .maps
            .neighbours
            .update(key.as_bytes(), value.as_bytes(), UpdateMode::Any)?;
        Ok(())
    }

    /// Forgets who has an address.
    ///
    /// # Errors
    /// No such network.
    pub fn neighbour_delete(
        &mut self,
        network: NetworkId,
        address: IpAddr,
    ) -> Result<(), EngineError> {
        let key = compile::address_key(self.network_slot(network)?, address);
        self.loaded.maps.neighbours.delete(key.as_bytes())?;
        Ok(())
    }

    fn network_slot(&self, network: NetworkId) -> Result<u32, EngineError> {
        let unknown = || EngineError::Unknown {
            what: format!("network {network}"),
        };
        self.slots.networks.get(network).ok_or_else(unknown)
    }

    /// What the programs handed up since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(record) = self.loaded.events.next() {
            events.extend(event(&record, &self.slots));
        }
        events
    }

    /// Decisions of security groups that a log is to have, since the last call.
    pub fn log_events(&mut self) -> Vec<LogEvent> {
        let mut events = Vec::new();
        while let Some(record) = self.loaded.log_events.next() {
            events.extend(log_event(&record, &self.slots));
        }
        events
    }

    /// Readable when there are events.
    #[must_use]
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.loaded.maps.events.as_fd()
    }

    /// As [`Engine::event_fd`], for a poller that wants a number. It is valid as long as the engine lives.
    #[must_use]
    pub fn event_raw_fd(&self) -> RawFd {
        self.loaded.events.as_raw_fd()
    }

    /// Installs what the policy compiler has finished in the background. Call it every now and then.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn poll(&mut self) -> Result<Vec<crate::policy::CompileReport>, EngineError> {
        Ok(self.policies.poll()?)
    }

    /// Whether every policy in force is compiled and installed: nothing waits for [`Engine::poll`].
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.policies.is_settled()
    }

    /// The port in a slot of the snapshot in force.
    pub(crate) fn port_slot(&self, port: PortId) -> Result<u32, EngineError> {
        let unknown = || EngineError::Unknown {
            what: format!("port {port}"),
        };
        self.slots.ports.get(port).ok_or_else(unknown)
    }
}

/// Writes an entry; a full table is told as such.
fn put(map: &Map, name: &'static str, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
    map.update(key, value, UpdateMode::Any)
        .map_err(|error| match error.errno() {
            Some(libc::E2BIG | libc::ENOSPC) => EngineError::Full {
                what: name,
                max: map.info().entries_max as usize,
            },
            _ => error.into(),
        })
}

/// The tables that are arrays.
const ARRAYS: &[&str] = &["uplinks", "tunnel_hosts", "transits"];

/// Deletes an entry; one of an array becomes zero.
fn delete(map: &Map, name: &str, key: &[u8]) -> Result<(), EngineError> {
    if ARRAYS.contains(&name) {
        map.update(key, &vec![0; map.value_bytes()], UpdateMode::Any)?;
    } else {
        map.delete(key)?;
    }
    Ok(())
}

fn policy_maps(loaded: &Loaded) -> Result<PolicyMaps, EngineError> {
    const NAME: &str = "policy_interpreter";
    let interpreter = loaded
        .programs
        .get(NAME)
        .ok_or(EngineError::Missing { name: NAME })?;
    Ok(PolicyMaps {
        programs: loaded.maps.policy_programs.try_clone()?,
        rules: loaded.maps.policy_rules.try_clone()?,
        members: loaded.maps.policy_members.try_clone()?,
        walks: loaded.maps.walks.try_clone()?,
        stages: loaded.maps.stages.try_clone()?,
        interpreter: crate::sys::Prog::from_id(interpreter.info()?.id)?,
    })
}

fn revision(map: &Map, index: u32) -> Result<u32, EngineError> {
    let value = map.lookup(&index.to_ne_bytes())?.unwrap_or_default();
    Ok(u32::read_from_bytes(&value).unwrap_or(0))
}

/// Reads what an earlier process installed, and which slots it gave.
fn adopt(loaded: &Loaded, slots: &mut SlotTables) -> Result<Tables, EngineError> {
    let mut tables = Tables::default();
    for name in TABLES {
        let map = loaded
            .maps
            .table(name)
            .ok_or(EngineError::Missing { name })?;
        let contents = contents(map)?;
        if let Some(table) = tables.get_mut(name) {
            *table = contents;
        }
    }
    for name in ARRAYS {
        if let Some(table) = tables.get_mut(name) {
            table.retain(|_, value| value.iter().any(|byte| *byte != 0));
        }
    }
    let id = |bytes: [u8; 16]| Uuid::from_bytes(bytes);
    for (key, value) in by_slot::<PortRecord>(&tables.ports) {
        slots.ports.adopt(id(value.id).into(), key);
    }
    for (key, value) in by_slot::<NetworkRecord>(&tables.networks) {
        slots.networks.adopt(id(value.id).into(), key);
    }
    for (key, value) in by_slot::<RouterRecord>(&tables.routers) {
        slots.routers.adopt(id(value.id).into(), key);
    }
    for (key, value) in by_slot::<UplinkRecord>(&tables.uplinks) {
        slots.uplinks.adopt(id(value.id).into(), key);
    }
    for (key, value) in by_slot::<TunnelHost>(&tables.tunnel_hosts) {
        if let (1.., Ok(family)) = (key, u8::try_from(value.family)) {
            let address = compile::address_ip(family, value.address);
            slots.hosts.adopt(address, key);
        }
    }
    for (key, value) in by_slot::<MeterSet>(&tables.meter_sets) {
        slots.meters.adopt(u128::from_be_bytes(value.id), key);
    }
    for (key, value) in by_slot::<TunnelSlot>(&tables.tunnel_nets) {
        if let Some(network) = slots.networks.id(value.slot) {
            slots.tunnels.insert(key, network);
        }
    }
    Ok(tables)
}

/// A map's entries by slot, in order of the slots.
fn by_slot<V: FromBytes>(contents: &Contents) -> Vec<(u32, V)> {
    let read = |(key, value): (&Vec<u8>, &Vec<u8>)| {
        Some((
            u32::read_from_bytes(key).ok()?,
            V::read_from_bytes(value).ok()?,
        ))
    };
    let mut entries: Vec<(u32, V)> = contents.iter().filter_map(read).collect();
    entries.sort_by_key(|(slot, _)| *slot);
    entries
}

fn contents(map: &Map) -> Result<Contents, EngineError> {
    let mut contents = Contents::new();
    for key in map.keys(usize::MAX)? {
        if let Some(value) = map.lookup(&key)? {
            contents.insert(key, value);
        }
    }
    Ok(contents)
}
