//! Echo requests by the stock `ping`, counted or running on.

use crate::clock::{until, wall_s};
use crate::lab::{Lab, Process};
use crate::namespace::Namespace;
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What came of a few echo requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinged {
    /// How many were sent.
    pub sent: u32,
    /// How many were answered.
    pub received: u32,
    /// TTL (hop limit) of the first reply.
    pub ttl: Option<u8>,
}

impl Pinged {
    /// Whether all came back.
    #[must_use]
    pub fn all(&self) -> bool {
        self.received == self.sent
    }
}

/// Sends `count` echo requests, 50 ms apart, and waits at most a second for the last reply.
///
/// # Errors
/// `ping` cannot be run.
pub fn ping(namespace: &Namespace, to: IpAddr, count: u32) -> Result<Pinged> {
    ping_with(namespace, to, count, "-W 1")
}

/// As [`ping`], with more of ping's own options (`-s 1400`, `-M do`, `-t 1`).
///
/// # Errors
/// `ping` cannot be run.
pub fn ping_with(namespace: &Namespace, to: IpAddr, count: u32, options: &str) -> Result<Pinged> {
    let output = namespace.outcome(&format!("ping -n -i 0.05 -W 1 {options} -c {count} {to}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let replies: Vec<&str> = text.lines().filter(|line| line.contains(" ttl=")).collect();
    let ttl = replies.first().and_then(|line| number_after(line, " ttl="));
    let received = u32::try_from(replies.len())?.min(count);
    Ok(Pinged {
        sent: count,
        received,
        ttl: ttl.and_then(|ttl| u8::try_from(ttl).ok()),
    })
}

/// What `ping` printed, whatever came of it: for error replies such as "Time to live exceeded".
///
/// # Errors
/// `ping` cannot be run.
pub fn ping_text(namespace: &Namespace, to: IpAddr, options: &str) -> Result<String> {
    let output = namespace.outcome(&format!("ping -n -i 0.05 -W 1 {options} {to}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn number_after(line: &str, key: &str) -> Option<u64> {
    let rest = line.split(key).nth(1)?;
    rest.split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// A `ping` that runs on.
#[derive(Debug)]
pub struct RunningPing {
    process: Process,
    /// When each reply came, in seconds since 1970.
    replies: Arc<Mutex<Vec<f64>>>,
}

impl RunningPing {
    /// Starts it, with an echo request every `interval`, and waits for the first reply.
    ///
    /// # Errors
    /// `ping` cannot be run, or nothing answers within five seconds.
    pub fn start(lab: &Lab, namespace: &Namespace, to: IpAddr, interval: Duration) -> Result<Self> {
        let mut command = namespace.command("ping");
        let interval = format!("{:.3}", interval.as_secs_f64());
        command.args(["-n", "-D", "-i", &interval, &to.to_string()]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = lab.spawn(&mut command)?;
        let replies: Arc<Mutex<Vec<f64>>> = Arc::default();
        let stdout = process
            .child()
            .stdout
            .take()
            .context("ping has no output")?;
        let heard = Arc::clone(&replies);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let stamp = line
                    .strip_prefix('[')
                    .and_then(|rest| rest.split(']').next()?.parse().ok());
                if let Some(stamp) = stamp.filter(|_| line.contains(" ttl=")) {
                    heard
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(stamp);
                }
            }
        });
        let ping = Self { process, replies };
        until("the first echo reply", Duration::from_secs(5), || {
            Ok(ping.last_s().map(drop))
        })?;
        Ok(ping)
    }

    /// When the last reply came, in seconds since 1970.
    #[must_use]
    pub fn last_s(&self) -> Option<f64> {
        self.replies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .last()
            .copied()
    }

    /// How many replies came so far.
    #[must_use]
    pub fn received(&self) -> usize {
        self.replies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The longest time between two replies that came after `since_s`, and the number of these replies.
    #[must_use]
    fn longest_gap(&self, since_s: f64) -> (Duration, usize) {
        let replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        let after: Vec<f64> = replies
            .iter()
            .copied()
            .filter(|at| *at >= since_s)
            .collect();
        let gap = after
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .fold(0.0, f64::max);
        (Duration::from_secs_f64(gap), after.len())
    }

    /// Waits for `count` replies that came after `since_s`, and gives the longest time between two of them.
    ///
    /// # Errors
    /// They do not come in time.
    pub fn replies_after(&self, since_s: f64, count: usize, timeout: Duration) -> Result<Duration> {
        until(&format!("{count} echo replies"), timeout, || {
            let (gap, heard) = self.longest_gap(since_s);
            Ok((heard >= count).then_some(gap))
        })
    }

    /// Waits until no reply has come for `quiet`, and gives when the last one came.
    ///
    /// # Errors
    /// Replies still come after `timeout`.
    pub fn until_quiet(&self, quiet: Duration, timeout: Duration) -> Result<f64> {
        until("the end of the echo replies", timeout, || {
            Ok(self
                .last_s()
                .filter(|last| wall_s() - last > quiet.as_secs_f64()))
        })
    }

    /// Ends it.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(self) -> Result<()> {
        self.process.stop(Signal::INT).map(drop)
    }
}
