//! What Weft takes of memory: the process (its proportional share, from smaps_rollup) and its programs and maps in the
//! kernel (what the kernel charges for them).

use crate::figures::Bar;
use crate::process::{WeftRun, site};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use weft_ebpf::sys::{Map, Prog};
use weft_kit::kernel::KernelObjects;
use weft_kit::snapshot::{self, SnapshotGuest};
use weft_kit::weft::WeftOptions;
use weft_kit::{Lab, clock};
use weft_model::MacAddress;
use weft_tests_system::scene::Scene;
use weft_tests_system::story;

const KIB: f64 = 1_024.0;
const MIB: f64 = 1_048_576.0;
/// Ports of the large agent, and rules of each.
const PORTS: u16 = 1_000;
const RULES: usize = 10;
/// How long background compiles may go on after the ports are active.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(3);

/// A process and what it holds in the kernel, in bytes.
struct Memory {
    process: f64,
    programs: f64,
    /// By name, the largest first.
    maps: Vec<(String, f64)>,
}

impl Memory {
    fn of(process: u32, objects: &KernelObjects) -> Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        let mut programs = 0.0;
        for id in &objects.programs {
            programs += charged(Prog::from_id(*id)?.as_fd())?;
        }
        let mut by_name: BTreeMap<String, f64> = BTreeMap::new();
        for id in &objects.maps {
            let map = Map::from_id(*id)?;
            *by_name.entry(map.info().name.clone()).or_default() += charged(map.as_fd())?;
        }
        let mut maps: Vec<(String, f64)> = by_name.into_iter().collect();
        maps.sort_by(|x, y| y.1.total_cmp(&x.1));
        Ok(Self {
            process: field(&text, "Pss:")? * KIB,
            programs,
            maps,
        })
    }

    fn bar(&self, name: &str, mib_max: f64) -> Bar {
        let maps: f64 = self.maps.iter().map(|(_, bytes)| bytes).sum();
        let total = (self.process + self.programs + maps) / MIB;
        let large = self.maps.iter().filter(|(_, bytes)| *bytes >= MIB);
        let large: Vec<String> = large
            .map(|(name, bytes)| format!("{name} {:.1}", bytes / MIB))
            .collect();
        Bar {
            name: name.to_owned(),
            bar: format!("≤ {mib_max:.0} MiB"),
            figure: format!(
                "{total:.1} MiB: process {:.1}, programs {:.1}, maps {:.1} ({})",
                self.process / MIB,
                self.programs / MIB,
                maps / MIB,
                large.join(", ")
            ),
            holds: total <= mib_max,
            rounds: vec![total],
        }
    }
}

/// The number behind a key of a /proc file.
fn field(text: &str, key: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.with_context(|| format!("no {key}"))?.parse()?)
}

/// What the kernel charges for a program or map.
fn charged(object: BorrowedFd<'_>) -> Result<f64> {
    let path = format!("/proc/self/fdinfo/{}", object.as_raw_fd());
    field(&std::fs::read_to_string(path)?, "memlock:")
}

/// The all-in-one with the demo's story played on it.
pub(crate) fn all_in_one(_rounds: usize) -> Result<Vec<Bar>> {
    let mut scene = Scene::open("weft-memory", &WeftOptions::new(None)?)?;
    story::play_all(&mut scene);
    let weft = scene.weft.as_ref().context("weft does not run")?;
    let memory = Memory::of(weft.id(), &weft.kernel_objects()?)?;
    scene.close()?;
    Ok(vec![memory.bar("memory: all-in-one, demo running", 60.0)])
}

/// `weft run` with a thousand taps, each in a policy of ten rules.
pub(crate) fn large_agent(_rounds: usize) -> Result<Vec<Bar>> {
    let lab = Lab::new("weft-large")?;
    let host = lab.namespace("host")?;
    let guest = |n: u16| {
        let [a, b] = n.to_be_bytes();
        let mac = MacAddress([0xfa, 0x16, 0x3e, 0, a, b]);
        SnapshotGuest {
            tap: format!("taplarge{n}"),
            mac,
            address: Ipv4Addr::new(10, 0, a, b),
        }
    };
    let guests: Vec<SnapshotGuest> = (1..=PORTS).map(guest).collect();
    let mut batch = String::new();
    for guest in &guests {
        writeln!(batch, "tuntap add dev {} mode tap", guest.tap)?;
    }
    let file = lab.directory().join("taps");
    std::fs::write(&file, batch)?;
    host.run(&format!("ip -batch {}", file.display()))?;
    let path = lab.directory().join("snapshot.json");
    let snapshot = snapshot::guests(&guests, usize::from(PORTS), RULES, 7)?;
    std::fs::write(&path, serde_json::to_vec(&snapshot)?)?;
    let weft = WeftRun::start(&lab, &site(&lab, &host)?, &path, guests.len())?;
    let start = clock::now();
    clock::until("background compiles", SETTLE * 2, || {
        Ok((start.elapsed() > SETTLE).then_some(()))
    })?;
    let objects = KernelObjects::of(weft.process.id())?;
    let memory = Memory::of(weft.process.id(), &objects)?;
    weft.stop()?;
    Ok(vec![
        memory.bar("memory: agent with 1,000 ports of 10 rules", 150.0),
    ])
}
