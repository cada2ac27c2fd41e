//! The story with virtual machines, as `make demo-vm` shows it.

use anyhow::Result;
use weft_kit::WeftOptions;
use weft_tests_system::scene::Scene;
use weft_tests_system::vm_story;

#[test]
fn two_virtual_machines_live_the_story() -> Result<()> {
    let mut options = WeftOptions::new(None)?;
    options.vhost_user = true;
    let mut scene = Scene::open("weft-vm-story", &options)?;
    vm_story::play(&mut scene)?;
    let report = scene.close()?;
    assert_eq!(report.failures(), Vec::<String>::new());
    Ok(())
}
