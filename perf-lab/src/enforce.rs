//! How long a change of policy takes from the API request to the packets: the first that a new rule lets pass, the
//! last that an old one did. A guest sends a datagram every half millisecond all the while.

use crate::figures::{Bar, quantile};
use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use weft_kit::clock;
use weft_kit::weft::WeftOptions;
use weft_kit::{Client, Cloud};
use weft_tests_system::scene::Scene;

/// The port whose rule comes and goes.
const PORT: u16 = 9_999;
/// Rules of the group beside it.
const RULES: usize = 1_000;
/// Rules in one request.
const BULK: usize = 100;
/// Changes measured each way for every round asked for.
const CHANGES_A_ROUND: usize = 8;
/// Half a millisecond between datagrams: the measurement's grain.
const INTERVAL: Duration = Duration::from_micros(500);
/// After so long without a datagram the flow counts as cut.
const QUIET: Duration = Duration::from_millis(120);
const PATIENCE: Duration = Duration::from_secs(5);

/// Datagrams on their way, and when one arrived last.
struct Stream {
    start: Instant,
    last_ns: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    fn start(from: UdpSocket, to: UdpSocket) -> Result<Self> {
        let (start, last_ns) = (clock::now(), Arc::new(AtomicU64::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        to.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (ended, seen) = (Arc::clone(&stop), Arc::clone(&last_ns));
        let receive = move || {
            let mut buffer = [0; 64];
            while !ended.load(Relaxed) {
                if to.recv(&mut buffer).is_ok() {
                    let past = start.elapsed().as_nanos();
                    seen.store(u64::try_from(past).unwrap_or(u64::MAX), Relaxed);
                }
            }
        };
        let ended = Arc::clone(&stop);
        let send = move || {
            while !ended.load(Relaxed) {
                // A send that fails is a datagram that does not arrive: the receiver tells.
                let _ = from.send(b"weft");
                std::thread::park_timeout(INTERVAL);
            }
        };
        let threads = vec![std::thread::spawn(receive), std::thread::spawn(send)];
        Ok(Self {
            start,
            last_ns,
            stop,
            threads,
        })
    }

    fn last(&self) -> Duration {
        Duration::from_nanos(self.last_ns.load(Relaxed))
    }

    /// From `since` until the first datagram arrives.
    fn first_after(&self, since: Duration) -> Result<Duration> {
        while self.last() <= since {
            ensure!(
                self.start.elapsed() < since + PATIENCE,
                "no datagram came after the rule was added"
            );
            std::thread::park_timeout(INTERVAL / 4);
        }
        Ok(self.last() - since)
    }

    /// From `since` until the last datagram arrived; zero if it was before.
    fn last_after(&self, since: Duration) -> Result<Duration> {
        while self.start.elapsed() < self.last().max(since) + QUIET {
            ensure!(
                self.start.elapsed() < since + PATIENCE,
                "datagrams still came after the rule was removed"
            );
            std::thread::park_timeout(INTERVAL);
        }
        Ok(self.last().saturating_sub(since))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

/// The API as one project sees it.
struct Api {
    client: Client,
    cloud: Cloud,
}

impl Api {
    fn quota_lift(&mut self, project: &str) -> Result<()> {
        let path = format!("/v2.0/quotas/{project}");
        let body = json!({ "quota": { "security_group_rule": 20_000 } });
        let (status, answer) =
            self.client
                .request(&self.cloud, &Method::PUT, &path, Some(&body))?;
        ensure!(status == 200, "PUT {path}: {status} {answer}");
        Ok(())
    }

    fn rules_add(&mut self, rules: &[Value]) -> Result<Vec<String>> {
        let body = json!({ "security_group_rules": rules });
        let path = "/v2.0/security-group-rules";
        let (status, answer) =
            self.client
                .request(&self.cloud, &Method::POST, path, Some(&body))?;
        ensure!(status == 201, "POST {path}: {status} {answer}");
        let made = answer["security_group_rules"]
            .as_array()
            .context("no rules in the answer")?;
        Ok(made
            .iter()
            .filter_map(|rule| rule["id"].as_str())
            .map(str::to_owned)
            .collect())
    }

    fn rule_delete(&mut self, id: &str) -> Result<()> {
        let path = format!("/v2.0/security-group-rules/{id}");
        let (status, answer) = self
            .client
            .request(&self.cloud, &Method::DELETE, &path, None)?;
        ensure!(status == 204, "DELETE {path}: {status} {answer}");
        Ok(())
    }
}

fn rule(group: &str, protocol: &str, port: u16, prefix: &str) -> Value {
    json!({
        "security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": protocol,
        "port_range_min": port, "port_range_max": port, "remote_ip_prefix": prefix,
    })
}

/// The two bars of enforcement: see the module's text.
pub(crate) fn bars(rounds: usize) -> Result<Vec<Bar>> {
    let mut scene = Scene::open("weft-bars", &WeftOptions::new(None)?)?;
    let admin = scene.admin.clone();
    scene.network(&admin, "bars", "10.9.0.0/24", "")?;
    scene.openstack(&admin, "security group create bars")?;
    let from = scene.guest(&admin, "bars", "from", "--security-group bars")?;
    let to = scene.guest(&admin, "bars", "to", "--security-group bars")?;
    for guest in [&from, &to] {
        guest.dhcp(&scene.lab)?;
        scene.wait_active(guest)?;
    }
    let group = scene.openstack(&admin, "security group show bars")?;
    let id = group["id"].as_str().context("the group has no id")?;
    let project = group["project_id"]
        .as_str()
        .context("the group has no project")?;
    let mut api = Api {
        client: Client::new(&scene.host)?,
        cloud: admin,
    };
    api.quota_lift(project)?;
    let rules: Vec<Value> = (0..RULES)
        .map(|n| {
            rule(
                id,
                "tcp",
                1_000 + u16::try_from(n).unwrap_or(0),
                &format!("10.{}.{}.0/24", n / 250, n % 250),
            )
        })
        .collect();
    for bulk in rules.chunks(BULK) {
        api.rules_add(bulk)?;
    }
    let source = from.namespace.udp(IpAddr::V4(from.port.v4()?), 0)?;
    let sink = to.namespace.udp(IpAddr::V4(to.port.v4()?), PORT)?;
    source.connect((to.port.v4()?, PORT))?;
    let stream = Stream::start(source, sink)?;
    let (mut added, mut cut) = (Vec::new(), Vec::new());
    let service = rule(id, "udp", PORT, "10.9.0.0/24");
    for _ in 0..rounds.max(1) * CHANGES_A_ROUND {
        let since = stream.start.elapsed();
        let ids = api.rules_add(std::slice::from_ref(&service))?;
        added.push(stream.first_after(since)?.as_secs_f64() * 1e3);
        let since = stream.start.elapsed();
        api.rule_delete(ids.first().context("no rule was made")?)?;
        cut.push(stream.last_after(since)?.as_secs_f64() * 1e3);
    }
    drop(stream);
    scene.close()?;
    Ok(vec![
        milliseconds(
            "a rule added among 1,000: API request → first packet passes",
            added,
        ),
        milliseconds(
            "a rule removed among 1,000: API request → last packet of the flow",
            cut,
        ),
    ])
}

fn milliseconds(name: &str, rounds: Vec<f64>) -> Bar {
    let (median, p99) = (quantile(&rounds, 0.5), quantile(&rounds, 0.99));
    Bar {
        name: name.to_owned(),
        bar: "≤ 50 ms p99".to_owned(),
        figure: format!("p50 {median:.1} ms, p99 {p99:.1} ms of {}", rounds.len()),
        holds: p99 <= 50.0,
        rounds,
    }
}
