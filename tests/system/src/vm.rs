//! Guests under QEMU: the image they boot, the switch that they are plugged into, and the shell on their serial line.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use weft_kit::lab::Process;
use weft_kit::weft::Site;
use weft_kit::{Lab, clock};

const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A guest under TCG on a busy machine.
const BOOT_TIMEOUT: Duration = Duration::from_secs(90);
/// What busybox's shell says when it waits.
const PROMPT: &str = "/ # ";
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// What `scripts/guest-image.sh` boots to.
pub struct Shell {
    input: Box<dyn Write + Send>,
    lines: Receiver<String>,
}

impl std::fmt::Debug for Shell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shell")
    }
}

impl Shell {
    /// The shell behind the two ends of a serial line.
    pub fn new(input: impl Write + Send + 'static, output: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        let output = BufReader::new(output);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender
                    .send(line.trim().trim_start_matches(PROMPT).to_owned())
                    .is_err()
                {
                    return;
                }
            }
        });
        Self {
            input: Box::new(input),
            lines,
        }
    }

    /// Waits for the shell.
    ///
    /// # Errors
    /// The guest ended, or took too long.
    pub fn booted(&mut self) -> Result<()> {
        let (end, mut seen) = (clock::now() + BOOT_TIMEOUT, Vec::new());
        loop {
            let left = end.saturating_duration_since(clock::now());
            let line = self.lines.recv_timeout(left);
            let line = line.with_context(|| format!("the guest did not boot: {seen:?}"))?;
            if line.contains("guest-is-up") {
                return Ok(());
            }
            seen.push(line);
        }
    }

    /// Gives it a line, and waits for nothing.
    ///
    /// # Errors
    /// The guest ended.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        Ok(self.input.write_all(format!("{command}\n").as_bytes())?)
    }

    /// Runs a command, and gives its lines.
    ///
    /// # Errors
    /// It failed, or did not end.
    pub fn run(&mut self, command: &str) -> Result<Vec<String>> {
        let (lines, status) = self.tried(command)?;
        ensure!(status == 0, "{command}: {status}: {lines:?}");
        Ok(lines)
    }

    /// Runs a command, and gives its lines and its status.
    ///
    /// # Errors
    /// It did not end.
    pub fn tried(&mut self, command: &str) -> Result<(Vec<String>, u32)> {
        self.tell(&format!("{command}; echo status-$?-end"))?;
        let end = clock::now() + COMMAND_TIMEOUT;
        let mut lines = Vec::new();
        loop {
            let left = end.saturating_duration_since(clock::now());
            let line = self.lines.recv_timeout(left);
            let line = line.with_context(|| format!("{command}: no end after {lines:?}"))?;
            // The shell may say again what it was told: that has no number.
            let status = line
                .split_once("status-")
                .and_then(|(_, rest)| rest.split_once("-end"))
                .and_then(|(status, _)| status.parse().ok());
            match status {
                Some(status) => return Ok((lines, status)),
                None => lines.push(line),
            }
        }
    }

    /// Gets its address by DHCP.
    ///
    /// # Errors
    /// It got none, or another one.
    pub fn dhcp(&mut self, address: &str) -> Result<()> {
        self.run("udhcpc -i eth0 -n -q -t 10 -T 1 -s /bin/dhcp-bound")?;
        let lines = self.run("ip -4 -o address show dev eth0")?;
        ensure!(lines.iter().any(|line| line.contains(address)), "{lines:?}");
        Ok(())
    }

    /// Pings.
    ///
    /// # Errors
    /// No answer.
    pub fn ping(&mut self, to: &str) -> Result<()> {
        self.run(&format!("ping -c 3 -W 5 {to}")).map(drop)
    }
}

/// Where `scripts/guest-image.sh` put kernel and initramfs (`make test-vm` calls it).
///
/// # Errors
/// They are not there.
pub fn image() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/vm");
    if !folder.join("kernel").exists() {
        bail!(
            "{}: no guests' image; run scripts/guest-image.sh target/vm",
            folder.display()
        );
    }
    Ok(folder.canonicalize()?)
}

/// The lab's snapshot of two ports under a policy, with DHCP, on these sockets; `modes` says who listens (`client`: Weft).
///
/// # Errors
/// The snapshot is not there, or is another one.
pub fn two_ports(sockets: &[PathBuf; 2], modes: [&str; 2]) -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../perf-lab/snapshots/two-ports-policy.json");
    let mut snapshot: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let subnets = snapshot["subnets"].as_object_mut().context("subnets")?;
    for subnet in subnets.values_mut() {
        subnet["enable_dhcp"] = json!(true);
    }
    let ports = snapshot["ports"].as_object_mut().context("ports")?;
    for ((port, socket), mode) in ports.values_mut().zip(sockets).zip(modes) {
        port["interface"]["socket"] = json!(socket);
        port["interface"]["mode"] = json!(mode);
    }
    Ok(snapshot)
}

/// Starts `weft run` on a snapshot file, and waits until its two ports are ACTIVE.
///
/// # Errors
/// It does not start, or they do not turn ACTIVE: with the end of its log.
pub fn switch(lab: &Lab, site: &Site, snapshot: &Path) -> Result<Process> {
    let log = File::options().append(true).create(true).open(&site.log)?;
    let mut command = site.command("run")?;
    command
        .arg("--config")
        .arg(&site.config)
        .arg("--snapshot")
        .arg(snapshot);
    let process = lab.spawn(command.stdout(Stdio::null()).stderr(log))?;
    clock::until("the ports to turn active", READY_TIMEOUT, || {
        let Ok(status) = site.ask("status") else {
            return Ok(None);
        };
        let ports = status["ports"].as_array().cloned().unwrap_or_default();
        let active = ports.iter().filter(|port| port["status"] == "ACTIVE");
        Ok((active.count() == 2).then_some(()))
    })
    .with_context(|| site.log_end())?;
    Ok(process)
}
