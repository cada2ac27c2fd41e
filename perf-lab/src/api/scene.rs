//! What the load works on: networks, ports and security groups whose names begin with `lab-`.

use super::http::{Client, Target};
use super::load::Requests;
use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A caller that prepares rounds.
pub(crate) struct Scene {
    client: Client,
    made: u32,
}

impl Scene {
    pub(crate) fn new(target: &Target) -> Result<Self> {
        let mut client = Client::new(target);
        client
            .get("/v2.0/networks?limit=1")
            .context("is this a Networking API?")?;
        Ok(Self { client, made: 0 })
    }

    fn create(&mut self, name: &str, path: &str, attributes: &Value) -> Result<String> {
        let made = self.client.post(path, &json!({ name: attributes }))?;
        let id = made[name]["id"].as_str();
        Ok(id.with_context(|| format!("no id of a {name}"))?.to_owned())
    }

    /// A new network with one IPv4 subnet for 65,000 ports; answers its id.
    fn network(&mut self) -> Result<String> {
        self.made += 1;
        let name = format!("lab-{}", self.made);
        let id = self.create("network", "/v2.0/networks", &json!({ "name": name }))?;
        let subnet = json!({ "network_id": id, "ip_version": 4, "cidr": "10.64.0.0/16" });
        self.create("subnet", "/v2.0/subnets", &subnet)?;
        Ok(id)
    }

    /// Some ports in one request.
    pub(crate) fn ports(&mut self, network: &str, count: usize) -> Result<()> {
        let ports = vec![json!({ "network_id": network, "name": "lab" }); count];
        self.client
            .post("/v2.0/ports", &json!({ "ports": ports }))?;
        Ok(())
    }

    /// A new network that holds some ports, made a hundred at a time; answers its id.
    pub(crate) fn network_with_ports(&mut self, count: usize) -> Result<String> {
        let network = self.network()?;
        let mut left = count;
        while left > 0 {
            let now = left.min(100);
            self.ports(&network, now)?;
            left -= now;
        }
        Ok(network)
    }

    /// One network, read again and again.
    pub(crate) fn get_network(&mut self) -> Result<Requests> {
        let network = self.network()?;
        Ok(Box::new(move |_| {
            ("GET", format!("/v2.0/networks/{network}"), String::new())
        }))
    }

    /// Ports on a new subnet.
    pub(crate) fn create_port(&mut self) -> Result<Requests> {
        let network = self.network()?;
        Ok(Box::new(move |n| {
            let body = format!(r#"{{"port":{{"network_id":"{network}","name":"lab-{n}"}}}}"#);
            ("POST", "/v2.0/ports".to_owned(), body)
        }))
    }

    /// Rules of a new group, each for a port number of its own.
    pub(crate) fn create_rule(&mut self) -> Result<Requests> {
        let group = json!({ "name": "lab" });
        let group = self.create("security_group", "/v2.0/security-groups", &group)?;
        Ok(Box::new(move |n| {
            let (protocol, number) = (["tcp", "udp"][usize::from(n >= 65_535)], n % 65_535 + 1);
            let body = format!(
                r#"{{"security_group_rule":{{"security_group_id":"{group}","direction":"ingress","protocol":"{protocol}","port_range_min":{number},"port_range_max":{number}}}}}"#
            );
            ("POST", "/v2.0/security-group-rules".to_owned(), body)
        }))
    }
}
