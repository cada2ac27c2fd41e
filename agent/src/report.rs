//! What the agent says of its ports: ACTIVE only if the interface is attached and the policy enforced.
//!
//! Guarantees: each change is said once; the first report, and the first of another database, names every port.

use std::collections::BTreeMap;
use weft_model::{
    Claim, Epoch, HostReport, HostSnapshot, Port, PortId, PortInterface, PortReport, PortStatus,
    Revision, Unsupported, VhostUserHost, limits,
};

/// A port's status and why it is not ACTIVE.
pub(crate) type Said = (PortStatus, String);

/// What is known of a port's device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// Its frames pass the engine.
    Attached,
    /// It is not in the agent's namespace.
    Missing,
    /// It is there and the engine did not take it.
    Failed(String),
}

/// A port's status.
pub(crate) fn status(port: &Port, device: &Device) -> Said {
    let name = match &port.interface {
        PortInterface::Tap { name } => name,
        PortInterface::VhostUser { socket, .. } => socket,
        PortInterface::Subport { parent, .. } => &format!("of port {parent}"),
    };
    match device {
        Device::Failed(error) => (PortStatus::Error, error.clone()),
        Device::Missing => (PortStatus::Down, format!("interface {name} is not there")),
        Device::Attached if !port.admin_state_up => {
            (PortStatus::Down, "administratively down".to_owned())
        }
        Device::Attached => (PortStatus::Active, String::new()),
    }
}

/// Remembers what was said.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    epoch: Option<Epoch>,
    revision: Revision,
    ports: BTreeMap<PortId, Said>,
    unsupported: Vec<Unsupported>,
    vhost_user: Option<VhostUserHost>,
}

impl Reporter {
    /// A reporter that has said nothing; guests that are bound to this host from now on are attached so, or by taps.
    pub(crate) fn new(vhost_user: Option<VhostUserHost>) -> Self {
        Self {
            vhost_user,
            ..Self::default()
        }
    }

    /// The report on a snapshot in force, if there is anything new in it.
    pub(crate) fn enforced(
        &mut self,
        snapshot: &HostSnapshot,
        ports: &BTreeMap<PortId, Said>,
        unsupported: &[Unsupported],
    ) -> Option<HostReport> {
        let full = self.epoch != Some(snapshot.epoch);
        let changed: Vec<PortReport> = ports
            .iter()
            .filter(|(id, said)| full || self.ports.get(*id) != Some(*said))
            .map(|(id, (status, message))| PortReport {
                port_id: *id,
                status: *status,
                message: cut(message),
            })
            .collect();
        let same = !full
            && changed.is_empty()
            && self.revision == snapshot.revision
            && self.unsupported == unsupported;
        if same {
            return None;
        }
        self.epoch = Some(snapshot.epoch);
        self.revision = snapshot.revision;
        self.ports.clone_from(ports);
        self.unsupported = unsupported.to_vec();
        Some(self.report(snapshot, changed, full, None))
    }

    /// The report on a snapshot that the engine refused. What was in force stays so.
    pub(crate) fn refused(&self, snapshot: &HostSnapshot, why: &str) -> HostReport {
        let refused = Some((snapshot.revision, cut(why)));
        let mut report = self.report(snapshot, Vec::new(), false, refused);
        if self.epoch != Some(snapshot.epoch) {
            report.revision = Revision(0);
        }
        report
    }

    /// The report on what guests claim.
    pub(crate) fn claimed(&self, snapshot: &HostSnapshot, claims: Vec<Claim>) -> HostReport {
        let report = self.report(snapshot, Vec::new(), false, None);
        HostReport { claims, ..report }
    }

    /// Says everything again with the next report: one was lost.
    pub(crate) fn forget(&mut self) {
        *self = Self::new(self.vhost_user.take());
    }

    fn report(
        &self,
        snapshot: &HostSnapshot,
        ports: Vec<PortReport>,
        full: bool,
        refused: Option<(Revision, String)>,
    ) -> HostReport {
        HostReport {
            host: snapshot.host.clone(),
            epoch: snapshot.epoch,
            revision: self.revision,
            ports,
            full,
            refused,
            unsupported: self
                .unsupported
                .iter()
                .take(limits::UNSUPPORTED_MAX)
                .cloned()
                .collect(),
            vhost_user: self.vhost_user.clone(),
            physical_networks: Vec::new(),
            unreachable: None,
            tunnel_ip: None,
            claims: Vec::new(),
        }
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(limits::FEED_MESSAGE_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::fixture::{GUEST, OTHER_GUEST, snapshot};

    fn all(s: &HostSnapshot, device: &Device) -> BTreeMap<PortId, Said> {
        s.ports
            .iter()
            .map(|(id, port)| (*id, status(port, device)))
            .collect()
    }

    #[test]
    fn the_first_report_is_full_and_later_ones_say_what_changed() {
        let mut s = snapshot();
        let mut reporter = Reporter::default();
        let mut ports = all(&s, &Device::Missing);
        let first = reporter.enforced(&s, &ports, &[]).unwrap();
        assert!(first.full);
        assert_eq!(first.ports.len(), 2);
        assert_eq!(first.ports[0].status, PortStatus::Down);
        assert_eq!(first.ports[0].message, "interface tap0 is not there");
        assert_eq!(reporter.enforced(&s, &ports, &[]), None);

        ports.insert(GUEST, status(&s.ports[&GUEST], &Device::Attached));
        let second = reporter.enforced(&s, &ports, &[]).unwrap();
        assert!(!second.full);
        let named: Vec<_> = second.ports.iter().map(|p| (p.port_id, p.status)).collect();
        assert_eq!(named, [(GUEST, PortStatus::Active)]);

        s.revision = Revision(7);
        let third = reporter.enforced(&s, &ports, &[]).unwrap();
        assert_eq!((third.revision, third.ports.len()), (Revision(7), 0));
        s.epoch = Epoch::random();
        assert!(reporter.enforced(&s, &ports, &[]).unwrap().full);
        reporter.forget();
        assert!(reporter.enforced(&s, &ports, &[]).unwrap().full);
    }

    #[test]
    fn a_refusal_names_the_revision_that_stays_in_force() {
        let mut s = snapshot();
        s.revision = Revision(3);
        let mut reporter = Reporter::default();
        let none = reporter.refused(&s, "too large");
        assert_eq!(none.revision, Revision(0));
        let ports = all(&s, &Device::Attached);
        reporter.enforced(&s, &ports, &[]).unwrap();
        s.revision = Revision(4);
        let refused = reporter.refused(&s, "too large");
        assert_eq!(refused.revision, Revision(3));
        assert_eq!(refused.refused, Some((Revision(4), "too large".to_owned())));
    }

    #[test]
    fn only_an_attached_port_that_is_up_is_active() {
        let mut s = snapshot();
        let port = s.ports.get_mut(&OTHER_GUEST).unwrap();
        assert_eq!(status(port, &Device::Attached).0, PortStatus::Active);
        assert_eq!(
            status(port, &Device::Failed("no memory".into())).0,
            PortStatus::Error
        );
        port.admin_state_up = false;
        let down = status(port, &Device::Attached);
        assert_eq!(down, (PortStatus::Down, "administratively down".to_owned()));
        port.interface = PortInterface::VhostUser {
            socket: "/run/x".into(),
            mode: weft_model::VhostUserMode::Client,
        };
        assert_eq!(status(port, &Device::Missing).0, PortStatus::Down);
        port.interface = PortInterface::Subport {
            parent: OTHER_GUEST,
            vlan_id: 1,
        };
        let missing = status(port, &Device::Missing);
        let why = format!("interface of port {OTHER_GUEST} is not there");
        assert_eq!(missing, (PortStatus::Down, why));
    }
}
