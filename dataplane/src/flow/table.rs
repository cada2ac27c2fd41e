//! The session table: two entries a session, a quota a port, a size for all, and expiry.
//!
//! Guarantees: both entries of a session come and go together; what a port holds never exceeds its quota; an expired
//! session is never found.

use super::key::SessionKey;
use super::session::{Session, Way};
use std::collections::BTreeMap;
use weft_model::{DropReason, PortId};

/// The table's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// Sessions of the host.
    pub sessions_max: u32,
    /// Sessions that one port may hold.
    pub sessions_per_port_max: u32,
}

/// The sessions of a host.
#[derive(Clone, Debug)]
pub struct SessionTable {
    limits: TableLimits,
    next: u64,
    entries: BTreeMap<SessionKey, (u64, Way)>,
    sessions: BTreeMap<u64, Session>,
    held: BTreeMap<PortId, u32>,
}

impl SessionTable {
    /// An empty table.
    #[must_use]
    pub fn new(limits: TableLimits) -> Self {
        Self {
            limits,
            next: 0,
            entries: BTreeMap::new(),
            sessions: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// The session with an entry under this key; one that is expired is deleted and not found.
    pub fn get(&mut self, key: &SessionKey, now_s: u32) -> Option<(Way, &mut Session)> {
        let (id, way) = *self.entries.get(key)?;
        if self.sessions.get(&id).is_some_and(|s| s.is_expired(now_s)) {
            self.delete(key);
        }
        self.sessions.get_mut(&id).map(|session| (way, session))
    }

    /// Deletes the session with an entry under this key, both entries.
    pub fn delete(&mut self, key: &SessionKey) -> Option<Session> {
        let (id, _) = *self.entries.get(key)?;
        let session = self.sessions.remove(&id)?;
        self.entries.remove(&session.forward);
        self.entries.remove(&session.reply);
        if let Some(held) = session.owner.and_then(|owner| self.held.get_mut(&owner)) {
            *held -= 1;
        }
        Some(session)
    }

    /// Whether a session of this owner would find room.
    ///
    /// # Errors
    /// The port's quota or the table is used up.
    pub fn room_for(&self, owner: Option<PortId>) -> Result<(), DropReason> {
        let held = owner
            .and_then(|owner| self.held.get(&owner))
            .copied()
            .unwrap_or_default();
        if owner.is_some() && held >= self.limits.sessions_per_port_max {
            return Err(DropReason::SessionQuota);
        }
        if self.len() >= self.limits.sessions_max as usize {
            return Err(DropReason::SessionTableFull);
        }
        Ok(())
    }

    /// Records a session. Callers have asked [`Self::room_for`] and deleted what held its keys.
    pub fn insert(&mut self, session: Session) {
        debug_assert_ne!(
            session.forward, session.reply,
            "one key cannot stand for both directions"
        );
        self.delete(&session.forward);
        self.delete(&session.reply);
        let id = self.next;
        self.next += 1;
        self.entries.insert(session.forward, (id, Way::Forward));
        self.entries.insert(session.reply, (id, Way::Reply));
        if let Some(owner) = session.owner {
            *self.held.entry(owner).or_default() += 1;
        }
        self.sessions.insert(id, session);
    }

    /// Deletes what is expired, and says how many that were.
    pub fn expire(&mut self, now_s: u32) -> usize {
        let expired: Vec<SessionKey> = self
            .sessions
            .values()
            .filter(|s| s.is_expired(now_s))
            .map(|s| s.forward)
            .collect();
        for key in &expired {
            self.delete(key);
        }
        self.held.retain(|_, held| *held > 0);
        expired.len()
    }

    /// How many sessions there are, expired ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// All sessions, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::key::{GuestVlan, Ingress, Tuple};
    use crate::flow::session::{Opener, Path, Seen, State};
    use std::net::{IpAddr, Ipv4Addr};
    use weft_model::{MacAddress, Revision};

    fn session(owner: PortId, source_port: u16) -> Session {
        let tuple = Tuple {
            protocol: 17,
            source: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            destination: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
            source_port,
            destination_port: 53,
            vlan: GuestVlan::default(),
        };
        let output = Ingress::Port(PortId::from(uuid::Uuid::from_u128(99)));
        Session {
            forward: SessionKey {
                ingress: Ingress::Port(owner),
                tuple,
            },
            reply: SessionKey {
                ingress: output,
                tuple: tuple.reversed(),
            },
            network_id: uuid::Uuid::nil().into(),
            opener: Opener {
                source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
                destination_mac: MacAddress([2, 0, 0, 0, 0, 2]),
                icmp: None,
            },
            path: Path::bridged(output, tuple),
            owner: Some(owner),
            generation: 0,
            revision: Revision(0),
            rules: [None, None],
            reply_denied: None,
            state: State::Opening,
            seen_s: 100,
        }
    }

    fn port(number: u128) -> PortId {
        PortId::from(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn quota_and_size_hold_at_the_limit_and_one_above() {
        let mut table = SessionTable::new(TableLimits {
            sessions_max: 3,
            sessions_per_port_max: 2,
        });
        for n in 0..2 {
            assert_eq!(table.room_for(Some(port(1))), Ok(()));
            table.insert(session(port(1), n));
        }
        assert_eq!(table.room_for(Some(port(1))), Err(DropReason::SessionQuota));
        assert_eq!(table.room_for(Some(port(2))), Ok(()));
        table.insert(session(port(2), 7));
        assert_eq!(
            table.room_for(Some(port(2))),
            Err(DropReason::SessionTableFull)
        );
        table.delete(&session(port(1), 0).reply).unwrap();
        assert_eq!(table.room_for(Some(port(1))), Ok(()));
        assert_eq!(table.get(&session(port(1), 0).forward, 100), None);
    }

    #[test]
    fn idle_sessions_end_after_their_timeout_and_not_at_it() {
        let mut table = SessionTable::new(TableLimits {
            sessions_max: 3,
            sessions_per_port_max: 3,
        });
        let one = session(port(1), 1);
        table.insert(one.clone());
        assert!(table.get(&one.reply, 100 + timeout()).is_some());
        assert_eq!(table.expire(100 + timeout()), 0);
        assert!(table.get(&one.reply, 101 + timeout()).is_none());
        assert!(table.is_empty(), "the lookup deleted both entries");
        table.insert(one);
        assert_eq!(table.expire(101 + timeout()), 1);
    }

    fn timeout() -> u32 {
        weft_model::limits::session_timeout_s::UDP_OPENING
    }

    #[test]
    fn a_reply_establishes_and_a_fin_closes() {
        let mut one = session(port(1), 1);
        one.forward.tuple.protocol = 6;
        one.see(Way::Forward, Seen::Tcp(2), 101);
        assert_eq!(one.state, State::Opening);
        one.see(Way::Reply, Seen::LaterFragment, 101);
        assert_eq!(one.state, State::Opening, "a later fragment moves nothing");
        one.see(Way::Reply, Seen::Tcp(0x12), 101);
        assert_eq!(one.state, State::Established);
        one.see(Way::Reply, Seen::Tcp(0x11), 102);
        assert_eq!((one.state, one.seen_s), (State::Closing, 102));
        one.see(Way::Reply, Seen::Tcp(2), 103);
        assert_eq!(one.state, State::Closing, "only the opener opens again");
        one.see(Way::Forward, Seen::Tcp(2), 104);
        assert_eq!(one.state, State::Opening);
    }
}
