//! `bars WORD`: measures the bars of an issue, prints a line each, and says by the exit status whether all hold.

use crate::figures::Bar;
use crate::{
    agents, api, classify, differential, enforce, forward, gateway, limited, members, memory,
    overlay, simulate, user,
};
use anyhow::{Result, bail};
use std::process::ExitCode;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whose bars.
    word: Word,
    /// Only groups whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Interleaved rounds where figures are medians of rounds.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// One JSON array instead of lines.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Word {
    /// Issue "The main job, on real packets, in one command".
    Main,
    /// Issue "The API fast, on a database that several servers share".
    Api,
    /// Issue "The user engine: a vhost-user switch for KVM guests".
    User,
    /// Issue "Many hosts".
    Hosts,
}

/// A group of bars that one measurement gives.
struct Group {
    name: &'static str,
    measure: fn(usize) -> Result<Vec<Bar>>,
}

const MAIN: &[Group] = &[
    Group {
        name: "classify",
        measure: classify::bars,
    },
    Group {
        name: "forward",
        measure: forward::bars,
    },
    Group {
        name: "enforce",
        measure: enforce::bars,
    },
    Group {
        name: "differential",
        measure: differential::bars,
    },
    Group {
        name: "memory",
        measure: memory::all_in_one,
    },
    Group {
        name: "memory-large",
        measure: memory::large_agent,
    },
];

const API: &[Group] = &[
    Group {
        name: "loops",
        measure: api::loops,
    },
    Group {
        name: "bulk",
        measure: api::bulk,
    },
    Group {
        name: "lists",
        measure: api::lists,
    },
    Group {
        name: "pages",
        measure: api::pages,
    },
    Group {
        name: "tries",
        measure: api::tries,
    },
    Group {
        name: "postgresql",
        measure: api::pages_postgresql,
    },
    Group {
        name: "neutron",
        measure: api::beside_neutron,
    },
];

const USER: &[Group] = &[
    Group {
        name: "switch",
        measure: user::bars,
    },
    Group {
        name: "limited",
        measure: |rounds| limited::bars(rounds.min(LIMITED_ROUNDS)),
    },
];

/// What is limited differs little from one round to the next, and each takes half a minute.
const LIMITED_ROUNDS: usize = 2;

const HOSTS: &[Group] = &[
    Group {
        name: "overlay",
        measure: overlay::bars,
    },
    Group {
        name: "agents",
        measure: agents::bars,
    },
    Group {
        name: "members",
        measure: members::bars,
    },
    Group {
        name: "simulate",
        measure: simulate::bars,
    },
    Group {
        name: "realize",
        measure: simulate::realize_bars,
    },
    Group {
        name: "gateway",
        measure: gateway::bars,
    },
];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let groups = match arguments.word {
        Word::Main => MAIN,
        Word::Api => API,
        Word::User => USER,
        Word::Hosts => HOSTS,
    };
    let mut all = Vec::new();
    let chosen = groups.iter();
    let chosen: Vec<&Group> = chosen
        .filter(|group| group.name.contains(&arguments.only))
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = groups.iter().map(|group| group.name).collect();
        bail!(
            "--only {}: the groups are {}",
            arguments.only,
            names.join(", ")
        );
    }
    for group in chosen {
        let bars = (group.measure)(arguments.rounds).unwrap_or_else(|error| {
            vec![Bar {
                name: group.name.to_owned(),
                bar: "measured".to_owned(),
                figure: format!("failed: {error:#}"),
                holds: false,
                rounds: Vec::new(),
            }]
        });
        all.extend(bars);
    }
    show(&all, arguments.json)?;
    let holds = !all.is_empty() && all.iter().all(|bar| bar.holds);
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints bars, a line each or as JSON.
pub(crate) fn show(bars: &[Bar], json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(bars)?);
    } else {
        bars.iter().for_each(line);
    }
    Ok(())
}

fn line(bar: &Bar) {
    let word = if bar.holds {
        "holds      "
    } else {
        "FALLS SHORT"
    };
    println!("{word}  {}: {}  (bar: {})", bar.name, bar.figure, bar.bar);
}
