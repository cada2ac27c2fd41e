//! As many members as a multicast frame is copied to, and one more: a network too large to be written as a vector.

use crate::engine::{EngineUnderTest, Limits};
use crate::script::{Action, Script};
use std::fmt::Write as _;
use weft_dataplane::Verdict;
use weft_model::DropReason;
use weft_model::limits::MULTICAST_COPIES_MAX;

/// A network with one local port and ports on so many other hosts.
fn snapshot(hosts: u32) -> Result<toml::Table, String> {
    let mut text = String::from(
        "networks.blue = { mtu = 1450, vni = 7 }\n\
         subnets.blue4 = { network = \"blue\", cidr = \"10.1.0.0/16\" }\n\
         hosts.host = \"10.2.255.1\"\n\
         ports.a = { network = \"blue\", ips = [\"10.1.255.1\"], port_security = false }\n",
    );
    for number in 0..hosts {
        let address = format!("{}.{}", number / 250, 1 + number % 250);
        writeln!(
            text,
            "hosts.h{number} = \"10.2.{address}\"\n\
             remote_ports.r{number} = {{ network = \"blue\", host = \"h{number}\", ips = [\"10.1.{address}\"] }}"
        )
        .map_err(|error| error.to_string())?;
    }
    text.parse().map_err(|error| format!("{error}"))
}

/// Holds an engine to the limit.
///
/// # Errors
/// What it does else.
pub fn limit_holds(engine: &mut dyn EngineUnderTest) -> Result<(), String> {
    for (hosts, wanted) in [
        (MULTICAST_COPIES_MAX - 1, None),
        (MULTICAST_COPIES_MAX, Some(DropReason::MulticastUnsupported)),
    ] {
        engine.reset(Limits::default())?;
        let (mut script, first) = Script::new(snapshot(hosts)?)?;
        engine.apply(&first)?;
        let line = "a: eth a>bcast ip 10.1.255.1>10.1.255.255 udp 1>2";
        let Action::Packet(packet) = script.read(line)? else {
            return Err(format!("no frame: {line}"));
        };
        let seen = engine.process(packet.ingress, &packet.bytes, script.now_s)?;
        let (verdict, copies) = match wanted {
            None => (Verdict::Multicast, hosts),
            Some(reason) => (Verdict::Drop(reason), 0),
        };
        let count = u32::try_from(seen.copies.len()).unwrap_or(u32::MAX);
        if seen.verdict != verdict || count != copies {
            let name = engine.name();
            return Err(format!(
                "{name}: {hosts} hosts: {:?}, {count} copies",
                seen.verdict
            ));
        }
    }
    Ok(())
}
