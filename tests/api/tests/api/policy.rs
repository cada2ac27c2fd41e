//! An operator's own rules.

use serde_json::json;
use weft_control::{Control, ControlConfig};
use weft_tests_api::{Api, Storage, config};

/// Puts rules into the configuration.
fn rules(folder: &tempfile::TempDir, text: &str, config: &mut ControlConfig) {
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, text).expect("a file");
    config.policy_file = Some(file);
}

#[tokio::test]
async fn rules_of_the_file_hold() {
    let folder = tempfile::tempdir().expect("as the test made it");
    let text = "create_network: role:reader\ncreate_network:shared: rule:admin_or_mine\nadmin_or_mine: role:admin or role:member\n\
                create_router: '!'\n";
    let api = Api::start_with(|config| rules(&folder, text, config)).await;
    let (reader, member) = (
        api.user("p1", "reader").await,
        api.user("p1", "member").await,
    );
    let new = json!({ "network": { "name": "n" } });
    reader.post("/v2.0/networks", &new).await.expect(201);
    let shared = json!({ "network": { "name": "n", "shared": true } });
    reader
        .post("/v2.0/networks", &shared)
        .await
        .error(403, "PolicyNotAuthorized");
    member.post("/v2.0/networks", &shared).await.expect(201);
    let router = json!({ "router": {} });
    api.admin()
        .await
        .post("/v2.0/routers", &router)
        .await
        .error(403, "PolicyNotAuthorized");
    // What the file does not name is as ever.
    let group = json!({ "security_group": { "name": "g" } });
    reader
        .post("/v2.0/security-groups", &group)
        .await
        .error(403, "PolicyNotAuthorized");
    member
        .post("/v2.0/security-groups", &group)
        .await
        .expect(201);
}

#[tokio::test]
async fn a_wrong_file_is_refused_with_its_rule() {
    let folder = tempfile::tempdir().expect("as the test made it");
    let storage = Storage::create();
    let mut config = config(&storage);
    rules(&folder, "create_network: role:reader and", &mut config);
    let text = |error: &dyn std::error::Error| {
        format!("{error}: {}", error.source().expect("as the test made it"))
    };
    let refused = Control::bind(config.clone())
        .await
        .err()
        .expect("as the test made it");
    let refused = text(&refused);
    assert!(
        refused.contains("policy.yaml: at create_network: it ends"),
        "{refused}"
    );
    config.policy_file = Some(folder.path().join("nowhere.yaml"));
    let missing = Control::bind(config)
        .await
        .err()
        .expect("as the test made it");
    assert!(missing.to_string().contains("nowhere.yaml"), "{missing}");
}
