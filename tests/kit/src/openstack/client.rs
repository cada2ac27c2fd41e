//! The kit's own client: the lines that the scripts need, over the same HTTP requests that the stock client sends.
//!
//! An option that it does not know is refused, so that no line silently means less here than to the stock client.

use super::line::{Line, pairs};
use super::{Cloud, Operator};
use crate::namespace::Namespace;
use anyhow::{Context, Result, bail};
use reqwest::Method;
use reqwest::blocking::Client as Http;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the API may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client inside one namespace, which logs in once for each user and project.
#[derive(Debug)]
pub struct Client {
    http: Http,
    logins: BTreeMap<Cloud, Login>,
}

#[derive(Clone, Debug)]
struct Login {
    token: String,
    network: String,
    identity: String,
}

impl Client {
    /// A client whose connections are made inside `namespace`.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn new(namespace: &Namespace) -> Result<Self> {
        // Its connections are made by a thread of its own, which it starts now and which stays where it was started.
        let http = namespace.enter(|| Http::builder().timeout(ANSWER_TIMEOUT).build())??;
        Ok(Self {
            http,
            logins: BTreeMap::new(),
        })
    }

    /// One request to the Networking API (`/v2.0/…`): its status and body, whatever they are.
    ///
    /// # Errors
    /// No login, or no answer.
    pub fn request(
        &mut self,
        cloud: &Cloud,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value)> {
        let login = self.login(cloud)?;
        self.send(&login, method, &format!("{}{path}", login.network), body)
    }

    /// One resource by GET.
    ///
    /// # Errors
    /// No answer, or another status than 200.
    pub fn get(&mut self, cloud: &Cloud, path: &str) -> Result<Value> {
        self.call(cloud, &Method::GET, path, None)
    }

    pub(super) fn call(
        &mut self,
        cloud: &Cloud,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let login = self.login(cloud)?;
        let base = if path.starts_with("/v2.0") {
            &login.network
        } else {
            &login.identity
        };
        let (status, answer) = self.send(&login, method, &format!("{base}{path}"), body)?;
        if !(200..300).contains(&status) {
            let error = answer.as_object().and_then(|object| object.values().next());
            let message = error
                .and_then(|error| error["message"].as_str())
                .unwrap_or_default();
            bail!("{method} {path}: {status} {message}");
        }
        Ok(answer)
    }

    fn send(
        &self,
        login: &Login,
        method: &Method,
        url: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value)> {
        let mut request = self
            .http
            .request(method.clone(), url)
            .header("X-Auth-Token", &login.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().with_context(|| url.to_owned())?;
        let status = response.status().as_u16();
        let text = response.text()?;
        let answer = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).with_context(|| format!("{url}: not JSON: {text}"))?
        };
        Ok((status, answer))
    }

    /// Logs in by password (Keystone v3) and reads the catalogue.
    fn login(&mut self, cloud: &Cloud) -> Result<Login> {
        if let Some(login) = self.logins.get(cloud) {
            return Ok(login.clone());
        }
        let domain = json!({"name": "Default"});
        let user = json!({"name": cloud.username, "password": cloud.password, "domain": domain});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": cloud.project, "domain": domain}},
        }});
        let url = format!("{}/auth/tokens", cloud.auth_url);
        let response = self
            .http
            .post(&url)
            .json(&body)
            .send()
            .with_context(|| url.clone())?;
        let status = response.status();
        let token = response.headers().get("X-Subject-Token").cloned();
        let text = response.text()?;
        let token = token
            .with_context(|| format!("{url}: {status}: no token for {}: {text}", cloud.username))?;
        let answer: Value = serde_json::from_str(&text)?;
        let login = Login {
            token: token.to_str()?.to_owned(),
            network: endpoint(&answer["token"]["catalog"], "network")?,
            identity: endpoint(&answer["token"]["catalog"], "identity")?,
        };
        self.logins.insert(cloud.clone(), login.clone());
        Ok(login)
    }

    /// The id of the resource that has this name, or this id.
    pub(super) fn find(&mut self, cloud: &Cloud, collection: &str, name: &str) -> Result<String> {
        let path = match collection {
            "projects" | "users" | "roles" => format!("/{collection}?name={name}"),
            "floatingips" => format!("/v2.0/floatingips?floating_ip_address={name}"),
            _ => format!("/v2.0/{}?name={name}", collection.replace('_', "-")),
        };
        if name.len() == 36 && name.matches('-').count() == 4 {
            return Ok(name.to_owned());
        }
        let answer = self.get(cloud, &path)?;
        match answer[collection].as_array().map(Vec::as_slice) {
            Some([one]) => Ok(one["id"]
                .as_str()
                .context("a resource without id")?
                .to_owned()),
            Some([]) | None => bail!("no {name} among {collection}"),
            Some(_) => bail!("more than one {name} among {collection}"),
        }
    }

    pub(super) fn create(&mut self, cloud: &Cloud, resource: &str, body: &Value) -> Result<Value> {
        let plural = if resource.ends_with('y') {
            format!("{}ies", resource.trim_end_matches('y'))
        } else {
            format!("{resource}s")
        };
        let path = match resource {
            "project" | "user" => format!("/{plural}"),
            _ => format!("/v2.0/{}", plural.replace('_', "-")),
        };
        let answer = self.call(cloud, &Method::POST, &path, Some(&json!({resource: body})))?;
        Ok(answer[resource].clone())
    }

    fn network_create(&mut self, cloud: &Cloud, line: &Line) -> Result<Value> {
        let mut body = json!({"name": line.name(2)?});
        if line.has("transparent-vlan") {
            body["vlan_transparent"] = json!(true);
        }
        if line.has("external") {
            body["router:external"] = json!(true);
        }
        if line.has("share") {
            body["shared"] = json!(true);
        }
        if line.has("disable-port-security") {
            body["port_security_enabled"] = json!(false);
        }
        for (option, field) in [
            ("provider-network-type", "provider:network_type"),
            ("provider-physical-network", "provider:physical_network"),
        ] {
            if let Some(value) = line.get(option) {
                body[field] = json!(value);
            }
        }
        for (option, field) in [
            ("mtu", "mtu"),
            ("provider-segment", "provider:segmentation_id"),
        ] {
            if let Some(number) = line.get(option) {
                body[field] = json!(number.parse::<u32>()?);
            }
        }
        self.create(cloud, "network", &body)
    }

    fn subnet_create(&mut self, cloud: &Cloud, line: &Line) -> Result<Value> {
        let network = line.get("network").context("--network is missing")?;
        let ip_version: u8 = line.get("ip-version").unwrap_or("4").parse()?;
        let mut body = json!({
            "name": line.name(2)?,
            "network_id": self.find(cloud, "networks", network)?,
            "ip_version": ip_version,
            "cidr": line.get("subnet-range").context("--subnet-range is missing")?,
            "enable_dhcp": !line.has("no-dhcp"),
        });
        match line.get("gateway") {
            None | Some("auto") => {}
            Some("none") => body["gateway_ip"] = Value::Null,
            Some(address) => body["gateway_ip"] = json!(address),
        }
        for (option, field) in [
            ("ipv6-ra-mode", "ipv6_ra_mode"),
            ("ipv6-address-mode", "ipv6_address_mode"),
        ] {
            if let Some(value) = line.get(option) {
                body[field] = json!(value);
            }
        }
        let pools: Result<Vec<Value>> =
            line.all("allocation-pool").into_iter().map(pairs).collect();
        let pools = pools?;
        if !pools.is_empty() {
            body["allocation_pools"] = json!(pools);
        }
        let servers = line.all("dns-nameserver");
        if !servers.is_empty() {
            body["dns_nameservers"] = json!(servers);
        }
        let mut routes = Vec::new();
        for route in line.all("host-route") {
            let route = pairs(route)?;
            routes.push(json!({"destination": route["destination"], "nexthop": route["gateway"]}));
        }
        if !routes.is_empty() {
            body["host_routes"] = json!(routes);
        }
        self.create(cloud, "subnet", &body)
    }

    fn port_create(&mut self, cloud: &Cloud, line: &Line) -> Result<Value> {
        let network = line.get("network").context("--network is missing")?;
        let mut body =
            json!({"name": line.name(2)?, "network_id": self.find(cloud, "networks", network)?});
        let mut fixed_ips = Vec::new();
        for fixed_ip in line.all("fixed-ip") {
            let pair = pairs(fixed_ip)?;
            let mut entry = json!({});
            if let Some(subnet) = pair["subnet"].as_str() {
                entry["subnet_id"] = json!(self.find(cloud, "subnets", subnet)?);
            }
            if let Some(address) = pair["ip-address"].as_str() {
                entry["ip_address"] = json!(address);
            }
            fixed_ips.push(entry);
        }
        if !fixed_ips.is_empty() {
            body["fixed_ips"] = json!(fixed_ips);
        }
        if let Some(mac) = line.get("mac-address") {
            body["mac_address"] = json!(mac);
        }
        self.port_common(cloud, line, &mut body)?;
        self.create(cloud, "port", &body)
    }

    /// What `port create` and `port set` share.
    fn port_common(&mut self, cloud: &Cloud, line: &Line, body: &mut Value) -> Result<()> {
        let mut groups = Vec::new();
        for group in line.all("security-group") {
            groups.push(self.find(cloud, "security_groups", group)?);
        }
        if !groups.is_empty() || line.has("no-security-group") {
            body["security_groups"] = json!(groups);
        }
        if line.has("disable-port-security") {
            body["port_security_enabled"] = json!(false);
        }
        if line.has("enable-port-security") {
            body["port_security_enabled"] = json!(true);
        }
        if line.has("enable") || line.has("disable") {
            body["admin_state_up"] = json!(line.has("enable"));
        }
        if let Some(host) = line.get("host") {
            body["binding:host_id"] = json!(host);
        }
        let pairs: Result<Vec<Value>> =
            line.all("allowed-address").into_iter().map(pairs).collect();
        let addresses: Vec<Value> = pairs?.iter().map(allowed_address).collect();
        if !addresses.is_empty() {
            body["allowed_address_pairs"] = json!(addresses);
        }
        Ok(())
    }

    fn port_set(&mut self, cloud: &Cloud, line: &Line) -> Result<Value> {
        let id = self.find(cloud, "ports", line.name(2)?)?;
        let mut body = json!({});
        self.port_common(cloud, line, &mut body)?;
        self.call(
            cloud,
            &Method::PUT,
            &format!("/v2.0/ports/{id}"),
            Some(&json!({"port": body})),
        )?;
        Ok(Value::Null)
    }

    fn router_set(&mut self, cloud: &Cloud, line: &Line) -> Result<Value> {
        let id = self.find(cloud, "routers", line.name(2)?)?;
        let mut body = json!({});
        if let Some(network) = line.get("external-gateway") {
            let network_id = self.find(cloud, "networks", network)?;
            body["external_gateway_info"] = json!({"network_id": network_id});
            if line.has("disable-snat") || line.has("enable-snat") {
                body["external_gateway_info"]["enable_snat"] = json!(line.has("enable-snat"));
            }
        }
        if line.has("enable") || line.has("disable") {
            body["admin_state_up"] = json!(line.has("enable"));
        }
        let path = format!("/v2.0/routers/{id}");
        self.call(cloud, &Method::PUT, &path, Some(&json!({"router": body})))?;
        Ok(Value::Null)
    }

    fn router_subnet(&mut self, cloud: &Cloud, line: &Line) -> Result<Value> {
        let [_, verb, _, router, subnet] = line.words[..] else {
            bail!("expected ROUTER SUBNET")
        };
        let router_id = self.find(cloud, "routers", router)?;
        let body = json!({"subnet_id": self.find(cloud, "subnets", subnet)?});
        let path = format!("/v2.0/routers/{router_id}/{verb}_router_interface");
        self.call(cloud, &Method::PUT, &path, Some(&body))?;
        Ok(Value::Null)
    }

    fn security_group_rule_create(&mut self, cloud: &Cloud, line: &Line) -> Result<Value> {
        let group = self.find(cloud, "security_groups", line.name(4)?)?;
        let ipv6 = match line.get("ethertype") {
            Some(ethertype) => ethertype == "IPv6",
            None => line
                .get("protocol")
                .is_some_and(|protocol| protocol.contains("ipv6")),
        };
        let mut body = json!({
            "security_group_id": group,
            "direction": if line.has("egress") { "egress" } else { "ingress" },
            "ethertype": if ipv6 { "IPv6" } else { "IPv4" },
        });
        if let Some(protocol) = line.get("protocol").filter(|protocol| *protocol != "any") {
            body["protocol"] = json!(protocol);
        }
        if let Some(ports) = line.get("dst-port") {
            let (first, last) = ports.split_once(':').unwrap_or((ports, ports));
            body["port_range_min"] = json!(first.parse::<u16>()?);
            body["port_range_max"] = json!(last.parse::<u16>()?);
        }
        if let Some(remote) = line.get("remote-group") {
            body["remote_group_id"] = json!(self.find(cloud, "security_groups", remote)?);
        } else {
            // The stock client writes the whole range out.
            let all = if ipv6 { "::/0" } else { "0.0.0.0/0" };
            body["remote_ip_prefix"] = json!(line.get("remote-ip").unwrap_or(all));
        }
        self.create(cloud, "security_group_rule", &body)
    }

    fn floating_ip(&mut self, cloud: &Cloud, line: &Line) -> Result<Value> {
        let port_id = match line.get("port").filter(|port| !port.is_empty()) {
            Some(port) => json!(self.find(cloud, "ports", port)?),
            None => Value::Null,
        };
        if line.words[2] == "create" {
            let network = self.find(cloud, "networks", line.name(3)?)?;
            let mut body = json!({"floating_network_id": network});
            if !port_id.is_null() {
                body["port_id"] = port_id;
            }
            return self.create(cloud, "floatingip", &body);
        }
        let id = self.find(cloud, "floatingips", line.name(3)?)?;
        let body = json!({"floatingip": {"port_id": port_id}});
        self.call(
            cloud,
            &Method::PUT,
            &format!("/v2.0/floatingips/{id}"),
            Some(&body),
        )?;
        Ok(Value::Null)
    }

    fn user_create(&mut self, cloud: &Cloud, line: &Line) -> Result<Value> {
        let mut body = json!({"name": line.name(2)?, "domain_id": "default", "enabled": true});
        if let Some(project) = line.get("project") {
            body["default_project_id"] = json!(self.find(cloud, "projects", project)?);
        }
        body["password"] = json!(line.get("password").context("--password is missing")?);
        self.create(cloud, "user", &body)
    }

    fn role_add(&mut self, cloud: &Cloud, line: &Line) -> Result<Value> {
        let project = line.get("project").context("--project is missing")?;
        let project = self.find(cloud, "projects", project)?;
        let user = self.find(
            cloud,
            "users",
            line.get("user").context("--user is missing")?,
        )?;
        let role = self.find(cloud, "roles", line.name(2)?)?;
        let path = format!("/projects/{project}/users/{user}/roles/{role}");
        self.call(cloud, &Method::PUT, &path, None)
    }

    /// `RESOURCE show|delete NAME`.
    fn show_or_delete(&mut self, cloud: &Cloud, line: &Line) -> Result<Value> {
        let Some(verb) = line
            .words
            .iter()
            .position(|word| matches!(*word, "show" | "delete"))
        else {
            bail!("this client knows no `openstack {}`", line.words.join(" "));
        };
        let noun = line.words[..verb].join("_");
        let noun = match noun.as_str() {
            "floating_ip" => "floatingip".to_owned(),
            "network_trunk" => "trunk".to_owned(),
            _ => noun,
        };
        let id = self.find(cloud, &format!("{noun}s"), line.name(verb + 1)?)?;
        let path = format!("/v2.0/{}s/{id}", noun.replace('_', "-"));
        if line.words[verb] == "delete" {
            return self
                .call(cloud, &Method::DELETE, &path, None)
                .map(|_| Value::Null);
        }
        Ok(self.get(cloud, &path)?[&noun].clone())
    }
}

impl Operator for Client {
    fn is_quick(&self) -> bool {
        true
    }

    fn openstack(&mut self, cloud: &Cloud, line: &str) -> Result<Value> {
        let line = &Line::parse(line)?;
        if let Some(unknown) = line
            .option_names()
            .find(|name| !KNOWN_OPTIONS.contains(name))
        {
            bail!("this client knows no --{unknown}");
        }
        match line.words[..] {
            ["network", "create", ..] => self.network_create(cloud, line),
            ["subnet", "create", ..] => self.subnet_create(cloud, line),
            ["port", "create", ..] => self.port_create(cloud, line),
            ["port", "set", ..] => self.port_set(cloud, line),
            ["router", "create", name] => self.create(cloud, "router", &json!({"name": name})),
            ["router", "set", ..] => self.router_set(cloud, line),
            ["router", "add" | "remove", "subnet", ..] => self.router_subnet(cloud, line),
            ["security", "group", "create", name] => {
                self.create(cloud, "security_group", &json!({"name": name}))
            }
            ["security", "group", "rule", "create", ..] => {
                self.security_group_rule_create(cloud, line)
            }
            ["floating", "ip", "port", "forwarding", "create", ..] => {
                self.port_forwarding_create(cloud, line)
            }
            ["network", "trunk", "create", ..] => self.trunk_create(cloud, line),
            ["floating", "ip", "create" | "set" | "unset", ..] => self.floating_ip(cloud, line),
            ["project", "create", name] => {
                let body = json!({"name": name, "domain_id": "default", "enabled": true});
                self.create(cloud, "project", &body)
            }
            ["user", "create", ..] => self.user_create(cloud, line),
            ["role", "add", ..] => self.role_add(cloud, line),
            _ => self.show_or_delete(cloud, line),
        }
    }
}

/// What some command of this client reads; all else is refused.
const KNOWN_OPTIONS: &[&str] = &[
    "allocation-pool",
    "allowed-address",
    "disable",
    "disable-port-security",
    "disable-snat",
    "dns-nameserver",
    "dst-port",
    "egress",
    "enable",
    "enable-port-security",
    "enable-snat",
    "ethertype",
    "external",
    "external-gateway",
    "external-protocol-port",
    "fixed-ip",
    "gateway",
    "host",
    "host-route",
    "ingress",
    "internal-ip-address",
    "internal-protocol-port",
    "ip-version",
    "ipv6-address-mode",
    "ipv6-ra-mode",
    "mac-address",
    "mtu",
    "network",
    "no-dhcp",
    "no-security-group",
    "parent-port",
    "password",
    "port",
    "project",
    "protocol",
    "provider-network-type",
    "provider-physical-network",
    "provider-segment",
    "remote-group",
    "remote-ip",
    "security-group",
    "share",
    "subnet-range",
    "subport",
    "transparent-vlan",
    "user",
];

fn allowed_address(pair: &Value) -> Value {
    let mut entry = json!({"ip_address": pair["ip-address"]});
    if let Some(mac) = pair["mac-address"].as_str() {
        entry["mac_address"] = json!(mac);
    }
    entry
}

/// The public address of a service, without a version at its end (identity: with `/v3`).
fn endpoint(catalog: &Value, service: &str) -> Result<String> {
    let entries = catalog.as_array().context("the token has no catalogue")?;
    let entry = entries.iter().find(|entry| entry["type"] == service);
    let endpoints = entry.and_then(|entry| entry["endpoints"].as_array());
    let public = endpoints.and_then(|all| all.iter().find(|one| one["interface"] == "public"));
    let url = public.and_then(|one| one["url"].as_str());
    let url = url.with_context(|| format!("the catalogue has no public {service}"))?;
    let url = url.trim_end_matches('/');
    if service == "identity" {
        return Ok(format!("{}/v3", url.trim_end_matches("/v3")));
    }
    Ok(url.trim_end_matches("/v2.0").to_owned())
}
