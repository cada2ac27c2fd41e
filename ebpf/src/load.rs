//! Loads the programs' object: maps created or adopted by their pins, programs verified and put into the stages' array.
//!
//! Guarantees: maps that are pinned under the directory are used as they are (their layout is part of the directory's
//! name); the stages change from the old programs to the new one by one, all of one layout, so no packet meets a hole.
//! A refused program leaves the stages untouched, and the error carries the verifier's last lines.

use crate::error::EngineError;
use crate::policy::MEMBERS_ROOM;
use crate::sys::{self, Map, Prog};
use aya::maps::{MapData, RingBuf};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use weft_ebpf_common::constants::{slot, stage};

/// The object that the build script made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weft.bpf.o"));

/// Names the layout of the pinned maps.
pub(crate) const LAYOUT: &str = env!("WEFT_LAYOUT");

/// Lines of the verifier's log that an error carries.
const VERIFIER_LINES: usize = 24;

/// Remote ports that there is room for. A hash takes 16 bytes for each entry that it may ever hold, so the limit of the
/// model would cost 150 MiB on every host.
const REMOTE_PORTS: u32 = 65_536;

/// The stages: program and slot.
const STAGES: &[(&str, u32)] = &[
    ("weft_guest", stage::GUEST),
    ("weft_uplink", stage::UPLINK),
    ("weft_arp", stage::ARP),
    ("weft_nd", stage::ND),
    ("weft_icmp_error", stage::ICMP_ERROR),
    ("weft_walk", stage::WALK),
    ("weft_forward", stage::FORWARD),
    ("weft_destination", stage::DESTINATION),
    ("weft_record", stage::RECORD),
    ("weft_apply_error", stage::APPLY_ERROR),
    ("weft_expire", stage::EXPIRE),
    ("weft_route", stage::ROUTE),
    ("weft_outside", stage::OUTSIDE),
    ("weft_apply", stage::APPLY),
    ("weft_underlay", stage::UNDERLAY),
    ("weft_outbound", stage::OUTBOUND),
    ("weft_copy", stage::COPY),
    ("weft_trunk", stage::TRUNK),
    ("weft_stateless", stage::STATELESS),
    ("weft_tagged", stage::TAGGED),
    ("weft_apply_tagged", stage::APPLY_TAGGED),
];

/// The interpreter of policies, in its own array.
const INTERPRETER: &str = "policy_interpreter";

macro_rules! maps {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The maps, by the names that the programs use.
        #[derive(Debug)]
        pub(crate) struct Maps {
            $($(#[$doc])* pub(crate) $name: Map,)*
        }

        const MAP_NAMES: &[&str] = &[$(stringify!($name),)*];

        impl Maps {
            fn open(directory: &Path) -> Result<Self, EngineError> {
                Ok(Self { $($name: sys::obj_get_map(&directory.join(stringify!($name)))?,)* })
            }

            /// A map by its name.
            pub(crate) fn table(&self, name: &str) -> Option<&Map> {
                match name {
                    $(stringify!($name) => Some(&self.$name),)*
                    _ => None,
                }
            }
        }
    };
}

maps! {
    walks,
    stages,
    policy_programs,
    policy_rules,
    policy_members,
    ports,
    networks,
    routers,
    fdb,
    owners,
    router_addresses,
    floatings,
    forwardings,
    floating_srcs,
    local_ips,
    routes,
    snat_blocks,
    neighbours,
    sessions,
    fragments,
    uplinks,
    wires,
    transits,
    members,
    subports,
    tunnel_hosts,
    tunnel_slots,
    tunnel_nets,
    gre_keys,
    devices,
    revisions,
    quotas,
    qos,
    qos_paid,
    meter_ranges,
    meter_regions,
    meter_sets,
    meters,
    accounts,
    accounts_paid,
    buckets,
    copy_buckets,
    log_buckets,
    drops,
    traffics,
    events,
    log_events,
}

/// Sizes that are the operator's to choose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) sessions_max: u32,
    pub(crate) sessions_per_port_max: u32,
    pub(crate) group_members_max: u32,
    pub(crate) ports_max: u32,
}

/// What is loaded.
pub(crate) struct Loaded {
    pub(crate) maps: Maps,
    pub(crate) programs: BTreeMap<&'static str, Prog>,
    pub(crate) events: RingBuf<MapData>,
    pub(crate) log_events: RingBuf<MapData>,
}

/// Loads everything, with maps pinned under `directory`, which must be in a bpffs.
pub(crate) fn load(directory: &Path, sizes: Sizes) -> Result<Loaded, EngineError> {
    let object = |source: aya::EbpfError| EngineError::Object {
        source: Box::new(source),
    };
    let devices = slot::UPLINKS_MAX + sizes.ports_max;
    let mut loader = EbpfLoader::new();
    for name in MAP_NAMES {
        loader.map_pin_path(name, directory.join(name));
    }
    loader
        .override_global("sessions_per_port_max", &sizes.sessions_per_port_max, true)
        .map_max_entries("sessions", sizes.sessions_max.saturating_mul(2))
        .map_max_entries("policy_members", sizes.group_members_max * MEMBERS_ROOM)
        .map_max_entries("ports", sizes.ports_max)
        .map_max_entries("fdb", 4 * sizes.ports_max + REMOTE_PORTS)
        .map_max_entries("owners", 16 * sizes.ports_max + 2 * REMOTE_PORTS)
        .map_max_entries("router_addresses", 8 * sizes.ports_max)
        .map_max_entries("floatings", 4 * sizes.ports_max)
        .map_max_entries("floating_srcs", 4 * sizes.ports_max)
        .map_max_entries("local_ips", 16 * sizes.ports_max)
        .map_max_entries("quotas", sizes.ports_max)
        .map_max_entries("subports", sizes.ports_max)
        .map_max_entries("qos", sizes.ports_max)
        .map_max_entries("qos_paid", sizes.ports_max)
        .map_max_entries("revisions", sizes.ports_max + 1)
        .map_max_entries("devices", devices)
        .map_max_entries("members", sizes.ports_max + REMOTE_PORTS)
        .map_max_entries("buckets", devices)
        .map_max_entries("copy_buckets", devices)
        .map_max_entries("log_buckets", sizes.ports_max)
        .map_max_entries("traffics", devices)
        .map_max_entries("drops", devices);
    let mut ebpf = loader.load(OBJECT).map_err(object)?;
    let mut programs = BTreeMap::new();
    for name in STAGES.iter().map(|(name, _)| *name).chain([INTERPRETER]) {
        programs.insert(name, program_load(&mut ebpf, name)?);
    }
    let maps = Maps::open(directory)?;
    if let Some(interpreter) = programs.get(INTERPRETER) {
        let index = weft_ebpf_common::policy::PROGRAM_INTERPRETER;
        maps.policy_programs.set_fd(index, interpreter.as_fd())?;
    }
    for (name, index) in STAGES {
        if let Some(program) = programs.get(name) {
            maps.stages.set_fd(*index, program.as_fd())?;
        }
    }
    let mut ring = |name| {
        let ring = ebpf.take_map(name).ok_or(EngineError::Missing { name })?;
        RingBuf::try_from(ring).map_err(|e| object(aya::EbpfError::MapError(e)))
    };
    Ok(Loaded {
        maps,
        programs,
        events: ring("events")?,
        log_events: ring("log_events")?,
    })
}

fn program_load(ebpf: &mut Ebpf, name: &'static str) -> Result<Prog, EngineError> {
    let program = ebpf
        .program_mut(name)
        .ok_or(EngineError::Missing { name })?;
    let refused = |source: aya::programs::ProgramError| EngineError::Refused {
        name,
        log: verifier_tail(&source),
        source: Box::new(source),
    };
    let program: &mut SchedClassifier = program.try_into().map_err(refused)?;
    program.load().map_err(refused)?;
    let fd = program.fd().map_err(refused)?;
    let fd = fd
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| EngineError::Io {
            what: format!("duplicate program {name}"),
            source,
        })?;
    Ok(Prog::from_fd(fd))
}

fn verifier_tail(error: &aya::programs::ProgramError) -> String {
    let aya::programs::ProgramError::LoadError { verifier_log, .. } = error else {
        return String::new();
    };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(VERIFIER_LINES)..].join("\n")
}
