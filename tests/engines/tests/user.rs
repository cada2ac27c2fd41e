//! Every vector on the user engine, and random histories against the reference engine; by headers, and by whole frames.
//! `WEFT_DIFFERENTIAL_FRAMES` asks for more frames than the default, `WEFT_DIFFERENTIAL_SEED` for others.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use weft_dataplane::{Ingress, ReferenceConfig};
use weft_model::{HostSnapshot, MacAddress, NetworkId};
use weft_tests_engines::differential::{Pair, run};
use weft_tests_engines::vector::{Case, play_all, play_some};
use weft_tests_engines::{
    EngineUnderTest, Limits, Observed, ReferenceUnderTest, SessionSeen, UserUnderTest,
};

const FRAMES: usize = 20_000;

fn asked(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number in the environment variable"))
}

fn play(whole: bool) {
    let played = play_all(&mut UserUnderTest::new(whole));
    assert!(
        matches!(played, Ok(60..)),
        "{}",
        played.err().unwrap_or_default()
    );
}

fn differential(seed: u64, whole: bool) -> usize {
    let mut user = UserUnderTest::new(whole);
    let mut reference = ReferenceUnderTest::new(ReferenceConfig::default());
    compare_random((seed, FRAMES), &mut reference, &mut user);
    user.quick()
}

fn compare_random(
    (seed, frames): (u64, usize),
    reference: &mut dyn EngineUnderTest,
    user: &mut dyn EngineUnderTest,
) {
    let frames =
        asked("WEFT_DIFFERENTIAL_FRAMES").map_or(frames, |n| usize::try_from(n).expect("fits"));
    let seed = asked("WEFT_DIFFERENTIAL_SEED").unwrap_or(seed);
    let mut pair = Pair {
        a: reference,
        b: user,
    };
    let tally = run(seed, frames, &mut pair);
    let after = tally.frames;
    if let Some(found) = tally.found {
        let vector = found.vector(&mut pair);
        assert!(vector.is_empty(), "after {after} frames: {vector}");
    }
    assert!(after >= frames, "only {after} frames were compared");
}

#[test]
fn every_vector_holds_by_headers() {
    play(false);
}

#[test]
fn every_vector_holds_by_whole_frames() {
    play(true);
}

#[test]
fn reference_and_headers_agree() {
    let quick = differential(3_000_000, false);
    assert!(
        quick > FRAMES / 20,
        "only {quick} frames took the quick way"
    );
}

#[test]
fn reference_and_whole_frames_agree() {
    assert_eq!(differential(4_000_000, true), 0);
}

/// An engine without QoS policies and logs: what was counted against limits is forgotten when it is killed.
struct Unlimited<'a>(&'a mut dyn EngineUnderTest);

impl EngineUnderTest for Unlimited<'_> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn reset(&mut self, limits: Limits) -> Result<(), String> {
        self.0.reset(limits)
    }

    fn apply(&mut self, snapshot: &Arc<HostSnapshot>) -> Result<(), String> {
        let mut snapshot = HostSnapshot::clone(snapshot);
        snapshot.logs.clear();
        snapshot.ports.values_mut().for_each(|p| p.logs.clear());
        let ports = snapshot.ports.values_mut().map(|p| &mut p.qos_policy_id);
        let floating = snapshot.floating_ips.values_mut();
        let floating = floating.map(|f| &mut f.qos_policy_id);
        let forwarded = snapshot.forwarded_ips.values_mut();
        let forwarded = forwarded.map(|f| &mut f.qos_policy_id);
        let gateways = snapshot.routers.values_mut();
        let gateways = gateways.filter_map(|router| router.gateway.as_mut());
        let gateways = gateways.map(|gateway| &mut gateway.qos_policy_id);
        let all = ports.chain(floating).chain(forwarded).chain(gateways);
        all.for_each(|policy| *policy = None);
        self.0.apply(&Arc::new(snapshot))
    }

    fn neighbour_put(
        &mut self,
        network: NetworkId,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), String> {
        self.0.neighbour_put(network, address, mac)
    }

    fn process(&mut self, ingress: Ingress, frame: &[u8], now_s: u32) -> Result<Observed, String> {
        self.0.process(ingress, frame, now_s)
    }

    fn sessions(&mut self) -> Result<BTreeSet<SessionSeen>, String> {
        self.0.sessions()
    }
}

/// One that is killed before every other frame; `name` is its file's.
fn restarting(whole: bool, name: &str) -> UserUnderTest {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    UserUnderTest::restarting(whole, folder.join(format!("{name}.sessions")))
}

#[test]
fn every_vector_holds_over_restarts() {
    let mut user = restarting(false, "vectors");
    // What was counted against a limit is forgotten.
    let limited = |case: &Case| {
        let names = ["than the bucket holds", "destination's limits count"];
        case.script.contains("_rate_limit") || names.iter().any(|name| case.name.contains(name))
    };
    let played = play_some(&mut user, |case| !limited(case));
    assert!(
        matches!(played, Ok(150..)),
        "{}",
        played.map_or_else(|error| error, |played| played.to_string())
    );
    assert!(user.adopted() > 200, "{} sessions", user.adopted());
}

#[test]
fn the_reference_agrees_over_restarts() {
    for (seed, whole) in [(5_000_000, false), (6_000_000, true)] {
        let mut user = restarting(whole, &format!("differential-{whole}"));
        let mut reference = ReferenceUnderTest::new(ReferenceConfig::default());
        let (mut one, mut other) = (Unlimited(&mut reference), Unlimited(&mut user));
        compare_random((seed, FRAMES / 4), &mut one, &mut other);
        assert!(user.adopted() > 200, "{} sessions", user.adopted());
    }
}
