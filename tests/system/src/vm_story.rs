//! The story once more with two virtual machines, on the user engine: DHCP, ping, security groups, a floating IP from outside.
//!
//! Shorter than [`crate::story`]: what is shown is that guests under QEMU see the same network. They are booted by `weft guest run`.

use crate::scene::{ANY, INTERNET, Scene};
use crate::vm::{self, Shell};
use anyhow::{Context, Result};
use serde_json::Value;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Stdio};
use std::time::Duration;
use weft_kit::clock::{now, until};
use weft_kit::guest::PortFacts;
use weft_kit::tcp::{Server, probe};
use weft_kit::{Cloud, Namespace};

const CHAPTERS: usize = 5;
/// A guest under TCG takes its time.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A virtual machine on a port.
struct Machine {
    name: &'static str,
    port: PortFacts,
    child: Child,
    shell: Shell,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Machine {
    /// Its addresses, one of each family.
    fn addresses(&self) -> Result<[IpAddr; 2]> {
        Ok([self.port.v4()?.into(), self.port.v6()?.into()])
    }

    /// Types a line into its shell and shows it.
    fn types(&mut self, scene: &mut Scene, line: &str) -> Result<(Vec<String>, u32)> {
        let start = now();
        let answer = self.shell.tried(line)?;
        scene.report.command(self.name, line, start.elapsed());
        Ok(answer)
    }

    fn pings(&mut self, scene: &mut Scene, to: impl Display, ttl: &str) -> Result<()> {
        let (lines, status) = self.types(scene, &format!("ping -c 2 -W 5 {to}"))?;
        let seen = lines.iter().find_map(|line| {
            let (_, rest) = line.split_once("ttl=")?;
            rest.split_whitespace().next()
        });
        let what = format!("{} reaches {to}, TTL", self.name);
        let seen = seen.filter(|_| status == 0).unwrap_or("no answer");
        scene.report.equal(&what, ttl, seen);
        Ok(())
    }
}

/// Plays all of it. What fails is in the scene's report.
///
/// # Errors
/// A chapter could not go on.
pub fn play(scene: &mut Scene) -> Result<()> {
    scene
        .report
        .chapter(1, CHAPTERS, "Networks, a router with a gateway, two ports");
    let user = networks(scene)?;
    scene
        .report
        .chapter(2, CHAPTERS, "Two virtual machines boot by vhost-user");
    let mut machines = Vec::new();
    for (name, network) in [("vm1", "net1"), ("vm2", "net2")] {
        machines.push(boot(scene, &user, name, network)?);
    }
    let [one, two] = machines.as_mut_slice() else {
        anyhow::bail!("two machines")
    };
    for machine in [&mut *one, &mut *two] {
        address(scene, machine)?;
    }
    scene
        .report
        .chapter(3, CHAPTERS, "East-west across the router, and out by SNAT");
    for (to, back) in two.addresses()?.into_iter().zip(one.addresses()?) {
        one.pings(scene, to, "63")?;
        two.pings(scene, back, "63")?;
    }
    let outside = scene.outside.clone();
    let _internet = Server::start(&outside, "internet", ANY, 80)?;
    seen_outside(scene, one, None)?;

    scene.report.chapter(
        4,
        CHAPTERS,
        "Nothing comes in, until rules and a floating IP let it in",
    );
    for port in [22, 23] {
        // As the kit's servers greet, but that nc does not know whom it sees.
        let serve = format!("(while true; do echo vm1 sees 0.0.0.0:0 | nc -l -p {port}; done) &");
        one.shell.tell(&serve)?;
        scene.report.command(one.name, &serve, Duration::ZERO);
    }
    let (floating, rule) = floating_ip(scene, &user, &outside)?;
    seen_outside(scene, one, Some(floating))?;
    greets(scene, &outside, SocketAddr::new(floating, 22), true)?;
    greets(scene, &outside, SocketAddr::new(floating, 23), false)?;

    scene
        .report
        .chapter(5, CHAPTERS, "A rule goes, and its traffic with it");
    scene.openstack(&user, &format!("security group rule delete {rule}"))?;
    scene.ping_fails("outside", &outside, floating)?;
    for to in two.addresses()? {
        one.pings(scene, to, "63")?;
    }
    Ok(())
}

fn networks(scene: &mut Scene) -> Result<Cloud> {
    let user = scene.project("demo")?;
    scene.external_network()?;
    scene.network(&user, "net1", "192.0.2.0/24", "")?;
    scene.network(&user, "net2", "198.51.100.0/24", "")?;
    for (network, range) in [
        ("net1", "fd00:192:0:2::/64"),
        ("net2", "fd00:198:51:100::/64"),
    ] {
        let subnet = format!(
            "subnet create --network {network} --ip-version 6 --ipv6-ra-mode slaac --ipv6-address-mode slaac \
             --subnet-range {range} {network}-v6"
        );
        scene.openstack(&user, &subnet)?;
    }
    scene.openstack(&user, "router create router1")?;
    for subnet in ["net1-v4", "net1-v6", "net2-v4", "net2-v6"] {
        scene.openstack(&user, &format!("router add subnet router1 {subnet}"))?;
    }
    scene.openstack(&user, "router set --external-gateway provider1 router1")?;
    Ok(user)
}

fn boot(scene: &mut Scene, user: &Cloud, name: &'static str, network: &str) -> Result<Machine> {
    let admin = scene.admin.clone();
    scene.openstack(user, &format!("port create --network {network} {name}"))?;
    let bind = format!("port set --host {} {name}", scene.site.name);
    scene.openstack(&admin, &bind)?;
    let port = scene.openstack(&admin, &format!("port show {name}"))?;
    let kind = port["binding_vif_type"]
        .as_str()
        .or_else(|| port["binding:vif_type"].as_str());
    scene.report.equal(
        &format!("how {name} is plugged in"),
        "vhostuser",
        kind.unwrap_or("?"),
    );
    let port = PortFacts::from_json(&port)?;
    until("the port to turn ACTIVE", TIMEOUT, || {
        let status = scene.site.ask("status")?;
        let ports = status["ports"].as_array().cloned().unwrap_or_default();
        let active =
            |have: &Value| have["port_id"] == port.id.as_str() && have["status"] == "ACTIVE";
        Ok(ports.iter().any(active).then_some(()))
    })
    .with_context(|| scene.site.log_end())?;
    let start = now();
    let line = format!("guest run {}", port.id);
    let mut command = scene.site.command(&line)?;
    command
        .arg("--socket")
        .arg(&scene.site.socket)
        .arg("--image")
        .arg(vm::image()?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().context("weft guest run")?;
    let input = child.stdin.take().context("piped")?;
    let output = child.stdout.take().context("piped")?;
    let mut machine = Machine {
        name,
        port,
        child,
        shell: Shell::new(input, output),
    };
    machine.shell.booted()?;
    let line = format!("weft {line}");
    scene.report.command("host", &line, start.elapsed());
    Ok(machine)
}

fn address(scene: &mut Scene, machine: &mut Machine) -> Result<()> {
    machine.types(scene, "udhcpc -i eth0 -n -q -t 10 -T 1 -s /bin/dhcp-bound")?;
    let (lines, _) = machine.types(scene, "ip -4 -o address show dev eth0")?;
    let has = lines.iter().find_map(|line| {
        let (_, rest) = line.split_once("inet ")?;
        rest.split_whitespace().next()
    });
    let wanted = format!("{}/24", machine.port.v4()?);
    let what = format!("{} got its address by DHCP", machine.name);
    scene.report.equal(&what, wanted, has.unwrap_or("none"));
    // Router advertisements are answered while it boots; duplicate address detection takes a second.
    let v6 = machine.port.v6()?;
    let line = "for try in 1 2 3 4 5 6 7 8 9 10; do ip -6 -o address show dev eth0 | grep global | grep -vq tentative && break; \
                sleep 1; done; ip -6 -o address show dev eth0 | grep global";
    let (lines, _) = machine.types(scene, line)?;
    let has = lines.iter().find_map(|line| {
        let (_, rest) = line.split_once("inet6 ")?;
        rest.split_whitespace().next()
    });
    let what = format!("{} made its own address by SLAAC", machine.name);
    scene
        .report
        .equal(&what, format!("{v6}/64"), has.unwrap_or("none"));
    Ok(())
}

/// Opens a connection to the outside, which says whom it sees: the floating IP, or the router's gateway.
fn seen_outside(scene: &mut Scene, machine: &mut Machine, floating: Option<IpAddr>) -> Result<()> {
    let line = format!("nc -w 5 {INTERNET} 80 </dev/null | head -n 1");
    let (lines, _) = machine.types(scene, &line)?;
    let said = lines.join(" ");
    let gateway = floating.is_none();
    let wanted = floating.map_or_else(|| "203.0.113.".to_owned(), |ip| format!("{ip}:"));
    let what = format!(
        "outside sees {} as {}",
        machine.name,
        if gateway {
            "the router's gateway"
        } else {
            "its floating IP"
        }
    );
    let holds = said.contains(&format!("internet sees {wanted}"));
    scene.report.check(&what, wanted, &said, holds);
    Ok(())
}

/// The floating IP of vm1, and the rule that lets ICMP in.
fn floating_ip(scene: &mut Scene, user: &Cloud, outside: &Namespace) -> Result<(IpAddr, String)> {
    let made = scene.openstack(user, "floating ip create --port vm1 provider1")?;
    let address = made["floating_ip_address"].as_str();
    let floating: IpAddr = address.context("no floating IP address")?.parse()?;
    scene.ping_fails("outside", outside, floating)?;
    let icmp = "security group rule create --protocol icmp default";
    let rule = scene.openstack(user, icmp)?;
    let rule = rule["id"].as_str().context("a rule without id")?.to_owned();
    let ssh = "security group rule create --protocol tcp --dst-port 22 default";
    scene.openstack(user, ssh)?;
    scene.settle(outside, floating)?;
    scene.ping_passes("outside", outside, floating, 63)?;
    Ok((floating, rule))
}

/// Whether the guest's server answers.
fn greets(scene: &mut Scene, from: &Namespace, to: SocketAddr, answers: bool) -> Result<()> {
    let probed = probe(from, to)?;
    let wanted = if answers { "vm1's server" } else { "silence" };
    let holds = probed.is_from("vm1") == answers;
    let what = format!("outside asks {to}");
    scene.report.check(&what, wanted, probed, holds);
    Ok(())
}
