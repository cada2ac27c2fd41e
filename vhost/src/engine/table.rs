//! The session table of the user engine: one cache line a direction, found by one probe.
//!
//! Guarantees: both directions come and go together; what a place holds never exceeds its quota; memory is taken as
//! sessions come, up to the limit. The pipeline's meaning of sessions (staleness, states) is the engine's.
//!
//! A direction's translation is not stored: it is the other direction's key, reversed.

pub(super) use super::half::Ref;
use super::half::{Cold, DENIED, Half, NONE, TRANSLATED, WALKED};
use super::key::{Addresses, Key, Meta, Place, Seeds};
use super::limit::Account;
use super::wide::Wide;
use crate::memory::{Ahead, huge_pages_advise, prefetch};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use weft_dataplane::{State, Way};
use weft_model::DropReason;

/// Entries of a bucket: with their tags and references it fills a cache line.
const BUCKET_ENTRIES: usize = 7;
/// Buckets that an entry may be in.
const PROBES_MAX: usize = 16;
/// Entries that a bucket has on the average when the table is full.
const BUCKET_LOAD: usize = 4;
/// Sessions that came or went and are remembered; of more it is found out by looking at all.
pub(crate) const CHANGES_MAX: usize = 1_024;
/// Sessions of one growth step of the first table.
const SESSIONS_MIN: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Bucket {
    /// Part of the hash; zero: no entry.
    tags: [u32; BUCKET_ENTRIES],
    /// Entries that would be here, had there been room.
    overflow: u32,
    refs: [u32; BUCKET_ENTRIES],
}

/// The table's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions of the host.
    pub sessions_max: u32,
    /// Sessions that one port may hold.
    pub sessions_per_port_max: u32,
}

/// A session that is to be recorded.
#[derive(Debug)]
pub(super) struct New<'a> {
    /// Key of the forward direction.
    pub(super) forward: &'a Key,
    /// Key of the reply direction.
    pub(super) reply: &'a Key,
    /// What is done forward; key, state and counters are filled in.
    pub(super) forward_half: &'a Half,
    /// What is done in reply.
    pub(super) reply_half: &'a Half,
    /// Whether none of the replies passes.
    pub(super) denied: bool,
    /// The rest.
    pub(super) cold: &'a Cold,
    /// What tells it apart in tunnels.
    pub(super) entropies: [u16; 2],
}

/// What a walk found for a session that stays.
#[derive(Debug)]
pub(super) struct Renewed {
    /// What is done forward and in reply.
    pub(super) halves: [Half; 2],
    /// Whether none of the replies passes.
    pub(super) denied: bool,
    /// The rest; the owner stays.
    pub(super) cold: Cold,
}

/// The sessions of a host.
#[derive(Debug)]
pub(super) struct Table {
    seeds: Seeds,
    limits: Limits,
    mask: usize,
    buckets: Vec<Bucket>,
    halves: Vec<Half>,
    cold: Vec<Cold>,
    free: Vec<u32>,
    wide: Wide,
    held: Vec<u32>,
    count: u32,
    /// Places of sessions that came or went, as far as there is room; nobody asks, and there is none.
    changed: Vec<u32>,
    /// Told of how many places have been used so far.
    ahead: Arc<Ahead>,
}

fn denied(is: bool) -> u8 {
    if is { DENIED } else { 0 }
}

fn tag(hash: u64) -> u32 {
    let [.., a, b, c, d] = hash.to_le_bytes();
    u32::from_le_bytes([a, b, c, d]) | 1
}

impl Table {
    /// An empty table.
    #[must_use]
    pub(super) fn new(limits: Limits, seeds: Seeds) -> Self {
        let sessions = usize::try_from(limits.sessions_max).unwrap_or(usize::MAX >> 8);
        let entries = sessions.max(SESSIONS_MIN) * 2;
        let buckets = (entries / BUCKET_LOAD).next_power_of_two();
        // Reserved, not touched: memory comes with the sessions, and nothing is ever moved.
        let halves: Vec<Half> = Vec::with_capacity(2 * sessions);
        let cold: Vec<Cold> = Vec::with_capacity(sessions);
        let mut table = Self {
            seeds,
            limits,
            mask: buckets - 1,
            buckets: Vec::with_capacity(buckets),
            halves,
            cold,
            free: Vec::new(),
            wide: Wide::default(),
            held: Vec::new(),
            count: 0,
            changed: Vec::new(),
            ahead: Arc::default(),
        };
        table.ahead_make(None);
        // Before they are touched: what is on small pages stays there.
        huge_pages_advise(&table.buckets, buckets);
        huge_pages_advise(&table.halves, 2 * sessions);
        huge_pages_advise(&table.cold, sessions);
        table.buckets.resize(buckets, Bucket::default());
        table
    }

    /// What is to be ready ahead: the table's own memory, and that of another one.
    fn ahead_make(&mut self, beside: Option<(usize, usize)>) {
        let own = [
            (self.halves.as_ptr().addr(), 2 * size_of::<Half>()),
            (self.cold.as_ptr().addr(), size_of::<Cold>()),
        ];
        let parts: Vec<_> = own.into_iter().chain(beside).collect();
        let sessions = usize::try_from(self.limits.sessions_max).unwrap_or(usize::MAX >> 8);
        self.ahead = Arc::new(Ahead::new(sessions, &parts));
    }

    /// From now on changes are remembered; there is a table beside, of which the memory is to be ready too.
    pub(super) fn changes_remember(&mut self, beside: (usize, usize)) {
        self.changed = Vec::with_capacity(CHANGES_MAX);
        self.ahead_make(Some(beside));
    }

    #[inline]
    fn change_note(&mut self, session: usize) {
        if self.changed.len() < self.changed.capacity() {
            self.changed.extend(u32::try_from(session));
        }
    }

    /// Whether any session came or went.
    #[must_use]
    pub(super) fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Those that did, as far as they are remembered.
    pub(super) fn changes_take(&mut self, mut empty: Vec<u32>) -> Vec<u32> {
        empty.clear();
        empty.reserve(self.changed.capacity());
        std::mem::replace(&mut self.changed, empty)
    }

    /// The secrets that hashes are made with.
    #[must_use]
    pub(super) fn seeds(&self) -> &Seeds {
        &self.seeds
    }

    /// The memory that sessions to come will be in.
    #[must_use]
    pub(super) fn ahead(&self) -> &Arc<Ahead> {
        &self.ahead
    }

    /// How many sessions there are.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    /// Tells the processor that this hash will be looked up.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.buckets.get(self.slot(hash, 0)) {
            prefetch(bucket);
        }
    }

    #[inline]
    fn slot(&self, hash: u64, probe: usize) -> usize {
        let [a, b, c, d, ..] = hash.to_le_bytes();
        let start = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(0);
        let step = usize::try_from(tag(hash)).unwrap_or(1);
        start.wrapping_add(probe.wrapping_mul(step)) & self.mask
    }

    /// What most likely has this hash; the processor is told that it will be read.
    #[inline]
    #[must_use]
    pub(super) fn guess(&self, hash: u64) -> Option<Ref> {
        let bucket = self.buckets.get(self.slot(hash, 0))?;
        let tag = tag(hash);
        // Without a branch for each: which entry it is cannot be foreseen.
        let same = (0..).zip(&bucket.tags);
        let same = same.fold(0u32, |mask, (n, have)| mask | u32::from(*have == tag) << n);
        if same == 0 {
            return None;
        }
        let at = usize::try_from(same.trailing_zeros()).ok()?;
        let found = Ref(*bucket.refs.get(at)?);
        if let Some(half) = self.halves.get(found.at()) {
            prefetch(half);
        }
        Some(found)
    }

    /// Whether a direction has this key.
    #[inline]
    #[must_use]
    pub(super) fn is(&self, at: Ref, key: &Key) -> bool {
        let Some(half) = self.halves.get(at.at()) else {
            return false;
        };
        half.meta == key.meta
            && match key.addresses {
                Addresses::V4(addresses) => half.addresses == addresses,
                Addresses::V6(_) | Addresses::Tagged(..) => self.key(at).addresses == key.addresses,
            }
    }

    /// A direction's key.
    #[must_use]
    pub(super) fn key(&self, at: Ref) -> Key {
        let half = self.half(at);
        let addresses = if half.meta.is_wide() {
            let [source, destination] = self.wide.get(half.addresses);
            let both = match at.way() {
                Way::Forward => [source, destination],
                Way::Reply => [destination, source],
            };
            match half.meta.is_tagged() {
                true => Addresses::Tagged(both, self.wide.vlan(half.addresses)),
                false => Addresses::V6(both),
            }
        } else {
            Addresses::V4(half.addresses)
        };
        Key {
            addresses,
            meta: half.meta,
        }
    }

    /// Both IPv4 addresses of a direction's key.
    #[inline]
    #[must_use]
    pub(super) fn addresses_v4(&self, at: Ref) -> (u64, Meta) {
        self.halves
            .get(at.at())
            .map_or((0, Meta::default()), |half| (half.addresses, half.meta))
    }

    /// The direction with this key, expired or not.
    #[must_use]
    pub(super) fn find(&self, key: &Key, hash: u64) -> Option<Ref> {
        let tag = tag(hash);
        for probe in 0..PROBES_MAX {
            let bucket = self.buckets.get(self.slot(hash, probe))?;
            for (have, found) in bucket.tags.iter().zip(&bucket.refs) {
                if *have == tag && self.is(Ref(*found), key) {
                    return Some(Ref(*found));
                }
            }
            if bucket.overflow == 0 {
                return None;
            }
        }
        None
    }

    /// The direction with this key; a session that is expired is deleted and not found.
    pub(super) fn find_fresh(&mut self, key: &Key, hash: u64, now_s: u32) -> Option<Ref> {
        let found = self.find(key, hash)?;
        if self.is_expired(found, now_s) {
            self.delete(found);
            return None;
        }
        Some(found)
    }

    /// What is kept of a direction; nothing of use if it is not there.
    #[inline]
    #[must_use]
    pub(super) fn half(&self, at: Ref) -> &Half {
        self.halves.get(at.at()).unwrap_or(&NONE)
    }

    /// By which tunnel a direction leaves (one of the plan's, plus one; 0 for none), and what tells it apart there.
    #[inline]
    #[must_use]
    pub(super) fn tunnel(&self, at: Ref) -> (u32, u16) {
        let cold = self.cold.get(at.session());
        cold.map_or((0, 0), |cold| match at.way() {
            Way::Forward => (cold.tunnels[0], cold.entropies[0]),
            Way::Reply => (cold.tunnels[1], cold.entropies[1]),
        })
    }

    /// Limits of the address that the opener is seen with, and of the one that it came in by.
    #[must_use]
    pub(super) fn accounts(&self, at: Ref) -> [Account; 2] {
        let cold = self.cold.get(at.session());
        cold.map_or([Account::NONE; 2], |cold| cold.accounts)
    }

    /// The rest of a session.
    #[must_use]
    pub(super) fn cold(&self, at: Ref) -> Cold {
        self.cold.get(at.session()).copied().unwrap_or_default()
    }

    /// Whether nothing has come for longer than the session's timeout. The direction's own newest packet answers most
    /// often; the other one is asked only if it does not.
    #[inline]
    #[must_use]
    pub(super) fn is_expired(&self, at: Ref, now_s: u32) -> bool {
        let half = self.half(at);
        let timeout = half.timeout_s();
        now_s.saturating_sub(half.seen_s()) > timeout
            && now_s.saturating_sub(self.half(at.other()).seen_s()) > timeout
    }

    /// Moves a session to the state that follows the one that it has.
    pub(super) fn state_move(&self, at: Ref, next: impl Fn(State) -> State) {
        for at in [at, at.other()] {
            if let Some(half) = self.halves.get(at.at()) {
                half.state_move(&next);
            }
        }
    }

    /// Whether a session of this owner would find room.
    ///
    /// # Errors
    /// The port's quota or the table is used up.
    pub(super) fn room_for(&self, owner: Option<Place>) -> Result<(), DropReason> {
        let held = owner.and_then(|owner| self.held.get(owner.at()));
        if held.is_some_and(|held| *held >= self.limits.sessions_per_port_max) {
            return Err(DropReason::SessionQuota);
        }
        if self.limits.sessions_per_port_max == 0 && owner.is_some() {
            return Err(DropReason::SessionQuota);
        }
        if self.count >= self.limits.sessions_max {
            return Err(DropReason::SessionTableFull);
        }
        Ok(())
    }

    /// Records a session. Callers have asked [`Self::room_for`] and deleted what held its keys, of which these are the hashes.
    ///
    /// # Errors
    /// Too many entries share its buckets: as good as full.
    pub(super) fn insert(
        &mut self,
        new: &New<'_>,
        hashes: [u64; 2],
        now_s: u32,
    ) -> Result<Ref, DropReason> {
        let session = match self.free.pop() {
            Some(free) => usize::try_from(free).unwrap_or(usize::MAX),
            None => {
                self.halves.extend([Half::default(), Half::default()]);
                self.cold.push(Cold::default());
                self.ahead.use_up_to(self.cold.len());
                self.cold.len() - 1
            }
        };
        self.change_note(session);
        let refs = [Way::Forward, Way::Reply].map(|way| Ref::new(session, way));
        let wide = match new.forward.addresses {
            Addresses::V4(_) => None,
            Addresses::V6(addresses) => Some(self.wide.put(addresses)),
            Addresses::Tagged(addresses, vlan) => Some(self.wide.put_tagged(addresses, vlan)),
        };
        let translated = match new.forward.mirrors(new.reply) {
            true => 0,
            false => TRANSLATED,
        };
        let parts = [
            (new.forward, new.forward_half, 0),
            (new.reply, new.reply_half, denied(new.denied)),
        ];
        for (at, (key, half, denied)) in refs.into_iter().zip(parts) {
            let addresses = match key.addresses {
                Addresses::V4(addresses) => addresses,
                _ => wide.map_or(0, u64::from),
            };
            if let Some(place) = self.halves.get_mut(at.at()) {
                let walked = half.flags.load(Relaxed) & WALKED;
                let flags = State::Opening as u8 | translated | denied;
                *place = Half {
                    addresses,
                    meta: key.meta,
                    packets: AtomicU64::new(0),
                    bytes: AtomicU64::new(0),
                    seen_s: AtomicU32::new(now_s),
                    flags: AtomicU8::new(flags | walked),
                    ..*half
                };
            }
        }
        if let Some(cold) = self.cold.get_mut(session) {
            *cold = Cold {
                entropies: new.entropies,
                ..*new.cold
            };
        }
        self.count += 1;
        if let Some(owner) = new.cold.owner {
            let length = self.held.len().max(owner.at() + 1);
            self.held.resize(length, 0);
            if let Some(held) = self.held.get_mut(owner.at()) {
                *held += 1;
            }
        }
        let [forward, reply] = refs;
        let [forward_hash, reply_hash] = hashes;
        let placed = self.index_put(forward_hash, forward) && self.index_put(reply_hash, reply);
        if !placed {
            self.delete(forward);
            return Err(DropReason::SessionTableFull);
        }
        Ok(forward)
    }

    fn index_put(&mut self, hash: u64, at: Ref) -> bool {
        for probe in 0..PROBES_MAX {
            let slot = self.slot(hash, probe);
            let Some(bucket) = self.buckets.get_mut(slot) else {
                return false;
            };
            if let Some(free) = bucket.tags.iter().position(|tag| *tag == 0) {
                if let (Some(tag_at), Some(ref_at)) =
                    (bucket.tags.get_mut(free), bucket.refs.get_mut(free))
                {
                    (*tag_at, *ref_at) = (tag(hash), at.0);
                }
                return true;
            }
            bucket.overflow += 1;
        }
        // No room anywhere: take back what was said on the way.
        for probe in 0..PROBES_MAX {
            let slot = self.slot(hash, probe);
            if let Some(bucket) = self.buckets.get_mut(slot) {
                bucket.overflow -= 1;
            }
        }
        false
    }

    fn index_delete(&mut self, hash: u64, at: Ref) {
        for probe in 0..PROBES_MAX {
            let slot = self.slot(hash, probe);
            let Some(bucket) = self.buckets.get_mut(slot) else {
                return;
            };
            let found = bucket
                .tags
                .iter_mut()
                .zip(&bucket.refs)
                .find(|(have, found)| **have != 0 && **found == at.0);
            if let Some((tag, _)) = found {
                *tag = 0;
                for before in 0..probe {
                    let slot = self.slot(hash, before);
                    if let Some(bucket) = self.buckets.get_mut(slot) {
                        bucket.overflow -= 1;
                    }
                }
                return;
            }
        }
    }

    /// Deletes a session, both directions.
    pub(super) fn delete(&mut self, at: Ref) {
        if self.half(at).meta == Meta::default() {
            return;
        }
        for at in [at, at.other()] {
            let hash = self.seeds.hash(&self.key(at));
            self.index_delete(hash, at);
        }
        let half = self.half(at);
        if half.meta.is_wide() {
            let kept = half.addresses;
            self.wide.give(kept);
        }
        if let Some(owner) = self.cold(at).owner
            && let Some(held) = self.held.get_mut(owner.at())
        {
            *held = held.saturating_sub(1);
        }
        for at in [at, at.other()] {
            if let Some(half) = self.halves.get_mut(at.at()) {
                *half = Half::default();
            }
        }
        self.count -= 1;
        self.change_note(at.session());
        if let Ok(free) = u32::try_from(at.session()) {
            self.free.push(free);
        }
    }

    /// Writes anew what a walk found for a session that stays.
    pub(super) fn renew(&mut self, at: Ref, new: &Renewed) {
        let (forward, reply) = match at.way() {
            Way::Forward => (at, at.other()),
            Way::Reply => (at.other(), at),
        };
        let [forward_half, reply_half] = &new.halves;
        let parts = [
            (forward, forward_half, 0),
            (reply, reply_half, denied(new.denied)),
        ];
        for (at, half, denied) in parts {
            if let Some(place) = self.halves.get_mut(at.at()) {
                let (kept, walked) = (place.flags.load(Relaxed), half.flags.load(Relaxed));
                *place = Half {
                    addresses: place.addresses,
                    meta: place.meta,
                    packets: std::mem::take(&mut place.packets),
                    bytes: std::mem::take(&mut place.bytes),
                    seen_s: std::mem::take(&mut place.seen_s),
                    flags: AtomicU8::new(kept & !WALKED | walked & WALKED | denied),
                    ..*half
                };
            }
        }
        if let Some(cold) = self.cold.get_mut(at.session()) {
            let owner = cold.owner;
            *cold = Cold { owner, ..new.cold };
        }
    }

    /// The forward directions of all sessions from the `from`th place on, at most `count` places.
    pub(super) fn forwards(&self, from: usize, count: usize) -> impl Iterator<Item = Ref> + '_ {
        let to = from.saturating_add(count).min(self.cold.len());
        (from..to)
            .map(|session| Ref::new(session, Way::Forward))
            .filter(|at| self.half(*at).meta != Meta::default())
    }

    /// Places of sessions so far, for [`Self::forwards`].
    #[must_use]
    pub(super) fn places(&self) -> usize {
        self.cold.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use weft_dataplane::{GuestVlan, Tuple};
    use weft_model::limits::session_timeout_s as timeout;

    fn tuple(v6: bool, number: u16) -> Tuple {
        let [source, destination] = if v6 {
            ["fd00::1", "fd00::2"]
        } else {
            ["10.0.0.1", "10.0.0.2"]
        };
        Tuple {
            protocol: 17,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            source_port: number,
            destination_port: 53,
            vlan: GuestVlan::default(),
        }
    }

    fn put(table: &mut Table, new: &Keys, now_s: u32) -> Result<Ref, DropReason> {
        let hashes = [&new.forward, &new.reply].map(|key| table.seeds().hash(key));
        let new = New {
            forward: &new.forward,
            reply: &new.reply,
            forward_half: &Half::default(),
            reply_half: &Half::default(),
            denied: false,
            cold: &Cold {
                owner: Some(Place(1)),
                ..Cold::default()
            },
            entropies: [0; 2],
        };
        table.insert(&new, hashes, now_s)
    }

    struct Keys {
        forward: Key,
        reply: Key,
    }

    fn new(v6: bool, number: u16) -> Keys {
        let forward = tuple(v6, number);
        Keys {
            forward: Key::new(&forward, Place(1)),
            reply: Key::new(&forward.reversed(), Place(2)),
        }
    }

    fn table(sessions_max: u32, sessions_per_port_max: u32) -> Table {
        let limits = Limits {
            sessions_max,
            sessions_per_port_max,
        };
        Table::new(limits, Seeds([7, 8, 9, 10]))
    }

    fn find(table: &Table, key: &Key) -> Option<Ref> {
        table.find(key, table.seeds().hash(key))
    }

    #[test]
    fn a_line_is_a_line() {
        assert_eq!((size_of::<Half>(), size_of::<Bucket>()), (64, 64));
        assert!(size_of::<Cold>() <= 56, "{}", size_of::<Cold>());
    }

    #[test]
    fn quota_and_size_hold_at_the_limit_and_one_above() {
        let mut table = table(3, 2);
        for number in 0..2 {
            table.room_for(Some(Place(1))).unwrap();
            put(&mut table, &new(false, number), 0).unwrap();
        }
        assert_eq!(
            table.room_for(Some(Place(1))),
            Err(DropReason::SessionQuota)
        );
        assert_eq!(table.room_for(Some(Place(9))), Ok(()));
        put(&mut table, &new(true, 7), 0).unwrap();
        assert_eq!(table.room_for(None), Err(DropReason::SessionTableFull));
        let gone = find(&table, &new(false, 0).reply).unwrap();
        table.delete(gone);
        table.delete(gone);
        assert_eq!(
            (table.len(), find(&table, &new(false, 0).forward)),
            (2, None)
        );
    }

    #[test]
    fn everything_is_found_and_nothing_else_under_churn() {
        let mut table = table(1_000, 1_000);
        let mut model: BTreeMap<(bool, u16), ()> = BTreeMap::new();
        let mut random = 12_345u32;
        for _ in 0..40_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [number, v6] = [(random >> 8) % 1_500, random >> 30];
            let (number, v6) = (u16::try_from(number).unwrap(), v6 & 1 == 1);
            let session = new(v6, number);
            let found = [session.forward, session.reply].map(|key| find(&table, &key));
            let known = model.contains_key(&(v6, number));
            assert_eq!(found.map(|f| f.is_some()), [known; 2]);
            match found {
                [Some(forward), Some(reply)] => {
                    assert_eq!(forward.other(), reply);
                    assert_eq!(table.key(forward), session.forward);
                    assert_eq!(table.key(reply), session.reply);
                    table.delete(reply);
                    model.remove(&(v6, number));
                }
                _ if table.room_for(Some(Place(1))).is_ok() => {
                    put(&mut table, &session, 0).unwrap();
                    model.insert((v6, number), ());
                }
                _ => assert_eq!(model.len(), 1_000),
            }
            assert_eq!(table.len(), model.len());
        }
        let places = table.places();
        let listed = table.forwards(0, places).count();
        assert_eq!((listed, places <= 1_000), (model.len(), true));
    }

    #[test]
    fn a_session_lives_as_long_as_either_direction_is_heard() {
        let mut table = table(3, 3);
        let forward = put(&mut table, &new(false, 1), 100).unwrap();
        let limit = timeout::UDP_OPENING;
        assert!(!table.is_expired(forward, 100 + limit));
        assert!(table.is_expired(forward, 101 + limit));
        table.half(forward.other()).count([1, 1], 110, true);
        assert!(!table.is_expired(forward, 110 + limit));
        table.state_move(forward.other(), |_| State::Established);
        assert_eq!(table.half(forward).timeout_s(), timeout::UDP_ESTABLISHED);
    }
}
