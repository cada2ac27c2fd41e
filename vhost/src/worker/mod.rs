//! The switch: a thread that polls the guests' rings, judges what they send, and copies each frame once, to where it goes.
//!
//! Guarantees: runs to completion: whatever was taken from a ring was delivered or dropped, with a reason that is counted,
//! before the ring is looked at again. A guest that breaks the rules loses its port and nobody else notices. With nothing
//! to do the thread pauses, then sleeps until a guest kicks.

mod counters;
mod deliver;
#[cfg(test)]
mod dirty_tests;
mod idle;
#[cfg(test)]
mod offload_tests;
mod poll;
#[cfg(test)]
mod scene;
mod tunnel;
#[cfg(test)]
mod tunnel_tests;
mod way;
#[cfg(test)]
mod way_tests;
#[cfg(test)]
mod worker_tests;

pub use counters::{PortCounters, PortTotals};

use crate::clock;
use crate::engine::{Compiler, Engine, EngineConfig, Place, Prepared};
use crate::memory::{Regions, lost_count};
use crate::queue::PortQueues;
use deliver::Room;
use idle::Idle;
use poll::{Batch, From};
use rustix::event::EventfdFlags;
use rustix::fd::OwnedFd;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use way::{WayOut, Ways};
use weft_dataplane::{Copy, Ingress, Service};
use weft_model::{HostSnapshot, MacAddress, PortId};
use weft_wire::virtio_net::Load;

/// Places of the session table that are looked at for idle ones every second.
const EXPIRE_PLACES: usize = 65_536;

/// What a frame is handed over for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// To be answered.
    Service(Service),
    /// A copy, for what it tells.
    Copy(Copy),
}

/// Takes what is for the host's services: a frame, where it came from, and what it is for. It must not wait; false if there is
/// no room.
pub type HandOver = Box<dyn Fn(Ingress, Handed, &[u8]) -> bool + Send>;

/// Which way a frame goes that somebody taps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The guest sent it.
    FromGuest,
    /// It is sent to the guest; one for which it has no room too.
    ToGuest,
}

/// Is shown each frame of a port, whole. It must not wait.
pub type Tap = Box<dyn Fn(Way, &[u8]) + Send>;

/// How a switch is set up.
pub struct SwitchConfig {
    /// Its engine.
    pub engine: EngineConfig,
    /// The CPU that it runs on; none for any.
    pub cpu: Option<usize>,
    /// Who serves guests, if anybody does.
    pub hand_over: Option<HandOver>,
    /// Whether the host has another engine for what does not stay between vhost-user ports.
    pub shared: bool,
}

/// Why a switch does not start.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// There is no such CPU, or it is not ours.
    #[error("--cpu {cpu}: cannot run there; expected one of the CPUs that this process may use")]
    Cpu {
        /// Which one.
        cpu: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a thread or a descriptor.
    #[error("cannot start the switch's thread")]
    Thread(#[from] io::Error),
}

/// A port that the worker polls.
struct WorkerPort {
    ingress: Ingress,
    place: Option<Place>,
    queues: Arc<PortQueues>,
    counters: Arc<PortCounters>,
    /// What `queues.changes()` was when the rest was looked up.
    changes: u64,
    /// The queues that run and come from the guest.
    sending: Vec<usize>,
    /// How many run that go to the guest, from the first one on.
    receiving: usize,
    /// Who looks on, by the numbers that they were given.
    taps: Vec<(u64, Tap)>,
    /// To the other engine and from there.
    way_out: Option<Arc<WayOut>>,
}

type Question = Box<dyn FnOnce(&mut Engine) + Send>;

enum Order {
    Apply(Box<Prepared>),
    Add(PortId, Arc<PortQueues>, Arc<PortCounters>),
    Underlay(MacAddress, Arc<PortQueues>, Arc<PortCounters>),
    Remove(PortId),
    WayOut(PortId, Arc<WayOut>),
    Send(PortId, Vec<u8>),
    Tap(PortId, u64, Tap),
    Untap(u64),
    Ask(Question),
    Stop,
}

/// A switch, from outside.
#[derive(Debug)]
pub struct Switch {
    orders: Sender<Order>,
    bell: Arc<OwnedFd>,
    compiler: Mutex<Compiling>,
    thread: Option<JoinHandle<()>>,
}

/// What snapshots are prepared with, by whoever applies them.
#[derive(Debug)]
struct Compiling {
    compiler: Compiler,
    /// The last two: the worker lets go of one that is still here, and does not have to free it.
    kept: [Option<Prepared>; 2],
}

impl Switch {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel refused, or the CPU is none.
    pub fn start(config: SwitchConfig) -> Result<Self, SwitchError> {
        let (sender, orders) = channel();
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let bell = Arc::new(rustix::event::eventfd(0, flags).map_err(io::Error::from)?);
        let mut worker = Worker::new(config.engine, orders, Arc::clone(&bell));
        worker.hand_over = config.hand_over;
        if config.shared {
            worker.share()?;
        }
        let cpu = config.cpu;
        let (started, pinned) = channel();
        let thread = std::thread::Builder::new()
            .name("weft-poll-0".to_owned())
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
        Ok(Self {
            orders: sender,
            bell,
            compiler: Mutex::new(Compiling {
                compiler: Compiler::new(config.engine.seeds),
                kept: [None, None],
            }),
            thread: Some(thread),
        })
    }

    fn order(&self, order: Order) {
        // The thread ends only by an order to stop, after which nothing matters.
        let _stopped = self.orders.send(order);
        let _full = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
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
        self.order(Order::Apply(Box::new(prepared)));
    }

    /// Polls a port.
    pub fn port_add(&self, id: PortId, queues: Arc<PortQueues>, counters: Arc<PortCounters>) {
        queues.bell_use(&self.bell);
        self.order(Order::Add(id, queues, counters));
    }

    /// Polls the port that leads to other hosts, on which the switch has this MAC address.
    pub fn underlay_add(
        &self,
        mac: MacAddress,
        queues: Arc<PortQueues>,
        counters: Arc<PortCounters>,
    ) {
        queues.bell_use(&self.bell);
        self.order(Order::Underlay(mac, queues, counters));
    }

    /// Polls it no longer.
    pub fn port_remove(&self, id: PortId) {
        self.order(Order::Remove(id));
    }

    /// Gives a port that is polled its way to the host's other engine: a descriptor that reads and writes whole frames behind
    /// virtio-net's header of 12 bytes, as a tap does, and never waits.
    pub fn way_out(&self, id: PortId, file: OwnedFd) {
        self.order(Order::WayOut(id, Arc::new(WayOut::new(file))));
    }

    /// Sends a frame to a guest.
    pub fn send(&self, id: PortId, frame: Vec<u8>) {
        self.order(Order::Send(id, frame));
    }

    /// Shows each frame of a port to `tap`, until `number` is taken away or the port is.
    pub fn tap_add(&self, id: PortId, number: u64, tap: Tap) {
        self.order(Order::Tap(id, number, tap));
    }

    /// Shows it no more.
    pub fn tap_remove(&self, number: u64) {
        self.order(Order::Untap(number));
    }

    /// Asks the engine something, between two batches; none if the switch has stopped.
    pub fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, answer) = channel();
        self.order(Order::Ask(Box::new(move |engine| {
            // Nobody waits any more: nothing to tell.
            let _gone = sender.send(question(engine));
        })));
        answer.recv().ok()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _panicked = thread.join();
        }
    }
}

fn pin(cpu: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// The thread's state.
struct Worker {
    hand_over: Option<HandOver>,
    orders: Receiver<Order>,
    engine: Engine,
    ports: Vec<WorkerPort>,
    /// Ports by place.
    by_place: Vec<Option<usize>>,
    start: Instant,
    /// Taken out while a queue is polled.
    batch: Option<Box<Batch>>,
    idle: Idle,
    /// What waits at the ports' ways out; none if there is no other engine.
    ways: Option<Ways>,
    expired_to: usize,
    expired_s: u32,
    /// What [`lost_count`] was.
    lost: u64,
}

impl Worker {
    fn new(engine: EngineConfig, orders: Receiver<Order>, bell: Arc<OwnedFd>) -> Self {
        Self {
            hand_over: None,
            orders,
            engine: Engine::new(engine),
            ports: Vec::new(),
            by_place: Vec::new(),
            start: clock::now(),
            batch: Some(Box::default()),
            idle: Idle::new(bell),
            ways: None,
            expired_to: 0,
            expired_s: 0,
            lost: 0,
        }
    }

    fn run(&mut self) {
        loop {
            while let Ok(order) = self.orders.try_recv() {
                match order {
                    Order::Apply(prepared) => {
                        self.engine.enforce(*prepared);
                        self.places_look_up();
                    }
                    Order::Add(id, queues, counters) => {
                        self.port_add(Ingress::Port(id), queues, counters);
                    }
                    Order::Underlay(mac, queues, counters) => {
                        self.engine.link_use(mac);
                        self.port_add(Ingress::Underlay, queues, counters);
                    }
                    Order::Remove(id) => {
                        self.ports.retain(|port| port.ingress != Ingress::Port(id));
                        self.places_look_up();
                    }
                    Order::WayOut(id, out) => self.way_out_set(id, out),
                    Order::Send(id, frame) => self.send(id, &frame),
                    Order::Tap(id, number, tap) => {
                        let is_it = |port: &&mut WorkerPort| port.ingress == Ingress::Port(id);
                        if let Some(port) = self.ports.iter_mut().find(is_it) {
                            port.taps.push((number, tap));
                        }
                    }
                    Order::Untap(number) => {
                        for port in &mut self.ports {
                            port.taps.retain(|(have, _)| *have != number);
                        }
                    }
                    Order::Ask(question) => question(&mut self.engine),
                    Order::Stop => return,
                }
            }
            let now = clock::now().duration_since(self.start);
            let frames = self.turn(now);
            if self.idle.spent(frames, now) {
                self.sleep(now);
            }
        }
    }

    /// There is another engine.
    fn share(&mut self) -> io::Result<()> {
        self.engine.share();
        self.ways = Some(Ways::new()?);
        Ok(())
    }

    fn way_out_set(&mut self, id: PortId, out: Arc<WayOut>) {
        let is_it = |port: &&mut WorkerPort| port.ingress == Ingress::Port(id);
        let port = self.ports.iter_mut().find(is_it);
        if let (Some(port), Some(ways)) = (port, &mut self.ways) {
            match ways.add(&out) {
                Ok(()) => port.way_out = Some(out),
                Err(error) => tracing::error!(port = %id, "its way out is not watched: {error}"),
            }
        }
    }

    /// Looks at the ways out, if it is time to, and says how many frames came.
    fn ways_poll(&mut self, now: Duration, now_s: u32) -> usize {
        let ready = match &mut self.ways {
            Some(ways) if ways.is_due(now) => ways.ready(),
            _ => return 0,
        };
        let mut frames = 0;
        for number in ready {
            let is_here = |port: &WorkerPort| {
                let out = port.way_out.as_ref();
                out.is_some_and(|out| out.number() == number)
            };
            if let Some(at) = self.ports.iter().position(is_here) {
                frames += self.way_poll(at, now_s);
            }
        }
        if let Some(ways) = &mut self.ways {
            ways.looked(frames, now);
        }
        frames
    }

    /// Looks at every ring once, and says how many frames came.
    fn turn(&mut self, now: Duration) -> usize {
        let now_s = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        self.engine
            .tick(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
        self.ports.iter_mut().for_each(WorkerPort::look);
        let frames: usize = (0..self.ports.len())
            .map(|at| self.port_poll(at, now_s))
            .sum();
        let frames = frames + self.ways_poll(now, now_s);
        self.expire(now_s);
        self.lost_look();
        frames
    }

    /// Shuts down the ports whose guest's memory is lost, if any was lost since the last look.
    fn lost_look(&mut self) {
        let lost = lost_count();
        if lost == self.lost {
            return;
        }
        self.lost = lost;
        for port in &self.ports {
            let mut queues = (0..port.queues.len()).filter_map(|at| port.queues.lock(at));
            if queues.any(|queue| queue.memory.is_lost()) {
                drop(queues);
                let reason = "the file of the guest's memory was truncated";
                tracing::warn!(port = %port.ingress, "the port is shut down: {reason}");
                port.queues.shut(reason.to_owned());
            }
        }
    }

    fn port_add(&mut self, ingress: Ingress, queues: Arc<PortQueues>, counters: Arc<PortCounters>) {
        self.ports.retain(|port| port.ingress != ingress);
        self.ports.push(WorkerPort {
            ingress,
            place: None,
            queues,
            counters,
            changes: u64::MAX,
            sending: Vec::new(),
            receiving: 0,
            taps: Vec::new(),
            way_out: None,
        });
        self.places_look_up();
    }

    fn places_look_up(&mut self) {
        self.by_place.clear();
        for (at, port) in self.ports.iter_mut().enumerate() {
            port.place = match port.ingress {
                Ingress::Underlay => Some(Place::UNDERLAY),
                ingress => self.engine.place(ingress),
            };
            if let Some(place) = port.place {
                let length = self.by_place.len().max(place.at() + 1);
                self.by_place.resize(length, None);
                if let Some(by_place) = self.by_place.get_mut(place.at()) {
                    *by_place = Some(at);
                }
            }
        }
    }

    /// Looks at a part of the session table every second, so that idle sessions go in time and nothing stands still.
    fn expire(&mut self, now_s: u32) {
        if now_s != self.expired_s {
            self.expired_s = now_s;
            self.expired_to = self.engine.expire(self.expired_to, EXPIRE_PLACES, now_s);
            self.remotes_ask(now_s);
        }
    }

    /// Sends a frame of the host's services to a guest; one that has no room does not get it.
    fn send(&self, id: PortId, frame: &[u8]) {
        let ingress = Ingress::Port(id);
        let at = self.ports.iter().position(|port| port.ingress == ingress);
        let place = at
            .and_then(|at| self.ports.get(at))
            .and_then(|port| port.place);
        if let (Some(port), Some(place)) = (at, place) {
            let from = From {
                port,
                queue: 0,
                memory: &Regions::default(),
                header_bytes: 0,
                now_s: 0,
            };
            self.deliver_own(place, frame, Load::NONE, &mut Room::default(), &from);
        }
    }

    fn sleep(&mut self, now: Duration) {
        for port in &mut self.ports {
            port.look();
        }
        let queues = self.ports.iter().flat_map(|port| {
            let numbers = port.sending.iter();
            numbers.map(|number| (&*port.queues, *number))
        });
        let ways = self.ways.as_ref().map(Ways::file);
        self.idle.sleep(queues, ways, now);
    }
}

impl WorkerPort {
    /// Looks again which queues run, if anything has changed.
    fn look(&mut self) {
        let changes = self.queues.changes();
        if changes == self.changes {
            return;
        }
        self.changes = changes;
        let running = |number: usize| {
            let queue = self.queues.lock(number);
            queue.is_some_and(|queue| queue.enabled && queue.ring.is_some())
        };
        let shut = self.queues.shut_reason().is_some();
        let pairs = 0..self.queues.len() / 2;
        self.sending = (pairs.clone())
            .map(|pair| 2 * pair + 1)
            .filter(|number| !shut && running(*number))
            .collect();
        self.receiving = pairs.take_while(|pair| !shut && running(2 * pair)).count();
    }
}
