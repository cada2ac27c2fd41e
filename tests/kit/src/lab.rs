//! A lab: the namespaces, processes and pins of one run, and their removal.
//!
//! Names are `<name>-<pid>-<number>`, so that runs beside each other never meet, and so that a run whose process is
//! gone can be told and swept. A lab removes its things when it is dropped and at SIGINT, SIGTERM and SIGHUP.

use crate::clock::until;
use crate::command::{outcome, run};
use crate::namespace::Namespace;
use anyhow::{Context, Result, bail};
use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, kill_process_group, test_kill_process, waitpid,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

/// Where `ip netns` keeps its names.
const NETNS_DIR: &str = "/run/netns";
/// Where Weft pins, unless told otherwise; one directory an instance.
pub const PINS_DIR: &str = "/sys/fs/bpf/weft";
/// How long a process may take to end before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

static LABS: Mutex<Vec<Weak<Mutex<Things>>>> = Mutex::new(Vec::new());
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// What a run has made and must remove.
#[derive(Debug, Default)]
struct Things {
    run: String,
    namespaces: Vec<String>,
    processes: Vec<u32>,
    /// Set once the things are gone: nothing may be added any more.
    closed: bool,
}

/// One run's things. See the module's text.
#[derive(Debug)]
pub struct Lab {
    run: String,
    directory: tempfile::TempDir,
    things: Arc<Mutex<Things>>,
}

impl Lab {
    /// A fresh lab. First removes what dead runs of the same name left.
    ///
    /// # Errors
    /// Not root, or the system refuses.
    pub fn new(name: &str) -> Result<Self> {
        if !rustix::process::getuid().is_root() {
            bail!("network namespaces and eBPF need root: run this as root");
        }
        sweep(name)?;
        watch_signals()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let run = format!("{name}-{}-{number}", std::process::id());
        let directory = tempfile::Builder::new()
            .prefix(&format!("{run}."))
            .tempdir()?;
        let things = Things {
            run: run.clone(),
            ..Things::default()
        };
        let things = Arc::new(Mutex::new(things));
        lock(&LABS).push(Arc::downgrade(&things));
        Ok(Self {
            run,
            directory,
            things,
        })
    }

    /// The run's unique name: prefix of namespaces, name of the Weft instance.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// A directory for the run's files; goes with the lab.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Makes a namespace, with its loopback up.
    ///
    /// # Errors
    /// The name is taken, or the lab is closed.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        let full = format!("{}-{name}", self.run);
        let mut things = lock(&self.things);
        if things.closed {
            bail!("the lab {} is closed", self.run);
        }
        run(&format!("ip netns add {full}"))?;
        things.namespaces.push(full.clone());
        drop(things);
        let namespace = Namespace::new(full);
        namespace.run("ip link set lo up")?;
        Ok(namespace)
    }

    /// Joins two namespaces by a veth pair, both ends up.
    ///
    /// # Errors
    /// The system refuses, for example because a name is taken.
    pub fn veth(&self, a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<()> {
        let (a_ns, a_name) = a;
        let (b_ns, b_name) = b;
        a_ns.run(&format!(
            "ip link add {a_name} type veth peer name {b_name} netns {}",
            b_ns.name()
        ))?;
        a_ns.run(&format!("ip link set {a_name} up"))?;
        b_ns.run(&format!("ip link set {b_name} up"))?;
        Ok(())
    }

    /// Starts a program in the background; the lab ends it at the latest when it goes itself.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Process> {
        let mut things = lock(&self.things);
        if things.closed {
            bail!("the lab {} is closed", self.run);
        }
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        things.processes.push(child.id());
        drop(things);
        Ok(Process {
            child,
            things: Arc::clone(&self.things),
        })
    }

    /// Removes all of it now, and says what could not be removed.
    ///
    /// # Errors
    /// Something is still there.
    pub fn close(self) -> Result<()> {
        close(&mut lock(&self.things))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = close(&mut lock(&self.things)) {
            eprintln!("weft-kit: {error:#}");
        }
    }
}

/// A program of the lab that runs in the background.
#[derive(Debug)]
pub struct Process {
    child: Child,
    things: Arc<Mutex<Things>>,
}

impl Process {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its pipes, if it was given any.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The system does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(pid(self.child.id())?, signal).context("cannot signal the process")
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn wait(&mut self, timeout: Duration) -> Result<std::process::ExitStatus> {
        until("the end of a process", timeout, || {
            Ok(self.child.try_wait()?)
        })
    }

    /// Asks it to end by `signal` and waits.
    ///
    /// # Errors
    /// It does not end in time: then it is killed.
    pub fn stop(mut self, signal: Signal) -> Result<std::process::ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(signal)?;
        self.wait(STOP_TIMEOUT)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let id = self.child.id();
        if matches!(self.child.try_wait(), Ok(None)) {
            // Nothing is lost if it ended in between.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        lock(&self.things).processes.retain(|other| *other != id);
    }
}

/// Removes what a run made: processes, then namespaces (their devices go with them), then pins.
fn close(things: &mut Things) -> Result<()> {
    things.closed = true;
    let mut failures = Vec::new();
    for id in things.processes.drain(..) {
        if let Err(error) = end(id) {
            failures.push(format!("process {id}: {error:#}"));
        }
    }
    for name in things.namespaces.drain(..) {
        if let Err(error) = namespace_remove(&name) {
            failures.push(format!("{error:#}"));
        }
    }
    if !things.run.is_empty()
        && let Err(error) = pins_remove(&things.run)
    {
        failures.push(format!("{error:#}"));
    }
    if failures.is_empty() {
        Ok(())
    } else {
        bail!("left behind: {}", failures.join("; "))
    }
}

/// Asks a process of the lab to end, and kills it if it does not listen.
fn end(id: u32) -> Result<()> {
    let pid = pid(id)?;
    if kill_process(pid, Signal::TERM).is_err() {
        return Ok(());
    }
    let ended = until("its end", STOP_TIMEOUT, || Ok(is_gone(id).then_some(())));
    if ended.is_err() {
        // It may have ended just now.
        let _ = kill_process_group(pid, Signal::KILL);
        until("its end by force", STOP_TIMEOUT, || {
            Ok(is_gone(id).then_some(()))
        })?;
    }
    // Nothing of it remains in the process table either, if it was a child of ours; another's is not ours to wait for.
    // The first thread may be a zombie while others are still ending: only then is there something to wait for.
    until("its last thread's end", STOP_TIMEOUT, || {
        let waited = waitpid(Some(pid), WaitOptions::NOHANG);
        Ok((!matches!(waited, Ok(None))).then_some(()))
    })
}

/// Whether a process is gone or a zombie.
fn is_gone(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit(')')
                .next()
                .map(|rest| rest.trim_start().starts_with('Z'))
        })
        .unwrap_or(true)
}

fn namespace_remove(name: &str) -> Result<()> {
    // Whoever runs inside a namespace of ours is ours.
    for word in run(&format!("ip netns pids {name}"))?.split_whitespace() {
        if let Ok(id) = word.parse::<u32>()
            && id != std::process::id()
        {
            end(id)?;
        }
    }
    run(&format!("ip netns del {name}")).map(drop)
}

fn pins_remove(run: &str) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(PINS_DIR) else {
        return Ok(());
    };
    // A lab of several hosts has an instance for each: `<run>-<host>`.
    let hosts = format!("{run}-");
    for entry in entries {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let name = name.to_string_lossy();
        if name == run || name.starts_with(&hosts) {
            std::fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Removes what runs of this name left whose process is gone.
///
/// # Errors
/// The system refuses to remove.
pub fn sweep(name: &str) -> Result<()> {
    let mut runs = Vec::new();
    for directory in [NETNS_DIR, PINS_DIR] {
        let Ok(entries) = std::fs::read_dir(directory) else {
            continue;
        };
        for entry in entries {
            let file = entry?.file_name().to_string_lossy().into_owned();
            if let Some(run) = dead_run(name, &file) {
                if directory == NETNS_DIR {
                    namespace_remove(&file)?;
                }
                runs.push(run);
            }
        }
    }
    for run in runs {
        pins_remove(&run)?;
        directories_remove(&run)?;
    }
    bpffs_sweep()
}

/// Removes the bpffs that killed tests of the engines left: `<temporary folder>/weft-engines-<pid>-…` or `weft-ebpf-<pid>-…`.
fn bpffs_sweep() -> Result<()> {
    for entry in std::fs::read_dir(std::env::temp_dir())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let rest = ["weft-engines-", "weft-ebpf-"];
        let Some(rest) = rest.iter().find_map(|prefix| name.strip_prefix(prefix)) else {
            continue;
        };
        let Ok(id) = rest.split('-').next().unwrap_or_default().parse::<u32>() else {
            continue;
        };
        if test_kill_process(pid(id)?).is_err() {
            // Not mounted, or swept by another run just now.
            let _ = rustix::mount::unmount(entry.path(), rustix::mount::UnmountFlags::DETACH);
            let _ = std::fs::remove_dir(entry.path());
        }
    }
    Ok(())
}

fn directories_remove(run: &str) -> Result<()> {
    for entry in std::fs::read_dir(std::env::temp_dir())? {
        let entry = entry?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("{run}."))
        {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The run `<name>-<pid>-<number>` that a file's name begins with, if its process is gone.
fn dead_run(name: &str, file: &str) -> Option<String> {
    let mut words = file.strip_prefix(name)?.strip_prefix('-')?.split('-');
    let id: u32 = words.next()?.parse().ok()?;
    let number: u32 = words.next()?.parse().ok()?;
    let alive = test_kill_process(pid(id).ok()?).is_ok();
    (!alive).then(|| format!("{name}-{id}-{number}"))
}

fn pid(id: u32) -> Result<Pid> {
    Pid::from_raw(i32::try_from(id)?).context("not a process id")
}

/// Removes everything at a signal, then ends the process with the status that shells expect.
fn watch_signals() -> Result<()> {
    static WATCHED: OnceLock<()> = OnceLock::new();
    if WATCHED.set(()).is_err() {
        return Ok(());
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                eprintln!("\nweft-kit: signal {signal}: removing everything");
                end_all(128 + signal);
            }
        })?;
    Ok(())
}

#[allow(
    clippy::disallowed_methods,
    reason = "at a signal the main thread may be anywhere; everything was removed just before"
)]
fn end_all(status: i32) -> ! {
    let labs: Vec<_> = lock(&LABS).iter().filter_map(Weak::upgrade).collect();
    let mut status = status;
    for things in labs {
        let mut things = lock(&things);
        let run = things.run.clone();
        let closed = close(&mut things).and_then(|()| directories_remove(&run));
        if let Err(error) = closed {
            eprintln!("weft-kit: {error:#}");
            status = 1;
        }
        // Kept locked: the main thread must not add anything to what was just removed.
        std::mem::forget(things);
    }
    std::process::exit(status)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a namespace of this name is there.
#[must_use]
pub fn namespace_exists(name: &str) -> bool {
    Path::new(NETNS_DIR).join(name).exists()
}

/// The output of a program in any state, for reports; empty if it cannot be run.
#[must_use]
pub fn glance(line: &str) -> String {
    let mut words = line.split_whitespace();
    let Some(program) = words.next() else {
        return String::new();
    };
    outcome(Command::new(program).args(words))
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}
