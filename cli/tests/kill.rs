//! What a real `weft server` acknowledged is there after kill -9, whole: on SQLite and on PostgreSQL, and with another
//! server on the same PostgreSQL that goes on meanwhile.

#![allow(
    clippy::unwrap_used,
    reason = "a test: helpers outside of its functions may panic too"
)]
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::UnboundedSender;
use weft_tests_api::{PASSWORD, Session, postgresql, text};

/// A server as an operator starts it, and its administrator.
async fn start(config: &Path) -> (Child, Session) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["server", "--config"])
        .arg(config)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let url = loop {
        let line = lines.next_line().await.unwrap().expect("it listens");
        if let Some((_, rest)) = line.split_once(" api=") {
            break format!("http://{}", rest.split(' ').next().unwrap());
        }
    };
    // What it says further must not stop it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let admin = Session::login(&reqwest::Client::new(), &url, "admin", PASSWORD, "admin").await;
    (child, admin)
}

/// Makes two ports at a time until the server dies.
async fn writer(admin: Session, network: Value, sender: UnboundedSender<Value>) {
    let body = json!({ "ports": [{ "network_id": network }, { "network_id": network }] });
    loop {
        let made = admin.post("/v2.0/ports", &body).await;
        if made.status == 201 && sender.send(made.body).is_err() {
            return;
        }
    }
}

fn ids(made: &Value) -> impl Iterator<Item = String> {
    let ports = made["ports"].as_array().expect("a list");
    ports.iter().map(|port| text(&port["id"]))
}

/// A configuration on a database, in a folder.
fn configure(store: &str, folder: &Path) -> PathBuf {
    let config = folder.join("weft.toml");
    let listen = "listen = \"127.0.0.1:0\"";
    let toml = format!(
        "[api]\n{listen}\n[feed]\n{listen}\n[store]\n{store}\n[identity]\nadmin_password = \"{PASSWORD}\"\n"
    );
    std::fs::write(&config, toml).unwrap();
    config
}

/// A network on which any number of ports may be made.
async fn network(admin: &Session) -> Value {
    let (network, _) = admin.network_with_subnet("n", "10.0.0.0/16").await;
    let unlimited = json!({ "quota": { "port": -1 } });
    let path = format!("/v2.0/quotas/{}", admin.project_id);
    assert_eq!(admin.put(&path, &unlimited).await.status, 200);
    network["id"].clone()
}

/// Kills a server in a storm of writes, starts it again, and looks at what is there; three times on one database.
async fn storm(store: &str, folder: &Path) {
    let config = configure(store, folder);
    let (mut child, mut admin) = start(&config).await;
    let network = network(&admin).await;
    let mut acknowledged = BTreeSet::new();
    for _ in 0..3 {
        let (sender, mut made) = tokio::sync::mpsc::unbounded_channel();
        let writers: Vec<_> = (0..8)
            .map(|_| writer(admin.clone(), network.clone(), sender.clone()))
            .map(tokio::spawn)
            .collect();
        drop(sender);
        let enough = acknowledged.len() + 100;
        while acknowledged.len() < enough {
            acknowledged.extend(ids(&made.recv().await.expect("a write")));
        }
        // SIGKILL
        child.kill().await.unwrap();
        while let Some(made) = made.recv().await {
            acknowledged.extend(ids(&made));
        }
        for writer in writers {
            assert!(writer.await.is_err(), "a writer ends with its server");
        }
        (child, admin) = start(&config).await;
        whole(&admin, &acknowledged).await;
    }
}

/// All that was acknowledged is there, and nothing is there in part.
async fn whole(admin: &Session, acknowledged: &BTreeSet<String>) {
    let ports = admin.list("port", "").await;
    let there: BTreeSet<String> = ports.iter().map(|port| text(&port["id"])).collect();
    let gone = acknowledged.difference(&there).count();
    assert_eq!(gone, 0, "gone, of {} acknowledged", acknowledged.len());
    assert_eq!(there.len() % 2, 0, "half a bulk request was written");
    let addresses: BTreeSet<String> = ports
        .iter()
        .map(|port| text(&port["fixed_ips"][0]["ip_address"]))
        .collect();
    assert_eq!(
        addresses.len(),
        ports.len(),
        "each has an address of its own"
    );
    for port in &ports {
        let count = |list: &str| port[list].as_array().expect("a list").len();
        assert_eq!(
            (count("fixed_ips"), count("security_groups")),
            (1, 1),
            "{port}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("path = \"{}\"", folder.path().join("weft.sqlite").display());
    storm(&store, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_keeps_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let database = postgresql::Database::create();
    storm(&format!("url = \"{}\"", database.url), folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_servers_on_a_postgresql_is_killed_and_the_other_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let database = postgresql::Database::create();
    let config = configure(&format!("url = \"{}\"", database.url), folder.path());
    let (mut victim, doomed) = start(&config).await;
    let (_survivor, admin) = start(&config).await;
    let network = network(&admin).await;
    let (sender, mut of_victim) = tokio::sync::mpsc::unbounded_channel();
    let writers: Vec<_> = (0..4)
        .map(|_| writer(doomed.clone(), network.clone(), sender.clone()))
        .map(tokio::spawn)
        .collect();
    drop(sender);
    let (sender, mut of_survivor) = tokio::sync::mpsc::unbounded_channel();
    let others: Vec<_> = (0..4)
        .map(|_| writer(admin.clone(), network.clone(), sender.clone()))
        .map(tokio::spawn)
        .collect();
    drop(sender);
    let mut acknowledged = BTreeSet::new();
    while acknowledged.len() < 100 {
        acknowledged.extend(ids(&of_victim.recv().await.expect("a write")));
    }
    victim.kill().await.unwrap();
    while let Some(made) = of_victim.recv().await {
        acknowledged.extend(ids(&made));
    }
    for writer in writers {
        assert!(writer.await.is_err(), "a writer ends with its server");
    }
    // What it was amid holds nobody up: the other writes on.
    while let Ok(made) = of_survivor.try_recv() {
        acknowledged.extend(ids(&made));
    }
    let enough = acknowledged.len() + 100;
    while acknowledged.len() < enough {
        acknowledged.extend(ids(&of_survivor.recv().await.expect("a write")));
    }
    of_survivor.close();
    while let Some(made) = of_survivor.recv().await {
        acknowledged.extend(ids(&made));
    }
    for writer in others {
        writer.await.expect("no request of the other failed");
    }
    whole(&admin, &acknowledged).await;
    let (_again, admin) = start(&config).await;
    whole(&admin, &acknowledged).await;
}
