//! What XDP on the uplink would bring, and what it costs: Weft on two hosts as in [`crate::overlay`], with XDP programs on
//! the receiving host's underlay device.
//!
//! *Pass* does nothing: it is what any XDP program there costs everything that it leaves to tcx. *Decapsulate* does all at
//! once and asks nobody: it is the most that could be won. Native and generic XDP each.

use crate::figures::spread;
use crate::overlay::{B, Bench, GUEST_DEVICE, UNDERLAY};
use crate::process::Held;
use anyhow::Result;

/// What sits on the device, and whether TCP is measured: what only decapsulates has no way for whole segments.
const WAYS: [(&str, Option<&str>, bool); 5] = [
    ("tcx alone", None, true),
    ("tcx behind native XDP that passes all", Some("pass"), true),
    (
        "tcx behind generic XDP that passes all",
        Some("pass-generic"),
        true,
    ),
    (
        "native XDP that decapsulates and asks nobody",
        Some("decapsulate"),
        false,
    ),
    (
        "generic XDP that decapsulates and asks nobody",
        Some("decapsulate-generic"),
        false,
    ),
];

/// Measures, and prints a line for each way.
pub(crate) fn run(rounds: usize) -> Result<()> {
    let bench = Bench::new()?;
    let mut ns = [const { Vec::new() }; WAYS.len()];
    let mut arrived = [1.0f64; WAYS.len()];
    let mut gbit_s = [const { Vec::new() }; WAYS.len()];
    for round in 1..=rounds {
        bench.with_weft(|bench| {
            for (way, (_, program, tcp)) in WAYS.iter().enumerate() {
                let (guest, of) = &bench.guests[B];
                let to = program
                    .filter(|program| program.starts_with("decapsulate"))
                    .map(|_| of.guest.tap.as_str());
                // A veth takes frames from an XDP redirect only if the other end has a program.
                let _far = to
                    .map(|_| Held::start(guest, GUEST_DEVICE, "pass"))
                    .transpose()?;
                let start = |program| Held::start_to(&bench.hosts[1], UNDERLAY, program, to);
                let _held = program.map(start).transpose()?;
                let (took, share) = bench.packets(B)?;
                ns[way].push(took);
                arrived[way] = arrived[way].min(share);
                if *tcp {
                    gbit_s[way].push(bench.tcp()?);
                }
            }
            Ok(())
        })?;
        eprintln!("round {round} of {rounds}");
    }
    for (way, (name, _, tcp)) in WAYS.iter().enumerate() {
        let percent = arrived[way] * 100.0;
        let tcp = match tcp {
            true => format!(", TCP {:.1} Gbit/s", spread(&gbit_s[way]).median),
            false => String::new(),
        };
        println!(
            "{name}: {} ns a packet{tcp} (at least {percent:.0} % arrived)",
            spread(&ns[way])
        );
    }
    Ok(())
}
