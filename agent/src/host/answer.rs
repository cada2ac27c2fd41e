//! What the control socket asks of the host, and what it is told.

use super::{Host, sentence};
use crate::question::{Ground, HostStatus, Question};
use crate::service::Millis;
use crate::socket::{
    Neighbour, PhysicalNetworkState, PortState, SESSIONS_COUNTED_MAX, SESSIONS_MAX, Sessions,
    UnderlayState,
};
use crate::view;
use weft_ebpf::EngineError;
use weft_model::HostSnapshot;

impl Host {
    /// Answers the control socket. Who asked may be gone.
    pub(crate) fn answer(&mut self, question: Question, now: Millis) {
        match question {
            Question::Status(to) => drop(to.send(self.status())),
            Question::Stats(to) => drop(to.send(self.stats())),
            Question::Sessions(limit, to) => drop(to.send(self.sessions(limit, now))),
            Question::Ground(to) => {
                let ground = self.in_force.clone().map(|snapshot| Ground {
                    snapshot,
                    neighbours: self.services.neighbours().collect(),
                    sessions: self.sessions(SESSIONS_COUNTED_MAX, now).unwrap_or_default(),
                });
                drop(to.send(ground));
            }
            Question::Watch(number, places, to) => drop(to.send(self.watch(number, places))),
            Question::Unwatch(number, places) => self.unwatch(number, places),
        }
    }

    fn stats(&self) -> Result<crate::socket::Stats, String> {
        let failed = |error: EngineError| sentence(&error);
        let mut counters = self.engine.counters().map_err(failed)?;
        self.user.count(&mut counters);
        let sessions = self.engine.sessions(SESSIONS_COUNTED_MAX);
        let sessions = sessions.map_err(failed)?.len();
        let sessions = sessions + self.user.sessions(SESSIONS_COUNTED_MAX - sessions).len();
        let snapshot = self.in_force.as_deref();
        let services = self.services.counters();
        Ok(view::stats(&counters, snapshot, sessions, services))
    }

    fn sessions(&self, limit: usize, now: Millis) -> Result<Sessions, String> {
        let limit = limit.min(SESSIONS_MAX);
        let mut sessions = self
            .engine
            .sessions(limit + 1)
            .map_err(|error| sentence(&error))?;
        sessions.extend(self.user.sessions(limit + 1 - sessions.len()));
        let truncated = sessions.len() > limit;
        sessions.truncate(limit);
        Ok(Sessions {
            sessions: sessions.iter().map(|s| view::session(s, now)).collect(),
            truncated,
        })
    }

    fn status(&self) -> HostStatus {
        let ports = self.in_force.as_deref().map(|s| self.port_states(s));
        let physical = self.physical_networks.iter();
        HostStatus {
            in_force: self.in_force.clone(),
            received: self.received.as_ref().map(|s| s.revision),
            refused: self.refused.clone(),
            ports: ports.unwrap_or_default(),
            physical_networks: physical
                .map(|(name, interface)| PhysicalNetworkState {
                    name: name.clone(),
                    interface: interface.clone(),
                    attached: self.index_of(interface).is_some(),
                })
                .collect(),
            underlay: self.underlay.as_ref().map(|interface| UnderlayState {
                interface: interface.clone(),
                attached: self.index_of(interface).is_some(),
            }),
            unsupported: self.unsupported.clone(),
            neighbours: self
                .services
                .neighbours()
                .map(|(network_id, ip_address, mac_address)| Neighbour {
                    network_id,
                    ip_address,
                    mac_address,
                })
                .collect(),
        }
    }

    fn port_states(&self, snapshot: &HostSnapshot) -> Vec<PortState> {
        let mut said = self.statuses(snapshot);
        let each = snapshot.ports.iter();
        each.map(|(id, port)| {
            let (status, reason) = said
                .remove(id)
                .unwrap_or((weft_model::PortStatus::Down, String::new()));
            PortState {
                port_id: *id,
                network_id: port.network_id,
                interface: view::interface_name(&port.interface),
                vhost_user: view::vhost_user_mode(&port.interface),
                mac_address: port.mac_address,
                fixed_ips: port.fixed_ips.iter().map(|ip| ip.ip_address).collect(),
                status,
                reason,
            }
        })
        .collect()
    }
}
