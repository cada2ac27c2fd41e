//! A host that does all it is told at once: it follows the feed as an agent does, and reports every port ACTIVE, or DOWN
//! where its owner wants it so. What the suites see of a data plane is no more than that.

use anyhow::{Context, Result};
use reqwest::blocking::Client;
use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use weft_model::{FeedMessage, HostReport, HostSnapshot, PortReport, PortStatus, Revision};

const PAUSE: Duration = Duration::from_millis(200);

/// Ends when dropped.
pub struct Agent {
    ended: Arc<AtomicBool>,
}

impl Agent {
    /// Starts to follow `host`'s feed.
    pub fn start(feed: &str, host: &str) -> Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        // A stream lasts as long as its server, which ends with this run.
        let http = Client::builder().timeout(None);
        let follower = Follower {
            http: http.build()?,
            url: format!("{feed}/feed/v1/hosts/{host}"),
            ended: ended.clone(),
        };
        std::thread::Builder::new()
            .name(host.to_owned())
            .spawn(move || follower.follow())?;
        Ok(Self { ended })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

struct Follower {
    http: Client,
    url: String,
    ended: Arc<AtomicBool>,
}

impl Follower {
    fn follow(&self) {
        while !self.ended.load(Ordering::Relaxed) {
            if let Err(error) = self.stream() {
                eprintln!("{}: {error:#}; trying again", self.url);
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    /// One connection, until it ends.
    fn stream(&self) -> Result<()> {
        let response = self.http.get(format!("{}/watch", self.url)).send()?;
        let mut snapshot: Option<HostSnapshot> = None;
        for line in BufReader::new(response).lines() {
            if self.ended.load(Ordering::Relaxed) {
                return Ok(());
            }
            let revision = match serde_json::from_str(&line?)? {
                FeedMessage::Snapshot(whole) => snapshot.insert(*whole).revision,
                FeedMessage::Delta(delta) => {
                    let have = snapshot.take().context("a delta to nothing")?;
                    snapshot.insert(have.apply(*delta)?).revision
                }
                FeedMessage::Heartbeat { revision } => revision,
            };
            if let Some(snapshot) = &snapshot {
                self.report(snapshot, revision)?;
            }
        }
        Ok(())
    }

    fn report(&self, snapshot: &HostSnapshot, revision: Revision) -> Result<()> {
        let ports = snapshot.ports.iter().map(|(id, port)| PortReport {
            port_id: *id,
            status: if port.admin_state_up {
                PortStatus::Active
            } else {
                PortStatus::Down
            },
            message: String::new(),
        });
        let report = HostReport {
            host: snapshot.host.clone(),
            epoch: snapshot.epoch,
            revision,
            ports: ports.collect(),
            full: true,
            refused: None,
            unsupported: Vec::new(),
            vhost_user: None,
            physical_networks: Vec::new(),
            unreachable: None,
            tunnel_ip: None,
            claims: Vec::new(),
        };
        let url = format!("{}/report", self.url);
        self.http
            .post(url)
            .json(&report)
            .send()?
            .error_for_status()?;
        Ok(())
    }
}
