//! What was taken from a ring, and what is known of it: kept from one batch to the next, so that nothing is allocated.
//!
//! Guarantees: a frame's first bytes and virtio's header are copied out of the guest's memory once, and only the copies are looked at.

use super::deliver::Room;
use super::tunnel::Outside;
use crate::engine::{
    Engine, Entry, Glance, HEADER_BYTES, HeaderBytes, Judged, Leaving, Now, Place,
};
use crate::memory::{Piece, Regions};
use crate::ring::Taken;
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
    pub(super) judged: Vec<Judged>,
    /// Of frames that leave by a tunnel.
    pub(super) entries: Vec<Entry>,
    pub(super) leaving: Leaving,
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
            judged: Vec::with_capacity(BATCH),
            entries: vec![Entry::default(); BATCH],
            leaving: Leaving::default(),
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
    pub(super) now: Now,
}

impl From<'_> {
    pub(super) fn frame_bytes(&self, taken: &Taken) -> usize {
        let bytes = usize::try_from(taken.bytes).unwrap_or(usize::MAX);
        bytes.saturating_sub(self.header_bytes)
    }
}

impl Batch {
    /// Copies the frames' headers.
    pub(super) fn read(&mut self, from: &From<'_>) {
        let places = self.heads.iter_mut().zip(&mut self.loads);
        for (taken, (head, load)) in self.taken.iter().zip(places) {
            let frame = from.frame_bytes(taken);
            let pieces = pieces_of(&self.pieces, taken);
            let plain = is_plain(from, pieces);
            head_read(from, pieces, head, frame);
            if !plain || *load != Some(Load::NONE) {
                *load = load_read(from, pieces, head, frame, plain);
            }
        }
    }

    /// Looks at the headers, all of which were copied before any is read: a read across two stores under way would wait for
    /// both.
    pub(super) fn look(&mut self, engine: &Engine, place: Place, from: &From<'_>) {
        let Some(entrance) = engine.entrance(place) else {
            return;
        };
        let places = self.heads.iter().zip(&self.loads);
        for (taken, (head, load)) in self.taken.iter().zip(places) {
            if let Some(header) = frame_of(head) {
                let glance = engine.glance(&entrance, header, from.frame_bytes(taken));
                self.glances.push(match load {
                    Some(load) if !load.is_none() => glance.loaded(*load),
                    _ => glance,
                });
            }
        }
    }

    /// Judges from where it ends on, until `judge` does not say.
    #[inline]
    pub(super) fn judge_with(
        &mut self,
        from: &From<'_>,
        mut judge: impl FnMut(&Glance, &mut HeaderBytes, usize) -> Option<Judged>,
        keep: impl Fn(&mut Leaving, Entry) -> bool,
    ) {
        let done = self.judged.len();
        let places = self.heads.iter_mut().zip(&mut self.entries);
        let places = self.taken.iter().zip(places).zip(&self.loads);
        for (index, ((taken, (head, entry)), load)) in places.enumerate().skip(done) {
            let frame = from.frame_bytes(taken);
            let fits = (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&frame);
            let judged = if !fits || load.is_none() {
                Judged::Drop(DropReason::Malformed)
            } else if let (Some(glance), Some(header)) =
                (self.glances.get(index), frame_of_mut(head))
            {
                match judge(glance, header, frame) {
                    Some(judged) => judged,
                    None => return,
                }
            } else {
                // A port that is in no snapshot.
                Judged::Drop(DropReason::PortDown)
            };
            // A frame that leaves by a tunnel goes to the underlay, if its other end is known.
            self.judged.push(match judged {
                Judged::Tunnel(to) if keep(&mut self.leaving, to) => {
                    *entry = to;
                    Judged::Send(Place::UNDERLAY)
                }
                judged => judged,
            });
        }
    }
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
