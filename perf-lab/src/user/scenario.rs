//! What is measured, as data.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A file of scenarios.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenarios {
    /// In the order of a round.
    pub(super) systems: Vec<System>,
    /// The generator's words, by name.
    pub(super) loads: BTreeMap<String, Vec<String>>,
    pub(super) bars: Vec<BarData>,
    /// What is promised and cannot be measured yet.
    pub(super) unmeasured: Vec<Unmeasured>,
}

/// A switch under test.
#[derive(Debug, Deserialize)]
pub(super) struct System {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) kind: Kind,
    /// Whether its CPU looks on where it would halt: PM QoS without any latency, the second way in docs/operating/user-engine.md.
    #[serde(default)]
    pub(super) no_halt: bool,
}

/// How it is started.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Kind {
    /// `weft run` on a snapshot of `snapshots/`, with so many rules beside on its group.
    Weft {
        snapshot: String,
        #[serde(default)]
        rules: u16,
        /// Whether the second guest is another host.
        #[serde(default)]
        underlay: bool,
    },
    /// `weft run` on so many ports of one network, each with a front-end of our own that is silent.
    WeftPorts { ports: u16 },
    /// `peers/testpmd.sh`
    Testpmd,
    /// `peers/ovs.sh` with this policy.
    Ovs { policy: String },
}

/// What is read of a load.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub(super) enum Figure {
    Mpps,
    P50Us,
    P99Us,
    CpuPercent,
    MemoryMib,
}

impl Figure {
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Mpps => "Mpps",
            Self::P50Us | Self::P99Us => "us",
            Self::CpuPercent => "%",
            Self::MemoryMib => "MiB",
        }
    }
}

/// A bar.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BarData {
    pub(super) name: String,
    pub(super) figure: Figure,
    /// System and load.
    pub(super) of: (String, String),
    /// What it is divided by.
    pub(super) to: Option<(String, String)>,
    pub(super) least: Option<f64>,
    pub(super) most: Option<f64>,
    /// Measured in so many rounds at most, the first ones: it takes long.
    pub(super) rounds_most: Option<usize>,
    /// So many times a second a thread is woken that only sleeps on an eventfd: what is shown beside the figure.
    pub(super) beside_wakes_per_s: Option<u32>,
}

/// A bar without a figure.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unmeasured {
    pub(super) name: String,
    pub(super) bar: String,
    pub(super) why: String,
}

impl Scenarios {
    /// Reads a file; every name in a bar must be there.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let all: Self = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        for (system, load) in all.places(1) {
            ensure!(
                all.systems.iter().any(|s| s.name == *system) && all.loads.contains_key(load),
                "{}: a bar names {system:?} under {load:?}; expected a system and a load of the file",
                path.display()
            );
        }
        Ok(all)
    }

    /// Systems and loads that some bar needs in a round.
    fn places(&self, round: usize) -> impl Iterator<Item = &(String, String)> {
        let bars = self.bars.iter();
        let bars = bars.filter(move |bar| bar.rounds_most.is_none_or(|most| round <= most));
        bars.flat_map(|bar| std::iter::once(&bar.of).chain(&bar.to))
    }

    /// The loads that some bar needs of a system in a round, in the order of the bars.
    pub(super) fn loads_of(&self, system: &str, round: usize) -> Vec<(&str, &[String])> {
        let mut loads: Vec<(&str, &[String])> = Vec::new();
        for (_, load) in self.places(round).filter(|(of, _)| of == system) {
            if !loads.iter().any(|(name, _)| name == load)
                && let Some(words) = self.loads.get(load)
            {
                loads.push((load, words));
            }
        }
        loads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_only_what_it_has() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let all = Scenarios::read(&folder.join("scenarios/user.json")).unwrap();
        assert!(
            all.systems
                .iter()
                .all(|s| !all.loads_of(&s.name, 1).is_empty())
        );
        assert!(
            all.bars
                .iter()
                .all(|bar| bar.least.is_some() != bar.most.is_some())
        );
    }
}
