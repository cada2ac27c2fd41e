//! The story: the canonical self-service workflow on real packets, in eight chapters that follow on each other.
//!
//! It is told once and played by several: the demo, a system test with the kit's client, and one with the stock client,
//! which plays the first six.

mod east_west;
mod floating_ip;
mod guests;
mod networks;
mod outbound;
mod projects;
mod revocation;
mod spoofing;

use crate::scene::Scene;
use anyhow::{Context, Result};
use std::net::Ipv4Addr;
use weft_kit::tcp::Server;
use weft_kit::{Cloud, Guest};

/// What later chapters need of earlier ones.
#[derive(Debug, Default)]
pub struct Story {
    /// The user whose project it is.
    user: Option<Cloud>,
    /// The router's address on the provider network.
    gateway: Option<Ipv4Addr>,
    /// Three guests: two on the first network, one on the second.
    guests: Vec<Guest>,
    /// Servers that run on.
    servers: Vec<Server>,
    /// The floating IP of the first guest.
    floating_ip: Option<Ipv4Addr>,
    /// The ids of the rules that let ICMP and TCP/22 in.
    rules: Option<(String, String)>,
}

/// One chapter.
#[derive(Clone, Copy, Debug)]
struct Chapter {
    title: &'static str,
    play: fn(&mut Story, &mut Scene) -> Result<()>,
    /// Whether nothing can follow if it fails.
    needed: bool,
}

/// The order.
const CHAPTERS: &[Chapter] = &[
    Chapter {
        title: "Networks, subnets, a router with a gateway",
        play: networks::play,
        needed: true,
    },
    Chapter {
        title: "Three guests get their addresses",
        play: guests::play,
        needed: true,
    },
    Chapter {
        title: "East-west: on one network, and across the router",
        play: east_west::play,
        needed: false,
    },
    Chapter {
        title: "North-south: nothing in, SNAT out",
        play: outbound::play,
        needed: false,
    },
    Chapter {
        title: "Security group rules and a floating IP",
        play: floating_ip::play,
        needed: false,
    },
    Chapter {
        title: "A rule goes while its traffic runs",
        play: revocation::play,
        needed: false,
    },
    Chapter {
        title: "A guest that lies",
        play: spoofing::play,
        needed: false,
    },
    Chapter {
        title: "Two projects with the same addresses",
        play: projects::play,
        needed: false,
    },
];

/// How many chapters the stock client plays: those that consist of its commands.
pub const STOCK_CHAPTERS: usize = 6;

/// Plays the first `chapters` chapters. What fails is in the scene's report.
pub fn play(scene: &mut Scene, chapters: usize) {
    let mut story = Story::default();
    let chapters = &CHAPTERS[..chapters.min(CHAPTERS.len())];
    for (index, chapter) in chapters.iter().enumerate() {
        scene
            .report
            .chapter(index + 1, chapters.len(), chapter.title);
        if let Err(error) = (chapter.play)(&mut story, scene) {
            scene.report.failure(&error);
            if chapter.needed {
                return;
            }
        }
    }
}

/// Plays all chapters.
pub fn play_all(scene: &mut Scene) {
    play(scene, CHAPTERS.len());
}

impl Story {
    fn user(&self) -> Result<Cloud> {
        self.user.clone().context("no project was made")
    }

    fn gateway(&self) -> Result<Ipv4Addr> {
        self.gateway.context("the router has no gateway address")
    }

    fn floating_ip(&self) -> Result<Ipv4Addr> {
        self.floating_ip.context("no floating IP was made")
    }

    fn guests(&self) -> Result<[&Guest; 3]> {
        match &self.guests[..] {
            [one, two, three] => Ok([one, two, three]),
            _ => anyhow::bail!("the guests were not started"),
        }
    }
}
