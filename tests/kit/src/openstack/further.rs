//! The kit's own client for what few scripts need: lines for port forwardings and trunks, and requests for what has no line.

use super::Cloud;
use super::client::Client;
use super::line::{Line, pairs};
use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};

impl Client {
    /// Makes a resource, and waits until the hosts concerned enforce it.
    ///
    /// # Errors
    /// Refused, or no host enforces it in time.
    pub fn post(&mut self, cloud: &Cloud, path: &str, body: &Value) -> Result<Value> {
        self.call(cloud, &Method::POST, &enforced(path), Some(body))
    }

    /// Changes one, likewise.
    ///
    /// # Errors
    /// As [`Client::post`].
    pub fn put(&mut self, cloud: &Cloud, path: &str, body: &Value) -> Result<Value> {
        self.call(cloud, &Method::PUT, &enforced(path), Some(body))
    }

    /// Removes one, likewise.
    ///
    /// # Errors
    /// As [`Client::post`].
    pub fn delete(&mut self, cloud: &Cloud, path: &str) -> Result<()> {
        let gone = self.call(cloud, &Method::DELETE, &enforced(path), None);
        gone.map(drop)
    }

    /// `floating ip port forwarding create … FLOATING_IP`.
    pub(super) fn port_forwarding_create(&mut self, cloud: &Cloud, line: &Line) -> Result<Value> {
        let needed = |option: &'static str| {
            let value = line.get(option);
            value.with_context(|| format!("--{option} is missing"))
        };
        let floating_ip = self.find(cloud, "floatingips", line.name(5)?)?;
        let range = |ports: &str| match ports.split_once(':') {
            Some(_) => ports.to_owned(),
            None => format!("{ports}:{ports}"),
        };
        let body = json!({"port_forwarding": {
            "protocol": needed("protocol")?,
            "internal_port_id": self.find(cloud, "ports", needed("port")?)?,
            "internal_ip_address": needed("internal-ip-address")?,
            "internal_port_range": range(needed("internal-protocol-port")?),
            "external_port_range": range(needed("external-protocol-port")?),
        }});
        let path = format!("/v2.0/floatingips/{floating_ip}/port_forwardings");
        let answer = self.call(cloud, &Method::POST, &path, Some(&body))?;
        Ok(answer["port_forwarding"].clone())
    }

    /// `network trunk create --parent-port PORT [--subport port=…,segmentation-type=vlan,segmentation-id=…]… NAME`.
    pub(super) fn trunk_create(&mut self, cloud: &Cloud, line: &Line) -> Result<Value> {
        let parent = line
            .get("parent-port")
            .context("--parent-port is missing")?;
        let mut sub_ports = Vec::new();
        for subport in line.all("subport") {
            let pair = pairs(subport)?;
            let port = pair["port"].as_str().context("a subport without port=")?;
            let number = pair["segmentation-id"].as_str();
            let number: u16 = number
                .context("a subport without segmentation-id=")?
                .parse()?;
            sub_ports.push(json!({
                "port_id": self.find(cloud, "ports", port)?,
                "segmentation_type": pair["segmentation-type"],
                "segmentation_id": number,
            }));
        }
        let body = json!({
            "name": line.name(3)?,
            "port_id": self.find(cloud, "ports", parent)?,
            "sub_ports": sub_ports,
        });
        self.create(cloud, "trunk", &body)
    }
}

fn enforced(path: &str) -> String {
    format!("{path}?wait_for=enforced")
}
