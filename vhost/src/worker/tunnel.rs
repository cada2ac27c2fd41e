//! The port that leads to other hosts, where this engine has one: frames are taken out of their tunnels and put into them.
//! docs/adr/0011-one-engine-a-flow.md.
//!
//! Guarantees: what is judged of a frame is what is delivered of it; what is not easily taken out of its tunnel is judged as a
//! whole, as it came.

use super::batch::{Batch, FRAME_BYTES_MAX, From, Of, head_read, pieces_of, whole_read};
use super::deliver::{Room, Source, head_of};
use super::{Worker, WorkerPort};
use crate::engine::{Engine, Entry, Heard, Now, Place};
use crate::memory::{Piece, Regions};
use crate::ring::Taken;
use weft_dataplane::Ingress;
use weft_model::DropReason;
use weft_wire::outer::{self, Outer};
use weft_wire::virtio_net::Load;

/// What came by the port, before frames were taken out of their tunnels. Empty for all other ports.
#[derive(Default)]
pub(super) struct Outside {
    pieces: Vec<Piece>,
    taken: Vec<Taken>,
    first: Vec<[u8; outer::BYTES_MAX]>,
    /// Where frames are that were taken out; those that were not are on the underlay.
    places: Vec<Place>,
}

impl Outside {
    #[inline]
    pub(super) fn clear(&mut self) {
        self.taken.clear();
    }

    fn keep(&mut self, pieces: &[Piece], taken: &[Taken]) {
        self.pieces.clear();
        self.pieces.extend_from_slice(pieces);
        self.taken.clear();
        self.taken.extend_from_slice(taken);
        self.first.clear();
        self.places.clear();
    }
}

impl Batch {
    /// Copies a whole frame as it came; nothing of one that is too long.
    pub(super) fn came(&self, index: usize, from: &From<'_>, whole: &mut Vec<u8>) {
        whole.clear();
        let (pieces, all) = match self.outside.taken.is_empty() {
            true => (&self.pieces, &self.taken),
            false => (&self.outside.pieces, &self.outside.taken),
        };
        let Some(taken) = all.get(index) else { return };
        if from.frame_bytes(taken) <= FRAME_BYTES_MAX {
            // The first bytes of what came in a tunnel are not those that were looked at.
            let head = self.heads.get(index);
            let seen = head.filter(|_| self.outside.taken.is_empty());
            whole_read(from, pieces_of(pieces, taken), seen, taken, whole);
        }
    }
}

/// Leaves so many bytes of a frame away, behind virtio's header.
#[inline]
fn strip(pieces: &mut [Piece], taken: &mut Taken, bytes: usize) {
    let mut left = u32::try_from(bytes).unwrap_or(u32::MAX);
    let first = usize::try_from(taken.first).unwrap_or(usize::MAX);
    let count = usize::try_from(taken.pieces).unwrap_or(0);
    taken.bytes -= left.min(taken.bytes);
    for piece in pieces.iter_mut().skip(first).take(count) {
        let have = piece.bytes;
        *piece = piece.behind(left);
        left -= left.min(have);
        if left == 0 {
            break;
        }
    }
}

/// Copies bytes out of a guest's memory, from behind virtio's header on.
#[inline]
fn first_read(from: &From<'_>, pieces: &[Piece]) -> [u8; outer::BYTES_MAX] {
    let mut first = [0; outer::BYTES_MAX];
    let (mut skip, mut at) = (from.header_bytes, 0);
    for span in pieces.iter().filter_map(|piece| from.memory.span(piece)) {
        let part = span.behind(skip);
        skip = skip.saturating_sub(span.bytes());
        at += part.read(first.get_mut(at..).unwrap_or_default());
        if at == first.len() {
            break;
        }
    }
    first
}

impl WorkerPort {
    #[inline]
    pub(super) fn is_underlay(&self) -> bool {
        self.ingress == Ingress::Underlay
    }
}

impl Batch {
    /// Keeps what came, and copies its first bytes.
    pub(super) fn outside_read(&mut self, from: &From<'_>) {
        self.plain_make();
        let Self {
            pieces,
            taken,
            outside,
            ..
        } = self;
        outside.keep(pieces, taken);
        for taken in taken.iter() {
            outside
                .first
                .push(first_read(from, pieces_of(pieces, taken)));
        }
    }

    /// Takes frames out of their tunnels and looks at their headers; in turns, as for other ports: a read across stores under
    /// way would wait for them.
    pub(super) fn outside_look(&mut self, engine: &Engine, from: &From<'_>) {
        let mut outside = std::mem::take(&mut self.outside);
        let frames = self.taken.iter_mut().zip(&mut self.heads);
        for ((taken, head), first) in frames.zip(&outside.first) {
            let found = engine.decapsulate(first, from.frame_bytes(taken));
            if let Some((_, outer_bytes)) = found {
                strip(&mut self.pieces, taken, outer_bytes);
            }
            let frame = from.frame_bytes(taken);
            head_read(from, pieces_of(&self.pieces, taken), head, frame);
            let place = found.map_or(Place::UNDERLAY, |(place, _)| place);
            outside.places.push(place);
        }
        self.look(engine, Of::Each(&outside.places), from);
        self.outside = outside;
    }
}

impl Worker {
    /// A frame that would leave by a tunnel whose other end is not known yet: it is asked for.
    pub(super) fn unreached(&mut self, batch: &mut Batch, entry: Entry, from: &From<'_>) {
        let mut engine = self.engine.write();
        let remote = engine.remote(entry);
        let question = remote.and_then(|remote| engine.remote_ask(remote, from.now.s));
        drop(engine);
        self.say(question, &mut batch.room, from);
        self.drop_count(from.port, DropReason::NeighbourUnresolved, 1);
    }

    /// Sends a frame that was put into its tunnel already, but for its outer MACs.
    pub(super) fn tunnel_out(
        &mut self,
        frame: &[u8],
        load: Load,
        room: &mut Room,
        from: &From<'_>,
    ) {
        let Some(outer) = Outer::of(frame) else {
            return self.drop_count(from.port, DropReason::EngineError, 1);
        };
        let inner = frame.get(outer.length()..).unwrap_or_default();
        let head = head_of(inner, &load);
        let engine = self.engine.read();
        if let Some(encapsulation) = engine.encapsulation_of(&outer) {
            let source = Source {
                outer: Some(encapsulation),
                ..Source::own(&head, inner, load)
            };
            let to = self.port_of(Ingress::Underlay);
            return self.deliver(to, 1, |_| Some(source), room, from);
        }
        let linked = engine.has_link();
        drop(engine);
        if !linked {
            return self.drop_count(from.port, DropReason::UplinkMissing, 1);
        }
        let question = self.engine.write().remote_ask(outer.remote(), from.now.s);
        self.say(question, room, from);
        self.drop_count(from.port, DropReason::NeighbourUnresolved, 1);
    }

    /// Listens to ARP and ND of the underlay's link; false if the frame that was read whole is something else.
    pub(super) fn hear(&mut self, batch: &mut Batch, from: &From<'_>) -> bool {
        let heard = self.engine.write().link_hear(&batch.whole, from.now.s);
        match heard {
            Heard::Nothing => false,
            Heard::Told => true,
            Heard::Asked(answer) => {
                self.say(Some(answer), &mut batch.room, from);
                true
            }
        }
    }

    fn say(&self, frame: Option<Vec<u8>>, room: &mut Room, from: &From<'_>) {
        if let Some(frame) = frame {
            let to = self.port_of(Ingress::Underlay);
            self.deliver_own(to, &frame, Load::NONE, room, from);
        }
    }

    /// Asks for hosts that are not known, once a second.
    pub(super) fn remotes_ask(&mut self, now: Now) {
        let Some(port) = self.ports.iter().position(WorkerPort::is_underlay) else {
            return;
        };
        let from = From {
            port,
            queue: 0,
            memory: &Regions::default(),
            header_bytes: 0,
            loads: false,
            now,
        };
        let questions = self.engine.write().remotes_ask(now.s);
        for question in questions {
            self.say(Some(question), &mut Room::default(), &from);
        }
    }
}
