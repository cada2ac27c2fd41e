//! The switch: workers that poll the guests' rings, judge what they send, and copy each frame once, to where it goes.
//!
//! Guarantees: runs to completion: whatever was taken from a ring was delivered or dropped, with a reason that is counted,
//! before the ring is looked at again. A guest that breaks the rules loses its port and nobody else notices. With nothing
//! to do a worker pauses, then sleeps until a guest kicks.
//!
//! Each queue that a guest sends on is one worker's at a time (`spread`). All workers share one engine, and any of them delivers
//! into any queue, whose lock it takes for a run of frames. The first worker does what is to be done once: orders to the
//! engine, idle sessions, evening out.

mod batch;
mod chores;
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
#[cfg(test)]
mod several_tests;
mod spread;
mod switch;
#[cfg(test)]
mod train_tests;
mod tunnel;
#[cfg(test)]
mod tunnel_tests;
mod way;
#[cfg(test)]
mod way_tests;
#[cfg(test)]
mod worker_tests;

pub use counters::{PortCounters, PortTotals};
pub use switch::{Switch, SwitchConfig, SwitchError, cpus_check};

use crate::carry::Keeping;
use crate::clock;
use crate::engine::{Engine, Now, Place, Prepared};
use crate::memory::{Handle, lost_count};
use crate::queue::PortQueues;
use batch::Batch;
use chores::Chores;
use idle::Idle;
use poll::places_look_up;
use rustix::fd::OwnedFd;
use spread::Share;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use way::{WayOut, Ways};
use weft_dataplane::{Copy, Decision, Ingress, Service};
use weft_model::PortId;

/// What a frame is handed over for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// To be answered.
    Service(Service),
    /// A copy, for what it tells.
    Copy(Copy),
    /// What security groups said of it, to be written down.
    Decision(Decision),
}

/// Takes what is for the host's services: a frame, where it came from, and what it is for. It must not wait; false if there is
/// no room.
pub type HandOver = Arc<dyn Fn(Ingress, Handed, &[u8]) -> bool + Send + Sync>;

/// Which way a frame goes that somebody taps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The guest sent it.
    FromGuest,
    /// It is sent to the guest; one for which it has no room too.
    ToGuest,
}

/// Is shown each frame of a port, whole. It must not wait.
pub type Tap = Arc<dyn Fn(Way, &[u8]) + Send + Sync>;

/// A port that the workers poll.
struct WorkerPort {
    ingress: Ingress,
    place: Option<Place>,
    queues: Arc<PortQueues>,
    counters: Arc<PortCounters>,
    share: Arc<Share>,
    /// What `queues.changes()` was when the rest was looked up.
    changes: u64,
    /// The queues that run, come from the guest, and are this worker's.
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
    Add(Ingress, Arc<PortQueues>, Arc<PortCounters>, Arc<Share>),
    Remove(PortId),
    /// And whether this worker looks for what comes by it.
    WayOut(PortId, Arc<WayOut>, bool),
    Send(PortId, Vec<u8>),
    Tap(PortId, u64, Tap),
    Untap(u64),
    Ask(Question),
    Stop,
}

/// A worker among the others.
struct Seat {
    number: usize,
    /// When their clock began.
    start: Instant,
    /// What wakes each of them.
    bells: Vec<Arc<OwnedFd>>,
}

impl Seat {
    fn bell(&self) -> Arc<OwnedFd> {
        let bell = self.bells.get(self.number).or_else(|| self.bells.first());
        // A seat is made with its own bell among them.
        bell.cloned().expect("as many bells as seats")
    }
}

/// Wakes a worker.
fn ring(bell: &OwnedFd) {
    // A counter that is full has rung already.
    let _full = rustix::io::write(bell, &1u64.to_ne_bytes());
}

/// The thread's state.
struct Worker {
    seat: Seat,
    hand_over: Option<HandOver>,
    orders: Receiver<Order>,
    engine: Handle<Engine>,
    ports: Vec<WorkerPort>,
    /// Ports by place, as looked up when the engine's generation was this one.
    by_place: Vec<Option<usize>>,
    known: Option<u32>,
    /// Taken out while a queue is polled.
    batch: Option<Box<Batch>>,
    idle: Idle,
    /// What waits at the ports' ways out; none if there is no other engine.
    ways: Option<Ways>,
    chores: Chores,
    /// Of the first one, if sessions are kept for the switch that comes after.
    keeping: Option<Keeping>,
    /// What [`lost_count`] was.
    lost: u64,
}

impl Worker {
    fn new(seat: Seat, engine: Handle<Engine>, orders: Receiver<Order>) -> Self {
        Self {
            idle: Idle::new(seat.bell()),
            seat,
            hand_over: None,
            orders,
            engine,
            ports: Vec::new(),
            by_place: Vec::new(),
            known: None,
            batch: Some(Box::default()),
            ways: None,
            chores: Chores::default(),
            keeping: None,
            lost: 0,
        }
    }

    fn run(&mut self) {
        loop {
            while let Ok(order) = self.orders.try_recv() {
                match order {
                    Order::Apply(prepared) => self.enforce(*prepared),
                    Order::Add(ingress, queues, counters, share) => {
                        self.port_add(ingress, queues, counters, share);
                    }
                    Order::Remove(id) => {
                        self.ports.retain(|port| port.ingress != Ingress::Port(id));
                        self.known = None;
                    }
                    Order::WayOut(id, out, polls) => self.way_out_set(id, out, polls),
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
                    Order::Ask(question) => question(&mut self.engine.write()),
                    Order::Stop => {
                        self.keep_all();
                        return;
                    }
                }
            }
            let now = clock::now().duration_since(self.seat.start);
            let frames = self.turn(now);
            if self.idle.spent(frames, now) && !self.chores.more() && !self.keeps_more() {
                self.sleep(now);
            }
        }
    }

    /// There is another engine.
    fn share(&mut self) -> io::Result<()> {
        self.ways = Some(Ways::new()?);
        Ok(())
    }

    fn way_out_set(&mut self, id: PortId, out: Arc<WayOut>, polls: bool) {
        let is_it = |port: &&mut WorkerPort| port.ingress == Ingress::Port(id);
        let port = self.ports.iter_mut().find(is_it);
        if let (Some(port), Some(ways)) = (port, &mut self.ways) {
            if polls && let Err(error) = ways.add(&out) {
                tracing::error!(port = %id, "its way out is not watched: {error}");
            }
            port.way_out = Some(out);
        }
    }

    /// Looks at the ways out, if it is time to, and says how many frames came.
    fn ways_poll(&mut self, since: Duration, now: Now) -> usize {
        let ready = match &mut self.ways {
            Some(ways) if ways.is_due(since) => ways.ready(),
            _ => return 0,
        };
        let mut frames = 0;
        for number in ready {
            let is_here = |port: &WorkerPort| {
                let out = port.way_out.as_ref();
                out.is_some_and(|out| out.number() == number)
            };
            if let Some(at) = self.ports.iter().position(is_here) {
                frames += self.way_poll(at, now);
            }
        }
        if let Some(ways) = &mut self.ways {
            ways.looked(frames, since);
        }
        frames
    }

    /// Looks at every ring once, and says how many frames came.
    fn turn(&mut self, since: Duration) -> usize {
        let (now, number) = (Now::from(since), self.seat.number);
        self.ports.iter_mut().for_each(|port| port.look(number));
        let frames: usize = (0..self.ports.len())
            .map(|at| self.port_poll(at, now))
            .sum();
        let frames = frames + self.ways_poll(since, now);
        self.chores(now);
        self.keep(now, frames == 0);
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

    fn port_add(
        &mut self,
        ingress: Ingress,
        queues: Arc<PortQueues>,
        counters: Arc<PortCounters>,
        share: Arc<Share>,
    ) {
        self.ports.retain(|port| port.ingress != ingress);
        self.ports.push(WorkerPort {
            ingress,
            place: None,
            queues,
            counters,
            share,
            changes: u64::MAX,
            sending: Vec::new(),
            receiving: 0,
            taps: Vec::new(),
            way_out: None,
        });
        self.known = None;
    }

    /// Looks up where ports are, if that may have changed.
    fn places_look(&mut self) {
        let engine = self.engine.read();
        if self.known != Some(engine.generation()) {
            self.known = Some(engine.generation());
            places_look_up(&engine, &mut self.ports, &mut self.by_place);
        }
    }

    fn sleep(&mut self, now: Duration) {
        let number = self.seat.number;
        self.ports.iter_mut().for_each(|port| port.look(number));
        let ports = &self.ports;
        let queues = || {
            ports.iter().flat_map(|port| {
                let own = |at: &&usize| port.share.is_polled_by(**at / 2, number);
                let numbers = port.sending.iter().filter(own);
                numbers.map(|at| (&*port.queues, *at))
            })
        };
        let ways = self.ways.as_ref().map(Ways::file);
        self.idle.sleep(queues, ways, now);
    }
}

impl WorkerPort {
    /// Looks again which queues run, and are this worker's, if anything has changed.
    fn look(&mut self, worker: usize) {
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
            .filter(|pair| self.share.is_polled_by(*pair, worker))
            .map(|pair| 2 * pair + 1)
            .filter(|number| !shut && running(*number))
            .collect();
        self.receiving = pairs.take_while(|pair| !shut && running(2 * pair)).count();
    }
}
