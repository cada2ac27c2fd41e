//! What happens when parts of a cloud of several hosts fail: what guests of two projects with the same addresses notice of it, and that
//! no guest ever hears the other project. Figures are printed.

use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::time::Duration;
use weft_kit::capture::Capture;
use weft_kit::clock::{now, pause, until};
use weft_kit::tcp::{Server, Session};
use weft_kit::{Client, Operator, Recording, WeftOptions};
use weft_tests_api::postgresql::Database;
use weft_tests_system::hosts::{Hosts, Underlay, feed_of};
use weft_tests_system::scene::ANY;
use weft_tests_system::witness::{Noticed, PORT, Pair, Projects, hears_no_other};

const TIMEOUT: Duration = Duration::from_secs(20);
/// The longest silence that counts as none: words are 20 ms apart, and the machine is busy. What is lost is counted besides.
const GAP_MS_MAX: u64 = 2_000;

/// Nothing was lost, and nothing of the other project came.
#[allow(clippy::print_stdout, reason = "figures of a test")]
fn assert_unnoticed(what: &str, noticed: &Noticed) {
    println!("{what}: {noticed:?}");
    assert_eq!((noticed.lost, noticed.foreign.len()), (0, 0), "{what}");
    assert!(noticed.gap_ms <= GAP_MS_MAX, "{what}: {noticed:?}");
    assert!(noticed.heard > 0, "{what}: nobody spoke");
}

fn of_red(pair: &Pair) -> bool {
    pair.0.starts_with("red")
}

/// Ports are made until the API does not answer any more; those that it said it has made.
fn ports_until_it_ends(mut client: Client, admin: &weft_kit::Cloud, host: &str) -> Vec<String> {
    let mut made = Vec::new();
    loop {
        let name = format!("x{}", made.len());
        let line =
            format!("port create --network red1 --host {host} --security-group red-open {name}");
        match client.openstack(admin, &line) {
            Ok(port) => made.extend(port["id"].as_str().map(str::to_owned)),
            Err(_) => return made,
        }
    }
}

/// Control is killed in the middle of changes, three times: nobody notices, what was answered holds, and what is changed
/// afterwards is enforced.
#[test]
fn control_dies_during_changes() -> Result<()> {
    let mut projects = Projects::open("weft-ctlkill", WeftOptions::new(None)?)?;
    let witness = projects.witness()?;
    let hosts = &mut projects.hosts;
    for round in 0..3 {
        let (client, admin) = (Client::new(&hosts.control)?, hosts.admin.clone());
        let host = hosts.hosts[1].site.name.clone();
        let changes = std::thread::spawn(move || ports_until_it_ends(client, &admin, &host));
        pause(Duration::from_millis(400));
        hosts.server_kill()?;
        let made = changes
            .join()
            .map_err(|_panic| anyhow::anyhow!("it panicked"))?;
        ensure!(!made.is_empty(), "no change was made");
        pause(Duration::from_millis(500));
        assert_unnoticed("while control was dead", &witness.take());
        hosts.server_start()?;
        let started = now();
        for id in &made {
            hosts.openstack(&format!("port show {id}"))?;
        }
        let name = format!("late{round}");
        let late = hosts.guest(0, "red1", &name, "--security-group red-open")?;
        println!(
            "{} ports were made and are there; a new guest had its addresses {:?} after control was back",
            made.len(),
            started.elapsed()
        );
        assert_unnoticed("after control was back", &witness.take());
        late.unplug(&hosts.hosts[0].namespace)?;
        for id in made.iter().map(String::as_str).chain([name.as_str()]) {
            hosts.openstack(&format!("port delete {id}"))?;
        }
    }
    // What is taken away now is taken away on both hosts.
    let started = now();
    delete_udp_rules(hosts, "red-open")?;
    let last = witness.until_silent(of_red, TIMEOUT)?;
    println!(
        "red's rules were gone everywhere {last:?} after {:?}",
        started.elapsed()
    );
    println!("{} frames on all guests", witness.end()?);
    drop(projects.guests);
    projects.hosts.close()
}

fn delete_udp_rules(hosts: &mut Hosts, group: &str) -> Result<()> {
    let admin = hosts.admin.clone();
    let group = hosts.openstack(&format!("security group show {group}"))?;
    let rules = hosts.operator.get(&admin, "/v2.0/security-group-rules")?;
    let rules = rules["security_group_rules"].as_array().cloned();
    for rule in rules.context("no rules")? {
        if rule["security_group_id"] == group["id"] && rule["protocol"] == "udp" {
            let id = rule["id"].as_str().context("no id")?;
            hosts.openstack(&format!("security group rule delete {id}"))?;
        }
    }
    Ok(())
}

/// Seconds that a host is cut off from control: longer than a silence that ends a stream. `WEFT_CUT_SECONDS=600` for ten minutes.
fn cut_seconds() -> u64 {
    let told = std::env::var("WEFT_CUT_SECONDS");
    told.ok().and_then(|text| text.parse().ok()).unwrap_or(18)
}

/// Lets a host and control hear nothing of each other; tunnels go on.
fn cut_off(hosts: &Hosts, host: usize, cut: bool) -> Result<()> {
    let verb = if cut { "add" } else { "del" };
    let own = Underlay::V4.address(u8::try_from(host + 1)?);
    let control = feed_of(100).ip();
    let namespace = &hosts.hosts[host].namespace;
    namespace.run(&format!("ip route {verb} blackhole {control}/32"))?;
    let line = format!("ip route {verb} blackhole {own}/32");
    hosts.control.run(&line).map(drop)
}

/// A host hears nothing of control while more changes than control remembers come, rules go, a network goes, and its number is another
/// project's: it enforces what it knows, nothing crosses, and it is right again soon after it is back.
#[test]
fn a_host_is_cut_off_from_control() -> Result<()> {
    let mut projects = Projects::open("weft-cutoff", WeftOptions::new(None)?)?;
    let hosts = &mut projects.hosts;
    let old = hosts.network("red3", "203.0.113.0/24", "fd00:7::/64", "--mtu 1450")?;
    let group = "--security-group red-open";
    let before = hosts.plug(0, "red3", "red-d", group)?;
    let stale = hosts.plug(1, "red3", "red-e", group)?;
    before.dhcp(&hosts.lab)?;
    stale.dhcp(&hosts.lab)?;
    let stale_hears = Recording::start(&hosts.lab, &stale.namespace, "eth0")?;
    let witness = projects.witness()?;
    let hosts = &mut projects.hosts;
    cut_off(hosts, 1, true)?;
    let started = now();

    // The network goes; the host that is cut off still has it.
    before.unplug(&hosts.hosts[0].namespace)?;
    for line in [
        "port delete red-d",
        "port delete red-e",
        "subnet delete red3-v4",
        "subnet delete red3-v6",
        "network delete red3",
    ] {
        hosts.openstack(line)?;
    }
    let new = hosts.network("blue3", "203.0.113.0/24", "fd00:7::/64", "--mtu 1450")?;
    let number = "provider:segmentation_id";
    assert_eq!(
        new[number], old[number],
        "the number is another project's now"
    );
    let other = hosts.hosts[1].site.name.clone();
    let line =
        format!("port create --network blue3 --host {other} --security-group blue-open blue-e");
    let there = hosts.openstack(&line)?;
    let speaker = hosts.plug(0, "blue3", "blue-d", "--security-group blue-open")?;
    speaker.dhcp(&hosts.lab)?;
    let socket = speaker.namespace.udp(speaker.port.v4()?.into(), PORT)?;
    socket.set_broadcast(true)?;
    let words = b"weft blue blue-d 0 ";
    let mut frames = Capture::open(&speaker.namespace, "eth0")?;
    let direct = to_port(&speaker, &weft_kit::PortFacts::from_json(&there)?, words)?;
    for _ in 0..20 {
        socket.send_to(words, ("203.0.113.255", PORT))?;
        frames.send(&direct)?;
    }
    // Rules go, and more changes come than are remembered.
    delete_udp_rules(hosts, "red-open")?;
    let first = hosts.hosts[0].site.name.clone();
    for _ in 0..150 {
        hosts.openstack(&format!("port create --network blue1 --host {first} churn"))?;
        hosts.openstack("port delete churn")?;
    }
    while started.elapsed() < Duration::from_secs(cut_seconds()) {
        pause(Duration::from_millis(100));
    }
    let cut = started.elapsed();
    let blue = witness.take_of(|pair| !of_red(pair));
    assert_unnoticed(&format!("blue while cut off for {cut:?}"), &blue);
    // Of red, whose rules went: the host that is cut off lets its own guests talk still.
    let inside = |pair: &Pair| pair.0 == "red-b" && pair.1 == "red-c";
    witness.until_heard(inside, TIMEOUT)?;
    assert!(
        hosts.drops(1, "rogue_source")? > 0,
        "words of blue came to the host"
    );
    println!("{} frames on red-e", hears_no_other(stale_hears, "red")?);

    cut_off(hosts, 1, false)?;
    let healed = now();
    witness.until_silent(of_red, TIMEOUT)?;
    let settled = healed.elapsed().saturating_sub(Duration::from_millis(300));
    stale.unplug(&hosts.hosts[1].namespace)?;
    println!("red's rules were enforced {settled:?} after the host was back");
    let late = hosts.plug(1, "blue3", "blue-f", "--security-group blue-open")?;
    late.dhcp(&hosts.lab)?;
    let session = Server::start(&late.namespace, "blue-f", ANY, 80)?;
    until("the new network over the host", TIMEOUT, || {
        let to = SocketAddr::new(late.port.v4()?.into(), 80);
        Ok(weft_kit::tcp::probe(&speaker.namespace, to)?
            .is_from("blue-f")
            .then_some(()))
    })?;
    drop(session);
    println!("{} frames on all guests", witness.end()?);
    drop(projects.guests);
    projects.hosts.close()
}

/// A datagram to a port's own MAC address, whether somebody is there or not.
fn to_port(from: &weft_kit::Guest, to: &weft_kit::PortFacts, words: &[u8]) -> Result<Vec<u8>> {
    let datagram = weft_kit::frame::udp(PORT, PORT, words);
    let packet = weft_kit::frame::ipv4(from.port.v4()?, to.v4()?, 17, &datagram);
    let macs = (
        weft_kit::frame::mac(&to.mac)?,
        weft_kit::frame::mac(&from.port.mac)?,
    );
    Ok(weft_kit::frame::ethernet(macs.0, macs.1, 0x0800, &packet))
}

/// Another version of the agent, whose maps have another layout: datagrams go on without a loss, and so does a TCP connection.
#[test]
fn an_agent_is_upgraded_to_another_layout() -> Result<()> {
    let mut projects = Projects::open("weft-layout", WeftOptions::new(None)?)?;
    let witness = projects.witness()?;
    let (from, to) = (projects.guest("red-a")?, projects.guest("red-b")?);
    let _server = Server::start(&to.namespace, "red-b", ANY, 80)?;
    let to = SocketAddr::new(to.port.v4()?.into(), 80);
    let session = Session::open(&from.namespace, to)?;
    let hosts = &mut projects.hosts;
    for host in [0, 1] {
        hosts.agent_kill(host)?;
        pause(Duration::from_millis(300));
        assert_unnoticed("without the agent", &witness.take());
        assert!(session.is_alive(TIMEOUT), "without the agent");
        // Maps of another size are of another layout: see `Engine::open`.
        hosts.hosts[host].site.agent_set("sessions_max = 65_536")?;
        let pins = hosts.hosts[host].site.pins();
        let layouts = || -> Result<Vec<_>> {
            let entries = std::fs::read_dir(&pins)?;
            let names = entries.map(|entry| Ok(entry?.file_name()));
            names.collect()
        };
        let before = layouts()?;
        assert_eq!(before.len(), 1);
        hosts.agent_start(host)?;
        witness.until_heard(|_| true, TIMEOUT)?;
        until("the old layout to go", TIMEOUT, || {
            let now = layouts()?;
            Ok((now.len() == 1 && now != before).then_some(()))
        })?;
        assert_unnoticed("by the other version", &witness.take());
        assert!(session.is_alive(TIMEOUT), "by the other version");
    }
    drop(session);
    println!("{} frames on all guests", witness.end()?);
    drop(projects.guests);
    projects.hosts.close()
}

/// A host's link of the underlay goes for three seconds: what passes between hosts waits, what stays on one does not, and all is as before
/// within a second of its return.
#[test]
fn an_underlay_link_goes_and_comes_back() -> Result<()> {
    let mut projects = Projects::open("weft-link", WeftOptions::new(None)?)?;
    let witness = projects.witness()?;
    let local = |pair: &Pair| !pair.0.ends_with("-a") && !pair.1.ends_with("-a");
    let link = |hosts: &Hosts, state: &str| hosts.wire.run(&format!("ip link set h2 {state}"));
    for _ in 0..2 {
        link(&projects.hosts, "down")?;
        pause(Duration::from_secs(3));
        assert_unnoticed("on the host itself", &witness.take_of(local));
        link(&projects.hosts, "up")?;
        let back = witness.until_heard(|_| true, TIMEOUT)?;
        println!("all are heard again {back:?} after the link was back");
        assert!(back <= Duration::from_secs(2), "{back:?}");
        witness.take();
        pause(Duration::from_millis(500));
        assert_unnoticed("afterwards", &witness.take());
    }
    println!("{} frames on all guests", witness.end()?);
    drop(projects.guests);
    projects.hosts.close()
}

/// Two API servers on one PostgreSQL; one is killed. Agents go on to the other, and what it is asked is enforced on every host.
#[test]
fn one_of_two_api_servers_dies() -> Result<()> {
    const SECOND: u8 = 101;
    let database = Database::create();
    let mut options = WeftOptions::new(None)?;
    options.store_url = Some(database.url.clone());
    options.feed_also = vec![feed_of(SECOND)];
    let hosts = Hosts::open_with_options("weft-servers", 2, Underlay::V4, &[], options.clone())?;
    let (second, mut other) = hosts.further_server(SECOND, &options)?;
    let mut projects = Projects::among(hosts)?;
    let witness = projects.witness()?;
    let hosts = &mut projects.hosts;
    let admin = hosts.admin.clone();
    // Through the second, to agents that the first one serves.
    let started = now();
    let rule = "security group rule create --protocol sctp red-open";
    other.openstack(&admin, rule)?;
    println!("the second server answered in {:?}", started.elapsed());
    hosts.server_kill()?;
    let killed = now();
    hosts.operator = other;
    let late = hosts.guest(0, "red1", "late-a", "--security-group red-open")?;
    println!(
        "a guest of the first host had its addresses {:?} after the server died",
        killed.elapsed()
    );
    let late2 = hosts.guest(1, "blue1", "late-b", "--security-group blue-open")?;
    println!("of the second host {:?}", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(15));
    assert_unnoticed("while one server was dead", &witness.take());
    hosts.server = Some(hosts.control_site.start(&hosts.lab, "server")?);
    // And what is taken away by the one that came back is taken away everywhere.
    hosts.operator = Client::new(&hosts.control)?;
    delete_udp_rules(hosts, "red-open")?;
    let last = witness.until_silent(of_red, TIMEOUT)?;
    println!("by the first one again: silence after {last:?}");
    assert!(last < Duration::from_secs(2), "{last:?}");
    drop((late, late2));
    println!("{} frames on all guests", witness.end()?);
    drop(projects.guests);
    second.stop()?;
    projects.hosts.close()
}

/// A snapshot that an engine cannot enforce is refused whole and reported, and the last good one stays; when it fits again, all of it holds.
#[test]
fn a_snapshot_that_cannot_be_enforced_is_refused_whole() -> Result<()> {
    let mut projects = Projects::open("weft-refused", WeftOptions::new(None)?)?;
    let witness = projects.witness()?;
    let hosts = &mut projects.hosts;
    // As many as there are.
    hosts.agent_kill(1)?;
    hosts.hosts[1].site.agent_set("ports_max = 4")?;
    hosts.agent_start(1)?;
    witness.until_heard(|_| true, TIMEOUT)?;
    witness.take();
    let host = hosts.hosts[1].site.name.clone();
    hosts.openstack(&format!(
        "port create --network red1 --host {host} one-more"
    ))?;
    let refused = until("control to hear that the host refuses", TIMEOUT, || {
        let view = hosts.feed_view()?;
        let mut all = view["hosts"].as_array().into_iter().flatten();
        let own = all.find(|one| one["host"] == host.as_str());
        let said = own.map(|own| own["refused"].clone());
        Ok(said.filter(|said| !said.is_null()))
    })?;
    println!("refused: {refused}");
    assert!(
        refused[1].as_str().is_some_and(|why| why.contains("ports")),
        "{refused}"
    );
    // Nothing of what came with it is in force there: not the rules that went. The other host takes them.
    delete_udp_rules(hosts, "red-open")?;
    witness.until_silent(|pair| of_red(pair) && pair.1 == "red-a", TIMEOUT)?;
    pause(Duration::from_millis(500));
    let stays = |pair: &Pair| pair.1 != "red-a";
    assert_unnoticed("under the last good one", &witness.take_of(stays));
    let status = hosts.openstack("port show one-more")?;
    assert_ne!(status["status"], "ACTIVE");
    hosts.openstack("port delete one-more")?;
    let last = witness.until_silent(of_red, TIMEOUT)?;
    println!("what fits again was enforced {last:?} later");
    println!("{} frames on all guests", witness.end()?);
    drop(projects.guests);
    projects.hosts.close()
}
