//! `weft capture`: what a guest sent and was sent, in a file that others read, with the reason for each frame that died.

#![allow(
    clippy::unwrap_used,
    reason = "a test: helpers outside of its functions may panic too"
)]

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use weft_kit::clock::until;
use weft_kit::command::output;
use weft_kit::ping::ping;
use weft_kit::{Namespace, WeftOptions};
use weft_tests_system::scene::Scene;

const TIMEOUT: Duration = Duration::from_secs(20);
const UNKNOWN: &str = "99999999-0000-4000-8000-000000000000";

/// Lines that tcpdump makes of a file.
fn read_back(host: &Namespace, file: &Path, filter: &str) -> Result<Vec<String>> {
    let mut command = host.command("tcpdump");
    command.args(["-enr"]).arg(file).arg(filter);
    let text = output(&mut command)?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn holds(file: &Path, words: &str) -> Result<bool> {
    let bytes = std::fs::read(file)?;
    Ok(bytes
        .windows(words.len())
        .any(|part| part == words.as_bytes()))
}

#[test]
fn frames_are_captured_with_what_became_of_them() -> Result<()> {
    let mut scene = Scene::open("weft-capture", &WeftOptions::new(None)?)?;
    let user = scene.project("demo")?;
    scene.network(&user, "net1", "192.0.2.0/24", "")?;
    scene.openstack(&user, "security group create closed")?;
    let one = scene.booted_guest(&user, "net1", "guest1")?;
    let two = scene.booted_guest(&user, "net1", "guest2")?;
    let shut = scene.guest(&user, "net1", "guest3", "--security-group closed")?;
    shut.dhcp(&scene.lab)?;
    for guest in [&one, &two, &shut] {
        scene.wait_active(guest)?;
    }

    let file = scene.lab.directory().join("one.pcapng");
    let mut command = scene.site.command("capture --why --seconds 60")?;
    command
        .args(["--port", &one.port.id.to_string()])
        .arg("--socket")
        .arg(&scene.site.socket)
        .arg("--write")
        .arg(&file)
        .stdout(Stdio::null());
    let capture = scene.lab.spawn(&mut command)?;
    until("the capture to begin", TIMEOUT, || {
        Ok(std::fs::metadata(&file)
            .is_ok_and(|file| file.len() > 0)
            .then_some(()))
    })?;
    ensure!(ping(&one.namespace, two.port.v4()?.into(), 3)?.all());
    ensure!(ping(&one.namespace, shut.port.v4()?.into(), 2)?.received == 0);
    let (v4, nobody) = (one.port.v4()?, "192.0.2.200");
    one.namespace
        .run(&format!("ip address add {nobody}/32 dev lo"))?;
    let spoofed = format!("ping -c 1 -W 1 -I {nobody} {}", two.port.v4()?);
    ensure!(
        one.namespace.run(&spoofed).is_err(),
        "a spoofed ping was answered"
    );
    until("the last frame", TIMEOUT, || {
        Ok(holds(&file, "spoofed_ip")?.then_some(()))
    })?;
    let status = capture.stop(rustix::process::Signal::INT)?;
    ensure!(status.success(), "{status}");

    let host = &scene.site.host;
    let to = read_back(host, &file, &format!("icmp and src {v4}"))?;
    ensure!(to.len() == 5, "3 that passed and 2 that died: {to:?}");
    let from = read_back(host, &file, &format!("icmp and dst {v4}"))?;
    ensure!(from.len() == 3, "3 answers: {from:?}");
    for words in [
        &format!("delivered to port {}", two.port.id),
        "dropped: security_group_ingress_denied",
        "dropped: spoofed_ip",
        "security_group_egress by rule ",
    ] {
        ensure!(holds(&file, words)?, "no frame is said to be {words:?}");
    }

    // A number of frames; a port that is not there; a terminal is not asked for a file of bytes.
    let few = scene.lab.directory().join("few.pcapng");
    let mut command = scene.site.command("capture --count 2")?;
    command
        .arg("--socket")
        .arg(&scene.site.socket)
        .arg("--write")
        .arg(&few);
    let mut counting = scene.lab.spawn(&mut command)?;
    until("the capture to begin", TIMEOUT, || {
        Ok(std::fs::metadata(&few)
            .is_ok_and(|file| file.len() > 0)
            .then_some(()))
    })?;
    ensure!(ping(&one.namespace, two.port.v4()?.into(), 2)?.all());
    ensure!(counting.wait(TIMEOUT)?.success());
    ensure!(read_back(host, &few, "")?.len() == 2);
    let mut command = scene.site.command(&format!("capture --port {UNKNOWN}"))?;
    command.arg("--socket").arg(&scene.site.socket);
    let refused = command.output().context("weft capture")?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        !refused.status.success() && said.contains("not on this host"),
        "{said}"
    );
    let report = scene.close()?;
    ensure!(report.failures().is_empty(), "{:?}", report.failures());
    Ok(())
}
