//! The feed over TLS: who joins, who is let in, and who is not any more.

use super::{Agent, Control, DEADLINE};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use weft_agent::feed::{FeedConfig, FeedStatus};
use weft_control::feed::Authority;
use weft_control::store::{Durability, Store};
use weft_model::HostName;

const HOUR: Duration = Duration::from_secs(3_600);

#[allow(
    clippy::disallowed_methods,
    reason = "certificates are checked against the real time"
)]
pub(super) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_micros()).unwrap()
}

async fn control(folder: &Path) -> (Control, Authority) {
    let file = folder.join("weft.sqlite");
    let store = Store::open(&file, Durability::Process, Arc::new(now)).await;
    let store = store.unwrap();
    let authority = Authority::open(&store).await.unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let control = Control::serve(store, address, Some(authority.clone())).await;
    (control, authority)
}

pub(super) fn named(name: &str) -> HostName {
    name.parse().unwrap()
}

fn agent(control: &Control, name: &str, folder: &Path) -> Agent {
    let url = format!("https://{}", control.address);
    let mut config = FeedConfig::new(url, named(name));
    config.identity_folder = folder.to_owned();
    Agent::with(config)
}

fn give(folder: &Path, token: &str) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("token"), format!("{token}\n")).unwrap();
}

async fn refused(agent: &mut Agent, why: &str) {
    let mut last = String::new();
    let refused = |status: &FeedStatus| {
        assert!(!status.connected, "let in");
        last = status.error.clone().unwrap_or_default();
        last.contains(why)
    };
    let waited = timeout(DEADLINE, agent.status.wait_for(refused))
        .await
        .is_ok();
    assert!(waited, "{why:?} was never said: {last}");
    assert!(agent.snapshots.borrow().is_none(), "it was told something");
}

async fn end(agent: Agent) {
    agent.shutdown.cancel();
    timeout(DEADLINE, agent.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_host_joins_by_a_token_and_is_told_of_its_duty_and_of_no_other_host_s() {
    let folder = tempfile::tempdir().unwrap();
    let (control, authority) = control(folder.path()).await;
    let (first, _) = control.port(1).await;
    let one = folder.path().join("h1");
    let mut host = agent(&control, "h1", &one);
    refused(&mut host, "").await;

    give(&one, &authority.token(&named("h1"), HOUR).await.unwrap());
    let duty = host.knows(first).await;
    host.enforce(&duty).await;
    let enforced = control.hub.enforced(&named("h1"), duty.revision).unwrap();
    timeout(DEADLINE, enforced).await.unwrap();
    assert_eq!(control.status(first).await, "ACTIVE");
    assert!(!one.join("token").exists(), "a token is used once");
    end(host).await;

    // It starts again with what it kept, and renews that.
    let kept = std::fs::read(one.join("identity.json")).unwrap();
    let mut host = agent(&control, "h1", &one);
    host.knows(first).await;
    timeout(DEADLINE, async {
        while std::fs::read(one.join("identity.json")).unwrap() == kept {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("renewed in time");
    end(host).await;

    // The same certificate opens no other host's feed.
    let mut other = agent(&control, "h2", &one);
    refused(&mut other, "403").await;
    end(other).await;
    control.stop().await;
}

#[tokio::test]
async fn tokens_count_once_for_one_host_and_for_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let (control, authority) = control(folder.path()).await;
    let (first, _) = control.port(1).await;
    let token = authority.token(&named("h1"), HOUR).await.unwrap();
    let (one, two) = (folder.path().join("h1"), folder.path().join("h2"));

    // Another host's, one that is over, one of another cloud, and what is no token.
    let over = authority.token(&named("h2"), Duration::ZERO).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let (foreign, strangers) = self::control(elsewhere.path()).await;
    let strange = strangers.token(&named("h2"), HOUR).await.unwrap();
    for bad in [&token, &over, &strange, "nonsense"] {
        give(&two, bad);
        let mut host = agent(&control, "h2", &two);
        refused(&mut host, "").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!two.join("identity.json").exists(), "{bad}");
        end(host).await;
    }

    // It still counts for its own host: another one's try did not use it up. After that it is nothing.
    give(&one, &token);
    let mut host = agent(&control, "h1", &one);
    host.knows(first).await;
    end(host).await;
    std::fs::remove_file(one.join("identity.json")).unwrap();
    give(&one, &token);
    let mut host = agent(&control, "h1", &one);
    refused(&mut host, "").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!one.join("identity.json").exists());
    end(host).await;
    foreign.stop().await;
    control.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_taken_back_ends_the_stream_and_opens_none() {
    let folder = tempfile::tempdir().unwrap();
    let (control, authority) = control(folder.path()).await;
    let (first, _) = control.port(1).await;
    let one = folder.path().join("h1");
    give(&one, &authority.token(&named("h1"), HOUR).await.unwrap());
    let mut host = agent(&control, "h1", &one);
    let duty = host.knows(first).await;

    let revoked = authority.revoke(&named("h1")).await.unwrap();
    assert!(revoked.certificates >= 1);
    let cut = |status: &FeedStatus| !status.connected;
    timeout(DEADLINE, host.status.wait_for(cut))
        .await
        .unwrap()
        .unwrap();
    let denied = |status: &FeedStatus| status.error.as_ref().is_some_and(|e| e.contains("403"));
    timeout(DEADLINE, host.status.wait_for(denied))
        .await
        .unwrap()
        .unwrap();
    let (second, _) = control.port(2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        host.snapshots.borrow().as_ref(),
        Some(&duty),
        "the last duty stays"
    );

    // With a new token it is a host again, without a restart.
    give(&one, &authority.token(&named("h1"), HOUR).await.unwrap());
    host.knows(second).await;
    end(host).await;
    control.stop().await;
}

#[tokio::test]
async fn a_stranger_without_tls_or_with_another_authority_learns_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (control, _authority) = control(folder.path()).await;
    control.port(1).await;
    let mut config = FeedConfig::new(format!("http://{}", control.address), named("h1"));
    config.identity_folder = folder.path().to_owned();
    let mut plain = Agent::with(config);
    refused(&mut plain, "cannot be reached").await;
    end(plain).await;

    let elsewhere = tempfile::tempdir().unwrap();
    let (foreign, strangers) = self::control(elsewhere.path()).await;
    let one = elsewhere.path().join("h1");
    give(&one, &strangers.token(&named("h1"), HOUR).await.unwrap());
    let mut host = agent(&foreign, "h1", &one);
    let connected = |status: &FeedStatus| status.connected;
    timeout(DEADLINE, host.status.wait_for(connected))
        .await
        .unwrap()
        .unwrap();
    end(host).await;
    // It joined there; here its certificate is nobody's, and this server's is not trusted.
    let mut host = agent(&control, "h1", &one);
    refused(&mut host, "certificate").await;
    end(host).await;
    foreign.stop().await;
    control.stop().await;
}
