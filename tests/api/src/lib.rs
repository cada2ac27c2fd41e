//! A real server on loopback with a database of its own, and sessions that speak to it by HTTP.
//!
//! Guarantees: every test has its own server, port and database, so that all run beside each other; all is gone when the
//! [`Api`] is dropped. The database is SQLite's, or PostgreSQL's if the environment says `WEFT_TEST_STORE=postgresql`.

pub mod postgresql;

use serde_json::{Value, json};
use std::net::SocketAddr;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use weft_control::{Control, ControlConfig, Database};

/// The administrator's password in tests.
pub const PASSWORD: &str = "secret";

/// A new database, gone with this value.
pub enum Storage {
    /// SQLite, in a folder.
    Sqlite(TempDir),
    /// PostgreSQL.
    Postgresql(postgresql::Database),
}

impl Storage {
    /// The kind that the environment asks for.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn create() -> Self {
        match std::env::var("WEFT_TEST_STORE").as_deref() {
            Ok("postgresql") => Self::Postgresql(postgresql::Database::create()),
            other => {
                let known = matches!(other, Ok("sqlite") | Err(_));
                assert!(known, "WEFT_TEST_STORE: sqlite or postgresql");
                Self::Sqlite(tempfile::tempdir().expect("a folder"))
            }
        }
    }

    /// For a server's configuration.
    pub fn database(&self) -> Database {
        match self {
            Self::Sqlite(folder) => Database::Sqlite(folder.path().join("weft.sqlite")),
            Self::Postgresql(database) => Database::Postgresql(database.url.clone()),
        }
    }
}

/// A configuration on free ports.
///
/// # Panics
/// Never: loopback is an address.
pub fn config(storage: &Storage) -> ControlConfig {
    let mut config = ControlConfig {
        api_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        feed_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        database: storage.database(),
        ..ControlConfig::default()
    };
    config.identity.admin_password = Some(PASSWORD.to_owned());
    config
}

/// A running server.
pub struct Api {
    /// Where it is.
    pub url: String,
    /// Where agents find the feed.
    pub feed_url: String,
    client: reqwest::Client,
    shutdown: CancellationToken,
    /// Dropped last.
    #[allow(dead_code, reason = "it is there to be dropped")]
    storage: Option<Storage>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Api {
    /// Starts a server.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// Starts a server with another configuration.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_with(change: impl FnOnce(&mut ControlConfig)) -> Self {
        let storage = Storage::create();
        let mut config = config(&storage);
        change(&mut config);
        let mut api = Self::start_configured(config).await;
        api.storage = Some(storage);
        api
    }

    /// Starts a server on a database that others may use too.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_on(storage: &Storage) -> Self {
        Self::start_configured(config(storage)).await
    }

    async fn start_configured(config: ControlConfig) -> Self {
        let control = Control::bind(config).await.expect("the server starts");
        let url = format!("http://{}", control.api_address());
        let feed_url = format!("http://{}", control.feed_address());
        let shutdown = CancellationToken::new();
        tokio::spawn(control.run(shutdown.clone()));
        Self {
            url,
            feed_url,
            client: reqwest::Client::new(),
            shutdown,
            storage: None,
        }
    }

    /// The administrator, in the project `admin`.
    ///
    /// # Panics
    /// If the login is refused.
    pub async fn admin(&self) -> Session {
        Session::login(&self.client, &self.url, "admin", PASSWORD, "admin").await
    }

    /// A new user with a role in a project, which is made if it is missing.
    ///
    /// # Panics
    /// If anything is refused.
    pub async fn user(&self, project: &str, role: &str) -> Session {
        let admin = self.admin().await;
        let new = json!({ "project": { "name": project } });
        admin.post("/identity/v3/projects", &new).await;
        let projects = admin
            .get(&format!("/identity/v3/projects?name={project}"))
            .await
            .ok();
        let project_id = text(&projects["projects"][0]["id"]);
        let name = format!("{project}-{role}");
        let new = json!({ "user": { "name": name, "password": "pw" } });
        let user = admin.post("/identity/v3/users", &new).await.expect(201);
        let roles = admin
            .get(&format!("/identity/v3/roles?name={role}"))
            .await
            .ok();
        let path = format!(
            "/identity/v3/projects/{project_id}/users/{}/roles/{}",
            text(&user["user"]["id"]),
            text(&roles["roles"][0]["id"])
        );
        admin.put(&path, &Value::Null).await.expect(204);
        Session::login(&self.client, &self.url, &name, "pw", project).await
    }

    /// An agent, as far as HTTP goes: the same client at the feed's address.
    #[must_use]
    pub fn agent(&self) -> Session {
        Session {
            url: self.feed_url.clone(),
            ..self.anonymous()
        }
    }

    /// Lets a host's agent report once, and answers the host's agents as the API then shows them: the Weft agent, the
    /// L3 agent and the DHCP agent.
    ///
    /// # Panics
    /// If the report is refused.
    pub async fn host(&self, host: &str, physical_networks: &[&str]) -> [Value; 3] {
        let (agent, admin) = (self.agent(), self.admin().await);
        let epoch = agent.get("/feed/v1/hosts").await.ok()["epoch"].clone();
        let report = json!({
            "host": host, "epoch": epoch, "revision": 0, "ports": [], "full": true,
            "physical_networks": physical_networks,
        });
        let path = format!("/feed/v1/hosts/{host}/report");
        agent.post(&path, &report).await.expect(204);
        let query = format!("host={host}&sort_key=agent_type&sort_dir=desc");
        loop {
            let agents = admin.list("agent", &query).await;
            let known = |agent: &Value| {
                agent["configurations"]["physical_networks"] == json!(physical_networks)
            };
            if let (true, Ok(agents)) = (agents.first().is_some_and(known), agents.try_into()) {
                return agents;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Somebody without a token.
    pub fn anonymous(&self) -> Session {
        Session {
            client: self.client.clone(),
            url: self.url.clone(),
            token: String::new(),
            project_id: String::new(),
        }
    }
}

/// A status and a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body; null for none.
    pub body: Value,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
}

impl Answer {
    /// The body, if the status is this one.
    ///
    /// # Panics
    /// If it is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// The body, if the status is 200.
    ///
    /// # Panics
    /// If it is another.
    #[track_caller]
    pub fn ok(self) -> Value {
        self.expect(200)
    }

    /// Fails unless it is an error of Neutron's form with this status and type; answers the message.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn error(self, status: u16, kind: &str) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(
            text(&self.body["NeutronError"]["type"]),
            kind,
            "{}",
            self.body
        );
        text(&self.body["NeutronError"]["message"])
    }

    /// A header's value; empty if it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The first Warning header; empty if there is none.
    #[must_use]
    pub fn warning(&self) -> &str {
        self.header("warning")
    }
}

/// A text in a JSON value.
///
/// # Panics
/// If it is none.
#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// A resource's plural.
fn plural(name: &str) -> String {
    match name.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{name}s"),
    }
}

/// The path of a resource's collection.
fn path_of(name: &str) -> String {
    format!("/v2.0/{}", plural(name).replace('_', "-"))
}

/// Somebody with a token.
#[derive(Clone)]
pub struct Session {
    client: reqwest::Client,
    url: String,
    /// The token.
    pub token: String,
    /// The project it is for.
    pub project_id: String,
}

impl Session {
    /// Logs in with a password.
    ///
    /// # Panics
    /// If the login is refused.
    pub async fn login(
        client: &reqwest::Client,
        url: &str,
        user: &str,
        password: &str,
        project: &str,
    ) -> Self {
        let domain = json!({ "id": "default" });
        let body = json!({ "auth": {
            "identity": {
                "methods": ["password"],
                "password": { "user": { "name": user, "domain": domain, "password": password } },
            },
            "scope": { "project": { "name": project, "domain": domain } },
        } });
        let path = format!("{url}/identity/v3/auth/tokens");
        let response = client
            .post(path)
            .json(&body)
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 201, "login of {user}");
        let header = response.headers().get("x-subject-token").expect("a token");
        let token = header.to_str().expect("a text").to_owned();
        let body: Value = response.json().await.expect("JSON");
        let project_id = text(&body["token"]["project"]["id"]);
        Self {
            client: client.clone(),
            url: url.to_owned(),
            token,
            project_id,
        }
    }

    /// The same caller, who speaks to another server.
    #[must_use]
    pub fn at(&self, api: &Api) -> Self {
        Self {
            url: api.url.clone(),
            ..self.clone()
        }
    }

    /// Sends bytes.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn send(&self, method: &str, path: &str, body: Vec<u8>) -> Answer {
        self.send_with(method, path, body, &[]).await
    }

    /// Sends bytes with headers.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn send_with(
        &self,
        method: &str,
        path: &str,
        body: Vec<u8>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let method = method.parse().expect("a method");
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.url))
            .body(body);
        if !self.token.is_empty() {
            request = request.header("x-auth-token", &self.token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = response.bytes().await.expect("a body");
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer {
            status,
            body,
            headers,
        }
    }

    /// GET, answered as it comes.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn open(&self, path: &str) -> reqwest::Response {
        let request = self.client.get(format!("{}{path}", self.url));
        let request = request.header("x-auth-token", &self.token);
        request.send().await.expect("an answer")
    }

    /// GET
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, Vec::new()).await
    }

    /// POST
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, body.to_string().into_bytes()).await
    }

    /// PUT
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, body.to_string().into_bytes()).await
    }

    /// DELETE
    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, Vec::new()).await
    }

    /// POST of one resource, by its name in bodies; answers what is in the envelope.
    ///
    /// # Panics
    /// If it is refused.
    #[track_caller]
    pub fn create(&self, name: &str, attributes: Value) -> impl Future<Output = Value> + use<'_> {
        let path = path_of(name);
        let name = name.to_owned();
        async move {
            let body = json!({ name.as_str(): attributes });
            self.post(&path, &body).await.expect(201)[&name].clone()
        }
    }

    /// POST of one resource that is to be refused.
    pub async fn create_refused(&self, name: &str, attributes: Value) -> Answer {
        self.post(&path_of(name), &json!({ name: attributes }))
            .await
    }

    /// GET of one resource.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn show(&self, name: &str, id: &Value) -> Value {
        let path = format!("{}/{}", path_of(name), text(id));
        self.get(&path).await.ok()[name].clone()
    }

    /// PUT of one resource.
    pub async fn update(&self, name: &str, id: &Value, attributes: Value) -> Answer {
        let path = format!("{}/{}", path_of(name), text(id));
        self.put(&path, &json!({ name: attributes })).await
    }

    /// DELETE of one resource.
    pub async fn remove(&self, name: &str, id: &Value) -> Answer {
        self.delete(&format!("{}/{}", path_of(name), text(id)))
            .await
    }

    /// GET of a collection with a query; answers the list.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn list(&self, name: &str, query: &str) -> Vec<Value> {
        let path = format!("{}?{query}", path_of(name));
        let body = self.get(&path).await.ok();
        body[plural(name)].as_array().expect("a list").clone()
    }

    /// A network with an IPv4 subnet; answers both.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn network_with_subnet(&self, name: &str, cidr: &str) -> (Value, Value) {
        let network = self.create("network", json!({ "name": name })).await;
        let subnet = json!({ "network_id": network["id"], "ip_version": 4, "cidr": cidr });
        let subnet = self.create("subnet", subnet).await;
        (network, subnet)
    }

    /// An external network with its subnet 203.0.113.0/24; answers both.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn external_network(&self) -> (Value, Value) {
        let network = json!({
            "name": "provider1",
            "router:external": true,
            "provider:network_type": "flat",
            "provider:physical_network": "provider",
        });
        let network = self.create("network", network).await;
        let subnet = json!({
            "network_id": network["id"],
            "ip_version": 4,
            "cidr": "203.0.113.0/24",
            "enable_dhcp": false,
        });
        let subnet = self.create("subnet", subnet).await;
        (network, subnet)
    }
}
