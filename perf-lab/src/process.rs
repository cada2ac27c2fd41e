//! Processes of the lab in its namespaces: what sends, what holds a device, and Weft on a snapshot file.

use crate::traffic::{Sent, Stream};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;
use weft_kit::lab::Process;
use weft_kit::weft::{Site, WeftOptions};
use weft_kit::{Lab, Namespace, clock};

/// The longest that Weft may take until its ports are active.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// The same until it has ended: the kernel waits for RCU at every device.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// A host's place for Weft, without a physical network.
pub(crate) fn site(lab: &Lab, host: &Namespace) -> Result<Site> {
    let mut options = WeftOptions::new(None)?;
    options.physical_networks.clear();
    Site::new(lab, host, &options)
}

/// Sends a stream from a namespace, by a process that runs before all others of its processor.
pub(crate) fn send(namespace: &Namespace, stream: &Stream) -> Result<Sent> {
    let output = namespace
        .command("chrt")
        .args(["--rr", "1", "taskset", "--cpu-list", "1"])
        .arg(std::env::current_exe()?)
        .args(stream.arguments())
        .output()?;
    if !output.status.success() {
        bail!(
            "the sender failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A `hold` process, which ends with this value: see [`crate::traffic::hold`].
pub(crate) struct Held {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Held {
    pub(crate) fn start(namespace: &Namespace, device: &str, arrival: &str) -> Result<Self> {
        Self::start_to(namespace, device, arrival, None)
    }

    /// The same; frames go on to a device.
    pub(crate) fn start_to(
        namespace: &Namespace,
        device: &str,
        arrival: &str,
        to: Option<&str>,
    ) -> Result<Self> {
        let lab = std::env::current_exe()?;
        let mut child = namespace
            .command(lab.to_str().context("the lab's own path")?)
            .args(["hold", device, arrival])
            .args(to.into_iter().flat_map(|to| ["--to", to]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("piped")?);
        let mut held = Self { child, lines };
        ensure!(
            held.line()? == "ready",
            "hold {device} {arrival} did not start"
        );
        Ok(held)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(
            self.lines.read_line(&mut line)? > 0,
            "the lab's own process ended"
        );
        Ok(line.trim().to_owned())
    }

    pub(crate) fn count(&mut self) -> Result<u64> {
        self.child
            .stdin
            .as_mut()
            .context("piped")?
            .write_all(b"\n")?;
        Ok(self.line()?.parse()?)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends when its input does; nothing is lost if it is gone already.
        let _ = self.child.wait();
    }
}

/// `weft run` on a snapshot file.
pub(crate) struct WeftRun {
    pub(crate) process: Process,
}

impl WeftRun {
    /// Starts it and waits until so many ports are active.
    pub(crate) fn start(lab: &Lab, site: &Site, snapshot: &Path, ports: usize) -> Result<Self> {
        let log = std::fs::File::create(&site.log)?;
        let mut command = site.command("run")?;
        command
            .arg("--config")
            .arg(&site.config)
            .arg("--snapshot")
            .arg(snapshot);
        let process = lab.spawn(command.stdout(Stdio::null()).stderr(log))?;
        let run = Self { process };
        clock::until("the ports to turn active", READY_TIMEOUT, || {
            let Ok(status) = site.ask("status") else {
                return Ok(None);
            };
            let active = status["ports"].as_array().map_or(0, |ports| {
                ports
                    .iter()
                    .filter(|port| port["status"] == "ACTIVE")
                    .count()
            });
            Ok((active == ports).then_some(()))
        })
        .with_context(|| site.log_end())?;
        Ok(run)
    }

    /// Ends it; its programs go with it.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait(STOP_TIMEOUT)?;
        ensure!(status.success(), "weft run ended with {status}");
        Ok(())
    }
}
