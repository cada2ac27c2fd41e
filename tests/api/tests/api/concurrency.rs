//! Many callers at once.

use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use weft_tests_api::{Api, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_address_is_given_twice() {
    let api = Api::start().await;
    let admin = api.admin().await;
    let (network, _) = admin.network_with_subnet("n", "192.0.2.0/26").await;
    let new = json!({ "port": { "network_id": network["id"] } });
    // 61 addresses, 100 callers.
    let answers = join_all((0..100).map(|_| admin.post("/v2.0/ports", &new))).await;
    let made: Vec<&Value> = answers
        .iter()
        .filter(|a| a.status == 201)
        .map(|a| &a.body)
        .collect();
    let addresses: BTreeSet<String> = made
        .iter()
        .map(|body| text(&body["port"]["fixed_ips"][0]["ip_address"]))
        .collect();
    let macs: BTreeSet<String> = made
        .iter()
        .map(|body| text(&body["port"]["mac_address"]))
        .collect();
    assert_eq!((made.len(), addresses.len(), macs.len()), (61, 61, 61));
    assert!(answers.iter().all(|a| a.status == 201 || a.status == 409));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_default_group_whoever_comes_first() {
    let api = Api::start().await;
    let member = api.user("p1", "member").await;
    let lists = join_all((0..16).map(|_| member.list("security_group", ""))).await;
    let ids: BTreeSet<String> = lists
        .iter()
        .flatten()
        .map(|group| text(&group["id"]))
        .collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_holds_against_a_crowd() {
    let api = Api::start().await;
    let (admin, member) = (api.admin().await, api.user("p1", "member").await);
    let quota = json!({ "quota": { "network": 5 } });
    let path = format!("/v2.0/quotas/{}", member.project_id);
    assert_eq!(admin.put(&path, &quota).await.status, 200);
    let new = json!({ "network": {} });
    let answers = join_all((0..20).map(|_| member.post("/v2.0/networks", &new))).await;
    assert_eq!(answers.iter().filter(|a| a.status == 201).count(), 5);
}
