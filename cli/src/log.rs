//! The daemons' log: on standard error, a line an event, as text or as JSON.

use std::io::IsTerminal;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging what `filter` lets through.
pub(crate) fn start(filter: &str, json: bool) -> anyhow::Result<()> {
    let filter: Targets = filter.parse()?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(lines.json().flatten_event(true)).try_init()?;
    } else {
        registry.with(lines.compact()).try_init()?;
    }
    Ok(())
}
