//! What security groups decided, written down: a line for each decision that a log is to have.
//!
//! Guarantees: a line names all logs that are of it, and no other. How many there are is limited in the engine, for each port.
//! It keeps no file: lines go where the agent's other lines go, under a target of their own.

use weft_dataplane::stage::security_group;
use weft_dataplane::{Decision, GuestVlan, Tuple, stage};
use weft_ebpf::LogEvent;
use weft_model::{Direction, HostSnapshot, LogId};

/// The target of these lines.
const TARGET: &str = "weft::decision";

/// Writes a decision down.
pub(crate) fn write(snapshot: &HostSnapshot, decision: &Decision) {
    let logs = logs(snapshot, decision);
    if logs.is_empty() {
        return;
    }
    let ids: Vec<String> = logs.iter().map(ToString::to_string).collect();
    tracing::info!(target: TARGET, "{}", line(decision, &ids.join(",")));
}

/// A decision of the kernel engine.
pub(crate) fn decision(event: &LogEvent) -> Decision {
    Decision {
        port_id: event.port_id,
        direction: event.direction,
        allowed: event.allowed,
        tuple: Tuple {
            protocol: event.protocol,
            source: event.source.0,
            destination: event.destination.0,
            source_port: event.source.1,
            destination_port: event.destination.1,
            vlan: GuestVlan(event.vlan),
        },
        icmp: event.icmp,
    }
}

fn line(decision: &Decision, logs: &str) -> String {
    let action = if decision.allowed { "ACCEPT" } else { "DROP" };
    let direction = match decision.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let tuple = decision.tuple;
    format!(
        "action={action} direction={direction} port={} log_resource_ids={logs} packet=\"{tuple}\"",
        decision.port_id
    )
}

/// The port's logs that are of the decision: of all its groups, or of one that allowed it, or, as nobody did, is on the port.
fn logs(snapshot: &HostSnapshot, decision: &Decision) -> Vec<LogId> {
    let Some(port) = snapshot.ports.get(&decision.port_id) else {
        return Vec::new();
    };
    let ingress = weft_dataplane::Ingress::Port(decision.port_id);
    let Some(sight) = stage::Sight::new(snapshot, ingress, None) else {
        return Vec::new();
    };
    let asked = security_group::Question {
        tuple: decision.tuple,
        icmp: decision.icmp,
        direction: decision.direction,
    };
    let is_of = |id: &&LogId| {
        let Some(log) = snapshot.logs.get(id) else {
            return false;
        };
        let of_group = log.security_group_id.is_none_or(|group| {
            let alone = weft_model::Port {
                security_groups: vec![group],
                ..port.clone()
            };
            !decision.allowed || security_group::process(&sight, &alone, &asked).is_some()
        });
        log.event.is_of(decision.allowed) && of_group
    };
    port.logs.iter().filter(is_of).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::fixture::{self, GUEST, OTHER_GUEST, ip};
    use std::net::IpAddr;
    use uuid::Uuid;
    use weft_model::{
        EtherType, Log, LogEvent as Kind, PortId, PortRange, Remote, SecurityGroup,
        SecurityGroupId, SecurityGroupRule, SecurityGroupRuleId,
    };

    const WEB: SecurityGroupId = SecurityGroupId(Uuid::from_u128(0x70));
    const NAMES: SecurityGroupId = SecurityGroupId(Uuid::from_u128(0x71));
    const ALL: LogId = LogId(Uuid::from_u128(0x80));
    const WEB_GOOD: LogId = LogId(Uuid::from_u128(0x81));
    const NAMES_GOOD: LogId = LogId(Uuid::from_u128(0x82));
    const NAMES_BAD: LogId = LogId(Uuid::from_u128(0x83));

    /// A guest of two groups, one for TCP 22 and one for UDP 53, with logs of all and of each; another one has none.
    fn snapshot() -> HostSnapshot {
        let mut snapshot = fixture::snapshot();
        for (number, group, protocol, port) in [(1, WEB, 6, 22), (2, NAMES, 17, 53)] {
            let of = SecurityGroup { stateful: true };
            snapshot.security_groups.insert(group, of);
            for (more, ethertype) in [(0, EtherType::Ipv4), (0x10, EtherType::Ipv6)] {
                let rule = SecurityGroupRule {
                    security_group_id: group,
                    direction: Direction::Ingress,
                    ethertype,
                    protocol: Some(protocol),
                    port_range: Some(PortRange {
                        first: port,
                        last: Some(port),
                    }),
                    remote: Remote::Any,
                };
                let id = SecurityGroupRuleId(Uuid::from_u128(number + more));
                snapshot.security_group_rules.insert(id, rule);
            }
        }
        for (id, event, security_group_id) in [
            (ALL, Kind::All, None),
            (WEB_GOOD, Kind::Accept, Some(WEB)),
            (NAMES_GOOD, Kind::Accept, Some(NAMES)),
            (NAMES_BAD, Kind::Drop, Some(NAMES)),
        ] {
            let log = Log {
                event,
                security_group_id,
            };
            snapshot.logs.insert(id, log);
        }
        let port = snapshot.ports.get_mut(&GUEST).unwrap();
        port.security_groups = vec![WEB, NAMES];
        port.logs = vec![ALL, WEB_GOOD, NAMES_GOOD, NAMES_BAD];
        snapshot
    }

    fn event(
        port_id: PortId,
        ends: [&str; 2],
        (protocol, port): (u8, u16),
        allowed: bool,
    ) -> Decision {
        let [source, destination]: [IpAddr; 2] = ends.map(ip);
        decision(&LogEvent {
            port_id,
            direction: Direction::Ingress,
            allowed,
            vlan: 0,
            protocol,
            source: (source, 40_000),
            destination: (destination, port),
            icmp: None,
        })
    }

    #[test]
    fn a_decision_is_of_the_logs_of_all_and_of_the_group_that_made_it() {
        let snapshot = snapshot();
        for ends in [["192.0.2.9", "192.0.2.10"], ["fd00::9", "fd00::10"]] {
            let of = |what, allowed| logs(&snapshot, &event(GUEST, ends, what, allowed));
            assert_eq!(of((6, 22), true), [ALL, WEB_GOOD]);
            assert_eq!(of((17, 53), true), [ALL, NAMES_GOOD]);
            // What no group allows is every group's.
            assert_eq!(of((6, 80), false), [ALL, NAMES_BAD]);
            let other = event(OTHER_GUEST, ends, (6, 22), true);
            assert_eq!(logs(&snapshot, &other), []);
            let gone = event(PortId(Uuid::from_u128(0x99)), ends, (6, 22), true);
            assert_eq!(logs(&snapshot, &gone), []);
        }
    }

    #[test]
    fn a_log_that_is_gone_from_the_snapshot_has_no_line() {
        let mut snapshot = snapshot();
        snapshot.logs.clear();
        let said = event(GUEST, ["192.0.2.9", "192.0.2.10"], (6, 22), true);
        assert_eq!(logs(&snapshot, &said), []);
    }

    #[test]
    fn a_line_says_what_was_decided_of_which_packet() {
        let mut said = event(GUEST, ["192.0.2.9", "192.0.2.10"], (6, 22), true);
        let text = line(&said, "a,b");
        let start =
            format!("action=ACCEPT direction=ingress port={GUEST} log_resource_ids=a,b packet=\"");
        assert!(text.starts_with(&start), "{text}");
        for part in ["192.0.2.9", "40000", "192.0.2.10", "22"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        said.allowed = false;
        said.direction = Direction::Egress;
        let text = line(&said, "a");
        assert!(text.starts_with("action=DROP direction=egress "), "{text}");
    }
}
