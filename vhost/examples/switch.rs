//! The switch alone, for measuring without building all of Weft: `switch SNAPSHOT CPU[,CPU] SESSIONS PORT=PATH...`, and perhaps the file
//! that keeps sessions over a restart. It runs until
//! its standard input ends or it is killed, and prints the ports' counters every second.

use std::path::Path;
use std::sync::Arc;
use weft_model::HostSnapshot;
use weft_vhost::alone::{Alone, AloneConfig};
use weft_vhost::engine::Limits;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [snapshot, cpus, sessions, sockets @ ..] = arguments.as_slice() else {
        return Err("usage: switch SNAPSHOT CPU[,CPU] SESSIONS PORT=PATH... [FILE]".into());
    };
    let snapshot = Arc::new(HostSnapshot::from_file(Path::new(snapshot))?);
    let sessions: u32 = sessions.parse()?;
    let pair = |text: &String| {
        text.split_once('=')
            .map(|(port, path)| (port.to_owned(), path.into()))
    };
    let config = AloneConfig {
        link: None,
        sockets: sockets.iter().filter_map(pair).collect(),
        cpus: cpus.split(',').map(str::parse).collect::<Result<_, _>>()?,
        sessions_file: sockets
            .iter()
            .find(|text| !text.contains('='))
            .map(Into::into),
        limits: Limits {
            sessions_max: sessions,
            sessions_per_port_max: sessions,
        },
    };
    let alone = Alone::start(&snapshot, &config)?;
    let (ended, end) = std::sync::mpsc::channel::<()>();
    // Held, never sent to: the wait below only times out.
    let held = ended;
    while end.recv_timeout(std::time::Duration::from_secs(1))
        == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
    {
        let sessions = alone.switch().ask(|engine| engine.sessions_count());
        let line = format!("{sessions:?} {:?}\n", alone.totals());
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes())?;
    }
    drop(held);
    Ok(())
}
