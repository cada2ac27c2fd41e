//! Real guests: QEMU with virtio-net over vhost-user on Weft's user engine, run by an agent on a snapshot file.
//!
//! `make test-vm` makes the guests' image and runs this. The guests run under TCG, so that it works wherever QEMU does.

#![allow(
    clippy::unwrap_used,
    reason = "a test: helpers outside of its functions may panic too"
)]

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use weft_kit::lab::Process;
use weft_kit::weft::{Site, WeftOptions};
use weft_kit::{Lab, clock};

const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// A guest under TCG on a busy machine.
const BOOT_TIMEOUT: Duration = Duration::from_secs(90);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

fn image() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/vm")
}

/// A guest, and its serial line.
struct Guest {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Guest {
    /// The first guest dials and Weft listens; the second one listens, and Weft dials.
    fn boot(number: usize, socket: &Path) -> Result<Self> {
        let image = image();
        let role = if number == 1 {
            "reconnect=1"
        } else {
            "server=on,wait=off"
        };
        let chardev = format!("socket,id=c,path={},{role}", socket.display());
        let device = format!("virtio-net-pci,netdev=n,mac=02:00:00:00:00:0{number},vectors=0");
        let mut child = Command::new("qemu-system-x86_64")
            .args([
                "-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "192",
            ])
            .args(["-object", "memory-backend-memfd,id=m,size=192M,share=on"])
            .args(["-numa", "node,memdev=m", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-serial", "stdio", "-chardev", &chardev])
            .args(["-netdev", "vhost-user,id=n,chardev=c", "-device", &device])
            .arg("-kernel")
            .arg(image.join("kernel"))
            .arg("-initrd")
            .arg(image.join("initramfs"))
            .args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("qemu-system-x86_64 (apt-get install qemu-system-x86)")?;
        let input = child.stdin.take().context("piped")?;
        let output = BufReader::new(child.stdout.take().context("piped")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line.trim().to_owned()).is_err() {
                    return;
                }
            }
        });
        let mut guest = Self {
            child,
            input,
            lines,
        };
        guest.booted()?;
        Ok(guest)
    }

    /// Waits for the shell.
    fn booted(&mut self) -> Result<()> {
        self.until("guest-is-up", BOOT_TIMEOUT).map(drop)
    }

    fn until(&mut self, wanted: &str, timeout: Duration) -> Result<Vec<String>> {
        let (end, mut seen) = (now() + timeout, Vec::new());
        loop {
            let left = end.saturating_duration_since(now());
            let line = self.lines.recv_timeout(left);
            let line = line.with_context(|| format!("waiting for {wanted:?} after {seen:?}"))?;
            if line.contains(wanted) {
                return Ok(seen);
            }
            seen.push(line);
        }
    }

    fn tell(&mut self, command: &str) -> Result<()> {
        Ok(self.input.write_all(format!("{command}\n").as_bytes())?)
    }

    /// Runs a command, and gives its lines; an error if it fails.
    fn run(&mut self, command: &str) -> Result<Vec<String>> {
        let (lines, status) = self.tried(command)?;
        ensure!(status == 0, "{command}: {status}: {lines:?}");
        Ok(lines)
    }

    fn tried(&mut self, command: &str) -> Result<(Vec<String>, u32)> {
        self.tell(&format!("{command}; echo status-$?-end"))?;
        let end = now() + COMMAND_TIMEOUT;
        let mut lines = Vec::new();
        loop {
            let line = self
                .lines
                .recv_timeout(end.saturating_duration_since(now()));
            let line = line.with_context(|| format!("{command}: no end after {lines:?}"))?;
            let status = line
                .split_once("status-")
                .and_then(|(_, rest)| rest.split_once("-end"));
            match status {
                Some((status, _)) => return Ok((lines, status.parse()?)),
                None => lines.push(line),
            }
        }
    }

    /// Gets its address by DHCP.
    fn dhcp(&mut self, address: &str) -> Result<()> {
        self.run("udhcpc -i eth0 -n -q -t 10 -T 1 -s /bin/dhcp-bound")?;
        let lines = self.run("ip -4 -o address show dev eth0")?;
        ensure!(lines.iter().any(|line| line.contains(address)), "{lines:?}");
        Ok(())
    }

    fn ping(&mut self, to: &str) -> Result<()> {
        self.run(&format!("ping -c 3 -W 5 {to}")).map(drop)
    }

    fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn now() -> Instant {
    clock::now()
}

/// The policy snapshot with DHCP, on these sockets.
fn snapshot(sockets: &[PathBuf; 2]) -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../perf-lab/snapshots/two-ports-policy.json");
    let mut snapshot: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    for subnet in snapshot["subnets"]
        .as_object_mut()
        .context("subnets")?
        .values_mut()
    {
        subnet["enable_dhcp"] = json!(true);
    }
    let ports = snapshot["ports"].as_object_mut().context("ports")?;
    for ((port, socket), mode) in ports.values_mut().zip(sockets).zip(["client", "server"]) {
        port["interface"]["socket"] = json!(socket);
        port["interface"]["mode"] = json!(mode);
    }
    Ok(snapshot)
}

fn weft(lab: &Lab, site: &Site, snapshot: &Path) -> Result<Process> {
    let log = std::fs::File::options()
        .append(true)
        .create(true)
        .open(&site.log)?;
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

#[test]
fn two_guests_live_through_what_happens_to_guests_and_to_weft() -> Result<()> {
    if !image().join("kernel").exists() {
        bail!(
            "{}: no guests' image; run scripts/guest-image.sh target/vm",
            image().display()
        );
    }
    let lab = Lab::new("weft-vm")?;
    let host = lab.namespace("host")?;
    let mut options = WeftOptions::new(None)?;
    options.physical_networks.clear();
    let site = Site::new(&lab, &host, &options)?;
    let sockets = [0, 1].map(|n| lab.directory().join(format!("{n}.sock")));
    let file = lab.directory().join("snapshot.json");
    std::fs::write(&file, serde_json::to_vec(&snapshot(&sockets)?)?)?;
    let running = weft(&lab, &site, &file)?;

    let mut one = Guest::boot(1, &sockets[0])?;
    let mut two = Guest::boot(2, &sockets[1])?;
    one.dhcp("10.0.0.1/24")?;
    two.dhcp("10.0.0.2/24")?;
    one.ping("10.0.0.2")?;
    two.ping("10.0.0.1")?;

    // The group allows TCP 22 from its members, and no other TCP port.
    two.tell(
        "for port in 22 80; do (while true; do echo served-$port | nc -l -p $port; done) & done",
    )?;
    // Until it listens, the connection is refused by the guest itself.
    let patient =
        "for try in 1 2 3 4 5; do nc -w 10 10.0.0.2 22 </dev/null && break; sleep 1; done";
    let served = one.run(patient)?;
    ensure!(
        served.iter().any(|line| line.contains("served-22")),
        "{served:?}"
    );
    let (lines, status) = one.tried("nc -w 3 10.0.0.2 80 </dev/null")?;
    ensure!(
        status != 0 && !lines.iter().any(|line| line.contains("served")),
        "{lines:?}"
    );

    // One command answers for both engines.
    let stats = site.ask("stats")?;
    let dropped = stats["drops"].as_array().context("drops")?;
    let denied = |drop: &Value| drop["reason"] == "security_group_ingress_denied";
    ensure!(dropped.iter().any(denied), "{stats}");
    let sessions = site.ask("sessions")?;
    ensure!(
        sessions["sessions"]
            .as_array()
            .is_some_and(|s| !s.is_empty()),
        "{sessions}"
    );

    // A guest reboots; another one is killed and starts again.
    two.tell("reboot -f")?;
    two.booted()?;
    two.dhcp("10.0.0.2/24")?;
    one.ping("10.0.0.2")?;
    one.kill()?;
    let mut one = Guest::boot(1, &sockets[0])?;
    one.dhcp("10.0.0.1/24")?;
    one.ping("10.0.0.2")?;

    // Weft is killed and starts again: the guests go on without a reset.
    running.stop(Signal::KILL)?;
    let running = weft(&lab, &site, &file)?;
    one.ping("10.0.0.2")?;
    two.ping("10.0.0.1")?;

    drop(one);
    two.run("ip link show eth0")?;
    let status = running.stop(Signal::TERM)?;
    ensure!(
        status.success(),
        "weft run ended with {status}: {}",
        site.log_end()
    );
    ensure!(!sockets[0].exists(), "Weft's socket is removed");
    Ok(())
}
