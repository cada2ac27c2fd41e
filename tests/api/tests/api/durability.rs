//! What was acknowledged is there after kill -9, whole.

use serde_json::json;
use std::collections::BTreeSet;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use weft_tests_api::{PASSWORD, Session, text};

async fn start(folder: &std::path::Path) -> (Child, Session) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weft-api-server"))
        .arg(folder)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the server starts");
    let out = child.stdout.take().expect("its output");
    let line = BufReader::new(out)
        .lines()
        .next_line()
        .await
        .expect("a line");
    let url = line.expect("its URL");
    let admin = Session::login(&reqwest::Client::new(), &url, "admin", PASSWORD, "admin").await;
    (child, admin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_9() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut child, admin) = start(folder.path()).await;
    let (network, _) = admin.network_with_subnet("n", "10.0.0.0/16").await;
    let unlimited = json!({ "quota": { "port": -1 } });
    let path = format!("/v2.0/quotas/{}", admin.project_id);
    assert_eq!(admin.put(&path, &unlimited).await.status, 200);
    let (sender, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    let mut writers = Vec::new();
    for _ in 0..8 {
        let (admin, sender) = (admin.clone(), sender.clone());
        let body =
            json!({ "ports": [{ "network_id": network["id"] }, { "network_id": network["id"] }] });
        // Each ends when the server dies under it.
        writers.push(tokio::spawn(async move {
            loop {
                let made = admin.post("/v2.0/ports", &body).await;
                if made.status == 201 && sender.send(made.body).is_err() {
                    return;
                }
            }
        }));
    }
    drop(sender);
    let mut ids = BTreeSet::new();
    while ids.len() < 100 {
        let made = acknowledged.recv().await.expect("a write");
        ids.extend(
            made["ports"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|port| text(&port["id"])),
        );
    }
    child.kill().await.expect("it dies");
    while let Some(made) = acknowledged.recv().await {
        ids.extend(
            made["ports"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|port| text(&port["id"])),
        );
    }
    for writer in writers {
        assert!(writer.await.is_err(), "a writer ends with its server");
    }

    let (_child, admin) = start(folder.path()).await;
    let ports = admin.list("port", "").await;
    let there: BTreeSet<String> = ports.iter().map(|port| text(&port["id"])).collect();
    assert!(
        ids.is_subset(&there),
        "{} of {} are gone",
        ids.difference(&there).count(),
        ids.len()
    );
    assert_eq!(there.len() % 2, 0, "half a bulk request was written");
    for port in &ports {
        assert_eq!(
            port["fixed_ips"].as_array().expect("a list").len(),
            1,
            "{port}"
        );
        assert_eq!(
            port["security_groups"].as_array().expect("a list").len(),
            1,
            "{port}"
        );
    }
}
