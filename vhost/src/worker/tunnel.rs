//! The port that leads to other hosts, where this engine has one: frames are taken out of their tunnels and put into them.
//! docs/adr/0011-one-engine-a-flow.md.
//!
//! Guarantees: what is judged of a frame is what is delivered of it; what is not easily taken out of its tunnel is judged as a
//! whole, as it came.

use super::deliver::{Room, Source, head_of};
use super::poll::{
    Batch, EMPTY_HEAD, FRAME_BYTES_MAX, From, VIRTIO_BYTES, frame_of, head_read, is_plain,
    pieces_of, whole_read,
};
use super::{Worker, WorkerPort};
use crate::engine::{Entry, Heard, Judged, Place};
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
    /// Where frames are that were taken out.
    opened: Vec<Option<Place>>,
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
        self.opened.clear();
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

impl Worker {
    /// Takes frames out of their tunnels and looks at their headers.
    pub(super) fn open(&mut self, batch: &mut Batch, from: &From<'_>) {
        let Some(port) = self.ports.get(from.port) else {
            return;
        };
        let Batch {
            pieces,
            taken,
            heads,
            loads,
            glances,
            outside,
            ..
        } = batch;
        outside.keep(pieces, taken);
        glances.clear();
        let mut bytes = 0;
        // In turns, as for other ports: a read across stores under way would wait for them.
        for (taken, load) in taken.iter().zip(loads.iter_mut()) {
            let all = pieces_of(pieces, taken);
            // Nobody may leave work undone here: it was not offered.
            *load = is_plain(from, all).then_some(Load::NONE);
            outside.first.push(first_read(from, all));
            bytes += u64::try_from(from.frame_bytes(taken)).unwrap_or_default();
        }
        for ((taken, head), first) in taken.iter_mut().zip(heads.iter_mut()).zip(&outside.first) {
            let found = self.engine.decapsulate(first, from.frame_bytes(taken));
            if let Some((_, outer_bytes)) = found {
                strip(pieces, taken, outer_bytes);
            }
            let frame = from.frame_bytes(taken);
            if let (Some(place), Some(empty)) =
                (head.get_mut(..VIRTIO_BYTES), EMPTY_HEAD.get(..VIRTIO_BYTES))
            {
                place.copy_from_slice(empty);
            }
            head_read(from, pieces_of(pieces, taken), head, frame);
            outside.opened.push(found.map(|(place, _)| place));
        }
        for ((taken, head), place) in taken.iter().zip(heads.iter()).zip(&outside.opened) {
            let place = place.unwrap_or(Place::UNDERLAY);
            if let (Some(entrance), Some(header)) = (self.engine.entrance(place), frame_of(head)) {
                let frame = from.frame_bytes(taken);
                glances.push(self.engine.glance(&entrance, header, frame));
            }
        }
        let packets = u64::try_from(taken.len()).unwrap_or_default();
        port.counters.received(packets, bytes);
        self.engine.guess(glances);
    }

    /// A frame that leaves by a tunnel, if it is known where to.
    #[inline]
    pub(super) fn tunnel(
        &mut self,
        batch: &mut Batch,
        index: usize,
        entry: Entry,
        from: &From<'_>,
    ) -> Judged {
        if self.engine.encapsulation(entry).is_none() {
            if let Some(remote) = self.engine.remote(entry) {
                let question = self.engine.remote_ask(remote, from.now_s);
                self.say(question, &mut batch.room, from);
            }
            return Judged::Drop(DropReason::NeighbourUnresolved);
        }
        if let Some(place) = batch.entries.get_mut(index) {
            *place = entry;
        }
        Judged::Send(Place::UNDERLAY)
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
        if let Some(encapsulation) = self.engine.encapsulation_of(&outer) {
            let source = Source {
                outer: Some(encapsulation),
                ..Source::own(&head, inner, load)
            };
            self.deliver(Place::UNDERLAY, 1, |_| Some(source), room, from);
            return;
        }
        if !self.engine.has_link() {
            return self.drop_count(from.port, DropReason::UplinkMissing, 1);
        }
        let question = self.engine.remote_ask(outer.remote(), from.now_s);
        self.say(question, room, from);
        self.drop_count(from.port, DropReason::NeighbourUnresolved, 1);
    }

    /// Listens to ARP and ND of the underlay's link; false if the frame that was read whole is something else.
    pub(super) fn hear(&mut self, batch: &mut Batch, from: &From<'_>) -> bool {
        match self.engine.link_hear(&batch.whole, from.now_s) {
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
            self.deliver_own(Place::UNDERLAY, &frame, Load::NONE, room, from);
        }
    }

    /// Asks for hosts that are not known, once a second.
    pub(super) fn remotes_ask(&mut self, now_s: u32) {
        let Some(port) = self.ports.iter().position(WorkerPort::is_underlay) else {
            return;
        };
        let from = From {
            port,
            queue: 0,
            memory: &Regions::default(),
            header_bytes: 0,
            now_s,
        };
        for question in self.engine.remotes_ask(now_s) {
            self.say(Some(question), &mut Room::default(), &from);
        }
    }
}
