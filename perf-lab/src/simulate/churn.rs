//! Steady changes by the API, each of which waits until every host that it concerns enforces it.

use super::cloud::{Project, host};
use crate::api::http::{Client, Target};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What a change waits for at most.
const WAIT: &str = "wait_for=enforced&wait_timeout=10";

/// Milliseconds from each request to its answer.
#[derive(Debug, Default)]
pub(crate) struct Churn {
    pub(crate) port_ms: Vec<f64>,
    pub(crate) member_ms: Vec<f64>,
    pub(crate) rule_ms: Vec<f64>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "the lab measures time, and paces what it does"
)]
fn now() -> Instant {
    Instant::now()
}

/// Makes ports, moves them to another group, gives a group a rule, and takes all of it back, at `per_s` changes a second
/// for `time`. `progress` is told how many are done.
pub(crate) fn run(
    target: &Target,
    projects: &[Project],
    hosts: u32,
    (per_s, time): (f64, Duration),
    progress: impl Fn(usize),
) -> Result<Churn> {
    let mut client = Client::new(target);
    let mut churn = Churn::default();
    let start = now();
    let mut done = 0;
    for (turn, project) in (0u32..).zip(projects.iter().cycle()) {
        if start.elapsed() >= time {
            break;
        }
        let body = json!({ "port": {
            "network_id": project.network, "security_groups": [], "port_security_enabled": true,
            "device_owner": "compute:nova", "binding:host_id": host(turn * 131 % hosts),
        } });
        let mut caller = Caller {
            client: &mut client,
            start,
            per_s,
            done: &mut done,
        };
        let port = caller.change("POST", "/v2.0/ports", &body, &mut churn.port_ms)?;
        let port = id_of(&port, "port")?;
        let path = format!("/v2.0/ports/{port}");
        let body = json!({ "port": { "security_groups": [project.group] } });
        caller.change("PUT", &path, &body, &mut churn.member_ms)?;
        let body = json!({ "security_group_rule": {
            "security_group_id": project.group, "direction": "ingress", "protocol": "tcp",
            "port_range_min": turn % 60_000 + 1, "port_range_max": turn % 60_000 + 1,
        } });
        let rule = caller.change(
            "POST",
            "/v2.0/security-group-rules",
            &body,
            &mut churn.rule_ms,
        )?;
        let rule = id_of(&rule, "security_group_rule")?;
        let path_of_rule = format!("/v2.0/security-group-rules/{rule}");
        caller.change("DELETE", &path_of_rule, &Value::Null, &mut churn.rule_ms)?;
        caller.change("DELETE", &path, &Value::Null, &mut churn.port_ms)?;
        progress(done);
    }
    Ok(churn)
}

struct Caller<'a> {
    client: &'a mut Client,
    start: Instant,
    per_s: f64,
    done: &'a mut usize,
}

impl Caller<'_> {
    /// One change, when its time has come.
    #[allow(
        clippy::disallowed_methods,
        clippy::cast_precision_loss,
        reason = "the lab paces what it does, by a count far below 2^52"
    )]
    fn change(
        &mut self,
        method: &str,
        path: &str,
        body: &Value,
        ms: &mut Vec<f64>,
    ) -> Result<Value> {
        let due = Duration::from_secs_f64(*self.done as f64 / self.per_s);
        std::thread::sleep(due.saturating_sub(self.start.elapsed()));
        *self.done += 1;
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let sent = now();
        let answer = self.client.send(method, &format!("{path}?{WAIT}"), &body)?;
        ms.push(sent.elapsed().as_secs_f64() * 1_000.0);
        ensure!(
            answer.enforced != Some(false),
            "{method} {path}: a host did not enforce it in time"
        );
        answer.ok().with_context(|| format!("{method} {path}"))
    }
}

fn id_of(body: &Value, name: &str) -> Result<String> {
    let id = body[name]["id"].as_str();
    Ok(id.with_context(|| format!("no id of a {name}"))?.to_owned())
}
