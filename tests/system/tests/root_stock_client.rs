//! The unmodified OpenStack client drives the canonical workflow: password login and catalogue by the built-in identity,
//! then chapters 1 to 6 of the story.

use anyhow::{Context, Result};
use std::path::Path;
use weft_kit::WeftOptions;
use weft_kit::openstack::Stock;
use weft_tests_system::scene::Scene;
use weft_tests_system::story;

#[test]
fn the_stock_client_plays_the_story() -> Result<()> {
    let mut scene = Scene::open("weft-stock", &WeftOptions::new(None)?)?;
    // The target directory's own: kept between runs, gone with `cargo clean`.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let stock = Stock::install(cache, &scene.host)?;

    let catalog = stock.json(&scene.admin, "catalog list")?;
    let types: Vec<&str> = catalog
        .as_array()
        .context("no list")?
        .iter()
        .filter_map(|e| e["Type"].as_str())
        .collect();
    assert!(
        types.contains(&"network") && types.contains(&"identity"),
        "{catalog}"
    );
    let extensions = stock.json(&scene.admin, "extension list --network")?;
    let aliases: Vec<&str> = extensions
        .as_array()
        .context("no list")?
        .iter()
        .filter_map(|e| e["Alias"].as_str())
        .collect();
    for alias in [
        "router",
        "security-group",
        "binding",
        "external-net",
        "provider",
    ] {
        assert!(aliases.contains(&alias), "{alias} is not among {aliases:?}");
    }

    scene.operator = Box::new(stock.clone());
    story::play(&mut scene, story::STOCK_CHAPTERS);

    let wrong = scene.admin.with("admin", "not-the-password", "admin");
    let refused = scene.operator.openstack(&wrong, "network show provider1");
    let refused = refused.err().context("a wrong password was let in")?;
    assert!(format!("{refused:#}").contains("401"), "{refused:#}");

    let report = scene.close()?;
    assert_eq!(report.failures(), Vec::<String>::new());
    Ok(())
}
