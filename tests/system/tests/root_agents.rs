//! Neither an agent's end nor its return loses a packet: programs, maps and links stay, and the next process takes them
//! over, with the tunnels' slots.

use anyhow::Result;
use weft_tests_system::agents::{Cloud, End};

#[test]
fn agents_end_and_return_under_load() -> Result<()> {
    let mut cloud = Cloud::open("weft-agents")?;
    for end in End::ALL {
        let loss = cloud.loss(end)?;
        assert_eq!(loss.lost, 0, "{end:?}: {loss:?}");
    }
    cloud.close()
}
