//! What a process has in the kernel: programs, maps and links by their ids, which the kernel does not give twice.
//!
//! No map is opened here, as bpftool does with every map that it passes: to open and close a program array while its last
//! owner lets go of it can leave it in the kernel for ever (its clearing is then counted twice and done once).

use crate::clock::until;
use anyhow::{Context, Result, ensure};
use aya::programs::{loaded_links, loaded_programs};
use std::collections::BTreeSet;
use std::time::Duration;
use weft_ebpf::sys::{ObjectKind, next_id};

/// The longest that the kernel may take to free what was let go.
const FREED_TIMEOUT: Duration = Duration::from_secs(10);

/// Ids of programs, maps and links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelObjects {
    /// Programs.
    pub programs: BTreeSet<u32>,
    /// Maps.
    pub maps: BTreeSet<u32>,
    /// Links.
    pub links: BTreeSet<u32>,
}

impl KernelObjects {
    /// What a process holds by its open files, and what hangs on that: programs with its maps, their other maps, and the
    /// links of these programs.
    ///
    /// # Errors
    /// The process is gone.
    pub fn of(process: u32) -> Result<Self> {
        let mut objects = Self::default();
        let directory = format!("/proc/{process}/fdinfo");
        for entry in std::fs::read_dir(&directory).context(directory)? {
            // A file may be closed while the list is read.
            let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
            let id = |key: &str| -> Option<u32> {
                text.lines()
                    .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
            };
            objects.programs.extend(id("prog_id:"));
            objects.maps.extend(id("map_id:"));
            objects.links.extend(id("link_id:"));
        }
        for program in loaded_programs().flatten() {
            let maps = program.map_ids().ok().flatten().unwrap_or_default();
            let ours = objects.programs.contains(&program.id())
                || maps.iter().any(|id| objects.maps.contains(id));
            if ours {
                objects.programs.insert(program.id());
                objects.maps.extend(maps);
            }
        }
        let links = loaded_links().flatten();
        let ours = links.filter(|link| objects.programs.contains(&link.program_id()));
        objects.links.extend(ours.map(|link| link.id()));
        objects.ensure_seen()?;
        Ok(objects)
    }

    /// All of them can be seen while they are there: else their end could not be told either.
    fn ensure_seen(&self) -> Result<()> {
        ensure!(
            !self.programs.is_empty(),
            "no programs: to wait for their end would prove nothing"
        );
        for (kind, ids) in self.by_kind() {
            ensure!(
                ids.is_subset(&listed(kind)),
                "the kernel does not list every {kind:?}"
            );
        }
        Ok(())
    }

    /// Waits until none of them is there any more: the kernel frees some of them a little later.
    ///
    /// # Errors
    /// Some are still there: says which.
    pub fn wait_until_gone(&self) -> Result<()> {
        for (kind, ids) in self.by_kind() {
            let left = || -> Vec<u32> { ids.intersection(&listed(kind)).copied().collect() };
            let what = format!("the kernel to free every {kind:?}");
            until(&what, FREED_TIMEOUT, || Ok(left().is_empty().then_some(())))
                .with_context(|| format!("left: {kind:?} {:?}", left()))?;
        }
        Ok(())
    }

    fn by_kind(&self) -> [(ObjectKind, &BTreeSet<u32>); 3] {
        [
            (ObjectKind::Link, &self.links),
            (ObjectKind::Prog, &self.programs),
            (ObjectKind::Map, &self.maps),
        ]
    }
}

/// All ids of a kind, without opening what has them.
fn listed(kind: ObjectKind) -> BTreeSet<u32> {
    let next = |after: &u32| next_id(kind, *after).ok().flatten();
    std::iter::successors(next(&0), next).collect()
}
