//! What the suites want of a cloud before they start: an external network, and default subnet pools.

use anyhow::{Context, Result, bail};
use reqwest::blocking::{Client, RequestBuilder};
use serde_json::{Value, json};

/// An administrator's session.
pub(crate) struct Cloud {
    /// Keystone's address, ending in `/v3`.
    pub(crate) auth_url: String,
    network: String,
    token: String,
    http: Client,
}

impl Cloud {
    /// Logs in at the server's own identity.
    pub(crate) fn login(api: &str, password: &str) -> Result<Self> {
        let auth_url = format!("{api}/identity/v3");
        let http = Client::new();
        let domain = json!({ "id": "default" });
        let user = json!({ "name": "admin", "password": password, "domain": domain });
        let body = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": user } },
            "scope": { "project": { "name": "admin", "domain": domain } },
        } });
        let response = http
            .post(format!("{auth_url}/auth/tokens"))
            .json(&body)
            .send()?;
        let token = response.headers().get("x-subject-token").cloned();
        let Some(token) = token else {
            bail!("no token for the administrator: {}", response.text()?);
        };
        Ok(Self {
            auth_url,
            network: format!("{api}/v2.0"),
            token: token.to_str()?.to_owned(),
            http,
        })
    }

    fn send(&self, request: RequestBuilder) -> Result<Value> {
        let response = request.header("x-auth-token", &self.token).send()?;
        let (status, url) = (response.status(), response.url().clone());
        let text = response.text()?;
        if !status.is_success() {
            bail!("{url}: {status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("{url}: {text}"))
    }

    fn create(&self, collection: &str, resource: &str, body: &Value) -> Result<String> {
        let url = format!("{}/{collection}", self.network);
        let made = self.send(self.http.post(url).json(&json!({ resource: body })))?;
        let id = made[resource]["id"].as_str();
        Ok(id.context("a resource without an id")?.to_owned())
    }

    /// The aliases of what the server says it can do, in order.
    pub(crate) fn extensions(&self) -> Result<Vec<String>> {
        let answer = self.send(self.http.get(format!("{}/extensions", self.network)))?;
        let list = answer["extensions"]
            .as_array()
            .context("no list of extensions")?;
        let aliases = list.iter().filter_map(|entry| entry["alias"].as_str());
        let mut aliases: Vec<String> = aliases.map(str::to_owned).collect();
        aliases.sort();
        Ok(aliases)
    }

    /// Makes what the suites want; the external network's id.
    pub(crate) fn prepare(&self, extensions: &[String]) -> Result<String> {
        let has = |alias: &str| extensions.iter().any(|have| have == alias);
        let mut network = json!({
            "name": "public",
            "router:external": true,
            "provider:network_type": "flat",
            "provider:physical_network": "public",
        });
        if has("auto-allocated-topology") {
            network["is_default"] = json!(true);
        }
        let public = self.create("networks", "network", &network)?;
        for (name, version, cidr, gateway) in [
            ("public-v4", 4, "172.24.0.0/20", "172.24.0.1"),
            ("public-v6", 6, "2001:db8:ffff::/64", "2001:db8:ffff::1"),
        ] {
            let subnet = json!({
                "name": name,
                "network_id": public,
                "ip_version": version,
                "cidr": cidr,
                "gateway_ip": gateway,
                "enable_dhcp": false,
            });
            self.create("subnets", "subnet", &subnet)?;
        }
        if has("default-subnetpools") {
            for (name, prefix, length) in [
                ("default-v4", "10.128.0.0/14", 26),
                ("default-v6", "fd00:128::/48", 64),
            ] {
                let pool = json!({
                    "name": name,
                    "is_default": true,
                    "shared": true,
                    "prefixes": [prefix],
                    "default_prefixlen": length,
                });
                self.create("subnetpools", "subnetpool", &pool)?;
            }
        }
        Ok(public)
    }
}
