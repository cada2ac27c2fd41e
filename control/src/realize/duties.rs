//! All hosts' duties, kept up to date in the hub.
//!
//! Guarantees: a host that no mark reaches costs nothing. A host is computed from scratch when it is new, when
//! everything was read anew, when it has more than it may have, and while its duty would not be valid: then it goes on
//! under its last one. Of hosts that have come and know nothing yet a few have their turn at a time, so that changes reach the
//! others meanwhile.

use super::concern::concerned;
use super::duty::{Cloud, Dirt, Needs, Update};
use super::index::{By, Move, of};
use super::mark::Marks;
use super::rows::Rows;
use super::shared::Shared;
use super::snapshot::View;
use crate::feed::Hub;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;
use weft_model::{
    AddressGroupId, HostName, Invalid, LogId, MeteringLabelId, NetworkId, QosPolicyId, RouterId,
    SecurityGroupId, SnapshotDelta, TableDelta,
};

/// Hosts that know nothing yet whose duties are computed at a time.
const FRESH_AT_ONCE: usize = 4;

/// The hosts whose snapshots have each entry.
#[derive(Debug, Default)]
struct Reach {
    networks: By<NetworkId, HostName>,
    routers: By<RouterId, HostName>,
    security_groups: By<SecurityGroupId, HostName>,
    address_groups: By<AddressGroupId, HostName>,
    qos_policies: By<QosPolicyId, HostName>,
    metering_labels: By<MeteringLabelId, HostName>,
    logs: By<LogId, HostName>,
}

impl Reach {
    fn delta(&mut self, host: &HostName, delta: &SnapshotDelta) {
        note(&mut self.networks, host, &delta.networks);
        note(&mut self.routers, host, &delta.routers);
        note(&mut self.security_groups, host, &delta.security_groups);
        note(&mut self.address_groups, host, &delta.address_groups);
        note(&mut self.qos_policies, host, &delta.qos_policies);
        note(&mut self.metering_labels, host, &delta.metering_labels);
        note(&mut self.logs, host, &delta.logs);
    }
}

fn note<K: Ord + Copy, V>(by: &mut By<K, HostName>, host: &HostName, delta: &TableDelta<K, V>) {
    for id in delta.put.keys() {
        Move::In.apply(by, *id, host.clone());
    }
    for id in &delta.delete {
        Move::Out.apply(by, *id, host.clone());
    }
}

/// What is kept of all hosts beside their snapshots.
#[derive(Debug, Default)]
pub(super) struct Duties {
    /// Without those whose duty would not be valid, and those that wait.
    hosts: BTreeMap<HostName, Needs>,
    /// Those whose duty would not be valid.
    kept_back: BTreeSet<HostName>,
    /// Those that know nothing yet, and whose turn has not come.
    waiting: BTreeSet<HostName>,
    wanted: BTreeSet<HostName>,
    reach: Reach,
    shared: Shared,
    first_host: Option<HostName>,
    /// Whether other servers may have hosts, too.
    is_shared: bool,
}

impl Duties {
    /// None yet.
    pub(super) fn new(is_shared: bool) -> Self {
        Self {
            is_shared,
            ..Self::default()
        }
    }

    /// Brings all wanted hosts up to date after what is marked, which was committed at `committed`.
    pub(super) fn update(&mut self, rows: &Rows, marks: &Marks, hub: &Hub, committed: Instant) {
        // Hosts come and never go.
        let more = self.wanted.len() != hub.hosts_count();
        if more {
            self.wanted = hub.hosts_wanted();
        }
        let first_host = self.wanted.first().cloned();
        let mut whole = BTreeSet::new();
        if marks.everything {
            whole.clone_from(&self.wanted);
        } else if self.hosts.len() < self.wanted.len() {
            let wanted = self.wanted.iter();
            let missing = wanted.filter(|host| !self.hosts.contains_key(*host));
            let untouched = !more && marks.is_empty();
            let missing = missing.filter(|host| !(untouched && self.kept_back.contains(*host)));
            whole.extend(missing.cloned());
        }
        whole.extend(marks.hosts.intersection(&self.wanted).cloned());
        if self.first_host != first_host {
            whole.extend(self.first_host.take().into_iter().chain(first_host.clone()));
            self.first_host = first_host;
        }
        self.waiting = self.turns(&mut whole, hub);
        let needed = self.is_shared || !self.waiting.is_empty();
        let may_concern = needed.then(|| concerned(rows, marks)).flatten();
        let dirt = self.spread(marks, rows, &whole);
        let shared = std::mem::take(&mut self.shared);
        let first_host = self.first_host.clone();
        let cloud = Cloud {
            view: View::sharing(rows, &shared),
            first_host: first_host.as_ref(),
        };
        hub.begin(rows.revision);
        let mut changed = Vec::new();
        for (host, dirt) in dirt {
            match self.host(&cloud, &host, dirt, hub, committed) {
                Some(true) => changed.push(host),
                Some(false) => {}
                None => drop(whole.insert(host)),
            }
        }
        for host in whole {
            if self.whole(&cloud, &host, hub, committed) {
                changed.push(host);
            }
        }
        shared.sweep();
        self.shared = shared;
        // Nothing is known yet of those that wait: what may concern them is not enforced before they know.
        let waiting = self.waiting.iter();
        let may = |host: &&HostName| may_concern.as_ref().is_none_or(|may| may.contains(*host));
        changed.extend(waiting.filter(may).cloned());
        hub.finish(
            rows.revision,
            changed,
            may_concern.filter(|_| self.is_shared),
        );
    }

    /// Leaves those in `whole` whose turn it is. Answers the others, all of which know nothing yet.
    fn turns(&self, whole: &mut BTreeSet<HostName>, hub: &Hub) -> BTreeSet<HostName> {
        let mut turns = FRESH_AT_ONCE;
        let waits = |host: &HostName| {
            if self.kept_back.contains(host) || hub.has_snapshot(host) {
                return false;
            }
            let left = turns.checked_sub(1);
            turns = left.unwrap_or(0);
            left.is_none()
        };
        whole.extract_if(.., waits).collect()
    }

    /// Whether hosts wait for their turn: then another update is due at once.
    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives every host what is marked of what it has, but for those of `whole`.
    fn spread(
        &self,
        marks: &Marks,
        rows: &Rows,
        whole: &BTreeSet<HostName>,
    ) -> BTreeMap<HostName, Dirt> {
        let mut all = Spread {
            duties: self,
            whole,
            dirt: BTreeMap::new(),
        };
        if marks.everything {
            return all.dirt;
        }
        all.own(marks);
        all.named(marks);
        for (network, ids) in &marks.remote_ports {
            let physical = rows.networks.get(network);
            let physical = physical.is_some_and(|n| n.segment.network_type.is_physical());
            let physical = physical && !rows.segments.contains_key(network);
            let hosts = of(&self.reach.networks, network).filter(|_| !physical);
            all.each(hosts, |dirt| dirt.remote_ports.extend(ids));
        }
        for &id in &marks.networks {
            all.each(of(&self.reach.networks, &id), |dirt| {
                dirt.networks.insert(id);
            });
        }
        for (network, ids) in &marks.subnets {
            let hosts = of(&self.reach.networks, network);
            all.each(hosts, |dirt| dirt.subnets.extend(ids));
        }
        for &id in &marks.routers {
            let hosts = of(&self.reach.routers, &id).chain(&self.first_host);
            all.each(hosts, |dirt| {
                dirt.routers.insert(id);
            });
        }
        for (network, ids) in &marks.routers_near {
            let hosts = rows.index.guest_hosts.get(network);
            let hosts = hosts.into_iter().flat_map(BTreeMap::keys);
            all.each(hosts, |dirt| dirt.routers.extend(ids));
        }
        for &id in &marks.security_groups {
            all.each(of(&self.reach.security_groups, &id), |dirt| {
                dirt.security_groups.insert(id);
            });
        }
        for (group, ids) in &marks.rules {
            let hosts = of(&self.reach.security_groups, group);
            all.each(hosts, |dirt| dirt.rules.extend(ids));
        }
        for (group, addresses) in &marks.members {
            let hosts = of(&self.reach.security_groups, group);
            let members = addresses.iter().map(|address| (*group, *address));
            all.each(hosts, |dirt| dirt.members.extend(members.clone()));
        }
        for id in &marks.tunnel_hosts {
            all.each(self.hosts.keys(), |dirt| {
                dirt.tunnel_hosts.insert(id.clone());
            });
        }
        all.dirt
    }

    /// Brings one host up to date; whether its duty changed. None if it has to be computed from scratch.
    fn host(
        &mut self,
        cloud: &Cloud<'_>,
        host: &HostName,
        dirt: Dirt,
        hub: &Hub,
        committed: Instant,
    ) -> Option<bool> {
        let needs = self.hosts.get_mut(host)?;
        let mut too_much = false;
        let mut mistake = None;
        let delta = hub.update(host, cloud.view.rows().revision, committed, |snapshot| {
            if Update::is_too_much(cloud, snapshot) {
                too_much = true;
                return None;
            }
            let done = Update::run(cloud, snapshot, needs, dirt);
            if done.delta.is_empty() {
                return None;
            }
            mistake = snapshot.validate_changes(&done.delta).into_iter().next();
            if mistake.is_some() {
                snapshot.change(done.undo);
                return None;
            }
            Some(done.delta)
        });
        if too_much {
            return None;
        }
        if let Some(mistake) = mistake {
            self.keep_back(host, &mistake);
        }
        if let Some(delta) = &delta {
            self.reach.delta(host, delta);
        }
        Some(delta.is_some())
    }

    /// Computes one host from scratch; whether its duty changed.
    fn whole(&mut self, cloud: &Cloud<'_>, host: &HostName, hub: &Hub, committed: Instant) -> bool {
        let mut snapshot = cloud.view.snapshot(host, &self.wanted, hub.epoch());
        if let Some(mistake) = snapshot.validate().first() {
            self.keep_back(host, mistake);
            return false;
        }
        self.kept_back.remove(host);
        snapshot.revision = cloud.view.rows().revision;
        self.hosts.insert(host.clone(), Needs::of(&snapshot));
        let delta = hub.replace(snapshot, committed);
        if let Some(delta) = &delta {
            self.reach.delta(host, delta);
        }
        delta.is_some()
    }

    fn keep_back(&mut self, host: &HostName, mistake: &Invalid) {
        tracing::error!(%host, %mistake, "a host's duty is not valid and is kept back");
        self.hosts.remove(host);
        self.kept_back.insert(host.clone());
    }

    /// The hosts whose duty would be another, if the rows were these; `marks` says what differs. Of hosts that follow other
    /// servers, or none, those that it may concern.
    pub(super) fn tried(&self, rows: &Rows, marks: &Marks, hub: &Hub) -> BTreeSet<HostName> {
        let everyone = || rows.index.guests_by_host.keys().cloned().collect();
        let mut all = concerned(rows, marks).unwrap_or_else(everyone);
        all.retain(|host| !self.wanted.contains(host));
        let known = |host: &&HostName| self.hosts.contains_key(*host);
        let mut whole: BTreeSet<HostName> = match marks.everything {
            true => self.hosts.keys().cloned().collect(),
            false => marks.hosts.iter().filter(known).cloned().collect(),
        };
        let cloud = Cloud {
            view: View::new(rows),
            first_host: self.first_host.as_ref(),
        };
        for (host, dirt) in self.spread(marks, rows, &whole) {
            match self.host_tried(&cloud, &host, dirt, hub) {
                Some(true) => drop(all.insert(host)),
                Some(false) => {}
                None => drop(whole.insert(host)),
            }
        }
        all.extend(
            whole
                .into_iter()
                .filter(|host| self.whole_tried(&cloud, host, hub)),
        );
        all
    }

    /// Whether one host's duty would be another. None if it has to be computed from scratch.
    fn host_tried(
        &self,
        cloud: &Cloud<'_>,
        host: &HostName,
        dirt: Dirt,
        hub: &Hub,
    ) -> Option<bool> {
        let mut needs = self.hosts.get(host)?.clone();
        hub.look(host, |snapshot| {
            if Update::is_too_much(cloud, snapshot) {
                return None;
            }
            let done = Update::run(cloud, snapshot, &mut needs, dirt);
            let valid = || snapshot.validate_changes(&done.delta).is_empty();
            let differs = !done.delta.is_empty() && valid();
            snapshot.change(done.undo);
            Some(differs)
        })?
    }

    /// The same, computed from scratch.
    fn whole_tried(&self, cloud: &Cloud<'_>, host: &HostName, hub: &Hub) -> bool {
        let mut new = cloud.view.snapshot(host, &self.wanted, hub.epoch());
        let differs = hub.look(host, |snapshot| {
            new.revision = snapshot.revision;
            new != *snapshot
        });
        differs == Some(true) && new.validate().is_empty()
    }

    /// What is kept of a host.
    #[cfg(test)]
    pub(super) fn needs(&self, host: &HostName) -> Option<&Needs> {
        self.hosts.get(host)
    }
}

/// Marks on their way to the hosts.
struct Spread<'a> {
    duties: &'a Duties,
    whole: &'a BTreeSet<HostName>,
    dirt: BTreeMap<HostName, Dirt>,
}

impl Spread<'_> {
    fn at(&mut self, host: &HostName, mark: impl FnOnce(&mut Dirt)) {
        if self.duties.hosts.contains_key(host) && !self.whole.contains(host) {
            mark(self.dirt.entry(host.clone()).or_default());
        }
    }

    /// What is marked at certain hosts.
    fn own(&mut self, marks: &Marks) {
        for (host, ids) in &marks.ports {
            self.at(host, |dirt| dirt.ports.extend(ids));
        }
        for (host, ids) in &marks.floating_ips {
            self.at(host, |dirt| dirt.floating_ips.extend(ids));
        }
        for (host, ids) in &marks.local_ips {
            self.at(host, |dirt| dirt.local_ips.extend(ids));
        }
        for (host, ids) in &marks.routers_at {
            self.at(host, |dirt| dirt.routers.extend(ids));
        }
    }

    /// What hosts know because something there names it.
    fn named(&mut self, marks: &Marks) {
        let reach = &self.duties.reach;
        for &id in &marks.address_groups {
            self.each(of(&reach.address_groups, &id), |dirt| {
                dirt.address_groups.insert(id);
            });
        }
        for &id in &marks.qos_policies {
            self.each(of(&reach.qos_policies, &id), |dirt| {
                dirt.qos_policies.insert(id);
            });
        }
        for &id in &marks.metering_labels {
            self.each(of(&reach.metering_labels, &id), |dirt| {
                dirt.metering_labels.insert(id);
            });
        }
        for &id in &marks.logs {
            self.each(of(&reach.logs, &id), |dirt| {
                dirt.logs.insert(id);
            });
        }
    }

    fn each<'h>(
        &mut self,
        hosts: impl Iterator<Item = &'h HostName>,
        mut mark: impl FnMut(&mut Dirt),
    ) {
        for host in hosts {
            self.at(host, &mut mark);
        }
    }
}
