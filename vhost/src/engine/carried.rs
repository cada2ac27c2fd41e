//! What of a session outlives the engine: what it is in the world's words, from which another engine makes it again.
//!
//! Guarantees: a session that is taken over is stale. Its next packet has it walked under the snapshot in force, and what does not
//! hold there is dropped, whoever wrote it down. Where its answers may come in, whose quota it counts for and what is done to its
//! packets are not believed but found out anew.

use super::half::{Cold, Half};
use super::key::{Key, Place};
use super::table::{New, Ref, Table};
use super::{Engine, PlaceIs};
use std::sync::atomic::Ordering::Relaxed;
use weft_dataplane::stage::nat::SnatPorts;
use weft_dataplane::{Ingress, State, Tuple};
use weft_model::MacAddress;

/// A session without its engine. `P` is how it names ports and networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried<P> {
    /// As the opener sends it.
    pub forward: Tuple,
    /// As the answers come in.
    pub reply: Tuple,
    /// Where the opener's packets come in.
    pub ingress: P,
    /// Where the answers come in.
    pub reply_ingress: P,
    /// Where the opener's packets go out.
    pub output: P,
    /// The network that the opener was on.
    pub network: P,
    /// Source MAC of the first packet.
    pub opener_mac: MacAddress,
    /// The destination MACs that packets have, forward and in reply.
    pub destination_macs: [MacAddress; 2],
    /// Its ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// Whether SNAT gave it its source port.
    pub snat: bool,
    /// For its timeout.
    pub state: State,
    /// Seconds of the newest packet forward and in reply.
    pub seen_s: [u32; 2],
}

impl<P> Carried<P> {
    /// The same in other names; none if one of its own is unknown.
    #[must_use]
    pub fn named<Q>(self, name: impl Fn(P) -> Option<Q>) -> Option<Carried<Q>> {
        Some(Carried {
            ingress: name(self.ingress)?,
            reply_ingress: name(self.reply_ingress)?,
            output: name(self.output)?,
            network: name(self.network)?,
            forward: self.forward,
            reply: self.reply,
            opener_mac: self.opener_mac,
            destination_macs: self.destination_macs,
            icmp: self.icmp,
            snat: self.snat,
            state: self.state,
            seen_s: self.seen_s,
        })
    }
}

/// Why a session is not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// A port or network of it is not in the snapshot in force.
    Gone,
    /// Nothing came for longer than its timeout.
    Idle,
    /// It could never have been one, or a newer one has its place.
    Wrong,
    /// There is no room, or its port has used up its quota.
    Full,
}

impl Engine {
    /// From now on it remembers which sessions come and go, for [`Self::changes_take`]. Memory for sessions to come is made ready in
    /// a table beside, too: its address, and bytes of a session there. Before anybody has asked for [`Self::ahead`].
    pub fn changes_remember(&mut self, beside: (usize, usize)) {
        self.table.changes_remember(beside);
    }

    /// Whether any came or went.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.table.is_changed()
    }

    /// Places of sessions that came or went since the last time, some more than once; not all of them, if there were many.
    /// `empty` is used for those that follow.
    pub fn changes_take(&mut self, empty: Vec<u32>) -> Vec<u32> {
        self.table.changes_take(empty)
    }

    /// Places of sessions so far.
    #[must_use]
    pub fn session_places(&self) -> usize {
        self.table.places()
    }

    /// How many numbers of ports and networks there are, and how often some were taken back.
    #[must_use]
    pub fn numbers(&self) -> (usize, u32) {
        (self.places.len(), self.taken_back)
    }

    /// The session at a place of the table, if one is there.
    #[must_use]
    pub fn carried(&self, at: usize) -> Option<Carried<Place>> {
        let at = self.table.forwards(at, 1).next()?;
        let (half, other) = (self.table.half(at), self.table.half(at.other()));
        let (forward, reply) = (self.table.key(at), self.table.key(at.other()));
        let cold = self.table.cold(at);
        Some(Carried {
            forward: forward.tuple(),
            reply: reply.tuple(),
            ingress: forward.meta.place(),
            reply_ingress: reply.meta.place(),
            output: half.output,
            network: cold.network,
            opener_mac: MacAddress(cold.opener_mac),
            destination_macs: [half, other].map(|half| MacAddress(half.match_mac)),
            icmp: cold.icmp,
            snat: cold.snat.is_some(),
            state: half.state(),
            seen_s: [half.seen_s(), other.seen_s()],
        })
    }

    /// Takes over a session of an engine before, to be judged by its next packet.
    ///
    /// # Errors
    /// Why not.
    pub fn adopt(&mut self, session: &Carried<Ingress>, now_s: u32) -> Result<(), Left> {
        let session = session.named(|ingress| self.here(ingress));
        let session = session.ok_or(Left::Gone)?;
        let (forward, reply) = (&session.forward, &session.reply);
        let one_family = [forward, reply].map(|tuple| {
            let v6 = tuple.source.is_ipv6();
            (v6 == tuple.destination.is_ipv6()).then_some(v6)
        });
        // Answers come in where it went out; by a tunnel, on the opener's network.
        let tunnelled = !self.is_port(session.output) && session.reply_ingress == session.network;
        let keys = [
            Key::new(forward, session.ingress),
            Key::new(reply, session.reply_ingress),
        ];
        if one_family[0].is_none()
            || one_family[0] != one_family[1]
            || forward.protocol != reply.protocol
            || keys[0] == keys[1]
            || !(session.reply_ingress == session.output || tunnelled)
        {
            return Err(Left::Wrong);
        }
        let owner = [session.ingress, session.output];
        let owner = owner.into_iter().find(|place| self.is_port(*place));
        self.put(&session, &keys, owner, now_s)
    }

    fn put(
        &mut self,
        session: &Carried<Place>,
        [forward, reply]: &[Key; 2],
        owner: Option<Place>,
        now_s: u32,
    ) -> Result<(), Left> {
        let table = &mut self.table;
        let hashes = [forward, reply].map(|key| table.seeds().hash(key));
        let seen_s = session.seen_s.map(|seen_s| seen_s.min(now_s));
        let newest = |table: &Table, at: Ref| {
            let both = [at, at.other()].map(|at| table.half(at).seen_s());
            both.into_iter().max()
        };
        for (key, hash) in [forward, reply].into_iter().zip(hashes) {
            let Some(held) = table.find(key, hash) else {
                continue;
            };
            if newest(table, held) >= seen_s.into_iter().max() {
                return Err(Left::Wrong);
            }
            table.delete(held);
        }
        table.room_for(owner).map_err(|_full| Left::Full)?;
        // Of no generation that is in force.
        let stale = |output, match_mac: MacAddress| Half {
            generation: self.generation.wrapping_sub(1),
            output,
            match_mac: match_mac.0,
            ..Half::default()
        };
        let [destination_mac, reply_mac] = session.destination_macs;
        let new = New {
            forward,
            reply,
            forward_half: &stale(session.output, destination_mac),
            reply_half: &stale(session.ingress, reply_mac),
            denied: false,
            cold: &Cold {
                opener_mac: session.opener_mac.0,
                icmp: session.icmp,
                snat: session.snat.then_some(SnatPorts {
                    block: None,
                    portless: false,
                }),
                owner,
                network: session.network,
                ..Cold::default()
            },
            entropies: [0; 2],
        };
        let at = table.insert(&new, hashes, now_s);
        let at = at.map_err(|_full| Left::Full)?;
        table.state_move(at, |_opening| session.state);
        for (at, seen_s) in [at, at.other()].into_iter().zip(seen_s) {
            table.half(at).seen_s.store(seen_s, Relaxed);
        }
        if table.is_expired(at, now_s) {
            table.delete(at);
            return Err(Left::Idle);
        }
        Ok(())
    }

    /// The place of a port or network of the snapshot in force.
    fn here(&self, ingress: Ingress) -> Option<Place> {
        let place = self.places.of(ingress)?;
        let plan = self.plan.as_ref()?;
        plan.places.get(place.at())?.as_ref().map(|_is| place)
    }

    fn is_port(&self, place: Place) -> bool {
        let is = self
            .plan
            .as_ref()
            .and_then(|plan| plan.places.get(place.at()));
        matches!(is, Some(Some(PlaceIs::Port(_))))
    }
}
