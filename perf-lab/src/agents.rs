//! What an agent's end and return cost: packets lost between guests of two hosts under ten thousand a second.

use crate::figures::Bar;
use anyhow::Result;
use weft_tests_system::agents::{Cloud, End};

/// The bars, each from one run in which the agents of both hosts end and return.
pub(crate) fn bars(_rounds: usize) -> Result<Vec<Bar>> {
    let mut cloud = Cloud::open("weft-agbars")?;
    let mut bars = Vec::new();
    for end in End::ALL {
        let loss = cloud.loss(end)?;
        let what = match end {
            End::Kill => "agents killed and started",
            End::Stop => "agents stopped and started",
            End::Upgrade => "agents upgraded to maps of another layout",
        };
        bars.push(Bar {
            name: format!("{what}: packets lost of 10,000 a second, two hosts"),
            bar: "0".to_owned(),
            figure: format!(
                "{} of {} in {:.1} s",
                loss.lost,
                loss.sent,
                loss.lasted.as_secs_f64()
            ),
            holds: loss.lost == 0,
            rounds: Vec::new(),
        });
    }
    cloud.close()?;
    Ok(bars)
}
