//! A switch under test, started and stopped, and the generator's guests on its sockets.

use super::Figures;
use super::scenario::{Figure, Kind, System};
use crate::figures::quantile;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use weft_kit::lab::Process;
use weft_kit::{Lab, Namespace, clock};
use weft_vhost::driver::Buffer;
use weft_vhost::frontend::{Frontend, FrontendConfig};
use weft_vhost::protocol::feature;

/// The generator's core, and the switch's.
const GENERATOR_CPU: usize = 0;
const SWITCH_CPU: usize = 1;
/// Huge pages of 2 MiB: the generator's memory and the peers'.
const HUGE_PAGES: usize = 2_048;
/// So often is the kernel asked for them.
const HUGE_PAGES_TRIES: usize = 3;
const HUGE_PAGES_FILE: &str = "/proc/sys/vm/nr_hugepages";
const READY_TIMEOUT: Duration = Duration::from_secs(60);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Names of threads that poll: Weft's, testpmd's, OVS's.
const POLLING: [&str; 4] = ["weft-poll", "rte-worker", "lcore-worker", "pmd-c"];
/// Sessions that Weft may hold: those of the largest load, and some.
const SESSIONS_MAX: u32 = 2_000_000;
/// From the generator's start until its guests are quiet, and then for so long is the idle time measured.
const QUIET_AFTER: Duration = Duration::from_millis(3_200);
const IDLE: Duration = Duration::from_secs(2);
/// For so long is a thread woken.
const WAKE_SECONDS: u32 = 2;

/// A silent guest's rings, its buffers, and all of them.
const RING_SIZE: u16 = 256;
const BUFFER_BYTES: u64 = 2_048;
const GUEST_BYTES: usize = 1 << 20;

/// Bytes of memory that are touched before each run; before the first, what is free, but for so much.
const TOUCHED_BYTES: usize = 1 << 30;
const UNTOUCHED_BYTES: usize = 2 << 30;
const TOUCHED_BYTES_MAX: usize = 32 << 30;

/// From which order on a virtual machine's kernel gives free pages back to its host, and the one that no page has.
const REPORTED_FILE: &str = "/sys/module/page_reporting/parameters/page_reporting_order";
const NONE_REPORTED: &str = "11";

/// Takes so much memory and gives it back. On a virtual machine a page that was never touched, or that its host took back, costs
/// whoever is first tens of microseconds: new connections were measured at 0.02 million a second for it, of both peers.
fn memory_touch(bytes: usize) {
    let mut pages = vec![0u8; bytes];
    pages.iter_mut().step_by(4_096).for_each(|byte| *byte = 1);
    std::hint::black_box(&pages);
}

/// Bytes that nobody uses.
fn memory_free() -> Result<usize> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemFree:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: usize = kib.context("no MemFree")?.parse()?;
    Ok(kib << 10)
}

/// What the runs stand on.
pub(super) struct Ground {
    lab: Lab,
    /// Open vSwitch makes devices: here.
    namespace: Namespace,
    perf_lab: PathBuf,
    generator: PathBuf,
    wake: PathBuf,
    huge_pages_before: String,
    /// None if the machine gives no pages back.
    reported_before: Option<String>,
}

/// What it takes to wake a thread.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Woken {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// Compiles one of our programs into the lab's folder.
fn compile(perf_lab: &Path, lab: &Lab, name: &str, flags: &[&str]) -> Result<PathBuf> {
    let program = lab.directory().join(name);
    let source = perf_lab.join(format!("programs/{name}.c"));
    let compiled = Command::new("gcc")
        .args(["-O3", "-march=native"])
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .args(flags)
        .output()?;
    ensure!(
        compiled.status.success(),
        "gcc {}: {}",
        source.display(),
        String::from_utf8_lossy(&compiled.stderr)
    );
    Ok(program)
}

/// What DPDK leaves behind holds the pages.
fn leftovers_delete() {
    let files = std::fs::read_dir("/dev/hugepages");
    for file in files.into_iter().flatten().flatten() {
        if file.file_name().to_string_lossy().starts_with("weft-lab") {
            let _gone = std::fs::remove_file(file.path());
        }
    }
}

impl Ground {
    /// Installs what is missing, compiles the generator, and takes huge pages until dropped.
    pub(super) fn new(perf_lab: &Path) -> Result<Self> {
        let installed = Command::new(perf_lab.join("peers/install.sh"))
            .arg("user")
            .stdout(Stdio::null())
            .status()?;
        ensure!(installed.success(), "peers/install.sh: {installed}");
        let lab = Lab::new("weft-user-bars")?;
        let namespace = lab.namespace("switch")?;
        namespace.run("ip link set lo up")?;
        let flags = Command::new("pkg-config")
            .args(["--cflags", "--libs", "libdpdk"])
            .output()?;
        let flags = String::from_utf8(flags.stdout)?;
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let generator = compile(perf_lab, &lab, "generator", &flags)?;
        let wake = compile(perf_lab, &lab, "wake", &["-pthread"])?;
        let huge_pages_before = std::fs::read_to_string(HUGE_PAGES_FILE)?;
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        if !mounts.lines().any(|line| line.contains(" hugetlbfs ")) {
            std::fs::create_dir_all("/dev/hugepages")?;
            let mount = ["-t", "hugetlbfs", "hugetlbfs", "/dev/hugepages"];
            let mounted = Command::new("mount").args(mount).status()?;
            ensure!(mounted.success(), "mount hugetlbfs: {mounted}");
        }
        // A host's memory is its own. So is this machine's until the end: what is free is backed by its host now, and not given back.
        let free = memory_free()?.saturating_sub(UNTOUCHED_BYTES);
        let reported_before = std::fs::read_to_string(REPORTED_FILE).ok();
        if reported_before.is_some() {
            std::fs::write(REPORTED_FILE, NONE_REPORTED).context(REPORTED_FILE)?;
            memory_touch(free.min(TOUCHED_BYTES_MAX));
        }
        Ok(Self {
            lab,
            namespace,
            perf_lab: perf_lab.to_owned(),
            generator,
            wake,
            huge_pages_before,
            reported_before,
        })
    }

    /// Makes the machine the same for whoever is started next: what DPDK has left behind goes, the huge pages are there, and memory is
    /// the machine's.
    fn make_ready(&self) -> Result<()> {
        leftovers_delete();
        // In use or not, so many are kept until the end; what was free before may be in pieces by now.
        for tries in 0.. {
            let have: usize = std::fs::read_to_string(HUGE_PAGES_FILE)?.trim().parse()?;
            if have >= HUGE_PAGES {
                break;
            }
            ensure!(
                tries < HUGE_PAGES_TRIES,
                "the kernel gave {have} of {HUGE_PAGES} huge pages: its memory is in use, or in pieces"
            );
            std::fs::write("/proc/sys/vm/drop_caches", "3")?;
            std::fs::write("/proc/sys/vm/compact_memory", "1")?;
            std::fs::write(HUGE_PAGES_FILE, HUGE_PAGES.to_string())?;
        }
        memory_touch(TOUCHED_BYTES);
        Ok(())
    }

    /// Wakes a thread that sleeps on an eventfd, so many times a second.
    pub(super) fn wake(&self, rate: u32) -> Result<Woken> {
        let output = Command::new(&self.wake)
            .args([GENERATOR_CPU, SWITCH_CPU].map(|cpu| cpu.to_string()))
            .args([rate, WAKE_SECONDS * rate].map(|number| number.to_string()))
            .output()?;
        ensure!(
            output.status.success(),
            "wake: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn socket(&self, port: usize) -> PathBuf {
        self.lab.directory().join(format!("{port}.sock"))
    }

    /// `weft run` on a snapshot, with sockets of these names.
    fn weft(&self, snapshot: &str, rules: u16, sockets: &[&str]) -> Result<Command> {
        let path = self.perf_lab.join("snapshots").join(snapshot);
        let mut value: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        rules_add(&mut value, rules).with_context(|| path.display().to_string())?;
        let limits =
            format!("sessions_max = {SESSIONS_MAX}\nsessions_per_port_max = {SESSIONS_MAX}\n");
        let mut command = self.weft_on(&value, &limits)?;
        for (at, port) in sockets.iter().enumerate() {
            let socket = format!("{port}={}", self.socket(at).display());
            command.args(["--socket", &socket]);
        }
        Ok(command)
    }

    /// `weft run` on so many ports, with the limits that hosts have by default.
    fn weft_ports(&self, ports: u16) -> Result<Command> {
        let path = self.perf_lab.join("snapshots/two-ports-policy.json");
        let mut value: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let all = value["ports"].as_object_mut().context("no ports")?;
        let first = all.values().next().cloned().context("no port")?;
        all.clear();
        for number in 0..ports {
            let mut port = first.clone();
            port["mac_address"] = json!(format!("02:00:00:00:01:{number:02x}"));
            port["fixed_ips"][0]["ip_address"] = json!(format!("10.0.0.{}", number + 1));
            port["dns_name"] = json!(format!("vm{number}"));
            port["interface"]["socket"] = json!(self.socket(number.into()));
            all.insert(format!("00000005-0000-4000-8000-{number:012}"), port);
        }
        let mut command = self.weft_on(&value, "")?;
        // One is named, so that the switch runs alone; the others' sockets are in the snapshot.
        command.args(["--socket", &format!("vm0={}", self.socket(0).display())]);
        Ok(command)
    }

    fn weft_on(&self, snapshot: &Value, limits: &str) -> Result<Command> {
        let folder = self.lab.directory();
        let (ours, config) = (folder.join("snapshot.json"), folder.join("weft.toml"));
        std::fs::write(&ours, serde_json::to_vec(snapshot)?)?;
        std::fs::write(&config, format!("[agent]\n{limits}"))?;
        let binary = std::env::current_exe()?.with_file_name("weft");
        let mut command = Command::new(binary);
        command
            .arg("run")
            .arg("--config")
            .arg(config)
            .arg("--snapshot")
            .arg(ours);
        command.args(["--cpu", &SWITCH_CPU.to_string()]);
        Ok(command)
    }

    fn peer(&self, script: &str) -> Command {
        let path = self.perf_lab.join("peers").join(script);
        let mut command = self.namespace.command(&path.to_string_lossy());
        command
            .arg(self.lab.directory())
            .arg(SWITCH_CPU.to_string());
        command
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        leftovers_delete();
        let _refused = std::fs::write(HUGE_PAGES_FILE, self.huge_pages_before.trim());
        if let Some(before) = &self.reported_before {
            let _refused = std::fs::write(REPORTED_FILE, before.trim());
        }
    }
}

/// Adds so many rules that allow other ports to the snapshot's group.
fn rules_add(snapshot: &mut Value, rules: u16) -> Result<()> {
    let group = snapshot["security_groups"].as_object();
    let group = group.and_then(|groups| groups.keys().next()).cloned();
    for number in 1..=rules {
        let group = group.as_ref().context("the snapshot has no group")?;
        let id = format!("00000007-0000-4000-8000-{number:012}");
        let rule = json!({
            "security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "remote": "any",
            "protocol": 6, "port_range": { "first": number, "last": number },
        });
        snapshot["security_group_rules"][id] = rule;
    }
    Ok(())
}

/// A switch that runs.
pub(super) struct Running<'a> {
    ground: &'a Ground,
    process: Process,
    /// Whether the generator listens, and the switch dials.
    dials: bool,
    /// Ports that front-ends of our own are on, in place of the generator's guests.
    ports: usize,
    _no_halt: Option<NoHalt>,
}

/// A CPU that looks on where it would halt, until dropped: the kernel's PM QoS, by which no time to wake is accepted.
struct NoHalt {
    file: PathBuf,
    before: String,
}

impl NoHalt {
    fn new(cpu: usize) -> Result<Self> {
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us");
        let before = std::fs::read_to_string(&file).with_context(|| file.clone())?;
        std::fs::write(&file, "n/a").with_context(|| file.clone())?;
        Ok(Self {
            file: file.into(),
            before,
        })
    }
}

impl Drop for NoHalt {
    fn drop(&mut self) {
        let _refused = std::fs::write(&self.file, self.before.trim());
    }
}

/// The generator's answer.
#[derive(Deserialize)]
struct Answer {
    mpps: Vec<f64>,
    received: u64,
    wrong: u64,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
}

impl<'a> Running<'a> {
    pub(super) fn start(ground: &'a Ground, system: &System) -> Result<Self> {
        let folder = ground.lab.directory();
        ground.make_ready()?;
        for file in std::fs::read_dir(folder)?.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if name.ends_with(".sock") || name == "ready" {
                std::fs::remove_file(file.path())?;
            }
        }
        let no_halt = system.no_halt.then(|| NoHalt::new(SWITCH_CPU));
        let no_halt = no_halt.transpose()?;
        let last;
        let (mut command, ready, dials) = match &system.kind {
            Kind::Weft {
                snapshot,
                rules,
                underlay,
            } => {
                let second = if *underlay { "underlay" } else { "vm1" };
                let command = ground.weft(snapshot, *rules, &["vm0", second])?;
                (command, "1.sock", false)
            }
            Kind::WeftPorts { ports } => {
                let command = ground.weft_ports(*ports)?;
                last = format!("{}.sock", ports.saturating_sub(1));
                (command, last.as_str(), false)
            }
            Kind::Testpmd => (ground.peer("testpmd.sh"), "1.sock", false),
            Kind::Ovs { policy } => {
                // Its database is made anew.
                let _none = std::fs::remove_dir_all(folder.join("ovs"));
                let mut command = ground.peer("ovs.sh");
                command.arg(policy);
                (command, "ready", true)
            }
        };
        let log = std::fs::File::create(folder.join("switch.log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut process = ground.lab.spawn(&mut command)?;
        clock::until(
            &format!("{} to be ready", system.name),
            READY_TIMEOUT,
            || {
                ensure!(process.is_running()?, "{} has ended", system.name);
                Ok(folder.join(ready).exists().then_some(()))
            },
        )
        .with_context(|| {
            // OVS has a log of its own.
            let logs = ["switch.log", "ovs/switch.log"].map(|log| folder.join(log));
            logs.map(|log| std::fs::read_to_string(log).unwrap_or_default())
                .concat()
        })?;
        Ok(Self {
            ground,
            process,
            _no_halt: no_halt,
            dials,
            ports: match system.kind {
                Kind::WeftPorts { ports } => usize::from(ports),
                _ => 0,
            },
        })
    }

    pub(super) fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        // testpmd ends with an error when it is told to; nothing is measured any more.
        self.process.wait(STOP_TIMEOUT)?;
        Ok(())
    }

    /// The switch's process and its children: a peer is started by a script.
    fn processes(&self) -> Vec<u32> {
        let mut all = vec![self.process.id()];
        let mut at = 0;
        while let Some(id) = all.get(at) {
            let path = format!("/proc/{id}/task/{id}/children");
            let children = std::fs::read_to_string(path).unwrap_or_default();
            all.extend(
                children
                    .split_whitespace()
                    .filter_map(|id| id.parse::<u32>().ok()),
            );
            at += 1;
        }
        all
    }

    /// The threads that poll.
    fn polling(&self) -> Vec<String> {
        let tasks = self.processes().into_iter().flat_map(|id| {
            let tasks = std::fs::read_dir(format!("/proc/{id}/task"));
            tasks.into_iter().flatten().flatten()
        });
        tasks
            .filter(|task| {
                let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
                POLLING.iter().any(|polling| name.starts_with(polling))
            })
            .map(|task| task.file_name().to_string_lossy().into_owned())
            .collect()
    }

    fn generator(&self, words: &[String]) -> Result<Child> {
        let role = if self.dials { ",server=1" } else { "" };
        let mut command = Command::new(&self.ground.generator);
        command
            .args(["-l", &GENERATOR_CPU.to_string()])
            .args([
                "--no-pci",
                "--file-prefix=weft-lab-generator",
                "--no-telemetry",
                "--log-level=3",
            ])
            .args(["-m", "512", "--single-file-segments"]);
        for port in 0..2 {
            command.arg(format!(
                "--vdev=net_virtio_user{port},path={},queues=1,queue_size=1024{role},mac=02:00:00:00:00:0{}",
                self.ground.socket(port).display(),
                port + 1
            ));
        }
        command.arg("--").args(words);
        command.args(self.polling().iter().map(|id| format!("boost={id}")));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command.spawn()?)
    }

    /// Puts a load on it.
    pub(super) fn measure(&mut self, words: &[String]) -> Result<Figures> {
        if self.ports > 0 {
            return self.measure_idle();
        }
        let child = self.generator(words)?;
        let mut figures = Figures::new();
        if words.iter().any(|word| word == "rate=1") {
            figures.insert(Figure::CpuPercent, self.idle_percent()?);
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("the generator: {}", String::from_utf8_lossy(&output.stderr));
        }
        let answer: Answer = serde_json::from_slice(&output.stdout)?;
        ensure!(answer.received > 0, "nothing came through");
        ensure!(
            answer.wrong == 0,
            "{} frames were not what was sent",
            answer.wrong
        );
        figures.insert(Figure::Mpps, quantile(&answer.mpps, 0.5));
        for (figure, value) in [
            (Figure::P50Us, answer.p50_us),
            (Figure::P99Us, answer.p99_us),
        ] {
            if let Some(value) = value {
                figures.insert(figure, value);
            }
        }
        figures.insert(Figure::MemoryMib, self.memory_mib()?);
        Ok(figures)
    }

    /// Its memory while all its ports have a front-end, and rings, and nothing to do.
    fn measure_idle(&self) -> Result<Figures> {
        let mut guests = Vec::new();
        for port in 0..self.ports {
            let mut guest = Frontend::new(FrontendConfig {
                features: feature::VERSION_1 | feature::NET_MERGEABLE,
                pairs: 1,
                ring_size: RING_SIZE,
                inflight: false,
                buffer_bytes: GUEST_BYTES,
            })?;
            guest.connect(&self.ground.socket(port))?;
            for number in 0..RING_SIZE {
                let buffer = Buffer {
                    address: guest.buffers() + u64::from(number) * BUFFER_BYTES,
                    bytes: u32::try_from(BUFFER_BYTES)?,
                    write: true,
                };
                guest.offer(0, buffer)?;
            }
            guests.push(guest);
        }
        clock::pause(QUIET_AFTER);
        Ok(Figures::from([(Figure::MemoryMib, self.memory_mib()?)]))
    }

    /// Memory of its own: what it shares with the guests is in files.
    fn memory_mib(&self) -> Result<f64> {
        let mut kib = 0.0;
        for id in self.processes() {
            let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("RssAnon:"));
            let number = line.and_then(|line| line.split_whitespace().next());
            kib += number.context("no RssAnon")?.parse::<f64>()?;
        }
        Ok(kib / 1024.0)
    }

    /// The share of a core that it takes while its guests are silent.
    fn idle_percent(&self) -> Result<f64> {
        clock::pause(QUIET_AFTER);
        let before = self.cpu_ns()?;
        clock::pause(IDLE);
        let used = self.cpu_ns()?.saturating_sub(before);
        Ok(Duration::from_nanos(used).as_secs_f64() / IDLE.as_secs_f64() * 100.0)
    }

    /// Time that its polling threads ran.
    fn cpu_ns(&self) -> Result<u64> {
        let id = self.process.id();
        let mut sum = 0;
        for task in self.polling() {
            let text = std::fs::read_to_string(format!("/proc/{id}/task/{task}/schedstat"))?;
            let ran = text.split_whitespace().next().context("empty schedstat")?;
            sum += ran.parse::<u64>()?;
        }
        Ok(sum)
    }
}
