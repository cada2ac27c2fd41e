//! What a write would change at which host, without its being made.
//!
//! Guarantees: the rows that a transaction would have written are read within it, and nothing else; outside of it they
//! take the place of those that realize has, the hosts that they concern are brought up to date, and all of it is taken
//! back. So a try costs about twice what the write costs realize, however many rows there are, and the answer is what
//! would happen and no guess.

use super::duties::Duties;
use super::rows::Rows;
use crate::feed::Hub;
use crate::store::observer::Touched;
use crate::store::{Conn, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};
use weft_model::{
    AddressGroupId, FloatingIpId, HostName, LocalIpId, LogId, MeteringLabelId, NetworkId, PortId,
    QosPolicyId, RouterId, SecurityGroupId, SecurityGroupRuleId, SubnetId,
};

/// Tries that wait for realize at most; more of them wait for their place.
const WAITING_MAX: usize = 16;

/// Asks realize which hosts a try would concern.
#[derive(Clone, Debug)]
pub struct Trials(mpsc::Sender<Ask>);

/// Realize's end of it.
#[derive(Debug)]
pub struct TrialRequests(mpsc::Receiver<Ask>);

/// One question.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) tried: Tried,
    /// Whoever asked may have gone.
    pub(super) answer: oneshot::Sender<BTreeSet<HostName>>,
}

/// The two ends.
#[must_use]
pub fn trials() -> (Trials, TrialRequests) {
    let (ask, asked) = mpsc::channel(WAITING_MAX);
    (Trials(ask), TrialRequests(asked))
}

impl Trials {
    /// The hosts whose duty would be another; none if realize does not answer.
    pub async fn hosts(&self, trial: &Trial) -> Option<BTreeSet<HostName>> {
        let (answer, answered) = oneshot::channel();
        let tried = std::mem::take(&mut *trial.lock());
        self.0.send(Ask { tried, answer }).await.ok()?;
        answered.await.ok()
    }
}

impl TrialRequests {
    /// Waits for a question. Never resolves if nobody can ask.
    pub(super) async fn asked(&mut self) -> Ask {
        match self.0.recv().await {
            Some(ask) => ask,
            None => std::future::pending().await,
        }
    }
}

/// One write that is tried.
#[derive(Debug, Default)]
pub struct Trial(Mutex<Tried>);

impl Trial {
    /// Reads what a transaction has written; called within it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn look(&self, conn: &mut Conn, touched: &[Touched]) -> Result<(), StoreError> {
        let mut tried = std::mem::take(&mut *self.lock());
        let rows = touched
            .iter()
            .map(|row| (row.resource.name(), row.id.as_str()));
        tried.read(conn, rows).await?;
        *self.lock() = tried;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Tried> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Some rows as they would be; those that would not be any more are missing.
#[derive(Debug)]
pub(super) struct Tried {
    touched: BTreeSet<Key>,
    rows: Rows,
}

impl Default for Tried {
    fn default() -> Self {
        Self {
            touched: BTreeSet::new(),
            rows: Rows::few(),
        }
    }
}

impl Tried {
    /// Reads these rows too, as they are now.
    pub(super) async fn read<'t>(
        &mut self,
        conn: &mut Conn,
        touched: impl Iterator<Item = (&'t str, &'t str)>,
    ) -> Result<(), StoreError> {
        let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (resource, id) in touched {
            self.touched.extend(Key::of(resource, id));
            ids.entry(resource).or_default().insert(id);
        }
        for (resource, ids) in ids {
            let ids: Vec<&str> = ids.into_iter().collect();
            self.rows.changed(&mut *conn, resource, &ids).await?;
        }
        // Those of a subnet pool are read with it.
        let subnets = self.rows.subnets.keys();
        self.touched.extend(subnets.copied().map(Key::Subnet));
        Ok(())
    }

    /// The hosts whose duty would be another: rows and duties stay as they are.
    pub(super) fn hosts(&self, rows: &mut Rows, duties: &Duties, hub: &Hub) -> BTreeSet<HostName> {
        // What the next round is to look at.
        let pending = std::mem::take(&mut rows.marks);
        rows.before = Some(Box::default());
        for key in &self.touched {
            match key {
                Key::Port(id) if !self.rows.ports.contains_key(id) => rows.port_remove(*id),
                Key::SecurityGroup(id) if !self.rows.security_groups.contains_key(id) => {
                    rows.security_group_remove(*id);
                }
                _ => rows.adopt(key, &self.rows),
            }
        }
        let marks = std::mem::take(&mut rows.marks);
        let hosts = duties.tried(rows, &marks, hub);
        if let Some(before) = rows.before.take() {
            for key in &before.changed {
                rows.adopt(key, &before.rows);
            }
        }
        rows.marks = pending;
        hosts
    }
}

/// A row by its kind and id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Network(NetworkId),
    Subnet(SubnetId),
    Port(PortId),
    Router(RouterId),
    FloatingIp(FloatingIpId),
    LocalIp(LocalIpId),
    MeteringLabel(MeteringLabelId),
    Log(LogId),
    SecurityGroup(SecurityGroupId),
    SecurityGroupRule(SecurityGroupRuleId),
    AddressGroup(AddressGroupId),
    QosPolicy(QosPolicyId),
    TunnelHost(HostName),
    GatewayHost(HostName),
}

impl Key {
    /// None for what is no host's business, or no id.
    fn of(resource: &str, id: &str) -> Option<Self> {
        fn key<K: FromStr>(id: &str, key: impl FnOnce(K) -> Key) -> Option<Key> {
            id.parse().ok().map(key)
        }
        match resource {
            "network" => key(id, Self::Network),
            "subnet" => key(id, Self::Subnet),
            "port" | "claimed_ip" => key(id, Self::Port),
            "router" => key(id, Self::Router),
            "floatingip" => key(id, Self::FloatingIp),
            "local_ip" => key(id, Self::LocalIp),
            "metering_label" => key(id, Self::MeteringLabel),
            "log" => key(id, Self::Log),
            "security_group" => key(id, Self::SecurityGroup),
            "security_group_rule" => key(id, Self::SecurityGroupRule),
            "address_group" => key(id, Self::AddressGroup),
            "qos_policy" => key(id, Self::QosPolicy),
            "tunnel_host" => key(id, Self::TunnelHost),
            "gateway_host" => key(id, Self::GatewayHost),
            _ => None,
        }
    }
}

/// Rows as they were before they changed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Before {
    changed: BTreeSet<Key>,
    rows: Rows,
}

impl Default for Before {
    fn default() -> Self {
        Self {
            changed: BTreeSet::new(),
            rows: Rows::few(),
        }
    }
}

impl Rows {
    /// None, to put a few in: what they mean together is not looked at.
    fn few() -> Self {
        Self {
            loading: true,
            ..Self::default()
        }
    }

    /// Notes a row as it is, for it is about to change, if there is to be a way back.
    pub(super) fn changing(&mut self, key: Key) {
        let Some(mut before) = self.before.take() else {
            return;
        };
        if !before.changed.contains(&key) {
            before.rows.adopt(&key, self);
            before.changed.insert(key);
        }
        self.before = Some(before);
    }

    /// Makes a row what it is in `other`.
    fn adopt(&mut self, key: &Key, other: &Self) {
        match key {
            Key::Network(id) => {
                let segments = || other.segments.get(id).cloned().unwrap_or_default();
                let network = other.networks.get(id).cloned();
                let network = network.map(|network| (network, segments()));
                let policy = other.network_qos_policies.get(id).copied();
                self.network_set(*id, network, policy);
            }
            Key::Subnet(id) => self.subnet_set(*id, other.subnets.get(id).cloned()),
            Key::Port(id) => self.port_set(*id, other.ports.get(id).cloned()),
            Key::Router(id) => self.router_set(*id, other.routers.get(id).cloned()),
            Key::FloatingIp(id) => {
                let floating = other.floating_ips.get(id).cloned();
                let forwarded = other.forwarded_ips.get(id).cloned();
                self.floating_ip_set(*id, (floating, forwarded));
            }
            Key::LocalIp(id) => self.local_ip_set(*id, other.local_ips.get(id).cloned()),
            Key::MeteringLabel(id) => {
                self.metering_label_set(*id, other.metering_labels.get(id).cloned());
            }
            Key::Log(id) => self.log_set(*id, other.logs.get(id).cloned()),
            Key::SecurityGroup(id) => {
                self.security_group_set(*id, other.security_groups.get(id).cloned());
            }
            Key::SecurityGroupRule(id) => {
                let rule = other.security_group_rules.get(id).cloned();
                self.security_group_rule_set(*id, rule);
            }
            Key::AddressGroup(id) => {
                self.address_group_set(*id, other.address_groups.get(id).cloned());
            }
            Key::QosPolicy(id) => self.qos_policy_set(*id, other.qos_policies.get(id).cloned()),
            Key::TunnelHost(host) => {
                self.tunnel_host_set(host, other.tunnel_hosts.get(host).cloned());
            }
            Key::GatewayHost(host) => {
                let known = other.gateway_hosts.get(host).cloned();
                self.gateway_host_set(host, known.unwrap_or_default());
            }
        }
    }
}
