//! The differential test: random histories on two engines in lockstep, and what differs, shrunk to a vector.

use crate::engine::{EngineUnderTest, Limits, SessionSeen};
use crate::generate::{History, history};
use crate::script::{Action, PacketLine, Script};
use crate::vector::verdict_text;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use weft_dataplane::ReferenceConfig;
use weft_dataplane::flow::key::Ingress;
use weft_model::HostSnapshot;

/// Frames of one history, about.
pub const FRAMES: usize = 80;
/// Limits small enough to be met.
pub const LIMITS: Limits = Limits {
    sessions_max: 64,
    sessions_per_port_max: 8,
};

/// The first thing that two engines do not agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The line's number.
    pub line: usize,
    /// What each said.
    pub said: String,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Frames that both engines judged alike.
    pub frames: usize,
    /// The first history that differs, or that an engine failed at.
    pub found: Option<Found>,
}

/// A history that differs.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it was made from.
    pub seed: u64,
    /// The history.
    pub case: History,
    /// What differs; or how an engine failed.
    pub what: Result<Difference, String>,
}

impl Found {
    /// The history shrunk to what matters, as a vector, with what differs.
    #[must_use]
    pub fn vector(self, pair: &mut Pair<'_>) -> String {
        let (seed, case) = match self.what {
            Ok(difference) => (self.seed, shrink(self.case, &difference, pair)),
            Err(_) => (self.seed, self.case),
        };
        format!("seed {seed}\n{}", vector_text(&case, pair))
    }
}

fn is_there(snapshot: &HostSnapshot, ingress: Ingress) -> bool {
    match ingress {
        Ingress::Port(id) => snapshot.ports.contains_key(&id),
        Ingress::Network(id) => snapshot
            .networks
            .get(&id)
            .is_some_and(|n| n.segment.network_type.is_physical()),
        Ingress::Underlay => true,
    }
}

/// Two engines in lockstep; the first one is right.
pub struct Pair<'a> {
    /// Whose verdicts a vector would have.
    pub a: &'a mut dyn EngineUnderTest,
    /// Who is judged.
    pub b: &'a mut dyn EngineUnderTest,
}

impl Pair<'_> {
    fn both(
        &mut self,
        act: impl Fn(&mut dyn EngineUnderTest) -> Result<(), String>,
    ) -> Result<(), String> {
        act(self.a).map_err(|e| format!("{} refuses: {e}", self.a.name()))?;
        act(self.b).map_err(|e| format!("{} refuses: {e}", self.b.name()))
    }
}

/// Plays a history on both engines.
///
/// # Errors
/// The history is none (its snapshot or a line cannot be read), or an engine failed: that is a difference too.
pub fn compare(case: &History, pair: &mut Pair<'_>) -> Result<(usize, Option<Difference>), String> {
    let (mut script, first) = Script::new(case.snapshot.clone())?;
    pair.both(|engine| engine.reset(LIMITS).and_then(|()| engine.apply(&first)))?;
    let mut frames = 0;
    for (line, text) in case.lines.iter().enumerate() {
        match script.read(text)? {
            Action::Apply(snapshot) => {
                pair.both(|engine| engine.apply(&snapshot))
                    .map_err(|e| format!("{text}: {e}"))?;
            }
            Action::Neighbour(network, address, mac) => {
                pair.both(|engine| engine.neighbour_put(network, address, mac))?;
            }
            Action::Packet(packet) if is_there(script.snapshot(), packet.ingress) => {
                frames += 1;
                if let Some(said) = packet_compare(&packet, script.now_s, pair)? {
                    let said = format!("{text}\n{said}");
                    return Ok((frames, Some(Difference { line, said })));
                }
            }
            _ => {}
        }
    }
    Ok((frames, None))
}

/// What the engines say differently of a frame, and of the sessions behind it.
fn packet_compare(
    packet: &PacketLine,
    now_s: u32,
    pair: &mut Pair<'_>,
) -> Result<Option<String>, String> {
    let x = pair.a.process(packet.ingress, &packet.bytes, now_s)?;
    let y = pair.b.process(packet.ingress, &packet.bytes, now_s)?;
    let (left, right) = (pair.a.name(), pair.b.name());
    let words = x.words.join("\n  ");
    if x.verdict != y.verdict {
        let (a, b) = (verdict_text(&x.verdict), verdict_text(&y.verdict));
        return Ok(Some(format!("{left}: {a}\n{right}: {b}\n  {words}")));
    }
    if x.copies != y.copies {
        let [a, b] = [&x, &y].map(|said| {
            let copies = said.copies.iter().map(verdict_text);
            copies.collect::<Vec<_>>().join("\n    ")
        });
        let what = "copies to members";
        return Ok(Some(format!(
            "{what}\n{left}: {a}\n{right}: {b}\n  {words}"
        )));
    }
    if x.copy != y.copy {
        let (a, b) = (x.copy, y.copy);
        return Ok(Some(format!(
            "copies for the agent\n{left}: {a:?}\n{right}: {b:?}\n  {words}"
        )));
    }
    if let (Some(a), Some(b)) = (&x.logs, &y.logs)
        && a != b
    {
        return Ok(Some(format!(
            "logs\n{left}: {a:?}\n{right}: {b:?}\n  {words}"
        )));
    }
    if let (Some(a), Some(b)) = (pair.a.meters()?, pair.b.meters()?)
        && a != b
    {
        let what = "metering labels";
        return Ok(Some(format!(
            "{what}\n{left}: {a:?}\n{right}: {b:?}\n  {words}"
        )));
    }
    let (have, other) = (pair.a.sessions()?, pair.b.sessions()?);
    let only = |these: &BTreeSet<SessionSeen>, those| {
        these
            .difference(those)
            .map(|s| format!("\n  {s:?}"))
            .collect::<String>()
    };
    let (a, b) = (only(&have, &other), only(&other, &have));
    let differs = have != other;
    Ok(differs.then(|| format!("sessions\nonly {left}:{a}\nonly {right}:{b}\n  {words}")))
}

/// Histories from `seed` on, until so many frames were compared or a difference was found.
pub fn run(seed: u64, frames: usize, pair: &mut Pair<'_>) -> Tally {
    let mut tally = Tally::default();
    let config = ReferenceConfig {
        sessions_max: LIMITS.sessions_max,
        sessions_per_port_max: LIMITS.sessions_per_port_max,
        mutant: None,
    };
    for seed in seed.. {
        let case = history(seed, FRAMES, config);
        let what = match compare(&case, pair) {
            Ok((count, None)) => {
                tally.frames += count;
                None
            }
            Ok((_, Some(difference))) => Some(Ok(difference)),
            Err(error) => Some(Err(error)),
        };
        tally.found = what.map(|what| Found { seed, case, what });
        if tally.found.is_some() || tally.frames >= frames {
            break;
        }
    }
    tally
}

/// Drops lines, then resources, as long as something still differs.
fn shrink(mut case: History, found: &Difference, pair: &mut Pair<'_>) -> History {
    case.lines.truncate(found.line + 1);
    loop {
        let before = case.clone();
        for step in [16, 4, 1] {
            let mut at = case.lines.len().saturating_sub(1);
            while at > 0 {
                let from = at.saturating_sub(step);
                let mut smaller = case.clone();
                smaller.lines.drain(from..at);
                keep_if_differs(&mut case, smaller, pair);
                at = from;
            }
        }
        for path in paths(&case.snapshot) {
            let mut smaller = case.clone();
            remove(&mut smaller.snapshot, &path);
            keep_if_differs(&mut case, smaller, pair);
        }
        if case == before {
            return case;
        }
    }
}

fn keep_if_differs(case: &mut History, smaller: History, pair: &mut Pair<'_>) {
    if let Ok((_, Some(difference))) = compare(&smaller, pair) {
        *case = smaller;
        case.lines.truncate(difference.line + 1);
    }
}

/// Where something could be left out: entries of the snapshot's tables, and of these.
fn paths(table: &toml::Table) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for (kind, entries) in table {
        for (name, entry) in entries.as_table().into_iter().flatten() {
            paths.push(vec![kind.clone(), name.clone()]);
            for (key, value) in entry.as_table().into_iter().flatten() {
                paths.push(vec![kind.clone(), name.clone(), key.clone()]);
                for inner in value.as_table().into_iter().flatten() {
                    paths.push(vec![
                        kind.clone(),
                        name.clone(),
                        key.clone(),
                        inner.0.clone(),
                    ]);
                }
            }
        }
    }
    paths
}

fn remove(table: &mut toml::Table, path: &[String]) {
    match path {
        [] => {}
        [last] => {
            table.remove(last);
        }
        [first, rest @ ..] => {
            if let Some(inner) = table.get_mut(first).and_then(toml::Value::as_table_mut) {
                remove(inner, rest);
            }
        }
    }
}

/// The case as a vector, with the first engine's verdicts, and the difference behind.
fn vector_text(case: &History, pair: &mut Pair<'_>) -> String {
    let mut text = String::from("[[case]]\nname = \"\"\n");
    let _infallible = writeln!(
        text,
        "sessions_max = {}\nsessions_per_port_max = {}\nscript = \"\"\"",
        LIMITS.sessions_max, LIMITS.sessions_per_port_max
    );
    let expected = verdicts(case, pair.a).unwrap_or_default();
    for (line, verdict) in case.lines.iter().zip(expected) {
        let _infallible = writeln!(text, "{line}{verdict}");
    }
    let mut all = toml::Table::new();
    all.insert("snapshot".into(), toml::Value::Table(case.snapshot.clone()));
    let _infallible = writeln!(
        text,
        "\"\"\"\n{}",
        toml::to_string(&all).unwrap_or_default()
    );
    match compare(case, pair) {
        Ok((_, Some(difference))) => text += &difference.said,
        Ok((_, None)) => text += "(not seen again)",
        Err(error) => text += &error,
    }
    text
}

/// What an engine says of each line of a history: ` => VERDICT` for those about a frame, nothing for others.
///
/// # Errors
/// The history is none, or the engine failed.
pub fn verdicts(case: &History, engine: &mut dyn EngineUnderTest) -> Result<Vec<String>, String> {
    let (mut script, first) = Script::new(case.snapshot.clone())?;
    engine.reset(LIMITS)?;
    engine.apply(&first)?;
    let mut verdicts = Vec::new();
    for line in &case.lines {
        verdicts.push(match script.read(line)? {
            Action::Apply(snapshot) => engine.apply(&snapshot).map(|()| String::new())?,
            Action::Neighbour(network, address, mac) => engine
                .neighbour_put(network, address, mac)
                .map(|()| String::new())?,
            Action::Packet(packet) => {
                let before = engine.sessions()?.len();
                let observed = engine.process(packet.ingress, &packet.bytes, script.now_s)?;
                let verdict = verdict_text(&observed.verdict);
                match engine.sessions()?.len() {
                    after if after > before => format!(" => {verdict} +{}", after - before),
                    after if after < before => format!(" => {verdict} -{}", before - after),
                    _ => format!(" => {verdict}"),
                }
            }
            _ => String::new(),
        });
    }
    Ok(verdicts)
}
