//! The user engine's bars: Weft, DPDK's testpmd and Debian's OVS-DPDK forward between the same two guests in turn, each on the
//! same core, in interleaved rounds of one run. What is measured is data: `scenarios/user.json`.
//!
//! The guests are `programs/generator.c` on the other core. It makes itself and the switch's polling thread SCHED_RR for the
//! measured seconds, so that whatever else runs on the machine stands still meanwhile.

mod scenario;
mod system;

use crate::figures::{Bar, spread};
use anyhow::{Context, Result, ensure};
use scenario::{BarData, Figure, Scenarios};
use std::collections::BTreeMap;
use std::path::Path;
use system::{Ground, Running, Woken};

/// What one load gave, by figure.
type Figures = BTreeMap<Figure, f64>;

/// All rounds of one load on one system, by figure.
#[derive(Default)]
struct Rounds(BTreeMap<(String, String), BTreeMap<Figure, Vec<f64>>>);

impl Rounds {
    fn add(&mut self, system: &str, load: &str, figures: &Figures) {
        let of = (system.to_owned(), load.to_owned());
        let rounds = self.0.entry(of).or_default();
        for (figure, value) in figures {
            rounds.entry(*figure).or_default().push(*value);
        }
    }

    fn of(&self, place: &(String, String), figure: Figure) -> Option<&[f64]> {
        Some(self.0.get(place)?.get(&figure)?)
    }
}

/// The bars of the user engine: see the module's text.
pub(crate) fn bars(rounds: usize) -> Result<Vec<Bar>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scenarios = Scenarios::read(&folder.join("scenarios/user.json"))?;
    let ground = Ground::new(folder)?;
    let mut measured = Rounds::default();
    let mut wakes: BTreeMap<u32, Vec<Woken>> = BTreeMap::new();
    for round in 1..=rounds {
        for system in &scenarios.systems {
            let loads = scenarios.loads_of(&system.name, round);
            let mut running = Running::start(&ground, system)?;
            for (name, words) in loads {
                let figures = running
                    .measure(words)
                    .with_context(|| format!("{}: {name}", system.name))?;
                eprintln!(
                    "round {round} of {rounds}, {}, {name}: {figures:?}",
                    system.name
                );
                measured.add(&system.name, name, &figures);
            }
            running.stop()?;
        }
        for rate in scenarios
            .bars
            .iter()
            .filter_map(|bar| bar.beside_wakes_per_s)
        {
            let woken = ground.wake(rate)?;
            eprintln!("round {round} of {rounds}, an eventfd alone, {rate} a second: {woken:?}");
            wakes.entry(rate).or_default().push(woken);
        }
    }
    let mut bars = Vec::new();
    for bar in &scenarios.bars {
        let mut judged = judge(bar, &measured)?;
        if let Some(woken) = bar.beside_wakes_per_s.and_then(|rate| wakes.get(&rate)) {
            judged.figure.push_str(&beside(woken));
        }
        bars.push(judged);
    }
    bars.extend(scenarios.unmeasured.iter().map(|bar| Bar {
        name: bar.name.clone(),
        bar: bar.bar.clone(),
        figure: format!("not measured: {}", bar.why),
        holds: false,
        rounds: Vec::new(),
    }));
    Ok(bars)
}

/// What it takes on this machine to wake a thread, in words.
fn beside(woken: &[Woken]) -> String {
    let [p50, p99] = [|woken: &Woken| woken.p50_us, |woken: &Woken| woken.p99_us]
        .map(|of| spread(&woken.iter().map(of).collect::<Vec<_>>()).median);
    format!("; an eventfd alone takes p50 {p50:.2}, p99 {p99:.2} us here")
}

fn judge(bar: &BarData, measured: &Rounds) -> Result<Bar> {
    let of = measured.of(&bar.of, bar.figure).context("not measured")?;
    let ours = spread(of);
    let unit = bar.figure.unit();
    let text = |rounds: &[f64]| {
        let (low, high) = rounds
            .iter()
            .fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        format!(
            "{:.2} ({low:.2} to {high:.2}) {unit}",
            spread(rounds).median
        )
    };
    let (value, figure) = match &bar.to {
        Some(to) => {
            let to = measured.of(to, bar.figure).context("not measured")?;
            let ratio = ours.median / spread(to).median;
            (
                ratio,
                format!("{ratio:.2} times: {} against {}", text(of), text(to)),
            )
        }
        None => (ours.median, text(of)),
    };
    ensure!(
        bar.least.is_some() != bar.most.is_some(),
        "{}: expected least or most",
        bar.name
    );
    let (holds, wanted) = match (bar.least, bar.most) {
        (Some(least), _) => (value >= least, format!("at least {least}")),
        (_, most) => (
            most.is_some_and(|most| value <= most),
            format!("at most {}", most.unwrap_or_default()),
        ),
    };
    let times = if bar.to.is_some() { " times" } else { "" };
    Ok(Bar {
        name: bar.name.clone(),
        bar: format!("{wanted}{times}"),
        figure,
        holds,
        rounds: of.to_vec(),
    })
}
