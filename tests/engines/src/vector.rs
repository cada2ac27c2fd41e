//! Vectors: files of cases, each a snapshot and a script of frames with what must become of them.
//!
//! A script's lines are those of [`crate::script`]. Verdicts: `drop REASON`, `pass`, `service KIND`, and `deliver PORT FRAME`, `uplink NETWORK
//! FRAME`, `tunnel FRAME`, `reply FRAME`, `multicast`, where FRAME is a frame's words, `same`, or `with WORDS`, or of what came by a tunnel `inner` or `inner with WORDS`. Behind a verdict: what
//! members get of multicast, each in brackets, as `[deliver b same]` (else none gets any); `+N` or `-N`, by how much
//! the number of sessions changes (else it must not), and `by RULE`, rules that must have allowed it.

use crate::engine::{EngineUnderTest, Limits, Observed, in_order};
use crate::frame_text::{self, FrameText};
use crate::script::{Action, PacketLine, Script, merge};
use crate::snapshot_text::{kind, name_of, uuid_of};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use weft_dataplane::{Decision, GuestVlan, Service, Tuple, Verdict};
use weft_model::{Direction, DropReason, SecurityGroupRuleId};

/// A file of vectors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorFile {
    /// A snapshot in the folder `bases` beside the file, to start from.
    base: Option<String>,
    /// What the cases have in common, put over the base.
    #[serde(default)]
    snapshot: toml::Table,
    /// The cases.
    case: Vec<Case>,
}

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, as a sentence.
    pub name: String,
    /// Put over the file's snapshot before the first line.
    #[serde(default)]
    snapshot: toml::Table,
    /// The host's sessions.
    sessions_max: Option<u32>,
    /// A port's sessions.
    sessions_per_port_max: Option<u32>,
    /// The lines.
    pub script: String,
}

impl VectorFile {
    /// Reads a file.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
        };
        let mut file: Self =
            toml::from_str(&read(path)?).map_err(|e| format!("{}: {e}", path.display()))?;
        if let Some(base) = &file.base {
            let base = path
                .with_file_name("bases")
                .join(base)
                .with_extension("toml");
            let mut table: toml::Table = read(&base)?
                .parse()
                .map_err(|e| format!("{}: {e}", base.display()))?;
            merge(&mut table, &file.snapshot);
            file.snapshot = table;
        }
        Ok(file)
    }

    /// The cases.
    #[must_use]
    pub fn cases(&self) -> &[Case] {
        &self.case
    }

    /// Plays a case on an engine.
    ///
    /// # Errors
    /// The first line that goes another way, and which.
    pub fn play(&self, case: &Case, engine: &mut dyn EngineUnderTest) -> Result<(), String> {
        let mut table = self.snapshot.clone();
        merge(&mut table, &case.snapshot);
        let defaults = Limits::default();
        engine.reset(Limits {
            sessions_max: case.sessions_max.unwrap_or(defaults.sessions_max),
            sessions_per_port_max: case
                .sessions_per_port_max
                .unwrap_or(defaults.sessions_per_port_max),
        })?;
        let (mut script, first) = Script::new(table)?;
        engine.apply(&first)?;
        for line in case.script.lines() {
            line_play(&mut script, line, engine)
                .map_err(|e| format!("{}: {line}\n{e}", engine.name()))?;
        }
        Ok(())
    }
}

fn line_play(
    script: &mut Script,
    line: &str,
    engine: &mut dyn EngineUnderTest,
) -> Result<(), String> {
    match script.read(line)? {
        Action::Nothing => Ok(()),
        Action::Apply(snapshot) => engine.apply(&snapshot),
        Action::Neighbour(network, address, mac) => engine.neighbour_put(network, address, mac),
        Action::Sessions(count) => {
            let have = engine.sessions()?;
            let good = have.len() == count;
            good.then_some(())
                .ok_or_else(|| format!("there are {} sessions: {have:#?}", have.len()))
        }
        Action::Metered(label, expected) => {
            let Some(meters) = engine.meters()? else {
                return Ok(());
            };
            let have = meters.get(&label).copied().unwrap_or_default();
            let good = have == expected;
            good.then_some(())
                .ok_or_else(|| format!("expected {expected:?}, counted {have:?}"))
        }
        Action::Packet(packet) => {
            let expected = expected(script, &packet)?;
            for _ in 1..packet.times {
                engine.process(packet.ingress, &packet.bytes, script.now_s)?;
            }
            let before = engine.sessions()?.len();
            let observed = engine.process(packet.ingress, &packet.bytes, script.now_s)?;
            expected.check(&observed, before, engine.sessions()?.len())
        }
    }
}

/// Plays every vector of the corpus on an engine, and says how many.
///
/// # Errors
/// All failures, each with its file, case and line.
pub fn play_all(engine: &mut dyn EngineUnderTest) -> Result<usize, String> {
    play_some(engine, |_case| true)
}

/// Plays those that are wanted, and says how many.
///
/// # Errors
/// What failed.
pub fn play_some(
    engine: &mut dyn EngineUnderTest,
    wanted: impl Fn(&Case) -> bool,
) -> Result<usize, String> {
    let (mut played, mut failures) = (0, Vec::new());
    for path in files()? {
        let file = VectorFile::read(&path)?;
        for case in file.cases().iter().filter(|case| wanted(case)) {
            played += 1;
            if let Err(error) = file.play(case, engine) {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                failures.push(format!("{name}: {}\n{error}", case.name));
            }
        }
    }
    if failures.is_empty() {
        Ok(played)
    } else {
        Err(format!(
            "{} of {played} failed\n\n{}",
            failures.len(),
            failures.join("\n\n")
        ))
    }
}

/// The corpus's files, in order.
///
/// # Errors
/// The folder cannot be read.
pub fn files() -> Result<Vec<PathBuf>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors");
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .filter(|path| !path.ends_with("exceptions.toml"))
        .collect();
    files.sort();
    Ok(files)
}

/// The drop reasons that a script expects.
pub fn reasons(script: &str) -> impl Iterator<Item = DropReason> {
    let expected = script
        .lines()
        .filter_map(|line| line.split_once("=> drop "));
    let names = expected.filter_map(|(_, rest)| rest.split_whitespace().next());
    names.filter_map(|name| {
        DropReason::ALL
            .iter()
            .copied()
            .find(|reason| reason.name() == name)
    })
}

fn expected(script: &Script, packet: &PacketLine) -> Result<Expected, String> {
    let (text, logs) = packet
        .expected
        .split_once(" log ")
        .unwrap_or((&packet.expected, ""));
    let logs = logs.split(" log ").filter(|log| !log.is_empty());
    let logs = logs.map(decision).collect::<Result<_, String>>()?;
    let (mut text, mut rules, mut delta) = (text, Vec::new(), 0);
    while let Some((before, last)) = text.rsplit_once(' ') {
        if let Some((before, "by")) = before.rsplit_once(' ') {
            rules.push(SecurityGroupRuleId::from(uuid_of(kind::RULE, last)));
            text = before;
        } else if last.starts_with(['+', '-']) && last[1..].parse::<u8>().is_ok() {
            delta = last.parse::<i64>().map_err(|e| format!("{last}: {e}"))?;
            text = before;
        } else {
            break;
        }
    }
    let (text, brackets) = text.split_once('[').unwrap_or((text, ""));
    let brackets = brackets.trim_end().trim_end_matches(']');
    let copies = brackets.split("] [").filter(|copy| !copy.is_empty());
    let copies = copies.map(|copy| verdict_of(script, packet, copy));
    Ok(Expected {
        verdict: verdict_of(script, packet, text.trim_end())?,
        copies: in_order(copies.collect::<Result<_, String>>()?),
        delta,
        rules,
        logs,
    })
}

/// `PORT ingress|egress accept|drop PROTOCOL SOURCE/PORT>DESTINATION/PORT`, behind `log`.
fn decision(text: &str) -> Result<Decision, String> {
    let wrong = || format!("{text:?} is no decision");
    let words: Vec<&str> = text.split_whitespace().collect();
    let [port, direction, said, protocol, ends] = words[..] else {
        return Err(wrong());
    };
    let end = |text: &str| {
        let (address, port) = text.split_once('/')?;
        Some((address.parse().ok()?, port.parse().ok()?))
    };
    let (source, destination) = ends.split_once('>').ok_or_else(wrong)?;
    let (source, source_port) = end(source).ok_or_else(wrong)?;
    let (destination, destination_port) = end(destination).ok_or_else(wrong)?;
    Ok(Decision {
        port_id: uuid_of(kind::PORT, port).into(),
        direction: match direction {
            "ingress" => Direction::Ingress,
            "egress" => Direction::Egress,
            _ => return Err(wrong()),
        },
        allowed: match said {
            "accept" => true,
            "drop" => false,
            _ => return Err(wrong()),
        },
        tuple: Tuple {
            protocol: protocol.parse().map_err(|_number| wrong())?,
            source,
            destination,
            source_port,
            destination_port,
            vlan: GuestVlan::default(),
        },
        icmp: None,
    })
}

fn verdict_of(script: &Script, packet: &PacketLine, text: &str) -> Result<Verdict, String> {
    let (sent, names) = (&packet.sent, script.names());
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let target = rest.split(' ').next().unwrap_or_default();
    let frame = |words: &str| {
        let (words, sent) = match (words.strip_prefix("inner"), sent.inner()) {
            (Some(words), Some(inner)) => (words.trim_start(), inner),
            _ => (words, sent),
        };
        match (words, words.strip_prefix("with ")) {
            ("" | "same", _) => sent.build(),
            (_, Some(words)) => frame_text::parse(words, sent.clone(), names)?.build(),
            (_, None) => {
                let nothing = FrameText::default();
                frame_text::parse_beside(words, nothing, sent, names)?.build()
            }
        }
    };
    Ok(match word {
        "drop" => Verdict::Drop(reason(rest)?),
        "pass" => Verdict::Pass,
        "multicast" => Verdict::Multicast,
        "service" => Verdict::Service(service(rest)?),
        "deliver" => Verdict::Deliver {
            port: uuid_of(kind::PORT, target).into(),
            frame: frame(rest_of(rest))?,
        },
        "uplink" => Verdict::Uplink {
            network: uuid_of(kind::NETWORK, target).into(),
            frame: frame(rest_of(rest))?,
        },
        "reply" => Verdict::Reply {
            frame: frame(rest)?,
        },
        "tunnel" => Verdict::Tunnel {
            frame: frame(rest)?,
        },
        _ => return Err(format!("no such verdict: {word:?}")),
    })
}

fn rest_of(text: &str) -> &str {
    text.split_once(' ').map_or("", |(_, rest)| rest.trim())
}

fn reason(name: &str) -> Result<DropReason, String> {
    let found = DropReason::ALL
        .iter()
        .copied()
        .find(|reason| reason.name() == name);
    found.ok_or_else(|| format!("no such reason: {name:?}"))
}

fn service(name: &str) -> Result<Service, String> {
    [
        Service::Dhcp,
        Service::Dhcpv6,
        Service::Ra,
        Service::Neighbour,
        Service::Claim,
    ]
    .into_iter()
    .find(|service| service.name() == name)
    .ok_or_else(|| format!("no such service: {name:?}"))
}

struct Expected {
    verdict: Verdict,
    copies: Vec<Verdict>,
    delta: i64,
    rules: Vec<SecurityGroupRuleId>,
    logs: Vec<Decision>,
}

impl Expected {
    fn check(&self, observed: &Observed, before: usize, after: usize) -> Result<(), String> {
        let words = observed.words.join("\n  ");
        if observed.verdict != self.verdict {
            let (want, have) = (verdict_text(&self.verdict), verdict_text(&observed.verdict));
            return Err(format!("expected {want}\nobserved {have}\n  {words}"));
        }
        let logs = observed.logs.as_ref().map(|logs| {
            // Vectors do not say the type of ICMP.
            let logs = logs.iter().map(|log| Decision { icmp: None, ..*log });
            logs.collect::<Vec<_>>()
        });
        if let Some(logs) = logs.filter(|logs| *logs != self.logs) {
            let want = &self.logs;
            return Err(format!(
                "expected logs {want:?}\nobserved logs {logs:?}\n  {words}"
            ));
        }
        if observed.copies != self.copies {
            let [want, have] = [&self.copies, &observed.copies].map(|copies| {
                let copies = copies.iter().map(verdict_text);
                copies.collect::<Vec<_>>().join("\n  ")
            });
            return Err(format!(
                "expected copies\n  {want}\nobserved copies\n  {have}\n  {words}"
            ));
        }
        let missing = self
            .rules
            .iter()
            .find(|rule| !observed.rules.contains(rule));
        if let Some(rule) = missing.filter(|_| !observed.rules.is_empty()) {
            let name = name_of(rule.0);
            return Err(format!("rule {name} did not allow it\n  {words}"));
        }
        let expected = i64::try_from(before).unwrap_or(i64::MAX) + self.delta;
        if i64::try_from(after) != Ok(expected) {
            return Err(format!(
                "sessions: {before} before, {after} after\n  {words}"
            ));
        }
        Ok(())
    }
}

/// A verdict in a line, its frame in hex.
#[must_use]
pub fn verdict_text(verdict: &Verdict) -> String {
    let hex = |frame: &[u8]| frame.iter().map(|b| format!("{b:02x}")).collect::<String>();
    match verdict {
        Verdict::Drop(reason) => format!("drop {reason}"),
        Verdict::Pass => "pass".to_owned(),
        Verdict::Multicast => "multicast".to_owned(),
        Verdict::Service(service) => format!("service {}", service.name()),
        Verdict::Reply { frame } => format!("reply frame {}", hex(frame)),
        Verdict::Tunnel { frame } => format!("tunnel frame {}", hex(frame)),
        Verdict::Deliver { port, frame } => {
            format!("deliver {} frame {}", name_of(port.0), hex(frame))
        }
        Verdict::Uplink { network, frame } => {
            format!("uplink {} frame {}", name_of(network.0), hex(frame))
        }
    }
}
