//! The user engine killed between frames and snapshots: another one goes on with the sessions that are left in a file.
//!
//! Guarantees: it is killed only where nothing else would be missed: not soon after a fragment (what later ones follow is not kept), and
//! not while a session waits for a port or network that is away, or for its end.

use crate::engine::Limits;
use crate::user_engine::{UserUnderTest, engine};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use weft_dataplane::flow::key::Ingress;
use weft_dataplane::stage::decode::{self, Body, Fragment};
use weft_model::{HostSnapshot, MacAddress, NetworkId};
use weft_vhost::carry::{Adopted, Keeping};
use weft_wire::ethernet;

/// Frames after a fragment that are judged by the same engine: its later ones, of which what they follow is not kept.
const FRAGMENT_STEPS: u64 = 16;

/// What outlives an engine that is killed.
pub(crate) struct Restarts {
    /// Where sessions are left.
    file: PathBuf,
    keeping: Option<Keeping>,
    limits: Limits,
    snapshot: Option<Arc<HostSnapshot>>,
    /// They are asked for again.
    pub(crate) neighbours: Vec<(NetworkId, IpAddr, MacAddress)>,
    /// Frames and snapshots so far: before every other one it is killed.
    steps: u64,
    now_s: u32,
    /// Steps before which it is not killed.
    lives_to: u64,
    adopted: usize,
}

impl UserUnderTest {
    /// One that is killed before every other frame and snapshot. Its sessions are left in this file.
    #[must_use]
    pub fn restarting(whole: bool, file: PathBuf) -> Self {
        let restarts = Restarts {
            file,
            keeping: None,
            limits: Limits::default(),
            snapshot: None,
            neighbours: Vec::new(),
            steps: 0,
            now_s: 0,
            lives_to: 0,
            adopted: 0,
        };
        let mut user = Self::new(whole);
        user.restarts = Some(restarts);
        user
    }

    /// Sessions that went on in another engine so far.
    #[must_use]
    pub fn adopted(&self) -> usize {
        self.restarts.as_ref().map_or(0, |kept| kept.adopted)
    }

    /// There is nothing to go on with.
    pub(crate) fn restarts_reset(&mut self, limits: Limits) -> Result<(), String> {
        let Some(kept) = &mut self.restarts else {
            return Ok(());
        };
        kept.keeping = None;
        kept.snapshot = None;
        kept.limits = limits;
        kept.neighbours.clear();
        kept.now_s = 0;
        kept.lives_to = 0;
        kept.steps = 0;
        match std::fs::remove_file(&kept.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    /// Whether it was killed, and the next one enforces this snapshot.
    pub(crate) fn restarts_before_snapshot(
        &mut self,
        snapshot: &Arc<HostSnapshot>,
    ) -> Result<bool, String> {
        let Some(kept) = &mut self.restarts else {
            return Ok(false);
        };
        let first = kept.snapshot.is_none();
        kept.snapshot = Some(Arc::clone(snapshot));
        if !first && !self.restarts_now() {
            return Ok(false);
        }
        self.restart()?;
        Ok(true)
    }

    /// The snapshot that was enforced may have new ports.
    pub(crate) fn snapshot_kept(&mut self) {
        if let Some(kept) = &mut self.restarts
            && let Some(keeping) = &mut kept.keeping
        {
            keeping.applied(&mut self.engine, kept.now_s);
        }
    }

    /// Kills it now and then.
    pub(crate) fn restarts_before_frame(
        &mut self,
        ingress: Ingress,
        frame: &[u8],
        now_s: u32,
    ) -> Result<(), String> {
        let fragment = self.is_fragment(ingress, frame);
        let Some(kept) = &mut self.restarts else {
            return Ok(());
        };
        kept.now_s = now_s;
        if fragment {
            kept.lives_to = kept.steps + FRAGMENT_STEPS;
        }
        if self.restarts_now() {
            self.restart()?;
        }
        Ok(())
    }

    fn is_fragment(&self, ingress: Ingress, frame: &[u8]) -> bool {
        let Some((_, frame)) = self.enter(ingress, frame) else {
            return false;
        };
        // A subport's has a tag still, and behind it perhaps one of the guest's own.
        let mut frame = frame.into_owned();
        while let Some((_, behind)) = ethernet::untag(&frame) {
            frame = behind;
        }
        match decode::process(&frame).map(|packet| packet.body) {
            Ok(Body::Ip(ip)) => ip.fragment != Fragment::Whole,
            _ => false,
        }
    }

    fn restarts_now(&mut self) -> bool {
        let goes_on = self.all_go_on();
        self.restarts.as_mut().is_some_and(|kept| {
            kept.steps += 1;
            kept.steps % 2 == 0 && kept.steps > kept.lives_to && goes_on
        })
    }

    /// Whether all that sessions belong to is in the snapshot, and none has come to its end.
    fn all_go_on(&self) -> bool {
        let Some(kept) = &self.restarts else {
            return false;
        };
        let Some(snapshot) = &kept.snapshot else {
            return false;
        };
        let is_there = |ingress| match ingress {
            Ingress::Port(id) => snapshot.ports.contains_key(&id),
            Ingress::Network(id) => snapshot.networks.contains_key(&id),
            Ingress::Underlay => false,
        };
        let places = self.engine.session_places();
        let mut sessions = (0..places).filter_map(|at| self.engine.carried(at));
        let there = sessions.all(|session| {
            let named = session.named(|place| self.engine.ingress(place).filter(|i| is_there(*i)));
            named.is_some()
        });
        there && !self.engine.idle(0, places, kept.now_s).0
    }

    /// Another engine takes the place of this one, with the sessions that are left in the file.
    fn restart(&mut self) -> Result<(), String> {
        let Some(kept) = &mut self.restarts else {
            return Ok(());
        };
        let Some(snapshot) = &kept.snapshot else {
            return Ok(());
        };
        let count = self.engine.sessions_count();
        if let Some(mut keeping) = kept.keeping.take() {
            keeping.all(&self.engine);
        }
        (self.engine, self.compiler) = engine(kept.limits, kept.steps);
        let keeping = Keeping::start(&kept.file, kept.limits.sessions_max, kept.steps);
        let mut keeping = keeping.map_err(|error| error.to_string())?;
        self.engine.changes_remember(keeping.memory());
        self.engine.enforce(self.compiler.prepare(snapshot));
        let adopted = keeping.applied(&mut self.engine, kept.now_s);
        let adopted = adopted.unwrap_or_default();
        let all = Adopted {
            sessions: count,
            ..Adopted::default()
        };
        if adopted != all {
            return Err(format!("of {count} sessions: {adopted:?}"));
        }
        kept.adopted += count;
        kept.keeping = Some(keeping);
        for (network, address, mac) in &kept.neighbours {
            self.engine.neighbour_put(*network, *address, *mac);
        }
        Ok(())
    }
}
