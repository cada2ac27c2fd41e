//! Security groups that keep no state, and what is written down of what security groups decide.

use crate::{Engine, TIMEOUT, both, dropped, group, id, open, pings, sees};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use weft_kit::clock::{pause, until};
use weft_kit::tcp::{Probed, Server, probe};
use weft_kit::{Guest, Namespace};
use weft_tests_system::hosts::Hosts;
use weft_tests_system::scene::ANY;

/// Datagrams that are refused, and lines that may be written of them: 25 at once, and 100 for every second.
const REFUSED: usize = 600;
const AT_ONCE: usize = 25;
const A_SECOND: usize = 100;

/// A rule for both families, by their ids.
fn rule(hosts: &mut Hosts, group: &str, direction: &str, rule: &Value) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for ethertype in ["IPv4", "IPv6"] {
        let mut body = json!({
            "security_group_id": group, "direction": direction, "ethertype": ethertype,
        });
        let whole = body.as_object_mut().context("an object")?;
        whole.extend(rule.as_object().context("an object")?.clone());
        if ethertype == "IPv6" && body["protocol"] == "icmp" {
            body["protocol"] = json!("ipv6-icmp");
        }
        let made = hosts.post("/v2.0/security-group-rules", "security_group_rule", &body)?;
        ids.push(id(&made)?);
    }
    Ok(ids)
}

fn rules_remove(hosts: &mut Hosts, ids: &[String]) -> Result<()> {
    ids.iter()
        .try_for_each(|id| hosts.delete(&format!("/v2.0/security-group-rules/{id}")))
}

/// Nothing answers, for this reason.
fn silent(hosts: &mut Hosts, from: &Namespace, to: SocketAddr, reason: &str) -> Result<()> {
    let lost = dropped(hosts, reason, |_| {
        let probed = probe(from, to)?;
        ensure!(
            probed == Probed::Silent,
            "{} to {to}: {probed}",
            from.name()
        );
        Ok(())
    })?;
    ensure!(
        lost > 0,
        "{} to {to}: nothing dropped for {reason}",
        from.name()
    );
    Ok(())
}

/// `bare` keeps no state, `other` does.
fn stateless(hosts: &mut Hosts, bare: &Guest, other: &Guest, group: &str) -> Result<()> {
    let ingress = "security_group_ingress_denied";
    for (to, own) in both(other)?.into_iter().zip(both(bare)?) {
        // It is answered only where a rule says so: its answers by its egress rules, those to it by its ingress rules.
        sees(&other.namespace, SocketAddr::new(own, 22), "bare")?;
        silent(hosts, &bare.namespace, SocketAddr::new(to, 22), ingress)?;
        let lost = dropped(hosts, ingress, |_| pings(&bare.namespace, to, false))?;
        // And what TCP says again of what it was not answered.
        ensure!(lost >= 1, "to {to}: {lost} dropped");
    }
    let back = json!({ "protocol": "tcp", "port_range_min": 1024, "port_range_max": 65535 });
    let back = rule(hosts, group, "ingress", &back)?;
    let echo = rule(hosts, group, "ingress", &json!({ "protocol": "icmp" }))?;
    for to in both(other)? {
        sees(&bare.namespace, SocketAddr::new(to, 22), &other.name)?;
        pings(&bare.namespace, to, true)?;
    }
    // What is there ends with the rule that let its answers in.
    rules_remove(hosts, &echo)?;
    for to in both(other)? {
        pings(&bare.namespace, to, false)?;
    }
    rules_remove(hosts, &back)?;
    // Without a rule for them its own answers do not leave.
    let path = format!("/v2.0/security-groups/{group}");
    let shown = hosts.openstack_get(&path)?;
    let rules = shown["security_group"]["security_group_rules"].as_array();
    let rules = rules.into_iter().flatten();
    let egress: Vec<String> = rules
        .filter(|rule| rule["direction"] == "egress")
        .map(id)
        .collect::<Result<_>>()?;
    rules_remove(hosts, &egress)?;
    for own in both(bare)? {
        let to = SocketAddr::new(own, 22);
        silent(hosts, &other.namespace, to, "security_group_egress_denied")?;
    }
    Ok(())
}

/// Lines of decisions in a host's log, of a log resource.
fn lines(hosts: &Hosts, host: usize, log: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(&hosts.hosts[host].site.log)?;
    let of = |line: &&str| line.contains("weft::decision") && line.contains(log);
    Ok(text.lines().filter(of).map(str::to_owned).collect())
}

/// `guest` is on the first host, and lets in TCP to 22 alone.
fn written_down(hosts: &mut Hosts, guest: &Guest, from: &Guest) -> Result<()> {
    let port = &guest.port.id;
    let new = |event: &str| json!({ "name": event, "resource_type": "security_group", "target_id": port, "event": event });
    let all = id(&hosts.post("/v2.0/log/logs", "log", &new("ALL"))?)?;
    let bad = id(&hosts.post("/v2.0/log/logs", "log", &new("DROP"))?)?;
    for own in both(guest)? {
        sees(&from.namespace, SocketAddr::new(own, 22), &guest.name)?;
        let denied = SocketAddr::new(own, 23);
        silent(
            hosts,
            &from.namespace,
            denied,
            "security_group_ingress_denied",
        )?;
        let written = |action: &str, port: u16| {
            let action = format!("action={action} direction=ingress");
            let end = match own.is_ipv6() {
                false => format!("{own}:{port}"),
                true => format!("[{own}]:{port}"),
            };
            move |line: &&String| line.contains(&action) && line.contains(&end)
        };
        until("the decisions' lines", TIMEOUT, || {
            let (seen, drops) = (lines(hosts, 0, &all)?, lines(hosts, 0, &bad)?);
            let good = seen.iter().filter(written("ACCEPT", 22)).count();
            let refused = seen.iter().filter(written("DROP", 23)).count();
            ensure!(
                !drops.iter().any(|line| line.contains("ACCEPT")),
                "{drops:?}"
            );
            let both = drops.iter().filter(written("DROP", 23)).count();
            Ok((good >= 1 && refused >= 1 && both >= 1).then_some(()))
        })
        .with_context(|| format!("{own}: {:#?}", lines(hosts, 0, port)))?;
    }
    limited(hosts, guest, from, &bad)?;
    // One that is switched off writes nothing any more.
    let off = json!({ "enabled": false });
    for log in [&all, &bad] {
        hosts.put(&format!("/v2.0/log/logs/{log}"), "log", &off)?;
    }
    let before = lines(hosts, 0, port)?.len();
    let denied = SocketAddr::new(guest.port.v4()?.into(), 23);
    silent(
        hosts,
        &from.namespace,
        denied,
        "security_group_ingress_denied",
    )?;
    ensure!(lines(hosts, 0, port)?.len() == before, "lines of no log");
    Ok(())
}

/// No more is written than may be, however much is refused.
fn limited(hosts: &mut Hosts, guest: &Guest, from: &Guest, log: &str) -> Result<()> {
    let reason = "security_group_ingress_denied";
    let before = lines(hosts, 0, log)?.len();
    let start = weft_kit::clock::now();
    let socket = from.namespace.udp("0.0.0.0".parse()?, 40_000)?;
    let to = SocketAddr::new(guest.port.v4()?.into(), 9);
    let lost = dropped(hosts, reason, |hosts| {
        let before = hosts.drops_of_all(reason)?;
        for number in 0..REFUSED {
            socket.send_to(b"x", to)?;
            if number % 25 == 24 {
                pause(Duration::from_millis(2));
            }
        }
        until("most to be refused", TIMEOUT, || {
            let refused = hosts.drops_of_all(reason)? - before;
            Ok((refused >= u64::try_from(REFUSED / 2)?).then_some(()))
        })
    })?;
    let seconds = usize::try_from(start.elapsed().as_secs())? + 1;
    let most = AT_ONCE + A_SECOND * seconds;
    // A line or two were owed to what was refused before, within the same second.
    let least = AT_ONCE / 2;
    let count = |hosts: &Hosts| -> Result<usize> { Ok(lines(hosts, 0, log)?.len() - before) };
    let written = until("lines of them", TIMEOUT, || {
        let written = count(hosts)?;
        Ok((written >= least).then_some(written))
    })
    .with_context(|| format!("{:?} of {lost}", count(hosts)))?;
    eprintln!("{written} lines of {lost} refused in {seconds} seconds begun");
    ensure!(
        written <= most && u64::try_from(most)? < lost,
        "{written} of {lost}: more than {most}"
    );
    Ok(())
}

/// A guest with its addresses: no router advertises them here.
fn guest(hosts: &mut Hosts, host: usize, name: &str, group: &str) -> Result<Guest> {
    let guest = hosts.plug(host, "net", name, &format!("--security-group {group}"))?;
    guest.dhcp(&hosts.lab)?;
    guest.configure(&format!("{}/64", guest.port.v6()?), None)?;
    Ok(guest)
}

fn rules_and_lines(name: &str, engine: Engine) -> Result<()> {
    let (mut hosts, _outside) = open(name, engine)?;
    hosts.network("net", "192.0.2.0/24", "fd00:2::/64", "")?;
    group(&mut hosts, "web", &["icmp", "tcp:22"])?;
    group(&mut hosts, "ssh", &["tcp:22"])?;
    let bare = json!({ "name": "bare", "stateful": false });
    let bare_group = id(&hosts.post("/v2.0/security-groups", "security_group", &bare)?)?;
    let ssh = json!({ "protocol": "tcp", "port_range_min": 22, "port_range_max": 22 });
    rule(&mut hosts, &bare_group, "ingress", &ssh)?;
    let bare = guest(&mut hosts, 0, "bare", "bare")?;
    let near = guest(&mut hosts, 0, "near", "web")?;
    let far = guest(&mut hosts, 1, "far", "web")?;
    let written = guest(&mut hosts, 0, "written", "ssh")?;
    let _servers: Vec<Server> = [&bare, &near, &far, &written]
        .into_iter()
        .map(|guest| Server::start(&guest.namespace, &guest.name, ANY, 22))
        .collect::<Result<_>>()?;
    written_down(&mut hosts, &written, &far)?;
    stateless_pairs(&mut hosts, &bare, [&near, &far], &bare_group)?;
    hosts.close()
}

/// Beside a guest of the same host and of another one.
fn stateless_pairs(
    hosts: &mut Hosts,
    bare: &Guest,
    others: [&Guest; 2],
    group: &str,
) -> Result<()> {
    for other in others {
        stateless(hosts, bare, other, group).with_context(|| other.name.clone())?;
        // The rules that every group has from the start.
        rule(hosts, group, "egress", &json!({}))?;
    }
    Ok(())
}

#[test]
fn stateless_groups_are_asked_for_each_packet_and_decisions_written_down() -> Result<()> {
    rules_and_lines("weft-ruled", Engine::Kernel)
}

#[test]
fn stateless_groups_are_asked_for_each_packet_of_vhost_user_guests() -> Result<()> {
    rules_and_lines("weft-ruledu", Engine::User)
}
