//! The pipeline of the user engine: docs/pipeline.md over a compiled snapshot.
//!
//! Guarantees: the same answers as the reference engine, which the vectors and the differential test hold it to. No I/O, no
//! clock, no randomness: seconds and secrets are arguments. A packet of a session costs one look-up and one transformation;
//! a first packet one walk over look-ups; neither depends on the number of ports, rules or routes by more than a logarithm.
//!
//! A frame is judged in up to three steps, so that a batch's cache misses overlap: [`Engine::glance`] reads its header and
//! asks for the session's bucket, [`Engine::guess`] for the session, [`Engine::judge`] decides, on all frames at once that follow
//! each other and are alike. A session's first packet goes through [`Engine::open`],
//! several of them through [`Engine::foresee`] before. What is out of the ordinary (fragments, options, ICMP, ARP, anything
//! refused) is [`Judged::Slow`] and goes through [`Engine::process`] whole.
//!
//! Several workers share an engine. What packets of known sessions need is `&self`: they count by atomics. Whoever opens, deletes
//! or enforces has the engine to itself.

mod carried;
mod classify;
mod compiler;
mod decided;
mod floating_ip;
mod glance;
mod guest_vlan;
mod half;
mod judge;
mod key;
mod limit;
mod link;
mod local;
mod local_ip;
mod map;
mod numbers;
mod owners;
mod path;
mod place;
mod plan;
mod process;
mod pvlan;
mod record;
mod stateless;
mod stay;
mod table;
mod transit;
mod tunnels;
mod view;
mod walk;
mod wide;

pub use carried::{Carried, Left};
pub use compiler::{Compiler, Prepared};
pub use glance::{Entrance, Glance, HEADER_BYTES, Header, HeaderBytes, Train, is_alike};
pub use judge::{Foreseen, Judged, Leads};
pub use key::{Place, Seeds};
pub use link::Heard;
pub(crate) use table::CHANGES_MAX;
pub use table::Limits;
pub use tunnels::{Encapsulation, Entry, Leaving};
pub use view::SessionView;

use crate::memory::Ahead;
use limit::Paid;
use link::Link;
use map::{FastMap, Seed};
use place::Places;
use plan::{PlaceIs, Plan};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use table::Table;
use walk::Neighbours;
use weft_dataplane::flow::bucket::Bucket;
use weft_dataplane::flow::fragment::FragmentTable;
use weft_dataplane::{Copy, Decision, Ingress, Verdict};
use weft_model::{HostSnapshot, MacAddress, NetworkId};

/// A time of any clock that does not run backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// In whole seconds.
    pub s: u32,
    /// In nanoseconds.
    pub ns: u64,
}

impl From<Duration> for Now {
    fn from(since: Duration) -> Self {
        Self {
            s: u32::try_from(since.as_secs()).unwrap_or(u32::MAX),
            ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

/// How an engine is set up.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Sizes.
    pub limits: Limits,
    /// Secrets for hashes, from a source of chance.
    pub seeds: Seeds,
}

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// What whoever serves guests gets beside.
    pub copy: Option<Copy>,
    /// It is the other engine's to judge ([`Engine::share`]); without one the verdict holds.
    pub elsewhere: bool,
    /// Of multicast and broadcast: what members get.
    pub copies: Vec<Verdict>,
    /// Decisions that a log is to have.
    pub logs: Vec<Decision>,
}

/// The engine and all its state.
#[derive(Debug)]
pub struct Engine {
    places: Arc<Places>,
    plan: Option<Arc<Plan>>,
    /// Sessions of another generation are stale.
    generation: u32,
    /// How often numbers of ports and networks were taken back.
    taken_back: u32,
    shared: bool,
    table: Table,
    fragments: FragmentTable,
    neighbours: Neighbours,
    buckets: Vec<Bucket>,
    copy_buckets: Vec<Bucket>,
    log_buckets: Vec<Bucket>,
    /// By place.
    paid: Vec<Paid>,
    /// By account.
    addresses_paid: Vec<Paid>,
    /// Whether one worker uses it, and no two at the same time.
    alone: bool,
    /// The interface towards other hosts, if it is this engine's.
    link: Option<Link>,
}

impl Engine {
    /// An engine without a snapshot: it drops and passes everything.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        let seed = Seed(config.seeds.0[3]);
        Self {
            places: Arc::new(Places::new(seed)),
            plan: None,
            generation: 0,
            taken_back: 0,
            shared: false,
            table: Table::new(config.limits, config.seeds),
            fragments: FragmentTable::default(),
            neighbours: FastMap::with_hasher(seed),
            buckets: Vec::new(),
            copy_buckets: Vec::new(),
            log_buckets: Vec::new(),
            paid: Vec::new(),
            addresses_paid: Vec::new(),
            alone: true,
            link: None,
        }
    }

    /// From now on only what goes from one vhost-user port to another is judged here; everything else that a guest sends is the
    /// host's other engine's, which judges it from the start (docs/adr/0011-one-engine-a-flow.md).
    pub fn share(&mut self) {
        self.shared = true;
    }

    /// From now on several workers use it at the same time.
    pub fn accompany(&mut self) {
        self.alone = false;
    }

    /// Another number after every change of what is in force, [`Self::place`] included.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Enforces another snapshot, prepared by this engine's compiler; all sessions become stale.
    pub fn enforce(&mut self, prepared: Prepared) {
        if let Some(gone) = &prepared.gone {
            self.taken_back = self.taken_back.wrapping_add(1);
            let table = &mut self.table;
            let is_gone = |place: Place| gone.get(place.at()).copied().unwrap_or(true);
            let all: Vec<_> = table.forwards(0, table.places()).collect();
            for at in all {
                let [one, other] = [at, at.other()].map(|at| table.key(at).meta.place());
                if is_gone(one) || is_gone(other) || is_gone(table.cold(at).network) {
                    table.delete(at);
                }
            }
        }
        self.places = prepared.places;
        self.buckets.resize(self.places.len(), Bucket::default());
        for buckets in [&mut self.copy_buckets, &mut self.log_buckets] {
            buckets.resize(self.places.len(), Bucket::default());
        }
        self.paid_keep(&prepared.plan.snapshot);
        self.addresses_paid_keep(&prepared.plan);
        if let Some(link) = &mut self.link {
            link.use_remotes(&prepared.plan.underlay);
        }
        self.plan = Some(prepared.plan);
        self.generation = self.generation.wrapping_add(1);
    }

    /// The snapshot in force.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Arc<HostSnapshot>> {
        self.plan.as_ref().map(|plan| &plan.snapshot)
    }

    /// A neighbour on a physical network has this MAC address.
    pub fn neighbour_put(&mut self, network: NetworkId, address: IpAddr, mac: MacAddress) {
        if self.neighbours.insert((network, address), mac) != Some(mac) {
            self.generation = self.generation.wrapping_add(1);
        }
    }

    /// A neighbour is not known any more.
    pub fn neighbour_delete(&mut self, network: NetworkId, address: IpAddr) {
        if self.neighbours.remove(&(network, address)).is_some() {
            self.generation = self.generation.wrapping_add(1);
        }
    }

    /// The place of a port or network that the engine has met.
    #[must_use]
    pub fn place(&self, ingress: Ingress) -> Option<Place> {
        self.places.of(ingress)
    }

    /// Whose place that is.
    #[must_use]
    pub fn ingress(&self, place: Place) -> Option<Ingress> {
        self.places.ingress(place)
    }

    /// Whether any session is idle among `count` places of the table from `from` on, and where to go on: 0 at its end.
    #[must_use]
    pub fn idle(&self, from: usize, count: usize, now_s: u32) -> (bool, usize) {
        let mut all = self.table.forwards(from, count);
        let idle = all.any(|at| self.table.is_expired(at, now_s));
        let next = from.saturating_add(count);
        let end = next >= self.table.places();
        (idle, if end { 0 } else { next })
    }

    /// Deletes the idle sessions among `count` places of the table from `from` on.
    pub fn expire(&mut self, from: usize, count: usize, now_s: u32) {
        let idle: Vec<_> = self
            .table
            .forwards(from, count)
            .filter(|at| self.table.is_expired(*at, now_s))
            .collect();
        for at in idle {
            self.table.delete(at);
        }
    }

    /// The memory that sessions to come will be in, for somebody to make ready.
    #[must_use]
    pub fn ahead(&self) -> &Arc<Ahead> {
        self.table.ahead()
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions_count(&self) -> usize {
        self.table.len()
    }

    /// Whether a place is an uplink, of a network of the snapshot in force.
    #[must_use]
    pub fn is_uplink(&self, place: Place) -> bool {
        let place = self
            .plan
            .as_ref()
            .and_then(|plan| plan.places.get(place.at()));
        matches!(place, Some(Some(PlaceIs::Network(_))))
    }

    /// The place that frames with this tag (0: none) are of on the wire that a network's uplink is on; none: not ours.
    #[must_use]
    pub fn uplink(&self, place: Place, vlan_id: u16) -> Option<Place> {
        let plan = self.plan.as_deref()?;
        let (_, network) = plan.sight(place)?;
        plan.wires.get(&(network.wire?, vlan_id)).copied()
    }

    /// The tag that frames to an uplink's place leave with.
    #[must_use]
    pub fn uplink_tag(&self, place: Place) -> Option<u16> {
        let (_, network) = self.plan.as_deref()?.sight(place)?;
        Some(network.vlan_id).filter(|id| *id != 0)
    }
}
