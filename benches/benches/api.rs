//! The API over HTTP with SQLite: what one request takes that creates, and one that lists.

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use std::time::Duration;
use tokio::runtime::Runtime;
use weft_tests_api::{Api, Session, text};

/// Ports in the network that is listed.
const PORTS: usize = 100;
/// Ports of one request.
const BULK: usize = 25;

/// A server, the administrator without quotas, and a network with room for ports.
async fn start() -> (Api, Session, String) {
    let api = Api::start().await;
    let admin = api.admin().await;
    let quota = json!({ "quota": { "network": -1, "port": -1 } });
    let path = format!("/v2.0/quotas/{}", admin.project_id);
    admin.put(&path, &quota).await.expect(200);
    let network = admin.create("network", json!({ "name": "bench" })).await;
    let id = text(&network["id"]);
    let subnet = json!({ "network_id": id, "ip_version": 4, "cidr": "10.0.0.0/8" });
    admin.create("subnet", subnet).await;
    (api, admin, id)
}

fn requests(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("threads");
    let (_api, admin, network_id) = runtime.block_on(start());
    let port = json!({ "network_id": network_id });
    runtime.block_on(async {
        let ports = json!({ "ports": vec![port.clone(); BULK] });
        for _ in 0..PORTS / BULK {
            admin.post("/v2.0/ports", &ports).await.expect(201);
        }
    });
    let mut group = criterion.benchmark_group("api");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(3));
    for (name, path) in [
        ("list/100-ports", "/v2.0/ports"),
        (
            "list/100-ports-by-field",
            "/v2.0/ports?fields=id&fields=name",
        ),
        ("list/networks", "/v2.0/networks"),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| runtime.block_on(admin.get(path)).expect(200));
        });
    }
    group.bench_function("create/network", |b| {
        b.iter(|| runtime.block_on(admin.create("network", json!({}))));
    });
    group.bench_function("create/port", |b| {
        b.iter(|| runtime.block_on(admin.create("port", port.clone())));
    });
    group.finish();
}

criterion_group!(benches, requests);
criterion_main!(benches);
