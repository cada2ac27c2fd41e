//! Chapter 6: a rule is deleted while its traffic runs: that traffic stops at once, and no other.

use super::Story;
use crate::scene::Scene;
use anyhow::{Context, Result};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use weft_kit::clock::{now, wall_s};
use weft_kit::ping::RunningPing;
use weft_kit::tcp::Session;

/// From the rule's deletion to the last packet that still passes, on a machine that is busy with other things too: what it takes
/// on a quiet one is a bar (`cargo xtask bars main`: 50 ms), and no test's business.
const CUT_MAX: Duration = Duration::from_millis(250);
/// How long nothing must come before traffic counts as cut.
const QUIET: Duration = Duration::from_millis(400);
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn play(story: &mut Story, scene: &mut Scene) -> Result<()> {
    let user = story.user()?;
    let outside = scene.outside.clone();
    let floating = IpAddr::V4(story.floating_ip()?);
    let (icmp, ssh) = story.rules.clone().context("no rules were made")?;
    let ping = RunningPing::start(&scene.lab, &outside, floating, Duration::from_millis(2))?;
    let session = Session::open(&outside, SocketAddr::new(floating, 22))?;
    scene
        .report
        .remark("outside pings every 2 ms and sends a byte every 1 ms by a TCP session to port 22");

    let deleted = scene.openstack_timed(&user, &format!("security group rule delete {icmp}"))?;
    let deleted_s = wall_s() - deleted.elapsed().as_secs_f64();
    let stopped = ping.until_quiet(QUIET, TIMEOUT);
    let stopped = stopped.map(|last_s| Duration::from_secs_f64((last_s - deleted_s).max(0.0)));
    check_cut(scene, "the ping stops", stopped);
    let alive = if session.is_alive(Duration::from_millis(500)) {
        "goes on"
    } else {
        "is cut"
    };
    scene.report.equal("the TCP session", "goes on", alive);
    ping.stop()?;

    let deleted = scene.openstack_timed(&user, &format!("security group rule delete {ssh}"))?;
    let stopped = session.until_quiet(QUIET, TIMEOUT);
    check_cut(
        scene,
        "the TCP session is cut",
        stopped.map(|last| since(last, deleted)),
    );
    drop(session);
    scene.ping_fails("outside", &outside, floating)?;
    scene.tcp_fails("outside", &outside, SocketAddr::new(floating, 22))
}

fn since(last: Instant, deleted: Instant) -> Duration {
    debug_assert!(last <= now(), "an echo from the future");
    last.saturating_duration_since(deleted)
}

fn check_cut(scene: &mut Scene, what: &str, stopped: Result<Duration>) {
    let expected = format!("within {} ms", CUT_MAX.as_millis());
    match stopped {
        Ok(after) => {
            let happened = format!("after {:.1} ms", after.as_secs_f64() * 1e3);
            scene
                .report
                .check(what, expected, happened, after <= CUT_MAX);
        }
        Err(error) => scene
            .report
            .check(what, expected, format!("{error:#}"), false),
    }
}
