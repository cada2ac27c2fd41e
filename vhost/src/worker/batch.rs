//! What was taken from a ring, and what is known of it: kept from one batch to the next, so that nothing is allocated.
//!
//! Guarantees: a frame's first bytes and virtio's header are copied out of the guest's memory once, and only the copies are looked at.

use super::deliver::Room;
use super::tunnel::Outside;
use crate::engine::{
    Engine, Entry, Foreseen, Glance, HEADER_BYTES, Header, HeaderBytes, Judged, Leads, Leaving,
    Now, Place, Train, is_alike,
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
    /// Whether they left nothing, as all loads and heads say then.
    plain: bool,
    /// Of the first frame of each train.
    glances: Vec<Glance>,
    /// Where trains end, each of frames that are alike and follow each other.
    ends: Vec<usize>,
    /// Of trains that open sessions.
    foreseen: Vec<Option<Foreseen>>,
    /// What they are recorded by.
    leads: Leads,
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
            plain: true,
            glances: vec![Glance::default(); BATCH],
            ends: Vec::with_capacity(BATCH),
            foreseen: Vec::new(),
            leads: Leads::default(),
            judged: Vec::with_capacity(BATCH),
            entries: vec![Entry::default(); BATCH],
            leaving: Leaving::default(),
            outside: Outside::default(),
            room: Room::default(),
            whole: Vec::new(),
        }
    }
}

/// A train that is to be judged.
pub(super) struct Asked<'a> {
    pub(super) glance: &'a Glance,
    pub(super) train: Train,
    pub(super) foreseen: Option<(&'a Leads, &'a Foreseen)>,
}

/// Where a batch comes from.
pub(super) struct From<'a> {
    /// The port, by its number.
    pub(super) port: usize,
    /// The queue.
    pub(super) queue: usize,
    pub(super) memory: &'a Regions,
    pub(super) header_bytes: usize,
    /// Whether work may be left undone.
    pub(super) loads: bool,
    pub(super) now: Now,
}

impl From<'_> {
    pub(super) fn frame_bytes(&self, taken: &Taken) -> usize {
        let bytes = usize::try_from(taken.bytes).unwrap_or(usize::MAX);
        bytes.saturating_sub(self.header_bytes)
    }
}

/// Which frames of a batch are looked at.
#[derive(Clone, Copy)]
pub(super) enum Of<'a> {
    /// All of one place's.
    Place(Place),
    /// Each of its own place's.
    Each(&'a [Place]),
}

impl Of<'_> {
    #[inline]
    fn place(&self, index: usize) -> Place {
        match self {
            Self::Place(place) => *place,
            Self::Each(places) => places.get(index).copied().unwrap_or(Place::UNDERLAY),
        }
    }
}

impl Header for Head {
    #[inline]
    fn header(&self) -> &HeaderBytes {
        self.last_chunk().expect("a head ends with a header")
    }

    #[inline]
    fn header_mut(&mut self) -> &mut HeaderBytes {
        self.last_chunk_mut().expect("a head ends with a header")
    }
}

impl Batch {
    /// Copies the frames' headers.
    pub(super) fn read(&mut self, from: &From<'_>) {
        if from.loads {
            return self.read_loaded(from);
        }
        self.plain_make();
        for (taken, head) in self.taken.iter().zip(&mut self.heads) {
            head_read(
                from,
                pieces_of(&self.pieces, taken),
                head,
                from.frame_bytes(taken),
            );
        }
    }

    /// Copies virtio's headers too.
    fn read_loaded(&mut self, from: &From<'_>) {
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
        self.plain = self.loads.iter().all(|load| *load == Some(Load::NONE));
    }

    /// Makes the heads and loads those of frames with which nothing is left to do.
    pub(super) fn plain_make(&mut self) {
        if !self.plain {
            self.heads.fill(EMPTY_HEAD);
            self.loads.fill(Some(Load::NONE));
            self.plain = true;
        }
    }

    /// Looks at the headers, all of which were copied before any is read: a read across two stores under way would wait for
    /// both.
    pub(super) fn look(&mut self, engine: &Engine, of: Of<'_>, from: &From<'_>) {
        self.ends.clear();
        self.foreseen.clear();
        let mut entrance = None;
        for (index, (taken, head)) in self.taken.iter().zip(&self.heads).enumerate() {
            let place = of.place(index);
            if index > 0 && self.follows(index, of) {
                if let Some(end) = self.ends.last_mut() {
                    *end = index + 1;
                }
                continue;
            }
            entrance = match entrance {
                Some((have, entrance)) if have == place => Some((have, entrance)),
                _ => engine.entrance(place).map(|entrance| (place, entrance)),
            };
            let Some((_, entrance)) = &entrance else {
                return self.judge_absent();
            };
            if let Some(glance) = self.glances.get_mut(self.ends.len()) {
                engine.glance(entrance, head.header(), from.frame_bytes(taken), glance);
                self.ends.push(index + 1);
            }
        }
        if let Some(glances) = self.glances.get_mut(..self.ends.len()) {
            engine.guess(glances);
        }
    }

    /// Whether a frame is like the one before it.
    #[inline]
    fn follows(&self, index: usize, of: Of<'_>) -> bool {
        let before = index - 1;
        let (Some([one, other]), Some([first, second])) = (
            self.heads.get(before..=index),
            self.taken.get(before..=index),
        ) else {
            return false;
        };
        first.bytes == second.bytes
            && of.place(before) == of.place(index)
            && is_alike(one.header(), other.header())
            && (self.plain || self.loads.get(before) == self.loads.get(index))
    }

    /// Foresees what opens sessions among the trains that are not judged yet.
    pub(super) fn foresee(&mut self, engine: &Engine, from: &From<'_>) {
        self.foreseen.clear();
        self.leads.clear();
        let mut start = 0;
        for (glance, end) in self.glances.iter().zip(&self.ends) {
            let first = self.heads.get(start).zip(self.taken.get(start));
            let load = self.loads.get(start).copied().flatten();
            let opens = *end > self.judged.len() && !engine.is_known(glance);
            let asked = first.zip(load).filter(|_| opens);
            self.foreseen.push(asked.map(|((head, taken), load)| {
                let frame_bytes = from.frame_bytes(taken);
                let train = Train { frame_bytes, load };
                engine.foresee(&mut self.leads, glance, &train, head.header())
            }));
            start = *end;
        }
    }

    /// Judges trains from where it ended on, until `judge` does not say.
    #[inline]
    pub(super) fn judge_with(
        &mut self,
        from: &From<'_>,
        mut judge: impl FnMut(&Asked<'_>, &mut [Head], &mut Vec<Judged>) -> bool,
        keep: impl Fn(&mut Leaving, Entry) -> bool,
    ) {
        for (number, (glance, end)) in self.glances.iter().zip(&self.ends).enumerate() {
            let start = self.judged.len();
            if *end <= start {
                continue;
            }
            let foreseen = self.foreseen.get(number).and_then(Option::as_ref);
            let foreseen = foreseen.map(|foreseen| (&self.leads, foreseen));
            let (Some(heads), Some(taken)) =
                (self.heads.get_mut(start..*end), self.taken.get(start))
            else {
                return;
            };
            let frame_bytes = from.frame_bytes(taken);
            let fits = (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&frame_bytes);
            match self.loads.get(start).copied().flatten().filter(|_| fits) {
                Some(load) => {
                    let asked = Asked {
                        glance,
                        train: Train { frame_bytes, load },
                        foreseen,
                    };
                    if !judge(&asked, heads, &mut self.judged) {
                        return;
                    }
                }
                None => {
                    let malformed = Judged::Drop(DropReason::Malformed);
                    self.judged.resize(*end, malformed);
                }
            }
            // What leaves by a tunnel goes to the underlay, if its other end is known.
            let judged = self.judged.iter_mut().zip(&mut self.entries).skip(start);
            for (judged, entry) in judged {
                match *judged {
                    Judged::Tunnel(to) if keep(&mut self.leaving, to) => {
                        *entry = to;
                        *judged = Judged::Send(Place::UNDERLAY);
                    }
                    Judged::Tunnel(_) => {}
                    // A limit may have refused those before it.
                    Judged::Drop(_) => {}
                    _ => break,
                }
            }
        }
    }

    /// Those of a port that is in no snapshot.
    pub(super) fn judge_absent(&mut self) {
        let absent = Judged::Drop(DropReason::PortDown);
        self.judged.resize(self.taken.len(), absent);
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
    if let Some(seen) = head.map(Header::header) {
        let bytes = seen.len().min(whole.len());
        if let (Some(to), Some(seen)) = (whole.get_mut(..bytes), seen.get(..bytes)) {
            to.copy_from_slice(seen);
        }
    }
}
