//! What a process has in the kernel: programs, maps and links by their ids, which the kernel does not give twice.
//!
//! Looked at without bpftool: it opens every map that it passes, and to open a program array while its last owner lets
//! go of it can leave it in the kernel for ever (its clearing is then counted twice and done once).

use crate::clock::until;
use anyhow::{Context, Result, ensure};
use aya::maps::loaded_maps;
use aya::programs::{loaded_links, loaded_programs};
use std::collections::BTreeSet;
use std::time::Duration;

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
        ensure!(
            self.programs.is_subset(&programs()),
            "the kernel does not list the programs"
        );
        ensure!(
            self.maps.is_subset(&maps()),
            "the kernel does not list the maps"
        );
        ensure!(
            self.links.is_subset(&links()),
            "the kernel does not list the links"
        );
        Ok(())
    }

    /// Waits until none of them is there any more: the kernel frees some of them a little later. Maps are looked at only
    /// when all programs are gone, for the reason above.
    ///
    /// # Errors
    /// Some are still there: says which.
    pub fn wait_until_gone(&self) -> Result<()> {
        gone("link", &self.links, links)?;
        gone("program", &self.programs, programs)?;
        gone("map", &self.maps, maps)
    }
}

fn programs() -> BTreeSet<u32> {
    loaded_programs()
        .flatten()
        .map(|program| program.id())
        .collect()
}

fn maps() -> BTreeSet<u32> {
    loaded_maps().flatten().map(|map| map.id()).collect()
}

fn links() -> BTreeSet<u32> {
    loaded_links().flatten().map(|link| link.id()).collect()
}

/// Waits until none of `ids` is among those that `list` gives. What goes while it is listed counts as gone.
fn gone(kind: &str, ids: &BTreeSet<u32>, list: impl Fn() -> BTreeSet<u32>) -> Result<()> {
    let left = || -> Vec<u32> { ids.intersection(&list()).copied().collect() };
    let what = format!("the kernel to free every {kind}");
    until(&what, FREED_TIMEOUT, || Ok(left().is_empty().then_some(())))
        .with_context(|| format!("left: {kind} {:?}", left()))
}
