//! One batch: taken from a guest's ring, judged, and handed on in the order in which it came.
//!
//! A batch goes through its steps together, so that the cache misses of one frame are hidden behind the work on the others:
//! descriptors, headers, session buckets, sessions, copies.

use super::batch::{BATCH, Batch, From, Of, pieces_of};
use super::deliver::{Delivered, Rest, Room, Source, call, deliver, head_of};
use super::{Handed, Way, Worker, WorkerPort};
use crate::engine::{Engine, Judged, Now, Place};
use crate::memory::Regions;
use crate::queue::Queue;
use crate::ring::{Direction, RingError};
use std::cell::RefCell;
use std::sync::Arc;
use weft_dataplane::{Ingress, Verdict};
use weft_model::{DropReason, PortId};
use weft_wire::virtio_net::Load;

/// A run of frames that go to one place.
struct Run {
    place: Place,
    from: usize,
}

impl Worker {
    /// Polls a port's queues, and says how many frames came.
    #[inline]
    pub(super) fn port_poll(&mut self, at: usize, now: Now) -> usize {
        let queues = self.ports.get(at).map_or(0, |port| port.sending.len());
        (0..queues)
            .map(|which| self.queue_poll(at, which, now))
            .sum()
    }

    fn queue_poll(&mut self, at: usize, which: usize, now: Now) -> usize {
        let Some(port) = self.ports.get(at) else {
            return 0;
        };
        let Some(number) = port.sending.get(which).copied() else {
            return 0;
        };
        let queues = Arc::clone(&port.queues);
        let Some(mut queue) = queues.lock(number) else {
            return 0;
        };
        if !queue.enabled {
            return 0;
        }
        let Some(mut batch) = self.batch.take() else {
            return 0;
        };
        let broken = take(&mut batch, &mut queue);
        let count = batch.taken.len();
        let Queue {
            ring,
            memory,
            call: told,
            header_bytes,
            loads,
            log,
            ..
        } = &mut *queue;
        if count > 0 {
            let from = From {
                port: at,
                queue: number,
                memory,
                header_bytes: usize::from(*header_bytes),
                loads: *loads,
                now,
            };
            if self.ports.get(at).is_some_and(WorkerPort::is_underlay) {
                batch.outside_read(&from);
            } else {
                batch.read(&from);
            }
            self.received(&batch, &from);
            if self.ports.get(at).is_some_and(|port| !port.taps.is_empty()) {
                self.show(&mut batch, &from);
            }
            self.judge(&mut batch, &from);
            self.hand_on(&mut batch, &from);
            if let Some(ring) = ring.as_mut() {
                batch.taken.iter().for_each(|taken| ring.give(taken, 0));
                let wanted = ring.publish();
                if let Some(log) = log {
                    log.ring_written();
                }
                if wanted {
                    call(told.as_ref());
                }
            }
        }
        self.batch = Some(batch);
        let lost = broken.is_some() && memory.is_lost();
        drop(queue);
        // What was lost reads as zeros, which break the rules: that is not what is wrong.
        if let Some(error) = broken.filter(|_| !lost) {
            tracing::warn!(queue = number, "the port is shut down: {error}");
            queues.shut(error.to_string());
        }
        count
    }

    /// Counts what came.
    fn received(&self, batch: &Batch, from: &From<'_>) {
        let bytes: usize = batch
            .taken
            .iter()
            .map(|taken| from.frame_bytes(taken))
            .sum();
        let wide = |count: usize| u64::try_from(count).unwrap_or_default();
        let (packets, bytes) = (wide(batch.taken.len()), wide(bytes));
        if let Some(port) = self.ports.get(from.port) {
            port.share.worked(from.queue / 2, packets, bytes);
            if let Some(counted) = port.counters.of(self.seat.number) {
                counted.received(packets, bytes);
            }
        }
    }

    /// Judges the batch: together with other workers, until a frame opens a session; that one and those behind it alone.
    fn judge(&mut self, batch: &mut Batch, from: &From<'_>) {
        batch.judged.clear();
        batch.leaving.clear();
        let engine = self.engine.read();
        if self.known != Some(engine.generation()) {
            self.known = Some(engine.generation());
            places_look_up(&engine, &mut self.ports, &mut self.by_place);
        }
        match self.ports.get(from.port).and_then(|port| port.place) {
            Some(Place::UNDERLAY) => batch.outside_look(&engine, from),
            Some(place) => batch.look(&engine, Of::Place(place), from),
            None => return batch.judge_absent(),
        }
        batch.judge_with(
            from,
            |asked, heads, judged| {
                engine.judge(asked.glance, &asked.train, heads, from.now, judged)
            },
            |leaving, entry| leaving.keep(&engine, entry),
        );
        if batch.judged.len() < batch.taken.len() {
            drop(engine);
            let engine = RefCell::new(self.engine.write());
            // Another worker may have enforced a snapshot in between, in which a place is another port's.
            let stale = self.known != Some(engine.borrow().generation());
            if !stale {
                batch.foresee(&engine.borrow(), from);
            }
            batch.judge_with(
                from,
                |asked, heads, judged| {
                    if stale {
                        judged.extend(heads.iter().map(|_| Judged::Slow));
                    } else {
                        let of = (asked.glance, &asked.train);
                        let mut engine = engine.borrow_mut();
                        engine.open(of, asked.foreseen, heads, from.now, judged);
                    }
                    true
                },
                |leaving, entry| leaving.keep(&engine.borrow(), entry),
            );
        }
    }

    /// Shows what came to whoever taps the port.
    #[cold]
    fn show(&self, batch: &mut Batch, from: &From<'_>) {
        for index in 0..batch.taken.len() {
            let mut whole = std::mem::take(&mut batch.whole);
            batch.came(index, from, &mut whole);
            batch.whole = whole;
            if let Some(port) = self.ports.get(from.port) {
                port.show(Way::FromGuest, &batch.whole);
            }
        }
    }

    /// Delivers runs that go to one place, and does with the others what was judged.
    fn hand_on(&mut self, batch: &mut Batch, from: &From<'_>) {
        let mut run: Option<Run> = None;
        for index in 0..batch.taken.len() {
            let judged = batch.judged.get(index).copied();
            let judged = judged.unwrap_or(Judged::Drop(DropReason::EngineError));
            if let (Judged::Send(place), Some(open)) = (judged, &run)
                && open.place == place
            {
                continue;
            }
            if let Some(run) = run.take() {
                self.run_deliver(batch, &run, index, from);
            }
            match judged {
                Judged::Send(place) => run = Some(Run { place, from: index }),
                Judged::Drop(reason) => self.drop_count(from.port, reason, 1),
                Judged::Slow => self.slow(batch, index, from),
                Judged::Tunnel(entry) => self.unreached(batch, entry, from),
                Judged::Elsewhere => self.hand_out(batch, index, from),
            }
        }
        if let Some(run) = run {
            self.run_deliver(batch, &run, batch.taken.len(), from);
        }
    }

    pub(super) fn drop_count(&self, port: usize, reason: DropReason, count: u64) {
        let port = self.ports.get(port);
        if let Some(counted) = port.and_then(|port| port.counters.of(self.seat.number)) {
            counted.dropped(reason, count);
        }
    }

    fn run_deliver(&mut self, batch: &mut Batch, run: &Run, end: usize, from: &From<'_>) {
        let Batch {
            pieces,
            taken,
            heads,
            loads,
            entries,
            leaving,
            room,
            ..
        } = batch;
        let (from_index, count) = (run.from, end - run.from);
        let source = |n: usize| {
            let taken = taken.get(from_index + n)?;
            let rest = Rest::Guest(from.memory, pieces_of(pieces, taken), from.header_bytes);
            Some(Source {
                head: heads.get(from_index + n)?,
                load: (*loads.get(from_index + n)?)?,
                frame_bytes: from.frame_bytes(taken),
                rest,
                outer: None,
            })
        };
        let to = self.port_at(run.place);
        if run.place == Place::UNDERLAY {
            let tunnelled = |n: usize| {
                let entry = *entries.get(from_index + n)?;
                Some(Source {
                    outer: Some(leaving.encapsulation(entry)?),
                    ..source(n)?
                })
            };
            self.deliver(to, count, tunnelled, room, from);
        } else {
            self.deliver(to, count, source, room, from);
        }
    }

    /// Delivers frames to a port, and counts them.
    pub(super) fn deliver<'a>(
        &self,
        to: Result<usize, DropReason>,
        count: usize,
        source: impl Fn(usize) -> Option<Source<'a>>,
        room: &mut Room,
        from: &From<'_>,
    ) {
        let frames = u64::try_from(count).unwrap_or_default();
        let port = to.map(|to| self.ports.get(to));
        let port = match port {
            Ok(Some(port)) => port,
            Ok(None) => return self.drop_count(from.port, DropReason::EngineError, frames),
            Err(reason) => return self.drop_count(from.port, reason, frames),
        };
        if !port.taps.is_empty() {
            let mut whole = Vec::new();
            for source in (0..count).filter_map(&source) {
                source.whole(&mut whole);
                if let Some(outer) = &source.outer {
                    let header = outer.header(whole.len());
                    whole.splice(..0, header.into_iter().take(outer.header_bytes()));
                }
                port.show(Way::ToGuest, &whole);
            }
        }
        let sender = self.ports.get(from.port).and_then(|port| port.place);
        let queue = port.queue_for(sender, from.queue);
        let Some(mut queue) = queue.and_then(|number| port.queues.lock(number)) else {
            return self.drop_count(from.port, DropReason::DestinationPortDown, frames);
        };
        let Delivered {
            packets,
            bytes,
            full,
            broken,
        } = deliver(&mut queue, count, source, room);
        let lost = broken.is_some() && queue.memory.is_lost();
        drop(queue);
        if let Some(counted) = port.counters.of(self.seat.number) {
            counted.sent(packets, bytes);
        }
        if full > 0 {
            self.drop_count(from.port, DropReason::GuestQueueFull, full);
        }
        if let Some(error) = broken.filter(|_| !lost) {
            tracing::warn!(port = %port.ingress, "the port is shut down: {error}");
            port.queues.shut(error.to_string());
        }
    }

    /// Which of the ports is at a place that this batch was judged to go to.
    fn port_at(&self, place: Place) -> Result<usize, DropReason> {
        let at = self.by_place.get(place.at()).copied().flatten();
        at.ok_or_else(|| {
            // An uplink that this engine has no device for, or a port that no guest is on.
            if place == Place::UNDERLAY || self.engine.read().is_uplink(place) {
                DropReason::UplinkMissing
            } else {
                DropReason::DestinationPortDown
            }
        })
    }

    /// Which of the ports this is; places may be others' by now, where a frame was judged by itself.
    pub(super) fn port_of(&self, ingress: Ingress) -> Result<usize, DropReason> {
        let at = self.ports.iter().position(|port| port.ingress == ingress);
        at.ok_or(match ingress {
            Ingress::Port(_) => DropReason::DestinationPortDown,
            Ingress::Network(_) | Ingress::Underlay => DropReason::UplinkMissing,
        })
    }

    /// Judges one frame as a whole.
    fn slow(&mut self, batch: &mut Batch, index: usize, from: &From<'_>) {
        let Some(ingress) = self.ports.get(from.port).map(|port| port.ingress) else {
            return;
        };
        let mut whole = std::mem::take(&mut batch.whole);
        batch.came(index, from, &mut whole);
        batch.whole = whole;
        if ingress == Ingress::Underlay && self.hear(batch, from) {
            return;
        }
        let mut load = batch
            .loads
            .get(index)
            .copied()
            .flatten()
            .unwrap_or_default();
        if load.segments.is_none() {
            // It may be answered, quoted or cut: nothing of that knows of work that is left.
            load.complete(&mut batch.whole);
            load = Load::NONE;
        }
        let whole = &batch.whole;
        let mut engine = self.engine.write();
        let outcome = engine.process_loaded(ingress, whole, &load, from.now);
        drop(engine);
        if let Some(copy) = outcome.copy {
            // Without room, or anybody, nobody learns of it; what becomes of the frame stays the same.
            self.handed(ingress, Handed::Copy(copy), whole);
        }
        for decision in outcome.logs {
            // Without room, or anybody, it is not written down.
            self.handed(ingress, Handed::Decision(decision), whole);
        }
        if outcome.elsewhere {
            return self.whole_out(batch, load, from);
        }
        for copy in outcome.copies {
            match copy {
                Verdict::Deliver { port, frame } => {
                    let to = self.port_of(Ingress::Port(port));
                    self.deliver_own(to, &frame, load, &mut batch.room, from);
                }
                Verdict::Tunnel { frame } => self.tunnel_out(&frame, load, &mut batch.room, from),
                // Copies go nowhere else.
                _ => self.drop_count(from.port, DropReason::EngineError, 1),
            }
        }
        let (to, frame) = match outcome.verdict {
            Verdict::Multicast => return,
            Verdict::Drop(reason) => return self.drop_count(from.port, reason, 1),
            Verdict::Deliver { port, frame } => (Ingress::Port(port), frame),
            Verdict::Reply { frame } => (ingress, frame),
            Verdict::Uplink { network, frame } => (Ingress::Network(network), frame),
            Verdict::Tunnel { frame } => {
                return self.tunnel_out(&frame, load, &mut batch.room, from);
            }
            Verdict::Service(service) => {
                if self.hand_over.is_none() {
                    self.drop_count(from.port, DropReason::ServiceOff, 1);
                } else if !self.handed(ingress, Handed::Service(service), whole) {
                    self.drop_count(from.port, DropReason::ServiceRateLimit, 1);
                }
                return;
            }
            Verdict::Pass => return self.drop_count(from.port, DropReason::ServiceOff, 1),
        };
        self.deliver_own(self.port_of(to), &frame, load, &mut batch.room, from);
    }

    fn handed(&self, ingress: Ingress, what: Handed, whole: &[u8]) -> bool {
        let hand_over = self.hand_over.as_ref();
        hand_over.is_some_and(|hand_over| hand_over(ingress, what, whole))
    }

    /// Delivers a frame of our own.
    pub(super) fn deliver_own(
        &self,
        to: Result<usize, DropReason>,
        frame: &[u8],
        load: Load,
        room: &mut Room,
        from: &From<'_>,
    ) {
        let head = head_of(frame, &load);
        let source = Source::own(&head, frame, load);
        self.deliver(to, 1, |_| Some(source), room, from);
    }

    /// Sends a frame of the host's services to a guest; one that has no room does not get it.
    pub(super) fn send(&mut self, id: PortId, frame: &[u8]) {
        let to = self.port_of(Ingress::Port(id));
        let from = From {
            port: to.unwrap_or(usize::MAX),
            queue: 0,
            memory: &Regions::default(),
            header_bytes: 0,
            loads: false,
            now: Now::default(),
        };
        self.deliver_own(to, frame, Load::NONE, &mut Room::default(), &from);
    }
}

impl WorkerPort {
    fn show(&self, way: Way, frame: &[u8]) {
        self.taps.iter().for_each(|(_, tap)| tap(way, frame));
    }

    /// The receive queue for what comes from a queue of a place: frames of one queue stay in their order, and ports with one
    /// queue each do not all meet in the first.
    fn queue_for(&self, place: Option<Place>, from: usize) -> Option<usize> {
        let of_place = place.unwrap_or_default().at();
        let pair = (of_place + from / 2).checked_rem(self.receiving)?;
        Some(2 * pair)
    }
}

/// Looks up again which ports are at which places.
pub(super) fn places_look_up(
    engine: &Engine,
    ports: &mut [WorkerPort],
    by_place: &mut Vec<Option<usize>>,
) {
    by_place.clear();
    for (at, port) in ports.iter_mut().enumerate() {
        port.place = match port.ingress {
            Ingress::Underlay => Some(Place::UNDERLAY),
            ingress => engine.place(ingress),
        };
        if let Some(place) = port.place {
            let length = by_place.len().max(place.at() + 1);
            by_place.resize(length, None);
            if let Some(by_place) = by_place.get_mut(place.at()) {
                *by_place = Some(at);
            }
        }
    }
}

/// Takes a batch from a ring, and says what the guest did wrong.
fn take(batch: &mut Batch, queue: &mut Queue) -> Option<RingError> {
    batch.pieces.clear();
    batch.taken.clear();
    batch.outside.clear();
    let memory = &queue.memory;
    let ring = queue.ring.as_mut()?;
    let broken = ring.take_many(
        Direction::Read,
        memory,
        BATCH,
        &mut batch.pieces,
        &mut batch.taken,
    );
    ring.give_soon(batch.taken.len());
    let header_bytes = usize::from(queue.header_bytes);
    for taken in &batch.taken {
        let first = usize::try_from(taken.first).ok();
        let piece = first.and_then(|first| batch.pieces.get(first));
        if let Some(span) = piece.and_then(|piece| memory.span(piece)) {
            if queue.loads {
                span.prefetch();
            }
            span.behind(header_bytes).prefetch();
        }
    }
    broken
}
