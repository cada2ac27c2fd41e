//! docs/parity.md against what the server says of itself.

use std::collections::BTreeSet;
use weft_tests_api::{Api, text};

const PARITY: &str = include_str!("../../../../docs/parity.md");

#[tokio::test]
async fn every_extension_has_its_line_in_parity() {
    let api = Api::start().await;
    let said = api.admin().await.get("/v2.0/extensions").await.ok();
    let said = said["extensions"].as_array().expect("a list");
    let said: BTreeSet<String> = said
        .iter()
        .map(|extension| text(&extension["alias"]))
        .collect();
    let table = PARITY.lines().filter_map(|line| line.strip_prefix("| "));
    let lines: Vec<Vec<&str>> = table
        .map(|line| line.split('|').map(str::trim).collect())
        .filter(|cells: &Vec<&str>| cells[0] != "alias")
        .collect();
    let written: BTreeSet<String> = lines.iter().map(|cells| cells[0].to_owned()).collect();
    assert_eq!(written, said);
    assert_eq!(lines.len(), said.len(), "one line each");
    for cells in lines {
        let engines = &cells[2..5];
        let known = |word: &&str| ["yes", "no", "warn", "-"].contains(word);
        assert!(cells[1] == "yes" && engines.iter().all(known), "{cells:?}");
    }
}
