//! `weft trace`: the question from the command line, and the answer stage by stage.

use super::{place, sessions};
use crate::arguments::Trace;
use crate::table::Table;
use anyhow::{Context, bail};
use std::net::IpAddr;
use weft_agent::socket::{
    FiveTuple, PortState, TraceAnswer, TraceIngress, TracePacket, TraceRequest,
};

/// The question; `ports` are those of this host, for the source that was not given.
pub(super) fn request(args: &Trace, ports: &[PortState]) -> anyhow::Result<TraceRequest> {
    let ingress = match (args.port, args.network) {
        (Some(port), _) => TraceIngress::Port(port),
        (None, Some(network)) => TraceIngress::Network(network),
        (None, None) => bail!("expected --port or --network"),
    };
    if let Some(frame) = &args.frame {
        return Ok(TraceRequest {
            ingress,
            packet: TracePacket::Frame(frame.clone()),
        });
    }
    let destination = args.to.context("expected --frame or --to")?;
    let source = match args.from {
        Some(source) => source,
        None => port_address(args, ports, destination)?,
    };
    if source.is_ipv4() != destination.is_ipv4() {
        bail!("--from {source} and --to {destination} are of different families");
    }
    let tuple = FiveTuple {
        protocol: protocol(&args.proto, destination)?,
        source,
        destination,
        source_port: args.sport,
        destination_port: args.dport,
    };
    Ok(TraceRequest {
        ingress,
        packet: TracePacket::FiveTuple(tuple),
    })
}

/// The port's first address of the destination's family.
fn port_address(args: &Trace, ports: &[PortState], to: IpAddr) -> anyhow::Result<IpAddr> {
    let Some(id) = args.port else {
        bail!("a packet from a network needs --from")
    };
    let port = ports.iter().find(|port| port.port_id == id);
    let port = port.with_context(|| {
        format!("port {id} is not on this host: `weft status` lists those that are")
    })?;
    let mut addresses = port
        .fixed_ips
        .iter()
        .filter(|ip| ip.is_ipv4() == to.is_ipv4());
    let first = addresses.next().copied();
    first.with_context(|| format!("port {id} has no address of the family of {to}: give --from"))
}

fn protocol(text: &str, destination: IpAddr) -> anyhow::Result<u8> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "icmp" | "icmpv6" | "ipv6-icmp" if destination.is_ipv6() => 58,
        "icmp" => 1,
        "tcp" => 6,
        "udp" => 17,
        "dccp" => 33,
        "sctp" => 132,
        "udplite" => 136,
        number => number.parse().with_context(|| {
            format!("--proto {text}: expected tcp, udp, sctp, dccp, udplite, icmp or 0 to 255")
        })?,
    })
}

/// The answer for people.
pub(super) fn text(request: &TraceRequest, answer: &TraceAnswer) -> String {
    let what = match &request.packet {
        TracePacket::Frame(_) => "a frame".to_owned(),
        TracePacket::FiveTuple(tuple) => {
            format!(
                "{} {}",
                sessions::protocol(tuple.protocol),
                sessions::ends(tuple)
            )
        }
    };
    let mut text = format!(
        "{what}, from {}, at revision {}\n\n",
        place(&request.ingress),
        answer.revision
    );
    let mut table = Table::new(&["stage", "decision", "rule"]);
    for step in &answer.steps {
        let rule = step.rule.map(|rule| rule.to_string()).unwrap_or_default();
        table.row([step.stage.name().to_owned(), step.decision.clone(), rule]);
    }
    text += &table.text();
    // The reason's own words, where there is one: the verdict's text holds them too.
    let words = answer.drop_reason.map_or_else(
        || answer.verdict_text.clone(),
        |reason| format!("{}: {}", reason.name(), reason.sentence()),
    );
    text += &format!("\n{}: {words}\n", answer.verdict.to_uppercase());
    text += &format!("in:  {}\n", answer.frame);
    if let Some(output) = &answer.output {
        text += &format!("out: {output}\n");
    }
    for note in &answer.notes {
        text += &format!("note: {note}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Command};
    use clap::Parser;
    use weft_agent::socket::TraceStep;
    use weft_model::{
        DropReason, NetworkId, PortId, PortStatus, Revision, SecurityGroupRuleId, Stage,
    };

    fn args(line: &str) -> Trace {
        let line = format!("weft trace {line}");
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Trace(args) = arguments.command else {
            panic!("trace")
        };
        args
    }

    fn port(port_id: PortId) -> PortState {
        PortState {
            port_id,
            network_id: NetworkId::random(),
            interface: "tap0".to_owned(),
            vhost_user: None,
            mac_address: "fa:16:3e:00:00:01".parse().unwrap(),
            fixed_ips: vec!["192.0.2.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            status: PortStatus::Active,
            reason: String::new(),
        }
    }

    #[test]
    fn a_five_tuple_starts_at_the_ports_address() {
        let id = PortId::random();
        let ask = |line: &str| request(&args(&format!("--port {id} {line}")), &[port(id)]);
        let tuple = |line: &str| match ask(line).unwrap().packet {
            TracePacket::FiveTuple(tuple) => tuple,
            TracePacket::Frame(frame) => panic!("{frame}"),
        };
        let ssh = tuple("--to 198.51.100.1 --proto tcp --dport 22");
        assert_eq!(
            (
                ssh.protocol,
                ssh.source.to_string().as_str(),
                ssh.destination_port
            ),
            (6, "192.0.2.5", 22)
        );
        let ping = tuple("--to fd00::9");
        assert_eq!(
            (ping.protocol, ping.source.to_string().as_str()),
            (58, "fd00::5")
        );
        assert_eq!(
            tuple("--to 192.0.2.6 --from 192.0.2.7 --proto 47")
                .source
                .to_string(),
            "192.0.2.7"
        );
        for (bad, words) in [
            ("--to 192.0.2.6 --from fd00::1", "different families"),
            ("--to 192.0.2.6 --proto quic", "--proto quic: expected tcp"),
            ("--to 192.0.2.6 --proto 256", "--proto 256: expected tcp"),
        ] {
            let refused = ask(bad).unwrap_err();
            assert!(refused.to_string().contains(words), "{refused:#}");
        }
        let stranger = request(&args(&format!("--port {id} --to 192.0.2.6")), &[]).unwrap_err();
        assert!(
            stranger.to_string().contains("is not on this host"),
            "{stranger}"
        );
        let wire = request(&args(&format!("--network {id} --to 192.0.2.6")), &[]).unwrap_err();
        assert!(wire.to_string().contains("needs --from"), "{wire}");
    }

    #[test]
    fn the_answer_goes_stage_by_stage() {
        let id = PortId::random();
        let question = request(&args(&format!("--port {id} --frame 00ff")), &[]).unwrap();
        let rule = SecurityGroupRuleId::random();
        let step = |stage, rule| TraceStep {
            stage,
            decision: "passes".to_owned(),
            rule,
        };
        let answer = TraceAnswer {
            revision: Revision(9),
            frame: "00ff".to_owned(),
            steps: vec![
                step(Stage::Decode, None),
                step(Stage::SecurityGroupEgress, Some(rule)),
            ],
            verdict: "drop".to_owned(),
            verdict_text: "the packet dies".to_owned(),
            drop_reason: Some(DropReason::SpoofedMac),
            output: None,
            notes: vec!["one".to_owned()],
        };
        let text = text(&question, &answer);
        assert!(
            text.starts_with(&format!("a frame, from port {id}, at revision 9\n\nstage")),
            "{text}"
        );
        assert!(
            text.contains(&format!("security_group_egress  passes    {rule}\n")),
            "{text}"
        );
        assert!(
            text.contains("\nDROP: spoofed_mac: The source MAC"),
            "{text}"
        );
        assert!(text.ends_with("in:  00ff\nnote: one\n"), "{text}");
    }
}
