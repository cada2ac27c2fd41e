//! The demo's story, played by the kit's client: every check of it must hold, and nothing may remain.

use anyhow::Result;
use weft_kit::WeftOptions;
use weft_tests_system::scene::Scene;
use weft_tests_system::story;

#[test]
fn the_canonical_workflow_holds() -> Result<()> {
    let mut scene = Scene::open("weft-story", &WeftOptions::new(None)?)?;
    story::play_all(&mut scene);
    let report = scene.close()?;
    assert_eq!(report.failures(), Vec::<String>::new());
    Ok(())
}
