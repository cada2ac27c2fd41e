//! One batch: taken from a guest's ring, judged, and handed on in the order in which it came.
//!
//! A batch goes through its steps together, so that the cache misses of one frame are hidden behind the work on the others:
//! descriptors, headers, session buckets, sessions, copies.

use super::deliver::{Delivered, Rest, Room, Source, call, deliver, head_of};
use super::tunnel::Outside;
use super::{Handed, Way, Worker, WorkerPort};
use crate::engine::{Entry, Glance, HEADER_BYTES, HeaderBytes, Judged, Place};
use crate::memory::{Piece, Regions};
use crate::queue::Queue;
use crate::ring::{Direction, RingError, Taken};
use std::sync::Arc;
use weft_dataplane::{Ingress, Verdict};
use weft_model::DropReason;
use weft_wire::virtio_net::{self, Load};

/// Frames of one batch.
pub(super) const BATCH: usize = 64;
/// Bytes of virtio's header at most; the frame's header is kept behind it, so that both are written at once.
pub(super) const VIRTIO_BYTES: usize = 12;
/// Where virtio's header says how many buffers a frame takes: one, unless it takes more.
const BUFFERS_AT: usize = virtio_net::HEADER_BYTES;
/// Bytes of a frame at most: IPv6's largest packet with its link header.
pub(super) const FRAME_BYTES_MAX: usize = 65_600;
/// Bytes of a frame at least.
const FRAME_BYTES_MIN: usize = 14;

/// Virtio's header and the first bytes of a frame.
pub(super) type Head = [u8; VIRTIO_BYTES + HEADER_BYTES];

pub(super) const EMPTY_HEAD: Head = {
    let mut head = [0; VIRTIO_BYTES + HEADER_BYTES];
    head[BUFFERS_AT] = 1;
    head
};

/// What a batch needs, kept from one to the next.
pub(super) struct Batch {
    pub(super) pieces: Vec<Piece>,
    pub(super) taken: Vec<Taken>,
    pub(super) heads: Vec<Head>,
    /// What their senders left to others; none of a frame whose header is wrong.
    pub(super) loads: Vec<Option<Load>>,
    pub(super) glances: Vec<Glance>,
    /// Of frames that leave by a tunnel.
    pub(super) entries: Vec<Entry>,
    /// What comes from other hosts, before it is taken out of its tunnels.
    pub(super) outside: Outside,
    pub(super) room: Room,
    pub(super) whole: Vec<u8>,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            taken: Vec::with_capacity(BATCH),
            heads: vec![EMPTY_HEAD; BATCH],
            loads: vec![Some(Load::NONE); BATCH],
            glances: Vec::with_capacity(BATCH),
            entries: vec![Entry::default(); BATCH],
            outside: Outside::default(),
            room: Room::default(),
            whole: Vec::new(),
        }
    }
}

/// Where a batch comes from.
pub(super) struct From<'a> {
    /// The port, by its number.
    pub(super) port: usize,
    /// The queue.
    pub(super) queue: usize,
    pub(super) memory: &'a Regions,
    pub(super) header_bytes: usize,
    pub(super) now_s: u32,
}

impl From<'_> {
    pub(super) fn frame_bytes(&self, taken: &Taken) -> usize {
        let bytes = usize::try_from(taken.bytes).unwrap_or(usize::MAX);
        bytes.saturating_sub(self.header_bytes)
    }
}

/// A run of frames that go to one place.
struct Run {
    place: Place,
    from: usize,
}

impl Worker {
    /// Polls a port's queues, and says how many frames came.
    #[inline]
    pub(super) fn port_poll(&mut self, at: usize, now_s: u32) -> usize {
        let queues = self.ports.get(at).map_or(0, |port| port.sending.len());
        (0..queues)
            .map(|which| self.queue_poll(at, which, now_s))
            .sum()
    }

    fn queue_poll(&mut self, at: usize, which: usize, now_s: u32) -> usize {
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
            log,
            ..
        } = &mut *queue;
        if count > 0 {
            let from = From {
                port: at,
                queue: number,
                memory,
                header_bytes: usize::from(*header_bytes),
                now_s,
            };
            if self.ports.get(at).is_some_and(WorkerPort::is_underlay) {
                self.open(&mut batch, &from);
            } else {
                self.look(&mut batch, &from);
            }
            if self.ports.get(at).is_some_and(|port| !port.taps.is_empty()) {
                self.show(&mut batch, &from);
            }
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

    /// Copies the frames' headers and looks at them.
    fn look(&mut self, batch: &mut Batch, from: &From<'_>) {
        let Some(port) = self.ports.get(from.port) else {
            return;
        };
        let (mut bytes, mut packets) = (0, 0);
        batch.glances.clear();
        let places = batch.heads.iter_mut().zip(&mut batch.loads);
        for (taken, (head, load)) in batch.taken.iter().zip(places) {
            let frame = from.frame_bytes(taken);
            let pieces = pieces_of(&batch.pieces, taken);
            let plain = is_plain(from, pieces);
            head_read(from, pieces, head, frame);
            if !plain || *load != Some(Load::NONE) {
                *load = load_read(from, pieces, head, frame, plain);
            }
            packets += 1;
            bytes += u64::try_from(frame).unwrap_or_default();
        }
        // All copied before any is read: a read across two stores under way would wait for both.
        if let Some(entrance) = port.place.and_then(|place| self.engine.entrance(place)) {
            let places = batch.heads.iter().zip(&batch.loads);
            for (taken, (head, load)) in batch.taken.iter().zip(places) {
                if let Some(header) = frame_of(head) {
                    let frame = from.frame_bytes(taken);
                    let glance = self.engine.glance(&entrance, header, frame);
                    batch.glances.push(match load {
                        Some(load) if !load.is_none() => glance.loaded(*load),
                        _ => glance,
                    });
                }
            }
        }
        port.counters.received(packets, bytes);
        self.engine.guess(&mut batch.glances);
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

    /// Judges frame after frame and delivers runs that go to one place.
    fn hand_on(&mut self, batch: &mut Batch, from: &From<'_>) {
        let mut run: Option<Run> = None;
        for index in 0..batch.taken.len() {
            let judged = self.judge(batch, index, from);
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
                // One that leaves by a tunnel was sent to the underlay.
                Judged::Slow | Judged::Tunnel(_) => self.slow(batch, index, from),
                Judged::Elsewhere => self.hand_out(batch, index, from),
            }
        }
        if let Some(run) = run {
            self.run_deliver(batch, &run, batch.taken.len(), from);
        }
    }

    #[inline]
    fn judge(&mut self, batch: &mut Batch, index: usize, from: &From<'_>) -> Judged {
        let (Some(taken), Some(head)) = (batch.taken.get(index), batch.heads.get_mut(index)) else {
            return Judged::Drop(DropReason::EngineError);
        };
        let frame = from.frame_bytes(taken);
        let fits = (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&frame);
        if !fits || batch.loads.get(index).is_none_or(Option::is_none) {
            return Judged::Drop(DropReason::Malformed);
        }
        let Some(glance) = batch.glances.get(index) else {
            // A port that is in no snapshot.
            return Judged::Drop(DropReason::PortDown);
        };
        match frame_of_mut(head) {
            Some(header) => match self.engine.judge(glance, header, frame, from.now_s) {
                Judged::Tunnel(entry) => self.tunnel(batch, index, entry, from),
                judged => judged,
            },
            None => Judged::Drop(DropReason::EngineError),
        }
    }

    pub(super) fn drop_count(&self, port: usize, reason: DropReason, count: u64) {
        if let Some(port) = self.ports.get(port) {
            port.counters.dropped(reason, count);
        }
    }

    fn run_deliver(&mut self, batch: &mut Batch, run: &Run, end: usize, from: &From<'_>) {
        let Batch {
            pieces,
            taken,
            heads,
            loads,
            entries,
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
        if run.place == Place::UNDERLAY {
            let tunnelled = |n: usize| {
                let entry = *entries.get(from_index + n)?;
                Some(Source {
                    outer: Some(self.engine.encapsulation(entry)?),
                    ..source(n)?
                })
            };
            self.deliver(run.place, count, tunnelled, room, from);
        } else {
            self.deliver(run.place, count, source, room, from);
        }
    }

    /// Delivers frames to the port at a place, and counts them.
    pub(super) fn deliver<'a>(
        &self,
        place: Place,
        count: usize,
        source: impl Fn(usize) -> Option<Source<'a>>,
        room: &mut Room,
        from: &From<'_>,
    ) {
        let frames = u64::try_from(count).unwrap_or_default();
        let to = self.by_place.get(place.at()).copied().flatten();
        let Some(port) = to.and_then(|to| self.ports.get(to)) else {
            // An uplink that this engine has no device for, or a port that no guest is on.
            let reason = if place == Place::UNDERLAY || self.engine.is_uplink(place) {
                DropReason::UplinkMissing
            } else {
                DropReason::DestinationPortDown
            };
            return self.drop_count(from.port, reason, frames);
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
        let queue = port.queue_for(from.queue);
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
        port.counters.sent(packets, bytes);
        if full > 0 {
            self.drop_count(from.port, DropReason::GuestQueueFull, full);
        }
        if let Some(error) = broken.filter(|_| !lost) {
            tracing::warn!(port = %port.ingress, "the port is shut down: {error}");
            port.queues.shut(error.to_string());
        }
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
        let engine = &mut self.engine;
        let outcome = engine.process_loaded(ingress, whole, &load, from.now_s);
        if let Some(copy) = outcome.copy {
            // Without room, or anybody, nobody learns of it; what becomes of the frame stays the same.
            self.handed(ingress, Handed::Copy(copy), whole);
        }
        if outcome.elsewhere {
            return self.whole_out(batch, load, from);
        }
        for copy in outcome.copies {
            match copy {
                Verdict::Deliver { port, frame } => {
                    if let Some(place) = self.engine.place(Ingress::Port(port)) {
                        self.deliver_own(place, &frame, load, &mut batch.room, from);
                    }
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
        let Some(place) = self.engine.place(to) else {
            return self.drop_count(from.port, DropReason::EngineError, 1);
        };
        self.deliver_own(place, &frame, load, &mut batch.room, from);
    }

    fn handed(&self, ingress: Ingress, what: Handed, whole: &[u8]) -> bool {
        let hand_over = self.hand_over.as_ref();
        hand_over.is_some_and(|hand_over| hand_over(ingress, what, whole))
    }

    /// Delivers a frame of our own.
    pub(super) fn deliver_own(
        &self,
        place: Place,
        frame: &[u8],
        load: Load,
        room: &mut Room,
        from: &From<'_>,
    ) {
        let head = head_of(frame, &load);
        let source = Source::own(&head, frame, load);
        self.deliver(place, 1, |_| Some(source), room, from);
    }
}

impl WorkerPort {
    fn show(&self, way: Way, frame: &[u8]) {
        self.taps.iter().for_each(|(_, tap)| tap(way, frame));
    }

    /// The receive queue for what comes from a queue: frames of one queue stay in their order.
    fn queue_for(&self, from: usize) -> Option<usize> {
        (from / 2).checked_rem(self.receiving).map(|pair| 2 * pair)
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
    let header_bytes = usize::from(queue.header_bytes);
    for taken in &batch.taken {
        let first = usize::try_from(taken.first).ok();
        let piece = first.and_then(|first| batch.pieces.get(first));
        if let Some(span) = piece.and_then(|piece| memory.span(piece)) {
            span.behind(header_bytes).prefetch();
        }
    }
    broken
}

#[inline]
pub(super) fn pieces_of<'a>(pieces: &'a [Piece], taken: &Taken) -> &'a [Piece] {
    let first = usize::try_from(taken.first).unwrap_or(usize::MAX);
    let count = usize::try_from(taken.pieces).unwrap_or(0);
    pieces
        .get(first..first.saturating_add(count))
        .unwrap_or_default()
}

/// The frame's first bytes in a head.
#[inline]
pub(super) fn frame_of(head: &Head) -> Option<&HeaderBytes> {
    head.get(VIRTIO_BYTES..)?.first_chunk()
}

#[inline]
fn frame_of_mut(head: &mut Head) -> Option<&mut HeaderBytes> {
    head.get_mut(VIRTIO_BYTES..)?.first_chunk_mut()
}

/// Copies a frame's first bytes out of the guest's memory; what is behind a shorter frame stays as it was.
#[inline]
pub(super) fn head_read(from: &From<'_>, pieces: &[Piece], head: &mut Head, frame: usize) {
    let Some(header) = head
        .get_mut(VIRTIO_BYTES..)
        .and_then(|header| header.get_mut(..frame.min(HEADER_BYTES)))
    else {
        return;
    };
    let mut skip = from.header_bytes;
    let mut at = 0;
    for span in pieces.iter().filter_map(|piece| from.memory.span(piece)) {
        let part = span.behind(skip);
        skip = skip.saturating_sub(span.bytes());
        at += part.read(header.get_mut(at..).unwrap_or_default());
        if at >= header.len() {
            break;
        }
    }
    debug_assert_eq!(at, header.len(), "pieces hold what the chain says");
}

/// Whether virtio's header says that nothing is left to do: its flags and kind are zero.
#[inline]
pub(super) fn is_plain(from: &From<'_>, pieces: &[Piece]) -> bool {
    let first = pieces.first().and_then(|piece| from.memory.span(piece));
    first
        .and_then(|span| span.word())
        .is_some_and(|word| word & 0xffff == 0)
}

/// Reads virtio's header, unless the frame is a plain one, and writes it as it was understood before the frame's first
/// bytes, which were read. None if it does not fit the frame.
#[inline(never)]
fn load_read(
    from: &From<'_>,
    pieces: &[Piece],
    head: &mut Head,
    frame: usize,
    plain: bool,
) -> Option<Load> {
    let mut header = [0; virtio_net::HEADER_BYTES];
    let mut at = 0;
    let spans = pieces.iter().filter_map(|piece| from.memory.span(piece));
    for span in spans.take_while(|_| !plain) {
        at += span.read(header.get_mut(at..).unwrap_or_default());
        if at == header.len() {
            break;
        }
    }
    let first = head.get(VIRTIO_BYTES..).unwrap_or_default();
    let first = first.get(..frame.min(HEADER_BYTES)).unwrap_or_default();
    let load = Load::parse(&header, first, frame, false).ok();
    let emitted = load.unwrap_or_default().emit();
    if let Some(place) = head.first_chunk_mut() {
        *place = emitted;
    }
    load
}

/// Copies a whole frame. Its first bytes are those that were looked at, if any: the guest may have written meanwhile.
pub(super) fn whole_read(
    from: &From<'_>,
    pieces: &[Piece],
    head: Option<&Head>,
    taken: &Taken,
    whole: &mut Vec<u8>,
) {
    whole.clear();
    whole.resize(from.frame_bytes(taken), 0);
    let mut skip = from.header_bytes;
    let mut at = 0;
    for span in pieces.iter().filter_map(|piece| from.memory.span(piece)) {
        let part = span.behind(skip);
        skip = skip.saturating_sub(span.bytes());
        at += part.read(whole.get_mut(at..).unwrap_or_default());
    }
    if let Some(seen) = head.and_then(frame_of) {
        let bytes = seen.len().min(whole.len());
        if let (Some(to), Some(seen)) = (whole.get_mut(..bytes), seen.get(..bytes)) {
            to.copy_from_slice(seen);
        }
    }
}
