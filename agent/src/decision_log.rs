//! What security groups decided, written down: a line for each decision that a log is to have.
//!
//! Guarantees: a line names all logs that are of it, and no other. How many there are is limited in the engine, for each port.
//! It keeps no file: lines go where the agent's other lines go, under a target of their own.

use weft_dataplane::stage::security_group;
use weft_dataplane::{Tuple, stage};
use weft_ebpf::LogEvent;
use weft_model::{Direction, HostSnapshot, LogId};

/// The target of these lines.
const TARGET: &str = "weft::decision";

/// Writes a decision down.
pub(crate) fn write(snapshot: &HostSnapshot, event: &LogEvent) {
    let logs = logs(snapshot, event);
    if logs.is_empty() {
        return;
    }
    let ids: Vec<String> = logs.iter().map(ToString::to_string).collect();
    tracing::info!(target: TARGET, "{}", line(event, &ids.join(",")));
}

fn line(event: &LogEvent, logs: &str) -> String {
    let action = if event.allowed { "ACCEPT" } else { "DROP" };
    let direction = match event.direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let tuple = tuple(event);
    format!(
        "action={action} direction={direction} port={} log_resource_ids={logs} packet=\"{tuple}\"",
        event.port_id
    )
}

fn tuple(event: &LogEvent) -> Tuple {
    Tuple {
        protocol: event.protocol,
        source: event.source.0,
        destination: event.destination.0,
        source_port: event.source.1,
        destination_port: event.destination.1,
    }
}

/// The port's logs that are of the decision: of all its groups, or of one that allowed it, or, as nobody did, is on the port.
fn logs(snapshot: &HostSnapshot, event: &LogEvent) -> Vec<LogId> {
    let Some(port) = snapshot.ports.get(&event.port_id) else {
        return Vec::new();
    };
    let ingress = weft_dataplane::Ingress::Port(event.port_id);
    let Some(sight) = stage::Sight::new(snapshot, ingress, None) else {
        return Vec::new();
    };
    let asked = security_group::Question {
        tuple: tuple(event),
        icmp: event.icmp,
        direction: event.direction,
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
            !event.allowed || security_group::process(&sight, &alone, &asked).is_some()
        });
        log.event.is_of(event.allowed) && of_group
    };
    port.logs.iter().filter(is_of).copied().collect()
}
