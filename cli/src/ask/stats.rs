//! `weft stats` for people: what passed, what was dropped, and why.

use crate::table::{Table, bytes, count};
use anyhow::bail;
use std::collections::BTreeMap;
use weft_agent::service::ServiceCounters;
use weft_agent::socket::{DropCount, Stats, Traffic, UnderlayStats, XdpStats};
use weft_model::{Metered, PortId};

/// What concerns one port, if one is asked for.
pub(super) fn only(mut stats: Stats, port: Option<PortId>) -> anyhow::Result<Stats> {
    let Some(port) = port else { return Ok(stats) };
    stats.ports.retain(|stats| stats.port_id == port);
    let Some(found) = stats.ports.first() else {
        bail!("port {port} is not on this host: `weft status` lists those that are");
    };
    stats.total = found.traffic;
    stats.drops.clone_from(&found.drops);
    stats.networks.clear();
    stats.metering_labels.clear();
    stats.underlay = UnderlayStats::default();
    stats.services = ServiceCounters::default();
    Ok(stats)
}

/// The counters as text; `since` are earlier ones and how many seconds ago they were read, for rates.
pub(super) fn text(stats: &Stats, since: Option<(&Stats, u64)>) -> String {
    let mut before: BTreeMap<String, Traffic> = BTreeMap::new();
    if let Some((since, _)) = since {
        before = (sides(since).chain(tunnels(since)))
            .map(|(name, _, traffic)| (name, traffic))
            .collect();
    }
    let mut headings = vec![
        "port or network",
        "interface",
        "rx pkt",
        "rx",
        "tx pkt",
        "tx",
    ];
    if let Some((since, _)) = since {
        headings.extend(["rx pkt/s", "rx/s", "tx pkt/s", "tx/s"]);
        before.insert("total".to_owned(), since.total);
    }
    let mut table = Table::new(&headings);
    let total = ("total".to_owned(), String::new(), stats.total);
    for (name, interface, now) in sides(stats).chain([total]).chain(tunnels(stats)) {
        let old = before.get(&name).copied().unwrap_or_default();
        let mut row = vec![name, interface];
        row.extend(amounts(now, |now| now));
        if let Some((_, seconds)) = since {
            let gone = Traffic {
                rx_packets: now.rx_packets.saturating_sub(old.rx_packets),
                rx_bytes: now.rx_bytes.saturating_sub(old.rx_bytes),
                tx_packets: now.tx_packets.saturating_sub(old.tx_packets),
                tx_bytes: now.tx_bytes.saturating_sub(old.tx_bytes),
            };
            row.extend(amounts(gone, |number| number / seconds.max(1)));
        }
        table.row(row);
    }
    let mut text = table.text();
    text += &match stats.sessions {
        1 => "\n1 session on this host\n".to_owned(),
        sessions => format!("\n{} sessions on this host\n", count(sessions)),
    };
    let mut table = Table::new(&["metering label", "packets", "bytes"]);
    for label in &stats.metering_labels {
        let Metered {
            packets,
            bytes: size,
        } = label.metered;
        let id = label.metering_label_id.to_string();
        table.row([id, count(packets), bytes(size)]);
    }
    if !table.is_empty() {
        text += &format!("\n{}", table.text());
    }
    text += &drops(stats);
    let xdp = stats.underlay.xdp.iter().flat_map(XdpStats::rows);
    let mut table = Table::new(&["AF_XDP on the underlay", "packets", "meaning"]);
    for (name, packets, sentence) in xdp.filter(|(_, packets, _)| *packets > 0) {
        table.row([name.to_owned(), count(packets), sentence.to_owned()]);
    }
    if !table.is_empty() {
        text += &format!("\n{}", table.text());
    }
    let services = stats.services.rows().filter(|(_, number, _)| *number > 0);
    let mut table = Table::new(&["service", "count", "meaning"]);
    for (name, number, sentence) in services {
        table.row([name.to_owned(), count(number), sentence.to_owned()]);
    }
    if !table.is_empty() {
        text += &format!("\n{}", table.text());
    }
    text
}

fn amounts(traffic: Traffic, of: impl Fn(u64) -> u64) -> [String; 4] {
    [
        count(of(traffic.rx_packets)),
        bytes(of(traffic.rx_bytes)),
        count(of(traffic.tx_packets)),
        bytes(of(traffic.tx_bytes)),
    ]
}

/// Each port's and network's name, interface and traffic.
fn sides(stats: &Stats) -> impl Iterator<Item = (String, String, Traffic)> {
    let ports = stats
        .ports
        .iter()
        .map(|p| (p.port_id.to_string(), p.interface.clone(), p.traffic));
    let networks = stats
        .networks
        .iter()
        .map(|n| (n.network_id.to_string(), "uplink".to_owned(), n.traffic));
    ports.chain(networks)
}

/// The way to other hosts, if anything went there: what ports and networks have counted already, with outer headers.
fn tunnels(stats: &Stats) -> Option<(String, String, Traffic)> {
    let traffic = stats.underlay.traffic;
    (traffic != Traffic::default()).then(|| ("underlay".to_owned(), "tunnels".to_owned(), traffic))
}

fn drops(stats: &Stats) -> String {
    let mut table = Table::new(&["dropped from", "packets", "reason", "stage", "meaning"]);
    let ports = stats
        .ports
        .iter()
        .map(|port| (port.port_id.to_string(), &port.drops));
    let networks = stats
        .networks
        .iter()
        .map(|net| (net.network_id.to_string(), &net.drops));
    let tunnels = ("underlay".to_owned(), &stats.underlay.drops);
    for (name, drops) in ports.chain(networks).chain([tunnels]) {
        for DropCount {
            reason,
            stage,
            packets,
            sentence,
        } in drops.iter().filter(|d| d.packets > 0)
        {
            table.row([
                name.clone(),
                count(*packets),
                reason.name().to_owned(),
                stage.name().to_owned(),
                sentence.clone(),
            ]);
        }
    }
    if table.is_empty() {
        "\nnothing was dropped\n".to_owned()
    } else {
        format!("\n{}", table.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_agent::socket::{MeteringStats, PortStats};
    use weft_model::{DropReason, MeteringLabelId};

    fn stats(port: PortId, packets: u64) -> Stats {
        let traffic = Traffic {
            rx_packets: packets,
            rx_bytes: packets * 100,
            tx_packets: 1,
            tx_bytes: 60,
        };
        let reason = DropReason::SpoofedIp;
        let drops = vec![DropCount {
            reason,
            stage: reason.stage(),
            packets: 5,
            sentence: reason.sentence().to_owned(),
        }];
        let ports = vec![PortStats {
            port_id: port,
            interface: "tap0".to_owned(),
            traffic,
            drops: drops.clone(),
        }];
        Stats {
            ports,
            total: traffic,
            drops,
            sessions: 2,
            metering_labels: vec![MeteringStats {
                metering_label_id: MeteringLabelId::from(port.0),
                metered: Metered {
                    packets: 7,
                    bytes: 700,
                },
            }],
            ..Stats::default()
        }
    }

    #[test]
    fn counters_and_drops_are_shown_with_their_sentence() {
        let port = PortId::random();
        let text = text(&stats(port, 1_234), None);
        assert!(
            text.contains(&format!("{port}  tap0        1 234  ")),
            "{text}"
        );
        assert!(
            text.contains(&format!(
                "{port}        5  spoofed_ip  port_security  The source IP"
            )),
            "{text}"
        );
        assert!(text.contains(&format!("{port}        7  700 B")), "{text}");
        assert!(
            text.contains("\n2 sessions on this host\n") && !text.contains("pkt/s"),
            "{text}"
        );
        let mut nothing = Stats::default();
        nothing.underlay.xdp = Some(XdpStats {
            queues: 2,
            ..XdpStats::default()
        });
        let quiet = super::text(&nothing, None);
        assert!(
            quiet.contains("nothing was dropped") && !quiet.contains("AF_XDP"),
            "{quiet}"
        );
        nothing.underlay.xdp.as_mut().unwrap().fill_ring_empty = 1_234;
        let lost = super::text(&nothing, None);
        assert!(
            lost.contains("fill_ring_empty           1 234  So often no buffer"),
            "{lost}"
        );
    }

    #[test]
    fn rates_are_what_came_since() {
        let port = PortId::random();
        let text = text(&stats(port, 1_200), Some((&stats(port, 200), 2)));
        let line = text
            .lines()
            .find(|line| line.starts_with(&port.to_string()))
            .unwrap();
        let cells: Vec<&str> = line
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect();
        assert_eq!(cells[6..], ["500", "48 KiB", "0", "0 B"]);
    }

    #[test]
    fn one_port_is_singled_out_or_refused() {
        let port = PortId::random();
        assert_eq!(only(stats(port, 1), Some(port)).unwrap().ports.len(), 1);
        let refused = only(stats(port, 1), Some(PortId::random())).unwrap_err();
        assert!(refused.to_string().contains("is not on this host"));
    }
}
