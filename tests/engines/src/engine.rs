//! What every engine shows to the tests: a snapshot goes in, frames go in, verdicts and sessions come out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use weft_dataplane::flow::key::{Ingress, SessionKey};
use weft_dataplane::{Copy, Decision, Reference, ReferenceConfig, Verdict};
use weft_model::{
    HostSnapshot, MacAddress, Metered, MeteringLabelId, NetworkId, SecurityGroupRuleId,
};

/// A session as tests compare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionSeen {
    /// Key of the forward entry.
    pub forward: SessionKey,
    /// Key of the reply entry.
    pub reply: SessionKey,
}

/// Limits that a case may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions of the host.
    pub sessions_max: u32,
    /// Sessions of a port.
    pub sessions_per_port_max: u32,
}

impl Default for Limits {
    /// Small tables: reading a large one whole, as tests do after every packet, takes its time.
    fn default() -> Self {
        Self {
            sessions_max: 512,
            sessions_per_port_max: 128,
        }
    }
}

/// What an engine said of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// What becomes of it.
    pub verdict: Verdict,
    /// What the agent gets beside.
    pub copy: Option<Copy>,
    /// What members of a network get of multicast, in an order that is the same for all engines.
    pub copies: Vec<Verdict>,
    /// Decisions that a log is to have, where the engine tells them.
    pub logs: Option<Vec<Decision>>,
    /// The rules that allowed it, where the engine tells them.
    pub rules: Vec<SecurityGroupRuleId>,
    /// What the engine said beside, for people.
    pub words: Vec<String>,
}

/// Copies in the order of who gets them, and of what.
#[must_use]
pub fn in_order(mut copies: Vec<Verdict>) -> Vec<Verdict> {
    copies.sort_by_cached_key(crate::vector::verdict_text);
    copies
}

/// What metering labels have counted.
pub type Meters = BTreeMap<MeteringLabelId, Metered>;

/// An engine under test. Errors are failures of the test, not verdicts.
pub trait EngineUnderTest {
    /// Its name in messages.
    fn name(&self) -> &'static str;
    /// Forgets everything: no snapshot, no session, no neighbour.
    ///
    /// # Errors
    /// The engine could not be set up so.
    fn reset(&mut self, limits: Limits) -> Result<(), String>;
    /// Enforces a snapshot.
    ///
    /// # Errors
    /// It was refused.
    fn apply(&mut self, snapshot: &Arc<HostSnapshot>) -> Result<(), String>;
    /// Tells a neighbour's MAC address.
    ///
    /// # Errors
    /// The engine could not take it.
    fn neighbour_put(
        &mut self,
        network: NetworkId,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), String>;
    /// Judges a frame at this second.
    ///
    /// # Errors
    /// The engine failed.
    fn process(&mut self, ingress: Ingress, frame: &[u8], now_s: u32) -> Result<Observed, String>;
    /// The sessions whose both ends are in the snapshot in force.
    ///
    /// # Errors
    /// They could not be read.
    fn sessions(&mut self) -> Result<BTreeSet<SessionSeen>, String>;
    /// What metering labels have counted, of those that counted anything; none if the engine is not asked for it.
    ///
    /// # Errors
    /// It could not be read.
    fn meters(&mut self) -> Result<Option<Meters>, String> {
        Ok(None)
    }
}

/// The reference engine, plain or with a planted mistake.
pub struct ReferenceUnderTest {
    config: ReferenceConfig,
    engine: Reference,
}

impl ReferenceUnderTest {
    /// With this configuration.
    #[must_use]
    pub fn new(config: ReferenceConfig) -> Self {
        Self {
            config,
            engine: Reference::new(config),
        }
    }
}

impl EngineUnderTest for ReferenceUnderTest {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn reset(&mut self, limits: Limits) -> Result<(), String> {
        self.config.sessions_max = limits.sessions_max;
        self.config.sessions_per_port_max = limits.sessions_per_port_max;
        self.engine = Reference::new(self.config);
        Ok(())
    }

    fn apply(&mut self, snapshot: &Arc<HostSnapshot>) -> Result<(), String> {
        self.engine.apply(Arc::clone(snapshot));
        Ok(())
    }

    fn neighbour_put(
        &mut self,
        network: NetworkId,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), String> {
        self.engine.neighbour_put(network, address, mac);
        Ok(())
    }

    fn process(&mut self, ingress: Ingress, frame: &[u8], now_s: u32) -> Result<Observed, String> {
        let outcome = self.engine.process(ingress, frame, now_s);
        Ok(Observed {
            verdict: outcome.verdict,
            copy: outcome.copy,
            copies: in_order(outcome.copies),
            logs: Some(outcome.logs),
            rules: outcome.steps.iter().filter_map(|step| step.rule).collect(),
            words: outcome
                .steps
                .iter()
                .map(|s| format!("{}: {}", s.stage, s.decision))
                .collect(),
        })
    }

    fn meters(&mut self) -> Result<Option<Meters>, String> {
        Ok(Some(self.engine.meters().clone()))
    }

    fn sessions(&mut self) -> Result<BTreeSet<SessionSeen>, String> {
        let snapshot = self.engine.snapshot();
        let there = |ingress: Ingress| match ingress {
            Ingress::Port(id) => snapshot.is_some_and(|s| s.ports.contains_key(&id)),
            Ingress::Network(id) => snapshot.is_some_and(|s| s.networks.contains_key(&id)),
            Ingress::Underlay => false,
        };
        let both = self
            .engine
            .sessions()
            .filter(|s| there(s.forward.ingress) && there(s.reply.ingress));
        Ok(both
            .map(|s| SessionSeen {
                forward: s.forward,
                reply: s.reply,
            })
            .collect())
    }
}
