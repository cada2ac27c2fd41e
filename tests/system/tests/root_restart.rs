//! What happens to traffic when a part of Weft dies and comes back: nothing.

use anyhow::Result;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use weft_kit::clock::wall_s;
use weft_kit::ping::{RunningPing, ping};
use weft_kit::tcp::{Server, Session};
use weft_kit::{Cloud, Guest, WeftOptions};
use weft_tests_system::scene::{ANY, Scene};

const TIMEOUT: Duration = Duration::from_secs(20);
/// The longest silence of a ping every 10 ms that still counts as none: a few lost turns of a busy machine.
const GAP_MAX: Duration = Duration::from_millis(200);

/// Two guests on one network.
fn pair(scene: &mut Scene) -> Result<(Cloud, Guest, Guest)> {
    let user = scene.project("demo")?;
    scene.network(&user, "net1", "192.0.2.0/24", "")?;
    let one = scene.booted_guest(&user, "net1", "guest1")?;
    let two = scene.booted_guest(&user, "net1", "guest2")?;
    Ok((user, one, two))
}

#[test]
fn killing_the_agent_stops_no_packet() -> Result<()> {
    let mut options = WeftOptions::new(None)?;
    options.remove_on_stop = false;
    let mut scene = Scene::open("weft-agent-kill", &options)?;
    let (user, one, two) = pair(&mut scene)?;
    let to = IpAddr::V4(two.port.v4()?);
    let _server = Server::start(&two.namespace, "guest2", ANY, 80)?;
    let session = Session::open(&one.namespace, SocketAddr::new(to, 80))?;
    let running = RunningPing::start(&scene.lab, &one.namespace, to, Duration::from_millis(10))?;
    let killed_s = wall_s();
    scene.crash_weft("all-in-one", |_| {
        assert!(
            session.is_alive(TIMEOUT),
            "the session goes on without the agent"
        );
        let back = ping(&two.namespace, one.port.v4()?.into(), 3)?;
        assert!(back.all(), "new sessions begin without the agent: {back:?}");
        Ok(())
    })?;
    scene.wait_active(&one)?;
    assert!(
        session.is_alive(TIMEOUT),
        "the session goes on with the new agent"
    );
    let gap = running.replies_after(killed_s, 100, TIMEOUT)?;
    assert!(gap < GAP_MAX, "the longest gap is {gap:?}");

    // The new agent enforces what it adopted: a change is seen, and the old session is cut.
    scene.openstack(&user, "port set --no-security-group guest2")?;
    running.until_quiet(Duration::from_millis(400), TIMEOUT)?;
    session.until_quiet(Duration::from_millis(400), TIMEOUT)?;
    running.stop()?;
    Ok(())
}

#[test]
fn an_agent_resumes_when_control_comes_back() -> Result<()> {
    let mut scene = Scene::open_apart("weft-control-kill", &WeftOptions::new(None)?)?;
    let (user, one, two) = pair(&mut scene)?;
    let to = IpAddr::V4(two.port.v4()?);
    let running = RunningPing::start(&scene.lab, &one.namespace, to, Duration::from_millis(10))?;
    let killed_s = wall_s();
    scene.crash_server(|_| {
        let gap = running.replies_after(killed_s, 50, TIMEOUT)?;
        assert!(gap < GAP_MAX, "without control, the longest gap is {gap:?}");
        Ok(())
    })?;
    let gap = running.replies_after(killed_s, 100, TIMEOUT)?;
    assert!(
        gap < GAP_MAX,
        "over the whole restart, the longest gap is {gap:?}"
    );

    // The agent has found the new server by itself: a change is enforced, and a new guest comes up.
    scene.openstack(&user, "port set --no-security-group guest2")?;
    running.until_quiet(Duration::from_millis(400), TIMEOUT)?;
    running.stop()?;
    let three = scene.booted_guest(&user, "net1", "guest3")?;
    scene.settle(&three.namespace, one.port.v4()?.into())?;
    let report = scene.close()?;
    assert_eq!(report.failures(), Vec::<String>::new());
    Ok(())
}
