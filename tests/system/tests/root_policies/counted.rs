//! What is counted and limited at a router's gateway and at floating IPs: metering labels, and QoS of addresses.

use crate::{
    Engine, OUTSIDE, both, dropped, external, floating_ip, gateway, group, id, open, settle,
};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;
use weft_kit::clock::{now, pause, until};
use weft_kit::ping::ping_with;
use weft_kit::{Guest, Namespace};
use weft_tests_system::hosts::Hosts;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Echo requests, and bytes of them behind the Ethernet header, by family.
const PINGS: u32 = 5;
const PING_BYTES: [u64; 2] = [128, 148];
/// Payload of a datagram, and of its frame's.
const PAYLOAD: usize = 1_200;
const FRAME: f64 = 1_242.0;
/// How long is sent, this many at once and then a pause: some 30 Mbit/s.
const SENDING: Duration = Duration::from_millis(800);
const AT_ONCE: usize = 5;
const PAUSE: Duration = Duration::from_millis(1);
pub(crate) const PORT: u16 = 5_001;

/// A label with rules: direction, what it holds for, and whether that is left out.
fn label(hosts: &mut Hosts, name: &str, rules: &[(&str, Value)]) -> Result<String> {
    let body = json!({ "name": name });
    let label = hosts.post("/v2.0/metering/metering-labels", "metering_label", &body)?;
    for (direction, more) in rules {
        let mut body = json!({ "metering_label_id": label["id"], "direction": direction });
        let rule = body.as_object_mut().context("an object")?;
        rule.extend(more.as_object().context("an object")?.clone());
        let path = "/v2.0/metering/metering-label-rules";
        hosts.post(path, "metering_label_rule", &body)?;
    }
    id(&label)
}

/// Packets and bytes that a label counted on all hosts.
fn metered(hosts: &Hosts, label: &str) -> Result<[u64; 2]> {
    let mut sum = [0, 0];
    for host in &hosts.hosts {
        let stats = host.site.ask("stats")?;
        let labels = stats["metering_labels"].as_array();
        let own = labels.into_iter().flatten();
        for label in own.filter(|one| one["metering_label_id"] == label) {
            for (sum, key) in sum.iter_mut().zip(["packets", "bytes"]) {
                *sum += label[key].as_u64().with_context(|| stats.to_string())?;
            }
        }
    }
    Ok(sum)
}

/// What labels count while these ping.
fn counted(
    hosts: &mut Hosts,
    labels: &[(&String, [u64; 2])],
    from: &Namespace,
    to: IpAddr,
) -> Result<()> {
    let read = |hosts: &Hosts| -> Result<Vec<[u64; 2]>> {
        labels.iter().map(|(id, _)| metered(hosts, id)).collect()
    };
    let before = read(hosts)?;
    let pinged = ping_with(from, to, PINGS, "-s 100")?;
    ensure!(pinged.all(), "{} to {to}: {pinged:?}", from.name());
    let after = read(hosts)?;
    for (((_, expected), before), after) in labels.iter().zip(before).zip(after) {
        let packets = after[0] - before[0];
        let bytes = after[1] - before[1];
        ensure!(
            [packets, bytes] == *expected,
            "{to}: {packets} packets, {bytes} bytes, not {expected:?}"
        );
    }
    Ok(())
}

fn labels_count(
    hosts: &mut Hosts,
    outside: &Namespace,
    guests: [&Guest; 2],
    floating: IpAddr,
) -> Result<()> {
    let [plain, served] = guests;
    let every = |direction: &str, range: &str| {
        let end = if direction == "egress" {
            "destination_ip_prefix"
        } else {
            "source_ip_prefix"
        };
        (
            if direction == "egress" {
                "egress"
            } else {
                "ingress"
            },
            json!({ end: range }),
        )
    };
    let all = [
        every("egress", "0.0.0.0/0"),
        every("ingress", "0.0.0.0/0"),
        every("egress", "::/0"),
        every("ingress", "::/0"),
    ];
    let all = label(hosts, "all", &all)?;
    let own = format!("{}/32", plain.port.v4()?);
    let one = label(
        hosts,
        "one",
        &[("egress", json!({ "source_ip_prefix": own }))],
    )?;
    let not = json!({ "destination_ip_prefix": "203.0.113.0/24", "excluded": true });
    let rules = [every("egress", "0.0.0.0/0"), ("egress", not)];
    let far = label(hosts, "far", &rules)?;
    let each = u64::from(PINGS);
    let of = |packets: u64, v6: bool| [packets, packets * PING_BYTES[usize::from(v6)]];
    let [v4, v6]: [IpAddr; 2] = [OUTSIDE[0].parse()?, OUTSIDE[1].parse()?];
    let none = [0, 0];
    let (all, one, far) = (&all, &one, &far);
    // By SNAT, by a floating IP from outside, and plainly; with the addresses inside.
    let expected = [
        (all, of(2 * each, false)),
        (one, of(each, false)),
        (far, none),
    ];
    counted(hosts, &expected, &plain.namespace, v4)?;
    let expected = [
        (all, of(2 * each, false)),
        (one, none),
        (far, of(each, false)),
    ];
    counted(hosts, &expected, &served.namespace, "198.18.0.1".parse()?)?;
    let expected = [(all, of(2 * each, false)), (one, none), (far, none)];
    counted(hosts, &expected, outside, floating)?;
    let expected = [(all, of(2 * each, true)), (one, none), (far, none)];
    counted(hosts, &expected, &plain.namespace, v6)?;
    // Between guests nothing passes the gateway.
    let expected = [(all, none), (one, none), (far, none)];
    counted(hosts, &expected, &plain.namespace, served.port.v4()?.into())?;
    // A label that goes takes its count along.
    hosts.delete(&format!("/v2.0/metering/metering-labels/{one}"))?;
    ensure!(metered(hosts, one)? == none);
    Ok(())
}

/// A policy with limits, in kbit/s or thousands of packets a second.
pub(crate) fn policy(hosts: &mut Hosts, name: &str, kbps: &[(&str, u64)]) -> Result<String> {
    let body = json!({ "name": name });
    let policy = id(&hosts.post("/v2.0/qos/policies", "policy", &body)?)?;
    for (direction, kbps) in kbps {
        let rule = json!({ "max_kbps": kbps, "max_burst_kbps": kbps / 20, "direction": direction });
        let path = format!("/v2.0/qos/policies/{policy}/bandwidth_limit_rules");
        hosts.post(&path, "bandwidth_limit_rule", &rule)?;
    }
    Ok(policy)
}

/// Sends datagrams, and gives what arrived in kbit/s of frames, and of datagrams a second.
pub(crate) fn flood(from: &UdpSocket, to: SocketAddr, at: &UdpSocket) -> Result<[f64; 2]> {
    at.set_nonblocking(true)?;
    let mut bytes = [0; 2_048];
    let mut take = || -> Result<u32> {
        let mut came = 0;
        loop {
            match at.recv(&mut bytes) {
                Ok(_) => came += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(came),
                Err(error) => return Err(error.into()),
            }
        }
    };
    // What is left of before.
    take()?;
    let (start, mut came) = (now(), 0);
    while start.elapsed() < SENDING {
        for _ in 0..AT_ONCE {
            from.send_to(&[7; PAYLOAD], to)?;
        }
        pause(PAUSE);
        came += take()?;
    }
    let second = start.elapsed().as_secs_f64();
    let rate = f64::from(came) / second;
    Ok([rate * FRAME * 8.0 / 1_000.0, rate])
}

/// Within what a busy machine may lose, and a burst more.
pub(crate) fn about(what: &str, got: f64, limit: f64) -> Result<()> {
    eprintln!("{what}: {got:.0} of {limit:.0}");
    ensure!(
        got > limit * 0.6 && got < limit * 1.25,
        "{what}: {got:.0}, not {limit:.0}"
    );
    Ok(())
}

fn addresses_are_limited(
    hosts: &mut Hosts,
    outside: &Namespace,
    guests: [&Guest; 2],
    floating: (String, IpAddr),
) -> Result<()> {
    let [plain, served] = guests;
    let (floating_id, floating) = floating;
    let any: IpAddr = "0.0.0.0".parse()?;
    let there = outside.udp(any, PORT)?;
    let inside = served.namespace.udp(any, PORT)?;
    let to: SocketAddr = (OUTSIDE[0].parse::<IpAddr>()?, PORT).into();
    let back: SocketAddr = (floating, PORT).into();
    let path = format!("/v2.0/floatingips/{floating_id}");
    let free = flood(&inside, to, &there)?;
    eprintln!("without a limit: {:.0} kbit/s", free[0]);
    ensure!(free[0] > 12_000.0, "the sender is too slow: {free:?}");

    let first = policy(hosts, "first", &[("egress", 6_000), ("ingress", 3_000)])?;
    hosts.put(&path, "floatingip", &json!({ "qos_policy_id": first }))?;
    let refused = dropped(hosts, "qos_rate_limit", |_| {
        about(
            "from a floating IP",
            flood(&inside, to, &there)?[0],
            6_000.0,
        )?;
        about(
            "to a floating IP",
            flood(&there, back, &inside)?[0],
            3_000.0,
        )
    })?;
    ensure!(refused > 100, "{refused} dropped");

    // Changed at run time: packets in place of bytes.
    let rules =
        hosts.openstack_get(&format!("/v2.0/qos/policies/{first}/bandwidth_limit_rules"))?;
    for rule in rules["bandwidth_limit_rules"]
        .as_array()
        .into_iter()
        .flatten()
    {
        hosts.delete(&format!(
            "/v2.0/qos/policies/{first}/bandwidth_limit_rules/{}",
            id(rule)?
        ))?;
    }
    let rule = json!({ "max_kpps": 1, "max_burst_kpps": 1, "direction": "egress" });
    let packets = format!("/v2.0/qos/policies/{first}/packet_rate_limit_rules");
    hosts.post(&packets, "packet_rate_limit_rule", &rule)?;
    let [_, rate] = flood(&inside, to, &there)?;
    // A burst of a thousand packets is passed at once.
    eprintln!("packets from a floating IP: {rate:.0} a second");
    ensure!(
        rate < 1_000.0 * (1.0 + 1.25 / SENDING.as_secs_f64()),
        "{rate:.0} packets a second"
    );
    let [freed, _] = flood(&there, back, &inside)?;
    ensure!(freed > 12_000.0, "no limit that way: {freed:.0} kbit/s");
    hosts.put(&path, "floatingip", &json!({ "qos_policy_id": null }))?;

    // The gateway's, for what SNAT translates; a floating IP is not under it.
    let second = policy(hosts, "second", &[("egress", 4_000), ("ingress", 2_000)])?;
    let network = id(&hosts.openstack("network show ext")?)?;
    let router = id(&hosts.openstack("router show r1")?)?;
    let info =
        json!({ "external_gateway_info": { "network_id": network, "qos_policy_id": second } });
    hosts.put(&format!("/v2.0/routers/{router}"), "router", &info)?;
    let behind = plain.namespace.udp(any, PORT)?;
    behind.send_to(b"x", to)?;
    let mut asker = None;
    until("the gateway's port", TIMEOUT, || {
        match there.recv_from(&mut [0; 2_048]) {
            Ok((1, from)) => asker = Some(from),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(asker)
    })?;
    let asker = asker.context("it came")?;
    ensure!(asker.ip() == gateway(hosts)?[0], "{asker}");
    about("from a gateway", flood(&behind, to, &there)?[0], 4_000.0)?;
    about("to a gateway", flood(&there, asker, &behind)?[0], 2_000.0)?;
    let [freed, _] = flood(&inside, to, &there)?;
    ensure!(
        freed > 12_000.0,
        "a floating IP is not the gateway's: {freed:.0} kbit/s"
    );
    Ok(())
}

fn counts_and_limits(name: &str, engine: Engine) -> Result<()> {
    let (mut hosts, outside) = open(name, engine)?;
    outside.run("ip address add 198.18.0.1/32 dev lo")?;
    hosts.network("net", "192.0.2.0/24", "fd00:2::/64", "")?;
    external(&mut hosts, [None, None])?;
    for subnet in ["net-v4", "net-v6"] {
        hosts.openstack(&format!("router add subnet r1 {subnet}"))?;
    }
    group(&mut hosts, "web", &["icmp", "udp"])?;
    let plain = hosts.guest(0, "net", "plain", "--security-group web")?;
    let served = hosts.guest(1, "net", "served", "--security-group web")?;
    let gateway_v6 = gateway(&mut hosts)?[1];
    outside.run(&format!("ip -6 route add fd00:2::/64 via {gateway_v6}"))?;
    let floating = floating_ip(&mut hosts, &served)?;
    settle(&outside, floating.1)?;
    for to in OUTSIDE {
        settle(&plain.namespace, to.parse()?)?;
    }
    for to in both(&served)? {
        settle(&plain.namespace, to)?;
    }
    let guests = [&plain, &served];
    labels_count(&mut hosts, &outside, guests, floating.1)?;
    addresses_are_limited(&mut hosts, &outside, guests, floating)?;
    hosts.close()
}

#[test]
fn labels_count_and_addresses_are_limited() -> Result<()> {
    counts_and_limits("weft-counted", Engine::Kernel)
}

#[test]
fn labels_count_and_addresses_are_limited_for_vhost_user_guests() -> Result<()> {
    counts_and_limits("weft-countedu", Engine::User)
}
