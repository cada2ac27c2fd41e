//! Sessions at a cloud, and what the suites want of it before they start: an external network, and default subnet pools.

use anyhow::{Context, Result, bail};
use reqwest::Method;
use reqwest::blocking::{Client, RequestBuilder};
use serde_json::{Value, json};

/// What a token is for.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// A project of the default domain, by name.
    Project(&'a str),
    /// The default domain.
    Domain,
    /// The whole cloud.
    System,
}

/// Somebody's session.
pub struct Cloud {
    /// Keystone's address, ending in `/v3`.
    pub auth_url: String,
    /// The token.
    pub token: String,
    network: String,
    http: Client,
}

impl Cloud {
    /// Logs in as the administrator.
    ///
    /// # Errors
    /// The login is refused.
    pub fn admin(auth_url: &str, api: &str, password: &str) -> Result<Self> {
        Self::login(auth_url, api, "admin", password, Scope::Project("admin"))
    }

    /// Logs in as anybody of the default domain.
    ///
    /// # Errors
    /// The login is refused.
    pub fn login(
        auth_url: &str,
        api: &str,
        user: &str,
        password: &str,
        scope: Scope<'_>,
    ) -> Result<Self> {
        let http = Client::new();
        let domain = json!({ "id": "default" });
        let scope = match scope {
            Scope::Project(name) => json!({ "project": { "name": name, "domain": domain } }),
            Scope::Domain => json!({ "domain": domain }),
            Scope::System => json!({ "system": { "all": true } }),
        };
        let proof = json!({ "name": user, "password": password, "domain": domain });
        let body = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": proof } },
            "scope": scope,
        } });
        let response = http
            .post(format!("{auth_url}/auth/tokens"))
            .json(&body)
            .send()?;
        let token = response.headers().get("x-subject-token").cloned();
        let Some(token) = token else {
            bail!("no token for {user}: {}", response.text()?);
        };
        Ok(Self {
            auth_url: auth_url.to_owned(),
            network: format!("{api}/v2.0"),
            token: token.to_str()?.to_owned(),
            http,
        })
    }

    /// A request to the Networking API (`/networks`): its status and body; null for none.
    ///
    /// # Errors
    /// No answer.
    pub fn network(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value)> {
        let url = format!("{}{path}", self.network);
        self.answer(self.http.request(method, url), body)
    }

    /// A request to Keystone (`/projects`), which must succeed.
    ///
    /// # Errors
    /// No answer, or a bad one.
    pub fn identity(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("{}{path}", self.auth_url);
        let (status, answer) = self.answer(self.http.request(method, &url), body)?;
        if !(200..300).contains(&status) {
            bail!("{url}: {status}: {answer}");
        }
        Ok(answer)
    }

    /// Revokes its token.
    ///
    /// # Errors
    /// Keystone refuses.
    pub fn revoke(&self) -> Result<()> {
        let url = format!("{}/auth/tokens", self.auth_url);
        let request = self.http.delete(url).header("x-subject-token", &self.token);
        let (status, answer) = self.answer(request, None)?;
        if status != 204 {
            bail!("the token is not revoked: {status}: {answer}");
        }
        Ok(())
    }

    fn answer(&self, request: RequestBuilder, body: Option<&Value>) -> Result<(u16, Value)> {
        let mut request = request.header("x-auth-token", &self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send()?;
        let (status, url) = (response.status().as_u16(), response.url().clone());
        let text = response.text()?;
        if text.is_empty() {
            return Ok((status, Value::Null));
        }
        let body = serde_json::from_str(&text).with_context(|| format!("{url}: {text}"))?;
        Ok((status, body))
    }

    fn create(&self, collection: &str, resource: &str, body: &Value) -> Result<String> {
        let body = json!({ resource: body });
        let (status, made) = self.network(Method::POST, &format!("/{collection}"), Some(&body))?;
        match made[resource]["id"].as_str() {
            Some(id) if status == 201 => Ok(id.to_owned()),
            _ => bail!("{collection}: {status}: {made}"),
        }
    }

    /// The aliases of what the server says it can do, in order.
    ///
    /// # Errors
    /// No answer, or a bad one.
    pub fn extensions(&self) -> Result<Vec<String>> {
        let (status, answer) = self.network(Method::GET, "/extensions", None)?;
        let list = answer["extensions"].as_array();
        let list = list.with_context(|| format!("extensions: {status}: {answer}"))?;
        let aliases = list.iter().filter_map(|entry| entry["alias"].as_str());
        let mut aliases: Vec<String> = aliases.map(str::to_owned).collect();
        aliases.sort();
        Ok(aliases)
    }

    /// Makes a user of the default domain with a role in a project (made if it is missing); needs an administrator.
    ///
    /// # Errors
    /// Keystone refuses.
    pub fn user(&self, name: &str, password: &str, project: &str, role: &str) -> Result<String> {
        let id = |value: &Value| value["id"].as_str().map(str::to_owned).context("no id");
        let found = self.identity(Method::GET, &format!("/projects?name={project}"), None)?;
        let project = match found["projects"].get(0) {
            Some(project) => id(project)?,
            None => {
                let new = json!({ "project": { "name": project, "domain_id": "default" } });
                id(&self.identity(Method::POST, "/projects", Some(&new))?["project"])?
            }
        };
        let new = json!({ "user": { "name": name, "password": password, "domain_id": "default" } });
        let user = id(&self.identity(Method::POST, "/users", Some(&new))?["user"])?;
        let roles = self.identity(Method::GET, &format!("/roles?name={role}"), None)?;
        let role = id(&roles["roles"][0])?;
        let path = format!("/projects/{project}/users/{user}/roles/{role}");
        self.identity(Method::PUT, &path, None)?;
        Ok(user)
    }

    /// Makes what the suites want; the external network's id.
    ///
    /// # Errors
    /// Something is refused.
    pub fn prepare(&self, extensions: &[String]) -> Result<String> {
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
