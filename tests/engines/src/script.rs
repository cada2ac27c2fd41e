//! Scripts: what happens to an engine, one line each, over a snapshot in words.
//!
//! `INGRESS: FRAME => VERDICT` (a port's name, `uplink NETWORK` or `underlay`; `INGRESS*N` sends the frame N times and judges the last),
//! `now SECONDS`, `neighbour NETWORK ADDRESS MAC`, `change PATH VALUE` (a TOML value put into the snapshot's text, or `gone`),
//! `sessions N`, `metered LABEL PACKETS BYTES`, and `#` in front of remarks. It knows nothing of verdicts: they are handed on as text.

use crate::frame_text::{self, FrameText};
use crate::snapshot_text::{self, Expanded, Names, SnapshotText, kind, uuid_of};
use std::net::IpAddr;
use std::sync::Arc;
use weft_dataplane::flow::key::Ingress;
use weft_model::{HostSnapshot, MacAddress, Metered, MeteringLabelId, NetworkId};

/// Puts one table over another; the text `gone` takes a key away.
pub fn merge(to: &mut toml::Table, from: &toml::Table) {
    for (key, value) in from {
        match (to.get_mut(key), value) {
            (_, toml::Value::String(text)) if text == "gone" => {
                to.remove(key);
            }
            (Some(toml::Value::Table(to)), toml::Value::Table(from)) => merge(to, from),
            _ => {
                to.insert(key.clone(), value.clone());
            }
        }
    }
}

/// A table as a snapshot of this revision.
///
/// # Errors
/// What is wrong with it.
pub fn expand(table: &toml::Table, revision: u64) -> Result<Expanded, String> {
    let text: SnapshotText = table
        .clone()
        .try_into()
        .map_err(|e| format!("snapshot: {e}"))?;
    snapshot_text::expand(&text, revision)
}

/// A script under way.
#[derive(Clone, Debug)]
pub struct Script {
    table: toml::Table,
    now: Expanded,
    revision: u64,
    /// The second it is.
    pub now_s: u32,
}

/// A line about a frame.
#[derive(Clone, Debug)]
pub struct PacketLine {
    /// Where it comes in.
    pub ingress: Ingress,
    /// How often it is sent.
    pub times: u32,
    /// The frame in words.
    pub sent: FrameText,
    /// The frame.
    pub bytes: Vec<u8>,
    /// What stands behind `=>`.
    pub expected: String,
}

/// What a line does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Nothing to an engine.
    Nothing,
    /// Another snapshot.
    Apply(Arc<HostSnapshot>),
    /// A neighbour is known.
    Neighbour(NetworkId, IpAddr, MacAddress),
    /// So many sessions there must be.
    Sessions(usize),
    /// So much this label must have counted.
    Metered(MeteringLabelId, Metered),
    /// A frame.
    Packet(Box<PacketLine>),
}

impl Script {
    /// At its beginning, with the snapshot to apply first.
    ///
    /// # Errors
    /// What is wrong with the snapshot.
    pub fn new(table: toml::Table) -> Result<(Self, Arc<HostSnapshot>), String> {
        let now = expand(&table, 1)?;
        let first = Arc::new(now.snapshot.clone());
        Ok((
            Self {
                table,
                now,
                revision: 1,
                now_s: 1_000,
            },
            first,
        ))
    }

    /// MAC addresses by name.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.now.names
    }

    /// The snapshot in force.
    #[must_use]
    pub fn snapshot(&self) -> &HostSnapshot {
        &self.now.snapshot
    }

    /// The snapshot in words.
    #[must_use]
    pub fn table(&self) -> &toml::Table {
        &self.table
    }

    /// Reads a line. If it cannot be read, nothing has changed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&mut self, line: &str) -> Result<Action, String> {
        let line = line.trim();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" => Ok(Action::Nothing),
            _ if word.starts_with('#') => Ok(Action::Nothing),
            "now" => {
                self.now_s = rest.trim().parse().map_err(|_number| "seconds?")?;
                Ok(Action::Nothing)
            }
            "neighbour" => self.neighbour(rest),
            "change" => self.change(rest),
            "metered" => self.metered(rest),
            "sessions" => Ok(Action::Sessions(
                rest.trim().parse().map_err(|_number| "how many?")?,
            )),
            _ => self.packet(line),
        }
    }

    fn metered(&self, rest: &str) -> Result<Action, String> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [label, packets, bytes] = words[..] else {
            return Err("expected LABEL PACKETS BYTES".into());
        };
        let id: MeteringLabelId = uuid_of(kind::METERING_LABEL, label).into();
        if !self.now.snapshot.metering_labels.contains_key(&id) {
            return Err("no such label".into());
        }
        let number = |word: &str| word.parse().map_err(|e| format!("{word}: {e}"));
        let (packets, bytes) = (number(packets)?, number(bytes)?);
        Ok(Action::Metered(id, Metered { packets, bytes }))
    }

    fn neighbour(&self, rest: &str) -> Result<Action, String> {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [network, address, mac] = words[..] else {
            return Err("expected NETWORK ADDRESS MAC".into());
        };
        let network: NetworkId = uuid_of(kind::NETWORK, network).into();
        if !self.now.snapshot.networks.contains_key(&network) {
            return Err("no such network".into());
        }
        let mac = self.now.names.get(mac).copied().ok_or("no such station")?;
        Ok(Action::Neighbour(
            network,
            address.parse().map_err(|e| format!("{e}"))?,
            mac,
        ))
    }

    fn change(&mut self, rest: &str) -> Result<Action, String> {
        let (path, value) = rest.split_once(' ').ok_or("expected PATH VALUE")?;
        let value = if value.trim() == "gone" {
            "\"gone\""
        } else {
            value
        };
        let text = format!("{path} = {value}");
        let over: toml::Table = text.parse().map_err(|e| format!("{text}: {e}"))?;
        let mut table = self.table.clone();
        merge(&mut table, &over);
        self.now = expand(&table, self.revision + 1)?;
        self.table = table;
        self.revision += 1;
        Ok(Action::Apply(Arc::new(self.now.snapshot.clone())))
    }

    fn packet(&self, line: &str) -> Result<Action, String> {
        let (from, rest) = line
            .split_once(": ")
            .ok_or("expected INGRESS: FRAME => VERDICT")?;
        let (frame, expected) = rest.split_once("=>").unwrap_or((rest, ""));
        let (from, times) = match from.split_once('*') {
            Some((from, times)) => (from, times.parse().map_err(|_number| "how often?")?),
            None => (from, 1),
        };
        let ingress = match (from.strip_prefix("uplink "), from) {
            (Some(network), _) => Ingress::Network(uuid_of(kind::NETWORK, network).into()),
            (None, "underlay") => Ingress::Underlay,
            (None, _) => Ingress::Port(uuid_of(kind::PORT, from).into()),
        };
        let sent = frame_text::parse(frame, FrameText::default(), &self.now.names)?;
        let bytes = sent.build()?;
        let expected = expected.trim().to_owned();
        Ok(Action::Packet(Box::new(PacketLine {
            ingress,
            times,
            sent,
            bytes,
            expected,
        })))
    }
}
