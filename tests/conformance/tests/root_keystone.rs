//! Weft with the tokens of a real Keystone: who is let in, as what, and for how long after Keystone has changed its mind.
//!
//! It needs no root, but PyPI, as all that CI's root profile runs may.

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use weft_tests_conformance::cloud::{Cloud, Scope};
use weft_tests_conformance::keystone::Keystone;
use weft_tests_conformance::server::{PASSWORD, Server, program};

/// Seconds for which Weft remembers Keystone's word in this test.
const TOKEN_CACHE_S: u32 = 1;
/// Looks at a condition, and between two of them: the cache's second, and nine more for a machine that is busy.
const LOOKS: usize = 200;
const PAUSE: Duration = Duration::from_millis(50);

fn networks(cloud: &Cloud) -> Result<(u16, Value)> {
    cloud.network(Method::GET, "/networks", None)
}

/// Waits until the API answers this session with `status`.
fn until_status(cloud: &Cloud, status: u16) -> Result<()> {
    for _ in 0..LOOKS {
        if networks(cloud)?.0 == status {
            return Ok(());
        }
        std::thread::park_timeout(PAUSE);
    }
    ensure!(networks(cloud)?.0 == status, "still not {status}");
    Ok(())
}

#[test]
fn tokens_are_keystones() -> Result<()> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = tempfile::tempdir()?;
    let keystone = Keystone::start(cache, &folder.path().join("keystone"))?;
    keystone.prepare()?;
    let weft = program(None)?;
    let server = Server::start(&weft, folder.path(), &keystone.config(TOKEN_CACHE_S))?;
    let url = keystone.url.clone();
    let login = |user: &str, scope| Cloud::login(&url, &server.api, user, PASSWORD, scope);

    registered(&keystone, &weft, folder.path(), &server.api)?;
    let admin = login("admin", Scope::Project("admin"))?;
    for (user, project, role) in [
        ("owner", "one", "member"),
        ("watcher", "one", "reader"),
        ("other", "two", "member"),
    ] {
        admin.user(user, PASSWORD, project, role)?;
    }
    let owner = login("owner", Scope::Project("one"))?;
    roles_decide(
        &admin,
        &owner,
        &login("watcher", Scope::Project("one"))?,
        &login("other", Scope::Project("two"))?,
    )?;

    let id = |list: &Value| list[0]["id"].as_str().map(str::to_owned).context("no id");
    let users = admin.identity(Method::GET, "/users?name=admin", None)?;
    let roles = admin.identity(Method::GET, "/roles?name=admin", None)?;
    let (user, role) = (id(&users["users"])?, id(&roles["roles"])?);
    let path = format!("/domains/default/users/{user}/roles/{role}");
    admin.identity(Method::PUT, &path, None)?;
    for scope in [Scope::System, Scope::Domain] {
        assert_eq!(networks(&login("admin", scope)?)?.0, 403, "{scope:?}");
    }

    // What Keystone takes back is refused after the cache's second.
    let revoked = login("owner", Scope::Project("one"))?;
    assert_eq!(networks(&revoked)?.0, 200);
    revoked.revoke()?;
    until_status(&revoked, 401)?;
    assert_eq!(
        networks(&owner)?.0,
        200,
        "the user's other token is still good"
    );
    let users = admin.identity(Method::GET, "/users?name=owner", None)?;
    let user = id(&users["users"])?;
    let disable = json!({ "user": { "enabled": false } });
    admin.identity(Method::PATCH, &format!("/users/{user}"), Some(&disable))?;
    until_status(&owner, 401)?;

    // Without Keystone nobody is let in, and nobody is told that the token is bad.
    drop(keystone);
    until_status(&admin, 503)?;
    server.stop()
}

/// The command makes the catalogue's entries once.
fn registered(keystone: &Keystone, weft: &Path, folder: &Path, api: &str) -> Result<()> {
    let config = folder.join("weft.toml");
    let made = keystone.register(weft, &config, api)?;
    assert_eq!(made.lines().count(), 4, "{made}");
    let again = keystone.register(weft, &config, api)?;
    assert!(again.contains("stands in the catalogue already"), "{again}");
    let moved = keystone.register(weft, &config, "http://127.0.0.1:1")?;
    assert_eq!(moved.matches("changed the").count(), 3, "{moved}");
    keystone.register(weft, &config, api)?;
    let admin = Cloud::admin(&keystone.url, api, PASSWORD)?;
    let endpoints = admin.identity(Method::GET, "/endpoints", None)?;
    let list = endpoints["endpoints"].as_array().context("no list")?;
    let ours = list.iter().filter(|endpoint| endpoint["url"] == api);
    assert_eq!(ours.count(), 3, "{endpoints}");
    Ok(())
}

/// Owner, reader of the same project, and a stranger.
fn roles_decide(admin: &Cloud, owner: &Cloud, reader: &Cloud, other: &Cloud) -> Result<()> {
    let new = json!({ "network": { "name": "of-one" } });
    assert_eq!(
        reader.network(Method::POST, "/networks", Some(&new))?.0,
        403
    );
    let (status, made) = owner.network(Method::POST, "/networks", Some(&new))?;
    assert_eq!(status, 201, "{made}");
    let id = made["network"]["id"].as_str().context("no id")?;
    let path = format!("/networks/{id}");
    for (session, status) in [(admin, 200), (owner, 200), (reader, 200), (other, 404)] {
        assert_eq!(session.network(Method::GET, &path, None)?.0, status);
    }
    assert_eq!(other.network(Method::DELETE, &path, None)?.0, 404);
    assert_eq!(reader.network(Method::DELETE, &path, None)?.0, 403);
    let of_another =
        json!({ "network": { "name": "x", "project_id": "0123456789abcdef0123456789abcdef" } });
    // As Neutron: it is the request that is wrong.
    assert_eq!(
        owner
            .network(Method::POST, "/networks", Some(&of_another))?
            .0,
        400
    );
    assert_eq!(
        admin
            .network(Method::POST, "/networks", Some(&of_another))?
            .0,
        201
    );
    Ok(())
}
