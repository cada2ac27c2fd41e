//! A switch from outside: what starts its workers, gives them orders and asks the engine.

use super::counters::PortCounters;
use super::spread::Share;
use super::way::WayOut;
use super::{HandOver, Order, Seat, Tap, Worker};
use crate::carry::Keeping;
use crate::clock;
use crate::engine::{Compiler, Engine, EngineConfig, Prepared};
use crate::memory::{Handle, Keeper};
use crate::queue::PortQueues;
use rustix::event::EventfdFlags;
use rustix::fd::OwnedFd;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use weft_dataplane::Ingress;
use weft_model::limits::SWITCH_WORKERS_MAX;
use weft_model::{HostSnapshot, MacAddress, PortId};

/// How a switch is set up.
pub struct SwitchConfig {
    /// Its engine.
    pub engine: EngineConfig,
    /// The CPUs that it polls on, one worker each; without any there is one worker, and it runs anywhere.
    pub cpus: Vec<usize>,
    /// Who serves guests, if anybody does.
    pub hand_over: Option<HandOver>,
    /// Whether the host has another engine for what does not stay between vhost-user ports.
    pub shared: bool,
    /// Where sessions are kept for the switch that comes after, if they are.
    pub sessions_file: Option<PathBuf>,
}

/// Why a switch does not start.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// There is no such CPU, or it is not ours.
    #[error("CPU {cpu}: cannot run there; expected one of the CPUs that this process may use")]
    Cpu {
        /// Which one.
        cpu: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// One CPU is named twice, or there are too many.
    #[error("expected up to {SWITCH_WORKERS_MAX} different CPUs to poll on, found {0:?}")]
    Cpus(Vec<usize>),
    /// The kernel refused a thread or a descriptor.
    #[error("cannot start the switch's thread")]
    Thread(#[from] io::Error),
}

/// A worker's thread.
#[derive(Debug)]
struct Running {
    orders: Sender<Order>,
    bell: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn order(&self, order: Order) {
        // The thread ends only by an order to stop, after which nothing matters.
        let _stopped = self.orders.send(order);
        super::ring(&self.bell);
    }
}

/// A switch, from outside.
#[derive(Debug)]
pub struct Switch {
    /// Makes memory ready for sessions to come.
    _keeper: Keeper,
    workers: Vec<Running>,
    compiler: Mutex<Compiling>,
    /// Ports and ways out that were given to the workers so far.
    given: [AtomicUsize; 2],
}

/// What snapshots are prepared with, by whoever applies them.
#[derive(Debug)]
struct Compiling {
    compiler: Compiler,
    /// The last two: the worker lets go of one that is still here, and does not have to free it.
    kept: [Option<Prepared>; 2],
}

/// The file of sessions, if there is to be one and can be.
fn keeping(config: &SwitchConfig) -> Option<Keeping> {
    let path = config.sessions_file.as_ref()?;
    let limits = config.engine.limits;
    let salt = config.engine.seeds.salt();
    Keeping::start(path, limits.sessions_max, salt)
        .inspect_err(|error| {
            tracing::warn!(
                "sessions are not kept in {} for the switch that comes after: {error}",
                path.display()
            );
        })
        .ok()
}

fn bell() -> io::Result<Arc<OwnedFd>> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    Ok(Arc::new(rustix::event::eventfd(0, flags)?))
}

/// Whether a switch could poll on these CPUs: tried by a thread that goes there.
///
/// # Errors
/// One is none, or not ours; they are not different, or too many.
pub fn cpus_check(cpus: &[usize]) -> Result<(), SwitchError> {
    let mut different = cpus.to_vec();
    different.sort_unstable();
    different.dedup();
    if cpus.len() > SWITCH_WORKERS_MAX || different.len() < cpus.len() {
        return Err(SwitchError::Cpus(cpus.to_vec()));
    }
    let visit = || -> Result<(), SwitchError> {
        for cpu in cpus.iter().copied() {
            pin(cpu).map_err(|source| SwitchError::Cpu { cpu, source })?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, visit)?;
        let panicked = |_| io::Error::other("the thread ended before it had tried");
        thread.join().map_err(panicked)?
    })
}

impl Switch {
    /// Starts the threads.
    ///
    /// # Errors
    /// The kernel refused, or a CPU is none: see [`cpus_check`].
    pub fn start(config: &SwitchConfig) -> Result<Self, SwitchError> {
        cpus_check(&config.cpus)?;
        let mut cpus: Vec<Option<usize>> = config.cpus.iter().copied().map(Some).collect();
        if cpus.is_empty() {
            cpus.push(None);
        }
        Self::start_on(config, &cpus)
    }

    /// Starts a thread for each of these, on the CPU if it is one.
    pub(super) fn start_on(
        config: &SwitchConfig,
        cpus: &[Option<usize>],
    ) -> Result<Self, SwitchError> {
        let count = cpus.len();
        let mut engine = Engine::new(config.engine);
        if config.shared {
            engine.share();
        }
        if count > 1 {
            engine.accompany();
        }
        let mut keeping = keeping(config);
        if let Some(keeping) = &keeping {
            engine.changes_remember(keeping.memory());
        }
        let bells: Vec<_> = (0..count).map(|_| bell()).collect::<Result<_, _>>()?;
        // Sessions that are taken over have their seconds from another process.
        let start = clock::machine_start();
        let mut switch = Self {
            _keeper: Keeper::start(Arc::clone(engine.ahead()))?,
            workers: Vec::new(),
            compiler: Mutex::new(Compiling {
                compiler: Compiler::new(config.engine.seeds),
                kept: [None, None],
            }),
            given: [AtomicUsize::new(0), AtomicUsize::new(0)],
        };
        for (number, engine) in Handle::all(engine, count).into_iter().enumerate() {
            let seat = Seat {
                number,
                start,
                bells: bells.clone(),
            };
            let (sender, orders) = channel();
            let mut worker = Worker::new(seat, engine, orders);
            worker.hand_over = config.hand_over.clone();
            worker.keeping = keeping.take();
            if config.shared {
                worker.share()?;
            }
            let cpu = cpus.get(number).copied().flatten();
            let running = spawn(worker, sender, cpu)?;
            switch.workers.push(running);
        }
        Ok(switch)
    }

    /// An order to one worker.
    fn order(&self, worker: usize, order: Order) {
        if let Some(worker) = self.workers.get(worker) {
            worker.order(order);
        }
    }

    /// An order to all.
    fn order_all(&self, order: impl Fn(usize) -> Order) {
        for (number, worker) in self.workers.iter().enumerate() {
            worker.order(order(number));
        }
    }

    /// Whose turn it is, of the workers.
    fn turn(&self, given: usize) -> usize {
        let given = self.given.get(given);
        given.map_or(0, |given| given.fetch_add(1, Ordering::Relaxed))
    }

    /// Enforces a snapshot, which must be valid. It is compiled here, in the caller's thread, while packets go on by the last
    /// one.
    pub fn apply(&self, snapshot: &Arc<HostSnapshot>) {
        // A compiler that panicked is one whose numbers were given out or were not: both are whole.
        let mut compiling = self.compiler.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = compiling.compiler.prepare(snapshot);
        let [_, last] = &mut compiling.kept;
        let last = last.take();
        compiling.kept = [last, Some(prepared.clone())];
        // Under the lock, so that they arrive in their order.
        self.order(0, Order::Apply(Box::new(prepared)));
    }

    /// Polls a port, and gives what is counted of it.
    pub fn port_add(&self, id: PortId, queues: &Arc<PortQueues>) -> Arc<PortCounters> {
        self.port_spread(id, queues).0
    }

    /// The same, and who polls which of its queues.
    pub(super) fn port_spread(
        &self,
        id: PortId,
        queues: &Arc<PortQueues>,
    ) -> (Arc<PortCounters>, Arc<Share>) {
        self.add(Ingress::Port(id), queues)
    }

    /// Polls the port that leads to other hosts, on which the switch has this MAC address, and gives what is counted of it.
    pub fn underlay_add(&self, mac: MacAddress, queues: &Arc<PortQueues>) -> Arc<PortCounters> {
        // Nobody asks: the answer is that it was done.
        let _done = self.ask(move |engine| engine.link_use(mac));
        self.add(Ingress::Underlay, queues).0
    }

    fn add(&self, ingress: Ingress, queues: &Arc<PortQueues>) -> (Arc<PortCounters>, Arc<Share>) {
        let bells: Vec<_> = self.workers.iter().map(|w| Arc::clone(&w.bell)).collect();
        queues.bells_use(&bells);
        let count = self.workers.len();
        let counters = Arc::new(PortCounters::new(count));
        let share = Arc::new(Share::new(self.turn(0), count));
        self.order_all(|_| {
            let (queues, counters) = (Arc::clone(queues), Arc::clone(&counters));
            Order::Add(ingress, queues, counters, Arc::clone(&share))
        });
        (counters, share)
    }

    /// Polls it no longer.
    pub fn port_remove(&self, id: PortId) {
        self.order_all(|_| Order::Remove(id));
    }

    /// Gives a port that is polled its way to the host's other engine: a descriptor that reads and writes whole frames behind
    /// virtio-net's header of 12 bytes, as a tap does, and never waits.
    pub fn way_out(&self, id: PortId, file: OwnedFd) {
        let out = Arc::new(WayOut::new(file));
        let poller = self.turn(1).checked_rem(self.workers.len()).unwrap_or(0);
        self.order_all(|number| Order::WayOut(id, Arc::clone(&out), number == poller));
    }

    /// Sends a frame to a guest.
    pub fn send(&self, id: PortId, frame: Vec<u8>) {
        self.order(0, Order::Send(id, frame));
    }

    /// Shows each frame of a port to `tap`, until `number` is taken away or the port is.
    pub fn tap_add(&self, id: PortId, number: u64, tap: &Tap) {
        self.order_all(|_| Order::Tap(id, number, Arc::clone(tap)));
    }

    /// Shows it no more.
    pub fn tap_remove(&self, number: u64) {
        self.order_all(|_| Order::Untap(number));
    }

    /// Asks the engine something, while no worker uses it; none if the switch has stopped.
    pub fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, answer) = channel();
        let ask = Order::Ask(Box::new(move |engine| {
            // Nobody waits any more: nothing to tell.
            let _gone = sender.send(question(engine));
        }));
        self.order(0, ask);
        answer.recv().ok()
    }
}

/// Starts a worker's thread, and waits until it is where it is to run.
fn spawn(
    mut worker: Worker,
    orders: Sender<Order>,
    cpu: Option<usize>,
) -> Result<Running, SwitchError> {
    let bell = worker.seat.bell();
    let (started, pinned) = channel();
    let thread = std::thread::Builder::new()
        .name(format!("weft-poll-{}", worker.seat.number))
        .spawn(move || {
            let done = cpu.map_or(Ok(()), pin);
            let runs = done.is_ok();
            // Whoever started us waits for this.
            let _gone = started.send(done);
            if runs {
                worker.run();
            }
        })?;
    let pinned = pinned
        .recv()
        .map_err(|_gone| io::Error::other("the thread ended before it began"))?;
    if let (Err(source), Some(cpu)) = (pinned, cpu) {
        return Err(SwitchError::Cpu { cpu, source });
    }
    Ok(Running {
        orders,
        bell,
        thread: Some(thread),
    })
}

fn pin(cpu: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.order_all(|_| Order::Stop);
        for thread in self.workers.iter_mut().filter_map(|w| w.thread.take()) {
            // A thread that panicked has said so itself.
            let _panicked = thread.join();
        }
    }
}
