//! Random snapshots, in words: a few networks, ports, routers, floating IPs, groups and rules that overlap in nasty ways,
//! and random changes of them.

use crate::chance::Chance;
use toml::{Table, Value};

/// Physical networks that snapshots speak of.
pub const PHYSICAL_NETWORKS: &[&str] = &["provider1", "provider2"];

/// Names of project networks.
const NETWORKS: &[&str] = &["blue", "green", "red"];
const PORTS: &[&str] = &["a", "b", "c", "d", "e", "f"];
const GROUPS: &[&str] = &["g1", "g2", "g3"];
const ROLES: &[&str] = &["promiscuous", "isolated", "isolated", "one", "two"];
const QOS: &[&str] = &["slow", "marked"];
const METERS: &[&str] = &["m1", "m2", "m3"];
const OTHERS: &[&str] = &["elsewhere", "third"];
const MTUS: &[i64] = &[1280, 1300, 1400, 1450, 1500];

fn text(value: impl Into<String>) -> Value {
    Value::String(value.into())
}

fn list(values: impl IntoIterator<Item = String>) -> Value {
    Value::Array(values.into_iter().map(Value::String).collect())
}

fn table(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Table {
    entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// The /24 of the network with this number; some overlap.
fn prefix4(chance: &mut Chance, number: usize) -> String {
    let third = if chance.percent(10) { 2 } else { 2 + number };
    format!("192.0.{third}")
}

/// A network with its prefixes.
type Place = (&'static str, String, String);

/// A random snapshot. Not always a valid one: callers ask `expand`, and try again.
#[must_use]
pub fn snapshot(chance: &mut Chance) -> Table {
    let mut all = Table::new();
    let mut put = |key: &str, entries: Table| all.insert(key.to_owned(), Value::Table(entries));
    let (places, networks, subnets) = places(chance);
    let shared = is_shared(&networks);
    put("networks", networks);
    put("subnets", subnets);
    let count = 2 + chance.below(5);
    let ports: Table = (11..)
        .zip(PORTS)
        .take(count)
        .map(|(number, name)| {
            (
                (*name).to_owned(),
                Value::Table(port(chance, &places, number)),
            )
        })
        .collect();
    let ports = trunked(chance, ports);
    let mut remote = Table::new();
    for (name, last) in [("remote", 40), ("yonder", 41), ("there", 42)] {
        if chance.percent(60)
            && let Some((network, v4, v6)) = chance.one(&places)
        {
            let ips = list([format!("{v4}.{last}"), format!("{v6}:{last}")]);
            let mut port = table([
                ("network", text(*network)),
                ("ips", ips),
                ("host", text(chance.word(OTHERS))),
            ]);
            if chance.percent(20) {
                port.insert("claims".into(), claims(chance, v4, v6));
            }
            remote.insert(name.into(), Value::Table(port));
        }
    }
    put("remote_ports", remote);
    put("meters", meters(chance));
    let logs = [("l1", "ACCEPT"), ("l2", "DROP"), ("l3", "ALL")];
    put("logs", table(logs.map(|(name, event)| (name, text(event)))));
    put("hosts", hosts(chance));
    let routers: Table = (1..=chance.below(4))
        .map(|n| (format!("r{n}"), Value::Table(router(chance, &places, n))))
        .collect();
    put(
        "floating_ips",
        floating_ips(chance, &ports, &routers, shared),
    );
    put("local_ips", local_ips(chance, &ports));
    put("ports", ports);
    put("routers", routers);
    put("rules", rules(chance));
    put(
        "groups",
        GROUPS
            .iter()
            .map(|g| ((*g).to_owned(), list(ranges(chance))))
            .collect(),
    );
    let policies = QOS
        .iter()
        .map(|name| ((*name).to_owned(), Value::Table(qos(chance))));
    put("qos", policies.collect());
    put("address_groups", table([("ag", list(ranges(chance)))]));
    let stations = [("gw", "02:00:00:00:00:01"), ("host", "02:00:00:00:00:99")];
    put("macs", table(stations.map(|(name, mac)| (name, text(mac)))));
    all.insert("stateless".to_owned(), stateless(chance));
    all
}

/// Groups that keep no state: often none, now and then all.
fn stateless(chance: &mut Chance) -> Value {
    let percent = *chance.one(&[0, 0, 40, 100]).unwrap_or(&0);
    let groups = GROUPS.iter().filter(|_| chance.percent(percent));
    list(groups.map(|g| (*g).to_owned()).collect::<Vec<_>>())
}

/// Addresses in the underlay, mostly of one family; now and then this host has none.
fn hosts(chance: &mut Chance) -> Table {
    let v6 = chance.percent(25);
    let address = |chance: &mut Chance, number: usize| {
        if v6 != chance.percent(5) {
            text(format!("fd00:55::{number}"))
        } else {
            text(format!("198.51.100.{number}"))
        }
    };
    let mut hosts = Table::new();
    for (name, number) in [("host", 1), ("elsewhere", 2), ("third", 3)] {
        let address = address(chance, number);
        if name != "host" || chance.percent(92) {
            hosts.insert(name.to_owned(), address);
        }
    }
    hosts
}

/// Project networks and physical ones, and their subnets.
fn places(chance: &mut Chance) -> (Vec<Place>, Table, Table) {
    let (mut places, mut networks, mut subnets) = (Vec::new(), Table::new(), Table::new());
    let count = 1 + chance.below(3);
    for (number, name) in NETWORKS.iter().enumerate().take(count) {
        let mtu = Value::Integer(*chance.one(MTUS).unwrap_or(&1500));
        let local = Value::Boolean(chance.percent(8));
        let geneve = Value::Boolean(chance.percent(30));
        let gre = Value::Boolean(chance.percent(25));
        let network = table([
            ("mtu", mtu),
            ("local", local),
            ("geneve", geneve),
            ("gre", gre),
            ("transparent", Value::Boolean(chance.percent(50))),
        ]);
        networks.insert((*name).into(), Value::Table(network));
        places.push((
            *name,
            prefix4(chance, number),
            format!("fd00:{}:", number + 1),
        ));
    }
    for (number, name) in ["ext", "far"].into_iter().enumerate() {
        if chance.percent(if number == 0 { 85 } else { 20 }) {
            // Several on one wire, and now and then two with one tag.
            let wire = if chance.percent(60) { 0 } else { number };
            let mut physical = table([
                ("physical", text(PHYSICAL_NETWORKS[wire])),
                ("transparent", Value::Boolean(chance.percent(50))),
            ]);
            if chance.percent(45) {
                let vlan = *chance.one(&[101, 102, 4094]).unwrap_or(&1);
                physical.insert("vlan".into(), Value::Integer(vlan));
            }
            if number == 0 && chance.percent(50) {
                physical.insert("transit".into(), Value::Integer(900));
                physical.insert("uplink".into(), Value::Boolean(chance.percent(70)));
                let mtu = *chance.one(&[1300, 1500]).unwrap_or(&1500);
                physical.insert("transit_mtu".into(), Value::Integer(mtu));
            }
            networks.insert(name.into(), Value::Table(physical));
            places.push((
                name,
                format!("203.0.11{number}"),
                format!("2001:db8:{number}:"),
            ));
        }
    }
    let scoped = chance.percent(30);
    for (name, v4, v6) in &places {
        for (prefix, is_ipv6) in [(v4, false), (v6, true)] {
            let mut subnet = subnet(chance, name, prefix, is_ipv6);
            if scoped && chance.percent(80) {
                subnet.insert("scope".into(), text(chance.word(&["s1", "s1", "s2"])));
            }
            let family = if is_ipv6 { 6 } else { 4 };
            subnets.insert(format!("{name}{family}"), Value::Table(subnet));
        }
    }
    (places, networks, subnets)
}

/// Metering labels, with ranges that hold each other.
fn meters(chance: &mut Chance) -> Table {
    let ranges = [
        "192.0.0.0/8",
        "192.0.2.0/24",
        "203.0.113.0/24",
        "9.9.9.9/32",
        "0.0.0.0/0",
        "fd00::/8",
        "2001:db8:99::/48",
    ];
    let mut rule = || {
        let mut rule = chance.word(&["ingress", "egress"]).to_owned();
        for side in ["from", "to"] {
            if chance.percent(40) {
                rule += &format!(" {side} {}", chance.word(&ranges));
            }
        }
        if chance.percent(15) {
            rule += " not";
        }
        rule
    };
    let label = |name: &&str| {
        let rules: Vec<String> = (0..4).map(|_| rule()).collect();
        ((*name).to_owned(), list(rules))
    };
    METERS.iter().map(label).collect()
}

fn subnet(chance: &mut Chance, network: &str, prefix: &str, v6: bool) -> Table {
    let (cidr, gateway) = if v6 {
        (format!("{prefix}:/64"), format!("{prefix}:1"))
    } else {
        (format!("{prefix}.0/24"), format!("{prefix}.1"))
    };
    let mut subnet = table([
        ("network", text(network)),
        ("cidr", text(cidr)),
        ("dhcp", Value::Boolean(chance.percent(50))),
    ]);
    if chance.percent(90) {
        subnet.insert("gateway".into(), text(gateway));
    }
    if v6 && chance.percent(50) {
        let modes = ["slaac", "dhcpv6-stateful", "dhcpv6-stateless"];
        subnet.insert("ra".into(), text(chance.word(&modes)));
        subnet.insert("address_mode".into(), text(chance.word(&modes)));
    }
    subnet
}

fn port(chance: &mut Chance, places: &[Place], number: usize) -> Table {
    let Some((network, v4, v6)) = chance.one(places) else {
        return Table::new();
    };
    let mut ips = vec![format!("{v4}.{number}"), format!("{v6}:{number}")];
    if chance.percent(15) {
        ips.push(format!("{v4}.{}", 100 + number));
    }
    ips.retain(|_| chance.percent(95));
    let groups: Vec<String> = GROUPS
        .iter()
        .filter(|_| chance.percent(50))
        .map(|g| (*g).to_owned())
        .collect();
    let mut port = table([
        ("network", text(*network)),
        ("ips", list(ips)),
        ("groups", list(groups)),
        ("port_security", Value::Boolean(chance.percent(80))),
        ("up", Value::Boolean(chance.percent(95))),
    ]);
    if chance.percent(20) {
        let pair = [
            "10.1.0.0/16",
            "02:00:00:00:00:aa 10.2.0.0/16",
            "fd00:aa::/32",
            "0.0.0.0/0",
        ];
        port.insert("pairs".into(), list([chance.word(&pair).to_owned()]));
    }
    if chance.percent(10) {
        port.insert("claims".into(), claims(chance, v4, v6));
    }
    if chance.percent(25) {
        port.insert("qos".into(), text(chance.word(QOS)));
    }
    if chance.percent(30) {
        port.insert(
            "logs".into(),
            list([chance.word(&["l1", "l2", "l3"]).to_owned()]),
        );
    }
    if chance.percent(25) {
        port.insert("pvlan".into(), text(chance.word(ROLES)));
    }
    port
}

/// Addresses of nobody, of ports here and of ports elsewhere, that lead to some ports here, on one network or several.
fn local_ips(chance: &mut Chance, ports: &Table) -> Table {
    let mut all = Table::new();
    if chance.percent(50) {
        return all;
    }
    for name in ["k1", "k2", "k3"] {
        if let Some(one) = local_ip(chance, ports) {
            all.insert(name.to_owned(), text(one));
        }
    }
    all
}

fn local_ip(chance: &mut Chance, ports: &Table) -> Option<String> {
    let address = |port: &Value| {
        let ips = port.get("ips")?.as_array()?;
        let mut ips = ips.iter().filter_map(Value::as_str);
        ips.find(|ip| !ip.contains(':')).map(str::to_owned)
    };
    let behind = ports
        .iter()
        .filter_map(|(name, port)| Some((name, address(port)?)));
    let behind: Vec<_> = behind.collect();
    let (_, near) = chance.one(&behind)?;
    let (prefix, _) = near.rsplit_once('.')?;
    let last = chance.word(&["11", "12", "13", "40", "60", "1"]);
    let mode = chance.word(&["translate", "translate", "passthrough"]);
    let network = ports
        .values()
        .find_map(|port| port.get("network")?.as_str())?;
    let mut words = format!("{prefix}.{last} {mode} {network}");
    for _ in 0..1 + chance.below(2) {
        let (name, fixed) = chance.one(&behind)?;
        words += &format!(" {name}/{fixed}");
    }
    Some(words)
}

/// Some ports become subports of the first one.
fn trunked(chance: &mut Chance, mut ports: Table) -> Table {
    let first = ports.keys().next().cloned().unwrap_or_default();
    if !chance.percent(40) {
        return ports;
    }
    for (number, (name, port)) in (101..).zip(&mut ports) {
        if let Some(port) = port.as_table_mut()
            && *name != first
            && chance.percent(40)
        {
            port.insert("parent".into(), text(first.clone()));
            port.insert("vlan".into(), Value::Integer(number));
        }
    }
    ports
}

/// Addresses that a guest says it has: its own, others', or nobody's.
fn claims(chance: &mut Chance, v4: &str, v6: &str) -> Value {
    let mut claims: Vec<String> = Vec::new();
    for number in [11, 12, 13, 40, 60] {
        if chance.percent(40) {
            claims.push(format!("{v4}.{number}"));
            claims.push(format!("{v6}:{number}"));
        }
    }
    list(claims)
}

/// A policy whose limits are reached within a few frames, or nearly never.
fn qos(chance: &mut Chance) -> Table {
    let mut policy = Table::new();
    for (key, rates) in [
        ("egress_kbps", [2, 8]),
        ("ingress_kbps", [2, 8]),
        ("egress_kpps", [1, 1_000]),
        ("ingress_kpps", [1, 1_000]),
    ] {
        if chance.percent(50) {
            let rate = *chance.one(&rates).unwrap_or(&1);
            let burst = *chance.one(&[0, 1, rate]).unwrap_or(&0);
            let limit = [rate, burst].map(Value::Integer);
            policy.insert(key.into(), Value::Array(limit.to_vec()));
        }
    }
    if chance.percent(50) {
        let mark = *chance.one(&[0, 10, 46, 56]).unwrap_or(&0);
        policy.insert("dscp".into(), Value::Integer(mark));
    }
    policy
}

fn router(chance: &mut Chance, places: &[Place], number: usize) -> Table {
    let mut interfaces = Table::new();
    for (network, v4, v6) in places {
        let wanted = if network.len() == 3 && *network != "red" {
            5
        } else {
            65
        };
        if chance.percent(wanted) {
            let last = if chance.percent(80) && number == 1 {
                1
            } else {
                200 + number
            };
            let mut ips = vec![format!("{v4}.{last}"), format!("{v6}:{last}")];
            ips.retain(|_| chance.percent(95));
            interfaces.insert((*network).into(), list(ips));
        }
    }
    let mut router = table([
        ("up", Value::Boolean(chance.percent(93))),
        ("interfaces", Value::Table(interfaces)),
    ]);
    let outside = places.iter().find(|(network, ..)| *network == "ext");
    if let Some((network, v4, v6)) = outside.filter(|_| chance.percent(85)) {
        let last = 9 + number;
        let mut gateway = table([
            ("network", text(*network)),
            (
                "ips",
                list([format!("{v4}.{last}"), format!("{v6}:{last}")]),
            ),
            ("snat", Value::Boolean(chance.percent(70))),
        ]);
        if chance.percent(30) {
            gateway.insert("qos".into(), text(chance.word(QOS)));
        }
        if chance.percent(50) {
            gateway.insert("ports".into(), block(chance));
        } else {
            share(chance, &mut gateway);
        }
        router.insert("gateway".into(), Value::Table(gateway));
        if chance.percent(25) {
            let mut proxies = vec!["2001:db8:99::9".to_owned()];
            for (_, _, prefix) in places {
                proxies.extend((11..=15).map(|last| format!("{prefix}:{last}")));
            }
            proxies.retain(|_| chance.percent(50));
            router.insert("ndp_proxies".into(), list(proxies));
        }
        if chance.percent(40) {
            router.insert(
                "meters".into(),
                list(METERS.iter().map(|m| (*m).to_owned())),
            );
        }
    }
    if chance.percent(50) {
        let mut routes: Vec<String> = (0..1 + chance.below(3)).map(|_| route(chance)).collect();
        if let (Some((_, near, _)), Some((_, other, _))) = (chance.one(places), chance.one(places))
        {
            // The shorter prefix first: only its length may decide.
            routes.push(format!("10.0.0.0/8 via {near}.11"));
            routes.push(format!("10.1.0.0/16 via {other}.12"));
        }
        router.insert("routes".into(), list(routes));
    }
    router
}

/// Ports of this host and of others, and the host that answers.
fn share(chance: &mut Chance, gateway: &mut Table) {
    let pair = |(first, last)| Value::Array(vec![Value::Integer(first), Value::Integer(last)]);
    let own = [(32_768, 40_959), (40_000, 40_003), (1000, 1000), (0, 0)];
    let own = *chance.one(&own).unwrap_or(&(0, 0));
    gateway.insert("ports".into(), pair(own));
    let mut others = Table::new();
    for (host, block) in [("elsewhere", (49_152, 57_343)), ("third", (8_192, 8_255))] {
        if chance.percent(75) {
            others.insert(host.into(), pair(block));
        }
    }
    gateway.insert("elsewhere".into(), Value::Table(others));
    if chance.percent(50) {
        gateway.insert("host".into(), text(chance.word(OTHERS)));
    }
}

fn block(chance: &mut Chance) -> Value {
    let (first, last) = *chance
        .one(&[
            (32_768, 65_535),
            (40_000, 40_003),
            (1, 65_535),
            (1000, 1000),
        ])
        .unwrap_or(&(1, 1));
    Value::Array(vec![Value::Integer(first), Value::Integer(last)])
}

fn route(chance: &mut Chance) -> String {
    let to4 = [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "0.0.0.0/0",
        "192.0.3.0/25",
        "203.0.110.0/24",
    ];
    let by4 = ["192.0.2.11", "192.0.3.12", "203.0.110.1", "172.16.0.1"];
    let to6 = ["fd00:aaaa::/32", "::/0", "fd00:2::/96"];
    let by6 = ["fd00:1::11", "fd00:2::12", "2001:db8:0::1"];
    if chance.percent(60) {
        format!("{} via {}", chance.word(&to4), chance.word(&by4))
    } else {
        format!("{} via {}", chance.word(&to6), chance.word(&by6))
    }
}

/// Whether hosts share the external network.
fn is_shared(networks: &Table) -> bool {
    networks
        .get("ext")
        .and_then(|ext| ext.get("transit"))
        .is_some()
}

fn floating_ips(chance: &mut Chance, ports: &Table, routers: &Table, shared: bool) -> Table {
    let mut floating = Table::new();
    let with_gateway: Vec<&String> = routers
        .iter()
        .filter(|(_, r)| r.get("gateway").is_some())
        .map(|(name, _)| name)
        .collect();
    for (number, (name, port)) in ports.iter().enumerate() {
        let ips = port
            .get("ips")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let fixed = ips
            .iter()
            .filter_map(Value::as_str)
            .find(|ip| !ip.contains(':'));
        if let (Some(router), Some(fixed)) = (chance.one(&with_gateway), fixed)
            && chance.percent(45)
        {
            let mut one = floating_ip(number, router, name, fixed);
            if chance.percent(40) {
                one.insert("qos".into(), text(chance.word(QOS)));
            }
            floating.insert(format!("f{name}"), Value::Table(one));
        }
    }
    if let Some(router) = chance.one(&with_gateway)
        && chance.percent(60)
    {
        let forwarded = forwarded_ip(chance, router, ports, shared);
        floating.extend(forwarded.map(|one| ("fwd".to_owned(), Value::Table(one))));
    }
    if let Some(router) = chance.one(&with_gateway)
        && chance.percent(40)
    {
        let elsewhere = table([
            ("address", text("203.0.110.90")),
            ("router", text(*router)),
            ("host", text(chance.word(OTHERS))),
        ]);
        floating.insert("felsewhere".into(), Value::Table(elsewhere));
    }
    floating
}

fn floating_ip(number: usize, router: &str, port: &str, fixed: &str) -> Table {
    table([
        ("address", text(format!("203.0.110.{}", 50 + number))),
        ("router", text(router)),
        ("port", text(port)),
        ("fixed", text(fixed)),
    ])
}

/// One whose ports lead to ports here, and now and then to other hosts.
fn forwarded_ip(chance: &mut Chance, router: &str, ports: &Table, shared: bool) -> Option<Table> {
    let behind = ports.iter().filter_map(|(name, port)| {
        let ips = port.get("ips")?.as_array()?;
        let mut ips = ips.iter().filter_map(Value::as_str);
        Some((name, ips.find(|ip| !ip.contains(':'))?))
    });
    let behind: Vec<_> = behind.collect();
    let all = [
        ("tcp 22", "22"),
        ("tcp 79-81", "80"),
        ("tcp 1000-1010", "13-23"),
        ("udp 53", "1000"),
        ("udp 1000-1001", "53-54"),
        ("sctp 22", "22"),
        ("sctp 80", "22"),
        ("dccp 1-65535", "22"),
        ("icmp 1-65535", "7"),
    ];
    let mut forward = Vec::new();
    for (external, internal) in all {
        let (port, address) = chance.one(&behind)?;
        match chance.below(10) {
            0..=5 => forward.push(format!("{external} to {port} {address} {internal}")),
            6 | 7 if shared => forward.push(format!("{external} at {}", chance.word(OTHERS))),
            _ => {}
        }
    }
    let mut one = table([
        ("address", text("203.0.110.70")),
        ("router", text(router)),
        ("forward", list(forward)),
    ]);
    if chance.percent(40) {
        one.insert("qos".into(), text(chance.word(QOS)));
    }
    Some(one)
}

fn ranges(chance: &mut Chance) -> Vec<String> {
    let all = [
        "192.0.2.0/25",
        "192.0.2.11/32",
        "192.0.2.8/29",
        "192.0.3.0/24",
        "203.0.110.0/28",
        "203.0.110.10/31",
        "fd00:1::/64",
        "fd00:2::12/128",
        "fd00::/16",
        "9.0.0.0/8",
        "2001:db8::/32",
        "0.0.0.0/1",
    ];
    all.iter()
        .filter(|_| chance.percent(20))
        .map(|range| (*range).to_owned())
        .collect()
}

/// Rules that let enough through for the rest of the pipeline to be met, and random ones.
fn rules(chance: &mut Chance) -> Table {
    let mut rules = Table::new();
    for group in GROUPS {
        for family in ["v4", "v6"] {
            if chance.percent(65) {
                rules.insert(
                    format!("out-{group}-{family}"),
                    text(format!("{group} egress {family} any")),
                );
            }
        }
        let from = [
            "203.0.110.0/26",
            "192.0.2.0/24",
            "192.0.2.0/28",
            "group:g1",
            "9.0.0.0/8",
            "0.0.0.0/0",
        ];
        if chance.percent(50) {
            let ping = chance.word(&["v4 icmp 8/0", "v6 icmpv6 128/0", "v4 icmp 8"]);
            rules.insert(
                format!("ping-{group}"),
                text(format!("{group} ingress {ping}")),
            );
        }
        if chance.percent(60) {
            let rule = format!("{group} ingress v4 any from {}", chance.word(&from));
            rules.insert(format!("in-{group}"), text(rule));
        }
    }
    for n in 0..2 + chance.below(8) {
        rules.insert(format!("r{n:02}"), text(rule(chance)));
    }
    rules
}

/// A random rule.
pub fn rule(chance: &mut Chance) -> String {
    let v6 = chance.percent(40);
    let direction = if chance.percent(40) {
        "egress"
    } else {
        "ingress"
    };
    let (group, family) = (chance.word(GROUPS), if v6 { "v6" } else { "v4" });
    let protocols = [
        "any", "any", "tcp", "tcp", "tcp", "udp", "udp", "icmp", "icmpv6", "sctp", "udplite",
        "dccp", "47",
    ];
    let protocol = chance.word(&protocols);
    let mut words = format!("{group} {direction} {family} {protocol}");
    let range = match protocol {
        "any" | "47" => "",
        "icmp" | "icmpv6" => chance.word(&[
            "", "8/0", "8/0", "128/0", "8", "128", "128/0", "13", "0", "3/3", "8/1",
        ]),
        _ => chance.word(&[
            "",
            "22",
            "22-53",
            "1-65535",
            "1000-1001",
            "23-80",
            "0-22",
            "65535",
            "53-79",
        ]),
    };
    if !range.is_empty() {
        words = format!("{words} {range}");
    }
    let remote = match (chance.below(10), v6) {
        (0..=4, _) => "",
        (5 | 6, false) => chance.word(&[
            "192.0.2.0/24",
            "192.0.2.11/32",
            "0.0.0.0/0",
            "203.0.110.0/26",
            "8.0.0.0/7",
        ]),
        (5 | 6, true) => chance.word(&["fd00:1::/64", "fd00:2::12/128", "::/0", "2001:db8::/33"]),
        (7 | 8, _) => chance.word(&["group:g1", "group:g2", "group:g3"]),
        _ => "addresses:ag",
    };
    if !remote.is_empty() {
        words = format!(
            "{words} {} {remote}",
            if direction == "egress" { "to" } else { "from" }
        );
    }
    words
}

/// A random change, as a script's line.
pub fn change(chance: &mut Chance, of: &Table) -> Option<String> {
    let names = |key: &str| -> Vec<String> {
        of.get(key)
            .and_then(Value::as_table)
            .map(|t| t.keys().cloned().collect())
            .unwrap_or_default()
    };
    let pick = |chance: &mut Chance, key: &str| chance.one(&names(key)).cloned();
    let yes = chance.percent(50);
    Some(match chance.below(29) {
        0..=3 => format!("change rules.{} gone", pick(chance, "rules")?),
        4 | 5 => format!("change rules.n{} {:?}", chance.below(3), rule(chance)),
        6 => format!("change ports.{}.up {yes}", pick(chance, "ports")?),
        7 => format!(
            "change ports.{}.port_security {yes}",
            pick(chance, "ports")?
        ),
        8 => format!(
            "change groups.{} {}",
            chance.word(GROUPS),
            list(ranges(chance))
        ),
        9 => format!("change address_groups.ag {}", list(ranges(chance))),
        10 => format!("change routers.{}.up {yes}", pick(chance, "routers")?),
        11 => format!(
            "change routers.{}.gateway.snat {yes}",
            pick(chance, "routers")?
        ),
        12 => format!(
            "change routers.{}.gateway.ports {}",
            pick(chance, "routers")?,
            block(chance)
        ),
        13 => format!("change floating_ips.{} gone", pick(chance, "floating_ips")?),
        14 => {
            let (name, mtu) = (pick(chance, "networks")?, chance.one(MTUS)?);
            format!("change networks.{name}.mtu {mtu}")
        }
        15 => {
            let (name, host) = (pick(chance, "remote_ports")?, chance.word(OTHERS));
            format!("change remote_ports.{name}.host {host:?}")
        }
        16 => format!("change remote_ports.{} gone", pick(chance, "remote_ports")?),
        17 => format!(
            "change ports.{}.qos {:?}",
            pick(chance, "ports")?,
            chance.word(QOS)
        ),
        19 => {
            // Not of a network that is not there: it would be made, and others' numbers would move.
            of.get("networks")?.get("ext")?.get("transit")?;
            format!("change networks.ext.uplink {yes}")
        }
        20 => {
            let host = chance.word(&["elsewhere", "third", "gone"]);
            format!(
                "change routers.{}.gateway.host {host:?}",
                pick(chance, "routers")?
            )
        }
        21 => format!("change floating_ips.{} gone", pick(chance, "floating_ips")?),
        22 | 23 => {
            let router = of.get("floating_ips")?.get("fwd")?.get("router")?;
            let ports = of.get("ports")?.as_table()?;
            let shared = is_shared(of.get("networks")?.as_table()?);
            let one = forwarded_ip(chance, router.as_str()?, ports, shared)?;
            format!("change floating_ips.fwd.forward {}", one.get("forward")?)
        }
        24 => format!("change stateless {}", stateless(chance)),
        25 => format!(
            "change ports.{}.pvlan {:?}",
            pick(chance, "ports")?,
            chance.word(ROLES)
        ),
        26 => format!("change local_ips.{} gone", pick(chance, "local_ips")?),
        27 => {
            let one = local_ip(chance, of.get("ports")?.as_table()?)?;
            format!("change local_ips.{} {one:?}", chance.word(&["k1", "k3"]))
        }
        18 => format!(
            "change qos.{} {}",
            chance.word(QOS),
            Value::Table(qos(chance))
        ),
        _ => {
            let name = pick(chance, "ports")?;
            // A trunk's port stays, or its subports would have nobody.
            let trunk = of
                .get("ports")?
                .as_table()?
                .values()
                .any(|port| port.get("parent").and_then(Value::as_str) == Some(name.as_str()));
            if chance.percent(30) && !trunk {
                format!("change ports.{name} gone")
            } else {
                format!(
                    "change ports.{name}.groups {}",
                    list([chance.word(GROUPS).to_owned()])
                )
            }
        }
    })
}
