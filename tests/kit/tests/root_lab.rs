//! The kit against the kernel alone: what it reports must be true of a plain bridge before it may judge Weft.

use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use weft_kit::Namespace;
use weft_kit::capture::Capture;
use weft_kit::clock::{until, wall_s};
use weft_kit::frame::{ArpSide, BROADCAST, arp, mac};
use weft_kit::guest::{Guest, PortFacts};
use weft_kit::lab::{Lab, namespace_exists};
use weft_kit::ping::{RunningPing, ping};
use weft_kit::tcp::{Probed, Server, Session, connect, probe};

const TIMEOUT: Duration = Duration::from_secs(5);

fn port(number: u8) -> PortFacts {
    PortFacts {
        id: format!("{number:08x}-0000-4000-8000-000000000000"),
        mac: format!("fa:16:3e:00:00:{number:02x}"),
        addresses: vec![Ipv4Addr::new(192, 0, 2, number).into()],
    }
}

/// Two guests on a Linux bridge, addresses set by hand.
fn bridged(lab: &Lab) -> Result<(Namespace, Guest, Guest)> {
    let host = lab.namespace("host")?;
    host.run("ip link add br0 type bridge")?;
    host.run("ip link set br0 up")?;
    let mut guests = Vec::new();
    for number in [11, 12] {
        let guest = Guest::plug(lab, &host, &format!("g{number}"), port(number))?;
        host.run(&format!("ip link set {} master br0", guest.port.device()))?;
        guest.start()?;
        guest.configure(&format!("192.0.2.{number}/24"), None)?;
        guests.push(guest);
    }
    let second = guests.remove(1);
    Ok((host, guests.remove(0), second))
}

#[test]
fn pings_and_tcp_are_reported_as_they_happen() -> Result<()> {
    let lab = Lab::new("kit-traffic")?;
    let (host, one, two) = bridged(&lab)?;
    let to = IpAddr::V4(two.port.v4()?);
    let pinged = ping(&one.namespace, to, 3)?;
    assert!(pinged.all() && pinged.ttl == Some(64), "{pinged:?}");

    let server = Server::start(&two.namespace, "two", to, 22)?;
    let (probed, _stream) = connect(&one.namespace, (to, 22).into(), Some(40_000))?;
    assert!(probed.is_from("two"), "{probed}");
    assert_eq!(probed.seen_as(), Some(([192, 0, 2, 11], 40_000).into()));
    assert_eq!(server.clients(), [([192, 0, 2, 11], 40_000).into()]);
    assert!(matches!(
        probe(&one.namespace, (to, 23).into())?,
        Probed::Refused(_)
    ));

    let session = Session::open(&one.namespace, (to, 22).into())?;
    let running = RunningPing::start(&lab, &one.namespace, to, Duration::from_millis(10))?;
    assert!(session.is_alive(TIMEOUT));
    let cut_s = wall_s();
    host.run(&format!("ip link set {} nomaster", two.port.device()))?;
    let last_s = running.until_quiet(Duration::from_millis(200), TIMEOUT)?;
    assert!(
        last_s - cut_s < 0.1,
        "the ping went on for {} s",
        last_s - cut_s
    );
    session.until_quiet(Duration::from_millis(200), TIMEOUT)?;
    assert!(!session.is_alive(Duration::from_millis(200)));
    assert_eq!(ping(&one.namespace, to, 2)?.received, 0);
    assert_eq!(probe(&one.namespace, (to, 22).into())?, Probed::Silent);
    running.stop()?;
    drop(server);
    lab.close()
}

#[test]
fn frames_are_sent_and_seen_as_they_are() -> Result<()> {
    let lab = Lab::new("kit-frames")?;
    let (_host, one, two) = bridged(&lab)?;
    let mut from = Capture::open(&one.namespace, "eth0")?;
    let mut at = Capture::open(&two.namespace, "eth0")?;
    let liar = mac("02:00:00:00:00:99")?;
    let sender = ArpSide {
        mac: liar,
        ip: Ipv4Addr::new(192, 0, 2, 99),
    };
    let target = ArpSide {
        mac: BROADCAST,
        ip: two.port.v4()?,
    };
    let sent = arp(liar, 1, sender, target);
    from.send(&sent)?;
    assert!(at.find(TIMEOUT, |frame| frame == sent)?.is_some());
    lab.close()
}

#[test]
fn guests_take_what_a_stock_dhcp_server_offers() -> Result<()> {
    let lab = Lab::new("kit-dhcp")?;
    let host = lab.namespace("host")?;
    let (a, b) = (port(11), port(12));
    let guests = [
        Guest::plug(&lab, &host, "g11", a)?,
        Guest::plug(&lab, &host, "g12", b)?,
    ];
    host.run("ip link add br0 type bridge")?;
    host.run("ip address add 192.0.2.1/24 dev br0")?;
    host.run("ip link set br0 up")?;
    for guest in &guests {
        host.run(&format!("ip link set {} master br0", guest.port.device()))?;
        guest.start()?;
    }
    let config = lab.directory().join("udhcpd.conf");
    let leases = lab.directory().join("udhcpd.leases");
    std::fs::write(&leases, "")?;
    let text = format!(
        "interface br0\nstart 192.0.2.50\nend 192.0.2.60\nlease_file {}\npidfile {}\n\
         option subnet 255.255.255.0\noption router 192.0.2.1\noption dns 8.8.4.4\noption mtu 1450\n\
         option staticroutes 198.51.100.0/24 192.0.2.254, 0.0.0.0/0 192.0.2.1\n",
        leases.display(),
        lab.directory().join("udhcpd.pid").display(),
    );
    std::fs::write(&config, text)?;
    let mut server = host.command("busybox");
    let _server = lab.spawn(server.args(["udhcpd", "-f"]).arg(&config))?;
    let lease = guests[0].dhcp(&lab)?;
    assert!(lease.get("ip").starts_with("192.0.2.5"), "{lease:?}");
    assert_eq!(
        (lease.get("router"), lease.get("dns"), lease.get("mtu")),
        ("192.0.2.1", "8.8.4.4", "1450")
    );
    assert_eq!(guests[0].mtu()?.0, 1450);
    let routes = guests[0].namespace.run("ip route")?;
    assert!(routes.contains("default via 192.0.2.1"), "{routes}");
    assert!(
        routes.contains("198.51.100.0/24 via 192.0.2.254"),
        "{routes}"
    );
    let leases = guests[1].dhclient(&lab)?;
    assert!(leases.contains("option routers 192.0.2.1"), "{leases}");
    lab.close()
}

#[test]
fn a_lab_leaves_nothing_when_dropped() -> Result<()> {
    let lab = Lab::new("kit-drop")?;
    let namespace = lab.namespace("a")?;
    let mut sleeper = namespace.command("sleep");
    let process = lab.spawn(sleeper.arg("1000"))?;
    let (id, name) = (process.id(), namespace.name().to_owned());
    std::mem::forget(process);
    drop(lab);
    assert!(!namespace_exists(&name));
    assert!(!Path::new(&format!("/proc/{id}/exe")).exists());
    Ok(())
}

#[test]
fn what_a_killed_run_left_is_swept_by_the_next() -> Result<()> {
    // A process id that is certainly no longer in use: that of a child which has ended.
    let mut child = Command::new("true").spawn()?;
    let dead = child.id();
    child.wait()?;
    let left = format!("kit-sweep-{dead}-0-host");
    weft_kit::command::run(&format!("ip netns add {left}"))?;
    let mut sleeper = Namespace::new(left.clone()).command("sleep");
    let sleeper = sleeper.arg("1000").spawn()?;
    let inside = format!("/proc/{}/comm", sleeper.id());
    until("the sleeper to be inside", TIMEOUT, || {
        Ok(std::fs::read_to_string(&inside)?
            .starts_with("sleep")
            .then_some(()))
    })?;
    let lab = Lab::new("kit-sweep")?;
    assert!(
        !Path::new(&inside).exists(),
        "the sweep ends and reaps what runs inside"
    );
    until("the end of the namespace", TIMEOUT, || {
        Ok((!namespace_exists(&left)).then_some(()))
    })?;
    lab.close()
}
