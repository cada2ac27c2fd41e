//! `weft status` for people.

use super::plural;
use crate::table::Table;
use weft_agent::socket::Status;
use weft_model::PortStatus;

pub(super) fn text(status: &Status) -> String {
    let mut text = format!(
        "host {}, instance {}, engine {}, weft {}, up {}\n",
        status.host,
        status.instance,
        status.engine,
        status.version,
        duration(status.uptime_s)
    );
    let feed = &status.feed;
    text += &match (&feed.url, feed.connected, &feed.error) {
        (None, _, _) => "feed: none, it runs from a file\n".to_owned(),
        (Some(url), true, _) => format!("feed: connected to {url}\n"),
        (Some(url), false, Some(error)) => format!("feed: NOT connected to {url}: {error}\n"),
        (Some(url), false, None) => format!("feed: not yet connected to {url}\n"),
    };
    text += &match (status.revision, status.revision_received) {
        (None, None) => "revision: none yet\n".to_owned(),
        (Some(have), Some(newest)) if have == newest => format!("revision: {have}, in force\n"),
        (Some(have), Some(newest)) => format!("revision: {have} in force, {newest} received\n"),
        (None, Some(newest)) => format!("revision: none in force, {newest} received\n"),
        (Some(have), None) => format!("revision: {have} in force, none received yet\n"),
    };
    if let Some((revision, why)) = &status.refused {
        text += &format!("REFUSED revision {revision}: {why}\n");
    }
    if let Some(underlay) = &status.underlay {
        let state = match underlay.attached {
            true => "",
            false => ", which is MISSING: nothing reaches other hosts",
        };
        text += &format!("tunnels: by {}{state}\n", underlay.interface);
    }
    text += &ports(status);
    let mut networks = Table::new(&["physical network", "interface", "state"]);
    for network in &status.physical_networks {
        let state = if network.attached {
            "attached"
        } else {
            "interface is missing"
        };
        networks.row([
            network.name.clone(),
            network.interface.clone(),
            state.to_owned(),
        ]);
    }
    let mut neighbours = Table::new(&["neighbour", "MAC address", "network"]);
    for neighbour in &status.neighbours {
        neighbours.row([
            neighbour.ip_address.to_string(),
            neighbour.mac_address.to_string(),
            neighbour.network_id.to_string(),
        ]);
    }
    for table in [networks, neighbours] {
        if !table.is_empty() {
            text += &format!("\n{}", table.text());
        }
    }
    for unsupported in &status.unsupported {
        text += &format!(
            "\nnot enforced: {}: {}\n",
            unsupported.path, unsupported.message
        );
    }
    text
}

fn ports(status: &Status) -> String {
    if status.ports.is_empty() {
        return "ports: none\n".to_owned();
    }
    let active = status
        .ports
        .iter()
        .filter(|port| port.status == PortStatus::Active)
        .count();
    let mut table = Table::new(&["port", "interface", "status", "MAC address", "addresses"]);
    for port in &status.ports {
        let state = match port.status {
            PortStatus::Active => "ACTIVE".to_owned(),
            PortStatus::Down => format!("DOWN: {}", port.reason),
            PortStatus::Error => format!("ERROR: {}", port.reason),
        };
        let addresses: Vec<String> = port.fixed_ips.iter().map(ToString::to_string).collect();
        table.row([
            port.port_id.to_string(),
            port.interface.clone(),
            state,
            port.mac_address.to_string(),
            addresses.join(" "),
        ]);
    }
    format!(
        "{}, {active} ACTIVE\n\n{}",
        plural(status.ports.len(), "port"),
        table.text()
    )
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_agent::socket::{FeedState, PhysicalNetworkState, PortState, UnderlayState};
    use weft_model::{PortId, Revision, Unsupported};

    fn status() -> Status {
        Status {
            host: "h1".parse().unwrap(),
            version: "0.1.0".to_owned(),
            instance: "weft".to_owned(),
            engine: "ebpf".to_owned(),
            uptime_s: 61,
            epoch: None,
            revision: None,
            revision_received: None,
            refused: None,
            feed: FeedState::default(),
            ports: Vec::new(),
            physical_networks: Vec::new(),
            underlay: None,
            unsupported: Vec::new(),
            neighbours: Vec::new(),
        }
    }

    #[test]
    fn an_idle_agent_says_so() {
        let text = text(&status());
        assert_eq!(
            text,
            "host h1, instance weft, engine ebpf, weft 0.1.0, up 1 min 1 s\n\
             feed: none, it runs from a file\nrevision: none yet\nports: none\n"
        );
    }

    #[test]
    fn what_is_wrong_stands_out() {
        let port = PortState {
            port_id: PortId::random(),
            network_id: weft_model::NetworkId::random(),
            interface: "tap0".to_owned(),
            vhost_user: None,
            mac_address: "fa:16:3e:00:00:01".parse().unwrap(),
            fixed_ips: vec!["192.0.2.5".parse().unwrap()],
            status: PortStatus::Down,
            reason: "no such interface".to_owned(),
        };
        let url = Some("http://127.0.0.1:9697".to_owned());
        let text = text(&Status {
            feed: FeedState {
                url,
                connected: false,
                error: Some("refused".to_owned()),
            },
            revision: Some(Revision(3)),
            revision_received: Some(Revision(4)),
            refused: Some((Revision(4), "no room".to_owned())),
            ports: vec![port],
            physical_networks: vec![PhysicalNetworkState {
                name: "provider".to_owned(),
                interface: "eth9".to_owned(),
                attached: false,
            }],
            underlay: Some(UnderlayState {
                interface: "eth8".to_owned(),
                attached: false,
            }),
            unsupported: vec![Unsupported {
                path: "qos".to_owned(),
                message: "no".to_owned(),
            }],
            ..status()
        });
        for words in [
            "NOT connected to http://127.0.0.1:9697: refused",
            "revision: 3 in force, 4 received",
            "REFUSED revision 4: no room",
            "1 port, 0 ACTIVE",
            "DOWN: no such interface",
            "interface is missing",
            "tunnels: by eth8, which is MISSING",
            "not enforced: qos: no",
        ] {
            assert!(text.contains(words), "{words:?} is not in {text}");
        }
    }

    #[test]
    fn durations_have_two_units() {
        assert_eq!(
            [59, 3_599, 86_399, 90_000].map(duration).join(", "),
            "59 s, 59 min 59 s, 23 h 59 min, 1 d 1 h"
        );
    }
}
