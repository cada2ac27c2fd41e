//! The user engine under test, as its workers use it: a header is judged, and a whole frame only where that is not enough. It can be
//! killed between any two frames, and another one goes on with the sessions that are left in a file.

use crate::engine::{EngineUnderTest, Limits, Observed, SessionSeen, in_order};
use crate::user_restarts::Restarts;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use weft_dataplane::Verdict;
use weft_dataplane::flow::key::{Ingress, SessionKey};
use weft_model::{HostSnapshot, MacAddress, NetworkId};
use weft_vhost::engine::{
    self, Compiler, Engine, EngineConfig, Glance, HEADER_BYTES, Judged, Now, Place, Seeds, Train,
};
use weft_wire::virtio_net::Load;
use weft_wire::{ethernet, outer};

/// The user engine under test.
pub struct UserUnderTest {
    pub(crate) engine: Engine,
    pub(crate) compiler: Compiler,
    whole: bool,
    quick: usize,
    pub(crate) restarts: Option<Restarts>,
}

/// A new one; another start has other secrets.
pub(crate) fn engine(limits: Limits, start: u64) -> (Engine, Compiler) {
    // What leaves by a tunnel has no outer MACs in vectors.
    let config = EngineConfig {
        limits: engine::Limits {
            sessions_max: limits.sessions_max,
            sessions_per_port_max: limits.sessions_per_port_max,
        },
        seeds: Seeds([
            0x243f_6a88_85a3_08d3 ^ start,
            0x1319_8a2e_0370_7344,
            0xa409_3822_299f_31d0,
            0x082e_fa98_ec4e_6c89,
        ]),
    };
    let mut engine = Engine::new(config);
    engine.link_use(MacAddress::default());
    (engine, Compiler::new(config.seeds))
}

impl UserUnderTest {
    /// An engine; with `whole`, every frame is judged as a whole, and the quick way is not used.
    #[must_use]
    pub fn new(whole: bool) -> Self {
        let (engine, compiler) = engine(Limits::default(), 0);
        Self {
            engine,
            compiler,
            whole,
            quick: 0,
            restarts: None,
        }
    }

    /// Frames that were judged by their headers so far.
    #[must_use]
    pub fn quick(&self) -> usize {
        self.quick
    }

    /// Where a frame enters, and without its tag if that is an uplink.
    pub(crate) fn enter<'a>(
        &self,
        ingress: Ingress,
        frame: &'a [u8],
    ) -> Option<(Place, Cow<'a, [u8]>)> {
        if ingress == Ingress::Underlay {
            let mut first = [0xa5; outer::BYTES_MAX];
            let bytes = frame.len().min(first.len());
            first[..bytes].copy_from_slice(&frame[..bytes]);
            let (place, outer_bytes) = self.engine.decapsulate(&first, frame.len())?;
            return Some((place, Cow::Borrowed(&frame[outer_bytes..])));
        }
        let place = self.engine.place(ingress)?;
        if !self.engine.is_uplink(place) {
            return Some((place, Cow::Borrowed(frame)));
        }
        let (vlan_id, frame) = match ethernet::untag(frame) {
            Some((vlan_id, frame)) => (vlan_id, Cow::Owned(frame)),
            None => (0, Cow::Borrowed(frame)),
        };
        Some((self.engine.uplink(place, vlan_id)?, frame))
    }

    /// The verdict by the header alone, if that is enough.
    fn judge(
        &mut self,
        ingress: Ingress,
        frame: &[u8],
        now: Now,
    ) -> Result<Option<Verdict>, String> {
        let Some((place, frame)) = self.enter(ingress, frame) else {
            return Ok(None);
        };
        let frame = &frame[..];
        let mut header = [0; HEADER_BYTES];
        let bytes = frame.len().min(HEADER_BYTES);
        header[..bytes].copy_from_slice(&frame[..bytes]);
        // What is behind a shorter frame may be anything.
        header[bytes..].fill(0xa5);
        let Some(entrance) = self.engine.entrance(place) else {
            return Ok(None);
        };
        let mut glances = [Glance::default()];
        (self.engine).glance(&entrance, &header, frame.len(), &mut glances[0]);
        self.engine.guess(&mut glances);
        let [glance] = glances;
        let train = Train {
            frame_bytes: frame.len(),
            load: Load::NONE,
        };
        let (mut headers, mut judged) = ([header], Vec::new());
        let engine = &mut self.engine;
        if !engine.judge(&glance, &train, &mut headers, now, &mut judged) {
            engine.open((&glance, &train), None, &mut headers, now, &mut judged);
        }
        let [header] = headers;
        let [judged] = judged[..] else {
            return Err(format!("{} verdicts on one frame", judged.len()));
        };
        let mut out = frame.to_vec();
        out[..bytes].copy_from_slice(&header[..bytes]);
        Ok(match judged {
            Judged::Slow | Judged::Elsewhere => None,
            Judged::Drop(reason) => Some(Verdict::Drop(reason)),
            Judged::Tunnel(entry) => {
                let outer = self.engine.outer(entry).ok_or("a tunnel of no plan")?;
                let bytes = outer.header_bytes();
                let header = outer.header(out.len());
                Some(Verdict::Tunnel {
                    frame: [&header[..bytes], &out[..]].concat(),
                })
            }
            Judged::Send(place) => match self.engine.ingress(place) {
                Some(Ingress::Port(port)) => Some(Verdict::Deliver { port, frame: out }),
                Some(Ingress::Network(network)) => Some(Verdict::Uplink {
                    network,
                    frame: match self.engine.uplink_tag(place) {
                        Some(vlan_id) => ethernet::tag(&out, vlan_id),
                        None => out,
                    },
                }),
                Some(Ingress::Underlay) | None => {
                    return Err(format!("sent to {place:?}, which is nobody's"));
                }
            },
        })
    }
}

impl EngineUnderTest for UserUnderTest {
    fn name(&self) -> &'static str {
        "user"
    }

    fn reset(&mut self, limits: Limits) -> Result<(), String> {
        (self.engine, self.compiler) = engine(limits, 0);
        self.restarts_reset(limits)?;
        Ok(())
    }

    fn apply(&mut self, snapshot: &Arc<HostSnapshot>) -> Result<(), String> {
        if self.restarts_before_snapshot(snapshot)? {
            return Ok(());
        }
        self.engine.enforce(self.compiler.prepare(snapshot));
        self.snapshot_kept();
        Ok(())
    }

    fn neighbour_put(
        &mut self,
        network: NetworkId,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), String> {
        self.engine.neighbour_put(network, address, mac);
        if let Some(restarts) = &mut self.restarts {
            restarts.neighbours.push((network, address, mac));
        }
        Ok(())
    }

    fn process(&mut self, ingress: Ingress, frame: &[u8], now_s: u32) -> Result<Observed, String> {
        self.restarts_before_frame(ingress, frame, now_s)?;
        let now = Now {
            s: now_s,
            ns: u64::from(now_s) * 1_000_000_000,
        };
        let quick = if self.whole {
            None
        } else {
            self.judge(ingress, frame, now)?
        };
        self.quick += usize::from(quick.is_some());
        let (verdict, copy, copies, logs) = match quick {
            Some(verdict) => (verdict, None, Vec::new(), Vec::new()),
            None => {
                let outcome = self.engine.process(ingress, frame, now);
                (outcome.verdict, outcome.copy, outcome.copies, outcome.logs)
            }
        };
        Ok(Observed {
            verdict,
            copy,
            copies: in_order(copies),
            logs: Some(logs),
            rules: vec![],
            words: vec![],
        })
    }

    fn sessions(&mut self) -> Result<BTreeSet<SessionSeen>, String> {
        let seen = |view: engine::SessionView| SessionSeen {
            forward: SessionKey {
                ingress: view.ingress,
                tuple: view.forward,
            },
            reply: SessionKey {
                ingress: view.output,
                tuple: view.reply,
            },
        };
        Ok(self.engine.sessions().map(seen).collect())
    }
}
