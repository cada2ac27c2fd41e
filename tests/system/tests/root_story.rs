//! The demo's story, played by the kit's client: every check of it must hold, and nothing may remain.

use anyhow::Result;
use weft_kit::WeftOptions;
use weft_tests_system::scene::Scene;
use weft_tests_system::{over_hosts, story};

#[test]
fn the_canonical_workflow_holds() -> Result<()> {
    let mut scene = Scene::open("weft-story", &WeftOptions::new(None)?)?;
    story::play_all(&mut scene);
    let report = scene.close()?;
    assert_eq!(report.failures(), Vec::<String>::new());
    Ok(())
}

/// The same over several hosts, with every step on the wire.
#[test]
fn it_holds_over_several_hosts() -> Result<()> {
    let report = over_hosts::play("weft-story-hosts", WeftOptions::new(None)?)?;
    assert_eq!(report.failures(), Vec::<String>::new());
    Ok(())
}
