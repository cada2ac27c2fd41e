//! Frames into a guest's receive queue. Work that their sender left to others is left to the guest if it takes it, and done here
//! otherwise: checksums completed, segments cut.
//!
//! Guarantees: a frame is written whole or not at all, into buffers that are given back in order; without room it is
//! dropped and the buffers stay the guest's. What was judged is what is written: a frame's first bytes come from our own
//! copy, never again from the sender's memory.

use super::batch::{EMPTY_HEAD, Head, VIRTIO_BYTES, pieces_of};
use crate::engine::{Encapsulation, HEADER_BYTES};
use crate::memory::{Piece, Regions, Span};
use crate::queue::Queue;
use crate::ring::{Direction, RingError, Taken};
use rustix::fd::OwnedFd;
use weft_wire::outer;
use weft_wire::virtio_net::Load;

/// Buffers that one frame may take.
const BUFFERS_MAX: usize = 128;
/// Where virtio's header says how many buffers a frame takes.
const BUFFERS_AT: usize = 10;

/// Bytes of the lines that processors hand to each other.
const LINE_BYTES: usize = 64;
/// Buffers whose lines are asked for before the first one is written: more would wait for a place in the processor's list of
/// such lines, which has 16.
const FETCHED_AHEAD: usize = 8;

/// Bytes of virtio's header, outer headers and a frame's first bytes.
const TUNNELLED_BYTES: usize = VIRTIO_BYTES + outer::BYTES_MAX + HEADER_BYTES;

/// A frame to deliver.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// Virtio's header and the frame's first bytes.
    pub(super) head: &'a Head,
    /// What the header says.
    pub(super) load: Load,
    /// Bytes of the frame.
    pub(super) frame_bytes: usize,
    /// What is behind the first bytes.
    pub(super) rest: Rest<'a>,
    /// What goes in front of the frame.
    pub(super) outer: Option<Encapsulation<'a>>,
}

/// Virtio's header and the first bytes of a frame of our own.
pub(super) fn head_of(frame: &[u8], load: &Load) -> Head {
    let mut head = EMPTY_HEAD;
    let first = frame.get(..frame.len().min(HEADER_BYTES));
    let first = first.unwrap_or_default();
    if let Some(place) = head.get_mut(VIRTIO_BYTES..VIRTIO_BYTES + first.len()) {
        place.copy_from_slice(first);
    }
    if let Some(place) = head.first_chunk_mut() {
        *place = load.emit();
    }
    head
}

impl<'a> Source<'a> {
    /// A frame of our own, with its head.
    pub(super) fn own(head: &'a Head, frame: &'a [u8], load: Load) -> Self {
        let rest = frame.get(HEADER_BYTES..).unwrap_or_default();
        Self {
            head,
            load,
            frame_bytes: frame.len(),
            rest: Rest::Own(rest),
            outer: None,
        }
    }

    /// Its bytes with what goes in front of it.
    #[inline]
    fn bytes(&self) -> usize {
        let outer = self.outer.as_ref().map_or(0, Encapsulation::header_bytes);
        self.frame_bytes + outer
    }

    /// All of it, without what goes in front.
    pub(super) fn whole(&self, whole: &mut Vec<u8>) {
        let first = self.frame_bytes.min(HEADER_BYTES);
        whole.clear();
        let head = self.head.get(VIRTIO_BYTES..VIRTIO_BYTES + first);
        whole.extend(head.unwrap_or_default());
        match self.rest {
            Rest::Own(bytes) => whole.extend(bytes),
            Rest::Guest(memory, pieces, skip) => {
                let (mut skip, mut at) = (skip + first, first);
                whole.resize(self.frame_bytes, 0);
                for span in pieces.iter().filter_map(|piece| memory.span(piece)) {
                    let part = span.behind(skip);
                    skip = skip.saturating_sub(span.bytes());
                    at += part.read(whole.get_mut(at..).unwrap_or_default());
                }
            }
        }
    }
}

/// What is behind a frame's first bytes.
#[derive(Clone, Copy)]
pub(super) enum Rest<'a> {
    /// In the sender's memory, behind so many bytes of these pieces.
    Guest(&'a Regions, &'a [Piece], usize),
    /// In our own.
    Own(&'a [u8]),
}

/// Lists that are kept from one delivery to the next.
#[derive(Default)]
pub(super) struct Room {
    pieces: Vec<Piece>,
    chains: Vec<Taken>,
    whole: Vec<u8>,
}

/// What became of the frames.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Frames without room.
    pub(super) full: u64,
    /// What the guest did wrong.
    pub(super) broken: Option<RingError>,
}

/// Delivers `count` frames, and tells the guest if it wants to be told.
pub(super) fn deliver<'a>(
    queue: &mut Queue,
    count: usize,
    source: impl Fn(usize) -> Option<Source<'a>>,
    room: &mut Room,
) -> Delivered {
    let mut delivered = Delivered::default();
    let quick = deliver_quick(queue, count, &source, room, &mut delivered);
    for source in (quick..count).filter_map(source) {
        if queue.accepts.takes(&source.load) {
            deliver_one(queue, &source, room, &mut delivered);
        } else {
            deliver_worked(queue, &source, room, &mut delivered);
        }
    }
    let wanted = queue.ring.as_mut().is_some_and(crate::ring::Ring::publish);
    if let Some(log) = &queue.log {
        log.ring_written();
    }
    if wanted {
        call(queue.call.as_ref());
    }
    delivered
}

/// Delivers a frame as it is.
fn deliver_one(queue: &mut Queue, source: &Source<'_>, room: &mut Room, delivered: &mut Delivered) {
    let taken = if delivered.broken.is_some() {
        Ok(false)
    } else {
        buffers_take(queue, source, room)
    };
    match taken {
        Ok(true) => {
            buffers_write(queue, source, room);
            delivered.count(source);
        }
        Ok(false) => delivered.full += 1,
        Err(error) => {
            delivered.broken = Some(error);
            delivered.full += 1;
        }
    }
}

/// Delivers a frame of which the guest does not do what is left to do.
fn deliver_worked(
    queue: &mut Queue,
    source: &Source<'_>,
    room: &mut Room,
    delivered: &mut Delivered,
) {
    let mut whole = std::mem::take(&mut room.whole);
    source.whole(&mut whole);
    let outer = source.outer;
    let mut own = |frame: &[u8]| {
        let head = head_of(frame, &Load::NONE);
        let source = Source {
            outer,
            ..Source::own(&head, frame, Load::NONE)
        };
        deliver_one(queue, &source, room, delivered);
    };
    if source.load.segments.is_some() {
        let segments = (0..).map_while(|number| source.load.segment(&whole, number));
        segments.for_each(|segment| own(&segment));
    } else {
        source.load.complete(&mut whole);
        own(&whole);
    }
    room.whole = whole;
}

impl Delivered {
    #[inline]
    fn count(&mut self, source: &Source<'_>) {
        self.packets += 1;
        self.bytes += u64::try_from(source.bytes()).unwrap_or_default();
    }
}

/// Delivers frames that fit into one buffer each, and says how many: up to the first one that does not, or all.
#[inline]
fn deliver_quick<'a>(
    queue: &mut Queue,
    count: usize,
    source: &impl Fn(usize) -> Option<Source<'a>>,
    room: &mut Room,
    delivered: &mut Delivered,
) -> usize {
    let Some(ring) = queue.ring.as_mut().filter(|_| queue.enabled) else {
        return 0;
    };
    let memory = &*queue.memory;
    let (header_bytes, accepts) = (usize::from(queue.header_bytes), queue.accepts);
    room.pieces.clear();
    room.chains.clear();
    delivered.broken = ring.take_many(
        Direction::Write,
        memory,
        count,
        &mut room.pieces,
        &mut room.chains,
    );
    ring.give_soon(room.chains.len());
    // Lines are on their way from the guest's processor while those before them are written.
    let mut ahead = room.pieces.iter();
    let mut fetch = |count| {
        for span in (ahead.by_ref().take(count)).filter_map(|piece| memory.span(piece)) {
            span.prefetch_write();
            span.behind(LINE_BYTES).prefetch_write();
        }
    };
    fetch(FETCHED_AHEAD);
    let mut done = 0;
    for chain in &room.chains {
        fetch(1);
        let Some(source) = source(done) else { break };
        let written = source.bytes() + header_bytes;
        if usize::try_from(chain.bytes).unwrap_or(0) < written || !accepts.takes(&source.load) {
            break;
        }
        let pieces = pieces_of(&room.pieces, chain);
        if !small_write(memory, pieces, header_bytes, &source) {
            frame_write(memory, pieces, header_bytes, 1, &source);
        }
        ring.give(chain, u32::try_from(written).unwrap_or(u32::MAX));
        delivered.count(&source);
        done += 1;
    }
    if let Some(log) = &queue.log {
        for chain in room.chains.iter().take(done) {
            log.pieces_written(memory, pieces_of(&room.pieces, chain));
        }
    }
    if let Some(rest) = room.chains.get_mut(done..)
        && !rest.is_empty()
    {
        rest.reverse();
        ring.untake(rest);
    }
    done
}

/// Tells the guest.
pub(super) fn call(call: Option<&OwnedFd>) {
    if let Some(call) = call {
        // A counter that is full has told already.
        let _full = rustix::io::write(call, &1u64.to_ne_bytes());
    }
}

/// Takes buffers for a frame; false if there is no room.
#[inline]
fn buffers_take(
    queue: &mut Queue,
    source: &Source<'_>,
    room: &mut Room,
) -> Result<bool, RingError> {
    let needed = source.bytes() + usize::from(queue.header_bytes);
    let memory = &*queue.memory;
    let Some(ring) = queue.ring.as_mut().filter(|_| queue.enabled) else {
        return Ok(false);
    };
    room.pieces.clear();
    room.chains.clear();
    let mut have = 0;
    loop {
        match ring.take(Direction::Write, memory, &mut room.pieces)? {
            Some(chain) => {
                have += usize::try_from(chain.bytes).unwrap_or(0);
                room.chains.push(chain);
                if have >= needed {
                    return Ok(true);
                }
                if queue.mergeable && room.chains.len() < BUFFERS_MAX {
                    continue;
                }
            }
            None if room.chains.is_empty() => return Ok(false),
            None => {}
        }
        room.chains.reverse();
        ring.untake(&room.chains);
        return Ok(false);
    }
}

/// Writes a frame into the buffers that were taken for it, and gives them back.
#[inline]
fn buffers_write(queue: &mut Queue, source: &Source<'_>, room: &Room) {
    let header_bytes = usize::from(queue.header_bytes);
    let buffers = u16::try_from(room.chains.len()).unwrap_or(u16::MAX);
    frame_write(&queue.memory, &room.pieces, header_bytes, buffers, source);
    if let Some(log) = &queue.log {
        log.pieces_written(&queue.memory, &room.pieces);
    }
    let mut written = source.bytes() + header_bytes;
    if let Some(ring) = queue.ring.as_mut() {
        for chain in &room.chains {
            let here = written.min(usize::try_from(chain.bytes).unwrap_or(0));
            ring.give(chain, u32::try_from(here).unwrap_or(u32::MAX));
            written -= here;
        }
    }
}

/// Writes virtio's header and a frame that is not longer than the first bytes that are kept, as they are, into one piece of the receiver's
/// memory, which has room for them; false, and nothing else, if they are not so.
#[inline(always)]
fn small_write(
    memory: &Regions,
    pieces: &[Piece],
    header_bytes: usize,
    source: &Source<'_>,
) -> bool {
    let whole = source.head.get(..VIRTIO_BYTES + source.frame_bytes);
    let plain = header_bytes == VIRTIO_BYTES && source.outer.is_none();
    let (Some(whole), [piece], true) = (whole, pieces, plain) else {
        return false;
    };
    memory
        .span(piece)
        .is_some_and(|span| span.write(whole) == whole.len())
}

/// Writes virtio's header and a frame into pieces of the receiver's memory, which have room for them.
#[inline]
fn frame_write(
    memory: &Regions,
    pieces: &[Piece],
    header_bytes: usize,
    buffers: u16,
    source: &Source<'_>,
) {
    let first = source.frame_bytes.min(HEADER_BYTES);
    let tunnelled;
    let (head, ahead): (&[u8], usize) = match &source.outer {
        None => (source.head, first),
        Some(outer) => {
            tunnelled = tunnelled_head(source, outer);
            (&tunnelled, first + outer.header_bytes())
        }
    };
    let mut writer = Writer {
        memory,
        pieces: pieces.iter(),
        span: None,
    };
    if header_bytes == VIRTIO_BYTES {
        let own = head.get(..ahead + VIRTIO_BYTES);
        writer.write(own.unwrap_or_default());
        if buffers > 1 {
            let mut again = Writer {
                memory,
                pieces: pieces.iter(),
                span: None,
            };
            again.skip(BUFFERS_AT);
            again.write(&buffers.to_le_bytes());
        }
    } else {
        // The shorter header ends before the number of buffers.
        writer.write(head.get(..header_bytes).unwrap_or_default());
        let frame = head.get(VIRTIO_BYTES..).unwrap_or_default();
        writer.write(frame.get(..ahead).unwrap_or_default());
    }
    let left = source.frame_bytes - first;
    if left > 0 {
        rest_write(&mut writer, source.rest, first, left);
    }
}

/// Virtio's header, what goes in front of a frame, and the frame's first bytes.
#[inline]
fn tunnelled_head(source: &Source<'_>, outer: &Encapsulation<'_>) -> [u8; TUNNELLED_BYTES] {
    let mut head = [0; TUNNELLED_BYTES];
    let header = outer.header(source.frame_bytes);
    let frame_at = VIRTIO_BYTES + outer.header_bytes();
    let (virtio, frame) = source.head.split_at(VIRTIO_BYTES);
    // Whole headers are copied, so that their lengths are known; the frame then covers what is too much.
    for (at, bytes) in [(0, virtio), (VIRTIO_BYTES, &header[..]), (frame_at, frame)] {
        if let Some(place) = head.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
    head
}

/// Writes what is behind a frame's first bytes.
fn rest_write(writer: &mut Writer<'_>, rest: Rest<'_>, first: usize, mut left: usize) {
    match rest {
        Rest::Own(bytes) => writer.write(bytes),
        Rest::Guest(memory, pieces, skip) => {
            let mut skip = skip + first;
            for span in pieces.iter().filter_map(|piece| memory.span(piece)) {
                let part = span.behind(skip).first(left);
                skip = skip.saturating_sub(span.bytes());
                left -= part.bytes();
                writer.copy(&part);
            }
        }
    }
}

/// Writes through pieces, one after the other.
struct Writer<'a> {
    memory: &'a Regions,
    pieces: std::slice::Iter<'a, Piece>,
    span: Option<Span<'a>>,
}

impl<'a> Writer<'a> {
    /// Where there is room.
    #[inline]
    fn here(&mut self) -> Option<Span<'a>> {
        loop {
            match self.span {
                Some(span) if !span.is_empty() => return Some(span),
                _ => self.span = Some(self.memory.span(self.pieces.next()?)?),
            }
        }
    }

    #[inline]
    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty()
            && let Some(span) = self.here()
        {
            let written = span.write(bytes);
            self.span = Some(span.behind(written));
            bytes = bytes.get(written..).unwrap_or_default();
        }
    }

    fn copy(&mut self, from: &Span<'_>) {
        let mut from = *from;
        while !from.is_empty()
            && let Some(span) = self.here()
        {
            let written = from.copy_to(&span);
            self.span = Some(span.behind(written));
            from = from.behind(written);
        }
    }

    fn skip(&mut self, mut bytes: usize) {
        while bytes > 0
            && let Some(span) = self.here()
        {
            let skipped = bytes.min(span.bytes());
            self.span = Some(span.behind(skipped));
            bytes -= skipped;
        }
    }
}
