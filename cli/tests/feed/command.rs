//! `weft feed`, as an operator runs it on a server.

use super::tls::{named, now};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use weft_control::feed::Authority;
use weft_control::store::{Durability, Store};

/// A configuration whose database is beside it.
fn configured(folder: &Path, more: &str) -> PathBuf {
    let (file, database) = (folder.join("weft.toml"), folder.join("weft.sqlite"));
    let text = format!("[store]\npath = \"{}\"\n{more}", database.display());
    std::fs::write(&file, text).unwrap();
    file
}

fn feed(config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.arg("feed").args(arguments);
    command.arg("--config").arg(config).output().unwrap()
}

fn said(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_database_that_is_missing_is_named_and_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let config = configured(folder.path(), "");
    for command in ["token", "revoke"] {
        let output = feed(&config, &[command, "h1"]);
        let text = said(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(
            text.contains("weft.sqlite is missing") && text.contains("--config"),
            "{text}"
        );
    }
    assert!(!folder.path().join("weft.sqlite").exists());
}

#[tokio::test]
async fn what_is_taken_back_is_counted_and_nothing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weft.sqlite");
    let store = Store::open(&file, Durability::Process, Arc::new(now)).await;
    let store = store.unwrap();
    Authority::open(&store).await.unwrap();
    store.close().await;
    let config = configured(folder.path(), "[feed]\ntls_names = [\"control-1\"]\n");
    let revoke = || feed(&config, &["revoke", "h1"]);
    let nothing = || {
        let output = revoke();
        let text = said(&output.stderr);
        assert!(!output.status.success(), "{text}");
        assert!(
            text.contains("h1 has no certificate and no token"),
            "{text}"
        );
    };
    nothing();
    let token = feed(&config, &["token", "h1"]);
    assert!(token.status.success());
    assert_eq!(said(&token.stderr), "", "there are names");
    let output = revoke();
    assert!(output.status.success());
    assert_eq!(
        said(&output.stdout),
        "0 certificates and 1 token of h1 taken back\n"
    );
    nothing();

    // Without names no host can join by it: it is printed all the same, for who will have them.
    let config = configured(folder.path(), "");
    let token = feed(&config, &["token", named("h1").as_str()]);
    assert!(token.status.success() && !token.stdout.is_empty());
    let text = said(&token.stderr);
    assert!(text.contains("feed.tls_names is empty"), "{text}");
}
