//! Session: the exact lookup of an established packet, the second look at a stale one, and the record of a new one.
//! docs/pipeline.md, sections 4 and 6.
//!
//! Guarantees: a session's packets are judged under the policy in force, whatever was in force when it opened. Assumes
//! local services. Cost: one lookup; a walk for what is new or stale.

use super::decode::{Fragment, IcmpKind, IpPacket, Packet};
use super::icmp_error::{self, Inside};
use super::security_group::{self, Crossing};
use super::{Sight, nat};
use crate::flow::fragment::{FirstFragment, FragmentKey, FragmentTable};
use crate::flow::key::{Ingress, SessionKey};
use crate::flow::session::{Opener, Path, Session, State, Transformation, Way};
use crate::flow::table::SessionTable;
use crate::mutant::Mutant;
use crate::topology;
use crate::trace::{Encounter, SessionNote, Trace};
use crate::walk::{End, Neighbours, Opening, Walk};
use weft_model::{DropReason, HostSnapshot, NetworkId, SecurityGroupRuleId, Stage};

/// What a packet meets here.
pub enum Found {
    /// A session: this is done to the packet.
    Hit(Transformation, SessionNote),
    /// A session, by the packet inside of an ICMP error.
    Error(Transformation, SessionNote, Inside),
    /// None: the walk says where it goes, and what to record.
    Opened(New),
    /// None, and none to record.
    End(End),
}

/// What is recorded if the packet gets through.
#[derive(Clone, Copy, Debug)]
pub struct New {
    /// Key of the forward entry.
    pub forward: SessionKey,
    /// The first packet.
    pub opener: Opener,
    /// Where it goes.
    pub path: Path,
    /// The rules that allowed it.
    pub rules: [Option<SecurityGroupRuleId>; 2],
}

impl New {
    /// The transformation of the forward direction, its source port as it was.
    #[must_use]
    pub fn transformation(&self) -> Transformation {
        let tuple = self.forward.tuple;
        Transformation {
            from: tuple,
            to: self.path.translated(tuple, tuple.source_port),
            output: self.path.output,
            hop: self.path.hop,
            tunnel: self.path.forward_tunnel(),
            accounts: self.path.accounts,
        }
    }
}

/// What this stage works on.
pub struct Desk<'a> {
    /// Where the packet is seen.
    pub sight: Sight<'a>,
    /// Sessions.
    pub sessions: &'a mut SessionTable,
    /// Known neighbours.
    pub neighbours: &'a Neighbours,
    /// What sessions are computed under now.
    pub generation: u64,
    /// Seconds.
    pub now_s: u32,
    /// For people.
    pub trace: &'a mut Trace,
}

/// Gives a later fragment the layer 4 of its first, and remembers a first one.
///
/// # Errors
/// The first fragment is not known.
pub fn fragment_follow(
    sight: &Sight<'_>,
    fragments: &mut FragmentTable,
    ip: &mut IpPacket,
) -> Result<(), DropReason> {
    let (Fragment::First(identification) | Fragment::Later(identification)) = ip.fragment else {
        return Ok(());
    };
    let key = FragmentKey {
        ingress: sight.ingress,
        vlan: ip.tuple.vlan,
        source: ip.tuple.source,
        destination: ip.tuple.destination,
        protocol: ip.tuple.protocol,
        identification,
    };
    if ip.is_later_fragment() {
        let first = fragments.get(&key).ok_or(DropReason::FragmentUnknown)?;
        (ip.tuple, ip.icmp, ip.tcp_flags) = (first.tuple, first.icmp, first.tcp_flags);
    } else {
        let first = FirstFragment {
            tuple: ip.tuple,
            icmp: ip.icmp,
            tcp_flags: ip.tcp_flags,
        };
        fragments.put(key, first);
    }
    Ok(())
}

/// Looks for the packet's session, and walks if there is none.
///
/// # Errors
/// The reason to drop it.
pub fn process(
    desk: &mut Desk<'_>,
    packet: &Packet,
    ip: &IpPacket,
    frame: &[u8],
) -> Result<Found, DropReason> {
    if ip.icmp_kind() == Some(IcmpKind::Error) {
        return error_process(desk, ip, frame);
    }
    let forward = SessionKey {
        ingress: desk.sight.ingress,
        tuple: ip.tuple,
    };
    let any_mac = desk.sight.has(Mutant::SessionMac);
    let any_type = desk.sight.has(Mutant::SessionIcmpType);
    let hit = desk
        .sessions
        .get(&forward, desk.now_s)
        .filter(|(way, session)| any_mac || session.match_mac(*way) == packet.destination_mac)
        .filter(|(way, session)| any_type || ip.belongs_to(session.opener.icmp, *way))
        .map(|(way, session)| (way, session.clone()));
    if let Some((way, session)) = hit {
        let encounter = freshen(desk, &forward, &session)?;
        return seen(desk, &forward, way, ip, encounter);
    }
    let opening = opening(packet, ip);
    let opener = opening.opener;
    desk.trace.say(
        Stage::Session,
        format!("none for {}: a first packet", ip.tuple),
    );
    let mut walk = Walk::new(desk.sight, opening, desk.neighbours, desk.trace);
    Ok(match walk.run()? {
        End::Path(path) => Found::Opened(New {
            forward,
            opener,
            path,
            rules: walk.rules,
        }),
        end => Found::End(end),
    })
}

/// What a first packet asks.
#[must_use]
pub fn opening(packet: &Packet, ip: &IpPacket) -> Opening {
    Opening {
        tuple: ip.tuple,
        opener: Opener {
            source_mac: packet.source_mac,
            destination_mac: packet.destination_mac,
            icmp: ip.icmp,
        },
        test: Some(ip.tcp_flags),
        echo_request: ip.is_echo_request() && !ip.is_later_fragment(),
    }
}

fn seen(
    desk: &mut Desk<'_>,
    key: &SessionKey,
    way: Way,
    ip: &IpPacket,
    encounter: Encounter,
) -> Result<Found, DropReason> {
    let (_, session) = desk
        .sessions
        .get(key, desk.now_s)
        .ok_or(DropReason::EngineError)?;
    session.see(way, ip.seen(), desk.now_s);
    if let Some(reason) = session.denied(way) {
        return Err(reason);
    }
    let note = note(session, way, encounter);
    desk.trace.say(
        Stage::Session,
        format!("{encounter:?}: {}", session.forward.tuple),
    );
    Ok(Found::Hit(session.transformation(way), note))
}

fn note(session: &Session, way: Way, encounter: Encounter) -> SessionNote {
    SessionNote {
        encounter,
        way,
        forward: session.forward,
        reply: session.reply,
        state: session.state,
        revision: session.revision,
    }
}

fn error_process(desk: &mut Desk<'_>, ip: &IpPacket, frame: &[u8]) -> Result<Found, DropReason> {
    let inside = icmp_error::inside(frame, ip).ok_or(DropReason::IcmpNoSession)?;
    let key = SessionKey {
        ingress: desk.sight.ingress,
        tuple: inside.tuple.reversed(),
    };
    let (way, session) = desk
        .sessions
        .get(&key, desk.now_s)
        .map(|(way, session)| (way, session.clone()))
        .ok_or(DropReason::IcmpNoSession)?;
    freshen(desk, &key, &session)?;
    let (_, session) = desk
        .sessions
        .get(&key, desk.now_s)
        .ok_or(DropReason::EngineError)?;
    let note = note(session, way, Encounter::Error);
    let transformation = session.transformation(way);
    desk.trace.say(
        Stage::Session,
        format!("an ICMP error about {}", inside.tuple),
    );
    let crossing = Crossing {
        from: SessionKey {
            ingress: desk.sight.ingress,
            tuple: ip.tuple,
        },
        to: transformation.output,
        arrives: icmp_error::outer(ip.tuple, &transformation),
        icmp: ip.icmp,
    };
    if !desk.sight.has(Mutant::StatelessError) {
        security_group::stateless(&desk.sight, &crossing)?;
    }
    Ok(Found::Error(transformation, note, inside))
}

/// Walks again for a stale session: it is recorded anew or deleted.
fn freshen(
    desk: &mut Desk<'_>,
    key: &SessionKey,
    session: &Session,
) -> Result<Encounter, DropReason> {
    if session.generation == desk.generation || desk.sight.has(Mutant::StaleSession) {
        return Ok(Encounter::Hit);
    }
    desk.trace.say(
        Stage::Session,
        format!("stale, of revision {}: walked again", session.revision),
    );
    match rewalk(desk, session) {
        Ok((path, rules)) => {
            let denied = reply_denied(desk, session.forward, session.reply, session.opener.icmp);
            let (_, entry) = desk
                .sessions
                .get(key, desk.now_s)
                .ok_or(DropReason::EngineError)?;
            entry.path = path;
            entry.rules = rules;
            entry.reply_denied = denied;
            entry.generation = desk.generation;
            entry.revision = desk.sight.snapshot.revision;
            Ok(Encounter::Revalidated)
        }
        Err(reason) => {
            desk.sessions.delete(key);
            Err(reason)
        }
    }
}

/// What the rules of stateless ports say of a session's answers.
fn reply_denied(
    desk: &Desk<'_>,
    forward: SessionKey,
    reply: SessionKey,
    icmp: Option<(u8, u8)>,
) -> Option<DropReason> {
    if desk.sight.has(Mutant::StatelessReply) {
        return None;
    }
    let crossing = Crossing::reply(&forward, reply, icmp);
    security_group::stateless(&desk.sight, &crossing).err()
}

fn rewalk(
    desk: &mut Desk<'_>,
    session: &Session,
) -> Result<(Path, [Option<SecurityGroupRuleId>; 2]), DropReason> {
    let snapshot: &HostSnapshot = desk.sight.snapshot;
    let ingress = session.forward.ingress;
    let sight = Sight::new(snapshot, ingress, desk.sight.mutant)
        .filter(|sight| sight.network_id == session.network_id)
        .ok_or(DropReason::SessionRevoked)?;
    let down = |(_, port)| !topology::is_up(snapshot, port);
    if sight.port.is_some_and(down) {
        return Err(DropReason::DestinationPortDown);
    }
    let opening = Opening {
        tuple: session.forward.tuple,
        opener: session.opener,
        test: None,
        echo_request: false,
    };
    let mut walk = Walk::new(sight, opening, desk.neighbours, desk.trace);
    let End::Path(path) = walk.run()? else {
        return Err(DropReason::SessionRevoked);
    };
    let same_translation = path.source == session.path.source
        && path.destination == session.path.destination
        && path.destination_port == session.path.destination_port
        && path.snat.is_some() == session.path.snat.is_some()
        && path.snat.is_none_or(|ports| {
            nat::holds(
                ports,
                session.forward.tuple,
                session.reply.tuple.destination_port,
            )
        });
    if same_translation && path.output == session.path.output {
        Ok((path, walk.rules))
    } else {
        Err(DropReason::SessionRevoked)
    }
}

/// Records a new session.
///
/// # Errors
/// No room, no port, or a session that would meet itself.
pub fn record(
    desk: &mut Desk<'_>,
    new: &New,
    network_id: NetworkId,
) -> Result<(Transformation, SessionNote), DropReason> {
    let New { forward, path, .. } = *new;
    let reply_key = |source_port| SessionKey {
        ingress: path.reply_ingress(network_id),
        tuple: path.translated(forward.tuple, source_port).reversed(),
    };
    let plain = reply_key(forward.tuple.source_port);
    desk.sessions.get(&forward, desk.now_s);
    desk.sessions.delete(&forward);
    if path.snat.is_none() {
        desk.sessions.delete(&plain);
        if plain == forward {
            return Err(DropReason::NoRoute);
        }
    }
    let owner = match (forward.ingress, path.output) {
        (Ingress::Port(id), _) | (Ingress::Network(_), Ingress::Port(id)) => Some(id),
        _ => None,
    };
    desk.sessions.room_for(owner)?;
    let reply = match path.snat {
        None => plain,
        Some(ports) => {
            let (sessions, now_s) = (&mut *desk.sessions, desk.now_s);
            reply_key(nat::source_port(
                &desk.sight,
                ports,
                forward.tuple,
                |port| sessions.get(&reply_key(port), now_s).is_none(),
            )?)
        }
    };
    let session = Session {
        forward,
        reply,
        network_id,
        opener: new.opener,
        path,
        owner,
        generation: desk.generation,
        revision: desk.sight.snapshot.revision,
        rules: new.rules,
        reply_denied: reply_denied(desk, forward, reply, new.opener.icmp),
        state: State::Opening,
        seen_s: desk.now_s,
    };
    let recorded = (
        session.transformation(Way::Forward),
        note(&session, Way::Forward, Encounter::Opened),
    );
    desk.sessions.insert(session);
    Ok(recorded)
}
