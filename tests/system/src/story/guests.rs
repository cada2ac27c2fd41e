//! Chapter 2: three guests are plugged; stock clients inside them get all that a guest needs.

use super::Story;
use crate::report::Report;
use crate::scene::Scene;
use anyhow::{Result, anyhow};
use std::net::Ipv6Addr;
use std::time::Duration;
use weft_kit::clock::now;
use weft_kit::guest::{Guest, Lease};

pub(super) fn play(story: &mut Story, scene: &mut Scene) -> Result<()> {
    let user = story.user()?;
    let ports = scene.openstack_all(
        &user,
        &[
            "port create --network selfservice1 guest1",
            "port create --network selfservice1 guest2",
            "port create --network selfservice2 guest3",
        ],
    )?;
    scene
        .report
        .remark("binding a port to its host is Nova's part: here the administrator does it");
    let names = ["guest1", "guest2", "guest3"];
    let plugged: Vec<_> = names.into_iter().zip(ports).collect();
    story.guests = scene.plug(&plugged)?;
    let got = configure(scene, &story.guests)?;
    for (guest, (lease, v6, took)) in story.guests.iter().zip(got) {
        let name = &guest.name;
        scene.report.command(name, "udhcpc -i eth0", took);
        check_lease(&mut scene.report, guest, &lease)?;
        let expected = guest.port.v6()?;
        let happened = v6.map_or_else(|error| format!("{error:#}"), |address| address.to_string());
        scene.report.equal(
            &format!("{name}: IPv6 address by SLAAC"),
            expected,
            happened,
        );
        let (_, v6_mtu) = guest.mtu()?;
        scene.report.equal(
            &format!("{name}: MTU by router advertisement"),
            1450,
            v6_mtu,
        );
    }
    Ok(())
}

type Configured = (Lease, Result<Ipv6Addr>, Duration);

/// All guests at once, as machines boot.
fn configure(scene: &Scene, guests: &[Guest]) -> Result<Vec<Configured>> {
    let lab = &scene.lab;
    std::thread::scope(|scope| {
        let boot = |guest: &'_ Guest| -> Result<Configured> {
            let start = now();
            let lease = guest.dhcp(lab)?;
            let took = start.elapsed();
            Ok((lease, guest.slaac(), took))
        };
        let threads: Vec<_> = guests
            .iter()
            .map(|guest| scope.spawn(move || boot(guest)))
            .collect();
        let joined = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_panic| Err(anyhow!("a guest's boot panicked")))
        });
        joined.collect()
    })
}

fn check_lease(report: &mut Report, guest: &Guest, lease: &Lease) -> Result<()> {
    let name = &guest.name;
    let address = guest.port.v4()?;
    let [a, b, c, _] = address.octets();
    let router = format!("{a}.{b}.{c}.1");
    report.equal(
        &format!("{name}: address by DHCP"),
        format!("{address}/24"),
        lease.get("ip"),
    );
    report.equal(&format!("{name}: DNS server"), "8.8.4.4", lease.get("dns"));
    report.equal(&format!("{name}: MTU by DHCP"), "1450", lease.get("mtu"));
    let routes = guest.namespace.run("ip route")?;
    let default = format!("default via {router}");
    let has = |route: &str| routes.lines().any(|line| line.starts_with(route));
    let seen = routes.trim().replace('\n', "; ");
    report.check(
        &format!("{name}: default route"),
        &default,
        &seen,
        has(&default),
    );
    if name == "guest1" {
        let route = "10.9.0.0/16 via 192.0.2.254";
        report.check(&format!("{name}: host route"), route, &seen, has(route));
    }
    Ok(())
}
