//! Garbage collection of sessions: those idle for too long, and those of a port whose slot is given away.
//!
//! Guarantees: the table is read in batches and the kernel deletes few at a time, so no packet waits for it; age and quota
//! are the programs' to judge. Cost: one pass over the table.

use crate::engine::Engine;
use crate::error::EngineError;
use crate::sys::{Entry, TestRun};
use crate::test_run::{cb, context};
use rustix::time::{ClockId, clock_gettime};
use weft_ebpf_common::constants::{expire, state};
use weft_ebpf_common::layout::{Session, SessionKey};
use weft_model::limits::session_timeout_s as timeout;
use zerocopy::FromBytes;

/// Entries read at once. A bucket of the hash must fit.
const BATCH: u32 = 1_024;
/// Bytes in front of the keys: a frame needs a header.
const HEADER_BYTES: usize = 14;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

impl Engine {
    /// Deletes the sessions that are idle for too long; `now_s` none means the programs' own clock. Says how many.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn expire(&mut self, now_s: Option<u32>) -> Result<u32, EngineError> {
        let now_s = now_s.unwrap_or_else(clock_s);
        self.sessions_delete(0, now_s, |key, session| is_idle(key, session, now_s))
    }

    /// Deletes the sessions of a port's slot.
    pub(crate) fn port_sessions_delete(&self, slot: u32) -> Result<u32, EngineError> {
        self.sessions_delete(1, 0, |key, s| {
            key.ingress == slot || s.output == slot || s.owner == slot
        })
    }

    fn sessions_delete(
        &self,
        whatever: u32,
        now_s: u32,
        picks: impl Fn(&SessionKey, &Session) -> bool,
    ) -> Result<u32, EngineError> {
        let map = &self.loaded.maps.sessions;
        let (mut cursor, mut gone) = (None, 0);
        // Entries that come while we read cannot keep us here for ever.
        for _batch in 0..=self.config.sessions_max.saturating_mul(2) / (BATCH / 2) {
            let (entries, next) = map.lookup_batch(cursor.as_ref(), BATCH)?;
            let picked: Vec<&[u8]> = entries.iter().filter_map(|e| pick(e, &picks)).collect();
            for keys in picked.chunks(expire::KEYS_MAX as usize) {
                gone += self.keys_delete(keys, whatever, now_s)?;
            }
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(gone)
    }

    fn keys_delete(&self, keys: &[&[u8]], whatever: u32, now_s: u32) -> Result<u32, EngineError> {
        const NAME: &str = "weft_expire";
        let program = self.loaded.programs.get(NAME);
        let program = program.ok_or(EngineError::Missing { name: NAME })?;
        let mut data = vec![0; HEADER_BYTES];
        data.extend(keys.concat());
        let count = u32::try_from(keys.len()).unwrap_or(0);
        let context = context([count, whatever, now_s]);
        let run = TestRun {
            data: &data,
            context: &context,
            repeat: 1,
            ..TestRun::default()
        };
        Ok(cb(&program.test_run(&run)?.context)[3])
    }
}

/// The key of an entry that is picked.
fn pick<'a>(entry: &'a Entry, picks: &impl Fn(&SessionKey, &Session) -> bool) -> Option<&'a [u8]> {
    let key = SessionKey::read_from_bytes(&entry.0).ok()?;
    let session = Session::read_from_bytes(&entry.1).ok()?;
    picks(&key, &session).then_some(&entry.0)
}

/// Whether an entry was not met for longer than its session may be idle: the programs ask the other one too.
fn is_idle(key: &SessionKey, session: &Session, now_s: u32) -> bool {
    let timeout_s = match (key.protocol, session.state) {
        (TCP, state::OPENING) => timeout::TCP_OPENING,
        (TCP, state::CLOSING) => timeout::TCP_CLOSING,
        (TCP, _) => timeout::TCP_ESTABLISHED,
        (ICMP | ICMPV6, _) => timeout::ICMP,
        (_, state::OPENING) => timeout::UDP_OPENING,
        (_, _) => timeout::UDP_ESTABLISHED,
    };
    now_s.saturating_sub(session.seen_s) > timeout_s
}

/// The programs' clock: `bpf_ktime_get_coarse_ns` in seconds.
fn clock_s() -> u32 {
    u32::try_from(clock_gettime(ClockId::MonotonicCoarse).tv_sec).unwrap_or(u32::MAX)
}
