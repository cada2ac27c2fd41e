//! `weft status`, `stats`, `sessions` and `trace`: questions to this host's agent, and its answers for people.

mod sessions;
mod stats;
mod status;
mod trace;

use crate::arguments::{Ask, Capture, Sessions, Stats, Trace};
use crate::output::{print, print_json, print_on};
use anyhow::{Context, bail};
use std::io::{IsTerminal, Write};
use std::time::Duration;
use weft_agent::socket::{CaptureRequest, Client, TraceIngress};

/// Shows what the agent is doing.
pub(crate) async fn status(ask: &Ask, json: bool) -> anyhow::Result<()> {
    let status = Client::new(&ask.socket).status().await?;
    if json {
        print_json(&status)
    } else {
        Ok(print(&status::text(&status))?)
    }
}

/// Shows counters, once or again and again.
pub(crate) async fn stats(args: &Stats, json: bool) -> anyhow::Result<()> {
    let client = Client::new(&args.ask.socket);
    let Some(seconds) = args.watch else {
        let now = stats::only(client.stats().await?, args.port)?;
        return if json {
            print_json(&now)
        } else {
            Ok(print(&stats::text(&now, None))?)
        };
    };
    let mut ticks = tokio::time::interval(Duration::from_secs(seconds.into()));
    let mut last = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        }
        let now = stats::only(client.stats().await?, args.port)?;
        let text = if json {
            format!("{}\n", serde_json::to_string(&now)?)
        } else {
            let since = last.as_ref().map(|last| (last, u64::from(seconds)));
            // Home, then each line over the old one, then clear what is below: no flicker.
            let text = stats::text(&now, since).replace('\n', "\x1b[K\n");
            format!("\x1b[H{text}\x1b[J")
        };
        if !print_on(&text)? {
            return Ok(());
        }
        last = Some(now);
    }
}

/// Shows tracked connections.
pub(crate) async fn sessions(args: &Sessions, json: bool) -> anyhow::Result<()> {
    let sessions = Client::new(&args.ask.socket).sessions(args.limit).await?;
    if json {
        print_json(&sessions)
    } else {
        Ok(print(&sessions::text(&sessions))?)
    }
}

/// Captures frames.
pub(crate) async fn capture(args: &Capture) -> anyhow::Result<()> {
    let mut out: Box<dyn Write> = match &args.write {
        Some(path) => {
            let file = std::fs::File::create(path);
            Box::new(file.with_context(|| path.display().to_string())?)
        }
        None if std::io::stdout().is_terminal() => {
            bail!("a capture is for a file (--write FILE) or a program (| tcpdump -nr -)")
        }
        None => Box::new(std::io::stdout()),
    };
    let ports = args.port.iter().map(|id| TraceIngress::Port(*id));
    let networks = args.network.iter().map(|id| TraceIngress::Network(*id));
    let request = CaptureRequest {
        places: ports.chain(networks).collect(),
        underlay: args.underlay,
        bytes_max: usize::try_from(args.bytes).unwrap_or(usize::MAX),
        count: args.count,
        seconds: args.seconds,
        why: args.why,
    };
    let mut failed = Ok(());
    let client = Client::new(&args.ask.socket);
    let write = |bytes: &[u8]| {
        failed = out.write_all(bytes).and_then(|()| out.flush());
        failed.is_ok()
    };
    tokio::select! {
        ended = client.capture(&request, write) => ended?,
        // Every block is whole: so is the file.
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    match failed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Shows what happens to a packet.
pub(crate) async fn trace(args: &Trace, json: bool) -> anyhow::Result<()> {
    let client = Client::new(&args.ask.socket);
    let ports = if args.frame.is_none() && args.from.is_none() {
        client.status().await?.ports
    } else {
        Vec::new()
    };
    let request = trace::request(args, &ports)?;
    let answer = client.trace(&request).await?;
    if json {
        print_json(&answer)
    } else {
        Ok(print(&trace::text(&request, &answer))?)
    }
}

/// A place in words.
fn place(ingress: &TraceIngress) -> String {
    match ingress {
        TraceIngress::Port(id) => format!("port {id}"),
        TraceIngress::Network(id) => format!("network {id}"),
    }
}

/// `N thing` or `N things`.
fn plural(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}
